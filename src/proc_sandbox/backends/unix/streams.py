"""The command's three streams where files are descriptors: opened, and moved by one poll loop."""

from __future__ import annotations

import errno
import fcntl
import math
import os
import select
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import cast

from proc_sandbox import later
from proc_sandbox.backends.unix.links import open_resolved, resolve
from proc_sandbox.config import Config
from proc_sandbox.errors import ConfigError
from proc_sandbox.launcher.channel import Channel
from proc_sandbox.report import Ended, Failed
from proc_sandbox.streams import CHUNK, Choice, PipeEnd, check_open, choose_input, choose_output, whole
from proc_sandbox.supervise import Collector, Supervisor

__all__ = ["LIMIT_AFTER_END", "DescriptorStreams", "Feeder", "LaunchedRun", "read_some"]

open_streams: set[weakref.ref[DescriptorStreams]] = set()
"""Of runs that are under way. A child by os.fork() closes its copies: else a command's stdin would not end before it does. Not what
keeps them: a sink may hold all that waits for the run, which has to end with an event loop that is thrown away.
"""

FEW = 64
"""Runs under way at once, of which each may keep two descriptors more."""
MOST = 1_000_000  # milliseconds: poll(2) takes an int
LIMIT_AFTER_END = 1 << 26  # what a pipe can still hold; a descriptor that never runs dry must not keep us


def open_pipe() -> tuple[int, int]:
    """Return a pipe that can be opened again by who has it: as root the command has a user of its own, and /dev/stdout names
    what its standard output is (proc_pid_fd(5)). Until it is noted who has its ends forks wait (later.lock): a child would not know
    what to close.
    """
    root = os.geteuid() == 0
    reader, writer = os.pipe()
    try:
        if root:
            os.fchmod(reader, 0o666)
    except PermissionError:
        pass  # a sandbox around us changes no modes: there /dev/stdout stays closed
    except BaseException:  # whatever it is, a signal's exception too: nobody else knows of them
        os.close(reader)
        os.close(writer)
        raise
    return reader, writer


