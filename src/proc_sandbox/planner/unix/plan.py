"""A plan that the launcher carries out: what every system that has one does between fork and exec."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from proc_sandbox.config import Config
from proc_sandbox.planner.model import Plan

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["MAX_SAMPLED_TASKS", "SAMPLE_INTERVAL", "LaunchedPlan", "Rlimit", "Sampling", "plan_rlimits"]

SAMPLE_INTERVAL = 10_000_000
"""ns between two looks at a tree of which something is measured."""
MAX_SAMPLED_TASKS = 2000
"""Tasks of a tree that is sampled: more could not be looked at often enough."""


class Rlimit(NamedTuple):
    """A resource limit by its name in getrlimit(2); soft and hard are the same."""

    name: str
    value: int


class Sampling(NamedTuple):
    """What the launcher watches where no cgroup can: interval in ns, memory in bytes, CPU in thousandths of a core, tasks."""

    interval: int
    memory: int = 0
    cpu: int = 0
    tasks: int = 0


def plan_rlimits(config: Config, *, pipe_handlers: bool) -> tuple[Rlimit, ...]:
    """Return what setrlimit(2) holds for each process by itself, on every system.

    Args:
        pipe_handlers: core files can be piped to a program (Linux), which ignores 0; at 1 the kernel skips it too: core(5),
            "Piping core dumps to a program".
    """
    limits = [Rlimit("RLIMIT_NOFILE", config.max_open_files)]
    if not config.core_dumps:
        limits.append(Rlimit("RLIMIT_CORE", 1 if pipe_handlers else 0))
    if config.max_file_size is not None:
        limits.append(Rlimit("RLIMIT_FSIZE", config.max_file_size))
    if config.cpu_time_limit is not None:
        limits.append(Rlimit("RLIMIT_CPU", math.ceil(config.cpu_time_limit) + 1))
    return tuple(limits)


@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)  # as Plan
class LaunchedPlan(Plan):
    """What the launcher is told, beside what a platform adds."""

    rlimits: tuple[Rlimit, ...] = ()
    sampling: Sampling | None = None
    grace: int = 0
    """ns between SIGTERM and SIGKILL; 0: SIGKILL at once."""
    umask: int = 0o022
    nice: int = 0
    descriptors: tuple[int, ...] = (0, 1, 2)
    terminal: str = ""
    """The name inside of the terminal that descriptor 0 is, which becomes the controlling one; "-" where it has none; "": no terminal."""
    prefix: bytes = field(default=b"", repr=False, compare=False)
    """The words of all but the command, encoded once for all runs of a Config."""
    whole: ClassVar[bytes] = b""
    """All words of a run that nobody holds, encoded once for all runs of a command. No field, so that a plan of which something is
    replaced has none.
    """

    def with_command(self, command: Sequence[str]) -> Self:
        """Return the plan for one command: what is planned of a Config is the same for all of them."""
        plan = super().with_command(command)
        plan.__dict__.pop("whole", None)
        return plan

    def at_terminal(self, name: str) -> Self:
        """Return the plan for a run on the terminal of that name; "": it has none, or there is none."""
        del name
        return self

    def own_words(self) -> Iterator[str]:
        """Yield the words of what the platform adds."""
        return iter(())

    def watch_words(self) -> Iterator[str]:
        """Yield the words of what is looked after by looking."""
        if self.sampling:
            yield from ("sample", str(self.sampling.interval))
            if self.sampling.memory:
                yield from ("sampled-memory", str(self.sampling.memory))
            if self.sampling.cpu:
                yield from ("sampled-cpu", str(self.sampling.cpu))
            if self.sampling.tasks:
                yield from ("sampled-tasks", str(self.sampling.tasks))
        if self.cpu_time:
            yield from ("cpu-time", str(self.cpu_time))

    def exec_words(self) -> Sequence[str]:
        """Return the last words: what is executed, and its arguments."""
        return ("exec", self.executable, *self.command)

    def words(self) -> tuple[str, ...]:
        """Return the plan as the launcher reads it."""
        from proc_sandbox.planner.unix.words import encode

        return tuple(word.decode("utf-8", "surrogateescape") for word in encode(self).split(b"\0")[:-1])

    def command_line(self, launcher: str = "launcher") -> str:
        """Return the shell command that repeats this run by hand."""
        import shlex

        return shlex.join([launcher, "run", *self.words()])

    def lines_of_limits(self) -> Iterator[str]:
        """Yield the limits."""
        yield from super().lines_of_limits()
        if self.terminal:
            yield f"  a terminal of its own: {self.terminal}"
        if self.grace:
            yield f"  {self.grace / 1e9:g} s from SIGTERM to SIGKILL"
        yield from (f"  {rlimit.name} {rlimit.value}" for rlimit in self.rlimits)
        if self.sampling:
            yield f"  sampled every {self.sampling.interval / 1e6:g} ms: {self.sampling}"
