"""What both surveys of a Unix look up alike: what the Config names, programs by their names, the interpreter of a script."""

import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence

from proc_sandbox.backends.grants import check_directory, refusal
from proc_sandbox.backends.unix.links import open_resolved, resolve
from proc_sandbox.config import Config, never_granted, shown_all_the_same
from proc_sandbox.errors import ConfigError
from proc_sandbox.host import Grant, Hidden
from proc_sandbox.planner.unix.environment import DEFAULT_PATH

__all__ = ["activated", "explain_script", "granted", "hidden_paths", "private_grant", "programs_on", "search_path"]


def granted(field: str, path: str, access: str, writable: Sequence[str]) -> tuple[Grant, int]:
    """Return the grant of a path that the Config names, and the number of its device.

    Args:
        writable: Directories that a command can write to: a link there is not followed.

    Raises:
        ConfigError: it does not exist, a command may have made it lead elsewhere, or it cannot be granted.
    """
    try:
        real = resolve(path, writable).path
        status = os.stat(real)
    except OSError as error:
        raise refusal(field, path, error) from None
    if never_granted(real):
        raise ConfigError(field, path, f"it leads to {real!r}, which cannot be granted; name a directory of your own")
    directory = stat.S_ISDIR(status.st_mode)
    check_directory(field, path, directory=directory)
    return Grant(path, real, access, directory, status.st_uid, status.st_gid), status.st_dev


def hidden_paths(
    config: Config, writable: Sequence[str], shown: Iterable[str], names: Callable[[str], Iterable[str]] = lambda real: ()
) -> tuple[tuple[Hidden, ...], tuple[str, ...]]:
    """Return what the Config hides and there is, each once; and what it names that is not there.

    Args:
        writable: Directories that a command can write to: a link there is not followed.
        shown: Where everything lies that a command is to see.
        names: Says by which other names a path without links can be reached.

    Raises:
        ConfigError: something that is to be seen lies in it, or a command may have made it lead elsewhere.
    """
    places = tuple(shown) if config.hidden_paths else ()
    found: dict[str, Hidden] = {}
    missing: list[str] = []
    for path in config.hidden_paths:
        try:
            real = resolve(path, writable).path
            directory = stat.S_ISDIR(os.stat(real).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            missing.append(path)
            continue
        except OSError as error:
            raise refusal("hidden_paths", path, error) from None
        for name in (real, *names(real)):
            for place in places:
                if place == name or place.startswith(name.rstrip("/") + "/"):
                    raise ConfigError("hidden_paths", path, shown_all_the_same(place))
            found.setdefault(name, Hidden(path, name, directory))
    return tuple(found[real] for real in sorted(found)), tuple(missing)


def private_grant(name: str, private: str) -> tuple[Grant, int]:
    """Return the grant of a Sandbox's own directory, which has that name for its runs, and the number of its device."""
    status = os.lstat(private)  # a link there now would be a command's, and nobody follows it
    return Grant(name, private, "write", True, status.st_uid, status.st_gid), status.st_dev


def search_path(config: Config) -> str:
    """Return the PATH in which a command's name is looked up: the one it will have, else the caller's."""
    return dict(config.env).get("PATH") or os.environ.get("PATH") or DEFAULT_PATH


def programs_on(path: str, name: str) -> Iterator[str]:
    """Yield the programs of a name on a PATH, in its order."""
    for directory in path.split(":"):
        candidate = os.path.join(directory or ".", name)
        if os.path.isfile(candidate) and os.access(candidate, os.X_OK):
            yield os.path.abspath(candidate)


def activated() -> tuple[str, ...]:
    """Return the running interpreter's directory of programs, where the caller has it on its PATH (a virtual environment)."""
    directory = os.path.dirname(sys.executable or "")
    return (directory,) if directory and directory in os.environ.get("PATH", "").split(":") else ()


def explain_script(program: str, writable: Sequence[str], missing: Callable[[str], str | None]) -> str | None:
    """Return why a script that is there could not be executed, as its first line tells.

    Args:
        writable: Directories in which a command may have put something else in its place meanwhile: that is not opened.
        missing: Says of the interpreter's path what is wrong with it, or None.
    """
    try:
        descriptor = open_resolved(resolve(program, writable), os.O_RDONLY)
    except OSError:
        return None
    with open(descriptor, "rb") as file:
        first = file.readline(256)
    if not first.startswith(b"#!"):
        return None
    if first.endswith(b"\r\n"):
        return "its first line ends with a carriage return, which the kernel takes for part of the interpreter's name"
    words = os.fsdecode(first[2:]).split()
    return missing(words[0]) if words else None
