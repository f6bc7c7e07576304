"""The Windows planner: limits of a job object, a token, an AppContainer, and who may touch which directory."""

from __future__ import annotations

import functools
import ntpath
from collections.abc import Sequence

from proc_sandbox.config import DEFAULTS, Config
from proc_sandbox.errors import UnsupportedError
from proc_sandbox.host import Grant, Host, Paths
from proc_sandbox.planner.ladder import Choices, choose, choose_all, choose_hiding, refuse
from proc_sandbox.planner.windows.environment import environment
from proc_sandbox.planner.windows.mechanisms import LADDER
from proc_sandbox.planner.windows.plan import SCRATCH, TICK, UI, Access, JobLimits, Token, WindowsPlan
from proc_sandbox.result import Enforced, Unenforced
from proc_sandbox.units import nanoseconds

__all__ = ["MITIGATIONS", "compile_plan", "cpu_rate", "enforce"]

WHOLE = 10_000
"""All processors together, as CPU rate control counts them. JOBOBJECT_CPU_RATE_CONTROL_INFORMATION"""
MITIGATIONS = ("extension_points", "fonts")
"""What narrows the kernel's surface and hinders no ordinary program: UpdateProcThreadAttribute, "mitigation policy"."""
NETWORK_CAPABILITIES = ("internetClient", "internetClientServer", "privateNetworkClientServer")
"""What an AppContainer needs to reach the network. "App capability declarations" """
MOST_NORMAL, MOST_BELOW = 0, 9
"""Up to which niceness a priority class stands for it: normal, below normal, and idle for the rest."""
WHERE_CHANGED = ("max_open_files", "tmp_size", "hostname", "umask", "pass_fds")
"""Asked for by who names another value than the default, for which Windows has no mechanism."""
READING_IS_OPEN = "applied all the same: low integrity, with which it writes nothing but what is granted; reading stays open"


def cpu_rate(percent: float, processors: int) -> int:
    """Return percent of one core as a CPU rate: rounded down, for a limit is not to be passed; 0: it is less than can be told."""
    return min(WHOLE, int(percent * WHOLE / 100 / processors))


def enforce(config: Config, host: Host, paths: Paths) -> Choices:
    """Choose a mechanism for everything that is asked for.

    Raises:
        UnsupportedError: something asked for cannot be enforced here; nothing was started.
    """
    changed = (name for name in WHERE_CHANGED if getattr(config, name) != DEFAULTS[name])
    rungs, said = choose_all(config, host, LADDER, ("max_output", *changed))
    if not rungs["files"] and host.feature("low_integrity"):
        rungs["files"] = "low_integrity"
        said["files"] = add_reason(said["files"], READING_IS_OPEN)
    if rungs.get("cpu_limit") and not cpu_rate(config.cpu_limit or 0, host.processors):
        reason = f"Windows caps in steps of 1/10,000 of all processors, {host.processors / 100:g} percent of one core here"
        rungs["cpu_limit"], said["cpu_limit"] = "", refuse("cpu_limit", config, reason, "a higher cpu_limit")
    rungs["network_access"], said["network_access"] = network(config, host)
    if config.hidden_paths:
        rungs["hidden_paths"], said["hidden_paths"] = choose_hiding(config, host, LADDER, paths, seen=bool(paths.hidden))
    return Choices(rungs, said)


def add_reason(how: Enforced | Unenforced, more: str) -> Enforced | Unenforced:
    return Unenforced(f"{how.reason}; {more}", how.remedy) if isinstance(how, Unenforced) else how


def network(config: Config, host: Host) -> tuple[str, Enforced | Unenforced]:
    if config.network_access is True:
        return "", Enforced("granted: the host's network")
    if config.network_access == "loopback":
        reason, remedy = "Windows has no network of a run's own", "network_access=False, or True"
        if (closed := choose("network_access", config, host, LADDER))[0]:
            return closed[0], refuse("network_access", config, f"{reason}; where that is accepted there is none at all", remedy)
        return "", refuse("network_access", config, reason, remedy)
    return choose("network_access", config, host, LADDER)


def compile_plan(config: Config, command: Sequence[str], host: Host, paths: Paths) -> WindowsPlan:
    """Decide everything that will be done to a command. Pure.

    Raises:
        ConfigError: two variables have one name. UnsupportedError: something asked for cannot be enforced here.
    """
    return compile_base(config.without_streams(), host, paths).with_command(command)


