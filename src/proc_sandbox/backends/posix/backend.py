"""Any POSIX system: joins probe, survey, warden and monitor."""

from __future__ import annotations

import json
import os
import secrets
import select
import socket
import threading
from collections.abc import Sequence
from itertools import chain
from typing import NoReturn

from proc_sandbox.backends.posix import MARK
from proc_sandbox.backends.posix.frames import frame, frame_at
from proc_sandbox.backends.posix.probe import look_at_host
from proc_sandbox.backends.posix.process import NUDGE_SECONDS, Warden, handing_over, shutdown, warden
from proc_sandbox.backends.posix.survey import missing_interpreter, survey
from proc_sandbox.backends.unix.backend import UnixBackend
from proc_sandbox.backends.unix.private import find
from proc_sandbox.backends.unix.streams import DescriptorStreams, LaunchedRun
from proc_sandbox.config import Config
from proc_sandbox.errors import LauncherDiedError
from proc_sandbox.host import Host, Paths
from proc_sandbox.launcher import program_path
from proc_sandbox.launcher.channel import send_rights
from proc_sandbox.planner.posix.plan import PosixPlan
from proc_sandbox.planner.unix.words import encode
from proc_sandbox.report import Ended, Failed

__all__ = ["PosixBackend"]

CHUNK = 1 << 16


class PosixRun(LaunchedRun):
    """A run of the warden's."""

    patience = round(NUDGE_SECONDS * 1000)
    launcher: Warden
    inbox = bytearray  # a stream's, which knows no messages

    def __init__(self, server: Warden, words: bytes, descriptors: list[int], mark: str) -> None:
        self.mark = mark
        self.swept = False
        self.closed = False
        super().__init__(server, words, descriptors)

    def hand_over(self, theirs: socket.SocketType, words: bytes, descriptors: Sequence[int]) -> None:
        """Give the warden the run's socket, and over that the run; wait until it has all of it.

        The control socket takes one byte for each run, so that nothing can be left half said there: a signal's exception in the
        middle of this harms this run only. Descriptors on their way must stay open here: some systems close a socket that nobody has
        open while it is in flight.
        """
        handing_over.add(theirs)
        try:
            self.launcher.send(b"r", [theirs.fileno()])
            self.talk(frame(words), list(descriptors))
            word, read = self.await_message(0)
            if word != b"got":
                self.lost()
            del self.received[:read]
        finally:
            handing_over.discard(theirs)

    def talk(self, data: bytes, descriptors: list[int]) -> None:
        left = memoryview(data)
        while left:
            if not self.is_ready(select.POLLOUT):
                self.lost()
            sent = send_rights(self.socket, left[:CHUNK], descriptors) if descriptors else self.socket.send(left[:CHUNK])
            descriptors = []
            left = left[sent:]

    def message_at(self, read: int) -> tuple[bytes, int] | None:
        return frame_at(self.received, read) or ((b"", read) if self.closed else None)

    def pull(self, flags: int) -> None:
        """Receive what is there. At the end of the socket nothing comes, now and ever after."""
        before = len(self.received)
        try:
            self.received.extend(chain.from_iterable(map(self.socket.recv, (CHUNK,), (flags,))))
            self.closed = len(self.received) == before
        except ConnectionResetError:  # an order of ours was not read
            self.closed = True

    def await_message(self, read: int) -> tuple[bytes, int]:
        """Wait for the message after those that were read; there is none where the warden has died, too."""
        while (found := self.next_message(read)) is None:
            if not self.is_ready(select.POLLIN):
                return b"", read
        return found

    def ask(self, what: str) -> None:
        """Ask the warden for something; harmless after the end. It need not go on: who fills its socket sees to that."""
        data = frame(what.encode())
        while self.outcome is None and not self.dead and self.is_ready(select.POLLOUT):
            try:
                # One that has room at all has it for all of this (socket(7), SO_SNDLOWAT), and so for whole messages.
                self.socket.send(data, socket.MSG_DONTWAIT)
            except BlockingIOError:
                continue  # another thread was faster
            except (BrokenPipeError, ConnectionResetError):
                pass  # it has ended by itself, and the outcome waits to be read
            return

    def is_ready(self, event: int) -> bool:
        """Wait until the socket is ready; return False where the warden has died instead."""
        poll = select.poll()
        poll.register(self.socket, event)
        if self.launcher.end >= 0:
            poll.register(self.launcher.end, select.POLLIN)
        while not (ready := poll.poll(NUDGE_SECONDS * 1000)):
            self.launcher.nudge()
        return self.socket.fileno() in dict(ready)

    def look_after(self) -> None:
        """See to it that the warden goes on."""
        self.launcher.nudge()

    def receive(self) -> Ended | Failed | None:
        """Wait for what is said next.

        Raises:
            LauncherDiedError: the warden or the run's monitor died, and the run with it.
        """
        try:
            return super().receive()
        except LauncherDiedError:
            self.dead = True  # nothing more is going to be said
            raise

    def last_word(self) -> bytes:
        """Wait for what the warden said of this run's end; nothing if it has closed the socket without a word, or has died."""
        word = super().last_word()
        if not word:
            self.end_strays()
        return word

    def end_strays(self) -> str:
        """End what is left of a run whose warden has died, by the mark that its processes carry; return why not, if that failed."""
        if not self.swept:
            try:
                sweep(self.mark)
            except LauncherDiedError as error:
                return f"; what it has left was not looked for: {error}"
            self.swept = True
        return ""

    def lost(self) -> NoReturn:
        """Give up on a run whose warden has died, say why it did, and end what is left of the run."""
        said = self.launcher.why() if self.launcher.end >= 0 else ""
        try:
            super().lost()
        except LauncherDiedError as error:
            raise LauncherDiedError(f"{error}{self.end_strays()}" + f"\n{said}" * bool(said)) from None


