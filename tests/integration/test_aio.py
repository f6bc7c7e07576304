"""Runs in an event loop: as awaited as anything there, and gone when their task is."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import io
import os
import select
import signal
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.processes import Witness, caller, output_of, witness
from support.programs import HANG, MEGABYTE, python

import proc_sandbox as ps
from proc_sandbox import aio
from proc_sandbox.aio import admission, calls, threads

EVERY_BACKEND = True


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

WAITS = "import os, sys\nos.write({0}, b'up')\nsys.stdin.read()\n"
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


# --- results ---


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


# --- streams ---


def test_megabytes_both_ways(with_loop: Loop) -> None:
    data = os.urandom(5 * MEGABYTE)
    assert with_loop(aio.run(["cat"], input=data)).stdout == data


async def pieces_of(data: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        await asyncio.sleep(0)
        yield data[start : start + size]
        yield b""  # not the end


def test_input_from_an_asynchronous_iterator(with_loop: Loop) -> None:
    data = os.urandom(MEGABYTE)

    async def main() -> None:
        assert (await aio.run(["cat"], input=pieces_of(data, 100_000))).stdout == data
        assert (await aio.run(["cat"], input=pieces_of(b"", 1))).stdout == b""

    with_loop(main())


@pytest.mark.parametrize("kind", ["loop", "threads"])
def test_text_of_any_source_is_encoded_as_input_is(with_loop: Loop, kind: str, request: pytest.FixtureRequest) -> None:
    if kind == "threads":
        request.getfixturevalue("in_threads")

    class Reader:
        def __init__(self) -> None:
            self.left = ["é", "€", "é", ""]

        async def read(self, size: int) -> str:
            del size
            return self.left.pop(0)

    async def words() -> AsyncIterator[str]:
        yield "é"

    async def main() -> None:
        odd = ["od", "-An", "-tx1"]
        for given, found in (("é", ["e9"]), (words(), ["e9"]), (b"x", ["78"])):
            options: dict[str, Any] = {"input": given}
            assert (await aio.run(odd, encoding="latin-1", **options)).stdout.split() == found
        assert (await aio.run(odd, encoding="latin-1", stdin=io.StringIO("é"))).stdout.split() == ["e9"]
        stdin: Any = Reader()
        assert (await aio.run(odd, encoding="latin-1", errors="ignore", stdin=stdin)).stdout.split() == ["e9", "e9"]
        stdin = Reader()
        with pytest.raises(ps.ConfigError, match="latin-1"):
            await aio.run(odd, encoding="latin-1", stdin=stdin)

    with_loop(main())


def test_input_from_a_stream_reader_and_output_to_a_stream_writer(with_loop: Loop) -> None:
    """As a server has them; lines of any length."""
    data = os.urandom(MEGABYTE).replace(b"\n", b" ")

    async def main() -> bytes:
        results = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            results.append(await aio.run(["cat"], stdin=reader, stdout=writer))
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())

        async def send() -> None:
            writer.write(data)
            await writer.drain()
            writer.write_eof()

        sending = asyncio.ensure_future(send())
        found = await reader.read()
        await sending
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
        assert results[0].ok
        assert results[0].stdout == b""
        return found

    assert with_loop(main()) == data


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


def test_output_to_a_coroutine(with_loop: Loop) -> None:
    """All of it arrives in order, one call after the other, that of the end too."""
    sink, errors = Sink(), Sink()
    code = "import sys\nfor n in range(50000): print(n)\nprint('error', file=sys.stderr)"
    result = with_loop(aio.run(python(code), stdout=sink, stderr=errors))
    assert result.ok
    assert bytes(sink.taken).split() == [str(n).encode() for n in range(50000)]
    assert errors.taken == b"error\n"


@pytest.mark.parametrize("kind", ["loop", "threads"])
def test_what_a_tee_brings_is_awaited_too(with_loop: Loop, kind: str, request: pytest.FixtureRequest) -> None:
    """Else it would not arrive, or fill the caller's memory."""
    if kind == "threads":
        request.getfixturevalue("in_threads")

    class Coroutine:
        def __init__(self) -> None:
            self.got = b""

        async def write(self, data: bytes) -> None:
            await asyncio.sleep(0)
            self.got += data

    class Writer:
        def __init__(self) -> None:
            self.waiting = self.most = 0

        def write(self, data: bytes) -> None:
            self.waiting += len(data)
            self.most = max(self.most, self.waiting)

        async def drain(self) -> None:
            await asyncio.sleep(0)
            self.waiting = 0

    async def main() -> None:
        one, other = Coroutine(), Writer()
        tee: Any = ps.Tee(one, other)
        result = await aio.run(["head", "-c", str(MEGABYTE), "/dev/zero"], stdout=tee)
        assert len(result.stdout) == len(one.got) == MEGABYTE
        assert (other.waiting, other.most <= 1 << 16) == (0, True)

    with_loop(main())


