"""From the limits of a plan to what a job is told, and what of it the plan had promised."""

from __future__ import annotations

from collections.abc import Iterable

from proc_sandbox.backends.windows.job import Bounds, NotKept
from proc_sandbox.backends.windows.winapi import (
    JOB_OBJECT_CPU_RATE_CONTROL_ENABLE,
    JOB_OBJECT_CPU_RATE_CONTROL_HARD_CAP,
    JOB_OBJECT_LIMIT_ACTIVE_PROCESS,
    JOB_OBJECT_LIMIT_DIE_ON_UNHANDLED_EXCEPTION,
    JOB_OBJECT_LIMIT_JOB_MEMORY,
    JOB_OBJECT_LIMIT_JOB_TIME,
    JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE,
    JOB_OBJECT_LIMIT_PRIORITY_CLASS,
    JOB_OBJECT_UILIMIT,
    PRIORITY_CLASSES,
    CpuRate,
    ExtendedLimits,
)
from proc_sandbox.planner.windows.plan import JobLimits

__all__ = ["bounds", "promised"]

HARD_CAP = JOB_OBJECT_CPU_RATE_CONTROL_ENABLE | JOB_OBJECT_CPU_RATE_CONTROL_HARD_CAP


def bounds(limits: JobLimits) -> Bounds:
    """Return what the job is told. Its memory is rounded up to whole pages by the system."""
    flags = {
        JOB_OBJECT_LIMIT_JOB_MEMORY: limits.memory,
        JOB_OBJECT_LIMIT_ACTIVE_PROCESS: limits.processes,
        JOB_OBJECT_LIMIT_JOB_TIME: limits.user_time,
        JOB_OBJECT_LIMIT_PRIORITY_CLASS: limits.priority,
        JOB_OBJECT_LIMIT_DIE_ON_UNHANDLED_EXCEPTION: limits.die_on_unhandled_exception,
        JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE: limits.kill_on_close,
    }
    extended = ExtendedLimits(
        flags=sum(flag for flag, value in flags.items() if value),
        job_memory=limits.memory,
        active_processes=limits.processes,
        job_time=limits.user_time,
        priority_class=PRIORITY_CLASSES[limits.priority] if limits.priority else 0,
    )
    ui = sum(JOB_OBJECT_UILIMIT[name.replace("_", "").upper()] for name in limits.ui)
    rate = CpuRate(HARD_CAP, limits.cpu_rate) if limits.cpu_rate else None
    return Bounds(extended, ui or None, rate)


def promised(lost: Iterable[NotKept]) -> list[NotKept]:
    """Return what a job has not kept and the plan counted on; that it ends with its last handle cannot be read back everywhere, and
    was tried by the probe.
    """
    return [item for item in lost if item.name != "kill_on_job_close"]