class Sweep(PosixRun):
    """What a dead warden has left of a run, to be ended by another one."""

    def end_strays(self) -> str:
        """Do nothing: this is that."""
        return ""


def sweep(mark: str) -> None:
    """End all processes that carry a mark; returns when they are gone.

    Raises:
        LauncherDiedError: a new warden cannot be started, or has died too.
    """
    with Sweep(warden(), json.dumps({"mark": mark}).encode() + b"\n", [], mark) as run:
        if run.last_word() != b"swept\0":
            run.lost()
        run.dead = True  # there is nothing to be killed any more


class PosixBackend(UnixBackend):
    """The backend of any POSIX system."""

    name = "posix"
    needs_directory = True

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.host: Host | None = None

    def probe(self, config: Config | None = None) -> Host:
        """Return what this machine can do; found out once.

        Raises:
            UnsupportedError: psutil is missing.
        """
        del config
        with self.lock:
            if self.host is None:
                self.host = look_at_host()
            return self.host

    def is_ready(self, config: Config) -> bool:
        """Return False: the warden answers before a run has been handed over, and it may be busy."""
        return False

    def get_ready(self, config: Config) -> None:
        """Start the warden."""
        self.probe(config)
        warden()

    def survey(self, config: Config, command: Sequence[str], private: str | None = None) -> tuple[Host, Paths]:
        """Return what this machine can do and where things are, for one run; private: a Sandbox's own directory on the host."""
        if private and not config.working_dir:
            find(private).check()
        return self.probe(config), survey(config, command, private)

    def explain(self, paths: Paths) -> str | None:
        """Return why a command that is there could not be executed: the interpreter of a script is missing."""
        return missing_interpreter(paths)

    def start(self, plan: PosixPlan, streams: DescriptorStreams, *, held: bool = False) -> PosixRun:
        """Start a run with its streams and passed descriptors."""
        mark = secrets.token_hex(16)
        around = os.environ.get(MARK)  # a run within a run belongs to both
        words = encode(plan, {MARK: f"{around}:{mark}" if around else mark}, held=held)
        return PosixRun(warden(), instructions(plan, mark, held=held) + b"\n" + words, streams.theirs, mark)

    def by_hand(self, plan: PosixPlan) -> str | None:
        """Return the monitor's command line for a plan; None where a terminal has to be made for it."""
        return None if plan.terminal else plan.command_line(program_path("monitor"))

    def shutdown(self) -> None:
        """End the warden of this process with all its runs."""
        shutdown()


def instructions(plan: PosixPlan, mark: str, *, held: bool) -> bytes:
    """Return what the warden is told, as one line."""
    assert plan.sampling
    data = {
        **plan.sampling._asdict(), "mark": mark, "cpu_time": plan.cpu_time, "timeout": plan.timeout, "spare_tasks": plan.spare_tasks,
        "grace": plan.grace, "held": held,
    }  # fmt: skip
    return json.dumps(data).encode()
