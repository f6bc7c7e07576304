"""Handles that are awaited: what they share with others is tested there; here what the loop does for them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
import warnings
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

import pytest

if sys.platform == "win32":
    pytest.skip("asyncio watches no run there", allow_module_level=True)

from support.processes import output_of

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
            os.kill(process.pid or 0, 0)
            assert (await process.usage()).tasks == 1
            process.stdin.close()
            result = await process.wait()
        assert (result.reason, process.returncode) == (ps.Reason.EXITED, 0)
        assert (await process.usage()).tasks == 0

    with_loop(main)


def test_completion_shows_subprocesss_vocabulary_and_no_machinery() -> None:
    """What a handle and a Sandbox are made of is behind one object of each."""
    process, box = aio.Popen(["true"]), aio.Sandbox()
    assert {name for name in dir(process) if not name.startswith("_")} == {
        "args", "close", "communicate", "held", "kill", "pause", "pid", "poll", "result", "resume", "returncode", "send_signal",
        "set_size", "start", "stderr", "stdin", "stdout", "terminate", "usage", "wait",
    }  # fmt: skip
    assert {name for name in dir(box) if not name.startswith("_")} == {
        "cleanup", "closed", "cmd", "config", "directory", "held", "popen", "read", "run", "write",
    }  # fmt: skip
    assert dir(aio) == sorted(aio.__all__)


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


async def goes_on(process: aio.Popen) -> bool:
    """Whether it uses its processor within a while."""
    before = (await process.usage()).cpu_time
    await asyncio.sleep(0.3)
    return (await process.usage()).cpu_time > before


def test_a_run_that_is_paused_stands_still_until_it_is_resumed(fields: dict[str, Any]) -> None:
    async def main() -> None:
        async with aio.Popen(["sh", "-c", "while :; do :; done"], **fields) as process:
            for _ in range(2):
                while not await goes_on(process):
                    pass
                process.pause()
                while await goes_on(process):
                    pass
                assert not await goes_on(process)
                assert process.returncode is None
                process.resume()
            while not await goes_on(process):
                pass
            process.pause()
            process.kill()
            assert (await process.wait()).reason is ps.Reason.CANCELLED

    with_loop(main)


def test_signals_and_the_end_of_the_block(fields: dict[str, Any]) -> None:
    async def main() -> None:
        async with aio.Popen(["sleep", "100"], **fields) as process:
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


@pytest.mark.parametrize("at_once", [True, False])
def test_a_forgotten_handle_ends_its_run_and_warns(at_once: bool, fields: dict[str, Any]) -> None:
    """Also one with pipes, of which nobody has an end then."""

    async def main() -> None:
        await aio.run(["true"], **fields)
        before = len(os.listdir("/proc/self/fd"))
        up, told = os.pipe()
        script = f"echo up >&{told}; sleep 1000 & wait"
        process = aio.Popen(["bash", "-c", script], pass_fds=[told], stdin=ps.PIPE, stdout=ps.PIPE, **fields)
        await process
        task = process.held.task
        assert task is not None
        if not at_once:
            await asyncio.to_thread(os.read, up, 100)
        only = [process]
        del process
        with pytest.warns(ResourceWarning, match="was forgotten"):
            only.clear()
        await asyncio.wait({task})
        os.close(told)
        while await asyncio.to_thread(os.read, up, 100):  # until nobody of the tree has the other end
            pass
        os.close(up)
        del task
        gc.collect()
        await asyncio.sleep(0)
        assert len(os.listdir("/proc/self/fd")) <= before

    with_loop(main)


def test_a_forgotten_handle_whose_run_is_over_or_has_not_begun_is_none(fields: dict[str, Any]) -> None:
    async def main() -> None:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            aio.Popen(["true"], **fields)
            await (await aio.Popen(["true"], **fields)).wait()
            async with aio.Popen(["sleep", "1000"], **fields):
                pass
            gc.collect()
        assert not [each for each in told if each.category is ResourceWarning]

    with_loop(main)


def test_a_handle_that_is_awaited_is_started(fields: dict[str, Any]) -> None:
    """As users of asyncio.create_subprocess_exec() write it; its block then ends it as any other."""

    async def main() -> None:
        process = await aio.Popen(["cat"], stdin=ps.PIPE, stdout=ps.PIPE, **fields)
        assert process.poll() is None
        assert await process.communicate(b"x") == (b"x", None)
        assert await process.result() is await process.wait()
        assert (process.poll(), process.returncode) == (0, 0)
        async with await aio.Popen(["sleep", "1000"], **fields) as other:
            assert repr(other) == f"<Popen: pid {other.pid}, args: ['sleep', '1000']>"
        assert (await other.wait()).reason is ps.Reason.CANCELLED

    with_loop(main)


def test_what_is_asked_of_a_handle_that_was_not_started_is_refused(fields: dict[str, Any]) -> None:
    async def main() -> None:
        process = aio.Popen(["cat"], stdin=ps.PIPE, pty=True, **fields)
        assert (process.pid, process.returncode) == (None, None)
        assert "not started" in repr(process)
        asks: list[Callable[[], object]] = [
            process.kill, process.terminate, process.pause, process.resume, process.poll, lambda: process.send_signal(1),
            lambda: process.set_size(1, 1),
        ]  # fmt: skip
        for ask in asks:
            with pytest.raises(ps.ConfigError, match="not started"):
                ask()
        for awaited in (process.wait, process.result, process.usage, lambda: process.communicate(b"x")):
            with pytest.raises(ps.ConfigError, match="not started"):
                await awaited()
        await process.close()

    with_loop(main)


def test_communicate_leaves_no_task_behind(fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is raised in one of them; and what cannot be written is told before there are any."""

    async def main() -> None:
        async with aio.Popen(["cat"], stdin=ps.PIPE, stdout=ps.PIPE, **fields) as process:
            before = asyncio.all_tasks()
            words: Any = "x"
            with pytest.raises(ps.ConfigError, match="pass bytes"):
                await process.communicate(words)
            assert process.stdin is not None

            async def broken() -> None:
                raise ZeroDivisionError

            with monkeypatch.context() as patch:
                patch.setattr(process.stdin, "drain", broken)
                with pytest.raises(ZeroDivisionError):
                    await process.communicate(b"x")
            assert asyncio.all_tasks() == before
            with pytest.raises(ps.ConfigError, match="no open pipe"):
                await process.communicate(b"x")
        async with aio.Popen(["sleep", "1000"], stdout=ps.PIPE, **fields) as process:
            before = asyncio.all_tasks()
            task = asyncio.ensure_future(process.communicate())
            while len(asyncio.all_tasks()) < len(before) + 4:
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait({task})
            assert asyncio.all_tasks() == before

    with_loop(main)


