"""What the Config says of the command's three streams, decided for every system alike; nothing is opened here."""

from __future__ import annotations

import io
import os
import stat
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from proc_sandbox.config import CAPTURE, DEVNULL, INHERIT, PIPE, STDOUT, Config, Tee
from proc_sandbox.errors import ConfigError
from proc_sandbox.text import Decoding, Encoder

__all__ = [
    "CHUNK",
    "Choice",
    "EncodedInput",
    "PipeEnd",
    "check_open",
    "check_streams",
    "choose_input",
    "choose_output",
    "descriptor_of",
    "is_constant",
    "is_sinks",
    "shown",
    "whole",
    "with_encoded_input",
]

CHUNK = 1 << 16


class Choice(NamedTuple):
    """What becomes of one stream.

    kind: null; inherit; stdout (the same place as it); path (value: as given); descriptor (the caller's: value: its number);
    feed (value: an iterator of bytes); keep (up to max_output); sink (value: what takes all bytes that it is called with); tee
    (as keep; value: the Choices of where it goes too); pipe (a handle has the other end).
    """

    kind: str
    value: Any = None


class PipeEnd(int):
    """One end of a pipe between two runs, as a descriptor: ours, and closed once the launcher has it.

    A child by os.fork() closes its copies: else who reads from the pipe would not see its end.
    """

    def __init__(self, number: int) -> None:
        del number  # it is the value itself
        self.closed = False
        pipe_ends.add(self)

    def close(self) -> None:
        """Close it; harmless when done twice."""
        if not self.closed:
            self.closed = True  # first: what a signal interrupts is not closed twice
            pipe_ends.discard(self)
            os.close(self)


pipe_ends: set[PipeEnd] = set()


def after_fork_in_child() -> None:
    for end in list(pipe_ends):
        end.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=after_fork_in_child)


def choose_input(stream: Any, data: bytes | None, *, held: bool = False) -> Choice:
    """Return where the command's stdin comes from; data is what run() was given as input; held: there is a handle.

    Raises:
        ConfigError: PIPE, which run() has no use for.
    """
    if data is None and isinstance(stream, bytes):
        data = stream
    if data is not None:
        return Choice("feed", iter((data,)))
    if stream is None or is_constant(stream, DEVNULL):
        return Choice("null")
    if is_constant(stream, INHERIT):
        return Choice("inherit")
    if is_constant(stream, PIPE):
        if held:
            return Choice("pipe")
        raise ConfigError("stdin", "PIPE", "run() gives no handle to write to; pass input=...")
    return named(stream) or Choice("feed", iter(EncodedInput(stream)))


def choose_output(stream: Any, *, held: bool = False) -> Choice:
    """Return where the command's stdout or stderr goes; held: there is a handle."""
    if held and is_constant(stream, PIPE):
        return Choice("pipe")
    if stream is None or is_constant(stream, CAPTURE) or is_constant(stream, PIPE):
        return Choice("keep")
    if is_constant(stream, STDOUT):
        return Choice("stdout")
    if is_constant(stream, DEVNULL):
        return Choice("null")
    if is_constant(stream, INHERIT):
        return Choice("inherit")
    if isinstance(stream, Tee):
        return Choice("tee", [choose_output(target) for target in stream.targets])
    found = named(stream)
    if found is None:
        return Choice("sink", whole(stream.write) if hasattr(stream, "write") else stream)
    if found.kind == "descriptor" and hasattr(stream, "flush"):
        stream.flush()  # what the caller wrote before comes before what the command writes
    return found


def named(stream: Any) -> Choice | None:
    """Return the choice where the system itself has the file: a descriptor or a path."""
    if isinstance(stream, int):
        return Choice("descriptor", stream)
    if isinstance(stream, (str, os.PathLike)):
        return Choice("path", stream)
    descriptor = descriptor_of(stream)
    return None if descriptor is None else Choice("descriptor", descriptor)


