"""What Python itself does for one run: CPU time of the calling thread, its own system calls among it."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import proc_sandbox as ps
from bench.ours import TRUE, hot
from bench.table import Bar, Effort, Section, Table
from proc_sandbox.backends import current

__all__ = ["section"]

RUNS = 25
"""Of each kind in a round."""
MOST = 120
"""Microseconds that Python may take for a run."""
MEASURED = "run(config=)"
ABOUT = f"""\
CPU time of the thread that calls, one run after another: from the call to the words sent, and from there to the Result: waiting, the
launcher's message, the verdict. Python's own system calls are in it, and what it costs to go to sleep and to find the caches full of
the command's; what the launcher, the kernel and the command do meanwhile is not. Kinds of call take turns, {RUNS} runs each; the figures
are the median of the rounds' means, and the least.

    python -m bench overhead"""

Call = Callable[[], object]


def calls(config: ps.Config, sandbox: ps.Sandbox) -> dict[str, Call]:
    """Return the kinds of call that are measured."""
    return {
        MEASURED: lambda: ps.run(TRUE, config=config),
        "run(config=, timeout=5)": lambda: ps.run(TRUE, config=config, timeout=5),
        "run(timeout=5, ...)": lambda: ps.run(TRUE, timeout=5, max_processes=32, enforcement="best-effort", prepared=0),
        "Sandbox.run()": lambda: sandbox.run(TRUE),
        "Sandbox.run(timeout=5)": lambda: sandbox.run(TRUE, timeout=5),
    }


class Halves:
    """Divides runs in two: where the launcher has their words."""

    def __init__(self) -> None:
        self.sent = 0.0

    @contextlib.contextmanager
    def watched(self, backend: Any) -> Iterator[None]:
        """Have the backend's start() tell when it is done."""
        start = backend.start

        def timed(*arguments: Any, **named: Any) -> Any:
            run = start(*arguments, **named)
            self.sent = time.thread_time()
            return run

        backend.start = timed
        try:
            yield
        finally:
            del backend.start


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


def measure(rounds: int) -> dict[str, list[tuple[float, float, float]]]:
    """Return for each kind of call and round the seconds: the whole, config to launch, events to Result."""
    halves = Halves()
    config = hot()
    with ps.Sandbox(config) as sandbox:
        kinds = calls(config, sandbox)
        for call in kinds.values():  # starts the launcher, fills the caches
            whole_of(call, RUNS)
        wholes = [{name: whole_of(call, RUNS) for name, call in kinds.items()} for _ in range(rounds)]
        with halves.watched(current()):
            parts = [{name: halves_of(call, RUNS, halves) for name, call in kinds.items()} for _ in range(rounds)]
    return {name: [(whole[name], *part[name]) for whole, part in zip(wholes, parts, strict=True)] for name in kinds}


def section(effort: Effort) -> Section:
    """Measure and return what there is to say."""
    rows = []
    found = measure(effort.of(40, 10))
    for name, rounds in found.items():
        columns = [[seconds * 1e6 for seconds in column] for column in zip(*rounds, strict=True)]
        rows.append((name, *(f"{statistics.median(column):.0f} ({min(column):.0f})" for column in columns)))
    table = Table(("us of CPU: median (least)", "whole", "config to launch", "events to Result"), rows)
    whole = statistics.median(seconds for seconds, _, _ in found[MEASURED]) * 1e6
    return Section("overhead", "Python's part", ABOUT, [table], [Bar("Python's part of one run, us", whole, MOST)])
