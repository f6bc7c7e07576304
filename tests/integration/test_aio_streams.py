"""Streams of runs in an event loop: awaited, and never asked for more than is taken."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import io
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from support.loops import FAMILY, Loop, Sink, is_alone, pieces_of
from support.processes import witness
from support.programs import HANG, MEGABYTE, python

import proc_sandbox as ps
from proc_sandbox import aio

EVERY_BACKEND = True


def test_megabytes_both_ways(with_loop: Loop) -> None:
    data = os.urandom(5 * MEGABYTE)
    assert with_loop(aio.run(["cat"], input=data)).stdout == data


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
