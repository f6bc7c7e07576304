"""What the POSIX backend does not promise, and where what it promises ends: data, which the tests go by and docs/systems.md shows."""

from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["DIFFERENCES", "HELD_BY_SEATBELT", "UNLIKE_LINUX", "WEAKER"]

NOTHING_HIDES = "POSIX has no mechanism for it: the command may do what its user may. macOS's Seatbelt has one (not tried on a Mac yet)"
DIFFERENCES: Mapping[str, str] = {
    "files": NOTHING_HIDES,
    "files written": NOTHING_HIDES,
    "network": NOTHING_HIDES,
    "others": NOTHING_HIDES,
}
"""What this backend does not promise at all: names of promises (tests/support/behaviours.py), and why. docs/systems.md shows it."""

WEAKER: Mapping[str, tuple[str, ...]] = {
    "pause": (
        ("SIGSTOP for whoever is found, again every 20 ms: what continues itself by a timer of its own, or is continued by who is not found, goes "
        "on for as long"),
    ),
    "grace": (
        "SIGTERM for the command by its parent, and for all others who are found then; one that is born meanwhile gets none before its SIGKILL",
    ),
    "private directory": ("it lies among the caller's temporary files, on a disk, with no size of its own (tmp_size)",),
    "tree": (
        ("descendants are found by their parents, their session and group, a variable that they inherit (PROC_SANDBOX_RUN), and by having been "
        "seen before. Who leaves the session, loses its parent and takes a new environment (or overwrites or hides its own: PR_SET_DUMPABLE), all "
        "before the next look, is not found, and stays. "
        "Looks come every 10 ms where something is measured, else after 5, 15, 35, 75 and then every 100 ms"),
        "a set-user-ID program (or what newuidmap(1) has given another user to) cannot be signalled; macOS's Seatbelt starts none",
        "what a service starts on the command's behalf (at, cron, launchd, systemd --user) is the service's child",
        "a child that is born and dies all the time, in a new session each time, can outrun the looks: they are given up after 50",
    ),
    "timeout": (
        ("the command has its caller's user, and may signal its caller, the warden and the monitor. One that is killed is reported so "
        "(LauncherDiedError), never as a verdict. Where warden and monitor are stopped (SIGSTOP) the caller continues them, within a second, and "
        "kills the warden after ten in which somebody stops it again; where the caller is stopped too, or dead, they stay as they are, and so "
        "does the command. macOS's Seatbelt lets no signal out"),
        ("where the system lets processes of one user trace one another (ptrace(2): Linux without Yama, or root), the command can make caller, "
        "warden and monitor do and say anything, a false verdict too"),
    ),
    "memory": (
        "looked at, not refused: between two looks a tree can take what the machine has, and nothing stands behind it",
        ("memory that no process has mapped (files on tmpfs, memfd, System V segments that nobody is attached to, what pipes and sockets hold) "
        "is not counted"),
        "the peak is the largest that was looked at, and an upper bound as long as it is below the limit: what is shared counts for each process",
        "what the kernel kills for want of memory on the host is told as a SIGKILL: no counter tells it apart",
    ),
    "processes": (
        ("looked at, not refused: between two looks a tree can grow up to RLIMIT_NPROC, which is 128 tasks and the limit above what the user has "
        "when the run starts; root has none. A run that has more is ended (Reason.PROCESSES)"),
    ),
    "cpu time of the tree": ("what a process used after the last look at it is lost, where it dies and nobody waits for it",),
    "cpu rate": (
        ("the tree is stopped and continued, which it can notice. Its processes may continue one another until the next look stops them again: a pair "
        "that does nothing else was seen to get four times the limit; "
        "what leaves the tree unseen is not"),
        "at once a tenth of a second of the limit may be used",
    ),
    "plan": ("a run by hand (the monitor's command line) has no warden: nothing is measured, and who leaves the group stays",),
}
"""What it promises, and where the promise ends. Tests show some of it to be so. docs/systems.md shows it."""


class Difference(NamedTuple):
    """Something that macOS has not, or has otherwise, than Linux: of which field or isolation, and what."""

    about: str
    text: str


UNLIKE_LINUX = (
    Difference("memory_limit", "sampled only: there are no cgroups. There is no PSS: each process counts with its footprint (proc_pid_rusage, "
               "psutil's uss), where what is shared counts for the one that the kernel charges it to"),
    Difference("memory_limit", "RLIMIT_AS and RLIMIT_RSS are accepted and hold nothing (setrlimit(2)): between two looks nothing stands behind "
               "the sampling"),
    Difference("tmp_size", "no private /tmp: TMPDIR is a directory on the host's disk, with no limit but max_file_size for each file"),
    Difference("max_processes", "RLIMIT_NPROC counts all of the user's processes, not the run's: tasks are sampled"),
    Difference("read_bps", "no mechanism, nor for write_bps"),
    Difference("files", "rules go by name, on the host's own files. Hard links are refused altogether, and what is granted cannot be moved or "
               "removed itself. A hard link that is there already, in a directory that is granted, is in reach by that name"),
    Difference("files", "no pseudo-terminals, and no ioctl(2) on the caller's terminal (isatty(3) says no)"),
    Difference("processes", "arguments and environment of the same user's processes can be read (sysctl kern.procargs2): secrets of the caller's "
               "own environment are in reach of the command. Run the caller as a user of its own, or clear its environment"),
    Difference("processes", "after the end of the command strays are found by looking, not by the kernel: see the POSIX backend's table"),
    Difference("privileges", "the command has the caller's user. Set-ID programs do not start: ps, top, sudo and crontab among them"),
    Difference("ipc", "multiprocessing's locks and queues need a named semaphore, which is refused; processes that share none work"),
    Difference("ipc", "user names are asked of opendirectoryd, which on a Mac that belongs to a directory service asks that over the network"),
    Difference("network_access", '"loopback" is refused: there is one loopback network, the host\'s. With True UNIX sockets stay out of reach, '
               "the name service's apart"),
    Difference("syscalls", "no filter of system calls: what Seatbelt has no operation for is allowed"),
    Difference("hostname", "uname(3) tells the host's name"),
    Difference("nested", "Seatbelt takes no second profile: no run starts inside another sandbox, and programs that confine themselves "
               "(swift build, Chromium) need their switch against it"),
)  # fmt: skip
"""What macOS has not, or has otherwise, than Linux; docs/systems.md shows it."""
HELD_BY_SEATBELT = ("files", "files written", "network")
"""Of DIFFERENCES those that are none on macOS. That others cannot be seen is one there too: see above, kern.procargs2."""