def test_a_line_may_be_as_long_as_the_caller_says(fields: dict[str, Any]) -> None:
    async def main() -> None:
        command = ["sh", "-c", "head -c 100000 /dev/zero | tr '\\0' x; echo"]
        async with aio.Popen(command, stdout=ps.PIPE, **fields) as process:
            assert process.stdout is not None
            with pytest.raises(ValueError, match="limit"):
                await process.stdout.readline()
        async with aio.Sandbox(**fields) as box, box.popen(command, stdout=ps.PIPE, limit=1 << 20) as process:
            assert process.stdout is not None
            assert len(await process.stdout.readline()) == 100001
        for limit in (0, True, "1M"):
            wrong: Any = limit
            with pytest.raises(ps.ConfigError, match="limit"):
                aio.Popen(command, limit=wrong, **fields)

    with_loop(main)


def test_a_returncode_raises_nothing(fields: dict[str, Any]) -> None:
    """Where there is none, wait() and poll() raise why."""

    class Broken:
        def write(self, data: bytes) -> None:
            raise ZeroDivisionError

    async def main() -> None:
        command = ["sh", "-c", "read line; echo; exec sleep 1000"]
        async with aio.Popen(command, stdin=ps.PIPE, stdout=Broken(), **fields) as process:
            assert process.stdin is not None
            process.stdin.write(b"\n")
            with pytest.raises(ZeroDivisionError):
                await process.wait()
            assert process.returncode is None
            with pytest.raises(ZeroDivisionError):
                process.poll()
        missing = aio.Popen(["no-such-command"], **fields)
        with pytest.raises(FileNotFoundError):
            await missing
        assert missing.returncode is None

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
        queue: asyncio.Queue[aio.Popen] = asyncio.Queue()

        async def hold() -> None:
            async with aio.Popen(["sleep", "1000"], **fields) as process:
                queue.put_nowait(process)
                await process.wait()

        tasks = [asyncio.create_task(hold()) for _ in range(5)]
        begun = [await queue.get() for _ in tasks]
        for task in tasks:
            task.cancel()
        assert all(isinstance(error, asyncio.CancelledError) for error in await asyncio.gather(*tasks, return_exceptions=True))
        for process in begun:
            assert (await process.wait()).reason is ps.Reason.CANCELLED
            with pytest.raises(ProcessLookupError):
                os.kill(process.pid or 0, 0)

    with_loop(main)


