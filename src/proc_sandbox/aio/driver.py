"""What every driver of an awaited run can do, whoever moves the bytes."""

from __future__ import annotations

import asyncio
from typing import Protocol

from proc_sandbox.config import Config
from proc_sandbox.execution import Execution
from proc_sandbox.report import Ended, Failed

__all__ = ["Driver"]


class Driver(Protocol):
    """Moves one run's bytes.

    Attributes: config and data, with which the run is to be started; opens_files: opening its streams may block; owner: the process
    that made it; news, set when something was told of a held run that goes on.
    """

    config: Config
    data: bytes | None
    opens_files: bool
    owner: int
    news: asyncio.Event

    async def communicate(self, one: Execution) -> Ended | Failed:
        """Move bytes both ways until the run has ended, then take what the pipes still hold; return its outcome.

        Raises:
            LauncherDiedError: what serves the run has died, and the run with it. And what a stream of the caller's has raised.
        """
        ...

    async def finish(self) -> bool:
        """End the run if it has not ended, and wait for that, however often the task is cancelled meanwhile; return whether nothing
        is to be waited for when it is closed.

        Raises:
            CancelledError: it was.
        """
        ...

    def abandon(self) -> None:
        """End the run, or in a child by os.fork() let go of it: nothing can be awaited any more."""
