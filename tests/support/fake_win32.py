"""A Windows in memory: strict where the real one is, and as bounded as its documentation says.

What stands in quotation marks is the title of the page of Microsoft's documentation that says so. Programs are Python
functions, each process has a thread for its own; CPU time and memory are figures, so that no test waits or allocates for
them. Deliberate differences: no message of a job is ever lost, and handles are never given again.
"""

from __future__ import annotations

import errno
import itertools
import ntpath
import os
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from proc_sandbox.backends.windows.winapi import (
    CREATE_BREAKAWAY_FROM_JOB,
    CREATE_NEW_PROCESS_GROUP,
    CREATE_NO_WINDOW,
    CREATE_SUSPENDED,
    DETACHED_PROCESS,
    ERROR_ACCESS_DENIED,
    ERROR_FILE_NOT_FOUND,
    ERROR_FILENAME_EXCED_RANGE,
    ERROR_INVALID_HANDLE,
    ERROR_INVALID_PARAMETER,
    ERROR_NO_DATA,
    ERROR_NOT_ENOUGH_QUOTA,
    ERROR_NOT_SUPPORTED,
    ERROR_OPERATION_ABORTED,
    FILE_FLAG_OPEN_REPARSE_POINT,
    GENERIC_WRITE,
    INFINITE,
    JOB_OBJECT_CPU_RATE_CONTROL_ENABLE,
    JOB_OBJECT_CPU_RATE_CONTROL_HARD_CAP,
    JOB_OBJECT_LIMIT_ACTIVE_PROCESS,
    JOB_OBJECT_LIMIT_BREAKAWAY_OK,
    JOB_OBJECT_LIMIT_DIE_ON_UNHANDLED_EXCEPTION,
    JOB_OBJECT_LIMIT_JOB_MEMORY,
    JOB_OBJECT_LIMIT_JOB_TIME,
    JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE,
    JOB_OBJECT_LIMIT_PRIORITY_CLASS,
    JOB_OBJECT_LIMIT_PROCESS_MEMORY,
    JOB_OBJECT_LIMIT_PROCESS_TIME,
    JOB_OBJECT_LIMIT_SILENT_BREAKAWAY_OK,
    JOB_OBJECT_MSG_ABNORMAL_EXIT_PROCESS,
    JOB_OBJECT_MSG_ACTIVE_PROCESS_LIMIT,
    JOB_OBJECT_MSG_ACTIVE_PROCESS_ZERO,
    JOB_OBJECT_MSG_END_OF_JOB_TIME,
    JOB_OBJECT_MSG_END_OF_PROCESS_TIME,
    JOB_OBJECT_MSG_EXIT_PROCESS,
    JOB_OBJECT_MSG_JOB_MEMORY_LIMIT,
    JOB_OBJECT_MSG_NEW_PROCESS,
    JOB_OBJECT_MSG_PROCESS_MEMORY_LIMIT,
    JOB_OBJECT_POST_AT_END_OF_JOB,
    JOB_OBJECT_TERMINATE_AT_END_OF_JOB,
    OPEN_EXISTING,
    PRIORITY_CLASSES,
    STATUS_ACCESS_VIOLATION,
    STATUS_CONTROL_C_EXIT,
    Accounting,
    Completion,
    CpuRate,
    Created,
    Creation,
    ExtendedLimits,
    MemoryPeaks,
    ProcessMemory,
    ProcessTimes,
    Win32Error,
)

ERROR_COMMITMENT_LIMIT = 1455
STILL_ACTIVE = 259
OWN_PID = 4000
PAGE = 4096
KNOWN_LIMITS = 0x7FFFF
ABNORMAL = {STATUS_ACCESS_VIOLATION, STATUS_CONTROL_C_EXIT, 0x80000003, 0xC000001D, 0xC0000094, 0xC00000FD}
"""Some of the exit codes that count as abnormal ("JOBOBJECT_ASSOCIATE_COMPLETION_PORT")."""

T = TypeVar("T")
Program = Callable[["FakeProcess"], object]


class KilledError(BaseException):
    """Unwinds the thread of a process that has ended; no program catches it."""


@dataclass(eq=False)
class FakePort:
    queue: deque[Completion] = field(default_factory=deque)