@pytest.mark.parametrize("use", ["run", "Popen", "stream"])
def test_every_task_of_the_loop_is_cancelled_at_any_moment(use: str, fields: dict[str, Any]) -> None:
    """As asyncio.run() does at its end, also before a task's first step: then too nothing stays, and places are given back."""

    async def one() -> None:
        async with aio.limit(1, use):
            if use == "run":
                await aio.run(["true"], **fields)
            elif use == "Popen":
                async with aio.Popen(["true"], **fields) as process:
                    await process.wait()
            else:
                async for _ in aio.stream(["true"], **fields):
                    pass

    async def main() -> None:
        await one()
        before = len(os.listdir("/proc/self/fd"))
        me = {asyncio.current_task()}
        others = asyncio.all_tasks() - me
        for rounds in range(12 if fields["backend"] == "linux" else 6):
            task = asyncio.ensure_future(one())
            for _ in range(rounds):
                await asyncio.sleep(0)
            for each in asyncio.all_tasks() - me - others:
                each.cancel()
            await asyncio.wait({task})
        await one()  # there is a place
        assert len(os.listdir("/proc/self/fd")) <= before

    with_loop(main)


@pytest.mark.parametrize("use", ["Popen", "stream"])
@pytest.mark.parametrize("closed", [True, False])
def test_a_loop_that_is_thrown_away_takes_its_handles_with_it(use: str, closed: bool, fields: dict[str, Any]) -> None:
    """Even where what the run writes to holds all that waits for it. Which of them is thrown away first is the collector's choice, and so is
    whether the end is waited for here.
    """
    code = """
import asyncio, gc, os, sys, threading, warnings
import proc_sandbox as ps
from proc_sandbox import aio
warnings.simplefilter("ignore")
fields = eval(sys.argv[2])
loop = asyncio.new_event_loop()
loop.run_until_complete(aio.run(["true"], **fields))
before = len(os.listdir("/proc/self/fd"))
up, told = os.pipe()
command = ["sh", "-c", f"echo; echo up >&{told}; sleep 600"]
async def main():
    if sys.argv[1] == "stream":
        async for event in aio.stream(command, pass_fds=[told], **fields):
            if isinstance(event, ps.Started):
                seen("start")
    else:
        async with aio.Popen(command, pass_fds=[told], stdin=ps.PIPE, **fields) as process:
            seen("start")
            await process.wait()
both = set()  # the command may be faster than who starts it in a thread
def seen(what):
    both.add(what)
    if what == "up":
        asyncio.get_running_loop().remove_reader(up)
    if len(both) == 2:
        asyncio.get_running_loop().stop()
task = loop.create_task(main())
loop.add_reader(up, seen, "up")
loop.run_forever()
for _ in range(10):  # what it has written comes too
    loop.call_soon(loop.stop)
    loop.run_forever()
os.read(up, 100)
for thread in threading.enumerate():  # one that has just started the run still has the loop, until it has ended
    if "apart" in thread.name:
        thread.join()
if sys.argv[3] == "True":
    loop.close()
del task
if sys.argv[3] == "False":
    del loop
gc.collect()
os.close(told)
print(os.read(up, 100), len(os.listdir("/proc/self/fd")) <= before)
"""
    assert output_of(code, use, repr(fields), str(closed)) == "b'' True\n"


