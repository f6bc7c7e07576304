"""The launcher of this process: found, started when first needed, shared by all threads, stopped at exit.

There is one for runs without the host's network and, when asked for, one with it: a launcher is born into its network.
After os.fork() the child forgets its parent's and starts its own.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import os
import select
import socket
import subprocess
import threading
import weakref
from collections.abc import Sequence

from proc_sandbox import later, log
from proc_sandbox.errors import LauncherDiedError, UnsupportedError
from proc_sandbox.launcher import program_path
from proc_sandbox.launcher.channel import send_rights
from proc_sandbox.version import __version__

__all__ = ["Launcher", "begin", "launcher", "launcher_path", "running", "shutdown"]

MAX_MESSAGE = 60_000  # the launcher reads 64 KiB; longer words travel in a memfd
GREETING_SECONDS = 30.0
MOST_SPARE = 32
"""Sockets of runs that have ended, kept for the next ones."""


def launcher_path() -> str:
    """Return where the launcher lies."""
    return program_path("launcher")


class Launcher:
    """One launcher process and our end of its control socket.

    Attributes: pid; end, a descriptor that becomes readable when it has died; greeting, the words in which it said what
    this machine can do, empty until await_greeting().
    """

    kind: int = socket.SOCK_SEQPACKET

    def __init__(self, *, empty_network: bool) -> None:
        path = launcher_path()
        arguments = [path, "serve"] + ["empty-network"] * empty_network
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            # No environment: LD_PRELOAD and its kin must not reach it. cwd and signals it settles by itself.
            # Nor its streams: whoever reads from them must see them end with the caller. The socket has no number of the
            # caller's, which would be one of these where the caller has closed its own.
            with theirs:
                self.process = subprocess.Popen(
                    arguments, env={}, cwd="/", stdin=theirs.fileno(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
                )
        except OSError as error:
            ours.close()
            raise LauncherDiedError(f"the launcher {path} cannot be started: {error}; install proc-sandbox again") from error
        self.socket = ours
        self.spares: list[socket.SocketType] = []
        self.closed = False
        self.pid = self.process.pid
        self.greeting: dict[str, str] = {}
        self.end = -1
        try:
            self.end = open_end(self.pid)
            # Open as long as anybody knows this launcher: a thread that polls it must not meet another file under its number.
            self.close_end = weakref.finalize(self, os.close, self.end)
            self.close_end.atexit = False
        except BaseException:  # whatever it is, a signal's exception too: nothing is left, and it goes on
            self.close()
            raise

    def await_greeting(self) -> None:
        """Wait until it has tried what this machine can do.

        Raises:
            LauncherDiedError: it died, or is of another version.
        """
        self.socket.settimeout(GREETING_SECONDS)
        try:
            words = self.socket.recv(4096).split(b"\0")[:-1]
        except OSError as error:
            raise LauncherDiedError(f"the launcher did not answer: {error}") from error
        if not words:
            raise LauncherDiedError("the launcher did not answer: it has died")
        self.socket.settimeout(None)
        greeting = {words[i].decode(): words[i + 1].decode() for i in range(0, len(words) - 1, 2)}
        if greeting.get("version") != __version__:
            raise LauncherDiedError(
                f"the launcher is version {greeting.get('version')}, the package {__version__}: install it again"
            )
        self.greeting = greeting

    def spare(self) -> socket.SocketType | None:
        """Return a socket on which the launcher awaits the next run, if there is one."""
        try:
            return self.spares.pop()
        except IndexError:
            return None

    def keep(self, spare: socket.SocketType) -> None:
        """Keep a socket for the next run: the last one's end was the last that was said on it, by either side."""
        if len(self.spares) < MOST_SPARE:
            self.spares.append(spare)
        else:
            spare.close()
        if self.closed:  # meanwhile
            self.close_spares()

    def close_spares(self) -> None:
        while (spare := self.spare()) is not None:
            spare.close()

    def send(self, words: bytes, descriptors: Sequence[int], spare: socket.SocketType | None = None) -> None:
        """Send one run: its words, and its streams as descriptors; spare: the socket that it is to have, else its own comes first.

        Raises:
            LauncherDiedError: it is gone, and with it every run of it.
        """
        memfd = -1
        body = words
        if len(words) > MAX_MESSAGE:
            memfd = os.memfd_create("proc-sandbox-words")
            body = b"memfd\0"
        try:
            if memfd >= 0:
                view = memoryview(words)
                while view:
                    view = view[os.write(memfd, view) :]
                own = [] if spare is not None else descriptors[:1]
                descriptors = [*own, memfd, *descriptors[len(own) :]]
            send_rights(self.socket if spare is None else spare, body, descriptors)
        except (BrokenPipeError, ConnectionResetError, ConnectionRefusedError) as error:
            discard(self)
            raise LauncherDiedError("the launcher has died; its runs are dead with it") from error
        finally:
            if memfd >= 0:
                os.close(memfd)

    def try_idmap(self, path: str) -> int:
        """Return 0 where what lies there can be shown as another user's, else errno.

        Raises:
            LauncherDiedError: it is gone, and with it every run of it.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(GREETING_SECONDS)
        with ours:
            with theirs:
                self.send(b"idmap\0" + os.fsencode(path) + b"\0", [theirs.fileno()])
            words = ours.recv(4096).split(b"\0")
        return int(words[4]) if len(words) > 4 else errno.EIO

    def discard(self) -> None:
        """Forget it: it was seen to be dead, and the next run starts a new one."""
        discard(self)

    def hang_up(self) -> None:
        self.closed = True
        self.close_spares()
        self.socket.close()

    def close(self) -> None:
        """End the launcher and all its runs; returns when nothing of it is left."""
        with contextlib.suppress(OSError):  # ENOTCONN: it is dead already
            self.socket.shutdown(socket.SHUT_RDWR)  # a child by os.fork() that does not know of it would keep it open
        self.hang_up()
        self.process.wait()

    def forget(self) -> None:
        """Let go of a launcher that belongs to the parent process."""
        self.hang_up()
        self.end = -1
        self.close_end()
        self.process.returncode = 0  # not our child: there is nothing to wait for, and nothing to warn about


def open_end(pid: int) -> int:
    """Return a descriptor that becomes readable when a child has ended.

    Raises:
        UnsupportedError: the kernel is older than Linux 5.3, or what filters our system calls does not know that one.
    """
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EPERM):
            raise
        raise UnsupportedError("backend", f"pidfd_open(2): {error.strerror}", "Linux 5.10 or newer, without a filter around us") from None


lock = threading.Lock()
launchers: dict[bool, Launcher] = {}


def launcher(*, empty_network: bool = True) -> Launcher:
    """Return the launcher of this process, started if there is none or if it has died.

    Raises:
        LauncherDiedError: it cannot be started.
    """
    known = launchers.get(empty_network)
    if known is not None and known.greeting:
        return known
    while not is_usable(found := begun(empty_network), empty_network):
        pass
    return found


def is_usable(found: Launcher, empty_network: bool) -> bool:
    """Wait for a launcher's greeting; return whether it is still the one.

    Raises:
        LauncherDiedError: it cannot be used, and is forgotten.
    """
    with lock:
        if launchers.get(empty_network) is not found:
            return False
        fresh = not found.greeting
        if fresh:
            try:
                found.await_greeting()
            except BaseException:  # as above: nothing is left of one that cannot be used
                del launchers[empty_network]
                found.close()
                raise
    if fresh:
        network = "without" if empty_network else "with"
        log.tell(log.INFO, "the launcher has started: process %d, %s the host's network", found.pid, network)
    return True


def running(*, empty_network: bool = True) -> Launcher | None:
    """Return the launcher of this process if there is one that has greeted and lives."""
    found = launchers.get(empty_network)
    if found is None or not found.greeting:
        return None
    poll = select.poll()
    poll.register(found.end, select.POLLIN)
    return None if poll.poll(0) else found


def begin(*, empty_network: bool = True) -> None:
    """Start the launcher of this process without waiting for it: what it tries takes milliseconds, as imports do.

    Raises:
        LauncherDiedError: it cannot be started.
    """
    begun(empty_network)


def begun(empty_network: bool) -> Launcher:
    """Return the launcher, whether it has greeted or not."""
    with later.lock:  # a child by os.fork() lets go of the launchers that it knows of
        found = launchers.get(empty_network)
        if found is None:
            fresh = Launcher(empty_network=empty_network)
            found = launchers.setdefault(empty_network, fresh)
            if found is not fresh:  # which a signal handler has started meanwhile
                fresh.close()
        return found


def discard(dead: Launcher) -> None:
    """Forget a launcher that has died: the next run starts a new one."""
    known = False
    with lock:
        for key, value in list(launchers.items()):
            if value is dead:
                known = True
                del launchers[key]
                dead.close()
    if known:
        log.tell(log.WARNING, "the launcher, process %d, has died, and its runs with it; the next run starts another", dead.pid)


def shutdown() -> None:
    """Stop the launchers of this process and all their runs; harmless when there are none."""
    with lock:
        while launchers:
            launchers.popitem()[1].close()


def after_fork_in_child() -> None:
    global lock
    lock = threading.Lock()
    while launchers:
        launchers.popitem()[1].forget()


os.register_at_fork(after_in_child=after_fork_in_child)
atexit.register(shutdown)
