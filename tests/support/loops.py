"""What tests of asyncio share: a loop for each, streams that are awaited, and runs that are heard of in the loop."""

from __future__ import annotations

import asyncio
import gc
import os
import select
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

import proc_sandbox as ps
from proc_sandbox import aio
from proc_sandbox.aio import threads
from support.processes import Witness
from support.programs import HANG, python

__all__ = ["FAMILY", "Loop", "Sink", "cancel_in_each_round", "family", "heard", "in_threads", "is_alone", "pieces_of", "with_loop"]


@pytest.fixture
def with_loop() -> Iterator[Callable[[Awaitable[Any]], Any]]:
    """Runs a coroutine to its end in a new loop in debug mode, which tells of what is never awaited; nothing of it stays open."""

    def run(main: Awaitable[Any]) -> Any:
        async def guarded() -> Any:
            return await asyncio.wait_for(main, HANG)

        return asyncio.run(guarded(), debug=True)

    asyncio.run(aio.run(["true"]))  # what is open from the first run on
    gc.collect()
    before, alive = len(os.listdir("/proc/self/fd")), set(threading.enumerate())
    yield run
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before
    assert not {thread for thread in set(threading.enumerate()) - alive if thread.is_alive() and not thread.daemon}


@pytest.fixture
def in_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done where a loop cannot watch descriptors."""
    monkeypatch.setattr(aio.runs, "PlainDriver", threads.ThreadDriver)
    monkeypatch.setattr(aio.runs, "most_runs", threads.most_runs)


Loop = Callable[[Awaitable[Any]], Any]

FAMILY = "import os, time\nos.fork(); os.fork()\nos.write({0}, b'up')\ntime.sleep(3600)\n"
"""Four processes that hold the witness."""


async def heard(pipe: Witness, count: int = 1) -> None:
    """Wait in the loop until commands have said that they are up."""
    os.set_blocking(pipe.read_end, False)
    loop, came = asyncio.get_running_loop(), asyncio.Event()
    while pipe.heard.count(b"up") < count:
        loop.add_reader(pipe.read_end, came.set)
        try:
            await came.wait()
        finally:
            loop.remove_reader(pipe.read_end)
        came.clear()
        pipe.heard += os.read(pipe.read_end, 1 << 16)


async def cancel_in_each_round(run: asyncio.Task[Any]) -> None:
    """Cancel it anew in each round of the loop until it is done."""
    while not run.done():
        run.cancel()
        await asyncio.sleep(0)
    assert run.cancelled()


def is_alone(pipe: Witness) -> bool:
    """Whether nobody holds the pipe at this very moment, so that nothing has to be waited for."""
    pipe.let_go()
    while select.select([pipe.read_end], [], [], 0)[0]:
        if not os.read(pipe.read_end, 1 << 16):
            return True
    return False


def family(pipe: Witness, **options: Any) -> asyncio.Task[ps.Result]:
    """A run of some processes that do not end by themselves."""
    return asyncio.ensure_future(aio.run(python(FAMILY.format(pipe.write_end)), pass_fds=[pipe.write_end], **options))  # type: ignore[return-value]


async def pieces_of(data: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        await asyncio.sleep(0)
        yield data[start : start + size]
        yield b""  # not the end


class Sink:
    """Takes bytes by a coroutine; looks at each call."""

    def __init__(self, look: Callable[[], None] = lambda: None) -> None:
        self.taken = bytearray()
        self.look = look
        self.busy = False

    async def write(self, data: bytes) -> None:
        """Take them, one call at a time."""
        assert not self.busy
        self.busy = True
        for _ in range(20):
            await asyncio.sleep(0)
        self.look()
        self.taken += data
        self.busy = False
