"""Grants -> the ordered operations that build the view, and the Landlock rules that repeat it as a second wall.

The view is a tmpfs with the system's directories bound read-only; it is the same for all runs of a Config and built once.
A run adds what is its own: /proc, /tmp, and the directories that its Config names.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from proc_sandbox.config import Config
from proc_sandbox.host import Grant, Hidden, Host, Paths, SystemPath
from proc_sandbox.planner.linux.plan import NEW_TERMINAL, TERMINALS, Landlock, Mount

__all__ = ["DEVICES", "HOME", "PRIVATE_DIRECTORY", "below", "hidden_places", "landlock_rules", "view"]

HOME = "/tmp/home"
PRIVATE_DIRECTORY = "/tmp/work"
SHM = "/tmp/.shm"
EMPTY = "/tmp/.empty"
"""A file and a directory with nothing in them, which cannot be written: what a run sees of what is hidden."""
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
DEVICE_LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
)
# The host's own lists would tell who has an account here; programs only want to find the user that they are.
PASSWD = (
    "root:x:0:0:root:/nonexistent:/usr/sbin/nologin\n"
    f"sandbox:x:1000:1000:sandbox:{HOME}:/bin/sh\n"
    "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
)
GROUP = "root:x:0:\nsandbox:x:1000:\nnogroup:x:65534:\n"
NSSWITCH = "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n"


def parents(path: str) -> Iterator[str]:
    """Yield the ancestors of a path, outermost first, without the root."""
    parts = path.strip("/").split("/")[:-1]
    for count in range(1, len(parts) + 1):
        yield "/" + "/".join(parts[:count])


def below(path: str, directory: str) -> bool:
    """Return whether a path is the directory or lies in it."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")


class View:
    """Collects operations and makes each directory once."""

    def __init__(self) -> None:
        self.mounts: list[Mount] = []
        self.made: set[str] = {"/"}

    def add(self, mount: Mount) -> None:
        self.mounts.append(mount)
        if mount.kind not in ("seal", "symlink"):
            self.made.add(mount.target)

    def directory(self, path: str, *, shared: bool, mode: str = "") -> None:
        if path not in self.made:
            self.add(Mount("dir", path, options=mode, shared=shared))

    def way_to(self, path: str, *, shared: bool) -> None:
        for parent in parents(path):
            self.directory(parent, shared=shared)

    def place(self, path: str, *, directory: bool, shared: bool) -> None:
        """Make what a bind can be mounted on."""
        self.way_to(path, shared=shared)
        if directory:
            self.directory(path, shared=shared)
        elif path not in self.made:
            self.add(Mount("file", path, source="", options="mode=644", shared=shared))


def view(config: Config, host: Host, paths: Paths, *, sampled: bool = False) -> tuple[Mount, ...]:
    """Return the operations that build what the command sees, in order.

    Where memory is sampled there is no /dev/zero: to map it is to have shared memory that nobody sees.
    """
    result = View()
    add_system(result, host, paths, [name for name in DEVICES if not sampled or name != "zero"])
    if config.pty:
        result.directory(TERMINALS, shared=True)
    tops = places_for_grants(result, paths)
    result.add(Mount("seal", "/", shared=True))
    shared_count = len(result.mounts)
    add_private(result, host, config)
    for entry in paths.system:  # an interpreter below /tmp would lie under the run's own
        if below(entry.path, "/tmp"):
            add_system_path(result, host, entry, shared=False)
    if config.pty:
        add_terminal(result)
    covered = hidden_places(paths)
    kept = (*covered, *(grant.path for grant in paths.grants if grant.access == "read"))
    seals = add_grants(result, host, (*paths.grants, *on_the_way(kept, paths)), tops)
    add_empty(result, covered)
    own = result.mounts[shared_count:] + seals
    return tuple(result.mounts[:shared_count] + own)


