"""How long one run takes: subprocess, ours, and the peers, hot and after a rest."""

from __future__ import annotations

import contextlib
import functools
import statistics
import subprocess
from typing import TYPE_CHECKING

import proc_sandbox as ps
from bench.measure import interleave, summary, timed
from bench.ours import PYTHON, TRUE, configs, enforcement_table, hot
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
`subprocess.run(capture_output=True)` of the same command in the same rounds. "hot": one run right after another. `ps.run` is what
everybody gets who says nothing of it: the next sandbox is prepared where runs follow one another. `ps.run hot` and `Sandbox.run` have
none prepared ahead, never. The next sandbox is prepared when nothing has happened for 2 ms, so where it is to be ready everybody waits 5 ms before each run; and
60 ms are a rest that leaves caches cold and the kernel's grace periods over. What preparing costs falls into these waits, on a
machine with a processor to spare; hot, where nobody waits, it can fall into the next one's time. First ours and `subprocess` by
themselves; then beside the peers, which fork and map so much between two runs of ours that these find colder caches. p99 needs 50 runs. Slow peers take part in every
tenth round.

    python -m bench latency"""


def bare(command: Sequence[str]) -> bool:
    """Run it without any sandbox."""
    return subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, check=False).returncode == 0


def ours(command: Sequence[str], config: ps.Config) -> bool:
    """Run it in a sandbox of its own."""
    return ps.run(command, config=config).ok


def in_box(box: ps.Sandbox, command: Sequence[str]) -> bool:
    """Run it in a Sandbox whose files stay."""
    return box.run(command).ok


def by_peer(peer: Peer, command: Sequence[str]) -> bool:
    return peer.run(command)[0]


@contextlib.contextmanager
def variants(command: Sequence[str], peers: Sequence[Peer]) -> Iterator[dict[str, Timed]]:
    """Give everything that is compared, by name."""
    calls: dict[str, Callable[[], bool]] = {BASE: functools.partial(bare, command)}
    calls["ps.run"] = functools.partial(ours, command, hot(prepared=None))
    with contextlib.ExitStack() as boxes:
        for name, config in configs().items():
            calls[name] = functools.partial(ours, command, config)
            box = boxes.enter_context(ps.Sandbox(config))
            calls[name.replace("ps.run", "Sandbox.run").removesuffix(" hot")] = functools.partial(in_box, box, command)
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
    """Yield what is asked of one job's figures, by themselves."""
    said = {name: summary(values) for name, values in found.items()}
    when = f"{job}, {after(rest)}"
    for name in (name for name in OURS if name in said):
        bound = BOUNDS.get((job, rest, name))
        if bound:
            yield Bar(f"{when}: {name} : subprocess", said[name].median / said[BASE].median, bound)
        if (p99 := said[name].p99) is not None:
            yield Bar(f"{when}: p99 : median of {name}", p99 / said[name].median, 3)


def bars_beside(job: str, rest: float, found: Mapping[str, Sequence[float]]) -> Iterator[Bar]:
    """Yield what is asked of one run against the peers' in the same rounds: hot of one that is made for it, else of a prepared one."""
    mine = OURS[1] if rest else OURS[0]
    for peer, bound in PEERS.items():
        if job == "true" and peer in found:
            part = statistics.median(found[mine]) / statistics.median(found[peer])
            yield Bar(f"{job}, {after(rest)}: {mine} : {peer}", part, bound)


def after(rest: float) -> str:
    """Say how long everybody waited."""
    return f"after {rest * 1e3:.0f} ms" if rest else "hot"


OURS = ("ps.run hot", "ps.run prepared", "Sandbox.run", "Sandbox.run prepared", "ps.run")
READY = 0.005
"""Seconds in which the next sandbox is prepared."""
REST = 0.06
BOUNDS = {
    ("true", 0.0, "ps.run hot"): 2.0,
    ("true", READY, "ps.run prepared"): 1.3,
    ("true", REST, "ps.run hot"): 3.0,
    ("true", REST, "ps.run prepared"): 3.0,
    ("python3", 0.0, "ps.run"): 1.1,
    ("python3", READY, "ps.run prepared"): 1.1,
}
"""By job, rest and name."""
PEERS = {"bwrap": 1 / 3, "nsjail": 1 / 3, "sandlock": 1 / 3, "isolate": 1.0}
"""How much of a peer's time one run may take at the most."""
ROUNDS = {
    ("true", 0.0): (400, 60),
    ("true", READY): (300, 60),
    ("true", REST): (100, 20),
    ("python3", 0.0): (150, 20),
    ("python3", READY): (100, 10),
}
"""Full and quick, of ours by themselves."""
BESIDE = {("true", 0.0): (200, 40), ("true", REST): (60, 10), ("python3", 0.0): (60, 10)}
"""The same, beside the peers."""


def section(effort: Effort) -> Section:
    """Measure and return what there is to say."""
    tables = [enforcement_table()]
    bars: list[Bar] = []
    for (job, rest), rounds in ROUNDS.items():
        command = TRUE if job == "true" else PYTHON
        with variants(command, ()) as calls:
            found = interleave(calls, effort.of(*rounds), rest=rest)
        tables.append(table_of(f"`{' '.join(command)}`, {after(rest)}", found))
        bars += bars_of(job, rest, found)
    with usable() as (peers, missing):
        notes = [*peer_notes(peers), *missing_notes(missing)]
        slow = [peer.name for peer in peers if peer.slow]
        for (job, rest), rounds in BESIDE.items():
            command = TRUE if job == "true" else PYTHON
            with variants(command, peers) as calls:
                found = interleave(calls, effort.of(*rounds), rest=rest, seldom=slow)
            tables.append(table_of(f"`{' '.join(command)}`, {after(rest)}, beside the peers", found))
            bars += bars_beside(job, rest, found)
    return Section("latency", "Latency of one run", ABOUT, tables, bars, notes)
