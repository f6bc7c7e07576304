"""What is behind an awaited handle: one run, its task and its pipes."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import weakref
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

from proc_sandbox.aio.pieces import Input
from proc_sandbox.aio.room import Guest, Room
from proc_sandbox.aio.runs import abandon, driver_for, end, start, take
from proc_sandbox.config import Config
from proc_sandbox.errors import ConfigError
from proc_sandbox.execution import Execution
from proc_sandbox.report import Ended, Failed, Live
from proc_sandbox.result import Result
from proc_sandbox.streams import CHUNK, check_streams
from proc_sandbox.supervise import Collector

if TYPE_CHECKING:
    from proc_sandbox.aio.admission import Gate
    from proc_sandbox.aio.driver import Driver
    from proc_sandbox.backends.protocol import HeldRun

__all__ = ["Held", "cancel"]

ProtocolT = TypeVar("ProtocolT", bound=asyncio.BaseProtocol)


class Held:
    """One run and whoever awaits something of it. It does not know its handle: that may be forgotten while the run goes on.

    Attributes: args; config; given, input that no Config can have; pid, None before the start; task, which moves the run's bytes, None
    before the start; fed: communicate() has had stdin; closed: close() was called; stdin, stdout, stderr, our ends of its pipes;
    collected, what communicate() has read of them.
    """

    def __init__(self, args: tuple[str, ...], config: Config, room: Room | None, limit: int) -> None:
        self.args, self.config, self.room, self.limit = args, config, room, limit
        self.given: Input | None = None
        self.guest: Guest | None = None
        self.driver: Driver | None = None
        self.task: asyncio.Task[Ended | Failed] | None = None
        self.stdin: Outgoing | None = None
        self.stdout: asyncio.StreamReader | None = None
        self.stderr: asyncio.StreamReader | None = None
        self.transports: list[asyncio.BaseTransport] = []
        self.places: list[Gate] = []
        self.pid: int | None = None
        self.collected: dict[asyncio.StreamReader, Collector] = {}
        self.begun = self.fed = self.closed = self.abandoned = False
        self.asked = 0
        self.owner = os.getpid()
        self.verdict: Result | None = None

    # --- the beginning ---

    async def start(self) -> None:
        """Start the command; return when it has been executed; see Popen.start()."""
        if self.driver is not None:
            raise ConfigError("Popen", self.args, "it has been started before; make a new one for each run")
        check_streams(self.config)
        self.driver = driver = driver_for(self.config, self.given)
        try:
            await take(self.places)
            directory = self.enter_room()
            self.execution: Execution = await start(self.args, driver, directory, held=True)
            if self.guest is not None:
                self.guest.hold(self.run, partial(self.run.ask, "end"))
        except BaseException:
            self.give_places_back()
            raise
        self.task = asyncio.create_task(self.conduct(driver))
        try:
            await self.open_pipes()
            await self.news_until(lambda: self.run.pid is not None)
            if self.task.done():
                self.conclude()
        except BaseException:
            await self.close()
            raise
        self.pid = self.run.pid or 0

    def enter_room(self) -> str | None:
        """Have the Sandbox's cleanup() end this run, and wait for it; return its directory."""
        if self.room is None:
            return None
        self.guest = guest = Guest(self.room).__enter__()
        return guest.directory

    async def open_pipes(self) -> None:
        loop = asyncio.get_running_loop()
        streams = self.execution.streams
        for name in ("stdout", "stderr"):
            descriptor = streams.take(name)
            if descriptor is not None:
                reader = asyncio.StreamReader(limit=self.limit)
                await self.connect(loop.connect_read_pipe, Incoming(reader, partial(streams.rest_of, name)), descriptor, "rb")
                setattr(self, name, reader)
        descriptor = streams.take("stdin")
        if descriptor is not None:
            protocol = asyncio.StreamReaderProtocol(asyncio.StreamReader())
            transport = await self.connect(loop.connect_write_pipe, protocol, descriptor, "wb")
            self.stdin = Outgoing(cast("asyncio.WriteTransport", transport), protocol, None, loop)

    async def connect(
        self,
        connect: Callable[[Callable[[], ProtocolT], Any], Awaitable[tuple[asyncio.BaseTransport, ProtocolT]]],
        protocol: ProtocolT,
        descriptor: int,
        mode: str,
    ) -> asyncio.BaseTransport:
        """Have the loop watch one of our pipes."""
        file = io.FileIO(descriptor, mode)
        try:
            transport, _ = await connect(lambda: protocol, file)
        except Exception:
            file.close()
            raise  # who is cancelled meanwhile leaves it to the loop, which has it already: of uvloop's the descriptor is closed
        self.transports.append(transport)
        pipes.add(file)
        return transport

    # --- while it goes on ---

    @property
    def run(self) -> HeldRun[Any]:
        """The backend's run."""
        return cast("HeldRun[Any]", self.execution.run)

    def started(self) -> asyncio.Task[Ended | Failed]:
        """Return the task that moves the run's bytes.

        Raises:
            ConfigError: there is none yet.
        """
        if self.task is None:
            raise ConfigError("Popen", self.args, "it was not started: async with aio.Popen(...) as process, or await it")
        return self.task

    def goes_on(self) -> bool:
        """Whether there is a run that can be told something."""
        return not self.started().done() and os.getpid() == self.owner

    def order(self, what: str) -> None:
        """Ask who serves the run for something; harmless after the end.

        Raises:
            ConfigError: it was not started.
        """
        if self.goes_on():
            self.run.ask(what)

    async def conduct(self, driver: Driver) -> Ended | Failed:
        """Move the run's bytes until it has ended, and let go of it."""
        self.begun = True
        try:
            outcome = await driver.communicate(self.execution)
        except GeneratorExit:  # the task is thrown away with its loop: nothing can be awaited any more
            if self.guest is not None:
                self.guest.let_go()
            self.abandon()
            raise
        except BaseException:
            await self.let_go()
            raise
        await self.let_go()
        return outcome

    async def news_until(self, done: Callable[[], object]) -> None:
        """Wait until something is so, or the run has ended."""
        task, driver = self.started(), self.driver
        assert driver is not None
        while not done() and not task.done():
            driver.news.clear()
            news = asyncio.ensure_future(driver.news.wait())
            try:
                await asyncio.wait({cast("asyncio.Future[Any]", news), task}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                cancel(news)

    async def usage(self) -> Live | None:
        """Return what the run has used until now; None where it has ended."""
        self.started()
        self.asked += 1
        number = self.asked
        self.order(f"usage {number}")
        await self.news_until(lambda: self.run.answered >= number)
        return self.run.answer if self.run.answered >= number else None

    async def communicate(self, data: bytes) -> tuple[bytes | None, bytes | None]:
        """Move all that goes through the pipes; returns when the run has ended. Of its tasks none is left, whatever is raised."""
        out, err = asyncio.ensure_future(self.read_all(self.stdout)), asyncio.ensure_future(self.read_all(self.stderr))
        jobs: list[asyncio.Future[Any]] = [out, err, asyncio.ensure_future(self.feed(data)), asyncio.ensure_future(self.wait())]
        try:
            await asyncio.gather(*jobs)
        finally:
            for job in jobs:
                cancel(job)
            await asyncio.wait(jobs)
        return out.result(), err.result()

    async def read_all(self, reader: asyncio.StreamReader | None) -> bytes | None:
        """Return what comes up to max_output, after what was read before; None where there is no pipe."""
        if reader is None:
            return None
        collector = self.collected.setdefault(reader, Collector(self.config.max_output))
        while data := await reader.read(CHUNK):
            collector.feed(data)
        return bytes(collector.kept)

    async def feed(self, data: bytes) -> None:
        """Write all of it to stdin, if that is a pipe, and close that."""
        if self.stdin is None:
            return
        self.fed = True
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # that it does not read is the command's right
            self.stdin.write(data)
            await self.stdin.drain()
            self.stdin.close()

    async def wait(self) -> Result:
        """Wait for the end of the run and return the verdict; as conclude()."""
        await asyncio.wait({self.started()})
        return self.conclude()

    # --- the end ---

    def conclude(self) -> Result:
        """Judge the run, which has ended, once.

        Raises:
            LaunchError: the command was not run, for that reason. And what a stream of the caller's has raised.
        """
        if self.verdict is None:
            self.verdict = self.execution.result(self.started().result())
        return self.verdict

    def verdict_if_any(self) -> Result | None:
        """Return the verdict; None as long as the run goes on, and where there is none."""
        task = self.task
        if task is None or not task.done() or task.cancelled() or task.exception() is not None or isinstance(task.result(), Failed):
            return None
        return self.conclude()

    async def let_go(self) -> None:
        if self.guest is not None:
            self.guest.let_go()
        assert self.driver is not None
        try:
            await end(self.execution, self.driver)
        finally:
            self.give_places_back()

    def give_places_back(self) -> None:
        if self.guest is not None:
            self.guest.leave()
        while self.places:
            self.places.pop().leave()

    def close_pipes(self) -> None:
        """Close our ends of the pipes; harmless when done twice."""
        while self.transports:
            self.transports.pop().close()

    async def close(self) -> None:
        """End the run if it has not ended, and close all pipes; see Popen.close()."""
        task = self.task
        if task is None or os.getpid() != self.owner:
            return
        if not task.get_loop().is_running():
            self.give_up()
            return
        self.closed = True
        late: asyncio.CancelledError | None = None
        self.order("end")
        while not task.done():
            try:
                await asyncio.wait({task})
            except asyncio.CancelledError as error:
                late = error
                self.order("kill")
        if not self.begun:  # cancelled before its first step, as by asyncio.run() at its end
            try:
                await self.let_go()
            except asyncio.CancelledError as error:
                late = error
        self.close_pipes()
        self.verdict_if_any()
        if late is not None:
            raise late

    def abandon(self) -> None:
        """End the run here and now, without the loop."""
        assert self.driver is not None
        self.abandoned = True
        abandon(self.execution, self.driver)

    def is_left(self) -> bool:
        """Whether there is a run here that goes on, and a loop that could end it."""
        task = self.task
        if task is None or task.done() or self.abandoned:
            return False
        return os.getpid() == self.owner and not task.get_loop().is_closed()

    def forget(self) -> None:
        """Nobody has the handle any more: have the loop end the run. From any thread: a garbage collection is in any."""
        with contextlib.suppress(RuntimeError):  # the loop has been closed meanwhile: the run ends with its task
            self.started().get_loop().call_soon_threadsafe(self.drop)

    def drop(self) -> None:
        """End the run, for which nobody waits."""
        self.order("kill")
        self.close_pipes()

    def give_up(self) -> None:
        """A block is left whose task is thrown away: nothing can be awaited."""
        task, self.closed = self.task, True
        if task is not None and task.get_loop().is_running():  # an asynchronous generator's block is left
            task.cancel()
        elif task is not None and not task.done():
            self.abandon()


def cancel(task: asyncio.Future[Any]) -> None:
    """Cancel a task, unless that is thrown away with its loop, which takes no more calls."""
    if not task.get_loop().is_closed():
        task.cancel()


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


class Outgoing(asyncio.StreamWriter):
    """Our end of stdin. closed: who writes has said that nothing more will come; that nobody reads any more is something else."""

    closed = False

    def write_eof(self) -> None:
        """Close it when all is written."""
        self.closed = True
        super().write_eof()

    def close(self) -> None:
        """Close it."""
        self.closed = True
        super().close()


pipes: weakref.WeakSet[io.FileIO] = weakref.WeakSet()


def after_fork_in_child() -> None:
    """A child by os.fork() has no part in its parent's pipes: they would not end before it does."""
    for file in [file for file in pipes if not file.closed]:
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, file.fileno(), inheritable=False)
        os.close(null)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=after_fork_in_child)
