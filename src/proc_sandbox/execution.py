"""One run, from its Config to its Result: planned, its streams opened, started; judged when it has ended, and undone."""

from __future__ import annotations

import atexit
import functools
import os
import sys
import warnings
import weakref
from collections.abc import Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from proc_sandbox import log
from proc_sandbox.backends import current, shutdown
from proc_sandbox.config import INHERIT, Config, check_command
from proc_sandbox.errors import (
    CommandNotExecutableError,
    CommandNotFoundError,
    LauncherDiedError,
    LaunchError,
    UnenforcedWarning,
)
from proc_sandbox.host import Paths
from proc_sandbox.planner import compile_plan
from proc_sandbox.planner.model import Plan
from proc_sandbox.report import Ended, Failed
from proc_sandbox.result import Result, Unenforced
from proc_sandbox.streams import check_streams
from proc_sandbox.supervise import Supervisor
from proc_sandbox.verdict import judge

if TYPE_CHECKING:
    from typing import Protocol

    from proc_sandbox.backends import AnyBackend
    from proc_sandbox.backends.protocol import PrivatePlace, Run, Streams

    class Holder(Protocol):
        """Who may kill a run that somebody else waits for."""

        def hold(self, run: Run[Any]) -> None:
            """Have a run that has begun killed when it is time, at once if it is already."""

        def let_go(self, run: Run[Any]) -> None:
            """Forget a run that has ended, before it is closed."""


__all__ = ["Args", "Execution", "make_plan", "private_place", "run_to_end", "with_passed_environment"]

Args = Sequence["str | bytes | os.PathLike[str]"]


def with_passed_environment(config: Config) -> Config:
    """Return the Config with the values of pass_env; what env itself gives wins, what is not set stays unset."""
    names = config.pass_env
    if config.pty and INHERIT in (config.stdin, config.stdout):
        names = (*names, "TERM")  # of the terminal that it is joined to
    if not names:
        return config
    passed = {name: os.environ[name] for name in names if name in os.environ}
    return config.replace(env={**passed, **dict(config.env)}, pass_env=())


def make_plan(
    backend: AnyBackend, command: tuple[str, ...], config: Config, private: str | None = None
) -> tuple[Plan, Paths]:
    """Return what will be done for one run, and where things are."""
    host, paths = backend.survey(config, command, private)
    planned = compile_plan(config, command, host, paths)
    warn_unenforced(planned)
    if paths.missing:
        log.not_there(paths.missing)
    return planned, paths


def warn_unenforced(planned: Plan) -> None:
    if Unenforced not in map(type, planned.enforcement.values()):
        return
    for name, how in planned.enforcement.items():
        if isinstance(how, Unenforced):
            text = f"{name} is not enforced: {how.reason}; remedy: {how.remedy}"
            warnings.warn(text, UnenforcedWarning, stacklevel=callers_level())
            log.unenforced(name, how.reason, how.remedy)


def callers_level() -> int:
    """Return the stacklevel, for warn() in our caller, of who called this package."""
    level = 1
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == __package__.partition(".")[0]:
        level += 1
        frame = frame.f_back
    return level


def raise_failure(failed: Failed, hint: str | None) -> NoReturn:
    """Turn a failed step into the exception that a user of subprocess expects; hint: why a command that is there was not run."""
    if failed.step == "exec":
        if failed.errno == 2:
            raise CommandNotFoundError(failed.step, failed.object, failed.errno, hint)
        if failed.errno == 13:
            raise CommandNotExecutableError(failed.step, failed.object, failed.errno, hint)
    raise LaunchError(failed.step, failed.object or None, failed.errno, failed.detail or None)


class Execution:
    """One run that has been started. To be closed, whatever happens.

    Attributes: backend; config; plan; supervisor, what is kept of the output; streams; run, the backend's.
    """

    def __init__(
        self, args: Args, config: Config, *, data: bytes | None = None, private: str | None = None, held: bool = False
    ) -> None:
        """Plan the run, open its streams and start it.

        data: what stdin is fed with; private: a Sandbox's own directory; held: for a handle, which may order.

        Raises:
            ConfigError, UnsupportedError: nothing was started. LaunchError: as run().
        """
        command = check_command(args)
        check_streams(config)
        self.backend = current(config.backend)
        self.place: PrivatePlace | None = None
        if self.backend.needs_directory and not (private or config.working_dir):
            self.place = private_place(self.backend)
            private = self.place.path
        try:
            self.config = with_passed_environment(config)
            self.plan, self.paths = make_plan(self.backend, command, self.config, private)
            self.supervisor = Supervisor(config.max_output)
            self.streams: Streams = self.backend.open_streams(
                self.config, data, self.supervisor, config.writable_places(private), held=held
            )
            try:
                self.number = log.run_begins(command)
                self.run: Run[Any] = self.start(command, private, held=held)
            except BaseException:
                self.streams.close()
                raise
        except BaseException:
            self.remove_place()
            raise
        try:
            self.streams.release()
        except BaseException:  # a signal's exception
            self.close()
            raise

    def start(self, command: tuple[str, ...], private: str | None, *, held: bool) -> Run[Any]:
        try:
            return self.backend.start(self.plan, self.streams, held=held)
        except LauncherDiedError:  # it was killed since its last run: what was planned was for that one
            self.plan, self.paths = make_plan(self.backend, command, self.config, private)
            return self.backend.start(self.plan, self.streams, held=held)

    def result(self, outcome: Ended | Failed) -> Result:
        """Return what the outcome means, once: it is logged.

        Raises:
            LaunchError: the command was not run, for that reason.
        """
        result = self.verdict_on(outcome)
        log.run_ended(self.number, result)
        return result

    def verdict_on(self, outcome: Ended | Failed) -> Result:
        """Return what the outcome means, as far as is known of the output.

        Raises:
            LaunchError: the command was not run, for that reason.
        """
        if isinstance(outcome, Failed):
            raise_failure(outcome, self.backend.explain(self.paths))
        return judge(self.plan, self.config, self.supervisor.report(outcome))

    def close(self) -> None:
        """End the run if it has not ended; returns when nothing of it is left. The caller's own files stay as they were."""
        try:
            self.run.close()
        finally:
            try:
                self.streams.close()
            finally:
                self.remove_place()

    def remove_place(self) -> None:
        place, self.place = self.place, None
        if place is not None:
            place.remove()


def run_to_end(
    args: Args, config: Config, *, data: bytes | None, private: str | None = None, holder: Holder | None = None
) -> Result:
    """Start one run, wait for its end, and return the verdict; nothing of it is left then. holder: who may kill it meanwhile.

    Raises:
        SandboxError: as Execution(), and Execution.result().
    """
    one = Execution(args, config, data=data, private=private)
    try:
        if holder is None:
            outcome = one.run.communicate(one.streams)
        else:
            try:
                holder.hold(one.run)
                outcome = one.run.communicate(one.streams)
            finally:
                holder.let_go(one.run)
        one.run.retire()
    finally:
        one.close()
    return one.result(outcome)


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
