"""`batch`: the jobs of a file, many at a time, their results in the order in which they end.

The first thread reads jobs, a few ahead, and writes results; others run them. A signal only leaves a note in the queue of results:
then no further job is begun, the runs are killed, and what has ended is written.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from queue import SimpleQueue
from types import FrameType
from typing import TYPE_CHECKING, Any

import proc_sandbox as ps
from proc_sandbox.cli import commands, options, status
from proc_sandbox.cli.jobs import (
    Job,
    JobError,
    Results,
    Survey,
    check_out_of_reach,
    check_shared,
    key_of,
    read_jobs,
    survey,
)
from proc_sandbox.cli.printing import is_smart, wants_colour
from proc_sandbox.execution import run_to_end
from proc_sandbox.executor import processors
from proc_sandbox.progress import bar
from proc_sandbox.text import input_bytes
from proc_sandbox.visible import printable

if TYPE_CHECKING:
    import argparse

    from proc_sandbox.backends.protocol import Run

__all__ = ["Batch", "batch_command"]

ALL_OK, SOME_NOT = 0, 1
"""Exit statuses of `batch`."""
AHEAD = 2
"""Jobs that are read, for each worker."""
MOST_WORKERS = 1000

Outcome = tuple[Job, "Future[ps.Result | None]"]
"""A job and what became of it: None where it was not begun."""


class Stopped(Exception):
    """A signal has come. number: which."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Batch:
    """Jobs under way.

    Attributes: ok, bad, skipped: how many have ended, and how many had a result already, which are counted under ok or bad too.
    """

    def __init__(
        self, workers: int, results: Results, twice: frozenset[int], advance: Callable[[bool], object]
    ) -> None:
        self.workers, self.results, self.advance = workers, results, advance
        self.ok = self.bad = self.skipped = 0
        self.twice, self.seen = twice, set[int]()
        self.lock = threading.Lock()
        self.runs: set[Run[Any]] = set()
        self.stopping = False
        self.signal = 0
        self.ended: SimpleQueue[Outcome | int] = SimpleQueue()

    def run(self, jobs: Iterator[Job | JobError]) -> None:
        """Run the jobs that have no result yet.

        Raises:
            Stopped: a signal has come; nothing is running any more, and what had ended is written.
        """
        with self.signals(), ThreadPoolExecutor(self.workers) as pool:
            under_way = 0
            try:
                for job in self.to_be_done(jobs):
                    pool.submit(self.execute, job).add_done_callback(partial(self.note_end, job))
                    under_way += 1
                    if under_way >= AHEAD * self.workers:
                        self.take_one()
                        under_way -= 1
                for _ in range(under_way):
                    self.take_one()
            finally:  # a signal, or a disk that is full
                self.stop()

    def note_end(self, job: Job, future: Future[ps.Result | None]) -> None:
        self.ended.put((job, future))

    def to_be_done(self, jobs: Iterator[Job | JobError]) -> Iterator[Job]:
        """Yield the jobs that have no result yet; the others are counted.

        Raises:
            Stopped: a signal has come.
        """
        for job in jobs:
            if self.signal:
                raise Stopped(self.signal)
            if isinstance(job, JobError):
                self.refuse(job.id, str(job))
            elif self.is_second(job):
                self.refuse(job.id, f"the id {job.id!r} is there twice")
            elif job in self.results.done:
                self.skipped += 1
                self.count(self.results.done.is_ok(job))
            else:
                yield job

    def is_second(self, job: Job) -> bool:
        """Return whether a job before it had its id."""
        key = key_of(job.id, "")
        found = key in self.seen
        if key in self.twice:
            self.seen.add(key)
        return found

    def refuse(self, id: str | int, reason: str) -> None:
        self.results.add({"id": id, "job": None, "ok": False, "error": reason, "error_type": "ConfigError"})
        self.count(False)

    def count(self, ok: bool) -> None:
        self.ok += ok
        self.bad += not ok
        self.advance(ok)

    def take_one(self) -> None:
        """Wait for the next end, and write it.

        Raises:
            Stopped: a signal has come instead.
        """
        outcome = self.ended.get()
        if isinstance(outcome, int):
            raise Stopped(outcome)
        self.write(*outcome)

    def write(self, job: Job, future: Future[ps.Result | None]) -> None:
        error = future.exception()
        if isinstance(error, (ps.SandboxError, OSError)):
            facts: dict[str, object] = {"ok": False, "error": str(error), "error_type": type(error).__name__}
        else:
            result = future.result()
            if result is None or result.reason is ps.Reason.CANCELLED:
                return  # by us
            facts = result.to_dict()
        self.results.add({"id": job.id, "job": job.digest, **facts})
        self.count(bool(facts["ok"]))

    def stop(self) -> None:
        """Kill what runs and let nothing begin. After the last job there is nothing of either."""
        with self.lock:
            self.stopping = True
            for run in self.runs:
                run.kill()

    def drain(self) -> None:
        """Write what ended before it could be killed; when all threads have ended."""
        while not self.ended.empty():
            outcome = self.ended.get()
            if not isinstance(outcome, int):
                self.write(*outcome)

    def execute(self, job: Job) -> ps.Result | None:
        """Do one job, in a thread. It has a private directory of its own, unless it names one; None where nothing is begun any more.

        Raises:
            SandboxError, OSError: it could not be run.
        """
        if self.stopping:
            return None
        return run_to_end(job.args, job.config, data=input_bytes(job.input), holder=self)

    def hold(self, run: Run[Any]) -> None:
        """Have a run killed by stop(), at once if that has been called meanwhile."""
        with self.lock:
            self.runs.add(run)
            if self.stopping:
                run.kill()

    def let_go(self, run: Run[Any]) -> None:
        """Forget a run that has ended."""
        with self.lock:
            self.runs.discard(run)

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Have SIGINT and SIGTERM leave a note instead of raising something wherever this thread is."""

        def note(number: int, frame: FrameType | None) -> None:
            del frame
            self.signal = number
            self.ended.put(number)  # a SimpleQueue may be interrupted by itself

        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def batch_command(parsed: argparse.Namespace) -> int:
    """Run the jobs and return whether all are ok: 0, else 1; 130 or 143 after a signal.

    Raises:
        ConfigError: bad usage; nothing was run. UnsupportedError: the limits of the command line cannot be enforced here.
    """
    config = options.make_config(parsed, streams=False)
    check_shared(config)
    workers = worker_count(parsed.workers)
    check_out_of_reach(config, tuple(map(os.path.realpath, (parsed.jobs, parsed.out))))
    found = survey(parsed.jobs, config, parsed.out)
    if found.wrong and not told(found, parsed.jobs, keep_going=parsed.keep_going):
        return status.FAILED
    ps.plan(commands.TRUE, config=config)  # what cannot be enforced here is told once
    results = Results(parsed.out, parsed.jobs)
    try:
        with progress(found.jobs, parsed) as advance:
            batch = Batch(workers, results, found.twice, advance)
            code = carry_out(batch, read_jobs(parsed.jobs, config, parsed.out))
    finally:
        results.close()
    if not parsed.quiet:
        print(summary(batch, found.jobs), file=sys.stderr)
    return code


def carry_out(batch: Batch, jobs: Iterator[Job | JobError]) -> int:
    code = 0
    try:
        batch.run(jobs)
    except Stopped as stopped:
        code = status.SIGNALED + stopped.number
    batch.drain()
    return code or (SOME_NOT if batch.bad else ALL_OK)


def worker_count(given: object) -> int:
    """Return how many jobs are to be run at a time.

    Raises:
        ConfigError: that is no such number.
    """
    if given is None:
        return min(MOST_WORKERS, processors())
    if isinstance(given, int) and 1 <= given <= MOST_WORKERS:
        return given
    raise ps.ConfigError("--workers", given, f"must be a whole number from 1 to {MOST_WORKERS}")


def told(found: Survey, path: str, *, keep_going: bool) -> bool:
    """Tell what is wrong with the jobs; return whether to go on nevertheless."""
    for error in found.errors:
        print(f"proc-sandbox: {printable(error)}", file=sys.stderr)
    if found.wrong > len(found.errors):
        print(f"proc-sandbox: {path}: {found.wrong - len(found.errors)} more are not valid", file=sys.stderr)
    if not keep_going:
        print("proc-sandbox: nothing was run; --keep-going runs the others", file=sys.stderr)
    return keep_going


def summary(batch: Batch, jobs: int) -> str:
    done = batch.ok + batch.bad
    text = f"proc-sandbox: {done} of {jobs} jobs done: {batch.ok} ok, {batch.bad} not"
    text += f" ({batch.skipped} of them before)" if batch.skipped else ""
    return text if done == jobs else f"{text}; the same command goes on"


def progress(jobs: int, parsed: argparse.Namespace) -> AbstractContextManager[Callable[[bool], object]]:
    """Return what shows how far it is, on a terminal only."""
    if parsed.quiet or not is_smart(sys.stderr):
        return nullcontext(lambda ok: None)
    return bar(jobs, colour=wants_colour(parsed.colour, sys.stderr), transient=True)
