"""Config: every limit and grant of a run, as a frozen value that was validated when it was made."""

import os
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from proc_sandbox.errors import ConfigError
from proc_sandbox.later import load
from proc_sandbox.units import parse_percent, parse_seconds, parse_size

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from datetime import timedelta
    from typing import Literal, Protocol, TypeAlias, TypedDict

    from _typeshed import HasFileno, SupportsWrite
    from typing_extensions import Unpack

    class Readable(Protocol):
        """What has bytes, or text, piece by piece; for aio it may be awaited."""

        def read(self, size: int, /) -> bytes | str | Awaitable[bytes | str] | None:
            """Return at most that much; nothing at the end."""

    BackendName = Literal["linux", "posix", "windows"]
    # An int is a descriptor, or one of the constants.
    Place: TypeAlias = str | os.PathLike[str] | int | HasFileno
    Source: TypeAlias = Place | bytes | bytearray | memoryview | Readable | None
    Target: TypeAlias = Place | SupportsWrite[bytes] | Callable[[bytes], object]
    Sink: TypeAlias = "Target | Tee | None"

    class Options(TypedDict, total=False):
        """The fields of Config as callers write them."""

        timeout: float | str | timedelta | None
        memory_limit: int | str | None
        cpu_limit: float | str | None
        cpu_time_limit: float | str | timedelta | None
        max_processes: int | None
        read_bps: int | str | None
        write_bps: int | str | None
        max_output: int | str
        max_file_size: int | str | None
        max_open_files: int
        tmp_size: int | str
        working_dir: str | os.PathLike[str] | None
        allowed_dirs: Iterable[str | os.PathLike[str]]
        read_only_dirs: Iterable[str | os.PathLike[str]]
        writable_dirs: Iterable[str | os.PathLike[str]]
        hidden_paths: Iterable[str | os.PathLike[str]]
        env: Mapping[str, str] | Iterable[str]
        pass_env: Iterable[str]
        stdin: Source
        stdout: Sink
        stderr: Sink
        network_access: bool | Literal["loopback"]
        pty: bool
        pass_fds: Iterable[int]
        hostname: str
        umask: int
        nice: int
        core_dumps: bool
        kill_grace: float | str | timedelta | None
        prepared: int | None
        enforcement: Literal["strict", "best-effort"] | "BestEffort"
        backend: BackendName | None

__all__ = ["CAPTURE", "DEVNULL", "INHERIT", "PIPE", "STDOUT", "BestEffort", "Config", "Tee", "best_effort", "check_command", "never_granted", "shown_all_the_same"]

PIPE = subprocess.PIPE
"""As in subprocess; for stdout and stderr of run() the same as CAPTURE."""
STDOUT = subprocess.STDOUT
"""For stderr: the same place as stdout."""
DEVNULL = subprocess.DEVNULL
"""/dev/null."""
INHERIT = -4
"""The caller's own stream."""
CAPTURE = -5
"""Kept, up to max_output, in the Result."""

LEAST_MEMORY = 1 << 20
"""Bytes: with less no program can be started at all."""
LEAST_BANDWIDTH = 4096
"""Bytes per second: a page, the least that is read."""
HIDDEN = ("/proc", "/sys", "/dev")
BACKENDS = ("linux", "posix", "windows")


class BestEffort(NamedTuple):
    """Fields that may go unenforced where the host has no mechanism; none named: all."""

    fields: tuple[str, ...] = ()


def best_effort(*names: str) -> BestEffort:
    """Return an enforcement that is lenient for these fields only; without names for all."""
    return BestEffort(names)


class Tee:
    """For stdout and stderr: captured, and brought to other places too as it comes, as tee(1) does.

    Each target is a path, a binary file object, a descriptor, or a function that takes bytes. max_output holds for what is kept and for
    each target alike. What a target raises ends the run and leaves it.

    Raises:
        ConfigError: there is no target, or one is something else.
    """

    def __init__(self, *targets: "Target") -> None:
        if not targets:
            raise ConfigError("Tee", targets, "name a path, a file object, a descriptor or a function")
        check = stream()
        for target in targets:
            if target is None or isinstance(target, Tee):
                raise ConfigError("Tee", target, "must be a path, a file object, a descriptor or a function")
            check("Tee", target)
        self.targets = targets

    def __repr__(self) -> str:
        return f"Tee({', '.join(map(repr, self.targets))})"


