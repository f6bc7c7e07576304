"""The Win32 of winapi.py by ctypes: structures, prototypes, calls; no decision.

Types have a fixed width, for those of ctypes.wintypes have another one elsewhere and the layouts are tested on every system.
Libraries are opened when a Native is made, on Windows only.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ctypes import (
    POINTER,
    Structure,
    byref,
    c_int32,
    c_int64,
    c_size_t,
    c_uint16,
    c_uint32,
    c_uint64,
    c_void_p,
    c_wchar_p,
    sizeof,
)
from typing import Any

from proc_sandbox.backends.windows.winapi import (
    CREATE_UNICODE_ENVIRONMENT,
    CTRL_BREAK_EVENT,
    ERROR_BROKEN_PIPE,
    ERROR_HANDLE_EOF,
    ERROR_MORE_DATA,
    ERROR_NOT_FOUND,
    ERROR_PROC_NOT_FOUND,
    EXTENDED_STARTUPINFO_PRESENT,
    WAIT_TIMEOUT,
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

if sys.platform == "win32":
    import msvcrt

__all__ = ["Native"]

HANDLE = c_void_p
BOOL = c_int32
DWORD = c_uint32
SIZE_T = c_size_t
NTSTATUS = c_int32
INVALID_HANDLE_VALUE = c_void_p(-1).value

STARTF_USESTDHANDLES = 0x100
HANDLE_FLAG_INHERIT = 1
DUPLICATE_SAME_ACCESS = 2
WAIT_FAILED = 0xFFFFFFFF
INVALID_FILE_ATTRIBUTES = 0xFFFFFFFF
FILE_ATTRIBUTE_REPARSE_POINT = 0x400
FILE_TYPE_DISK, FILE_TYPE_PIPE = 1, 3
LONGEST_PATH = 32768
CREATE_ATTRIBUTES = {"handles": 0x00020002, "mitigations": 0x00020007, "capabilities": 0x00020009, "jobs": 0x0002000D}

# JOBOBJECTINFOCLASS
BASIC_ACCOUNTING, PROCESS_ID_LIST, UI_RESTRICTIONS, END_OF_JOB_TIME, COMPLETION_PORT = 1, 3, 4, 6, 7
BASIC_AND_IO_ACCOUNTING, EXTENDED_LIMITS, CPU_RATE_CONTROL = 8, 9, 15


class JOBOBJECT_BASIC_LIMIT_INFORMATION(Structure):
    """See the page of this name; so for each structure here."""

    _fields_ = [
        ("PerProcessUserTimeLimit", c_int64),
        ("PerJobUserTimeLimit", c_int64),
        ("LimitFlags", DWORD),
        ("MinimumWorkingSetSize", SIZE_T),
        ("MaximumWorkingSetSize", SIZE_T),
        ("ActiveProcessLimit", DWORD),
        ("Affinity", SIZE_T),
        ("PriorityClass", DWORD),
        ("SchedulingClass", DWORD),
    ]


class IO_COUNTERS(Structure):
    _fields_ = [
        ("ReadOperationCount", c_uint64),
        ("WriteOperationCount", c_uint64),
        ("OtherOperationCount", c_uint64),
        ("ReadTransferCount", c_uint64),
        ("WriteTransferCount", c_uint64),
        ("OtherTransferCount", c_uint64),
    ]


class JOBOBJECT_EXTENDED_LIMIT_INFORMATION(Structure):
    _fields_ = [
        ("BasicLimitInformation", JOBOBJECT_BASIC_LIMIT_INFORMATION),
        ("IoInfo", IO_COUNTERS),
        ("ProcessMemoryLimit", SIZE_T),
        ("JobMemoryLimit", SIZE_T),
        ("PeakProcessMemoryUsed", SIZE_T),
        ("PeakJobMemoryUsed", SIZE_T),
    ]


class JOBOBJECT_BASIC_ACCOUNTING_INFORMATION(Structure):
    _fields_ = [
        ("TotalUserTime", c_int64),
        ("TotalKernelTime", c_int64),
        ("ThisPeriodTotalUserTime", c_int64),
        ("ThisPeriodTotalKernelTime", c_int64),
        ("TotalPageFaultCount", DWORD),
        ("TotalProcesses", DWORD),
        ("ActiveProcesses", DWORD),
        ("TotalTerminatedProcesses", DWORD),
    ]


class JOBOBJECT_BASIC_AND_IO_ACCOUNTING_INFORMATION(Structure):
    _fields_ = [("BasicInfo", JOBOBJECT_BASIC_ACCOUNTING_INFORMATION), ("IoInfo", IO_COUNTERS)]


class JOBOBJECT_BASIC_UI_RESTRICTIONS(Structure):
    _fields_ = [("UIRestrictionsClass", DWORD)]


class JOBOBJECT_END_OF_JOB_TIME_INFORMATION(Structure):
    _fields_ = [("EndOfJobTimeAction", DWORD)]


class JOBOBJECT_ASSOCIATE_COMPLETION_PORT(Structure):
    _fields_ = [("CompletionKey", c_void_p), ("CompletionPort", HANDLE)]


class JOBOBJECT_CPU_RATE_CONTROL_INFORMATION(Structure):
    _fields_ = [("ControlFlags", DWORD), ("CpuRate", DWORD)]  # the second one is a union


class JOBOBJECT_BASIC_PROCESS_ID_LIST(Structure):
    _fields_ = [
        ("NumberOfAssignedProcesses", DWORD),
        ("NumberOfProcessIdsInList", DWORD),
        ("ProcessIdList", SIZE_T * 1),
    ]


class STARTUPINFOW(Structure):
    _fields_ = [
        ("cb", DWORD),
        ("lpReserved", c_void_p),
        ("lpDesktop", c_void_p),
        ("lpTitle", c_void_p),
        ("dwX", DWORD),
        ("dwY", DWORD),
        ("dwXSize", DWORD),
        ("dwYSize", DWORD),
        ("dwXCountChars", DWORD),
        ("dwYCountChars", DWORD),
        ("dwFillAttribute", DWORD),
        ("dwFlags", DWORD),
        ("wShowWindow", c_uint16),
        ("cbReserved2", c_uint16),
        ("lpReserved2", c_void_p),
        ("hStdInput", HANDLE),
        ("hStdOutput", HANDLE),
        ("hStdError", HANDLE),
    ]


class STARTUPINFOEXW(Structure):
    _fields_ = [("StartupInfo", STARTUPINFOW), ("lpAttributeList", c_void_p)]


class PROCESS_INFORMATION(Structure):
    _fields_ = [("hProcess", HANDLE), ("hThread", HANDLE), ("dwProcessId", DWORD), ("dwThreadId", DWORD)]


class SECURITY_CAPABILITIES(Structure):
    _fields_ = [
        ("AppContainerSid", c_void_p),
        ("Capabilities", c_void_p),
        ("CapabilityCount", DWORD),
        ("Reserved", DWORD),
    ]


class SID_AND_ATTRIBUTES(Structure):
    _fields_ = [("Sid", c_void_p), ("Attributes", DWORD)]


class PROCESS_MEMORY_COUNTERS(Structure):
    _fields_ = [
        ("cb", DWORD),
        ("PageFaultCount", DWORD),
        ("PeakWorkingSetSize", SIZE_T),
        ("WorkingSetSize", SIZE_T),
        ("QuotaPeakPagedPoolUsage", SIZE_T),
        ("QuotaPagedPoolUsage", SIZE_T),
        ("QuotaPeakNonPagedPoolUsage", SIZE_T),
        ("QuotaNonPagedPoolUsage", SIZE_T),
        ("PagefileUsage", SIZE_T),
        ("PeakPagefileUsage", SIZE_T),
    ]


class OSVERSIONINFOW(Structure):
    _fields_ = [
        ("dwOSVersionInfoSize", DWORD),
        ("dwMajorVersion", DWORD),
        ("dwMinorVersion", DWORD),
        ("dwBuildNumber", DWORD),
        ("dwPlatformId", DWORD),
        ("szCSDVersion", c_uint16 * 128),
    ]


SE_GROUP_ENABLED = 4

# What each function returns, and what it takes.
PROTOTYPES: dict[str, dict[str, tuple[Any, ...]]] = {
    "kernel32": {
        "CreateJobObjectW": (HANDLE, c_void_p, c_wchar_p),
        "AssignProcessToJobObject": (BOOL, HANDLE, HANDLE),
        "IsProcessInJob": (BOOL, HANDLE, HANDLE, POINTER(BOOL)),
        "TerminateJobObject": (BOOL, HANDLE, DWORD),
        "SetInformationJobObject": (BOOL, HANDLE, c_int32, c_void_p, DWORD),
        "QueryInformationJobObject": (BOOL, HANDLE, c_int32, c_void_p, DWORD, POINTER(DWORD)),
        "CreateIoCompletionPort": (HANDLE, HANDLE, HANDLE, SIZE_T, DWORD),
        "GetQueuedCompletionStatus": (BOOL, HANDLE, POINTER(DWORD), POINTER(SIZE_T), POINTER(c_void_p), DWORD),
        "PostQueuedCompletionStatus": (BOOL, HANDLE, DWORD, SIZE_T, c_void_p),
        "InitializeProcThreadAttributeList": (BOOL, c_void_p, DWORD, DWORD, POINTER(SIZE_T)),
        "UpdateProcThreadAttribute": (BOOL, c_void_p, DWORD, SIZE_T, c_void_p, SIZE_T, c_void_p, c_void_p),
        "DeleteProcThreadAttributeList": (None, c_void_p),
        "CreateProcessW": (
            BOOL, c_wchar_p, c_void_p, c_void_p, c_void_p, BOOL, DWORD, c_void_p, c_wchar_p,
            POINTER(STARTUPINFOEXW), POINTER(PROCESS_INFORMATION),
        ),
        "ResumeThread": (DWORD, HANDLE),
        "TerminateProcess": (BOOL, HANDLE, DWORD),
        "OpenProcess": (HANDLE, DWORD, BOOL, DWORD),
        "GetCurrentProcess": (HANDLE,),
        "GetExitCodeProcess": (BOOL, HANDLE, POINTER(DWORD)),
        "GetProcessTimes": (BOOL, HANDLE, *[POINTER(c_uint64)] * 4),
        "K32GetProcessMemoryInfo": (BOOL, HANDLE, POINTER(PROCESS_MEMORY_COUNTERS), DWORD),
        "GenerateConsoleCtrlEvent": (BOOL, DWORD, DWORD),
        "CloseHandle": (BOOL, HANDLE),
        "DuplicateHandle": (BOOL, HANDLE, HANDLE, HANDLE, POINTER(HANDLE), DWORD, BOOL, DWORD),
        "SetHandleInformation": (BOOL, HANDLE, DWORD, DWORD),
        "GetHandleInformation": (BOOL, HANDLE, POINTER(DWORD)),
        "WaitForSingleObject": (DWORD, HANDLE, DWORD),
        "CreatePipe": (BOOL, POINTER(HANDLE), POINTER(HANDLE), c_void_p, DWORD),
        "CreateFileW": (HANDLE, c_wchar_p, DWORD, DWORD, c_void_p, DWORD, DWORD, HANDLE),
        "ReadFile": (BOOL, HANDLE, c_void_p, DWORD, POINTER(DWORD), c_void_p),
        "WriteFile": (BOOL, HANDLE, c_void_p, DWORD, POINTER(DWORD), c_void_p),
        "PeekNamedPipe": (BOOL, HANDLE, c_void_p, DWORD, POINTER(DWORD), POINTER(DWORD), POINTER(DWORD)),
        "CancelIoEx": (BOOL, HANDLE, c_void_p),
        "GetStdHandle": (HANDLE, DWORD),
        "GetFileAttributesW": (DWORD, c_wchar_p),
        "GetFileType": (DWORD, HANDLE),
        "GetFinalPathNameByHandleW": (DWORD, HANDLE, c_void_p, DWORD, DWORD),
        "SetEndOfFile": (BOOL, HANDLE),
    },
    "advapi32": {
        "CreateProcessAsUserW": (
            BOOL, HANDLE, c_wchar_p, c_void_p, c_void_p, c_void_p, BOOL, DWORD, c_void_p, c_wchar_p,
            POINTER(STARTUPINFOEXW), POINTER(PROCESS_INFORMATION),
        ),
    },
    "ntdll": {"RtlGetVersion": (NTSTATUS, POINTER(OSVERSIONINFOW)), "wine_get_version": (ctypes.c_char_p,)},
}  # fmt: skip

LIBRARY_OF = {function: library for library, functions in PROTOTYPES.items() for function in functions}


def last_error() -> int:
    """Return what GetLastError said after the call that ctypes made last in this thread."""
    if sys.platform == "win32":
        return ctypes.get_last_error()
    raise NotImplementedError("Windows only")


def open_libraries() -> dict[str, Any]:
    if sys.platform == "win32":
        return {name: ctypes.WinDLL(name, use_last_error=True) for name in PROTOTYPES}
    raise NotImplementedError("Windows only")


class Calls:
    """The functions of PROTOTYPES, by name."""

    def __init__(self) -> None:
        self.libraries = open_libraries()
        self.functions: dict[str, Any] = {}

    def find(self, name: str) -> Any:
        """Return a function with its prototype; None where this system does not have it."""
        if name not in self.functions:
            library = LIBRARY_OF[name]
            function = getattr(self.libraries[library], name, None)
            if function is not None:
                function.restype, *function.argtypes = PROTOTYPES[library][name]
            self.functions[name] = function
        return self.functions[name]

    def call(self, name: str, *arguments: object) -> Any:
        """Call it; what it returns means what its page says."""
        function = self.find(name)
        if function is None:
            raise Win32Error(name, ERROR_PROC_NOT_FOUND)
        return function(*arguments)

    def must(self, name: str, *arguments: object) -> int:
        """Call one that returns 0, or an invalid handle, when it fails."""
        value = self.call(name, *arguments)
        if not value or value == INVALID_HANDLE_VALUE:
            raise Win32Error(name, last_error())
        return int(value)


class NativeJobs(Calls):
    """Jobs of winapi.py."""

    def create_job(self) -> int:
        return self.must("CreateJobObjectW", None, None)

    def assign_process(self, job: int, process: int) -> None:
        self.must("AssignProcessToJobObject", job, process)

    def is_process_in_job(self, process: int, job: int) -> bool:
        inside = BOOL()
        self.must("IsProcessInJob", process, job or None, byref(inside))
        return bool(inside.value)

    def terminate_job(self, job: int, code: int) -> None:
        self.must("TerminateJobObject", job, code)

    def put(self, job: int, kind: int, value: Structure) -> None:
        self.must("SetInformationJobObject", job, kind, byref(value), sizeof(value))

    def get(self, job: int, kind: int, value: Structure) -> None:
        self.must("QueryInformationJobObject", job, kind, byref(value), sizeof(value), None)

    def set_extended_limits(self, job: int, limits: ExtendedLimits) -> None:
        self.put(job, EXTENDED_LIMITS, pack_limits(limits))

    def extended_limits(self, job: int) -> ExtendedLimits:
        value = JOBOBJECT_EXTENDED_LIMIT_INFORMATION()
        self.get(job, EXTENDED_LIMITS, value)
        return unpack_limits(value)

    def memory_peaks(self, job: int) -> MemoryPeaks:
        value = JOBOBJECT_EXTENDED_LIMIT_INFORMATION()
        self.get(job, EXTENDED_LIMITS, value)
        return MemoryPeaks(value.PeakProcessMemoryUsed, value.PeakJobMemoryUsed)

    def set_ui_restrictions(self, job: int, flags: int) -> None:
        self.put(job, UI_RESTRICTIONS, JOBOBJECT_BASIC_UI_RESTRICTIONS(flags))

    def ui_restrictions(self, job: int) -> int:
        value = JOBOBJECT_BASIC_UI_RESTRICTIONS()
        self.get(job, UI_RESTRICTIONS, value)
        return int(value.UIRestrictionsClass)

    def set_cpu_rate(self, job: int, rate: CpuRate) -> None:
        self.put(job, CPU_RATE_CONTROL, JOBOBJECT_CPU_RATE_CONTROL_INFORMATION(*rate))

    def cpu_rate(self, job: int) -> CpuRate:
        value = JOBOBJECT_CPU_RATE_CONTROL_INFORMATION()
        self.get(job, CPU_RATE_CONTROL, value)
        return CpuRate(value.ControlFlags, value.CpuRate)

    def set_end_of_job_time(self, job: int, action: int) -> None:
        self.put(job, END_OF_JOB_TIME, JOBOBJECT_END_OF_JOB_TIME_INFORMATION(action))

    def basic_accounting(self, job: int) -> Accounting:
        value = JOBOBJECT_BASIC_ACCOUNTING_INFORMATION()
        self.get(job, BASIC_ACCOUNTING, value)
        return unpack_accounting(value)

    def basic_and_io_accounting(self, job: int) -> Accounting:
        value = JOBOBJECT_BASIC_AND_IO_ACCOUNTING_INFORMATION()
        self.get(job, BASIC_AND_IO_ACCOUNTING, value)
        moved = value.IoInfo
        return unpack_accounting(value.BasicInfo)._replace(
            read=moved.ReadTransferCount, written=moved.WriteTransferCount
        )

    def process_ids(self, job: int) -> tuple[int, ...]:
        room = 64
        while True:
            size = sizeof(JOBOBJECT_BASIC_PROCESS_ID_LIST) + (room - 1) * sizeof(SIZE_T)
            buffer = ctypes.create_string_buffer(size)
            done = self.call("QueryInformationJobObject", job, PROCESS_ID_LIST, buffer, size, None)
            if not done and last_error() != ERROR_MORE_DATA:
                raise Win32Error("QueryInformationJobObject", last_error())
            head = JOBOBJECT_BASIC_PROCESS_ID_LIST.from_buffer(buffer)
            if done and head.NumberOfProcessIdsInList >= head.NumberOfAssignedProcesses:
                ids = (SIZE_T * head.NumberOfProcessIdsInList).from_buffer(
                    buffer, JOBOBJECT_BASIC_PROCESS_ID_LIST.ProcessIdList.offset
                )
                return tuple(int(pid) for pid in ids)
            room = max(room * 2, head.NumberOfAssignedProcesses + 16)

    def create_port(self) -> int:
        return self.must("CreateIoCompletionPort", INVALID_HANDLE_VALUE, None, 0, 1)

    def set_port(self, job: int, port: int, key: int) -> None:
        self.put(job, COMPLETION_PORT, JOBOBJECT_ASSOCIATE_COMPLETION_PORT(key, port))

    def next_completion(self, port: int, milliseconds: int) -> Completion | None:
        message, key, value = DWORD(), SIZE_T(), c_void_p()
        if self.call("GetQueuedCompletionStatus", port, byref(message), byref(key), byref(value), milliseconds):
            return Completion(message.value, key.value, value.value or 0)
        code = last_error()
        if code == WAIT_TIMEOUT:
            return None
        raise Win32Error("GetQueuedCompletionStatus", code)

    def post_completion(self, port: int, completion: Completion) -> None:
        self.must("PostQueuedCompletionStatus", port, completion.message, completion.key, completion.value or None)


class NativeProcesses(Calls):
    """Processes of winapi.py."""

    def create_process(self, creation: Creation) -> Created:
        startup, information = STARTUPINFOEXW(), PROCESS_INFORMATION()
        startup.StartupInfo.cb = sizeof(startup)
        if creation.streams:
            startup.StartupInfo.dwFlags = STARTF_USESTDHANDLES
            startup.StartupInfo.hStdInput, startup.StartupInfo.hStdOutput, startup.StartupInfo.hStdError = (
                creation.streams
            )
        name, token = ("CreateProcessAsUserW", (creation.token,)) if creation.token else ("CreateProcessW", ())
        with self.attribute_list(attributes_of(creation)) as startup.lpAttributeList:
            self.must(
                name,
                *token,
                creation.application,
                wide(creation.command_line + "\0"),
                None,
                None,
                bool(creation.inherited),
                creation.flags | CREATE_UNICODE_ENVIRONMENT | EXTENDED_STARTUPINFO_PRESENT,
                wide(creation.environment),
                creation.directory,
                byref(startup),
                byref(information),
            )
        return Created(information.hProcess, information.hThread, information.dwProcessId, information.dwThreadId)

    @contextmanager
    def attribute_list(self, attributes: Sequence[tuple[int, Any]]) -> Iterator[int | None]:
        """A PROC_THREAD_ATTRIBUTE_LIST; what it points to lives as long as `attributes` does."""
        if not attributes:
            yield None
            return
        size = SIZE_T()
        self.call(
            "InitializeProcThreadAttributeList", None, len(attributes), 0, byref(size)
        )  # fails, and says how much
        buffer = ctypes.create_string_buffer(size.value)
        self.must("InitializeProcThreadAttributeList", buffer, len(attributes), 0, byref(size))
        try:
            for number, value in attributes:
                self.must("UpdateProcThreadAttribute", buffer, 0, number, byref(value), sizeof(value), None, None)
            yield ctypes.addressof(buffer)
        finally:
            self.call("DeleteProcThreadAttributeList", buffer)

    def resume_thread(self, thread: int) -> None:
        if self.call("ResumeThread", thread) == WAIT_FAILED:
            raise Win32Error("ResumeThread", last_error())

    def terminate_process(self, process: int, code: int) -> None:
        self.must("TerminateProcess", process, code)

    def open_process(self, pid: int, access: int) -> int:
        return self.must("OpenProcess", access, False, pid)

    def current_process(self) -> int:
        return int(self.call("GetCurrentProcess"))

    def exit_code(self, process: int) -> int:
        code = DWORD()
        self.must("GetExitCodeProcess", process, byref(code))
        return code.value

    def process_times(self, process: int) -> ProcessTimes:
        created, ended, kernel, user = (c_uint64() for _ in range(4))
        self.must("GetProcessTimes", process, byref(created), byref(ended), byref(kernel), byref(user))
        return ProcessTimes(user.value, kernel.value)

    def process_memory(self, process: int) -> ProcessMemory:
        value = PROCESS_MEMORY_COUNTERS()
        self.must("K32GetProcessMemoryInfo", process, byref(value), sizeof(value))
        return ProcessMemory(
            value.WorkingSetSize, value.PeakWorkingSetSize, value.PagefileUsage, value.PeakPagefileUsage
        )

    def send_ctrl_break(self, group: int) -> None:
        self.must("GenerateConsoleCtrlEvent", CTRL_BREAK_EVENT, group)


class NativeHandles(Calls):
    """Handles of winapi.py."""

    def close(self, handle: int) -> None:
        self.must("CloseHandle", handle)

    def duplicate(self, handle: int, *, inheritable: bool) -> int:
        own, copy = self.call("GetCurrentProcess"), HANDLE()
        self.must("DuplicateHandle", own, handle, own, byref(copy), 0, inheritable, DUPLICATE_SAME_ACCESS)
        return int(copy.value or 0)

    def set_inheritable(self, handle: int, *, inheritable: bool) -> None:
        self.must("SetHandleInformation", handle, HANDLE_FLAG_INHERIT, HANDLE_FLAG_INHERIT if inheritable else 0)

    def is_inheritable(self, handle: int) -> bool:
        flags = DWORD()
        self.must("GetHandleInformation", handle, byref(flags))
        return bool(flags.value & HANDLE_FLAG_INHERIT)

    def wait(self, handle: int, milliseconds: int) -> bool:
        value = self.call("WaitForSingleObject", handle, milliseconds)
        if value == WAIT_FAILED:
            raise Win32Error("WaitForSingleObject", last_error())
        return bool(value != WAIT_TIMEOUT)

    def create_pipe(self, size: int = 0) -> tuple[int, int]:
        reader, writer = HANDLE(), HANDLE()
        self.must("CreatePipe", byref(reader), byref(writer), None, size)
        return int(reader.value or 0), int(writer.value or 0)

    def open_file(self, path: str, access: int, share: int, disposition: int, flags: int = 0) -> int:
        return self.must("CreateFileW", path, access, share, None, disposition, flags, None)

    def read(self, handle: int, size: int) -> bytes | None:
        buffer, count = ctypes.create_string_buffer(size), DWORD()
        if self.call("ReadFile", handle, buffer, size, byref(count), None):
            is_end = not count.value and self.call("GetFileType", handle) != FILE_TYPE_PIPE
            return None if is_end else ctypes.string_at(buffer, count.value)
        if last_error() in (ERROR_BROKEN_PIPE, ERROR_HANDLE_EOF):
            return None
        raise Win32Error("ReadFile", last_error())

    def write(self, handle: int, data: bytes | memoryview) -> int:
        whole, count = bytes(data), DWORD()
        self.must("WriteFile", handle, whole, len(whole), byref(count), None)
        return count.value

    def available(self, handle: int) -> int:
        count = DWORD()
        if self.call("PeekNamedPipe", handle, None, 0, None, byref(count), None):
            return count.value
        if last_error() == ERROR_BROKEN_PIPE:
            return 0
        raise Win32Error("PeekNamedPipe", last_error())

    def cancel(self, handle: int) -> None:
        if not self.call("CancelIoEx", handle, None) and last_error() != ERROR_NOT_FOUND:
            raise Win32Error("CancelIoEx", last_error())

    def is_link(self, path: str) -> bool:
        attributes = self.call("GetFileAttributesW", path)
        if attributes == INVALID_FILE_ATTRIBUTES:
            raise Win32Error("GetFileAttributesW", last_error())
        return bool(attributes & FILE_ATTRIBUTE_REPARSE_POINT)

    def final_path(self, handle: int) -> str:
        buffer = ctypes.create_string_buffer(2 * LONGEST_PATH)
        size = self.must("GetFinalPathNameByHandleW", handle, buffer, LONGEST_PATH, 0)
        path = buffer.raw[: 2 * size].decode("utf-16-le", "surrogatepass")
        return "\\\\" + path[8:] if path.startswith("\\\\?\\UNC\\") else path.removeprefix("\\\\?\\")

    def truncate(self, handle: int) -> None:
        if self.call("GetFileType", handle) == FILE_TYPE_DISK:
            self.must("SetEndOfFile", handle)

    def handle_of(self, descriptor: int) -> int:
        if sys.platform == "win32":
            return msvcrt.get_osfhandle(descriptor)
        raise NotImplementedError("Windows only")

    def open_descriptor(self, handle: int, flags: int) -> int:
        if sys.platform == "win32":
            return msvcrt.open_osfhandle(handle, flags | os.O_BINARY)
        raise NotImplementedError("Windows only")

    def give_up_descriptor(self, descriptor: int) -> int:
        handle = self.duplicate(self.handle_of(descriptor), inheritable=False)
        os.close(descriptor)
        return handle

    def standard_handle(self, number: int) -> int:
        handle = self.call("GetStdHandle", 0x100000000 - 10 - number)  # STD_INPUT_HANDLE is (DWORD)-10
        return 0 if handle is None or handle == INVALID_HANDLE_VALUE else int(handle)


class Native(NativeJobs, NativeProcesses, NativeHandles):
    """The Win32 of this system."""

    def version(self) -> tuple[int, int, int]:
        value = OSVERSIONINFOW(dwOSVersionInfoSize=sizeof(OSVERSIONINFOW))
        self.call("RtlGetVersion", byref(value))
        return value.dwMajorVersion, value.dwMinorVersion, value.dwBuildNumber

    def wine_version(self) -> str | None:
        return self.call("wine_get_version").decode() if self.find("wine_get_version") else None


def pack_limits(limits: ExtendedLimits) -> JOBOBJECT_EXTENDED_LIMIT_INFORMATION:
    """Return the limits as the system takes them."""
    value = JOBOBJECT_EXTENDED_LIMIT_INFORMATION()
    basic = value.BasicLimitInformation
    basic.LimitFlags = limits.flags
    basic.PerProcessUserTimeLimit = limits.process_time
    basic.PerJobUserTimeLimit = limits.job_time
    basic.ActiveProcessLimit = limits.active_processes
    basic.Affinity = limits.affinity
    basic.PriorityClass = limits.priority_class
    basic.SchedulingClass = limits.scheduling_class
    value.ProcessMemoryLimit = limits.process_memory
    value.JobMemoryLimit = limits.job_memory
    return value


def unpack_limits(value: JOBOBJECT_EXTENDED_LIMIT_INFORMATION) -> ExtendedLimits:
    """Return what pack_limits() was given."""
    basic = value.BasicLimitInformation
    return ExtendedLimits(
        flags=basic.LimitFlags,
        process_time=basic.PerProcessUserTimeLimit,
        job_time=basic.PerJobUserTimeLimit,
        active_processes=basic.ActiveProcessLimit,
        affinity=basic.Affinity,
        priority_class=basic.PriorityClass,
        scheduling_class=basic.SchedulingClass,
        process_memory=value.ProcessMemoryLimit,
        job_memory=value.JobMemoryLimit,
    )


def unpack_accounting(value: JOBOBJECT_BASIC_ACCOUNTING_INFORMATION) -> Accounting:
    return Accounting(
        value.TotalUserTime,
        value.TotalKernelTime,
        value.TotalPageFaultCount,
        value.TotalProcesses,
        value.ActiveProcesses,
        value.TotalTerminatedProcesses,
    )


def wide(text: str) -> Any:
    """Return text as Windows has it, UTF-16 in a buffer of its own, which CreateProcessW may write into."""
    data = text.encode("utf-16-le", "surrogatepass")
    return (ctypes.c_char * len(data)).from_buffer_copy(data)


def attributes_of(creation: Creation) -> list[tuple[int, Any]]:
    """Return what goes into the attribute list: the attribute and the memory that it is about."""
    values: dict[str, Any] = {}
    if creation.inherited:
        values["handles"] = (HANDLE * len(creation.inherited))(*creation.inherited)
    if creation.jobs:
        values["jobs"] = (HANDLE * len(creation.jobs))(*creation.jobs)
    if creation.mitigations:
        values["mitigations"] = c_uint64(creation.mitigations)
    if creation.package:
        granted = [SID_AND_ATTRIBUTES(sid, SE_GROUP_ENABLED) for sid in creation.capabilities]
        array = (SID_AND_ATTRIBUTES * len(granted))(*granted)
        address = ctypes.addressof(array) if granted else None
        values["capabilities"] = SECURITY_CAPABILITIES(creation.package, address, len(granted), 0)
        values["capabilities"].keep = array  # a structure does not keep alive what an address in it points to
    return [(CREATE_ATTRIBUTES[name], value) for name, value in values.items()]
