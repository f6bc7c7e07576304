"""What the sandbox costs the program inside it, by the program's own clock."""

from __future__ import annotations

import os
import shutil
import stat
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import proc_sandbox as ps
from bench.measure import Turns
from bench.ours import hot
from bench.peers import Sandlock, missing_notes, usable
from bench.table import Bar, Effort, Section, Table, ms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from bench.peers import Peer

__all__ = ["section"]

THREE, ALL = "getpid + stat + compile", "all of it"
PARTS = ("getpid", "stat", "compile", THREE, "open+close", ALL)
BOUNDS = {THREE: 1.03, "stat": 1.1, "open+close": 1.7}
COMPARED = ("bwrap", "sandlock")
EVERY = 4
"""Peers take part in every so many rounds only."""
CALLS, FILES, FUNCTIONS = 250_000, 5_000, 125
"""What a round does. The shorter a round, the less the machine changes from one run in it to the next."""
STEP = 4
"""Of the files below /usr every so many, that they are of many directories."""
ABOUT = f"""\
A C program (`bench/programs/inside.c`) that does little but system calls: getpid(2) {CALLS:,} times, stat(2) of
{FILES:,} files of /usr, gcc compiling one file, and open(2) and close(2) of the same files. Each time is taken by the
program itself, so what starting a run costs is not in it. The runs take turns, bare and ours for a second each round,
peers in every {EVERY}th; a ratio is the median over the rounds of what a part took there and what it took bare in the same round:
one compilation is a tenth slower than another a minute later. The sums depend on how much of what is in them, which
the first column shows. A program that calls getpid and stat and compiles is to lose at most 3 %; open and close have a bar
of their own, and none of the bars is of all together.

    python -m bench inside"""


class Run(NamedTuple):
    """What runs the program, and where that can write."""

    call: Callable[[list[str]], bytes]
    scratch: str


def compile_program(directory: Path) -> Path:
    """Return the program, compiled.

    Raises:
        CalledProcessError: gcc cannot do it.
    """
    program = directory / "inside"
    source = Path(__file__).parent / "programs/inside.c"
    subprocess.run(["gcc", "-O2", "-o", program, source], check=True, capture_output=True)
    return program


def write_source(directory: Path, functions: int) -> Path:
    """Return a C file that is some work to compile."""
    path = directory / "source.c"
    body = (
        "int f{0}(int *a, int n)\n{{\n\tint s = {0};\n\tfor (int i = 0; i < n; i++)\n\t\tif (a[i] % ({0} + 2))\n"
        "\t\t\ts += a[i] * {0} ^ s >> 3;\n\treturn s;\n}}\n"
    )
    path.write_text("".join(body.format(number) for number in range(functions)), encoding="utf-8")
    return path


def files_below(top: str, most: int) -> Iterator[str]:
    """Yield the first regular files below a directory that anybody may read, in a fixed order."""
    found = 0
    for directory, below, names in os.walk(top):
        below.sort()
        for name in sorted(names):
            path = os.path.join(directory, name)
            mode = os.lstat(path).st_mode  # what a link leads to need not be there inside
            if "\n" not in path and stat.S_ISREG(mode) and mode & 0o004:
                yield path
                found += 1
                if found == most:
                    return


def figures(said: bytes) -> dict[str, float]:
    """Return what the program printed, and the sums."""
    found = {name: float(value) for name, value in (line.split() for line in said.decode().splitlines())}
    found[THREE] = found["getpid"] + found["stat"] + found["compile"]
    found[ALL] = found[THREE] + found["open+close"]
    return found


def bare(command: list[str]) -> bytes:
    """Run it without any sandbox."""
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True).stdout


def sandboxed(config: ps.Config) -> Callable[[list[str]], bytes]:
    """Return what runs it in a sandbox."""
    return lambda command: ps.run(command, config=config, check=True).stdout


def by_peer(peer: Peer, visible: str) -> Callable[[list[str]], bytes]:
    """Return what runs it by a peer."""

    def call(command: list[str]) -> bytes:
        worked, said = peer.run(command, visible)
        if not worked:
            raise RuntimeError(f"{peer.name}: {said.decode(errors='replace')}")
        return said

    return call


def measure(runs: Mapping[str, Run], words: Sequence[str], rounds: int) -> dict[str, dict[int, dict[str, float]]]:
    """Return what every part took, by variant and round. "bare" and ours take part in all of them.

    Raises:
        RuntimeError: one sees other files than the others.
    """
    found: dict[str, dict[int, dict[str, float]]] = {name: {} for name in runs}
    everyone = Turns()
    for number in range(rounds):
        for name in everyone.order([name for name in runs if name not in COMPARED or number % EVERY == 0]):
            run = runs[name]
            found[name][number] = figures(run.call([*words[:2], run.scratch, *words[2:]]))
    missed = {name: {each["missed"] for each in rounds.values()} for name, rounds in found.items()}
    if len(set.union(*missed.values())) > 1:
        raise RuntimeError(f"not all see the same files; so many are missed: {missed}")
    return found


def compared(found: Mapping[int, Mapping[str, float]], base: Mapping[int, Mapping[str, float]]) -> dict[str, float]:
    """Return how many times as long as the base each part took: the medians of what the rounds say."""
    return {part: statistics.median(each[part] / base[number][part] for number, each in found.items()) for part in PARTS}


def section(effort: Effort) -> Section:
    """Measure and return what there is to say."""
    title = "Inside: what the program itself loses"
    if not shutil.which("gcc"):
        return Section("inside", title, ABOUT, notes=["not measured: gcc is not installed"])
    fast = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # a tmpfs, as /tmp is inside
    with (
        tempfile.TemporaryDirectory() as place,
        tempfile.TemporaryDirectory(dir=fast) as scratch,
        usable() as (peers, missing),
    ):
        os.chmod(place, 0o755)
        directory = Path(place)
        words = [str(compile_program(directory)), str(directory / "list")]
        listed = list(files_below("/usr", FILES * STEP))[::STEP]
        (directory / "list").write_text("".join(f"{path}\n" for path in listed), encoding="utf-8")
        words += [str(write_source(directory, FUNCTIONS)), str(CALLS)]
        config = hot(allowed_dirs=[place], timeout=120, cpu_time_limit=60, cpu_limit=None, memory_limit="1G")
        runs = {"bare": Run(bare, scratch), "ps.run": Run(sandboxed(config), "/tmp")}
        for peer in peers:
            if isinstance(peer, Sandlock):
                peer.memory = "1G"  # as ours: 256 MiB is not enough for gcc as it counts
            if peer.name in COMPARED and not effort.quick:
                runs[peer.name] = Run(by_peer(peer, place), "/tmp")
        found = measure(runs, words, effort.of(60, 12))
    base = found.pop("bare")
    ratios = {name: compared(each, base) for name, each in found.items()}
    rows = [
        (part, ms(statistics.median(each[part] for each in base.values())), *(f"{ratios[name][part]:.3f}" for name in ratios))
        for part in PARTS
    ]
    bars = [Bar(f"inside, {part} : bare", ratios["ps.run"][part], bound) for part, bound in BOUNDS.items()]
    table = Table(
        ("part", "bare, ms", *(f"{name} : bare" for name in ratios)),
        rows,
        f"{len(listed)} files, {int(base[0]['missed'])} not seen",
    )
    shown = {name: why for name, why in missing.items() if name in COMPARED}
    return Section("inside", title, ABOUT, [table], bars, missing_notes(shown))
