"""Runs on a terminal of their own that are awaited; what they share with others is tested in test_terminals.py."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.processes import output_of, witness
from support.programs import HANG, python
from support.terminals import Terminal, caller_on, terminal

import proc_sandbox as ps
from proc_sandbox import aio

EVERY_BACKEND = True

Loop = Callable[[Callable[[], Coroutine[Any, Any, None]]], None]
BOTH: dict[str, Any] = {"pty": True, "stdin": ps.PIPE, "stdout": ps.PIPE, "timeout": HANG}
SILENT = "stty -echo; echo up; "


@pytest.fixture
def with_loop() -> Iterator[Loop]:
    """Runs a coroutine function in a new loop in debug mode; no descriptor of it stays open."""

    def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        asyncio.run(asyncio.wait_for(main(), HANG), debug=True)

    asyncio.run(aio.run(["true"]))
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    yield run
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before
    assert not [thread for thread in threading.enumerate() if thread.name == "proc-sandbox-terminal"]


async def pieces(*data: bytes) -> AsyncIterator[bytes]:
    for piece in data:
        await asyncio.sleep(0)
        yield piece


class Slow:
    """Takes what is shown, later; nothing more is read meanwhile."""

    def __init__(self) -> None:
        self.taken, self.busy = b"", False

    async def write(self, data: bytes) -> None:
        assert not self.busy
        self.busy = True
        await asyncio.sleep(0.001)
        self.busy = False
        self.taken += data


# --- run() ---


def test_it_is_typed_and_shown(with_loop: Loop) -> None:
    async def main() -> None:
        result = await aio.run(["sh", "-c", "read x; echo got $x; echo err >&2; tty"], pty=True, input="it\n", timeout=HANG)
        assert result.stdout.startswith(b"it\r\ngot it\r\nerr\r\n/dev/pts/")
        assert result.stderr == b""
        result = await aio.run(["sh", "-c", "cat; cat; echo over"], pty=True, text=True, timeout=HANG)
        assert result.stdout == "over\n"
        code = "import sys; data = sys.stdin.buffer.read(); sys.stdout.write(repr(data))"
        for data in (b"", b"a line\n", b"no end of the line", b"one\ntwo"):
            assert (await aio.run(python(code), pty=True, input=data, timeout=HANG)).stdout.endswith(repr(data).encode())
        assert (await aio.run(["python3", "-iq"], pty=True, input="print(6*7)\n", timeout=HANG)).ok

    with_loop(main)


def test_input_can_come_from_anywhere(with_loop: Loop, tmp_path: Path) -> None:
    place = tmp_path / "input"
    place.write_bytes(b"from there\n")

    async def main() -> None:
        reader = asyncio.StreamReader()
        reader.feed_data(b"from there\n")
        reader.feed_eof()
        out, into = os.pipe()
        os.write(into, b"from there\n")
        os.close(into)
        with place.open("rb") as file, os.fdopen(out, "rb") as pipe:
            for fields in (
                {"stdin": place}, {"stdin": file}, {"stdin": pipe}, {"stdin": io.BytesIO(b"from there\n")}, {"stdin": reader},
                {"input": pieces(b"from ", b"there\n")},
            ):  # fmt: skip
                result = await aio.run(["sh", "-c", "stty -echo; cat"], pty=True, timeout=HANG, **fields)
                assert result.stdout.endswith(b"from there\r\n")

    with_loop(main)


def test_output_can_go_anywhere(with_loop: Loop, tmp_path: Path) -> None:
    place, memory, got, slow = tmp_path / "output", io.BytesIO(), bytearray(), Slow()

    async def main() -> None:
        out, into = os.pipe()
        with os.fdopen(out, "rb") as reader:
            for target in (place, memory, got.extend, slow, into, ps.DEVNULL):
                result = await aio.run(["sh", "-c", "echo out; echo err >&2"], pty=True, stdout=target, timeout=HANG)
                assert (result.reason, result.stdout) == (ps.Reason.EXITED, b"")
            os.close(into)
            assert reader.read() == b"out\r\nerr\r\n"
        assert place.read_bytes() == memory.getvalue() == got == slow.taken == b"out\r\nerr\r\n"

    with_loop(main)


def test_much_both_ways(with_loop: Loop, tmp_path: Path) -> None:
    """More than the terminal holds; to a file, which no loop tells of, and to one that takes its time."""
    lines = [b"%d\n" % n for n in range(20_000)]
    shown = b"".join(lines).replace(b"\n", b"\r\n")

    async def main() -> None:
        for target in (place := tmp_path / "output", slow := Slow()):
            input = pieces(b"go\n", *(b"".join(lines[n : n + 1000]) for n in range(0, len(lines), 1000)))
            await aio.run(["sh", "-c", "read x; stty -echo; cat"], pty=True, input=input, stdout=target, timeout=HANG, check=True)
        for said in (place.read_bytes(), slow.taken):
            assert said.endswith(b"%d\r\n" % 19_999)
            assert len(said) >= len(shown)

    with_loop(main)


def test_what_nobody_takes_at_the_end_is_told(with_loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than a pipe holds, and less than keeps the command waiting."""
    monkeypatch.setattr("proc_sandbox.aio.terminal.PATIENCE", 0.0)

    async def main() -> None:
        reader, writer = os.pipe()
        try:
            result = await aio.run(["head", "-c", "100000", "/dev/zero"], pty=True, stdout=writer, timeout=HANG)
        finally:
            os.close(reader)
            os.close(writer)
        assert result.output_truncated == (True, False)

    with_loop(main)


