"""Policies: Configs with names, in TOML files that are named by their path, in the user's own directory, or shipped (presets).

    # sandbox.toml; in a pyproject.toml the tables are [tool.proc-sandbox.policies.NAME]
    [policies.grader]
    extends = "judge"            # another policy of this file, of the user's, or a preset
    memory_limit = "512M"
    read_only_dirs = ["tests"]   # from the directory of this file

A policy is never taken from a directory just because it lies there: a command could have put it there.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import re
import stat
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from proc_sandbox import presets
from proc_sandbox.config import NORMALISERS, BestEffort, Config
from proc_sandbox.errors import ConfigError, PolicyError

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from proc_sandbox.config import Options

__all__ = ["Listed", "check", "explain", "find", "listing", "load", "names", "schema", "user_file"]

ENTRY_POINTS = "proc_sandbox.presets"
"""Group of entry points: a name for each preset that another distribution brings, whose object is a Config or a function that takes
fields of Config as keywords and returns one.
"""
NOT_IN_POLICIES = ("stdin", "stdout", "stderr", "pass_fds")
"""Fields that name what one process has open."""
FIELDS = tuple(item.name for item in fields(Config) if item.name not in NOT_IN_POLICIES)
PATHS = ("working_dir",)
PATH_LISTS = ("allowed_dirs", "read_only_dirs", "writable_dirs", "hidden_paths")
OWN_KEYS = ("extends", "description")
LONGEST = 1 << 18
"""Bytes of a file of policies: what is read may be somebody else's."""
DEEPEST = 32
"""How many tables and arrays may lie in one another, and policies extend one another."""


class Listed(NamedTuple):
    """A policy that can be named. source: "user", "preset" or "entry point"; path: of its file, or ""."""

    name: str
    source: str
    path: str
    description: str


@dataclass(frozen=True)
class Table:
    """One policy as its file has it. base: what its relative paths start from; line: of a key, or None."""

    file: str
    name: str
    values: Mapping[str, Any]
    lines: Mapping[str, int]

    def error(self, key: str, value: object, remedy: str) -> PolicyError:
        """Return an error about one key."""
        return PolicyError(self.file, self.lines.get(key, self.lines.get("")), key, value, remedy)


@dataclass(frozen=True)
class File:
    """One file's policies."""

    path: str
    tables: Mapping[str, Table]


class Origin(NamedTuple):
    """Where a field's value comes from: a file and line, or a preset."""

    source: str
    value: Any


# --- reading ---


def read(path: str | os.PathLike[str], *, private: bool = False) -> File:
    """Return the policies of a file; private: nobody else may be able to write to it.

    Raises:
        PolicyError: it cannot be read, or is no file of policies.
    """
    name = os.fspath(path)
    try:
        text = read_text(name, private=private)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise PolicyError(name, None, "policy", name, f"{reason}; name a TOML file that can be read") from None
    data = parse(name, text)
    prefix: tuple[str, ...] = ("tool", "proc-sandbox") if os.path.basename(name) == "pyproject.toml" else ()
    return File(name, dict(tables_of(name, data, prefix, lines_of(text))))


