"""What the public face asks of a platform."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, TypeVar

from proc_sandbox.config import Config
from proc_sandbox.host import Host, Paths
from proc_sandbox.planner.model import Plan
from proc_sandbox.report import Ended, Failed
from proc_sandbox.supervise import Supervisor

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Backend", "PrivatePlace", "Run", "Streams"]


class Streams(Protocol):
    """The command's three streams, opened as the platform has them."""

    def release(self) -> None:
        """Close the command's ends, once the command has them."""

    def close(self) -> None:
        """Close everything that was opened; the caller's own stay as they were."""


StreamsT = TypeVar("StreamsT", bound=Streams)
StreamsT_contra = TypeVar("StreamsT_contra", bound=Streams, contravariant=True)
PlanT_contra = TypeVar("PlanT_contra", bound=Plan, contravariant=True)


class Run(Protocol[StreamsT_contra]):
    """One execution in progress."""

    def communicate(self, streams: StreamsT_contra, /) -> Ended | Failed:
        """Move bytes both ways until the run has ended, then take what the pipes still hold.

        Raises:
            LauncherDiedError: what watches over the run was killed, and the run is dead with it.
        """

    def kill(self) -> None:
        """End the whole tree, which is then cancelled; from any thread, harmless after the end."""

    def close(self) -> None:
        """End the run if it has not ended; returns when nothing that the command began is left."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class PrivatePlace(Protocol):
    """A directory of a Sandbox's own. path: where it lies on the host, without links."""

    path: str

    def remove(self) -> None:
        """Remove it with all that is in it, whatever a command has left there; harmless when done twice.

        Raises:
            OSError: something in it could not be removed; it can be tried again.
        """


class Backend(Protocol[PlanT_contra, StreamsT]):
    """One platform: what plans of its planner it carries out, and as what it opens streams."""

    name: str
    needs_directory: bool
    """A run without a working directory has none of its own unless the caller makes one: private_place()."""

    def probe(self, config: Config | None = None) -> Host:
        """Return what this machine can do, found out once; with a Config: what none of its limits asks for need not be known."""

    def is_ready(self, config: Config) -> bool:
        """Return whether start() would not have to wait for anything to be started, tried or answered first."""

    def get_ready(self, config: Config) -> None:
        """Do beforehand what start() would have to wait for.

        Raises:
            UnsupportedError: as probe(). LauncherDiedError: what serves runs cannot be started.
        """

    def survey(self, config: Config, command: Sequence[str], private: str | None = None) -> Paths:
        """Return where things are, for one run; private: a Sandbox's own directory on the host.

        Raises:
            ConfigError: a directory that is named does not exist.
            CommandNotFoundError: the command does not exist, or is not visible inside.
        """

    def explain(self, paths: Paths) -> str | None:
        """Return why a command that is there could not be executed, where that can be told."""

    def open_streams(
        self, config: Config, data: bytes | None, supervisor: Supervisor, writable: Sequence[str] = ()
    ) -> StreamsT:
        """Open what the Config says of the streams; data: what stdin is fed with instead; writable: where a command could have
        put links.

        Raises:
            ConfigError: something cannot be opened.
        """

    def start(self, plan: PlanT_contra, streams: StreamsT) -> Run[StreamsT]:
        """Start a run.

        Raises:
            LauncherDiedError: the launcher was killed since the plan was made; nothing of this run has begun.
        """

    def by_hand(self, plan: PlanT_contra) -> str | None:
        """Return the shell command that repeats a run; None where no program carries plans out."""

    def open_report(self, path: str, writable: Sequence[str]) -> int:
        """Open a file of the caller's to be written anew, as a descriptor; no link that a command may have made is followed.

        Raises:
            OSError: it cannot be opened.
        """

    def private_place(self) -> PrivatePlace:
        """Make a directory for a Sandbox; removed at the latest when the interpreter exits."""

    def shutdown(self) -> None:
        """End what serves the runs of this process, and all runs; harmless when there is nothing."""
