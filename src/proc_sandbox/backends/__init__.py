"""The only code that touches the system; current() is the one place that asks for the platform."""

from __future__ import annotations

import sys
from functools import lru_cache

from proc_sandbox.backends.protocol import Backend
from proc_sandbox.errors import UnsupportedError

__all__ = ["Backend", "current"]


@lru_cache(maxsize=1)
def current() -> Backend:
    """Return the backend of this platform.

    Raises:
        UnsupportedError: there is none yet.
    """
    if sys.platform == "linux":
        from proc_sandbox.backends.linux.backend import LinuxBackend

        return LinuxBackend()
    raise UnsupportedError("platform", f"{sys.platform} has no backend yet", "use Linux 5.12 or newer")
