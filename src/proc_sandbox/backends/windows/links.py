"""Files that the Config names, opened where a command may have had a hand: no link of its making is followed.

Whoever may write to a directory can put a junction there, for which no privilege is needed ("Hard Links and Junctions"), and
so lead a caller's stdout to where the command itself could not write.
"""

from __future__ import annotations

import ntpath
from collections.abc import Iterable, Sequence

from proc_sandbox.backends.grants import PlantedLinkError
from proc_sandbox.backends.windows.winapi import (
    ERROR_FILE_NOT_FOUND,
    FILE_FLAG_BACKUP_SEMANTICS,
    FILE_FLAG_OPEN_REPARSE_POINT,
    FILE_SHARE_DELETE,
    FILE_SHARE_READ,
    FILE_SHARE_WRITE,
    GENERIC_WRITE,
    OPEN_ALWAYS,
    OPEN_EXISTING,
    Win32,
    Win32Error,
)

__all__ = ["final_path", "follow", "lies_in", "open_named"]

SHARED = FILE_SHARE_READ | FILE_SHARE_WRITE
DEVICES = ("\\\\.\\", "\\\\?\\")
"""How the full names of devices begin, which lie in no directory: "NUL" becomes one of them."""


def open_named(win32: Win32, path: str, access: int, writable: Sequence[str]) -> int:
    """Open a file, to be read or to be written anew, whatever the command has put into the directories that it can write to.

    Raises:
        PlantedLinkError: there is a link in one of them. OSError: as CreateFileW.
    """
    full = ntpath.abspath(path)
    disposition = OPEN_ALWAYS if access & GENERIC_WRITE else OPEN_EXISTING
    if full.startswith(DEVICES) or not writable:
        return emptied(win32, win32.open_file(full, access, SHARED, disposition), access)
    place = follow(win32, full, [final_path(win32, root) for root in writable])
    handle = win32.open_file(place, access, SHARED, disposition, FILE_FLAG_OPEN_REPARSE_POINT)
    try:
        # One that came since is opened in another place, or opened itself; what it leads to is not touched before this.
        if ntpath.normcase(win32.final_path(handle)) != ntpath.normcase(place) or win32.is_link(place):
            raise PlantedLinkError(place)
        return emptied(win32, handle, access)
    except BaseException:
        win32.close(handle)
        raise


def follow(win32: Win32, path: str, roots: Iterable[str]) -> str:
    """Return where a path leads, its last component as it is where there is none yet."""
    drive, rest = ntpath.splitdrive(path)
    here = drive + "\\"
    parts = [part for part in rest.split("\\") if part]
    for index, part in enumerate(parts):
        inside = any(lies_in(here, root) for root in roots)
        here = ntpath.join(here, part)
        try:
            link = win32.is_link(here)
        except Win32Error as error:
            if error.code == ERROR_FILE_NOT_FOUND and index == len(parts) - 1:
                return here
            raise
        if link and inside:
            raise PlantedLinkError(here)
        # Not only for links: another name of the same directory (a short one) must be known as such.
        here = final_path(win32, here)
    return here


def final_path(win32: Win32, path: str) -> str:
    """Return where a path leads, without links."""
    handle = win32.open_file(path, 0, SHARED | FILE_SHARE_DELETE, OPEN_EXISTING, FILE_FLAG_BACKUP_SEMANTICS)
    try:
        return win32.final_path(handle)
    finally:
        win32.close(handle)


def lies_in(path: str, root: str) -> bool:
    path, root = ntpath.normcase(path).rstrip("\\"), ntpath.normcase(root).rstrip("\\")
    return path == root or path.startswith(root + "\\")


def emptied(win32: Win32, handle: int, access: int) -> int:
    if access & GENERIC_WRITE:
        win32.truncate(handle)
    return handle
