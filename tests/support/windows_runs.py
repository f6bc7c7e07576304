"""Whole runs of the Windows backend: on the fake Windows everywhere, and on the one around us, be it Wine."""

from __future__ import annotations

import ntpath
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, cast

import proc_sandbox as ps
from proc_sandbox.backends.windows.backend import WindowsBackend
from proc_sandbox.backends.windows.run import WindowsRun
from proc_sandbox.backends.windows.tools import Tools
from proc_sandbox.host import Paths, SystemPath
from proc_sandbox.planner.windows.plan import WindowsPlan
from proc_sandbox.planner.windows.planner import compile_plan
from proc_sandbox.report import Failed
from proc_sandbox.supervise import Supervisor
from proc_sandbox.verdict import judge
from support.fake_security import FakeSecurity, SecureWin32, fake_tools
from support.windows import act

__all__ = ["FakeRunner", "RealRunner", "Runner"]

CHILD = "C:\\Program Files\\child.exe"
HANG = 120.0
Watch = Callable[[WindowsRun], object]


class Watcher:
    """What execute() asks of a Sandbox while its run is alive."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch

    def hold(self, run: WindowsRun) -> None:
        self.watch(run)

    def let_go(self, run: WindowsRun) -> None:
        """The run has ended."""


class Runner(Protocol):
    """Where a run is done. A child's words are those of support/windows_child.py."""

    real: bool

    def run(self, *words: str, watch: Watch | None = None, data: bytes | None = None, **config: Any) -> ps.Result:
        """Run a child; watch is called with the run once it has begun."""


class FakeRunner:
    """The Windows in memory: it has everything, so enforcement is strict."""

    real = False

    def __init__(self, journal: str) -> None:
        self.tools: Tools = fake_tools(journal, {CHILD.lower(): act, ntpath.normpath(sys.executable).lower(): act})
        self.backend = WindowsBackend(self.tools)
        self.win32 = cast(SecureWin32, self.tools.win32)
        self.security = cast(FakeSecurity, self.tools.security)

    def plan(self, *words: str, **config: Any) -> WindowsPlan:
        paths = Paths((SystemPath("C:\\Windows", "dir"),), executable=CHILD, program=CHILD)
        return compile_plan(ps.Config(**config), ["child", *words], self.backend.probe(), paths)

    def run(self, *words: str, watch: Watch | None = None, data: bytes | None = None, **config: Any) -> ps.Result:
        return self.carry_out(self.plan(*words, **config), ps.Config(**config), watch, data)

    def carry_out(
        self, plan: WindowsPlan, config: ps.Config, watch: Watch | None = None, data: bytes | None = None
    ) -> ps.Result:
        """As sandbox.execute does."""
        supervisor = Supervisor(config.max_output)
        streams = self.backend.open_streams(config, data, supervisor)
        try:
            with self.backend.start(plan, streams) as run:
                streams.release()
                if watch:
                    watch(run)
                outcome = run.communicate(streams)
        finally:
            streams.close()
        if isinstance(outcome, Failed):
            raise ps.LaunchError(outcome.step, outcome.object, outcome.errno, outcome.detail)
        return judge(plan, config, supervisor.report(outcome))

    def check_nothing_is_left(self) -> None:
        self.backend.shutdown()
        assert not self.win32.own_handles(), "handles"
        assert all(process.ended for process in self.win32.processes.values()), "processes"
        assert not [path for path in self.win32.tree if "private" in path], "directories"
        assert (self.security.profiles, self.win32.sids) == (set(), {}), "AppContainers"
        assert not list(self.tools.journal.left()), "entries in the journal"


class RealRunner:
    """The Windows around us; what it lacks goes unenforced."""

    real = True

    def run(self, *words: str, watch: Watch | None = None, data: bytes | None = None, **config: Any) -> ps.Result:
        script = Path(__file__).with_name("windows_child.py")
        config = {"enforcement": "best-effort", "timeout": HANG, "allowed_dirs": [script.parent], **config}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ps.UnenforcedWarning)
            if watch is None:
                return ps.run([sys.executable, "-I", "-S", str(script), *words], input=data, **config)
            from proc_sandbox import sandbox

            command = (sys.executable, "-I", "-S", str(script), *words)
            return sandbox.execute(command, ps.Config(**config), input=data, check=False, sandbox=cast("Any", Watcher(watch)))
