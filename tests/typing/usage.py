"""The interface as users write it: checked by mypy --strict and pyright, never executed. An unused "ignore" is an error too."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import socket
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from concurrent.futures import Executor, Future
from datetime import timedelta
from pathlib import Path
from typing import BinaryIO, TextIO

from typing_extensions import assert_type

import proc_sandbox as ps
from proc_sandbox import aio

result: ps.Result = ps.run(["ls", Path("/"), b"x"], timeout=timedelta(seconds=1), memory_limit="64M", env={"A": "1"})
code: int | None = result.exit_code
text: str = result.stdout.text()
raw: bytes = result.stdout
how: Mapping[str, ps.Enforced | ps.Unenforced] = result.enforcement
assert_type(ps.run(["true"]), ps.Result[ps.Output])
assert_type(ps.run(["true"], text=False).stdout, ps.Output)
assert_type(ps.run(["true"], text=None).check().stderr, ps.Output)
assert_type(ps.run(["true"], text=True), ps.Result[str])
assert_type(ps.run(["true"], text=True, input="x", errors="strict", timeout=5).check().stdout, str)
assert_type(ps.run(["true"], encoding="latin-1", input=b"x").stdout, str)


def either(wanted: bool, bare: ps.Result, words: ps.Result[str]) -> ps.Result[ps.Output | str]:
    """A flag that only the program knows; a Result without a parameter; and one that may be of either kind."""
    some = ps.run(["true"], text=wanted)
    length: int = len(some.stdout)
    assert_type(bare.stdout.text(), str)
    assert_type(words.stdout.splitlines(), list[str])
    return bare if length else words


with ps.Sandbox(ps.Config(cpu_limit=50), network_access="loopback", enforcement=ps.best_effort("cpu_limit")) as box:
    again: ps.Result = box.run(("true",), check=True, stdin=b"x", pass_fds=[3])
    box.write("main.c", "int main(){return 0;}", mode=0o600)
    kept: bytes = box.read(Path("main"), max_size="1M")
    alone: ps.Result = box.cmd(["true"], timeout=1).run(check=True)
    joined: ps.PipelineResult = (box.cmd(["true"]) | ps.cmd(["true"], ps.Config(), timeout=5) | ps.cmd(("true",))).run(input="x")
    assert_type(joined.stdout, ps.Output)
    words = (box.cmd(["true"]) | ps.cmd(["true"])).run(text=True, check=True)
    assert_type(words, ps.PipelineResult[str])
    assert_type(words.check().stderr, tuple[str, ...])
    assert_type(ps.cmd(["true"]).run(encoding="utf-8", input="x"), ps.Result[str])
    assert_type(box.run(["true"]), ps.Result[ps.Output])
    assert_type(box.run(["true"], text=True, check=True), ps.Result[str])
    assert_type(box.run(["true"], encoding="utf-8", timeout=5).stderr, str)
    with box.popen(["true"], text=True, stdin=ps.PIPE, timeout=5) as inside:
        assert_type(inside, ps.Popen[str])
    assert_type(box.popen(["true"], config=ps.Config()), ps.Popen[bytes])
    box.popen(["true"], timout=5)  # type: ignore[call-overload]
with ps.Popen(["cat"], stdin=ps.PIPE, stdout=ps.PIPE) as process:
    assert_type(process.communicate(b"x", timeout=1)[0], bytes | None)
    assert_type(process.wait(), ps.Result[ps.Output])
with ps.Popen(["cat"], encoding="utf-8", config=ps.Config(), bufsize=1) as spoken:
    assert_type(spoken.communicate("x")[0], str | None)
    assert_type(spoken.wait().stdout, str)
    assert_type(spoken.result(), ps.Result[str])
    assert_type(spoken.poll(), int | None)
ps.Popen(["true"], timout=5)  # type: ignore[call-overload]
for event in ps.stream(["true"], input="x", sandbox=box, timeout=5):
    if isinstance(event, ps.Exited):
        assert_type(event.result, ps.Result[ps.Output])
    elif isinstance(event, ps.Started):
        assert_type(event.pid, int)
    else:
        assert_type(event, ps.Output)
ps.stream(["true"]).close()
with ps.SandboxExecutor(ps.Config(), max_workers=2, timeout=5) as pool:
    future: Future[ps.Result] = pool.submit(["true"], input=b"x", check=True, memory_limit="64M")
    mapped: Iterator[ps.Result] = pool.map([["true"], ps.Job(["true"], timeout=1)], buffersize=3)
    any_executor: Executor = pool
    assert_type(pool.submit(["true"], text=True), Future[ps.Result[str]])
    assert_type(pool.submit(["true"], encoding="latin-1", timeout=1).result().stderr, str)
    assert_type(pool.map([["true"]], text=True, timeout=5), Iterator[ps.Result[str]])
    assert_type(pool.map([ps.Job(["true"], text=True)]), Iterator[ps.Result[str]])
many: list[ps.Result] = ps.run_many([["true"], ps.Job(["cat"], input="x")], progress=False, timeout=5)
some: list[ps.Result | ps.SandboxError] = ps.run_many([["true"]], return_exceptions=True)
assert_type(ps.run_many([["true"], ps.Job(["cat"])], text=True, timeout=5), list[ps.Result[str]])
assert_type(ps.run_many([["true"]], encoding="utf-8")[0].stdout, str)
assert_type(ps.run_many([["true"]], text=True, return_exceptions=True), list[ps.Result[str] | ps.SandboxError])
assert_type(ps.Job(["true"], text=True), ps.Job[str])
assert_type(ps.Job(["true"]), ps.Job[ps.Output])
assert_type(ps.run_many([ps.Job(["true"], text=True), ps.Job(["true"], encoding="utf-8")]), list[ps.Result[str]])
try:
    ps.run(["false"], check=True, text=True)
except ps.ExecutionError as error:
    assert_type(error.result.reason, ps.Reason)
plan: ps.Plan = ps.plan(["true"], config=ps.Config(), writable_dirs=[Path("out")])

portable: ps.Plan = ps.plan(["true"], backend="posix")
offered: ps.Capabilities = ps.capabilities(backend="windows")



class Reader:
    """Has input in pieces."""

    def read(self, size: int) -> bytes:
        """Return one."""
        return b"x" * size


class AsyncReader:
    """Has input in pieces, to be awaited."""

    async def read(self, size: int) -> str:
        """Return one."""
        return "x" * size


class Writer:
    """Takes output."""

    async def write(self, data: bytes) -> None:
        """Take a piece."""
        del data


def streams(file: BinaryIO, words: TextIO, pipe: socket.socket, writer: asyncio.StreamWriter) -> None:
    """All that a stream can be."""
    for source in (None, ps.PIPE, ps.INHERIT, 3, "path", Path("path"), b"x", bytearray(b"x"), file, words, io.StringIO("x"), pipe, Reader()):
        ps.run(["true"], stdin=source)
    lines: list[bytes] = []
    for target in ("path", Path("path"), 3, file, words, io.BytesIO(), pipe, lines.append, hashlib.sha256().update, Writer(), writer):
        ps.run(["true"], stdout=target, stderr=ps.Tee(target, "path"))
    with tempfile.TemporaryFile() as kept:
        ps.Config(stdin=kept, stdout=kept, stderr=ps.STDOUT)
    ps.Popen(["true"], stdin=ps.PIPE, stdout=ps.DEVNULL, stderr=None)
    ps.run(["true"], stdin=len)  # type: ignore[call-overload]
    ps.run(["true"], stdin=["a line"])  # type: ignore[call-overload]
    ps.run(["true"], stdin=ps.Tee("path"))  # type: ignore[call-overload]
    ps.run(["true"], stdin=Writer())  # type: ignore[call-overload]
    ps.run(["true"], stdout=b"path")  # type: ignore[call-overload]
    ps.run(["true"], stdout=1.5)  # type: ignore[call-overload]
    ps.run(["true"], stderr=Reader())  # type: ignore[call-overload]
    ps.run(["true"], stderr=Path.mkdir)  # type: ignore[arg-type]
    ps.Config(stdout=["path"])  # type: ignore[arg-type]
    ps.Config().replace(stderr=object())  # type: ignore[arg-type]
    ps.Popen(["true"], stdout=lambda: None)  # type: ignore[arg-type]
    ps.Tee("path", None)  # type: ignore[arg-type]
    ps.Tee(ps.Tee("path"))  # type: ignore[arg-type]


ps.run(["true"], timout=5)  # type: ignore[call-overload]
ps.run(["true"], timeout=[1])  # type: ignore[call-overload]
ps.run(["true"], network_access="maybe")  # type: ignore[call-overload]
ps.run(["true"], text="yes")  # type: ignore[call-overload]
ps.run(["true"], text=True).stdout.decode()  # type: ignore[attr-defined]
ps.Config(text=True)  # type: ignore[call-arg]
ps.Config(enforcement="lenient")  # type: ignore[arg-type]
ps.Config(backend="qnx")  # type: ignore[arg-type]
ps.capabilities(backend="qnx")  # type: ignore[arg-type]
ps.SandboxExecutor().submit(len, "x")  # type: ignore[call-overload]
ps.cmd(["true"], timout=5)  # type: ignore[call-arg]
ps.Job(["true"], timout=5)  # type: ignore[call-overload]
ps.run_many([["true"]], text="yes")  # type: ignore[call-overload]
ps.cmd(["true"]).run(text="yes")  # type: ignore[call-overload]


async def awaited() -> None:
    """The same, awaited."""

    async def pieces() -> AsyncIterator[bytes]:
        yield b""

    async def lines() -> AsyncIterator[str]:
        yield ""

    one: ps.Result = await aio.run(["ls"], input=pieces(), timeout="5s", check=True)
    del one
    sources: list[aio.Input] = ["x", b"x", pieces(), lines(), asyncio.StreamReader(), AsyncReader()]
    for source in sources:
        await aio.run(["cat"], input=source, text=True)
        aio.stream(["cat"], input=source)
    await aio.run(["cat"], stdin=AsyncReader())
    kept: aio.AsyncReadable = AsyncReader()
    del kept
    async with aio.limit(8, "compilers"), aio.Sandbox(ps.Config(), umask=0o77) as room:
        again: ps.Result = await room.run(["true"], stdin=asyncio.StreamReader())
        del again
        assert_type(await room.run(["true"]), ps.Result[ps.Output])
        await room.write(Path("file"), "x", mode=0o600)
        assert_type(await room.read("file", max_size="1M"), bytes)
        assert_type(room.cmd(["true"], timeout=1) | ps.cmd(["true"]), ps.Pipeline)
        assert_type(await room.run(["true"], text=True, check=True), ps.Result[str])
        async with room.popen(["cat"], stdin=ps.PIPE) as handle, aio.Popen(["cat"], sandbox=room) as other:
            assert_type((handle, other), tuple[aio.Popen, aio.Popen])
        async for happening in aio.stream(["true"], sandbox=room, timeout=5):
            assert_type(happening, ps.Started | ps.Output | ps.Exited)
        async with contextlib.aclosing(aio.stream(["true"], input=pieces())) as happenings:
            assert_type(happenings, AsyncGenerator[ps.Started | ps.Output | ps.Exited, None])
            assert_type(await anext(happenings), ps.Started | ps.Output | ps.Exited)
        started = await room.popen(["cat"], limit=1 << 20)
        assert_type(started, aio.Popen)
        assert_type(await aio.Popen(["cat"], stdin=ps.PIPE, config=ps.Config(), timeout=5).start(), aio.Popen)
        async with started:
            assert_type((started.pid, started.poll(), started.returncode), tuple[int | None, int | None, int | None])
            assert_type((started.stdin, started.stdout), tuple[asyncio.StreamWriter | None, asyncio.StreamReader | None])
            assert_type(await started.communicate(b"x"), tuple[bytes | None, bytes | None])
            assert_type(await started.wait(), ps.Result[ps.Output])
            assert_type(await started.result(), ps.Result[ps.Output])
            assert_type(await started.usage(), ps.LiveUsage)
    aio.Popen(["true"], sandbox=ps.Sandbox())  # type: ignore[arg-type]
    await aio.run(["true"], timout=5)  # type: ignore[call-overload]
    await aio.run(["true"], input=5)  # type: ignore[call-overload]
    await aio.run(["true"], input=Reader())  # type: ignore[call-overload]
    aio.Popen(["true"], timout=5)  # type: ignore[call-arg]
    aio.Popen(["true"], limit="1M")  # type: ignore[arg-type]
    aio.stream(["true"], timout=5)  # type: ignore[call-arg]
    aio.stream(["true"], input=5)  # type: ignore[arg-type]
