"""One run's socket, as signal handlers may come in between any two instructions of what reads it."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest

from proc_sandbox.errors import LauncherDiedError
from proc_sandbox.launcher.channel import NUMBERS

if sys.platform == "win32":
    pytest.skip("there are no such sockets", allow_module_level=True)

from proc_sandbox.backends.posix.backend import PosixRun
from proc_sandbox.backends.posix.frames import frame
from proc_sandbox.backends.unix.streams import LaunchedRun, Pump

BEGAN = b"began\0pid\x0042\0"
USAGE = [b"usage\0number\0%d\0wall\x001\0cpu\x002\0memory\x003\0tasks\x004\0disk_read\x00-1\0disk_written\x00-1\0" % number for number in (1, 2)]
ENDED = b"facts\0" + NUMBERS.pack(1, 0, -1, *[0] * 21)
KINDS = ["launcher", "posix"]
ENOUGH = 2000
"""Instructions of a receive() that takes four messages: fewer."""


class Server:
    """Who serves the runs: the test."""

    def __init__(self, kind: str) -> None:
        self.is_stream = kind == "posix"
        self.kind = socket.SOCK_STREAM if self.is_stream else socket.SOCK_SEQPACKET
        self.end, self.other = os.pipe()
        self.socket: socket.socket | None = None

    def send(self, words: bytes, descriptors: Sequence[int]) -> None:
        """Keep the run's socket."""
        del words
        self.socket = socket.socket(fileno=os.dup(descriptors[0]))
        if self.is_stream:
            self.say(b"got")

    def say(self, *messages: bytes) -> None:
        """All of them at once."""
        assert self.socket is not None
        for message in [b"".join(map(frame, messages))] if self.is_stream else messages:
            self.socket.send(message)

    def die(self) -> None:
        """End."""
        assert self.socket is not None
        self.socket.close()
        os.close(self.other)
        self.other = -1

    def discard(self) -> None:
        """Be forgotten."""

    def why(self) -> str:
        """Return nothing."""
        return ""

    def nudge(self) -> None:
        """Go on."""


@contextmanager
def run_of(kind: str) -> Iterator[tuple[Any, Server]]:
    """One run's channel, and who serves it."""
    server: Any = Server(kind)
    channel: Any = PosixRun(server, b"", [], "mark") if kind == "posix" else LaunchedRun(server, b"", [])
    channel.swept = True
    try:
        yield channel, server
    finally:
        channel.dead = True
        channel.close()
        os.close(server.end)
        if server.other >= 0:
            server.die()


class Moment:
    """Before one instruction of the package, counted from here. is_past: there are not so many."""

    def __init__(self, number: int) -> None:
        self.left = number

    @property
    def is_past(self) -> bool:
        """Whether nothing was done then."""
        return self.left > 0

    @contextmanager
    def brings(self, act: Callable[[], object]) -> Iterator[None]:
        """Do something then, as a signal handler would."""

        def trace(frame: FrameType, event: str, _: object) -> Any:
            if "proc_sandbox" not in frame.f_code.co_filename:
                return None
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
            if event == "opcode":
                self.left -= 1
                if self.left == 0:
                    sys.settrace(None)
                    act()
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            yield
        finally:
            sys.settrace(before)


def moments() -> Iterator[Moment]:
    """One after the other, and one that is past."""
    for number in range(1, ENOUGH):
        moment = Moment(number)
        yield moment
        if moment.is_past:
            return
    pytest.fail("it has more instructions")


@pytest.mark.parametrize("kind", KINDS)
def test_a_handler_may_receive_between_any_two_instructions(kind: str) -> None:
    for moment in moments():
        with run_of(kind) as (channel, server):
            server.say(BEGAN, *USAGE)
            server.say(ENDED)
            server.die()
            with moment.brings(channel.receive):
                outcome = channel.receive()
            assert outcome is not None
            assert outcome.done
            assert channel.pid == 42


@pytest.mark.parametrize("kind", KINDS)
def test_a_handler_may_receive_while_the_run_goes_on(kind: str) -> None:
    """Nothing is lost of what comes later, and nothing waits in vain for it."""
    for moment in moments():
        with run_of(kind) as (channel, server):
            server.say(BEGAN)

            def more(channel: Any = channel, server: Server = server) -> None:
                server.say(*USAGE)
                channel.receive()

            with moment.brings(more):
                assert channel.receive() is None
            if moment.is_past:
                more()
            assert (channel.pid, channel.answered) == (42, 2)
            if channel.is_behind():
                assert channel.receive() is None
            assert not channel.is_behind()
            server.say(ENDED)
            assert channel.receive() is not None


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_handler_raises_between_any_two_instructions_loses_nothing(kind: str) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    for moment in moments():
        with run_of(kind) as (channel, server):
            server.say(BEGAN, *USAGE)
            with moment.brings(interrupt):
                try:
                    channel.receive()
                except KeyboardInterrupt:
                    pass
            if channel.is_behind() or (channel.pid, channel.answered) != (42, 2):
                channel.receive()
            assert (channel.pid, channel.answered) == (42, 2)
            server.say(ENDED)
            assert channel.receive() is not None


@pytest.mark.parametrize("kind", KINDS)
def test_one_that_ends_without_a_word_is_lost(kind: str) -> None:
    with run_of(kind) as (channel, server):
        server.say(BEGAN)
        server.die()
        for _ in range(2):
            with pytest.raises(LauncherDiedError):
                channel.receive()
        assert channel.pid == 42


class Streams:
    """A command's standard output, where nothing else is to be moved."""

    writer = -1

    def __init__(self, reader: int) -> None:
        self.kept = bytearray()
        self.readers: dict[int, Callable[[bytes], object]] = {reader: self.kept.extend}
        os.set_blocking(reader, False)

    def close_ends(self) -> None:
        """There are none."""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("wait", [0, None])
def test_a_handler_may_see_the_end_between_any_two_instructions(kind: str, wait: int | None) -> None:
    """What was printed before it, and in what order, is kept all the same."""
    for moment in moments():
        reader, writer = os.pipe()
        with run_of(kind) as (channel, server):
            streams: Any = Streams(reader)
            pump = Pump(channel, streams)
            os.write(writer, b"first")
            seen: list[object] = []

            def end(pump: Pump = pump, server: Server = server, writer: int = writer, seen: list[object] = seen) -> None:
                os.write(writer, b", then")
                server.say(ENDED)
                server.die()
                seen.append(pump.step(wait))

            with moment.brings(end):
                outcome = pump.step()
            if moment.is_past:
                end()
            while outcome is None and not any(seen):  # as a handle does
                outcome = pump.step()
            assert streams.kept == b"first, then"
        os.close(reader)
        os.close(writer)
