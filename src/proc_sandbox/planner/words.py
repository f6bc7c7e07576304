"""A plan as the launcher reads it: NUL-terminated words, a keyword and its operands each. A pure codec."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from proc_sandbox.version import __version__

if TYPE_CHECKING:
    from proc_sandbox.planner.launched import LaunchedPlan

__all__ = ["encode", "encode_prefix"]


def join(words: Iterator[str]) -> bytes:
    """Encode words as bytes, each one ended by a NUL."""
    return os.fsencode("\0".join(words) + "\0")


def encode(plan: LaunchedPlan) -> bytes:
    """Return the words of a whole plan."""
    prefix = plan.prefix or encode_prefix(plan)
    return prefix + join(iter(("exec", plan.executable, *plan.command)))


def encode_prefix(plan: LaunchedPlan) -> bytes:
    """Return the words of all but the command."""
    return join(prefix_words(plan))


def prefix_words(plan: LaunchedPlan) -> Iterator[str]:
    yield from ("version", __version__)
    yield from plan.own_words()
    yield from ("cwd", plan.cwd)
    for rlimit in plan.rlimits:
        yield from ("rlimit", rlimit.name, str(rlimit.value))
    if plan.sampling:
        yield from ("sample", str(plan.sampling.interval))
        if plan.sampling.memory:
            yield from ("sampled-memory", str(plan.sampling.memory))
        if plan.sampling.cpu:
            yield from ("sampled-cpu", str(plan.sampling.cpu))
        if plan.sampling.tasks:
            yield from ("sampled-tasks", str(plan.sampling.tasks))
    if plan.timeout:
        yield from ("timeout", str(plan.timeout))
    if plan.cpu_time:
        yield from ("cpu-time", str(plan.cpu_time))
    yield from ("umask", str(plan.umask), "nice", str(plan.nice))
    for descriptor in plan.descriptors:
        yield from ("fd", str(descriptor))
    for name, value in plan.environment:
        yield from ("env", f"{name}={value}")
