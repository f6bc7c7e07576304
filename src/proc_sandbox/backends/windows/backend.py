"""Windows: joins probe, survey and runs."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Sequence

from proc_sandbox.backends.windows.access import ITSELF, SHARED, extended
from proc_sandbox.backends.windows.appcontainer import undo
from proc_sandbox.backends.windows.links import open_named
from proc_sandbox.backends.windows.private import PrivateDirectory, sweep
from proc_sandbox.backends.windows.probe import probe
from proc_sandbox.backends.windows.run import WindowsRun
from proc_sandbox.backends.windows.security import ALL_APPLICATION_PACKAGES, READ_CONTROL
from proc_sandbox.backends.windows.streams import Streams
from proc_sandbox.backends.windows.survey import survey
from proc_sandbox.backends.windows.tools import Tools, make_tools
from proc_sandbox.backends.windows.winapi import GENERIC_WRITE, OPEN_EXISTING
from proc_sandbox.config import Config
from proc_sandbox.host import Host, Paths
from proc_sandbox.planner.windows.plan import WindowsPlan
from proc_sandbox.supervise import Supervisor

__all__ = ["WindowsBackend"]

EVERY_APP = (f";{ALL_APPLICATION_PACKAGES})", ";AC)")
"""How an entry for all AppContainers ends, by number and by its short name. "SID Strings" """


class WindowsBackend:
    """The backend of Windows."""

    name = "windows"
    needs_directory = False  # it is made with the run, whose access it needs

    def __init__(self, tools: Tools | None = None) -> None:
        self.tools = tools or own_tools()
        self.lock = threading.Lock()
        self.host: Host | None = None
        self.user = ""
        self.runs: weakref.WeakSet[WindowsRun] = weakref.WeakSet()

    def probe(self, config: Config | None = None) -> Host:
        """Return what this machine can do; found out once, when what dead callers have left has been undone."""
        with self.lock:
            if self.host is None:
                self.tools.journal.sweep(lambda entry: undo(self.tools.control, self.tools.security, entry))
                self.user = self.own_user()
                sweep(self.tools, self.user)
                self.host = probe(self.tools)
            return self.host

    def is_ready(self, config: Config) -> bool:
        """Return False: a run's own directory is made, and access to what it needs is granted, before it begins."""
        return False

    def get_ready(self, config: Config) -> None:
        """Probe."""
        self.probe(config)

    def own_user(self) -> str:
        win32, security = self.tools.win32, self.tools.security
        token = security.process_token(win32.current_process())
        try:
            return security.user(token)
        finally:
            win32.close(token)

    def survey(self, config: Config, command: Sequence[str], private: str | None = None) -> Paths:
        """Return where things are, for one run."""
        contained = bool(self.probe().feature("appcontainer"))
        readable = self.readable_by_apps if contained else lambda path: True
        return survey(self.tools.win32, config, command, private, contained=contained, readable=readable, journal=self.tools.journal.directory)

    def readable_by_apps(self, path: str) -> bool:
        """Return whether a directory can be read in every AppContainer as it is: where programs are installed for all users."""
        win32 = self.tools.win32
        handle = win32.open_file(extended(path), READ_CONTROL, SHARED, OPEN_EXISTING, ITSELF)
        try:
            dacl = self.tools.security.dacl(handle)
        finally:
            win32.close(handle)
        return any(end in dacl for end in EVERY_APP)

    def explain(self, paths: Paths) -> str | None:
        """Return why a command that is there could not be executed: nothing more than Windows says is known."""
        return None

    def open_streams(
        self, config: Config, data: bytes | None, supervisor: Supervisor, writable: Sequence[str] = ()
    ) -> Streams:
        """Open what the Config says of the streams."""
        return Streams(self.tools.win32, config, data, supervisor, writable)

    def start(self, plan: WindowsPlan, streams: Streams) -> WindowsRun:
        """Start a run."""
        self.probe()
        run = WindowsRun(self.tools, plan, streams, self.user)
        self.runs.add(run)
        return run

    def by_hand(self, plan: WindowsPlan) -> str | None:
        """Return None: no program carries plans out."""
        return None

    def open_report(self, path: str, writable: Sequence[str]) -> int:
        """Open a file of the caller's to be written anew."""
        import msvcrt  # there is none elsewhere, where this backend is only type-checked and tried on a fake

        handle = open_named(self.tools.win32, path, GENERIC_WRITE, writable)
        return msvcrt.open_osfhandle(handle, os.O_WRONLY | getattr(os, "O_BINARY", 0))  # type: ignore[attr-defined,unused-ignore,no-any-return]

    def private_place(self) -> PrivateDirectory:
        """Make a directory for a Sandbox."""
        self.probe()
        return PrivateDirectory(self.tools, self.user)

    def shutdown(self) -> None:
        """End all runs; take back what runs of this process had in common."""
        for run in list(self.runs):
            run.kill()
        self.tools.callers.take_back()


def own_tools() -> Tools:
    """Return the tools of the Windows around us."""
    from proc_sandbox.backends.windows.native import Native  # opens the system's libraries
    from proc_sandbox.backends.windows.native_security import NativeSecurity

    return make_tools(Native(), NativeSecurity())
