"""The command's three streams: what the Config says of them, opened as descriptors, and moved by one poll loop."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import select
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from proc_sandbox.config import CAPTURE, DEVNULL, INHERIT, PIPE, STDOUT, Config
from proc_sandbox.errors import ConfigError
from proc_sandbox.launcher.channel import Channel
from proc_sandbox.links import open_resolved, resolve
from proc_sandbox.report import Ended, Failed
from proc_sandbox.supervise import Collector, Supervisor

__all__ = ["Streams", "check_streams", "pump"]

open_streams: set[Streams] = set()
"""Of runs that are under way. A child by os.fork() closes its copies: else a command's stdin would not end before it does."""

CHUNK = 1 << 16
LIMIT_AFTER_END = 1 << 26  # what a pipe can still hold; a descriptor that never runs dry must not keep us


def descriptor_of(stream: object) -> int | None:
    """Return a file object's descriptor, or None where it has none (io.BytesIO)."""
    fileno = getattr(stream, "fileno", None)
    if fileno is None:
        return None
    try:
        number = fileno()
    except (OSError, ValueError):
        return None
    return int(number)


def check_streams(config: Config) -> None:
    """Refuse what is closed, before descriptors of our own can take its number.

    Raises:
        ConfigError: a stream or passed descriptor is not open.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream = getattr(config, name)
        if is_constant(stream, INHERIT):
            check_open(name, "INHERIT", number)
        elif isinstance(stream, int) and stream >= 0:
            check_open(name, stream, stream)
        elif getattr(stream, "closed", False):
            raise ConfigError(name, stream, "it is closed; pass an open file")
        elif name != "stdin" and isinstance(stream, io.TextIOBase) and descriptor_of(stream) is None:
            raise ConfigError(name, stream, "it takes text; pass a binary stream, or take the text from result.stdout.text()")
    for descriptor in config.pass_fds:
        check_open("pass_fds", descriptor, descriptor)


def check_open(field: str, value: object, descriptor: int) -> None:
    try:
        os.fstat(descriptor)
    except OSError:
        raise ConfigError(field, value, "the descriptor is not open; pass an open one") from None


def open_pipe() -> tuple[int, int]:
    """Return a pipe that can be opened again by who has it: as root the command has a user of its own, and /dev/stdout names
    what its standard output is (proc_pid_fd(5)).
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    if os.geteuid() == 0:
        with contextlib.suppress(PermissionError):  # a sandbox around us changes no modes: there /dev/stdout stays closed
            os.fchmod(reader, 0o666)
    return reader, writer


