"""The bar on stderr that tells how far many runs are."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator

__all__ = ["bar"]


@contextlib.contextmanager
def bar(total: int | None, *, colour: bool = True, transient: bool = False) -> Iterator[Callable[[bool], object]]:
    """Show a bar; yield what is called when one more is done, from any thread, with whether it is ok.

    total: None: not known. colour: where the terminal has them, and NO_COLOR is not set. transient: it goes when all is done.
    """
    # To import it takes long.
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[bad]} not ok"), TimeElapsedColumn(), TimeRemainingColumn())
    console = Console(file=sys.stderr, color_system="auto" if colour else None, highlight=False)
    # The caller's own sys.stdout and sys.stderr stay what they are.
    with Progress(*columns, console=console, transient=transient, redirect_stdout=False, redirect_stderr=False) as shown:
        task = shown.add_task("", total=total, bad=0)
        lock, bad = threading.RLock(), 0  # a signal handler may end a run while its own thread counts another

        def count(ok: bool) -> None:
            nonlocal bad
            with lock:
                bad += not ok
                shown.update(task, advance=1, bad=bad)

        yield count
