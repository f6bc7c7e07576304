"""The runs that are alive on this machine, of all processes that use this package, as the kernel shows them in /proc.

A command is hostile, and shows of itself what it likes: its name, its arguments, whether it may be looked at. So nothing of it is
asked that decides anything. What is a run follows from who is whose child, which no process can choose: a launcher is a process of
the user's own that is in no run; its children that are launchers still are reapers, for they never execute anything; and whatever
descends from one of these is the run's. What a run uses and is allowed is read from the kernel's accounts and from its cgroup.

The launcher of a user's is not dumpable (PR_SET_DUMPABLE(2const)), so nobody but root can see what it executes: then it is known by its
name and its first argument, which are its own to choose. It is a process that the user has started, outside of every run.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import time
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from proc_sandbox.backends.linux.cgroup import NAME, hierarchies, own_directory
from proc_sandbox.launcher.process import launcher_path
from proc_sandbox.planner.linux.planner import OWN_TASKS

__all__ = ["LiveRun", "kill_run", "live_runs"]

LAUNCHER = "launcher"
"""The name of launchers and reapers: proc_pid_comm(5)."""
PLACE = re.compile(r"/proc_sandbox/_bin/launcher( \(deleted\))?\Z")
"""Where the launcher of any installation lies."""
PATIENCE = 10.0
"""Seconds to wait for the end of what was killed: longer only where the kernel keeps a process from dying."""
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
UNLIMITED_V1 = 1 << 62
"""memory.limit_in_bytes from here on is no limit: it is LONG_MAX, rounded down to pages (cgroup-v1/memory.rst)."""


class Process(NamedTuple):
    """What proc_pid_stat(5) tells of a process. born: clock ticks since the machine started. cpu: ticks, children included."""

    pid: int
    parent: int
    name: str
    state: str
    born: int
    cpu: int
    threads: int
    resident: int


class LiveRun(NamedTuple):
    """One run. Sizes in bytes, times in seconds; None where the kernel does not tell.

    id: the process id of the command on the host; of a sandbox that is prepared that of the process which will be one.
    reaper, reaper_born: its first process, with the time of its birth in clock ticks, so that no other is taken for it.
    prepared: there is no command yet, or one that makes itself look so.
    program: the file that is executed, as the kernel has it. arguments: what the command shows as such, which it can choose.
    since: seconds since the sandbox was made. cpu: user and system time of all processes that are there and those waited for.
    memory: of the run's cgroup; without one the sum of what each process has in memory.
    memory_limit, max_processes, cpu_limit: of the cgroup, as Config has them.
    """

    id: int
    reaper: int
    reaper_born: int
    launcher: int
    uid: int
    owner: int
    owner_name: str
    prepared: bool
    program: str | None
    arguments: tuple[str, ...]
    since: float
    cpu: float
    memory: int
    tasks: int
    memory_limit: int | None
    max_processes: int | None
    cpu_limit: float | None


def read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def text(data: bytes) -> str:
    return os.fsdecode(data)


def process(pid: int) -> Process | None:
    """Return what is told of a process; None if it is gone."""
    try:
        before, _, after = read(f"/proc/{pid}/stat").rpartition(b")")  # a name may hold anything
    except (FileNotFoundError, ProcessLookupError):
        return None
    rest = after.split()
    used = sum(map(int, rest[11:15]))
    return Process(
        pid,
        int(rest[1]),
        text(before.partition(b"(")[2]),
        text(rest[0]),
        int(rest[19]),
        used,
        int(rest[17]),
        int(rest[21]) * PAGE,
    )


def processes() -> dict[int, Process]:
    """Return all processes that can be seen."""
    found = (process(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return {each.pid: each for each in found if each}


def numbers(pid: int, key: bytes) -> list[int]:
    """Return the numbers of a line of proc_pid_status(5); none if the process is gone."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        found = re.search(rb"^%s:([\t\d]+)$" % key, read(f"/proc/{pid}/status"), re.MULTILINE)
        if found:
            return list(map(int, found[1].split()))
    return []


