"""Pure decisions: from a Config, a command and what the host is, to a Plan."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from proc_sandbox.config import Config
from proc_sandbox.host import Host, Paths
from proc_sandbox.later import load
from proc_sandbox.planner.model import Plan
from proc_sandbox.result import Enforced, Unenforced

__all__ = ["Plan", "capabilities_of", "compile_plan"]

PROBED: dict[str, Any] = {
    "timeout": 1.0,
    "memory_limit": 64 << 20,
    "cpu_limit": 50.0,
    "cpu_time_limit": 1.0,
    "max_processes": 10,
    "read_bps": 1 << 20,
    "write_bps": 1 << 20,
    "max_file_size": 1 << 20,
}


@functools.cache
def of(platform: str, name: str) -> Any:
    """Return what a platform's planner calls by that name; those of other platforms are never imported."""
    return load(f"{__name__}.{platform}.planner", name, {})


def compile_plan(config: Config, command: Sequence[str], host: Host, paths: Paths) -> Plan:
    """Decide everything that will be done.

    Raises:
        ConfigError: a value cannot be carried out on this platform; nothing was started.
        UnsupportedError: something asked for cannot be enforced here; nothing was started.
    """
    plan: Plan = of(host.platform, "compile_plan")(config, command, host, paths)
    return plan


def capabilities_of(host: Host) -> Mapping[str, Enforced | Unenforced]:
    """Return by which mechanism this host would enforce each limit and isolation."""
    config = Config(**PROBED, enforcement="best-effort")
    said: Mapping[str, Enforced | Unenforced] = of(host.platform, "enforce")(config, host, Paths()).enforcement
    return said
