"""What the POSIX backend does not promise, and where what it promises ends: data, which the tests go by and the README shows."""

from collections.abc import Mapping

__all__ = ["DIFFERENCES", "WEAKER"]

NOTHING_HIDES = "POSIX has no mechanism for it: the command may do what its user may. macOS's Seatbelt has one (not tried on a Mac yet)"
DIFFERENCES: Mapping[str, str] = {
    "crash": "a crash is a signal",
    "private directory": "there is no private view: without working_dir a run starts in /, and only a Sandbox has a directory of its own",
    "files": NOTHING_HIDES,
    "files written": NOTHING_HIDES,
    "network": NOTHING_HIDES,
    "others": NOTHING_HIDES,
}
"""What this backend does not promise at all: names of promises (tests/support/behaviours.py), and why. The README shows it."""

WEAKER: Mapping[str, tuple[str, ...]] = {
    "tree": (
        ("descendants are found by their parents, their session and group, a variable that they inherit (PROC_SANDBOX_RUN), and by having been "
        "seen before. Who leaves the session, loses its parent and takes a new environment, all before the next look, is not found, and stays. "
        "Looks come every 10 ms where something is measured, else after 5, 15, 35, 75 and then every 100 ms"),
        "a set-user-ID program has a user of its own and cannot be signalled; macOS's Seatbelt starts none",
        "what a service starts on the command's behalf (at, cron, launchd, systemd --user) is the service's child",
        "a child that is born and dies all the time, in a new session each time, can outrun the looks: they are given up after 50",
    ),
    "timeout": (
        ("the command has its caller's user, and may signal its caller, the warden and the monitor. One that is killed is reported so "
        "(LauncherDiedError), never as a verdict; where both warden and monitor are stopped (SIGSTOP), the caller waits for ever. macOS's "
        "Seatbelt lets no signal out"),
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
        "the tree is stopped and continued, which it can notice; what leaves the tree unseen is not",
        "at once a tenth of a second of the limit may be used",
    ),
    "plan": ("a run by hand (the monitor's command line) has no warden: nothing is measured, and who leaves the group stays",),
}
"""What it promises, and where the promise ends. Tests show some of it to be so. The README shows it."""
