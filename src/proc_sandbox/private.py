"""The private directory of a Sandbox: made, known as alive by a lock, and removed whatever a command has left in it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
import tempfile
import weakref

__all__ = ["PrivateDirectory"]

PREFIX = "proc-sandbox-private-"
NAME = re.compile(re.escape(PREFIX) + r"[a-z0-9_]{8}\Z")  # as tempfile.mkdtemp makes it


class PrivateDirectory:
    """A directory of the caller's own below the system's temporary directory.

    An advisory lock on it, held as long as the object lives, tells others that it is in use: what was left by a caller that
    was killed has none, and the next one of the same user removes it.

    Attributes: path.
    """

    def __init__(self) -> None:
        sweep(tempfile.gettempdir())
        self.lock = -1
        while self.lock < 0:
            self.path = tempfile.mkdtemp(prefix=PREFIX)
            self.lock = lock_shared(self.path)
        self.forgotten = weakref.finalize(self, remove_forgotten, self.path, self.lock, os.getpid())

    def remove(self) -> None:
        """Remove it with all that is in it; harmless when done twice.

        Raises:
            OSError: something in it could not be removed; it can be tried again.
        """
        if self.forgotten.alive:
            remove_tree(self.path)
            self.forgotten.detach()
            os.close(self.lock)


def remove_forgotten(path: str, lock: int, owner: int) -> None:
    """Remove the directory of a Sandbox that nobody has cleaned up, when it is collected or at the interpreter's exit."""
    if os.getpid() == owner:
        remove_tree(path)
    os.close(lock)


def lock_shared(path: str) -> int:
    """Return a descriptor that locks a new directory; -1 where somebody took it for a dead caller's before it was locked."""
    try:
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return -1
    fcntl.flock(lock, fcntl.LOCK_SH)
    if os.path.exists(path):
        return lock
    os.close(lock)
    return -1


def sweep(directory: str) -> None:
    """Remove what callers of this user that were killed have left."""
    with os.scandir(directory) as entries:
        left = [entry.path for entry in entries if NAME.match(entry.name) and is_ours(entry)]
    for path in left:
        with contextlib.suppress(OSError):  # another caller was faster, or something in it is not ours to remove
            remove_if_unlocked(path)


def is_ours(entry: os.DirEntry[str]) -> bool:
    try:
        status = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return False  # its owner has just removed it
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()


def remove_if_unlocked(path: str) -> None:
    lock = open_own(path)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        remove_tree(path)
    finally:
        os.close(lock)


def open_own(path: str) -> int:
    """Open a directory of this user's own, which a command may have closed to it."""
    status = os.lstat(path)
    if stat.S_ISDIR(status.st_mode) and status.st_mode & 0o700 != 0o700:
        os.chmod(path, 0o700)  # it lies where nobody else can put a link in its place: a sticky directory, or our own
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def remove_tree(path: str) -> None:
    """Remove a directory with all below it: without following a link, however deep it is, whatever its modes are.

    Deep trees break what recurses and what builds paths (PATH_MAX). So the directories of each level are moved up into the
    top one, where they take their turn: nothing is ever more than two levels away.
    """
    top = open_own(path)
    try:
        device = os.fstat(top).st_dev
        serial = 0
        while names := os.listdir(top):
            for name in names:
                if not is_directory(name, top, device):
                    os.unlink(name, dir_fd=top)
                    continue
                serial = flatten(name, top, device, serial)
    finally:
        os.close(top)
    os.rmdir(path)


def is_directory(name: str, parent: int, device: int) -> bool:
    """Return whether a name is a directory; open it to us if so.

    Raises:
        OSError: something is mounted there (EXDEV): that is not ours to remove.
    """
    status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    if not stat.S_ISDIR(status.st_mode):
        return False
    if status.st_dev != device:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), name)
    if status.st_mode & 0o700 != 0o700:
        os.chmod(name, 0o700, dir_fd=parent)
    return True


def flatten(name: str, top: int, device: int, serial: int) -> int:
    """Empty one directory of the top one, moving its directories up; return the next free number for a name."""
    directory = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top)
    try:
        for below in os.listdir(directory):
            if not is_directory(below, directory, device):
                os.unlink(below, dir_fd=directory)
                continue
            try:
                os.rmdir(below, dir_fd=directory)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                serial = move_up(below, directory, top, serial)
    finally:
        os.close(directory)
    os.rmdir(name, dir_fd=top)
    return serial


def move_up(name: str, directory: int, top: int, serial: int) -> int:
    while True:
        serial += 1
        try:
            os.rename(name, f".{serial}", src_dir_fd=directory, dst_dir_fd=top)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
        else:
            return serial
