"""What Sandbox.write() and read() are given, decided for every system alike; nothing is opened here."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from proc_sandbox.errors import ConfigError

__all__ = ["check_data", "check_mode", "components"]

ODD_ON_WINDOWS = re.compile(r'[<>:"|?*\x00-\x1f]|[. ]\Z|\A(con|prn|aux|nul|com\d|lpt\d|conin\$|conout\$)\s*(\.|\Z)', re.IGNORECASE)
"""What is no name of a file in a directory, but a stream, a pattern or a device. "Naming Files, Paths, and Namespaces" """
REMEDY = "name a file below the Sandbox's directory, as in 'src/main.c'"


def components(path: object, names: Iterable[str], *, windows: bool = os.name == "nt") -> tuple[str, ...]:
    """Return the components of a path of a file below a directory.

    Args:
        path: Relative to the directory, or absolute by one of its names.
        names: Absolute paths by which the directory is known.

    Raises:
        ConfigError: it is no path, lies elsewhere, or leads up.
    """
    if not isinstance(path, (str, os.PathLike)) or not isinstance(text := os.fspath(path), str):
        raise ConfigError("path", path, f"not a path; {REMEDY}")
    plain = text.replace("\\", "/") if windows else text
    for name in names:
        top = name.replace("\\", "/") if windows else name
        if plain.startswith(top.rstrip("/") + "/"):
            plain = plain[len(top.rstrip("/")) :].lstrip("/")
            break
    if plain.startswith("/"):
        raise ConfigError("path", text, f"it lies elsewhere; {REMEDY}")
    parts = tuple(part for part in plain.split("/") if part not in ("", "."))
    if not parts or plain.endswith(("/", "/.")) or "\0" in plain:
        raise ConfigError("path", text, f"not a file's path; {REMEDY}")
    if ".." in parts:
        raise ConfigError("path", text, f"'..' leads out; {REMEDY}")
    if windows and any(ODD_ON_WINDOWS.search(part) for part in parts):
        raise ConfigError("path", text, f"not a file's name on Windows; {REMEDY}")
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        raise ConfigError("path", text, "cannot be encoded as a file name") from None
    return parts


def check_data(data: object) -> bytes:
    """Return what a file is to hold, as bytes; str as UTF-8.

    Raises:
        ConfigError: it is neither.
    """
    if isinstance(data, str):
        try:
            return data.encode()
        except UnicodeEncodeError:
            raise ConfigError("data", data, "cannot be encoded as UTF-8; pass bytes") from None
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data)
    raise ConfigError("data", data, "pass bytes or str")


def check_mode(mode: object) -> int:
    """Return a file's mode.

    Raises:
        ConfigError: it is no number, or holds more than permissions.
    """
    if isinstance(mode, bool) or not isinstance(mode, int) or not 0 <= mode <= 0o777:
        raise ConfigError("mode", mode, "must be from 0 to 0o777")
    return mode
