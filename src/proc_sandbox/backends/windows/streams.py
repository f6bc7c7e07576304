"""The command's three streams on Windows: handles that it inherits, and a thread for each pipe.

Each of our threads reads or writes one pipe, so that no full pipe keeps another one waiting, and the thread that waits for
the run keeps its deadline whatever a caller's file does. A pipe's end is not waited for: a handle to it may have got out
(DuplicateHandle). Once the run is over, what is in a pipe is taken and what still waits there is cancelled (CancelIoEx).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import cast

from proc_sandbox.backends.windows.links import open_named
from proc_sandbox.backends.windows.winapi import (
    ERROR_BROKEN_PIPE,
    ERROR_NO_DATA,
    ERROR_OPERATION_ABORTED,
    FILE_SHARE_READ,
    FILE_SHARE_WRITE,
    GENERIC_READ,
    GENERIC_WRITE,
    OPEN_EXISTING,
    Win32,
    Win32Error,
)
from proc_sandbox.config import Config
from proc_sandbox.errors import ConfigError
from proc_sandbox.streams import CHUNK, Choice, choose_input, choose_output, whole
from proc_sandbox.supervise import Collector, Supervisor

__all__ = ["Streams"]

PIPE_SIZE = 1 << 16
LIMIT_AFTER_END = 1 << 26
"""Bytes; a pipe that never runs dry must not keep us."""
REST = 0.01
"""Seconds between two cancellations: one that comes just before a read does not reach it."""


class Pump(threading.Thread):
    """One end of a pipe that is ours, and the thread that moves its bytes until finish()."""

    def __init__(self, win32: Win32, handle: int, failed: Callable[[], None]) -> None:
        super().__init__(daemon=True)  # in case the interpreter exits in the middle of a run
        self.win32 = win32
        self.handle = handle
        self.failed = failed
        self.error: BaseException | None = None
        self.ending = threading.Event()
        self.owning = threading.Lock()

    def run(self) -> None:
        try:
            self.move()
        except BaseException as error:  # noqa: BLE001 - of the caller's file; raised again by Streams.check()
            self.error = error
            self.failed()
        finally:
            self.close()

    def move(self) -> None:
        raise NotImplementedError

    def finish(self) -> None:
        """Let it take what is there, and return when it is at its end."""
        self.ending.set()
        while self.is_alive():
            with self.owning:
                if self.handle:
                    self.win32.cancel(self.handle)
            self.join(REST)

    def close(self) -> None:
        """Close our end; the thread's own last act, or that of who never started it."""
        with self.owning:
            handle, self.handle = self.handle, 0
            if handle:
                self.win32.close(handle)


class Reader(Pump):
    """Hands what the command writes to `keep`."""

    def __init__(
        self, win32: Win32, handle: int, failed: Callable[[], None], keep: Callable[[bytes], object], moved: Callable[[], None]
    ) -> None:
        super().__init__(win32, handle, failed)
        self.keep = keep
        self.moved = moved

    def move(self) -> None:
        after = 0
        while not self.ending.is_set() or (after < LIMIT_AFTER_END and self.win32.available(self.handle)):
            try:
                data = self.win32.read(self.handle, CHUNK)
            except Win32Error as error:
                if error.code != ERROR_OPERATION_ABORTED:
                    raise
                continue
            if data is None:
                return
            self.keep(data)
            self.moved()
            after += len(data) * self.ending.is_set()


class Writer(Pump):
    """Feeds the command's stdin, until there is no more or it does not read any more, which is its right."""

    def __init__(self, win32: Win32, handle: int, failed: Callable[[], None], source: Iterator[bytes]) -> None:
        super().__init__(win32, handle, failed)
        self.source = source

    def move(self) -> None:
        for piece in self.source:
            left = memoryview(piece)
            while left:
                if self.ending.is_set():
                    return
                try:
                    left = left[self.win32.write(self.handle, left[:CHUNK]) :]
                except Win32Error as error:
                    if error.code in (ERROR_BROKEN_PIPE, ERROR_NO_DATA, ERROR_OPERATION_ABORTED):
                        return
                    raise