@dataclass(frozen=True, kw_only=True, init=False)
class Config:
    """Every limit and grant. Access that is not named is denied; a limit of None is not set.

    Values are normalised when the Config is made: sizes to bytes, times to seconds, paths to absolute ones.

    Raises:
        ConfigError: a value is not valid; it names the field, the value and the remedy.
    """

    timeout: float | None = None
    """Wall clock time of the run: seconds, "500ms", "5s", "2m", or a timedelta. Default: none.

    Mechanism: a deadline in the launcher on CLOCK_MONOTONIC, which holds while Python is busy, stopped or dead.
    """
    memory_limit: int | None = None
    """Memory of the whole tree with swap, tmpfs and shared memory: bytes, or "256M". At least 1 MiB. Default: none.

    Mechanism: cgroup v2 memory.max, cgroup v1 memory.limit_in_bytes, or sampled (every 2 to 10 ms, and killed;
    what allocates in many processes at once can overshoot by gigabytes, and a tree that takes over a second to look at is taken
    at the most that it can be: mechanisms.md). Where it is sampled a run has at most 2,000 tasks.
    """
    cpu_limit: float | None = None
    """CPU of the whole tree in percent of one core: 250 is two and a half. 1 to 100,000. Default: none.

    Mechanism: cgroup v2 cpu.max, cgroup v1 cpu.cfs_quota_us, or the tree is stopped and continued.
    """
    cpu_time_limit: float | None = None
    """CPU time, user and system, of the whole tree: seconds, "2s", or a timedelta. Default: none.

    Mechanism: cgroup accounting watched by the launcher, or sampled; RLIMIT_CPU behind it.
    """
    max_processes: int | None = None
    """Tasks of the tree at one time, processes and threads, the command itself among them. Default: none.

    Mechanism: cgroup pids.max; or RLIMIT_NPROC, counted in the run's own user namespace or for a user of its own (at most
    2,000 where other limits are sampled). Without namespaces, without root or in a Sandbox the tasks are sampled: a run that
    has more is ended (Reason.PROCESSES).
    """
    read_bps: int | None = None
    """Bytes per second that the whole tree reads from each disk: a number, or "10M". At least 4 KiB. Default: none.

    Every disk that the host has when the run starts has the limit for itself: two of them give twice as much. One that lies
    on another (LVM, RAID, loop) is limited there too. What the page cache holds already is not read from a disk; network
    file systems are none. With less than 1 MiB starting a program can take seconds.

    Mechanism: cgroup v2 io.max, cgroup v1 blkio.throttle.read_bps_device.
    """
    write_bps: int | None = None
    """Bytes per second that the whole tree writes to each disk: a number, or "10M". At least 4 KiB. Default: none.

    For each disk, as read_bps. Direct writing is limited at once; what goes through the page cache is when the kernel brings
    it to the disk, on ext2, ext4, xfs, btrfs and f2fs only. The kernel holds a file that is cached for the cgroup's that
    wrote to it first, and sees a new writer late: what overwrites files that were there before can pass by the limit, some
    megabytes each. What the page cache still holds at the end is written after it. Others who sync the same file system
    meanwhile wait for the run's slow writing.

    Mechanism: cgroup v2 io.max. cgroup v1 limits direct writing alone, so it is not taken.
    """
    max_output: int = 10 << 20
    """Bytes kept of stdout and of stderr, each; the rest is read, thrown away and flagged. Default: 10 MiB.

    Mechanism: the reader. It holds for file objects without a descriptor too; files and descriptors take max_file_size.
    """
    max_file_size: int | None = None
    """Size of any file that the command writes: bytes, or "16M". Default: none.

    Mechanism: RLIMIT_FSIZE; SIGXFSZ ends who exceeds it.
    """
    max_open_files: int = 1024
    """Descriptors that each process may have open: 8 to 1,048,576, and not more than the caller's hard limit. Default: 1024.

    Mechanism: RLIMIT_NOFILE.
    """
    tmp_size: int = 64 << 20
    """Size of the private /tmp, /dev/shm and home directory together: bytes, or "64M". Default: 64 MiB.

    Mechanism: the size of a tmpfs, which is memory of the run (tmpfs(5)). Without namespaces there is no /tmp, and nothing but
    what is granted, and a Sandbox's own directory, can be written.
    """
    working_dir: str | None = None
    """Where the command starts: a directory, read-write, at its own path. Default: an empty private one that vanishes; without
    namespaces, / or a Sandbox's own.

    Mechanism: a bind mount, for a root caller idmapped, so that what the command makes belongs to the directory's owner.
    Without namespaces Landlock.
    """
    allowed_dirs: tuple[str, ...] = ()
    """Directories or files that can be read, at their own paths. Default: none but the system's.

    Mechanism: read-only bind mounts, and Landlock.
    """
    read_only_dirs: tuple[str, ...] = ()
    """Directories or files that can be read and never written, even below a writable one. Default: none.

    What lies deeper in a writable one keeps the directories on the way to it: they can't be renamed or removed, and rename(2) and
    link(2) into and out of them fail (EXDEV; mv(1) copies).

    Mechanism: read-only bind mounts, made after the writable ones.
    """
    writable_dirs: tuple[str, ...] = ()
    """Directories or files that can be written, at their own paths. Default: none but working_dir.

    Mechanism: bind mounts, for a root caller idmapped, and Landlock.
    """
    hidden_paths: tuple[str, ...] = ()
    """Files or directories that are empty to the command, and can't be written, though they lie in what is granted. Default: none.

    Of a link what it leads to is hidden; but one that lies in what can be written a command may have made, and is refused: where a run
    makes a link of a name that was not there, every later run of this Config is a ConfigError until somebody removes it. A path that
    does not exist hides nothing, which Result.enforcement and the log say; one that is granted itself, or holds what is, is refused.
    What is hidden is the file that has the name when the run starts, on Linux by every name that another mount of its file system
    gives it. Not hidden are hard links to it elsewhere in what is granted, a file that gets the name later, and what takes its place
    on the host while the run lasts, as an editor's rename does.
    Where what is hidden lies deeper in what can be written, the directories on the way to it can't be renamed or removed, and
    rename(2) and link(2) into and out of them fail (EXDEV; mv(1) copies).

    Mechanism: a read-only mount of nothing over each. Without namespaces none, nor on Windows: refused where there is something to
    hide. macOS: Seatbelt denies reading and writing.
    """
    env: tuple[tuple[str, str], ...] = ()
    """Variables: a mapping, or strings "KEY=value". Default: HOME, LANG, LOGNAME, PATH and USER, to which these are added.

    Mechanism: the command's environment is made anew; nothing is inherited (execve(2)).
    """
    pass_env: tuple[str, ...] = ()
    """Names of the caller's variables to pass on; one that is not set stays unset. Default: none.

    Mechanism: read from os.environ when the run starts.
    """
    stdin: Any = None
    """bytes, a path, a binary or text file object, a descriptor, DEVNULL or INHERIT. Default: /dev/null.

    Mechanism: the descriptor itself, or a pipe that is fed. A read() of a file object's that waits keeps run() waiting.
    """
    stdout: Any = CAPTURE
    """CAPTURE, DEVNULL, INHERIT, a path, a binary file object, a descriptor, a function that takes bytes, or Tee(...), which captures
    too; of a handle PIPE. Default: CAPTURE.

    Mechanism: a pipe that is read, or the descriptor itself.
    """
    stderr: Any = CAPTURE
    """As stdout, or STDOUT: the same place as it. Default: CAPTURE.

    Mechanism: a pipe that is read, or the descriptor itself.
    """
    pty: bool = False
    """Whether the command's three streams are a terminal of its own. Default: False.

    What stdin gives is typed, and at its end Ctrl-D; what comes to stdout is what the terminal shows: what was typed too, and stderr,
    which by itself is empty, with lines that end in CR and LF. With stdin INHERIT and stdout INHERIT it is joined to the caller's
    terminal, which is made ready for that and given back as it was (terminals.md). It has the caller's terminal's size then, else 24
    rows of 80. Windows: not supported.

    Mechanism: pty(7), TIOCSCTTY.
    """
    network_access: bool | str = False
    """False: none. "loopback": an own network with nothing but loopback. True: the host's. Default: False.

    Mechanism: network namespace, seccomp and Landlock.
    """
    pass_fds: tuple[int, ...] = ()
    """The caller's descriptors, from 3 on, that the command gets under the same numbers. Default: none.

    A directory is refused, here and as a stream: from it a command could walk around all that is hidden or read-only.

    Mechanism: SCM_RIGHTS; close_range(2) closes all others.
    """
    hostname: str = "sandbox"
    """What uname(2) says inside: 1 to 64 bytes. Default: "sandbox".

    Mechanism: UTS namespace.
    """
    umask: int = 0o022
    """The file mode mask, 0 to 0o777. Default: 0o022.

    Mechanism: umask(2).
    """
    nice: int = 0
    """Niceness that is added to the caller's, 0 to 19. Default: 0.

    Mechanism: setpriority(2).
    """
    core_dumps: bool = False
    """Whether a crash may write a core file. Default: False.

    Mechanism: RLIMIT_CORE of 1 byte, at which the kernel starts no pipe handler either (core(5)).
    """
    kill_grace: float | None = None
    """Time between SIGTERM and SIGKILL where the timeout or the end of a handle ends the run: seconds, "500ms", or a timedelta.
    Default: none, SIGKILL at once.

    The whole tree gets SIGTERM, and what is left of it after that time SIGKILL. A command that ends itself meanwhile is told with
    its exit code and Reason.TIMEOUT or CANCELLED. Other limits, and kill(), kill at once. Windows has no SIGTERM: no effect there.

    Mechanism: the launcher; pid 1 of the run sends it to all others.
    """
    prepared: int | None = None
    """How many sandboxes the launcher keeps ready for the next runs of this Config: 0 to 16, all Configs together 16. Default: one,
    once a second run follows within 10 seconds.

    Each is used once. They are made while a processor is free and the machine is not busy, and go after 10 seconds without a run;
    what they need until then is the launcher's, some 100 KiB. It is a wish, not a limit: a run that finds none has one made. No
    effect without namespaces, with pass_fds, where one granted directory lies in another, and with other backends than Linux's.

    Mechanism: clone(2) ahead of time; the command comes over a socket (unix(7)).
    """
    enforcement: str | BestEffort = "strict"
    """ "strict", "best-effort" or best_effort(fields): what cannot be enforced raises UnsupportedError, or is skipped with
    a warning and listed in Result.enforcement. Default: "strict".

    Mechanism: the planner's ladder of mechanisms.
    """

    backend: str | None = None
    """Which of the system's backends runs the command: "linux", "windows" or "posix". Default: the best one that it has.

    Mechanism: "posix" is every Unix's: limits without isolation, but for macOS's Seatbelt. On Linux it is there to be asked for, and
    where its own backend can do nothing at all.
    """

    # Whether a preset has looked what is to be hidden and read-only in working_dir. No field, but kept by replace() and pickle.
    is_for_project: ClassVar[bool] = False

    # What every run asks of its Config, found out once: whether anything of the host's is granted or hidden by its path, and whether
    # any of the three streams is not what it is by default.
    names_paths: ClassVar[bool] = False
    has_own_streams: ClassVar[bool] = False

    if TYPE_CHECKING:  # what the constructor takes; the fields say what it makes of it

        def __init__(self, **values: Unpack[Options]) -> None: ...

    else:
        def __init__(self, **values: Any) -> None:
            # The defaults below the class are normal already: only what is given is looked at.
            self.__dict__.update(DEFAULTS)
            self.__dict__.update(normalised(values))
            settle(self)

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str], policy: str | None = None, **changes: "Unpack[Options]") -> "Config":
        """Return a policy of a TOML file; without a name the only one, or the one called "default" (docs/policies.md).

        Args:
            changes: Fields as of a policy that extends it: paths, variables and names are added, any other value wins.

        Raises:
            PolicyError: the file cannot be read, or something in it is not valid; it names file, line and key.
        """
        made: Config = load("proc_sandbox.policies", "load", {})(path, policy, **changes)
        return made

    @classmethod
    def preset(cls, name: str, **changes: "Unpack[Options]") -> "Config":
        """Return a Config that is right for a kind of use ("judge", "python", "node", "build", "agent"; docs/presets.md).

        Args:
            changes: Fields as of a policy that extends it: paths, variables and names are added, any other value wins. replace()
                takes away; but not what a preset for a project has hidden or made read-only: see there.

        Raises:
            ConfigError: there is none of that name, or it needs a field that is not given.
        """
        made: Config = load("proc_sandbox.policies", "preset", {})(name, **changes)
        return made

    def for_project(self) -> "Config":
        """Return the Config as one that a preset has made for the project that is its working_dir."""
        made = self.replace()
        made.__dict__["is_for_project"] = True
        return made

    def writable_places(self, private: str | None = None) -> tuple[str, ...]:
        """Return the directories of the host that a command of this Config, or one before it, could write to; private: a
        Sandbox's own.
        """
        return tuple(filter(None, (self.working_dir, *self.writable_dirs, private)))

    def named_paths(self) -> Iterator[tuple[str, str, str]]:
        """Yield the field, the path and the access ("read" or "write") of everything that is granted."""
        if self.working_dir:
            yield "working_dir", self.working_dir, "write"
        for field, access in (("writable_dirs", "write"), ("allowed_dirs", "read"), ("read_only_dirs", "read")):
            for place in getattr(self, field):
                yield field, place, access

    def without_streams(self) -> "Config":
        """Return the Config with its streams at their defaults: what is planned does not depend on them, and what is kept
        by Config must not keep the caller's files and bytes.
        """
        if self.has_own_streams:
            return self.replace(stdin=None, stdout=CAPTURE, stderr=CAPTURE)
        return self

    @property
    def borrows(self) -> bool:
        """Whether it holds what is the caller's, to be closed and forgotten: file objects or bytes."""
        return not {type(self.stdin), type(self.stdout), type(self.stderr)} <= {int, str, type(None)}

    def replace(self, **changes: "Unpack[Options]") -> "Config":
        """Return a Config with some fields changed, validated anew.

        Of one that a preset has made for a project (agent) working_dir stays, and hidden_paths and read_only_dirs may only become
        more: what the preset has found there would be seen else, or written to.

        Raises:
            ConfigError: a value is not valid, or takes away what is hidden or read-only in a project.
        """
        changed = object.__new__(Config)
        changed.__dict__.update(self.__dict__)
        changed.__dict__.update(normalised(changes))
        if self.is_for_project:
            check_project(self, changed)
        settle(changed)
        return changed


