"""Handles that are awaited, and what a run does as an asynchronous iteration; see proc_sandbox.handle."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import signal
import weakref
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

from proc_sandbox.aio.runs import Driver, abandon, driver_for, end, start, take
from proc_sandbox.config import PIPE, Config, check_command
from proc_sandbox.errors import ConfigError, UnsupportedError
from proc_sandbox.execution import Args
from proc_sandbox.handle import (
    Event,
    Exited,
    Started,
    check_free,
    check_not_given,
    check_size,
    live_usage,
    order_to_send,
    whole_usage,
)
from proc_sandbox.report import Ended, Failed
from proc_sandbox.result import LiveUsage, Output, Result
from proc_sandbox.sandbox import check_input, configured
from proc_sandbox.streams import check_streams, is_constant
from proc_sandbox.supervise import Collector
from proc_sandbox.text import input_bytes

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from proc_sandbox.aio import Guest, Sandbox
    from proc_sandbox.aio.admission import Gate
    from proc_sandbox.backends.protocol import HeldRun
    from proc_sandbox.config import Options

__all__ = ["Popen", "stream"]

CHUNK = 1 << 16


class Popen:
    """A command that runs in a sandbox while its task goes on; as proc_sandbox.Popen, and bytes only, as in asyncio.

        async with aio.Popen(["cat"], stdin=PIPE, stdout=PIPE) as process:
            process.stdin.write(b"x")
            process.stdin.close()
            print(await process.stdout.read(), (await process.wait()).reason)

    The block starts the command, and its end ends the whole tree, gently where the Config has a kill_grace. What is captured is moved
    by the loop all the while.

    Attributes: args; pid, on the host; stdin, an asyncio.StreamWriter, stdout and stderr, asyncio.StreamReaders, where PIPE was asked
    for, else None.
    """

    def __init__(
        self, args: Args, *, config: Config | None = None, sandbox: Sandbox | None = None, **overrides: Unpack[Options]
    ) -> None:
        """Say what is to be run; nothing is started yet.

        Args:
            args: The command and its arguments; never a shell line.
            config: The limits and grants; None: the defaults, or the Sandbox's.
            sandbox: An aio.Sandbox, in whose directory it runs; its cleanup() ends the run.
            overrides: Fields of Config, for this run. PIPE as stdin, stdout or stderr makes a pipe.

        Raises:
            ConfigError: a value is not valid. UnsupportedError: on Windows, where no loop can watch a run.
        """
        if os.name == "nt":
            raise UnsupportedError("aio.Popen", "asyncio watches no run there", "proc_sandbox.Popen in a thread (asyncio.to_thread)")
        self.args = check_command(args)
        self.box = sandbox
        self.guest: Guest | None = None
        self.config = configured(config_of(sandbox, config), overrides)
        self.pid = 0
        self.stdin: asyncio.StreamWriter | None = None
        self.stdout: asyncio.StreamReader | None = None
        self.stderr: asyncio.StreamReader | None = None
        self.transports: list[asyncio.BaseTransport] = []
        self.places: list[Gate] = []
        self.task: asyncio.Task[Ended | Failed] | None = None
        self.begun = False
        self.owner = os.getpid()
        self.verdict: Result | None = None

    async def start(self) -> Self:
        """Start the command; return when it has been executed.

        Raises:
            SandboxError: as run(); nothing is left then. ConfigError: it has been started before. SandboxClosedError: the Sandbox is
                not open.
        """
        if hasattr(self, "driver"):
            raise ConfigError("Popen", self.args, "it has been started before; make a new one for each run")
        check_streams(self.config)
        self.driver: Any = driver_for(self.config, None) if self.config.pty else Driver(self.config, None)
        try:
            await take(self.places)
            directory = self.enter_box()
            self.execution = await start(self.args, self.driver, directory, held=True)
            if self.guest is not None:
                self.guest.hold(self.run, lambda: self.run.ask("end"))
        except BaseException:
            self.give_places_back()
            raise
        self.task = asyncio.create_task(self.conduct())
        try:
            await self.open_pipes()
            await self.news_until(lambda: self.run.pid is not None)
            if self.task.done():
                self.conclude()
        except BaseException:
            await self.close()
            raise
        self.pid = self.run.pid or 0
        return self

    @property
    def run(self) -> HeldRun[Any]:
        """The backend's run."""
        return cast("HeldRun[Any]", self.execution.run)

    async def conduct(self) -> Ended | Failed:
        """Move the run's bytes until it has ended, and let go of it."""
        self.begun = True
        try:
            outcome: Ended | Failed = await self.driver.communicate(self.execution)
        except GeneratorExit:  # the task is thrown away with its loop: nothing can be awaited any more
            if self.guest is not None:
                self.guest.let_go()
            abandon(self.execution, self.driver)
            raise
        except BaseException:
            await self.let_go()
            raise
        await self.let_go()
        return outcome

    async def let_go(self) -> None:
        if self.guest is not None:
            self.guest.let_go()
        try:
            await end(self.execution, self.driver)
        finally:
            self.give_places_back()

    def enter_box(self) -> str | None:
        """Have the Sandbox's cleanup() end this run, and wait for it; return its directory."""
        if self.box is None:
            return None
        guest = self.box.guest().__enter__()
        self.guest = guest
        return guest.directory

    def give_places_back(self) -> None:
        if self.guest is not None:
            self.guest.leave()
        while self.places:
            self.places.pop().leave()

    async def open_pipes(self) -> None:
        loop = asyncio.get_running_loop()
        streams = self.execution.streams
        for name in ("stdout", "stderr"):
            descriptor = streams.take(name)
            if descriptor is not None:
                reader = asyncio.StreamReader()
                incoming = Incoming(reader, partial(streams.rest_of, name))
                await self.connect(loop.connect_read_pipe, lambda p=incoming: p, descriptor, "rb")
                setattr(self, name, reader)
        descriptor = streams.take("stdin")
        if descriptor is not None:
            protocol = asyncio.StreamReaderProtocol(asyncio.StreamReader())
            transport = await self.connect(loop.connect_write_pipe, lambda: protocol, descriptor, "wb")
            self.stdin = asyncio.StreamWriter(transport, protocol, None, loop)

    async def connect(self, connect: Any, protocol: Any, descriptor: int, mode: str) -> Any:
        """Have the loop watch one of our pipes."""
        file = io.FileIO(descriptor, mode)
        try:
            transport, _ = await connect(protocol, file)
        except Exception:
            file.close()
            raise  # who is cancelled meanwhile leaves it to the loop, which has it already: of uvloop's the descriptor is closed
        self.transports.append(transport)
        pipes.add(file)
        return transport

    async def news_until(self, done: Any) -> None:
        """Wait until something is so, or the run has ended."""
        assert self.task is not None
        while not done() and not self.task.done():
            self.driver.news.clear()
            news = asyncio.ensure_future(self.driver.news.wait())
            try:
                await asyncio.wait({news, self.task}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                news.cancel()

    def conclude(self) -> Result:
        """Judge the run, which has ended, once.

        Raises:
            LaunchError: the command was not run, for that reason. And what a stream of the caller's has raised.
        """
        assert self.task is not None
        if self.verdict is None:
            self.verdict = self.execution.result(self.task.result())
        return self.verdict

    @property
    def returncode(self) -> int | None:
        """The exit status, or -N for signal N; None as long as the run goes on."""
        return self.conclude().returncode if self.task is not None and self.task.done() and not self.task.cancelled() else None

    async def wait(self) -> Result:
        """Wait for the end of the run and return the verdict; asyncio.timeout() bounds the waiting, and the run goes on."""
        if self.task is None:
            raise ConfigError("Popen", self.args, "it was not started: async with aio.Popen(...) as process")
        await asyncio.wait({self.task})
        return self.conclude()

    async def communicate(self, input: bytes | None = None) -> tuple[bytes | None, bytes | None]:
        """Write input to stdin, read stdout and stderr to their ends where they are pipes, and wait for the end of the run.

        Of each stream max_output bytes are kept, and the rest is thrown away.

        Raises:
            ConfigError: input without a pipe.
        """
        if input is not None and self.stdin is None:
            raise ConfigError("input", input, "stdin is no pipe; pass stdin=PIPE")
        out, err, _, _ = await asyncio.gather(
            self.read_all(self.stdout), self.read_all(self.stderr), self.feed(input or b""), self.wait()
        )
        return out, err

    async def read_all(self, reader: asyncio.StreamReader | None) -> bytes | None:
        if reader is None:
            return None
        collector = Collector(self.config.max_output)
        while data := await reader.read(CHUNK):
            collector.feed(data)
        return bytes(collector.kept)

    async def feed(self, data: bytes) -> None:
        if self.stdin is None:
            return
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # that it does not read is the command's right
            self.stdin.write(data)
            await self.stdin.drain()
            self.stdin.close()

    def send_signal(self, number: int) -> None:
        """Send a signal to the command itself; harmless after the end.

        Raises:
            ConfigError: there is no such signal.
        """
        self.order(order_to_send(number))

    def terminate(self) -> None:
        """Send SIGTERM to the command."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the whole tree, which is then cancelled; harmless after the end."""
        self.order("kill")

    def pause(self) -> None:
        """Stop the whole tree until resume(); its time goes on."""
        self.order("pause")

    def resume(self) -> None:
        """Let the tree go on after pause()."""
        self.order("resume")

    def order(self, what: str) -> None:
        if self.task is not None and not self.task.done() and os.getpid() == self.owner:
            self.run.ask(what)

    def set_size(self, rows: int, columns: int) -> None:
        """Set the size of the command's terminal; harmless after the end.

        Raises:
            ConfigError: it has no terminal (pty=True); no terminal has such a size.
        """
        check_size(self.config, rows, columns)
        if self.task is not None and not self.task.done():
            self.execution.streams.set_size(rows, columns)

    async def usage(self) -> LiveUsage:
        """Return what the run has used until now; after its end what it has used in all."""
        before = self.run.answered if self.task is not None else 0
        self.order("usage")
        await self.news_until(lambda: self.run.answered > before)
        if self.run.answered > before and self.run.answer is not None:
            return live_usage(self.run.answer)
        return whole_usage(await self.wait())

    async def close(self) -> None:
        """End the run if it has not ended, and close all pipes; returns when nothing is left, however often the task is cancelled
        meanwhile, which kills at once. Harmless in a child by os.fork().
        """
        if os.getpid() != self.owner:
            return
        late: asyncio.CancelledError | None = None
        self.order("end")
        while self.task is not None and not self.task.done():
            try:
                await asyncio.wait({self.task})
            except asyncio.CancelledError as error:
                late = error
                self.order("kill")
        if self.task is not None and not self.begun:  # cancelled before its first step, as by asyncio.run() at its end
            try:
                await self.let_go()
            except asyncio.CancelledError as error:
                late = error
        while self.transports:
            self.transports.pop().close()
        if self.task is not None and not self.task.cancelled() and self.task.exception() is None:
            with contextlib.suppress(OSError):  # a command that was not run has been told by start()
                self.conclude()
        if late is not None:
            raise late

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is GeneratorExit:  # the task is thrown away with its loop: nothing can be awaited
            if self.task is not None and self.task.get_loop().is_running():  # an asynchronous generator's block is left
                self.task.cancel()
            elif self.task is not None and not self.task.done():
                abandon(self.execution, self.driver)
            return
        await self.close()


class Incoming(asyncio.StreamReaderProtocol):
    """Takes what comes from a pipe, and after its end what belongs there. rest: gives that."""

    def __init__(self, reader: asyncio.StreamReader, rest: Callable[[], bytes]) -> None:
        super().__init__(reader)
        self.reader, self.rest = reader, rest

    def eof_received(self) -> bool | None:
        """The pipe has come to its end."""
        if rest := self.rest():
            self.reader.feed_data(rest)
        return super().eof_received()


pipes: weakref.WeakSet[io.FileIO] = weakref.WeakSet()


def after_fork_in_child() -> None:
    """A child by os.fork() has no part in its parent's pipes: they would not end before it does."""
    for file in [file for file in pipes if not file.closed]:
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, file.fileno(), inheritable=False)
        os.close(null)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=after_fork_in_child)


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


