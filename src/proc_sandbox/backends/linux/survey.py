"""Where things are, for one run: the system's directories, the interpreter, what the Config names, the command."""

import errno
import functools
import os
import stat
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from proc_sandbox.backends.grants import PlantedLinkError, elsewhere
from proc_sandbox.backends.linux.mounts import mounted, names_by_mounts
from proc_sandbox.backends.unix.links import resolve
from proc_sandbox.backends.unix.survey import (
    activated,
    explain_script,
    granted,
    hidden_paths,
    private_grant,
    programs_on,
    search_path,
)
from proc_sandbox.config import Config
from proc_sandbox.errors import CommandNotExecutableError, CommandNotFoundError, ConfigError, UnsupportedError
from proc_sandbox.host import Grant, Hidden, Paths, SystemPath
from proc_sandbox.planner.linux.filesystem import DEVICES, PRIVATE_DIRECTORY
from proc_sandbox.planner.unix.environment import DEFAULT_PATH

if TYPE_CHECKING:
    from proc_sandbox.backends.unix.private import PrivateDirectory

__all__ = ["CanIdmap", "Survey", "Version", "give_away", "hidden_interpreter", "survey", "version_of"]

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store")
# Nothing that only some may read: without root the command has its caller's groups (/etc/ssl/private is a group's).
ETC = ("/etc/ld.so.cache", "/etc/alternatives", "/etc/fonts", "/etc/terminfo", "/etc/mime.types")
# Certificates to trust, where Debian, Fedora, Arch and Alpine keep them.
ETC_TLS = (
    "/etc/ssl/certs", "/etc/ssl/cert.pem", "/etc/ssl/openssl.cnf", "/etc/pki/tls/certs", "/etc/pki/tls/cert.pem",
    "/etc/pki/tls/openssl.cnf", "/etc/pki/ca-trust/extracted", "/etc/ca-certificates/extracted", "/etc/crypto-policies",
)  # fmt: skip
# Of /proc what tells of the machine, and of the command itself: /proc/self is opened by the command's own process. Not all of
# it: /proc/self/net and its like tell of the host's sockets, mountinfo of its mounts.
OWN_PROC = ("auxv", "cmdline", "comm", "environ", "fd", "fdinfo", "limits", "maps", "smaps", "smaps_rollup", "stat", "statm", "status")
PROC = (*(f"/proc/self/{name}" for name in OWN_PROC), "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/uptime", "/proc/loadavg",
        "/proc/version", "/proc/filesystems", "/proc/sys")  # fmt: skip
ETC_NETWORK = ("/etc/resolv.conf", "/etc/gai.conf", "/etc/services", "/etc/protocols")


@functools.lru_cache(maxsize=2)
def system_paths(network: bool) -> tuple[SystemPath, ...]:
    """Return the system's own directories as this host has them; they do not change while a process lives."""
    found: list[SystemPath] = []
    java = [path for name in listing("/etc") if name.startswith("java-") and os.path.isdir(path := f"/etc/{name}")]
    for path in (*SYSTEM, *ETC, *ETC_TLS, *java, *(ETC_NETWORK if network else ())):
        found += as_it_stands(path)
    return tuple(dict.fromkeys(found))


def as_it_stands(path: str) -> Iterator[SystemPath]:
    """Yield a path as the host has it: itself, or a link and where it leads (/etc/resolv.conf to a service's in /run)."""
    try:
        real = os.path.realpath(path, strict=True)
    except OSError:
        return
    if not os.path.islink(path):
        yield system_path(path)
        return
    link = os.readlink(path)
    yield SystemPath(path, "symlink", link if path in SYSTEM else real)
    if not in_system(real):
        yield system_path(real)


def system_path(path: str) -> SystemPath:
    status = os.stat(path)
    private = status.st_mode & 0o005 != 0o005 if stat.S_ISDIR(status.st_mode) else not status.st_mode & 0o004
    kind = "dir" if stat.S_ISDIR(status.st_mode) else "file"
    return SystemPath(path, kind, private=private, uid=status.st_uid, gid=status.st_gid)


@functools.lru_cache(maxsize=1)
def time_zone() -> str:
    try:
        link = os.path.realpath("/etc/localtime")
    except OSError:
        return ""
    return link if link.startswith("/usr/share/zoneinfo/") else ""


