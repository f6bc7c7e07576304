"""Turns and statistics: who runs after whom, and what is said of the times."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    Timed = Callable[[], float]
    """Does one thing and returns what was measured: mostly seconds."""

__all__ = ["Summary", "Turns", "interleave", "summary", "timed", "turns"]

SELDOM = 10
"""What is too slow to take part in every round takes part in every tenth."""


class Summary(NamedTuple):
    """What is said of one variant. p99: None of fewer than 50 measurements, which do not tell it."""

    runs: int
    median: float
    p99: float | None


def summary(values: Sequence[float]) -> Summary:
    """Return what is said of some measurements."""
    enough = len(values) >= 50
    return Summary(
        len(values),
        statistics.median(values),
        statistics.quantiles(values, n=100, method="inclusive")[98] if enough else None,
    )


def turns(count: int, number: int) -> list[int]:
    """Return in which order `count` variants run in round `number`.

    Over 2 x count rounds everyone follows every other one equally often, and has every place equally often: a Latin square
    balanced for carry-over effects. (Turning a fixed circle would not do: there everyone always follows the same neighbour.)
    Source: E. J. Williams, "Experimental designs balanced for the estimation of residual effects of treatments", 1949.
    """
    zigzag = [-(place // 2) if place % 2 == 0 else (place + 1) // 2 for place in range(count)]
    if number // count % 2:  # of an odd number one square is balanced only together with its mirror image
        zigzag.reverse()
    return [(step + number) % count for step in zigzag]


class Turns:
    """The orders of rounds in which not always the same take part: each set goes through its own, or it would miss some of them."""

    def __init__(self) -> None:
        self.rounds: Counter[tuple[str, ...]] = Counter()

    def order(self, names: Sequence[str]) -> list[str]:
        """Return in which order they run in the next round of theirs."""
        number = self.rounds[tuple(names)]
        self.rounds[tuple(names)] += 1
        return [names[place] for place in turns(len(names), number)]


def interleave(
    variants: Mapping[str, Timed], rounds: int, *, rest: float = 0.0, warm_up: int = 5, seldom: Collection[str] = ()
) -> dict[str, list[float]]:
    """Return the measurements of every variant, round by round.

    Args:
        variants: What is measured, by name.
        rounds: How many are counted.
        rest: Seconds before each measurement: a tight loop hides costs that real callers meet, such as cold caches.
        warm_up: Rounds before, not counted: the launcher starts, caches fill.
        seldom: Names of those that take part in every tenth round only.
    """
    found: dict[str, list[float]] = {name: [] for name in variants}
    everyone = Turns()
    for number in range(-warm_up, rounds):
        for name in everyone.order([name for name in variants if name not in seldom or number % SELDOM == 0]):
            if rest:
                time.sleep(rest)
            value = variants[name]()
            if number >= 0:
                found[name].append(value)
    return found


def timed(call: Callable[[], bool], name: str) -> Timed:
    """Return what does a call, which tells whether it worked, and returns its seconds.

    Raises:
        RuntimeError: (what is returned does) it did not work, so its time would mean nothing.
    """

    def seconds() -> float:
        begin = time.perf_counter()
        worked = call()
        elapsed = time.perf_counter() - begin
        if not worked:
            raise RuntimeError(f"{name}: the run failed")
        return elapsed

    return seconds
