"""Pure decisions: from a Config, a command and what the host is, to a Plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from proc_sandbox.config import Config
from proc_sandbox.host import Host, Paths
from proc_sandbox.planner.linux import compile_plan, enforce, needs_cgroups
from proc_sandbox.planner.model import Plan
from proc_sandbox.result import Enforced, Unenforced

__all__ = ["Plan", "capabilities_of", "compile_plan", "needs_cgroups"]

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


def capabilities_of(host: Host) -> Mapping[str, Enforced | Unenforced]:
    """Return by which mechanism this host would enforce each limit and isolation."""
    config = Config(**PROBED, enforcement="best-effort")
    return enforce(config, host, Paths()).enforcement
