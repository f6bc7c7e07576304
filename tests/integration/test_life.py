"""Who is made by a thread of the launcher learns whether that has died, where neither its signal nor a pipe can tell (life.c)."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.programs import HANG, LAUNCHER

MAKER = """
import ctypes, os, select, signal, sys, threading
life = ctypes.CDLL(sys.argv[1])
life.has_parent_died.restype = ctypes.c_bool
how, go = sys.argv[2], int(sys.argv[3])
alive, held = os.pipe()

def await_the_end():
    end = select.poll()
    end.register(go, 0)
    end.poll()
    os._exit(0)

def make_child():
    if os.fork():
        return
    os.close(held)
    os.read(go, 1)
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    ended = select.select([alive], [], [], 0)[0]
    print("ended" if ended else "open", "died" if life.has_parent_died(how == "adopted") else "lives", flush=True)
    await_the_end()

def make():
    assert life.begin_life() == 0
    make_child()
    made.set()
    if how == "adopted":
        life.end_life()
    else:
        threading.Event().wait()

assert life.begin_life() == 0
if os.fork() == 0:  # another that was made just now, and has still all that its maker has open
    os.close(1)
    await_the_end()
if how == "first":
    make_child()
else:
    made = threading.Event()
    thread = threading.Thread(target=make)
    thread.start()
    made.wait()
    if how == "adopted":
        thread.join()
        while os.path.exists(f"/proc/self/task/{thread.native_id}"):
            pass
print("ready", flush=True)
await_the_end()
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("life") / "life.so"
    command = ["gcc", "-std=gnu17", "-shared", "-fPIC", LAUNCHER / "linux" / "life.c", "-o", target]
    subprocess.run(command, check=True, timeout=HANG, capture_output=True)
    return target


@contextmanager
def maker(library: Path, how: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A process that has made one that waits, by its first thread, another, or one that is gone; and where to let that go on."""
    go, write_end = os.pipe()
    command = [sys.executable, "-c", MAKER, library, how, str(go)]
    try:
        with subprocess.Popen(command, stdout=subprocess.PIPE, pass_fds=[go]) as process:
            os.close(go)
            assert process.stdout is not None
            try:
                assert process.stdout.readline() == b"ready\n"
                yield process, write_end
            finally:
                process.kill()
    finally:
        os.close(write_end)


@pytest.mark.parametrize("how", ["first", "thread", "adopted"])
def test_who_asks_too_late_is_told(library: Path, how: str) -> None:
    """The attack: no signal comes, and a pipe that is to end with the maker has not ended."""
    with maker(library, how) as (process, go):
        process.kill()
        process.wait(HANG)
        os.write(go, b"x")
        assert process.stdout is not None
        assert process.stdout.readline() == b"open died\n"


@pytest.mark.parametrize("how", ["first", "thread", "adopted"])
def test_who_asks_in_time_gets_the_signal(library: Path, how: str) -> None:
    with maker(library, how) as (process, go):
        os.write(go, b"x")
        assert process.stdout is not None
        assert process.stdout.readline() == b"open lives\n"
        process.kill()
        assert select.select([process.stdout], [], [], HANG)[0], "the child lives on: it has it open"
        assert process.stdout.read() == b""


def test_threads_come_and_go(library: Path) -> None:
    """What one has held another one gets, however many they are."""
    code = """
import ctypes, sys
life = ctypes.CDLL(sys.argv[1])
for _ in range(10000):
    assert life.begin_life() == 0
    life.end_life()
"""
    subprocess.run([sys.executable, "-c", code, library], check=True, timeout=HANG)
