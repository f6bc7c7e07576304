"""The planner of POSIX systems without anything better: macOS, the BSDs, and Linux where it is asked for by name.

What POSIX lets one process do to others: limit what each of them has (setrlimit(2)), stop and kill them. All that is on a whole tree
of processes is therefore looked after by looking (the warden, backends/posix/), and what the command may see and do is nobody's
business but macOS's Seatbelt (planner/seatbelt.py). What that leaves undone is in DIFFERENCES and WEAKER, and nowhere else.
"""

from __future__ import annotations

import functools
import math
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from proc_sandbox.config import Config
from proc_sandbox.host import Host, Paths
from proc_sandbox.planner import seatbelt
from proc_sandbox.planner.environment import environment
from proc_sandbox.planner.ladder import Choices, Ladder, Rung, choose, feature, never, nothing, refuse
from proc_sandbox.planner.launched import LaunchedPlan, Rlimit, Sampling
from proc_sandbox.planner.words import encode_prefix
from proc_sandbox.result import Enforced, Unenforced

__all__ = ["DIFFERENCES", "LADDER", "MAX_TASKS", "WEAKER", "PosixPlan", "compile_plan", "enforce"]

SECOND = 1_000_000_000
SAMPLE_INTERVAL = 10_000_000
TRACK_INTERVAL = 100_000_000
"""ns between two looks at a run that has nothing to be measured: to know its processes when they have to be ended."""
MAX_TASKS = 2000
"""Tasks of a run: more could not be looked at often enough."""
SPARE_TASKS = 128
"""What RLIMIT_NPROC has above the limit on tasks: it counts all of the user's, and others of them come and go meanwhile."""
OPTIONAL = (
    "timeout", "memory_limit", "cpu_limit", "cpu_time_limit", "max_processes", "read_bps", "write_bps", "max_file_size",
)  # fmt: skip
ALWAYS = ("max_output", "max_open_files", "tmp_size")
ISOLATIONS = ("files", "privileges", "processes", "ipc", "syscalls")
NO_DISK_LIMIT = never("no POSIX system lets a process limit another's use of disks", "Linux with cgroups; best-effort runs without")
NO_OWN_TMP = never(
    "there is no private /tmp: what the command may write lies on the host's disk",
    "Linux with namespaces; max_file_size limits each file; best-effort runs without",
)

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
    **{name: (seatbelt.RUNGS[name],) for name in ISOLATIONS},
}

NOTHING_HIDES = "POSIX has no mechanism for it: the command may do what its user may. macOS's Seatbelt has one (not tried on a Mac yet)"
DIFFERENCES = {
    "crash": "a crash is a signal",
    "private directory": "there is no private view: without working_dir a run starts in /, and only a Sandbox has a directory of its own",
    "files": NOTHING_HIDES,
    "files written": NOTHING_HIDES,
    "network": NOTHING_HIDES,
    "others": NOTHING_HIDES,
}
"""What this backend does not promise at all: names of promises (tests/support/behaviours.py), and why. The README shows it."""

