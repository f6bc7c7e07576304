"""Modules that are imported when they are first needed, safely beside os.fork().

A thread that imports while another one forks leaves the child a module lock that nobody will ever release. So forks wait until
such an import is done. They wait for the same lock where a pipe is made, by us or by subprocess: a child that does not know of it
keeps it from ending. This lock is taken last: who has it waits for no other of ours.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
from typing import Any

__all__ = ["load"]

PATIENCE = 10.0
"""Seconds. A fork that waits longer has, from a hook of somebody else's, what we wait for: then it goes on, as it would without us."""

lock = threading.RLock()


def load(module: str, name: str, namespace: dict[str, Any]) -> Any:
    """Import a module and return what it calls by that name, which is kept in the namespace."""
    with lock:
        __import__(module)
        namespace[name] = getattr(sys.modules[module], name)
    return namespace[name]


def begin_child() -> None:
    """Have the lock free: where the fork did not wait for it, it is a thread's that there is not in the child."""
    try:
        lock.release()
    except RuntimeError:
        lock._at_fork_reinit()  # type: ignore[attr-defined]  # as threading does with its own


if hasattr(os, "register_at_fork"):
    # Built-in functions, between whose instructions no signal handler comes: what that raises would keep the lock from being released.
    # While a fork waits it may be interrupted; Python says that the exception is ignored, and the fork goes on without the lock.
    os.register_at_fork(before=functools.partial(lock.acquire, timeout=PATIENCE), after_in_parent=lock.release, after_in_child=begin_child)