def config_of(sandbox: Sandbox | None, config: Config | None) -> Config | None:
    """Return the Config to begin with: what is given, or the Sandbox's.

    Raises:
        ConfigError: the Sandbox is none whose runs are awaited.
    """
    if sandbox is None:
        return config
    if not hasattr(sandbox, "guest"):
        raise ConfigError("sandbox", sandbox, "pass a proc_sandbox.aio.Sandbox: async with aio.Sandbox(...) as box")
    return sandbox.config if config is None else config


async def stream(
    args: Args,
    *,
    input: bytes | str | None = None,
    config: Config | None = None,
    sandbox: Sandbox | None = None,
    **overrides: Unpack[Options],
) -> AsyncIterator[Event]:
    """Run a command and yield what happens: Started, Output as it comes, Exited at the end; as proc_sandbox.stream().

    The command waits while nobody takes its events. Leaving the loop ends the run (contextlib.aclosing() does so at once).

    Raises:
        SandboxError: as run(), when the first event is asked for.
    """
    given: Mapping[str, Any] = overrides
    check_not_given(given)
    check_input(input, given)
    config = config_of(sandbox, config)
    free = configured(config, given)
    check_free(free)
    queue: asyncio.Queue[Event] = asyncio.Queue(8)
    takers = {name: Taker(name, queue) for name in ("stdout", "stderr")}
    if free.pty:
        del takers["stderr"]  # a terminal has one output
    whole = configured(config, cast("Any", {**given, **takers}))
    if input is not None:
        whole = whole.replace(stdin=input_bytes(input))
    elif is_constant(whole.stdin, PIPE):
        raise ConfigError("stdin", "PIPE", "stream() gives no handle to write to; pass input=..., or use Popen")
    process = await Popen(args, config=whole, sandbox=sandbox).start()
    end = asyncio.ensure_future(process.wait())
    try:
        yield Started(process.pid)
        while (event := await next_of(queue, end)) is not None:
            yield event
        yield Exited(await end)
    finally:
        for taker in takers.values():
            taker.drop()
        end.cancel()
        await process.close()


async def next_of(queue: asyncio.Queue[Event], end: asyncio.Future[Result]) -> Event | None:
    """Return the next event; None: there will be no more."""
    if queue.empty() and not end.done():
        getting = asyncio.ensure_future(queue.get())
        try:
            await asyncio.wait([cast("asyncio.Future[Any]", getting), end], return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not getting.done():
                getting.cancel()
        if getting.done() and not getting.cancelled():
            return getting.result()
    return None if queue.empty() else queue.get_nowait()

