"""Handles that are awaited, and what a run does as an asynchronous iteration; see proc_sandbox.handle."""

from __future__ import annotations

import asyncio
import os
import signal
import warnings
from collections.abc import AsyncGenerator, Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

from proc_sandbox.aio.held import Held, cancel
from proc_sandbox.aio.pieces import Input, awaited_input
from proc_sandbox.aio.room import Room
from proc_sandbox.config import Config, check_command
from proc_sandbox.errors import ConfigError, UnsupportedError
from proc_sandbox.execution import Args
from proc_sandbox.handle import (
    Event,
    Exited,
    Started,
    check_size,
    configured_for_events,
    live_usage,
    order_to_send,
    whole_usage,
)
from proc_sandbox.result import LiveUsage, Output, Result
from proc_sandbox.sandbox import configured
from proc_sandbox.text import input_bytes

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from proc_sandbox.aio.sandbox import Sandbox
    from proc_sandbox.config import Options

__all__ = ["Popen", "stream"]


class Popen:
    """A command that runs in a sandbox while its task goes on; as proc_sandbox.Popen, and bytes only, as in asyncio.

        async with aio.Popen(["cat"], stdin=PIPE, stdout=PIPE) as process:
            process.stdin.write(b"x")
            process.stdin.close()
            print(await process.stdout.read(), (await process.wait()).reason)

    The block starts the command, and its end ends the whole tree, gently where the Config has a kill_grace. What is captured is moved
    by the loop all the while. Without a block: process = await aio.Popen(...), and close() at the end. A handle that is forgotten while
    its run goes on ends it, with a ResourceWarning. What is asked of one that was not started raises ConfigError.

    Attributes: args.
    """

    def __init__(
        self,
        args: Args,
        *,
        config: Config | None = None,
        sandbox: Sandbox | None = None,
        limit: int = 1 << 16,
        **overrides: Unpack[Options],
    ) -> None:
        """Say what is to be run; nothing is started yet.

        Args:
            args: The command and its arguments; never a shell line.
            config: The limits and grants; None: the defaults, or the Sandbox's.
            sandbox: An aio.Sandbox, in whose directory it runs; its cleanup() ends the run.
            limit: Of the StreamReaders, as in asyncio: bytes of the longest line that readline() returns; of twice as many that nobody
                has read the command waits. Default: 64 KiB.
            overrides: Fields of Config, for this run. PIPE as stdin, stdout or stderr makes a pipe.

        Raises:
            ConfigError: a value is not valid. UnsupportedError: on Windows, where no loop can watch a run.
        """
        if os.name == "nt":
            raise UnsupportedError("aio.Popen", "asyncio watches no run there", "proc_sandbox.Popen in a thread (asyncio.to_thread)")
        self.args = check_command(args)
        if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
            raise ConfigError("limit", limit, "must be a number of bytes from 1, as in asyncio")
        room, config = room_of(sandbox, config)
        self.held = Held(self.args, configured(config, overrides), room, limit)

    async def start(self) -> Self:
        """Start the command; return when it has been executed. To await the handle itself does the same.

        Raises:
            SandboxError: as run(); nothing is left then. ConfigError: it has been started before. SandboxClosedError: the Sandbox is
                not open.
        """
        await self.held.start()
        return self

    def __await__(self) -> Generator[Any, None, Self]:
        return self.start().__await__()

    @property
    def pid(self) -> int | None:
        """The command's process id on the host; None before it is started, 0 where it had ended before that could be told."""
        return self.held.pid

    @property
    def stdin(self) -> asyncio.StreamWriter | None:
        """What writes to the command, where PIPE was asked for."""
        return self.held.stdin

    @property
    def stdout(self) -> asyncio.StreamReader | None:
        """What reads from the command, where PIPE was asked for."""
        return self.held.stdout

    @property
    def stderr(self) -> asyncio.StreamReader | None:
        """What reads its errors, where PIPE was asked for."""
        return self.held.stderr

    @property
    def returncode(self) -> int | None:
        """The exit status, or -N for signal N; None as long as the run goes on, and where it has no verdict: wait() raises why."""
        verdict = self.held.verdict_if_any()
        return verdict.returncode if verdict is not None else None

    def poll(self) -> int | None:
        """Return the returncode if the run has ended, None if it has not.

        Raises:
            SandboxError: as wait(). And what a stream of the caller's has raised.
        """
        return self.held.conclude().returncode if self.held.started().done() else None

    async def wait(self) -> Result:
        """Wait for the end of the run and return the verdict; asyncio.timeout() bounds the waiting, and the run goes on.

        Raises:
            ConfigError: it was not started. LauncherDiedError: the run is dead, and nothing known of its end. And what a stream of the
                caller's has raised.
        """
        return await self.held.wait()

    async def result(self) -> Result:
        """Wait for the end of the run and return the verdict; the same as wait()."""
        return await self.held.wait()

    async def communicate(self, input: bytes | None = None) -> tuple[bytes | None, bytes | None]:
        """Write input to stdin, read stdout and stderr to their ends where they are pipes, and wait for the end of the run.

        Of each stream max_output bytes are kept, and the rest is thrown away. Who is cancelled meanwhile, as by asyncio.timeout(), can call
        it again, without input: nothing is lost.

        Raises:
            ConfigError: input without an open pipe, or none of bytes. And what wait() raises.
        """
        self.held.started()
        if input is not None and not isinstance(input, (bytes, bytearray, memoryview)):
            raise ConfigError("input", input, "pass bytes; an awaited handle's pipes know no text")
        if input is not None and (self.held.stdin is None or self.held.stdin.closed or self.held.fed):
            raise ConfigError("input", input, "stdin is no open pipe; pass stdin=PIPE, and input once")
        return await self.held.communicate(input or b"")

    def send_signal(self, number: int) -> None:
        """Send a signal to the command itself; harmless after the end.

        Raises:
            ConfigError: there is no such signal, or nothing was started.
        """
        self.held.order(order_to_send(number))

    def terminate(self) -> None:
        """Send SIGTERM to the command."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the whole tree, which is then cancelled; harmless after the end."""
        self.held.order("kill")

    def pause(self) -> None:
        """Stop the whole tree until resume(); its time goes on."""
        self.held.order("pause")

    def resume(self) -> None:
        """Let the tree go on after pause()."""
        self.held.order("resume")

    def set_size(self, rows: int, columns: int) -> None:
        """Set the size of the command's terminal; harmless after the end.

        Raises:
            ConfigError: it has no terminal (pty=True); no terminal has such a size.
        """
        check_size(self.held.config, rows, columns)
        if self.held.goes_on():
            self.held.execution.streams.set_size(rows, columns)

    async def usage(self) -> LiveUsage:
        """Return what the run has used until now; after its end what it has used in all."""
        live = await self.held.usage()
        return live_usage(live) if live is not None else whole_usage(await self.wait())

    async def close(self) -> None:
        """End the run if it has not ended, and close all pipes; returns when nothing is left, however often the task is cancelled
        meanwhile, which kills at once. Harmless in a child by os.fork(), and where nothing was started.
        """
        await self.held.close()

    async def __aenter__(self) -> Self:
        return await self.start() if self.held.task is None or self.held.closed else self  # one that is closed is refused there

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is GeneratorExit:
            self.held.give_up()
        else:
            await self.close()

    def __del__(self) -> None:
        held: Held | None = getattr(self, "held", None)
        if held is not None and held.is_left():
            try:
                warnings.warn(f"{self!r} was forgotten while it runs; use async with, or wait()", ResourceWarning, source=self, stacklevel=2)
            finally:  # a warning may be an error
                held.forget()

    def __repr__(self) -> str:
        state = "not started" if self.pid is None else f"pid {self.pid}" if self.returncode is None else f"returncode {self.returncode}"
        return f"<Popen: {state}, args: {list(self.args)!r}>"


