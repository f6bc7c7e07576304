"""How a run ended, for the person who started it: one line, and with --stats a table, on stderr."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

import proc_sandbox as ps
from proc_sandbox.cli.printing import paint, print_table, wants_colour
from proc_sandbox.units import format_seconds, format_size

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["print_stats", "print_verdict", "verdict_line"]

SHORT = {
    ps.Reason.TIMEOUT: "timed out",
    ps.Reason.CPU_TIME: "out of CPU time",
    ps.Reason.MEMORY: "out of memory",
    ps.Reason.PROCESSES: "too many processes",
}
"""The limits, each in a word or two; what follows says all of it."""
EXPECTED = {getattr(signal, name, None) for name in ("SIGINT", "SIGPIPE")} - {None}
"""Signals that end a command every day, of which a shell says nothing either."""


def verdict_line(result: ps.Result) -> str:
    """Return what ended a run, in one line."""
    if result.reason is not ps.Reason.EXITED:
        short = SHORT.get(result.reason)
        return f"{short}: {result.error}" if short else str(result.error)
    also = "; the memory limit was exceeded on the way" if result.memory_exceeded else ""
    also += "; forks were refused by the limit of processes" if result.processes_exceeded else ""
    return f"exited with {result.exit_code} (ran {format_seconds(result.execution_time)}){also}"


def colour_of(result: ps.Result) -> str:
    if result.ok:
        return "green"
    return "red" if result.reason in (ps.Reason.KILLED_OUTSIDE, ps.Reason.SIGNALED) else "yellow"


def print_verdict(result: ps.Result, colour: str, *, always: bool) -> None:
    """Print what ended a run; nothing where that was an ordinary exit, or as ordinary a signal, unless always is asked for."""
    if not always and (
        result.reason is ps.Reason.EXITED or result.reason is ps.Reason.SIGNALED and result.signal in EXPECTED
    ):
        return
    line = verdict_line(result)
    print(
        f"proc-sandbox: {paint(line, colour_of(result)) if wants_colour(colour, sys.stderr) else line}", file=sys.stderr
    )


SHORTEST = 0.1
"""Seconds of which a share of a processor can be told: in less most of it is the sandbox's own."""


def size(value: float) -> str:
    return format_size(int(value))


def number(value: float) -> str:
    return str(int(value))


def percent(value: float) -> str:
    return f"{value:.4g} %"


def used(result: ps.Result) -> dict[str, tuple[float | None, Callable[[float], str]]]:
    """Return what was used of what has a limit, by field, and what prints it; None where that was not measured."""
    seconds, cpu = result.execution_time, result.cpu_time.total
    return {
        "timeout": (seconds, format_seconds),
        "cpu_time_limit": (cpu, format_seconds),
        "cpu_limit": (100 * cpu / seconds if seconds > SHORTEST else None, percent),
        "memory_limit": (result.peak_memory, size),
        "max_processes": (result.peak_processes, number),
        "read_bps": (result.read_bytes, size),
        "write_bps": (result.written_bytes, size),
    }


LIMITS: dict[str, Callable[[float], str]] = {
    "max_output": size,
    "max_file_size": size,
    "tmp_size": size,
    "max_open_files": number,
    "read_bps": lambda value: f"{size(value)}/s",
    "write_bps": lambda value: f"{size(value)}/s",
}
"""What prints a limit, where it is not what prints its use."""


def stats_rows(result: ps.Result, config: ps.Config) -> list[tuple[str, str, str, str, str]]:
    """Return the table of --stats: what, used, limit, how strong what held it is, and what that was."""
    rows = []
    measured = used(result)
    for name in (*measured, *(name for name in result.enforcement if name not in measured)):
        value, form = measured.get(name, (None, number))
        limit = getattr(config, name, None)
        how = result.enforcement.get(name)
        if value is None and how is None:
            continue
        shown = "-" if value is None else form(value)
        bound = (
            LIMITS.get(name, form)(limit) if isinstance(limit, (int, float)) and not isinstance(limit, bool) else "-"
        )
        held = (
            ("none", how.reason)
            if isinstance(how, ps.Unenforced)
            else ("-", "-")
            if how is None
            else (how.strength, how.mechanism)
        )
        rows.append((name, shown, bound, *held))
    return rows


def print_stats(result: ps.Result, config: ps.Config, colour: str) -> None:
    """Print what was used, and what held each limit and isolation."""
    print_table(("", "used", "limit", "strength", "by"), stats_rows(result, config), sys.stderr, colour=colour)
