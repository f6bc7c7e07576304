"""The processes of a run, found among all of the host's, and what they use: psutil's figures, added up.

A process belongs to a run when it was seen to belong to it before, when its parent does, when its session is one that the run has
made, or when it has the run's mark in its environment. Processes are known by number and start time (psutil does not
signal one that has taken over another's number). What was there before a run began never belongs to it.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Collection, Iterator
from typing import NamedTuple

import psutil

from proc_sandbox.backends.posix import MARK, procfs

__all__ = ["DENIED", "GONE", "Row", "Sample", "Table", "Tree", "tasks_of_user"]

GONE = (psutil.NoSuchProcess, ProcessLookupError)
DENIED = (psutil.AccessDenied, PermissionError)
SURE_SECONDS = 0.25
"""For how long a number is believed to be the same process's without asking for its start: before it can be given again all others
have to be, 32,768 at the least (proc_sys_kernel(5), pid_max) and 99,999 on macOS and FreeBSD.
"""


class Row(NamedTuple):
    """One process as it was at one look. stopped: by a signal; zombie: it has ended and nobody has waited for it."""

    process: psutil.Process
    parent: int
    session: int
    group: int
    zombie: bool
    stopped: bool
    headless: bool = False
    """Its first thread has ended and others have not, which Linux tells as a zombie."""

    @property
    def pid(self) -> int:
        """Return its number."""
        return self.process.pid


class Sample(NamedTuple):
    """What a tree uses: bytes, ns, tasks."""

    memory: int
    cpu: int
    tasks: int


class Table:
    """All processes of the host, looked at for all runs at once.

    Attributes: look, the number of the last look; floor, the look before the oldest run that is under way; vanished, whether a
    process was gone before it could be looked at: its children may have been missed.
    """

    def __init__(self) -> None:
        self.look = 0
        self.floor = 0
        self.checked = 0.0
        self.vanished = False
        self.known: dict[int, tuple[psutil.Process, int]] = {}
        """By number: the process, and the look at which it was new."""
        self.rows: dict[int, Row] = {}

    def refresh(self) -> None:
        """Look at all processes that were new after the floor, and find out which there are."""
        self.look += 1
        self.vanished = False
        sure = time.monotonic() - self.checked > SURE_SECONDS
        if sure:
            self.checked = time.monotonic()
        pids = psutil.pids()
        for pid in self.known.keys() - pids:
            del self.known[pid]
        for pid in pids:
            known = self.known.get(pid)
            if known is None or sure and not known[0].is_running():
                with contextlib.suppress(*DENIED):
                    self.meet(pid)
        self.rows = {}
        for pid, (process, met) in self.known.items():
            if met > self.floor:
                self.take(pid, process)

    def meet(self, pid: int) -> None:
        try:
            self.known[pid] = psutil.Process(pid), self.look
        except psutil.NoSuchProcess:
            self.known.pop(pid, None)
            self.vanished = True

    def take(self, pid: int, process: psutil.Process) -> None:
        try:
            with process.oneshot():
                status = process.status()
                parent = process.ppid()
            ended = status == psutil.STATUS_ZOMBIE
            headless = ended and sys.platform == "linux" and procfs.count_threads(pid) > 1
            zombie = ended and not headless
            where = (0, 0) if zombie else place(pid)
            self.rows[pid] = Row(process, parent, *where, zombie, status == psutil.STATUS_STOPPED, headless)
        except psutil.ZombieProcess:
            self.rows[pid] = Row(process, 0, 0, 0, zombie=True, stopped=False)
        except GONE:
            self.vanished = True
        except DENIED:
            return  # another user's, where the system tells nobody else


def place(pid: int) -> tuple[int, int]:
    """Return session and group; 0 where the system does not tell (getsid(2), EPERM)."""
    try:
        return os.getsid(pid), os.getpgid(pid)
    except PermissionError:
        return 0, 0


class Tree:
    """The processes of one run.

    Attributes: mark, its variable's value; variables, which may hold it; since, the look before it began; members, those alive at
    the last look, without the command's own when that is a zombie; cpu, ns seen to be used by all that ever were members.
    """

    def __init__(self, mark: str, since: int, variables: tuple[str, ...] = (MARK,)) -> None:
        self.mark = mark
        self.variables = variables
        self.since = since
        self.members: dict[int, Row] = {}
        self.seen: set[psutil.Process] = set()
        self.sessions: set[int] = set()
        self.judged: dict[psutil.Process, bool] = {}
        self.used: dict[psutil.Process, float] = {}
        self.used_by_dead = 0.0
        self.cpu = 0

    def find(self, table: Table, roots: Collection[int] = ()) -> dict[int, Row]:
        """Return the run's processes that are alive in the table; roots: the command, which its monitor holds, dead or alive."""
        found: dict[int, Row] = {}
        children: dict[int, list[Row]] = {}
        rows = [row for row in table.rows.values() if table.known[row.pid][1] > self.since]
        for row in rows:
            children.setdefault(row.parent, []).append(row)
        # A leader that was not seen before: its number has been given again.
        self.sessions -= {row.pid for row in rows if row.session == row.pid and row.process not in self.seen}
        todo = [row for row in rows if row.pid in roots or row.session in roots or self.is_ours(row)]
        while todo:
            row = todo.pop()
            if row.pid in found:
                continue
            found[row.pid] = row
            self.remember(row)
            todo += children.get(row.pid, ())
        self.members = {pid: row for pid, row in found.items() if not row.zombie}
        self.sessions &= {row.session for row in found.values()}  # one without members: its number may be given again
        self.forget(table)
        return self.members

    def remember(self, row: Row) -> None:
        """Know a process again. Its session is the run's if it leads it: one that a server has started for it is in the server's."""
        self.seen.add(row.process)
        if row.session == row.pid:
            self.sessions.add(row.session)

    def forget(self, table: Table) -> None:
        """Let go of the dead, but for what they have used: there is no end of them."""

        def is_gone(process: psutil.Process) -> bool:
            return process.pid not in table.known or table.known[process.pid][0] is not process

        for process in [process for process in self.used if is_gone(process)]:
            self.used_by_dead += self.used.pop(process)
        self.seen -= {process for process in self.seen if is_gone(process)}
        for process in [process for process in self.judged if is_gone(process)]:
            del self.judged[process]

    def is_ours(self, row: Row) -> bool:
        if row.process in self.seen:
            return True
        return row.session in self.sessions or self.has_mark(row)

    def has_mark(self, row: Row) -> bool:
        """Return whether it has inherited the variable; asked again as long as there is no environment (it is within execve(2))."""
        known = self.judged.get(row.process)
        if known is not None:
            return known
        if row.zombie:
            return False
        try:
            mine = self.read_mark(row)
        except (*GONE, *DENIED, OSError):
            return False
        if mine is not None:
            self.judged[row.process] = mine
        return bool(mine)

    def read_mark(self, row: Row) -> bool | None:
        """Return whether the mark is in its environment; None where it has none."""
        environment = (procfs.spokesman(row.process) if row.headless else row.process).environ()
        return any(self.mark in environment.get(name, "") for name in self.variables) if environment else None

    def measure(self, limit: int) -> Sample:
        """Return what the members use now. limit: of memory, 0 if none: up to it the sum of what each has resident does."""
        tasks = 0
        live: list[psutil.Process] = []
        asked: list[psutil.Process] = []  # for memory
        waited = 0.0
        for row in self.members.values():
            try:
                with row.process.oneshot():
                    times = row.process.cpu_times()
                tasks += procfs.count_threads(row.pid) if sys.platform == "linux" else row.process.num_threads()
            except (*GONE, *DENIED):
                continue
            live.append(row.process)
            asked.append(procfs.spokesman(row.process) if row.headless else row.process)
            self.used[row.process] = times.user + times.system
            waited += getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
        # Two figures that are both too small: of all that were seen what each had used when last seen; and of those alive, with
        # what they have waited for. What is counted in both is the same, so the larger one is taken.
        alive = sum(self.used[process] for process in live) + waited
        self.cpu = max(self.cpu, round(max(self.used_by_dead + sum(self.used.values()), alive) * 1e9))
        return Sample(memory_of(asked, limit), self.cpu, tasks)


