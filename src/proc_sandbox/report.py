"""What happened in one run, as bare facts: nothing concluded."""


from typing import NamedTuple

__all__ = ["Ended", "Failed", "Report"]


class Failed(NamedTuple):
    """The command did not start: the step that failed, what it was about, and errno."""

    step: str
    object: str
    errno: int


class Ended(NamedTuple):
    """The launcher's last word on a run. Times in ns; -1 where a fact is not known."""

    done: bool
    """The command itself ended, and status is its wait status."""
    status: int
    wall: int
    user: int
    system: int
    peak: int
    tasks: int
    oom_kills: int
    """Processes that the kernel killed because the run met its own memory limit."""
    outside_oom_kills: int
    """Processes that it killed for want of memory elsewhere: in a cgroup above, or on the host."""
    refused_forks: int
    """Forks that the limit refused; -1 where nobody counts them."""
    throttled: int
    """ns for which the tree was kept waiting by the CPU limit."""
    timed_out: bool
    cpu_exceeded: bool
    memory_exceeded: bool
    tasks_exceeded: bool
    """The tree was seen to have more tasks than its limit."""
    cancelled: bool
    disk_read: int = -1
    disk_written: int = -1
    """Bytes, of all disks together."""
    cpu_pressure: int = -1
    memory_pressure: int = -1
    io_pressure: int = -1
    """ns in which at least one task waited for it."""


class Report(NamedTuple):
    """All facts of a run."""

    ended: Ended
    stdout: bytes = b""
    stderr: bytes = b""
    stdout_truncated: bool = False
    stderr_truncated: bool = False