def room_of(sandbox: Sandbox | None, config: Config | None) -> tuple[Room | None, Config | None]:
    """Return where it is, and the Config to begin with: what is given, or the Sandbox's.

    Raises:
        ConfigError: the Sandbox is none whose runs are awaited.
    """
    if sandbox is None:
        return None, config
    room = getattr(sandbox, "held", None)
    if not isinstance(room, Room):
        raise ConfigError("sandbox", sandbox, "pass a proc_sandbox.aio.Sandbox: async with aio.Sandbox(...) as box")
    return room, room.config if config is None else config


def stream(
    args: Args,
    *,
    input: Input | None = None,
    config: Config | None = None,
    sandbox: Sandbox | None = None,
    **overrides: Unpack[Options],
) -> AsyncGenerator[Event, None]:
    """Run a command and yield what happens: Started, Output as it comes, Exited at the end; as proc_sandbox.stream().

    The command waits while nobody takes its events. Leaving the loop ends the run (contextlib.aclosing() does so at once). input may
    be what it may be for run().

    Raises:
        ConfigError: a value is not valid, or stdout or stderr goes elsewhere. UnsupportedError: on Windows. SandboxError: as run(), when
            the first event is asked for, which starts the command.
    """
    queue: asyncio.Queue[Event] = asyncio.Queue(8)
    takers: list[Taker] = []

    def taker(name: str) -> Taker:
        takers.append(Taker(name, queue))
        return takers[-1]

    is_awaited = awaited_input(input) is not None
    data = b"" if is_awaited else input_bytes(cast("bytes | str | None", input))
    whole = configured_for_events(room_of(sandbox, config)[1], overrides, data, taker)
    process = Popen(args, config=whole, sandbox=sandbox)
    if is_awaited:
        process.held.given = input
    return happenings(process, queue, takers)


async def happenings(process: Popen, queue: asyncio.Queue[Event], takers: list[Taker]) -> AsyncGenerator[Event, None]:
    await process
    end = asyncio.ensure_future(process.wait())
    try:
        yield Started(process.pid or 0)
        while (event := await next_event(queue, end)) is not None:
            yield event
        yield Exited(await end)
    finally:
        for taker in takers:
            taker.drop()
        cancel(end)
        await process.close()


class Taker:
    """Takes what one stream brings, when there is room for it."""

    def __init__(self, name: str, queue: asyncio.Queue[Event]) -> None:
        self.name, self.queue, self.over = name, queue, False

    async def write(self, data: bytes) -> None:
        """Take it."""
        if not self.over:
            piece = Output(data)
            piece.stream = self.name
            await self.queue.put(piece)

    def drop(self) -> None:
        """Take no more."""
        self.over = True
        while not self.queue.empty():
            self.queue.get_nowait()


async def next_event(queue: asyncio.Queue[Event], end: asyncio.Future[Result]) -> Event | None:
    """Return the next event; None: there will be no more."""
    if queue.empty() and not end.done():
        getting = asyncio.ensure_future(queue.get())
        try:
            await asyncio.wait([cast("asyncio.Future[Any]", getting), end], return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not getting.done():
                cancel(getting)
        if getting.done() and not getting.cancelled():
            return getting.result()
    return None if queue.empty() else queue.get_nowait()
