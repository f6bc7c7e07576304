"""What keeps this process in: a container, a filter of system calls, a profile. For remedies only; nothing is decided by it."""

from __future__ import annotations

import os

__all__ = ["apparmor_profile", "in_container", "is_filtered"]


def in_container() -> bool:
    """Return whether we are in a container: its engine says so, or the root lies on the engine's kind of file system."""
    if os.path.exists("/.dockerenv") or os.path.exists("/run/.containerenv") or "KUBERNETES_SERVICE_HOST" in os.environ:
        return True
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            return any(line.split(" ")[4] == "/" and " - overlay " in line for line in file)
    except OSError:
        return False


def is_filtered() -> bool:
    """Return whether a filter looks at this process's system calls (proc_pid_status(5), "Seccomp")."""
    try:
        with open("/proc/self/status", encoding="utf-8", errors="surrogateescape") as file:
            return any(line.split() == ["Seccomp:", "2"] for line in file)
    except OSError:
        return False


def apparmor_profile() -> str:
    """Return the AppArmor profile of this process; "" where it has none, or there is no AppArmor."""
    try:
        with open("/proc/self/attr/apparmor/current", encoding="utf-8", errors="surrogateescape") as file:
            name = file.read().strip()
    except OSError:
        return ""
    return "" if name == "unconfined" else name
