"""What the rooms of the Windows backend are handed: the system's two faces and what stands on them, made once for a process."""

from __future__ import annotations

import os
import tempfile
from typing import NamedTuple

from proc_sandbox.backends.windows.access import AccessControl
from proc_sandbox.backends.windows.appcontainer import CallerGrants
from proc_sandbox.backends.windows.journal import Journal
from proc_sandbox.backends.windows.security import Security
from proc_sandbox.backends.windows.winapi import Win32

__all__ = ["Tools", "make_tools"]


class Tools(NamedTuple):
    """All of them."""

    win32: Win32
    security: Security
    control: AccessControl
    journal: Journal
    callers: CallerGrants
    temporary: str
    """Where private directories are made; without links."""


def make_tools(win32: Win32, security: Security, journal: str = "", temporary: str = "") -> Tools:
    """Return the tools; by default the journal and private directories are kept where the user's own are."""
    control = AccessControl(win32, security)
    kept = Journal(journal or os.path.join(local_data(), "proc-sandbox", "journal"))
    return Tools(win32, security, control, kept, CallerGrants(control, security, kept), temporary or own_temporary())


def local_data() -> str:
    """Return the user's own directory for what stays on this machine; an AppContainer cannot write there."""
    return os.environ.get("LOCALAPPDATA") or os.path.join(os.path.expanduser("~"), "AppData", "Local")


def own_temporary() -> str:
    """Return the user's directory for temporary files; short names (PROGRA~1) are links of a kind too."""
    return os.path.realpath(tempfile.gettempdir()).removeprefix("\\\\?\\")
