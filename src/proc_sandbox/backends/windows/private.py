"""Directories of our own: of a Sandbox, and of a run; made for this user alone, removed whatever a command has left in them.

A handle to the directory that lets nobody rename or remove it (no FILE_SHARE_DELETE, "CreateFileW") is held as long as it is in use: so a
command cannot put something else in its place, and the next caller of this user, who renames what nobody holds, removes what
callers that were killed have left.
"""

from __future__ import annotations

import contextlib
import ntpath
import os
import re
import secrets
import stat
import tempfile
import weakref
from collections.abc import Callable

from proc_sandbox.backends.windows.access import extended
from proc_sandbox.backends.windows.security import (
    FILE_ATTRIBUTE_DIRECTORY,
    FILE_ATTRIBUTE_REPARSE_POINT,
    WRITE_DAC,
    Security,
)
from proc_sandbox.backends.windows.winapi import (
    FILE_FLAG_BACKUP_SEMANTICS,
    FILE_FLAG_OPEN_REPARSE_POINT,
    FILE_SHARE_DELETE,
    FILE_SHARE_READ,
    FILE_SHARE_WRITE,
    GENERIC_READ,
    OPEN_EXISTING,
    Win32,
    Win32Error,
)

__all__ = ["PrivateDirectory", "remove_tree", "sweep"]

PREFIX = "proc-sandbox-private-"
NAME = re.compile(re.escape(PREFIX) + r"[0-9a-f]{16}\Z")
FULL, MODIFY = "FA", "0x1301bf"
ITSELF = FILE_FLAG_BACKUP_SEMANTICS | FILE_FLAG_OPEN_REPARSE_POINT


def own_dacl(user: str) -> str:
    """Return the access control of our directories: this user and the system, nothing from above; whoever makes something there owns
    it without a right to change its access control ("Owner Rights", S-1-3-4).
    """
    return f"D:P(A;OICI;{FULL};;;{user})(A;OICI;{FULL};;;SY)(A;OICI;{MODIFY};;;OW)"


class PrivateDirectory:
    """A directory below the user's temporary ones; its path has no link in it."""

    def __init__(self, win32: Win32, security: Security, user: str) -> None:
        self.path = os.path.join(parent_directory(), PREFIX + secrets.token_hex(8))
        security.create_directory(extended(self.path), own_dacl(user))
        share = FILE_SHARE_READ | FILE_SHARE_WRITE
        handle = win32.open_file(extended(self.path), GENERIC_READ, share, OPEN_EXISTING, ITSELF)
        self.hold = weakref.finalize(self, win32.close, handle)
        self.forgotten = weakref.finalize(self, remove_left, win32, security, self.path, self.hold.__call__)
        self.hold.atexit = self.forgotten.atexit = False  # then runs may be under way still: sandbox.remove_at_exit
        self.win32 = win32
        self.security = security

    def remove(self) -> None:
        """Remove it with all that is in it; harmless when done twice.

        Raises:
            OSError: something in it could not be removed; it can be tried again.
        """
        if self.forgotten.alive:
            self.hold()
            remove_tree(self.win32, self.security, self.path)
            self.forgotten.detach()


def remove_left(win32: Win32, security: Security, path: str, hold: Callable[[], object]) -> None:
    """Remove the directory of one who did not: dropped without cleanup(), or at the interpreter's exit."""
    hold()
    remove_tree(win32, security, path)


def parent_directory() -> str:
    return os.path.realpath(tempfile.gettempdir()).removeprefix("\\\\?\\")


def sweep(win32: Win32, security: Security) -> None:
    """Remove what callers of this user that were killed have left."""
    parent = parent_directory()
    with contextlib.suppress(OSError):  # a directory that cannot be listed hides them
        for name in [name for name in os.listdir(parent) if NAME.match(name)]:
            with contextlib.suppress(OSError):  # it is in use, another user's, or somebody else was faster
                claimed = os.path.join(parent, PREFIX + secrets.token_hex(8))
                os.rename(os.path.join(parent, name), claimed)
                remove_tree(win32, security, claimed)


def remove_tree(win32: Win32, security: Security, path: str) -> None:
    """Remove a directory with all below it: no link is followed, however deep it is, whatever its names and modes are.

    By extended paths, where a name means nothing ("NUL", "a."). Directories are moved, level by level, beside the top one and
    emptied there, so that no path grows too long.

    Raises:
        OSError: something could not be removed.
    """
    pending = [extended(path)]
    while pending:
        directory = pending[-1]
        moved = [place for name in names_in(win32, security, directory) if (place := remove_entry(win32, security, directory, name))]
        pending[-1:] = [directory, *moved] if moved else []
        if not moved:
            forced(win32, security, directory, os.rmdir)


def names_in(win32: Win32, security: Security, directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except PermissionError:
        open_up(win32, security, directory)
        return os.listdir(directory)


def remove_entry(win32: Win32, security: Security, directory: str, name: str) -> str:
    """Remove a file or link; move a directory out of its own, and return where it is now."""
    path = f"{directory}{os.sep}{name}"
    attributes = attributes_of(path)
    if not attributes & FILE_ATTRIBUTE_DIRECTORY:
        forced(win32, security, path, os.unlink)
        return ""
    if attributes & FILE_ATTRIBUTE_REPARSE_POINT:
        forced(win32, security, path, os.rmdir)  # the junction itself: RemoveDirectoryW, Remarks
        return ""
    place = os.path.join(ntpath.dirname(directory), PREFIX + secrets.token_hex(8))
    return move(win32, security, path, place)


def move(win32: Win32, security: Security, path: str, place: str) -> str:
    try:
        os.rename(path, place)
    except PermissionError:
        open_up(win32, security, path)
        os.rename(path, place)
    return place


def attributes_of(path: str) -> int:
    return getattr(os.lstat(path), "st_file_attributes", 0)


def forced(win32: Win32, security: Security, path: str, remove: Callable[[str], object]) -> None:
    """Remove something, if need be after its attribute "read-only" and its access control."""
    try:
        remove(path)
    except PermissionError:
        open_up(win32, security, path)
        remove(path)


def open_up(win32: Win32, security: Security, path: str) -> None:
    """Give a thing to us who own it: its access control from above, and no attribute "read-only"."""
    share = FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE
    with contextlib.suppress(Win32Error):  # what comes next says what cannot be done
        handle = win32.open_file(path, WRITE_DAC, share, OPEN_EXISTING, ITSELF)
        try:
            security.set_dacl(handle, f"D:P(A;OICI;{FULL};;;OW)")
        finally:
            win32.close(handle)
    os.chmod(path, stat.S_IREAD | stat.S_IWRITE)
