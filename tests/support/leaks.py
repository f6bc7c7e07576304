"""What a test session must leave as it was: each kind of thing that can be left, as a set to compare."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
from pathlib import Path

from proc_sandbox.backends import current
from support.processes import children, until_false

__all__ = ["Before"]


def cgroups_of_the_dead() -> set[str]:
    """Cgroups whose launcher is gone: nobody would remove them any more."""
    if sys.platform != "linux":
        return set()
    from proc_sandbox.backends.linux.cgroup import sweep

    found = current().probe().cgroup
    if found:
        sweep(found)  # as the next caller would
    left = set()
    for _, directory in found.directories if found else ():
        for entry in os.scandir(directory):
            match = re.match(r"proc-sandbox-(\d+)-", entry.name)
            if match and not os.path.exists(f"/proc/{match[1]}"):
                left.add(entry.path)  # not swept, although its launcher is gone
    return left


def mounts() -> set[str]:
    """Where something is mounted."""
    if sys.platform != "linux":
        return set()
    return {line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()}


def descriptors() -> dict[str, str]:
    """What is open, by number."""
    found = {}
    for number in os.listdir("/proc/self/fd") if sys.platform == "linux" else ():
        with contextlib.suppress(OSError):
            found[number] = os.readlink(f"/proc/self/fd/{number}")
    return found


class Before:
    """What there was before a session; check() compares."""

    def __init__(self, temporary: Path) -> None:
        self.temporary = temporary
        self.children, self.threads = set(children(os.getpid())), set(threading.enumerate())
        self.mounts, self.descriptors = mounts(), descriptors()

    def check(self) -> None:
        """Fail where anything is left."""
        assert not until_false(lambda: set(children(os.getpid())) - self.children), "processes are left"
        assert not until_false(cgroups_of_the_dead), "cgroups are left"
        assert not {thread for thread in set(threading.enumerate()) - self.threads if not thread.daemon}, "threads are left"
        own = str(self.temporary)
        assert not {place for place in mounts() - self.mounts if "proc-sandbox-private" in place or own in place}
        assert not [path for path in self.temporary.iterdir() if path.name.startswith("proc-sandbox")], "files are left"
        leaked = {number: link for number, link in descriptors().items() if number not in self.descriptors}
        assert not {link for link in leaked.values() if "ns/" in link or "cgroup" in link or "_bin" in link}, leaked
