"""For each limit and isolation its mechanisms, best first; the first that the host has is taken.

The tables are data: the planner walks them, and the documentation prints them.
"""

from collections.abc import Callable
from typing import NamedTuple

from proc_sandbox.config import BestEffort, Config
from proc_sandbox.errors import UnsupportedError
from proc_sandbox.host import Host
from proc_sandbox.result import Enforced, Unenforced

__all__ = ["LADDER", "Rung", "choose"]


class Rung(NamedTuple):
    """One mechanism: its key for the planner, its name for people, and whether (or why not) a host has it."""

    key: str
    mechanism: str
    lacks: Callable[[Host], tuple[str, str] | None]
    strength: str = "kernel"


def cgroup(version: int, controller: str) -> Callable[[Host], tuple[str, str] | None]:
    """Return what a host lacks of a cgroup controller, as (reason, remedy), or None."""

    def lacks(host: Host) -> tuple[str, str] | None:
        if host.cgroup and host.cgroup.version == version and host.cgroup.has(controller):
            return None
        feature = host.feature(f"cgroup{version}")
        reason = feature.reason or f"the controller {controller} is not delegated"
        return reason, feature.remedy or "run as root, or as a systemd user with Delegate=yes"

    return lacks


def feature(*names: str) -> Callable[[Host], tuple[str, str] | None]:
    """Return what a host lacks of some features, as (reason, remedy), or None."""

    def lacks(host: Host) -> tuple[str, str] | None:
        for name in names:
            found = host.feature(name)
            if not found:
                return found.reason, found.remedy
        return None

    return lacks


def nothing(host: Host) -> None:
    """Return None: every host has it."""


LADDER: dict[str, tuple[Rung, ...]] = {
    "timeout": (Rung("launcher", "deadline in the launcher (CLOCK_MONOTONIC), death of pid 1", nothing),),
    "memory_limit": (
        Rung("cgroup2", "cgroup2 memory.max, memory.swap.max, memory.oom.group", cgroup(2, "memory")),
        Rung("cgroup1", "cgroup1 memory.limit_in_bytes, memory.memsw.limit_in_bytes", cgroup(1, "memory")),
        Rung("sampled", "sampled: memory of the tree and its tmpfs, every 10 ms", feature("pidns"), "sampled"),
    ),
    "cpu_limit": (
        Rung("cgroup2", "cgroup2 cpu.max", cgroup(2, "cpu")),
        Rung("cgroup1", "cgroup1 cpu.cfs_quota_us", cgroup(1, "cpu")),
        Rung("sampled", "sampled: the tree is stopped and continued (duty cycle), every 10 ms", feature("pidns"), "sampled"),
    ),
    "cpu_time_limit": (
        Rung("cgroup2", "cgroup2 cpu.stat, watched by the launcher, and RLIMIT_CPU", cgroup(2, "cpu")),
        Rung("cgroup1", "cgroup1 cpuacct.usage, watched by the launcher, and RLIMIT_CPU", cgroup(1, "cpuacct")),
        Rung("sampled", "sampled: CPU time of the tree, every 10 ms, and RLIMIT_CPU", feature("pidns"), "sampled"),
    ),
    "max_processes": (
        Rung("cgroup2", "cgroup2 pids.max", cgroup(2, "pids")),
        Rung("cgroup1", "cgroup1 pids.max", cgroup(1, "pids")),
        Rung("rlimit", "RLIMIT_NPROC, counted in the run's own user namespace", feature("userns")),
    ),
    "max_output": (Rung("reader", "the reader keeps that much of each stream and flags the rest", nothing),),
    "max_file_size": (Rung("rlimit", "RLIMIT_FSIZE", nothing),),
    "max_open_files": (Rung("rlimit", "RLIMIT_NOFILE", nothing),),
    "tmp_size": (Rung("tmpfs", "size of a private tmpfs", feature("mountns")),),
    "files": (
        Rung("view+landlock", "mount namespace, pivot_root and Landlock", feature("mountns", "pidns", "close_range", "landlock")),
        Rung("view", "mount namespace, pivot_root", feature("mountns", "pidns", "close_range")),
    ),
    "privileges": (
        Rung("userns", "user namespace, no capabilities, no_new_privs", feature("userns")),
    ),
    "processes": (Rung("pidns", "pid namespace", feature("pidns")),),
    "ipc": (Rung("ipcns", "ipc namespace", feature("ipcns")),),
    "syscalls": (Rung("seccomp", "seccomp allowlist", feature("seccomp")),),
}


def choose(field: str, config: Config, host: Host) -> tuple[str, Enforced | Unenforced]:
    """Take the best mechanism that the host has.

    Returns:
        The rung's key ("" if there is none) and what enforcement says of it.

    Raises:
        UnsupportedError: the host has none, and enforcement is strict for this field.
    """
    missing: list[tuple[str, str]] = []
    for rung in LADDER[field]:
        lack = rung.lacks(host)
        if lack is None:
            better = missing[0][1] if missing and rung.strength != "kernel" else ""
            return rung.key, Enforced(rung.mechanism, rung.strength, better)
        missing.append((f"{rung.mechanism}: {lack[0]}", lack[1]))
    return "", refuse(field, config, "; ".join(reason for reason, _ in missing), missing[0][1])


def refuse(field: str, config: Config, reason: str, remedy: str) -> Unenforced:
    """Return Unenforced where the caller accepts that, else raise UnsupportedError."""
    if tolerated(field, config):
        return Unenforced(reason, remedy)
    raise UnsupportedError(field, reason, remedy)


def tolerated(field: str, config: Config) -> bool:
    enforcement = config.enforcement
    if isinstance(enforcement, BestEffort):
        return not enforcement.fields or field in enforcement.fields
    return enforcement == "best-effort"
