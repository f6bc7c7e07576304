"""What a run writes, kept up to a cap: bytes in, bytes out, no I/O of its own."""

from __future__ import annotations

from proc_sandbox.report import Ended, Report

__all__ = ["Collector", "Supervisor"]


class Collector:
    """One stream's output: the first bytes up to the cap are kept, the rest is counted and thrown away."""

    def __init__(self, cap: int) -> None:
        self.cap = cap
        self.kept = bytearray()
        self.truncated = False

    def feed(self, data: bytes) -> None:
        """Take what was read."""
        room = self.cap - len(self.kept)
        if len(data) > room:
            self.truncated = True
            data = data[:room]
        self.kept += data


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
