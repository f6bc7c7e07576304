"""One run's socket: send the words and descriptors, receive what became of it."""

from __future__ import annotations

import _socket
import array
import contextlib
import errno
import functools
import os
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, get_type_hints

from proc_sandbox.errors import LauncherDiedError, LaunchError
from proc_sandbox.report import Ended, Failed, Live

if TYPE_CHECKING:  # a protocol costs a millisecond to make, and nothing asks for it
    from typing import Protocol

    from typing_extensions import Self

    class Server(Protocol):
        """What serves runs: the launcher, or where there is none the POSIX backend's warden.

        kind: of the sockets of its runs; end: a descriptor that becomes readable when it has died, -1 when it was seen to be dead.
        """

        kind: int
        end: int

        def send(self, words: bytes, descriptors: Sequence[int]) -> None:
            """Send one run: its words, its socket if it has a new one, and its descriptors.

            Raises:
                LauncherDiedError: it is gone, and with it every run of it.
            """

        def discard(self) -> None:
            """Forget it: it was seen to be dead, and the next run starts a new one."""

__all__ = ["Channel", "decode", "send_rights"]

NEWS = (b"began\0", b"usage\0")
"""What else than its outcome is told of a held run."""
PATIENCE = 30.0
"""Seconds to wait for the end of a launcher that has let go of a run without a word; it is there at once."""
FACTS = b"facts\0"
NUMBERS = struct.Struct("=?11q5?5q?q")
"""The facts of a run's end as the launcher tells them (struct facts), in the order of Ended; the POSIX backend's warden names them."""
AT_ONCE = int(socket.MSG_DONTWAIT)  # an enumerated flag is slow to be used


def decode(message: bytes) -> Ended | Failed:
    """Return the launcher's message as facts."""
    if len(message) == NUMBERS.size + 6 and message.startswith(FACTS):
        done, exit_code, signal, *others = NUMBERS.unpack_from(message, 6)
        return Ended(done, exit_code if exit_code >= 0 else None, signal if signal >= 0 else None, *others)
    words = message.split(b"\0")
    words.pop()
    if words and words[0] == b"ended":
        try:
            facts = zip(map(text, words[1::2]), map(int, words[2::2]), strict=True)
            return ended(**dict(facts))
        except (TypeError, ValueError) as error:
            raise LauncherDiedError(f"the launcher said {message!r}, which means nothing: {error}") from error
    if len(words) == 5 and words[0] == b"failed":
        return Failed(text(words[1]), text(words[2]), int(words[4]))
    if len(words) == 2 and words[0] == b"died":
        raise LauncherDiedError(text(words[1]))
    raise LauncherDiedError(f"the launcher said {message!r}, which means nothing")


def text(word: bytes) -> str:
    return word.decode("utf-8", "surrogateescape")


@functools.cache
def happenings() -> frozenset[str]:
    """Return the names of what happened or not; not before it is needed, for it takes as long as a small import."""
    return frozenset(name for name, kind in get_type_hints(Ended).items() if kind is bool)


def ended(*, done: int, status: int, **others: Any) -> Ended:
    """Return what is told with names: of the command's end its wait status, of what happened or not 0 or 1."""
    exit_code = os.WEXITSTATUS(status) if done and os.WIFEXITED(status) else None
    signal = os.WTERMSIG(status) if done and os.WIFSIGNALED(status) else None
    flags = {name: value != 0 for name, value in others.items() if name in happenings()}
    return Ended(done != 0, exit_code, signal, **{**others, **flags})


