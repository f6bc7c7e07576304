"""Handles that are awaited: what they share with others is tested there; here what the loop does for them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest

if sys.platform == "win32":
    pytest.skip("asyncio watches no run there", allow_module_level=True)

import proc_sandbox as ps
from proc_sandbox import aio

T = TypeVar("T")
HANG = 60.0


@pytest.fixture(params=["linux", "posix"] if sys.platform == "linux" else ["posix"])
def fields(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Fields of Config for each backend."""
    if request.param == "posix":
        return {"backend": "posix", "enforcement": "best-effort"}
    return {"backend": request.param}


pytestmark = pytest.mark.filterwarnings("ignore::proc_sandbox.UnenforcedWarning")


def with_loop(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run it; what hangs fails."""
    return asyncio.run(asyncio.wait_for(main(), HANG), debug=True)


def test_pipes_both_ways_and_live_usage(fields: dict[str, Any]) -> None:
    async def main() -> None:
        async with aio.Popen(["cat"], stdin=ps.PIPE, stdout=ps.PIPE, **fields) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(b"hello\n")
            assert await process.stdout.readline() == b"hello\n"
            assert process.returncode is None
            os.kill(process.pid, 0)
            assert (await process.usage()).tasks == 1
            process.stdin.close()
            result = await process.wait()
        assert (result.reason, process.returncode) == (ps.Reason.EXITED, 0)
        assert (await process.usage()).tasks == 0

    with_loop(main)


def test_communicate_moves_more_than_pipes_hold_and_keeps_max_output(fields: dict[str, Any]) -> None:
    data = os.urandom(3 << 20)

    async def main() -> None:
        async with aio.Popen(["cat"], stdin=ps.PIPE, stdout=ps.PIPE, **fields) as process:
            assert await process.communicate(data) == (data, None)
        async with aio.Popen(["cat"], stdin=ps.PIPE, stdout=ps.PIPE, max_output="1M", **fields) as process:
            assert await process.communicate(data) == (data[: 1 << 20], None)
        async with aio.Popen(["true"], stdin=ps.PIPE, **fields) as process:  # does not read
            await process.communicate(data)
        with pytest.raises(ps.ConfigError, match="stdin"):
            async with aio.Popen(["true"], **fields) as process:
                await process.communicate(b"x")

    with_loop(main)


def test_signals_pause_and_the_end_of_the_block(fields: dict[str, Any]) -> None:
    async def main() -> None:
        async with aio.Popen(["sleep", "100"], **fields) as process:
            process.pause()
            process.resume()
            process.send_signal(signal.SIGINT)
            result = await process.wait()
        assert (result.reason, result.signal) == (ps.Reason.SIGNALED, signal.SIGINT)
        assert "which the caller had sent" in str(result.error)
        script = "trap 'exit 7' TERM; echo; while :; do sleep 0.05; done"
        async with aio.Popen(["sh", "-c", script], stdout=ps.PIPE, kill_grace=HANG, **fields) as process:
            assert process.stdout is not None
            await process.stdout.readline()
        assert ((await process.wait()).reason, process.returncode) == (ps.Reason.CANCELLED, 7)
        with pytest.raises(ps.ConfigError, match="signal"):
            process.send_signal(0)

    with_loop(main)


def test_a_command_that_is_not_there_is_told_when_it_is_started(fields: dict[str, Any]) -> None:
    async def main() -> None:
        with pytest.raises(FileNotFoundError):
            async with aio.Popen(["no-such-command"], **fields):
                raise AssertionError("it was started")
        with pytest.raises(ps.ConfigError, match="not started"):
            await aio.Popen(["true"], **fields).wait()

    with_loop(main)


def test_a_cancelled_task_leaves_nothing(fields: dict[str, Any]) -> None:
    async def main() -> None:
        begun: list[aio.Popen] = []

        async def hold() -> None:
            async with aio.Popen(["sleep", "1000"], **fields) as process:
                begun.append(process)
                await process.wait()

        tasks = [asyncio.create_task(hold()) for _ in range(5)]
        while len(begun) < 5:
            await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        assert all(isinstance(error, asyncio.CancelledError) for error in await asyncio.gather(*tasks, return_exceptions=True))
        for process in begun:
            assert (await process.wait()).reason is ps.Reason.CANCELLED
            with pytest.raises(ProcessLookupError):
                os.kill(process.pid, 0)

    with_loop(main)


def test_events_come_as_they_are_written_and_the_command_waits_for_them(fields: dict[str, Any]) -> None:
    async def main() -> None:
        events = [event async for event in aio.stream(["sh", "-c", "cat; echo err >&2; exit 4"], input="in\n", **fields)]
        assert isinstance(events[0], ps.Started)
        assert isinstance(events[-1], ps.Exited)
        assert events[-1].result.exit_code == 4
        outputs = [event for event in events if isinstance(event, ps.Output)]
        for name, said in (("stdout", b"in\n"), ("stderr", b"err\n")):
            assert b"".join(event for event in outputs if event.stream == name) == said
        async with contextlib.aclosing(aio.stream(["sh", "-c", "yes"], **fields)) as endless:
            async for event in endless:
                if isinstance(event, ps.Output):
                    break
        with pytest.raises(ps.ConfigError, match="stdout"):
            async for _ in aio.stream(["true"], stdout=ps.PIPE, **fields):
                pass

    with_loop(main)


def test_a_launcher_that_dies_is_told() -> None:
    if sys.platform != "linux":
        pytest.skip("needs the launcher of Linux")
    code = """
import asyncio, os, signal
import proc_sandbox as ps
from proc_sandbox import aio
from proc_sandbox.launcher.process import launcher
async def main():
    try:
        async with aio.Popen(["sleep", "1000"]) as process:
            os.kill(launcher().pid, signal.SIGKILL)
            await process.wait()
    except ps.LauncherDiedError:
        print("told")
asyncio.run(main())
"""
    from support.processes import output_of

    assert output_of(code).split() == ["told"]


def test_text_is_awaited_as_text(fields: dict[str, Any]) -> None:
    async def main() -> None:
        result = await aio.run(["cat"], text=True, input="ä\r\n", **fields)
        assert result.stdout == "ä\n"
        assert (await aio.run(["cat"], encoding="latin-1", input="ä", **fields)).stdout == "ä"
        assert (await aio.run(["cat"], input="ä", **fields)).stdout == "ä".encode()

    with_loop(main)


def test_a_handle_has_its_sandboxs_directory_and_config(fields: dict[str, Any]) -> None:
    async def main() -> None:
        async with aio.Sandbox(env={"A": "box"}, **fields) as box:
            async with box.popen(["sh", "-c", "cat > file; echo $A"], stdin=ps.PIPE, stdout=ps.PIPE) as process:
                assert await process.communicate(b"kept") == (b"box\n", None)
            assert (await box.run(["cat", "file"])).stdout == b"kept"
            own = ps.Config(env={"A": "own"}, **fields)
            async with aio.Popen(["sh", "-c", "cat file; echo $A"], sandbox=box, config=own, stdout=ps.PIPE) as process:
                assert await process.communicate() == (b"keptown\n", None)
            events = [event async for event in aio.stream(["sh", "-c", "cat file; echo $A"], sandbox=box)]
            assert b"".join(event for event in events if isinstance(event, ps.Output)) == b"keptbox\n"
            with pytest.raises(FileNotFoundError):
                async with box.popen(["no-such-command"]):
                    pass
            assert not box.guests
        assert box.directory is None

    with_loop(main)


def test_cleanup_ends_a_handle_gently_and_waits_for_it(fields: dict[str, Any]) -> None:
    async def main() -> None:
        box = aio.Sandbox(kill_grace=HANG, **fields)
        async with box:
            script = "trap 'exit 7' TERM; echo; while :; do sleep 0.05; done"
            process = box.popen(["sh", "-c", script], stdout=ps.PIPE)
            await process.start()
            assert process.stdout is not None
            await process.stdout.readline()
            directory = box.directory
            assert directory is not None
            await box.cleanup()
            assert not os.path.lexists(directory)
            assert process.returncode == 7
            assert (await process.wait()).reason is ps.Reason.CANCELLED
            await process.close()
            assert not box.guests

    with_loop(main)


def test_a_sandbox_that_closes_while_a_handle_starts_ends_it(fields: dict[str, Any]) -> None:
    async def main() -> None:
        async with aio.Sandbox(**fields) as box:
            await box.run(["true"])
            process = box.popen(["sleep", "1000"])
            starting = asyncio.create_task(process.start())
            while not box.guests:
                await asyncio.sleep(0)
            await box.cleanup()
            with contextlib.suppress(ps.LaunchError):  # it was killed before it had become the command, or after
                await starting
                assert (await process.wait()).reason is ps.Reason.CANCELLED
            await process.close()
            assert box.directory is None

    with_loop(main)


def test_a_sandbox_that_is_not_open_has_no_handles(fields: dict[str, Any]) -> None:
    async def main() -> None:
        box = aio.Sandbox(**fields)
        with pytest.raises(ps.SandboxClosedError, match="not open yet"):
            await box.popen(["true"]).start()
        async with box:
            pass
        with pytest.raises(ps.SandboxClosedError, match="closed"):
            await box.popen(["true"]).start()
        with ps.Sandbox(**fields) as other, pytest.raises(ps.ConfigError, match=r"aio\.Sandbox"):
            aio.Popen(["true"], sandbox=other)  # type: ignore[arg-type]

    with_loop(main)


def test_streams_of_a_config_that_lead_elsewhere_are_refused(fields: dict[str, Any]) -> None:
    async def main() -> None:
        for name, value in (("stdout", "log"), ("stdout", ps.DEVNULL), ("stderr", ps.STDOUT), ("stderr", ps.Tee("log"))):
            with pytest.raises(ps.ConfigError, match="the Config has it") as caught:
                await anext(aio.stream(["true"], config=ps.Config(**{name: value}, **fields)))
            assert caught.value.field == name
        async with aio.Sandbox(stdout="log", **fields) as box:
            with pytest.raises(ps.ConfigError, match="stdout"):
                await anext(aio.stream(["true"], sandbox=box))
        with pytest.raises(ps.ConfigError, match="input"):
            await anext(aio.stream(["true"], stdin=ps.DEVNULL, input=b"x", **fields))
        plain = ps.Config(stdout=ps.CAPTURE, stderr=ps.PIPE, **fields)
        assert isinstance([event async for event in aio.stream(["true"], config=plain)][-1], ps.Exited)

    with_loop(main)