def executed(pid: int) -> str | None:
    """Return the file that a process executes; None where we may not know, or it is gone."""
    try:
        return os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return None


def arguments(pid: int) -> tuple[str, ...]:
    """Return what a process shows as its arguments."""
    with contextlib.suppress(OSError):
        return tuple(map(text, read(f"/proc/{pid}/cmdline").rstrip(b"\0").split(b"\0")))
    return ()


def is_program(pid: int) -> bool:
    """Return whether a process executes the launcher, of this installation or another."""
    try:
        if os.path.samefile(f"/proc/{pid}/exe", launcher_path()):
            return True
    except PermissionError:
        return bool(PLACE.search(arguments(pid)[0])) if arguments(pid) else False
    except OSError:
        pass  # what it executes has been removed, or it is gone
    return bool(PLACE.search(executed(pid) or ""))


def is_launcher(found: Process | None) -> bool:
    return found is not None and found.name == LAUNCHER and found.state not in "ZX" and is_program(found.pid)


def ancestors(found: Process, everyone: Mapping[int, Process]) -> Iterator[Process]:
    """Yield a process's parent, and that one's, and so on."""
    seen = {found.pid}  # what was read is not of one moment
    above = everyone.get(found.parent)
    while above and above.pid not in seen:
        seen.add(above.pid)
        yield above
        above = everyone.get(above.parent)


def launchers(everyone: Mapping[int, Process]) -> Iterator[tuple[Process, int]]:
    """Yield the launchers whose runs we may see, with their users; one inside a run is a part of that."""
    us = os.geteuid()
    named = {each.pid for each in everyone.values() if is_launcher(each)}
    for pid in named:
        uid = next(iter(numbers(pid, b"Uid")), None)
        if (
            uid is not None
            and us in (0, uid)
            and not any(above.pid in named for above in ancestors(everyone[pid], everyone))
        ):
            yield everyone[pid], uid


def live_runs() -> list[LiveRun]:
    """Return the runs of this user, or of all if this is root, in the order in which they were made."""
    everyone = processes()
    children: dict[int, list[Process]] = {}
    for each in everyone.values():
        children.setdefault(each.parent, []).append(each)
    found = []
    for launcher, uid in launchers(everyone):
        for reaper in children.get(launcher.pid, []):
            if is_launcher(reaper) and (command := command_of(reaper, children)):
                found.append(look(launcher, uid, reaper, command, everyone, children))
    return sorted(found, key=lambda run: (run.reaper_born, run.id))


def command_of(reaper: Process, children: Mapping[int, list[Process]]) -> Process | None:
    """Return the process that the reaper has made, which is the command; None of what is no run, or has ended. Others become its
    children when they lose their parents: they are younger, and in a pid namespace not the second process there.
    """
    candidates = [each for each in children.get(reaper.pid, []) if each.state not in "ZX"]
    if len(numbers(reaper.pid, b"NSpid")) > len(numbers(os.getpid(), b"NSpid")):
        candidates = [each for each in candidates if numbers(each.pid, b"NSpid")[-1:] == [2]]
    return min(candidates, key=lambda each: (each.born, each.pid), default=None)


def tree(top: Process, children: Mapping[int, list[Process]]) -> list[Process]:
    """Return a process and all that descends from it."""
    found, at = [top], 0
    while at < len(found):
        found += children.get(found[at].pid, [])
        at += 1
    return found


