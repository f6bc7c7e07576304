"""What Python itself does for one run: CPU time of the calling thread, its own system calls among it."""

from __future__ import annotations

import contextlib
import select
import statistics
from collections.abc import Callable, Iterator
from time import thread_time
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
CPU time of the thread that calls, its own system calls among it, and what it costs to find the caches full of the command's. Two
parts of it the run has to wait for: from the call to the words sent, and from what wakes Python, the end of poll(2), to the Result:
the launcher's message, the output, the verdict. The bar is for their sum. The others go by while the run is under way: Python
gets ready to wait (it closes the command's streams, and tells poll of its own) and goes to sleep and wakes. "whole" is all of the thread's
time for a run, measured apart and without the clock being read in between. Kinds of call take turns, {RUNS} runs each; the figures are
the median of the rounds' means, and the least.

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
    """Of one run, in the thread's seconds: sent, when the launcher had its words; got_ready, what went by until Python waited; polled,
    what went by in poll(2).
    """

    def __init__(self) -> None:
        self.sent = self.got_ready = self.polled = 0.0

    @contextlib.contextmanager
    def made(self, backend: Any) -> Iterator[None]:
        """Have the backend's start(), and the poll that waits for its runs, make them."""
        start, pump_for = backend.start, DescriptorStreams.pump_for

        def timed(plan: Any, streams: Any, *, held: bool) -> Any:
            run = start(plan, streams, held=held)
            self.got_ready = self.polled = 0.0
            self.sent = thread_time()
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
    """A select.poll object whose waiting is noted."""

    def __init__(self, poll: select.poll, marks: Marks) -> None:
        self.wait, self.marks = poll.poll, marks
        self.register, self.unregister = poll.register, poll.unregister

    def poll(self, patience: float | None) -> list[tuple[int, int]]:
        marks, since = self.marks, thread_time()
        if not marks.polled:
            marks.got_ready = since - marks.sent
        found = self.wait(patience)
        marks.polled += thread_time() - since
        return found


def parts_of(call: Call, runs: int, marks: Marks) -> tuple[float, float, float, float]:
    """Return the thread's seconds for a run before its start, until it waits, in poll(2) and after, as means over one round."""
    before = until = polled = after = 0.0
    for _ in range(runs):
        begin = thread_time()
        call()
        end = thread_time()
        before += marks.sent - begin
        until += marks.got_ready
        polled += marks.polled
        after += end - marks.sent - marks.got_ready - marks.polled
    return before / runs, until / runs, polled / runs, after / runs


def whole_of(call: Call, runs: int) -> float:
    """Return the thread's seconds for a run, as the mean over one round that nothing interrupts."""
    begin = thread_time()
    for _ in range(runs):
        call()
    return (thread_time() - begin) / runs


def measure(rounds: int) -> dict[str, list[tuple[float, ...]]]:
    """Return for each kind of call and round the seconds: the whole, and its parts as they come."""
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
    parts = ("config to launch", "until it waits", "in poll(2)", "events to Result")
    table = Table(("us of CPU: median (least)", "whole", *parts), rows)
    ours = statistics.median(before + after for _, before, _, _, after in found[MEASURED]) * 1e6
    bar = Bar("Python's part of one run, config to launch and events to Result, us", ours, MOST)
    return Section("overhead", "Python's part", ABOUT, [table], [bar])
