"""The caller's own terminal while a command has it: its bytes go through untouched, and it is given back as it was.

What the command prints goes to the caller's terminal as it is: what escape sequences do there is that terminal's business. But some
of them are questions, and the terminal types its answers as if the user had (ctlseqs, "Device Status Report"). As long as the run goes
on they go to the command. One that is asked just before the end would be answered later, into the shell that reads next. So before the
terminal is given back it is asked something itself: terminals answer in order, so when that answer is there, all others have come; they
are thrown away.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import fcntl
import os
import re
import secrets
import select
import signal
import struct
import termios
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from proc_sandbox.errors import ConfigError, LaunchError

__all__ = ["CallersTerminal", "Terminated", "is_controlling", "put_size", "size_of", "ways_out"]

Size = tuple[int, int]
"""Rows and columns."""
USUAL = (24, 80)
ENDING = ("SIGTERM", "SIGHUP", "SIGINT", "SIGQUIT")
"""Signals that would end the caller with its terminal as it is now."""
MAY_ASK = re.compile(rb"[\x05\x1b\x80-\x9f]")
"""Nothing without one of these makes a terminal type: ENQ, ESC, and the controls of 8 bits."""
BACK_TO_BASICS = b"\x18\x1b\\\x1b<\x1b F"
"""What was begun is given up (CAN, ST); from VT52 back to ANSI; answers with 7 bits."""
MUTE = b"".join(b"\x1b[?%dl" % mode for mode in (9, 1000, 1001, 1002, 1003, 1004, 1005, 1006, 1015, 1016, 2004, 2031, 2048, 9001))
"""No report of the mouse, of focus, colours or size any more, which would come later, and no marks around what is pasted."""
PLAIN = b"\x1b[<99u\x1b[>4m\x1b[?1l\x1b>\x1b[2;20l\x1b[12h\x1bP0;1|\x1b\\\x1b[?25h\x1b[m"
"""Keys are not locked and say what they usually do, whatever was pushed or defined (DECUDK), and Enter is not two; the cursor can be
seen, colours are the usual ones.
"""
CTRL = rb"(?:5|69|133|197)"
"""That modifier alone, with and without Caps Lock and Num Lock."""
WAY_OUT = re.compile(
    rb"\x1d|\x1b\[93[:\d]*;" + CTRL + rb"(?::[12]?)?(?:;[:\d]*)?u|\x1b\[27;" + CTRL + rb";93~|\x1b\[\d+;\d+;29;1;\d+;\d+_"
)
"""Ctrl-] as a terminal sends it: a command may have set how it does that. The byte; the protocol of kitty, and xterm's formatOtherKeys;
xterm's modifyOtherKeys; Windows Terminal's win32-input-mode.
"""
QUESTIONS = 4
"""Places that the cursor is put to and asked for: who does not know them can't have had them answered before."""
REPORT = re.compile(rb"\x1b(?:\[[?>=]?[\d;]*[Rcntxy]|[]PX^_])|[\x90\x9b\x9d]")
"""What a terminal's answers begin with."""
SILENCE = 2.0
"""Seconds: a terminal that has said nothing for that long is taken for one that does not answer."""
MOST_SECONDS = 10.0


def size_of(descriptor: int) -> Size:
    """Return a terminal's size; the usual one where it does not know, or is gone."""
    try:
        rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(descriptor, termios.TIOCGWINSZ, bytes(8)))
    except OSError:
        return USUAL
    return (rows, columns) if rows and columns else USUAL


def ways_out(data: bytes) -> int:
    """Return how often Ctrl-] was pressed."""
    return len(WAY_OUT.findall(data))


def put_size(descriptor: int, size: Size) -> None:
    """Set a terminal's size; who is in its foreground is told by SIGWINCH."""
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))


