"""The Windows planner: limits of a job object, a token, an AppContainer, and who may touch which directory."""

from __future__ import annotations

import functools
import ntpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from proc_sandbox.config import DEFAULTS, Config
from proc_sandbox.errors import ConfigError
from proc_sandbox.host import Grant, Host, Paths
from proc_sandbox.planner.ladder import Choices, Ladder, Rung, choose, feature, never, nothing, refuse
from proc_sandbox.planner.model import Plan
from proc_sandbox.result import Enforced, Unenforced

__all__ = [
    "DENY_ONLY",
    "DIFFERENCES",
    "LADDER",
    "SCRATCH",
    "WEAKER",
    "Access",
    "JobLimits",
    "Token",
    "WindowsPlan",
    "compile_plan",
    "cpu_rate",
    "enforce",
]

SCRATCH = "<scratch>"
"""In a plan: the directory of the run's own, made when it starts and gone with it. No file on Windows can have such a name."""
TICK = 100
"""ns: the unit of times in job objects. JOBOBJECT_BASIC_LIMIT_INFORMATION"""
WHOLE = 10_000
"""All processors together, as CPU rate control counts them. JOBOBJECT_CPU_RATE_CONTROL_INFORMATION"""
UI = (
    "handles", "read_clipboard", "write_clipboard", "system_parameters", "display_settings", "global_atoms", "desktop", "exit_windows",
)  # fmt: skip
"""All of JOBOBJECT_BASIC_UI_RESTRICTIONS."""
MITIGATIONS = ("extension_points", "fonts")
"""What narrows the kernel's surface and hinders no ordinary program: UpdateProcThreadAttribute, "mitigation policy"."""
NETWORK_CAPABILITIES = ("internetClient", "internetClientServer", "privateNetworkClientServer")
"""What an AppContainer needs to reach the network. "App capability declarations" """
DENY_ONLY = (
    "S-1-5-114",  # local account and member of Administrators
    "S-1-5-32-544",  # Administrators
    "S-1-5-32-547",  # Power Users
    "S-1-5-32-548",  # Account Operators
    "S-1-5-32-549",  # Server Operators
    "S-1-5-32-550",  # Print Operators
    "S-1-5-32-551",  # Backup Operators
    "S-1-5-32-556",  # Network Configuration Operators
    "S-1-5-32-562",  # Distributed COM Users
    "S-1-5-32-569",  # Cryptographic Operators
    "S-1-5-32-578",  # Hyper-V Administrators
    "S-1-5-32-580",  # Remote Management Users
    "S-1-5-21-*-512",  # Domain Admins
    "S-1-5-21-*-518",  # Schema Admins
    "S-1-5-21-*-519",  # Enterprise Admins
    "S-1-5-21-*-520",  # Group Policy Creator Owners
)
"""Groups that a command has only for what is denied to them. "Well-known SIDs"; CreateRestrictedToken"""
MOST_NORMAL, MOST_BELOW = 0, 9
"""Up to which niceness a priority class stands for it: normal, below normal, and idle for the rest."""
LEAVE_OUT = 'leave it out, or accept that it is not enforced: enforcement=ps.best_effort("{}")'

OPTIONAL = (
    "timeout", "memory_limit", "cpu_limit", "cpu_time_limit", "max_processes", "read_bps", "write_bps", "max_file_size",
)  # fmt: skip
WHERE_CHANGED = ("max_open_files", "tmp_size", "hostname", "umask", "pass_fds")
"""Asked for by who names another value than the default, for which Windows has no mechanism."""
ISOLATIONS = ("files", "privileges", "processes", "ipc", "syscalls")

READING_IS_OPEN = "applied all the same: low integrity, with which it writes nothing but what is granted; reading stays open"

DIFFERENCES = {
    "threads": "a job counts processes; threads are not limited",
    "file size": "Windows limits no file's size",
    "open files": "Windows limits no process's handles",
    "pass_fds": "a descriptor is a number of the C runtime's, not of the system's",
}
"""What this backend does not promise at all: names of promises (tests/support/behaviours.py), and why. The README shows it."""

