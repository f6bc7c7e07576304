"""What a Linux plan adds to the words of every plan."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proc_sandbox.planner.linux.plan import LinuxPlan

__all__ = ["words_of"]

ACCESS = {"read": "r", "system": "s", "write": "w", "private": "p", "device": "d", "foreign": "f"}


def words_of(plan: LinuxPlan) -> Iterator[str]:
    """Yield view, namespaces, identity, cgroups and confinement."""
    # The shared mounts first and together: their bytes are the key under which the launcher keeps the view.
    for mount in sorted(plan.mounts, key=lambda mount: not mount.shared):
        yield from ("mount", "shared" if mount.shared else "own", mount.kind, mount.source, mount.target, mount.options)
    for name in plan.namespaces:
        yield from ("unshare", name)
    yield from ("reach", plan.reach)
    yield from ("ids", str(plan.identity.uid), str(plan.identity.gid))
    if plan.identity.host_range:
        yield from ("host-ids", *map(str, plan.identity.host_range))
    yield from ("hostname", plan.hostname, "network", plan.network)
    for path, value in plan.sysctls:
        yield from ("sysctl", path, value)
    yield from cgroup_words(plan)
    yield from confinement_words(plan)
    if plan.oom_score_adj is not None:
        yield from ("oom-score-adj", str(plan.oom_score_adj))
    if plan.prepared is not None:
        yield from ("prepared", str(plan.prepared))


def cgroup_words(plan: LinuxPlan) -> Iterator[str]:
    if not plan.cgroup:
        return
    if plan.cgroup.version == 2:
        yield from ("cgroup2", plan.cgroup.directories[0][1])
    else:
        for controller, directory in plan.cgroup.directories:
            yield from ("cgroup1", controller, directory)
    for name, value in plan.cgroup.settings:
        yield from ("set", name, value)


def confinement_words(plan: LinuxPlan) -> Iterator[str]:
    if plan.landlock:
        yield from ("landlock-abi", str(plan.landlock.abi))
        if plan.landlock.network:
            yield "landlock-net"
        if plan.landlock.scope:
            yield "landlock-scope"
        for path, access in plan.landlock.rules:
            yield from ("landlock", ACCESS[access], path)
    if plan.seccomp:
        yield from ("seccomp", ",".join(plan.seccomp.options))
