"""What Linux tells of a process that psutil does not ask for, or not so that the process cannot lie."""

from __future__ import annotations

import contextlib
import os
import re

import psutil

__all__ = ["count_threads", "owner", "spokesman"]


def number(pid: int, key: bytes) -> int:
    """Return a number of /proc/PID/status. psutil looks for it anywhere in there, and what comes first is the process's name,
    which it chooses itself (PR_SET_NAME(2const)): it can hold anything but the beginning of a line.

    Raises:
        ProcessLookupError: it is gone.
    """
    found = re.search(rb"^%s:\t(\d+)" % key, read(f"/proc/{pid}/status"), re.MULTILINE)
    if found is None:
        raise ProcessLookupError(pid)
    return int(found[1])


def read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError as error:
        raise ProcessLookupError(path) from error


def count_threads(pid: int) -> int:
    """Return how many threads a process has: of a zombie that has ended altogether one, of one that only its first thread has
    left (pthread_exit(3)) more.
    """
    return number(pid, b"Threads")


def owner(pid: int) -> int:
    """Return a process's real user."""
    return number(pid, b"Uid")


def spokesman(process: psutil.Process) -> psutil.Process:
    """Return a thread by which a process's memory and environment can be asked for: when the first has ended, that has none."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError, psutil.NoSuchProcess):
        for name in sorted(os.listdir(f"/proc/{process.pid}/task"), key=int):
            if read(f"/proc/{name}/statm").split()[0] != b"0":
                return process if int(name) == process.pid else psutil.Process(int(name))
    return process
