"""What is said of a path that the caller names, on every system in the same words."""

import errno
import os

from proc_sandbox.errors import ConfigError

__all__ = ["PlantedLinkError", "check_directory", "elsewhere", "refusal"]


class PlantedLinkError(OSError):
    """A link on the way lies where a command can write. filename: the link."""

    def __init__(self, link: str) -> None:
        super().__init__(errno.ELOOP, "a link in a directory that the command can write to", link)


def refusal(field: str, path: str, error: OSError) -> ConfigError:
    """Return the error for a path of the Config's that could not be looked up."""
    if isinstance(error, PlantedLinkError):
        return ConfigError(field, path, f"{error.filename!r} is a link that the command may have made; remove it, or name where it leads")
    return ConfigError(field, path, f"{os.strerror(error.errno or errno.ENOENT)}; name one that exists")


def check_directory(field: str, path: str, *, directory: bool) -> None:
    """Refuse a file where a command is to start.

    Raises:
        ConfigError: it is one.
    """
    if field == "working_dir" and not directory:
        raise ConfigError(field, path, "it is a file; name a directory")


def elsewhere() -> str:
    """Return the remedy for a relative path that would lead somewhere from the caller's own directory."""
    return f"it lies in the caller's current directory, where the command does not start; pass working_dir={os.getcwd()!r}"
