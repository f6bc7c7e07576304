"""The names of the package, awaitable: for asyncio and what drives its tasks (uvloop, anyio on asyncio).

    from proc_sandbox import aio

    result = await aio.run(["python3", "untrusted.py"], timeout=5)

The event loop itself moves the run's bytes and hears of its end: no thread waits for it, and a slow reader or writer of the caller's
slows the command down. A task that is cancelled kills its run's whole tree, waits until nothing is left of it, however often it is
cancelled meanwhile, and is cancelled then; so asyncio.timeout() and asyncio.wait_for() do the right thing. The Config's own timeout
is a Result, as ever.

A short-lived thread does what may block: what the first run has to wait for; starts of runs whose streams are named by paths, and
all starts on the POSIX backend; a Sandbox's making and removal; each read() from a file object that is neither a descriptor nor in
memory. On Windows, whose default loop can watch no run, a thread waits for each; else nothing is different there.
"""

from __future__ import annotations

from proc_sandbox.aio.admission import Limit, limit
from proc_sandbox.aio.calls import run
from proc_sandbox.aio.handle import Popen, stream
from proc_sandbox.aio.pieces import AsyncReadable, Input
from proc_sandbox.aio.sandbox import Sandbox

__all__ = ["AsyncReadable", "Input", "Limit", "Popen", "Sandbox", "limit", "run", "stream"]


def __dir__() -> list[str]:
    return __all__