WEAKER = {
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
"""What it promises, and where the promise ends. Tests show some of it to be so. The README shows it."""


@dataclass(frozen=True, kw_only=True)
class PosixPlan(LaunchedPlan):
    """What will be done: by the monitor (the words), and by the warden (sampling, cpu_time, spare_tasks)."""

    spare_tasks: int = 0
    """RLIMIT_NPROC is that much above the tasks that the user has when the run starts; 0: not set."""
    seatbelt: str = ""
    """The profile under which macOS's sandbox-exec(1) runs the command; "": none."""

    def watch_words(self) -> Iterator[str]:
        """Yield nothing: the warden looks, not the monitor."""
        return iter(())

    def exec_words(self) -> Iterator[str]:
        """Yield the last words: the command, or sandbox-exec(1) with it."""
        if not self.seatbelt:
            return super().exec_words()
        program = posixpath.join(self.cwd, self.executable)
        return iter(("exec", seatbelt.SANDBOX_EXEC, *seatbelt.command_line(self.seatbelt, program, self.command)))

    def lines_of_isolation(self) -> Iterator[str]:
        """Yield the Seatbelt profile."""
        if self.seatbelt:
            yield "seatbelt"
            yield from (f"  {line}" for line in self.seatbelt.splitlines())
        else:
            yield "isolation    none: the caller's user, files and network"

    def lines_of_limits(self) -> Iterator[str]:
        """Yield the limits."""
        yield from super().lines_of_limits()
        if self.spare_tasks:
            yield f"  RLIMIT_NPROC {self.spare_tasks} above the user's tasks"


def enforce(config: Config, host: Host, paths: Paths) -> Choices:
    """Choose a mechanism for everything that is asked for.

    Raises:
        UnsupportedError: something asked for cannot be enforced here; nothing was started.
    """
    del paths
    fields = [name for name in OPTIONAL if getattr(config, name) is not None]
    rungs: dict[str, str] = {}
    said: dict[str, Enforced | Unenforced] = {}
    for name in (*fields, *ALWAYS, *ISOLATIONS):
        rungs[name], said[name] = choose(name, config, host, LADDER)
    said["network_access"] = seatbelt.network_enforcement(config, host)
    if (config.max_processes or 0) > MAX_TASKS:
        reason = f"at most {MAX_TASKS} tasks can be watched"
        said["max_processes"] = refuse("max_processes", config, reason, "a lower max_processes, or Linux with cgroups")
    return Choices(rungs, said)


def compile_plan(config: Config, command: Sequence[str], host: Host, paths: Paths) -> PosixPlan:
    """Decide everything that will be done to a command. Pure.

    Raises:
        UnsupportedError: something asked for cannot be enforced here; nothing was started.
    """
    base = compile_base(config.without_streams(), host, paths)
    return PosixPlan(**{**base.__dict__, "command": tuple(command)})


@functools.lru_cache(maxsize=256)
def compile_base(config: Config, host: Host, paths: Paths) -> PosixPlan:
    choices = enforce(config, host, paths)
    sampling = plan_sampling(config)
    plan = PosixPlan(
        command=("-",),
        executable=paths.executable,
        cwd=config.working_dir or paths.private or "/",
        environment=environment(config, paths, paths.private or "/", paths.private),
        rlimits=plan_rlimits(config, host),
        sampling=sampling,
        spare_tasks=sampling.tasks + SPARE_TASKS if sampling.tasks and host.feature("nproc") else 0,
        timeout=round((config.timeout or 0) * SECOND),
        cpu_time=round((config.cpu_time_limit or 0) * SECOND),
        umask=config.umask,
        nice=config.nice,
        descriptors=(0, 1, 2, *config.pass_fds),
        seatbelt=seatbelt.profile(config, paths) if host.feature("seatbelt") else "",
        enforcement=choices.enforcement,
    )
    return replace(plan, prefix=encode_prefix(plan))


def plan_sampling(config: Config) -> Sampling:
    measured = any((config.memory_limit, config.cpu_limit, config.cpu_time_limit, config.max_processes))
    if not measured:
        return Sampling(TRACK_INTERVAL)
    tasks = min(config.max_processes or MAX_TASKS, MAX_TASKS)
    return Sampling(SAMPLE_INTERVAL, config.memory_limit or 0, round((config.cpu_limit or 0) * 10), tasks)


def plan_rlimits(config: Config, host: Host) -> tuple[Rlimit, ...]:
    limits = [Rlimit("RLIMIT_NOFILE", config.max_open_files)]
    if not config.core_dumps:
        # Linux alone has pipe handlers, which ignore 0 and are skipped at 1: core(5), "Piping core dumps to a program".
        limits.append(Rlimit("RLIMIT_CORE", 1 if host.feature("linux") else 0))
    if config.max_file_size is not None:
        limits.append(Rlimit("RLIMIT_FSIZE", config.max_file_size))
    if config.cpu_time_limit is not None:
        limits.append(Rlimit("RLIMIT_CPU", math.ceil(config.cpu_time_limit) + 1))
    return tuple(limits)