class DescriptorStreams:
    """What the command gets as 0, 1 and 2, and our ends of the pipes.

    Attributes: theirs, all descriptors of the command's: the three, and pass_fds; owned, those of them that were opened here;
    readers, our read ends with what takes their bytes; ends, the other ends of these; writer, our end of stdin with what is
    still to be fed; pipes, by the stream's name our ends of those that a handle is to have; files, which we write to ourselves.
    """

    terminal = ""
    """The name of the terminal that the streams are, on the host; "" where they are none, or it has none."""
    relayed = False
    run: LaunchedRun | None = None
    """The run whose streams they are, where a child by os.fork() has to let go of that too."""

    def __init__(
        self,
        config: Config,
        data: bytes | None,
        supervisor: Supervisor,
        writable: Sequence[str] = (),
        *,
        held: bool = False,
        opens_null: bool = True,
    ) -> None:
        self.writable = writable
        self.held = held
        self.pipes: dict[str, int] = {}
        self.files: list[int] = []
        self.owned: list[int] = []
        self.ends: list[int] = []
        self.noted = weakref.ref(self, open_streams.discard)
        open_streams.add(self.noted)
        self.readers: dict[int, Callable[[bytes], object]] = {}
        self.writer = -1
        self.flags: dict[int, int] = {}
        self.source: Iterator[bytes] = iter(())
        try:
            if data is None and not config.has_own_streams and not config.pass_fds and not config.pty:  # as most are
                null = [self.open_null(os.O_RDONLY)] if opens_null else []
                self.theirs = [*null, self.read_into(supervisor.stdout.feed), self.read_into(supervisor.stderr.feed)]
            else:
                self.open_chosen(config, data, supervisor)
        except BaseException:
            self.close()
            raise

    def open_chosen(self, config: Config, data: bytes | None, supervisor: Supervisor) -> None:
        stdin = self.open_input(choose_input(config.stdin, data, held=self.held))
        stdout = self.open_output("stdout", choose_output(config.stdout, held=self.held), supervisor.stdout)
        errors = choose_output(config.stderr, held=self.held)
        stderr = stdout if errors.kind == "stdout" else self.open_output("stderr", errors, supervisor.stderr)
        self.theirs = [stdin, stdout, stderr, *config.pass_fds]
        self.note_flags(config)

    def note_flags(self, config: Config) -> None:
        # Flags such as O_NONBLOCK belong to the open file, which the command shares with its caller (fcntl(2)).
        # A pipe between two runs is neither's, and closed before they end.
        between = [end for end in (config.stdin, config.stdout) if isinstance(end, PipeEnd)]
        for descriptor in {*self.theirs}.difference(self.owned, self.ends, between):
            self.flags[descriptor] = fcntl.fcntl(descriptor, fcntl.F_GETFL)

    def open_null(self, flags: int) -> int:
        # A new one for each run: one for all would be an open file by whose flags, owner and locks runs could tell each other things.
        return self.own(os.open(os.devnull, flags | os.O_CLOEXEC))

    def own(self, descriptor: int) -> int:
        self.owned.append(descriptor)
        return descriptor

    def open_input(self, choice: Choice) -> int:
        if choice.kind == "feed":
            return self.feed_from(choice.value)
        if choice.kind == "pipe":
            with later.lock:
                reader, self.pipes["stdin"] = open_pipe()
                return self.own(reader)
        if choice.kind == "null":
            return self.open_null(os.O_RDONLY)
        if choice.kind == "path":
            return self.open_path("stdin", choice.value, os.O_RDONLY)
        return 0 if choice.kind == "inherit" else int(choice.value)

    def feed_from(self, source: Iterator[bytes]) -> int:
        with later.lock:
            reader, self.writer = open_pipe()
            self.own(reader)
        os.set_blocking(self.writer, False)
        self.source = source
        return reader

    def open_output(self, field: str, choice: Choice, collector: Collector) -> int:
        if choice.kind in ("keep", "sink", "tee"):
            self.set_sink(field, choice, collector)
            return self.read_into(collector.feed)
        if choice.kind == "pipe":
            with later.lock:
                self.pipes[field], writer = open_pipe()
                return self.own(writer)
        if choice.kind == "null":
            return self.open_null(os.O_WRONLY)
        if choice.kind == "path":
            return self.open_path(field, choice.value, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        if choice.kind == "inherit":
            return 1 if field == "stdout" else 2
        return int(choice.value)

    def set_sink(self, field: str, choice: Choice, collector: Collector) -> None:
        """Decide what takes what is read. max_output holds for all of it: a buffer in memory is the caller's memory."""
        if choice.kind == "tee":
            sinks = [collector.sink, *(self.sink_of(field, target) for target in choice.value)]
            collector.sink = lambda data: [sink(data) for sink in sinks]
        else:
            collector.sink = choice.value or collector.sink

    def sink_of(self, field: str, target: Choice) -> Callable[[bytes], object]:
        """Return what takes a copy of what is captured."""
        if target.kind == "sink":
            return cast("Callable[[bytes], object]", target.value)
        descriptor = target.value
        if target.kind == "path":
            descriptor = self.open_path(field, target.value, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            self.files.append(self.owned.pop())
        return whole(lambda data: os.write(descriptor, data))

    def read_into(self, keep: Callable[[bytes], object]) -> int:
        with later.lock:
            reader, writer = open_pipe()
            self.readers[reader] = keep
            self.ends.append(writer)
        os.set_blocking(reader, False)
        return writer

    def open_path(self, field: str, path: str | os.PathLike[str], flags: int) -> int:
        """Open a file that the Config names; what a command may have put in its place is not followed.

        Raises:
            ConfigError: it cannot be opened.
        """
        text = os.fsdecode(path)
        try:
            found = resolve(text, self.writable, missing_ok=bool(flags & os.O_CREAT))
            descriptor = self.own(open_resolved(found, flags))
        except OSError as error:
            raise ConfigError(field, text, f"{error.strerror}; name a file that can be opened") from None
        except ValueError:  # half of a surrogate pair, or a NUL
            raise ConfigError(field, text, "it cannot be the name of a file") from None
        check_open(field, text, descriptor)
        return descriptor

    def release(self) -> None:
        """Close the command's ends, once the launcher has them.

        A pipe that we read tells that nobody writes to it any more, just before the run has ended: nobody needs to be woken for that.
        So as long as runs are few and descriptors many, we are among those who could.
        """
        self.close_owned()
        if len(open_streams) > FEW:
            self.close_ends()

    def pump_for(self, channel: LaunchedRun) -> Pump:
        """Return what moves bytes both ways, step by step."""
        return Pump(channel, self)

    def close_owned(self) -> None:
        while self.owned:
            os.close(self.owned.pop())

    def close_ends(self) -> None:
        while self.ends:
            os.close(self.ends.pop())

    def take(self, name: str) -> int | None:
        """Return our end of a pipe, which is the caller's from now on; None: that stream is none."""
        return self.pipes.pop(name, None)

    def rest_of(self, name: str) -> bytes:
        """Return what a pipe had no room for: nothing, for it is the command's own."""
        del name
        return b""

    def set_size(self, rows: int, columns: int) -> None:
        """Set the size of the terminal: there is none."""

    def close(self) -> None:
        """Close everything that was opened here, and leave the caller's own as they were."""
        open_streams.discard(self.noted)
        self.close_owned()
        self.close_ends()
        while self.flags:
            descriptor, flags = self.flags.popitem()
            if fcntl.fcntl(descriptor, fcntl.F_GETFL) != flags:
                fcntl.fcntl(descriptor, fcntl.F_SETFL, flags)
        self.close_writer()
        while self.pipes:
            os.close(self.pipes.popitem()[1])
        while self.files:
            os.close(self.files.pop())
        while self.readers:
            os.close(self.readers.popitem()[0])

    def close_writer(self) -> None:
        """Close stdin: the command reads its end."""
        writer, self.writer = self.writer, -1  # forgotten first: what a signal interrupts is not closed twice
        if writer >= 0:
            os.close(writer)


class Feeder:
    """Writes to the command's stdin as much as it takes."""

    def __init__(self, streams: DescriptorStreams) -> None:
        self.streams = streams
        self.left = memoryview(b"")
        if streams.writer >= 0:
            self.next_piece()

    def next_piece(self) -> None:
        self.left = memoryview(next(self.streams.source, b""))
        if not self.left:
            self.finish()

    def finish(self) -> None:
        self.streams.close_writer()

    def write(self) -> None:
        """Write once; close stdin when all is written or the command does not read any more, which is its right."""
        try:
            self.left = self.left[os.write(self.streams.writer, self.left[: 1 << 20]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self.finish()
            return
        if not self.left:
            self.next_piece()


def read_some(descriptor: int, keep: Callable[[bytes], object]) -> int:
    """Move what is there; return its size, 0 at the end, -1 where nothing is there now."""
    try:
        data = os.read(descriptor, CHUNK)
    except BlockingIOError:
        return -1
    except OSError as error:
        if error.errno == errno.EIO:
            return 0
        raise
    if data:
        keep(data)
    return len(data)


class LaunchedRun(Channel):
    """A run of the launcher's, whose streams are descriptors."""

    patience: int | None = None
    """Milliseconds after which who serves the run is to be looked after; None: never."""

    def look_after(self) -> None:
        """See to it that who serves the run goes on: nobody can stop the launcher."""

    def disown(self) -> None:
        """Let go of it: it is the parent process's, and not ours to hear of or to end."""

    def communicate(self, streams: DescriptorStreams) -> Ended | Failed:
        """Move bytes both ways until the run has ended; return its outcome.

        Raises:
            LauncherDiedError: the launcher died, and the run with it.
        """
        pump = streams.pump_for(self)
        while (outcome := pump.step()) is None:
            pass
        return outcome

    def pump(self, streams: DescriptorStreams) -> Pump:
        """Return what moves bytes both ways, step by step."""
        return streams.pump_for(self)


class Pump:
    """Moves bytes both ways until the run has ended, then takes what the pipes still hold.

    Reading stops with the end of the tree, not at the end of the file: nothing can be written after it, and a
    descriptor that was passed out of the sandbox keeps nobody waiting.

    Attributes: waiting, whether nothing but time was passing when an exception left step().
    """

    def __init__(self, channel: LaunchedRun, streams: DescriptorStreams) -> None:
        self.channel, self.streams = channel, streams
        self.waiting = False
        self.talk, self.end = channel.fileno(), channel.launcher_end()
        if self.end < 0:
            channel.lost()  # it has died, which another run's thread has seen already
        self.poll, self.polling, self.stepping = select.poll(), False, False
        self.awaited = dict.fromkeys((self.talk, self.end, *streams.readers), select.POLLIN)
        for descriptor in self.awaited:
            self.poll.register(descriptor, select.POLLIN)
        self.writer = -1
        if streams.writer >= 0:
            self.feeder = Feeder(streams)
            self.writer = streams.writer
        if self.writer >= 0:
            self.await_event(self.writer, select.POLLOUT)

    def await_event(self, descriptor: int, event: int) -> None:
        self.poll.register(descriptor, event)
        self.awaited[descriptor] = event

    def claim(self, descriptor: int) -> bool:
        """Await nothing of a descriptor while it is used; return False where a signal handler has been faster."""
        if self.awaited.pop(descriptor, 0) == 0:
            return False
        self.poll.unregister(descriptor)
        return True

    def collect(self, descriptor: int, keep: Callable[[bytes], object]) -> None:
        """Read what comes from a handle's pipe; the descriptor is ours from now on. When the run has ended: all that is there."""
        os.set_blocking(descriptor, False)
        if self.channel.outcome is not None:
            take_rest(descriptor, keep)
            os.close(descriptor)
            return
        self.streams.readers[descriptor] = keep
        self.await_event(descriptor, select.POLLIN)

    def feed(self, descriptor: int, data: bytes) -> None:
        """Write to a handle's pipe, then close it; the descriptor is ours from now on."""
        os.set_blocking(descriptor, False)
        self.streams.writer, self.streams.source = descriptor, iter((data,))
        self.feeder = Feeder(self.streams)
        if self.streams.writer >= 0:
            self.writer = descriptor
            self.await_event(descriptor, select.POLLOUT)

    def step(self, wait: float | None = None) -> Ended | Failed | None:
        """Wait until something can be done, do it, and return the outcome if there is one; wait: seconds at the most.

        Raises:
            LauncherDiedError: the launcher died, and the run with it.
        """
        outermost, self.stepping = not self.stepping, True
        try:
            if self.channel.outcome is None:
                self.move(wait)
            elif wait == 0 and not outermost:
                return None  # a signal handler's step, while that around it takes the rest: only who waits for the end takes part
            return self.take_all() if self.channel.outcome is not None else None
        finally:
            self.stepping = not outermost

    def move(self, wait: float | None) -> None:
        """Wait until something can be done, and do it."""
        channel, streams = self.channel, self.streams
        patience = channel.patience
        if wait is not None:
            patience = min(math.ceil(wait * 1000), patience or MOST)
        behind = channel.is_behind()
        ready = self.ready(0 if behind else patience)
        channel.look_after()
        if (behind or self.talk in ready) and channel.receive() is not None:
            streams.close_ends()  # then what has no more to be read tells so
            return
        for descriptor in ready:
            if descriptor in streams.readers and self.claim(descriptor):
                self.read(descriptor)
            elif descriptor == self.writer and self.claim(descriptor):
                self.write()
        if self.end in ready and channel.receive() is None:
            channel.lost()

    def take_all(self) -> Ended | Failed | None:
        """Take what the pipes hold of a run that has ended, but for what is being moved; return the outcome."""
        for descriptor, keep in list(self.streams.readers.items()):
            if self.awaited.pop(descriptor, 0):  # nothing is polled any more
                take_rest(descriptor, keep)
        return self.channel.outcome

    def ready(self, patience: int | None) -> list[int]:
        """Wait for something to do; from within that, in a signal handler, with a poll of its own: one is not shared (select.poll)."""
        outermost, poll = not self.polling, self.poll
        self.waiting = self.polling = True
        try:
            if not outermost:
                poll = select.poll()
                for descriptor, event in list(self.awaited.items()):
                    poll.register(descriptor, event)
            found = [descriptor for descriptor, _ in poll.poll(patience)]
        finally:
            self.polling = not outermost
        self.waiting = False
        return found

    # What is being moved is not touched by a step that a signal handler takes meanwhile: later bytes would come before earlier ones.

    def read(self, descriptor: int) -> None:
        size = -1
        try:
            size = read_some(descriptor, self.streams.readers[descriptor])
        finally:
            if size != 0:
                self.await_event(descriptor, select.POLLIN)
        if size == 0:
            del self.streams.readers[descriptor]
            os.close(descriptor)

    def write(self) -> None:
        try:
            self.feeder.write()
        finally:
            if self.streams.writer >= 0:
                self.await_event(self.writer, select.POLLOUT)
            else:
                self.writer = -1


def drain(streams: DescriptorStreams) -> None:
    """Take what the pipes hold of a run that has ended."""
    for reader, keep in list(streams.readers.items()):
        take_rest(reader, keep)


def take_rest(reader: int, keep: Callable[[bytes], object]) -> None:
    total = 0
    while total < LIMIT_AFTER_END and (size := read_some(reader, keep)) > 0:
        total += size


def after_fork_in_child() -> None:
    while open_streams:
        streams = open_streams.pop()()
        if streams is not None:
            streams.flags.clear()  # the open files are the parent's still
            if streams.run is not None:
                streams.run.disown()
            streams.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=after_fork_in_child)
