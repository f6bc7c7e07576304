"""What is neither file nor process nor socket: System V and POSIX IPC, keyrings."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.processes import new_mark
from support.programs import FORBIDDEN, act, assert_escapes, assert_refused, inside, outside, text

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long
ABSENT = FORBIDDEN | {errno.ENOENT, errno.EACCES}
IPC_CREAT_EXCL = 0o3000
IPC_RMID = 0


@contextlib.contextmanager
def host_object(kind: str) -> Iterator[int]:
    """A System V object of the test's, removed at the end."""
    key = random.randrange(1 << 16, 1 << 30)
    make = {
        "sysv": lambda: LIBC.shmget(key, 4096, IPC_CREAT_EXCL | 0o666),
        "sysv_queue": lambda: LIBC.msgget(key, IPC_CREAT_EXCL | 0o666),
        "sysv_semaphore": lambda: LIBC.semget(key, 1, IPC_CREAT_EXCL | 0o666),
    }[kind]
    identifier = make()
    if identifier < 0:
        pytest.skip(f"this host refuses it: {errno.errorcode[ctypes.get_errno()]}")
    try:
        yield key
    finally:
        if kind == "sysv":
            LIBC.shmctl(identifier, IPC_RMID, None)
        elif kind == "sysv_queue":
            LIBC.msgctl(identifier, IPC_RMID, None)
        else:
            LIBC.semctl(identifier, 0, IPC_RMID)


@pytest.mark.parametrize("kind", ["sysv", "sysv_queue", "sysv_semaphore"])
@pytest.mark.parametrize("limits", [{}, {"memory_limit": "256M"}], ids=["plain", "limited"])
def test_system_v_objects_of_the_host(kind: str, limits: dict[str, object]) -> None:
    with host_object(kind) as key:
        assert_escapes(act(kind, key))
        assert_refused(inside(act(kind, key), **limits), ABSENT)


def test_posix_queues_of_the_host() -> None:
    name = f"/{new_mark()}"
    descriptor = LIBC.mq_open(name.encode(), os.O_CREAT | os.O_RDWR, 0o666, None)
    if descriptor < 0:
        pytest.skip(f"this host refuses it: {errno.errorcode[ctypes.get_errno()]}")
    try:
        assert_escapes(act("posix_queue", name))
        assert_refused(inside(act("posix_queue", name), memory_limit="256M"), ABSENT)
    finally:
        LIBC.mq_unlink(name.encode())
        os.close(descriptor)


def test_posix_shared_memory_of_the_host() -> None:
    path = Path("/dev/shm") / new_mark()
    path.write_text("x")
    try:
        assert_escapes(act("read", path))
        assert_refused(inside(act("read", path)), {errno.ENOENT})
    finally:
        path.unlink()


def test_one_run_leaves_nothing_to_the_next() -> None:
    """Objects of System V have no owner among processes: they outlive whoever made them, but not their namespace."""
    make = "ipcmk -M 4096 -p 0666; ipcmk -Q -p 0666; ipcmk -S 1 -p 0666; echo x > /dev/shm/left; true"
    look = "ipcs | grep -c 0x; ls /dev/shm; true"
    for limits in ({}, {"memory_limit": "256M"}):
        inside(["sh", "-c", make], **limits)
        assert text(inside(["sh", "-c", look], **limits)) == "0\n"


# --- keyrings ---

KEYRINGS = {"user": -4, "session": -3, "process": -2, "thread": -1, "user session": -5}
KEYCTL = 250 if os.uname().machine == "x86_64" else 219
KEYCTL_UNLINK = 9
ADD_KEY = 248 if os.uname().machine == "x86_64" else 217


@pytest.mark.parametrize("keyring", KEYRINGS)
def test_no_key_is_added(keyring: str) -> None:
    """Keyrings know no namespace but the user's: a key of one run would be there in the next."""
    if keyring == "process":
        control = text(outside(act("key_add", new_mark(), KEYRINGS[keyring])))
        if "ESCAPED" not in control:
            pytest.skip(f"this host refuses keys: {control}")
    assert_refused(inside(act("key_add", new_mark(), KEYRINGS[keyring])), FORBIDDEN)


@pytest.mark.parametrize("keyring", ["user", "session", "user session"])
def test_no_key_of_the_host_is_found(keyring: str) -> None:
    name = new_mark()
    serial = LIBC.syscall(ADD_KEY, b"user", name.encode(), b"secret", ctypes.c_size_t(6), KEYRINGS[keyring])
    if serial < 0:
        pytest.skip(f"this host refuses keys: {errno.errorcode[ctypes.get_errno()]}")
    try:
        assert_escapes(act("key_search", name, KEYRINGS[keyring]))
        assert_refused(inside(act("key_search", name, KEYRINGS[keyring])), FORBIDDEN)
        assert_refused(inside(act("key_request", name)), FORBIDDEN)
        assert name not in text(inside(["sh", "-c", "cat /proc/keys; true"]))
    finally:
        LIBC.syscall(KEYCTL, KEYCTL_UNLINK, ctypes.c_long(serial), KEYRINGS[keyring], 0, 0)


def test_no_lock_of_the_hosts_message_queue_file_system() -> None:
    """/dev/mqueue is not in the view."""
    result = inside(["sh", "-c", "ls /dev/mqueue 2>/dev/null; true"])
    assert text(result) == ""
