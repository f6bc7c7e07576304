"""Surveys that are kept: for runs that name no path of the host's, most of what is looked up is the same each time."""

from __future__ import annotations

import os
import sys
from collections.abc import Hashable, Sequence
from typing import NamedTuple

from proc_sandbox.backends.linux.survey import CanIdmap, Survey, Version, survey, version_of
from proc_sandbox.config import Config
from proc_sandbox.host import Host, Paths

__all__ = ["Owner", "Surveys"]

MOST_KEPT = 256


Owner = tuple[int, int, int, int]
"""A Sandbox's own directory: device and inode, by which it is known, and its uid and gid."""


class Kept(NamedTuple):
    """Where things are as long as the program is of that version."""

    paths: Paths
    version: Version


class Surveys:
    """Makes surveys for runs on one Host, and keeps those that do not depend on paths that the Config names.

    What it names is looked up for every run: between two of them a command may have put a link there. Else only the program can
    change, which is looked at again. Not looked at again is what would only be told in other words, or harms nobody:

    - another program of the name earlier on the same PATH, as with a shell's table of commands, or another current directory for a
      PATH that is relative;
    - whether the program may still be executed by us (its file system was mounted again with noexec), or is reached by other links,
      of which one is not visible inside: then the launcher does not execute it either;
    - whether the file systems of the system's own private directories can be shown as another user's: then it cannot mount them.
    """

    def __init__(self, host: Host, can_idmap: CanIdmap) -> None:
        self.host = host
        self.can_idmap = can_idmap
        self.kept: dict[Hashable, Kept] = {}

    def find(self, config: Config, command: Sequence[str], private: str | None, owner: Owner | None) -> Paths:
        """Return where things are, for one run; owner: of the private directory. See Backend.survey for what it raises."""
        if config.names_paths or config.read_bps or config.write_bps:  # disks come and go
            return self.survey(config, command, private).paths
        name = command[0]
        path = dict(config.env).get("PATH") if config.env else None
        # environb: the other one decodes what is only compared.
        key = (name, private, owner, config.network_access is True, path, os.environb.get(b"PATH"), sys.executable)
        kept = self.kept.get(key)
        if kept is not None and version_of(kept.paths.program) == kept.version:
            return kept.paths
        paths, version = self.survey(config, command, private)
        if version is not None and ("/" not in name or name.startswith("/")):  # else it depends on the current directory
            self.keep(key, Kept(paths, version))
        return paths

    def survey(self, config: Config, command: Sequence[str], private: str | None) -> Survey:
        return survey(config, command, self.can_idmap, private, contained=bool(self.host.namespaces))

    def keep(self, key: Hashable, kept: Kept) -> None:
        if len(self.kept) >= MOST_KEPT:
            self.kept.clear()
        self.kept[key] = kept
