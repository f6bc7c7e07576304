"""For each limit and isolation its mechanisms, best first; the first that the host has is taken.

Each platform's table of them is data beside its planner: the planner walks it, and the documentation prints it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from proc_sandbox.config import BestEffort, Config
from proc_sandbox.errors import UnsupportedError
from proc_sandbox.host import Host, Paths
from proc_sandbox.result import Enforced, Unenforced

__all__ = [
    "ISOLATIONS", "LIMITS", "Choices", "Ladder", "Rung", "both", "choose", "choose_all", "choose_hiding", "either", "feature", "never", "nothing", "refuse",
]  # fmt: skip

LIMITS = (
    "timeout", "memory_limit", "cpu_limit", "cpu_time_limit", "max_processes", "read_bps", "write_bps", "max_file_size",
)  # fmt: skip
"""Asked for by who names a value: by default there is none."""
ISOLATIONS = ("files", "privileges", "processes", "ipc", "syscalls")
"""Asked for by everybody, like network_access, whose mechanism depends on what is granted."""


Lacks = Callable[[Host], "tuple[str, str] | None"]
"""What a host lacks of a mechanism, as (reason, remedy), or None."""


class Rung(NamedTuple):
    """One mechanism: its key for the planner, its name for people, and whether (or why not) a host has it."""

    key: str
    mechanism: str
    lacks: Lacks
    strength: str = "kernel"
    weaker: bool = False
    """As sure as a better one, but with less to be had: the remedy is told."""
    name: str = ""
    """What it is called where it is missing. Default: as where it is there."""


Ladder = Mapping[str, "tuple[Rung, ...]"]
"""The mechanisms of each limit and isolation."""
NOTHING_TO_HIDE = Enforced("nothing of it is to be seen")


class Choices(NamedTuple):
    """Per limit and isolation the rung that was taken ("" for none), and what is said of it."""

    rungs: Mapping[str, str]
    enforcement: Mapping[str, Enforced | Unenforced]

    def uses(self, key: str) -> bool:
        """Return whether any limit stands on that rung."""
        return key in self.rungs.values()


def never(reason: str, remedy: str) -> Lacks:
    """Return why a mechanism that is there does not do what its limit promises."""
    return lambda host: (reason, remedy)


def feature(*names: str) -> Lacks:
    """Return what a host lacks of some features, as (reason, remedy), or None."""

    def lacks(host: Host) -> tuple[str, str] | None:
        for name in names:
            found = host.feature(name)
            if not found:
                return found.reason, found.remedy
        return None

    return lacks


def nothing(host: Host) -> None:
    """Return None: every host has it."""


def either(*ways: Lacks) -> Lacks:
    """Return what a host lacks of the first way, if it has none of them."""

    def lacks(host: Host) -> tuple[str, str] | None:
        missing = [way(host) for way in ways]
        return None if None in missing else missing[0]

    return lacks


def both(*parts: Lacks) -> Lacks:
    """Return the first thing that a host lacks."""

    def lacks(host: Host) -> tuple[str, str] | None:
        return next((lack for lack in (part(host) for part in parts) if lack), None)

    return lacks


def choose(field: str, config: Config, host: Host, ladder: Ladder) -> tuple[str, Enforced | Unenforced]:
    """Take the best mechanism that the host has.

    Returns:
        The rung's key ("" if there is none) and what enforcement says of it.

    Raises:
        UnsupportedError: the host has none, and enforcement is strict for this field.
    """
    missing: list[tuple[str, str]] = []
    for rung in ladder[field]:
        lack = rung.lacks(host)
        if lack is None:
            better = missing[0][1] if missing and (rung.weaker or rung.strength != "kernel") else ""
            return rung.key, Enforced(rung.mechanism, rung.strength, better)
        missing.append((f"{rung.name or rung.mechanism}: {lack[0]}", lack[1]))
    return "", refuse(field, config, "; ".join(reason for reason, _ in missing), missing[0][1])


def choose_hiding(config: Config, host: Host, ladder: Ladder, paths: Paths, *, seen: bool) -> tuple[str, Enforced | Unenforced]:
    """As choose(), of hidden_paths: what is not there is told, for it may be a slip of the pen.

    Args:
        seen: Whether a command would see anything of it. Else no mechanism is needed.

    Raises:
        UnsupportedError: as choose().
    """
    key, how = choose("hidden_paths", config, host, ladder) if seen else ("", NOTHING_TO_HIDE)
    if not paths.missing:
        return key, how
    told = f"; not there: {', '.join(map(repr, paths.missing))}"
    if isinstance(how, Enforced):
        return key, how._replace(mechanism=how.mechanism + told)
    return key, how._replace(reason=how.reason + told)


def choose_all(
    config: Config, host: Host, ladder: Ladder, more: Iterable[str]
) -> tuple[dict[str, str], dict[str, Enforced | Unenforced]]:
    """Take the best mechanism of each limit that is set, of more fields by name, and of each isolation.

    Returns:
        By field the rungs' keys, and what enforcement says of them: for the planner to go on with.

    Raises:
        UnsupportedError: the host has none for one of them, and enforcement is strict for it.
    """
    asked = [name for name in LIMITS if getattr(config, name) is not None]
    taken = {name: choose(name, config, host, ladder) for name in (*asked, *more, *ISOLATIONS)}
    return {name: key for name, (key, _) in taken.items()}, {name: how for name, (_, how) in taken.items()}


def refuse(field: str, config: Config, reason: str, remedy: str) -> Unenforced:
    """Return Unenforced where the caller accepts that, else raise UnsupportedError."""
    if tolerated(field, config):
        return Unenforced(reason, remedy)
    raise UnsupportedError(field, reason, remedy)


def tolerated(field: str, config: Config) -> bool:
    enforcement = config.enforcement
    if isinstance(enforcement, BestEffort):
        return not enforcement.fields or field in enforcement.fields
    return enforcement == "best-effort"
