"""What the backends of a Unix do alike: streams, reports, private directories."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from proc_sandbox.backends.unix.links import open_report
from proc_sandbox.backends.unix.streams import DescriptorStreams
from proc_sandbox.config import Config
from proc_sandbox.later import load
from proc_sandbox.supervise import Supervisor

if TYPE_CHECKING:
    from proc_sandbox.backends.unix.private import PrivateDirectory

__all__ = ["UnixBackend"]


class UnixBackend:
    """The common part of two backends."""

    def open_streams(
        self, config: Config, data: bytes | None, supervisor: Supervisor, writable: Sequence[str] = (), *, held: bool = False
    ) -> DescriptorStreams:
        """Open what the Config says of the streams."""
        return DescriptorStreams(config, data, supervisor, writable, held=held)

    def open_report(self, path: str, writable: Sequence[str]) -> int:
        """Open a file of the caller's to be written anew."""
        return open_report(path, writable)

    def private_place(self) -> PrivateDirectory:
        """Make a directory for a Sandbox."""
        # Rarely needed, and not for nothing: it imports tempfile.
        made: PrivateDirectory = load("proc_sandbox.backends.unix.private", "PrivateDirectory", globals())()
        return made