@dataclass(eq=False)
class FakeJob:
    """What the system knows of one job."""

    changed: threading.Condition
    limits: ExtendedLimits = field(default_factory=ExtendedLimits)
    ui: int = 0
    cpu_rate: CpuRate = field(default_factory=lambda: CpuRate(0, 0))
    at_end: int = JOB_OBJECT_TERMINATE_AT_END_OF_JOB
    port: FakePort | None = None
    key: int = 0
    handles: int = 0
    processes: list[FakeProcess] = field(default_factory=list)
    total: int = 0
    terminated: int = 0
    user: int = 0
    kernel: int = 0
    peak_process: int = 0
    peak_job: int = 0

    def has(self, flag: int) -> bool:
        return bool(self.limits.flags & flag)

    def active(self) -> list[FakeProcess]:
        return [process for process in self.processes if not process.ended]

    def post(self, message: int, pid: int = 0) -> None:
        if self.port:
            self.port.queue.append(Completion(message, self.key, pid))
            self.changed.notify_all()


@dataclass(eq=False)
class FakePipe:
    capacity: int
    data: bytearray = field(default_factory=bytearray)
    readers: int = 0
    writers: int = 0
    nothings: int = 0
    """Writes of no bytes that no read has met yet."""


@dataclass(eq=False)
class PipeEnd:
    pipe: FakePipe
    writes: bool
    aborts: int = 0
    """How often cancel() was called: an operation under way then fails."""

    def opened(self, difference: int) -> None:
        if self.writes:
            self.pipe.writers += difference
        else:
            self.pipe.readers += difference


@dataclass(eq=False)
class FakeFile:
    path: str
    data: bytearray = field(default_factory=bytearray)
    link: str | None = None


@dataclass(eq=False)
class OpenFile:
    file: FakeFile
    access: int
    position: int = 0


@dataclass(eq=False)
class FakeThread:
    process: FakeProcess


@dataclass(eq=False)
class Handle:
    target: Any
    inheritable: bool = False


