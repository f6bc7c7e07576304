"""The inside of an aio.Sandbox: its directory, and the runs in it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

from proc_sandbox import sandbox
from proc_sandbox.aio.apart import apart, patiently
from proc_sandbox.config import Config
from proc_sandbox.errors import SandboxClosedError

if TYPE_CHECKING:
    from proc_sandbox.backends.protocol import Run

__all__ = ["Guest", "Room"]


class Room:
    """Where runs are, until they are ended by who closes it.

    Attributes: config; closed; box, which has the directory, None as long as it is not open; guests, the runs.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.closed = False
        self.owner = os.getpid()
        self.box: sandbox.Sandbox | None = None
        self.guests: set[Guest] = set()
        self.empty = asyncio.Event()
        self.empty.set()

    @property
    def directory(self) -> str | None:
        """Where the private directory lies on the host; None without one."""
        return self.box.directory if self.box is not None else None

    async def open(self) -> None:
        """Make the directory.

        Raises:
            SandboxClosedError: it was closed.
        """
        self.check_not_closed()
        self.loop = asyncio.get_running_loop()
        if self.box is None:
            self.box = await apart(lambda: sandbox.Sandbox(self.config), sandbox.Sandbox.cleanup)

    def opened(self) -> sandbox.Sandbox:
        """Return what has the directory.

        Raises:
            SandboxClosedError: it is not open.
        """
        self.check_not_closed()
        if self.box is None:
            raise SandboxClosedError("this Sandbox is not open yet: async with aio.Sandbox(...) as box")
        return self.box

    def check_not_closed(self) -> None:
        if self.closed:
            raise SandboxClosedError("this Sandbox is closed; make a new one")

    async def close(self) -> None:
        """End the runs, and when they are over remove the directory; see Sandbox.cleanup()."""
        self.closed = True
        if os.getpid() != self.owner:
            return
        for guest in self.guests:
            if guest.end is not None:
                guest.end()
        late: asyncio.CancelledError | None = None
        try:
            await patiently(self.empty)
        except asyncio.CancelledError as error:
            late = error
        if self.box is not None:
            await apart(self.box.cleanup)
        if late is not None:
            raise late

    def abandon(self) -> None:
        """Close it here and now: the task is thrown away, and nothing can be awaited."""
        self.closed = True
        if self.box is not None and os.getpid() == self.owner:
            for guest in self.guests:
                if guest.run is not None:
                    guest.run.kill()
            self.box.cleanup()


class Guest:
    """A run in a Sandbox's directory, or in none."""

    def __init__(self, room: Room | None) -> None:
        self.room = room
        self.run: Run[Any] | None = None
        self.end: Callable[[], object] | None = None
        self.directory: str | None = None

    def __enter__(self) -> Guest:
        if self.room is not None:
            self.directory = self.room.opened().directory
            self.room.guests.add(self)
            self.room.empty.clear()
        return self

    def hold(self, run: Run[Any], end: Callable[[], object] | None = None) -> None:
        """Have the run that has begun ended by cleanup(), at once if that has been called meanwhile. end: default: it is killed."""
        self.run, self.end = run, end or run.kill
        if self.room is not None and self.room.closed:
            self.end()

    def let_go(self) -> None:
        """There is nothing to be ended any more, but to be waited for."""
        self.run = self.end = None

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()

    def leave(self) -> None:
        """Tell who waits in cleanup() that the run is over; harmless when done twice."""
        if self.room is not None:
            self.room.guests.discard(self)
            if not self.room.guests and not self.room.loop.is_closed():
                self.room.empty.set()
