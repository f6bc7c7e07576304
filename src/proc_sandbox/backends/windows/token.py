"""The token that a command gets: the caller's, with what makes it mighty taken out ("Restricted Tokens")."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from fnmatch import fnmatchcase

from proc_sandbox.backends.windows.security import CHANGE_NOTIFY, LOW, SE_GROUP_USE_FOR_DENY_ONLY, Group, Security
from proc_sandbox.backends.windows.winapi import Win32
from proc_sandbox.errors import LaunchError
from proc_sandbox.planner.windows.plan import Token

__all__ = ["lost", "make_token", "privileged"]


def privileged(groups: Sequence[Group], patterns: Sequence[str]) -> tuple[str, ...]:
    """Return the groups of a token that are to be for denials only; in the patterns "*" stands for a domain."""
    return tuple(group.sid for group in groups if any(fnmatchcase(group.sid, pattern) for pattern in patterns))


def make_token(win32: Win32, security: Security, asked: Token) -> int:
    """Return a token for CreateProcessAsUserW, which asks for no privilege where it is the caller's own, restricted.

    Raises:
        LaunchError: it was made, and is not what was asked for. Win32Error: it was not made.
    """
    own = security.process_token(win32.current_process())
    try:
        token = security.restricted_token(own, privileged(security.groups(own), asked.deny_only))
    finally:
        win32.close(own)
    try:
        if asked.integrity:
            security.set_integrity(token, LOW)
        missing = lost(security, token, asked)
    except BaseException:
        win32.close(token)
        raise
    if missing:
        win32.close(token)
        raise LaunchError("token", None, errno.ENOTSUP, f"{missing}: accepted and not kept")
    return token


def lost(security: Security, token: int, asked: Token) -> str:
    """Return what a token has still, or has not, against what was asked for; "" where it is right."""
    if set(security.privileges(token)) - {CHANGE_NOTIFY}:
        return "privileges"
    groups = security.groups(token)
    mighty = privileged(groups, asked.deny_only)
    if any(group.sid in mighty and not group.attributes & SE_GROUP_USE_FOR_DENY_ONLY for group in groups):
        return "groups for denials only"
    if asked.integrity and security.integrity(token) != LOW:
        return "low integrity"
    return ""
