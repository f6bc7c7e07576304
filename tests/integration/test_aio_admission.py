"""How many runs are under way in an event loop."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest
from support.loops import Loop, family, heard
from support.processes import output_of, witness
from support.programs import python

import proc_sandbox as ps
from proc_sandbox import aio
from proc_sandbox.aio import admission, calls

EVERY_BACKEND = True


def test_1000_gathered_with_few_descriptors(backend: str) -> None:
    """Far more runs than descriptors could be had for."""
    code = """
import asyncio, collections, os, resource, sys
from proc_sandbox import aio
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), hard))
async def main():
    await aio.run(["true"])
    before = len(os.listdir("/proc/self/fd"))
    results = await asyncio.gather(*(aio.run(["sh", "-c", f"cat; exit {n % 7}"], input=str(n)) for n in range(int(sys.argv[2]))))
    assert [(result.exit_code, result.stdout) for result in results] == [(n % 7, str(n).encode()) for n in range(len(results))]
    assert len(os.listdir("/proc/self/fd")) == before
asyncio.run(main())
print("done")
"""
    few, many = ("1024", "1000") if backend == "linux" else ("256", "50")
    assert output_of(code, few, many) == "done\n"


def test_without_a_limit_descriptors_bound_the_runs(backend: str) -> None:
    """All at once they would need more than there are: each lives while the next ones are started."""
    code = """
import asyncio, resource
from proc_sandbox import aio
async def main():
    await aio.run(["true"])
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, hard))
    return {(await run).ok for run in [asyncio.ensure_future(aio.run(["sleep", "0.3"])) for _ in range(60)]}
print(asyncio.run(main()))
"""
    assert output_of(code) == "{True}\n"


def test_a_limit_holds_for_all_runs_in_it(with_loop: Loop, tmp_path: Path) -> None:
    """Each run takes one of three tokens while it lives, and says so when there is none."""
    tokens, back = os.pipe()
    os.set_blocking(tokens, False)
    os.write(back, b"xxx")
    code = f"import os\ntry: os.read({tokens}, 1)\nexcept BlockingIOError: raise SystemExit(9)\nos.sched_yield(); os.write({back}, b'x')"

    async def handler() -> ps.Result:
        async with aio.limit(3):
            return await aio.run(python(code), pass_fds=[tokens, back])

    async def main() -> None:
        results = await asyncio.gather(*(handler() for _ in range(20)))
        assert [result.exit_code for result in results] == [0] * 20
        async with aio.limit(3):
            results = await asyncio.gather(*(aio.run(python(code), pass_fds=[tokens, back]) for _ in range(20)))
        assert [result.exit_code for result in results] == [0] * 20
        assert not admission.gates

    with_loop(main())
    os.close(tokens)
    os.close(back)


def test_who_waits_for_admission_can_be_cancelled(with_loop: Loop) -> None:
    with witness() as pipe:

        async def main() -> None:
            async with aio.limit(1):
                first, second, third = family(pipe), asyncio.ensure_future(aio.run(["true"])), asyncio.ensure_future(aio.run(["true"]))
                await heard(pipe, 4)
                second.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await second
                assert not third.done()
                first.cancel()
                assert (await third).ok

        with_loop(main())


def test_many_starts_let_the_loop_breathe(with_loop: Loop, backend: str) -> None:
    """Of runs that wait to be started one is, in each round of the loop."""
    starts: list[int] = []
    turns = 0

    async def main() -> None:
        nonlocal turns
        real = calls.start

        async def noting(*arguments: Any) -> Any:
            one = await real(*arguments)
            starts.append(turns)
            return one

        def turn() -> None:
            nonlocal turns
            turns += 1
            if len(starts) < 30:
                asyncio.get_running_loop().call_soon(turn)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(calls, "start", noting)
            asyncio.get_running_loop().call_soon(turn)
            await asyncio.gather(*(aio.run(["true"]) for _ in range(30)))

    with_loop(main())
    if backend == "linux":
        assert max(starts.count(turn) for turn in starts) == 1
