"""The Linux planner: joins ladder, view, system calls and environment to one plan."""

import functools
from collections.abc import Sequence
from dataclasses import replace

from proc_sandbox.config import DEFAULTS, Config
from proc_sandbox.errors import ConfigError, UnsupportedError
from proc_sandbox.host import Grant, Host, Paths
from proc_sandbox.planner.ladder import LIMITS, Choices, choose, choose_all, choose_hiding, refuse
from proc_sandbox.planner.linux.filesystem import HOME, PRIVATE_DIRECTORY, below, hidden_places, landlock_rules, view
from proc_sandbox.planner.linux.mechanisms import LADDER, SCOPES
from proc_sandbox.planner.linux.plan import NEW_TERMINAL, Cgroup, Filter, Identity, LinuxPlan
from proc_sandbox.planner.unix.environment import environment
from proc_sandbox.planner.unix.plan import MAX_SAMPLED_TASKS, SAMPLE_INTERVAL, Rlimit, Sampling, plan_rlimits
from proc_sandbox.planner.unix.words import encode, encode_prefix
from proc_sandbox.result import Enforced, Unenforced
from proc_sandbox.units import nanoseconds

__all__ = ["OWN_TASKS", "compile_plan", "enforce", "needs_cgroups"]

CPU_PERIOD = 100_000  # microseconds; Documentation/scheduler/sched-bwc.rst, the default
SOCKETS_BY_NAME = 9  # the ABI from which Landlock tells the run's own sockets from the host's (LANDLOCK_ACCESS_FS_RESOLVE_UNIX)
NO_IDMAP = (
    "its file system cannot be idmapped, so that it would not be the command's to write",
    "name a directory on ext4, xfs, btrfs or tmpfs (in a container: a volume); best-effort lets it write what everybody can",
)
NO_EXCEPTION = (
    "it would be writable, for it lies in a writable directory, and Landlock knows no exceptions",
    "keep what is only to be read outside of what can be written",
)
NOT_OWNED = (
    "the run's own user may not write there",
    "use a Sandbox, whose directory is the run's own; best-effort lets it write what everybody can",
)
FIRST_TO_GO = 1000
"""The highest oom_score_adj: when the host runs out of memory the kernel kills the run and not the host's own."""
MAX_SIGNALS = 1024
"""Queued signals and timers of a run: the kernel counts them for the user on the host too, whom one run could lame."""
ALWAYS = ("max_output", "max_open_files", "tmp_size")
BY_CGROUP = tuple(name for name in LIMITS if any(rung.key.startswith("cgroup") for rung in LADDER[name]))
NEEDED = ("user", "pid", "mount")
WHERE_THERE = ("ipc", "uts", "cgroup")
MOST_KEPT = 256
MAX_MOUNTS, MAX_RULES, MAX_SETTINGS = 768, 512, 1024
"""What the launcher's tables hold."""


def needs_cgroups(config: Config) -> bool:
    """Return whether a limit is set that a cgroup enforces best."""
    return any(getattr(config, name) is not None for name in BY_CGROUP)


