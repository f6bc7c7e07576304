"""Where things are, for one run: the system's directories, the interpreter, what the Config names, the command."""

from __future__ import annotations

import errno
import ntpath
import os
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Protocol

from proc_sandbox.backends.grants import check_directory, elsewhere, refusal
from proc_sandbox.backends.windows.links import final_path, follow, lies_in
from proc_sandbox.backends.windows.process import is_batch_file
from proc_sandbox.backends.windows.winapi import Win32
from proc_sandbox.config import Config, shown_all_the_same
from proc_sandbox.errors import CommandNotExecutableError, CommandNotFoundError, ConfigError
from proc_sandbox.host import Grant, Hidden, Paths, SystemPath

__all__ = ["check_path", "survey"]

PROGRAMS = (".com", ".exe")
"""What is tried after a name without an ending; of PATHEXT what CreateProcess runs by itself."""
BATCH = (".bat", ".cmd")
ASK_CMD = 'a batch file is taken apart by cmd.exe, for which no quoting is safe; write ["cmd", "/d", "/c", {!r}, ...] and quote for it'
RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9\u00b9\u00b2\u00b3])(\s*[.:].*|\s+)?\Z", re.IGNORECASE)
"""Names that mean a device in any directory. "Naming Files, Paths, and Namespaces" """
ROOTS = ("PROGRAMFILES", "PROGRAMFILES(X86)")


class Readable(Protocol):
    """Whether every AppContainer may read a directory as it is."""

    def __call__(self, path: str) -> bool: ...


def check_path(field: str, path: str) -> str:
    """Return a path in its plain form; what is no directory or file on a drive of this machine is refused.

    Raises:
        ConfigError: a device, a share, a whole drive, or a name that Windows reads otherwise than it is written.
    """
    plain = path.replace("/", "\\")
    if plain.startswith("\\\\?\\") and re.match(r"[A-Za-z]:\\", plain[4:]):
        plain = plain[4:]
    if plain.startswith(("\\\\?\\", "\\\\.\\")):
        raise ConfigError(field, path, "a device or volume by its number cannot be granted; name it by its drive")
    if plain.startswith("\\\\"):
        raise ConfigError(field, path, "a share has the access control of its server; name a directory on a drive of this machine")
    drive, rest = ntpath.splitdrive(plain)
    parts = [part for part in rest.split("\\") if part]
    if not re.match(r"[A-Za-z]:\Z", drive) or not rest.startswith("\\"):
        raise ConfigError(field, path, "name it in full, with its drive")
    if not parts:
        raise ConfigError(field, path, "a whole drive cannot be granted; name a directory on it")
    for part in parts:
        check_part(field, path, part)
    return plain


def check_part(field: str, path: str, part: str) -> None:
    if RESERVED.match(part):
        raise ConfigError(field, path, f"{part!r} is the name of a device; name a file or directory")
    if part not in (".", "..") and part.endswith((".", " ")):
        raise ConfigError(field, path, f"{part!r}: dots and blanks at the end of a name are dropped by Windows; leave them out")
    if ":" in part:
        raise ConfigError(field, path, f"{part!r}: a stream within a file cannot be named here")


def system_paths(readable: Readable) -> tuple[SystemPath, ...]:
    """Return the Windows directory, that of installed programs, and the interpreter's where it lies elsewhere."""
    root = os.environ.get("SYSTEMROOT", "C:\\Windows")
    found = [root, *(os.environ[name] for name in ROOTS if name in os.environ)]
    own = [prefix for prefix in dict.fromkeys((sys.prefix, sys.base_prefix)) if not any(lies_in(prefix, place) for place in found)]
    shown = [SystemPath(place, "dir") for place in dict.fromkeys(found)]
    return (*shown, *(SystemPath(prefix, "dir", private=not readable(prefix)) for prefix in own))


def survey(
    win32: Win32,
    config: Config,
    command: Sequence[str],
    private: str | None,
    *,
    contained: bool,
    readable: Readable,
    journal: str = "",
) -> Paths:
    """Return where things are.

    Args:
        contained: the command sees nothing but the system's directories and what is granted.
        journal: where it is kept; "" where there is none.

    Raises:
        ConfigError: a directory that is named does not exist or cannot be granted.
        CommandNotFoundError, CommandNotExecutableError: of the command.
    """
    granted = grants(win32, config, private)
    for item in granted:
        check_journal(item, os.path.realpath(journal).removeprefix("\\\\?\\") if journal else "")
    system = system_paths(readable)
    program = locate(command[0], config, private)
    if contained and not visible(program, system, granted):
        hint = f"it is not visible inside; pass allowed_dirs=[{ntpath.dirname(program)!r}]"
        raise CommandNotFoundError("find", program, errno.ENOENT, hint)
    prefix = tuple(dict.fromkeys((ntpath.dirname(sys.executable), ntpath.join(sys.prefix, "Scripts"))))
    shown = [item.source for item in granted] + [entry.path for entry in system]
    covered, missing = hidden_paths(win32, config, shown, private, contained=contained)
    return Paths(system, granted, executable=program, program=program, path_prefix=prefix, private=private or "", hidden=covered, missing=missing)


def visible(program: str, system: Sequence[SystemPath], granted: Sequence[Grant]) -> bool:
    places = [entry.path for entry in system] + [item.source for item in granted]
    return any(lies_in(program, place) for place in places)


