"""Whether a run costs a grown caller more: memory, threads, descriptors, mounts on the host."""

from __future__ import annotations

import functools
import os
import shutil
import statistics
from typing import TYPE_CHECKING, NamedTuple

from bench.caller import Caller
from bench.machine import available_memory
from bench.measure import interleave
from bench.table import Bar, Effort, Section, Table, ms

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["section"]

GIB = 1 << 30
ABOUT = """\
One run of `/bin/true` by two calling processes that take turns: a small one (some 25 MiB, one thread, few
descriptors, no mounts added) and one that is grown in one respect, in small pages where that is memory. Milliseconds
are medians; the ratio is grown : small. The mounts are made in a mount namespace of the benchmark's own.

    python -m bench independence"""


class Pair(NamedTuple):
    """One respect in which a caller is grown."""

    what: str
    grown: tuple[str, ...]
    own_mounts: bool = False


def pairs(effort: Effort) -> Iterator[Pair]:
    """Yield what is tried."""
    size = min(effort.of(8, 1) * GIB, available_memory() // 2)
    yield Pair("nothing (the method's own error)", ())
    yield Pair(f"{size / GIB:.1f} GiB resident", ("--memory", str(size)))
    yield Pair("64 threads", ("--threads", "64"))
    yield Pair("5,000 descriptors", ("--descriptors", "5000"))
    yield Pair("2,000 mounts more", ("--mounts", "2000"), own_mounts=True)


def compared(pair: Pair, rounds: int) -> dict[str, tuple[float, float]]:
    """Return the medians of the small and of the grown caller, by variant.

    Raises:
        RuntimeError: such a caller cannot be had.
    """
    with Caller(own_mounts=pair.own_mounts) as small, Caller(pair.grown, own_mounts=pair.own_mounts) as grown:
        callers = {"small": small, "grown": grown}
        found = interleave(
            {
                f"{which}|{name}": functools.partial(caller.run, name)
                for name in small.names
                for which, caller in callers.items()
            },
            rounds,
        )
        medians = {name: statistics.median(values) for name, values in found.items()}
    return {name: (medians[f"small|{name}"], medians[f"grown|{name}"]) for name in small.names}


def section(effort: Effort) -> Section:
    """Measure and return what there is to say."""
    rows, bars, notes = [], [], []
    for pair in pairs(effort):
        if pair.own_mounts and (os.geteuid() or not shutil.which("unshare")):
            notes.append(
                f"not measured: {pair.what}: needs root and unshare(1), to make them in a namespace of their own"
            )
            continue
        try:
            found = compared(pair, effort.of(150, 30))
        except RuntimeError as error:
            notes.append(f"not measured: {pair.what}: {error}")
            continue
        for name, (small, grown) in found.items():
            rows.append((f"{pair.what}: {name}", ms(small), ms(grown), f"{grown / small:.2f}"))
            if name.startswith("ps.run") and pair.grown:
                bars.append(Bar(f"{name}: {pair.what} : small caller", grown / small, 1.1))
    table = Table(("grown by: variant", "small, ms", "grown, ms", "grown : small"), rows)
    return Section("independence", "Independence of the caller's size", ABOUT, [table], bars, notes)
