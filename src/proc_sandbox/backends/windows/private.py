"""Directories of our own: of a Sandbox, and of a run; made for this user alone, removed whatever a command has left in them.

A handle to the directory that lets nobody rename or remove it (no FILE_SHARE_DELETE, "CreateFileW") is held as long as it is in use: so a
command cannot put something else in its place, and the next caller of this user, who renames what nobody holds, removes what
callers that were killed have left.
"""

from __future__ import annotations

import contextlib
import ntpath
import re
import secrets
import weakref
from collections.abc import Callable
from typing import TypeVar

from proc_sandbox.backends.windows.access import ITSELF, SHARED, extended
from proc_sandbox.backends.windows.security import (
    FILE_ATTRIBUTE_DIRECTORY,
    FILE_ATTRIBUTE_NORMAL,
    FILE_ATTRIBUTE_REPARSE_POINT,
    READ_CONTROL,
    WRITE_DAC,
)
from proc_sandbox.backends.windows.tools import Tools
from proc_sandbox.backends.windows.winapi import (
    ERROR_ACCESS_DENIED,
    ERROR_FILE_NOT_FOUND,
    FILE_SHARE_READ,
    FILE_SHARE_WRITE,
    GENERIC_READ,
    OPEN_EXISTING,
    Win32Error,
)

__all__ = ["PrivateDirectory", "remove_tree", "sweep"]

PREFIX = "proc-sandbox-private-"
NAME = re.compile(re.escape(PREFIX) + r"[0-9a-f]{16}\Z")
Result = TypeVar("Result")

HELD = FILE_SHARE_READ | FILE_SHARE_WRITE
FULL, MODIFY = "FA", "0x1301bf"


def own_descriptor(user: str) -> str:
    """Return the owner and access control of our directories: this user and the system, nothing from above; whoever makes something there owns
    it without a right to change its access control ("Owner Rights", S-1-3-4).
    """
    return f"O:{user}D:P(A;OICI;{FULL};;;{user})(A;OICI;{FULL};;;SY)(A;OICI;{MODIFY};;;OW)"


class PrivateDirectory:
    """A directory below the user's temporary ones.

    Attributes: path, without links.
    """

    def __init__(self, tools: Tools, user: str) -> None:
        self.tools = tools
        self.path, handle = make_held(tools, user)
        self.hold = weakref.finalize(self, tools.win32.close, handle)
        self.forgotten = weakref.finalize(self, remove_left, tools, self.path, self.hold.__call__)
        self.hold.atexit = self.forgotten.atexit = False  # then runs may be under way still: sandbox.remove_at_exit

    def remove(self) -> None:
        """Remove it with all that is in it; harmless when done twice.

        Raises:
            OSError: something in it could not be removed; it can be tried again.
        """
        if self.forgotten.alive:
            self.hold()
            remove_tree(self.tools, self.path)
            self.forgotten.detach()


def make_held(tools: Tools, user: str) -> tuple[str, int]:
    """Make a directory and hold it; return its path and the handle."""
    while True:
        path = f"{tools.temporary}\\{new_name()}"
        tools.security.create_directory(extended(path), own_descriptor(user))
        try:
            return path, tools.win32.open_file(extended(path), GENERIC_READ, HELD, OPEN_EXISTING, ITSELF)
        except Win32Error as error:
            if error.code != ERROR_FILE_NOT_FOUND:  # somebody took it for a dead caller's before it was held
                raise


def remove_left(tools: Tools, path: str, let_go: Callable[[], object]) -> None:
    """Remove the directory of one who did not: a Sandbox that was dropped without cleanup()."""
    let_go()
    remove_tree(tools, path)


def new_name() -> str:
    return PREFIX + secrets.token_hex(8)


def sweep(tools: Tools, user: str) -> None:
    """Remove what callers of this user that were killed have left; where others can make directories too, only what is the user's own."""
    for name in tools.security.names(extended(tools.temporary)):
        if NAME.match(name):
            with contextlib.suppress(Win32Error):  # it is in use, another user's, or somebody else was faster
                path, claimed = f"{tools.temporary}\\{name}", f"{tools.temporary}\\{new_name()}"
                if is_own_directory(tools, path, user):
                    tools.security.move(extended(path), extended(claimed))
                    remove_tree(tools, claimed)


def is_own_directory(tools: Tools, path: str, user: str) -> bool:
    """Return whether a path is a directory of this user's, itself and not by a junction: of another's making it could become one."""
    handle = tools.win32.open_file(extended(path), READ_CONTROL, SHARED, OPEN_EXISTING, ITSELF)
    try:
        kind = tools.security.attributes(handle) & (FILE_ATTRIBUTE_DIRECTORY | FILE_ATTRIBUTE_REPARSE_POINT)
        return kind == FILE_ATTRIBUTE_DIRECTORY and tools.security.owner(handle) == user
    finally:
        tools.win32.close(handle)


def remove_tree(tools: Tools, path: str) -> None:
    """Remove a directory with all below it: no link is followed, however deep it is, whatever its names and modes are.

    By extended paths, where a name means nothing ("NUL", "a."). Directories are moved, level by level, beside the top one and
    emptied there, so that no path grows too long.

    Raises:
        Win32Error: something could not be removed.
    """
    security = tools.security
    pending = [extended(path)]
    while pending:
        directory = pending[-1]
        # Looked at again where it is now: "FindFirstFileW" would follow a junction.
        if security.path_attributes(directory) & FILE_ATTRIBUTE_REPARSE_POINT:
            forced(tools, pending.pop(), security.remove_directory)
            continue
        names = forced(tools, directory, security.names)
        moved = [place for name in names if (place := remove_entry(tools, directory, name))]
        if moved:
            pending += moved
        else:
            forced(tools, pending.pop(), security.remove_directory)


def remove_entry(tools: Tools, directory: str, name: str) -> str:
    """Remove a file or link; move a directory out of its own, and return where it is now."""
    security = tools.security
    path = f"{directory}\\{name}"
    attributes = security.path_attributes(path)
    if not attributes & FILE_ATTRIBUTE_DIRECTORY:
        forced(tools, path, security.delete_file)
        return ""
    if attributes & FILE_ATTRIBUTE_REPARSE_POINT:
        forced(tools, path, security.remove_directory)  # the junction itself: "RemoveDirectoryW", Remarks
        return ""
    place = f"{ntpath.dirname(directory)}\\{new_name()}"
    forced(tools, path, lambda path: security.move(path, place))
    return place


def forced(tools: Tools, path: str, act: Callable[[str], Result]) -> Result:
    """Do something to a path; if it is denied, once more after its access control and its attribute "read-only" are ours."""
    try:
        return act(path)
    except Win32Error as error:
        if error.code != ERROR_ACCESS_DENIED:
            raise
    open_up(tools, path)
    return act(path)


def open_up(tools: Tools, path: str) -> None:
    """Give a thing to us who own it. What comes next says what cannot be done."""
    with contextlib.suppress(Win32Error):
        handle = tools.win32.open_file(path, WRITE_DAC, SHARED, OPEN_EXISTING, ITSELF)
        try:
            tools.security.set_dacl(handle, f"D:P(A;OICI;{FULL};;;OW)")
        finally:
            tools.win32.close(handle)
    with contextlib.suppress(Win32Error):
        tools.security.set_path_attributes(path, FILE_ATTRIBUTE_NORMAL)
