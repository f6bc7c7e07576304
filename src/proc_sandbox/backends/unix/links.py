"""Paths in which a command may have had a hand: resolved without its links, opened without following any.

A directory that a command can write to may hold links that an earlier run has planted. Whoever follows one on the host opens
what the command could not (CVE-2024-28185, CVE-2026-87766).
"""

import errno
import os
import re
import stat
from collections.abc import Iterable
from typing import NamedTuple

from proc_sandbox.backends.grants import PlantedLinkError

__all__ = ["Resolved", "open_directory", "open_report", "open_resolved", "resolve"]

O_PATH: int = getattr(os, "O_PATH", os.O_RDONLY)
"""Linux and FreeBSD: without it a directory is opened only where it can be read."""
MAX_LINKS = 40  # path_resolution(7)
OWN_DESCRIPTOR = re.compile(r"/proc/\d+(/task/\d+)?/fd/\d+\Z")
"""What /dev/stdout and /dev/fd/N lead to: no link to a path, but to the open file itself (proc_pid_fd(5))."""


class Resolved(NamedTuple):
    """Where a path leads, without links, and whether that lies in one of the places that a command can write to."""

    path: str
    inside: bool


def identity(path: str) -> tuple[int, int] | None:
    """Return device and inode, by which a directory is known under any name; None where there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def resolve(path: str, writable: Iterable[str], *, missing_ok: bool = False) -> Resolved:
    """Follow a path's links, but for those in the places (and below) that a command can write to.

    Args:
        path: Absolute, or relative to the current directory.
        writable: Directories that a command can write to.
        missing_ok: The last component need not exist.

    Raises:
        PlantedLinkError: there is a link in such a place. OSError: as stat(2).
    """
    roots = {identity(root) for root in writable} - {None}
    done = [Resolved("/", False)]
    todo = os.path.abspath(path).split("/")[::-1]
    links = 0
    while todo:
        part = todo.pop()
        if part in ("", ".", ".."):
            if part == ".." and len(done) > 1:
                done.pop()
            continue
        here = os.path.join(done[-1].path, part)
        try:
            status = os.lstat(here)
        except FileNotFoundError:
            if todo or not missing_ok:
                raise
            return Resolved(here, done[-1].inside)
        if stat.S_ISLNK(status.st_mode):
            if done[-1].inside:
                raise PlantedLinkError(here)
            if not todo and OWN_DESCRIPTOR.match(here):
                return Resolved(here, False)
            links += 1
            if links > MAX_LINKS:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            target = os.readlink(here)
            if target.startswith("/"):
                del done[1:]
            todo += target.split("/")[::-1]
            continue
        done.append(Resolved(here, done[-1].inside or (status.st_dev, status.st_ino) in roots))
    return done[-1]


def open_resolved(found: Resolved, flags: int, mode: int = 0o666) -> int:
    """Open what was resolved, without waiting and without following a link that has come since.

    Where a command can write, only a regular file is opened: a FIFO of its making would keep the caller waiting.

    Raises:
        OSError: as open(2); ELOOP for a link, EINVAL for what is no regular file.
    """
    flags |= os.O_CLOEXEC
    if not found.inside:
        return os.open(found.path, flags, mode)
    directory = open_directory(os.path.dirname(found.path))
    try:
        safe = flags & ~os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
        descriptor = os.open(os.path.basename(found.path), safe, mode, dir_fd=directory)
    finally:
        os.close(directory)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", found.path)
        if flags & os.O_TRUNC:
            os.ftruncate(descriptor, 0)
        os.set_blocking(descriptor, True)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def open_report(path: str, writable: Iterable[str]) -> int:
    """Open a file of the caller's to be written anew; no link that a command may have made is followed.

    Raises:
        OSError: as open(2); ELOOP for such a link.
    """
    found = resolve(path, writable, missing_ok=True)
    return open_resolved(found, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)


def open_directory(path: str) -> int:
    """Open a directory component by component, following no link.

    Raises:
        OSError: as open(2); ELOOP or ENOTDIR for a link.
    """
    flags = O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    directory = os.open("/", flags)
    for part in filter(None, path.split("/")):
        try:
            below = os.open(part, flags, dir_fd=directory)
        finally:
            os.close(directory)
        directory = below
    return directory
