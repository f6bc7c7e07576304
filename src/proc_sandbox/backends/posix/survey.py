"""Where things are, for one run: what the Config names, and the command. Nothing is hidden from it but by Seatbelt."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterator, Sequence

from proc_sandbox.config import Config, never_granted
from proc_sandbox.errors import CommandNotExecutableError, CommandNotFoundError, ConfigError
from proc_sandbox.host import Grant, Paths, SystemPath
from proc_sandbox.links import PlantedLinkError, resolve
from proc_sandbox.planner.unix.environment import DEFAULT_PATH

__all__ = ["missing_interpreter", "survey"]


def survey(config: Config, command: Sequence[str], private: str | None = None) -> Paths:
    """Return where things are, for one run. See Backend.survey for what it raises."""
    if config.working_dir is not None:
        private = None
    granted = list(grants(config, private))
    program = locate(command[0], config, private)
    # A script expects in $0 what it was called by. The command starts where a relative path is looked up.
    executable = command[0] if "/" in command[0] else program
    if private:
        owner = os.lstat(private)
        granted.append(Grant(private, private, "write", True, owner.st_uid, owner.st_gid))
    return Paths(
        system=interpreter(program) if sys.platform == "darwin" else (),
        grants=tuple(granted),
        executable=executable,
        program="" if is_planted(program, config, private) else program,
        path_prefix=activated() if "/" in command[0] else beside(program) or activated(),
        private=private or "",
    )


def beside(program: str) -> tuple[str, ...]:
    """Return where a program lies that was found by its name on the caller's PATH alone: a virtual environment's Python looks
    for itself by that name, and a tool for its kin.
    """
    directory = os.path.dirname(program)
    return () if directory in DEFAULT_PATH.split(":") else (directory,)


def activated() -> tuple[str, ...]:
    """Return the running interpreter's directory of programs, where the caller has it on its PATH (a virtual environment)."""
    directory = os.path.dirname(sys.executable or "")
    return (directory,) if directory and directory in os.environ.get("PATH", "").split(":") else ()


def interpreter(program: str) -> tuple[SystemPath, ...]:
    """Return the running Python's installation and its virtual environment, for commands that are that Python."""
    own = dict.fromkeys(map(os.path.realpath, (sys.prefix, sys.base_prefix)))
    real = os.path.realpath(program)
    if real != os.path.realpath(sys.executable or "") and not any(program.startswith(prefix + "/") for prefix in own):
        return ()
    return tuple(SystemPath(prefix, "dir") for prefix in own)


def grants(config: Config, private: str | None) -> Iterator[Grant]:
    """Yield a grant for each path that the Config names.

    Raises:
        ConfigError: it does not exist, or a command may have made it lead elsewhere.
    """
    named = [("working_dir", config.working_dir, "write")] if config.working_dir else []
    named += [("writable_dirs", path, "write") for path in config.writable_dirs]
    named += [("allowed_dirs", path, "read") for path in config.allowed_dirs]
    named += [("read_only_dirs", path, "read") for path in config.read_only_dirs]
    for field, path, access in named:
        yield grant(field, path, access, config.writable_places(private))


def grant(field: str, path: str, access: str, writable: Sequence[str]) -> Grant:
    try:
        real = resolve(path, writable).path
        status = os.stat(real)
    except PlantedLinkError as error:
        remedy = f"{error.filename!r} is a link that the command may have made; name where it leads"
        raise ConfigError(field, path, remedy) from None
    except OSError as error:
        raise ConfigError(field, path, f"{os.strerror(error.errno or errno.ENOENT)}; name one that exists") from None
    if never_granted(real):
        raise ConfigError(field, path, f"it leads to {real!r}, which cannot be granted; name a directory of your own")
    directory = stat.S_ISDIR(status.st_mode)
    if field == "working_dir" and not directory:
        raise ConfigError(field, path, "it is a file; name a directory")
    return Grant(path, real, access, directory, status.st_uid, status.st_gid)


def locate(command: str, config: Config, private: str | None) -> str:
    """Return the command's full path.

    Raises:
        CommandNotFoundError: there is none. CommandNotExecutableError: it is no file, or may not be executed.
    """
    if "/" not in command:
        return search(command, config)
    path = os.path.join(config.working_dir or private or "/", command)
    if not os.path.exists(path):
        raise CommandNotFoundError("find", command, errno.ENOENT, elsewhere(command))
    if not is_program(path):
        raise CommandNotExecutableError("find", command, errno.EACCES)
    return path


def is_planted(path: str, config: Config, private: str | None) -> bool:
    """Return whether a link on the way to a program may be a command's: then nothing is concluded from where it leads."""
    try:
        resolve(path, config.writable_places(private))
    except PlantedLinkError:
        return True
    return False


def elsewhere(command: str) -> str | None:
    """Return the remedy for a relative path that would lead somewhere from the caller's own directory."""
    if command.startswith("/") or not os.path.exists(command):
        return None
    return f"it lies in the caller's current directory, where the command does not start; pass working_dir={os.getcwd()!r}"


def is_program(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)


def search(name: str, config: Config) -> str:
    """Return the first program of that name on the PATH that the command will have, else on the caller's.

    Raises:
        CommandNotFoundError: there is none.
    """
    path = dict(config.env).get("PATH") or os.environ.get("PATH") or DEFAULT_PATH
    for directory in path.split(":"):
        candidate = os.path.abspath(os.path.join(directory or ".", name))
        if is_program(candidate):
            return candidate
    raise CommandNotFoundError("find", name, errno.ENOENT, f"searched {path}")


def missing_interpreter(paths: Paths) -> str | None:
    """Return why a program that is there could not be started: its interpreter is missing."""
    try:
        with open(paths.program, "rb") as file:
            first = file.readline(256)
    except OSError:
        return None
    if not first.startswith(b"#!"):
        return None
    if first.endswith(b"\r\n"):
        return "its first line ends with a carriage return, which the kernel takes for part of the interpreter's name"
    words = os.fsdecode(first[2:]).split()
    return f"its interpreter {words[0]} does not exist" if words and not os.path.exists(words[0]) else None
