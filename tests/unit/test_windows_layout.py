"""Structures as Windows lays them out; measured with a C compiler for x86-64 Windows."""

from __future__ import annotations

import ast
import ctypes
import inspect
import sys

import pytest

from proc_sandbox.backends.windows import native
from proc_sandbox.backends.windows.winapi import Creation, ExtendedLimits

SIZES = {
    "JOBOBJECT_BASIC_LIMIT_INFORMATION": 64,
    "JOBOBJECT_EXTENDED_LIMIT_INFORMATION": 144,
    "JOBOBJECT_BASIC_ACCOUNTING_INFORMATION": 48,
    "JOBOBJECT_BASIC_AND_IO_ACCOUNTING_INFORMATION": 96,
    "JOBOBJECT_BASIC_UI_RESTRICTIONS": 4,
    "JOBOBJECT_ASSOCIATE_COMPLETION_PORT": 16,
    "JOBOBJECT_END_OF_JOB_TIME_INFORMATION": 4,
    "JOBOBJECT_CPU_RATE_CONTROL_INFORMATION": 8,
    "JOBOBJECT_BASIC_PROCESS_ID_LIST": 16,
    "STARTUPINFOW": 104,
    "STARTUPINFOEXW": 112,
    "PROCESS_INFORMATION": 24,
    "SECURITY_CAPABILITIES": 24,
    "SID_AND_ATTRIBUTES": 16,
    "PROCESS_MEMORY_COUNTERS": 72,
    "OSVERSIONINFOW": 276,
}

OFFSETS = {
    "JOBOBJECT_BASIC_LIMIT_INFORMATION": {
        "PerProcessUserTimeLimit": 0,
        "PerJobUserTimeLimit": 8,
        "LimitFlags": 16,
        "MinimumWorkingSetSize": 24,
        "MaximumWorkingSetSize": 32,
        "ActiveProcessLimit": 40,
        "Affinity": 48,
        "PriorityClass": 56,
        "SchedulingClass": 60,
    },
    "JOBOBJECT_EXTENDED_LIMIT_INFORMATION": {
        "IoInfo": 64,
        "ProcessMemoryLimit": 112,
        "JobMemoryLimit": 120,
        "PeakProcessMemoryUsed": 128,
        "PeakJobMemoryUsed": 136,
    },
    "JOBOBJECT_BASIC_ACCOUNTING_INFORMATION": {
        "TotalUserTime": 0,
        "TotalKernelTime": 8,
        "TotalPageFaultCount": 32,
        "TotalProcesses": 36,
        "ActiveProcesses": 40,
        "TotalTerminatedProcesses": 44,
    },
    "STARTUPINFOW": {"dwFlags": 60, "hStdInput": 80, "hStdOutput": 88, "hStdError": 96},
    "STARTUPINFOEXW": {"lpAttributeList": 104},
}


@pytest.mark.parametrize("name", SIZES)
def test_sizes(name: str) -> None:
    assert ctypes.sizeof(getattr(native, name)) == SIZES[name]


@pytest.mark.parametrize(("name", "field"), [(name, field) for name, fields in OFFSETS.items() for field in fields])
def test_offsets(name: str, field: str) -> None:
    assert getattr(getattr(native, name), field).offset == OFFSETS[name][field]


def test_every_structure_is_measured() -> None:
    names = {
        name for name, value in vars(native).items() if isinstance(value, type) and issubclass(value, ctypes.Structure)
    }
    assert names - {"Structure", "IO_COUNTERS"} == set(SIZES)


def test_limits_are_packed_field_by_field() -> None:
    limits = ExtendedLimits(0x2708, 1, 2, 3, 4, 5, 6, 7 << 33, 8 << 33)
    packed = native.pack_limits(limits)
    assert native.unpack_limits(packed) == limits
    assert bytes(packed)[16:20] == (0x2708).to_bytes(4, "little")
    assert bytes(packed)[120:128] == (8 << 33).to_bytes(8, "little")


def test_attributes() -> None:
    found = dict(
        native.attributes_of(Creation("a", "a", inherited=(4, 8), jobs=(12,), mitigations=1 << 40, package=99))
    )
    assert list(found[0x00020002]) == [4, 8]
    assert list(found[0x0002000D]) == [12]
    assert found[0x00020007].value == 1 << 40
    assert (found[0x00020009].AppContainerSid, found[0x00020009].CapabilityCount) == (99, 0)
    assert native.attributes_of(Creation("a", "a")) == []


def test_text_is_utf_16() -> None:
    assert native.wide("a\U0001f40d\ud800\0").raw == b"a\0\x3d\xd8\x0d\xdc\x00\xd8\0\0"


def test_every_function_that_is_called_has_a_prototype() -> None:
    """And each prototype is of a function that is called."""
    called = set()
    for node in ast.walk(ast.parse(inspect.getsource(native))):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in ("call", "must", "find")
        ):
            first = node.args[0]
            if isinstance(first, ast.Constant):
                called.add(first.value)
    assert called | {"CreateProcessW", "CreateProcessAsUserW"} == set(native.LIBRARY_OF)


@pytest.mark.skipif(sys.platform == "win32", reason="it can be made there")
def test_it_cannot_be_made_elsewhere() -> None:
    with pytest.raises(NotImplementedError):
        native.Native()