class Streams:
    """What the command gets as standard input, output and error, and our ends of the pipes.

    begin() after the command has them and release(); finish() when the run is over; close() in any case.

    Attributes: theirs, the three handles, each inheritable; pipes, by the stream's name our ends of those that a handle is to have;
    files, which we write to ourselves.
    """

    relayed = False

    def __init__(
        self, win32: Win32, config: Config, data: bytes | None, supervisor: Supervisor, writable: Sequence[str] = (), *, held: bool = False
    ) -> None:
        self.win32 = win32
        self.writable = writable
        self.owned: list[int] = []
        self.pumps: list[Pump] = []
        self.pipes: dict[str, int] = {}
        self.files: list[int] = []
        self.failed: Callable[[], None] = lambda: None
        self.moved: Callable[[], None] = lambda: None
        try:
            stdin = self.open_input(choose_input(config.stdin, data, held=held))
            stdout = self.open_output("stdout", choose_output(config.stdout, held=held), supervisor.stdout)
            choice = choose_output(config.stderr, held=held)
            stderr = stdout if choice.kind == "stdout" else self.open_output("stderr", choice, supervisor.stderr)
        except BaseException:
            self.close()
            raise
        self.theirs = (stdin, stdout, stderr)

    @property
    def inherited(self) -> tuple[int, ...]:
        """The same handles, each once: CreateProcessW refuses a list that names one twice."""
        return tuple(dict.fromkeys(self.theirs))

    def own(self, handle: int) -> int:
        """Have a handle inherited that is ours to close."""
        self.owned.append(handle)
        self.win32.set_inheritable(handle, inheritable=True)
        return handle

    def lend(self, field: str, value: object, handle: int) -> int:
        """Have a copy of the caller's own handle inherited; the caller's stays as it is."""
        if not handle:
            raise ConfigError(field, value, "this process has no such stream; pass an open file")
        copy = self.win32.duplicate(handle, inheritable=True)
        self.owned.append(copy)
        return copy

    def open_input(self, choice: Choice) -> int:
        if choice.kind == "feed":
            reader, writer = self.win32.create_pipe(PIPE_SIZE)
            self.pumps.append(Writer(self.win32, writer, self.fail, choice.value))
            return self.own(reader)
        if choice.kind == "pipe":
            reader, self.pipes["stdin"] = self.win32.create_pipe(PIPE_SIZE)
            return self.own(reader)
        return self.open_other("stdin", 0, choice, GENERIC_READ)

    def open_output(self, field: str, choice: Choice, collector: Collector) -> int:
        if choice.kind in ("keep", "sink"):
            if choice.kind == "sink":
                collector.sink = choice.value
            return self.read_into(collector)
        if choice.kind == "tee":
            sinks = [collector.sink, *(self.sink_of(field, target) for target in choice.value)]
            collector.sink = lambda data: [sink(data) for sink in sinks]
            return self.read_into(collector)
        if choice.kind == "pipe":
            self.pipes[field], writer = self.win32.create_pipe(PIPE_SIZE)
            return self.own(writer)
        return self.open_other(field, 1 if field == "stdout" else 2, choice, GENERIC_WRITE)

    def read_into(self, collector: Collector) -> int:
        reader, writer = self.win32.create_pipe(PIPE_SIZE)
        self.pumps.append(Reader(self.win32, reader, self.fail, collector.feed, self.move))
        return self.own(writer)

    def sink_of(self, field: str, target: Choice) -> Callable[[bytes], object]:
        """Return what takes a copy of what is captured."""
        if target.kind == "sink":
            return cast("Callable[[bytes], object]", target.value)
        handle = self.open_other(field, 1, target, GENERIC_WRITE)
        self.owned.remove(handle)
        self.files.append(handle)
        self.win32.set_inheritable(handle, inheritable=False)
        return whole(lambda data: self.win32.write(handle, data))

    def open_other(self, field: str, number: int, choice: Choice, access: int) -> int:
        if choice.kind == "null":
            return self.own(self.win32.open_file("NUL", access, FILE_SHARE_READ | FILE_SHARE_WRITE, OPEN_EXISTING))
        if choice.kind == "inherit":
            return self.lend(field, "INHERIT", self.win32.standard_handle(number))
        try:
            if choice.kind == "descriptor":
                return self.lend(field, choice.value, self.win32.handle_of(choice.value))
            return self.own(open_named(self.win32, os.fsdecode(choice.value), access, self.writable))
        except OSError as error:
            # Also of a socket, whose fileno() on Windows is no descriptor of the C runtime.
            raise ConfigError(field, choice.value, f"{error.strerror}; pass an open file, or name one") from None

    def begin(self, failed: Callable[[], None], moved: Callable[[], None] = lambda: None) -> None:
        """Start to move bytes; from a thread failed() is called when one of the caller's own files fails, moved() when something came."""
        self.failed, self.moved = failed, moved
        for pump in self.pumps:
            pump.start()

    def fail(self) -> None:
        self.failed()

    def move(self) -> None:
        self.moved()

    def rest_of(self, name: str) -> bytes:
        """Return what a pipe had no room for: nothing, for it is the command's own."""
        del name
        return b""

    def set_size(self, rows: int, columns: int) -> None:
        """Set the size of the terminal: there is none."""

    def take(self, name: str) -> int | None:
        """Return our end of a pipe, which is the caller's from now on, as a descriptor; None: that stream is none."""
        handle = self.pipes.get(name)
        if handle is None:
            return None
        descriptor = self.win32.open_descriptor(handle, os.O_WRONLY if name == "stdin" else os.O_RDONLY)
        del self.pipes[name]
        return descriptor

    def collect(self, descriptor: int, keep: Callable[[bytes], object]) -> Pump:
        """Read what comes from a pipe that was taken; the descriptor is ours from now on."""
        return self.add(Reader(self.win32, self.win32.give_up_descriptor(descriptor), self.fail, keep, self.move))

    def feed(self, descriptor: int, data: bytes) -> None:
        """Write to a pipe that was taken, then close it; the descriptor is ours from now on."""
        self.add(Writer(self.win32, self.win32.give_up_descriptor(descriptor), self.fail, iter((data,))))

    def add(self, pump: Pump) -> Pump:
        self.pumps.append(pump)
        pump.start()
        return pump

    def check(self) -> None:
        """Raise what one of the caller's own files has raised in a thread."""
        for pump in self.pumps:
            error, pump.error = pump.error, None
            if error is not None:
                raise error

    def finish(self) -> None:
        """Take what the pipes still hold, once nothing of the run is left to write.

        Raises:
            Exception: of one of the caller's own files.
        """
        for pump in self.pumps:
            pump.finish()
        self.check()

    def release(self) -> None:
        """Close the command's ends, once the command has them."""
        while self.owned:
            self.win32.close(self.owned.pop())

    def close(self) -> None:
        """Close everything that was opened here; the caller's own stay as they were."""
        self.release()
        for pump in self.pumps:
            pump.finish()
            pump.close()
        while self.pipes:
            self.win32.close(self.pipes.popitem()[1])
        while self.files:
            self.win32.close(self.files.pop())
