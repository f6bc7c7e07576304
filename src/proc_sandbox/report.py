"""What happened in one run, as bare facts: nothing concluded."""


from typing import NamedTuple

__all__ = ["Ended", "Failed", "Live", "Report"]


class Failed(NamedTuple):
    """The command did not start: the step that failed, what it was about, errno, and what else is known of the cause."""

    step: str
    object: str
    errno: int
    detail: str = ""


class Ended(NamedTuple):
    """The last word on a run. Times in ns; -1 where a fact is not known."""

    done: bool
    """The command itself ended, by exit_code or signal; else it was ended with all that was left of the run."""
    exit_code: int | None
    """What it exited with: 0 to 255; on Windows 0 to 4,294,967,295."""
    signal: int | None
    wall: int
    user: int
    system: int
    peak: int = -1
    tasks: int = 0
    oom_kills: int = 0
    """Processes that the kernel killed because the run met its own memory limit."""
    outside_oom_kills: int = 0
    """Processes that it killed for want of memory elsewhere: in a cgroup above, or on the host."""
    refused_forks: int = -1
    """Forks that the limit refused; -1 where nobody counts them."""
    throttled: int = -1
    """ns for which the tree was kept waiting by the CPU limit."""
    timed_out: bool = False
    cpu_exceeded: bool = False
    memory_exceeded: bool = False
    tasks_exceeded: bool = False
    """The tree was seen to have more tasks than its limit."""
    cancelled: bool = False
    disk_read: int = -1
    disk_written: int = -1
    """Bytes, of all disks together."""
    cpu_pressure: int = -1
    memory_pressure: int = -1
    io_pressure: int = -1
    """ns in which at least one task waited for it."""
    terminated: bool = False
    """SIGTERM had been sent, to be followed by SIGKILL after a grace, when the command ended."""
    sent: int = 0
    """Signals that the caller has sent to the command: bit N - 1 for signal N."""


class Live(NamedTuple):
    """What a run that goes on has used until now. Times in ns; -1 where a fact is not known."""

    wall: int
    cpu: int
    memory: int
    """Bytes that are in use now."""
    tasks: int
    disk_read: int = -1
    disk_written: int = -1


class Report(NamedTuple):
    """All facts of a run."""

    ended: Ended
    stdout: bytes = b""
    stderr: bytes = b""
    stdout_truncated: bool = False
    stderr_truncated: bool = False
