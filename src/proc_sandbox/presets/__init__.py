"""Presets: Configs that are right for a kind of use, as data.

Each is a TOML file of Config's fields, with a description, and perhaps another preset that it extends. Beyond the fields a file has keys
for what depends on the project and the user, of which only what exists goes into the Config:

    project_hidden       shell patterns below working_dir: hidden_paths, but not what a pattern with "!" names
    project_read_only    the same: read_only_dirs
    home_readable        paths below the home directory: allowed_dirs
    home_hidden          the same: hidden_paths
    home_env             variables that name a path below the home directory

A file of the project's that comes to be after the Config was made is not covered: it is neither hidden nor read-only.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from proc_sandbox.config import BestEffort
from proc_sandbox.errors import ConfigError

__all__ = ["description", "fields_of", "holds", "home_in", "names", "needs", "path", "read_enforcement", "unknown"]

HERE = Path(__file__).parent
MOST_FOUND = 128
"""Files of a project that the patterns may name: each is a mount of its own."""
MOST_READ = 1 << 20
"""Bytes of a git config that are looked at; a larger one counts as one with a password."""
PASSWORD = re.compile(
    rb"://[^/\s@]*:[^/\s@]+@|://[^/\s@:]{20,}@|extraheader|(?:pass|passwd|password|passphrase|token|secret)[\"']?[ \t]*=", re.IGNORECASE
)
"""A URL with a password or a token, what actions/checkout leaves behind (git-config(1), http.extraHeader), or a key or a helper's
output of such a name (sendemail.smtpPass).
"""
GIT_CONFIGS = (
    ".git/config", ".git/config.worktree", ".git/worktrees/*/config.worktree", ".git/modules/*/config", ".git/modules/*/*/config",
)  # fmt: skip
GIT_RUNS = re.compile(
    rb"(?:^|\])[ \t]*(hookspath|path|fsmonitor|sshcommand|editor|pager|clean|smudge|process|textconv|command|cmd|driver|helper|program)"
    rb"[ \t]*=[ \t]*([^#;\r\n]+)",
    re.IGNORECASE | re.MULTILINE,
)
"""Keys of git-config(1) whose value is run, or is a directory or a file of what is."""
OWN_KEYS = ("description", "extends", "project_hidden", "project_read_only", "home_readable", "home_hidden", "home_env")
PROJECT_KEYS = {"project_hidden", "project_read_only"}


def names() -> list[str]:
    """Return the names of all presets."""
    return sorted(path.stem for path in HERE.glob("*.toml"))


def description(name: str) -> str:
    """Return what a preset is for, in one sentence."""
    return str(table_of(name)["description"])


def path(name: str) -> Path:
    """Return the file of a preset."""
    return HERE / f"{name}.toml"


def needs(name: str) -> tuple[str, ...]:
    """Return the fields that somebody has to give, for a preset is about them."""
    return ("working_dir",) if table_of(name).keys() & PROJECT_KEYS else ()


def fields_of(name: str, changes: Mapping[str, Any], *, whole: bool = True) -> dict[str, Any]:
    """Return the fields of a preset, as Config takes them.

    Of a project's files those are covered that exist now; one that appears later is not.

    Args:
        changes: what else the Config will be made of: working_dir is the project, and what is granted to be written is not made read-only.
        whole: False: without a working_dir what depends on it is left out.

    Raises:
        ConfigError: there is no preset of that name, it needs a working_dir and none is given, that is no directory or holds the home
            directory, its patterns name more than 128 files, or what has to be seen lies in a directory that we cannot look into.
    """
    table = table_of(name)
    found = {key: value for key, value in table.items() if key not in OWN_KEYS}
    found["enforcement"] = read_enforcement(table.get("enforcement", "strict"))
    home = os.path.expanduser("~")
    granted = set(granted_by(changes))
    own: dict[str, list[str]] = {
        "allowed_dirs": [path for path in in_home(home, table.get("home_readable", ())) if path not in granted],
        "hidden_paths": [path for path in in_home(home, table.get("home_hidden", ())) if path not in granted],
    }
    if needs(name) and (whole or changes.get("working_dir") is not None):
        project = project_of(name, changes.get("working_dir"))
        hidden, read_only = covered(project, table, granted, own["allowed_dirs"])
        own["hidden_paths"] += hidden
        own["read_only_dirs"] = read_only
    for key, paths in own.items():
        if paths:
            found[key] = tuple(dict.fromkeys((*found.get(key, ()), *paths)))
    variables = {key: os.path.join(home, path) for key, path in table.get("home_env", {}).items()}
    found["env"] = {**table.get("env", {}), **{key: path for key, path in variables.items() if os.path.isdir(path)}}
    return found


# --- the files ---


@functools.cache
def table_of(name: str) -> Mapping[str, Any]:
    """Return a preset's file with what it extends; of variables those of both.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in names():
        raise unknown(name, names())
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    table: dict[str, Any] = tomllib.loads(path(name).read_text(encoding="utf-8"))
    base = table_of(table["extends"]) if "extends" in table else {}
    return {**base, **table, "env": {**base.get("env", {}), **table.get("env", {})}}


