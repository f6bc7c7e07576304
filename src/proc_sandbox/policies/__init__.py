"""Policies: Configs with names, in TOML files that are named by their path, in the user's own file, or shipped (presets).

    # sandbox.toml; in a pyproject.toml the tables are [tool.proc-sandbox.policies.NAME]
    [policies.grader]
    extends = "judge"            # another policy of this file, of the user's, or a preset
    memory_limit = "512M"
    read_only_dirs = ["tests"]   # from the directory of this file

A policy is never taken from a directory just because it lies there: a command could have put it there.

    files.py    what a file has, and where: lines.py    keys.py   which keys there are, and what their values mean
    merging.py  a policy with all that it extends       text.py   a policy as TOML          editors.py   the JSON Schema
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from proc_sandbox import presets
from proc_sandbox.config import Config
from proc_sandbox.errors import ConfigError, PolicyError
from proc_sandbox.policies.editors import schema
from proc_sandbox.policies.files import File, choose, read, user_file, user_policies
from proc_sandbox.policies.keys import check_table
from proc_sandbox.policies.merging import entry_points, is_preset, layers, merge, preset_names, suggestion
from proc_sandbox.policies.text import as_policy

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from proc_sandbox.config import Options

__all__ = ["Listed", "check", "explain", "find", "listing", "load", "names", "preset", "schema", "user_file"]


class Listed(NamedTuple):
    """A policy that can be named. source: "user", "preset" or "entry point"; path: of its file, or what an entry point names."""

    name: str
    source: str
    path: str
    description: str


def load(path: str | os.PathLike[str], policy: str | None = None, **changes: Unpack[Options]) -> Config:
    """Return a policy of a TOML file; without a name the only one, or the one that is called "default".

    Args:
        changes: Fields of Config, as of a policy that extends it: lists and variables are added, any other value wins.

    Raises:
        PolicyError: the file cannot be read, or something in it is not valid. ConfigError: a change is not valid.
    """
    file = read(path)
    return merge(layers((file, choose(file, policy))), changes).config()


def find(spec: str, **changes: Unpack[Options]) -> Config:
    """Return the policy that is meant by NAME (of the user's own, or a preset), FILE or FILE:NAME.

    Args:
        changes: Fields of Config, as of a policy that extends it: lists and variables are added, any other value wins.

    Raises:
        PolicyError: the file cannot be read, or something in it is not valid. ConfigError: there is no such name, or a change
            is not valid.
    """
    return merge(layers(locate(spec)), changes).config()


def preset(name: str, **changes: Unpack[Options]) -> Config:
    """Return a preset; whatever else may have that name.

    Args:
        changes: Fields of Config, as of a policy that extends it: lists and variables are added, any other value wins.

    Raises:
        ConfigError: there is none of that name, it needs a field that is not given, or a change is not valid.
    """
    if not isinstance(name, str) or not is_preset(name):
        raise presets.unknown(name, preset_names())
    return merge(layers(name), changes).config()


def locate(spec: str) -> tuple[File, str] | str:
    """Return the file and policy that are meant by NAME, FILE or FILE:NAME; a str is the name of a preset.

    Raises:
        PolicyError: there is no such file or policy. ConfigError: there is no such name.
    """
    if not isinstance(spec, str):
        raise ConfigError("policy", spec, "must be a str: NAME, FILE or FILE:NAME")
    path, colon, name = spec.rpartition(":")
    if colon and path and "/" not in name and os.sep not in name and not os.path.exists(spec):
        file = read(path)
        return file, choose(file, name)
    if spec.endswith(".toml") or "/" in spec or os.sep in spec:
        file = read(spec)
        return file, choose(file, None)
    user = user_policies()
    if user is not None and spec in user.tables:
        return user, spec
    if is_preset(spec):
        return spec
    known = [*(user.tables if user else ()), *preset_names()]
    raise ConfigError("policy", spec, f"no such policy; {suggestion(spec, known, 'known:')}; or a file: ./{spec}.toml")


def names(path: str | os.PathLike[str]) -> list[str]:
    """Return the names of a file's policies.

    Raises:
        PolicyError: it cannot be read.
    """
    return list(read(path).tables)


def check(path: str | os.PathLike[str]) -> list[PolicyError]:
    """Return all that is wrong with a file, by line; nothing if it is good.

    What a policy needs to be given when it is used is not missed.
    """
    try:
        file = read(path)
    except PolicyError as error:
        return [error]
    found = {str(error): error for name in file.tables for error in faults(file, name)}
    return sorted(found.values(), key=lambda error: (error.file != file.path, error.line or 0))


def faults(file: File, name: str) -> Iterator[PolicyError]:
    """Yield what is wrong with one policy: its own keys, and only if these are good what comes of them with what it extends."""
    own = list(check_table(file.tables[name]))
    yield from own
    if not own:
        try:
            merge(layers((file, name)), {}, whole=False).config()
        except PolicyError as error:
            yield error
        except ConfigError as error:  # a preset refuses what it is given
            yield file.tables[name].error(error.field, error.value, error.remedy)


def listing() -> list[Listed]:
    """Return the policies that can be named, the user's own first.

    Raises:
        PolicyError: the user's own cannot be read, or others could have written them.
    """
    user = user_policies()
    found = [Listed(name, "user", table.file, table.description) for name, table in (user.tables if user else {}).items()]
    found += [Listed(name, "preset", str(presets.path(name)), presets.description(name)) for name in presets.names()]
    return found + [Listed(name, "entry point", item.value, "") for name, item in entry_points().items() if name not in presets.names()]


def explain(spec: str, **changes: Unpack[Options]) -> str:
    """Return a policy as TOML, all that it extends merged, with where each value comes from.

    Raises:
        As find(), but for what the policy needs to be given when it is used: a comment says so.
    """
    place = locate(spec)
    return as_policy(place if isinstance(place, str) else place[1], merge(layers(place), changes, whole=False))
