"""The private directory of a Sandbox: made, known as alive by a lock, and removed whatever a command has left in it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
import sys
import tempfile
import weakref

from proc_sandbox import later
from proc_sandbox.backends.unix.links import O_PATH
from proc_sandbox.errors import LaunchError, UnsupportedError
from proc_sandbox.host import RUN_UIDS

__all__ = ["PrivateDirectory", "find"]

LINUX = sys.platform == "linux"
PREFIX = "proc-sandbox-private-"
NAME = re.compile(re.escape(PREFIX) + r"[a-z0-9_]{8}\Z")  # as tempfile.mkdtemp makes it


class PrivateDirectory:
    """A directory of the caller's own below the system's temporary directory.

    An advisory lock on it, held as long as the object lives, tells others that it is in use: what was left by a caller that
    was killed has none, and the next one of the same user removes it.

    Attributes: path, without links; lock, the descriptor of the directory itself; settled, whether it has been made its
    runs' own.
    """

    def __init__(self) -> None:
        if LINUX and not os.path.exists("/proc/self/fdinfo"):  # by which mounts are told apart when it is removed
            raise UnsupportedError("working_dir", "a Sandbox's own directory needs /proc", "mount it, or name a working_dir")
        with later.lock:  # a child by os.fork() would have tempfile's lock held for ever
            parent = os.path.realpath(tempfile.gettempdir())
        sweep(parent)
        self.owner = os.getpid()
        self.path, self.lock = make_locked(parent)
        self.forgotten = weakref.finalize(self, remove_forgotten, self.path, self.lock, self.owner)
        self.forgotten.atexit = False  # then runs may be under way still: who made it sees to it
        status = os.fstat(self.lock)
        self.identity = status.st_dev, status.st_ino  # as long as it is open nothing else has it
        self.settled = False
        alive[self.path] = self

    def check(self) -> os.stat_result:
        """See to it that its name still leads to it, and return its status. A command may have been given the directory that it lies in.

        Raises:
            LaunchError: something else has taken its place; nothing was started.
        """
        try:
            status = os.lstat(self.path)
        except FileNotFoundError:
            status = None
        if status is None or (status.st_dev, status.st_ino) != self.identity:
            raise LaunchError("private", self.path, errno.ESTALE, "the Sandbox's directory was moved away; make a new Sandbox")
        return status

    def give_to(self, uid: int) -> None:
        """Make it another user's: by its descriptor, whatever its name leads to."""
        os.fchown(self.lock, uid, uid)

    def remove(self) -> None:
        """Remove it with all that is in it; harmless when done twice, and in a child by os.fork(), to which it does not belong.

        Raises:
            OSError: something in it could not be removed; it can be tried again.
        """
        if self.forgotten.alive and self.owner == os.getpid():
            remove_locked(self.path, self.lock)
            self.forgotten.detach()
            os.close(self.lock)


alive: weakref.WeakValueDictionary[str, PrivateDirectory] = weakref.WeakValueDictionary()


def find(path: str) -> PrivateDirectory:
    """Return the private directory of this process that has the path."""
    return alive[path]


def remove_forgotten(path: str, lock: int, owner: int) -> None:
    """Remove the directory of a Sandbox that was dropped without cleanup(); no run of it can be under way then."""
    try:
        if os.getpid() == owner:
            remove_locked(path, lock)
    finally:
        os.close(lock)  # what could not be removed is the next sweep's


def remove_locked(path: str, lock: int) -> None:
    """Remove a directory that is open. That it was done before, and a signal's exception came then, is no error."""
    try:
        remove_tree(path)
    except FileNotFoundError:
        if os.fstat(lock).st_nlink:  # it was moved away
            raise


def make_locked(parent: str) -> tuple[str, int]:
    """Make a private directory and lock it; return its path and the descriptor that holds the lock."""
    while True:
        with later.lock:  # as above
            path = tempfile.mkdtemp(prefix=PREFIX, dir=parent)
        try:
            lock = lock_shared(path)
        except BaseException:  # whatever it is, as below: nobody else knows of it
            with contextlib.suppress(OSError):
                os.rmdir(path)
            raise
        if lock >= 0:
            return path, lock


def lock_shared(path: str) -> int:
    """Return a descriptor that locks a new directory; -1 where somebody took it for a dead caller's before it was locked."""
    try:
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return -1
    try:
        fcntl.flock(lock, fcntl.LOCK_SH)
        if os.path.exists(path):
            return lock
    except BaseException:  # whatever it is, a signal's exception too: nobody else knows of it
        os.close(lock)
        raise
    os.close(lock)
    return -1