class EncodedInput:
    """A file object whose text, where it brings some, is read as bytes. how: None: as UTF-8."""

    def __init__(self, stream: Any, how: Decoding | None = None) -> None:
        self.stream = stream
        self.encoder = Encoder(how)
        self.over = False

    @property
    def closed(self) -> bool:
        """Whether the file object is."""
        return bool(getattr(self.stream, "closed", False))

    def read(self, size: int) -> bytes:
        """Return the next piece, b"" at the end. size: of what is read, in units of the file object's."""
        while not self.over:
            piece = self.stream.read(size)
            self.over = not piece
            if data := self.encoder.encode(piece) if piece else self.encoder.finish():
                return data
        return b""

    def __iter__(self) -> Iterator[bytes]:
        return iter(lambda: self.read(CHUNK), b"")

    def __repr__(self) -> str:
        return repr(self.stream)


def with_encoded_input(config: Config, how: Decoding | None) -> Config:
    """Return the Config with a stdin that brings text as one that brings it encoded so. how: None: as it is, UTF-8."""
    if how is None or not hasattr(config.stdin, "read") or named(config.stdin) is not None:
        return config
    return config.replace(stdin=EncodedInput(config.stdin, how))


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
        ConfigError: a stream or passed descriptor is not open, or a directory.
    """
    if not config.has_own_streams and not config.pass_fds:
        return
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream = getattr(config, name)
        for each in stream.targets if isinstance(stream, Tee) else (stream,):
            check_stream(name, number, each)
    for descriptor in config.pass_fds:
        check_open("pass_fds", descriptor, descriptor)


def check_stream(name: str, number: int, stream: Any) -> None:
    if is_constant(stream, INHERIT):
        check_open(name, "INHERIT", number)
    elif isinstance(stream, int) and stream >= 0:
        check_open(name, stream, stream)
    elif getattr(stream, "closed", False):
        raise ConfigError(name, stream, "it is closed; pass an open file")
    elif name != "stdin" and isinstance(stream, io.TextIOBase) and descriptor_of(stream) is None:
        raise ConfigError(name, stream, "it takes text; pass a binary stream, or take the text from result.stdout.text()")
    elif (descriptor := descriptor_of(stream)) is not None:
        check_open(name, stream, descriptor)


def check_open(field: str, value: object, descriptor: int) -> None:
    """Refuse what is closed, and a directory: from one on the host that a command holds it walks around all that is mounted over
    what is hidden or read-only, and out of its view (openat(2)).
    """
    try:
        status = os.fstat(descriptor)
    except OSError:
        raise ConfigError(field, value, "the descriptor is not open; pass an open one") from None
    if stat.S_ISDIR(status.st_mode):
        raise ConfigError(field, value, "it is a directory; name it in allowed_dirs or writable_dirs instead")


def whole(write: Callable[[bytes], object]) -> Callable[[bytes], object]:
    """Return what writes all of it with a write() that may take a part (io.RawIOBase); one that returns no count takes all, and
    what it returns instead is passed on.
    """

    def write_all(data: bytes) -> object:
        while isinstance(count := write(data), int) and 0 < count < len(data):
            data = data[count:]
        return count

    return write_all


def is_sinks(error: BaseException) -> bool:
    """Return whether what was raised while bytes are moved is taken for a sink's, which ends the run: KeyboardInterrupt and its like are
    a signal handler's, as long as it is on the main thread, where these run.
    """
    return isinstance(error, Exception) or threading.current_thread() is not threading.main_thread()


def is_constant(stream: object, constant: int) -> bool:
    return type(stream) is int and stream == constant


CONSTANTS = {PIPE: "PIPE", STDOUT: "STDOUT", DEVNULL: "DEVNULL", INHERIT: "INHERIT", CAPTURE: "CAPTURE"}


def shown(stream: object) -> object:
    """Return what an error shows of a stream that was given: a constant by its name."""
    return CONSTANTS.get(stream, stream) if type(stream) is int else stream
