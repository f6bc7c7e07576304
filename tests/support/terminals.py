"""Terminals for the tests: what a terminal emulator and its user are, without a screen. Nothing here sleeps: all waits for bytes or ends."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import select
import struct
import subprocess
import termios
from collections.abc import Iterator
from typing import Any

from support import processes
from support.processes import library_path_environment
from support.programs import HANG

__all__ = ["Terminal", "caller_on", "program_on", "terminal"]

PRELUDE = "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
PLACE = re.compile(rb"\x1b\[(\d+);(\d+)H|\x1b\[6n|\x1b\[c|\x1b\[21t")
TITLE = b"rm -rf ."
"""What the command has called the window: a terminal that tells it is asked for it (ctlseqs, Ps = 21)."""


class Terminal:
    """A pseudo-terminal whose master is the test's.

    Attributes: shown, all that it was given to show; answering, whether it answers what it is asked, in order, as it comes to it.
    """

    def __init__(self, rows: int, columns: int) -> None:
        self.master, self.slave = os.openpty()
        self.shown = b""
        self.looked = self.read = 0
        self.answering = True
        self.place = (1, 1)
        self.resize(rows, columns)
        # As a user may have it: what is given back has to be just this, and not what is usual.
        attributes = self.attributes()
        attributes[6][termios.VERASE] = b"\x08"
        attributes[3] &= ~termios.ECHOCTL
        termios.tcsetattr(self.slave, termios.TCSANOW, attributes)

    def resize(self, rows: int, columns: int) -> None:
        """As if the window had another size; who is in the foreground gets SIGWINCH."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def attributes(self) -> list[Any]:
        """As tcgetattr(3)."""
        return termios.tcgetattr(self.slave)

    @property
    def is_raw(self) -> bool:
        """Whether bytes go through."""
        return not self.attributes()[3] & termios.ICANON

    def type(self, data: bytes) -> None:
        """As a user."""
        while data:
            data = data[os.write(self.master, data) :]

    def look(self, timeout: float = HANG, *also: int) -> bool:
        """Show what comes next; return False where one of the other descriptors is ready, and nothing is there to be shown."""
        ready = select.select([self.master, *also], [], [], timeout)[0]
        assert ready, f"nothing happened; shown was {self.shown[-2000:]!r}"
        if self.master not in ready:
            return False
        try:
            self.shown += os.read(self.master, 65536)
        except OSError as error:
            assert error.errno == errno.EIO
            return False
        if self.answering:
            self.answer()
        return True

    def answer(self) -> None:
        """Answer what was asked since it was looked last, as xterm does; a question that is not complete yet is left."""
        for found in PLACE.finditer(self.shown, self.looked):
            self.looked = found.end()
            if found[1]:
                self.place = int(found[1]), int(found[2])
            elif found[0] == b"\x1b[6n":
                self.type(b"\x1b[%d;%dR" % self.place)
            elif found[0] == b"\x1b[c":
                self.type(b"\x1b[?62;22c")
            else:
                self.type(b"\x1b]l" + TITLE + b"\x1b\\")

    def until(self, pattern: bytes) -> re.Match[bytes]:
        """Wait until that is shown, after what was waited for before."""
        while (found := re.compile(pattern, re.DOTALL).search(self.shown, self.read)) is None:
            assert self.look(), f"{pattern!r} is not in {self.shown!r}"
        self.read = found.end()
        return found

    def wait(self, process: subprocess.Popen[bytes]) -> int:
        """Show what comes until a process has ended; return its status."""
        descriptor = os.pidfd_open(process.pid)
        try:
            while self.look(HANG, descriptor):
                pass
        finally:
            os.close(descriptor)
        return process.wait(HANG)

    def left(self) -> bytes:
        """What waits to be read: a shell that comes next would take it for typed."""
        while select.select([self.master], [], [], 0)[0]:
            self.look()  # what was asked last is answered, too
        before = self.attributes()
        attributes = self.attributes()
        attributes[3] &= ~(termios.ICANON | termios.ECHO)
        attributes[6][termios.VMIN] = attributes[6][termios.VTIME] = 0
        termios.tcsetattr(self.slave, termios.TCSANOW, attributes)
        try:  # what was typed comes through in pieces
            return b"".join(iter(lambda: os.read(self.slave, 65536), b""))
        finally:
            termios.tcsetattr(self.slave, termios.TCSANOW, before)


@contextlib.contextmanager
def terminal(rows: int = 30, columns: int = 100) -> Iterator[Terminal]:
    """A new one, closed at the end."""
    made = Terminal(rows, columns)
    try:
        yield made
    finally:
        os.close(made.master)
        os.close(made.slave)


@contextlib.contextmanager
def caller_on(place: Terminal, code: str, *arguments: str, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A Python process that uses the package and has that terminal: its streams and its session's. TERM: xterm, unless env says it."""
    options["env"] = {"TERM": "xterm", **options.get("env", {})}
    streams = {"stdin": place.slave, "stdout": place.slave, "stderr": place.slave, "start_new_session": True}
    with processes.caller(PRELUDE + code, *arguments, **{**streams, **options}) as process:
        yield process


@contextlib.contextmanager
def program_on(place: Terminal, *words: str, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """The command line, as caller_on()."""
    code = "import sys; from proc_sandbox.cli import program; sys.exit(program())"
    env = {**library_path_environment(), "TERM": "xterm", **options.pop("env", {})}
    with caller_on(place, code, *words, env=env, **options) as process:
        yield process

