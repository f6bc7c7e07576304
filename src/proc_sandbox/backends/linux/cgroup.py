"""Where this process may make cgroups: looked up in /proc, tried by making one."""

import contextlib
import errno
import fcntl
import os
import pwd
import re
from collections.abc import Iterator
from typing import NamedTuple

from proc_sandbox.backends.linux.container import in_container
from proc_sandbox.backends.linux.mounts import unescape
from proc_sandbox.host import CgroupHost, Feature

__all__ = ["admit", "find_cgroups", "sweep"]

CONTROLLERS = ("memory", "cpuacct", "cpu", "pids", "blkio")
ROUNDS = 100
"""Tries to move all processes out of a cgroup, while they may start others."""
CONTROLLERS_V2 = ("memory", "cpu", "pids", "io")
THROTTLE_V1, THROTTLE_V2 = "blkio.throttle.read_bps_device", "io.max"
"""Files that a kernel without CONFIG_BLK_DEV_THROTTLING does not have."""
NAME = re.compile(r"proc-sandbox-(\d+)-\d+(\.probe)?\Z")
REMEDY = "run as root, or from a systemd user session that delegates: systemd-run --user --scope -p Delegate=yes COMMAND"
REMEDY_HYBRID = "run as root; or boot with the kernel argument systemd.unified_cgroup_hierarchy=1 and run as a systemd user"
REMEDY_IN_CONTAINER = "start the container with a cgroup tree of its own that it may write to: docker run --privileged --cgroupns=private"


class Hierarchy(NamedTuple):
    """One mounted cgroup hierarchy: v1's controllers, or none for v2."""

    root: str
    mount_point: str
    controllers: frozenset[str]
    version: int


def hierarchies() -> Iterator[Hierarchy]:
    """Yield the hierarchies that are mounted."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            fields, _, rest = line.rstrip("\n").partition(" - ")
            kind, _, options = rest.split(" ", 2)
            if kind in ("cgroup", "cgroup2"):
                parts = fields.split(" ")
                controllers = frozenset(options.split(",")) if kind == "cgroup" else frozenset()
                yield Hierarchy(unescape(parts[3]), unescape(parts[4]), controllers, 2 if kind == "cgroup2" else 1)


def memberships(pid: int | str) -> Iterator[tuple[frozenset[str], str]]:
    """Yield (controllers, path) of each cgroup that a process is in; v2 has no controllers there. cgroups(7)."""
    with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            yield frozenset(filter(None, controllers.split(","))), path


def own_directory(hierarchy: Hierarchy, pid: int | str = "self") -> str | None:
    """Return the directory of a process's own cgroup in a hierarchy."""
    for controllers, path in memberships(pid):
        if (hierarchy.version == 2 and not controllers) or (controllers and controllers <= hierarchy.controllers):
            inside = os.path.relpath(path, hierarchy.root) if path.startswith(hierarchy.root.rstrip("/") + "/") else "."
            return os.path.normpath(os.path.join(hierarchy.mount_point, inside))
    return None


def can_make(directory: str) -> OSError | None:
    """Try to make a cgroup; return why not."""
    try:
        files_of_a_child(directory)
    except OSError as error:
        return error
    return None


def find_v1() -> tuple[CgroupHost | None, str]:
    directories = []
    reason = "no v1 controller is mounted"
    found = {name: h for h in hierarchies() if h.version == 1 for name in h.controllers & set(CONTROLLERS)}
    for controller in CONTROLLERS:
        directory = own_directory(found[controller]) if controller in found else None
        if directory is None:
            continue
        error = can_make(directory)
        if controller == "blkio" and not os.path.exists(f"{directory}/{THROTTLE_V1}"):
            continue
        if error is None:
            directories.append((controller, directory))
        else:
            reason = f"{directory}: {os.strerror(error.errno or errno.EIO)}"
    if not directories:
        return None, reason
    memory = dict(directories).get("memory", "")
    swap, tcp = (os.path.exists(f"{memory}/memory.{name}.limit_in_bytes") for name in ("memsw", "kmem.tcp"))
    return CgroupHost(1, tuple(directories), swap=swap, tcp=tcp), ""


def read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


# --- v2: a cgroup that is ours to divide, in the order of preference ---


