"""The only code that touches the system; current() is the one place that asks for the platform."""

from __future__ import annotations

import os
import sys
import warnings
from typing import TYPE_CHECKING

from proc_sandbox.config import Config
from proc_sandbox.errors import UnenforcedWarning, UnsupportedError
from proc_sandbox.later import load

if TYPE_CHECKING:  # protocols cost milliseconds to make, and nothing asks for them
    from typing import Any

    from proc_sandbox.backends.protocol import Backend

    AnyBackend = Backend[Any, Any]
    """Each one is only ever given plans of its own planner and streams of its own."""

__all__ = ["begin", "current", "get_ready", "is_ready", "shutdown"]

BEST = {"linux": "linux", "win32": "windows"}.get(sys.platform, "posix")
HERE = {"linux": ("linux", "posix"), "win32": ("windows",)}.get(sys.platform, ("posix",))

made: dict[str, AnyBackend] = {}


def current(name: str | None = None) -> AnyBackend:
    """Return the backend of that name, or the best one that works on this system.

    Raises:
        UnsupportedError: this system has none of that name.
    """
    found = made.get(name or BEST)
    if found is None:
        if name is not None and name not in HERE:
            raise UnsupportedError("backend", f"{sys.platform} has no backend {name!r}", f"{' or '.join(HERE)}; or name none")
        found = made.setdefault(name or BEST, make(name) if name else best())
    return found


def best() -> AnyBackend:
    """Return this system's own backend; where Linux's can do nothing at all, what every Unix can, which isolates nothing and is
    refused for that unless the caller accepts it.
    """
    backend = make(BEST)
    if BEST == "linux":
        try:
            backend.probe(Config())
        except UnsupportedError as why:
            warnings.warn(f"runs have the POSIX backend: {why}", UnenforcedWarning, stacklevel=5)
            return current("posix")
    return backend


def make(name: str) -> AnyBackend:
    backend: AnyBackend = load(f"{__name__}.{name}.backend", f"{name.capitalize()}Backend", globals())()
    return backend


def begin(name: str | None = None) -> None:
    """Start what will serve the runs of the backend of that name, or of the best one, without waiting for it; harmless where
    nothing can be begun early.

    Raises:
        LauncherDiedError: the launcher cannot be started.
    """
    if sys.platform == "linux" and (name or BEST) == "linux":
        from proc_sandbox.launcher.process import begin as begin_launcher

        begin_launcher()


def is_ready(config: Config) -> bool:
    """Return whether a run of this Config would begin at once: nothing has to be started, tried or waited for first."""
    found = made.get(config.backend or BEST)
    return found is not None and found.is_ready(config)


def get_ready(config: Config) -> None:
    """Start what will serve runs of this Config, and wait until it can.

    Raises:
        UnsupportedError: nothing can be run here. LauncherDiedError: it cannot be started.
    """
    current(config.backend).get_ready(config)


def shutdown() -> None:
    """End what serves the runs of this process, with all of them; harmless when there is nothing."""
    for backend in list(made.values()):
        backend.shutdown()


if hasattr(os, "register_at_fork"):
    # A lock of the backend's may be held by a thread that the child does not have.
    os.register_at_fork(after_in_child=made.clear)
