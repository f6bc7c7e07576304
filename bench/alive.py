"""Runs alive at once from one thread, and plans changed by hand: there is no public handle for either, so this uses the inner parts."""

from __future__ import annotations

import resource
import time
from typing import TYPE_CHECKING

from bench.machine import descendants
from proc_sandbox.backends import current
from proc_sandbox.execution import make_plan
from proc_sandbox.report import Failed
from proc_sandbox.supervise import Supervisor

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any

    from typing_extensions import Self

    import proc_sandbox as ps
    from proc_sandbox.planner.model import Plan

__all__ = ["SLEEP", "Sleepers", "allow_descriptors", "carry_out"]

SLEEP = ("/bin/sleep", "1000")


def allow_descriptors() -> int:
    """Raise the soft limit on descriptors to the hard one, and return it. Call it before the launcher starts, which inherits it."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def carry_out(planned: Plan, config: ps.Config) -> bool:
    """Carry out a plan that was made, and perhaps changed, by hand; return whether the command ended with 0."""
    backend = current(config.backend)
    streams = backend.open_streams(config, None, Supervisor(config.max_output))
    try:
        with backend.start(planned, streams) as run:
            streams.release()
            outcome = run.communicate(streams)
    finally:
        streams.close()
    return not isinstance(outcome, Failed) and outcome.exit_code == 0


class Sleepers:
    """So many sleeping runs, alive until the end of the block."""

    def __init__(self, config: ps.Config, pid: int) -> None:
        """pid: the process below which they are looked for."""
        self.config = config
        self.pid = pid
        self.runs: list[Any] = []
        self.streams: list[Any] = []

    def grow(self, count: int, patience: float = 120.0) -> None:
        """Start as many as are missing, and wait until all sleep.

        Raises:
            TimeoutError: they do not.
        """
        backend = current(self.config.backend)
        while len(self.runs) < count:
            planned, _ = make_plan(backend, SLEEP, self.config)
            streams = backend.open_streams(self.config, None, Supervisor(self.config.max_output))
            self.streams.append(streams)
            self.runs.append(backend.start(planned, streams))
            streams.release()
        end = time.monotonic() + patience
        while (asleep := self.asleep()) < count:
            if time.monotonic() > end:
                raise TimeoutError(f"{asleep} of {count} runs sleep after {patience:.0f} s")
            time.sleep(0.05)

    def asleep(self) -> int:
        """Return how many have come to their command."""
        return sum(name == "sleep" for name in descendants(self.pid).values())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for run in self.runs:
            run.kill()
        for run in self.runs:
            run.close()
        for streams in self.streams:
            streams.close()