class Streams:
    """What the command gets as 0, 1 and 2, and our ends of the pipes.

    Attributes: theirs, the three descriptors; readers, our read ends with what takes their bytes; writer, our end of
    stdin with what is still to be fed.
    """

    def __init__(self, config: Config, data: bytes | None, supervisor: Supervisor, writable: Sequence[str] = ()) -> None:
        self.writable = writable
        self.owned: list[int] = []
        open_streams.add(self)
        self.readers: dict[int, Callable[[bytes], object]] = {}
        self.writer = -1
        self.flags: dict[int, int] = {}
        self.source: Iterator[bytes] = iter(())
        try:
            stdin = self.open_input(config.stdin, data)
            stdout = self.open_output("stdout", config.stdout, supervisor.stdout)
            stderr = stdout if is_constant(config.stderr, STDOUT) else None
            if stderr is None:
                stderr = self.open_output("stderr", config.stderr, supervisor.stderr)
            self.theirs = [stdin, stdout, stderr]
            # Flags such as O_NONBLOCK belong to the open file, which the command shares with its caller (fcntl(2)).
            self.flags = {fd: fcntl.fcntl(fd, fcntl.F_GETFL) for fd in {*self.theirs, *config.pass_fds} - {*self.owned}}
        except BaseException:
            self.close()
            raise

    def own(self, descriptor: int) -> int:
        self.owned.append(descriptor)
        return descriptor

    def open_input(self, stream: Any, data: bytes | None) -> int:
        if data is None and isinstance(stream, bytes):
            data = stream
        if data is not None:
            return self.feed_from(iter((data,)))
        if stream is None or is_constant(stream, DEVNULL):
            return self.own(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        if is_constant(stream, INHERIT):
            return 0
        if is_constant(stream, PIPE):
            raise ConfigError("stdin", "PIPE", "run() gives no handle to write to; pass input=...")
        if isinstance(stream, int):
            return stream
        if isinstance(stream, (str, os.PathLike)):
            return self.open_path("stdin", stream, os.O_RDONLY)
        descriptor = descriptor_of(stream)
        if descriptor is not None:
            return descriptor
        return self.feed_from(iter(lambda: encode(stream.read(CHUNK)), b""))

    def feed_from(self, source: Iterator[bytes]) -> int:
        reader, self.writer = open_pipe()
        os.set_blocking(self.writer, False)
        self.source = source
        return self.own(reader)

    def open_output(self, field: str, stream: Any, collector: Collector) -> int:
        if stream is None or is_constant(stream, CAPTURE) or is_constant(stream, PIPE):
            return self.read_into(collector.feed)
        if is_constant(stream, DEVNULL):
            return self.own(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC))
        if is_constant(stream, INHERIT):
            return 1 if field == "stdout" else 2
        if isinstance(stream, int):
            return stream
        if isinstance(stream, (str, os.PathLike)):
            return self.open_path(field, stream, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        descriptor = descriptor_of(stream)
        if descriptor is not None:
            flush = getattr(stream, "flush", None)
            if flush:
                flush()  # what the caller wrote before comes before what the command writes
            return descriptor
        collector.sink = whole(stream.write)  # max_output holds here too: a buffer in memory is the caller's memory
        return self.read_into(collector.feed)

    def read_into(self, keep: Callable[[bytes], object]) -> int:
        reader, writer = open_pipe()
        os.set_blocking(reader, False)
        self.readers[reader] = keep
        return self.own(writer)

    def open_path(self, field: str, path: str | os.PathLike[str], flags: int) -> int:
        """Open a file that the Config names; what a command may have put in its place is not followed.

        Raises:
            ConfigError: it cannot be opened.
        """
        text = os.fsdecode(path)
        try:
            found = resolve(text, self.writable, missing_ok=bool(flags & os.O_CREAT))
            return self.own(open_resolved(found, flags))
        except OSError as error:
            raise ConfigError(field, text, f"{error.strerror}; name a file that can be opened") from None

    def release(self) -> None:
        """Close the command's ends, once the launcher has them."""
        while self.owned:
            os.close(self.owned.pop())

    def close(self) -> None:
        """Close everything that was opened here, and leave the caller's own as they were."""
        open_streams.discard(self)
        self.release()
        while self.flags:
            descriptor, flags = self.flags.popitem()
            if fcntl.fcntl(descriptor, fcntl.F_GETFL) != flags:
                fcntl.fcntl(descriptor, fcntl.F_SETFL, flags)
        self.close_writer()
        while self.readers:
            os.close(self.readers.popitem()[0])

    def close_writer(self) -> None:
        """Close stdin: the command reads its end."""
        writer, self.writer = self.writer, -1  # forgotten first: what a signal interrupts is not closed twice
        if writer >= 0:
            os.close(writer)


def whole(write: Callable[[bytes], object]) -> Callable[[bytes], object]:
    """Return what writes all of it with a write() that may take a part (io.RawIOBase); one that returns no count takes all."""

    def write_all(data: bytes) -> None:
        while data:
            count = write(data)
            data = data[count:] if isinstance(count, int) and 0 < count < len(data) else b""

    return write_all


def is_constant(stream: object, constant: int) -> bool:
    return type(stream) is int and stream == constant


def encode(data: bytes | str | None) -> bytes:
    return data.encode() if isinstance(data, str) else data or b""


class Feeder:
    """Writes to the command's stdin as much as it takes."""

    def __init__(self, streams: Streams) -> None:
        self.streams = streams
        self.left = memoryview(b"")
        if streams.writer >= 0:
            self.next_piece()

    def next_piece(self) -> None:
        self.left = memoryview(next(self.streams.source, b""))
        if not self.left:
            self.streams.close_writer()

    def write(self) -> None:
        """Write once; close stdin when all is written or the command does not read any more, which is its right."""
        try:
            self.left = self.left[os.write(self.streams.writer, self.left[: 1 << 20]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self.streams.close_writer()
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


def pump(channel: Channel, streams: Streams) -> Ended | Failed:
    """Move bytes both ways until the run has ended, then take what the pipes still hold.

    Reading stops with the end of the tree, not at the end of the file: nothing can be written after it, and a
    descriptor that was passed out of the sandbox keeps nobody waiting.
    """
    poll = select.poll()
    poll.register(channel.fileno(), select.POLLIN)
    poll.register(channel.launcher_end(), select.POLLIN)
    for reader in streams.readers:
        poll.register(reader, select.POLLIN)
    feeder = Feeder(streams)
    writer = streams.writer
    if writer >= 0:
        poll.register(writer, select.POLLOUT)
    while True:
        ready = dict(poll.poll())
        for reader in [reader for reader in streams.readers if reader in ready]:
            if read_some(reader, streams.readers[reader]) == 0:
                poll.unregister(reader)
                del streams.readers[reader]
                os.close(reader)
        if writer in ready and streams.writer >= 0:
            feeder.write()
            if streams.writer < 0:
                poll.unregister(writer)
                writer = -1
        if channel.fileno() in ready:
            outcome = channel.receive()
            drain(streams)
            return outcome
        if channel.launcher_end() in ready:
            channel.lost()


def drain(streams: Streams) -> None:
    for reader, keep in streams.readers.items():
        total = 0
        while total < LIMIT_AFTER_END and (size := read_some(reader, keep)) > 0:
            total += size


def after_fork_in_child() -> None:
    while open_streams:
        streams = open_streams.pop()
        streams.flags.clear()  # the open files are the parent's still
        streams.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=after_fork_in_child)
