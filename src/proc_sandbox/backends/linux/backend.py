"""Linux: joins probe, survey and launcher."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence

from proc_sandbox.backends.linux.probe import host_from_greeting
from proc_sandbox.backends.linux.survey import survey
from proc_sandbox.config import Config
from proc_sandbox.host import Host, Paths
from proc_sandbox.launcher.channel import Channel
from proc_sandbox.launcher.process import launcher
from proc_sandbox.planner.model import Plan
from proc_sandbox.planner.words import encode

__all__ = ["LinuxBackend"]


class LinuxBackend:
    """The backend of Linux."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.host: tuple[int, Host] | None = None

    def probe(self) -> Host:
        """Return what this machine can do; found out once per process."""
        if self.host is None or self.host[0] != os.getpid():
            host = host_from_greeting(launcher().greeting)
            self.host = (os.getpid(), host)
        return self.host[1]

    def survey(self, config: Config, command: Sequence[str]) -> Paths:
        """Return where things are, for one run."""
        return survey(config, command)

    def start(self, plan: Plan, descriptors: list[int]) -> Channel:
        """Start a run with its streams and passed descriptors."""
        return Channel(launcher(empty_network=plan.network != "host"), encode(plan), descriptors)
