"""What a thousand runs alive at once hold in memory and threads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import proc_sandbox as ps
from bench.alive import Sleepers, allow_descriptors
from bench.machine import children, descendants, private_memory, threads
from bench.ours import hot
from bench.table import Bar, Effort, Section, Table

__all__ = ["section"]

ABOUT = """\
Sleeping runs alive at once, started by one thread of one Python process. Private memory (`Private_*` of smaps_rollup)
of the launcher and of every reaper, and what the Python process has grown by; the sleeping commands' own is not
counted, nor the kernel's. The runs are started by the inner parts of the package, for there is no public handle that
needs no thread.

    python -m bench memory"""


def held_by(count: int) -> dict[str, Any]:
    """Return what so many sleeping runs hold; in a process where nothing else is done."""
    allow_descriptors()
    config = hot(timeout=900)
    ps.run(["/bin/true"], config=config)  # the launcher and the modules are there before anything is counted
    here = os.getpid()
    with Sleepers(config, here) as sleepers:
        sleepers.grow(1)
        before = private_memory(here)
        begin = time.perf_counter()
        sleepers.grow(count + 1)
        seconds = time.perf_counter() - begin
        launchers = children(here)
        reapers = [pid for pid, name in descendants(here).items() if name != "sleep" and pid not in launchers]
        return {
            "seconds": seconds,
            "python": private_memory(here) - before,
            "launcher": sum(map(private_memory, launchers)),
            "reapers": sum(map(private_memory, reapers)),
            "processes": len(launchers) + len(reapers),
            "python_threads": threads(here),
            "launcher_threads": sum(map(threads, launchers)),
        }


def section(effort: Effort) -> Section:
    """Measure and return what there is to say."""
    count = effort.of(1000, 300)
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(
        [sys.executable, "-m", "bench.memory", str(count)], cwd=root, capture_output=True, text=True, check=False
    )
    if done.returncode:
        why = done.stderr.strip().splitlines()[-1]
        return Section("memory", "Runs alive at once", ABOUT, notes=[f"not measured: {count} runs at once: {why}"])
    found = json.loads(done.stdout)
    held = {name: found[name] / 1024 for name in ("launcher", "reapers", "python")}
    each = sum(held.values()) / count
    rows = [
        ("private memory of the launcher", *kib(held["launcher"], count)),
        ("private memory of the reapers", *kib(held["reapers"], count)),
        ("growth of the Python process", *kib(held["python"], count)),
        ("all of these", *kib(sum(held.values()), count)),
        ("processes of ours (launcher and reapers)", str(found["processes"]), f"{found['processes'] / count:.3f}"),
        ("threads of the Python process", str(found["python_threads"]), f"{found['python_threads'] / count:.3f}"),
        ("threads of the launcher", str(found["launcher_threads"]), f"{found['launcher_threads'] / count:.3f}"),
        ("seconds until all slept", f"{found['seconds']:.2f}", f"{found['seconds'] / count * 1e3:.2f} ms"),
    ]
    table = Table((f"{count} runs alive", "together", "each"), rows)
    return Section(
        "memory", "Runs alive at once", ABOUT, [table], [Bar("private KiB of ours for each live run", each, 64)]
    )


def kib(total: float, count: int) -> tuple[str, str]:
    return f"{total:.0f} KiB", f"{total / count:.1f} KiB"


if __name__ == "__main__":
    print(json.dumps(held_by(int(sys.argv[1]))))
