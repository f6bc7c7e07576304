"""What the public face asks of a platform."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from proc_sandbox.config import Config
from proc_sandbox.host import Host, Paths
from proc_sandbox.launcher.channel import Channel
from proc_sandbox.planner.model import Plan

__all__ = ["Backend"]


class Backend(Protocol):
    """One platform."""

    def probe(self, *, cgroups: bool = True) -> Host:
        """Return what this machine can do, found out once; without cgroups: what no limit asks for is not looked for."""

    def survey(self, config: Config, command: Sequence[str], private: str | None = None) -> Paths:
        """Return where things are, for one run; private: a Sandbox's own directory on the host.

        Raises:
            ConfigError: a directory that is named does not exist.
            CommandNotFoundError: the command does not exist, or is not visible inside.
        """

    def explain(self, paths: Paths) -> str | None:
        """Return why a command that is there could not be executed, where that can be told."""

    def start(self, plan: Plan, descriptors: list[int]) -> Channel:
        """Start a run with its streams and passed descriptors.

        Raises:
            LauncherDiedError: the launcher was killed since the plan was made; nothing of this run has begun.
        """
