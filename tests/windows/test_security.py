"""Tokens, access control and AppContainers on the system itself. What Wine does not do is written here and has never run: needs_windows.

Each act is first done without what forbids it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

if sys.platform != "win32":
    pytest.skip("the system's own security", allow_module_level=True)

import proc_sandbox as ps
from proc_sandbox.backends import current
from proc_sandbox.backends.windows.access import ITSELF, SHARED, extended
from proc_sandbox.backends.windows.acl import entries, with_entries, without
from proc_sandbox.backends.windows.journal import Entry, Journal
from proc_sandbox.backends.windows.native import Native
from proc_sandbox.backends.windows.native_security import NativeSecurity
from proc_sandbox.backends.windows.private import PrivateDirectory, sweep
from proc_sandbox.backends.windows.security import (
    FILE_ATTRIBUTE_DIRECTORY,
    READ_CONTROL,
    WRITE_DAC,
    Security,
)
from proc_sandbox.backends.windows.tools import Tools, make_tools
from proc_sandbox.backends.windows.winapi import ERROR_ACCESS_DENIED, ERROR_ALREADY_EXISTS, OPEN_EXISTING, Win32Error

WORLD = "S-1-1-0"
HANG = 120


@pytest.fixture
def tools(tmp_path: Path) -> Tools:
    place = tmp_path / "temporary"
    place.mkdir()
    return make_tools(Native(), NativeSecurity(), str(tmp_path / "journal"), os.path.realpath(place))


@pytest.fixture(autouse=True)
def on_windows(request: pytest.FixtureRequest) -> None:
    wine = Native().wine_version()
    if wine and request.node.get_closest_marker("needs_windows"):
        pytest.skip(f"Wine {wine} has none of it; this has never run on Windows")


def opened(tools: Tools, path: Path, access: int) -> int:
    return tools.win32.open_file(extended(str(path)), access, SHARED, OPEN_EXISTING, ITSELF)


# --- what Wine does too: the calls are declared right ---


def test_our_own_token(tools: Tools) -> None:
    security: Security = tools.security
    token = security.process_token(tools.win32.current_process())
    try:
        assert security.user(token).startswith("S-1-5-21-")
        assert WORLD in {group.sid for group in security.groups(token)}
        assert "SeChangeNotifyPrivilege" in security.privileges(token)
        assert security.integrity(token).startswith("S-1-16-")
    finally:
        tools.win32.close(token)


def test_an_entry_is_put_into_a_file_and_taken_out(tools: Tools, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    handle = opened(tools, file, READ_CONTROL | WRITE_DAC)
    try:
        before = tools.security.dacl(handle)
        assert before.startswith("D:")
        given = with_entries(before, entries("read", WORLD, directory=False, top=True))
        tools.security.set_dacl(handle, given)
        assert "0x1200a9;;;WD)" in tools.security.dacl(handle)
        tools.security.set_dacl(handle, without(tools.security.dacl(handle).replace(";WD)", f";{WORLD})"), WORLD))
        assert "0x1200a9;;;WD)" not in tools.security.dacl(handle)
    finally:
        tools.win32.close(handle)


def test_directories_of_our_own(tools: Tools, tmp_path: Path) -> None:
    security = tools.security
    place = extended(str(tmp_path / "made"))
    security.create_directory(place, "D:P(A;OICI;FA;;;WD)")
    with pytest.raises(Win32Error) as caught:
        security.create_directory(place, "D:P(A;OICI;FA;;;WD)")
    assert caught.value.code == ERROR_ALREADY_EXISTS
    assert security.path_attributes(place) & FILE_ATTRIBUTE_DIRECTORY
    (tmp_path / "made" / "a").write_text("x")
    assert security.names(place) == ("a",)
    security.move(f"{place}\\a", f"{place}\\b")
    security.delete_file(f"{place}\\b")
    with pytest.raises(Win32Error):
        security.delete_file(f"{place}\\b")
    security.remove_directory(place)
    with pytest.raises(Win32Error):
        security.path_attributes(place)


def test_a_private_directory_in_use_is_neither_moved_nor_swept(tools: Tools) -> None:
    own = PrivateDirectory(tools, user_of(tools))
    handle = opened(tools, Path(own.path), READ_CONTROL)
    assert tools.security.owner(handle) == user_of(tools)
    tools.win32.close(handle)
    with pytest.raises(Win32Error):
        tools.security.move(extended(own.path), extended(own.path + "-elsewhere"))
    sweep(tools, user_of(tools))
    assert os.path.isdir(own.path)
    own.hold()
    own.forgotten.detach()
    sweep(tools, user_of(tools))
    assert not os.path.exists(own.path), "the control: nobody holds it"


def user_of(tools: Tools) -> str:
    token = tools.security.process_token(tools.win32.current_process())
    try:
        return tools.security.user(token)
    finally:
        tools.win32.close(token)


def test_an_entry_of_the_journal_is_its_owners_as_long_as_he_lives(tools: Tools, tmp_path: Path) -> None:
    undone: list[Entry] = []
    code = (
        "import sys\nfrom proc_sandbox.backends.windows.journal import *\n"
        "written = Journal(sys.argv[1]).begin(Entry(sid='S-1-2-3'))\nprint('written', flush=True)\nsys.stdin.read()"
    )
    command = [sys.executable, "-c", code, tools.journal.directory]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
        assert owner.stdout
        assert owner.stdout.readline().strip() == b"written"
        Journal(tools.journal.directory).sweep(undone.append)
        assert undone == []
        owner.kill()
    Journal(tools.journal.directory).sweep(undone.append)
    assert undone == [Entry(sid="S-1-2-3")]
    assert list(tools.journal.left()) == []


def test_a_mutex_keeps_others_out(tools: Tools) -> None:
    with tools.control.alone():
        pass
    with tools.control.alone():
        pass


# --- what only Windows does ---


LENIENT: dict[str, Any] = {"enforcement": ps.best_effort("cpu_limit"), "timeout": HANG}


def python(code: str, *arguments: object) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", code, *map(str, arguments)]


def outside(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, timeout=HANG, check=True).stdout.decode().strip()


def inside(command: list[str], **config: Any) -> str:
    return ps.run(command, check=True, **{**LENIENT, **config}).stdout.text().strip()


TRY = "import sys\ntry:\n    {act}\nexcept OSError as error:\n    print('refused', error.winerror)\nelse:\n    print('escaped')"


@pytest.fixture
def secret(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "granted-to-nobody"
    place.mkdir()
    (place / "secret").write_text("secret")
    yield place / "secret"


@pytest.mark.needs_windows
def test_everything_is_there_on_windows() -> None:
    """If this fails on a Windows, its probe says why: everything below it would only say so again."""
    lacking = {name: how for name, how in ps.capabilities().items() if isinstance(how, ps.Unenforced)}
    assert set(lacking) == {"read_bps", "write_bps", "max_file_size"}, lacking


@pytest.mark.needs_windows
@pytest.mark.parametrize("mode", ["r", "a"])
def test_files_that_were_not_granted(secret: Path, mode: str) -> None:
    command = python(TRY.format(act=f"open(sys.argv[1], {mode!r}).close()"), secret)
    assert outside(command) == "escaped"
    assert inside(command) == f"refused {ERROR_ACCESS_DENIED}"
    assert inside(command, allowed_dirs=[secret.parent]) == ("escaped" if mode == "r" else f"refused {ERROR_ACCESS_DENIED}")
    assert inside(command, writable_dirs=[secret.parent]) == "escaped"
    assert inside(command) == f"refused {ERROR_ACCESS_DENIED}", "taken back"


@pytest.mark.needs_windows
def test_read_only_below_writable(tmp_path: Path) -> None:
    (tmp_path / "inputs").mkdir()
    (tmp_path / "inputs" / "case").write_text("1")
    for act in ("open(sys.argv[1] + '/inputs/case', 'w')", "__import__('os').unlink(sys.argv[1] + '/inputs/case')",
                "__import__('os').rename(sys.argv[1] + '/inputs', sys.argv[1] + '/moved')", "open(sys.argv[1] + '/inputs/new', 'w')"):  # fmt: skip
        command = python(TRY.format(act=act), tmp_path)
        result = inside(command, working_dir=tmp_path, read_only_dirs=[tmp_path / "inputs"])
        assert result == f"refused {ERROR_ACCESS_DENIED}", act
    control = python(TRY.format(act="open(sys.argv[1] + '/inputs/case', 'w')"), tmp_path)
    assert inside(control, working_dir=tmp_path) == "escaped"


@pytest.mark.needs_windows
def test_access_control_is_afterwards_what_it_was(secret: Path) -> None:
    def list_of(path: Path) -> str:
        handle = opened(current().tools, path, READ_CONTROL)  # type: ignore[attr-defined]
        try:
            return current().tools.security.dacl(handle)  # type: ignore[attr-defined,no-any-return]
        finally:
            current().tools.win32.close(handle)  # type: ignore[attr-defined]

    before = list_of(secret), list_of(secret.parent)
    inside(python("pass"), writable_dirs=[secret.parent])
    assert (list_of(secret), list_of(secret.parent)) == before


@pytest.mark.needs_windows
def test_the_network() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        act = f"__import__('socket').create_connection(('127.0.0.1', {server.getsockname()[1]}), 5)"
        command = python(TRY.format(act=act))
        assert outside(command) == "escaped"
        assert inside(command).startswith("refused")


@pytest.mark.needs_windows
def test_processes_of_others() -> None:
    with subprocess.Popen(python("input()"), stdin=subprocess.PIPE) as victim:
        code = (
            "import ctypes, sys\nkernel32 = ctypes.WinDLL('kernel32', use_last_error=True)\n"
            "print(bool(kernel32.OpenProcess({right}, False, int(sys.argv[1]))))"
        )
        for right in (0x1, 0x10, 0x20):  # PROCESS_TERMINATE, PROCESS_VM_READ, PROCESS_VM_WRITE
            command = python(code.format(right=right), victim.pid)
            assert outside(command) == "True"
            assert inside(command) == "False"
        victim.communicate(b"\n")


WHO = """
import ctypes, subprocess, sys
print(subprocess.run(["whoami", sys.argv[1], "/fo", "csv", "/nh"], capture_output=True, text=True).stdout)
"""


@pytest.mark.needs_windows
def test_privileges_and_integrity() -> None:
    assert len(outside(python(WHO, "/priv")).splitlines()) > 1, "the control: there is something to take"
    assert [line.split(",")[0] for line in inside(python(WHO, "/priv")).splitlines()] == ['"SeChangeNotifyPrivilege"']
    assert "S-1-16-4096" in inside(python(WHO, "/groups"))
    assert "S-1-16-4096" not in outside(python(WHO, "/groups"))


@pytest.mark.needs_windows
def test_without_an_app_container_low_integrity_is_for_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from proc_sandbox.host import Feature

    backend: Any = current()
    host = backend.probe()
    lacking = {**host.features, "appcontainer": Feature(False, "taken away", "")}
    monkeypatch.setattr(backend, "host", replace(host, features=lacking))
    (tmp_path / "file").write_text("1")
    command = python(TRY.format(act="open(sys.argv[1], 'a').close()"), tmp_path / "file")
    lenient = {"enforcement": "best-effort"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ps.UnenforcedWarning)
        assert inside(command, **lenient) == f"refused {ERROR_ACCESS_DENIED}"
        assert inside(command, writable_dirs=[tmp_path], **lenient) == "escaped"
        assert inside(command, **lenient) == f"refused {ERROR_ACCESS_DENIED}", "the label is taken back"


@pytest.mark.needs_windows
def test_the_clipboard_is_closed() -> None:
    code = "import ctypes\nprint(bool(ctypes.windll.user32.OpenClipboard(None)) and bool(ctypes.windll.user32.GetClipboardData(1)))"
    assert inside(python(code)) == "False"


@pytest.mark.needs_windows
def test_cpu_rate() -> None:
    """Processor time against wall time: half a core is not passed by much, and two processes share it."""
    code = "import time\nend = time.perf_counter() + 4\nwhile time.perf_counter() < end: pass"
    free = ps.run(python(code), check=True, **LENIENT)
    bound = ps.run(python(code), cpu_limit=25, check=True, timeout=HANG)
    assert free.cpu_time.total > 3, "the control"
    assert bound.cpu_time.total < 2