@functools.lru_cache(maxsize=256)
def compile_base(config: Config, host: Host, paths: Paths) -> WindowsPlan:
    """Return the plan without its command: the same for all runs of a Config."""
    choices = enforce(config, host, paths)
    if config.pty:
        raise UnsupportedError("pty", "a pseudo-console (ConPTY) has not been built yet", "leave pty out: streams are pipes then")
    contained = choices.uses("appcontainer")
    own = paths.private or SCRATCH
    return WindowsPlan(
        command=(),
        executable=paths.executable,
        cwd=config.working_dir or own,
        environment=environment(config, host, paths, own),
        timeout=nanoseconds(config.timeout),
        cpu_time=nanoseconds(config.cpu_time_limit) if choices.rungs.get("cpu_time_limit") else 0,
        enforcement=choices.enforcement,
        job=plan_job(config, host, choices),
        token=plan_token(choices, contained=contained),
        app_container=capabilities_in(config) if contained else None,
        access=plan_access(paths, own, choices, contained=contained),
        mitigations=MITIGATIONS if choices.rungs.get("syscalls") else (),
        scratch=own == SCRATCH,
    )


def capabilities_in(config: Config) -> tuple[str, ...]:
    return NETWORK_CAPABILITIES if config.network_access is True else ()


def plan_job(config: Config, host: Host, choices: Choices) -> JobLimits:
    """Return what the job is told of the limits that it can take."""
    taken = choices.rungs
    return JobLimits(
        memory=config.memory_limit or 0 if taken.get("memory_limit") else 0,
        processes=config.max_processes or 0 if taken.get("max_processes") else 0,
        user_time=max(1, nanoseconds(config.cpu_time_limit) // TICK) if taken.get("cpu_time_limit") else 0,
        cpu_rate=cpu_rate(config.cpu_limit or 0, host.processors) if taken.get("cpu_limit") else 0,
        priority=priority(config.nice) if host.feature("job_priority") else "",
        ui=UI if taken.get("ipc") in ("appcontainer", "ui") else (),
        die_on_unhandled_exception=not config.core_dumps and bool(host.feature("job_exceptions")),
    )


def priority(nice: int) -> str:
    """Return the priority class that stands for a niceness; "" for the normal one."""
    if nice <= MOST_NORMAL:
        return ""
    return "below normal" if nice <= MOST_BELOW else "idle"


def plan_token(choices: Choices, *, contained: bool) -> Token | None:
    if contained:
        return Token() if choices.rungs.get("privileges") else None
    low = "low" if "low_integrity" in choices.rungs.values() or choices.rungs.get("privileges") == "restricted" else ""
    if choices.rungs.get("privileges"):
        return Token(integrity=low)
    return Token(deny_only=(), integrity=low) if low else None


def plan_access(paths: Paths, own: str, choices: Choices, *, contained: bool) -> tuple[Access, ...]:
    """Return who may touch what, outer directories first: an entry reaches all that lies below."""
    writable = sorted({own, *(grant.source for grant in paths.grants if grant.access == "write")}, key=folded)
    if contained:
        found = [Access(item.path, "read", item.kind == "dir", "caller") for item in paths.system if item.private]
        found += [Access(own, "write")]
        found += [Access(grant.source, grant.access, grant.directory) for grant in paths.grants if grant.source != own]
        found += [Access(grant.source, "deny_write", grant.directory) for grant in paths.grants if below_one(grant, writable)]
    elif choices.rungs.get("files") == "low_integrity":
        kinds = {grant.source: grant.directory for grant in paths.grants}
        found = [Access(path, "low", kinds.get(path, True)) for path in writable]
        found += [Access(grant.source, "medium", grant.directory) for grant in paths.grants if below_one(grant, writable)]
    else:
        found = []
    return tuple(dict.fromkeys(found))


def below_one(grant: Grant, writable: Sequence[str]) -> bool:
    """Return whether a path that is only to be read lies in one that is to be written."""
    return grant.access == "read" and any(folded(grant.source).startswith(folded(place).rstrip("\\") + "\\") for place in writable)


def folded(path: str) -> str:
    """Return a path as Windows compares it."""
    return ntpath.normpath(path).lower()
