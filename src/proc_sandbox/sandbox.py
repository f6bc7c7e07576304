"""The public face: run(), plan(), capabilities() and Sandbox, in subprocess's vocabulary."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import threading
import warnings
import weakref
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, overload

from proc_sandbox import log
from proc_sandbox.backends import current, shutdown
from proc_sandbox.config import Config, check_command
from proc_sandbox.errors import (
    CommandNotExecutableError,
    CommandNotFoundError,
    ConfigError,
    LauncherDiedError,
    LaunchError,
    SandboxClosedError,
    UnenforcedWarning,
)
from proc_sandbox.host import Paths
from proc_sandbox.planner import capabilities_of, compile_plan
from proc_sandbox.planner.model import Plan
from proc_sandbox.report import Ended, Failed
from proc_sandbox.result import Enforced, Result, Unenforced
from proc_sandbox.streams import check_streams
from proc_sandbox.supervise import Supervisor
from proc_sandbox.text import Decoding, as_text, check_decoding, input_bytes
from proc_sandbox.verdict import judge

if TYPE_CHECKING:
    from typing import Literal

    from typing_extensions import Unpack

    from proc_sandbox.backends import AnyBackend
    from proc_sandbox.backends.protocol import PrivatePlace, Run, Streams
    from proc_sandbox.config import BackendName, Options

__all__ = ["Capabilities", "Sandbox", "capabilities", "plan", "run"]

Args = Sequence["str | bytes | os.PathLike[str]"]
DEFAULT = Config()


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


def with_passed_environment(config: Config) -> Config:
    """Return the Config with the values of pass_env; what env itself gives wins, what is not set stays unset."""
    if not config.pass_env:
        return config
    passed = {name: os.environ[name] for name in config.pass_env if name in os.environ}
    return config.replace(env={**passed, **dict(config.env)}, pass_env=())


@overload
def run(
    args: Args,
    *,
    input: bytes | str | None = None,
    check: bool = False,
    text: Literal[False] | None = None,
    encoding: None = None,
    errors: None = None,
    config: Config | None = None,
    **overrides: Unpack[Options],
) -> Result: ...


@overload
def run(
    args: Args,
    *,
    input: bytes | str | None = None,
    check: bool = False,
    text: Literal[True],
    encoding: str | None = None,
    errors: str | None = None,
    config: Config | None = None,
    **overrides: Unpack[Options],
) -> Result[str]: ...


@overload
def run(
    args: Args,
    *,
    input: bytes | str | None = None,
    check: bool = False,
    text: bool | None = None,
    encoding: str,
    errors: str | None = None,
    config: Config | None = None,
    **overrides: Unpack[Options],
) -> Result[str]: ...


@overload
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
        encoding: Of output, and of input that is a str; asks for text. Default: "utf-8", whatever the caller's locale is.
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


def check_input(input: bytes | str | None, overrides: Mapping[str, Any]) -> None:
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
    command = check_command(args)
    data = input_bytes(input, decoding)
    check_streams(config)
    backend = current(config.backend)
    if backend.needs_directory and not (private or config.working_dir):
        with new_directory(backend) as made:
            return execute(args, config, input=input, check=check, decoding=decoding, private=made, sandbox=sandbox)
    config = with_passed_environment(config)
    planned, paths = make_plan(backend, command, config, private)
    supervisor = Supervisor(config.max_output)
    streams = backend.open_streams(config, data, supervisor, config.writable_places(private))
    number = log.run_begins(command)
    try:
        try:
            run = backend.start(planned, streams)
        except LauncherDiedError:  # it was killed since its last run: what was planned was for that one
            planned, paths = make_plan(backend, command, config, private)
            run = backend.start(planned, streams)
        with run:
            if sandbox is None:
                outcome = communicate(run, streams)
            else:
                try:
                    sandbox.hold(run)
                    outcome = communicate(run, streams)
                finally:
                    sandbox.let_go(run)
    finally:
        streams.close()
    if isinstance(outcome, Failed):
        raise_failure(outcome, backend.explain(paths))
    result = judge(planned, config, supervisor.report(outcome))
    log.run_ended(number, result)
    if decoding is not None:
        text = as_text(result, decoding)
        return text.check() if check else text
    return result.check() if check else result


def communicate(run: Run[Any], streams: Streams) -> Ended | Failed:
    streams.release()
    return run.communicate(streams)


@contextlib.contextmanager
def new_directory(backend: AnyBackend) -> Iterator[str]:
    """Make a directory for one run, gone with it."""
    place = private_place(backend)
    try:
        yield place.path
    finally:
        place.remove()


def make_plan(
    backend: AnyBackend, command: tuple[str, ...], config: Config, private: str | None = None
) -> tuple[Plan, Paths]:
    host = backend.probe(config)
    paths = backend.survey(config, command, private)
    planned = compile_plan(config, command, host, paths)
    warn_unenforced(planned)
    return planned, paths


def warn_unenforced(planned: Plan) -> None:
    if Unenforced not in map(type, planned.enforcement.values()):
        return
    for name, how in planned.enforcement.items():
        if isinstance(how, Unenforced):
            warnings.warn(f"{name} is not enforced: {how.reason}; remedy: {how.remedy}", UnenforcedWarning, stacklevel=5)
            log.unenforced(name, how.reason, how.remedy)


def raise_failure(failed: Failed, hint: str | None) -> NoReturn:
    """Turn a failed step into the exception that a user of subprocess expects; hint: why a command that is there was not run."""
    if failed.step == "exec":
        if failed.errno == 2:
            raise CommandNotFoundError(failed.step, failed.object, failed.errno, hint)
        if failed.errno == 13:
            raise CommandNotExecutableError(failed.step, failed.object, failed.errno, hint)
    raise LaunchError(failed.step, failed.object or None, failed.errno, failed.detail or None)


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


places: weakref.WeakSet[PrivatePlace] = weakref.WeakSet()
"""Private directories of Sandboxes that are there still."""


@functools.lru_cache(maxsize=1)
def remove_at_exit() -> None:
    """See to it that forgotten private directories go at the interpreter's exit, after all that still uses them."""

    def end() -> None:
        shutdown()
        for place in list(places):
            place.remove()

    atexit.register(end)


def private_place(backend: AnyBackend) -> PrivatePlace:
    """Make a directory that goes at the interpreter's exit at the latest."""
    remove_at_exit()
    place = backend.private_place()
    places.add(place)
    return place


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
        self.private: PrivatePlace | None = None
        if self.config.working_dir is None:
            self.private = private_place(current(self.config.backend))
            self.directory = self.private.path

    @overload
    def run(
        self,
        args: Args,
        *,
        input: bytes | str | None = None,
        check: bool = False,
        text: Literal[False] | None = None,
        encoding: None = None,
        errors: None = None,
        **overrides: Unpack[Options],
    ) -> Result: ...

    @overload
    def run(
        self,
        args: Args,
        *,
        input: bytes | str | None = None,
        check: bool = False,
        text: Literal[True],
        encoding: str | None = None,
        errors: str | None = None,
        **overrides: Unpack[Options],
    ) -> Result[str]: ...

    @overload
    def run(
        self,
        args: Args,
        *,
        input: bytes | str | None = None,
        check: bool = False,
        text: bool | None = None,
        encoding: str,
        errors: str | None = None,
        **overrides: Unpack[Options],
    ) -> Result[str]: ...

    @overload
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

