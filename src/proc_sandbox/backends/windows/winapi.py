"""What the Windows backend asks of the system: the functions as a Protocol, in plain Python values, and Microsoft's numbers.

Nothing here calls anything, so that it imports on every system. `native.py` is the real thing, by ctypes; the tests have a strict
fake that does what Microsoft documents (tests/support/fake_win32.py). Handles and masks are ints, times are in the 100 ns that
Windows counts in. Tokens, access control lists and AppContainers are in security.py.
"""

from __future__ import annotations

import errno
import os
from typing import NamedTuple, Protocol

# Names and numbers are those of winnt.h, winbase.h and winerror.h.

JOB_OBJECT_LIMIT_PROCESS_TIME = 0x0002
JOB_OBJECT_LIMIT_JOB_TIME = 0x0004
JOB_OBJECT_LIMIT_ACTIVE_PROCESS = 0x0008
JOB_OBJECT_LIMIT_AFFINITY = 0x0010
JOB_OBJECT_LIMIT_PRIORITY_CLASS = 0x0020
JOB_OBJECT_LIMIT_SCHEDULING_CLASS = 0x0080
JOB_OBJECT_LIMIT_PROCESS_MEMORY = 0x0100
JOB_OBJECT_LIMIT_JOB_MEMORY = 0x0200
JOB_OBJECT_LIMIT_DIE_ON_UNHANDLED_EXCEPTION = 0x0400
JOB_OBJECT_LIMIT_BREAKAWAY_OK = 0x0800
JOB_OBJECT_LIMIT_SILENT_BREAKAWAY_OK = 0x1000
JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE = 0x2000

JOB_OBJECT_UILIMIT = {
    "HANDLES": 0x01,
    "READCLIPBOARD": 0x02,
    "WRITECLIPBOARD": 0x04,
    "SYSTEMPARAMETERS": 0x08,
    "DISPLAYSETTINGS": 0x10,
    "GLOBALATOMS": 0x20,
    "DESKTOP": 0x40,
    "EXITWINDOWS": 0x80,
}

JOB_OBJECT_CPU_RATE_CONTROL_ENABLE = 0x1
JOB_OBJECT_CPU_RATE_CONTROL_HARD_CAP = 0x4

JOB_OBJECT_TERMINATE_AT_END_OF_JOB = 0
JOB_OBJECT_POST_AT_END_OF_JOB = 1

JOB_OBJECT_MSG_END_OF_JOB_TIME = 1
JOB_OBJECT_MSG_END_OF_PROCESS_TIME = 2
JOB_OBJECT_MSG_ACTIVE_PROCESS_LIMIT = 3
JOB_OBJECT_MSG_ACTIVE_PROCESS_ZERO = 4
JOB_OBJECT_MSG_NEW_PROCESS = 6
JOB_OBJECT_MSG_EXIT_PROCESS = 7
JOB_OBJECT_MSG_ABNORMAL_EXIT_PROCESS = 8
JOB_OBJECT_MSG_PROCESS_MEMORY_LIMIT = 9
JOB_OBJECT_MSG_JOB_MEMORY_LIMIT = 10

CREATE_SUSPENDED = 0x00000004
DETACHED_PROCESS = 0x00000008
CREATE_NEW_CONSOLE = 0x00000010
CREATE_NEW_PROCESS_GROUP = 0x00000200
CREATE_UNICODE_ENVIRONMENT = 0x00000400
EXTENDED_STARTUPINFO_PRESENT = 0x00080000
CREATE_BREAKAWAY_FROM_JOB = 0x01000000
CREATE_DEFAULT_ERROR_MODE = 0x04000000
CREATE_NO_WINDOW = 0x08000000

PRIORITY_CLASSES = {
    "idle": 0x40,
    "below normal": 0x4000,
    "normal": 0x20,
    "above normal": 0x8000,
    "high": 0x80,
    "realtime": 0x100,
}

INFINITE = 0xFFFFFFFF
CTRL_BREAK_EVENT = 1

GENERIC_READ = 0x80000000
GENERIC_WRITE = 0x40000000
GENERIC_EXECUTE = 0x20000000
GENERIC_ALL = 0x10000000
DELETE = 0x00010000
SYNCHRONIZE = 0x00100000
FILE_SHARE_READ = 1
FILE_SHARE_WRITE = 2
FILE_SHARE_DELETE = 4
CREATE_ALWAYS = 2
OPEN_EXISTING = 3
OPEN_ALWAYS = 4
FILE_FLAG_BACKUP_SEMANTICS = 0x02000000
FILE_FLAG_OPEN_REPARSE_POINT = 0x00200000

