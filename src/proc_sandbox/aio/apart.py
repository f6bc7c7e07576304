"""What may block, in a thread of its own; and waiting that outlasts cancellation.

Threads of the loop's own executor would not do: they are few, others use them, and asyncio.run() and the interpreter's exit wait for
them. Ours are daemons.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import itertools
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Apart", "apart", "patiently"]

T = TypeVar("T")


class Apart(Generic[T]):
    """One call in a thread of its own, with the context variables of here.

    Attributes: done, set when it has returned; error, what it has raised.
    """

    def __init__(
        self, call: Callable[[], T], undo: Callable[[T], object] | None = None, then: Callable[[], object] | None = None
    ) -> None:
        """Begin the call.

        undo: what is done with its value if nobody waits for it any more; then: called in the loop when it has returned.
        """
        self.loop = asyncio.get_running_loop()
        self.done = asyncio.Event()
        self.error: BaseException | None = None
        self.value: T
        self.call, self.undo, self.then = call, undo, then
        self.leaving = itertools.count()  # the thread and who waits: the second of both to leave undoes, and next() is atomic
        context = contextvars.copy_context()
        self.thread = threading.Thread(target=context.run, args=(self.work,), name="proc-sandbox-apart", daemon=True)
        self.thread.start()

    def work(self) -> None:
        try:
            self.value = self.call()
        except BaseException as error:  # noqa: BLE001 - raised where the call is waited for
            self.error = error
        if next(self.leaving):
            self.take_back()
        else:
            with contextlib.suppress(RuntimeError):  # the loop is closed: who waited there is thrown away, and undoes
                self.loop.call_soon_threadsafe(self.finish)

    def finish(self) -> None:
        self.done.set()
        if self.then is not None:
            self.then()

    def abandon(self) -> None:
        """Wait no more."""
        if next(self.leaving):
            self.take_back()

    def take_back(self) -> None:
        if self.error is None and self.undo is not None:
            self.undo(self.value)

    def result(self) -> T:
        """Return what the call has returned, or raise what it has raised."""
        if self.error is None:
            return self.value
        error, self.error = self.error, None
        try:
            raise error
        finally:
            del error  # which refers to this frame


async def apart(call: Callable[[], T], undo: Callable[[T], object] | None = None) -> T:
    """Do a call in a thread, and return what it returns. A task that is cancelled meanwhile waits for its end all the same, has
    undone what it has returned, and is cancelled then.
    """
    job = Apart(call, undo)
    try:
        await patiently(job.done)
    except asyncio.CancelledError:
        if undo is not None and job.error is None:
            await apart(job.take_back)
        raise
    except BaseException:  # the task is thrown away, or interrupted
        job.abandon()
        raise
    return job.result()


async def patiently(event: asyncio.Event) -> None:
    """Wait for an event however often the task is cancelled meanwhile.

    Raises:
        CancelledError: it was, and now the event has come.
    """
    late: asyncio.CancelledError | None = None
    while not event.is_set():
        try:
            await event.wait()
        except asyncio.CancelledError as error:
            late = error
    if late is not None:
        try:
            raise late
        finally:
            del late  # which refers to this frame