def read_text(path: str, *, private: bool) -> str:
    """Return what a file holds. What may be done with it is asked of what was opened: its name can mean something else by then.

    Raises:
        OSError, ValueError: it cannot be read, or holds no text. PolicyError: it is not private.
    """
    # Not to wait for the other end of a FIFO.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    descriptor = os.open(path, flags)
    with open(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if private:
            check_private(path, path, found)
        if not stat.S_ISREG(found.st_mode):
            raise ValueError("it is no regular file")
        data = file.read(LONGEST + 1)
    if len(data) > LONGEST:
        raise ValueError(f"it has more than {LONGEST} bytes")
    return data.decode()


def parse(name: str, text: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        data: dict[str, Any] = tomllib.loads(text)
        check_values(data)
    except (ValueError, RecursionError) as error:  # of an integer with thousands of digits Python says no more
        found = re.search(r"\(at line (\d+)", str(error))
        raise PolicyError(name, int(found[1]) if found else None, "policy", name, f"not TOML: {error}") from None
    return data


def check_values(data: Any) -> None:
    """Refuse what could not be shown in an error.

    Raises:
        ValueError: an integer of more than 64 bits, or values in values in values.
    """
    level = [data]
    for _ in range(DEEPEST):
        level = [
            value
            for each in level
            if isinstance(each, (dict, list))
            for value in (each.values() if isinstance(each, dict) else each)
        ]
        if any(isinstance(value, int) and value.bit_length() > 64 for value in level):
            raise ValueError("an integer has more than 64 bits")
        if not level:
            return
    raise ValueError(f"tables and arrays lie more than {DEEPEST} deep in one another")


def tables_of(
    name: str, data: Any, prefix: tuple[str, ...], lines: Mapping[tuple[str, ...], int]
) -> Iterator[tuple[str, Table]]:
    for key in prefix:
        data = data.get(key, {}) if isinstance(data, dict) else {}
    if not isinstance(data, dict):
        data = {}
    where = ".".join((*prefix, "policies"))
    for key in data if not prefix else ():
        if key != "policies":
            raise PolicyError(name, lines.get((key,)), key, data[key], f"unknown; policies are tables [{where}.NAME]")
    found = data.get("policies", {})
    if not found or not isinstance(found, dict) or not all(isinstance(table, dict) for table in found.values()):
        raise PolicyError(name, lines.get((*prefix, "policies")), "policies", found, f"there are no tables [{where}.NAME]")
    keys: dict[tuple[str, ...], dict[str, int]] = {}
    for path, line in lines.items():
        keys.setdefault(path[:-1], {})[path[-1]] = line
    for key, values in found.items():
        place = (*prefix, "policies", key)
        at = keys.get(place, {})
        yield key, Table(name, key, values, {**at, "": lines.get(place, 0)} if place in lines else at)


TOKEN = re.compile(
    r"""(?P<string>\"\"\"(?:\\.|[^\\])*?\"\"\"|'''.*?'''|"(?:\\.|[^"\\\n])*"|'[^'\n]*')|(?P<comment>\#[^\n]*)|(?P<mark>[\[\]{}=\n,])|(?P<bare>[A-Za-z0-9_.-]+)""",
    re.DOTALL,
)

BARE = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\Z")
"""A key without quotes, dotted or not."""


def lines_of(text: str) -> dict[tuple[str, ...], int]:
    """Return the line of each table's head and of each key in it, in a text that is TOML. What is inside a value is not told."""
    found: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    words: list[str] = []
    depth, in_value, in_head = 0, False, False
    line, counted = 1, 0
    for token in TOKEN.finditer(text):
        line += text.count("\n", counted, token.start())
        mark, counted = token["mark"], token.start()
        if token["comment"]:
            continue
        if mark == "\n":
            if not depth:
                words, in_value, in_head = [], False, False
        elif mark in ("[", "{"):
            in_head = in_head or not in_value
            depth += in_value
        elif mark in ("]", "}"):
            if in_head:
                table = parts("".join(words))
                found.setdefault(table, line)
                words = []
            else:
                depth -= 1
        elif mark == "=" and not in_value:
            keys = (*table, *parts("".join(words)))
            found.setdefault(keys, line)
            in_value = True
        elif not in_value and not mark:
            words.append(token[0])
    return found


def parts(dotted: str) -> tuple[str, ...]:
    """Return the keys of a dotted one; none where it is not one key alone."""
    if BARE.match(dotted):
        return tuple(dotted.split("."))
    try:
        data: Any = parse("", f"{dotted} = 0")
    except PolicyError:
        return ()
    found: list[str] = []
    while isinstance(data, dict) and len(data) == 1:
        ((key, data),) = data.items()
        found.append(key)
    return tuple(found)


# --- the user's own ---


def user_file() -> Path:
    """Return where the user's own policies are: policies.toml in the configuration directory, which need not exist."""
    import platformdirs

    return platformdirs.user_config_path("proc-sandbox", appauthor=False) / "policies.toml"


def user_policies() -> File | None:
    """Return the user's own policies; None where there are none.

    Raises:
        PolicyError: somebody else could have written them.
    """
    path = user_file()
    if not os.path.lexists(path):
        return None
    if hasattr(os, "geteuid"):
        for place in {path.parent, Path(os.path.realpath(path)).parent}:
            check_private(str(path), str(place), os.stat(place))
    return read(path, private=True)


def check_private(file: str, place: str, found: os.stat_result) -> None:
    """Refuse what somebody else could have written.

    Raises:
        PolicyError: its owner or its mode let them.
    """
    if hasattr(os, "geteuid") and (
        found.st_uid not in (0, os.geteuid()) or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    ):
        raise PolicyError(file, None, "policy", place, "others than you can write to it; chmod go-w")


# --- merging ---


def check_table(table: Table) -> Iterator[PolicyError]:
    """Yield what is wrong with one policy by itself."""
    for key, value in table.values.items():
        if key in OWN_KEYS:
            if not isinstance(value, str):
                yield table.error(key, value, "must be a string")
        elif key in NOT_IN_POLICIES:
            yield table.error(key, value, "it names what one process has open; give it to run()")
        elif key not in FIELDS:
            near = difflib.get_close_matches(key, FIELDS, 1)
            yield table.error(key, value, f"did you mean {near[0]!r}?" if near else f"the keys are {', '.join(FIELDS)}")
        else:
            try:
                normal(table, key, value)
            except ConfigError as error:
                yield table.error(key, value, error.remedy)


def normal(table: Table, key: str, value: Any) -> Any:
    """Return one field's value as Config takes it.

    Raises:
        ConfigError: it is not valid.
    """
    if key == "enforcement" and isinstance(value, dict):
        value = read_enforcement(value)
    base = os.path.dirname(os.path.abspath(table.file))
    if key in PATHS:
        value = absolute(base, value)
    elif key in PATH_LISTS and isinstance(value, list):
        value = [absolute(base, item) for item in value]
    return NORMALISERS[key](key, value)


def absolute(base: str, path: Any) -> Any:
    """Return a path of a policy as Config takes it; what is none stays as it is, and is refused there."""
    if not isinstance(path, str) or not path or "\0" in path:
        return path
    return os.path.join(base, os.path.expanduser(path))


def read_enforcement(value: Mapping[str, Any]) -> str | BestEffort:
    default, listed = value.get("default", "strict"), value.get("best_effort", [])
    if set(value) - {"default", "best_effort"} or not isinstance(listed, list):
        raise ConfigError("enforcement", dict(value), 'write { default = "strict", best_effort = ["cpu_limit"] }')
    if default != "strict" or not listed:
        return str(default)
    return BestEffort(tuple(map(str, listed)))


def layers(file: File, name: str, seen: tuple[str, ...] = ()) -> Iterator[Table | str]:
    """Yield a policy and what it extends, nearest first; a str is the name of a preset, and the last.

    Raises:
        PolicyError: there is none of that name, or they extend one another in a circle.
    """
    table = file.tables[name]
    yield table
    base = table.values.get("extends")
    if not isinstance(base, str):
        return
    seen = (*seen, f"{file.path}:{name}")
    if len(seen) > DEEPEST:
        raise table.error("extends", base, f"more than {DEEPEST} policies extend one another")
    if base in file.tables and f"{file.path}:{base}" not in seen:
        yield from layers(file, base, seen)
        return
    user = user_policies() if file.path != str(user_file()) else None
    if user is not None and base in user.tables and base not in file.tables:
        yield from layers(user, base, seen)
    elif base in file.tables and base != name:
        raise table.error("extends", base, f"in a circle: {' -> '.join(place.rpartition(':')[2] for place in (*seen, base))}")
    elif is_preset(base):
        yield base
    else:
        known = [*file.tables, *preset_names()]
        near = difflib.get_close_matches(base, known, 1)
        raise table.error("extends", base, f"no such policy; {f'did you mean {near[0]!r}?' if near else 'known: ' + ', '.join(known)}")


def merged(file: File, name: str, changes: Mapping[str, Any]) -> dict[str, Origin]:
    """Return the fields of a policy, each with where it comes from; changes: what the caller gives, before all.

    Raises:
        PolicyError: something in it is not valid.
    """
    found = {key: Origin("given", value) for key, value in changes.items()}
    for layer in layers(file, name):
        if isinstance(layer, str):
            given = {key: origin.value for key, origin in found.items()}
            for key, value in preset_fields(layer, given).items():
                found.setdefault(key, Origin(f"preset {layer}", value))
            continue
        for error in check_table(layer):
            raise error
        for key, value in layer.values.items():
            if key not in OWN_KEYS:
                source = f"{layer.file}:{layer.lines.get(key, '?')}"
                found.setdefault(key, Origin(source, normal(layer, key, value)))
    return found


def config_of(file: str, found: Mapping[str, Origin]) -> Config:
    try:
        return Config(**{key: origin.value for key, origin in found.items()})
    except PolicyError:
        raise
    except ConfigError as error:  # what two fields say together
        raise PolicyError(file, None, error.field, error.value, error.remedy) from None


# --- presets ---


def entry_points() -> dict[str, Any]:
    from importlib import metadata

    return {item.name: item for item in metadata.entry_points(group=ENTRY_POINTS)}


def preset_names() -> list[str]:
    """Return the names of all presets: ours, then those of other distributions."""
    return [*presets.names(), *(name for name in entry_points() if name not in presets.names())]


def is_preset(name: str) -> bool:
    return name in presets.names() or name in entry_points()


def preset_fields(name: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a preset; changes: what else the Config will be made of, which a preset may need to know.

    Raises:
        ConfigError: there is none of that name, or it needs a field that is not given.
    """
    if name in presets.names():
        return presets.fields_of(name, changes)
    found = entry_points().get(name)
    if found is None:
        known = preset_names()
        near = difflib.get_close_matches(name, known, 1)
        raise ConfigError("preset", name, f"did you mean {near[0]!r}?" if near else f"the presets are {', '.join(known)}")
    made = found.load()
    config = made if isinstance(made, Config) else made(**changes)
    if not isinstance(config, Config):
        raise ConfigError("preset", name, f"{found.value} gives no Config")
    plain = Config()
    return {item: getattr(config, item) for item in FIELDS if getattr(config, item) != getattr(plain, item)}


def preset(name: str, **changes: Unpack[Options]) -> Config:
    """Return a preset with some fields changed.

    Raises:
        ConfigError: there is none of that name, or it needs a field that is not given.
    """
    given: dict[str, Any] = dict(changes)
    return Config(**{**preset_fields(name, given), **given})


# --- what others use ---


def choose(file: File, policy: str | None) -> str:
    """Return which policy of a file is meant: by default the only one, or the one that is called "default"."""
    if policy is None:
        policy = next(iter(file.tables)) if len(file.tables) == 1 else "default"
        if policy not in file.tables:
            raise PolicyError(file.path, None, "policy", None, f"name one of {', '.join(file.tables)}")
    if policy not in file.tables:
        near = difflib.get_close_matches(policy, file.tables, 1)
        known = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(file.tables)}"
        raise PolicyError(file.path, None, "policy", policy, f"no such policy; {known}")
    return policy


def load(path: str | os.PathLike[str], policy: str | None = None, **changes: Unpack[Options]) -> Config:
    """Return a policy of a TOML file; without a name the only one, or the one that is called "default".

    Raises:
        PolicyError: the file cannot be read, or something in it is not valid.
    """
    file = read(path)
    return config_of(file.path, merged(file, choose(file, policy), changes))


def names(path: str | os.PathLike[str]) -> list[str]:
    """Return the names of a file's policies.

    Raises:
        PolicyError: it cannot be read.
    """
    return list(read(path).tables)


def locate(spec: str) -> tuple[File, str] | str:
    """Return the file and policy that are meant by NAME, FILE or FILE:NAME; a str is the name of a preset.

    Raises:
        PolicyError: there is no such file or policy. ConfigError: there is no such name.
    """
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
    near = difflib.get_close_matches(spec, known, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}; or a file: ./{spec}.toml"
    raise ConfigError("policy", spec, f"no such policy; {hint}")


def find(spec: str, **changes: Unpack[Options]) -> Config:
    """Return the policy that is meant by NAME (of the user's own, or a preset), FILE or FILE:NAME, with some fields changed.

    Raises:
        PolicyError: the file cannot be read, or something in it is not valid. ConfigError: there is no such name.
    """
    found = locate(spec)
    if isinstance(found, str):
        return preset(found, **changes)
    file, name = found
    return config_of(file.path, merged(file, name, changes))


def check(path: str | os.PathLike[str]) -> list[PolicyError]:
    """Return all that is wrong with a file; nothing if it is good."""
    try:
        file = read(path)
    except PolicyError as error:
        return [error]
    found: list[PolicyError] = []
    for name, table in file.tables.items():
        own = list(check_table(table))
        found += own
        if own:
            continue
        try:
            config_of(file.path, merged(file, name, {}))
        except PolicyError as error:
            if error not in found and str(error) not in map(str, found):
                found.append(error)
        except ConfigError as error:  # of a preset that is to be given something
            if "working_dir" not in error.remedy:
                found.append(table.error("extends", table.values.get("extends"), str(error)))
    return found


def listing() -> list[Listed]:
    """Return the policies that can be named, the user's own first."""
    found: list[Listed] = []
    user = user_policies()
    for name, table in (user.tables if user else {}).items():
        found.append(Listed(name, "user", table.file, str(table.values.get("description", ""))))
    found += [Listed(name, "preset", "", presets.description(name)) for name in presets.names()]
    found += [Listed(name, "entry point", item.value, "") for name, item in entry_points().items() if name not in presets.names()]
    return found


def explain(spec: str, **changes: Unpack[Options]) -> str:
    """Return a policy as TOML, all that it extends merged, each key with where it comes from.

    Raises:
        As find().
    """
    found = locate(spec)
    given: dict[str, Any] = dict(changes)
    if isinstance(found, str):
        origins = {key: Origin(f"preset {found}", value) for key, value in preset_fields(found, given).items()}
        origins.update({key: Origin("given", value) for key, value in given.items()})
        name = found
    else:
        file, name = found
        origins = merged(file, name, given)
    config = config_of(spec, origins)
    lines = [f"[policies.{name if BARE.match(name) and '.' not in name else as_toml(name)}]"]
    for key in FIELDS:
        if key in origins:  # where it comes from is a file's name, in which there may be the end of a line
            lines.append(f"{key} = {as_toml(getattr(config, key))}  # {visible(origins[key].source)}")
    return "\n".join(lines) + "\n"


def as_toml(value: Any) -> str:
    """Return a field's value as TOML has it."""
    if isinstance(value, BestEffort):
        if not value.fields:
            return '"best-effort"'
        return f'{{ default = "strict", best_effort = {as_toml(list(value.fields))} }}'
    if isinstance(value, tuple) and value and isinstance(value[0], tuple):
        return "{ " + ", ".join(f"{as_toml(key)} = {as_toml(item)}" for key, item in value) + " }"
    return visible(json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False))


def visible(text: str) -> str:
    """Return a text with TOML's escapes in place of what a reader would not see, or a terminal would act on."""
    return "".join(
        char if char.isprintable() else f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}" for char in text
    )


# --- for editors ---

SIZE: dict[str, Any] = {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": r"^\s*[0-9.]+\s*([kKmMgGtT]i?)?[bB]?\s*$"}]}
TIME: dict[str, Any] = {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string", "pattern": r"^\s*[0-9.]+\s*(ms|s|m|h)?\s*$"}]}
PERCENT: dict[str, Any] = {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string", "pattern": r"^\s*[0-9.]+\s*%?\s*$"}]}
NAMES: dict[str, Any] = {"type": "array", "items": {"type": "string", "minLength": 1}}
SHAPES: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("memory_limit", "read_bps", "write_bps", "max_output", "max_file_size", "tmp_size"), SIZE),
    **dict.fromkeys(("timeout", "cpu_time_limit", "kill_grace"), TIME),
    "cpu_limit": PERCENT,
    **dict.fromkeys((*PATH_LISTS, "pass_env"), NAMES),
    "working_dir": {"type": "string", "minLength": 1},
    "env": {"anyOf": [{"type": "object", "additionalProperties": {"type": "string"}}, NAMES]},
    "network_access": {"enum": [False, True, "loopback"]},
    "hostname": {"type": "string", "minLength": 1, "maxLength": 64},
    "core_dumps": {"type": "boolean"},
    "pty": {"type": "boolean"},
    "backend": {"enum": ["linux", "posix", "windows"]},
    "enforcement": {
        "anyOf": [
            {"enum": ["strict", "best-effort"]},
            {
                "type": "object",
                "additionalProperties": False,
                "properties": {"default": {"enum": ["strict", "best-effort"]}, "best_effort": NAMES},
            },
        ]
    },
}
"""Of each field that is no whole number."""


def schema() -> dict[str, Any]:
    """Return a JSON Schema (2020-12) of a file of policies, for editors."""
    shown = described()
    one = {
        key: {**SHAPES.get(key, {"type": "integer", "minimum": 0}), "description": shown.get(key, "")} for key in FIELDS
    }
    one["extends"] = {"type": "string", "description": "Another policy of the file, of the user's, or a preset."}
    one["description"] = {"type": "string"}
    policy = {"type": "object", "additionalProperties": False, "properties": one}
    policies = {"type": "object", "minProperties": 1, "additionalProperties": policy}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "proc-sandbox policies",
        "type": "object",
        "required": ["policies"],
        "additionalProperties": False,
        "properties": {"policies": policies},
    }


def described() -> dict[str, str]:
    """Return the first sentence of each field's docstring; docstrings under fields exist only in the source."""
    import ast
    import inspect
    import textwrap

    found: dict[str, str] = {}
    name = ""
    with contextlib.suppress(OSError):  # there is no source
        body = ast.parse(textwrap.dedent(inspect.getsource(Config))).body[0]
        for node in body.body if isinstance(body, ast.ClassDef) else []:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                name = node.target.id
            elif name and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                found[name] = str(node.value.value).strip().partition("\n")[0]
                name = ""
    return found
