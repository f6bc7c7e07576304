"""The very bytes that Windows is given, with a recorder in the place of its libraries."""

from __future__ import annotations

import ctypes
import struct
from typing import Any

import pytest

from proc_sandbox.backends.windows import native
from proc_sandbox.backends.windows.job import Bounds, Job
from proc_sandbox.backends.windows.winapi import CREATE_SUSPENDED, CpuRate, Creation, ExtendedLimits, Win32Error


class Recorder(native.Native):
    """Answers each call with 1, but for those in `answers`; `calls` has them with what their addresses point to."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.answers: dict[str, int] = {}

    def call(self, name: str, *arguments: object) -> Any:
        self.calls.append((name, *map(pointed, arguments)))
        return self.answers.get(name, 1)

    def find(self, name: str) -> Any:
        return None

    def named(self, name: str) -> list[tuple[Any, ...]]:
        return [call[1:] for call in self.calls if call[0] == name]


def pointed(argument: object) -> object:
    target: Any = getattr(argument, "_obj", argument)
    return (
        bytes(target) if isinstance(target, (ctypes.Structure, ctypes.Array)) or hasattr(target, "_length_") else target
    )


def test_limits() -> None:
    recorder = Recorder()
    recorder.set_extended_limits(7, ExtendedLimits(0x230C, 11, 12, 13, 0, 0, 0, 0, 1 << 32))
    basic = struct.pack("<qqIxxxxQQIxxxxQII", 11, 12, 0x230C, 0, 0, 13, 0, 0, 0)
    whole = basic + bytes(48) + struct.pack("<QQQQ", 0, 1 << 32, 0, 0)
    assert recorder.calls == [("SetInformationJobObject", 7, 9, whole, 144)]


def test_other_settings() -> None:
    recorder = Recorder()
    recorder.set_ui_restrictions(7, 0xFF)
    recorder.set_cpu_rate(7, CpuRate(5, 2500))
    recorder.set_port(7, 9, 3)
    recorder.set_end_of_job_time(7, 1)
    assert recorder.named("SetInformationJobObject") == [
        (7, 4, struct.pack("<I", 0xFF), 4),
        (7, 15, struct.pack("<II", 5, 2500), 8),
        (7, 7, struct.pack("<QQ", 3, 9), 16),
        (7, 6, struct.pack("<I", 1), 4),
    ]


def test_a_job_has_its_port_before_anything_else() -> None:
    recorder = Recorder()
    with Job(recorder) as job:
        job.bind(Bounds())
    assert [call[0] for call in recorder.calls] == [
        "CreateJobObjectW",
        "CreateIoCompletionPort",
        "SetInformationJobObject",
        "SetInformationJobObject",
        "QueryInformationJobObject",
        "CloseHandle",
        "CloseHandle",
    ]


def test_processes() -> None:
    """In the list of attributes: exactly these handles, exactly these jobs."""
    recorder = Recorder()
    creation = Creation(
        "C:\\a.exe", "a \U0001f40d", "A=1\0\0", "C:\\", CREATE_SUSPENDED, (4, 8, 8), inherited=(4, 8), jobs=(12, 16)
    )
    recorder.create_process(creation)
    assert [call[2:5] for call in recorder.named("UpdateProcThreadAttribute")] == [
        (0x00020002, struct.pack("<QQ", 4, 8), 16),
        (0x0002000D, struct.pack("<QQ", 12, 16), 16),
    ]
    [(application, line, _, _, inherit, flags, environment, directory, startup, _)] = recorder.named("CreateProcessW")
    assert (application, directory, inherit) == ("C:\\a.exe", "C:\\", True)
    assert flags == CREATE_SUSPENDED | 0x400 | 0x80000
    assert line == "a \U0001f40d\0".encode("utf-16-le")
    assert environment == "A=1\0\0".encode("utf-16-le")
    assert struct.unpack_from("<I", startup) == (112,)
    assert struct.unpack_from("<I", startup, 60) == (0x100,)
    assert struct.unpack_from("<QQQ", startup, 80) == (4, 8, 8)
    assert recorder.calls[-1][0] == "DeleteProcThreadAttributeList"


def test_process_with_a_token_and_a_package() -> None:
    recorder = Recorder()
    recorder.create_process(Creation("a", "a", token=20, package=99, mitigations=3))
    assert not recorder.named("CreateProcessW")
    [call] = recorder.named("CreateProcessAsUserW")
    assert (call[0], call[5]) == (20, False)
    assert [update[2:5] for update in recorder.named("UpdateProcThreadAttribute")][1] == (
        0x00020009,
        struct.pack("<QQII", 99, 0, 0, 0),
        24,
    )


def test_the_list_is_given_back_when_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "last_error", lambda: 87)
    recorder = Recorder()
    recorder.answers["UpdateProcThreadAttribute"] = 0
    with pytest.raises(Win32Error, match="UpdateProcThreadAttribute"):
        recorder.create_process(Creation("a", "a", jobs=(4,)))
    assert recorder.calls[-1][0] == "DeleteProcThreadAttributeList"
    assert not recorder.named("CreateProcessW")


@pytest.mark.parametrize("code", [109, 38])
def test_ends_of_files(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    monkeypatch.setattr(native, "last_error", lambda: code)
    recorder = Recorder()
    recorder.answers["ReadFile"] = 0
    assert recorder.read(4, 10) is None


@pytest.mark.parametrize(("kind", "meaning"), [(1, None), (2, None), (3, b"")])
def test_no_bytes_are_the_end_of_all_but_a_pipe(kind: int, meaning: bytes | None) -> None:
    recorder = Recorder()
    recorder.answers["GetFileType"] = kind
    assert recorder.read(4, 10) == meaning


@pytest.mark.parametrize(
    ("function", "call"),
    [
        ("ReadFile", lambda win32: win32.read(4, 10)),
        ("WriteFile", lambda win32: win32.write(4, b"x")),
        ("PeekNamedPipe", lambda win32: win32.available(4)),
        ("CancelIoEx", lambda win32: win32.cancel(4)),
        ("GetQueuedCompletionStatus", lambda win32: win32.next_completion(4, 0)),
        ("CloseHandle", lambda win32: win32.close(4)),
        ("QueryInformationJobObject", lambda win32: win32.process_ids(4)),
    ],
)
def test_errors_have_the_functions_name(monkeypatch: pytest.MonkeyPatch, function: str, call: Any) -> None:
    monkeypatch.setattr(native, "last_error", lambda: 6)
    recorder = Recorder()
    recorder.answers[function] = 0
    with pytest.raises(Win32Error) as caught:
        call(recorder)
    assert (caught.value.function, caught.value.code) == (function, 6)


@pytest.mark.parametrize(("function", "code"), [("WaitForSingleObject", 0xFFFFFFFF), ("ResumeThread", 0xFFFFFFFF)])
def test_failures_that_are_no_zero(monkeypatch: pytest.MonkeyPatch, function: str, code: int) -> None:
    monkeypatch.setattr(native, "last_error", lambda: 6)
    recorder = Recorder()
    recorder.answers[function] = code
    with pytest.raises(Win32Error, match=function):
        recorder.wait(4, 0) if function == "WaitForSingleObject" else recorder.resume_thread(4)


def test_nothing_to_cancel_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "last_error", lambda: 1168)
    recorder = Recorder()
    recorder.answers["CancelIoEx"] = 0
    recorder.cancel(4)


def test_standard_handles_are_counted_down() -> None:
    recorder = Recorder()
    for number in range(3):
        recorder.standard_handle(number)
    assert [call[0] for call in recorder.named("GetStdHandle")] == [0xFFFFFFF6, 0xFFFFFFF5, 0xFFFFFFF4]
