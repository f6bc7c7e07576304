"""One Job object: what holds a run together, bounds it, counts it and ends it ("Job Objects")."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import NamedTuple, TypeVar

from proc_sandbox.backends.windows.winapi import (
    ERROR_CALL_NOT_IMPLEMENTED,
    ERROR_INVALID_FUNCTION,
    ERROR_INVALID_PARAMETER,
    JOB_OBJECT_LIMIT_ACTIVE_PROCESS,
    JOB_OBJECT_LIMIT_AFFINITY,
    JOB_OBJECT_LIMIT_BREAKAWAY_OK,
    JOB_OBJECT_LIMIT_DIE_ON_UNHANDLED_EXCEPTION,
    JOB_OBJECT_LIMIT_JOB_MEMORY,
    JOB_OBJECT_LIMIT_JOB_TIME,
    JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE,
    JOB_OBJECT_LIMIT_PRIORITY_CLASS,
    JOB_OBJECT_LIMIT_PROCESS_MEMORY,
    JOB_OBJECT_LIMIT_PROCESS_TIME,
    JOB_OBJECT_LIMIT_SILENT_BREAKAWAY_OK,
    Accounting,
    Completion,
    CpuRate,
    ExtendedLimits,
    MemoryPeaks,
    Win32,
    Win32Error,
)

__all__ = ["Bounds", "Job", "NotKept"]

MESSAGE = 1
"""The key of a job's messages at its port."""
WAKE = 2
"""The key of what wake() posts there."""

PAGE = 4096
"""The kernel keeps memory limits in pages, and so gives them back rounded down."""

REST = 20
"""Milliseconds between two looks at what is left of a job: no message is sure to come ("JOBOBJECT_ASSOCIATE_COMPLETION_PORT")."""

VALUES = {
    "process_time": JOB_OBJECT_LIMIT_PROCESS_TIME,
    "job_time": JOB_OBJECT_LIMIT_JOB_TIME,
    "active_processes": JOB_OBJECT_LIMIT_ACTIVE_PROCESS,
    "affinity": JOB_OBJECT_LIMIT_AFFINITY,
    "priority_class": JOB_OBJECT_LIMIT_PRIORITY_CLASS,
    "process_memory": JOB_OBJECT_LIMIT_PROCESS_MEMORY,
    "job_memory": JOB_OBJECT_LIMIT_JOB_MEMORY,
}
"""Each field of ExtendedLimits with the flag that makes it hold."""

SWITCHES = {
    "die_on_unhandled_exception": JOB_OBJECT_LIMIT_DIE_ON_UNHANDLED_EXCEPTION,
    "breakaway_ok": JOB_OBJECT_LIMIT_BREAKAWAY_OK,
    "silent_breakaway_ok": JOB_OBJECT_LIMIT_SILENT_BREAKAWAY_OK,
    "kill_on_job_close": JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE,
}
"""The flags that have no value."""

T = TypeVar("T")


