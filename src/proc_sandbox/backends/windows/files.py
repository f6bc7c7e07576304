"""Files that the caller puts into a directory of a command's, and takes from it: no link of a command's making is followed."""

from __future__ import annotations

import errno
from collections.abc import Sequence

from proc_sandbox.backends.windows.links import open_named
from proc_sandbox.backends.windows.winapi import GENERIC_READ, GENERIC_WRITE, Win32, Win32Error

__all__ = ["read_file", "write_file"]

CHUNK = 1 << 20


def write_file(win32: Win32, top: str, parts: Sequence[str], data: bytes, writable: Sequence[str]) -> None:
    """Write a file anew below a directory; the directories on the way must be there.

    Raises:
        PlantedLinkError: there is a link on the way. OSError: as CreateFileW and WriteFile.
    """
    handle = opened(win32, top, parts, GENERIC_WRITE, writable)
    try:
        left = memoryview(data)
        while left:
            left = left[win32.write(handle, left[:CHUNK]) :]
    finally:
        win32.close(handle)


def read_file(win32: Win32, top: str, parts: Sequence[str], most: int, writable: Sequence[str]) -> bytes:
    """Return what a file below a directory holds.

    Raises:
        PlantedLinkError: there is a link on the way. OSError: as CreateFileW and ReadFile; EFBIG: it has more bytes than `most`.
    """
    handle = opened(win32, top, parts, GENERIC_READ, writable)
    try:
        kept = bytearray()
        while data := win32.read(handle, min(CHUNK, most + 1 - len(kept))):
            kept += data
            if len(kept) > most:
                raise OSError(errno.EFBIG, f"it holds more than {most} bytes; pass a larger max_size", parts[-1])
        return bytes(kept)
    finally:
        win32.close(handle)


def opened(win32: Win32, top: str, parts: Sequence[str], access: int, writable: Sequence[str]) -> int:
    path = "\\".join((top, *parts))
    try:
        return open_named(win32, path, access, writable)
    except Win32Error as error:  # as Python's own: FileNotFoundError, PermissionError
        raise OSError(error.errno, error.strerror, path) from error
