"""Windows: joins probe, survey and runs."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Sequence

from proc_sandbox.backends.files import components
from proc_sandbox.backends.windows.access import ITSELF, SHARED, extended
from proc_sandbox.backends.windows.appcontainer import undo
from proc_sandbox.backends.windows.files import read_file, write_file
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
from proc_sandbox.report import Ended, Failed
from proc_sandbox.streams import PipeEnd
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

    def survey(self, config: Config, command: Sequence[str], private: str | None = None) -> tuple[Host, Paths]:
        """Return what this machine can do and where things are, for one run."""
        host = self.probe(config)
        contained = bool(host.feature("appcontainer"))
        readable = self.readable_by_apps if contained else lambda path: True
        journal = self.tools.journal.directory
        return host, survey(self.tools.win32, config, command, private, contained=contained, readable=readable, journal=journal)

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
        self, config: Config, data: bytes | None, supervisor: Supervisor, writable: Sequence[str] = (), *, held: bool = False
    ) -> Streams:
        """Open what the Config says of the streams."""
        return Streams(self.tools.win32, config, data, supervisor, writable, held=held)

    def start(self, plan: WindowsPlan, streams: Streams, *, held: bool = False) -> WindowsRun:
        """Start a run; one that is held is no other."""
        del held
        self.probe()
        run = WindowsRun(self.tools, plan, streams, self.user)
        self.runs.add(run)
        return run

    def write_file(self, config: Config, private: str | None, path: str | os.PathLike[str], data: bytes, mode: int) -> None:
        """Write a file anew in the directory in which the Config's runs start; the directories on the way must be there, and modes say
        nothing here.
        """
        del mode
        top, writable = config.working_dir or private or "", config.writable_places(private)
        write_file(self.tools.win32, top, components(path, (top,), windows=True), data, writable)

    def read_file(self, config: Config, private: str | None, path: str | os.PathLike[str], most: int) -> bytes:
        """Return what such a file holds."""
        top, writable = config.working_dir or private or "", config.writable_places(private)
        return read_file(self.tools.win32, top, components(path, (top,), windows=True), most, writable)

    def open_pipes(self, count: int) -> list[tuple[PipeEnd, PipeEnd]]:
        """Return pipes between runs: each end is a handle with its own rights ("CreatePipe"), which no name opens again."""
        found: list[tuple[PipeEnd, PipeEnd]] = []
        try:
            for _ in range(count):
                reader, writer = os.pipe()
                found.append((PipeEnd(reader), PipeEnd(writer)))
        except BaseException:
            for ends in found:
                for end in ends:
                    end.close()
            raise
        return found

    def communicate(self, stages: Sequence[tuple[WindowsRun, Streams]]) -> list[Ended | Failed]:
        """Move the bytes of several runs until all of them have ended, with a thread for each but the last."""
        together = Together([run for run, _ in stages])
        for number, stage in enumerate(stages[:-1]):
            threading.Thread(target=together.see_through, args=(number, *stage), daemon=True).start()
        together.see_through(len(stages) - 1, *stages[-1])
        return together.outcomes()

    def by_hand(self, plan: WindowsPlan) -> str | None:
        """Return None: no program carries plans out."""
        return None

    def open_report(self, path: str, writable: Sequence[str]) -> int:
        """Open a file of the caller's to be written anew."""
        return self.tools.win32.open_descriptor(open_named(self.tools.win32, path, GENERIC_WRITE, writable), os.O_WRONLY)

    def private_place(self) -> PrivateDirectory:
        """Make a directory for a Sandbox."""
        self.probe()
        return PrivateDirectory(self.tools, self.user)

    def shutdown(self) -> None:
        """End all runs; take back what runs of this process had in common."""
        for run in list(self.runs):
            run.kill()
        self.tools.callers.take_back()


class Together:
    """Runs that go on at the same time, and what became of each."""

    def __init__(self, runs: Sequence[WindowsRun]) -> None:
        self.runs = runs
        self.found: dict[int, Ended | Failed | BaseException] = {}
        self.ended = threading.Condition()

    def see_through(self, number: int, run: WindowsRun, streams: Streams) -> None:
        """Move one run's bytes until it has ended; where it could not be begun, or one of the caller's files failed, kill the others."""
        outcome: Ended | Failed | BaseException
        try:
            outcome = run.communicate(streams)
        except BaseException as error:  # noqa: BLE001 - raised again by outcomes()
            outcome = error
        if not isinstance(outcome, Ended):
            for other in self.runs:
                if other is not run:
                    other.kill()
        with self.ended:
            self.found[number] = outcome
            self.ended.notify_all()

    def outcomes(self) -> list[Ended | Failed]:
        """Wait for all of them; return their outcomes, or raise what one of them raised."""
        with self.ended:
            self.ended.wait_for(lambda: len(self.found) == len(self.runs))
        outcomes = []
        for _, outcome in sorted(self.found.items()):
            if isinstance(outcome, BaseException):
                raise outcome
            outcomes.append(outcome)
        return outcomes


def own_tools() -> Tools:
    """Return the tools of the Windows around us."""
    from proc_sandbox.backends.windows.native import Native  # opens the system's libraries
    from proc_sandbox.backends.windows.native_security import NativeSecurity

    return make_tools(Native(), NativeSecurity())
