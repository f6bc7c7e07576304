"""The interface as users write it: checked by mypy --strict, never executed. An unused "ignore" is an error too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from pathlib import Path

import proc_sandbox as ps
from proc_sandbox import aio

result: ps.Result = ps.run(["ls", Path("/"), b"x"], timeout=timedelta(seconds=1), memory_limit="64M", env={"A": "1"})
code: int | None = result.exit_code
text: str = result.stdout.text()
raw: bytes = result.stdout
how: Mapping[str, ps.Enforced | ps.Unenforced] = result.enforcement
with ps.Sandbox(ps.Config(cpu_limit=50), network_access="loopback", enforcement=ps.best_effort("cpu_limit")) as box:
    again: ps.Result = box.run(("true",), check=True, stdin=b"x", pass_fds=[3])
plan: ps.Plan = ps.plan(["true"], config=ps.Config(), writable_dirs=[Path("out")])

portable: ps.Plan = ps.plan(["true"], backend="posix")
offered: ps.Capabilities = ps.capabilities(backend="windows")

ps.run(["true"], timout=5)  # type: ignore[call-arg]
ps.run(["true"], timeout=[1])  # type: ignore[arg-type]
ps.run(["true"], network_access="maybe")  # type: ignore[arg-type]
ps.Config(enforcement="lenient")  # type: ignore[arg-type]
ps.Config(backend="qnx")  # type: ignore[arg-type]
ps.capabilities(backend="qnx")  # type: ignore[arg-type]


async def awaited() -> None:
    """The same, awaited."""

    async def pieces() -> AsyncIterator[bytes]:
        yield b""

    one: ps.Result = await aio.run(["ls"], input=pieces(), timeout="5s", check=True)
    del one
    async with aio.limit(8, "compilers"), aio.Sandbox(ps.Config(), umask=0o77) as room:
        again: ps.Result = await room.run(["true"], stdin=asyncio.StreamReader())
        del again
    await aio.run(["true"], timout=5)  # type: ignore[call-arg]
    await aio.run(["true"], input=5)  # type: ignore[arg-type]
