"""Modules that are imported when they are first needed, safely beside os.fork().

A thread that imports while another one forks leaves the child a module lock that nobody will ever release. So forks wait until
such an import is done. They wait for the same lock where a pipe is made, by us or by subprocess: a child that does not know of it
keeps it from ending.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

__all__ = ["load"]

lock = threading.RLock()


def load(module: str, name: str, namespace: dict[str, Any]) -> Any:
    """Import a module and return what it calls by that name, which is kept in the namespace."""
    with lock:
        __import__(module)
        namespace[name] = getattr(sys.modules[module], name)
    return namespace[name]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)
