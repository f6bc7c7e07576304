"""Runs that a thread waits for: where a loop cannot watch descriptors."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

import pytest
from support.loops import Loop, Sink, cancel_in_each_round, family, heard, is_alone, pieces_of
from support.processes import witness
from support.programs import MEGABYTE, python

from proc_sandbox import aio

EVERY_BACKEND = True


@pytest.mark.usefixtures("in_threads")
def test_in_threads_results_and_streams_are_the_same(with_loop: Loop) -> None:
    data, sink = os.urandom(MEGABYTE), Sink()

    async def main() -> None:
        assert (await aio.run(["cat"], input=data)).stdout == data
        assert (await aio.run(["cat"], input=pieces_of(data, 100_000), stdout=sink)).ok
        assert sink.taken == data
        results = await asyncio.gather(*(aio.run(["sh", "-c", f"exit {n}"]) for n in range(10)))
        assert [result.exit_code for result in results] == list(range(10))
        async with aio.Sandbox() as box:
            assert (await box.run(["pwd"])).ok

    with_loop(main())


@pytest.mark.usefixtures("in_threads")
def test_in_threads_cancellation_is_the_same(with_loop: Loop) -> None:
    async def never() -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""

    class Stuck:
        async def write(self, data: bytes) -> None:
            await asyncio.Event().wait()

    async def main() -> None:
        for options in ({}, {"input": never()}, {"stdout": Stuck()}):
            with witness() as pipe:
                run = family(pipe, **options)
                await heard(pipe, 4)
                await cancel_in_each_round(run)
                assert is_alone(pipe)

    with_loop(main())


@pytest.mark.usefixtures("in_threads")
def test_in_threads_what_a_sink_raises_arrives(with_loop: Loop) -> None:
    class Broken:
        async def write(self, data: bytes) -> None:
            raise ZeroDivisionError

    async def main() -> None:
        with pytest.raises(ZeroDivisionError):
            await aio.run(python("print('x', flush=True); import time; time.sleep(3600)"), stdout=Broken())

    with_loop(main())
