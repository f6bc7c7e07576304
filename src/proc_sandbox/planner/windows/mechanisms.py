"""What enforces each limit and isolation on Windows, best first."""

from proc_sandbox.planner.ladder import Ladder, Rung, feature, never, nothing

__all__ = ["LADDER"]

LEAVE_OUT = 'leave it out, or accept that it is not enforced: enforcement=ps.best_effort("{}")'
APP_CONTAINER = feature("job", "appcontainer")

LADDER: Ladder = {
    "timeout": (
        Rung("job", "deadline in the caller (monotonic clock), TerminateJobObject; KILL_ON_JOB_CLOSE if the caller dies", feature("job")),
    ),
    "memory_limit": (Rung("job", "job object JOB_MEMORY: commit charge of the tree", feature("job", "job_memory")),),
    "cpu_limit": (Rung("job", "job object CPU rate control, hard cap", feature("job", "job_cpu_rate")),),
    "cpu_time_limit": (
        Rung("job", "the job's accounting, every 20 ms; JOB_TIME (user mode) behind it", feature("job", "job_time"), "sampled"),
    ),
    "max_processes": (
        Rung("job", "job object ACTIVE_PROCESS: processes, whose threads do not count", feature("job", "job_processes"), "partial"),
    ),
    "read_bps": (Rung("none", "job object", never("Windows limits no job's disks", LEAVE_OUT.format("read_bps"))),),
    "write_bps": (Rung("none", "job object", never("Windows limits no job's disks", LEAVE_OUT.format("write_bps"))),),
    "max_output": (Rung("reader", "the reader keeps that much of each stream and flags the rest", nothing),),
    "max_file_size": (Rung("none", "job object", never("Windows limits no file's size", LEAVE_OUT.format("max_file_size"))),),
    "max_open_files": (Rung("none", "job object", never("Windows limits no process's handles", LEAVE_OUT.format("max_open_files"))),),
    "tmp_size": (
        Rung("none", "private directory", never("it lies on a disk, where a directory has no size of its own", LEAVE_OUT.format("tmp_size"))),
    ),
    "hidden_paths": (
        Rung("none", "access control", never("what is granted is granted with all that lies in it", "grant the directories beside it instead")),
    ),
    "hostname": (Rung("none", "namespace", never("Windows has one name for all", LEAVE_OUT.format("hostname"))),),
    "umask": (Rung("none", "access control", never("Windows has no mode mask", LEAVE_OUT.format("umask"))),),
    "pass_fds": (
        Rung("none", "handle list", never("a descriptor is a number of the C runtime's, not of the system's", "pass the bytes by stdin, or a file by its name")),
    ),
    "files": (Rung("appcontainer", "AppContainer: what Windows shows to every app, and what is granted", APP_CONTAINER),),
    "privileges": (
        Rung("appcontainer", "AppContainer's token, privileges deleted, administrators' groups deny-only", feature("job", "appcontainer", "restricted_token")),
        Rung(
            "restricted",
            "restricted token of the caller's user: privileges deleted, administrators' groups deny-only, low integrity",
            feature("restricted_token", "low_integrity"),
            weaker=True,
        ),
    ),
    "processes": (
        Rung("appcontainer", "AppContainer: processes of others cannot be opened", APP_CONTAINER),
        Rung("low_integrity", "low integrity: no process can be opened but those of other runs", feature("low_integrity"), "partial", weaker=True),
    ),
    "ipc": (
        Rung("appcontainer", "AppContainer's own names of objects, UI restrictions of the job", feature("job", "appcontainer", "job_ui")),
        Rung("names", "AppContainer's own names of objects; clipboard and windows are the session's", APP_CONTAINER, "partial", weaker=True),
        Rung("ui", "UI restrictions of the job; names of objects are the session's", feature("job", "job_ui"), "partial", weaker=True),
    ),
    "syscalls": (
        Rung(
            "mitigations",
            "process mitigation policies: no fonts but the system's, no extension points; Windows has no filter of system calls",
            feature("mitigations"),
            "partial",
        ),
    ),
    "network_access": (Rung("appcontainer", "AppContainer without capabilities: no network, no loopback", APP_CONTAINER),),
}  # fmt: skip
