"""What is done to a command on POSIX systems."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from proc_sandbox.planner.posix import seatbelt
from proc_sandbox.planner.unix.plan import LaunchedPlan

__all__ = ["PosixPlan"]


@dataclass(frozen=True, kw_only=True)
class PosixPlan(LaunchedPlan):
    """What will be done: by the monitor (the words), and by the warden (sampling, cpu_time, spare_tasks)."""

    spare_tasks: int = 0
    """RLIMIT_NPROC is that much above the tasks that the user has when the run starts; 0: not set."""
    seatbelt: str = ""
    """The profile under which macOS's sandbox-exec(1) runs the command; "": none."""

    def watch_words(self) -> Iterator[str]:
        """Yield nothing: the warden looks, not the monitor."""
        return iter(())

    def exec_words(self) -> Sequence[str]:
        """Return the last words: the command, or sandbox-exec(1) with it."""
        if not self.seatbelt:
            return super().exec_words()
        program = posixpath.join(self.cwd, self.executable)
        return ("exec", seatbelt.SANDBOX_EXEC, *seatbelt.command_line(self.seatbelt, program, self.command))

    def lines_of_isolation(self) -> Iterator[str]:
        """Yield the Seatbelt profile."""
        if self.seatbelt:
            yield "seatbelt"
            yield from (f"  {line}" for line in self.seatbelt.splitlines())
        else:
            yield "isolation    none: the caller's user, files and network"

    def lines_of_limits(self) -> Iterator[str]:
        """Yield the limits."""
        yield from super().lines_of_limits()
        if self.spare_tasks:
            yield f"  RLIMIT_NPROC {self.spare_tasks} above the user's tasks"