def enforce(config: Config, host: Host, paths: Paths) -> Choices:
    """Choose a mechanism for everything that is asked for.

    Raises:
        UnsupportedError: something asked for cannot be enforced here; nothing was started.
    """
    changed = ("hostname",) if config.hostname != DEFAULTS["hostname"] else ()
    rungs, said = choose_all(config, host, LADDER, (*ALWAYS, *changed))
    if rungs.get("max_processes") == "uid" and paths.private:  # all runs of a Sandbox have one user: its tasks are those of all
        rungs["max_processes"], said["max_processes"] = choose("max_processes", config, replace(host, uid_range=None), LADDER)
    said["network_access"] = network_enforcement(config, host)
    if config.hidden_paths:
        rungs["hidden_paths"], said["hidden_paths"] = choose_hiding(config, host, LADDER, paths, seen=bool(hidden_places(paths)))
    for name in ("read_bps", "write_bps"):
        if rungs.get(name) and not paths.disks and paths.executable:
            said[name] = refuse(name, config, "no disk can be seen: /sys/block is missing or empty", "mount -t sysfs sysfs /sys")
            rungs[name] = ""
    exception = None if host.namespaces else lies_in_writable(paths)
    if exception:
        said["files"] = refuse("files", config, f"{exception}: {NO_EXCEPTION[0]}", NO_EXCEPTION[1])
    for grant in paths.grants:
        if grant.access == "write" and not is_writable(grant, host, paths):
            reason, remedy = NO_IDMAP if host.root else NOT_OWNED
            said["files"] = refuse("files", config, f"{grant.path}: {reason}", remedy)
    if "sampled" in rungs.values() and (config.max_processes or 0) > MAX_SAMPLED_TASKS:
        reason = f"with other limits sampled, at most {MAX_SAMPLED_TASKS} tasks can be watched"
        said["max_processes"] = refuse("max_processes", config, reason, "a lower max_processes, or a host with cgroups")
    return Choices(rungs, said)


def is_writable(grant: Grant, host: Host, paths: Paths) -> bool:
    """Return whether a run's user can be the one to whom a writable directory belongs."""
    if grant.path == paths.private:
        return True  # its owner is the run's user, or can be shown so: Backend.survey has seen to it
    return grant.idmap if host.root else not host.own_uid


def lies_in_writable(paths: Paths) -> str | None:
    """Return a path that is only to be read and lies in a directory that is to be written, by any of its names."""
    writable = [grant for grant in paths.grants if grant.access == "write"]
    for grant in paths.grants:
        if grant.access == "read" and any(below(grant.source, outer.source) or below(grant.path, outer.path) for outer in writable):
            return grant.path
    return None


def network_enforcement(config: Config, host: Host) -> Enforced | Unenforced:
    if config.network_access is True:
        return Enforced("granted: the host's network")
    missing = host.namespaces and host.feature("netns")
    filtered = "seccomp lets only AF_UNIX through"
    if not missing and config.network_access is False and host.feature("seccomp"):
        return Enforced("seccomp lets no socket be made but pairs", remedy=missing.remedy)
    if not missing:
        return refuse("network_access", config, missing.reason, missing.remedy)
    if config.network_access == "loopback":
        return Enforced("a network namespace of its own, loopback only")
    return Enforced("empty network namespace" + f", and {filtered}" * bool(host.feature("seccomp")))


def compile_plan(config: Config, command: Sequence[str], host: Host, paths: Paths) -> LinuxPlan:
    """Decide everything that will be done to a command. Pure.

    Raises:
        UnsupportedError: something asked for cannot be enforced here; nothing was started.
    """
    found = compiled.get((id(config), id(paths)))
    if found is None or found.host is not host:
        found = Compiled(config, host, paths, compile_base(config.without_streams(), host, paths))
        keep(found)
    plan = found.latest
    return plan if plan.command == command else found.with_command(command)


class Compiled:
    """A plan, and of what it was made: as long as it is kept, nothing else has the identity of these.

    latest: the same for the command that it was last asked for, mostly the next one too.
    """

    def __init__(self, config: Config, host: Host, paths: Paths, plan: LinuxPlan) -> None:
        self.config, self.host, self.paths = config, host, paths
        self.plan = self.latest = plan

    def with_command(self, command: Sequence[str]) -> LinuxPlan:
        """Return the plan for one command, with its words."""
        plan = self.plan.with_command(command)
        plan.__dict__.update(whole=encode(plan))
        self.latest = plan
        return plan


compiled: dict[tuple[int, int], Compiled] = {}
"""Plans by the identity of Config and Paths: runs one after another mostly have the very same, and to look a value up by all that is
in it takes longer than all else of a plan that is there.
"""