class FakeProcess:
    """A process, as the program that runs in it sees it.

    Attributes: creation, what CreateProcessW was told; jobs, the outermost first; handles, what it has open.
    """

    def __init__(
        self, win32: FakeWin32, pid: int, program: Program, creation: Creation, parent: FakeProcess | None
    ) -> None:
        self.win32 = win32
        self.pid = pid
        self.program = program
        self.creation = creation
        self.parent = parent
        self.jobs: list[FakeJob] = []  # the outermost first
        self.handles: dict[int, Handle] = {}
        self.ended = False
        self.code = STILL_ACTIVE
        self.suspended = bool(creation.flags & CREATE_SUSPENDED)
        self.user = self.kernel = self.memory = self.peak = 0
        self.interrupted = False
        self.thread = threading.Thread(target=self.live, daemon=True)

    def live(self) -> None:
        try:
            self.program(self)
            self.exit(0)
        except KilledError:
            pass

    def check(self) -> None:
        if self.ended:
            raise KilledError
        if self.interrupted:
            self.finish(STATUS_CONTROL_C_EXIT)
            raise KilledError

    def until(self, condition: Callable[[], bool]) -> None:
        self.win32.changed.wait_for(lambda: self.ended or self.interrupted or condition())
        self.check()

    def finish(self, code: int) -> None:
        """ "Terminating a Process": its handles are closed, its object signalled, its jobs told."""
        if self.ended:
            return
        self.ended, self.code, self.memory = True, code, 0
        for number in list(self.handles):
            self.win32.drop(self.handles.pop(number))
        for job in self.jobs:
            message = JOB_OBJECT_MSG_ABNORMAL_EXIT_PROCESS if code in ABNORMAL else JOB_OBJECT_MSG_EXIT_PROCESS
            job.post(message, self.pid)
            if not job.active():
                job.post(JOB_OBJECT_MSG_ACTIVE_PROCESS_ZERO)
        self.win32.changed.notify_all()

    def exit(self, code: int) -> None:
        with self.win32.changed:
            self.check()
            self.finish(code)
        raise KilledError

    def crash(self, code: int = STATUS_ACCESS_VIOLATION) -> None:
        """An exception that nobody handles: without the job's flag a dialog waits for somebody to press a key
        ("JOBOBJECT_BASIC_LIMIT_INFORMATION", JOB_OBJECT_LIMIT_DIE_ON_UNHANDLED_EXCEPTION).
        """
        if not any(job.has(JOB_OBJECT_LIMIT_DIE_ON_UNHANDLED_EXCEPTION) for job in self.jobs):
            self.hang()
        self.exit(code)

    def hang(self) -> None:
        with self.win32.changed:
            self.until(lambda: False)

    def allocate(self, size: int) -> bool:
        """Commit memory ("JOBOBJECT_EXTENDED_LIMIT_INFORMATION"): beyond a limit that fails, and the port is told; the process
        lives on.
        """
        with self.win32.changed:
            self.check()
            for job in self.jobs:
                if job.has(JOB_OBJECT_LIMIT_PROCESS_MEMORY) and self.memory + size > job.limits.process_memory:
                    job.post(JOB_OBJECT_MSG_PROCESS_MEMORY_LIMIT, self.pid)
                    return False
                used = sum(process.memory for process in job.active())
                if job.has(JOB_OBJECT_LIMIT_JOB_MEMORY) and used + size > job.limits.job_memory:
                    job.post(JOB_OBJECT_MSG_JOB_MEMORY_LIMIT, self.pid)
                    return False
            self.memory += size
            self.peak = max(self.peak, self.memory)
            for job in self.jobs:
                job.peak_process = max(job.peak_process, self.memory)
                job.peak_job = max(job.peak_job, sum(process.memory for process in job.active()))
            return True

    def burn(self, user: int, kernel: int = 0) -> None:
        """Use CPU time, in 100 ns; limits count that of user mode ("JOBOBJECT_BASIC_LIMIT_INFORMATION")."""
        with self.win32.changed:
            self.check()
            self.user, self.kernel = self.user + user, self.kernel + kernel
            for job in self.jobs:
                job.user, job.kernel = job.user + user, job.kernel + kernel
            for job in self.jobs:
                self.end_of_time(job)
            self.check()

    def end_of_time(self, job: FakeJob) -> None:
        if job.has(JOB_OBJECT_LIMIT_PROCESS_TIME) and self.user > job.limits.process_time:
            job.post(JOB_OBJECT_MSG_END_OF_PROCESS_TIME, self.pid)
            self.finish(ERROR_NOT_ENOUGH_QUOTA)
        if job.has(JOB_OBJECT_LIMIT_JOB_TIME) and job.user > job.limits.job_time:
            # "JOBOBJECT_END_OF_JOB_TIME_INFORMATION": either all are ended and no message comes, or one comes and the limit goes.
            if job.at_end == JOB_OBJECT_POST_AT_END_OF_JOB:
                job.limits = job.limits._replace(flags=job.limits.flags & ~JOB_OBJECT_LIMIT_JOB_TIME)
                job.post(JOB_OBJECT_MSG_END_OF_JOB_TIME)
            else:
                # "JOBOBJECT_BASIC_ACCOUNTING_INFORMATION", TotalTerminatedProcesses: because of a limit violation.
                job.terminated += len(job.active())
                self.win32.end_job(job, ERROR_NOT_ENOUGH_QUOTA)

    def stream(self, number: int) -> int:
        """Return the handle of a standard stream; it is worth something only if it was inherited too."""
        return self.creation.streams[number] if self.creation.streams else 0

    def write(self, handle: int, data: bytes) -> bool:
        """Write all of it; False where nobody reads or there is no such handle."""
        try:
            self.win32.move_out(self, handle, data)
        except Win32Error:
            return False
        return True

    def print(self, text: str, number: int = 1) -> bool:
        return self.write(self.stream(number), text.encode())

    def read(self, size: int) -> bytes:
        return self.win32.move_in(self, self.stream(0), size) or b""

    def spawn(self, line: str, *, flags: int = 0) -> FakeProcess:
        """Start a child; all inheritable handles are this process's, which makes none, so that it gets the streams only."""
        creation = self.creation._replace(command_line=line, flags=flags, jobs=(), inherited=())
        return self.win32.make_process(creation, self)

    def wait(self, process: FakeProcess) -> int:
        with self.win32.changed:
            self.until(lambda: process.ended)
            return process.code


