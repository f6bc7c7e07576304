"""The planner of POSIX systems without anything better: macOS, the BSDs, and Linux where it is asked for by name.

What POSIX lets one process do to others: limit what each of them has (setrlimit(2)), stop and kill them. All that is on a whole tree
of processes is therefore looked after by looking (the warden, backends/posix/), and what the command may see and do is nobody's
business but macOS's Seatbelt (seatbelt.py). What that leaves undone is in promises.py, and nowhere else.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace

from proc_sandbox.config import DEFAULTS, Config
from proc_sandbox.errors import UnsupportedError
from proc_sandbox.host import Host, Paths
from proc_sandbox.planner.ladder import Choices, choose_all, choose_hiding, refuse
from proc_sandbox.planner.posix import seatbelt
from proc_sandbox.planner.posix.mechanisms import LADDER
from proc_sandbox.planner.posix.plan import PosixPlan
from proc_sandbox.planner.unix.environment import environment
from proc_sandbox.planner.unix.plan import MAX_SAMPLED_TASKS, SAMPLE_INTERVAL, Sampling, plan_rlimits
from proc_sandbox.planner.unix.words import encode_prefix
from proc_sandbox.units import nanoseconds

__all__ = ["compile_plan", "enforce"]

TRACK_INTERVAL = 100_000_000
"""ns between two looks at a run that has nothing to be measured: to know its processes when they have to be ended."""
SPARE_TASKS = 128
"""What RLIMIT_NPROC has above the limit on tasks: it counts all of the user's, and others of them come and go meanwhile."""
NEW_DIRECTORY = "<new directory>"
"""In a plan that is only looked at: a run has a directory made for it, gone with the run."""
ALWAYS = ("max_output", "max_open_files")
WHERE_CHANGED = ("tmp_size", "hostname")
"""Asked for by who names another value than the default, for which POSIX has no mechanism."""


def enforce(config: Config, host: Host, paths: Paths) -> Choices:
    """Choose a mechanism for everything that is asked for.

    Raises:
        UnsupportedError: something asked for cannot be enforced here; nothing was started.
    """
    changed = (name for name in WHERE_CHANGED if getattr(config, name) != DEFAULTS[name])
    rungs, said = choose_all(config, host, LADDER, (*ALWAYS, *changed))
    if config.hidden_paths:
        rungs["hidden_paths"], said["hidden_paths"] = choose_hiding(config, host, LADDER, paths, seen=bool(paths.hidden))
    said["network_access"] = seatbelt.network_enforcement(config, host)
    if (config.max_processes or 0) > MAX_SAMPLED_TASKS:
        reason = f"at most {MAX_SAMPLED_TASKS} tasks can be watched"
        said["max_processes"] = refuse("max_processes", config, reason, "a lower max_processes, or Linux with cgroups")
    return Choices(rungs, said)


def compile_plan(config: Config, command: Sequence[str], host: Host, paths: Paths) -> PosixPlan:
    """Decide everything that will be done to a command. Pure.

    Raises:
        UnsupportedError: something asked for cannot be enforced here; nothing was started.
    """
    return compile_base(config.without_streams(), host, paths).with_command(command)


@functools.lru_cache(maxsize=256)
def compile_base(config: Config, host: Host, paths: Paths) -> PosixPlan:
    choices = enforce(config, host, paths)
    if config.pty and host.feature("seatbelt"):
        reason = "macOS's Seatbelt lets no ioctl(2) reach a terminal, and an exception for it has not been tried yet"
        raise UnsupportedError("pty", reason, "leave pty out: streams are pipes then")
    own = paths.private or ("" if config.working_dir else NEW_DIRECTORY)
    sampling = plan_sampling(config)
    plan = PosixPlan(
        command=("-",),
        executable=paths.executable,
        cwd=config.working_dir or own,
        environment=environment(config, paths, own or "/", own),
        rlimits=plan_rlimits(config, pipe_handlers=bool(host.feature("linux"))),
        sampling=sampling,
        spare_tasks=sampling.tasks + SPARE_TASKS if sampling.tasks and host.feature("nproc") else 0,
        timeout=nanoseconds(config.timeout),
        cpu_time=nanoseconds(config.cpu_time_limit),
        grace=nanoseconds(config.kill_grace),
        umask=config.umask,
        nice=config.nice,
        descriptors=(0, 1, 2, *config.pass_fds),
        terminal="-" if config.pty else "",
        seatbelt=seatbelt.profile(config, paths) if host.feature("seatbelt") else "",
        enforcement=choices.enforcement,
    )
    return replace(plan, prefix=encode_prefix(plan))


def plan_sampling(config: Config) -> Sampling:
    measured = any((config.memory_limit, config.cpu_limit, config.cpu_time_limit, config.max_processes))
    if not measured:
        return Sampling(TRACK_INTERVAL)
    tasks = min(config.max_processes or MAX_SAMPLED_TASKS, MAX_SAMPLED_TASKS)
    return Sampling(SAMPLE_INTERVAL, config.memory_limit or 0, round((config.cpu_limit or 0) * 10), tasks)
