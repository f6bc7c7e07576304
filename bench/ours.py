"""What of ours is measured: the Config with every limit, and by which mechanism each of them is enforced."""

from __future__ import annotations

import os
import shutil
import warnings
from typing import Any

import proc_sandbox as ps
from bench.table import Table

__all__ = ["LIMITS", "PYTHON", "TRUE", "configs", "enforcement_table", "hot"]

TRUE = ["/bin/true"]
PYTHON = [shutil.which("python3", path="/usr/bin:/bin") or "python3", "-c", "print(1)"]
LIMITS: dict[str, Any] = {
    "timeout": 10,
    "memory_limit": "256M",
    "max_processes": 32,
    "cpu_time_limit": 5,
    "cpu_limit": 100,
    "max_file_size": "16M",
}
"""Over the isolation, which is always whole."""
WITHOUT_CGROUPS = ps.best_effort("cpu_limit")
"""What cannot be had everywhere; the table of mechanisms says where it was not, so no warning need."""
warnings.simplefilter("ignore", ps.UnenforcedWarning)


def hot(**changes: Any) -> ps.Config:
    """Return the Config of a run for which nothing is prepared ahead."""
    return ps.Config(**{**LIMITS, "enforcement": WITHOUT_CGROUPS, "prepared": 0, **changes})


def configs(ahead: int = 1) -> dict[str, ps.Config]:
    """Return the Configs that are measured, by what is said of them; ahead: how many sandboxes are prepared."""
    return {"ps.run hot": hot(), "ps.run prepared": hot(prepared=ahead)}


def enforcement_table() -> Table:
    """Return by which mechanism each limit and isolation is enforced here."""
    how = ps.run(TRUE, config=hot()).enforcement
    rows = [
        (name, LIMITS_SAID.get(name, ""), by.mechanism if isinstance(by, ps.Enforced) else f"NOT: {by.reason}")
        for name, by in how.items()
    ]
    return Table(("limit or isolation", "value", f"enforced here ({user()}) by"), rows, left=True)


LIMITS_SAID = {name: str(value) for name, value in LIMITS.items()}


def user() -> str:
    return "as root" if os.geteuid() == 0 else "as an ordinary user"
