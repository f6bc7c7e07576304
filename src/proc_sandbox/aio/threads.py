"""A run that a thread waits for: where a loop cannot watch what tells of it (asyncio's loops of Windows). What belongs to the
caller is called in the loop all the same.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from proc_sandbox.aio.apart import Apart, patiently
from proc_sandbox.aio.driver import Driver
from proc_sandbox.aio.pieces import Pieces, awaited_input, awaited_output
from proc_sandbox.config import Config, Tee
from proc_sandbox.execution import Execution
from proc_sandbox.report import Ended, Failed
from proc_sandbox.streams import choose_output, whole, with_encoded_input
from proc_sandbox.text import Decoding, input_bytes

if TYPE_CHECKING:
    from proc_sandbox.aio.pieces import Input

__all__ = ["ThreadDriver", "most_runs"]


def most_runs() -> float:
    """Return how many runs there may be at a time in one loop where nobody has said it: each has some threads."""
    return 100


class ThreadDriver(Driver):
    """Has one run's bytes moved in threads. No run that it drives is held, so that there are no news."""

    opens_files = True

    def __init__(self, config: Config, given: Input | None, how: Decoding | None = None) -> None:
        self.owner = os.getpid()
        self.news = asyncio.Event()
        self.bridge = Bridge()
        self.run_apart: Apart[Ended | Failed] | None = None
        changes: dict[str, Any] = {}
        source = awaited_input(config.stdin if given is None else given, how)
        self.data = input_bytes(cast("bytes | str | None", given), how) if source is None else None
        if source is None:
            config = with_encoded_input(config, how)
        else:
            changes["stdin"] = BridgedInput(self.bridge, source)
        for name in ("stdout", "stderr"):
            stream = getattr(config, name)
            bridged = Tee(*map(self.bridged, stream.targets)) if isinstance(stream, Tee) else self.bridged(stream)
            if bridged is not stream:
                changes[name] = bridged
        self.config = config.replace(**changes) if changes else config

    def bridged(self, stream: Any) -> Any:
        """Return what is called in the loop in a stream's place, where that is the caller's object; else the stream."""
        if hasattr(stream, "write") and choose_output(stream).kind == "sink":
            return BridgedOutput(self.bridge, awaited_output(stream) or whole(stream.write))
        return stream

    async def communicate(self, one: Execution) -> Ended | Failed:
        """Wait for the run's end; return its outcome."""
        self.one = one
        self.run_apart = Apart(lambda: one.run.communicate(one.streams))
        await self.run_apart.done.wait()
        return self.run_apart.result()

    async def finish(self) -> bool:
        """End the run if it has not ended, and wait for that; closing it may still have to wait."""
        if self.run_apart is not None:
            self.stop(self.run_apart)
            await patiently(self.run_apart.done)
        return False

    def stop(self, job: Apart[Ended | Failed]) -> None:
        if not job.done.is_set():
            self.one.run.kill()
            self.bridge.close()

    def abandon(self) -> None:
        """End the run and wait for that in this thread: the task is thrown away."""
        if self.run_apart is not None:
            self.stop(self.run_apart)
            if self.run_apart.thread is not threading.current_thread():
                self.run_apart.thread.join()


class Bridge:
    """Lets threads call coroutines of a loop, until it is closed."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.closed = False
        self.calls: set[concurrent.futures.Future[Any]] = set()

    def call(self, begin: Callable[[], Any]) -> Any:
        """Have something awaited in the loop; return its result.

        Raises:
            CancelledError: of concurrent.futures; the bridge is closed.
        """
        future = asyncio.run_coroutine_threadsafe(awaited(begin), self.loop)
        self.calls.add(future)
        try:
            if self.closed:
                future.cancel()
            return future.result()
        finally:
            self.calls.discard(future)

    def close(self) -> None:
        """Cancel all calls."""
        self.closed = True
        for future in list(self.calls):
            future.cancel()


async def awaited(begin: Callable[[], Any]) -> Any:
    result = begin()
    return await result if inspect.isawaitable(result) else result


class BridgedInput:
    """A file object for a thread, whose pieces come from the loop."""

    def __init__(self, bridge: Bridge, source: Pieces) -> None:
        self.bridge, self.source = bridge, source

    def read(self, size: int = -1) -> bytes:
        """Return the next piece, whatever its size; b"" at the end."""
        del size
        piece: bytes = self.bridge.call(self.source)
        return piece


class BridgedOutput:
    """A file object for a thread, whose bytes are taken in the loop."""

    def __init__(self, bridge: Bridge, sink: Callable[[bytes], object]) -> None:
        self.bridge, self.sink = bridge, sink

    def write(self, data: bytes) -> None:
        """Return when all of it has been taken."""
        self.bridge.call(lambda: self.sink(data))