def keep(found: Compiled) -> None:
    if found.config.borrows:
        return
    if len(compiled) >= MOST_KEPT:
        compiled.clear()
    compiled[id(found.config), id(found.paths)] = found


@functools.lru_cache(maxsize=MOST_KEPT)
def compile_base(config: Config, host: Host, paths: Paths) -> LinuxPlan:
    choices = enforce(config, host, paths)
    sampling = plan_sampling(config, choices)
    loopback = config.network_access == "loopback"
    alone = loopback or not config.network_access and host.landlock_abi < SCOPES
    contained, sampled = bool(host.namespaces), bool(sampling and sampling.memory)
    place = config.working_dir or ("" if contained else paths.private)
    descriptors = host.feature("close_range")
    if not descriptors:  # the host's would leak into the run: there is nothing to be lenient about
        refuse("files", config.replace(enforcement="strict"), descriptors.reason, descriptors.remedy)
    plan = LinuxPlan(
        command=("-",),
        executable=paths.executable,
        cwd=place or (PRIVATE_DIRECTORY if contained else "/"),
        environment=environment(config, paths, HOME if contained else paths.private or "/", "" if contained else paths.private),
        namespaces=namespaces(host, alone=alone) if contained else (),
        reach="namespace" if contained else "domain" if host.landlock_abi >= SCOPES else "children",
        network="loopback" if loopback and contained else "host" if config.network_access is True else "none",
        identity=Identity(host_range=host_range(host, paths)),
        hostname=config.hostname,
        mounts=view(config, host, paths, sampled=sampled) if contained else (),
        sysctls=sysctls(loopback=loopback) if contained else (),
        rlimits=rlimits(config, choices, own_tasks=contained or host.own_uid),
        cgroup=plan_cgroup(config, host, paths.disks, choices),
        landlock=landlock_rules(host, config, paths, sampled=sampled),
        seccomp=Filter(filter_options(config, host, paths, sampling)) if host.feature("seccomp") else None,
        sampling=sampling,
        timeout=nanoseconds(config.timeout),
        cpu_time=nanoseconds(config.cpu_time_limit) if choices.rungs.get("cpu_time_limit") else 0,
        grace=nanoseconds(config.kill_grace),
        umask=config.umask,
        nice=config.nice,
        oom_score_adj=FIRST_TO_GO if host.feature("oom_score_adj") else None,
        descriptors=(0, 1, 2, *config.pass_fds),
        terminal=NEW_TERMINAL if config.pty else "",
        prepared=config.prepared,
        enforcement=choices.enforcement,
    )
    check_size(plan)
    return replace(plan, prefix=encode_prefix(plan))


