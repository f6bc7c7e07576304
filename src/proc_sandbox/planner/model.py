"""The plan: everything that will be done to a command, as data that can be printed, compared and pickled.

What is the same on every system is here; what a platform adds lies with its planner.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from proc_sandbox.result import Enforced, Unenforced

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Plan"]


def as_data(value: object) -> object:
    """Return a value of the plan as JSON-ready data: named tuples as objects."""
    if isinstance(value, tuple):
        names = getattr(value, "_fields", None)
        return {name: as_data(getattr(value, name)) for name in names} if names else [as_data(item) for item in value]
    return value


# Nothing is made of this class itself: its methods come with each platform's, and making them twice costs at every start.
@dataclass(frozen=True, kw_only=True, init=False, repr=False, eq=False)
class Plan:
    """What will be done, and by which mechanism each limit and isolation is enforced.

    A platform's own plan has fields beside these (mounts, a job object's limits, ...): to be read with describe() and to_json(),
    not to be relied on.
    """

    signals: ClassVar[bool] = True
    """Whether what is ended on this platform is ended by a signal."""

    command: tuple[str, ...]
    executable: str
    cwd: str
    environment: tuple[tuple[str, str], ...]
    timeout: int = 0
    """Wall clock, ns; 0: none."""
    cpu_time: int = 0
    """CPU time, ns; 0: none."""
    enforcement: Mapping[str, Enforced | Unenforced] = field(default_factory=dict, hash=False)

    def with_command(self, command: Sequence[str]) -> Self:
        """Return the plan for one command: what is planned of a Config is the same for all of them."""
        plan = object.__new__(type(self))
        plan.__dict__.update(self.__dict__, command=tuple(command))
        return plan

    def to_dict(self) -> dict[str, object]:
        """Return the plan as JSON-ready data."""
        data = {name: as_data(value) for name, value in self.__dict__.items() if name not in ("prefix", "whole", "enforcement")}
        data["enforcement"] = {name: how._asdict() for name, how in self.enforcement.items()}
        return data

    def to_json(self) -> str:
        """Return the plan as JSON text."""
        import json

        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False)

    def describe(self) -> str:
        """Return the plan for human readers."""
        return "\n".join(
            (*self.lines_of_command(), *self.lines_of_isolation(), *self.lines_of_limits(), *self.lines_of_environment())
        )

    def lines_of_command(self) -> Iterator[str]:
        """Yield what is run, and where."""
        import shlex

        yield f"command      {shlex.join(self.command)}"
        yield f"executable   {self.executable}"
        yield f"directory    {self.cwd}"

    def lines_of_isolation(self) -> Iterator[str]:
        """Yield what keeps the command from the host: a platform's own."""
        return iter(())

    def lines_of_limits(self) -> Iterator[str]:
        """Yield the limits, a platform's own after these."""
        yield "limits"
        if self.timeout:
            yield f"  timeout {self.timeout / 1e9:g} s"
        if self.cpu_time:
            yield f"  CPU time {self.cpu_time / 1e9:g} s"

    def lines_of_environment(self) -> Iterator[str]:
        """Yield the variables, and what enforces what."""
        yield "environment"
        yield from (f"  {name}={value}" for name, value in self.environment)
        yield "enforcement"
        for name, how in self.enforcement.items():
            said = how.mechanism if isinstance(how, Enforced) else f"NOT ENFORCED: {how.reason}; remedy: {how.remedy}"
            yield f"  {name:<16}{said}"