def sweep(directory: str) -> None:
    """Remove what callers of this user that were killed have left."""
    left = []
    with contextlib.suppress(OSError), os.scandir(directory) as entries:  # a directory that cannot be listed hides them
        left = [entry.path for entry in entries if NAME.match(entry.name) and is_ours(entry)]
    for path in left:
        with contextlib.suppress(OSError):  # another caller was faster, or something in it is not ours to remove
            remove_if_unlocked(path)


def is_ours(entry: os.DirEntry[str]) -> bool:
    try:
        status = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return False  # its owner has just removed it
    owner = status.st_uid
    return stat.S_ISDIR(status.st_mode) and (owner == os.geteuid() or os.geteuid() == 0 and owner in RUN_UIDS)  # or given away


def remove_if_unlocked(path: str) -> None:
    lock = open_own(path)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        remove_tree(path)
    finally:
        os.close(lock)


def open_own(name: str, parent: int | None = None) -> int:
    """Open a directory to list and empty it, whatever its mode is; never what a link in its place leads to.

    Raises:
        OSError: ENOTDIR or ELOOP: it is no directory.
    """
    if not LINUX:
        return open_own_elsewhere(name, parent)
    handle = os.open(name, O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        if os.fstat(handle).st_mode & 0o700 != 0o700:
            os.chmod(f"/proc/self/fd/{handle}", 0o700)
        return os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=handle)
    finally:
        os.close(handle)


def open_own_elsewhere(name: str, parent: int | None) -> int:
    """Do the same where there is no O_PATH: chmod(2) comes before the opening, and does not follow a link (AT_SYMLINK_NOFOLLOW)."""
    status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    if stat.S_ISDIR(status.st_mode) and status.st_mode & 0o700 != 0o700:
        os.chmod(name, 0o700, dir_fd=parent, follow_symlinks=False)
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)


def mount_of(descriptor: int) -> str:
    """Return the mount in which an open file lies (proc_pid_fdinfo(5)); a device may be mounted more than once. Elsewhere than
    on Linux the device is all that can be asked for, and who is not root mounts nothing.
    """
    if not LINUX:
        return str(os.fstat(descriptor).st_dev)
    with open(f"/proc/self/fdinfo/{descriptor}", encoding="utf-8") as file:
        return next(line.split()[1] for line in file if line.startswith("mnt_id:"))


def remove_tree(path: str) -> None:
    """Remove a directory with all below it: without following a link, however deep it is, whatever its modes are.

    Deep trees break what recurses and what builds paths (PATH_MAX). So directories are moved, level by level, into a
    new one beside the tree, which nobody has filled with names, and are emptied there.

    Raises:
        OSError: EXDEV: something is mounted in it, which is not ours to remove.
    """
    with contextlib.suppress(OSError):
        os.rmdir(path)  # most are empty
        return
    top = open_own(path)
    try:
        empty_on_stage(top, os.path.dirname(path))
    finally:
        os.close(top)
    os.rmdir(path)


def empty_on_stage(top: int, parent: str) -> None:
    stage, lock = make_locked(parent)
    try:
        emptier = Emptier(top, lock)
        emptier.empty(top)
        while names := os.listdir(lock):
            for name in names:
                emptier.remove(name)
    finally:
        os.close(lock)
        with contextlib.suppress(OSError):  # not empty: there was an error, and the next sweep finds it
            os.rmdir(stage)


class Emptier:
    """Empties directories of one mount by moving theirs to a stage, from where they are emptied in turn."""

    def __init__(self, top: int, stage: int) -> None:
        self.mount = mount_of(top)
        self.stage = stage
        self.serial = 0

    def remove(self, name: str) -> None:
        """Empty and remove a directory on the stage."""
        directory = open_own(name, self.stage)
        try:
            self.empty(directory)
        finally:
            os.close(directory)
        os.rmdir(name, dir_fd=self.stage)

    def empty(self, directory: int) -> None:
        """Unlink a directory's files and move its directories to the stage."""
        if mount_of(directory) != self.mount:
            raise OSError(errno.EXDEV, "something is mounted there")
        for name in os.listdir(directory):
            try:
                os.unlink(name, dir_fd=directory)
            except (IsADirectoryError, PermissionError):  # unlink(2) of a directory: EISDIR on Linux, EPERM by POSIX
                self.move(name, directory)

    def move(self, name: str, directory: int) -> None:
        handle = open_own(name, directory)  # to be moved it must be writable: its ".." changes
        try:
            if mount_of(handle) != self.mount:
                raise OSError(errno.EXDEV, "something is mounted there", name)
        finally:
            os.close(handle)
        self.serial += 1
        os.rename(name, str(self.serial), src_dir_fd=directory, dst_dir_fd=self.stage)