def test_a_slow_sink_slows_the_command(with_loop: Loop) -> None:
    """What the command has written is never much more than what was taken: a pipe and two pieces."""
    written_end, told = os.pipe()
    os.set_blocking(written_end, False)
    written, most = 0, 0

    def look() -> None:
        nonlocal written, most
        with contextlib.suppress(BlockingIOError):
            written += len(os.read(written_end, 1 << 16)) << 16
        most = max(most, written - len(sink.taken))

    sink = Sink(look)
    code = f"import os\nfor n in range(64):\n    os.write(1, bytes(65536)); os.write({told}, b'x')"
    assert with_loop(aio.run(python(code), stdout=sink, pass_fds=[told])).ok
    assert len(sink.taken) == 64 << 16
    assert most <= 4 << 16
    os.close(written_end)
    os.close(told)


def test_a_command_that_does_not_read_is_asked_for_nothing(with_loop: Loop) -> None:
    """No more pieces are fetched than the pipe takes."""
    gate, go = os.pipe()
    asked = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal asked
        while True:
            asked += 1
            os.write(go, b"x")
            yield bytes(1 << 20)

    assert with_loop(aio.run(python(f"import os; os.read({gate}, 1)"), input=endless(), pass_fds=[gate])).ok
    assert asked == 1
    os.close(gate)
    os.close(go)


def test_input_that_never_comes_keeps_no_run_from_ending(with_loop: Loop) -> None:
    cancelled: list[bool] = []

    async def never() -> AsyncIterator[bytes]:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise
        yield b""

    assert with_loop(aio.run(["true"], input=never())).ok
    assert cancelled == [True]


class Slow(io.RawIOBase):
    """A file object whose reader has to wait: begun is set in the loop."""

    def __init__(self) -> None:
        self.loop, self.begun = asyncio.get_running_loop(), asyncio.Event()
        self.go = threading.Event()
        self.pieces = [b"one ", b"two"]

    def read(self, size: int = -1) -> bytes:
        """Wait first."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.begun.set)
        assert self.go.wait(HANG)
        return self.pieces.pop(0) if self.pieces else b""


def test_a_file_object_that_keeps_its_reader_waiting_does_not_keep_the_loop(with_loop: Loop) -> None:
    async def main() -> ps.Result:
        file = Slow()
        run = asyncio.ensure_future(aio.run(["cat"], stdin=file))
        await file.begun.wait()
        file.go.set()
        return await run

    assert with_loop(main()).stdout == b"one two"


def test_who_is_cancelled_does_not_wait_for_a_file_object(with_loop: Loop) -> None:
    async def main() -> Slow:
        file = Slow()
        run = asyncio.ensure_future(aio.run(["cat"], stdin=file))
        await file.begun.wait()
        run.cancel()
        with pytest.raises(asyncio.CancelledError):
            await run
        return file

    with_loop(main()).go.set()


def test_files_in_memory_and_of_the_system(with_loop: Loop, tmp_path: Path) -> None:
    path, memory = tmp_path / "file", io.BytesIO()
    path.write_bytes(b"from a file")

    async def main() -> None:
        assert (await aio.run(["cat"], stdin=io.BytesIO(b"memory"), stdout=memory)).ok
        assert memory.getvalue() == b"memory"
        assert (await aio.run(["cat"], stdin=path, stdout=tmp_path / "out")).ok
        assert (tmp_path / "out").read_bytes() == b"from a file"
        with path.open("rb") as file:
            assert (await aio.run(["cat"], stdin=file)).stdout == b"from a file"

    with_loop(main())


def test_a_fifo_that_nobody_has_opened_keeps_only_its_own_run_waiting(with_loop: Loop, tmp_path: Path) -> None:
    """To open it for reading waits for a writer (fifo(7))."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    async def main() -> None:
        reading = asyncio.ensure_future(aio.run(["cat"], stdin=fifo))
        assert (await aio.run(["true"])).ok
        assert (await aio.run(["echo", "word"], stdout=fifo)).ok
        assert (await reading).stdout == b"word\n"

    with_loop(main())


