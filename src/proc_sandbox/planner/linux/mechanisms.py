"""What enforces each limit and isolation on Linux, best first."""

from proc_sandbox.host import Host
from proc_sandbox.planner.ladder import Lacks, Ladder, Rung, both, either, feature, never, nothing

__all__ = ["LADDER", "SCOPES"]

SCOPES = 6
"""Landlock ABI from which signals and abstract sockets can be kept inside: Documentation/userspace-api/landlock.rst."""
TRUNCATION = 3
"""Landlock ABI from which a file that can only be read can't be emptied either (LANDLOCK_ACCESS_FS_TRUNCATE)."""


def cgroup(version: int, controller: str) -> Lacks:
    """Return what a host lacks of a cgroup controller, as (reason, remedy), or None."""

    def lacks(host: Host) -> tuple[str, str] | None:
        if host.cgroup and host.cgroup.version == version and host.cgroup.has(controller):
            return None
        feature = host.feature(f"cgroup{version}")
        reason = feature.reason or f"the controller {controller} is not delegated"
        return reason, feature.remedy or "run as root, or as a systemd user with Delegate=yes"

    return lacks


DELEGATE_IO = (
    "run as root; or, as root: mkdir -p /etc/systemd/system/user@.service.d && "
    "printf '[Service]\\nDelegate=cpu cpuset io memory pids\\n' > /etc/systemd/system/user@.service.d/delegate.conf && "
    "systemctl daemon-reload, and log in anew"
)
"""systemd gives its users no io controller by itself (systemd.resource-control(5))."""


def disks(version: int, controller: str) -> Lacks:
    """Return what a host lacks to limit its disks, as (reason, remedy), or None."""

    def lacks(host: Host) -> tuple[str, str] | None:
        if host.cgroup and host.cgroup.version == version and not host.cgroup.has(controller):
            return f"the controller {controller} is not delegated, or the kernel has no CONFIG_BLK_DEV_THROTTLING", DELEGATE_IO
        return cgroup(version, controller)(host) or feature("sysfs")(host)

    return lacks


def namespaces(host: Host) -> tuple[str, str] | None:
    """Return what a host lacks to give a run namespaces of its own."""
    found = host.namespaces
    return None if found else (found.reason, found.remedy)


def landlock(abi: int) -> Lacks:
    """Return what a host lacks of an ABI of Landlock."""

    def lacks(host: Host) -> tuple[str, str] | None:
        if host.landlock_abi >= abi:
            return None
        found = host.feature("landlock")
        return (f"Landlock has ABI {host.landlock_abi} here, {abi} is needed", "a newer kernel") if found else (found.reason, found.remedy)

    return lacks


def own_uid(host: Host) -> tuple[str, str] | None:
    """Return what a host lacks to give a run without namespaces a user of its own."""
    return None if host.own_uid else ("a user of its own can be given by root only", "run as root")


LOOKED_AFTER = both(feature("proc"), either(namespaces, landlock(SCOPES)))
"""Where the whole tree can be stopped and ended at once, so that a look from time to time is worth something."""
HOST_FILES = both(feature("landlock"), either(landlock(TRUNCATION), own_uid))


