"""The warden: one process for each caller, which looks after all its runs. It ends with its caller, and all runs with it.

It is a process of its own, so that limits hold while the caller is busy, stopped or dead. Between it and the caller is a control
socket, over which comes a byte with the socket of a run; all else about a run is said on that one. One thread, one selector; the next
look is its timeout. Started by backends/posix/process.py, the control socket as standard input:

    python -I -S -B -c "..." MONITOR
"""

from __future__ import annotations

import contextlib
import os
import resource
import selectors
import signal
import socket
import sys
import time
import traceback
from types import TracebackType

from proc_sandbox.backends.posix.frames import frame
from proc_sandbox.backends.posix.sampler import Table
from proc_sandbox.backends.posix.watch import Run, receive
from proc_sandbox.version import __version__

__all__ = ["main"]


class Warden:
    """The loop."""

    def __init__(self, control: socket.socket, program: str) -> None:
        self.control = control
        self.program = program
        self.selector = selectors.DefaultSelector()
        self.selector.register(control, selectors.EVENT_READ)
        self.table = Table()
        self.runs: list[Run] = []
        self.listened: set[socket.socket] = set()
        self.caller = os.getppid()
        self.ending = False

    def serve(self) -> None:
        """Look after runs until the caller has gone and all of them have ended."""
        while self.runs or not self.ending:
            soonest = min((run.next_look for run in self.runs), default=float("inf"))
            timeout = None if soonest == float("inf") else max(0.0, soonest - time.monotonic())
            for key, _ in self.selector.select(timeout):
                self.on_event(key)
            if not self.ending and os.getppid() != self.caller:
                self.end_all()  # a process that it has forked holds a copy of the control socket
            self.look()
            self.forget()

    def on_event(self, key: selectors.SelectorKey) -> None:
        if key.fileobj is self.control:
            self.on_control()
            return
        run: Run = key.data
        if key.fileobj is run.channel:
            self.on_monitor(run)
        elif key.fileobj is run.socket:
            self.on_caller(run)

    def on_control(self) -> None:
        """A new run, or the end of the caller."""
        came = receive(self.control, 1, 1)
        if came is None:
            return
        data, descriptors = came
        for descriptor in descriptors:
            run = Run(socket.socket(fileno=descriptor), self.program)
            run.socket.set_inheritable(False)
            self.runs.append(run)
            self.listened.add(run.socket)
            self.selector.register(run.socket, selectors.EVENT_READ, run)
        if not data:
            self.end_all()

    def end_all(self) -> None:
        """End every run: the caller has gone."""
        self.ending = True
        self.selector.unregister(self.control)
        for run in self.runs:
            run.gone = True
            self.mute(run)
            if run.tree is None:
                run.finish()
            else:
                run.cancel()

    def on_caller(self, run: Run) -> None:
        had = run.channel
        run.on_caller(self.table)
        if run.gone:
            self.mute(run)
        if run.channel is not had and run.channel is not None:
            self.selector.register(run.channel, selectors.EVENT_READ, run)

    def on_monitor(self, run: Run) -> None:
        channel = run.channel
        assert channel is not None
        run.on_monitor()
        if run.channel is None:
            self.selector.unregister(channel)
            channel.close()

    def look(self) -> None:
        """Look once for all runs that are due."""
        due = [run for run in self.runs if run.tree is not None and not run.over and run.next_look <= time.monotonic()]
        if not due:
            return
        self.table.floor = min(run.tree.since for run in self.runs if run.tree is not None)
        self.table.refresh()
        for run in due:
            run.look(self.table)

    def mute(self, run: Run) -> None:
        """Listen no more to a caller that has gone: its socket would be readable for ever."""
        if run.socket in self.listened:
            self.listened.discard(run.socket)
            self.selector.unregister(run.socket)

    def forget(self) -> None:
        for run in [run for run in self.runs if run.over]:
            self.runs.remove(run)
            self.mute(run)
            run.socket.close()


def take_control() -> socket.socket:
    """Return the control socket: it comes as standard input, which is nothing from then on, as output is."""
    control = socket.socket(fileno=os.dup(0))
    os.dup2(1, 0)
    return control


def main(program: str) -> None:
    """Serve the caller at the other end of the control socket; return when it has gone and nothing of its runs is left."""
    control = take_control()

    def say_why(kind: type[BaseException], value: BaseException, trace: TracebackType | None) -> None:
        with contextlib.suppress(OSError):
            control.sendall(frame("".join(traceback.format_exception(kind, value, trace)).encode("utf-8", "replace")))

    sys.excepthook = say_why
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # macOS: OPEN_MAX is the most, whatever the hard limit says (setrlimit(2))
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    for ignored in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(ignored, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # what the caller blocks is its own business
    control.sendall(frame(__version__.encode()))
    control.setblocking(False)
    Warden(control, program).serve()
