"""`ps` and `kill`: the runs that are alive, of all processes that use this package on this machine."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import proc_sandbox as ps
from proc_sandbox.cli.printing import print_table, quoted
from proc_sandbox.units import format_seconds, format_size

if TYPE_CHECKING:
    import argparse

    from proc_sandbox.backends.linux.live import LiveRun

__all__ = ["kill_command", "ps_command"]

DONE, NOT_FOUND = 0, 1
"""Exit statuses of `kill`."""


class NotHereError(ps.UnsupportedError):
    """This system has no list of runs."""

    def __str__(self) -> str:
        return f"{self.field} is not to be had here: {self.reason}; {self.remedy}"


NOT_HERE = NotHereError(
    "a list of runs", f"{sys.platform} shows no other process's runs", "end the process that started it"
)


def user_name(uid: int) -> str:
    if sys.platform == "win32":
        return str(uid)
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def limits_of(run: LiveRun) -> str:
    """Return the limits of a run's cgroup, as the options that set them."""
    found = [
        f"-m {format_size(run.memory_limit)}" if run.memory_limit is not None else "",
        f"--pids {run.max_processes}" if run.max_processes is not None else "",
        f"--cpu {run.cpu_limit:g}" if run.cpu_limit is not None else "",
    ]
    return " ".join(filter(None, found)) or "-"


def row(run: LiveRun) -> tuple[str, ...]:
    used = (format_seconds(run.since), format_seconds(run.cpu), format_size(run.memory), str(run.tasks))
    command = "(prepared, no command yet)" if run.prepared else quoted(run.arguments)
    caller = f"{run.owner} {run.owner_name}"
    return (str(run.id), user_name(run.uid), *used, limits_of(run), caller, run.program or "-", command)


HEAD = ("id", "user", "since", "cpu", "memory", "tasks", "limits", "caller", "program", "arguments")


def ps_command(parsed: argparse.Namespace) -> int:
    """Print the runs that are alive.

    Raises:
        UnsupportedError: this system is not Linux.
    """
    if sys.platform != "linux":
        raise NOT_HERE
    from proc_sandbox.backends.linux.live import live_runs

    runs = live_runs()
    if parsed.json:
        import json

        json.dump([run._asdict() for run in runs], sys.stdout, indent=2)
        print()
    else:
        print_table(HEAD, [row(run) for run in runs], sys.stdout, colour=parsed.colour)
    return DONE


def kill_command(parsed: argparse.Namespace) -> int:
    """End runs.

    Raises:
        UnsupportedError: this system is not Linux.
    """
    if sys.platform != "linux":
        raise NOT_HERE
    from proc_sandbox.backends.linux.live import kill_run

    code = DONE
    for each in parsed.ids:
        if not kill_run(each):
            print(f"proc-sandbox: {each}: no run of that id is alive; see proc-sandbox ps", file=sys.stderr)
            code = NOT_FOUND
    return code
