"""What is done to a command on Windows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from proc_sandbox.planner.model import Plan

__all__ = ["DENY_ONLY", "SCRATCH", "TICK", "UI", "Access", "JobLimits", "Token", "WindowsPlan"]

SCRATCH = "<scratch>"
"""In a plan: the directory of the run's own, made when it starts and gone with it. No file on Windows can have such a name."""
TICK = 100
"""ns: the unit of times in job objects. JOBOBJECT_BASIC_LIMIT_INFORMATION"""
UI = (
    "handles", "read_clipboard", "write_clipboard", "system_parameters", "display_settings", "global_atoms", "desktop", "exit_windows",
)  # fmt: skip
"""All of JOBOBJECT_BASIC_UI_RESTRICTIONS."""
DENY_ONLY = (
    "S-1-5-114",  # local account and member of Administrators
    "S-1-5-32-544",  # Administrators
    "S-1-5-32-547",  # Power Users
    "S-1-5-32-548",  # Account Operators
    "S-1-5-32-549",  # Server Operators
    "S-1-5-32-550",  # Print Operators
    "S-1-5-32-551",  # Backup Operators
    "S-1-5-32-556",  # Network Configuration Operators
    "S-1-5-32-562",  # Distributed COM Users
    "S-1-5-32-569",  # Cryptographic Operators
    "S-1-5-32-578",  # Hyper-V Administrators
    "S-1-5-32-580",  # Remote Management Users
    "S-1-5-21-*-512",  # Domain Admins
    "S-1-5-21-*-518",  # Schema Admins
    "S-1-5-21-*-519",  # Enterprise Admins
    "S-1-5-21-*-520",  # Group Policy Creator Owners
)
"""Groups that a command has only for what is denied to them. "Well-known SIDs"; CreateRestrictedToken"""


class JobLimits(NamedTuple):
    """What the job object is told; 0 and "" stand for what is not limited."""

    memory: int = 0
    """JOB_MEMORY, bytes of commit charge, of all processes together."""
    processes: int = 0
    """ACTIVE_PROCESS."""
    user_time: int = 0
    """JOB_TIME, in units of 100 ns, user mode only."""
    cpu_rate: int = 0
    """Hard cap, in hundredths of a percent of all processors: 10,000 is the whole machine."""
    priority: str = ""
    """PRIORITY_CLASS: below normal or idle; inside it cannot be raised."""
    ui: tuple[str, ...] = UI
    die_on_unhandled_exception: bool = True
    kill_on_close: bool = True


class Token(NamedTuple):
    """What is taken from the caller's token: all privileges but to pass through directories; groups; its integrity.

    integrity: "low", or "" where the AppContainer has one of its own.
    """

    deny_only: tuple[str, ...] = DENY_ONLY
    integrity: str = ""


class Access(NamedTuple):
    """One entry of a file's access control, there as long as the run is.

    kind: read (and execute), write (and read), deny_write; where there is no AppContainer the label of those that may write: low
    (integrity), or medium below a directory that has low.
    holder: run (its AppContainer alone), or caller: a capability that all runs of one caller have, for the interpreter's
    directory, which is too large to be changed for each run.
    """

    path: str
    kind: str
    directory: bool = True
    holder: str = "run"


@dataclass(frozen=True, kw_only=True)
class WindowsPlan(Plan):
    """What will be done to a command on Windows."""

    signals: ClassVar[bool] = False

    job: JobLimits
    token: Token | None
    app_container: tuple[str, ...] | None
    """The capabilities of the run's AppContainer; None: it has no AppContainer."""
    access: tuple[Access, ...] = ()
    mitigations: tuple[str, ...] = ()
    scratch: bool = True
    """A directory of the run's own is made; the name <scratch> stands for it."""

    def lines_of_isolation(self) -> Iterator[str]:
        """Yield what keeps the command from the host."""
        if self.app_container is None:
            yield "AppContainer none"
        else:
            yield f"AppContainer of the run's own; capabilities: {' '.join(self.app_container) or 'none'}"
        if self.token:
            yield f"token        privileges deleted, administrators' groups deny-only, integrity {self.token.integrity or 'of the AppContainer'}"
        if self.mitigations:
            yield f"mitigations  {' '.join(self.mitigations)}"
        yield "access"
        yield from (f"  {item.kind:<10} {item.path} (of the {item.holder})" for item in self.access)

    def lines_of_limits(self) -> Iterator[str]:
        """Yield the limits."""
        yield from super().lines_of_limits()
        yield from (f"  job {name} = {value}" for name, value in self.job._asdict().items() if value not in (0, "", ()))
