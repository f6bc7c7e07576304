"""Results made by hand."""

from __future__ import annotations

from typing import Any

import proc_sandbox as ps

__all__ = ["sample_result"]


def sample_result(**changes: Any) -> ps.Result:
    """Return the Result of an ordinary run, with some fields changed."""
    fields: dict[str, Any] = {
        "args": ("true",),
        "exit_code": 0,
        "signal": None,
        "execution_time": 0.25,
        "cpu_time": ps.CpuTime(0.125, 0.0),
        "peak_memory": None,
        "peak_processes": None,
        "throttled_time": None,
        "timed_out": False,
        "memory_exceeded": False,
        "cpu_time_exceeded": False,
        "processes_exceeded": None,
        "output_truncated": ps.Truncated(),
        "reason": ps.Reason.EXITED,
        "stdout": ps.Output(),
        "stderr": ps.Output(),
        "error": None,
        "enforcement": {},
    }
    return ps.Result(**{**fields, **changes})