def settle(config: Config) -> None:
    """Check what only together can be wrong, and note what is asked of every Config."""
    check_paths(config)
    check_terminal(config)
    named = config.working_dir or config.writable_dirs or config.allowed_dirs or config.read_only_dirs or config.hidden_paths
    own = config.stdin is not None or config.stdout is not CAPTURE or config.stderr is not CAPTURE
    config.__dict__.update(names_paths=bool(named), has_own_streams=own)


NAMES = tuple(item.name for item in fields(Config))


DEFAULTS = {item.name: item.default for item in fields(Config)}


def normalised(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values by field, each one normalised."""
    found = {}
    for name, value in values.items():
        normalise = NORMALISERS.get(name)
        if normalise is None:
            raise ConfigError(name, value, f"no such field; {remedy_for(str(name))}")
        found[name] = normalise(name, value)
    return found


OF_SUBPROCESS = {
    "cwd": "the directory is working_dir",
    "capture_output": "stdout and stderr are captured anyway",
    "text": "give it to run() or Popen, or take result.stdout.text()",
    "encoding": "give it to run() or Popen, or take result.stdout.text(encoding)",
    "errors": "give it to run() or Popen, or take result.stdout.text(encoding, errors)",
    "universal_newlines": "write text=True to run() or Popen, or take result.stdout.text()",
    "input": "give it to run(), or to the communicate() of a handle with stdin=PIPE",
    "check": "give it to run(), or call check() of the Result",
    "process_group": "the command always has a session of its own",
    "shell": 'write ["sh", "-c", "..."]',
    "preexec_fn": "nothing of the caller's runs in the command's process",
    "close_fds": "only 0, 1, 2 and pass_fds are ever open",
    "start_new_session": "the command always has a session of its own",
    "user": "the command never has a user of the host's",
    "group": "the command never has a group of the host's",
    "extra_groups": "the command never has a group of the host's",
}
"""What users of subprocess look for, and how it is done here."""


def remedy_for(name: str) -> str:
    if name in OF_SUBPROCESS:
        return OF_SUBPROCESS[name]
    from difflib import get_close_matches

    near = get_close_matches(name, NAMES, 1)
    return f"did you mean {near[0]!r}?" if near else f"the fields are {', '.join(NAMES)}"


# --- one normaliser for each field: (field, value) -> value, or ConfigError ---

Normaliser = Callable[[str, Any], Any]


def optional(normalise: Normaliser) -> Normaliser:
    return lambda name, value: None if value is None else normalise(name, value)


def size(name: str, value: Any) -> int:
    return parse_size(value, field=name)


def memory(name: str, value: Any) -> int:
    return parse_size(value, field=name, least=LEAST_MEMORY)


def bandwidth(name: str, value: Any) -> int:
    return parse_size(value, field=name, least=LEAST_BANDWIDTH)


def seconds(name: str, value: Any) -> float:
    return parse_seconds(value, field=name)


def percent(name: str, value: Any) -> float:
    return parse_percent(value, field=name)


def integer(least: int, most: int, unit: str) -> Normaliser:
    def check(name: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ConfigError(name, value, f"must be a whole number from {least} to {most} {unit}".rstrip())
        return value

    return check


def boolean(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(name, value, "must be True or False")
    return value


def never_granted(path: str) -> bool:
    """Return whether a path is a root, or lies where the kernel shows more than files."""
    return path == os.path.dirname(path) or any(path == top or path.startswith(top + "/") for top in HIDDEN)


def path(name: str, value: Any) -> str:
    if not isinstance(value, (str, os.PathLike)):
        raise ConfigError(name, value, "not a path; pass a str or a pathlib.Path")
    text = os.fspath(value)
    if not isinstance(text, str) or not text or "\0" in text:
        raise ConfigError(name, value, "not a path; pass a str that is not empty and has no NUL")
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        raise ConfigError(name, value, "cannot be encoded as a file name") from None
    full = os.path.abspath(os.path.expanduser(text))
    if full.startswith("//"):
        full = full[1:]
    if never_granted(full):
        what = "what is to be hidden" if name == "hidden_paths" else "a directory"
        raise ConfigError(name, value, f"name {what}; /, /proc, /sys and /dev cannot be {'hidden' if name == 'hidden_paths' else 'granted'}")
    return full


def path_list(name: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, (str, bytes, os.PathLike)) or not isinstance(value, Iterable):
        raise ConfigError(name, value, "must be a list of paths")
    return tuple(dict.fromkeys(path(name, item) for item in value))


def variable(name: str, key: Any, value: Any) -> tuple[str, str]:
    if not isinstance(key, str) or not isinstance(value, str):
        raise ConfigError(name, {key: value}, "names and values must be str")
    if not key or "=" in key or "\0" in key or "\0" in value:
        raise ConfigError(name, {key: value}, "a name must not be empty or hold '=', and nothing may hold NUL")
    try:
        os.fsencode(key + value)
    except UnicodeEncodeError:
        raise ConfigError(name, {key: value}, "cannot be encoded for the environment") from None
    return key, value


def environment(name: str, value: Any) -> tuple[tuple[str, str], ...]:
    if isinstance(value, Mapping):
        pairs = [variable(name, key, item) for key, item in value.items()]
    elif isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise ConfigError(name, value, 'must be a mapping, or strings "KEY=value"')
    else:
        pairs = [variable(name, *split(name, item)) for item in value]
    return tuple(sorted(dict(pairs).items()))


def split(name: str, item: Any) -> tuple[str, str]:
    if isinstance(item, tuple) and len(item) == 2:
        return item
    if not isinstance(item, str) or "=" not in item:
        raise ConfigError(name, item, 'must be "KEY=value"')
    key, _, value = item.partition("=")
    return key, value


def name_list(name: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise ConfigError(name, value, "must be a list of names")
    return tuple(dict.fromkeys(variable(name, item, "")[0] for item in value))


def descriptor_list(name: str, value: Any) -> tuple[int, ...]:
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise ConfigError(name, value, "must be a list of descriptors")
    check = integer(3, 65535, "")
    found = tuple(dict.fromkeys(check(name, item) for item in value))
    if len(found) > 100:
        raise ConfigError(name, value, "at most 100 descriptors can be passed")
    return found


def stream(*constants: int) -> Normaliser:
    def check(name: str, value: Any) -> Any:
        kinds: tuple[type, ...] = (str, bytes, bytearray, memoryview, os.PathLike) if name == "stdin" else (str, os.PathLike)
        if value is None and name != "stdin":
            return CAPTURE
        if isinstance(value, int) and not isinstance(value, bool):
            good = 0 <= value < 1 << 31 or value in constants
        else:
            good = value is None or isinstance(value, kinds) or any(hasattr(value, m) for m in ("fileno", "read", "write"))
            good = good or name != "stdin" and (isinstance(value, Tee) or callable(value))
        if not good or isinstance(value, str) and (not value or "\0" in value):
            raise ConfigError(name, value, "must be a path, a file object, a descriptor or one of the constants")
        return bytes(value) if isinstance(value, (bytearray, memoryview)) else value

    return check


def network(name: str, value: Any) -> bool | str:
    if isinstance(value, bool) or value == "loopback":
        return value  # type: ignore[no-any-return]
    raise ConfigError(name, value, 'must be False, True or "loopback"; single hosts cannot be allowed yet')


def host_name(name: str, value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value.encode("utf-8", "surrogatepass")) <= 64 or not value.isprintable():
        raise ConfigError(name, value, "must be a str of 1 to 64 bytes, all of them printable")
    return value


def backend(name: str, value: Any) -> str:
    if value not in BACKENDS:
        raise ConfigError(name, value, f"must be one of {', '.join(map(repr, BACKENDS))}; or None: the best that this system has")
    return value  # type: ignore[no-any-return]


def enforcement(name: str, value: Any) -> str | BestEffort:
    if isinstance(value, BestEffort):
        for item in value.fields:
            if item not in NAMES and item not in ("files", "privileges", "processes", "ipc", "syscalls"):
                raise ConfigError(name, item, "no such field")
        return value
    if value in ("strict", "best-effort"):
        return value  # type: ignore[no-any-return]
    raise ConfigError(name, value, 'must be "strict", "best-effort" or best_effort(fields)')


NORMALISERS: dict[str, Normaliser] = {
    "timeout": optional(seconds),
    "memory_limit": optional(memory),
    "cpu_limit": optional(percent),
    "cpu_time_limit": optional(seconds),
    "max_processes": optional(integer(1, 1 << 22, "tasks")),
    "read_bps": optional(bandwidth),
    "write_bps": optional(bandwidth),
    "max_output": size,
    "max_file_size": optional(size),
    "max_open_files": integer(8, 1 << 20, "descriptors"),
    "tmp_size": size,
    "working_dir": optional(path),
    "allowed_dirs": path_list,
    "read_only_dirs": path_list,
    "writable_dirs": path_list,
    "hidden_paths": path_list,
    "env": environment,
    "pass_env": name_list,
    "stdin": stream(PIPE, DEVNULL, INHERIT),
    "stdout": stream(CAPTURE, PIPE, DEVNULL, INHERIT),
    "stderr": stream(CAPTURE, PIPE, DEVNULL, INHERIT, STDOUT),
    "pty": boolean,
    "network_access": network,
    "pass_fds": descriptor_list,
    "hostname": host_name,
    "umask": integer(0, 0o777, ""),
    "nice": integer(0, 19, ""),
    "core_dumps": boolean,
    "kill_grace": optional(seconds),
    "prepared": optional(integer(0, 16, "sandboxes")),
    "enforcement": enforcement,
    "backend": optional(backend),
}


def check_paths(config: Config) -> None:
    """Refuse what is both writable and read-only, or both granted and hidden."""
    read_only = {*config.allowed_dirs, *config.read_only_dirs}
    for item in config.writable_dirs:
        if item in read_only:
            raise ConfigError("writable_dirs", item, "it is in allowed_dirs or read_only_dirs too; name it once")
    if config.working_dir in config.read_only_dirs:
        raise ConfigError("working_dir", config.working_dir, "it is in read_only_dirs too; name it once")
    for hidden in config.hidden_paths:
        for _, place, _ in config.named_paths():
            if place == hidden or place.startswith(hidden + os.sep):
                raise ConfigError("hidden_paths", hidden, shown_all_the_same(place))


def check_project(before: Config, after: Config) -> None:
    """Refuse to take from a project what its Config was made to keep.

    Raises:
        ConfigError: it has another working_dir, or less is hidden or read-only.
    """
    if after.working_dir != before.working_dir:
        remedy = f"what is hidden and read-only was looked for in {before.working_dir!r}; make another Config for it, by the preset or policy"
        raise ConfigError("working_dir", after.working_dir, remedy)
    for name, state in (("hidden_paths", "hidden"), ("read_only_dirs", "read-only")):
        lost = [item for item in getattr(before, name) if item not in getattr(after, name)]
        if lost:
            remedy = f"{lost[0]!r} would not be {state} any more; write [*config.{name}, ...], or give it to the preset, which adds it"
            raise ConfigError(name, list(getattr(after, name)), remedy)


def shown_all_the_same(place: str) -> str:
    """Return the remedy for a hidden path in which something lies that a command sees."""
    return f"{place!r} lies in it, which the command is to see; name what is to be hidden beside that"


def check_terminal(config: Config) -> None:
    """Refuse a place of its own for stderr where there is a terminal, which has one output."""
    if config.pty and config.stderr not in (CAPTURE, STDOUT, INHERIT, PIPE):
        raise ConfigError("stderr", config.stderr, "with pty=True it comes to stdout, as on every terminal; leave it out")


def argument(item: object) -> str:
    if type(item) is str and item.isascii() and "\0" not in item:  # as most are
        return item
    if not isinstance(item, (str, bytes, os.PathLike)):
        raise ConfigError("args", item, "each argument must be str, bytes or a path")
    try:
        word = os.fsdecode(item)
        os.fsencode(word)
    except UnicodeError:  # Windows takes no other bytes than UTF-8 (PEP 529), and no system every str
        raise ConfigError("args", item, "cannot be encoded as an argument") from None
    if "\0" in word:
        raise ConfigError("args", item, "an argument cannot hold NUL")
    return word


def check_command(args: object) -> tuple[str, ...]:
    """Return a command as a tuple of str.

    Raises:
        ConfigError: it is a string, empty, or holds something else than str, bytes and paths, or a NUL.
    """
    if type(args) is not list:  # to ask abstract classes takes long
        check_sequence(args)
    words = tuple(map(argument, args))  # type: ignore[call-overload]
    if not words:
        raise ConfigError("args", args, NOT_A_COMMAND)
    if not words[0]:
        raise ConfigError("args", args, "the command's name is empty")
    return words


NOT_A_COMMAND = 'a list that is not empty is needed, as in ["ls", "-l"]'


def check_sequence(args: object) -> None:
    if isinstance(args, (str, bytes, os.PathLike)):
        shown = args if isinstance(args, bytes) else os.fspath(args)
        raise ConfigError("args", args, f'a list is needed, never a shell line; for a shell write ["sh", "-c", {shown!r}]')
    if not isinstance(args, Sequence):
        raise ConfigError("args", args, NOT_A_COMMAND)
