"""The truth table: from the facts of a run to the one reason that ended it. Pure; never guesses from an exit code."""

from __future__ import annotations

import signal

from proc_sandbox.config import Config
from proc_sandbox.planner.model import Plan
from proc_sandbox.report import Ended, Report
from proc_sandbox.result import CpuTime, Enforced, Output, Pressure, Reason, Result, Truncated
from proc_sandbox.units import format_seconds, format_size

__all__ = ["judge", "reason_of"]


SIGKILL = 9
SIGXCPU = 24
"""Signals as Linux, macOS and the BSDs number them; Windows has neither."""


def reason_of(ended: Ended) -> Reason:
    """Return what ended the run. What the launcher itself did comes first: it kills once, for one reason.

    An out-of-memory kill by the cgroup counts when the command did not outlive it: a command whose child was killed and
    that then ended by itself has still exceeded its limit, which is said in memory_exceeded, but it ended by itself.
    """
    if not ended.done and ended.oom_kills:
        return Reason.MEMORY
    # The command may have ended in the moment in which a limit was found exceeded: then it ended by itself,
    # unless the kernel killed it for its memory.
    if ended.done:
        if ended.signal == SIGKILL:
            if ended.oom_kills:
                return Reason.MEMORY
            if ended.outside_oom_kills:
                return Reason.KILLED_OUTSIDE
        if ended.cpu_exceeded and ended.signal in (SIGKILL, SIGXCPU):
            return Reason.CPU_TIME  # RLIMIT_CPU was there before the launcher
        if ended.terminated:  # what it made of SIGTERM is its own; that it was to end is ours
            return Reason.TIMEOUT if ended.timed_out else Reason.CANCELLED
        return Reason.EXITED if ended.signal is None else Reason.SIGNALED
    for happened, reason in (
        (ended.memory_exceeded, Reason.MEMORY),
        (ended.timed_out, Reason.TIMEOUT),
        (ended.cpu_exceeded, Reason.CPU_TIME),
        (ended.tasks_exceeded, Reason.PROCESSES),
        (ended.cancelled, Reason.CANCELLED),
    ):
        if happened:
            return reason
    return Reason.KILLED_OUTSIDE


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def sentence(reason: Reason, config: Config, ended: Ended, status_signal: int | None) -> str | None:
    """Say in one line what ended the run, where it was not an ordinary exit."""
    if reason is Reason.EXITED:
        return None
    ran = f"(ran {format_seconds(ended.wall / 1e9)})"
    if reason is Reason.TIMEOUT:
        return f"wall time limit of {format_seconds(config.timeout or 0)} exceeded {ran}"
    if reason is Reason.CPU_TIME:
        return f"CPU time limit of {format_seconds(config.cpu_time_limit or 0)} exceeded {ran}"
    if reason is Reason.MEMORY:
        limit = f"memory limit of {format_size(config.memory_limit)}" if config.memory_limit else "the host's memory"
        return f"{limit} exceeded {ran}"
    if reason is Reason.PROCESSES:
        limit = f"limit of {config.max_processes} processes" if config.max_processes else "number of tasks that can be watched"
        return f"{limit} exceeded {ran}"
    if reason is Reason.SIGNALED and status_signal is not None:
        sender = "which the caller had sent" if ended.sent >> (status_signal - 1) & 1 else "sent from inside"
        return f"killed by {signal_name(status_signal)}, {sender} {ran}"
    if reason is Reason.CANCELLED:
        return f"cancelled by the caller {ran}"
    if reason is Reason.KILLED_OUTSIDE:
        if ended.outside_oom_kills:
            return f"killed by the kernel because memory ran out outside the sandbox, not by a limit of its own {ran}"
        return f"killed from outside the sandbox, by no limit of its own {ran}"
    return None


def refused_forks(plan: Plan, ended: Ended) -> bool | None:
    """Return whether a fork was refused by the limit, or the run ended for it; None where nobody counts: RLIMIT_NPROC."""
    how = plan.enforcement.get("max_processes")
    if isinstance(how, Enforced) and how.strength == "sampled" or ended.tasks_exceeded:
        return ended.tasks_exceeded
    if ended.refused_forks < 0:
        return None if isinstance(how, Enforced) else False
    return ended.refused_forks > 0


def pressure(ended: Ended) -> Pressure | None:
    """Return for how long the run waited; None where the kernel does not tell."""
    cpu, memory, io = ended.cpu_pressure, ended.memory_pressure, ended.io_pressure
    return None if min(cpu, memory, io) < 0 else Pressure(cpu / 1e9, memory / 1e9, io / 1e9)


def judge(plan: Plan, config: Config, report: Report) -> Result:
    """Return what the facts mean."""
    ended = report.ended
    reason = reason_of(ended)
    number = SIGKILL if plan.signals and not ended.done else ended.signal
    # Not Result(...): a frozen dataclass sets its fields one by one through object.__setattr__, longer than all the judging takes.
    result = object.__new__(Result)
    result.__dict__.update(
        args=plan.command,
        exit_code=ended.exit_code,
        signal=number,
        execution_time=ended.wall / 1e9,
        cpu_time=CpuTime(ended.user / 1e9, ended.system / 1e9),
        peak_memory=ended.peak if ended.peak >= 0 else None,
        peak_processes=ended.tasks or None,
        throttled_time=ended.throttled / 1e9 if ended.throttled >= 0 else None,
        timed_out=reason is Reason.TIMEOUT,
        memory_exceeded=reason is Reason.MEMORY or ended.oom_kills > 0,
        cpu_time_exceeded=ended.cpu_exceeded,
        processes_exceeded=refused_forks(plan, ended),
        output_truncated=Truncated(report.stdout_truncated, report.stderr_truncated),
        reason=reason,
        stdout=Output(report.stdout),
        stderr=Output(report.stderr),
        error=sentence(reason, config, ended, number),
        enforcement=dict(plan.enforcement),
        read_bytes=ended.disk_read if ended.disk_read >= 0 else None,
        written_bytes=ended.disk_written if ended.disk_written >= 0 else None,
        pressure=pressure(ended),
    )
    return result
