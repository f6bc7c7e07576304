"""Who may touch which file: entries that a run needs in the access control of granted directories, put there and taken back.

Each object is changed by a handle to itself. A path may lead elsewhere by the time it is used, where another run can write: so
nothing is followed (FILE_FLAG_OPEN_REPARSE_POINT), and what does not lie below what was granted is left alone. SetNamedSecurityInfo
would walk by names.
"""

from __future__ import annotations

import contextlib
import ntpath
import threading
from collections.abc import Callable, Iterator, Sequence

from proc_sandbox.backends.windows import acl
from proc_sandbox.backends.windows.security import (
    FILE_ATTRIBUTE_DIRECTORY,
    FILE_ATTRIBUTE_REPARSE_POINT,
    READ_CONTROL,
    WRITE_DAC,
    WRITE_OWNER,
    Security,
)
from proc_sandbox.backends.windows.winapi import (
    ERROR_ACCESS_DENIED,
    ERROR_FILE_NOT_FOUND,
    ERROR_FILENAME_EXCED_RANGE,
    ERROR_INVALID_ACL,
    ERROR_PATH_NOT_FOUND,
    FILE_FLAG_BACKUP_SEMANTICS,
    FILE_FLAG_OPEN_REPARSE_POINT,
    FILE_SHARE_DELETE,
    FILE_SHARE_READ,
    FILE_SHARE_WRITE,
    INFINITE,
    OPEN_EXISTING,
    Win32,
    Win32Error,
)
from proc_sandbox.planner.windows.plan import Access

__all__ = ["ITSELF", "LABELS", "SHARED", "AccessControl", "extended", "postponed"]

LABELS = ("low", "medium")
SHARED = FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE
ITSELF = FILE_FLAG_BACKUP_SEMANTICS | FILE_FLAG_OPEN_REPARSE_POINT
MUTEX = "Local\\proc-sandbox-access-control"
GONE = (ERROR_FILE_NOT_FOUND, ERROR_PATH_NOT_FOUND, ERROR_FILENAME_EXCED_RANGE)
"""What is not there, or lies deeper than any path reaches: no path of a command's either."""


def extended(path: str) -> str:
    """Return a path of any length and with any name: nothing is interpreted in it. "Naming Files, Paths, and Namespaces" """
    return path if path.startswith("\\\\") else f"\\\\?\\{path}"


@contextlib.contextmanager
def postponed(errors: list[OSError]) -> Iterator[None]:
    """Go on after an error, which the caller raises when all else is done."""
    try:
        yield
    except OSError as error:
        errors.append(error)


def plain(path: str) -> str:
    return ntpath.normcase(path).rstrip("\\")


