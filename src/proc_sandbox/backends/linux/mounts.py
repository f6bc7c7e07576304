"""The names that a file has by several mounts of one file system: bind mounts, or subvolumes beside the whole (mount(8))."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

__all__ = ["Mounted", "mounted", "names_by_mounts", "unescape"]


class Mounted(NamedTuple):
    """A mount: the number of its file system, which directory of that it shows, and where."""

    device: str
    root: str
    point: str


def unescape(text: str) -> str:
    """Undo the octal escapes of /proc/PID/mountinfo (proc_pid_mountinfo(5))."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def mounted() -> tuple[Mounted, ...]:
    """Return the mounts that this process sees; none where there is no /proc, and so no view either."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            lines = [line.split(" ", 5) for line in file]
    except FileNotFoundError:
        return ()
    return tuple(Mounted(fields[2], unescape(fields[3]), unescape(fields[4])) for fields in lines)


def names_by_mounts(path: str, mounts: Sequence[Mounted]) -> Iterator[str]:
    """Yield the other names of a path without links, as other mounts show it."""
    for mount in mounts:
        inside = below(path, mount.point)
        if inside is None:
            continue
        there = joined(mount.root, inside)
        for other in mounts:
            rest = below(there, other.root) if other.device == mount.device else None
            name = path if rest is None else joined(other.point, rest)
            if name != path and is_same(name, path):  # else something is mounted above it
                yield name


def below(path: str, directory: str) -> str | None:
    """Return the path from a directory on, "" for itself; None where it does not lie in it."""
    if path == directory:
        return ""
    top = directory.rstrip("/") + "/"
    return path.removeprefix(top) if path.startswith(top) else None


def joined(directory: str, rest: str) -> str:
    return f"{directory.rstrip('/')}/{rest}" if rest else directory


def is_same(name: str, path: str) -> bool:
    try:
        return os.path.samestat(os.lstat(name), os.lstat(path))
    except OSError:
        return False