class NoCgroup(Exception):
    """This way to a cgroup does not exist here; the message says why. remedy: what would open it."""

    def __init__(self, reason: str, remedy: str = "") -> None:
        super().__init__(reason)
        self.remedy = remedy


def controllers_of(directory: str) -> set[str]:
    """Return the controllers that could be had below a cgroup."""
    return set(read(f"{directory}/cgroup.controllers").split()) & set(CONTROLLERS_V2)


def enable(directory: str) -> set[str]:
    """Enable for a cgroup's children what can be enabled; return what then is."""
    for name in controllers_of(directory) - set(read(f"{directory}/cgroup.subtree_control").split()):
        try:
            write(f"{directory}/cgroup.subtree_control", f"+{name}")
        except OSError:
            continue  # one by one: cpu can be refused where real-time tasks run, and the others not
    return set(read(f"{directory}/cgroup.subtree_control").split()) & set(CONTROLLERS_V2)


def vacate(directory: str, name: str) -> None:
    """Move a cgroup's processes into a child: one that divides itself may hold none of its own (cgroup-v2.rst, "No
    Internal Process Constraint"). Before controllers are enabled: those that know threads (cpu, pids) would be, and make it
    a threaded domain.
    """
    leaf = os.path.join(directory, name)
    os.makedirs(leaf, exist_ok=True)
    for _ in range(ROUNDS):
        members = read(f"{directory}/cgroup.procs").split()
        if not members:
            return
        if "0" in members:
            raise NoCgroup(f"{directory}: it holds processes of another pid namespace")
        for pid in members:
            try:
                write(f"{leaf}/cgroup.procs", pid)
            except ProcessLookupError:
                continue  # it has ended meanwhile
    raise NoCgroup(f"{directory}: new processes keep coming")


def real_root(hierarchy: Hierarchy, launcher: int) -> str:
    """As root of the host: the root of all cgroups may be divided and hold processes.

    Raises:
        NoCgroup: we are not root, or what is mounted is the root of a cgroup namespace only.
    """
    del launcher
    if os.geteuid() != 0:
        raise NoCgroup("not root")
    if os.path.exists(f"{hierarchy.mount_point}/cgroup.type"):  # which the real root does not have
        raise NoCgroup("what is mounted is not the root of all cgroups")
    return hierarchy.mount_point


def namespace_root(hierarchy: Hierarchy, launcher: int) -> str:
    """As root of a container with a cgroup namespace of its own: its root, once its processes have moved down.

    Raises:
        NoCgroup: we are not root there, or it is not ours.
    """
    del launcher
    leaf = "init.scope"  # where systemd would put them, and where a caller before us has
    places = (hierarchy.mount_point, os.path.join(hierarchy.mount_point, leaf))
    if os.geteuid() != 0 or own_directory(hierarchy) not in places:
        raise NoCgroup("not in the root of a cgroup namespace")
    vacate(hierarchy.mount_point, leaf)
    return hierarchy.mount_point


def scope(hierarchy: Hierarchy, launcher: int) -> str:
    """As a systemd user: a scope for the launcher, asked of the user's manager.

    Raises:
        NoCgroup: there is no manager, or it refuses.
    """
    from proc_sandbox.backends.linux import systemd

    address = systemd.bus_address()
    if address is None:
        raise NoCgroup("no user manager of systemd is running (no login session, or no bus)", manager_remedy())
    try:
        name = systemd.ask_for_scope(launcher, address)
    except systemd.ScopeError as error:
        raise NoCgroup(str(error), manager_remedy()) from error
    directory = own_directory(hierarchy, launcher)
    if directory is None or os.path.basename(directory) != name:  # it took our number for another namespace's process
        raise NoCgroup("systemd has not moved the launcher: it does not see our process ids", manager_remedy())
    vacate(directory, "launcher")
    return directory


def manager_remedy() -> str:
    """Return what starts this user's manager of systemd, as commands to paste."""
    try:
        user = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # a uid without a name
        user = f"#{os.geteuid()}"
    return (
        f"as root: loginctl enable-linger {user}, with the package dbus-user-session (Debian) installed; "
        f"or start the caller as a service: systemd-run -p User={user} -p Delegate=yes COMMAND"
    )


