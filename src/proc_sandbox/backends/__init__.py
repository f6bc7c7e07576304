"""The only code that touches the system; current() is the one place that asks for the platform."""

from __future__ import annotations

import os
import sys
from functools import lru_cache

from proc_sandbox.backends.protocol import Backend
from proc_sandbox.errors import UnsupportedError

if sys.platform == "linux":
    # Here and not in current(): a thread that imports while another one forks leaves the child a lock held for ever.
    from proc_sandbox.backends.linux.backend import LinuxBackend

__all__ = ["Backend", "current"]


@lru_cache(maxsize=1)
def current() -> Backend:
    """Return the backend of this platform.

    Raises:
        UnsupportedError: there is none yet.
    """
    if sys.platform == "linux":
        return LinuxBackend()
    raise UnsupportedError("platform", f"{sys.platform} has no backend yet", "use Linux 5.10 or newer")


if hasattr(os, "register_at_fork"):
    # A lock of the backend's may be held by a thread that the child does not have.
    os.register_at_fork(after_in_child=current.cache_clear)