def test_limits_hold(with_loop: Loop) -> None:
    async def main() -> None:
        result = await aio.run(["yes"], pty=True, timeout=0.5, max_output="1K")
        assert (result.timed_out, len(result.stdout), result.output_truncated.stdout) == (True, 1024, True)
        result = await aio.run(["sleep", "1000"], pty=True, timeout=0.5, input=b"line\n" * 1_000_000)
        assert result.timed_out
        with pytest.raises(FileNotFoundError):
            await aio.run(["no-such-command"], pty=True)

    with_loop(main)


@pytest.mark.parametrize("kind", ["sink", "later", "input"])
def test_what_a_stream_raises_ends_it(with_loop: Loop, kind: str) -> None:
    def refuse(data: bytes) -> None:
        raise ValueError("no")

    class Later:
        async def write(self, data: bytes) -> None:
            await asyncio.sleep(0)
            raise ValueError("no")

    async def broken() -> AsyncIterator[bytes]:
        yield b"x\n"
        raise ValueError("no")

    async def main() -> None:
        fields = {"sink": {"stdout": refuse}, "later": {"stdout": Later()}, "input": {"input": broken()}}[kind]
        with pytest.raises(ValueError, match="no"):
            await aio.run(["sh", "-c", "echo up; exec sleep 1000"], pty=True, **fields)

    with_loop(main)


def test_nothing_is_left_of_a_cancelled_one(with_loop: Loop) -> None:
    with witness() as pipe:
        code = f"import os, time\nos.fork(); os.fork()\nos.write({pipe.write_end}, b'up')\nwhile True: os.write(1, b'y')"

        async def main() -> None:
            task = asyncio.ensure_future(aio.run(python(code), pty=True, pass_fds=[pipe.write_end]))
            await asyncio.to_thread(pipe.hear, b"up")
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        with_loop(main)
        pipe.wait_alone()


def test_cancelled_at_any_moment(with_loop: Loop) -> None:
    async def one(rounds: int) -> None:
        task = asyncio.ensure_future(aio.run(["sh", "-c", "echo x; cat"], pty=True, input=pieces(b"x\n" * 10_000), timeout=HANG))
        for _ in range(rounds):
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def main() -> None:
        for rounds in range(40):
            await one(rounds)

    with_loop(main)


def test_a_loop_that_is_closed_meanwhile() -> None:
    code = """
import asyncio
import proc_sandbox as ps
from proc_sandbox import aio
async def main():
    begun = asyncio.Event()
    asyncio.ensure_future(aio.run(["sh", "-c", "echo up; exec cat"], pty=True, input=never(), stdout=lambda data: begun.set()))
    await begun.wait()
    loop.stop()
async def never():
    await asyncio.Event().wait()
    yield b""
loop = asyncio.new_event_loop()
loop.create_task(main())
loop.run_forever()
loop.close()
print("closed")
"""
    assert output_of(code) == "closed\n"


def test_many_at_a_time(with_loop: Loop) -> None:
    async def main() -> None:
        results = await asyncio.gather(*(aio.run(["sh", "-c", f"echo {n}"], pty=True, timeout=HANG) for n in range(30)))
        assert [result.stdout for result in results] == [b"%d\r\n" % n for n in range(30)]

    with_loop(main)


@pytest.fixture
def place() -> Iterator[Terminal]:
    with terminal() as made:
        yield made


def test_the_callers_own_terminal_is_refused(place: Terminal) -> None:
    code = """
import asyncio, sys
import proc_sandbox as ps
from proc_sandbox import aio
for fields in ({"stdin": ps.INHERIT}, {"stdout": ps.INHERIT}, {"stdin": 0}, {"stdout": sys.stdout}, {"stdout": 2}):
    try:
        asyncio.run(aio.run(["true"], pty=True, **fields))
    except ps.ConfigError as error:
        print(error.field, "your own terminal" in str(error), flush=True)
print("over", flush=True)
"""
    with caller_on(place, code) as process:
        place.until(rb"stdin True\r\nstdout True\r\nstdin True\r\nstdout True\r\nstdout True\r\nover\r\n")
        assert place.wait(process) == 0


