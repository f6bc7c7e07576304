"""Files of policies: which there are, what they have, and who could have written them."""

from __future__ import annotations

import difflib
import os
import re
import stat
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proc_sandbox.errors import PolicyError
from proc_sandbox.policies.lines import Lines, lines_of

__all__ = ["File", "Table", "choose", "parse", "read", "suggestion", "user_file", "user_policies"]

IN_PYPROJECT = ("tool", "proc-sandbox")
MOST = 256 << 10
"""Bytes of a file of policies."""


@dataclass(frozen=True)
class Table:
    """One policy as its file has it. path: of its table; label: what people are told that its values come from, if not the line."""

    file: str
    name: str
    values: Mapping[str, Any]
    lines: Lines
    path: tuple[str, ...]
    label: str = ""

    def line(self, key: str) -> int | None:
        """Return the line of a key, or where there is none of its own that of what it is in."""
        path = (*self.path, key)
        return next((self.lines[path[:count]] for count in range(len(path), 0, -1) if path[:count] in self.lines), None)

    def origin(self, key: str) -> str:
        """Return where a value comes from, for people."""
        return self.label or f"{self.file}:{self.line(key) or '?'}"

    def error(self, key: str, value: object, remedy: str) -> PolicyError:
        """Return an error about one key."""
        return PolicyError(self.file, self.line(key), key, value, remedy)

    @property
    def description(self) -> str:
        """What it says of itself."""
        return str(self.values.get("description", ""))


@dataclass(frozen=True)
class File:
    """One file's policies."""

    path: str
    tables: Mapping[str, Table]


def read(path: str | os.PathLike[str], label: str = "") -> File:
    """Return the policies of a file.

    Raises:
        PolicyError: it cannot be read, or is no file of policies.
    """
    name = os.fspath(path)
    try:
        content = read_whole(path)
    except OSError as error:
        raise PolicyError(name, None, "policy", name, f"{error.strerror}; name a TOML file that can be read") from None
    try:
        text = content.decode()
    except ValueError:
        raise PolicyError(name, None, "policy", name, "not UTF-8, as TOML is") from None
    data = parse(name, text)
    prefix = IN_PYPROJECT if os.path.basename(name) == "pyproject.toml" else ()
    return File(name, {table.name: table for table in tables_of(name, data, prefix, lines_of(text), label)})


def read_whole(path: str | os.PathLike[str]) -> bytes:
    """Return what a file holds; what is none is not waited for.

    Raises:
        OSError: it cannot be read. PolicyError: it is no regular file, or holds more than any policies do.
    """
    name = os.fspath(path)
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0))
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise PolicyError(name, None, "policy", name, "no regular file; name a TOML file")
        data = file.read(MOST + 1)
    if len(data) > MOST:
        raise PolicyError(name, None, "policy", name, f"more than {MOST >> 10} KiB; policies are short")
    return data


def parse(name: str, text: str) -> dict[str, Any]:
    """Return what a TOML file says.

    Raises:
        PolicyError: it is not TOML.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        data: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"\(at line (\d+)", str(error))
        line = int(found[1]) if found else text.count("\n") + 1
        raise PolicyError(name, line, "policy", name, f"not TOML: {error}") from None
    except (ValueError, RecursionError) as error:  # an integer with thousands of digits, lists in lists in lists
        raise PolicyError(name, None, "policy", name, f"not TOML that can be read: {error}") from None
    return data


def tables_of(name: str, data: Any, prefix: tuple[str, ...], lines: Lines, label: str) -> Iterator[Table]:
    """Yield the policies of a file.

    Raises:
        PolicyError: there are none, or something else is where they are.
    """
    for key in prefix:
        data = data.get(key, {}) if isinstance(data, dict) else {}
    where = ".".join((*prefix, "policies"))
    for key in data if isinstance(data, dict) else ():
        if key != "policies":
            raise PolicyError(name, lines.get((*prefix, key)), key, data[key], f"unknown; policies are tables [{where}.NAME]")
    place = (*prefix, "policies")
    found = data.get("policies", {}) if isinstance(data, dict) else {}
    if not found or not isinstance(found, dict):
        raise PolicyError(name, lines.get(place), "policies", found, f"there are no tables [{where}.NAME]")
    for key, values in found.items():
        if not isinstance(values, dict):
            raise PolicyError(name, lines.get((*place, key)), key, values, f"not a policy; they are tables [{where}.NAME]")
        yield Table(name, key, values, lines, (*place, key), label)


def choose(file: File, policy: str | None) -> str:
    """Return which policy of a file is meant: by default the only one, or the one that is called "default".

    Raises:
        PolicyError: there is no such policy, or more than one could be meant.
    """
    if policy is None:
        policy = next(iter(file.tables)) if len(file.tables) == 1 else "default"
        if policy not in file.tables:
            raise PolicyError(file.path, None, "policy", None, f"name one of {', '.join(file.tables)}")
    if not isinstance(policy, str):
        raise PolicyError(file.path, None, "policy", policy, f"must be a str; it has {', '.join(file.tables)}")
    if policy not in file.tables:
        raise PolicyError(file.path, None, "policy", policy, f"no such policy; {suggestion(policy, file.tables, 'it has')}")
    return policy


def suggestion(name: str, known: Any, all_of_them: str) -> str:
    """Return what may have been meant by a name, or if nothing is near all that there are."""
    near = difflib.get_close_matches(name, known, 1)
    return f"did you mean {near[0]!r}?" if near else f"{all_of_them} {', '.join(known)}"


# --- the user's own ---


def user_file() -> Path:
    """Return where the user's own policies are: policies.toml in the configuration directory, which need not exist."""
    import platformdirs

    return platformdirs.user_config_path("proc-sandbox", appauthor=False) / "policies.toml"


def user_policies() -> File | None:
    """Return the user's own policies; None where there are none.

    Raises:
        PolicyError: somebody else could have written them, or they cannot be read.
    """
    path = user_file()
    if not os.path.lexists(path):
        return None
    if hasattr(os, "geteuid"):
        check_owner(path, os.geteuid())
    return read(path)


def check_owner(path: Path, user: int) -> None:
    """Refuse a file that others than the user and root can write to, or put another one in its place.

    Raises:
        PolicyError: they can.
    """
    for start in dict.fromkeys((os.path.abspath(path), os.path.realpath(path))):  # by a link too: both ways lead there
        for place in (Path(start), *Path(start).parents):
            try:
                status = os.stat(place)
            except OSError as error:
                raise PolicyError(str(path), None, "policy", str(place), f"{error.strerror}") from None
            # Where the sticky bit is set (/tmp) nobody renames what is not theirs, and what lies in it here is the user's.
            open_to_others = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not status.st_mode & stat.S_ISVTX
            if status.st_uid not in (0, user):
                raise PolicyError(str(path), None, "policy", str(place), f"it belongs to another user ({status.st_uid}); chown it")
            if open_to_others:
                raise PolicyError(str(path), None, "policy", str(place), f"others than you can write to it; chmod go-w {place}")