def in_system(path: str) -> bool:
    return any(path == top or path.startswith(top + "/") for top in SYSTEM)


def prefix_of(binary: str, deep: int = 4) -> Iterator[str]:
    """Yield the prefixes that a Python interpreter needs: its virtual environment's, and where it was installed.

    Args:
        deep: Of how many environments, each made from another, that is looked up.
    """
    directory = os.path.dirname(os.path.dirname(os.path.abspath(binary)))
    if os.path.exists(os.path.join(directory, "pyvenv.cfg")):
        yield directory
        home = home_of(directory)  # python -m venv --copies: the interpreter in it is a copy, and its libraries lie there
        if home and deep:
            yield from prefix_of(os.path.join(home, os.path.basename(binary)), deep - 1)
    yield os.path.dirname(os.path.dirname(os.path.realpath(binary)))


def home_of(environment: str) -> str | None:
    """Return from which directory of programs a virtual environment says that it was made (PEP 405)."""
    try:
        with open(os.path.join(environment, "pyvenv.cfg"), encoding="utf-8") as file:
            pairs = [line.partition("=") for line in file]
    except (OSError, ValueError):
        return None  # then its interpreter cannot read it either
    return next((value.strip() for key, _, value in pairs if key.strip() == "home" and os.path.isabs(value.strip())), None)


def is_prefix(path: str) -> bool:
    """Return whether a directory is a Python installation, and not the root, a home directory or its ~/.local (PEP 370)."""
    if path in ("/", os.path.expanduser("~"), os.path.expanduser("~/.local")) or others_write(path):
        return False
    return os.path.exists(os.path.join(path, "pyvenv.cfg")) or any(
        name.startswith("python") for name in listing(os.path.join(path, "lib"))
    )


def others_write(path: str) -> bool:
    """Return whether everybody may write there (/tmp): what lies there proves nothing."""
    try:
        return bool(os.stat(path).st_mode & stat.S_IWOTH)
    except OSError:
        return True


