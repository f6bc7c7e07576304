"""Runs in an event loop: as awaited as anything there."""

from __future__ import annotations

import asyncio
import io
import os
import threading

import pytest
from support.loops import Loop, family, heard
from support.processes import caller, output_of, witness
from support.programs import HANG, python

import proc_sandbox as ps
from proc_sandbox import aio

EVERY_BACKEND = True


def test_as_run_but_awaited(with_loop: Loop) -> None:
    async def main() -> None:
        result = await aio.run(["sh", "-c", "cat; echo error >&2; exit 3"], input="text\n")
        assert (result.exit_code, result.stdout, result.stderr) == (3, b"text\n", b"error\n")
        with pytest.raises(ps.ExecutionError):
            await aio.run(["false"], check=True)
        assert (await aio.run(["sleep", "600"], timeout=0.2)).timed_out
        with pytest.raises(FileNotFoundError):
            await aio.run(["no-such-command-here"])

    with_loop(main())


def test_what_is_wrong_is_told_as_by_run(with_loop: Loop) -> None:
    async def main() -> None:
        for args, options in [
            ("true", {}), (["true"], {"input": 5}), (["true"], {"input": b"", "stdin": b""}), (["true"], {"timeout": -1}),
            (["true"], {"stdin": ps.PIPE}), (["true"], {"stdout": 777}), (["true"], {"input": io.BytesIO()}),
        ]:  # fmt: skip
            with pytest.raises(ps.ConfigError):
                await aio.run(args, **options)

    with_loop(main())


def test_the_loop_goes_on_meanwhile(with_loop: Loop) -> None:
    """The command ends only when the loop has heard from it and has answered."""
    with witness() as pipe:
        gate, go = os.pipe()

        async def main() -> ps.Result:
            command = python(f"import os\nos.write({pipe.write_end}, b'up')\nos.read({gate}, 1)")
            run = asyncio.ensure_future(aio.run(command, pass_fds=[pipe.write_end, gate]))
            await heard(pipe)
            os.write(go, b"x")
            return await run

        assert with_loop(main()).ok
        os.close(gate)
        os.close(go)


def test_no_thread_waits_for_a_run(with_loop: Loop, backend: str) -> None:
    with witness() as pipe:

        async def main() -> None:
            runs = [family(pipe) for _ in range(5)]
            await heard(pipe, 5)
            for thread in threading.enumerate():
                if "apart" in thread.name:  # it has started a run: it ends, for that goes on
                    await asyncio.to_thread(thread.join)
            for run in runs:
                run.cancel()
            await asyncio.gather(*runs, return_exceptions=True)

        with_loop(main())


def test_what_stays_open_is_warned_of_and_nothing_does(backend: str) -> None:
    """In development mode every warning is an error."""
    code = """
import asyncio, warnings
import proc_sandbox as ps
from proc_sandbox import aio
warnings.simplefilter("ignore", ps.UnenforcedWarning)
async def main():
    async with aio.Sandbox() as box:
        await asyncio.gather(*(box.run(["cat"], input=b"x" * 100000) for _ in range(5)))
        try:
            await asyncio.wait_for(box.run(["sleep", "600"]), 0.1)
        except asyncio.TimeoutError:
            print("timeout")
asyncio.run(main(), debug=True)
"""
    with caller(code, env={"PYTHONDEVMODE": "1", "PYTHONWARNINGS": "error"}) as process:
        out, err = process.communicate(timeout=HANG)
    assert out == b"timeout\n", err.decode()
    left = [line for line in err.splitlines() if b"Executing <" not in line]  # rounds that took long
    assert not left, err.decode()


def test_the_package_does_not_bring_asyncio_along() -> None:
    assert output_of("import sys, proc_sandbox as ps\nps.run\nprint('asyncio' in sys.modules)") == "False\n"