@pytest.mark.parametrize("kind", ["at once", "awaited", "input"])
def test_what_a_stream_raises_ends_the_run_and_arrives(kind: str, with_loop: Loop) -> None:
    class Broken:
        def write(self, data: bytes) -> object:
            if kind == "at once":
                raise ZeroDivisionError
            return self.later()

        async def later(self) -> None:
            await asyncio.sleep(0)
            raise ZeroDivisionError

    async def broken() -> AsyncIterator[bytes]:
        await asyncio.sleep(0)
        yield b"x"
        raise ZeroDivisionError

    with witness() as pipe:
        code = FAMILY.format(pipe.write_end) if kind == "input" else FAMILY.format(1)

        async def main() -> None:
            streams = {"input": broken()} if kind == "input" else {"stdout": Broken()}
            with pytest.raises(ZeroDivisionError):
                await aio.run(python(code), pass_fds=[pipe.write_end], **streams)  # type: ignore[arg-type]
            assert is_alone(pipe)

        with_loop(main())


def test_what_a_sink_raises_at_the_very_end_arrives(with_loop: Loop) -> None:
    """When the run has ended its last bytes are still to be taken."""

    class Broken:
        async def write(self, data: bytes) -> None:
            await asyncio.sleep(0)
            raise ZeroDivisionError

    async def main() -> None:
        for _ in range(20):
            with pytest.raises(ZeroDivisionError):
                await aio.run(["echo", "word"], stdout=Broken())

    with_loop(main())


def test_sinks_are_called_in_the_tasks_context(with_loop: Loop) -> None:
    variable = contextvars.ContextVar("variable", default="")
    found: list[tuple[str, threading.Thread]] = []

    class Looking:
        def write(self, data: bytes) -> None:
            found.append((variable.get(), threading.current_thread()))

    async def main() -> None:
        variable.set("mine")
        await aio.run(["echo"], stdout=Looking())

    with_loop(main())
    assert found == [("mine", threading.main_thread())]


# --- cancellation ---


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
            while not run.done():
                run.cancel()
                await asyncio.sleep(0)
            assert run.cancelled()
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


# --- how many ---


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


# --- what else may happen ---


def kill_server(backend: str) -> None:
    if backend == "linux":
        from proc_sandbox.launcher.process import launcher

        os.kill(launcher().pid, signal.SIGKILL)
    else:
        from proc_sandbox.backends.posix.process import warden

        os.kill(warden().pid, signal.SIGKILL)


def test_who_serves_the_runs_is_killed(with_loop: Loop, backend: str) -> None:
    """All know it, and the next run has another one."""
    with witness() as pipe:

        async def main() -> None:
            runs = [family(pipe) for _ in range(5)]
            await heard(pipe, 20)
            kill_server(backend)
            found = await asyncio.gather(*runs, return_exceptions=True)
            assert [type(error) for error in found] == [ps.LauncherDiedError] * 5, found
            pipe.wait_alone()
            assert (await aio.run(["echo", "again"])).stdout == b"again\n"

        with_loop(main())


def test_who_serves_the_runs_is_killed_while_a_fork_of_ours_lives(with_loop: Loop, backend: str) -> None:
    """Which holds copies of all our sockets."""
    with witness() as pipe:

        async def main() -> int:
            runs = [family(pipe) for _ in range(3)]
            await heard(pipe, 12)
            held, go = os.pipe()
            child = os.fork()
            if child == 0:
                os.close(go)
                os.read(held, 1)
                os._exit(0)
            os.close(held)
            kill_server(backend)
            found = await asyncio.gather(*runs, return_exceptions=True)
            os.close(go)
            assert [type(error) for error in found] == [ps.LauncherDiedError] * 3, found
            assert (await aio.run(["echo", "again"])).stdout == b"again\n"
            return child

        os.waitpid(with_loop(main()), 0)


