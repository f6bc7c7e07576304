"""A plan as the launcher reads it: NUL-terminated words, a keyword and its operands each. A pure codec."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from proc_sandbox.version import __version__

if TYPE_CHECKING:
    from proc_sandbox.planner.unix.plan import LaunchedPlan

__all__ = ["encode", "encode_prefix"]


def join(words: Iterable[str]) -> bytes:
    """Encode words as bytes, each one ended by a NUL."""
    return os.fsencode("\0".join(words) + "\0")


def encode(plan: LaunchedPlan, variables: Mapping[str, str] | None = None, *, held: bool = False) -> bytes:
    """Return the words of a whole plan; variables: what the command's environment gets beside the plan's; held: somebody holds a
    handle to the run.
    """
    if plan.whole and not held and not variables:
        return plan.whole
    words = plan.prefix or encode_prefix(plan)
    if held:
        words += b"held\0"
    if variables:
        words += join(word for item in variables.items() for word in ("env", "=".join(item)))
    return words + join(plan.exec_words())


def encode_prefix(plan: LaunchedPlan) -> bytes:
    """Return the words of all but the command."""
    return join(prefix_words(plan))


def prefix_words(plan: LaunchedPlan) -> Iterator[str]:
    yield from ("version", __version__)
    yield from plan.own_words()
    yield from ("cwd", plan.cwd)
    for rlimit in plan.rlimits:
        yield from ("rlimit", rlimit.name, str(rlimit.value))
    yield from plan.watch_words()
    if plan.timeout:
        yield from ("timeout", str(plan.timeout))
    if plan.grace:
        yield from ("grace", str(plan.grace))
    yield from ("umask", str(plan.umask), "nice", str(plan.nice))
    for descriptor in plan.descriptors:
        yield from ("fd", str(descriptor))
    if plan.terminal:
        yield from ("terminal", plan.terminal)
    for name, value in plan.environment:
        yield from ("env", f"{name}={value}")
