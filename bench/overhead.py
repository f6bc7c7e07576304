"""What Python itself does for one run: CPU time of the calling thread, its own system calls among it.

    python bench/overhead.py [--rounds N] [--runs N]

From the call to the words sent, and from there to the Result: polling, the launcher's message, the verdict. What the launcher, the
kernel and the command do meanwhile is not in it. Kinds of call are interleaved, in short rounds; the numbers are the median and the
least of the rounds' means.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import proc_sandbox as ps
from proc_sandbox.backends import current

COMMAND = ["true"]
LIMITS = ps.Config(timeout=10, memory_limit="256M", max_processes=32, cpu_time_limit=5, max_file_size="16M")

Call = Callable[[], object]


def calls(sandbox: ps.Sandbox) -> dict[str, Call]:
    """Return the kinds of call that are measured."""
    return {
        "run(config=)": lambda: ps.run(COMMAND, config=LIMITS),
        "run(config=, timeout=5)": lambda: ps.run(COMMAND, config=LIMITS, timeout=5),
        "run(timeout=5, ...)": lambda: ps.run(COMMAND, timeout=5, memory_limit="256M", max_processes=32),
        "Sandbox.run()": lambda: sandbox.run(COMMAND),
        "Sandbox.run(timeout=5)": lambda: sandbox.run(COMMAND, timeout=5),
    }


class Halves:
    """Divides runs in two: where the launcher has their words."""

    def __init__(self) -> None:
        self.sent = 0.0

    def watch(self, backend: Any) -> None:
        """Have the backend's start() tell when it is done."""
        start = backend.start

        def timed(*arguments: Any, **named: Any) -> Any:
            run = start(*arguments, **named)
            self.sent = time.thread_time()
            return run

        backend.start = timed


def halves_of(call: Call, runs: int, halves: Halves) -> tuple[float, float]:
    """Return the thread's seconds for a run before and after its start, as means over one round."""
    before = after = 0.0
    for _ in range(runs):
        begin = time.thread_time()
        call()
        end = time.thread_time()
        before += halves.sent - begin
        after += end - halves.sent
    return before / runs, after / runs


def whole_of(call: Call, runs: int) -> float:
    """Return the thread's seconds for a run, as the mean over one round that nothing interrupts."""
    begin = time.thread_time()
    for _ in range(runs):
        call()
    return (time.thread_time() - begin) / runs


def measure(rounds: int, runs: int) -> dict[str, list[tuple[float, float, float]]]:
    """Return for each kind of call and round: the whole, config to launch, events to Result."""
    halves = Halves()
    times: dict[str, list[tuple[float, float, float]]] = {}
    with ps.Sandbox(LIMITS) as sandbox:
        kinds = calls(sandbox)
        for call in kinds.values():  # starts the launcher, fills the caches
            whole_of(call, runs)
        wholes: dict[str, list[float]] = {name: [] for name in kinds}
        for _ in range(rounds):
            for name, call in kinds.items():
                wholes[name].append(whole_of(call, runs))
        halves.watch(current())
        for number in range(rounds):
            for name, call in kinds.items():
                times.setdefault(name, []).append((wholes[name][number], *halves_of(call, runs, halves)))
    return times


def main() -> int:
    """Measure and print; return the exit status."""
    parser = argparse.ArgumentParser(description="CPU time of the calling thread for one run")
    parser.add_argument("--rounds", type=int, default=40, help="rounds (default: 40)")
    parser.add_argument("--runs", type=int, default=25, help="runs of each kind in a round (default: 25)")
    options = parser.parse_args()
    print(f"{'us of thread CPU: median (least)':<34} {'whole':>14} {'config->launch':>16} {'events->Result':>16}")
    for name, rows in measure(options.rounds, options.runs).items():
        columns = [[seconds * 1e6 for seconds in column] for column in zip(*rows, strict=True)]
        cells = [f"{statistics.median(column):.0f} ({min(column):.0f})" for column in columns]
        print(f"{name:<34} {cells[0]:>14} {cells[1]:>16} {cells[2]:>16}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
