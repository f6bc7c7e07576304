"""The warden of this process: started when first needed, shared by all threads, stopped at exit.

After os.fork() the child forgets its parent's and starts its own.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

from proc_sandbox import later, log
from proc_sandbox.backends.posix import MARK
from proc_sandbox.backends.posix.frames import Frames
from proc_sandbox.backends.posix.probe import psutil_directory
from proc_sandbox.errors import LauncherDiedError, UnsupportedError
from proc_sandbox.launcher import program_path
from proc_sandbox.launcher.channel import send_rights
from proc_sandbox.version import __version__

__all__ = ["Warden", "handing_over", "shutdown", "warden"]

GREETING_SECONDS = 60.0
NUDGE_SECONDS = 1.0
"""Between two looks at whether the warden is stopped: a command that has our user may stop it (SIGSTOP), and nobody else looks."""
MOST_STOPS = 10
"""Looks in a row that find it stopped although the one before has continued it: then somebody does it again and again."""
BOOT = "import sys; sys.path += sys.argv[2:]; from proc_sandbox.backends.posix.warden import main; main(sys.argv[1])"
"""-I and -S leave the standard library alone on sys.path, and to that come the places of this package and of psutil: not the caller's
own, for a command may be able to write there (its working directory), and the warden is not confined.
"""

handing_over: set[socket.SocketType] = set()
"""Ends of sockets that are on their way to another process: a child by os.fork() closes its copies, or no end would be seen."""


class Warden:
    """The warden's process and our end of its control socket.

    Attributes: pid; end, a descriptor that becomes readable when it has died; greeted, whether it has said that it is there.
    """

    kind: int = socket.SOCK_STREAM

    def __init__(self) -> None:
        if not sys.executable:
            raise UnsupportedError("backend", "the POSIX backend needs a Python interpreter of its own", "set sys.executable to one")
        package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__)))))
        places = dict.fromkeys((package, psutil_directory()))
        command = [sys.executable, "-I", "-S", "-B", "-c", BOOT, program_path("monitor"), *places]
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # Of the caller's environment nothing but the mark of a run that the caller itself may be in: it is to be found there too.
            with theirs:
                self.process = subprocess.Popen(
                    command, env={name: os.environ[name] for name in (MARK,) if name in os.environ},
                    cwd="/", start_new_session=True, stdin=theirs.fileno(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                )  # fmt: skip
        except OSError as error:
            ours.close()
            raise LauncherDiedError(f"the warden cannot be started: {error}") from error
        self.socket = ours
        self.pid = self.process.pid
        self.end = ours.fileno()
        self.greeted = False
        self.last_words = Frames()
        self.next_nudge = 0.0
        self.stops = 0

    def nudge(self) -> None:
        """See to it that it goes on; called by whoever waits for it, as often as one likes. One that is kept from it is killed:
        that is seen, and told as what it is, where nobody would ever be told anything else.
        """
        if time.monotonic() < self.next_nudge:
            return
        self.next_nudge = time.monotonic() + NUDGE_SECONDS
        self.stops = self.stops + 1 if self.is_stopped() else 0
        if self.stops:
            self.process.send_signal(signal.SIGCONT if self.stops < MOST_STOPS else signal.SIGKILL)

    def is_stopped(self) -> bool:
        """Return whether it was stopped since it was last asked for."""
        if self.process.returncode is not None:
            return False
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG | os.WUNTRACED)
        except ChildProcessError:  # another thread has just waited for it
            return False
        if pid and not os.WIFSTOPPED(status):
            self.process.returncode = os.waitstatus_to_exitcode(status)
            return False
        return bool(pid)

    def await_end(self) -> None:
        """Wait until it has died; what it says meanwhile nobody wants to know any more."""
        poll = select.poll()
        poll.register(self.socket, select.POLLIN)
        with contextlib.suppress(ConnectionResetError):
            while not poll.poll(NUDGE_SECONDS * 1000) or self.socket.recv(1 << 16):
                self.nudge()

    def await_greeting(self) -> None:
        """Wait until it is there.

        Raises:
            LauncherDiedError: it died, or is of another version.
        """
        self.socket.settimeout(GREETING_SECONDS)
        try:
            found = ""
            while not found:
                data = self.socket.recv(1 << 16)
                if not data:
                    raise LauncherDiedError("the warden has died before it could do anything")
                found = "".join(message.decode("utf-8", "replace") for message in self.last_words.feed(data))
        except OSError as error:
            raise LauncherDiedError(f"the warden did not answer: {error}") from error
        if found != __version__:
            raise LauncherDiedError(f"the warden is not of version {__version__}, but said: {found}")
        self.socket.settimeout(None)
        self.greeted = True

    def send(self, words: bytes, descriptors: Sequence[int]) -> None:
        """Send the socket of a run.

        Raises:
            LauncherDiedError: it is gone, and with it every run of it.
        """
        try:
            send_rights(self.socket, words, descriptors)
        except (BrokenPipeError, ConnectionResetError) as error:
            self.discard()
            raise LauncherDiedError("the warden has died; its runs are dead with it") from error

    def why(self) -> str:
        """Return what one that has died said of it, "" if nothing."""
        said: list[bytes] = []
        with contextlib.suppress(OSError, ValueError):
            while data := self.socket.recv(1 << 16, socket.MSG_DONTWAIT):
                said += self.last_words.feed(data)
        return b"".join(said).decode("utf-8", "replace")

    def discard(self) -> None:
        """Forget it: it was seen to be dead, and the next run starts a new one."""
        with lock:
            known = self in wardens
            if known:
                drop(self)
        if known:
            tell_death(self)

    def close(self) -> None:
        """End the warden and all its runs; returns when nothing of it is left."""
        self.end = -1
        with contextlib.suppress(OSError):  # ENOTCONN: it is dead already
            self.socket.shutdown(socket.SHUT_WR)  # a thread that polls it keeps it open beyond close(2)
        self.await_end()
        self.socket.close()
        self.process.wait()

    def forget(self) -> None:
        """Let go of a warden that belongs to the parent process."""
        self.end = -1
        self.socket.close()
        self.process.returncode = 0  # not our child: there is nothing to wait for, and nothing to warn about


def is_dead(found: Warden) -> bool:
    """Return whether a warden has died: it says nothing on its control socket after its greeting, but at its end."""
    poll = select.poll()
    poll.register(found.end, select.POLLIN)
    return bool(poll.poll(0))


def tell_death(dead: Warden) -> None:
    """Log that a warden has died; no lock is held."""
    log.tell(log.WARNING, "the warden, process %d, has died, and its runs with it; the next run starts another", dead.pid)


lock = threading.Lock()
wardens: list[Warden] = []
"""None or one; more where a signal handler has started another meanwhile."""


def warden() -> Warden:
    """Return the warden of this process, started if there is none or if it has died.

    Raises:
        LauncherDiedError: it cannot be started. UnsupportedError: psutil is missing.
    """
    while not is_usable(found := begun()):
        pass
    return found


def begun() -> Warden:
    """Return the warden, whether it has greeted or not."""
    with later.lock:  # a child by os.fork() lets go of the one that it knows of
        found = wardens[:1]
        if not found:
            found = [Warden()]
            wardens.extend(found)
        return found[0]


def is_usable(found: Warden) -> bool:
    """Wait for a warden's greeting; return whether it lives and is still the one.

    Raises:
        LauncherDiedError: it cannot be used, and is forgotten.
    """
    with lock:
        if found not in wardens:
            return False
        fresh = not found.greeted
        if fresh:
            try:
                found.await_greeting()
            except BaseException:  # whatever it is, a signal's exception too: nothing is left of one that cannot be used
                drop(found)
                raise
        dead = not fresh and is_dead(found)
        if dead:
            drop(found)
    if dead:
        tell_death(found)
    if fresh:
        log.tell(log.INFO, "the warden has started: process %d", found.pid)
    return not dead


def drop(found: Warden) -> None:
    """Forget a warden and end what is left of it; the lock is held."""
    wardens.remove(found)
    found.close()


def shutdown() -> None:
    """Stop the warden of this process and all its runs; harmless when there is none."""
    with lock:
        while wardens:
            wardens.pop().close()


def after_fork_in_child() -> None:
    global lock
    lock = threading.Lock()
    while wardens:
        wardens.pop().forget()
    while handing_over:
        handing_over.pop().close()


os.register_at_fork(after_in_child=after_fork_in_child)
atexit.register(shutdown)