class AccessControl:
    """Changes the access control of files; one at a time on this machine, for what is read is written back changed."""

    def __init__(self, win32: Win32, security: Security) -> None:
        self.win32 = win32
        self.security = security
        self.lock = threading.Lock()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until no other thread or process changes anything."""
        with self.lock:
            mutex = self.security.create_mutex(MUTEX)
            try:
                self.win32.wait(mutex, INFINITE)
                try:
                    yield
                finally:
                    self.security.release_mutex(mutex)
            finally:
                self.win32.close(mutex)

    def give(self, items: Sequence[Access], sid_of: Callable[[str], str], remember: Callable[[str, str], None]) -> None:
        """Put in what a run needs.

        Args:
            sid_of: from the holder that an Access names to its SID.
            remember: called with a path and its label before that is changed.

        Raises:
            Win32Error: something could not be changed; take_back() undoes the rest.
        """
        with self.alone():
            for item in items:
                if item.kind in LABELS:
                    self.put_label(item, remember)
                else:
                    self.put_entries(item, sid_of(item.holder))

    def put_entries(self, item: Access, sid: str) -> None:
        for handle, directory, top in self.objects(item.path, READ_CONTROL | WRITE_DAC, exact=item.holder == "run"):
            added = acl.entries(item.kind, sid, directory=directory, top=top)
            self.edit(handle, lambda text, added=added: acl.with_entries(text, added), must=top or item.kind == "deny_write")  # type: ignore[misc]

    def edit(self, handle: int, change: Callable[[str], str], *, must: bool) -> None:
        """Change a list. One that nobody can write down stays as it is, unless it must be changed: whoever makes a file makes its list."""
        try:
            before = self.security.dacl(handle)
            after = change(before)
        except (Win32Error, ValueError) as error:
            if must:
                raise error if isinstance(error, Win32Error) else Win32Error("GetKernelObjectSecurity", ERROR_INVALID_ACL) from None
            return
        if after != before:
            self.security.set_dacl(handle, after)

    def put_label(self, item: Access, remember: Callable[[str, str], None]) -> None:
        for handle, directory, _ in self.objects(item.path, READ_CONTROL | WRITE_OWNER, exact=True):
            before = self.security.label(handle)
            if before:
                remember(self.win32.final_path(handle), before)
            self.security.set_label(handle, acl.label(item.kind, directory=directory))

    def take_back(self, path: str, sid: str) -> None:
        """Take out every entry of a SID, from a path and what lies below it; harmless where there is none, or no such path.

        Raises:
            Win32Error: something could not be changed; all else is.
        """
        errors: list[OSError] = []
        with self.alone():
            for handle, _, _ in self.objects(path, READ_CONTROL | WRITE_DAC, lenient=True):
                with postponed(errors):
                    self.edit(handle, lambda text: acl.without(text, sid), must=False)
        if errors:
            raise errors[0]

    def take_label_back(self, path: str, before: dict[str, str]) -> None:
        """Give a path and what lies below it the labels that they had before; none where they had none.

        Raises:
            Win32Error: something could not be changed; all else is.
        """
        errors: list[OSError] = []
        with self.alone():
            for handle, _, _ in self.objects(path, READ_CONTROL | WRITE_OWNER, lenient=True, exact=True):
                with postponed(errors):
                    self.security.set_label(handle, before.get(self.win32.final_path(handle), ""))
        if errors:
            raise errors[0]

    def objects(self, path: str, access: int, *, lenient: bool = False, exact: bool = False) -> Iterator[tuple[int, bool, bool]]:
        """Yield a handle for a path and for all below it, whether it is a directory, and whether it is the path itself.

        What vanishes meanwhile, is a link, or has come to lie elsewhere is left out. So is what lies below and denies us: nothing of
        the run's is in its list, and a command could leave such a thing for others to stumble over ("Owner Rights").

        Args:
            lenient: the path itself may be left out as well.
            exact: the path is one without links, and is left out if it leads elsewhere now: another run can write to a directory on the way.

        Raises:
            Win32Error: the path itself denies us, or leads elsewhere; filename says which.
        """
        top = ""
        pending = [extended(path)]
        while pending:
            name = pending.pop()
            with self.opened(name, access, passable=lenient or bool(top)) as handle:
                if not handle:
                    continue
                place, attributes = self.win32.final_path(handle), self.security.attributes(handle)
                if exact and not top and plain(place) != plain(path):
                    if lenient:
                        return
                    error = Win32Error("CreateFileW", ERROR_ACCESS_DENIED)
                    error.filename = name
                    raise error
                first, top = not top, top or place
                if attributes & FILE_ATTRIBUTE_REPARSE_POINT or not (place == top or place.startswith(top.rstrip("\\") + "\\")):
                    continue
                directory = bool(attributes & FILE_ATTRIBUTE_DIRECTORY)
                yield handle, directory, first
            if directory:
                pending += [f"{name}\\{entry}" for entry in self.listing(name)]

    @contextlib.contextmanager
    def opened(self, name: str, access: int, *, passable: bool) -> Iterator[int]:
        """Open an object itself; 0 where it is not there any more, or denies us and may be passed by."""
        try:
            handle = self.win32.open_file(name, access, SHARED, OPEN_EXISTING, ITSELF)
        except Win32Error as error:
            if error.code not in GONE and not (passable and error.code == ERROR_ACCESS_DENIED):
                error.filename = name
                raise
            yield 0
            return
        try:
            yield handle
        finally:
            self.win32.close(handle)

    def listing(self, name: str) -> tuple[str, ...]:
        try:
            return self.security.names(name)
        except Win32Error as error:
            if error.code not in (*GONE, ERROR_ACCESS_DENIED):
                raise
            return ()