def look(
    launcher: Process,
    uid: int,
    reaper: Process,
    command: Process,
    everyone: Mapping[int, Process],
    children: Mapping[int, list[Process]],
) -> LiveRun:
    members = tree(reaper, children)
    owner = everyone.get(launcher.parent)
    memory, limits = cage(reaper.pid)
    prepared = command.name == LAUNCHER and is_program(command.pid)
    return LiveRun(
        id=command.pid,
        reaper=reaper.pid,
        reaper_born=reaper.born,
        launcher=launcher.pid,
        uid=uid,
        owner=launcher.parent,
        owner_name=owner.name if owner else "",
        prepared=prepared,
        program=None if prepared else executed(command.pid),
        arguments=() if prepared else arguments(command.pid),
        since=time.clock_gettime(time.CLOCK_BOOTTIME) - command.born / TICKS,
        cpu=sum(each.cpu for each in members) / TICKS,
        memory=sum(each.resident for each in members[1:]) if memory is None else memory,
        tasks=sum(each.threads for each in members[1:]),
        memory_limit=limits.get("memory"),
        max_processes=limits.get("pids"),
        cpu_limit=limits["cpu"] / 1000 if "cpu" in limits else None,
    )


# --- what a run's cgroup says ---

FILES = {
    1: {"memory": ("memory.usage_in_bytes", "memory.limit_in_bytes"), "pids": ("pids.current", "pids.max")},
    2: {"memory": ("memory.current", "memory.max"), "pids": ("pids.current", "pids.max")},
}
"""For v1 and v2: files with what is used and what is allowed."""


def cage(reaper: int) -> tuple[int | None, dict[str, int]]:
    """Return what the cgroup of a run holds in memory, and its limits: bytes, tasks, and CPU in thousandths of a percent."""
    used: int | None = None
    limits: dict[str, int] = {}
    for hierarchy in hierarchies():
        with contextlib.suppress(OSError, ValueError):
            directory = own_directory(hierarchy, reaper)
            if not directory or not NAME.match(os.path.basename(directory)):
                continue
            files = FILES[hierarchy.version]
            if hierarchy.version == 2 or "memory" in hierarchy.controllers:
                used = number(directory, files["memory"][0], used)
            for name in ("memory", "pids"):
                limit = number(directory, files[name][1], None)
                if limit is not None and limit < UNLIMITED_V1:
                    limits[name] = limit - (OWN_TASKS[hierarchy.version] if name == "pids" else 0)
            share = cpu_share(directory, hierarchy.version)
            if share is not None:
                limits["cpu"] = share
    return used, limits


def number(directory: str, file: str, otherwise: int | None) -> int | None:
    """Return the number in a file of a cgroup; "max" and a file that is not there are none."""
    with contextlib.suppress(FileNotFoundError):
        word = read(f"{directory}/{file}").strip()
        return otherwise if word == b"max" else int(word)
    return otherwise


def cpu_share(directory: str, version: int) -> int | None:
    """Return the limit of CPU in thousandths of a percent of one processor; None without one."""
    with contextlib.suppress(FileNotFoundError):
        if version == 2:
            quota, period = read(f"{directory}/cpu.max").split()
        else:
            quota, period = (read(f"{directory}/cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
        return None if quota in (b"max", b"-1") else int(quota) * 100_000 // int(period)
    return None


# --- ending one ---


def kill_run(id: int) -> bool:
    """End the run of that id with all that belongs to it; return False if there is none that is ours.

    By its reaper's descriptor, opened before it is looked at once more: a number could be another process's by then (pidfd_open(2)).

    Raises:
        PermissionError: the kernel does not let us.
    """
    found = {run.id: run for run in live_runs()}.get(id)
    if found is None:
        return False
    try:
        pidfd = os.pidfd_open(found.reaper)
    except ProcessLookupError:
        return False
    try:
        again = {run.id: run for run in live_runs()}.get(id)
        if again is None or again[:5] != found[:5]:
            return False
        return end(pidfd)
    finally:
        os.close(pidfd)


def end(pidfd: int) -> bool:
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        return False
    waiting = select.poll()
    waiting.register(pidfd, select.POLLIN)
    waiting.poll(PATIENCE * 1000)
    return True
