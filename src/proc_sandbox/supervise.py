"""What a run writes, kept up to a cap: bytes in, bytes out, no I/O of its own."""

from __future__ import annotations

from collections.abc import Callable

from proc_sandbox.report import Ended, Report

__all__ = ["Collector", "Supervisor"]


class Collector:
    """One stream's output: the first bytes up to the cap are kept, the rest is thrown away and flagged."""

    def __init__(self, cap: int) -> None:
        self.room = cap
        self.kept = bytearray()
        self.sink: Callable[[bytes], object] = self.kept.extend
        self.truncated = False

    def feed(self, data: bytes) -> object:
        """Take what was read; return what the sink says of it."""
        if len(data) > self.room:
            self.truncated = True
            data = data[: self.room]
        self.room -= len(data)
        return self.sink(data) if data else None


class Supervisor:
    """Both streams of a run, and at the end the report."""

    def __init__(self, max_output: int) -> None:
        self.stdout = Collector(max_output)
        self.stderr = Collector(max_output)

    def report(self, ended: Ended) -> Report:
        """Return all facts of the run."""
        return Report(
            ended, bytes(self.stdout.kept), bytes(self.stderr.kept), self.stdout.truncated, self.stderr.truncated
        )
