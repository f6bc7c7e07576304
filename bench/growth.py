"""How the cost of a run grows with what it is given: mounts, Landlock rules, output, runs that are alive beside it."""

from __future__ import annotations

import dataclasses
import functools
import os
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import proc_sandbox as ps
from bench.alive import Sleepers, allow_descriptors, carry_out
from bench.latency import BASE, bare, ours
from bench.measure import interleave, timed
from bench.ours import TRUE, hot
from bench.table import Effort, Section, Table, ms, ratio

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.measure import Timed

__all__ = ["section"]

PLOT = "performance-growth.svg"
ABOUT = f"""\
One run, nothing prepared ahead, while one thing grows; medians, all sizes of one thing taking turns. "granted
directories": each is a mount and a Landlock rule. "Landlock rules" alone: added to the plan by hand. "output": what
the command writes, captured by both. "runs alive": other runs that sleep meanwhile; there each size is measured
beside subprocess.run by itself.

    python -m bench growth

![How the cost of a run grows]({PLOT})"""


class Point(NamedTuple):
    """One size, our median and that of subprocess.run, in seconds."""

    size: int
    mine: float
    base: float


class Sizes(NamedTuple):
    """What is tried of each thing that grows."""

    directories: tuple[int, ...]
    rules: tuple[int, ...]
    output: tuple[int, ...]
    runs: tuple[int, ...]


OUTPUT = (1 << 10, 1 << 15, 1 << 20, 1 << 23, 1 << 26)
FULL = Sizes((0, 1, 5, 10, 20, 50, 100), (0, 10, 50, 100, 200), OUTPUT, (0, 10, 100, 250, 500))
QUICK = Sizes((0, 10, 50), (0, 10, 100), OUTPUT, (0, 100))


def points(found: Mapping[str, Sequence[float]], sizes: Sequence[int]) -> list[Point]:
    """Return a point for each size; subprocess.run is measured at each, or once for all."""
    return [
        Point(size, statistics.median(found[str(size)]), statistics.median(found.get(f"{BASE} {size}") or found[BASE]))
        for size in sizes
    ]


def by_directories(sizes: Sequence[int], rounds: int) -> list[Point]:
    """Grow the number of granted directories."""
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        calls = {BASE: timed(functools.partial(bare, TRUE), BASE)}
        for size in sizes:
            granted = [os.path.join(place, f"{size}-{number}") for number in range(size)]
            for path in granted:
                os.mkdir(path)
            calls[str(size)] = timed(functools.partial(ours, TRUE, hot(allowed_dirs=granted)), f"{size} directories")
        return points(interleave(calls, rounds), sizes)


def by_rules(sizes: Sequence[int], rounds: int) -> list[Point]:
    """Grow the number of Landlock rules; nothing where there is no Landlock."""
    config = hot()
    planned: Any = ps.plan(TRUE, config=config)
    if getattr(planned, "landlock", None) is None:
        return []
    below = [str(path) for path in sorted(Path("/usr/share").rglob("*")) if path.is_dir() and not path.is_symlink()]
    calls = {BASE: timed(functools.partial(bare, TRUE), BASE)}
    for size in sizes:
        more = tuple((path, "read") for path in below[:size])
        landlock = planned.landlock._replace(rules=planned.landlock.rules + more)
        changed = dataclasses.replace(planned, landlock=landlock, prefix=b"")  # b"": the words are made anew
        calls[str(size)] = timed(functools.partial(carry_out, changed, config), f"{size} rules")
    return points(interleave(calls, rounds), sizes)