def host_range(host: Host, paths: Paths) -> tuple[int, int] | None:
    """Return the host uids of which a run takes one. The upper half is for Sandboxes whose directory cannot be shown as another's:
    there it is the owner's.
    """
    if not host.uid_range or not (host.root or host.own_uid):
        return None
    first, count = host.uid_range
    for grant in paths.grants:
        if grant.path == paths.private and first <= grant.uid < first + count:
            return grant.uid, 1
    return first, max(1, count // 2)


def namespaces(host: Host, *, alone: bool) -> tuple[str, ...]:
    """Return the namespaces of a run: those without which there is none, and what else the host has."""
    return (*NEEDED, *(name for name in WHERE_THERE if host.feature(f"{name}ns")), *(("net",) if alone else ()))


def check_size(plan: LinuxPlan) -> None:
    """Refuse what the launcher has no room for.

    Raises:
        ConfigError: more directories are granted than fit; nothing was started.
        UnsupportedError: the host has more disks than fit; nothing was started.
    """
    rules = len(plan.landlock.rules) if plan.landlock else 0
    if len(plan.mounts) > MAX_MOUNTS or rules > MAX_RULES:
        remedy = f"at most {MAX_MOUNTS} mounts and {MAX_RULES} rules can be made; grant a directory that contains them"
        raise ConfigError("allowed_dirs", f"{len(plan.mounts)} mounts, {rules} rules", remedy)
    if plan.cgroup and len(plan.cgroup.settings) > MAX_SETTINGS:
        reason = f"the host has more disks than the launcher can limit ({MAX_SETTINGS} settings of cgroups)"
        raise UnsupportedError("read_bps", reason, "take away loop devices that nobody uses, or name no read_bps and write_bps")


def sysctls(*, loopback: bool) -> tuple[tuple[str, str], ...]:
    """Return the settings of the run's own namespaces: what the kernel would count for the host's user too, and in a network
    of its own the buffers of TCP, which are nobody's memory to cgroup v1 and to sampling (tcp(7)).
    """
    found = [("user/max_user_namespaces", "0"), ("user/max_inotify_instances", "32"), ("user/max_inotify_watches", "8192")]
    if loopback:
        found += [("net/ipv4/tcp_rmem", "4096 65536 131072"), ("net/ipv4/tcp_wmem", "4096 65536 131072")]
    return tuple((f"sys/{name}", value) for name, value in found)


def filter_options(config: Config, host: Host, paths: Paths, sampling: Sampling | None) -> tuple[str, ...]:
    """Decide what the system call filter lets through beyond its base.

    A read-only mount does not stop connect(2) to a socket of the host that lies in it, so where the Config names
    directories of the host no socket can be reached by name. On the host's network its abstract sockets are in reach too,
    and only Landlock's scope (ABI 6) keeps from them. Memory that nobody maps is not seen by sampling, so there
    memfd_create and System V IPC are missing, and pipes and socket buffers keep their size. Where CPU time is rationed by
    stopping the tree, no timer may continue it. Set-ID bits on the host's own files would outlive the run. Without namespaces
    the host's sockets, their names and IPC are in reach, process ids name the host's processes, and who has the caller's user could
    change the modes of all of that user's files.
    """
    contained = bool(host.namespaces)
    options = ["pids"] if contained else []
    if contained or host.own_uid:
        options.append("metadata")
    if config.network_access is True or config.network_access == "loopback" and contained:
        options.append("inet")
    if not contained or config.network_access is True and host.landlock_abi < SCOPES:
        pass
    elif not paths.grants or host.landlock_abi >= SOCKETS_BY_NAME:
        options += ["unix", "connect"]
    elif config.network_access is False:
        options.append("unix")
    if not (sampling and sampling.memory):
        options += ["memfd", "buffers", *(["ipc"] if contained else [])]
    if not (sampling and sampling.cpu):
        options.append("timers")
    if not any(grant.access == "write" for grant in paths.grants):
        options.append("setid")
    return tuple(options)


def plan_sampling(config: Config, choices: Choices) -> Sampling | None:
    memory = config.memory_limit if choices.rungs.get("memory_limit") == "sampled" else None
    cpu = config.cpu_limit if choices.rungs.get("cpu_limit") == "sampled" else None
    if "sampled" not in choices.rungs.values():
        return None
    most = MAX_SAMPLED_TASKS
    tasks = min(config.max_processes or most, most) if choices.rungs.get("max_processes") == "sampled" else most
    return Sampling(SAMPLE_INTERVAL, memory or 0, round((cpu or 0) * 10), tasks)


def rlimits(config: Config, choices: Choices, *, own_tasks: bool) -> tuple[Rlimit, ...]:
    limits = [*plan_rlimits(config, pipe_handlers=True), Rlimit("RLIMIT_SIGPENDING", MAX_SIGNALS)]
    tasks = config.max_processes if choices.rungs.get("max_processes") in ("rlimit", "uid") else None
    if choices.uses("sampled") and own_tasks:  # it holds what sampling can look at
        tasks = min(tasks or MAX_SAMPLED_TASKS, MAX_SAMPLED_TASKS)
    if tasks is not None:
        limits.append(Rlimit("RLIMIT_NPROC", tasks + 1))  # pid 1 counts too
    return tuple(limits)


def plan_cgroup(config: Config, host: Host, disks: Sequence[str], choices: Choices) -> Cgroup | None:
    if not host.cgroup or not (choices.uses("cgroup1") or choices.uses("cgroup2")):
        return None
    settings = settings_v2(config, host) if host.cgroup.version == 2 else settings_v1(config, host)
    settings += disk_settings(config, disks, choices)
    places: dict[str, list[str]] = {}
    for controller, directory in host.cgroup.directories:  # of v1, cpu and cpuacct are usually mounted together
        if controller != "blkio" or choices.rungs.get("read_bps"):  # v1: joining one more costs milliseconds
            places.setdefault(directory, []).append(controller)
    directories = tuple((",".join(controllers), directory) for directory, controllers in places.items())
    return Cgroup(host.cgroup.version, directories, tuple(settings))


OWN_TASKS = {1: 2, 2: 1}
"""Tasks in a run's cgroup that are not its own, which pids.max counts too: pid 1, and with v1 the launcher's thread there."""


def settings_v1(config: Config, host: Host) -> list[tuple[str, str]]:
    assert host.cgroup
    settings: list[tuple[str, str]] = []
    if host.cgroup.has("memory"):
        memory = str(config.memory_limit or -1)
        # Memory with swap may not be below memory: open it, set the lower one, then close it. cgroup-v1/memory.rst, 2.4
        if host.cgroup.swap:
            settings.append(("memory.memsw.limit_in_bytes", "-1"))
        settings.append(("memory.limit_in_bytes", memory))
        if host.cgroup.swap:
            settings.append(("memory.memsw.limit_in_bytes", memory))
        if host.cgroup.tcp and config.network_access:
            settings.append(("memory.kmem.tcp.limit_in_bytes", memory))
    if host.cgroup.has("cpu"):
        settings.append(("cpu.cfs_quota_us", str(quota(config) or -1)))
    if host.cgroup.has("pids"):
        settings.append(("pids.max", str(config.max_processes + OWN_TASKS[1]) if config.max_processes else "max"))
    return settings


def settings_v2(config: Config, host: Host) -> list[tuple[str, str]]:
    assert host.cgroup
    settings: list[tuple[str, str]] = []
    if host.cgroup.has("memory"):
        settings.append(("memory.max", str(config.memory_limit) if config.memory_limit else "max"))
        if host.cgroup.swap:
            settings.append(("memory.swap.max", "0" if config.memory_limit else "max"))
        settings.append(("memory.oom.group", "1"))
    if host.cgroup.has("cpu"):
        settings.append(("cpu.max", f"{quota(config) or 'max'} {CPU_PERIOD}"))
    if host.cgroup.has("pids"):
        settings.append(("pids.max", str(config.max_processes + OWN_TASKS[2]) if config.max_processes else "max"))
    return settings


def disk_settings(config: Config, disks: Sequence[str], choices: Choices) -> list[tuple[str, str]]:
    """Return the limits of each disk. None is taken back here: the launcher does that when a run ends."""
    read = config.read_bps if choices.rungs.get("read_bps") else None
    write = config.write_bps if choices.rungs.get("write_bps") else None
    if not read and not write:
        return []
    if choices.rungs.get("read_bps") == "cgroup1":
        return [("blkio.throttle.read_bps_device", f"{disk} {read}") for disk in disks]
    return [("io.max", f"{disk} rbps={read or 'max'} wbps={write or 'max'}") for disk in disks]


def quota(config: Config) -> int:
    """Return the CPU time per period in microseconds; the kernel takes no less than 1 ms. 0: not limited."""
    return max(1000, round(config.cpu_limit * CPU_PERIOD / 100)) if config.cpu_limit else 0
