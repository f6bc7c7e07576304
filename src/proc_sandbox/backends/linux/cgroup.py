"""Where this process may make cgroups: looked up in /proc, tried by making one."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from typing import NamedTuple

from proc_sandbox.host import CgroupHost, Feature

__all__ = ["find_cgroups", "sweep"]

CONTROLLERS = ("memory", "cpuacct", "cpu", "pids")
NAME = re.compile(r"proc-sandbox-(\d+)-\d+\Z")
REMEDY = "run as root, or from a systemd user session that delegates: systemd-run --user --scope -p Delegate=yes COMMAND"


class Hierarchy(NamedTuple):
    """One mounted cgroup hierarchy: v1's controllers, or none for v2."""

    root: str
    mount_point: str
    controllers: frozenset[str]
    version: int


def unescape(text: str) -> str:
    """Undo the octal escapes of /proc/PID/mountinfo (proc_pid_mountinfo(5))."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def hierarchies() -> Iterator[Hierarchy]:
    """Yield the hierarchies that are mounted."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            fields, _, rest = line.rstrip("\n").partition(" - ")
            kind, _, options = rest.split(" ", 2)
            if kind in ("cgroup", "cgroup2"):
                parts = fields.split(" ")
                controllers = frozenset(options.split(",")) if kind == "cgroup" else frozenset()
                yield Hierarchy(unescape(parts[3]), unescape(parts[4]), controllers, 2 if kind == "cgroup2" else 1)


def memberships() -> Iterator[tuple[frozenset[str], str]]:
    """Yield (controllers, path) of each cgroup that this process is in; v2 has no controllers there. cgroups(7)."""
    with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            yield frozenset(filter(None, controllers.split(","))), path


def own_directory(hierarchy: Hierarchy) -> str | None:
    """Return the directory of this process's own cgroup in a hierarchy."""
    for controllers, path in memberships():
        if (hierarchy.version == 2 and not controllers) or (controllers and controllers <= hierarchy.controllers):
            inside = os.path.relpath(path, hierarchy.root) if path.startswith(hierarchy.root.rstrip("/") + "/") else "."
            return os.path.normpath(os.path.join(hierarchy.mount_point, inside))
    return None


def can_make(directory: str) -> OSError | None:
    """Try to make a cgroup; return why not."""
    trial = os.path.join(directory, f"proc-sandbox-{os.getpid()}-0.probe")
    try:
        os.mkdir(trial)
        os.rmdir(trial)
    except OSError as error:
        return error
    return None


def find_v1() -> tuple[CgroupHost | None, str]:
    directories = []
    reason = "no v1 controller is mounted"
    found = {name: h for h in hierarchies() if h.version == 1 for name in h.controllers & set(CONTROLLERS)}
    for controller in CONTROLLERS:
        directory = own_directory(found[controller]) if controller in found else None
        if directory is None:
            continue
        error = can_make(directory)
        if error is None:
            directories.append((controller, directory))
        else:
            reason = f"{directory}: {os.strerror(error.errno or errno.EIO)}"
    if not directories:
        return None, reason
    memory = dict(directories).get("memory", "")
    return CgroupHost(1, tuple(directories), os.path.exists(f"{memory}/memory.memsw.limit_in_bytes")), ""


def read(path: str) -> str:
    with open(path, encoding="ascii") as file:
        return file.read()


def v2_parent(hierarchy: Hierarchy) -> tuple[str | None, str]:
    """Find a v2 cgroup below which limits can be set: it may hold no process of its own (cgroups(7))."""
    own = own_directory(hierarchy)
    candidates = [hierarchy.mount_point] if os.geteuid() == 0 else []
    candidates += [os.path.dirname(own)] if own else []
    reason = "cgroup2 has no controllers here"
    for candidate in candidates:
        try:
            available = set(read(f"{candidate}/cgroup.controllers").split()) & {"memory", "cpu", "pids"}
            enabled = set(read(f"{candidate}/cgroup.subtree_control").split())
            if available - enabled:
                with open(f"{candidate}/cgroup.subtree_control", "w", encoding="ascii") as file:
                    file.write(" ".join(f"+{name}" for name in sorted(available - enabled)))
        except OSError as error:
            reason = f"{candidate}: {error.strerror}"
            continue
        if available and (error_ := can_make(candidate)) is None:
            return candidate, ""
        if available and error_:
            reason = f"{candidate}: {error_.strerror}"
    return None, reason


def find_v2() -> tuple[CgroupHost | None, str]:
    reason = "cgroup2 is not mounted"
    for hierarchy in hierarchies():
        if hierarchy.version != 2:
            continue
        parent, reason = v2_parent(hierarchy)
        if parent is not None:
            controllers = set(read(f"{parent}/cgroup.subtree_control").split())
            swap = os.path.exists("/proc/swaps")
            return CgroupHost(2, tuple((name, parent) for name in sorted(controllers & {"memory", "cpu", "pids"})), swap), ""
    return None, reason


def find_cgroups() -> tuple[CgroupHost | None, dict[str, Feature]]:
    """Return where cgroups can be made, and what to say of v1 and v2."""
    v2, reason2 = find_v2()
    v1, reason1 = find_v1()
    features = {
        "cgroup2": Feature(v2 is not None, reason2, REMEDY),
        "cgroup1": Feature(v1 is not None, reason1, REMEDY),
    }
    found = v2 or v1
    if found:
        sweep(found)
    return found, features


def sweep(host: CgroupHost) -> None:
    """Remove the empty cgroups of launchers that were killed. A live launcher's process id is its name's first number."""
    for _, directory in set(host.directories):
        for entry in os.scandir(directory):
            match = NAME.match(entry.name)
            if match and not os.path.exists(f"/proc/{match[1]}"):
                try:
                    os.rmdir(entry.path)
                except OSError as error:
                    if error.errno not in (errno.EBUSY, errno.ENOENT):
                        raise
