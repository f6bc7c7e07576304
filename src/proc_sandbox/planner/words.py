"""The plan as the launcher reads it: NUL-terminated words, a keyword and its operands each. A pure codec."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from proc_sandbox.version import __version__

if TYPE_CHECKING:
    from proc_sandbox.planner.model import Plan

__all__ = ["encode", "encode_prefix"]

ACCESS = {"read": "r", "system": "s", "write": "w", "private": "p", "device": "d"}


def join(words: Iterator[str]) -> bytes:
    """Encode words as bytes, each one ended by a NUL."""
    return os.fsencode("\0".join(words) + "\0")


def encode(plan: Plan) -> bytes:
    """Return the words of a whole plan."""
    prefix = plan.prefix or encode_prefix(plan)
    return prefix + join(iter(("exec", plan.executable, *plan.command)))


def encode_prefix(plan: Plan) -> bytes:
    """Return the words of all but the command."""
    return join(prefix_words(plan))


def prefix_words(plan: Plan) -> Iterator[str]:
    yield from ("version", __version__)
    # The shared mounts first and together: their bytes are the key under which the launcher keeps the view.
    for mount in sorted(plan.mounts, key=lambda mount: not mount.shared):
        yield from ("mount", "shared" if mount.shared else "own", mount.kind, mount.source, mount.target, mount.options)
    for name in plan.namespaces:
        yield from ("unshare", name)
    yield from ("reach", plan.reach)
    yield from ("ids", str(plan.identity.uid), str(plan.identity.gid))
    if plan.identity.host_range:
        yield from ("host-ids", *map(str, plan.identity.host_range))
    yield from ("hostname", plan.hostname, "network", plan.network, "cwd", plan.cwd)
    for path, value in plan.sysctls:
        yield from ("sysctl", path, value)
    for rlimit in plan.rlimits:
        yield from ("rlimit", rlimit.name, str(rlimit.value))
    yield from cgroup_words(plan)
    yield from confinement_words(plan)
    if plan.timeout:
        yield from ("timeout", str(plan.timeout))
    if plan.cpu_time:
        yield from ("cpu-time", str(plan.cpu_time))
    yield from ("umask", str(plan.umask), "nice", str(plan.nice))
    if plan.oom_score_adj is not None:
        yield from ("oom-score-adj", str(plan.oom_score_adj))
    for descriptor in plan.descriptors:
        yield from ("fd", str(descriptor))
    for name, value in plan.environment:
        yield from ("env", f"{name}={value}")


def cgroup_words(plan: Plan) -> Iterator[str]:
    if plan.cgroup:
        if plan.cgroup.version == 2:
            yield from ("cgroup2", plan.cgroup.directories[0][1])
        else:
            for controller, directory in plan.cgroup.directories:
                yield from ("cgroup1", controller, directory)
        for name, value in plan.cgroup.settings:
            yield from ("set", name, value)
    if plan.sampling:
        yield from ("sample", str(plan.sampling.interval))
        if plan.sampling.memory:
            yield from ("sampled-memory", str(plan.sampling.memory))
        if plan.sampling.cpu:
            yield from ("sampled-cpu", str(plan.sampling.cpu))
        if plan.sampling.tasks:
            yield from ("sampled-tasks", str(plan.sampling.tasks))


def confinement_words(plan: Plan) -> Iterator[str]:
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