def listing(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []


@functools.lru_cache(maxsize=2)
def running_interpreter(binary: str) -> tuple[SystemPath, ...]:
    """Return the same for the interpreter that runs us: its installation does not move while it runs."""
    return interpreter_paths(binary)


def interpreter_paths(binary: str) -> tuple[SystemPath, ...]:
    """Return what must be seen for this interpreter to work, beyond the system's directories."""
    prefixes = dict.fromkeys(prefix for prefix in prefix_of(binary) if not in_system(prefix) and is_prefix(prefix))
    found = []
    for prefix in prefixes:
        real = os.path.realpath(prefix)
        found.append(system_path(real))
        if real != prefix:
            found.append(SystemPath(prefix, "symlink", real))
    return tuple(found)


def pyenv_target(shim: str) -> str | None:
    """Return what a shim of pyenv stands for: it is a shell script that would need all of pyenv inside."""
    directory, name = os.path.split(shim)
    root = os.path.dirname(directory)
    if os.path.basename(directory) != "shims" or not os.path.isdir(os.path.join(root, "versions")):
        return None
    versions = os.environ.get("PYENV_VERSION", "").split(":")
    if not versions[0]:
        try:
            with open(os.path.join(root, "version"), encoding="utf-8") as file:
                versions = file.read().split()
        except FileNotFoundError:
            versions = []
    for version in versions:
        target = os.path.join(root, "versions", version, "bin", name)
        if os.path.exists(target):
            return target
    return None


CanIdmap = Callable[[str, int], bool]
"""Of a path and its device: whether it can be shown as another user's."""


class Program(NamedTuple):
    """The command on the host: its path ("" where only the launcher can say), whether a command could have put it there, and
    the remedy should it not be found.
    """

    path: str
    planted: bool = False
    hint: str = ""


def locate(
    command: str, config: Config, private: str | None, start: str, is_visible: Callable[[str], bool], planted: Callable[[str], bool]
) -> Program:
    """Return where the command lies on the host; by its name, the first on the PATH that is visible inside.

    Args:
        start: where a run without a working_dir begins.
        planted: whether a command could have put a program where it is.

    In a run's own private directory nothing is known before the run. Links of a command's making are not followed here.

    Raises:
        CommandNotFoundError: there is none. CommandNotExecutableError: it is no file, or may not be executed.
    """
    if "/" not in command:
        first = search(command, config, is_visible)
        return Program(first, planted=planted(first))
    path = os.path.normpath(os.path.join(config.working_dir or start, command))
    if config.working_dir is None and path.startswith(PRIVATE_DIRECTORY + "/") and start == PRIVATE_DIRECTORY:
        if private is None:
            return Program("", planted=True, hint=from_here(command))
        path = private + path.removeprefix(PRIVATE_DIRECTORY)
    try:
        found = resolve(path, config.writable_places(private))
        status = os.stat(found.path)
    except PlantedLinkError as error:
        return Program("", planted=True, hint=f"{error.filename} is a link to {os.readlink(error.filename)!r}")
    except OSError as error:
        raise CommandNotFoundError("find", path, error.errno or errno.ENOENT, from_here(command)) from None
    if not stat.S_ISREG(status.st_mode) or not status.st_mode & 0o111:
        raise CommandNotExecutableError("find", path, errno.EACCES)
    return Program(path, planted=found.inside)


def is_planted(path: str, config: Config, private: str | None) -> bool:
    """Return whether a command could have put a program where it is, or a link on the way to it."""
    places = config.writable_places(private)
    try:
        return bool(places) and resolve(path, places).inside
    except PlantedLinkError:
        return True
    except OSError:
        return False


def from_here(command: str) -> str:
    """Return the remedy for a relative path that would lead somewhere from the caller's own directory."""
    return "" if command.startswith("/") or not os.path.exists(command) else elsewhere()


found_before: dict[tuple[str, str], str] = {}
"""Where programs were found on a PATH, as a shell keeps it; looked at again before it is used."""


def remember(name: str, path: str, found: str) -> None:
    enough = 256
    if len(found_before) >= enough:
        found_before.clear()
    found_before[name, path] = found


def search(name: str, config: Config, is_visible: Callable[[str], bool]) -> str:
    """Return the first program of that name on the PATH that can be seen inside, or if there is none the first.

    Raises:
        CommandNotFoundError: there is none at all.
    """
    path = search_path(config)
    known = found_before.get((name, path))
    if known and os.path.isfile(known) and os.access(known, os.X_OK) and is_visible(known):
        return known
    first = ""
    for program in programs_on(path, name):
        candidate = pyenv_target(program) or program
        if is_visible(candidate):
            remember(name, path, candidate)
            return candidate
        first = first or candidate
    if not first:
        raise CommandNotFoundError("find", name, errno.ENOENT, f"searched {search_path(config)}")
    return first


def grant(field: str, path: str, access: str, writable: Sequence[str], can_idmap: CanIdmap) -> Iterator[Grant]:
    """Yield a grant for a path as it is named, and one for where it really lies if a link leads there."""
    item, device = granted(field, path, access, writable)
    if item.source == "/tmp":
        raise ConfigError(field, path, "name a directory below it: each run has a private /tmp")
    for name in dict.fromkeys((path, item.source)):
        yield item._replace(path=name, idmap=can_idmap(item.source, device))


def grants(config: Config, private: str | None, can_idmap: CanIdmap) -> tuple[Grant, ...]:
    found: dict[str, Grant] = {}
    writable = config.writable_places(private)
    for field, path, access in config.named_paths():
        for item in grant(field, path, access, writable, can_idmap):
            if item.path not in found or access == "read" and field == "read_only_dirs":
                found[item.path] = item
    kept = [item for item in found.values() if item.path == item.source or not lies_in_another(item, found)]
    return tuple(sorted(by_every_name(kept), key=lambda item: item.path))


def by_every_name(granted: Sequence[Grant]) -> list[Grant]:
    """Return the grants, and those in another one also by its other names: a link to a writable directory would else be a way to
    write to what is read-only in it, and so would another mount of that.
    """
    found = {item.path: item for item in granted}
    mounts = mounted() if {item.access for item in granted} == {"read", "write"} else ()
    for inner in (item for item in granted if item.path == item.source):
        names = {inner.source, *(names_by_mounts(inner.source, mounts) if inner.access == "read" else ())}
        for outer in granted:
            for source in names:
                if source.startswith(outer.source + "/"):
                    name = outer.path + source.removeprefix(outer.source)
                    found.setdefault(name, inner._replace(path=name))
    return list(found.values())


def lies_in_another(item: Grant, granted: Mapping[str, Grant]) -> bool:
    """Return whether a link is seen in another granted directory already: there it is what it is on the host."""
    return any(item.path.startswith(other + "/") for other in granted if other != item.path)


def seen(path: str, system: Sequence[SystemPath], granted: Sequence[Grant]) -> bool:
    """Return whether a path of the host has the same name inside."""
    tops = [entry.path for entry in system] + [item.path for item in granted]
    return any(path == top or path.startswith(top + "/") for top in tops)


def follow(path: str) -> Iterator[str]:
    """Yield a path and what its last component's links lead to."""
    for _ in range(40):
        yield path
        if not os.path.islink(path):
            return
        path = os.path.normpath(os.path.join(os.path.dirname(path), os.readlink(path)))


def check_apart(granted: Sequence[Grant], private: str) -> None:
    """Refuse a directory in which a command could put something else in the place of its Sandbox's own.

    Raises:
        ConfigError: it contains the Sandbox's directory.
    """
    for item in granted:
        if item.access == "write" and private.startswith(item.source.rstrip("/") + "/"):
            remedy = "the Sandbox's own directory lies in it; name another one, or make the Sandbox with TMPDIR elsewhere"
            raise ConfigError("writable_dirs", item.path, remedy)


given_away: weakref.WeakValueDictionary[int, "PrivateDirectory"] = weakref.WeakValueDictionary()
"""The uids of Sandboxes, with their directories."""
giving = threading.Lock()


def give_away(directory: "PrivateDirectory", uids: tuple[int, int]) -> None:
    """Make a Sandbox's directory its runs' own, where no mount can show it so: each has one of the uids in the upper half.

    Raises:
        UnsupportedError: all of them belong to other Sandboxes that are still open.
    """
    first, count = uids
    with giving:
        if directory in given_away.values():
            return
        for uid in range(first + count // 2, first + count):
            if uid not in given_away or not given_away[uid].forgotten.alive:
                directory.give_to(uid)
                given_away[uid] = directory
                return
    raise UnsupportedError("working_dir", f"{count - count // 2} Sandboxes have a user of their own each", "clean one of them up first")


@functools.lru_cache(maxsize=1)
def in_plain_sight() -> tuple[SystemPath, ...]:
    """Return what a view would have of its own, and a command without one finds on the host."""
    devices = [SystemPath(path, "device") for name in DEVICES if os.path.exists(path := f"/dev/{name}")]
    return (*devices, *(system_path(path) for path in PROC if os.path.exists(path)))


Version = tuple[int, int, int]


def version_of(program: str) -> Version | None:
    """Return what another file in a program's place would not have, nor the same one after a change; None where there is none."""
    try:
        status = os.stat(program)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_ctime_ns


class Survey(NamedTuple):
    """Where things are, and the version of the program with which all of that stays as it is; None: it has to be looked up anew."""

    paths: Paths
    version: Version | None


def survey(
    config: Config, command: Sequence[str], can_idmap: CanIdmap, private: str | None = None, *, contained: bool = True
) -> Survey:
    """Look where things are, for one run, with a view of its own (contained) or without. See Backend.survey for what it raises."""
    if config.working_dir is not None:
        private = None
    start = PRIVATE_DIRECTORY if contained else private or "/"
    given = grants(config, private, can_idmap)
    check_apart(given, private or "")
    base = running_interpreter(sys.executable) if sys.executable else ()
    system = dict.fromkeys((*system_paths(config.network_access is True), *base))

    planted = functools.cache(lambda path: is_planted(path, config, private))

    def is_visible(path: str) -> bool:
        if planted(path):
            return seen(path, tuple(system), given)
        return not hidden(path, tuple(system), given) or bool(interpreter_paths(path))

    program = locate(command[0], config, private, start, is_visible, planted)
    prefix = activated_in(base)
    version = None
    # What a command could have put there tells nothing of what else it should see.
    if program.path and not program.planted:
        version = version_of(program.path)  # before all that is concluded from it
        if not seen(program.path, tuple(system), given) or in_prefix(program.path, base):
            extra = interpreter_paths(program.path)
            if not system.keys() >= set(extra):
                version = None  # an installation that is not ours may change
            system.update(dict.fromkeys(extra))
            if extra:
                prefix = (os.path.dirname(program.path),)
        check_visible(program.path, tuple(system), given)
        if "/" not in command[0] and os.path.dirname(program.path) not in (*prefix, *DEFAULT_PATH.split(":")):
            prefix = (os.path.dirname(program.path), *prefix)  # where it looks for itself by its name, as Python does
    if private:
        own_grant, device = private_grant(start, private)
        given += (own_grant._replace(idmap=can_idmap(private, device)),)
    seen_places = (*(item.source for item in given), *(entry.path for entry in system))
    mounts = mounted() if config.hidden_paths else ()
    covered, missing = hidden_paths(config, config.writable_places(private), seen_places, lambda real: names_by_mounts(real, mounts))
    check_not_hidden(program.path, covered)
    if not contained:
        system.update(dict.fromkeys(in_plain_sight()))
    executable = command[0] if "/" in command[0] and ".." not in command[0].split("/") else program.path or command[0]
    shown = tuple(as_can_be_shown(entry, can_idmap) for entry in system)
    disks = numbers_of_disks() if config.read_bps or config.write_bps else ()
    own = start if private else ""
    return Survey(Paths(shown, given, executable, program.path, prefix, time_zone(), own, program.hint, disks, covered, missing), version)


def numbers_of_disks(directory: str = "/sys/block") -> tuple[str, ...]:
    """Return the numbers of every whole disk. All of them: what a command reads and writes lies not only on the file systems
    of its directories, but also on the system's, on those of descriptors that it is passed, and on what these lie on.
    """
    found = []
    for name in sorted(listing(directory)):  # none where sysfs is not mounted: the planner says so
        try:
            with open(os.path.join(directory, name, "dev"), encoding="ascii") as file:
                found.append(file.read().strip())
        except FileNotFoundError:
            continue  # it was taken away, or it is one path of several to another that is listed (nvme multipath)
    return tuple(found)


def as_can_be_shown(entry: SystemPath, can_idmap: CanIdmap) -> SystemPath:
    """Return a private path of the system's as public where its file system cannot show it as the command's own."""
    if not entry.private or can_idmap(entry.path, os.stat(entry.path).st_dev):
        return entry
    return entry._replace(private=False)


def activated_in(base: Sequence[SystemPath]) -> tuple[str, ...]:
    """Return the running interpreter's directory of programs where it is seen and the caller has it on its PATH."""
    return tuple(directory for directory in activated() if in_prefix(directory, base))


def in_prefix(path: str, prefixes: Sequence[SystemPath]) -> bool:
    return any(path.startswith(entry.path + "/") for entry in prefixes)


def hidden(path: str, system: Sequence[SystemPath], granted: Sequence[Grant]) -> str | None:
    """Return what is not seen inside of a path and what its links lead to; None if all is."""
    return next((step for step in follow(path) if not seen(step, system, granted)), None)


def check_visible(path: str, system: Sequence[SystemPath], granted: Sequence[Grant]) -> None:
    step = hidden(path, system, granted)
    if step is not None:
        hint = f"it exists on the host but is not visible inside; add {os.path.dirname(step)!r} to allowed_dirs"
        raise CommandNotFoundError("find", step, errno.ENOENT, hint)


def check_not_hidden(program: str, covered: Sequence[Hidden]) -> None:
    """Refuse a command that is hidden, or a link to what is.

    Raises:
        CommandNotFoundError: it is.
    """
    for step in follow(program) if covered else ():
        for item in covered:
            if step == item.source or step.startswith(item.source + "/"):
                raise CommandNotFoundError("find", step, errno.ENOENT, f"it lies in {item.path!r}, which hidden_paths hides")


def hidden_interpreter(paths: Paths) -> str | None:
    """Return why a program that is there could not be started: what it is a link to, or its interpreter, is missing inside."""
    if not paths.program:
        return paths.hint or None

    def missing(word: str) -> str | None:
        if seen(word, paths.system, paths.grants):
            return None
        return f"its interpreter {word} is not visible inside; add {os.path.dirname(word)!r} to allowed_dirs"

    return explain_script(paths.program, [grant.source for grant in paths.grants if grant.access == "write"], missing)