def test_what_is_inherited_and_no_terminal_is_not() -> None:
    code = """
import asyncio
import proc_sandbox as ps
from proc_sandbox import aio
asyncio.run(aio.run(["sh", "-c", "echo out"], pty=True, stdout=ps.INHERIT, check=True))
"""
    assert output_of(code) in ("out\r\n", "out\n")


# --- handles and events ---


def test_a_dialogue(with_loop: Loop) -> None:
    async def main() -> None:
        async with aio.Popen(["python3", "-iq"], **BOTH) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            await process.stdout.readuntil(b">>> ")
            process.stdin.write(b"print(6*7)\n")
            assert await process.stdout.readline() == b"print(6*7)\r\n"
            assert await process.stdout.readline() == b"42\r\n"
            process.stdin.close()
            await process.stdout.read()
            assert await process.stdout.read() == b""
            assert (await process.wait()).exit_code == 0

    with_loop(main)


def test_communicate(with_loop: Loop) -> None:
    async def main() -> None:
        for data in (None, b"", b"x\n", b"no end", b"line\n" * 50_000):
            async with aio.Popen(["sh", "-c", SILENT + "exec cat"], **BOTH) as process:
                assert process.stdout is not None
                await process.stdout.readline()
                assert await process.communicate(data) == ((data or b"").replace(b"\n", b"\r\n"), None)
                assert (await process.wait()).ok

    with_loop(main)


def test_one_of_both_is_a_pipe(with_loop: Loop) -> None:
    async def main() -> None:
        async with aio.Popen(["sh", "-c", SILENT + "exec cat"], pty=True, stdin=ps.PIPE, timeout=HANG) as process:
            assert process.stdin is not None
            assert (process.stdout, process.stderr) == (None, None)
            process.stdin.close()
            assert (await process.wait()).stdout == b"up\r\n"
        async with aio.Popen(["cat"], pty=True, stdin=b"x\n", stdout=ps.PIPE, stderr=ps.PIPE, timeout=HANG) as process:
            assert process.stdout is not None
            assert (process.stdin, process.stderr) == (None, None)
            assert await process.stdout.read() == b"x\r\nx\r\n"

    with_loop(main)


def test_what_is_shown_last_is_there_however_late_it_is_read(with_loop: Loop) -> None:
    async def main() -> None:
        code = f"import os\nwhile True: os.write(1, b'{'y' * 99}' + b'\\n')"
        async with aio.Popen(python(code), **{**BOTH, "timeout": 1}) as process:
            assert process.stdout is not None
            assert (await process.wait()).timed_out
            shown = await process.stdout.read()
        assert len(shown) > 100_000
        assert set(shown.split(b"\r\n")[:-1]) == {b"y" * 99}

    with_loop(main)


def test_its_size_and_its_keys(with_loop: Loop) -> None:
    async def main() -> None:
        script = "trap 'stty size' WINCH; trap 'echo interrupted; exit 3' INT;" + SILENT + "while :; do sleep 0.01; done"
        async with aio.Popen(["sh", "-c", script], **BOTH) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            await process.stdout.readline()
            process.set_size(40, 120)
            assert await process.stdout.readline() == b"40 120\r\n"
            process.stdin.write(b"\x03")
            assert (await process.stdout.read()).endswith(b"interrupted\r\n")
            assert (await process.wait()).exit_code == 3
            process.set_size(24, 80)

    with_loop(main)


def test_it_can_be_left_at_any_time(with_loop: Loop) -> None:
    async def main() -> None:
        async with aio.Popen(["sh", "-c", SILENT + "yes"], **BOTH) as process:
            assert process.stdout is not None
            await process.stdout.readline()
        async with aio.Popen(["sh", "-c", SILENT + "exec sleep 1000"], **BOTH) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            await process.stdout.readline()
            process.stdin.write(b"line\n" * 100_000)
            process.kill()
            assert await process.stdout.read() == b""
            assert (await process.wait()).reason is ps.Reason.CANCELLED
        with pytest.raises(FileNotFoundError):
            async with aio.Popen(["no-such-command"], **BOTH):
                pass

    with_loop(main)


def test_events(with_loop: Loop) -> None:
    async def main() -> None:
        events = [event async for event in aio.stream(["sh", "-c", "read x; echo out; echo err >&2; exit 3"], pty=True, input="x\n")]
        assert isinstance(events[0], ps.Started)
        assert b"".join(event for event in events if isinstance(event, ps.Output)) == b"x\r\nout\r\nerr\r\n"
        assert isinstance(events[-1], ps.Exited)
        assert events[-1].result.exit_code == 3
        async with contextlib.aclosing(aio.stream(["yes"], pty=True)) as flood:
            async for event in flood:
                if isinstance(event, ps.Output):
                    break

    with_loop(main)