PROCESS_TERMINATE = 0x0001
PROCESS_QUERY_INFORMATION = 0x0400
PROCESS_QUERY_LIMITED_INFORMATION = 0x1000

ERROR_INVALID_FUNCTION = 1
ERROR_FILE_NOT_FOUND = 2
ERROR_PATH_NOT_FOUND = 3
ERROR_ACCESS_DENIED = 5
ERROR_INVALID_HANDLE = 6
ERROR_NOT_ENOUGH_MEMORY = 8
ERROR_BAD_LENGTH = 24
ERROR_SHARING_VIOLATION = 32
ERROR_HANDLE_EOF = 38
ERROR_NOT_SUPPORTED = 50
ERROR_INVALID_PARAMETER = 87
ERROR_BROKEN_PIPE = 109
ERROR_CALL_NOT_IMPLEMENTED = 120
ERROR_INSUFFICIENT_BUFFER = 122
ERROR_INVALID_NAME = 123
ERROR_PROC_NOT_FOUND = 127
ERROR_ALREADY_EXISTS = 183
ERROR_BAD_EXE_FORMAT = 193
ERROR_FILENAME_EXCED_RANGE = 206
ERROR_NO_DATA = 232
ERROR_MORE_DATA = 234
WAIT_TIMEOUT = 258
ERROR_DIRECTORY = 267
ERROR_ELEVATION_REQUIRED = 740
ERROR_OPERATION_ABORTED = 995
ERROR_NOT_FOUND = 1168
ERROR_INVALID_ACL = 1336
ERROR_NOT_ENOUGH_QUOTA = 1816

STATUS_ACCESS_VIOLATION = 0xC0000005
STATUS_CONTROL_C_EXIT = 0xC000013A

# As the C runtime has them (dosmap.c), where all others are EINVAL too; but for a line that is too long, which we check.
ERRNO = {
    ERROR_FILE_NOT_FOUND: errno.ENOENT,
    ERROR_PATH_NOT_FOUND: errno.ENOENT,
    ERROR_ACCESS_DENIED: errno.EACCES,
    ERROR_INVALID_HANDLE: errno.EBADF,
    ERROR_NOT_ENOUGH_MEMORY: errno.ENOMEM,
    ERROR_BAD_LENGTH: errno.EACCES,
    ERROR_SHARING_VIOLATION: errno.EACCES,
    ERROR_BROKEN_PIPE: errno.EPIPE,
    ERROR_ALREADY_EXISTS: errno.EEXIST,
    ERROR_BAD_EXE_FORMAT: errno.ENOEXEC,
    ERROR_FILENAME_EXCED_RANGE: errno.E2BIG,
    ERROR_NO_DATA: errno.EPIPE,
    ERROR_DIRECTORY: errno.ENOTDIR,
    ERROR_NOT_ENOUGH_QUOTA: errno.ENOMEM,
}


class Win32Error(OSError):
    """A function of Windows has failed.

    Attributes: function, its name; code, what GetLastError returned (or an HRESULT); errno, as the C runtime translates it.
    """

    def __init__(self, function: str, code: int) -> None:
        number = ERRNO.get(code, errno.EINVAL)
        super().__init__(number, f"{function}: {os.strerror(number)} (Windows error {code})")
        self.function = function
        self.code = code

    def __reduce__(self) -> tuple[type[Win32Error], tuple[str, int]]:
        return type(self), (self.function, self.code)


class ExtendedLimits(NamedTuple):
    """JOBOBJECT_EXTENDED_LIMIT_INFORMATION: a field holds where its flag is set."""

    flags: int = 0
    process_time: int = 0
    job_time: int = 0
    """100 ns in user mode."""
    active_processes: int = 0
    affinity: int = 0
    priority_class: int = 0
    scheduling_class: int = 0
    process_memory: int = 0
    job_memory: int = 0
    """Bytes that are committed."""


class MemoryPeaks(NamedTuple):
    """The same structure's PeakProcessMemoryUsed and PeakJobMemoryUsed, in bytes."""

    process: int
    job: int


class CpuRate(NamedTuple):
    """JOBOBJECT_CPU_RATE_CONTROL_INFORMATION: rate in 1/100 percent of all processors together."""

    flags: int
    rate: int


