"""A cgroup of one's own from the user's systemd: a transient scope with delegation (systemd.scope(5), systemd.resource-control(5)).

The launcher is moved into the scope, the caller stays where it is. A command line of systemd-run(1) would do the same, but
it expands variables in arguments; D-Bus takes values as they are.
"""

from __future__ import annotations

import os
import time
from typing import Any

__all__ = ["ScopeError", "ask_for_scope", "bus_address", "join_scope"]

PATIENCE = 10.0
"""Seconds to wait for the manager; it answers within milliseconds, or is stuck."""


class ScopeError(Exception):
    """The user's manager gave no scope; the message says why."""


def bus_address() -> str | None:
    """Return the address of the user's bus, or None where there is none: no login, no manager (cron, containers)."""
    for directory in (f"/run/user/{os.geteuid()}", os.environ.get("XDG_RUNTIME_DIR")):
        if directory and os.path.exists(os.path.join(directory, "bus")):
            return f"unix:path={directory}/bus"
    return os.environ.get("DBUS_SESSION_BUS_ADDRESS")


def connect(address: str) -> Any:
    """Return a connection to the bus.

    Raises:
        ScopeError: nobody answers there.
    """
    from jeepney.io.blocking import open_dbus_connection

    try:
        return open_dbus_connection(address, auth_timeout=PATIENCE)
    except (OSError, ValueError, StopIteration) as error:
        raise ScopeError(f"the user's bus at {address} cannot be reached: {error}") from error


def call(connection: Any, method: str, signature: str, body: tuple[object, ...]) -> tuple[Any, ...]:
    """Call a method of the manager (org.freedesktop.systemd1(5)) and return its answer.

    Raises:
        ScopeError: it refuses, or does not answer.
    """
    from jeepney import DBusAddress, MessageType, new_method_call

    manager = DBusAddress(
        "/org/freedesktop/systemd1", bus_name="org.freedesktop.systemd1", interface="org.freedesktop.systemd1.Manager"
    )
    try:
        answer = connection.send_and_get_reply(new_method_call(manager, method, signature, body), timeout=PATIENCE)
    except (OSError, EOFError) as error:
        raise ScopeError(f"systemd does not answer {method}: {error}") from error
    if answer.header.message_type is MessageType.error:
        raise ScopeError(f"systemd refuses {method}: {answer.body[0] if answer.body else 'no reason given'}")
    return tuple(answer.body)


def wait_for_job(connection: Any, jobs: Any, job: str) -> None:
    """Wait until the manager has done a job, as its signal JobRemoved tells.

    Raises:
        ScopeError: it failed, or was not done in time.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            left = max(0.0, deadline - time.monotonic())
            _, path, unit, outcome = connection.recv_until_filtered(jobs, timeout=left).body
        except (OSError, EOFError) as error:
            raise ScopeError(f"systemd does not finish: {error}") from error
        if path == job:
            if outcome != "done":
                raise ScopeError(f"systemd could not start {unit}: {outcome}")
            return


def ask_for_scope(pid: int, address: str) -> str:
    """Have a process moved into a new scope that is delegated to this user; return the scope's name.

    Raises:
        ScopeError: the manager cannot be reached, or refuses.
    """
    from collections import deque

    from jeepney import MatchRule, message_bus
    from jeepney.wrappers import unwrap_msg

    name = f"proc-sandbox-{pid}.scope"
    properties = [
        ("Description", ("s", f"proc-sandbox of process {os.getpid()}")),
        ("PIDs", ("au", [pid])),
        ("Delegate", ("b", True)),
        ("CollectMode", ("s", "inactive-or-failed")),
    ]
    removed = MatchRule(
        type="signal", interface="org.freedesktop.systemd1.Manager", member="JobRemoved", path="/org/freedesktop/systemd1"
    )
    jobs: deque[Any] = deque()
    with connect(address) as connection, connection.filter(removed, queue=jobs):
        try:
            unwrap_msg(connection.send_and_get_reply(message_bus.AddMatch(removed), timeout=PATIENCE))
        except (OSError, EOFError) as error:
            raise ScopeError(f"the user's bus does not answer: {error}") from error
        call(connection, "Subscribe", "", ())
        (job,) = call(connection, "StartTransientUnit", "ssa(sv)a(sa(sv))", (name, "fail", properties, []))
        wait_for_job(connection, jobs, job)
    return name


def join_scope(name: str, pid: int, address: str) -> None:
    """Have another process moved into the same scope.

    Raises:
        ScopeError: the manager cannot be reached, or refuses.
    """
    with connect(address) as connection:
        call(connection, "AttachProcessesToUnit", "ssau", (name, "/launcher", [pid]))