def test_a_stream_that_is_closed_has_ended_its_run(fields: dict[str, Any]) -> None:
    async def main() -> None:
        async with contextlib.aclosing(aio.stream(["yes"], **fields)) as events:
            async for event in events:
                if isinstance(event, ps.Started):
                    pid = event.pid
                else:
                    break
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)

    with_loop(main)


def test_each_handle_is_of_one_run(fields: dict[str, Any]) -> None:
    """Another one would be forgotten, and go on."""

    async def main() -> None:
        async with aio.Popen(["cat"], stdin=ps.PIPE, **fields) as process:
            pid = process.pid
            with pytest.raises(ps.ConfigError, match="started before"):
                await process.start()
            assert process.pid == pid
        with pytest.raises(ps.ConfigError, match="started before"):
            await process.start()
        with pytest.raises(ps.ConfigError, match="started before"):
            async with process:
                raise AssertionError("it was closed")
        missing = aio.Popen(["no-such-command"], **fields)
        for _ in range(2):
            with pytest.raises((FileNotFoundError, ps.ConfigError)):
                async with missing:
                    raise AssertionError("it was started")

    with_loop(main)


def test_what_communicate_was_cancelled_over_is_not_lost(fields: dict[str, Any]) -> None:
    """As of a handle that is not awaited: it is called again, without the input."""

    async def main() -> None:
        gate, go = os.pipe()
        command = ["bash", "-c", f"cat; echo error >&2; read line <&{gate}; echo more"]
        async with aio.Popen(command, stdin=ps.PIPE, stdout=ps.PIPE, stderr=ps.PIPE, pass_fds=[gate], **fields) as process:
            task = asyncio.ensure_future(process.communicate(b"word\n"))
            while {bytes(each.kept) for each in process.held.collected.values()} != {b"word\n", b"error\n"}:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            os.write(go, b"\n")
            assert await process.communicate() == (b"word\nmore\n", b"error\n")
            assert await process.communicate() == (b"word\nmore\n", b"error\n")
        os.close(gate)
        os.close(go)

    with_loop(main)


@pytest.mark.parametrize("close", ["close", "write_eof"])
def test_input_is_refused_where_the_caller_has_closed_stdin(close: str, fields: dict[str, Any]) -> None:
    async def main() -> None:
        async with aio.Popen(["cat"], stdin=ps.PIPE, stdout=ps.PIPE, **fields) as process:
            assert process.stdin is not None
            getattr(process.stdin, close)()
            with pytest.raises(ps.ConfigError, match="no open pipe"):
                await process.communicate(b"x")
            assert await process.communicate() == (b"", None)

    with_loop(main)


