"""What Python itself does for one run: CPU time of the calling thread, its own system calls among it."""

from __future__ import annotations

import contextlib
import select
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import proc_sandbox as ps
from bench.ours import TRUE, hot
from bench.table import Bar, Effort, Section, Table
from proc_sandbox.backends import current
from proc_sandbox.backends.unix.streams import DescriptorStreams, LaunchedRun

__all__ = ["section"]

RUNS = 25
"""Of each kind in a round."""
MOST = 120
"""Microseconds that Python may take for a run."""
MEASURED = "run(config=)"
ABOUT = f"""\
CPU time of the thread that calls: from the call to the words sent, and from what wakes it to the Result: the launcher's message, the
output, the verdict. Python's own system calls are in it, and what it costs to find the caches full of the command's; not what is done
while the run is under way anyway: getting ready to wait, going to sleep and waking. "whole" is all of the thread's time for a run, measured
apart, with nothing between the runs. Kinds of call take turns, {RUNS} runs each; the figures are the median of the rounds' means, and
the least.

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


class Marks:
    """The thread's time when the launcher had the words of a run, and how much of it went by while the run was under way."""

    def __init__(self) -> None:
        self.sent = self.waited = 0.0

    @contextlib.contextmanager
    def made(self, backend: Any) -> Iterator[None]:
        """Have the backend's start() and the poll that waits for its runs make them."""
        start, pump_for = backend.start, DescriptorStreams.pump_for

        def timed(*arguments: Any, **named: Any) -> Any:
            run = start(*arguments, **named)
            self.sent, self.waited = time.thread_time(), 0.0
            return run

        def watched(streams: DescriptorStreams, channel: LaunchedRun) -> Any:
            pump: Any = pump_for(streams, channel)
            pump.poll = Poll(pump.poll, self)
            return pump

        backend.start, DescriptorStreams.pump_for = timed, watched  # type: ignore[method-assign]
        try:
            yield
        finally:
            DescriptorStreams.pump_for = pump_for  # type: ignore[method-assign]
            del backend.start


class Poll:
    """A select.poll object whose waiting is counted."""

    def __init__(self, poll: select.poll, marks: Marks) -> None:
        self.wait, self.marks = poll.poll, marks
        self.register, self.unregister = poll.register, poll.unregister

    def poll(self, patience: float | None) -> list[tuple[int, int]]:
        marks = self.marks
        since = time.thread_time() if marks.waited else marks.sent  # up to the first time it gets ready to wait
        found = self.wait(patience)
        marks.waited += time.thread_time() - since
        return found


def parts_of(call: Call, runs: int, marks: Marks) -> tuple[float, float, float]:
    """Return the thread's seconds for a run before its start, while it is under way and after, as means over one round."""
    before = waited = after = 0.0
    for _ in range(runs):
        begin = time.thread_time()
        call()
        end = time.thread_time()
        before += marks.sent - begin
        waited += marks.waited
        after += end - marks.sent - marks.waited
    return before / runs, waited / runs, after / runs


def whole_of(call: Call, runs: int) -> float:
    """Return the thread's seconds for a run, as the mean over one round that nothing interrupts."""
    begin = time.thread_time()
    for _ in range(runs):
        call()
    return (time.thread_time() - begin) / runs


def measure(rounds: int) -> dict[str, list[tuple[float, float, float, float]]]:
    """Return for each kind of call and round the seconds: the whole, config to launch, while it runs, events to Result."""
    marks = Marks()
    config = hot()
    with ps.Sandbox(config) as sandbox:
        kinds = calls(config, sandbox)
        for call in kinds.values():  # starts the launcher, fills the caches
            whole_of(call, RUNS)
        wholes = [{name: whole_of(call, RUNS) for name, call in kinds.items()} for _ in range(rounds)]
        with marks.made(current()):
            parts = [{name: parts_of(call, RUNS, marks) for name, call in kinds.items()} for _ in range(rounds)]
    return {name: [(whole[name], *part[name]) for whole, part in zip(wholes, parts, strict=True)] for name in kinds}


def section(effort: Effort) -> Section:
    """Measure and return what there is to say."""
    rows = []
    found = measure(effort.of(40, 10))
    for name, rounds in found.items():
        columns = [[seconds * 1e6 for seconds in column] for column in zip(*rounds, strict=True)]
        rows.append((name, *(f"{statistics.median(column):.0f} ({min(column):.0f})" for column in columns)))
    table = Table(("us of CPU: median (least)", "whole", "config to launch", "while it runs", "events to Result"), rows)
    ours = statistics.median(before + after for _, before, _, after in found[MEASURED]) * 1e6
    bar = Bar("Python's part of one run, config to launch and events to Result, us", ours, MOST)
    return Section("overhead", "Python's part", ABOUT, [table], [bar])
