"""A run whose streams are descriptors, moved by the event loop: no thread waits for it."""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import resource
import socket
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from proc_sandbox.aio.apart import Apart, patiently
from proc_sandbox.aio.driver import Driver
from proc_sandbox.aio.pieces import Pieces, awaited_input, awaited_output, in_threads, may_block, with_awaited_targets
from proc_sandbox.backends.unix.streams import LIMIT_AFTER_END, DescriptorStreams, Feeder, LaunchedRun, read_some
from proc_sandbox.config import Config
from proc_sandbox.execution import Execution
from proc_sandbox.report import Ended, Failed
from proc_sandbox.streams import with_encoded_input
from proc_sandbox.text import Decoding, input_bytes

if TYPE_CHECKING:
    from proc_sandbox.aio.pieces import Input

__all__ = ["DescriptorDriver", "most_runs"]

DESCRIPTORS_OF_RUN = 10
"""A run has up to seven of this process, in the moment of its start; the rest is for whatever else the program does."""
AT_ONCE = 1 << 20
"""Bytes that are read after the end of a run before the loop may do something else."""


def most_runs() -> float:
    """Return how many runs there may be at a time in one loop where nobody has said it: one for ten descriptors that this process may
    have (setrlimit(2), RLIMIT_NOFILE: the soft limit as it is now).
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return float("inf") if soft == resource.RLIM_INFINITY else max(1, soft // DESCRIPTORS_OF_RUN)


class DescriptorDriver(Driver):
    """Moves one run's bytes. All goes on in the loop's own thread.

    Attributes: as those of every Driver; over, set when nothing more is going to be heard of the run.
    """

    def __init__(self, config: Config, given: Input | None, how: Decoding | None = None) -> None:
        self.source: Pieces | None = awaited_input(config.stdin if given is None else given, how)
        self.config = with_awaited_targets(config if self.source is not None else with_encoded_input(config, how))
        self.data = input_bytes(cast("bytes | str | None", given), how) if self.source is None else b""
        self.opens_files = any(isinstance(stream, (str, os.PathLike)) for stream in (config.stdin, config.stdout, config.stderr))
        self.loop = asyncio.get_running_loop()
        self.owner = os.getpid()
        self.over = asyncio.Event()
        self.news = asyncio.Event()  # something was told of a held run that goes on
        self.outcome: Ended | Failed | None = None
        self.failure: BaseException | None = None
        self.begun = self.killed = False
        self.talk = self.writing = -1  # descriptors that are watched, as are those of reading
        self.reading: set[int] = set()
        self.guard: Guard | None = None
        self.inlet: Inlet | None = None
        self.fetching: asyncio.Future[bytes] | None = None  # the piece of input that is to come
        self.awaited: set[asyncio.Future[Any]] = set()  # sinks that have not taken yet what was read, and that piece

    async def communicate(self, one: Execution) -> Ended | Failed:
        """Move bytes both ways until the run has ended, then take what the pipes still hold; return its outcome.

        Raises:
            LauncherDiedError: what serves the run has died, and the run with it. And what a stream of the caller's has raised.
        """
        self.run, self.streams = cast("LaunchedRun", one.run), cast("DescriptorStreams", one.streams)
        if self.source is None and self.data is None and may_block(self.config.stdin):
            self.source = in_threads(self.streams.source)
        for name in ("stdout", "stderr"):
            sink = awaited_output(getattr(self.config, name))
            if sink is not None:
                getattr(one.supervisor, name).sink = sink
        self.begin()
        await self.over.wait()
        while self.awaited:
            await asyncio.wait(self.awaited)
        if self.failure is not None:
            raise self.failure
        await self.take_rest()
        assert self.outcome is not None
        return self.outcome

    # --- the beginning ---

    def begin(self) -> None:
        self.talk = self.run.fileno()
        self.loop.add_reader(self.talk, self.hear)
        if self.run.is_behind():
            self.loop.call_soon(self.hear)
        self.begun = True
        if self.run.launcher_end() < 0:
            self.lose(self.run.lost)  # it has died, which another run has seen already
            return
        self.guard = guard_for(self.loop, self.run)
        self.guard.drivers.add(self)
        self.begin_moving()

    def begin_moving(self) -> None:
        """Watch the streams."""
        for descriptor in self.streams.readers:
            self.listen(descriptor)
        if self.streams.writer >= 0:
            self.inlet = Inlet(self)
            self.speak()

    def listen(self, descriptor: int) -> None:
        """Read whenever there is something."""
        self.loop.add_reader(descriptor, self.do, self.read, descriptor)
        self.reading.add(descriptor)

    def speak(self) -> None:
        """Write whenever stdin takes something, as long as there is something."""
        if self.inlet is not None and self.inlet.left:
            self.loop.add_writer(self.streams.writer, self.do, self.write)
            self.writing = self.streams.writer

    def do(self, act: Callable[..., object], *arguments: object) -> None:
        """Do something in which the caller's own code may have a part."""
        try:
            act(*arguments)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - raised where the run is awaited
            self.fail(error)

    # --- what the loop calls ---

    def hear(self) -> None:
        """The run's socket is readable."""
        told = self.run.is_behind() or has_word(self.run.socket)
        if told is None or self.over.is_set():
            return
        if told:
            try:
                outcome = self.run.receive()
            except Exception as error:  # noqa: BLE001 - as above
                self.end(None, error)
                return
            if outcome is not None:
                self.end(outcome)
            else:
                self.news.set()
                if self.run.is_behind():  # two words came at once, and the socket tells of no other
                    self.hear()
        elif self.killed:
            self.end(None)  # perhaps its last word was read and then lost to a signal's exception
        else:
            self.lose(self.run.receive)

    def server_died(self) -> None:
        """Nobody serves the run any more: what was told before holds."""
        while not self.over.is_set() and has_word(self.run.socket):
            self.hear()
        if not self.over.is_set():
            self.lose(self.run.lost)

    def read(self, descriptor: int) -> None:
        """A stream of the command's is readable."""
        size, waits = move(descriptor, self.streams.readers[descriptor])
        if size == 0:
            self.deafen(descriptor)
            del self.streams.readers[descriptor]
            os.close(descriptor)
        elif waits is not None:
            self.deafen(descriptor)
            self.wait_for(waits, functools.partial(self.taken, descriptor))

    def taken(self, descriptor: int, result: object) -> None:
        """What was awaited has taken what was read: go on."""
        del result
        self.listen(descriptor)

    def write(self) -> None:
        """The command's stdin takes something."""
        assert self.inlet is not None
        self.inlet.write()
        if not self.inlet.left:
            self.mute()

    def fetched(self, piece: bytes) -> None:
        """The next piece of input has come."""
        assert self.inlet is not None
        self.inlet.left = memoryview(piece)
        if not piece:
            self.inlet.finish()
        self.speak()

    def wait_for(self, what: Any, then: Callable[[Any], object]) -> asyncio.Future[Any]:
        waiting: asyncio.Future[Any] = asyncio.ensure_future(what)
        self.awaited.add(waiting)
        waiting.add_done_callback(functools.partial(self.waited, then))
        return waiting

    def waited(self, then: Callable[[Any], object], waiting: asyncio.Future[Any]) -> None:
        self.awaited.discard(waiting)
        error = asyncio.CancelledError() if waiting.cancelled() else waiting.exception()
        input_is_late = self.over.is_set() and waiting is self.fetching
        if error is None and not self.killed and not self.over.is_set():
            self.do(then, waiting.result())
        elif error is not None and not self.killed and not input_is_late:
            self.fail(error)

    # --- the end ---

    def end(self, outcome: Ended | Failed | None, failure: BaseException | None = None) -> None:
        """The run is over."""
        if self.over.is_set():
            return
        self.outcome = outcome
        self.failure = self.failure or failure
        self.over.set()  # first: whoever waits is not called before this is done, but a signal's exception may come in between
        self.leave()
        self.close_ends()
        if self.fetching is not None:
            self.fetching.cancel()

    def close_ends(self) -> None:
        """Close the command's ends: then what has no more to be read tells so."""
        self.streams.close_ends()

    def fail(self, error: BaseException) -> None:
        """A stream of the caller's has failed: the run is ended for it."""
        self.failure = self.failure or error
        if not self.over.is_set():
            self.stop()

    def stop(self) -> None:
        """Kill the tree, and move no more bytes."""
        self.killed = True
        self.run.kill()
        self.mute()
        for descriptor in list(self.reading):
            self.deafen(descriptor)

    def lose(self, why: Callable[[], object]) -> None:
        """Find out why nothing more is heard of the run: apart, for that may wait."""
        job: Apart[Any] = Apart(why, then=lambda: self.found_out(job))
        self.leave()

    def found_out(self, job: Apart[Any]) -> None:
        try:
            self.end(job.result())
        except BaseException as error:  # noqa: BLE001 - as above
            self.end(None, error)

    async def take_rest(self) -> None:
        """Take what the pipes still hold: reading ends with the tree, not at the end of the file, as nothing can be written after it."""
        for descriptor, keep in self.streams.readers.items():
            total = 0
            while total < LIMIT_AFTER_END:
                size, waits = move(descriptor, keep)
                if size <= 0:
                    break
                total += size
                if waits is not None:
                    await waits
                elif total % AT_ONCE < size:
                    await asyncio.sleep(0)

    async def finish(self) -> bool:
        """End the run if it has not ended, and wait for that, however often the task is cancelled meanwhile; return whether nothing
        is to be waited for when it is closed.

        Raises:
            CancelledError: it was.
        """
        if not self.begun:
            return False
        if not self.over.is_set():
            self.stop()
        for waiting in self.awaited:
            waiting.cancel()
        late: asyncio.CancelledError | None = None
        try:
            await patiently(self.over)
        except asyncio.CancelledError as error:
            late = error
        while self.awaited:
            try:
                await asyncio.wait(self.awaited)
            except asyncio.CancelledError as error:
                late = error
        self.leave()
        if late is not None:
            raise late
        return True

    def abandon(self) -> None:
        """Watch nothing any more: nothing can be awaited. In a child by os.fork() let go of the run, which is the parent's."""
        self.leave()
        if self.begun and os.getpid() != self.owner:
            self.run.socket.close()

    # --- what is watched ---

    def leave(self) -> None:
        self.mute()
        for descriptor in list(self.reading):
            self.deafen(descriptor)
        talk, self.talk = self.talk, -1
        if talk >= 0 and may_touch(self.loop, self.owner):
            self.loop.remove_reader(talk)
        guard, self.guard = self.guard, None
        if guard is not None:
            guard.let_go(self)

    def mute(self) -> None:
        writing, self.writing = self.writing, -1
        if writing >= 0 and may_touch(self.loop, self.owner):
            self.loop.remove_writer(writing)

    def deafen(self, descriptor: int) -> None:
        self.reading.discard(descriptor)
        if may_touch(self.loop, self.owner):
            self.loop.remove_reader(descriptor)


