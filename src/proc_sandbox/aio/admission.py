"""How many runs are under way at a time: gates, at which they are admitted in the order in which they came."""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from collections.abc import Callable, Hashable
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType

from proc_sandbox.errors import ConfigError

__all__ = ["Gate", "Limit", "gate", "limit", "limits_around"]


class Gate:
    """Lets in so many at a time, of one event loop; the others wait in the order in which they came."""

    def __init__(self, loop: asyncio.AbstractEventLoop, size: Callable[[], float]) -> None:
        self.loop = loop
        self.size = size
        self.inside = 0
        self.queue: deque[asyncio.Future[None]] = deque()

    async def enter(self) -> None:
        """Wait for a place and take it; to be given back by leave()."""
        if not self.queue and self.inside < self.size():
            self.inside += 1
            return
        turn = self.loop.create_future()
        self.queue.append(turn)
        try:
            await turn
        except BaseException:
            if turn.done() and not turn.cancelled():  # let in and cancelled in the same round
                self.leave()
            elif turn in self.queue:
                self.queue.remove(turn)
            raise

    def leave(self) -> None:
        """Give a place back."""
        self.inside -= 1
        while self.queue and self.inside < self.size() and not self.loop.is_closed():
            turn = self.queue.popleft()
            if not turn.cancelled():
                self.inside += 1
                turn.set_result(None)


    def leave_soon(self) -> None:
        """Give it back when the loop has done what else it has to do now."""
        if self.loop.is_closed():
            self.leave()
        else:
            self.loop.call_soon(self.leave)


gates: weakref.WeakValueDictionary[Hashable, Gate] = weakref.WeakValueDictionary()
"""By loop and purpose; there as long as somebody is inside or waits. A gate keeps its loop alive, and by that the loop's id its own."""


def gate(purpose: Hashable, size: Callable[[], float]) -> Gate:
    """Return the running loop's gate for a purpose."""
    loop = asyncio.get_running_loop()
    key = id(loop), purpose
    found = gates.get(key)
    if found is None:
        found = gates[key] = Gate(loop, size)
    return found


@dataclass(frozen=True)
class Limit:
    """What limit() returns."""

    n: int
    name: str

    async def __aenter__(self) -> Limit:
        around.set((*around.get(), self))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        left = list(around.get())
        if self in left:
            left.reverse()
            left.remove(self)
            around.set(tuple(reversed(left)))


around: ContextVar[tuple[Limit, ...]] = ContextVar("proc_sandbox.aio.limits", default=())


def limit(n: int, name: str = "") -> Limit:
    """Bound how many runs are under way at a time: of those that begin in the block, and in tasks that are made in it.

        async with aio.limit(64):
            results = await asyncio.gather(*(aio.run(command) for command in commands))

    Entering never waits; each run does, before anything of it is started, in the order in which they came. asyncio.timeout() counts
    that time, the Config's timeout does not. Who is cancelled while waiting leaves the queue.

    A limit is what its n and name are: all blocks with limit(64) in one event loop share the same 64 places, whoever enters them, as
    often as they like. So a request handler may say it anew for each request. Give limits different names that are to count
    apart; a library should always give one, or it shares its places with whoever else says that number. Where blocks are nested in one another a run needs a place of each, and of the same limit one only.

    A run keeps its places until nothing of it is left. One that can only end when another one has begun - its output's consumer runs
    commands - should have a limit of another name, or both may wait for ever.

    Raises:
        ConfigError: n is not a whole number from 1.
    """
    if not isinstance(n, int) or isinstance(n, bool) or n < 1:
        raise ConfigError("limit", n, "must be a whole number from 1: how many runs may be under way")
    if not isinstance(name, str):
        raise ConfigError("name", name, "must be a str")
    return Limit(n, name)


def limits_around() -> list[Limit]:
    """Return the limits around us, each once: in one order for all, so that no two runs wait for each other's places."""
    return sorted(set(around.get()), key=lambda each: (each.n, each.name))
