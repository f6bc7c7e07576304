"""Files that the caller puts into a directory of a command's, and takes from it, whatever commands do there meanwhile.

The directory is opened once; from there each component is opened by the descriptor of the one before it, and none that is a link
(openat(2), O_NOFOLLOW). So nothing outside can be meant: what a command swaps on the way is found to be a link, or lies below the
directory as well. There is no "..". A file is written beside its place and then given its name (rename(2)): what has that name
before, be it a link, a FIFO or another name of a file elsewhere, is neither opened nor waited for.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator, Sequence

from proc_sandbox.backends.grants import PlantedLinkError
from proc_sandbox.backends.unix.links import O_PATH

__all__ = ["read_file", "write_file"]

DIRECTORY = O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
CHUNK = 1 << 20


def write_file(top: int, parts: Sequence[str], data: bytes, mode: int) -> None:
    """Write a file anew below a directory, and make the directories on the way; all that is made belongs to the directory's owner.

    Args:
        top: The directory's descriptor.
        parts: The path's components.
        mode: Of the file, whatever the umask is.

    Raises:
        PlantedLinkError: a directory on the way is a link. OSError: as open(2) and rename(2).
    """
    owner = os.fstat(top)
    with contextlib.ExitStack() as stack:
        directory = descend(stack, top, parts[:-1], owner)
        fresh = f".proc-sandbox-{secrets.token_hex(8)}"
        file = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory)
        stack.callback(os.close, file)
        try:
            give(file, owner)
            write_all(file, data)
            os.fchmod(file, mode)
            os.rename(fresh, parts[-1], src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(fresh, dir_fd=directory)
            raise


def read_file(top: int, parts: Sequence[str], most: int) -> bytes:
    """Return what a file below a directory holds.

    Args:
        top: The directory's descriptor.
        parts: The path's components.
        most: Bytes.

    Raises:
        PlantedLinkError: it, or a directory on the way, is a link. FileNotFoundError: there is none.
        OSError: EINVAL: it is no regular file. EFBIG: it has more bytes.
    """
    owner = os.fstat(top)
    with contextlib.ExitStack() as stack:
        directory = descend(stack, top, parts[:-1], None)
        name = parts[-1]
        check_readable(name, os.stat(name, dir_fd=directory, follow_symlinks=False), owner, most)
        # What has come in its place since is not waited for: a FIFO, a device.
        with refusing_links(name, directory):
            file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=directory)
        stack.callback(os.close, file)
        check_readable(name, os.fstat(file), owner, most)
        return read_all(file, name, most)


def descend(stack: contextlib.ExitStack, top: int, parts: Sequence[str], owner: os.stat_result | None) -> int:
    """Open a directory below another one; owner: whose those are that have to be made, None where none is made."""
    here = top
    for part in parts:
        made = owner is not None and make_directory(part, here)
        with refusing_links(part, here):
            here = os.open(part, DIRECTORY, dir_fd=here)
        stack.callback(os.close, here)
        if made and owner is not None:
            give_directory(here, owner)
    return here


def make_directory(name: str, parent: int) -> bool:
    """Return whether it was not there before."""
    try:
        os.mkdir(name, 0o755, dir_fd=parent)
    except FileExistsError:
        return False
    return True


@contextlib.contextmanager
def refusing_links(name: str, parent: int) -> Iterator[None]:
    """Say of what was not opened for being a link that it is one: O_DIRECTORY makes ENOTDIR of it."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK, errno.ENOTDIR) and is_link(name, parent):
            raise PlantedLinkError(name) from None
        raise


def is_link(name: str, parent: int) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def check_readable(name: str, found: os.stat_result, owner: os.stat_result, most: int) -> None:
    """Refuse what is no file of the directory's, or too large."""
    if stat.S_ISLNK(found.st_mode):
        raise PlantedLinkError(name)
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", name)
    # link(2) gives a file of somebody else's a name here; as root we could read any.
    if found.st_nlink > 1 and found.st_uid != owner.st_uid:
        raise OSError(errno.EACCES, "another name of a file that belongs to somebody else", name)
    if found.st_size > most:
        raise too_large(name, most)


def too_large(name: str, most: int) -> OSError:
    return OSError(errno.EFBIG, f"it holds more than {most} bytes; pass a larger max_size", name)


def read_all(file: int, name: str, most: int) -> bytes:
    """Return all of it: it may grow while it is read."""
    kept = bytearray()
    while data := os.read(file, min(CHUNK, most + 1 - len(kept))):
        kept += data
        if len(kept) > most:
            raise too_large(name, most)
    return bytes(kept)


def write_all(file: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(file, left[:CHUNK]) :]


def give(file: int, owner: os.stat_result) -> None:
    """Make a new file the directory's owner's, as whom the commands are seen on the host."""
    if os.geteuid() == 0 and (owner.st_uid, owner.st_gid) != (os.geteuid(), os.getegid()):
        os.fchown(file, owner.st_uid, owner.st_gid)


def give_directory(directory: int, owner: os.stat_result) -> None:
    """Do the same with a new directory; a command may have moved one of its own into its place."""
    if os.geteuid() == 0 and os.fstat(directory).st_uid == 0 != owner.st_uid:
        # fchown(2) wants more than O_PATH, and "." is that very directory.
        file = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
        try:
            os.fchown(file, owner.st_uid, owner.st_gid)
        finally:
            os.close(file)
