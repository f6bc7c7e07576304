"""Runs in an event loop are gone when their task is."""

from __future__ import annotations

import asyncio
import sys

import pytest
from support.loops import Loop, Sink, cancel_in_each_round, family, heard, is_alone, pieces_of
from support.processes import output_of, witness
from support.programs import HANG

from proc_sandbox import aio

EVERY_BACKEND = True


def test_the_tree_is_gone_when_the_cancelled_task_is_done(with_loop: Loop) -> None:
    with witness() as pipe:

        async def main() -> None:
            run = family(pipe)
            await heard(pipe, 4)
            run.cancel()
            with pytest.raises(asyncio.CancelledError):
                await run
            assert is_alone(pipe)

        with_loop(main())


def test_no_number_of_cancellations_hurries_it(with_loop: Loop) -> None:
    """Cancelled anew in each round of the loop until it is done: all is gone then."""
    with witness() as pipe:

        async def main() -> None:
            run = family(pipe)
            await heard(pipe, 4)
            await cancel_in_each_round(run)
            assert is_alone(pipe)

        with_loop(main())


@pytest.mark.parametrize("again", [False, True])
def test_cancelled_at_any_moment(with_loop: Loop, backend: str, *, again: bool) -> None:
    """After any number of the loop's rounds: before it begins, while it is started, when it runs, when it has ended. They are counted
    from the beginning, or from when the first of what it writes has come.
    """
    moments = range(60) if backend == "linux" else range(0, 60, 6)

    async def one(rounds: int, *, from_beginning: bool = True) -> str:
        came = asyncio.Event()
        command = ["sh", "-c", "cat; exit 3"]
        run = asyncio.ensure_future(aio.run(command, input=pieces_of(b"text" * 10000, 8000), stdout=Sink(came.set)))
        if not from_beginning:
            await came.wait()
        for _ in range(rounds):
            await asyncio.sleep(0)
        run.cancel()
        while again and not run.done():
            await asyncio.sleep(0)
            run.cancel()
        try:
            return str((await run).exit_code)
        except asyncio.CancelledError:
            return "cancelled"

    async def main() -> list[str]:
        one_by_one = [await one(rounds) for rounds in moments]
        together = await asyncio.gather(*(one(rounds) for rounds in moments))
        assert one_by_one[0] == together[0] == "cancelled", "it had not begun"
        late, last = [await one(rounds, from_beginning=False) for rounds in moments], 0
        while not last or late[-1] != "3":  # so many rounds are over when the run has ended: it cannot be cancelled any more
            last = 2 * last or 64
            late.append(await one(last, from_beginning=False))
        return one_by_one + together + late

    assert set(with_loop(main())) == {"cancelled", "3"}


def test_a_first_run_that_is_cancelled_while_all_is_being_started(backend: str) -> None:
    """In callers of their own, in which nothing is there yet."""
    code = """
import asyncio, os, sys
from proc_sandbox import aio
async def main():
    run = asyncio.ensure_future(aio.run(["sleep", "600"]))
    for _ in range(int(sys.argv[1])):
        await asyncio.sleep(0)
    run.cancel()
    try:
        await run
    except asyncio.CancelledError:
        print("cancelled")
    print((await aio.run(["echo", "next"])).stdout)
asyncio.run(main())
"""
    for rounds in (0, 1, 2, 20, 500) if backend == "linux" else (2,):
        assert output_of(code, str(rounds), env={"PYTHONDEVMODE": "1"}) == "cancelled\nb'next\\n'\n"


def test_wait_for(with_loop: Loop) -> None:
    with witness() as pipe:

        async def main() -> None:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(family(pipe), 0.3)
            assert is_alone(pipe)

        with_loop(main())


@pytest.mark.skipif(sys.version_info < (3, 11), reason="asyncio.timeout came with 3.11")
def test_timeouts_and_task_groups(with_loop: Loop) -> None:
    """As the standard library has them: each knows its own cancellation."""

    async def main() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await aio.run(["sleep", "600"])
        async with asyncio.timeout(HANG):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await aio.run(["sleep", "600"])
            assert (await aio.run(["true"])).ok
        with pytest.raises(BaseException) as caught:
            async with asyncio.TaskGroup() as group:
                group.create_task(aio.run(["sleep", "600"]))
                group.create_task(aio.run(["no-such-command-here"]))
        assert isinstance(caught.value.exceptions[0], FileNotFoundError)  # type: ignore[attr-defined]

    with_loop(main())


def test_200_cancelled_together(with_loop: Loop, backend: str) -> None:
    count = 200 if backend == "linux" else 20
    with witness() as pipe:

        async def main() -> None:
            command = ["bash", "-c", f"echo up >&{pipe.write_end}; sleep 600"]
            runs = [asyncio.ensure_future(aio.run(command, pass_fds=[pipe.write_end])) for _ in range(count)]
            await heard(pipe, min(count, int(aio.runs.most_runs())))
            for run in runs:
                run.cancel()
            await asyncio.wait(runs)
            assert all(run.cancelled() for run in runs)
            assert is_alone(pipe)

        with_loop(main())