class Inlet(Feeder):
    """Writes to the command's stdin; what has to be awaited piece by piece, between which nothing is written."""

    def __init__(self, driver: DescriptorDriver) -> None:
        self.driver = driver
        super().__init__(driver.streams)

    def next_piece(self) -> None:
        """Take the next piece, or have it come."""
        self.left = memoryview(b"")
        if self.driver.source is None:
            super().next_piece()
        else:
            self.driver.fetching = self.driver.wait_for(self.driver.source(), self.driver.fetched)

    def finish(self) -> None:
        """Close stdin."""
        self.driver.mute()  # first: another file may be opened under its number
        super().finish()


def move(descriptor: int, keep: Callable[[bytes], object]) -> tuple[int, Any]:
    """Read some; return what read_some() returns, and what has to be awaited before more is read, or None."""
    told: list[object] = []
    size = read_some(descriptor, lambda data: told.append(keep(data)))
    return size, to_be_awaited(told[0]) if told else None


def to_be_awaited(told: object) -> Any:
    """Return what is to be awaited of what a sink has returned, a Tee's list of what its targets have returned; or None."""
    if not isinstance(told, list):
        return told if inspect.isawaitable(told) else None
    waits = [each for each in told if inspect.isawaitable(each)]
    return asyncio.gather(*waits) if waits else None