LADDER: Ladder = {
    "timeout": (
        Rung("launcher", "deadline in the launcher (CLOCK_MONOTONIC), death of pid 1", namespaces),
        Rung("scope", "deadline in the launcher (CLOCK_MONOTONIC), kill(-1) within a Landlock domain", landlock(SCOPES)),
        Rung("sweep", "deadline in the launcher (CLOCK_MONOTONIC), descendants are killed until none is left", both(feature("proc"), own_uid), "sampled"),
    ),
    "memory_limit": (
        Rung("cgroup2", "cgroup2 memory.max, memory.swap.max, memory.oom.group", cgroup(2, "memory")),
        Rung("cgroup1", "cgroup1 memory.limit_in_bytes, memory.memsw.limit_in_bytes", cgroup(1, "memory")),
        Rung("sampled", "sampled: memory of the tree and its tmpfs, every 2 to 10 ms", LOOKED_AFTER, "sampled"),
    ),
    "cpu_limit": (
        Rung("cgroup2", "cgroup2 cpu.max", cgroup(2, "cpu")),
        Rung("cgroup1", "cgroup1 cpu.cfs_quota_us", cgroup(1, "cpu")),
        Rung("sampled", "sampled: the tree is stopped and continued (duty cycle), every 10 ms", LOOKED_AFTER, "sampled"),
    ),
    "cpu_time_limit": (
        Rung("cgroup2", "cgroup2 cpu.stat, watched by the launcher, and RLIMIT_CPU", cgroup(2, "cpu")),
        Rung("cgroup1", "cgroup1 cpuacct.usage, watched by the launcher, and RLIMIT_CPU", cgroup(1, "cpuacct")),
        Rung("sampled", "sampled: CPU time of the tree, every 10 ms, and RLIMIT_CPU", LOOKED_AFTER, "sampled"),
    ),
    "max_processes": (
        Rung("cgroup2", "cgroup2 pids.max", cgroup(2, "pids")),
        Rung("cgroup1", "cgroup1 pids.max", cgroup(1, "pids")),
        Rung("rlimit", "RLIMIT_NPROC, counted in the run's own user namespace", namespaces),
        Rung("uid", "RLIMIT_NPROC, counted for the run's own user", own_uid),
        Rung("sampled", "sampled: tasks of the tree, every 10 ms; a run that has more is ended", LOOKED_AFTER, "sampled"),
    ),
    "read_bps": (
        Rung("cgroup2", "cgroup2 io.max: rbps of every disk", disks(2, "io")),
        Rung("cgroup1", "cgroup1 blkio.throttle.read_bps_device of every disk", disks(1, "blkio")),
    ),
    "write_bps": (
        # What the kernel writes back belongs to the cgroup that the file does; in v1 to the root. cgroup-v2.rst, "Writeback"
        Rung(
            "cgroup2",
            "cgroup2 io.max: wbps of every disk, direct and, on ext2, ext4, xfs, btrfs and f2fs, of files that the run made",
            disks(2, "io"),
            "partial",
        ),
        Rung("cgroup1", "cgroup1 blkio.throttle.write_bps_device", never("it does not limit what goes through the page cache", "")),
    ),
    "max_output": (Rung("reader", "the reader keeps that much of each stream and flags the rest", nothing),),
    "max_file_size": (Rung("rlimit", "RLIMIT_FSIZE", nothing),),
    "max_open_files": (Rung("rlimit", "RLIMIT_NOFILE", nothing),),
    "tmp_size": (
        Rung("tmpfs", "size of a private tmpfs", namespaces),
        Rung("none", "there is no /tmp: nothing is written but what is granted, and a Sandbox's directory", HOST_FILES, weaker=True),
    ),
    "files": (
        Rung("view+landlock", "mount namespace, pivot_root and Landlock", both(namespaces, feature("landlock"))),
        Rung("view", "mount namespace, pivot_root", namespaces, weaker=True),
        Rung("landlock", "Landlock on the host's own files: others can be asked for by name (stat), not opened", HOST_FILES, weaker=True),
    ),
    "hidden_paths": (
        Rung("mounts", "a read-only mount of nothing over each", namespaces),
        Rung("none", "Landlock", never("it takes nothing away from what is granted", "grant the directories beside it instead")),
    ),
    "hostname": (Rung("utsns", "UTS namespace", both(namespaces, feature("utsns"))),),
    "privileges": (
        Rung("userns", "user namespace, no capabilities, no_new_privs", namespaces),
        Rung("uid", "a user of its own, no capabilities, no_new_privs", own_uid, weaker=True),
        Rung("nnp", "the caller's user, no capabilities, no_new_privs", nothing, weaker=True),
    ),
    "processes": (
        Rung("pidns", "pid namespace", namespaces),
        Rung("scope", "Landlock: no signal goes out, and /proc shows the command itself alone", landlock(SCOPES), weaker=True),
    ),
    "ipc": (
        Rung("ipcns", "ipc namespace", both(namespaces, feature("ipcns"))),
        Rung("seccomp", "seccomp: no System V IPC and no message queues", feature("seccomp"), weaker=True),
    ),
    "syscalls": (Rung("seccomp", "seccomp allowlist", feature("seccomp")),),
}


