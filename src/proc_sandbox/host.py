"""What this machine can do (Host) and where things are on it (Paths): facts, gathered by a backend, as plain data."""


from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["RUN_UIDS", "CgroupHost", "Feature", "Grant", "Hidden", "Host", "Paths", "SystemPath"]

RUN_UIDS = range(0x70000000, 0x80000000)
"""Uids that runs have on the host: a range that systemd leaves free (systemd.io, "UIDS-GIDS")."""


class Feature(NamedTuple):
    """One thing that a mechanism needs: there, or why not and what to do about it."""

    available: bool
    reason: str = ""
    remedy: str = ""

    def __bool__(self) -> bool:
        return self.available


class CgroupHost(NamedTuple):
    """Where this process may make cgroups.

    version: 1 or 2. directories: controller and the directory below which cgroups are made (v2: the same for all).
    swap: whether swap is counted (v1 memsw, v2 memory.swap.max). scope: the systemd scope in which launchers must be, or "".
    """

    version: int
    directories: tuple[tuple[str, str], ...]
    swap: bool = True
    scope: str = ""
    tcp: bool = False
    """v1: the buffers of TCP have a limit of their own (memory.kmem.tcp)."""

    def has(self, controller: str) -> bool:
        """Return whether the controller can be used."""
        return any(name == controller for name, _ in self.directories)


@dataclass(frozen=True)
class Host:
    """What a machine offers, as probed. Missing features are listed with their reason and remedy."""

    platform: str
    features: Mapping[str, Feature] = field(hash=False)
    root: bool = False
    landlock_abi: int = 0
    uid_range: tuple[int, int] | None = None
    """Where a run can have a user of its own: first host uid for runs, and how many there are."""
    cgroup: CgroupHost | None = None
    processors: int = 0
    """How many there are, where a limit is told in parts of them all: Windows."""

    def feature(self, name: str) -> Feature:
        """Return the feature of that name; an unknown one is missing."""
        return self.features.get(name, Feature(False, f"{name} was not probed"))

    @property
    def namespaces(self) -> Feature:
        """Whether a run can have namespaces and a view of its own; where it can't it sees the host's files through Landlock."""
        needed = (self.feature(name) for name in ("userns", "mountns", "pidns"))
        return next((feature for feature in needed if not feature), Feature(True))

    @property
    def own_uid(self) -> bool:
        """Whether a run without namespaces can still have a user of its own: a container's root gives it one."""
        return bool(self.uid_range and not self.root and not self.namespaces and self.feature("setuid"))


class SystemPath(NamedTuple):
    """A path of the system's own that every command may see. kind: "dir", "file", "device" or "symlink" (then link is its text)."""

    path: str
    kind: str
    link: str = ""
    private: bool = False
    """Not readable by everybody: as root it is shown as the command's own, where its file system can do that."""
    uid: int = 0
    gid: int = 0


class Grant(NamedTuple):
    """One path that a Config names, as it is on the host. access: "read" or "write"."""

    path: str
    source: str
    access: str
    directory: bool
    uid: int
    gid: int
    idmap: bool = True
    """As root: its file system can be idmapped."""


class Hidden(NamedTuple):
    """One path that a Config hides and that exists: as it is named, and where it lies on the host."""

    path: str
    source: str
    directory: bool


class Paths(NamedTuple):
    """Where things are: what the survey of one run found."""

    system: tuple[SystemPath, ...] = ()
    grants: tuple[Grant, ...] = ()
    executable: str = ""
    """What is executed inside: the command's own word where it names a path, as a script expects to find it in $0."""
    program: str = ""
    """Where that lies on the host; "" where only the launcher can say."""
    path_prefix: tuple[str, ...] = ()
    """Directories that go before the default PATH: the interpreter's."""
    time_zone: str = ""
    private: str = ""
    """The name that a Sandbox's own directory has for its runs; "" without one."""
    hint: str = ""
    """What to tell the caller should the command not be found inside."""
    disks: tuple[str, ...] = ()
    """The numbers MAJOR:MINOR of every disk of the host, where they are to be limited; they come and go, so for each run."""
    hidden: tuple[Hidden, ...] = ()
    """What the Config hides, as far as it exists."""
    missing: tuple[str, ...] = ()
    """What the Config hides and does not exist, as it is named."""