def by_output(sizes: Sequence[int], rounds: int) -> list[Point]:
    """Grow what the command writes: the beginning of a file, for /dev/zero is memory that a sampled limit does not see."""
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        file = Path(place) / "zeros"
        file.touch()
        os.truncate(file, max(sizes))
        config = hot(max_output="128M", allowed_dirs=[place])
        calls: dict[str, Timed] = {}
        for size in sizes:
            command = ["head", "-c", str(size), str(file)]

            def plain(command: list[str] = command, size: int = size) -> bool:
                return len(subprocess.run(command, capture_output=True, check=False).stdout) == size

            def inside(command: list[str] = command, size: int = size) -> bool:
                return len(ps.run(command, config=config).stdout) == size

            calls[f"{BASE} {size}"] = timed(plain, BASE)
            calls[str(size)] = timed(inside, f"{size} bytes")
        return points(interleave(calls, rounds, warm_up=2), sizes)


def by_runs(sizes: Sequence[int], rounds: int) -> list[Point]:
    """Grow the number of runs that are alive."""
    found = []
    with Sleepers(hot(timeout=900), os.getpid()) as sleepers:
        for size in sizes:
            sleepers.grow(size)
            calls = {BASE: timed(functools.partial(bare, TRUE), BASE)}
            calls[str(size)] = timed(functools.partial(ours, TRUE, hot()), "a run")
            found += points(interleave(calls, rounds), [size])
    return found


def table_of(title: str, unit: str, found: Sequence[Point]) -> Table:
    """Return one series."""
    rows = [(size_of(size, unit), ms(mine), ms(base), ratio(mine, base)) for size, mine, base in found]
    return Table((title, "ps.run, ms", "subprocess.run, ms", "x subprocess"), rows)


def size_of(size: int, unit: str) -> str:
    if unit != "bytes":
        return str(size)
    return f"{size >> 20} MiB" if size >= 1 << 20 else f"{size >> 10} KiB"


LOOKS: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: small, and the same from every machine
    "svg.hashsalt": "proc-sandbox",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def plot(found: Mapping[str, tuple[str, Sequence[Point]]], path: Path) -> str:
    """Draw all series into an SVG; return why not, or nothing."""
    try:
        import matplotlib as mpl
    except ImportError:
        return "the plot was not drawn: matplotlib is not installed (pip install -e '.[bench]')"
    mpl.use("svg")
    mpl.rcParams.update(LOOKS)
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 2, figsize=(8, 5.2), layout="constrained")
    for axis, (title, (unit, series)) in zip(axes.flat, found.items(), strict=False):
        sizes = [point.size for point in series]
        axis.plot(sizes, [point.mine * 1e3 for point in series], marker="o", label="ps.run")
        axis.plot(sizes, [point.base * 1e3 for point in series], marker=".", linestyle="--", color="0.5", label=BASE)
        axis.set_xlabel(f"{title}, bytes" if unit == "bytes" else title)
        axis.set_ylabel("ms")
        if unit == "bytes":
            axis.set_xscale("log", base=2)
            axis.set_yscale("log")
        else:
            axis.set_ylim(bottom=0)
        axis.minorticks_off()
    axes.flat[0].legend(frameon=False)
    figure.savefig(path, format="svg", metadata={"Date": None})
    pyplot.close(figure)
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("".join(f"{line.rstrip()}\n" for line in lines), encoding="utf-8")
    return ""


def section(effort: Effort) -> Section:
    """Measure, draw where a page is recorded, and return what there is to say."""
    allow_descriptors()
    sizes = QUICK if effort.quick else FULL
    rounds = effort.of(60, 15)
    found = {
        "granted directories": ("", by_directories(sizes.directories, rounds)),
        "Landlock rules added": ("", by_rules(sizes.rules, rounds)),
        "output": ("bytes", by_output(sizes.output, effort.of(15, 4))),
        "runs alive": ("", by_runs(sizes.runs, rounds)),
    }
    notes = []
    if not found["Landlock rules added"][1]:
        notes.append("not measured: Landlock rules: this kernel has no Landlock")
    if effort.plots and (why := plot(found, Path(effort.plots) / PLOT)):
        notes.append(why)
    tables = [table_of(title, unit, series) for title, (unit, series) in found.items() if series]
    return Section("growth", "How the cost grows", ABOUT, tables, notes=notes)