WEAKER = {
    "timeout": (
        ("the deadline is held by the thread that called run(); should the caller die, the run ends with it (KILL_ON_JOB_CLOSE). While the "
        "caller is suspended as a whole nobody holds it"),
    ),
    "tree": (
        ("what Windows starts on the command's behalf (WMI, the task scheduler, COM servers) is the service's child, not the job's; an "
        "AppContainer may not ask most of them"),
        ("without AppContainers a command can have a process that it may open, another one of low integrity, be the parent of its child "
        "(PROC_THREAD_ATTRIBUTE_PARENT_PROCESS), which then is in that one's job and not in the run's"),
    ),
    "memory": (
        ("commit charge: what was promised to the processes, written to or not, and no page cache. An allocation beyond it fails, and the run "
        "is ended when Windows tells of it: Reason.MEMORY, also where the command made do without"),
    ),
    "cpu rate": ("a cap for each scheduling interval, in steps of a hundredth of a percent of all processors together",),
    "cpu time": ("looked at every 20 ms; behind it the job's own limit, which counts user mode only",),
    "processes": (
        ("one too many fails to start, as does every further one; processes_exceeded says so. The python.exe of a virtual environment is two; the "
        "console's own process (conhost.exe) may be one more"),
    ),
    "usage": (
        "peak memory is the job's peak of commit charge; how many processes there were at a time is not counted (peak_processes is None)",
    ),
    "crash": ("there are no signals: what another process ended has an exit code; the exit code is the exception's, unsigned (0xC0000005 is 3221225477); core_dumps=False: no dialog, no error reporting",),
    "arguments": ("a batch file (.bat, .cmd) is not run by itself, for no quoting is safe there: name cmd yourself",),
    "environment": (
        "names are the same in either case. The base is what Windows programs need: SYSTEMROOT, PATH, PATHEXT, TEMP, USERPROFILE and their like",
    ),
    "private directory": (
        "it lies among the caller's temporary files, on a disk, with no size of its own (tmp_size); TEMP and USERPROFILE are there too",
    ),
    "files": (
        ("by an access control entry for the run's AppContainer, which is added to what was granted and all below it when the run starts, and taken "
        "back at its end: a large directory takes time. Directories above a granted one cannot be listed. What Windows shows to every app can "
        "be read: programs that are installed for all users, and parts of the registry"),
        ("a file that an earlier run has made has the access control which that run gave it: one open to every app can be written to where its "
        "directory is granted for reading only, unless that lies in a writable one"),
        "without AppContainers, low integrity: nothing is written but what was granted, reading stays open. That is not called enforced",
    ),
    "network": (
        'no network at all, or the host\'s: "loopback" is refused. With network_access=True the host\'s own loopback stays closed',
    ),
    "others": (
        "without AppContainers processes of other runs can be reached, and a run can keep others from starting: a mutex has one name for all",
    ),
    "honesty": (
        "there is no filter of system calls: policies of the process narrow what it reaches of the kernel, and syscalls is called partial",
        "hostname, umask, tmp_size, read_bps and write_bps have no mechanism: a value other than the default is refused",
        "nice is a priority class: 0 normal, 1 to 9 below normal, 10 to 19 idle",
        "a job with UI restrictions has no others in it or around it: where the caller is in one, ipc is partial; inside none can be made",
    ),
}
"""What it promises, and where the promise ends. The README shows it."""

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


class JobLimits(NamedTuple):
    """What the job object is told; 0 and "" stand for what is not limited."""

    memory: int = 0
    """JOB_MEMORY, bytes of commit charge, of all processes together."""
    processes: int = 0
    """ACTIVE_PROCESS."""
    user_time: int = 0
    """JOB_TIME, in units of 100 ns, user mode only."""
    cpu_rate: int = 0
    """Hard cap, in hundredths of a percent of all processors: 10,000 is the whole machine."""
    priority: str = ""
    """PRIORITY_CLASS: below normal or idle; inside it cannot be raised."""
    ui: tuple[str, ...] = UI
    die_on_unhandled_exception: bool = True
    kill_on_close: bool = True


class Token(NamedTuple):
    """What is taken from the caller's token: all privileges but to pass through directories; groups; its integrity.

    integrity: "low", or "" where the AppContainer has one of its own.
    """

    deny_only: tuple[str, ...] = DENY_ONLY
    integrity: str = ""


class Access(NamedTuple):
    """One entry of a file's access control, there as long as the run is.

    kind: read (and execute), write (and read), deny_write; where there is no AppContainer the label of those that may write: low
    (integrity), or medium below a directory that has low.
    holder: run (its AppContainer alone), or caller: a capability that all runs of one caller have, for the interpreter's
    directory, which is too large to be changed for each run.
    """

    path: str
    kind: str
    directory: bool = True
    holder: str = "run"


