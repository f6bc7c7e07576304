"""A terminal of the command's own (pty(7)): its three streams are the slave, and what we type and read goes through the master.

The slave stays open here until the run has ended, which its socket tells: the end of a terminal tells nothing, for a command can close
it and open /dev/tty again.

So a handle does not get the master itself: its PIPEs are pipes to the pump, which types and reads. That has to go on all the while, or
who reads from such a pipe would wait for what nobody moves: the handle has a thread for it.
"""

from __future__ import annotations

import errno
import math
import os
import select
import termios
import time
from collections.abc import Callable, Sequence
from typing import Any

from proc_sandbox import later
from proc_sandbox.backends.unix.relay import USUAL, CallersTerminal, is_controlling, put_size, size_of, ways_out
from proc_sandbox.backends.unix.streams import MOST, DescriptorStreams, LaunchedRun, Pump, drain, read_some, take_rest
from proc_sandbox.config import Config
from proc_sandbox.errors import ConfigError, LaunchError
from proc_sandbox.report import Ended, Failed
from proc_sandbox.streams import CHUNK, Choice, PipeEnd, choose_input, choose_output, is_sinks
from proc_sandbox.streams import shown as as_given
from proc_sandbox.supervise import Supervisor

__all__ = ["LOOK_AGAIN", "PATIENCE", "TerminalStreams", "Typist", "standard", "wanted"]

PIECE = 4096
"""Bytes that a pipe takes without waiting when poll(2) says that it can be written to: PIPE_BUF, pipe(7)."""
MOST_TYPED = 1 << 20
"""Bytes that are kept for a command that does not read; what a user types beyond it is thrown away, but for the way out."""
WAY_OUT_KEYS, WAY_OUT_SECONDS = 3, 1.0
"""Ctrl-], so often within so many seconds: it ends a run that listens to nothing else."""
LOOK_AGAIN = 100
"""Milliseconds between two looks whether the end of the input has been read: a terminal does not tell."""
KEYS = (
    termios.VINTR, termios.VQUIT, termios.VERASE, termios.VKILL, termios.VSUSP, termios.VSTART, termios.VSTOP, termios.VREPRINT,
    termios.VWERASE, termios.VLNEXT,
)  # fmt: skip
IUTF8 = 0o40000
"""As Linux and macOS have it: Python's termios only does from 3.13 on."""
PATIENCE = 5.0
"""Seconds for the caller's terminal, or whatever it is, to take some of what was printed last."""


def open_terminal() -> tuple[int, int]:
    """Return the master and the slave of a new terminal, which nobody else may write to.

    Raises:
        LaunchError: there is none to be had.
    """
    try:
        master, slave = os.openpty()
    except OSError as error:
        raise LaunchError("terminal", "/dev/ptmx", error.errno or 0) from None
    try:
        os.set_blocking(master, False)
        make_private(slave)
    except BaseException as error:
        os.close(master)
        os.close(slave)
        if isinstance(error, OSError):
            raise LaunchError("terminal", "/dev/pts", error.errno or 0) from None
        raise
    return master, slave


def make_private(slave: int) -> None:
    try:
        os.fchmod(slave, 0o600)  # else often the group's tty, for write(1); as root the launcher makes it the command's own
    except PermissionError:
        pass  # a sandbox around us changes no modes: it is as devpts made it


def name_of(slave: int) -> str:
    """Return the terminal's name; "" where it has none here."""
    try:
        return os.ttyname(slave)
    except OSError:
        return ""