def read_enforcement(value: Any) -> Any:
    """Return what `enforcement` says in a file: of a table { default = "strict", best_effort = [fields] } what Config takes for it,
    anything else as it is, for Config to look at.

    Raises:
        ConfigError: the table has other keys, or a default that makes the list say nothing.
    """
    if not isinstance(value, Mapping):
        return value
    default, listed = value.get("default", "strict"), value.get("best_effort", [])
    if set(value) - {"default", "best_effort"} or not isinstance(listed, list) or (default != "strict" and listed):
        raise ConfigError("enforcement", dict(value), 'write { default = "strict", best_effort = ["cpu_limit"] }')
    return BestEffort(tuple(map(str, listed))) if listed else default


def unknown(name: object, known: Sequence[str]) -> ConfigError:
    """Return the error for what is no preset's name; known: those that are."""
    from difflib import get_close_matches

    near = get_close_matches(name, known, 1) if isinstance(name, str) else []
    return ConfigError("preset", name, (f"did you mean {near[0]!r}? " if near else "") + f"the presets are {', '.join(known)}")


# --- the home directory and the project ---


def granted_by(changes: Mapping[str, Any]) -> Iterator[str]:
    """Yield what the caller grants, by its full paths; what is no path is left for Config to refuse."""
    listed = [changes.get("working_dir")]
    for key in ("allowed_dirs", "read_only_dirs", "writable_dirs"):
        given = changes.get(key) or ()
        listed += given if isinstance(given, Iterable) and not isinstance(given, (str, bytes)) else ()
    for path in listed:
        if isinstance(path, (str, os.PathLike)) and isinstance(os.fspath(path), str):
            yield os.path.abspath(os.path.expanduser(path))


def in_home(home: str, paths: Iterable[str]) -> list[str]:
    """Return those of some paths below the home directory that exist."""
    return [full for path in paths if os.path.exists(full := os.path.join(home, path))]


def project_of(name: str, given: Any) -> str:
    """Return the project's directory.

    Raises:
        ConfigError: none is given, or it is none.
    """
    if given is None:
        raise ConfigError("preset", name, "it works on a project; pass working_dir=, the project's directory")
    if not isinstance(given, (str, os.PathLike)) or not isinstance(os.fspath(given), str):
        raise ConfigError("working_dir", given, "not a path; pass a str or a pathlib.Path")
    project = os.path.abspath(os.path.expanduser(given))
    if not os.path.isdir(project):
        raise ConfigError("working_dir", given, "no such directory; name the project's")
    held = home_in(project)
    if held:
        remedy = f"a home directory lies in it, with its keys ({held}); name the project's own directory"
        raise ConfigError("working_dir", given, remedy)
    return project


def home_in(directory: str) -> str:
    """Return which home directory, of our user or of the directory's owner, is a directory or lies in it; "" if none does."""
    top = os.path.realpath(directory)
    return next((home for home in (os.path.expanduser("~"), *homes_of(directory)) if holds(top, os.path.realpath(home))), "")


def homes_of(directory: str) -> list[str]:
    """Return the home directories of our user and of a directory's owner, whatever the variable HOME says (sudo(8), cron(8))."""
    found: list[str] = []
    if sys.platform != "win32":
        import pwd

        uids = [os.getuid()]
        with contextlib.suppress(OSError):  # there is no such directory
            uids.append(os.stat(directory).st_uid)
        for uid in dict.fromkeys(uids):
            with contextlib.suppress(KeyError):
                found.append(pwd.getpwuid(uid).pw_dir)
    return [home for home in found if home != "/" and os.path.isdir(home)]


def holds(directory: str, path: str) -> bool:
    """Return whether a path is a directory, or lies in it."""
    return path == directory or path.startswith(directory.rstrip(os.sep) + os.sep)