class Accounting(NamedTuple):
    """JOBOBJECT_BASIC_ACCOUNTING_INFORMATION, and what is read and written in bytes; -1 where that was not asked for."""

    user: int
    kernel: int
    page_faults: int
    total: int
    active: int
    terminated: int
    read: int = -1
    written: int = -1


class Completion(NamedTuple):
    """What GetQueuedCompletionStatus returned: of a job, the message and the process id that it is about."""

    message: int
    key: int
    value: int


class Creation(NamedTuple):
    """What CreateProcessW is told; 0, "" and () where nothing is asked for.

    streams go into STARTUPINFO; only what stands in inherited reaches the process, and it must be inheritable
    (PROC_THREAD_ATTRIBUTE_HANDLE_LIST). jobs: an outer one first, each later one nested in it (..._JOB_LIST).
    package and capabilities: addresses of SIDs (..._SECURITY_CAPABILITIES), which stay the caller's; mitigations: the first
    64 bits of ..._MITIGATION_POLICY. token: CreateProcessAsUserW.
    """

    application: str
    command_line: str
    environment: str = "\0\0"
    directory: str | None = None
    flags: int = 0
    streams: tuple[int, int, int] | None = None
    inherited: tuple[int, ...] = ()
    jobs: tuple[int, ...] = ()
    token: int = 0
    package: int = 0
    capabilities: tuple[int, ...] = ()
    mitigations: int = 0


class Created(NamedTuple):
    """PROCESS_INFORMATION: two handles, which are ours to close, and two numbers."""

    process: int
    thread: int
    pid: int
    tid: int


class ProcessTimes(NamedTuple):
    """CPU times of one process, in 100 ns."""

    user: int
    kernel: int


class ProcessMemory(NamedTuple):
    """PROCESS_MEMORY_COUNTERS, in bytes."""

    working_set: int
    peak_working_set: int
    commit: int
    peak_commit: int


class Jobs(Protocol):
    """ "Job Objects" and "I/O Completion Ports". Each method raises Win32Error."""

    def create_job(self) -> int:
        """CreateJobObjectW, without a name: nobody can open it by one."""

    def assign_process(self, job: int, process: int) -> None:
        """AssignProcessToJobObject; a job that the process is in already becomes the outer one."""

    def is_process_in_job(self, process: int, job: int) -> bool:
        """IsProcessInJob; job 0: any job."""

    def terminate_job(self, job: int, code: int) -> None:
        """TerminateJobObject: each process of the job, and of jobs nested in it, as if by TerminateProcess."""

    def set_extended_limits(self, job: int, limits: ExtendedLimits) -> None:
        """SetInformationJobObject, JobObjectExtendedLimitInformation; replaces what was set before."""

    def extended_limits(self, job: int) -> ExtendedLimits:
        """QueryInformationJobObject, the same class."""

    def memory_peaks(self, job: int) -> MemoryPeaks:
        """QueryInformationJobObject, the same class."""

    def set_ui_restrictions(self, job: int, flags: int) -> None:
        """SetInformationJobObject, JobObjectBasicUIRestrictions; a job nested in another one may have none of its own."""

    def ui_restrictions(self, job: int) -> int:
        """QueryInformationJobObject, the same class."""

    def set_cpu_rate(self, job: int, rate: CpuRate) -> None:
        """SetInformationJobObject, JobObjectCpuRateControlInformation."""

    def cpu_rate(self, job: int) -> CpuRate:
        """QueryInformationJobObject, the same class."""

    def set_end_of_job_time(self, job: int, action: int) -> None:
        """SetInformationJobObject, JobObjectEndOfJobTimeInformation."""

    def basic_accounting(self, job: int) -> Accounting:
        """QueryInformationJobObject, JobObjectBasicAccountingInformation."""

    def basic_and_io_accounting(self, job: int) -> Accounting:
        """QueryInformationJobObject, JobObjectBasicAndIoAccountingInformation."""

    def process_ids(self, job: int) -> tuple[int, ...]:
        """QueryInformationJobObject, JobObjectBasicProcessIdList."""

    def create_port(self) -> int:
        """CreateIoCompletionPort, without a file."""

    def set_port(self, job: int, port: int, key: int) -> None:
        """SetInformationJobObject, JobObjectAssociateCompletionPortInformation; once in a job's life before Windows 8."""

    def next_completion(self, port: int, milliseconds: int) -> Completion | None:
        """GetQueuedCompletionStatus; None when the time is over."""

    def post_completion(self, port: int, completion: Completion) -> None:
        """PostQueuedCompletionStatus: wakes who waits at the port."""


