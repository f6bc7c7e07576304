"""What the public face asks of a platform."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, TypeVar

from proc_sandbox.config import Config
from proc_sandbox.host import Host, Paths
from proc_sandbox.planner.model import Plan
from proc_sandbox.report import Ended, Failed, Live
from proc_sandbox.streams import PipeEnd
from proc_sandbox.supervise import Supervisor

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Backend", "HeldRun", "PrivatePlace", "Pump", "Run", "Streams"]


class Streams(Protocol):
    """The command's three streams, opened as the platform has them.

    relayed: a handle's pipes do not lead to the command but to the pump, which has to be stepped all the while.
    """

    relayed: bool

    def release(self) -> None:
        """Close the command's ends, once the command has them."""

    def take(self, name: str) -> int | None:
        """Return our end of a PIPE, which is the caller's from now on, as a descriptor; None: that stream is none."""

    def rest_of(self, name: str) -> bytes:
        """Return what belongs after the end of a pipe from a relay: what it had no room for when the run had ended."""

    def set_size(self, rows: int, columns: int) -> None:
        """Set the size of the terminal that the streams are, if they are one."""

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

    def pump(self, streams: StreamsT_contra, /) -> Pump:
        """Return what moves bytes both ways, step by step, in communicate()'s place."""

    def kill(self) -> None:
        """End the whole tree, which is then cancelled; from any thread, harmless after the end."""

    def close(self) -> None:
        """End the run if it has not ended; returns when nothing that the command began is left."""

    def retire(self) -> None:
        """Close a run that has ended, and that nobody else can name any more: what served it may serve another."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class HeldRun(Run[StreamsT_contra], Protocol[StreamsT_contra]):
    """A run that somebody holds a handle to.

    pid: the command's on the host, None until it has begun, 0 where it had ended before that could be told. answered: the last
    question of what has been used that was answered; answer: with what. Both come in while the pump is at work. outcome: how it ended, once it is known.
    """

    pid: int | None
    answered: int
    answer: Live | None
    outcome: Ended | Failed | None

    def ask(self, what: str) -> None:
        """Ask for something: "end" (gently where the plan has a grace), "signal N" (to the command), "pause" and "resume" (the whole
        tree), "usage N" (question N, which answer will answer); from any thread, harmless after the end.

        Raises:
            UnsupportedError: this system has nothing like it.
        """


class Pump(Protocol):
    """What moves a run's bytes. One thread at a time; a signal handler may come in between.

    waiting: no byte was on its way when an exception left step(): it was a signal handler's.
    """

    waiting: bool

    def collect(self, descriptor: int, keep: Callable[[bytes], object]) -> None:
        """Read what comes from a handle's pipe; the descriptor is the pump's from now on. When the run has ended: all that is there."""

    def feed(self, descriptor: int, data: bytes) -> None:
        """Write to a handle's pipe, then close it; the descriptor is the pump's from now on."""

    def step(self, wait: float | None = None) -> Ended | Failed | None:
        """Wait until something can be done, do it, and return the outcome if there is one; wait: seconds at the most.

        Raises:
            LauncherDiedError: what watches over the run was killed, and the run is dead with it.
        """


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

    def survey(self, config: Config, command: Sequence[str], private: str | None = None) -> tuple[Host, Paths]:
        """Return what this machine can do and where things are, for one run; private: a Sandbox's own directory on the host.

        Raises:
            ConfigError: a directory that is named does not exist.
            CommandNotFoundError: the command does not exist, or is not visible inside.
        """

    def explain(self, paths: Paths) -> str | None:
        """Return why a command that is there could not be executed, where that can be told."""

    def open_streams(
        self, config: Config, data: bytes | None, supervisor: Supervisor, writable: Sequence[str] = (), *, held: bool = False
    ) -> StreamsT:
        """Open what the Config says of the streams; data: what stdin is fed with instead; writable: where a command could have
        put links; held: of PIPEs the caller gets the other ends.

        Raises:
            ConfigError: something cannot be opened.
        """

    def start(self, plan: PlanT_contra, streams: StreamsT, *, held: bool = False) -> Run[StreamsT]:
        """Start a run; held: a HeldRun.

        Raises:
            LauncherDiedError: the launcher was killed since the plan was made; nothing of this run has begun.
        """

    def write_file(self, config: Config, private: str | None, path: str | os.PathLike[str], data: bytes, mode: int) -> None:
        """Write a file anew in the directory in which the Config's runs start; private: a Sandbox's own. It is theirs to read and write,
        and nothing that a command has put on the way leads out of the directory.

        Raises:
            ConfigError: the path lies elsewhere. PlantedLinkError: a link is on the way. OSError: it cannot be written.
        """

    def read_file(self, config: Config, private: str | None, path: str | os.PathLike[str], most: int) -> bytes:
        """Return what such a file holds.

        Raises:
            As write_file(). OSError: EFBIG: it holds more bytes than `most`; EINVAL: it is no regular file.
        """

    def open_pipes(self, count: int) -> list[tuple[PipeEnd, PipeEnd]]:
        """Return pipes between runs, each as what is read from and what is written to; for a Config's streams.

        Raises:
            LaunchError: they cannot be made.
        """

    def communicate(self, stages: Sequence[tuple[Run[StreamsT], StreamsT]]) -> Sequence[Ended | Failed]:
        """Do what Run.communicate() does for several runs at once; where one could not be begun the others are killed.

        Raises:
            LauncherDiedError: what watches over one of them was killed.
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