def delegated(hierarchy: Hierarchy, launcher: int) -> str:
    """As a service with Delegate=yes: the nearest cgroup above us that systemd has marked as delegated to our user.

    Raises:
        NoCgroup: there is none.
    """
    del launcher
    directory = own = own_directory(hierarchy)
    while directory and directory.startswith(hierarchy.mount_point + "/"):
        if is_delegated(directory):
            if directory == own:
                vacate(directory, "main")
            return directory
        directory = os.path.dirname(directory)
    raise NoCgroup("no cgroup is delegated to this user")


def is_delegated(directory: str) -> bool:
    """Return whether systemd has left a cgroup to us: it says so in an extended attribute (since version 251)."""
    try:
        return os.getxattr(directory, "user.delegate") == b"1" and os.access(f"{directory}/cgroup.procs", os.W_OK)
    except OSError:
        return False


WAYS_V2 = (real_root, namespace_root, scope, delegated)


def find_v2(launcher: int) -> tuple[CgroupHost | None, str, str]:
    hierarchy = next((found for found in hierarchies() if found.version == 2), None)
    if hierarchy is None:
        return None, "cgroup2 is not mounted", REMEDY
    if not controllers_of(hierarchy.mount_point):
        return None, "cgroup2 has no controllers here", REMEDY_HYBRID
    reasons, remedies = [], [REMEDY_IN_CONTAINER] if in_container() else []
    for way in WAYS_V2:
        try:
            directory = way(hierarchy, launcher)
            controllers = enable(directory)
            files = files_of_a_child(directory)
        except (OSError, NoCgroup) as error:
            reasons.append(str(error))
            remedies.append(getattr(error, "remedy", ""))
            continue
        if THROTTLE_V2 not in files:
            controllers.discard("io")
        if controllers:
            directories = tuple((name, directory) for name in sorted(controllers))
            name = os.path.basename(directory) if way is scope else ""
            return CgroupHost(2, directories, "memory.swap.max" in files, name), "", ""
        reasons.append(f"{directory}: no controller can be enabled")
    return None, "; ".join(dict.fromkeys(reasons)), next(filter(None, remedies), REMEDY)


def files_of_a_child(directory: str) -> set[str]:
    """Return the files that a cgroup made there has."""
    trial = os.path.join(directory, f"proc-sandbox-{os.getpid()}-0.probe")
    os.mkdir(trial)
    try:
        return set(os.listdir(trial))
    finally:
        os.rmdir(trial)


def admit(host: CgroupHost, launcher: int) -> None:
    """Bring another launcher to where it may let runs be born: into the scope, where there is one.

    Raises:
        ScopeError: systemd does not move it.
    """
    from proc_sandbox.backends.linux import systemd

    address = systemd.bus_address()
    if host.scope and address is not None:
        systemd.join_scope(host.scope, launcher, address)


def find_cgroups(launcher: int) -> tuple[CgroupHost | None, dict[str, Feature]]:
    """Return where cgroups can be made for a launcher, and what to say of v1 and v2."""
    v2, reason2, remedy2 = find_v2(launcher)
    v1, reason1 = find_v1()
    features = {
        "cgroup2": Feature(v2 is not None, reason2, remedy2),
        "cgroup1": Feature(v1 is not None, reason1, REMEDY),
    }
    found = v2 or v1
    if found:
        sweep(found)
    return found, features


def sweep(host: CgroupHost) -> None:
    """Remove the cgroups of launchers that were killed, and nothing else.

    A launcher holds a lock on each of its cgroups: a process id would say nothing where it is another namespace's or taken
    again. What was made only to try (can_make) has none, and lives as long as its maker.
    """
    for _, directory in set(host.directories):
        for entry in os.scandir(directory):
            match = NAME.match(entry.name)
            if match and not (match[2] and os.path.exists(f"/proc/{match[1]}")):
                with contextlib.suppress(FileNotFoundError, PermissionError, BlockingIOError):  # gone, or not ours
                    remove_if_unlocked(entry.path)


def remove_if_unlocked(path: str) -> None:
    lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.rmdir(path)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        kill = os.path.join(path, "cgroup.kill")  # what is in it has lost its launcher; the next sweep finds it empty
        if os.path.exists(kill):
            write(kill, "1")
    finally:
        os.close(lock)