def test_it_is_killed_and_somebody_else_has_the_other_end(with_loop: Loop, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child by os.fork() that another thread has made in the moment of the start: the run's socket does not tell its end."""
    module = __import__(f"proc_sandbox.backends.{'unix.streams' if backend == 'linux' else 'posix.backend'}", fromlist=["*"])
    kind = module.LaunchedRun if backend == "linux" else module.PosixRun
    copies, real = [], kind.hand_over

    def copying(run: Any, theirs: Any, *rest: Any) -> None:
        copies.append(os.dup(theirs.fileno()))
        real(run, theirs, *rest)

    with witness() as pipe:

        async def main() -> None:
            with monkeypatch.context() as patch:
                patch.setattr(kind, "hand_over", copying)
                runs = [family(pipe) for _ in range(2)]
                await heard(pipe, 8)
            kill_server(backend)
            found = await asyncio.gather(*runs, return_exceptions=True)
            assert [type(error) for error in found] == [ps.LauncherDiedError] * 2, found
            for copy in copies:
                os.close(copy)
            pipe.wait_alone()

        with_loop(main())


def test_killed_and_cancelled_at_once(with_loop: Loop, backend: str) -> None:
    with witness() as pipe:

        async def main() -> None:
            runs = [family(pipe) for _ in range(3)]
            await heard(pipe, 12)
            kill_server(backend)
            for run in runs:
                run.cancel()
            await asyncio.wait(runs)
            assert all(run.cancelled() for run in runs)
            pipe.wait_alone()

        with_loop(main())


FORK = """
import asyncio, os, sys
from proc_sandbox import aio
def child():
    pid = os.fork()
    if pid == 0:
        {0}
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
async def main():
    gate, go = os.pipe()
    up, told = os.pipe()
    run = asyncio.ensure_future(aio.run(["sh", "-c", f"echo >&{{told}}; read x <&{{gate}}; echo $x"], pass_fds=[gate, told]))
    came = asyncio.Event()
    asyncio.get_running_loop().add_reader(up, came.set)
    await came.wait()
    asyncio.get_running_loop().remove_reader(up)
    print(child(), flush=True)
    os.write(go, b"parent\\n")
    print((await run).stdout)
asyncio.run(main())
"""


@pytest.mark.parametrize(
    "does",
    [
        "sys.exit(7)",  # unwinds all tasks, which are its parent's
        "asyncio.events._set_running_loop(None); os._exit(asyncio.run(aio.run(['sh', '-c', 'exit 7'])).exit_code)",
    ],
)
def test_forks_harm_no_run_of_their_parent(does: str, backend: str) -> None:
    if backend != "linux" and does.startswith("sys"):
        pytest.skip("asyncio itself: closing its loop, the child takes its parent's out of the epoll instance that both have")
    assert output_of(FORK.format(does), env={"PYTHONWARNINGS": "ignore"}) == "7\nb'parent\\n'\n"


def test_two_loops_in_two_threads(with_loop: Loop) -> None:
    found: list[list[bytes]] = []

    async def many(name: str) -> None:
        results = await asyncio.gather(*(aio.run(["cat"], input=f"{name}{n}") for n in range(10)))
        found.append([bytes(result.stdout) for result in results])

    others = [threading.Thread(target=lambda name=name: asyncio.run(many(name))) for name in "ab"]  # type: ignore[misc]
    for thread in others:
        thread.start()
    with_loop(many("c"))
    for thread in others:
        thread.join()
    assert sorted(found) == [[f"{name}{n}".encode() for n in range(10)] for name in "abc"]


@pytest.mark.parametrize("closed", [True, False])
def test_a_loop_that_is_thrown_away_takes_its_runs_with_it(closed: bool) -> None:
    """Without having cancelled them: they end with their tasks."""
    code = """
import asyncio, gc, os, sys, warnings
from proc_sandbox import aio
warnings.simplefilter("ignore", ResourceWarning)
loop = asyncio.new_event_loop()
loop.run_until_complete(aio.run(["true"]))
before = len(os.listdir("/proc/self/fd"))
up, told = os.pipe()
def begin():
    command = ["sh", "-c", f"echo up >&{told}; sleep 600"]
    return [loop.create_task(aio.run(command, pass_fds=[told])) for _ in range(3)]
tasks = begin()
heard = b""
while heard.count(b"up") < 3:
    loop.call_later(0.01, loop.stop)
    loop.run_forever()
    os.set_blocking(up, False)
    try: heard += os.read(up, 100)
    except BlockingIOError: pass
if sys.argv[1] == "True":
    loop.close()
del tasks
if sys.argv[1] == "False":
    del loop
gc.collect()
os.close(told)
os.set_blocking(up, True)
print(os.read(up, 100), len(os.listdir("/proc/self/fd")) <= before)
"""
    assert output_of(code, str(closed)) == "b'' True\n"


def test_a_task_that_is_thrown_away_while_it_waits_for_the_end(backend: str) -> None:
    """Cancelled, and then the loop is closed before it could be done."""
    code = """
import asyncio, gc, os
from proc_sandbox import aio
loop = asyncio.new_event_loop()
up, told = os.pipe()
async def main():
    task = asyncio.ensure_future(aio.run(["sh", "-c", f"echo up >&{told}; sleep 600"], pass_fds=[told]))
    await asyncio.to_thread(os.read, up, 100)
    task.cancel()
    await asyncio.sleep(0)
    asyncio.get_running_loop().stop()
    await asyncio.Event().wait()
main = loop.create_task(main())
loop.run_forever()
loop.close()
del main
gc.collect()
os.close(told)
print(os.read(up, 100))
"""
    assert output_of(code) == "b''\n"


@pytest.mark.parametrize("moment", ["in the loop", "in a sink"])
def test_a_keyboard_interrupt(moment: str) -> None:
    code = """
import asyncio, os, signal, sys
from proc_sandbox import aio
up, told = os.pipe()
def interrupt():
    os.read(up, 100)
    os.kill(os.getpid(), signal.SIGINT)
class Sink:
    def write(self, data):
        if sys.argv[1] == "in a sink":
            raise KeyboardInterrupt
async def main():
    if sys.argv[1] == "in the loop":
        asyncio.get_running_loop().add_reader(up, interrupt)
    await aio.run(["sh", "-c", f"echo up >&{told}; echo; sleep 600"], pass_fds=[told], stdout=Sink())
try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("interrupted")
os.set_blocking(up, False)
os.close(told)
try:
    while os.read(up, 100): pass
    print("alone")
except BlockingIOError:
    print("not alone")
"""
    assert output_of(code, moment) == "interrupted\nalone\n"


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


# --- Sandbox ---


def test_files_stay_from_run_to_run_and_go_with_the_sandbox(with_loop: Loop) -> None:
    async def main() -> None:
        async with aio.Sandbox(timeout=HANG) as box:
            directory = box.directory
            assert directory is not None
            assert os.path.isdir(directory)
            assert (await box.run(["sh", "-c", "echo 1 > file"])).ok
            assert (await box.run(["cat", "file"], check=True, umask=0o77)).stdout == b"1\n"
        assert not os.path.exists(directory)
        assert box.closed
        await box.cleanup()
        with pytest.raises(ps.SandboxClosedError):
            await box.run(["true"])
        with pytest.raises(ps.SandboxClosedError):
            async with box:
                pass
        with pytest.raises(ps.SandboxClosedError, match="async with"):
            await aio.Sandbox().run(["true"])

    with_loop(main())


def test_a_sandbox_that_was_closed_before_it_was_entered_says_so(with_loop: Loop) -> None:
    async def main() -> None:
        box = aio.Sandbox()
        await box.cleanup()
        with pytest.raises(ps.SandboxClosedError, match="is closed"):
            async with box:
                pass
        with pytest.raises(ps.SandboxClosedError, match="is closed"):
            await box.run(["true"])

    with_loop(main())


def test_files_are_written_and_read_as_those_of_a_sandbox(with_loop: Loop) -> None:
    async def main() -> None:
        box = aio.Sandbox()
        with pytest.raises(ps.SandboxClosedError, match="not open yet"):
            await box.write("file", b"x")
        async with box:
            await box.write("sub/file", "tw\u00f6", mode=0o600)
            assert (await box.run(["stat", "-c", "%a", "sub/file"], text=True)).stdout == "600\n"
            assert await box.read("sub/file") == "tw\u00f6".encode()
            with pytest.raises(OSError, match="large"):
                await box.read("sub/file", max_size=2)
            with pytest.raises(FileNotFoundError):
                await box.read("no-such-file")
            piped = box.cmd(["cat", "sub/file"]) | box.cmd(["tee", "copy"])
            assert (await asyncio.to_thread(piped.run, text=True)).stdout == "tw\u00f6"
            assert await box.read("copy") == "tw\u00f6".encode()
        for ask in (box.read("copy"), box.write("copy", b"")):
            with pytest.raises(ps.SandboxClosedError, match="is closed"):
                await ask
        with pytest.raises(ps.SandboxClosedError, match="is closed"):
            box.cmd(["true"])

    with_loop(main())


def test_the_end_of_the_block_ends_a_pipeline_in_it(with_loop: Loop) -> None:
    with witness() as pipe:

        async def main() -> None:
            async with aio.Sandbox() as box:
                piped = box.cmd(python(FAMILY.format(pipe.write_end)), pass_fds=[pipe.write_end]) | box.cmd(["cat"])
                run = asyncio.ensure_future(asyncio.to_thread(piped.run))
                await heard(pipe, 4)
            assert is_alone(pipe)
            assert (await run).results[0].reason is ps.Reason.CANCELLED

        with_loop(main())


def test_cleanup_waits_for_what_is_written(with_loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """And so does who is cancelled: nobody writes to a directory that is gone."""
    go, found = threading.Event(), list[bool]()

    async def main() -> None:
        loop, begun = asyncio.get_running_loop(), asyncio.Event()

        def slow(self: ps.Sandbox, *arguments: Any, **options: Any) -> None:
            with self.entered():
                loop.call_soon_threadsafe(begun.set)
                assert go.wait(HANG)
                found.append(os.path.isdir(str(self.directory)))

        monkeypatch.setattr(ps.Sandbox, "write", slow)
        async with aio.Sandbox() as box:
            writing = asyncio.ensure_future(box.write("file", b"x"))
            await begun.wait()
            writing.cancel()
            closing = asyncio.ensure_future(box.cleanup())
            for _ in range(10):
                await asyncio.sleep(0)
            assert not writing.done()
            assert not closing.done()
            go.set()
            await closing
            assert found == [True]
            with pytest.raises(asyncio.CancelledError):
                await writing

    with_loop(main())


def test_cleanup_ends_the_runs_which_are_told_as_cancelled(with_loop: Loop) -> None:
    with witness() as pipe:

        async def main() -> None:
            async with aio.Sandbox() as box, aio.limit(3):
                command = python(FAMILY.format(pipe.write_end))
                runs = [asyncio.ensure_future(box.run(command, pass_fds=[pipe.write_end])) for _ in range(4)]
                await heard(pipe, 12)
            assert is_alone(pipe)
            found = await asyncio.gather(*runs, return_exceptions=True)
            assert [result.reason for result in found[:3] if isinstance(result, ps.Result)] == [ps.Reason.CANCELLED] * 3
            assert isinstance(found[3], ps.SandboxClosedError)  # it was not admitted yet

        with_loop(main())


def test_a_cancelled_block_leaves_nothing(with_loop: Loop) -> None:
    with witness() as pipe:
        directories: list[str | None] = []

        async def block() -> None:
            async with aio.Sandbox() as box:
                directories.append(box.directory)
                await box.run(python(FAMILY.format(pipe.write_end)), pass_fds=[pipe.write_end])

        async def main() -> None:
            task = asyncio.ensure_future(block())
            await heard(pipe, 4)
            while not task.done():
                task.cancel()
                await asyncio.sleep(0)
            assert task.cancelled()
            assert is_alone(pipe)
            assert directories[0] is not None
            assert not os.path.exists(directories[0])

        with_loop(main())


def test_a_block_that_is_thrown_away_leaves_nothing() -> None:
    code = """
import asyncio, gc, os
from proc_sandbox import aio
loop = asyncio.new_event_loop()
up, told = os.pipe()
async def block():
    async with aio.Sandbox() as box:
        print(os.path.isdir(box.directory))
        os.environ["BOX"] = box.directory
        await box.run(["sh", "-c", f"touch file; echo up >&{told}; sleep 600"], pass_fds=[told])
async def main():
    task = asyncio.ensure_future(block())
    await asyncio.to_thread(os.read, up, 100)
loop.run_until_complete(main())
loop.close()
gc.collect()
os.close(told)
print(os.read(up, 100), os.path.exists(os.environ["BOX"]))
"""
    assert output_of(code) == "True\nb'' False\n"


# --- where a loop cannot watch descriptors ---


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
                while not run.done():
                    run.cancel()
                    await asyncio.sleep(0)
                assert run.cancelled()
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
