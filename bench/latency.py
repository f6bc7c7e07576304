"""How long one run takes: subprocess, ours, and the peers, hot and after a rest."""

from __future__ import annotations

import contextlib
import functools
import statistics
import subprocess
from typing import TYPE_CHECKING

import proc_sandbox as ps
from bench.measure import interleave, summary, timed
from bench.ours import PYTHON, TRUE, configs, enforcement_table
from bench.peers import missing_notes, peer_notes, usable
from bench.table import Bar, Effort, Section, Table, ms, ratio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from bench.measure import Timed
    from bench.peers import Peer

__all__ = ["BASE", "bare", "ours", "section"]

BASE = "subprocess.run"
ABOUT = """\
One run, from the call to the result, output captured. The ratio is that of the medians to
`subprocess.run(capture_output=True)` of the same command in the same rounds. "hot": one run right after another; else
each waits before it begins. p99 needs 50 runs. Slow peers take part in every tenth round.

    python -m bench latency"""


def bare(command: Sequence[str]) -> bool:
    """Run it without any sandbox."""
    return subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, check=False).returncode == 0


def ours(command: Sequence[str], config: ps.Config) -> bool:
    """Run it in a sandbox of its own."""
    return ps.run(command, config=config).ok


def by_peer(peer: Peer, command: Sequence[str]) -> bool:
    return peer.run(command)[0]


@contextlib.contextmanager
def variants(command: Sequence[str], peers: Sequence[Peer]) -> Iterator[dict[str, Timed]]:
    """Give everything that is compared, by name."""
    calls: dict[str, Callable[[], bool]] = {BASE: functools.partial(bare, command)}
    made = configs()
    for name, config in made.items():
        calls[name] = functools.partial(ours, command, config)
    with ps.Sandbox(list(made.values())[-1]) as box:

        def kept() -> bool:
            return box.run(command).ok

        calls["Sandbox.run"] = kept
        for peer in peers:
            calls[peer.name] = functools.partial(by_peer, peer, command)
        yield {name: timed(call, name) for name, call in calls.items()}


def table_of(title: str, found: Mapping[str, Sequence[float]]) -> Table:
    """Return one job's table."""
    base = statistics.median(found[BASE])
    rows = []
    for name, values in found.items():
        said = summary(values)
        rows.append((name, ms(said.median), ms(said.p99), ratio(said.median, base), str(said.runs)))
    return Table(("", "median, ms", "p99, ms", "x subprocess", "runs"), rows, title)


def bars_of(job: str, rest: float, found: Mapping[str, Sequence[float]]) -> Iterator[Bar]:
    """Yield what is asked of one job's figures."""
    base = statistics.median(found[BASE])
    when = "after a rest" if rest else "hot"
    for name, values in found.items():
        bound = BOUNDS.get((job, bool(rest), name))
        said = summary(values)
        if bound:
            yield Bar(f"{job}, {when}: {name} : subprocess", said.median / base, bound)
        if name in OURS and said.p99:
            yield Bar(f"{job}, {when}: p99 : median of {name}", said.p99 / said.median, 3)


OURS = ("ps.run hot", "ps.run prepared", "Sandbox.run")
BOUNDS = {
    ("true", False, "ps.run hot"): 2.0,
    ("true", False, "ps.run prepared"): 1.4,
    ("true", True, "ps.run hot"): 3.0,
    ("python3", False, "ps.run hot"): 1.1,
}
"""By job, whether it rests, and name."""
ROUNDS = {
    ("true", False): (400, 60),
    ("python3", False): (200, 20),
    ("true", True): (150, 20),
    ("python3", True): (100, 8),
}
"""Full and quick."""


def section(effort: Effort) -> Section:
    """Measure and return what there is to say."""
    tables = [enforcement_table()]
    bars: list[Bar] = []
    with usable() as (peers, missing):
        notes = [*peer_notes(peers), *missing_notes(missing)]
        slow = [peer.name for peer in peers if peer.slow]
        for (job, rests), rounds in ROUNDS.items():
            command = TRUE if job == "true" else PYTHON
            rest = effort.rest if rests else 0.0
            with variants(command, peers) as calls:
                found = interleave(calls, effort.of(*rounds), rest=rest, seldom=slow)
            when = f"after {rest * 1e3:.0f} ms of rest" if rest else "hot"
            tables.append(table_of(f"`{' '.join(command)}`, {when}", found))
            bars += bars_of(job, rest, found)
    return Section("latency", "Latency of one run", ABOUT, tables, bars, notes)