def test_a_fork_has_no_part_in_its_parents_handles(fields: dict[str, Any]) -> None:
    """It neither ends the run nor keeps its pipes open."""
    code = """
import asyncio, os, sys, warnings
import proc_sandbox as ps
from proc_sandbox import aio
warnings.simplefilter("ignore")
async def main():
    async with aio.Popen(["cat"], stdin=ps.PIPE, stdout=ps.PIPE, **eval(sys.argv[1])) as process:
        gate, go = os.pipe()
        done, told = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(go)
            process.kill()
            closing = process.close()
            try:
                closing.send(None)
            except StopIteration:
                os.write(told, b"closed")
            os.read(gate, 1)  # alive until the parent is done
            os._exit(0)
        print(os.read(done, 100))
        print(await process.communicate(b"parent"), (await process.wait()).reason.value)
        os.close(go)
        os.waitpid(pid, 0)
asyncio.run(main())
"""
    assert output_of(code, repr(fields)) == "b'closed'\n(b'parent', None) exited\n"


def test_a_pipe_that_the_loop_has_is_the_loops(monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any]) -> None:
    """Cancelled while it begins to watch one: uvloop has closed the descriptor then, whose number may be another's already."""
    taken: list[Any] = []

    async def main() -> None:
        async def connect(protocol: object, pipe: Any) -> None:
            taken.append(pipe)
            raise asyncio.CancelledError

        monkeypatch.setattr(asyncio.get_running_loop(), "connect_read_pipe", connect)
        with pytest.raises(asyncio.CancelledError):
            await aio.Popen(["cat"], stdout=ps.PIPE, **fields).start()

    with_loop(main)
    assert not taken[0].closed
    taken[0].close()


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
            aio.stream(["true"], stdout=ps.PIPE, **fields)

    with_loop(main)


def test_what_is_wrong_is_told_when_a_stream_is_asked_for(fields: dict[str, Any]) -> None:
    """And not when its first event is: as of proc_sandbox.stream()."""
    for call in (ps.stream, aio.stream):
        wrong: Any = call
        for args, options in (
            ("not a list", {}), (["true"], {"bogus": 1}), (["true"], {"input": 5}), (["true"], {"stdin": ps.PIPE}), (["true"], {"stderr": "x"}),
            (["true"], {"input": b"x", "stdin": b"x"}), (["true"], {"timeout": -1}), (["true"], {"config": 5}),
        ):  # fmt: skip
            with pytest.raises(ps.ConfigError):
                wrong(args, **{**fields, **options})


def test_a_stream_takes_input_that_is_awaited(fields: dict[str, Any]) -> None:
    async def pieces() -> AsyncIterator[bytes | str]:
        for piece in (b"one ", "tw\u00f6 ", b""):
            await asyncio.sleep(0)
            yield piece

    async def main() -> None:
        reader = asyncio.StreamReader()
        reader.feed_data(b"read")
        reader.feed_eof()
        for given, found in ((pieces(), "one tw\u00f6 ".encode()), (reader, b"read"), ("text", b"text"), (b"", b"")):
            events = [event async for event in aio.stream(["cat"], input=given, **fields)]
            assert b"".join(event for event in events if isinstance(event, ps.Output)) == found
            assert isinstance(events[-1], ps.Exited)

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
            assert not box.held.guests
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
            assert not box.held.guests

    with_loop(main)


def test_a_sandbox_that_closes_while_a_handle_starts_ends_it(fields: dict[str, Any]) -> None:
    async def main() -> None:
        async with aio.Sandbox(**fields) as box:
            await box.run(["true"])
            process = box.popen(["sleep", "1000"])
            starting = asyncio.create_task(process.start())
            while not box.held.guests:
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
                aio.stream(["true"], config=ps.Config(**{name: value}, **fields))
            assert caught.value.field == name
        async with aio.Sandbox(stdout="log", **fields) as box:
            with pytest.raises(ps.ConfigError, match="stdout"):
                aio.stream(["true"], sandbox=box)
        with pytest.raises(ps.ConfigError, match="input"):
            aio.stream(["true"], stdin=ps.DEVNULL, input=b"x", **fields)
        plain = ps.Config(stdout=ps.CAPTURE, stderr=ps.PIPE, **fields)
        assert isinstance([event async for event in aio.stream(["true"], config=plain)][-1], ps.Exited)

    with_loop(main)