def covered(project: str, table: Mapping[str, Any], granted: Iterable[str], readable: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return what of a project is hidden, and what is read-only.

    What is hidden is not read-only too, though a link of a command's making has such a name. A link has nothing hidden that has a
    read-only name of its own. A directory that cannot be looked into is hidden: who has its caller's user could close one by
    chmod(2), and open it when the next Config was made of what there was to be seen.

    Raises:
        ConfigError: see fields_of().
    """
    around = {*granted, *readable, project}
    read_only, closed = project_paths(project, table.get("project_read_only", ()), granted)
    own = {place for place, linked in read_only.items() if not linked}
    for path in map(os.path.abspath, git_runs(project)):
        place = place_of(project, path, granted, around) if holds(project, path) and os.path.exists(path) else None
        if place and not any(holds(place, other) for other in around):
            read_only.setdefault(place, True)
    hidden, also_closed = project_paths(project, table.get("project_hidden", ()), granted, {*around, *own})
    for place in dict.fromkeys((*closed, *also_closed)):
        if any(holds(os.path.realpath(place), os.path.realpath(other)) for other in around):
            raise ConfigError("working_dir", place, "it cannot be looked into, and may hold secrets; open it with chmod u+rx")
        hidden[place] = False
    found = outermost((*hidden, *(place for place in git_passwords(project) if place not in granted)))
    return found, [place for place in outermost(read_only) if not any(holds(other, place) for other in found)]


def project_paths(
    project: str, patterns: Iterable[str], granted: Iterable[str], around: Iterable[str] = ()
) -> tuple[dict[str, bool], list[str]]:
    """Return what the patterns name in a project, but not what the caller grants by that very name, and of each whether it is
    named by a link alone; and the directories in which they could name something that cannot be seen.

    around: what has to be seen.

    Raises:
        ConfigError: it is more than 128 files.
    """
    listed = list(patterns)
    excluded = [pattern[1:] for pattern in listed if pattern.startswith("!")]
    split = [tuple(pattern.split("/")) for pattern in listed if not pattern.startswith("!")]
    found: dict[str, bool] = {}
    closed: list[str] = []
    for path, is_closed in named_in(project, split, excluded):
        place = path if path == project else place_of(project, path, granted, around)
        if place and is_closed:
            closed.append(place)
        elif place and place not in granted:
            found[place] = found.get(place, True) and place != path
        if len(found) + len(closed) > MOST_FOUND:
            raise ConfigError("working_dir", project, f"more than {MOST_FOUND} files are named as {path!r} is; name a directory in it")
    return found, closed


def named_in(directory: str, patterns: Sequence[tuple[str, ...]], excluded: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """Yield what patterns, each split into names, name in a directory; and (True) the directories that cannot be looked into.

    Upper and lower case are the same, as they are on many a file system. Each directory is read once: what a command changes
    meanwhile is either seen as it was, or closed.
    """
    try:
        with os.scandir(directory) as entries:
            names = sorted((entry.name, entry.is_file(follow_symlinks=False)) for entry in entries)
    except PermissionError:
        yield directory, True
        return
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return
        raise
    if not os.access(directory, os.X_OK):
        yield directory, True
        return
    for name, is_file in names:
        if any(fnmatchcase(name, pattern) for pattern in excluded):
            continue
        rest = [pattern[1:] for pattern in patterns if fnmatchcase(name.lower(), pattern[0].lower())]
        path = os.path.join(directory, name)
        if () in rest:
            yield path, False
        deeper = [pattern for pattern in rest if pattern]
        if deeper and not is_file:
            yield from named_in(path, deeper, excluded)


def outermost(places: Iterable[str]) -> list[str]:
    """Return places, each once, but not what lies in another one."""
    found = dict.fromkeys(places)
    return [place for place in found if not any(place != other and holds(other, place) for other in found)]


def git_passwords(project: str) -> Iterator[str]:
    """Yield the configs of a project's git, its submodules and worktrees that hold a password or a token; git works without one.

    What cannot be read counts as one that does.
    """
    for place, closed in git_configs(project, GIT_CONFIGS):
        text = None if closed else content_of(place)
        if text is None or PASSWORD.search(text):
            yield place


def git_runs(project: str) -> Iterator[str]:
    """Yield what a project's git is told to run, or to read for its config: as core.hooksPath and include.path name it.

    It may be no file, or not the project's.
    """
    for place, closed in git_configs(project, (".git/config", ".git/config.worktree")):
        for key, value in GIT_RUNS.findall(b"" if closed else content_of(place) or b""):
            text = os.fsdecode(value).strip().strip("\"'!")
            if key.lower() == b"path":
                yield os.path.join(os.path.dirname(place), text)
            else:
                yield from (os.path.join(project, word.strip("\"';")) for word in ([text] if key.lower() == b"hookspath" else text.split()))


def git_configs(project: str, patterns: Iterable[str]) -> Iterator[tuple[str, bool]]:
    """Yield those of git's configs that there are, and what cannot be looked into (True).

    A command may have put something else in their place: no link is followed.
    """
    top = os.path.realpath(project)
    for place, closed in named_in(project, [tuple(name.split("/")) for name in patterns], ()):
        if os.path.realpath(place) == os.path.join(top, os.path.relpath(place, project)) and (closed or os.path.isfile(place)):
            yield place, closed


def content_of(place: str) -> bytes | None:
    """Return what a regular file holds, None of one that cannot be read or is too long; nothing waits for a FIFO."""
    try:
        descriptor = os.open(place, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        return None
    try:
        text = os.read(descriptor, MOST_READ + 1)
    finally:
        os.close(descriptor)
    return text if len(text) <= MOST_READ else None


def place_of(project: str, path: str, granted: Iterable[str], around: Iterable[str]) -> str | None:
    """Return the name that a path has without the project's links; None where nothing is to be done about it.

    A link can be of a command's making. It is followed to what is in the project, or a file in what the caller grants, unless
    something that has to be seen (around) lies there: else a run could have the next ones fail.
    """
    top, real = os.path.realpath(project), os.path.realpath(path)
    if real == os.path.join(top, os.path.relpath(path, project)):
        return path
    inside = real != top and holds(top, real)
    if not os.path.exists(real) or any(holds(real, os.path.realpath(place)) for place in around):
        return None
    if not inside and not (os.path.isfile(real) and any(holds(os.path.realpath(place), real) for place in granted)):
        return None
    return os.path.join(project, os.path.relpath(real, top)) if inside else real
