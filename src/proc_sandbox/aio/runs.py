"""What every awaited run goes through: admitted, started, ended."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING

from proc_sandbox.aio.admission import Gate, gate, limits_around
from proc_sandbox.aio.apart import apart
from proc_sandbox.aio.driver import Driver
from proc_sandbox.backends import get_ready, is_ready
from proc_sandbox.config import Config
from proc_sandbox.execution import Args, Execution
from proc_sandbox.later import load

if TYPE_CHECKING:
    from proc_sandbox.aio.pieces import Input
    from proc_sandbox.text import Decoding

if sys.platform == "win32":
    from proc_sandbox.aio.threads import ThreadDriver as PlainDriver
    from proc_sandbox.aio.threads import most_runs
else:
    from proc_sandbox.aio.descriptors import DescriptorDriver as PlainDriver
    from proc_sandbox.aio.descriptors import most_runs

__all__ = ["abandon", "driver_for", "end", "start", "take"]


def driver_for(config: Config, given: Input | None, how: Decoding | None = None) -> Driver:
    """Return what moves the bytes of a run. how: in which encoding is input that is text."""
    if sys.platform != "win32" and config.pty:  # there the planner says that there are no terminals
        made: Driver = load("proc_sandbox.aio.terminal", "TerminalDriver", globals())(config, given, how)
        return made
    return PlainDriver(config, given, how)


async def take(places: list[Gate]) -> None:
    """Take a place at every gate that this run has to pass."""
    for found in limits_around():
        await enter(gate(found, lambda n=found.n: n), places)  # type: ignore[misc]
    await enter(gate("loop", most_runs), places)


async def enter(place: Gate, places: list[Gate]) -> None:
    await place.enter()
    places.append(place)


async def start(command: Args, driver: Driver, private: str | None, *, held: bool = False) -> Execution:
    """Start a run: here, if that is soon done; then the loop has its turn before the next one is started."""

    def begin() -> Execution:
        return Execution(command, driver.config, data=driver.data, private=private, held=held)

    turn = gate("start", lambda: 1)
    await turn.enter()
    try:
        ready = is_ready(driver.config)
        if not ready:
            await apart(lambda: get_ready(driver.config))
            ready = is_ready(driver.config)
        if ready and not driver.opens_files:
            return begin()
    finally:
        turn.leave_soon()
    return await apart(begin, Execution.close)


async def end(one: Execution, driver: Driver) -> None:
    """End a run if it has not ended; returns when nothing of it is left, however often the task is cancelled meanwhile."""
    if os.getpid() != driver.owner:  # a child by os.fork(), to which the run does not belong
        abandon(one, driver)
        return
    late: asyncio.CancelledError | None = None
    at_once = False
    try:
        at_once = await driver.finish()
    except asyncio.CancelledError as error:
        late = error
    except BaseException:  # the task is thrown away, or interrupted
        abandon(one, driver)
        raise
    if at_once and one.place is None:
        one.close()
    else:
        await apart(one.close)
    if late is not None:
        raise late


def abandon(one: Execution, driver: Driver) -> None:
    """End a run here and now, without the loop."""
    driver.abandon()
    one.close()
