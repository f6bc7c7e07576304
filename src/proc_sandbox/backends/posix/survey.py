"""Where things are, for one run: what the Config names, and the command. Nothing is hidden from it but by Seatbelt."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator, Sequence

from proc_sandbox.backends.grants import PlantedLinkError, elsewhere
from proc_sandbox.backends.unix.links import resolve
from proc_sandbox.backends.unix.survey import (
    activated,
    explain_script,
    granted,
    hidden_paths,
    private_grant,
    programs_on,
    search_path,
)
from proc_sandbox.config import Config
from proc_sandbox.errors import CommandNotExecutableError, CommandNotFoundError
from proc_sandbox.host import Grant, Paths, SystemPath
from proc_sandbox.planner.unix.environment import DEFAULT_PATH

__all__ = ["missing_interpreter", "survey"]


def survey(config: Config, command: Sequence[str], private: str | None = None) -> Paths:
    """Return where things are, for one run. See Backend.survey for what it raises."""
    if config.working_dir is not None:
        private = None
    given = tuple(grants(config, private))
    program = locate(command[0], config, private)
    # A script expects in $0 what it was called by. The command starts where a relative path is looked up.
    executable = command[0] if "/" in command[0] else program
    covered, missing = hidden_paths(config, config.writable_places(private), (item.source for item in given))
    return Paths(
        system=interpreter(program) if sys.platform == "darwin" else (),
        grants=given,
        executable=executable,
        program="" if is_planted(program, config, private) else program,
        path_prefix=activated() if "/" in command[0] else beside(program) or activated(),
        private=private or "",
        hidden=covered,
        missing=missing,
    )


def beside(program: str) -> tuple[str, ...]:
    """Return where a program lies that was found by its name on the caller's PATH alone: a virtual environment's Python looks
    for itself by that name, and a tool for its kin.
    """
    directory = os.path.dirname(program)
    return () if directory in DEFAULT_PATH.split(":") else (directory,)


def interpreter(program: str) -> tuple[SystemPath, ...]:
    """Return the running Python's installation and its virtual environment, for commands that are that Python."""
    own = dict.fromkeys(map(os.path.realpath, (sys.prefix, sys.base_prefix)))
    real = os.path.realpath(program)
    if real != os.path.realpath(sys.executable or "") and not any(program.startswith(prefix + "/") for prefix in own):
        return ()
    return tuple(SystemPath(prefix, "dir") for prefix in own)


def grants(config: Config, private: str | None) -> Iterator[Grant]:
    """Yield a grant for each path that the Config names, and for a Sandbox's own directory.

    Raises:
        ConfigError: it does not exist, or a command may have made it lead elsewhere.
    """
    for field, path, access in config.named_paths():
        yield granted(field, path, access, config.writable_places(private))[0]
    if private:
        yield private_grant(private, private)[0]


def locate(command: str, config: Config, private: str | None) -> str:
    """Return the command's full path.

    Raises:
        CommandNotFoundError: there is none. CommandNotExecutableError: it is no file, or may not be executed.
    """
    if "/" not in command:
        return search(command, config)
    path = os.path.join(config.working_dir or private or "/", command)
    if not os.path.exists(path):
        raise CommandNotFoundError("find", command, errno.ENOENT, from_here(command))
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


def from_here(command: str) -> str | None:
    """Return the remedy for a relative path that would lead somewhere from the caller's own directory."""
    return None if command.startswith("/") or not os.path.exists(command) else elsewhere()


def is_program(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)


def search(name: str, config: Config) -> str:
    """Return the first program of that name on the PATH that the command will have, else on the caller's.

    Raises:
        CommandNotFoundError: there is none.
    """
    path = search_path(config)
    found = next(programs_on(path, name), None)
    if found is None:
        raise CommandNotFoundError("find", name, errno.ENOENT, f"searched {path}")
    return found


def missing_interpreter(paths: Paths) -> str | None:
    """Return why a program that is there could not be started: its interpreter is missing."""
    if not paths.program:
        return None
    writable = [grant.source for grant in paths.grants if grant.access == "write"]
    return explain_script(paths.program, writable, lambda word: None if os.path.exists(word) else f"its interpreter {word} does not exist")
