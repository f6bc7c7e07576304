"""The caller's terminal: what lies in its input queue is what the caller's shell will run next."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import subprocess
import termios
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fixtures import Programs
from support.processes import caller
from support.programs import HANG, ROOT, act

TIOCSTI = 0x5412
TIOCLINUX = 0x541C
TIOCSETD = 0x5423

CALLER = """
import fcntl, json, os, subprocess, sys, termios
import proc_sandbox as ps
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
where, directory, command = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
if where == "outside":
    out = subprocess.run(command, stdout=subprocess.PIPE).stdout.decode()
else:
    result = ps.run(command, stdin=ps.INHERIT, allowed_dirs=[directory], timeout=60)
    out = result.stdout.text()
print(json.dumps(out))
"""


@contextlib.contextmanager
def terminal() -> Iterator[tuple[int, int]]:
    """A pseudo-terminal; its slave hands over every byte at once, and never waits."""
    master, slave = os.openpty()
    try:
        tty.setraw(slave, termios.TCSANOW)
        attributes = termios.tcgetattr(slave)
        attributes[6][termios.VMIN] = 0
        attributes[6][termios.VTIME] = 0
        termios.tcsetattr(slave, termios.TCSANOW, attributes)
        yield master, slave
    finally:
        os.close(master)
        os.close(slave)


def attack(where: str, command: list[str], directory: Path) -> tuple[str, bytes]:
    """Run it from a caller whose controlling terminal this is: what it said, and what the terminal then held."""
    with terminal() as (_, slave):
        options = {"stdin": slave, "stdout": subprocess.PIPE, "start_new_session": True}
        with caller(CALLER, where, str(directory), json.dumps(command), **options) as process:
            out, err = process.communicate(timeout=HANG)
            assert process.returncode == 0, err
            return json.loads(out), os.read(slave, 64)


def legacy_tiocsti() -> bool:
    """Since Linux 6.2 the kernel may refuse it to everybody but root."""
    setting = Path("/proc/sys/dev/tty/legacy_tiocsti")
    return ROOT or not setting.exists() or setting.read_text().strip() == "1"


@pytest.mark.parametrize("request_number", [TIOCSTI, TIOCSTI + (1 << 32), TIOCSTI + (0xFFFFFFFF << 32)], ids=hex)
def test_nothing_is_typed_into_the_callers_terminal(programs: Programs, request_number: int) -> None:
    """CVE-2017-5226; and CVE-2019-10063, where a comparison of 64 bits missed what the kernel compares in 32."""
    command = [programs("kernel"), "ioctl", "0", str(request_number)]
    if legacy_tiocsti():
        said, typed = attack("outside", command, programs.directory)
        assert ("ESCAPED" in said, typed) == (True, b"x"), "the control did not work"
    said, typed = attack("inside", command, programs.directory)
    assert said == f"TRIED\nREFUSED {errno.EPERM}\n"
    assert typed == b""


@pytest.mark.parametrize("request_number", [TIOCLINUX, TIOCLINUX + (1 << 32), TIOCSETD, TIOCSETD + (1 << 32)], ids=hex)
def test_other_requests_that_reach_the_caller(programs: Programs, request_number: int) -> None:
    """Paste from the console's selection, and another line discipline."""
    said, typed = attack("inside", [programs("kernel"), "ioctl", "0", str(request_number)], programs.directory)
    assert said == f"TRIED\nREFUSED {errno.EPERM}\n"
    assert typed == b""


def test_the_command_has_no_controlling_terminal(programs: Programs) -> None:
    said, _ = attack("outside", act("own_terminal"), programs.directory)
    assert "ESCAPED" in said, "the control did not work"
    said, _ = attack("inside", act("own_terminal"), programs.directory)
    assert said in {f"TRIED\nREFUSED {error}\n" for error in (errno.ENXIO, errno.ENOENT, errno.EACCES, errno.EPERM)}


def test_the_terminal_is_not_taken_over(programs: Programs) -> None:
    said, _ = attack("inside", act("steal_terminal", 0), programs.directory)
    assert said == f"TRIED\nREFUSED {errno.EPERM}\n"


def test_the_terminal_is_still_a_terminal_to_read_from() -> None:
    """What was inherited by name works: the caller's input reaches the command."""
    code = [["sh", "-c", "test -t 0 && head -c 3"], "typed"]
    with terminal() as (master, slave):
        attributes = termios.tcgetattr(slave)
        attributes[6][termios.VMIN] = 1
        termios.tcsetattr(slave, termios.TCSANOW, attributes)
        os.write(master, b"abc")
        options = {"stdin": slave, "stdout": subprocess.PIPE, "start_new_session": True}
        with caller(CALLER, "inside", "/usr", json.dumps(code[0]), **options) as process:
            out, err = process.communicate(timeout=HANG)
            assert json.loads(out) == "abc", err
