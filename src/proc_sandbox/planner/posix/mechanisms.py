"""What enforces each limit and isolation on POSIX systems, best first."""

from proc_sandbox.planner.ladder import ISOLATIONS, Ladder, Rung, feature, never, nothing
from proc_sandbox.planner.posix.seatbelt import RUNGS

__all__ = ["LADDER"]

NO_DISK_LIMIT = never("no POSIX system lets a process limit another's use of disks", "Linux with cgroups; best-effort runs without")
NO_OWN_TMP = never(
    "there is no private /tmp: what the command may write lies on the host's disk",
    "Linux with namespaces; max_file_size limits each file; best-effort runs without",
)

NO_OWN_NAME = never("POSIX has one name for all", "leave hostname out; best-effort runs without")

LADDER: Ladder = {
    "timeout": (
        Rung("monitor", "deadline in the monitor (CLOCK_MONOTONIC), then the tree is killed until none of it is found", nothing, "sampled"),
    ),
    "memory_limit": (
        Rung("sampled", "sampled: PSS of the tree, every 10 ms", feature("pss"), "sampled"),
        Rung("sampled", "sampled: memory of the tree that nobody shares (footprint), every 10 ms", feature("uss"), "sampled"),
        Rung("sampled", "sampled: resident memory of the tree, where what is shared counts for each process, every 10 ms", nothing, "sampled"),
    ),
    "cpu_limit": (
        Rung("sampled", "sampled: the tree is stopped and continued (duty cycle), every 10 ms", nothing, "sampled"),
    ),
    "cpu_time_limit": (
        Rung("sampled", "sampled: CPU time of the tree, every 10 ms, and RLIMIT_CPU for each process", nothing, "sampled"),
    ),
    "max_processes": (
        Rung(
            "rlimit",
            "sampled: tasks of the tree, every 10 ms; a run that has more is ended; RLIMIT_NPROC, which counts all of the user's, behind it",
            feature("nproc"),
            "sampled",
        ),
        Rung("sampled", "sampled: tasks of the tree, every 10 ms; a run that has more is ended", nothing, "sampled"),
    ),
    "read_bps": (Rung("none", "disk bandwidth", NO_DISK_LIMIT),),
    "write_bps": (Rung("none", "disk bandwidth", NO_DISK_LIMIT),),
    "max_output": (Rung("reader", "the reader keeps that much of each stream and flags the rest", nothing),),
    "max_file_size": (Rung("rlimit", "RLIMIT_FSIZE", nothing),),
    "max_open_files": (Rung("rlimit", "RLIMIT_NOFILE", nothing),),
    "tmp_size": (Rung("none", "a private /tmp", NO_OWN_TMP),),
    "hidden_paths": (Rung("seatbelt", "Seatbelt: neither read nor written, and told so (EPERM)", feature("seatbelt"), name="Seatbelt"),),
    "hostname": (Rung("none", "a name of the run's own", NO_OWN_NAME),),
    **{name: (RUNGS[name],) for name in ISOLATIONS},
}
