"""Linux: joins probe, survey and launcher."""

import errno
import os
import threading
import weakref
from collections.abc import Sequence
from typing import NamedTuple

from proc_sandbox import log
from proc_sandbox.backends.linux.cgroup import admit
from proc_sandbox.backends.linux.probe import host_from_greeting, with_cgroups
from proc_sandbox.backends.linux.run import LinuxRun
from proc_sandbox.backends.linux.survey import give_away, hidden_interpreter
from proc_sandbox.backends.linux.surveys import Owner, Surveys
from proc_sandbox.backends.linux.systemd import ScopeError
from proc_sandbox.backends.unix.backend import UnixBackend
from proc_sandbox.backends.unix.streams import DescriptorStreams
from proc_sandbox.config import Config
from proc_sandbox.errors import LaunchError
from proc_sandbox.host import Host, Paths
from proc_sandbox.launcher.process import Launcher, launcher, launcher_path, running, shutdown
from proc_sandbox.planner.linux.filesystem import PRIVATE_DIRECTORY
from proc_sandbox.planner.linux.plan import LinuxPlan
from proc_sandbox.planner.linux.planner import needs_cgroups
from proc_sandbox.planner.unix.words import encode
from proc_sandbox.visible import printable

__all__ = ["LinuxBackend"]


NO_LIMITS = Config()


class Known(NamedTuple):
    """What was found out with one launcher: the Host, whether its cgroups were looked for yet, and by surveys."""

    launcher: Launcher
    host: Host
    cgroups: bool
    surveys: Surveys


def tell_of_cgroups(host: Host) -> None:
    """Log where cgroups come from, or why there are none; no lock is held."""
    found = host.cgroup
    if found is None:
        why = host.feature("cgroup2").reason or host.feature("cgroup1").reason
        log.tell(log.INFO, "no cgroups, so what they would limit is sampled: %s", printable(why))
    elif found.scope:
        log.tell(log.INFO, "the user's systemd was asked for cgroups, and has delegated %s", printable(found.scope))
    else:
        log.tell(log.INFO, "cgroups of version %d: %s", found.version, ", ".join(name for name, _ in found.directories))


class LinuxBackend(UnixBackend):
    """The backend of Linux."""

    name = "linux"
    needs_directory = False  # it lies in the run's own /tmp
    opens_null = False  # the launcher does, for prepared sandboxes ahead of time

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.known: Known | None = None
        self.idmaps: dict[tuple[int, int], bool] = {}
        self.admitted: weakref.WeakSet[Launcher] = weakref.WeakSet()

    def probe(self, config: Config | None = None) -> Host:
        """Return what this machine can do; found out once for each launcher, the cgroups when a limit first needs them.

        Raises:
            UnsupportedError: nothing at all can be run here. LauncherDiedError: the launcher cannot be started.
        """
        return self.known_for(config).host

    def known_for(self, config: Config | None) -> Known:
        """Return what is known with the launcher that there is now, with all that the Config makes use of."""
        current, known = launcher(), self.known
        if known and known.launcher is current and (known.cgroups or config is not None and not needs_cgroups(config)):
            return known
        with self.lock:
            found = self.look(current, cgroups=config is None or needs_cgroups(config))
            fresh = found.cgroups and found is not self.known
            self.known = found
        if fresh:
            tell_of_cgroups(found.host)
        return found

    def is_ready(self, config: Config) -> bool:
        """Return whether the launcher has greeted, lives, and has the cgroups that the Config makes use of."""
        known = self.known
        return (
            known is not None
            and known.launcher is running()
            and (known.cgroups or not needs_cgroups(config))
            and (config.network_access is not True or running(empty_network=False) is not None)
        )

    def get_ready(self, config: Config) -> None:
        """Start the launcher, and look for cgroups if need be."""
        self.probe(config)
        if config.network_access is True:
            launcher(empty_network=False)

    def look(self, current: Launcher, *, cgroups: bool) -> Known:
        known = self.known if self.known and self.known.launcher is current else None
        if known and (known.cgroups or not cgroups):
            return known  # another thread was faster
        host = known.host if known else host_from_greeting(current.greeting)
        if cgroups:
            host = with_cgroups(host, current.pid)
        return Known(current, host, cgroups, Surveys(host, self.can_idmap))

    def survey(self, config: Config, command: Sequence[str], private: str | None = None) -> tuple[Host, Paths]:
        """Return what this machine can do and where things are, for one run; private: a Sandbox's own directory on the host."""
        known = self.known_for(config)
        owner = self.make_own(private, known.host) if private and not config.working_dir else None
        return known.host, known.surveys.find(config, command, private, owner)

    def settle(self, private: str) -> None:
        """See to it that a Sandbox's directory is its runs' own, before anything is put into it."""
        self.make_own(private, self.known_for(NO_LIMITS).surveys.host)

    def names_of(self, config: Config, private: str | None) -> tuple[str, ...]:
        """Return the absolute paths by which the directory in which a Config's runs start is known."""
        return super().names_of(config, private) + (() if config.working_dir else (PRIVATE_DIRECTORY,))

    def make_own(self, private: str, host: Host) -> Owner:
        """See to it that a Sandbox's directory is its runs' own, where no mount can show it so; return whose it is.

        Raises:
            LaunchError: something else has taken its place. UnsupportedError: there is no user left to give it to.
        """
        from proc_sandbox.backends.unix.private import find  # it is there already when there is one

        directory = find(private)
        status = directory.check()
        if not directory.settled:
            if host.uid_range and (host.own_uid or not self.can_idmap(private, status.st_dev)):
                give_away(directory, host.uid_range)
                status = directory.check()
            directory.settled = True
        return status.st_dev, status.st_ino, status.st_uid, status.st_gid

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

    def start(self, plan: LinuxPlan, streams: DescriptorStreams, *, held: bool = False) -> LinuxRun:
        """Start a run with its streams and passed descriptors."""
        plan = plan.at_terminal(streams.terminal)
        streams.run = run = LinuxRun(self.launcher_for(plan), encode(plan, held=held), streams.theirs)
        return run

    def launcher_for(self, plan: LinuxPlan) -> Launcher:
        """Return a launcher in the plan's network, and where the plan's cgroups can be used."""
        found = launcher(empty_network=plan.network != "host")
        known = self.known
        cgroup = known.host.cgroup if known else None
        if plan.cgroup and known and cgroup and cgroup.scope and found is not known.launcher:
            with self.lock:
                if found not in self.admitted:
                    try:
                        admit(cgroup, found.pid)
                    except ScopeError as error:
                        raise LaunchError("cgroup", cgroup.scope, errno.EIO, str(error)) from error
                    self.admitted.add(found)
        return found

    def by_hand(self, plan: LinuxPlan) -> str | None:
        """Return the launcher's command line for a plan; None where a terminal has to be made for it."""
        return None if plan.terminal else plan.command_line(launcher_path())

    def shutdown(self) -> None:
        """End the launchers of this process with all their runs."""
        shutdown()
