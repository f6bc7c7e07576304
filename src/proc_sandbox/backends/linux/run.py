"""A run of the launcher's: what each one needs anew is little."""

from __future__ import annotations

from proc_sandbox.backends.unix.streams import LaunchedRun
from proc_sandbox.launcher.process import Launcher
from proc_sandbox.report import Ended

__all__ = ["LinuxRun"]


class LinuxRun(LaunchedRun):
    """One run. To make and close a socket takes as long as much of a small command. So the next run gets it, where it cannot be told what is
    meant for this one: only if this one was asked for nothing, and its end has been told.
    """

    launcher: Launcher
    asked = retired = False

    def begin(self, words: bytes, descriptors: list[int]) -> None:
        """Start the run."""
        spare = self.launcher.spare()
        if spare is None:
            super().begin(words, descriptors)
            return
        self.socket = spare
        try:
            self.launcher.send(words, descriptors, spare)
        except BaseException:
            self.give_up()
            raise

    def ask(self, what: str) -> None:
        """Ask the launcher for something; harmless after the end."""
        self.asked = True
        if self.socket.fileno() >= 0:
            super().ask(what)

    def disown(self) -> None:
        """Let go of it: later runs of the parent process may have its socket too."""
        self.socket.close()

    def retire(self) -> None:
        """Let the next run have the socket of this one, which has ended, and which nobody else can name any more."""
        if self.asked or type(self.outcome) is not Ended or self.socket.fileno() < 0:
            self.close()
            return
        self.retired = True
        self.launcher.keep(self.socket)

    def close(self) -> None:
        """End the run if it has not ended; returns when nothing that the command began is left."""
        if not self.retired:
            super().close()