class Channel:
    """Our end of one run.

    Signal handlers come in between any two instructions of receive(), raise something, or receive too. So what was received stays until
    it is noted, noting it twice is harmless, and only the outermost receive() drops anything.
    """

    inbox: Callable[[], Any] = list
    """Makes what keeps what was received."""

    def __init__(self, launcher: Server, words: bytes, descriptors: list[int]) -> None:
        self.launcher = launcher
        self.outcome: Ended | Failed | None = None
        self.dead = False
        self.pid: int | None = None  # of the command, once it is known that it has begun
        self.answered = 0
        self.answer: Live | None = None
        self.received = self.inbox()
        self.noted = 0
        self.receiving = False
        self.begin(words, descriptors)

    def begin(self, words: bytes, descriptors: list[int]) -> None:
        """Start the run."""
        # socket.socketpair() makes each of them twice, the second time for a class that adds makefile().
        self.socket, theirs = _socket.socketpair(socket.AF_UNIX, self.launcher.kind)
        try:
            self.hand_over(theirs, words, descriptors)
        except BaseException:
            self.give_up()
            raise
        finally:
            theirs.close()

    def give_up(self) -> None:
        """Close the socket of a run that may have begun, and which nobody will know of: its other end hears of it, even if a child by
        os.fork() has a copy of ours.
        """
        with contextlib.suppress(OSError):  # ENOTCONN: it has been closed there
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()

    def hand_over(self, theirs: socket.SocketType, words: bytes, descriptors: Sequence[int]) -> None:
        """Give the run to the launcher, with the other end of its socket."""
        self.launcher.send(words, [theirs.fileno(), *descriptors])

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when the run has ended."""
        return self.socket.fileno()

    def launcher_end(self) -> int:
        """Return the descriptor that becomes readable when the launcher has died: the socket need not tell, for a
        process that this one has forked may hold a copy of the other end.
        """
        return self.launcher.end

    def receive(self) -> Ended | Failed | None:
        """Take all that has been said: return the outcome, or None where that is not among it.

        It does not wait: what made the socket readable a signal handler may have taken meanwhile.

        Raises:
            LauncherDiedError: the launcher died, and the run with it.
        """
        outermost, self.receiving = not self.receiving, True
        read = 0
        try:
            while self.outcome is None and (found := self.next_message(read)) is not None:
                message, following = found
                if not message:
                    self.lost()
                if message.startswith(NEWS):
                    self.note(message)
                    self.noted = read = following
                else:
                    self.outcome = decode(message)
        finally:
            if outermost:
                del self.received[:read]
                self.noted = 0
                self.receiving = False
        return self.outcome

    def is_behind(self) -> bool:
        """Return whether receive() has something to note although the descriptor need not be readable."""
        return len(self.received) > self.noted

    def note(self, message: bytes) -> None:
        words = message.split(b"\0")
        if words[0] == b"began":
            self.pid = int(words[2])
        else:
            number, *facts = map(int, words[2:-1:2])
            if number > self.answered:
                self.answer = Live(*facts)
                self.answered = number

    def next_message(self, read: int, flags: int = AT_ONCE) -> tuple[bytes, int] | None:
        """Return the message after those that were read, which is empty at the socket's end, and how much is read then; None where nothing is
        there yet.
        """
        while (found := self.message_at(read)) is None:
            try:
                self.pull(flags)
            except BlockingIOError:
                return None
        return found

    def message_at(self, read: int) -> tuple[bytes, int] | None:
        return (self.received[read], read + 1) if read < len(self.received) else None

    def pull(self, flags: int) -> None:
        """Receive one message. From the system call to the list no code of Python's runs, and so no signal handler."""
        try:
            self.received.extend(map(self.socket.recv, (4096,), (flags,)))
        except ConnectionResetError:
            # It closed the socket with a "kill" of ours unread: that is told first, and then what it said (unix(7)).
            self.received.extend(map(self.socket.recv, (4096,), (flags,)))

    def await_message(self, read: int) -> tuple[bytes, int]:
        """Wait for the message after those that were read."""
        found = self.next_message(read, 0)
        assert found is not None
        return found

    def last_word(self) -> bytes:
        """Wait for what is told of the run's end; nothing where the socket was closed without a word."""
        word, read = self.await_message(0)
        while word.startswith(NEWS):
            word, read = self.await_message(read)
        return word

    def lost(self) -> NoReturn:
        """Give up on a run of which nothing more will be heard. Its launcher is given up only if it is seen to be dead:
        others have runs there.

        Raises:
            LauncherDiedError: always.
        """
        self.dead = True
        end, descriptor = select.poll(), self.launcher.end
        if descriptor >= 0:
            end.register(descriptor, select.POLLIN)
        if descriptor < 0 or end.poll(PATIENCE * 1000):  # another run's thread may have been here before
            self.launcher.discard()
            raise LauncherDiedError("the launcher has died; the run is dead with it")
        raise LauncherDiedError("the launcher has let go of the run without a word; the run is dead")

    def kill(self) -> None:
        """Kill the whole tree; harmless after the end."""
        self.ask("kill")

    def ask(self, what: str) -> None:
        """Ask the launcher for something: kill, and of a held run end, signal N, pause, resume and usage N; harmless after the end."""
        if self.outcome is None:
            try:
                self.socket.send(what.encode())
            except (BrokenPipeError, ConnectionResetError):
                pass  # it has ended by itself, and the outcome waits to be read

    def close(self) -> None:
        """End the run if it has not ended; returns when nothing that the command began is left."""
        if self.socket.fileno() < 0:
            return
        try:
            if self.outcome is None and not self.dead:
                self.kill()
                word = self.last_word()  # nothing where the launcher has died; in each case the run is over
                with contextlib.suppress(LauncherDiedError):
                    self.outcome = decode(word) if word else None
        finally:
            self.socket.close()

    def retire(self) -> None:
        """Close a run that has ended, and that nobody else can name any more."""
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def send_rights(to: socket.SocketType, body: bytes | memoryview, descriptors: Sequence[int]) -> int:
    """Send a message with descriptors; return how many of its bytes went.

    Raises:
        LaunchError: too many descriptors are on the way. OSError: as sendmsg(2).
    """
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
    try:
        return to.sendmsg([body], rights)
    except OSError as error:
        if error.errno != errno.ETOOMANYREFS:
            raise
        # Without root a command has its caller's uid, and can have as many descriptors in flight as one process of that
        # user may have open (unix(7), ETOOMANYREFS): for this one message the caller is allowed more.
        try:
            with more_descriptors():
                return to.sendmsg([body], rights)
        except OSError as still:
            if still.errno != errno.ETOOMANYREFS:
                raise
            hint = "commands of this user have too many descriptors on the way; give them a smaller max_open_files"
            raise LaunchError("send", None, errno.ETOOMANYREFS, hint) from still


@contextlib.contextmanager
def more_descriptors() -> Iterator[None]:
    """Raise this process's soft limit on descriptors to the hard one for a moment."""
    import resource

    with raising:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


raising = threading.Lock()


def after_fork_in_child() -> None:
    global raising
    raising = threading.Lock()


os.register_at_fork(after_in_child=after_fork_in_child)
