"""The public face: run(), plan(), capabilities() and Sandbox, in subprocess's vocabulary."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, overload

from proc_sandbox.backends import current
from proc_sandbox.backends.files import check_data, check_mode
from proc_sandbox.config import Config, check_command
from proc_sandbox.errors import ConfigError, SandboxClosedError
from proc_sandbox.execution import Args, make_plan, private_place, run_to_end, with_passed_environment
from proc_sandbox.later import load
from proc_sandbox.planner import capabilities_of
from proc_sandbox.planner.model import Plan
from proc_sandbox.result import Enforced, Result, Unenforced
from proc_sandbox.streams import with_encoded_input
from proc_sandbox.text import Decoding, as_asked, check_decoding, input_bytes
from proc_sandbox.units import parse_size

if TYPE_CHECKING:
    from typing import Protocol

    from typing_extensions import Unpack

    from proc_sandbox.backends.protocol import PrivatePlace, Run
    from proc_sandbox.config import BackendName, Options
    from proc_sandbox.handle import Popen
    from proc_sandbox.pipeline import Command
    from proc_sandbox.text import BytesOptions, EitherOptions, EncodedOptions, TextOptions

    class Handle(Protocol):
        """What goes on in a Sandbox while nobody waits for it."""

        def ask_to_end(self) -> None:
            """Begin what close() waits for."""

        def close(self) -> None:
            """End it; returns when nothing of it is left."""


__all__ = ["Capabilities", "Sandbox", "capabilities", "plan", "run"]

DEFAULT = Config()
MOST_READ = 64 << 20
"""Bytes that Sandbox.read() takes where it is not told otherwise."""


def configured(config: Config | None, overrides: Mapping[str, Any]) -> Config:
    """Return the Config of one run."""
    base = DEFAULT if config is None else config
    if not isinstance(base, Config):
        raise ConfigError("config", base, "pass a Config, or its fields as keywords")
    return derived(base, overrides) if overrides else base


PLAIN = frozenset((int, float, str, bool, type(None)))
"""Of these types values that are equal are the same; True, 1 and 1.0 are not of one type."""


def derived(base: Config, overrides: Mapping[str, Any]) -> Config:
    """Return the Config with some fields changed: the one that was made of the same before, if it is known."""
    types = tuple(map(type, overrides.values()))
    # A relative path leads elsewhere from another current directory.
    if not PLAIN.issuperset(types) or "working_dir" in overrides or base.borrows:
        return base.replace(**overrides)
    key = (id(base), *overrides.items(), types)
    found = made.get(key)
    if found is None:
        found = base, base.replace(**overrides)
        if len(made) >= MOST_MADE:
            made.clear()
        made[key] = found
    return found[1]


MOST_MADE = 256
made: dict[Hashable, tuple[Config, Config]] = {}
"""Configs by the identity of the one that they were made of, which nothing else has as long as it is kept here, and by the changes."""


@overload
def run(
    args: Args, *, input: bytes | str | None = None, check: bool = False, config: Config | None = None, **options: Unpack[BytesOptions]
) -> Result: ...


@overload
def run(
    args: Args, *, input: bytes | str | None = None, check: bool = False, config: Config | None = None, **options: Unpack[TextOptions]
) -> Result[str]: ...


@overload
def run(
    args: Args, *, input: bytes | str | None = None, check: bool = False, config: Config | None = None, **options: Unpack[EncodedOptions]
) -> Result[str]: ...


@overload
def run(
    args: Args, *, input: bytes | str | None = None, check: bool = False, config: Config | None = None, **options: Unpack[EitherOptions]
) -> Result[Any]: ...


def run(
    args: Args,
    *,
    input: bytes | str | None = None,
    check: bool = False,
    text: bool | None = None,
    encoding: str | None = None,
    errors: str | None = None,
    config: Config | None = None,
    **overrides: Unpack[Options],
) -> Result[Any]:
    """Run one command in a sandbox of its own and return the verdict.

    Args:
        args: The command and its arguments; never a shell line.
        input: What the command reads from stdin; instead of the Config's stdin.
        check: Raise ExecutionError (or a class of it) unless the command exited with 0.
        text: Return the output as str, not bytes: line ends become "\\n", as in subprocess. Default: False.
        encoding: Of output, and of input that is a str, or a stdin that brings such; asks for text. Default: "utf-8", whatever the caller's locale is.
        errors: What becomes of output that is no text in that encoding, as in bytes.decode(); asks for text. Default: "replace",
            for a command should not be able to make its caller raise. What input cannot be encoded is refused unless this is given.
        config: The limits and grants; None: the defaults, which grant nothing.
        overrides: Fields of Config, for this run.

    Raises:
        ConfigError: a value is not valid; nothing was started.
        UnsupportedError: a limit or isolation cannot be enforced on this host; nothing was started.
        FileNotFoundError, PermissionError: no such command, or it is not executable (also LaunchError).
        LaunchError: a step before the command failed; the command did not run and nothing is left.
        ExecutionError: only with check=True.
        UnicodeDecodeError: only with errors="strict" or its like; the run is over, and its Result lost.
    """
    check_input(input, overrides)
    decoding = check_decoding(text, encoding, errors)
    return execute(args, configured(config, overrides), input=input, check=check, decoding=decoding)


def check_input(input: object, overrides: Mapping[str, Any]) -> None:
    if input is not None and overrides.get("stdin") is not None:
        raise ConfigError("input", input, "stdin is given too; name one of them")


def execute(
    args: Args,
    config: Config,
    *,
    input: bytes | str | None,
    check: bool,
    decoding: Decoding | None = None,
    private: str | None = None,
    sandbox: Sandbox | None = None,
) -> Result[Any]:
    """Do one run; sandbox: whose it is, as long as it is alive."""
    config = with_encoded_input(config, decoding)
    result = run_to_end(args, config, data=input_bytes(input, decoding), private=private, holder=sandbox)
    return as_asked(result, decoding, check=check)


def plan(args: Args, *, config: Config | None = None, **overrides: Unpack[Options]) -> Plan:
    """Return what run() would do, as data; nothing is run.

    Raises:
        ConfigError, UnsupportedError, FileNotFoundError, PermissionError: as run() would.
    """
    command = check_command(args)
    whole = with_passed_environment(configured(config, overrides))
    return make_plan(current(whole.backend), command, whole)[0]


def lines_of(name: str, how: Enforced | Unenforced) -> Iterator[str]:
    """Yield what is said of one limit or isolation."""
    if isinstance(how, Unenforced):
        yield f"{name:<16}{'none':<9}{how.reason}"
    else:
        yield f"{name:<16}{how.strength:<9}{how.mechanism}"
    if how.remedy:
        yield f"{'':<16}{'remedy:':<9}{how.remedy}"


@dataclass(frozen=True)
class Capabilities:
    """By which mechanism this host enforces each limit and isolation, or why it does not and the remedy."""

    mechanisms: Mapping[str, Enforced | Unenforced]

    def __getattr__(self, name: str) -> Enforced | Unenforced:
        try:
            return self.__dict__["mechanisms"][name]  # type: ignore[no-any-return]
        except KeyError:
            raise AttributeError(name) from None

    def items(self) -> Iterator[tuple[str, Enforced | Unenforced]]:
        """Return each limit or isolation with what is said of it."""
        return iter(self.mechanisms.items())

    def report(self) -> str:
        """Return all of it for human readers: mechanism, strength, and what to do where there could be a better one."""
        return "\n".join(line for name, how in self.items() for line in lines_of(name, how))

    def to_dict(self) -> dict[str, dict[str, str]]:
        """Return all of it as JSON-ready data."""
        return {name: how._asdict() for name, how in self.items()}


def capabilities(*, backend: BackendName | None = None) -> Capabilities:
    """Return what this host can enforce, and how; backend: as in Config.

    Raises:
        UnsupportedError: this system has no such backend.
    """
    return Capabilities(capabilities_of(current(backend).probe()))


class Sandbox:
    """A Config and a private directory that stays from run to run, at /tmp/work inside; gone with the Sandbox.

    The private directory lies on the host's disk and has no limit of its own: tmp_size holds for /tmp only. A run without a
    Sandbox has its working directory in /tmp.

    Thread-safe: many runs may be under way at once. A working_dir in the Config takes the private directory's place.

    Attributes: config; directory, where the private directory lies on the host, None without one; closed.
    """

    def __init__(self, config: Config | None = None, **overrides: Unpack[Options]) -> None:
        self.config = configured(config, overrides)
        self.directory: str | None = None
        self.closed = False
        self.owner = os.getpid()
        self.lock = threading.RLock()  # one thread's cleanup() may interrupt its own run, in a signal handler
        self.ended = threading.Condition(self.lock)
        self.under_way: dict[object, int] = {}  # runs, and the thread of each
        self.alive: set[Run[Any]] = set()
        self.handles: set[Handle] = set()
        self.private: PrivatePlace | None = None
        if self.config.working_dir is None:
            self.private = private_place(current(self.config.backend))
            self.directory = self.private.path

    @overload
    def run(
        self, args: Args, *, input: bytes | str | None = None, check: bool = False, **options: Unpack[BytesOptions]
    ) -> Result: ...

    @overload
    def run(
        self, args: Args, *, input: bytes | str | None = None, check: bool = False, **options: Unpack[TextOptions]
    ) -> Result[str]: ...

    @overload
    def run(
        self, args: Args, *, input: bytes | str | None = None, check: bool = False, **options: Unpack[EncodedOptions]
    ) -> Result[str]: ...

    @overload
    def run(
        self, args: Args, *, input: bytes | str | None = None, check: bool = False, **options: Unpack[EitherOptions]
    ) -> Result[Any]: ...

    def run(
        self,
        args: Args,
        *,
        input: bytes | str | None = None,
        check: bool = False,
        text: bool | None = None,
        encoding: str | None = None,
        errors: str | None = None,
        **overrides: Unpack[Options],
    ) -> Result[Any]:
        """Run one command; see run().

        Raises:
            SandboxClosedError: cleanup() was called; nothing was started.
        """
        check_input(input, overrides)
        decoding = check_decoding(text, encoding, errors)
        config = configured(self.config, overrides)
        token = object()
        try:
            self.enter(token)
            return execute(
                args, config, input=input, check=check, decoding=decoding, private=self.directory, sandbox=self
            )
        finally:
            self.leave(token)

    @overload
    def popen(
        self, args: Args, *, config: Config | None = None, bufsize: int = -1, **options: Unpack[BytesOptions]
    ) -> Popen[bytes]: ...

    @overload
    def popen(
        self, args: Args, *, config: Config | None = None, bufsize: int = -1, **options: Unpack[TextOptions]
    ) -> Popen[str]: ...

    @overload
    def popen(
        self, args: Args, *, config: Config | None = None, bufsize: int = -1, **options: Unpack[EncodedOptions]
    ) -> Popen[str]: ...

    @overload
    def popen(
        self, args: Args, *, config: Config | None = None, bufsize: int = -1, **options: Unpack[EitherOptions]
    ) -> Popen[Any]: ...

    def popen(self, args: Args, **options: Any) -> Popen[Any]:
        """Start one command in this Sandbox and return a handle to it; options: see Popen. A config takes the place of the Sandbox's.

        Raises:
            SandboxClosedError: cleanup() was called; nothing was started.
        """
        made: Popen[Any] = load("proc_sandbox.handle", "Popen", globals())(args, sandbox=self, **options)
        return made

    def cmd(self, args: Args, **overrides: Unpack[Options]) -> Command:
        """Return a command that runs in this Sandbox, alone or in a pipeline: box.cmd(...) | other.cmd(...). See Command.

        Raises:
            ConfigError: a value is not valid.
        """
        command: Command = load("proc_sandbox.pipeline", "command", globals())(args, self.config, overrides, self)
        return command

    def write(self, path: str | os.PathLike[str], data: bytes | str, *, mode: int = 0o644) -> None:
        """Write a file anew in the private directory, or the working_dir, for the commands to read and write.

        No link that a command has made is followed, and nothing that it has put in the file's place is opened. What is there already
        is replaced, by a new file (on Windows it is emptied). Missing directories are made (not on Windows).

        Args:
            path: Relative to that directory, or absolute as the commands see it (/tmp/work/...).
            data: bytes, or str, which is encoded as UTF-8.
            mode: Of the file.

        Raises:
            ConfigError: a value is not valid, or the path lies elsewhere. OSError: it cannot be written; ELOOP: a link is on the way.
            SandboxClosedError: cleanup() was called.
        """
        content, bits = check_data(data), check_mode(mode)
        with self.entered():
            current(self.config.backend).write_file(self.config, self.directory, path, content, bits)

    def read(self, path: str | os.PathLike[str], *, max_size: int | str = MOST_READ) -> bytes:
        """Return what a regular file in the private directory, or the working_dir, holds; no link is followed.

        Args:
            path: As for write().
            max_size: Bytes, or "1G". Default: 64 MiB.

        Raises:
            ConfigError: a value is not valid, or the path lies elsewhere. FileNotFoundError: there is none.
            OSError: EFBIG: it holds more; EINVAL: it is no regular file; ELOOP: it is a link, or one is on the way.
            SandboxClosedError: cleanup() was called.
        """
        most = parse_size(max_size, field="max_size")
        with self.entered():
            return current(self.config.backend).read_file(self.config, self.directory, path, most)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Have cleanup() wait for what is done in here."""
        token = object()
        try:
            self.enter(token)
            yield
        finally:
            self.leave(token)

    def enter(self, token: object) -> None:
        """Have cleanup() wait for a run of this thread's, from before it is planned."""
        with self.lock:
            self.check_open()
            self.under_way[token] = threading.get_ident()

    def leave(self, token: object) -> None:
        """Tell who waits in cleanup() that a run is over; harmless if it was refused."""
        with self.lock:
            if self.under_way.pop(token, None) is not None and self.closed:
                self.ended.notify_all()
                self.remove_private()

    def hold(self, run: Run[Any]) -> None:
        """Have a run that has begun killed by cleanup(), at once if that has been called meanwhile."""
        with self.lock:
            self.alive.add(run)
            if self.closed:
                run.kill()

    def let_go(self, run: Run[Any]) -> None:
        """Forget a run that has ended, before it is closed."""
        with self.lock:
            self.alive.discard(run)

    def lend(self, handle: Handle) -> None:
        """Have a handle's run ended by cleanup(), until it is given back."""
        with self.lock:
            self.check_open()
            self.handles.add(handle)

    def give_back(self, handle: Handle) -> None:
        """Forget a handle whose run has ended."""
        with self.lock:
            self.handles.discard(handle)
        self.leave(handle)

    def check_open(self) -> None:
        if self.closed:
            raise SandboxClosedError("this Sandbox is closed; make a new one")

    def cleanup(self) -> None:
        """End the runs that are under way, which return as cancelled, then remove the private directory.

        Harmless when done twice, and in a child by os.fork(), to which runs and directory do not belong. Returns when
        nothing is left; from within a run of the same thread (a signal handler) at once, and the run's end does the rest.

        Raises:
            OSError: the private directory could not be removed; it can be tried again.
        """
        if os.getpid() != self.owner:
            self.closed = True
            return
        with self.lock:
            self.closed = True
            for run in self.alive:
                run.kill()
            handles = tuple(self.handles)
        with contextlib.ExitStack() as stack:  # without the lock: another thread may be about to give it back
            for handle in handles:
                stack.callback(handle.close)
            for handle in handles:  # all at once: each may have a kill_grace
                handle.ask_to_end()
        with self.lock:
            if threading.get_ident() not in self.under_way.values():
                self.ended.wait_for(lambda: not self.under_way)
            self.remove_private()

    def remove_private(self) -> None:
        if self.private is not None and not self.under_way:
            self.private.remove()
            self.directory = None

    def __enter__(self) -> Sandbox:
        self.check_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cleanup()