class TerminalStreams(DescriptorStreams):
    """The command's streams where they are one terminal.

    Attributes beside those of DescriptorStreams: master; slave; caller, the caller's own terminal, if the command has to do with it;
    input, a descriptor whose bytes are typed, or -1: then source yields them; output, a descriptor for what is printed, or -1: then it
    is kept; waiting, what is to be written there; sink, what errors call that; relayed, whether one of them is a pipe to a handle; inner, our ends of these.
    """

    def __init__(
        self, config: Config, data: bytes | None, supervisor: Supervisor, writable: Sequence[str] = (), *, held: bool = False
    ) -> None:
        self.master = self.slave = self.input = self.output = -1
        self.size = USUAL
        self.caller: CallersTerminal | None = None
        self.waiting = bytearray()
        self.sink = ""
        self.shown = supervisor.stdout
        self.relayed = False
        self.inner: list[int] = []
        super().__init__(config, data, supervisor, writable, held=held)

    def open_chosen(self, config: Config, data: bytes | None, supervisor: Supervisor) -> None:
        """Open the terminal, and what is at our end of it."""
        if isinstance(config.stdin, PipeEnd) or isinstance(config.stdout, PipeEnd):
            raise ConfigError("pty", True, "a stage of a pipeline has no terminal; leave it out, or run that command by itself")
        typed, shown = choose_input(config.stdin, data, held=self.held), choose_output(config.stdout, held=self.held)
        with later.lock:  # as open_pipe()
            self.master, self.slave = open_terminal()
            self.readers[self.master] = supervisor.stdout.feed
            self.ends.append(self.slave)
        self.terminal = name_of(self.slave)
        self.theirs = [self.slave, self.slave, self.slave, *config.pass_fds]
        self.note_flags(config)
        self.choose_source(typed)
        self.choose_sink(shown, supervisor)
        self.find_caller(typed, shown, config)
        if self.caller:
            self.size = size_of(self.caller.file)
            take_keys(self.slave, self.caller.before)
        put_size(self.master, self.size)

    def choose_source(self, typed: Choice) -> None:
        if typed.kind == "feed":
            self.source = typed.value
        elif typed.kind == "pipe":
            with later.lock:
                self.input, self.pipes["stdin"] = os.pipe()
                self.relay(self.input)
        elif typed.kind != "null":
            self.input = self.ours("stdin", typed, os.O_RDONLY)

    def choose_sink(self, shown: Choice, supervisor: Supervisor) -> None:
        if shown.kind in ("inherit", "path", "descriptor"):
            self.output = self.ours("stdout", shown, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            self.sink = os.fsdecode(shown.value) if shown.kind == "path" else "stdout"
            self.readers[self.master] = self.waiting.extend
        elif shown.kind == "pipe":
            with later.lock:
                self.pipes["stdout"], self.output = os.pipe()
                self.relay(self.output)
            self.readers[self.master] = self.waiting.extend
        elif shown.kind == "null":
            self.readers[self.master] = lambda _: None
        else:
            self.set_sink("stdout", shown, supervisor.stdout)

    def relay(self, descriptor: int) -> None:
        """Note our end of a pipe to a handle."""
        os.set_blocking(descriptor, False)
        self.inner.append(descriptor)
        self.relayed = True

    def ours(self, field: str, choice: Choice, flags: int) -> int:
        """Return a descriptor that we read or write ourselves."""
        if choice.kind == "path":
            self.files.append(self.open_path(field, choice.value, flags))
            self.owned.remove(self.files[-1])
            return self.files[-1]
        number = ("stdin", "stdout").index(field) if choice.kind == "inherit" else int(choice.value)
        self.files.append(os.dup(number))  # what else the caller's loop does with its own is no concern of ours
        return self.files[-1]

    def find_caller(self, typed: Choice, shown: Choice, config: Config) -> None:
        """Look for the caller's terminal, where the command's input is typed or its output is shown."""
        source, sink = standard(typed, 0), standard(shown, 1)
        is_typed = source >= 0 and os.isatty(source)
        is_shown = sink >= 0 and os.isatty(sink) and not (is_typed and not is_same(source, sink))
        if not is_typed and not is_shown:
            return
        self.caller = CallersTerminal(typed=is_typed, shown=is_shown)
        self.caller.take(source if is_typed else sink, as_given(config.stdin if is_typed else config.stdout))
        if is_typed:
            self.input = self.caller.file
        if is_shown:
            self.output = self.caller.file

    def follow_size(self) -> None:
        """Give the command's terminal the size of the caller's where that has changed: what the command sets itself stays until then."""
        if self.caller and self.caller.file >= 0 and (size := size_of(self.caller.file)) != self.size:
            self.size = size
            put_size(self.master, size)

    def set_size(self, rows: int, columns: int) -> None:
        """Set the size of the command's terminal; harmless when that is closed."""
        if self.master in self.readers:
            put_size(self.master, (rows, columns))

    def hang_up(self) -> None:
        """Close our ends of a handle's pipes, for the run is over: who reads meets the end, and who writes hears of it."""
        if self.output in self.inner:
            self.output = -1
        if self.input in self.inner:
            self.input = -1
        while self.inner:
            os.close(self.inner.pop())

    def write_what_fits(self) -> None:
        """Write to a handle's pipe as much as it takes, for who reads from its descriptor; the rest stays for rest_of()."""
        try:
            while self.waiting and self.output in self.inner:
                del self.waiting[: os.write(self.output, self.waiting)]
        except (BlockingIOError, BrokenPipeError):
            return

    def rest_of(self, name: str) -> bytes:
        """Return what a handle's pipe had no room for when the run had ended; who has met its end asks for that."""
        rest = bytes(self.waiting) if name == "stdout" else b""
        del self.waiting[: len(rest)]
        return rest

    def write_out(self) -> None:
        """Write to the output what it takes now."""
        data = self.waiting[:PIECE]
        if self.caller:
            self.caller.show(data)
        try:
            del self.waiting[: os.write(self.output, data)]
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno == errno.EPIPE and self.output in self.inner:
                self.throw_away()
            elif error.errno == errno.EIO and self.caller:
                self.waiting.clear()  # the terminal is gone: who listens there is told, and ends the run
            else:
                raise OSError(error.errno, error.strerror, self.sink) from None

    def throw_away(self) -> None:
        """Go on without whoever has looked at the terminal: it is no pipe, whose writer would be told."""
        self.inner.remove(self.output)
        os.close(self.output)
        self.output = -1
        self.waiting.clear()
        self.readers[self.master] = lambda _: None

    def write_rest(self) -> None:
        """Write what is left, as long as somebody takes it."""
        poll = select.poll()
        if self.output >= 0:
            poll.register(self.output, select.POLLOUT)
        while self.waiting and poll.poll(PATIENCE * 1000):
            self.write_out()
        self.tell_of_loss()

    def tell_of_loss(self) -> None:
        """Have the Result tell that what is left goes nowhere."""
        if self.output >= 0 and self.waiting:  # else a handle has it still: rest_of()
            self.shown.truncated = True

    def give_back(self) -> None:
        """Give the caller's terminal back."""
        if self.caller:
            self.input = self.output = -1
            self.caller.leave()

    def release(self) -> None:
        """Close the command's ends, but for the terminal itself."""
        while self.owned:
            os.close(self.owned.pop())

    def pump_for(self, channel: LaunchedRun) -> Pump:
        """Return what moves bytes both ways."""
        return TerminalPump(channel, self)

    def close(self) -> None:
        """Close everything that was opened here, and give the caller's terminal back."""
        try:
            self.give_back()
        finally:
            self.hang_up()
            if self.readers.pop(self.master, None):
                os.close(self.master)  # first: closing the slave may wait for its output to be read (POSIX, 11.1.11)
            super().close()


def take_keys(slave: int, users: list[Any]) -> None:
    """Let the keys that erase, interrupt and so on be those that the user has set, and characters be erased as a whole."""
    attributes = termios.tcgetattr(slave)
    attributes[0] |= users[0] & IUTF8
    for key in KEYS:
        attributes[6][key] = users[6][key]
    termios.tcsetattr(slave, termios.TCSANOW, attributes)


def standard(choice: Choice, inherited: int) -> int:
    """Return the number of the standard stream that was chosen, also where it was named itself (sys.stdout); -1: something else."""
    if choice.kind == "descriptor" and choice.value in (0, 1, 2):
        return int(choice.value)
    return inherited if choice.kind == "inherit" else -1


def is_same(one: int, other: int) -> bool:
    """Return whether two descriptors are of the same terminal: by its file, or because it is our controlling one, which has two."""
    return os.path.samestat(os.fstat(one), os.fstat(other)) or is_controlling(one) and is_controlling(other)


class Typist:
    """What is to be typed into the command's terminal.

    Attributes: left, what is to be typed next; over, whether the end of the input was typed; again, when it is to be typed again at
    the earliest to who takes bytes; rest, the seconds until then, the next time.
    """

    def __init__(self, streams: TerminalStreams) -> None:
        self.streams = streams
        self.left = bytearray()
        self.over = False
        self.again, self.rest = 0.0, LOOK_AGAIN / 1000
        self.last = b"\n"
        self.keys: list[float] = []

    @property
    def listens(self) -> bool:
        """Whether to read from the input: to a user always, for there has to be a way out."""
        streams = self.streams
        return streams.input >= 0 and (streams.caller is not None and streams.caller.typed or len(self.left) < CHUNK)

    def fill(self) -> None:
        """Take the next piece of the source; at its end type that."""
        if self.left or self.streams.input >= 0:
            return
        self.left += b"" if self.over else next(self.streams.source, b"")
        if not self.left and not (self.streams.caller and self.streams.caller.typed):
            self.type_end()
            self.over = True

    def read(self) -> bool:
        """Take what the input has; return whether the run is to be ended: its user has gone, or wants out."""
        streams = self.streams
        user = streams.caller is not None and streams.caller.typed
        try:
            data = os.read(streams.input, CHUNK)
        except BlockingIOError:
            return False
        except OSError as error:
            if not user:
                raise OSError(error.errno, error.strerror, "stdin") from None
            data = b""  # the terminal is gone
        if not data:
            streams.input = -1
            return user
        if streams.caller and user:
            streams.caller.hear(data)
        self.left += data[: max(0, MOST_TYPED - len(self.left))]
        return user and self.is_way_out(data)

    def is_way_out(self, data: bytes) -> bool:
        """Whatever else is typed in between: a command can have the terminal type answers all the time."""
        now = time.monotonic()
        self.keys = [at for at in self.keys if now - at < WAY_OUT_SECONDS] + [now] * ways_out(data)
        return len(self.keys) >= WAY_OUT_KEYS

    def write(self) -> None:
        """Type as much as is taken now."""
        try:
            count = os.write(self.streams.master, self.left[:CHUNK])
        except BlockingIOError:
            return
        if count:
            self.last = bytes(self.left[count - 1 : count])
            del self.left[:count]

    def type_end(self) -> None:
        """Type the end of the input (Ctrl-D) as a user would, and again for whoever reads when it has been read: at each look where
        lines are read, more and more seldom where bytes are. To these it is a byte like others, which nobody may care for; and what
        was typed while lines were read has become a NUL to them (termios(3), VEOF).
        """
        attributes, now = termios.tcgetattr(self.streams.slave), time.monotonic()
        reads_lines, end = bool(attributes[3] & termios.ICANON), attributes[6][termios.VEOF]
        if not isinstance(end, bytes) or end == b"\0":
            end = b"\x04"
        if not self.over:
            self.left += end * 2 if reads_lines and self.last not in b"\r\n" else end  # the first one ends a line that has no end
        elif has_input(self.streams.slave) or not reads_lines and now < self.again:
            return
        else:
            self.left += end
        if not reads_lines:
            self.again, self.rest = now + self.rest, self.rest * 2


def has_input(slave: int) -> bool:
    """Return whether something typed has not been read yet."""
    poll = select.poll()
    poll.register(slave, select.POLLIN)
    return bool(poll.poll(0))


def wanted(streams: TerminalStreams, typist: Typist) -> dict[int, int]:
    """Return what can be done as soon as poll(2) says so, by descriptor."""
    masks: dict[int, int] = {}

    def want(descriptor: int, event: int, *, wanted: bool) -> None:
        if descriptor >= 0 and wanted:
            masks[descriptor] = masks.get(descriptor, 0) | event

    want(streams.master, select.POLLIN, wanted=len(streams.waiting) < CHUNK)
    want(streams.master, select.POLLOUT, wanted=bool(typist.left))
    want(streams.input, select.POLLIN, wanted=typist.listens)
    want(streams.output, select.POLLOUT, wanted=bool(streams.waiting))
    if streams.caller and not streams.caller.typed and not streams.caller.silent:
        want(streams.caller.file, select.POLLIN, wanted=True)
    return masks


class TerminalPump(Pump):
    """Types and reads until the run has ended, then takes what the terminal still holds."""

    def __init__(self, channel: LaunchedRun, streams: TerminalStreams) -> None:
        super().__init__(channel, streams)
        self.terminal = streams
        self.typist = Typist(streams)
        self.over = self.ending = self.moving = False
        self.takers: list[tuple[int, Callable[[bytes], object]]] = []
        if streams.caller:
            streams.caller.enter(streams.follow_size)

    def collect(self, descriptor: int, keep: Callable[[bytes], object]) -> None:
        """Have keep take what the terminal shows, after what the handle's pipe holds of it; the descriptor is ours from now on."""
        self.takers.append((descriptor, keep))
        if self.over:
            self.divert()

    def divert(self) -> None:
        """Do what collect() was asked for: here or there, whoever is first."""
        try:
            descriptor, keep = self.takers.pop()
        except IndexError:
            return
        streams = self.terminal
        os.set_blocking(descriptor, False)
        take_rest(descriptor, keep)
        os.close(descriptor)
        if rest := streams.rest_of("stdout"):
            keep(rest)
        if streams.master in streams.readers:
            streams.readers[streams.master] = keep
        if streams.output in streams.inner:
            streams.inner.remove(streams.output)
            os.close(streams.output)
            streams.output = -1

    def feed(self, descriptor: int, data: bytes) -> None:
        """Type data after what the handle's pipe holds, then the end; the descriptor is ours from now on."""
        self.terminal.source = iter((data,))
        os.close(descriptor)

    def watch(self) -> select.poll:
        """Return what tells of what can be done now. A new one each time: a signal handler may come in between (select.poll)."""
        poll = select.poll()
        for descriptor in (self.talk, self.end):
            poll.register(descriptor, select.POLLIN)
        for descriptor, mask in ({} if self.moving else wanted(self.terminal, self.typist)).items():
            poll.register(descriptor, mask)
        return poll

    def patience(self, wait: float | None) -> int | None:
        """Return for how many milliseconds nothing need be done but what is waited for."""
        limits = (
            self.channel.patience,
            LOOK_AGAIN if self.typist.over else None,
            None if wait is None else min(math.ceil(wait * 1000), MOST),
        )
        return min((limit for limit in limits if limit is not None), default=None)

    def step(self, wait: float | None = None) -> Ended | Failed | None:
        """Wait until something can be done, do it, and return the outcome if there is one; wait: seconds at the most.

        Raises:
            LauncherDiedError: the launcher died, and the run with it.
        """
        try:
            if self.channel.outcome is None:
                self.move_once(wait)
            if self.channel.outcome is None:
                return None
            if self.moving:  # a signal handler's step: that around it takes the rest
                return None if wait == 0 else self.channel.outcome
            return self.end_once(wait)
        except BaseException as error:
            if not self.waiting and is_sinks(error):  # else a signal handler's, and the run goes on
                self.give_up()
            raise

    def give_up(self) -> None:
        """Move nothing more of a run that is being killed: a sink has failed."""
        try:
            self.terminal.give_back()
        finally:
            self.finish()

    def finish(self) -> None:
        """Nothing more is moved: let a handle's pipes come to their ends."""
        self.terminal.write_what_fits()
        self.terminal.hang_up()
        self.over = True
        self.divert()

    def move_once(self, wait: float | None) -> None:
        nested = self.moving
        if not nested:
            self.alone(self.prepare)
        poll, behind = self.watch(), self.channel.is_behind()
        self.waiting = True
        ready = dict(poll.poll(0 if behind else self.patience(wait)))
        self.waiting = False
        self.channel.look_after()
        if (behind or self.talk in ready) and self.channel.receive() is not None:
            return
        if not nested:
            self.alone(self.transfer, ready)
        if self.end in ready and self.channel.receive() is None:
            self.channel.lost()

    def alone(self, act: Callable[..., object], *args: object) -> None:
        """Do something of which a signal handler's step does nothing meanwhile: bytes would be moved twice, or out of their order."""
        self.moving = True
        try:
            act(*args)
        finally:
            self.moving = False

    def prepare(self) -> None:
        """Do what need not be waited for."""
        self.divert()
        self.terminal.follow_size()
        self.typist.fill()

    def end_once(self, wait: float | None) -> Ended | Failed | None:
        """Take and write what is left of a run that has ended, and return its outcome. A signal handler may come in between, and may
        raise: who comes next goes on from there. One that only looks (wait: 0) leaves it to the step around it.
        """
        if self.ending and wait == 0:
            return None
        before, self.ending = self.ending, True
        self.waiting = False
        try:
            drain(self.terminal)  # all that was printed is there: reading from a master takes what is on its way to it
            if self.terminal.output not in self.terminal.inner:
                self.terminal.write_rest()
            self.terminal.give_back()
            self.finish()
        finally:
            self.ending = before
        return self.channel.outcome

    def transfer(self, ready: dict[int, int]) -> None:
        """Do what can be done."""
        streams = self.terminal
        got = {descriptor: ready.get(descriptor, 0) & ~select.POLLOUT for descriptor in (streams.master, streams.input)}
        if got[streams.master]:
            read_some(streams.master, streams.readers[streams.master])
        if ready.get(streams.master, 0) & select.POLLOUT:
            self.typist.write()
        if streams.output in ready and streams.waiting:
            streams.write_out()
        if streams.caller and not streams.caller.typed and ready.get(streams.caller.file, 0) & ~select.POLLOUT:
            streams.caller.discard()
        if got.get(streams.input) and self.typist.listens and self.typist.read():
            self.channel.kill()
