"""What a process is started with: its arguments, its environment, its handles, and nothing else."""

from __future__ import annotations

import ctypes
import errno
import json
import sys
from collections.abc import Sequence

import pytest
from support.windows import HANG, Windows, parse

from proc_sandbox.backends.windows.process import OWN_CONSOLE, command_line, environment_block, is_batch_file, start
from proc_sandbox.backends.windows.winapi import (
    CREATE_NEW_PROCESS_GROUP,
    DETACHED_PROCESS,
    ERROR_BAD_EXE_FORMAT,
    ERROR_FILE_NOT_FOUND,
    STATUS_CONTROL_C_EXIT,
    Creation,
    Win32Error,
)

NASTY = [
    "",
    " ",
    "plain",
    "two words",
    "tab\there",
    "new\nline",
    'quo"te',
    '"',
    '""',
    '"quoted"',
    "back\\slash",
    "back\\\\slashes\\",
    "C:\\with space\\",
    'slash\\"quote',
    'slashes\\\\\\"quote\\\\',
    "\\",
    "\\\\",
    '\\"',
    "'single'",
    "%PATH%",
    "!PATH!",
    "^caret&amp|pipe<less>more",
    "*",
    "?",
    "*.py",
    "@file",
    "--option=value",
    "/slash",
    "\u00e9\u00fc\u00df",
    "\u65e5\u672c\u8a9e",
    "\U0001f40d",
    "\u00a0no-break",
    "\u3000wide blank",
    "\u201cfancy\u201d",
    *(chr(code) for code in range(1, 256)),
    *(f"a{chr(code)}b" for code in range(1, 256)),
]


def output(windows: Windows, creation: Creation, flags: int = DETACHED_PROCESS) -> str:
    """What a child says until its end."""
    win32 = windows.win32
    reader, writer = win32.create_pipe()
    win32.set_inheritable(writer, inheritable=True)
    others = tuple(handle for handle in creation.inherited if handle != writer)
    creation = creation._replace(streams=(writer, writer, writer), inherited=(writer, *others), flags=flags)
    with start(win32, creation) as process:
        win32.close(writer)
        whole = b""
        while data := win32.read(reader, 4096):
            whole += data
        win32.close(reader)
        assert process.wait(HANG)
        return whole.decode()


def test_arguments(windows: Windows) -> None:
    """Each one arrives as it was given, by the C runtime's rules."""
    seen = json.loads(output(windows, windows.child("arguments", *NASTY)))
    assert seen[seen.index("arguments") + 1 :] == NASTY


NAMES = ["program", "a program", "C:\\dir\\", "C:\\a dir\\", "\u65e5\u672c", "a\\b c"]


@pytest.mark.skipif(sys.platform != "win32", reason="there is no Windows here")
def test_arguments_by_the_system() -> None:
    """CommandLineToArgvW agrees, and so does the parser that the fake's children use."""
    for arguments in [
        *(["program", argument, "between", argument] for argument in NASTY),
        *([name, "x"] for name in NAMES),
    ]:
        line = command_line(arguments)
        assert by_the_system(line) == arguments == parse(line)


def by_the_system(line: str) -> Sequence[str]:
    if sys.platform != "win32":
        raise NotImplementedError
    split = ctypes.WinDLL("shell32").CommandLineToArgvW
    split.restype, split.argtypes = ctypes.POINTER(ctypes.c_wchar_p), [ctypes.c_wchar_p, ctypes.POINTER(ctypes.c_int)]
    count = ctypes.c_int()
    found = split(line, ctypes.byref(count))
    return [found[index] for index in range(count.value)]


def test_environment(windows: Windows) -> None:
    """What is given and nothing else."""
    base = [entry.split("=", 1) for entry in windows.child().environment.split("\0") if entry]
    variables = [
        *((name, value) for name, value in base),
        ("\u00dcBER", "\u65e5\u672c \U0001f40d"),
        ("b", "2=3"),
        ("A", ""),
    ]
    creation = windows.child("environment:\u00dcBER", "print:|", "environment:B", "print:|", "environment:PATH")
    said = output(windows, creation._replace(environment=environment_block(variables)))
    assert said == "\u65e5\u672c \U0001f40d|2=3|(unset)"


def test_directory(windows: Windows) -> None:
    directory = "C:\\windows" if windows.real else "C:\\"
    assert output(windows, windows.child("directory")._replace(directory=directory)).lower() == directory.lower()


def test_only_named_handles_are_inherited(windows: Windows) -> None:
    """PROC_THREAD_ATTRIBUTE_HANDLE_LIST: what is inheritable, for another child perhaps, is not enough."""
    win32 = windows.win32
    reader, writer = win32.create_pipe()
    win32.set_inheritable(writer, inheritable=True)
    creation = windows.child(f"handle:{writer}")
    assert output(windows, creation) == "closed\n"
    assert output(windows, creation._replace(inherited=(writer,))) == "open\n"  # the control
    win32.close(reader)
    win32.close(writer)


def test_console_of_its_own(windows: Windows) -> None:
    assert output(windows, windows.child("print:here"), flags=OWN_CONSOLE) == "here"


@pytest.mark.needs_windows
def test_ctrl_break(windows: Windows) -> None:
    """It ends a command of a group of its own on our console. Wine has no console here."""
    creation = windows.child("print:here", "hang")._replace(flags=CREATE_NEW_PROCESS_GROUP)
    win32 = windows.win32
    reader, writer = win32.create_pipe()
    win32.set_inheritable(writer, inheritable=True)
    with start(win32, creation._replace(streams=(writer, writer, writer), inherited=(writer,))) as process:
        win32.close(writer)
        assert win32.read(reader, 4) == b"here"
        process.send_ctrl_break()
        assert process.wait(HANG)
        assert process.exit_code() == STATUS_CONTROL_C_EXIT
    win32.close(reader)


def test_no_such_program(windows: Windows) -> None:
    with pytest.raises(Win32Error) as caught:
        start(windows.win32, Creation("C:\\no such program.exe", "x"))
    assert (caught.value.code, caught.value.errno) == (ERROR_FILE_NOT_FOUND, errno.ENOENT)


@pytest.mark.parametrize(
    "name", ["C:\\x.bat", "C:\\x.CMD", "C:\\x.bat ", "C:\\x.cmd. .", "x.bat....", "\\\\server\\x.Bat "]
)
def test_batch_files_are_refused(windows: Windows, name: str) -> None:
    """cmd.exe would take the arguments apart by rules of its own (CVE-2024-24576, CVE-2024-43402)."""
    assert is_batch_file(name)
    with pytest.raises(Win32Error) as caught:
        start(windows.win32, Creation(name, command_line([name, '"&calc.exe'])))
    assert (caught.value.code, caught.value.errno) == (ERROR_BAD_EXE_FORMAT, errno.ENOEXEC)


@pytest.mark.parametrize("name", ["C:\\x.exe", "C:\\x.bat\\y.exe", "x", "bat", "C:\\x.cmd.exe"])
def test_other_files_are_not(name: str) -> None:
    assert not is_batch_file(name)


def test_a_line_that_just_fits(windows: Windows) -> None:
    fixed = len(windows.child("print:").command_line)
    said = output(windows, windows.child("print:" + "x" * (32766 - fixed)))
    assert len(said) == 32766 - fixed
    with pytest.raises(Win32Error) as caught:
        windows.child("print:" + "x" * (32767 - fixed))
    assert caught.value.errno == errno.E2BIG