def has_word(talk: socket.SocketType) -> bool | None:
    """Return whether there is something to be received; False: nothing will be any more; None: not yet."""
    for _ in range(2):
        try:
            return bool(talk.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except BlockingIOError:
            return None
        except ConnectionResetError:
            pass  # a "kill" of ours was not read: that is told once, and then what was said before (unix(7))
    return False


def may_touch(loop: asyncio.AbstractEventLoop, owner: int) -> bool:
    """Return whether a loop is to be told of descriptors: a child by os.fork() has its parent's epoll instance (epoll(7))."""
    return not loop.is_closed() and os.getpid() == owner


class Guard:
    """Tells a loop's runs that what serves them has died, and sees to it that it goes on meanwhile.

    Of each descriptor a loop knows one callback. This one is ours: the server's own is closed by whoever sees first that it is dead.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, run: LaunchedRun) -> None:
        self.loop = loop
        self.server = run.launcher
        self.owner = os.getpid()
        self.drivers: set[DescriptorDriver] = set()
        self.timer: asyncio.TimerHandle | None = None
        self.descriptor = os.dup(run.launcher_end())
        try:
            loop.add_reader(self.descriptor, self.tell)
        except BaseException:
            self.close()
            raise
        self.look_after(run)

    def look_after(self, run: LaunchedRun) -> None:
        if run.patience is not None:
            run.look_after()
            self.timer = self.loop.call_later(run.patience / 1000, self.look_after, run)

    def tell(self) -> None:
        for driver in list(self.drivers):
            driver.server_died()

    def let_go(self, driver: DescriptorDriver) -> None:
        """Forget a run; the last one closes us."""
        self.drivers.discard(driver)
        if self.drivers or self.descriptor < 0:
            return
        guards.pop((id(self.loop), id(self.server)), None)
        if may_touch(self.loop, self.owner):
            self.loop.remove_reader(self.descriptor)
        if self.timer is not None:
            self.timer.cancel()
        self.close()

    def close(self) -> None:
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


guards: weakref.WeakValueDictionary[tuple[int, int], Guard] = weakref.WeakValueDictionary()
"""By loop and server, which a guard keeps alive. It lives by its runs only: a loop that is thrown away takes all with it."""


def guard_for(loop: asyncio.AbstractEventLoop, run: LaunchedRun) -> Guard:
    key = id(loop), id(run.launcher)
    found = guards.get(key)
    if found is None:
        found = guards[key] = Guard(loop, run)
    return found


def after_fork_in_child() -> None:
    """A copy of a warden's socket would keep that one from seeing its caller's end."""
    for guard in list(guards.values()):
        guard.close()
    guards.clear()


os.register_at_fork(after_in_child=after_fork_in_child)