def raw(before: list[Any], *, signals: bool) -> list[Any]:
    """Return attributes with which bytes go through as they are, as cfmakeraw(3) makes them; signals: Ctrl-C is the caller's still."""
    after = [*before[:6], [*before[6]]]
    after[0] &= ~(
        termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP | termios.INLCR | termios.IGNCR | termios.ICRNL | termios.IXON
    )
    after[1] &= ~termios.OPOST
    after[2] = after[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    after[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.IEXTEN | (0 if signals else termios.ISIG))
    after[6][termios.VMIN], after[6][termios.VTIME] = 1, 0
    return after


def open_again(descriptor: int) -> int:
    """Return an open file of our own for a terminal: O_NONBLOCK belongs to the open file, and the caller's is its shell's too.

    /dev/tty is there where its name is not (containers), and where its file is another user's (su(1)).
    """
    name = "/dev/tty" if is_controlling(descriptor) else os.ttyname(descriptor)
    return os.open(name, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)


class Terminated(BaseException):
    """A signal ends the caller: on its way out the terminal is given back, then the signal does what it always does."""


class CallersTerminal:
    """The caller's terminal, which one run has at a time: it has one state to be given back, and what is typed there, answers too, one
    reader.

    Attributes: file, a non-blocking open file of our own; typed, whether what is typed there is for the command; shown, whether what
    the command prints comes there; silent, whether it has hung up.
    """

    def __init__(self, *, typed: bool, shown: bool) -> None:
        self.typed, self.shown = typed, shown
        self.owner = os.getpid()
        self.file, self.number = -1, 0
        self.entered = self.raw = self.leaving = self.asked = self.silent = False
        self.ended_by = 0
        self.handlers: dict[int, tuple[Any, Any]] = {}
        self.on_resize: Callable[[], None] = lambda: None

    def take(self, descriptor: int, given: object) -> None:
        """Have it from now on, until leave(); given: what the caller has passed as its stream.

        Raises:
            ConfigError: another run has it. LaunchError: it cannot be opened again.
        """
        field = "stdin" if self.typed else "stdout"
        if having.setdefault("it", self) is not self:
            raise ConfigError(field, given, "another run has your terminal; wait for its end, or take this one's streams with PIPE or a function")
        try:
            self.before = termios.tcgetattr(descriptor)
            self.number = os.fstat(descriptor).st_rdev
            self.file = open_again(descriptor)
        except (OSError, termios.error) as error:
            name = getattr(error, "filename", None) or field
            raise LaunchError("terminal", name, error.args[0], "your terminal cannot be opened again; use pipes instead of it") from None

    def enter(self, on_resize: Callable[[], None]) -> None:
        """Let bytes through from now on, until leave(); on_resize: to be called when the size has changed, on the main thread."""
        self.on_resize = on_resize
        see_to_exit()
        stop_listening()
        self.entered = True
        entered.add(self)
        if threading.current_thread() is threading.main_thread():
            self.listen()
        self.make_raw()

    def make_raw(self) -> None:
        """In the background of a shell's jobs this stops us, until we are in its foreground: SIGTTOU, termios(3)."""
        self.raw = True  # first: what is interrupted in between is undone
        set_attributes(self.file, termios.TCSADRAIN, raw(self.before, signals=not self.typed))

    def show(self, data: bytes | bytearray) -> None:
        """Note what goes to the terminal."""
        self.asked = self.asked or MAY_ASK.search(data) is not None

    def discard(self) -> None:
        """Throw away what was typed, which is for nobody: a terminal's answers. One that has hung up has no more."""
        try:
            data = os.read(self.file, 1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self.silent = not data
        self.hear(data)

    def hear(self, data: bytes) -> None:
        """Note what was typed there: one that answers is not mute."""
        if self.number in mute and REPORT.search(data):
            mute.discard(self.number)

    # --- giving it back ---

    def leave(self) -> None:
        """Give the terminal back as it was, with nothing waiting there to be read; harmless when done twice, and in a child by fork()."""
        file, self.file = self.file, -1
        if file < 0:
            stop_listening()
            if not self.leaving:
                self.let_go()
            return
        try:
            if self.entered and os.getpid() == self.owner:
                self.leaving = True
                self.give_back(file)
        finally:
            self.entered = False
            entered.discard(self)
            stop_listening()
            os.close(file)
            self.let_go()
        if self.ended_by and os.getpid() == self.owner:
            os.kill(os.getpid(), self.ended_by)

    def let_go(self) -> None:
        """Another run may have it."""
        if having.get("it") is self:
            having.clear()

    def give_back(self, file: int) -> None:
        if not self.raw or not in_foreground(file):
            return
        try:
            if self.asked and self.shown and self.may_answer(file):
                self.hush(file)
        finally:
            self.raw = False
            set_attributes(file, termios.TCSAFLUSH, self.before)

    def may_answer(self, file: int) -> bool:
        """Return whether to ask the terminal: not one that its user calls dumb, nor one that was silent before and is still."""
        if os.environ.get("TERM", "") in ("", "dumb"):
            return False
        if self.number in mute:
            with contextlib.suppress(OSError):  # nothing is there
                self.hear(os.read(file, 1 << 16))
        return self.number not in mute

    def hush(self, file: int) -> None:
        """Wait until the terminal has answered whatever it was asked, or does not answer."""
        rows, columns = size_of(file)
        places = [(secrets.randbelow(max(rows - 1, 1)) + 2, secrets.randbelow(columns) + 1) for _ in range(QUESTIONS)]
        questions = b"".join(b"\x1b[%d;%dH\x1b[6n" % place for place in places)
        answers = b"".join(b"\x1b[%d;%dR" % place for place in places)
        self.asked = False
        until = time.monotonic() + MOST_SECONDS
        with contextlib.suppress(OSError):  # it is gone, and nobody reads from it any more
            if not write_all(file, BACK_TO_BASICS + MUTE + PLAIN + b"\x1b7\x1b[?6l" + questions + b"\x1b8", until):
                return
            heard = b""
            for data in answers_from(file, until):
                heard += data
                if answers in heard:
                    answering.add(self.number)
                    return
                heard = heard[-len(answers) :]
            if self.number not in answering and time.monotonic() < until:
                mute.add(self.number)

    # --- signals ---

    def listen(self) -> None:
        ours: dict[int, Any] = {}
        for name in ENDING:
            number = getattr(signal, name)
            if signal.getsignal(number) == signal.SIG_DFL:  # else the caller has a way of its own, on which we are told
                ours[number] = self.on_end
        if signal.getsignal(signal.SIGTSTP) == signal.SIG_DFL:
            ours[signal.SIGTSTP] = self.on_stop
        for number, handler in ((signal.SIGCONT, self.on_continue), (signal.SIGWINCH, self.on_size)):
            if signal.getsignal(number) is not None:
                ours[number] = handler
        listening.add(self)
        for number, handler in ours.items():
            self.handlers[number] = handler, signal.getsignal(number)
            signal.signal(number, handler)

    def stop_listening(self) -> None:
        """Put back what was there before us; but what the caller has set meanwhile stays."""
        for number, (ours, before) in self.handlers.items():
            if signal.getsignal(number) == ours:
                signal.signal(number, before)

    def pass_on(self, number: int, frame: FrameType | None) -> None:
        """Do what was done before us."""
        before = self.handlers[number][1]
        if callable(before):
            before(number, frame)
        elif before == signal.SIG_DFL and number not in (signal.SIGCONT, signal.SIGWINCH):
            ours = signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            signal.signal(number, ours)

    def on_end(self, number: int, frame: FrameType | None) -> None:
        if not self.entered:
            self.pass_on(number, frame)
            return
        self.ended_by = self.ended_by or number
        if not self.leaving:
            raise Terminated(number)

    def on_stop(self, number: int, frame: FrameType | None) -> None:
        if self.entered and not self.leaving:
            self.give_back(self.file)
        self.pass_on(number, frame)
        self.on_continue(number, frame)

    def on_continue(self, number: int, frame: FrameType | None) -> None:
        """Who has stopped us may have had the terminal meanwhile."""
        if self.entered and not self.leaving:
            self.raw = False
            if in_foreground(self.file):
                self.make_raw()
                self.on_resize()
        if number == signal.SIGCONT:
            self.pass_on(number, frame)

    def on_size(self, number: int, frame: FrameType | None) -> None:
        if self.entered and not self.leaving:
            self.on_resize()
        self.pass_on(number, frame)


def is_controlling(descriptor: int) -> bool:
    """Return whether a terminal is our controlling one."""
    try:
        os.tcgetpgrp(descriptor)
    except OSError:
        return False
    return True


def in_foreground(file: int) -> bool:
    """Return whether the terminal is ours now: not where a shell has put us into the background."""
    return not is_controlling(file) or os.tcgetpgrp(file) == os.getpgrp()


def set_attributes(file: int, when: int, attributes: list[Any]) -> None:
    """Set them, whatever signals come in between; a terminal that is gone has none."""
    while True:
        try:
            termios.tcsetattr(file, when, attributes)
        except termios.error as error:
            if error.args[0] == errno.EINTR:
                continue
            if error.args[0] not in (errno.EIO, errno.ENXIO, errno.ENOTTY):
                raise OSError(error.args[0], error.args[1], "terminal") from None  # termios.error is none
        return


def write_all(file: int, data: bytes, until: float) -> bool:
    """Write it; return whether that came to its end in time."""
    while data:
        if not ready(file, select.POLLOUT, until):
            return False
        with contextlib.suppress(BlockingIOError):
            data = data[os.write(file, data) :]
    return True


def answers_from(file: int, until: float) -> Iterator[bytes]:
    """Yield what is typed, until nothing is any more."""
    while ready(file, select.POLLIN, until):
        with contextlib.suppress(BlockingIOError):
            data = os.read(file, 1 << 16)
            if not data:
                return
            yield data


def ready(file: int, event: int, until: float) -> bool:
    poll = select.poll()
    poll.register(file, event)
    left = min(until - time.monotonic(), SILENCE)
    return left > 0 and bool(poll.poll(left * 1000))


having: dict[str, CallersTerminal] = {}
"""Who has the caller's terminal, as "it"."""
answering: set[int] = set()
"""Numbers of terminals that have answered us: they are asked for good, however late they were once. A command may make one late."""
mute: set[int] = set()
"""Numbers of those that have never done, and were silent when they were asked."""
entered: set[CallersTerminal] = set()
"""Those that are to be given back."""
listening: set[CallersTerminal] = set()
"""Those whose handlers of signals are set, or were: only the main thread can undo that, and the terminal may be given back on another."""
at_exit: list[bool] = []


def see_to_exit() -> None:
    """Have all given back at the interpreter's exit: a daemon thread's run ends there."""
    if not at_exit:
        at_exit.append(True)
        atexit.register(leave_all)


def leave_all() -> None:
    for terminal in list(entered):
        terminal.leave()


def stop_listening() -> None:
    """Listen to no signals any more for a terminal that was given back. What comes until then does what it did before: pass_on()."""
    if threading.current_thread() is not threading.main_thread():
        return
    for terminal in list(listening):
        if not terminal.entered:
            terminal.stop_listening()
            listening.discard(terminal)


def after_fork_in_child() -> None:
    for terminal in list(entered):
        terminal.entered = False
    stop_listening()
    entered.clear()
    having.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=after_fork_in_child)
