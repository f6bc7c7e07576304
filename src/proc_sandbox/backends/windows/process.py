"""One process: its command line, its environment, and its birth inside a job ("CreateProcessW", "Nested Jobs")."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from proc_sandbox.backends.windows.winapi import (
    CREATE_NEW_PROCESS_GROUP,
    CREATE_NO_WINDOW,
    CREATE_SUSPENDED,
    ERROR_BAD_EXE_FORMAT,
    ERROR_FILENAME_EXCED_RANGE,
    ERROR_INVALID_PARAMETER,
    ERROR_NOT_SUPPORTED,
    INFINITE,
    Created,
    Creation,
    Win32,
    Win32Error,
)
from proc_sandbox.errors import ConfigError

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["OWN_CONSOLE", "Process", "command_line", "environment_block", "is_batch_file", "start"]

OWN_CONSOLE = CREATE_NO_WINDOW | CREATE_NEW_PROCESS_GROUP
"""How a command is started: whoever shares our console can put keys into it (WriteConsoleInput), read its screen, and send
Ctrl-C to us. A console of its own, without a window, serves its children too; without any, each would get a window.
"""

LONGEST = 32767
"""Characters of a command line with the zero at its end ("CreateProcessW", lpCommandLine)."""

PLAIN = re.compile(r"[A-Za-z0-9_./:\\,+=@~-]+\Z", re.ASCII)
"""Arguments that every program takes as they are. Others are quoted, for some split at more than blanks or expand * and ?."""

ABORTED = 1
"""Exit code of what we end before it has begun."""


def command_line(arguments: Sequence[str]) -> str:
    """Return one line that is taken apart into these arguments again.

    By CommandLineToArgvW and the C runtime, that is ("Parsing C command-line arguments"); a program that takes its line apart
    otherwise, as cmd.exe does, has to be given a line of its own kind.

    Raises:
        ConfigError: there is no such line. Win32Error: it is too long.
    """
    if any("\0" in argument for argument in arguments):
        raise ConfigError("args", list(arguments), "an argument holds a zero, at which Windows would cut it off")
    line = " ".join([quoted_program(arguments[0]), *map(quoted, arguments[1:])])
    if len(line.encode("utf-16-le", "surrogatepass")) // 2 >= LONGEST:
        raise Win32Error("CreateProcessW", ERROR_FILENAME_EXCED_RANGE)
    return line


def quoted_program(name: str) -> str:
    """Return the first word: there a backslash is never more than that, so that nothing can stand for a quotation mark."""
    if '"' in name:
        raise ConfigError("args", name, "Windows cannot hand over a program's name with a quotation mark in it")
    return name if PLAIN.match(name) else f'"{name}"'


def quoted(argument: str) -> str:
    """Return another word: backslashes count double before a quotation mark, and only there."""
    if PLAIN.match(argument):
        return argument
    return (
        '"' + re.sub(r'(\\*)("|\Z)', lambda found: found[1] * 2 + ("\\" + found[2] if found[2] else ""), argument) + '"'
    )


def environment_block(variables: Iterable[tuple[str, str]]) -> str:
    """Return the variables as CreateProcessW takes them: sorted by name without regard to case ("Changing Environment
    Variables"). Names such as "=C:", a drive's current directory, are those of Windows itself.

    Raises:
        ConfigError: a name that Windows cannot have, or one that it does not tell from another one.
    """
    found: dict[str, tuple[str, str]] = {}
    for name, value in variables:
        if not name.strip("=") or "=" in name[1:] or "\0" in name + value:
            raise ConfigError("env", name, 'a name holds no "=" but as its first character, and nothing holds a zero')
        folded = fold(name)
        if folded in found:
            raise ConfigError("env", name, f"to Windows it is the same as {found[folded][0]!r}; give one of them")
        found[folded] = name, value
    # An empty block too ends with two zeros.
    return "".join(f"{name}={value}\0" for _, (name, value) in sorted(found.items())) + ("\0" if found else "\0\0")


def fold(name: str) -> str:
    """Return a name in capitals, each character one, as Windows compares (RtlUpcaseUnicodeString)."""
    return "".join(letter if len(letter.upper()) > 1 else letter.upper() for letter in name)


def is_batch_file(path: str) -> bool:
    """Return whether CreateProcessW would hand the file to cmd.exe, which takes arguments apart by rules of its own and runs
    what an "&" in them says (CVE-2024-24576); blanks and dots at the end are no part of a name (CVE-2024-43402).
    """
    return path.rstrip(" .").lower().endswith((".bat", ".cmd"))


class Process:
    """A process that was started; a context manager, whose end closes the handle and not the process.

    Attributes: handle; pid.
    """

    def __init__(self, win32: Win32, handle: int, pid: int) -> None:
        self.win32 = win32
        self.handle = handle
        self.pid = pid

    def wait(self, milliseconds: int = INFINITE) -> bool:
        """Wait for its end; return whether it has come."""
        return self.win32.wait(self.handle, milliseconds)

    def exit_code(self) -> int | None:
        """Return what it exited with; None as long as it runs, whatever STILL_ACTIVE (259) might say."""
        return self.win32.exit_code(self.handle) if self.wait(0) else None

    def send_ctrl_break(self) -> None:
        """Send Ctrl-Break to its group; it reaches what was started with CREATE_NEW_PROCESS_GROUP on our own console."""
        self.win32.send_ctrl_break(self.pid)

    def close(self) -> None:
        """Close the handle."""
        handle, self.handle = self.handle, 0
        if handle:
            self.win32.close(handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def start(win32: Win32, creation: Creation) -> Process:
    """Start a process inside creation.jobs, before its first instruction.

    Raises:
        Win32Error: it did not start, and nothing is left.
    """
    if is_batch_file(creation.application):
        raise Win32Error("CreateProcessW", ERROR_BAD_EXE_FORMAT)
    try:
        created = win32.create_process(creation)
    except Win32Error as error:
        if not (creation.jobs and lacks_job_list(error)):
            raise
        created = start_suspended(win32, creation)
    win32.close(created.thread)
    return Process(win32, created.process, created.pid)


def lacks_job_list(error: Win32Error) -> bool:
    """Return whether this system does not know PROC_THREAD_ATTRIBUTE_JOB_LIST: it came with Windows 10."""
    return error.function == "UpdateProcThreadAttribute" and error.code in (
        ERROR_INVALID_PARAMETER,
        ERROR_NOT_SUPPORTED,
    )


def start_suspended(win32: Win32, creation: Creation) -> Created:
    """Start it asleep, put it into its jobs and wake it. Should we die between the first two, it sleeps on, and does nothing."""
    flags = creation.flags | CREATE_SUSPENDED
    created = win32.create_process(creation._replace(flags=flags, jobs=()))
    try:
        for job in creation.jobs:
            win32.assign_process(job, created.process)
        if not creation.flags & CREATE_SUSPENDED:
            win32.resume_thread(created.thread)
    except BaseException:
        win32.terminate_process(created.process, ABORTED)
        win32.close(created.thread)
        win32.close(created.process)
        raise
    return created
