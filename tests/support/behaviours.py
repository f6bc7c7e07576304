"""What every backend promises, and what the tests of it need: a run() bound to a backend, and files that tell who is alive."""

from __future__ import annotations

import contextlib
import importlib
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import proc_sandbox as ps
from support.programs import HANG

PROMISES = {
    "exit": "the exit status is the command's own, whatever it is",
    "crash": "a signal, or on Windows an exception, that ends the command is told as such",
    "not found": "a command that is missing or cannot be executed is an error, not a verdict",
    "timeout": "the wall time limit ends the run and is named; what was written before is kept",
    "tree": "children, and theirs, end with the run, however it ends",
    "daemons": "what puts itself into a session of its own and lets its parent die ends with the run",
    "cancel": "a run is cancelled from another thread, and says so",
    "caller killed": "the whole tree ends when the caller is killed",
    "exception": "the whole tree ends when an exception leaves run()",
    "memory": "the memory limit ends the run and is named; who stays below it is not blamed",
    "memory of the tree": "the memory limit holds for all processes together",
    "cpu time": "the CPU time limit ends the run and is named",
    "cpu time of the tree": "CPU time of children counts, of those that have ended too",
    "cpu rate": "the CPU limit holds for the whole tree",
    "processes": "no more processes than the limit at one time, or the run is ended for it, which is said",
    "threads": "threads count as processes do",
    "output": "output beyond its limit is thrown away and flagged, without memory of the caller's",
    "file size": "no file grows beyond its limit",
    "open files": "no process has more open files than its limit",
    "usage": "CPU time and peak memory of the whole tree are told",
    "streams": "bytes pass unchanged both ways, any number of them, without a deadlock",
    "stdin unread": "a command need not read its input",
    "survivor's pipe": "a process that outlives the command keeps nobody waiting for the output",
    "arguments": "arguments arrive as they were given",
    "environment": "the environment is clean, with what was given; nothing is inherited",
    "directory": "the command starts in its working directory and writes there",
    "private directory": "without one it has a private directory, gone with the run",
    "sandbox": "files of a Sandbox stay from run to run and go with it",
    "descriptors": "nothing open of the caller's reaches the command but its streams",
    "pass_fds": "descriptors that are named reach the command",
    "threads of the caller": "any number of threads may run commands at once",
    "asyncio": "runs go side by side in asyncio's threads, under its default loop",
    "honesty": "each limit is enforced by a named mechanism or refused; best-effort lists what is not",
    "files": "files of the host that were not granted cannot be read",
    "files written": "files of the host that were not granted cannot be written",
    "network": "the network cannot be reached",
    "others": "processes of the host cannot be seen or signalled",
    "handle": "a handle is there once the command runs, answers from any thread, and ends the run with it; nothing survives a forgotten one",
    "pipes": "a handle's pipes hold bytes or text, any number of them both ways, and lose none when waiting is given up and begun again",
    "signals": "a handle's signals reach the command and nobody else, and the verdict says who sent them",
    "pause": "pause() stops the whole tree, resume() lets it go on",
    "live usage": "what a run has used until now is told while it goes on",
    "grace": "with kill_grace the whole tree gets SIGTERM first, and what is left of it SIGKILL",
    "events": "stream() yields what happens as it happens; leaving the loop ends the run",
    "sinks": "output goes to functions, files and a Tee as it comes; what one of them raises ends the run and is raised",
    "plan": "what would be done can be printed, as text and JSON",
    "command line": "the command line runs, exits as the command did, and passes streams through",
}
"""By name; one line each of the table in docs/systems.md."""

WINE = sys.platform == "win32" and hasattr(__import__("ctypes").WinDLL("ntdll"), "wine_get_version")


def differences(backend: str, system: str) -> Mapping[str, str]:
    """Which of these a backend does not promise on a system, and why: its own list, which docs/systems.md shows."""
    promises = importlib.import_module(f"proc_sandbox.planner.{backend}.promises")
    held = promises.HELD_BY_SEATBELT if backend == "posix" and system == "Darwin" else ()
    return {name: why for name, why in promises.DIFFERENCES.items() if name not in held}


def column(backend: str) -> str:
    """The heading of this backend on this host in the table in docs/systems.md."""
    if backend == "posix":
        return f"posix, on {platform.system()}"
    if backend == "windows":
        return "windows, on Wine" if WINE else "windows"
    return "linux, as root" if os.geteuid() == 0 else "linux, as a user"


class Runner:
    """run() of one backend: what it never promises is let go, each limit that a test asks for is strict."""

    def __init__(self, backend: str) -> None:
        self.backend = backend
        missing = ps.capabilities(backend=backend).items()
        self.never = [name for name, how in missing if isinstance(how, ps.Unenforced)]

    def never_asked(self, *asked: str) -> list[str]:
        """What the backend never promises, but for what is asked for."""
        return [*(name for name in self.never if name not in asked), "backend"]  # never empty, which would mean all

    def config(self, **config: Any) -> dict[str, Any]:
        """The fields of a Config for this backend."""
        lenient = ps.best_effort(*self.never_asked(*config))
        return {"backend": self.backend, "timeout": HANG, "enforcement": lenient, **config}

    def __call__(self, args: Any, *, input: bytes | str | None = None, check: bool = False, **config: Any) -> ps.Result:
        """As ps.run; a run that reaches the guard against hanging fails the test."""
        result = ps.run(args, input=input, check=check, **self.config(**config))
        assert "timeout" in config or not result.timed_out, f"hung: {result}"
        return result

    def sandbox(self, **config: Any) -> ps.Sandbox:
        """As ps.Sandbox."""
        return ps.Sandbox(**self.config(**config))

    def popen(self, args: Any, **config: Any) -> ps.Popen[Any]:
        """As ps.Popen."""
        return ps.Popen(args, **self.config(**config))

    def stream(self, args: Any, *, input: bytes | str | None = None, **config: Any) -> Iterator[ps.Event]:
        """As ps.stream."""
        return ps.stream(args, input=input, **self.config(**config))


HOLD = """
import os, sys, time
def hold(path):
    file = open(path, "a+b")
    if os.name == "nt":
        import msvcrt
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        import fcntl
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return file
def wait_for_ever():
    while True:
        time.sleep(3600)
"""
"""What a process of a run does to be seen: as long as it lives it holds a lock on a file of its own."""
LISTEN = """
import os, signal
def attend():
    global heard
    heard, hear = os.pipe()
    os.set_blocking(hear, False)
    signal.set_wakeup_fd(hear)
def listen():
    while True:
        os.read(heard, 1)
attend()
os.register_at_fork(after_in_child=attend)
"""
"""What a process does that waits for signals it has handlers for. time.sleep() and signal.pause() may miss one that comes just before
them: Python runs handlers between its own instructions, and the system call does not know that one is due.
"""


def is_held(path: Path) -> bool:
    """Whether a process that holds the file is alive; it must have been there."""
    with path.open("r+b") as file:
        if sys.platform == "win32":
            import msvcrt

            try:
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            except OSError:
                return True
            msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)
            return False
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def promise(name: str) -> pytest.MarkDecorator:
    """Mark what a test tests."""
    return pytest.mark.promise(name)


@contextlib.contextmanager
def variable(name: str, value: str) -> Any:
    """A variable of this process's environment."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