@dataclass(frozen=True, kw_only=True)
class WindowsPlan(Plan):
    """What will be done to a command on Windows."""

    signals: ClassVar[bool] = False

    job: JobLimits
    token: Token | None
    app_container: tuple[str, ...] | None
    """The capabilities of the run's AppContainer; None: it has no AppContainer."""
    access: tuple[Access, ...] = ()
    mitigations: tuple[str, ...] = ()
    scratch: bool = True
    """A directory of the run's own is made; the name <scratch> stands for it."""

    def lines_of_isolation(self) -> Iterator[str]:
        """Yield what keeps the command from the host."""
        if self.app_container is None:
            yield "AppContainer none"
        else:
            yield f"AppContainer of the run's own; capabilities: {' '.join(self.app_container) or 'none'}"
        if self.token:
            yield f"token        privileges deleted, administrators' groups deny-only, integrity {self.token.integrity or 'of the AppContainer'}"
        if self.mitigations:
            yield f"mitigations  {' '.join(self.mitigations)}"
        yield "access"
        yield from (f"  {item.kind:<10} {item.path} (of the {item.holder})" for item in self.access)

    def lines_of_limits(self) -> Iterator[str]:
        """Yield the limits."""
        yield from super().lines_of_limits()
        yield from (f"  job {name} = {value}" for name, value in self.job._asdict().items() if value not in (0, "", ()))


def cpu_rate(percent: float, processors: int) -> int:
    """Return percent of one core as a CPU rate: rounded down, for a limit is not to be passed; 0: it is less than can be told."""
    return min(WHOLE, int(percent * WHOLE / 100 / processors))


def enforce(config: Config, host: Host, paths: Paths) -> Choices:
    """Choose a mechanism for everything that is asked for.

    Raises:
        UnsupportedError: something asked for cannot be enforced here; nothing was started.
    """
    fields = [name for name in OPTIONAL if getattr(config, name) is not None]
    fields += [name for name in WHERE_CHANGED if getattr(config, name) != DEFAULTS[name]]
    rungs: dict[str, str] = {}
    said: dict[str, Enforced | Unenforced] = {}
    for name in (*fields, "max_output", *ISOLATIONS):
        rungs[name], said[name] = choose(name, config, host, LADDER)
    if not rungs["files"] and host.feature("low_integrity"):
        rungs["files"] = "low_integrity"
        said["files"] = add_reason(said["files"], READING_IS_OPEN)
    if rungs.get("cpu_limit") and not cpu_rate(config.cpu_limit or 0, host.processors):
        reason = f"Windows caps in steps of 1/10,000 of all processors, {host.processors / 100:g} percent of one core here"
        rungs["cpu_limit"], said["cpu_limit"] = "", refuse("cpu_limit", config, reason, "a higher cpu_limit")
    rungs["network_access"], said["network_access"] = network(config, host)
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
    base = compile_base(config.without_streams(), host, paths)
    return WindowsPlan(**{**base.__dict__, "command": tuple(command)})


@functools.lru_cache(maxsize=256)
def compile_base(config: Config, host: Host, paths: Paths) -> WindowsPlan:
    """Return the plan without its command: the same for all runs of a Config."""
    choices = enforce(config, host, paths)
    contained = choices.uses("appcontainer")
    own = paths.private or SCRATCH
    return WindowsPlan(
        command=(),
        executable=paths.executable,
        cwd=config.working_dir or own,
        environment=environment(config, host, paths, own),
        timeout=round((config.timeout or 0) * 1e9),
        cpu_time=round((config.cpu_time_limit or 0) * 1e9) if choices.rungs.get("cpu_time_limit") else 0,
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
        user_time=max(1, round((config.cpu_time_limit or 0) * 1e9 / TICK)) if taken.get("cpu_time_limit") else 0,
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


def environment(config: Config, host: Host, paths: Paths, own: str) -> tuple[tuple[str, str], ...]:
    """Return the variables, in the order in which Windows wants them; nothing is inherited.

    Without SYSTEMROOT sockets and random numbers fail; PATHEXT is what cmd needs to find programs.

    Raises:
        ConfigError: two names of the Config's are one name to Windows.
    """
    root = paths.system[0].path if paths.system else "C:\\Windows"
    system = f"{root}\\System32"
    base = {
        "COMSPEC": f"{system}\\cmd.exe",
        "NUMBER_OF_PROCESSORS": str(max(1, host.processors)),
        "OS": "Windows_NT",
        "PATH": ";".join((*paths.path_prefix, system, root, f"{system}\\Wbem")),
        "PATHEXT": ".COM;.EXE;.BAT;.CMD",
        "SYSTEMDRIVE": ntpath.splitdrive(root)[0],
        "SYSTEMROOT": root,
        "TEMP": own,
        "TMP": own,
        "USERNAME": "sandbox",
        "USERPROFILE": own,
        "WINDIR": root,
    }
    given: dict[str, str] = {}
    for name, value in config.env:
        if name.upper() in given:
            raise ConfigError("env", name, "Windows knows names of either case as one; name it once")
        given[name.upper()] = name
        base.pop(name.upper(), None)
        base[name] = value
    return tuple(sorted(base.items(), key=lambda item: item[0].upper()))
