"""Latency of one run: subprocess, a fully isolated run with limits, bubblewrap where installed.

    python bench/latency.py [--rounds N] [--rest SECONDS]

The variants take turns within each round, so a machine that slows down slows all of them, and the
ratios hold where the milliseconds do not. --rest waits before every single run: kernels hide some
costs (an attach to a cgroup, cold caches) from a tight loop.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import proc_sandbox as ps

if TYPE_CHECKING:
    from collections.abc import Callable

WARM_UP = 10
"""Rounds not counted: the launcher starts, caches fill."""

BWRAP = [
    *("bwrap", "--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-net"),
    *("--die-with-parent", "--new-session", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev"),
    *("--tmpfs", "/tmp", "true"),
]
"""What bubblewrap offers of the same isolation: no limits, no seccomp filter, no Landlock."""


def variants(box: ps.Sandbox) -> dict[str, Callable[[], bool]]:
    """Return what is measured, by name; each call runs true(1) once and tells whether it worked."""

    def plain() -> bool:
        return subprocess.run(["true"], capture_output=True, check=False).returncode == 0

    def isolated() -> bool:
        return box.run(["true"]).ok

    def bubblewrap() -> bool:
        return subprocess.run(BWRAP, capture_output=True, check=False).returncode == 0

    def isolated_once() -> bool:
        return ps.run(["true"], config=box.config).ok

    found: dict[str, Callable[[], bool]] = {
        "subprocess.run": plain,
        "ps.run, all isolation and limits": isolated_once,
        "Sandbox.run, the same, directory kept": isolated,
    }
    if shutil.which("bwrap") is None:
        print("bwrap is not installed: not measured")
    elif not bubblewrap():
        print("bwrap is installed but fails on this host: not measured")
    else:
        found["bwrap, less isolation, no limits"] = bubblewrap
    return found


def measure(box: ps.Sandbox, rounds: int, rest: float) -> dict[str, list[float]]:
    """Return the seconds of every counted run, by variant.

    Raises:
        RuntimeError: a run failed, so its time would mean nothing.
    """
    calls = variants(box)
    times: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for number in range(-WARM_UP, rounds):
        shift = number % len(names)  # nobody always runs after the same neighbour
        for name in names[shift:] + names[:shift]:
            if rest:
                time.sleep(rest)
            begin = time.perf_counter()
            worked = calls[name]()
            elapsed = time.perf_counter() - begin
            if not worked:
                message = f"{name}: the run failed"
                raise RuntimeError(message)
            if number >= 0:
                times[name].append(elapsed)
    return times


def main() -> int:
    """Measure and print; return the exit status."""
    parser = argparse.ArgumentParser(description="latency of one run of true(1)")
    parser.add_argument("--rounds", type=int, default=300, help="counted rounds (default: 300)")
    parser.add_argument("--rest", type=float, default=0.0, help="seconds before each run (default: 0)")
    options = parser.parse_args()
    if options.rounds < 2:
        parser.error("--rounds must be at least 2")

    limits = ps.Config(
        timeout=10,
        memory_limit="256M",
        max_processes=32,
        cpu_time_limit=5,
        max_file_size="16M",
    )
    with ps.Sandbox(limits) as box:
        enforcement = box.run(["true"]).enforcement
        times = measure(box, options.rounds, options.rest)

    print(
        f"Linux {platform.release()}, Python {platform.python_version()}, {os.cpu_count()} CPUs, "
        f"uid {os.getuid()}, {options.rounds} rounds, rest {options.rest} s"
    )
    base = statistics.median(times["subprocess.run"])
    print(f"{'':<40} {'median ms':>10} {'p99 ms':>8} {'ratio':>6}")
    for name, values in times.items():
        median = statistics.median(values)
        p99 = statistics.quantiles(values, n=100, method="inclusive")[98]
        print(f"{name:<40} {median * 1e3:>10.3f} {p99 * 1e3:>8.3f} {median / base:>6.2f}")
    print("\nenforced by:")
    for asked, how in enforcement.items():
        print(f"  {asked:<16} {how.mechanism if isinstance(how, ps.Enforced) else 'NOT: ' + how.reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
