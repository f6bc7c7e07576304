"""Linux: joins probe, survey and launcher."""

import errno
import os
import threading
import weakref
from collections.abc import Sequence
from typing import NamedTuple

from proc_sandbox.backends.linux.cgroup import admit
from proc_sandbox.backends.linux.probe import host_from_greeting, with_cgroups
from proc_sandbox.backends.linux.survey import give_away, hidden_interpreter, survey
from proc_sandbox.backends.linux.systemd import ScopeError
from proc_sandbox.backends.unix.backend import UnixBackend
from proc_sandbox.backends.unix.streams import DescriptorStreams, LaunchedRun
from proc_sandbox.config import Config
from proc_sandbox.errors import LaunchError
from proc_sandbox.host import Host, Paths
from proc_sandbox.launcher.process import Launcher, launcher, launcher_path, shutdown
from proc_sandbox.planner.linux.plan import LinuxPlan
from proc_sandbox.planner.linux.planner import needs_cgroups
from proc_sandbox.planner.unix.words import encode

__all__ = ["LinuxBackend"]


NO_LIMITS = Config()


class Known(NamedTuple):
    """What was found out with one launcher: the Host without cgroups, and with them once they were looked for."""

    launcher: Launcher | None = None
    bare: Host | None = None
    whole: Host | None = None


class LinuxBackend(UnixBackend):
    """The backend of Linux."""

    name = "linux"
    needs_directory = False  # it lies in the run's own /tmp

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.known = Known()
        self.idmaps: dict[tuple[int, int], bool] = {}
        self.admitted: weakref.WeakSet[Launcher] = weakref.WeakSet()

    def probe(self, config: Config | None = None) -> Host:
        """Return what this machine can do; found out once for each launcher, the cgroups when a limit first needs them.

        Raises:
            UnsupportedError: nothing at all can be run here. LauncherDiedError: the launcher cannot be started.
        """
        cgroups = config is None or needs_cgroups(config)
        current, known = launcher(), self.known
        host = known.whole or (None if cgroups else known.bare)
        if host is not None and known.launcher is current:
            return host
        with self.lock:
            return self.look(current, cgroups=cgroups)

    def look(self, current: Launcher, *, cgroups: bool) -> Host:
        known = self.known if self.known.launcher is current else Known(current)
        bare, whole = known.bare or host_from_greeting(current.greeting), known.whole
        if cgroups and whole is None:
            whole = with_cgroups(bare, current.pid)
        self.known = Known(current, bare, whole)
        return whole or bare

    def survey(self, config: Config, command: Sequence[str], private: str | None = None) -> Paths:
        """Return where things are, for one run; private: a Sandbox's own directory on the host."""
        host = self.probe(NO_LIMITS)
        if private and not config.working_dir:
            self.make_own(private, host)
        return survey(config, command, self.can_idmap, private, contained=bool(host.namespaces))

    def make_own(self, private: str, host: Host) -> None:
        """See to it that a Sandbox's directory is its runs' own, where no mount can show it so.

        Raises:
            LaunchError: something else has taken its place. UnsupportedError: there is no user left to give it to.
        """
        from proc_sandbox.backends.unix.private import find  # it is there already when there is one

        directory = find(private)
        directory.check()
        if directory.settled:
            return
        if host.uid_range and (host.own_uid or not self.can_idmap(private, os.fstat(directory.lock).st_dev)):
            give_away(directory, host.uid_range)
        directory.settled = True

    def can_idmap(self, path: str, device: int) -> bool:
        """Return whether a path's file system can be idmapped, as the launcher tried; asked once for each file system."""
        if not self.probe(NO_LIMITS).root:
            return True
        key = (device, os.statvfs(path).f_fsid)  # numbers of devices without a disk are given again
        if key not in self.idmaps:
            self.idmaps[key] = launcher().try_idmap(path) == 0
        return self.idmaps[key]

    def explain(self, paths: Paths) -> str | None:
        """Return why a command that is there could not be executed: the interpreter of a script is missing inside."""
        return hidden_interpreter(paths)

    def start(self, plan: LinuxPlan, streams: DescriptorStreams) -> LaunchedRun:
        """Start a run with its streams and passed descriptors."""
        return LaunchedRun(self.launcher_for(plan), encode(plan), streams.theirs)

    def launcher_for(self, plan: LinuxPlan) -> Launcher:
        """Return a launcher in the plan's network, and where the plan's cgroups can be used."""
        found = launcher(empty_network=plan.network != "host")
        host = self.known.whole
        if plan.cgroup and host and host.cgroup and host.cgroup.scope and found is not self.known.launcher:
            with self.lock:
                if found not in self.admitted:
                    try:
                        admit(host.cgroup, found.pid)
                    except ScopeError as error:
                        raise LaunchError("cgroup", host.cgroup.scope, errno.EIO, str(error)) from error
                    self.admitted.add(found)
        return found

    def by_hand(self, plan: LinuxPlan) -> str:
        """Return the launcher's command line for a plan."""
        return plan.command_line(launcher_path())

    def shutdown(self) -> None:
        """End the launchers of this process with all their runs."""
        shutdown()