def add_system(result: View, host: Host, paths: Paths, devices: Sequence[str]) -> None:
    for entry in paths.system:
        if not below(entry.path, "/tmp"):
            add_system_path(result, host, entry, shared=True)
    result.directory("/etc", shared=True)
    for name, content in (
        ("passwd", PASSWD),
        ("group", GROUP),
        ("nsswitch.conf", NSSWITCH),
        ("hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    ):
        result.add(Mount("file", f"/etc/{name}", source=content, options="mode=644", shared=True))
    if paths.time_zone:
        result.add(Mount("symlink", "/etc/localtime", source=paths.time_zone, shared=True))
    for directory in ("/proc", "/dev", "/dev/shm", "/tmp", "/var"):
        result.directory(directory, shared=True)
    # A proc mount of its own is granted to a user namespace only where one is in sight: it is covered by each run's.
    result.add(Mount("bind", "/proc", source="/proc", shared=True))
    result.add(Mount("symlink", "/var/tmp", source="/tmp", shared=True))
    for name in devices:
        if host.root:
            result.add(Mount("device", f"/dev/{name}", shared=True))
        else:
            result.place(f"/dev/{name}", directory=False, shared=True)
            result.add(Mount("bind", f"/dev/{name}", source=f"/dev/{name}", options="noexec", shared=True))
    for name, link in DEVICE_LINKS:
        result.add(Mount("symlink", f"/dev/{name}", source=link, shared=True))


def add_system_path(result: View, host: Host, entry: SystemPath, *, shared: bool) -> None:
    if any(below(entry.path, made.target) for made in result.mounts if made.kind == "bind"):
        return
    result.way_to(entry.path, shared=shared)
    if entry.kind == "symlink":
        result.add(Mount("symlink", entry.path, source=entry.link, shared=shared))
        return
    result.place(entry.path, directory=entry.kind == "dir", shared=shared)
    options = "ro,nodev"
    if host.root and entry.private:
        options += f",idmap={entry.uid}:{entry.gid}"
    result.add(Mount("bind", entry.path, source=entry.path, options=options, shared=shared))


def places_for_grants(result: View, paths: Paths) -> tuple[str, ...]:
    """Decide where a run's own mounts are put, so that the shared view need not know their names.

    A first-level directory that holds nothing of the system becomes a small tmpfs of the run. Where the system has
    something in it already (an interpreter below /root), the way is made in the shared view.
    """
    tops: list[str] = []
    binds = [mount.target for mount in result.mounts if mount.kind == "bind"]
    for grant in paths.grants:
        if below(grant.path, "/tmp") or any(below(grant.path, bind) for bind in binds):
            continue
        top = "/" + grant.path.split("/")[1]
        used = any(below(made, top) and made != top for made in result.made) or top == grant.path
        if used:
            if not any(below(grant.path, other.path) and other != grant for other in paths.grants):
                result.place(grant.path, directory=grant.directory, shared=True)
        elif top not in tops:
            result.directory(top, shared=True)
            tops.append(top)
    return tuple(tops)


def add_private(result: View, host: Host, config: Config) -> None:
    result.add(Mount("proc", "/proc", options="ro,nodev,noexec"))
    result.add(Mount("tmpfs", "/tmp", options=f"nodev,data=mode=1777,size={config.tmp_size},nr_inodes={inodes(config)}"))
    result.made.add("/tmp")
    result.directory(HOME, shared=False, mode="mode=700")
    result.directory(SHM, shared=False, mode="mode=1777")
    result.directory(PRIVATE_DIRECTORY, shared=False)
    result.add(Mount("alias", "/dev/shm", source=SHM, options="nodev"))
    if not host.root and host.feature("proc_keys"):
        # Without root the command has its caller's uid on the host, so that it would be told of the caller's keys.
        result.add(Mount("alias", "/proc/keys", source="/dev/null"))


def add_terminal(result: View) -> None:
    """The run's own, which no other one's view has: so on a file system of its own."""
    result.add(Mount("tmpfs", TERMINALS, options="nodev,noexec,data=mode=755,size=4k,nr_inodes=8"))
    result.add(Mount("file", NEW_TERMINAL, source="", options="mode=600"))
    result.add(Mount("bind", NEW_TERMINAL, source=NEW_TERMINAL, options="noexec"))
    result.add(Mount("seal", TERMINALS))


def inodes(config: Config) -> int:
    """A file for each KiB, at least 1,024: an inode takes about that much of the kernel's memory."""
    return max(1024, config.tmp_size // 1024)


def rules_of_host(paths: Paths, *, sampled: bool) -> Iterator[tuple[str, str]]:
    """Yield what of the host's own files a command without a view may read: the system's, and what is granted to be read.

    /dev/zero: see view().
    """
    for entry in paths.system:
        if entry.kind == "device":
            if not sampled or entry.path != "/dev/zero":
                yield from ((entry.path, "read"), (entry.path, "device"))
        elif entry.kind != "symlink":
            yield entry.path, "system"
    for grant in paths.grants:
        if grant.access == "read":
            yield grant.source, "read"


def place_of(grant: Grant, host: Host) -> str:
    """Return the name of a granted path: in a view its own; on the host where it lies, for a run could have put a link in its way."""
    return grant.path if host.namespaces else grant.source


def hidden_places(paths: Paths) -> dict[str, bool]:
    """Return by which names what is hidden would be seen, and whether each is a directory; none that lies in another one.

    Nothing but what is granted, or of the system's, is of the host's: elsewhere there is nothing to hide.
    """
    shown = [(entry.path, entry.path) for entry in paths.system if entry.kind not in ("symlink", "device")]
    shown += [(grant.path, grant.source) for grant in paths.grants]
    found = {
        path + hidden.source.removeprefix(source): hidden.directory
        for hidden in paths.hidden
        for path, source in shown
        if below(hidden.source, source)
    }
    return {place: found[place] for place in sorted(found) if not any(parent in found for parent in parents(place))}


def on_the_way(places: Iterable[str], paths: Paths) -> Iterator[Grant]:
    """Yield the directories on the way to what is hidden or read-only that the command could rename, as grants of their own.

    What is mounted on keeps its name (rename(2), EBUSY). Else a run could rename such a directory, and the next one would find
    nothing of the name to hide or to keep, and see all of it by the new one, or write to it.
    """
    for directory in dict.fromkeys(parent for place in places for parent in parents(place)):
        around = max((grant for grant in paths.grants if below(directory, grant.path)), key=lambda grant: len(grant.path), default=None)
        if around and around.access == "write" and directory != around.path:
            source = around.source + directory.removeprefix(around.path)
            yield around._replace(path=directory, source=source)


def add_empty(result: View, places: Mapping[str, bool]) -> None:
    """Mount nothing over what is hidden."""
    if not places:
        return
    result.directory(EMPTY, shared=False)
    result.add(Mount("tmpfs", EMPTY, options="nodev,noexec,data=mode=755,size=4k,nr_inodes=8"))
    result.add(Mount("file", f"{EMPTY}/file", source="", options="mode=444"))
    result.add(Mount("dir", f"{EMPTY}/directory", options="mode=555"))
    result.add(Mount("seal", EMPTY))  # what is mounted of it from now on is read-only too
    for place, directory in places.items():
        result.add(Mount("alias", place, source=f"{EMPTY}/{'directory' if directory else 'file'}"))


def add_grants(result: View, host: Host, grants: Iterable[Grant], tops: tuple[str, ...]) -> list[Mount]:
    for top in tops:
        result.add(Mount("tmpfs", top, options="nodev,data=mode=755,size=1m,nr_inodes=4096"))
    done: list[str] = []
    # Outer ones first: the later mount wins, so what is read-only below a writable directory stays so. mount_namespaces(7)
    for grant in sorted(grants, key=lambda grant: grant.path.count("/")):
        if not any(below(grant.path, other) for other in done) and not system_has(result, grant.path):
            result.place(grant.path, directory=grant.directory, shared=False)
        result.add(Mount("bind", grant.path, source=grant.source, options=grant_options(grant, host)))
        done.append(grant.path)
    return [Mount("seal", top) for top in tops if top not in done]


def system_has(result: View, path: str) -> bool:
    return any(mount.shared and mount.kind == "bind" and below(path, mount.target) for mount in result.mounts)


def grant_options(grant: Grant, host: Host) -> str:
    options = "nodev" if grant.access == "write" else "ro,nodev"
    return f"{options},idmap={grant.uid}:{grant.gid}" if host.root and grant.idmap else options


def is_all_the_hosts(path: str, paths: Paths) -> bool:
    """Return whether a directory is shown as the system's own, with nothing in it that the Config names or hides."""
    shown = any(entry.path == path and entry.kind == "dir" and not entry.private for entry in paths.system)
    own: list[Grant | Hidden] = [*paths.grants, *paths.hidden]
    return shown and not any(item.path.startswith(path + "/") for item in own)


def landlock_rules(host: Host, config: Config, paths: Paths, *, sampled: bool = False) -> Landlock | None:
    """Return the second wall around a view, where everything is readable and only what is named can be written.

    Without a view it is the only one, and names everything.
    """
    if not host.landlock_abi:
        return None
    if host.namespaces:
        rules = [("/", "read"), ("/dev", "device"), ("/tmp", "private"), ("/dev/shm", "private")]
        if host.root and is_all_the_hosts("/usr", paths):
            rules.append(("/usr", "foreign"))
    else:
        rules = list(rules_of_host(paths, sampled=sampled))
        if config.pty:
            rules += [(NEW_TERMINAL, "read"), (NEW_TERMINAL, "device")]
    rules += [(place_of(grant, host), "write") for grant in paths.grants if grant.access == "write"]
    rules = list(dict.fromkeys(rules))
    return Landlock(
        abi=min(host.landlock_abi, 9),
        rules=tuple(rules),
        network=config.network_access is False,
        scope=True,
    )
