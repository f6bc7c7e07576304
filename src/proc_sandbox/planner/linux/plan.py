"""What is done to a command on Linux."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

from proc_sandbox.planner.linux.words import words_of
from proc_sandbox.planner.unix.plan import LaunchedPlan
from proc_sandbox.planner.unix.words import encode_prefix

__all__ = ["NEW_TERMINAL", "TERMINALS", "Cgroup", "Filter", "Identity", "Landlock", "LinuxPlan", "Mount"]

TERMINALS = "/dev/pts"
NEW_TERMINAL = f"{TERMINALS}/<new>"
"""In a plan that is only looked at, and where at_terminal() puts the name of a run's own."""


class Mount(NamedTuple):
    """One operation that builds the view.

    kind: bind, alias (inside the view), tmpfs, proc, dir, file, symlink, device or seal (make read-only).
    shared: part of the view that all runs of this plan inherit, built once.
    """

    kind: str
    target: str
    source: str = "-"
    options: str = ""
    shared: bool = False


class Identity(NamedTuple):
    """Who the command is inside, and as root the range of host uids from which a run takes its own."""

    uid: int = 1000
    gid: int = 1000
    host_range: tuple[int, int] | None = None


class Cgroup(NamedTuple):
    """Where the run's cgroups are made, and what is written to them, in order."""

    version: int
    directories: tuple[tuple[str, str], ...]
    settings: tuple[tuple[str, str], ...]


class Landlock(NamedTuple):
    """The rule set of landlock(7): access is read, system (read, if it can be reached), foreign (read, and of what the command
    owns nothing: see the launcher), write, private (written by nobody else) or device."""

    abi: int
    rules: tuple[tuple[str, str], ...]
    network: bool
    scope: bool


class Filter(NamedTuple):
    """The system call filter's options beyond its base: unix, inet, connect, memfd, setid, ipc, buffers, timers, pids, metadata."""

    options: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class LinuxPlan(LaunchedPlan):
    """What will be done, and by which mechanism each limit and isolation is enforced."""

    namespaces: tuple[str, ...]
    reach: str
    """How the whole run is ended at once: with its pid namespace, by kill(-1) in its Landlock domain, or child by child."""
    network: str
    identity: Identity
    hostname: str
    mounts: tuple[Mount, ...]
    sysctls: tuple[tuple[str, str], ...]
    cgroup: Cgroup | None
    landlock: Landlock | None
    seccomp: Filter | None
    oom_score_adj: int | None
    """Who is killed first when the host itself runs out of memory: proc_pid_oom_score_adj(5). None: as the caller's."""

    prepared: int | None = None
    """How many sandboxes are kept prepared for its next runs; None: one, where runs follow one another."""

    def lines_of_isolation(self) -> Iterator[str]:
        """Yield namespaces, identity and view."""
        yield f"namespaces   {' '.join(self.namespaces) or 'none'}; network: {self.network}; ended by {self.reach}"
        yield f"identity     uid {self.identity.uid}, gid {self.identity.gid}{self.host_identity()}"
        yield "view"
        for mount in self.mounts:
            source = f" <- {mount.source!r}" if mount.source != "-" else ""
            options = f" ({mount.options})" if mount.options else ""
            yield f"  {'shared' if mount.shared else 'own   '} {mount.kind:<8}{mount.target}{source}{options}"

    def lines_of_limits(self) -> Iterator[str]:
        """Yield the limits."""
        yield from super().lines_of_limits()
        if self.cgroup:
            yield from (f"  cgroup v{self.cgroup.version} {name} = {value}" for name, value in self.cgroup.settings)
        if self.oom_score_adj is not None:
            yield f"  when the host has no memory left: oom_score_adj {self.oom_score_adj}"

    def at_terminal(self, name: str) -> LinuxPlan:
        """Return the plan with the terminal of one run in its view, under the name that it has on the host: where else ttyname(3) would
        not find it. One whose name is no terminal's there stays without.
        """
        if not self.terminal:
            return self
        known = name if name.startswith(f"{TERMINALS}/") else ""
        mounts = tuple(
            mount._replace(target=known, source=known if mount.kind == "bind" else mount.source) if mount.target == NEW_TERMINAL else mount
            for mount in self.mounts
            if known or mount.target != NEW_TERMINAL
        )
        landlock = self.landlock
        if landlock:
            rules = ((known if path == NEW_TERMINAL else path, access) for path, access in landlock.rules)
            landlock = landlock._replace(rules=tuple(rule for rule in rules if rule[0]))
        plan = replace(self, mounts=mounts, landlock=landlock, terminal=known or "-")
        return replace(plan, prefix=encode_prefix(plan))

    def host_identity(self) -> str:
        """Say what the identity is on the host."""
        if not self.identity.host_range:
            return ", on the host the caller's own"
        first, count = self.identity.host_range
        return f", on the host one of {first}..{first + count - 1}"

    def own_words(self) -> Iterator[str]:
        """Yield the words of what Linux adds."""
        return words_of(self)