class Processes(Protocol):
    """ "Processes and Threads". Each method raises Win32Error."""

    def create_process(self, creation: Creation) -> Created:
        """CreateProcessW, or CreateProcessAsUserW where there is a token."""

    def resume_thread(self, thread: int) -> None:
        """ResumeThread."""

    def terminate_process(self, process: int, code: int) -> None:
        """TerminateProcess."""

    def open_process(self, pid: int, access: int) -> int:
        """OpenProcess; the handle is not inherited."""

    def current_process(self) -> int:
        """GetCurrentProcess: a pseudo-handle, for this process only."""

    def exit_code(self, process: int) -> int:
        """GetExitCodeProcess, unsigned; 259 (STILL_ACTIVE) means nothing until the process has been waited for."""

    def process_times(self, process: int) -> ProcessTimes:
        """GetProcessTimes."""

    def process_memory(self, process: int) -> ProcessMemory:
        """K32GetProcessMemoryInfo."""

    def send_ctrl_break(self, group: int) -> None:
        """GenerateConsoleCtrlEvent(CTRL_BREAK_EVENT): to the group that began with CREATE_NEW_PROCESS_GROUP, on our console."""


class Handles(Protocol):
    """ "Handles and Objects", "Pipes", "File Management". Each method raises Win32Error."""

    def close(self, handle: int) -> None:
        """CloseHandle."""

    def duplicate(self, handle: int, *, inheritable: bool) -> int:
        """DuplicateHandle, within this process, with the same access."""

    def set_inheritable(self, handle: int, *, inheritable: bool) -> None:
        """SetHandleInformation, HANDLE_FLAG_INHERIT."""

    def is_inheritable(self, handle: int) -> bool:
        """GetHandleInformation."""

    def wait(self, handle: int, milliseconds: int) -> bool:
        """WaitForSingleObject; False when the time is over."""

    def create_pipe(self, size: int = 0) -> tuple[int, int]:
        """CreatePipe: the end to read and the end to write, neither inheritable."""

    def open_file(self, path: str, access: int, share: int, disposition: int, flags: int = 0) -> int:
        """CreateFileW; not inheritable. "NUL" is the null device."""

    def read(self, handle: int, size: int) -> bytes | None:
        """ReadFile: waits for something; None at the end, also that of a pipe which nobody can write to any more. b"": somebody has
        written nothing to the pipe.
        """

    def write(self, handle: int, data: bytes | memoryview) -> int:
        """WriteFile: waits until it is all taken; its size. ERROR_NO_DATA and ERROR_BROKEN_PIPE: nobody reads any more."""

    def available(self, handle: int) -> int:
        """PeekNamedPipe: bytes that read() will not wait for; 0 also at the end."""

    def cancel(self, handle: int) -> None:
        """CancelIoEx: reads and writes under way on this handle, in any thread, fail with ERROR_OPERATION_ABORTED."""

    def is_link(self, path: str) -> bool:
        """GetFileAttributesW, FILE_ATTRIBUTE_REPARSE_POINT: a symbolic link, a junction, or another thing that leads elsewhere."""

    def final_path(self, handle: int) -> str:
        """GetFinalPathNameByHandleW, with a drive's letter and without "\\\\?\\"."""

    def truncate(self, handle: int) -> None:
        """SetEndOfFile, of a file just opened; what has no size stays as it is."""

    def handle_of(self, descriptor: int) -> int:
        """_get_osfhandle of the C runtime; it stays the descriptor's."""

    def open_descriptor(self, handle: int, flags: int) -> int:
        """_open_osfhandle: a descriptor, in binary mode, whose the handle is from now on."""

    def give_up_descriptor(self, descriptor: int) -> int:
        """A handle of our own to the same file (DuplicateHandle), and _close."""

    def standard_handle(self, number: int) -> int:
        """GetStdHandle of this process: 0, 1 or 2, as descriptors are numbered; 0 where there is none."""


class System(Protocol):
    """What this Windows is."""

    def version(self) -> tuple[int, int, int]:
        """RtlGetVersion: major, minor, build; not what a manifest makes of it."""

    def wine_version(self) -> str | None:
        """wine_get_version of ntdll, which only Wine has: None on Windows."""


class Win32(Jobs, Processes, Handles, System, Protocol):
    """All of it."""
