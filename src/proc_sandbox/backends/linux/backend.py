"""Linux: joins probe, survey and launcher."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from proc_sandbox.backends.linux.probe import host_from_greeting
from proc_sandbox.backends.linux.survey import hidden_interpreter, survey
from proc_sandbox.config import Config
from proc_sandbox.errors import LauncherDiedError
from proc_sandbox.host import Host, Paths
from proc_sandbox.launcher.channel import Channel
from proc_sandbox.launcher.process import Launcher, launcher
from proc_sandbox.planner.model import Plan
from proc_sandbox.planner.words import encode

__all__ = ["LinuxBackend"]


class LinuxBackend:
    """The backend of Linux."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.host: tuple[Launcher, Host] | None = None

    def probe(self) -> Host:
        """Return what this machine can do; found out once for each launcher."""
        current = launcher()
        host = self.host
        if host is None or host[0] is not current:
            with self.lock:
                host = self.host = (current, host_from_greeting(current.greeting))
        return host[1]

    def survey(self, config: Config, command: Sequence[str], private: str | None = None) -> Paths:
        """Return where things are, for one run; private: a Sandbox's own directory on the host."""
        return survey(config, command, private)

    def explain(self, paths: Paths) -> str | None:
        """Return why a command that is there could not be executed: the interpreter of a script is missing inside."""
        return hidden_interpreter(paths)

    def start(self, plan: Plan, descriptors: list[int]) -> Channel:
        """Start a run with its streams and passed descriptors."""
        words = encode(plan)
        empty_network = plan.network != "host"
        try:
            return Channel(launcher(empty_network=empty_network), words, descriptors)
        except LauncherDiedError:  # it was killed after its last run; nothing of this one has begun
            return Channel(launcher(empty_network=empty_network), words, descriptors)
