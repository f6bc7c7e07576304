"""How many runs a second many threads of one process get."""

from __future__ import annotations

import functools
import statistics
import threading
import time
from typing import TYPE_CHECKING

from bench.latency import BASE, bare, by_peer, ours
from bench.measure import interleave
from bench.ours import TRUE, configs
from bench.peers import missing_notes, usable
from bench.table import Bar, Effort, Section, Table

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["per_second", "section"]

THREADS = (1, 8, 16)
COMPARED = ("bwrap", "sandlock")
ABOUT = """\
Threads of one Python process that run `/bin/true` again and again: runs a second, of all threads together. The
variants take turns by slices of time; the medians of the slices are given.

    python -m bench throughput"""


def per_second(call: Callable[[], bool], threads: int, seconds: float) -> float:
    """Return how many calls a second that many threads make.

    Raises:
        RuntimeError: one failed.
    """
    counts = [0] * threads
    failures: list[str] = []
    together = threading.Barrier(threads + 1)
    end = 0.0

    def work(place: int) -> None:
        together.wait()
        while time.perf_counter() < end and not failures:
            try:
                worked = call()
            except Exception as error:  # noqa: BLE001  (told below, in the thread that asked)
                failures.append(repr(error))
                return
            if not worked:
                failures.append("a run failed")
            counts[place] += 1

    workers = [threading.Thread(target=work, args=(place,)) for place in range(threads)]
    for worker in workers:
        worker.start()
    begin = time.perf_counter()
    end = begin + seconds
    together.wait()
    for worker in workers:
        worker.join()
    elapsed = time.perf_counter() - begin
    if failures:
        raise RuntimeError(failures[0])
    return sum(counts) / elapsed


def section(effort: Effort) -> Section:
    """Measure and return what there is to say."""
    rows, bars = [], []
    names: list[str] = []
    with usable() as (peers, missing):
        shown = {name: why for name, why in missing.items() if name in COMPARED}
        for threads in THREADS:
            calls: dict[str, Callable[[], bool]] = {BASE: functools.partial(bare, TRUE)}
            mine = {name: functools.partial(ours, TRUE, config) for name, config in configs(ahead=threads).items()}
            calls.update(mine)
            calls.update({peer.name: functools.partial(by_peer, peer, TRUE) for peer in peers if peer.name in COMPARED})
            slice_of = 0.4 if effort.quick else 1.0
            found = interleave(
                {name: functools.partial(per_second, call, threads, slice_of) for name, call in calls.items()},
                effort.of(8, 3),
                warm_up=1,
            )
            rates = {name: statistics.median(values) for name, values in found.items()}
            names = list(rates)
            rows.append((str(threads), *(f"{rate:.0f} ({rate / rates[BASE]:.2f})" for rate in rates.values())))
            if threads == 1:
                continue  # how long one takes is the latency's
            for name in mine:
                bars.append(Bar(f"{threads} threads: {name} : subprocess", rates[name] / rates[BASE], 0.6, at_most=False))
            bars += [
                Bar(f"{threads} threads: {next(iter(mine))} : {name}", rates[next(iter(mine))] / rates[name], 3, at_most=False)
                for name in COMPARED
                if name in rates
            ]
    table = Table(("threads", *names), rows, "runs a second (times subprocess.run)")
    return Section("throughput", "Throughput", ABOUT, [table], bars, missing_notes(shown))
