"""Who calls: threads, event loops, shells."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from support.behaviours import HOLD, Runner, is_held, promise
from support.processes import library_path_environment
from support.programs import HANG, python

import proc_sandbox as ps
from proc_sandbox import aio


@promise("threads of the caller")
def test_many_threads_run_commands_at_once(run: Runner) -> None:
    def one(number: int) -> ps.Result:
        return run(python("print(input())"), input=str(number))

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(one, range(24)))
    assert [int(result.stdout) for result in results] == list(range(24))


@promise("asyncio")
def test_runs_go_side_by_side_under_an_event_loop(run: Runner) -> None:
    """The loop goes on meanwhile, and starts processes of its own."""

    async def main() -> list[int]:
        ours = [asyncio.to_thread(run, python("print(input())"), input=str(number)) for number in range(8)]
        theirs = await asyncio.create_subprocess_exec(*python("print(99)"), stdout=subprocess.PIPE)
        results = await asyncio.gather(*ours)
        out, _ = await theirs.communicate()
        return [*(int(result.stdout) for result in results), int(out)]

    assert asyncio.run(main()) == [*range(8), 99]


@promise("asyncio")
def test_runs_are_awaited(run: Runner) -> None:
    """Streams both ways, a Sandbox, and nothing in the loop's way."""

    async def pieces() -> AsyncIterator[bytes]:
        for number in range(3):
            await asyncio.sleep(0)
            yield b"%d " % number

    class Sink:
        def __init__(self) -> None:
            self.taken = b""

        async def write(self, data: bytes) -> None:
            await asyncio.sleep(0)
            self.taken += data

    async def main() -> None:
        results = await asyncio.gather(
            *(aio.run(python("print(input())"), input=str(number), **run.config()) for number in range(8))
        )
        assert [int(result.stdout) for result in results] == list(range(8))
        sink = Sink()
        async with aio.limit(2), aio.Sandbox(**run.config(stdout=sink)) as box:
            assert (await box.run(python("open('file', 'w').write(input())"), input=pieces())).ok
            assert (await box.run(python("print(open('file').read())"))).ok
        assert sink.taken.split() == [b"0", b"1", b"2"]

    asyncio.run(main())


@promise("asyncio")
def test_a_cancelled_task_has_ended_its_tree(run: Runner, tmp_path: Path) -> None:
    up, held = tmp_path / "up", tmp_path / "held"
    held.touch()
    program = HOLD + "file = hold('held'); open('up', 'w').close(); wait_for_ever()"

    async def main() -> None:
        task = asyncio.ensure_future(aio.run(python(program), **run.config(working_dir=tmp_path)))
        while not up.exists() and not task.done():
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    asyncio.run(main())
    assert not is_held(held)


def command_line(run: Runner, action: str, *words: str, command: Sequence[str] = (), **options: object) -> subprocess.CompletedProcess[bytes]:
    lenient = f"--enforcement=best-effort:{','.join(run.never_asked())}"
    end = ["--", *command] if command else []
    return subprocess.run(
        [sys.executable, "-m", "proc_sandbox", action, f"--backend={run.backend}", lenient, *words, *end],
        env=library_path_environment(), capture_output=True, timeout=HANG, check=False, **options,  # type: ignore[call-overload]
    )  # fmt: skip


@promise("command line")
def test_the_command_line_exits_as_the_command_did(run: Runner, tmp_path: Path) -> None:
    code = "import sys; print(input()); print('error', file=sys.stderr); sys.exit(7)"
    done = command_line(run, "run", "--json", str(tmp_path / "out.json"), command=python(code), input=b"through\n")
    assert done.returncode == 7, done
    assert done.stdout.split() == [b"through"]
    assert b"error" in done.stderr
    assert json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["exit_code"] == 7


@promise("command line")
def test_the_command_line_tells_a_missing_command(run: Runner) -> None:
    done = command_line(run, "run", command=["no-such-command-here"])
    assert done.returncode == 127, done
    assert b"no-such-command-here" in done.stderr


@promise("command line")
def test_the_command_line_tells_a_timeout(run: Runner) -> None:
    done = command_line(run, "run", "-t", "0.5", command=python("import time; time.sleep(3600)"))
    assert done.returncode == 124, done
    assert b"wall time limit" in done.stderr


@promise("plan")
def test_the_command_line_prints_plans_and_what_there_is(run: Runner) -> None:
    done = command_line(run, "plan", "-t", "5", command=python("pass"))
    assert done.returncode == 0, done
    assert b"timeout 5 s" in done.stdout
    done = command_line(run, "doctor", "--json")
    assert done.returncode in (0, 1), done
    assert json.loads(done.stdout)["trial"] == "ok"