def grants(win32: Win32, config: Config, private: str | None) -> tuple[Grant, ...]:
    """Return what the Config names, where it really lies; a link in a place that a command could write to is not followed."""
    writable = [final_path(win32, place) for place in config.writable_places(private) if os.path.isdir(place)]
    found: dict[str, Grant] = {}
    for field, path, access in config.named_paths():
        item = grant(win32, field, path, access, writable)
        if item.source not in found or access == "read" and field == "read_only_dirs":
            found[item.source] = item
    return tuple(sorted(found.values(), key=lambda item: item.source.lower()))


def hidden_paths(
    win32: Win32, config: Config, shown: Sequence[str], private: str | None, *, contained: bool
) -> tuple[tuple[Hidden, ...], tuple[str, ...]]:
    """Return what the Config hides and a command would see; and what it names that is not there.

    Raises:
        ConfigError: something that is to be seen lies in it, or a command may have made it lead elsewhere.
    """
    writable = [final_path(win32, place) for place in config.writable_places(private) if os.path.isdir(place)]
    found: dict[str, Hidden] = {}
    missing: list[str] = []
    for path in config.hidden_paths:
        plain = check_path("hidden_paths", path)
        if not os.path.lexists(plain):
            missing.append(path)
            continue
        try:
            real = follow(win32, plain, writable)
        except OSError as error:
            raise refusal("hidden_paths", path, error) from None
        for place in shown:
            if lies_in(place, real):
                raise ConfigError("hidden_paths", path, shown_all_the_same(place))
        if not contained or any(lies_in(real, place) for place in shown):
            found.setdefault(real.lower(), Hidden(plain, real, os.path.isdir(real)))
    return tuple(found.values()), tuple(missing)


def check_journal(item: Grant, journal: str) -> None:
    """Refuse to have the journal written to: the next caller does what it says, with the caller's own rights.

    Raises:
        ConfigError: a command could write to it.
    """
    if journal and item.access == "write" and (lies_in(journal, item.source) or lies_in(item.source, journal)):
        reason = f"what runs have changed is written down in {journal}, for a later caller to undo; name a directory beside it"
        raise ConfigError("writable_dirs", item.source, reason)


def grant(win32: Win32, field: str, path: str, access: str, writable: Sequence[str]) -> Grant:
    plain = check_path(field, path)
    try:
        real = follow(win32, plain, writable)
        directory = os.path.isdir(real)
        if not os.path.lexists(real):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), plain)
    except OSError as error:
        raise refusal(field, path, error) from None
    check_path(field, real)
    check_directory(field, path, directory=directory)
    root = os.environ.get("SYSTEMROOT", "C:\\Windows")
    if lies_in(real, root) or lies_in(root, real):
        raise ConfigError(field, path, "it belongs to Windows itself; name a directory of your own")
    return Grant(plain, real, access, directory, 0, 0)


# --- the command ---


def locate(command: str, config: Config, private: str | None) -> str:
    """Return where the command lies: by a path, or by its name the first on the PATH; never in the current directory.

    Raises:
        CommandNotFoundError: there is none. CommandNotExecutableError: it is a batch file, or no file.
    """
    word = command.replace("/", "\\")
    last = ntpath.basename(word)
    if not last or RESERVED.match(last) or last.endswith((".", " ")) or ":" in last:
        raise CommandNotFoundError("find", command, errno.ENOENT, "no file on Windows can have such a name")
    found = by_path(word, config, private) if word != last else search(word, config)
    if not found:
        where = from_here(word) if word != last else f"searched {search_path(config)}"
        raise CommandNotFoundError("find", command, errno.ENOENT, where)
    if is_batch_file(found):
        raise CommandNotExecutableError("find", found, errno.EACCES, ASK_CMD.format(found))
    return found


def by_path(word: str, config: Config, private: str | None) -> str:
    start = config.working_dir or private
    drive, rest = ntpath.splitdrive(word)
    if drive and not rest.startswith("\\") or not drive and rest.startswith("\\"):
        return ""  # "C:x" and "\x" depend on a current directory
    if not drive and not start:
        return ""
    path = ntpath.normpath(word if drive else ntpath.join(start or "", word))
    if os.path.isdir(path):
        raise CommandNotExecutableError("find", path, errno.EACCES, "it is a directory")
    return next((each for each in candidates(path) if os.path.isfile(each)), "")


def candidates(path: str) -> Iterator[str]:
    """Yield a path as it is, then with each ending."""
    if ntpath.splitext(path)[1]:
        yield path
    for ending in (*PROGRAMS, *BATCH):
        yield path + ending


def search(name: str, config: Config) -> str:
    for directory in search_path(config).split(";"):
        directory = directory.strip('"')
        if ntpath.splitdrive(directory)[0] and ntpath.isabs(directory):
            found = next((each for each in candidates(ntpath.join(directory, name)) if os.path.isfile(each)), "")
            if found:
                return ntpath.normpath(found)
    return ""


def search_path(config: Config) -> str:
    """Return the PATH in which a name is looked up: the one that the command will have, else the caller's, the interpreter's first."""
    given = next((value for name, value in config.env if name.upper() == "PATH"), "")
    return given or ";".join((ntpath.dirname(sys.executable), os.environ.get("PATH", "")))


def from_here(word: str) -> str:
    """Return the remedy for a relative path that would lead somewhere from the caller's own directory."""
    if ntpath.isabs(word) or not any(os.path.isfile(each) for each in candidates(word)):
        return ""
    return elsewhere()