def memory_of(processes: list[psutil.Process], limit: int) -> int:
    """Return the memory of processes: what is resident, an upper bound; above the limit the exact figure where the system has one."""
    bound = sum(resident(processes))
    return bound if bound <= limit else sum(exact(processes))


def resident(processes: list[psutil.Process]) -> Iterator[int]:
    for process in processes:
        with contextlib.suppress(*GONE, *DENIED):
            yield int(process.memory_info().rss)


def exact(processes: list[psutil.Process]) -> Iterator[int]:
    for process in processes:
        with contextlib.suppress(*GONE):
            yield exact_of(process)


def exact_of(process: psutil.Process) -> int:
    """Return PSS on Linux, on macOS what nobody shares; elsewhere, or where it may not be asked for, what is resident."""
    with contextlib.suppress(*DENIED):
        if sys.platform == "linux":
            full = process.memory_full_info()
            return int(full.pss + full.swap)
        if sys.platform == "darwin":
            return int(process.memory_full_info().uss)
    try:
        return int(process.memory_info().rss)
    except DENIED:
        return 0


def tasks_of_user() -> int:
    """Return how many tasks RLIMIT_NPROC counts for this user: on Linux threads, elsewhere processes."""
    count, user = 0, os.getuid()
    for process in psutil.process_iter():
        with contextlib.suppress(*GONE, *DENIED):
            if sys.platform == "linux":
                count += procfs.count_threads(process.pid) if procfs.owner(process.pid) == user else 0
            elif process.uids().real == user:
                count += 1
    return count