class FakeWin32:
    """The Win32 of backends/windows/winapi.py. `programs`: what CreateProcessW finds, by the full path in lower case.

    Attributes: files, by full path in lower case; calls, the names of the functions that were called; lacks, attributes
    that this Windows is too old for ("jobs", "package", "mitigations"); streams, this process's own handles.
    """

    def __init__(self, programs: dict[str, Program] | None = None) -> None:
        self.programs = programs or {}
        self.changed = threading.Condition()
        self.numbers = itertools.count(0x100, 4)
        self.pids = itertools.count(5000, 4)
        self.processes: dict[int, FakeProcess] = {}
        self.files: dict[str, FakeFile] = {}
        self.calls: list[str] = []
        self.lacks: set[str] = set()
        self.own_job: FakeJob | None = None
        self.descriptors: dict[int, int] = {}
        self.streams = [0, 0, 0]
        self.me = FakeProcess(self, OWN_PID, lambda process: None, Creation("", ""), None)

    # handles: "Handles and Objects"

    def open(self, target: Any, owner: FakeProcess | None = None, *, inheritable: bool = False, number: int = 0) -> int:
        if isinstance(target, PipeEnd):
            target.opened(1)
        if isinstance(target, FakeJob):
            target.handles += 1
        number = number or next(self.numbers)
        (owner or self.me).handles[number] = Handle(target, inheritable)
        return number

    def drop(self, handle: Handle) -> None:
        target = handle.target
        if isinstance(target, PipeEnd):
            target.opened(-1)
        if isinstance(target, FakeJob):
            target.handles -= 1
            # "Job Objects": when the last handle to it is closed, all processes of the job end.
            if not target.handles and target.has(JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE):
                self.end_job(target, 0)
        self.changed.notify_all()

    def find(self, function: str, number: int, kind: type[T], owner: FakeProcess | None = None) -> T:
        self.calls.append(function)
        handle = (owner or self.me).handles.get(number)
        if handle is None or not isinstance(handle.target, kind):
            raise Win32Error(function, ERROR_INVALID_HANDLE)
        return handle.target

    def close(self, handle: int) -> None:
        with self.changed:
            self.find("CloseHandle", handle, object)
            self.drop(self.me.handles.pop(handle))

    def duplicate(self, handle: int, *, inheritable: bool) -> int:
        with self.changed:
            return self.open(self.find("DuplicateHandle", handle, object), inheritable=inheritable)

    def set_inheritable(self, handle: int, *, inheritable: bool) -> None:
        with self.changed:
            self.find("SetHandleInformation", handle, object)
            self.me.handles[handle].inheritable = inheritable

    def is_inheritable(self, handle: int) -> bool:
        with self.changed:
            self.find("GetHandleInformation", handle, object)
            return self.me.handles[handle].inheritable

    def wait(self, handle: int, milliseconds: int) -> bool:
        with self.changed:
            process = self.find("WaitForSingleObject", handle, FakeProcess)
            return self.changed.wait_for(
                lambda: process.ended, None if milliseconds == INFINITE else milliseconds / 1000
            )

    # jobs: "Job Objects", "Nested Jobs"

    def create_job(self) -> int:
        with self.changed:
            self.calls.append("CreateJobObjectW")
            return self.open(FakeJob(self.changed))

    def assign_process(self, job: int, process: int) -> None:
        with self.changed:
            found = self.find("AssignProcessToJobObject", job, FakeJob)
            self.enter(found, self.find("AssignProcessToJobObject", process, FakeProcess), "AssignProcessToJobObject")

    def enter(self, job: FakeJob, process: FakeProcess, function: str) -> None:
        """ "AssignProcessToJobObject": in a second job only if that is empty or of the same hierarchy, and has no UI limits."""
        if process.ended:
            raise Win32Error(function, ERROR_ACCESS_DENIED)
        if job in process.jobs:
            return
        foreign = any(other.jobs[: len(process.jobs)] != process.jobs for other in job.active())
        if process.jobs and (foreign or job.ui):
            raise Win32Error(function, ERROR_ACCESS_DENIED)
        self.admit(job, process, function)

    def admit(self, job: FakeJob, process: FakeProcess, function: str) -> None:
        """ "JOBOBJECT_BASIC_LIMIT_INFORMATION": one too many is terminated, and not associated."""
        job.total += 1
        if job.has(JOB_OBJECT_LIMIT_ACTIVE_PROCESS) and len(job.active()) >= job.limits.active_processes:
            job.post(JOB_OBJECT_MSG_ACTIVE_PROCESS_LIMIT)
            job.terminated += 1
            process.finish(ERROR_NOT_ENOUGH_QUOTA)
            raise Win32Error(function, ERROR_NOT_ENOUGH_QUOTA)
        job.processes.append(process)
        process.jobs.append(job)
        job.post(JOB_OBJECT_MSG_NEW_PROCESS, process.pid)

    def is_process_in_job(self, process: int, job: int) -> bool:
        with self.changed:
            found = self.find("IsProcessInJob", process, FakeProcess)
            return self.find("IsProcessInJob", job, FakeJob) in found.jobs if job else bool(found.jobs)

    def terminate_job(self, job: int, code: int) -> None:
        with self.changed:
            self.end_job(self.find("TerminateJobObject", job, FakeJob), code)

    def end_job(self, job: FakeJob, code: int) -> None:
        for process in job.active():
            process.finish(code)

    def set_extended_limits(self, job: int, limits: ExtendedLimits) -> None:
        with self.changed:
            found = self.find("SetInformationJobObject", job, FakeJob)
            if not valid_limits(limits):
                raise Win32Error("SetInformationJobObject", ERROR_INVALID_PARAMETER)
            # Not documented: the kernel keeps memory limits in pages. A field without its flag is ignored.
            pages = {name: getattr(limits, name) // PAGE * PAGE for name in ("process_memory", "job_memory")}
            found.limits = limits._replace(**pages)

    def extended_limits(self, job: int) -> ExtendedLimits:
        with self.changed:
            return self.find("QueryInformationJobObject", job, FakeJob).limits

    def memory_peaks(self, job: int) -> MemoryPeaks:
        with self.changed:
            found = self.find("QueryInformationJobObject", job, FakeJob)
            return MemoryPeaks(found.peak_process, found.peak_job)

    def set_ui_restrictions(self, job: int, flags: int) -> None:
        with self.changed:
            found = self.find("SetInformationJobObject", job, FakeJob)
            if flags & ~0xFF:
                raise Win32Error("SetInformationJobObject", ERROR_INVALID_PARAMETER)
            found.ui = flags

    def ui_restrictions(self, job: int) -> int:
        with self.changed:
            return self.find("QueryInformationJobObject", job, FakeJob).ui

    def set_cpu_rate(self, job: int, rate: CpuRate) -> None:
        """ "JOBOBJECT_CPU_RATE_CONTROL_INFORMATION": 1 to 10000, and a cap only with control."""
        with self.changed:
            found = self.find("SetInformationJobObject", job, FakeJob)
            known = JOB_OBJECT_CPU_RATE_CONTROL_ENABLE | JOB_OBJECT_CPU_RATE_CONTROL_HARD_CAP
            enabled = rate.flags & JOB_OBJECT_CPU_RATE_CONTROL_ENABLE
            if rate.flags & ~known or (rate.flags and not enabled) or (enabled and not 1 <= rate.rate <= 10_000):
                raise Win32Error("SetInformationJobObject", ERROR_INVALID_PARAMETER)
            found.cpu_rate = rate

    def cpu_rate(self, job: int) -> CpuRate:
        with self.changed:
            return self.find("QueryInformationJobObject", job, FakeJob).cpu_rate

    def set_end_of_job_time(self, job: int, action: int) -> None:
        with self.changed:
            found = self.find("SetInformationJobObject", job, FakeJob)
            if action not in (JOB_OBJECT_TERMINATE_AT_END_OF_JOB, JOB_OBJECT_POST_AT_END_OF_JOB):
                raise Win32Error("SetInformationJobObject", ERROR_INVALID_PARAMETER)
            found.at_end = action

    def basic_accounting(self, job: int) -> Accounting:
        with self.changed:
            found = self.find("QueryInformationJobObject", job, FakeJob)
            return Accounting(found.user, found.kernel, 0, found.total, len(found.active()), found.terminated)

    def basic_and_io_accounting(self, job: int) -> Accounting:
        return self.basic_accounting(job)._replace(read=0, written=0)

    def process_ids(self, job: int) -> tuple[int, ...]:
        with self.changed:
            return tuple(process.pid for process in self.find("QueryInformationJobObject", job, FakeJob).active())

    # ports: "I/O Completion Ports", "JOBOBJECT_ASSOCIATE_COMPLETION_PORT"

    def create_port(self) -> int:
        with self.changed:
            self.calls.append("CreateIoCompletionPort")
            return self.open(FakePort())

    def set_port(self, job: int, port: int, key: int) -> None:
        with self.changed:
            found = self.find("SetInformationJobObject", job, FakeJob)
            found.port, found.key = self.find("SetInformationJobObject", port, FakePort), key
            # Not documented, and so on Windows and Wine: those that are in already are told now.
            for process in found.active():
                found.post(JOB_OBJECT_MSG_NEW_PROCESS, process.pid)

    def next_completion(self, port: int, milliseconds: int) -> Completion | None:
        with self.changed:
            found = self.find("GetQueuedCompletionStatus", port, FakePort)
            self.changed.wait_for(lambda: found.queue, None if milliseconds == INFINITE else milliseconds / 1000)
            return found.queue.popleft() if found.queue else None

    def post_completion(self, port: int, completion: Completion) -> None:
        with self.changed:
            self.find("PostQueuedCompletionStatus", port, FakePort).queue.append(completion)
            self.changed.notify_all()

    # processes: "CreateProcessW", "UpdateProcThreadAttribute"

    def create_process(self, creation: Creation) -> Created:
        function = "CreateProcessAsUserW" if creation.token else "CreateProcessW"
        with self.changed:
            self.calls.append(function)
            for name in ("jobs", "package", "mitigations"):
                if getattr(creation, name) and name in self.lacks:
                    raise Win32Error("UpdateProcThreadAttribute", ERROR_NOT_SUPPORTED)
            self.check_creation(creation, function)
            process = self.make_process(creation, None)
            thread = self.open(FakeThread(process))
            return Created(self.open(process), thread, process.pid, process.pid + 1)

    def check_creation(self, creation: Creation, function: str) -> None:
        """What the pages say of arguments; that the environment is sorted is asked for ("Changing Environment Variables") and
        not checked by Windows, so here.
        """
        if len(creation.command_line) >= 32767:
            raise Win32Error(function, ERROR_FILENAME_EXCED_RANGE)
        if "\0" in creation.command_line + creation.application or not creation.environment.endswith("\0\0"):
            raise Win32Error(function, ERROR_INVALID_PARAMETER)
        names = [
            entry[: entry.index("=", 1)].upper() for entry in creation.environment.rstrip("\0").split("\0") if entry
        ]
        assert names == sorted(names), names
        assert not (creation.flags & CREATE_NO_WINDOW and creation.flags & DETACHED_PROCESS), (
            "the first is ignored then"
        )
        listed = creation.inherited
        # PROC_THREAD_ATTRIBUTE_HANDLE_LIST: "These handles must be created as inheritable handles"; and each once.
        if len(set(listed)) != len(listed) or any(not self.inherits(number) for number in listed):
            raise Win32Error(function, ERROR_INVALID_PARAMETER)
        assert set(creation.streams or ()) <= set(listed), "a stream that the process does not get"

    def inherits(self, number: int) -> bool:
        return number in self.me.handles and self.me.handles[number].inheritable

    def make_process(self, creation: Creation, parent: FakeProcess | None) -> FakeProcess:
        function = "CreateProcessW"
        with self.changed:
            if parent:
                parent.check()  # whose thread may come here after its end
            program = self.programs.get(ntpath.normpath(creation.application).lower())
            if program is None:
                raise Win32Error(function, ERROR_FILE_NOT_FOUND)
            maker = parent or self.me
            process = FakeProcess(self, next(self.pids), program, creation, parent)
            try:
                for job in self.jobs_of_child(maker, creation.flags):
                    self.admit(job, process, function)
                for number in creation.jobs:
                    self.enter(self.find("UpdateProcThreadAttribute", number, FakeJob), process, function)
            except Win32Error:
                process.finish(ERROR_NOT_ENOUGH_QUOTA)  # of the jobs that it is in already
                raise
            for number in creation.inherited if parent is None else list(maker.handles):
                self.open(maker.handles[number].target, process, inheritable=True, number=number)
            self.processes[process.pid] = process
            if not process.suspended:
                process.thread.start()
            return process

    def jobs_of_child(self, parent: FakeProcess, flags: int) -> list[FakeJob]:
        """ "Nested Jobs", "Job Objects": it is out of the innermost jobs that let it go, and in what is around the first that
        does not.
        """
        kept = list(parent.jobs)
        if flags & CREATE_BREAKAWAY_FROM_JOB and kept and not may_leave(kept[-1], asked=True):
            raise Win32Error("CreateProcessW", ERROR_ACCESS_DENIED)
        while kept and may_leave(kept[-1], asked=bool(flags & CREATE_BREAKAWAY_FROM_JOB)):
            kept.pop()
        return kept

    def resume_thread(self, thread: int) -> None:
        with self.changed:
            process = self.find("ResumeThread", thread, FakeThread).process
            if process.suspended and not process.ended:
                process.suspended = False
                process.thread.start()

    def terminate_process(self, process: int, code: int) -> None:
        with self.changed:
            found = self.find("TerminateProcess", process, FakeProcess)
            if found.ended:
                raise Win32Error("TerminateProcess", ERROR_ACCESS_DENIED)  # "TerminateProcess", Remarks
            found.finish(code)

    def open_process(self, pid: int, access: int) -> int:
        with self.changed:
            self.calls.append("OpenProcess")
            if pid not in self.processes or self.processes[pid].ended:
                raise Win32Error("OpenProcess", ERROR_INVALID_PARAMETER)
            return self.open(self.processes[pid])

    def current_process(self) -> int:
        return 0xFFFFFFFFFFFFFFFF

    def exit_code(self, process: int) -> int:
        with self.changed:
            return self.find("GetExitCodeProcess", process, FakeProcess).code

    def process_times(self, process: int) -> ProcessTimes:
        with self.changed:
            found = self.find("GetProcessTimes", process, FakeProcess)
            return ProcessTimes(found.user, found.kernel)

    def process_memory(self, process: int) -> ProcessMemory:
        with self.changed:
            found = self.find("K32GetProcessMemoryInfo", process, FakeProcess)
            return ProcessMemory(found.memory, found.peak, found.memory, found.peak)

    def send_ctrl_break(self, group: int) -> None:
        """ "GenerateConsoleCtrlEvent": only processes of that group which share the caller's console are told."""
        with self.changed:
            self.calls.append("GenerateConsoleCtrlEvent")
            for process in self.processes.values():
                leader = process
                while leader.parent and not leader.creation.flags & CREATE_NEW_PROCESS_GROUP:
                    leader = leader.parent
                elsewhere = process.creation.flags & (CREATE_NO_WINDOW | DETACHED_PROCESS)
                if leader.pid == group and not elsewhere and not process.ended:
                    process.interrupted = True
            self.changed.notify_all()

    # pipes and files: "Pipes", "ReadFile", "WriteFile", "CancelIoEx", "CreateFileW"

    def create_pipe(self, size: int = 0) -> tuple[int, int]:
        with self.changed:
            self.calls.append("CreatePipe")
            pipe = FakePipe(size or PAGE)
            return self.open(PipeEnd(pipe, writes=False)), self.open(PipeEnd(pipe, writes=True))

    def read(self, handle: int, size: int) -> bytes | None:
        return self.move_in(self.me, handle, size)

    def write(self, handle: int, data: bytes | memoryview) -> int:
        return self.move_out(self.me, handle, bytes(data))

    def move_in(self, owner: FakeProcess, handle: int, size: int) -> bytes | None:
        with self.changed:
            owner.check()
            target: Any = self.find("ReadFile", handle, object, owner)
            if isinstance(target, OpenFile):
                data = bytes(target.file.data[target.position : target.position + size])
                target.position += len(data)
                return data or None
            end: PipeEnd = target
            if end.writes:
                raise Win32Error("ReadFile", ERROR_ACCESS_DENIED)
            aborts, pipe = end.aborts, end.pipe
            owner.until(lambda: bool(pipe.data) or bool(pipe.nothings) or not pipe.writers or end.aborts > aborts)
            if pipe.nothings:
                # "ReadFile", Pipes: TRUE and no bytes means that the other end has written none.
                pipe.nothings -= 1
                return b""
            if not pipe.data and end.aborts > aborts:
                raise Win32Error("ReadFile", ERROR_OPERATION_ABORTED)
            if not pipe.data:
                return None
            data = bytes(pipe.data[:size])
            del pipe.data[:size]
            self.changed.notify_all()
            return data

    def move_out(self, owner: FakeProcess, handle: int, data: bytes) -> int:
        with self.changed:
            owner.check()
            target: Any = self.find("WriteFile", handle, object, owner)
            if isinstance(target, OpenFile):
                target.file.data[target.position : target.position + len(data)] = data
                target.position += len(data)
                return len(data)
            end: PipeEnd = target
            if not end.writes:
                raise Win32Error("WriteFile", ERROR_ACCESS_DENIED)
            aborts, pipe, left = end.aborts, end.pipe, data
            if not left and pipe.readers:
                pipe.nothings += 1
                self.changed.notify_all()
            while left:
                owner.until(lambda: len(pipe.data) < pipe.capacity or not pipe.readers or end.aborts > aborts)
                if not pipe.readers:
                    raise Win32Error("WriteFile", ERROR_NO_DATA)
                if end.aborts > aborts:
                    raise Win32Error("WriteFile", ERROR_OPERATION_ABORTED)
                room = pipe.capacity - len(pipe.data)
                pipe.data += left[:room]
                left = left[room:]
                self.changed.notify_all()
            return len(data)

    def available(self, handle: int) -> int:
        with self.changed:
            end = self.find("PeekNamedPipe", handle, PipeEnd)
            if end.writes:
                raise Win32Error("PeekNamedPipe", ERROR_ACCESS_DENIED)
            return len(end.pipe.data)

    def cancel(self, handle: int) -> None:
        with self.changed:
            self.find("CancelIoEx", handle, PipeEnd).aborts += 1
            self.changed.notify_all()

    def open_file(self, path: str, access: int, share: int, disposition: int, flags: int = 0) -> int:
        with self.changed:
            self.calls.append("CreateFileW")
            if path.upper() == "NUL":
                return self.open(OpenFile(FakeFile("NUL"), access))
            found = self.resolve(path, last=not flags & FILE_FLAG_OPEN_REPARSE_POINT)
            file = self.files.get(found.lower())
            if file is None:
                if disposition == OPEN_EXISTING:
                    raise Win32Error("CreateFileW", ERROR_FILE_NOT_FOUND)
                file = self.files[found.lower()] = FakeFile(found)
            return self.open(OpenFile(file, access))

    def resolve(self, path: str, *, last: bool) -> str:
        drive, rest = ntpath.splitdrive(path)
        here, parts = drive + "\\", [part for part in rest.split("\\") if part]
        for index, part in enumerate(parts):
            here = ntpath.join(here, part)
            file = self.files.get(here.lower())
            if file and file.link and (last or index < len(parts) - 1):
                here = self.resolve(file.link, last=True)
        return here

    def is_link(self, path: str) -> bool:
        with self.changed:
            self.calls.append("GetFileAttributesW")
            file = self.files.get(self.resolve(path, last=False).lower())
            if file is None:
                raise Win32Error("GetFileAttributesW", ERROR_FILE_NOT_FOUND)
            return file.link is not None

    def final_path(self, handle: int) -> str:
        with self.changed:
            return self.find("GetFinalPathNameByHandleW", handle, OpenFile).file.path

    def truncate(self, handle: int) -> None:
        with self.changed:
            found = self.find("SetEndOfFile", handle, OpenFile)
            if not found.access & GENERIC_WRITE:
                raise Win32Error("SetEndOfFile", ERROR_ACCESS_DENIED)
            del found.file.data[found.position :]

    def handle_of(self, descriptor: int) -> int:
        if descriptor not in self.descriptors:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return self.descriptors[descriptor]

    def open_descriptor(self, handle: int, flags: int) -> int:
        del flags
        with self.changed:
            self.find("_open_osfhandle", handle, object)
            number = next(self.numbers)
            self.descriptors[number] = handle
            return number

    def give_up_descriptor(self, descriptor: int) -> int:
        copy = self.duplicate(self.handle_of(descriptor), inheritable=False)
        self.close(self.descriptors.pop(descriptor))
        return copy

    def standard_handle(self, number: int) -> int:
        return self.streams[number]

    def version(self) -> tuple[int, int, int]:
        return 10, 0, 22631

    def wine_version(self) -> str | None:
        return None

    # for tests

    def own_handles(self) -> list[object]:
        """What this process has open."""
        return [handle.target for handle in self.me.handles.values()]

    def make_path(self, path: str, *, link: str | None = None) -> FakeFile:
        """Have a directory, a file, or a link."""
        file = self.files[path.lower()] = FakeFile(path, link=link)
        return file


def may_leave(job: FakeJob, *, asked: bool) -> bool:
    return job.has(JOB_OBJECT_LIMIT_SILENT_BREAKAWAY_OK) or (asked and job.has(JOB_OBJECT_LIMIT_BREAKAWAY_OK))


def valid_limits(limits: ExtendedLimits) -> bool:
    """ "JOBOBJECT_BASIC_LIMIT_INFORMATION": no unknown flag, and for each flag a value that it can have."""
    wanted = {
        JOB_OBJECT_LIMIT_PROCESS_TIME: limits.process_time > 0,
        JOB_OBJECT_LIMIT_JOB_TIME: limits.job_time > 0,
        JOB_OBJECT_LIMIT_ACTIVE_PROCESS: limits.active_processes > 0,
        JOB_OBJECT_LIMIT_PRIORITY_CLASS: limits.priority_class in PRIORITY_CLASSES.values(),
        JOB_OBJECT_LIMIT_PROCESS_MEMORY: limits.process_memory >= PAGE,
        JOB_OBJECT_LIMIT_JOB_MEMORY: limits.job_memory >= PAGE,
    }
    return not limits.flags & ~KNOWN_LIMITS and all(fine for flag, fine in wanted.items() if limits.flags & flag)
