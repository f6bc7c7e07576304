"""What the backends of a Unix do alike: streams, reports, private directories."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from proc_sandbox.backends.files import components
from proc_sandbox.backends.unix.links import open_directory, open_report, resolve
from proc_sandbox.backends.unix.streams import DescriptorStreams, LaunchedRun
from proc_sandbox.config import Config
from proc_sandbox.errors import ConfigError
from proc_sandbox.later import load
from proc_sandbox.report import Ended, Failed
from proc_sandbox.streams import PipeEnd
from proc_sandbox.supervise import Supervisor

if TYPE_CHECKING:
    from proc_sandbox.backends.unix.private import PrivateDirectory

__all__ = ["UnixBackend"]


class UnixBackend:
    """The common part of two backends."""

    opens_null = True
    """Whether a standard input of nothing is opened here; else who starts the run opens it where the first descriptor is missing."""

    def open_streams(
        self, config: Config, data: bytes | None, supervisor: Supervisor, writable: Sequence[str] = (), *, held: bool = False
    ) -> DescriptorStreams:
        """Open what the Config says of the streams."""
        if config.pty:
            made: DescriptorStreams = load("proc_sandbox.backends.unix.terminal", "TerminalStreams", globals())(
                config, data, supervisor, writable, held=held
            )
            return made
        return DescriptorStreams(config, data, supervisor, writable, held=held, opens_null=self.opens_null)

    def open_report(self, path: str, writable: Sequence[str]) -> int:
        """Open a file of the caller's to be written anew."""
        return open_report(path, writable)

    def names_of(self, config: Config, private: str | None) -> tuple[str, ...]:
        """Return the absolute paths by which the directory in which a Config's runs start is known; the first one is the host's.

        Raises:
            ConfigError: there is none that stays.
        """
        top = config.working_dir or private
        if top is None:
            raise ConfigError("path", None, "these runs have no directory that stays")
        return (top,)

    def settle(self, private: str) -> None:
        """See to it that a Sandbox's directory is what its runs need it to be."""

    def write_file(self, config: Config, private: str | None, path: str | os.PathLike[str], data: bytes, mode: int) -> None:
        """Write a file anew in the directory in which the Config's runs start."""
        parts = components(path, self.names_of(config, private))
        with self.place(config, private) as top:
            load("proc_sandbox.backends.unix.files", "write_file", globals())(top, parts, data, mode)

    def read_file(self, config: Config, private: str | None, path: str | os.PathLike[str], most: int) -> bytes:
        """Return what such a file holds."""
        parts = components(path, self.names_of(config, private))
        with self.place(config, private) as top:
            data: bytes = load("proc_sandbox.backends.unix.files", "read_file", globals())(top, parts, most)
            return data

    @contextlib.contextmanager
    def place(self, config: Config, private: str | None) -> Iterator[int]:
        """Open the directory in which the Config's runs start: a Sandbox's own by what it holds it with, whatever its name leads to."""
        if private and not config.working_dir:
            self.settle(private)
            top = os.dup(load("proc_sandbox.backends.unix.private", "find", globals())(private).lock)
        else:
            top = open_directory(resolve(self.names_of(config, private)[0], config.writable_places()).path)
        try:
            yield top
        finally:
            os.close(top)

    def private_place(self) -> PrivateDirectory:
        """Make a directory for a Sandbox."""
        # Rarely needed, and not for nothing: it imports tempfile.
        made: PrivateDirectory = load("proc_sandbox.backends.unix.private", "PrivateDirectory", globals())()
        return made

    def open_pipes(self, count: int) -> list[tuple[PipeEnd, PipeEnd]]:
        """Return pipes between runs."""
        if not count:
            return []
        made: list[tuple[PipeEnd, PipeEnd]] = load("proc_sandbox.backends.unix.pipes", "open_pipes", globals())(count)
        return made

    def communicate(self, stages: Sequence[tuple[LaunchedRun, DescriptorStreams]]) -> list[Ended | Failed]:
        """Move the bytes of several runs until all of them have ended."""
        outcomes: list[Ended | Failed] = load("proc_sandbox.backends.unix.pipes", "communicate", globals())(stages)
        return outcomes