class NotKept(NamedTuple):
    """A bound that does not hold: its name in VALUES or SWITCHES, or "ui" or "cpu_rate"; and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Bounds:
    """All that one job is told; None: nothing of the kind."""

    limits: ExtendedLimits = field(default_factory=ExtendedLimits)
    ui: int | None = None
    cpu_rate: CpuRate | None = None


class Job:
    """A Job object and the port that its messages come to; a context manager, whose end closes both.

    Thread-safe where it says so; all else is for one thread.

    Attributes: handle, for Creation.jobs.
    """

    def __init__(self, win32: Win32) -> None:
        self.win32 = win32
        self.handle = self.port = 0
        self.counts_io = True
        self.open = threading.Lock()
        try:
            self.handle = win32.create_job()
            self.port = win32.create_port()
            # Before the first process: a message for which there is no port yet is lost.
            win32.set_port(self.handle, self.port, MESSAGE)
        except BaseException:
            self.close()
            raise

    def bind(self, bounds: Bounds) -> tuple[NotKept, ...]:
        """Set the bounds and read them back: a system may refuse one, or accept it and do nothing.

        Returns:
            Those that do not hold, as far as the system says so.
        """
        return (
            *self.apply("limits", self.win32.set_extended_limits, bounds.limits, self.lost_limits),
            *self.apply("ui", self.win32.set_ui_restrictions, bounds.ui, self.lost_ui),
            *self.apply("cpu_rate", self.win32.set_cpu_rate, bounds.cpu_rate, self.lost_cpu_rate),
        )

    def apply(
        self, name: str, put: Callable[[int, T], None], value: T | None, lost: Callable[[T], Iterator[NotKept]]
    ) -> list[NotKept]:
        if value is None:
            return []
        try:
            put(self.handle, value)
        except Win32Error as error:
            return [NotKept(each, f"refused: {error.strerror}") for each in names_of(name, value)]
        try:
            return list(lost(value))
        except Win32Error as error:
            return [
                NotKept(each, f"accepted, and cannot be read back: {error.strerror}") for each in names_of(name, value)
            ]

    def lost_limits(self, asked: ExtendedLimits) -> Iterator[NotKept]:
        found = self.win32.extended_limits(self.handle)
        for name in names_of("limits", asked):
            flag = VALUES.get(name) or SWITCHES[name]
            wanted, there = getattr(asked, name, 1), getattr(found, name, 1) if found.flags & flag else 0
            if name in ("process_memory", "job_memory"):
                wanted, there = wanted // PAGE, there // PAGE
            if wanted != there:
                yield NotKept(name, "accepted and not kept")
        # The other way round too: what lets a process out of the job must not be there unasked.
        for name, flag in SWITCHES.items():
            if found.flags & flag and not asked.flags & flag:
                yield NotKept(name, "there without being asked for")

    def lost_ui(self, asked: int) -> Iterator[NotKept]:
        if self.win32.ui_restrictions(self.handle) & asked != asked:
            yield NotKept("ui", "accepted and not kept")

    def lost_cpu_rate(self, asked: CpuRate) -> Iterator[NotKept]:
        if self.win32.cpu_rate(self.handle) != asked:
            yield NotKept("cpu_rate", "accepted and not kept")

    def next_message(self, milliseconds: int) -> Completion | None:
        """Wait for a message of the job; None when the time is over or wake() was called."""
        completion = self.win32.next_completion(self.port, milliseconds)
        return completion if completion and completion.key == MESSAGE else None

    def messages(self) -> Iterator[Completion]:
        """Yield the messages that are there already, whatever wake() has posted between them."""
        while completion := self.win32.next_completion(self.port, 0):
            if completion.key == MESSAGE:
                yield completion

    def wake(self) -> None:
        """Let next_message() return; from any thread, harmless after close()."""
        with self.open:
            if self.port:
                self.win32.post_completion(self.port, Completion(0, WAKE, 0))

    def accounting(self) -> Accounting:
        """Return what the job has used, with bytes read and written where the system counts them."""
        if self.counts_io:
            try:
                return self.win32.basic_and_io_accounting(self.handle)
            except Win32Error as error:
                if error.code not in (ERROR_INVALID_FUNCTION, ERROR_INVALID_PARAMETER, ERROR_CALL_NOT_IMPLEMENTED):
                    raise
                self.counts_io = False
        return self.win32.basic_accounting(self.handle)

    def peaks(self) -> MemoryPeaks:
        """Return the most memory that was committed, of one process and of all together."""
        return self.win32.memory_peaks(self.handle)

    def processes(self) -> tuple[int, ...]:
        """Return the ids of the processes that are alive."""
        return self.win32.process_ids(self.handle)

    def terminate(self, code: int) -> None:
        """End every process of the job, also of jobs nested in it; from any thread, harmless after close()."""
        with self.open:
            if self.handle:
                self.win32.terminate_job(self.handle, code)

    def end(self, code: int) -> None:
        """End every process, and return when none is left."""
        while self.accounting().active:
            # Again and again: one that was being created when the others ended belongs to the job as well.
            self.terminate(code)
            self.next_message(REST)

    def close(self) -> None:
        """Close the job and its port: what is alive of it ends now if the job was told to kill on close."""
        with self.open:
            handle, self.handle = self.handle, 0
            port, self.port = self.port, 0
            for each in (handle, port):
                if each:
                    self.win32.close(each)

    def __enter__(self) -> Job:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def names_of(name: str, value: object) -> list[str]:
    """Return what a setting is called: of the limits each one that its flags name."""
    if not isinstance(value, ExtendedLimits):
        return [name]
    return [each for each, flag in {**VALUES, **SWITCHES}.items() if value.flags & flag]
