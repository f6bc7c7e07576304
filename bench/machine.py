"""What machine this is, and from /proc what its processes hold."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from bench.table import Table

__all__ = ["available_memory", "children", "descendants", "machine_table", "private_memory", "threads"]

KIB = 1024


def field_of(path: str, name: str) -> str:
    """Return the first value of a "name: value" file, or nothing."""
    for line in Path(path).read_text(encoding="utf-8", errors="replace").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def available_memory() -> int:
    """Return the bytes that can be had without swapping."""
    return int(field_of("/proc/meminfo", "MemAvailable").split()[0]) * KIB


def private_memory(pid: int) -> int:
    """Return the bytes that only this process has: all Private_* of smaps_rollup (proc_pid_smaps(5))."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) * KIB


def threads(pid: int) -> int:
    """Return how many threads a process has."""
    return int(field_of(f"/proc/{pid}/status", "Threads"))


def parents() -> dict[int, int]:
    """Return the parent of every process."""
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                stat = Path(f"/proc/{entry}/stat").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has ended meanwhile
            found[int(entry)] = int(stat.rpartition(b")")[2].split()[1])
    return found


def descendants(pid: int) -> dict[int, str]:
    """Return the processes below one, with their names (comm)."""
    above = parents()
    family = {pid}
    while more := {child for child, parent in above.items() if parent in family and child not in family}:
        family |= more
    found = {}
    for child in family - {pid}:
        try:
            found[child] = Path(f"/proc/{child}/comm").read_text(encoding="utf-8").strip()
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def children(pid: int) -> list[int]:
    """Return the processes that are directly below one."""
    return [child for child, parent in parents().items() if parent == pid]


def cgroups() -> str:
    """Return which versions of cgroups are mounted."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()]
    kinds = {words[2] for words in mounts}
    return " and ".join(name for name, kind in (("v1", "cgroup"), ("v2", "cgroup2")) if kind in kinds) or "none"


def machine_table() -> Table:
    """Return the facts that the figures depend on."""
    rows = [
        ("kernel", f"{platform.system()} {platform.release()}, {platform.machine()}"),
        ("processor", f"{os.cpu_count()} x {field_of('/proc/cpuinfo', 'model name') or 'unknown'}"),
        ("hypervisor", "yes" if "hypervisor" in field_of("/proc/cpuinfo", "flags").split() else "none seen"),
        ("memory", f"{int(field_of('/proc/meminfo', 'MemTotal').split()[0]) / KIB / KIB:.0f} GiB"),
        ("cgroups", cgroups()),
        ("mounts on the host", str(len(Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()))),
        ("user", "root" if os.geteuid() == 0 else "an ordinary user"),
        ("load before", f"{os.getloadavg()[0]:.1f} (1 minute)"),
        ("Python", f"{platform.python_implementation()} {platform.python_version()}, {' '.join(platform.libc_ver())}"),
    ]
    return Table(("machine", ""), rows, left=True)
