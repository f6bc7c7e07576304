"""The plan: everything that will be done to a command, as data that can be printed, compared and pickled."""


from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from proc_sandbox.result import Enforced, Unenforced

__all__ = ["Cgroup", "Filter", "Identity", "Landlock", "Mount", "Plan", "Rlimit", "Sampling"]


class Mount(NamedTuple):
    """One operation that builds the view.

    kind: bind, alias (inside the view), tmpfs, proc, dir, file, symlink, device or seal (make read-only).
    shared: part of the view that all runs of this plan inherit, built once.
    """

    kind: str
    target: str
    source: str = "-"
    options: str = ""
    shared: bool = False


class Rlimit(NamedTuple):
    """A resource limit by its name in getrlimit(2); soft and hard are the same."""

    name: str
    value: int


class Identity(NamedTuple):
    """Who the command is inside, and as root the range of host uids from which a run takes its own."""

    uid: int = 1000
    gid: int = 1000
    host_range: tuple[int, int] | None = None


class Cgroup(NamedTuple):
    """Where the run's cgroups are made, and what is written to them, in order."""

    version: int
    directories: tuple[tuple[str, str], ...]
    settings: tuple[tuple[str, str], ...]


class Landlock(NamedTuple):
    """The rule set of landlock(7): access is read, system (read, if it can be reached), write, private (written by nobody
    else) or device."""

    abi: int
    rules: tuple[tuple[str, str], ...]
    network: bool
    scope: bool


class Filter(NamedTuple):
    """The system call filter's options beyond its base: unix, inet, connect, memfd, setid, ipc, buffers, timers, pids, metadata."""

    options: tuple[str, ...]


class Sampling(NamedTuple):
    """What the launcher watches where no cgroup can: interval in ns, memory in bytes, CPU in thousandths of a core, tasks."""

    interval: int
    memory: int = 0
    cpu: int = 0
    tasks: int = 0


def as_data(value: object) -> object:
    """Return a value of the plan as JSON-ready data: named tuples as objects."""
    if isinstance(value, tuple):
        names = getattr(value, "_fields", None)
        return {name: as_data(getattr(value, name)) for name in names} if names else [as_data(item) for item in value]
    return value


@dataclass(frozen=True)
class Plan:
    """What will be done, and by which mechanism each limit and isolation is enforced."""

    command: tuple[str, ...]
    executable: str
    cwd: str
    environment: tuple[tuple[str, str], ...]
    namespaces: tuple[str, ...]
    reach: str
    """How the whole run is ended at once: with its pid namespace, by kill(-1) in its Landlock domain, or child by child."""
    network: str
    identity: Identity
    hostname: str
    mounts: tuple[Mount, ...]
    sysctls: tuple[tuple[str, str], ...]
    rlimits: tuple[Rlimit, ...]
    cgroup: Cgroup | None
    landlock: Landlock | None
    seccomp: Filter | None
    sampling: Sampling | None
    timeout: int
    """Wall clock, ns; 0: none."""
    cpu_time: int
    """CPU time, ns; 0: none."""
    umask: int
    nice: int
    oom_score_adj: int | None
    """Who is killed first when the host itself runs out of memory: proc_pid_oom_score_adj(5). None: as the caller's."""
    descriptors: tuple[int, ...]
    prefix: bytes = field(default=b"", repr=False, compare=False)
    """The words of all but the command, encoded once for all runs of a Config."""
    enforcement: Mapping[str, Enforced | Unenforced] = field(default_factory=dict, hash=False)

    def words(self) -> tuple[str, ...]:
        """Return the plan as the launcher reads it."""
        from proc_sandbox.planner.words import encode

        return tuple(word.decode("utf-8", "surrogateescape") for word in encode(self).split(b"\0")[:-1])

    def command_line(self, launcher: str = "launcher") -> str:
        """Return the shell command that repeats this run by hand."""
        import shlex

        return shlex.join([launcher, "run", *self.words()])

    def to_dict(self) -> dict[str, object]:
        """Return the plan as JSON-ready data."""
        data = {name: as_data(value) for name, value in self.__dict__.items() if name not in ("prefix", "enforcement")}
        data["enforcement"] = {name: how._asdict() for name, how in self.enforcement.items()}
        return data

    def to_json(self) -> str:
        """Return the plan as JSON text."""
        import json

        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False)

    def describe(self) -> str:
        """Return the plan for human readers."""
        import shlex

        lines = [f"command      {shlex.join(self.command)}", f"executable   {self.executable}", f"directory    {self.cwd}"]
        lines += [f"namespaces   {' '.join(self.namespaces) or 'none'}; network: {self.network}; ended by {self.reach}"]
        lines += [f"identity     uid {self.identity.uid}, gid {self.identity.gid}" + self.host_identity()]
        lines += ["view"] + [
            f"  {'shared' if m.shared else 'own   '} {m.kind:<8}{m.target}"
            + (f" <- {m.source!r}" if m.source != "-" else "")
            + (f" ({m.options})" if m.options else "")
            for m in self.mounts
        ]
        lines += ["limits"] + [f"  {r.name} {r.value}" for r in self.rlimits]
        if self.timeout:
            lines.append(f"  timeout {self.timeout / 1e9:g} s")
        if self.cpu_time:
            lines.append(f"  CPU time {self.cpu_time / 1e9:g} s")
        if self.cgroup:
            lines += [f"  cgroup v{self.cgroup.version} {name} = {value}" for name, value in self.cgroup.settings]
        if self.sampling:
            lines.append(f"  sampled every {self.sampling.interval / 1e6:g} ms: {self.sampling}")
        if self.oom_score_adj is not None:
            lines.append(f"  when the host has no memory left: oom_score_adj {self.oom_score_adj}")
        lines.append("environment")
        lines += [f"  {name}={value}" for name, value in self.environment]
        lines.append("enforcement")
        lines += [
            f"  {name:<16}"
            + (how.mechanism if isinstance(how, Enforced) else f"NOT ENFORCED: {how.reason}; remedy: {how.remedy}")
            for name, how in self.enforcement.items()
        ]
        return "\n".join(lines)

    def host_identity(self) -> str:
        """Say what the identity is on the host."""
        if not self.identity.host_range:
            return ", on the host the caller's own"
        first, count = self.identity.host_range
        return f", on the host one of {first}..{first + count - 1}"
