"""The system calls of one run, counted by strace(1): who makes how many of which, hot and with a sandbox that was prepared."""

from __future__ import annotations

import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bench.ours import enforcement_table
from bench.table import Effort, Section, Table

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["AHEAD", "INTERPRETER", "ROLES", "Call", "calls_of", "count", "counted", "section"]

ABOUT = """\
Counted by strace(1), of everybody who has to do with the run of `/bin/true`, from one call of `ps.run` to the next; medians of some
runs. "command" is its process up to execve(2): what the program itself asks for is its own. "ahead" is what was done before the
run was asked for. The launcher's rows hold those of its threads; a call that waits (epoll_wait, futex, poll) is made as
often as somebody wakes it.

    python -m bench syscalls"""
ROOT = Path(__file__).resolve().parents[1]
INTERPRETER = os.path.realpath(sys.executable)
"""Not a virtual environment's: where that lies decides how it is shown, and with it how many mounts there are."""
ROLES = ("caller", "launcher", "reaper", "command")
AHEAD = "ahead"
CALLER = """
import os, sys, time
from bench.ours import TRUE, hot
import proc_sandbox as ps
config = hot(prepared=int(sys.argv[1]))
for number in range(3 + int(sys.argv[2])):
    time.sleep(0.05)  # what follows the last run, and prepares the next, comes to its end
    os.access(f"/begin/{number - 3}", os.F_OK)
    assert ps.run(TRUE, config=config).ok
    os.access("/end", os.F_OK)
"""
LINE = re.compile(r"(\d+) +(\w+)\((.*)")


class Call(NamedTuple):
    """One system call that somebody began: by whom, its name, and all that is said of it."""

    pid: int
    name: str
    text: str


def calls_of(trace: Iterable[str]) -> Iterator[Call]:
    """Yield the calls as they were begun, what is told later of one joined to nothing: its beginning says enough."""
    for line in trace:
        match = LINE.match(line)
        if match and match[2]:
            yield Call(int(match[1]), match[2], match[3])


class Roles:
    """Who is who: by what each process's first calls are, for strace tells process ids of other namespaces than its own."""

    def __init__(self, caller: int) -> None:
        self.known: dict[int, str] = {caller: "caller"}
        self.gone: set[int] = set()

    def of(self, call: Call) -> str:
        """Return whose call it is; "" where it is nobody's that has to do with a run."""
        if call.pid not in self.known:
            self.known[call.pid] = self.newcomer(call)
        if call.pid in self.gone:
            return ""
        role = self.known[call.pid]
        if call.name == "execve" and role != "caller":
            if "_bin/launcher" in call.text:
                self.known[call.pid] = role = "launcher"
            else:
                self.gone.add(call.pid)
        return role

    def newcomer(self, call: Call) -> str:
        if call.name == "fcntl" and "F_DUPFD_CLOEXEC" in call.text:
            return "reaper"
        if call.name in ("rt_sigaction", "close_range"):
            return "command"
        return "launcher"  # its threads join cgroups first


def count(trace: Iterable[str], runs: int) -> dict[str, dict[str, float]]:
    """Return the median counts of a trace, by role (or AHEAD) and system call."""
    calls = list(calls_of(trace))
    roles = Roles(calls[0].pid)
    found: list[dict[str, Counter[str]]] = []
    begun = preparing = False
    for call in calls:
        role = roles.of(call)
        if role == "caller" and call.name == "access" and '"/begin/' in call.text:
            begun, preparing = '"/begin/-' not in call.text, False
            if begun:
                found.append(defaultdict(Counter))
            continue
        if not begun or not role or role == "caller" and call.name in ("access", "clock_nanosleep"):
            continue
        if role == "launcher" and call.name == "socketpair":
            preparing = True  # only a sandbox that is prepared needs one
        found[-1][AHEAD if preparing and role != "caller" else role][call.name] += 1
    names = {(role, name) for one in found for role in one for name in one[role]}
    table: dict[str, dict[str, float]] = defaultdict(dict)
    for role, name in sorted(names):
        table[role][name] = statistics.median(one[role][name] for one in found[:runs])
    return {role: {name: number for name, number in row.items() if number} for role, row in table.items()}


def counted(prepared: int, runs: int = 15) -> Mapping[str, Mapping[str, float]]:
    """Trace a caller of its own that makes some runs; return the counts of one.

    Raises:
        FileNotFoundError: there is no strace. subprocess.CalledProcessError: the caller failed.
    """
    strace = shutil.which("strace")
    if not strace:
        raise FileNotFoundError("strace is not installed")
    with tempfile.TemporaryDirectory() as directory:
        trace = Path(directory, "trace")
        command = [strace, "-f", "-q", "-s", "300", "-o", str(trace), INTERPRETER, "-c", CALLER, str(prepared), str(runs)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "src", *sys.path)))}
        subprocess.run(command, check=True, capture_output=True, timeout=600, cwd=ROOT, env=environment)
        return count(trace.read_text(errors="replace").splitlines(), runs)


def total(row: Mapping[str, float]) -> str:
    return f"{sum(row.values()):.0f}"


def listed(row: Mapping[str, float]) -> str:
    """Return the calls of a row, the most frequent first."""
    return ", ".join(
        f"{number:.0f} {name}" for name, number in sorted(row.items(), key=lambda item: (-item[1], item[0]))
    )


def table(title: str, found: Mapping[str, Mapping[str, float]]) -> Table:
    """Return what is said of one kind of run."""
    shown = [(role, found[role]) for role in (*ROLES, AHEAD) if role in found]
    rows = [(role, total(row), listed(row)) for role, row in shown]
    return Table(("who", "calls", "which"), rows, title, left=True)


def section(effort: Effort) -> Section:
    """Count and return what there is to say."""
    runs = effort.of(21, 7)
    tables = [table("Nothing prepared", counted(0, runs)), table("A sandbox is prepared", counted(1, runs))]
    return Section("syscalls", "System calls", ABOUT, [*tables, enforcement_table()])
