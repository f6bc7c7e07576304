"""A policy as TOML, with where each value comes from."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from proc_sandbox.config import BestEffort
from proc_sandbox.errors import ConfigError
from proc_sandbox.policies.keys import FIELDS, LISTS, NONE, SIZES, TIMES
from proc_sandbox.policies.merging import Merged, Value, lacking
from proc_sandbox.units import format_seconds, format_size, parse_seconds, parse_size
from proc_sandbox.visible import printable

__all__ = ["as_policy"]

WIDTH = 100


def as_policy(name: str, merged: Merged) -> str:
    """Return a policy as TOML, with a comment of where each value comes from.

    Raises:
        ConfigError: its values do not go together.
    """
    config = merged.config()
    lines = [f"[policies.{as_key(name)}]", *(f"# {needed}: to be given when it is used" for needed in lacking(merged))]
    for field in FIELDS:
        items = merged.values.get(field)
        if not items:
            continue
        if field == "env":
            lines += variables(items)
        elif field in LISTS:
            lines += array(field, items)
        else:
            lines.append(f"{field} = {as_toml(field, getattr(config, field))}{comment(items[0].origin)}")
    return "\n".join(lines) + "\n"


def comment(origin: str) -> str:
    """Return where a value comes from, as a comment. A name of a file may hold anything."""
    return f"  # {printable(origin)}"


def variables(items: list[Value]) -> Iterator[str]:
    for item in items:
        name, value = item.value
        yield f"env.{as_key(name)} = {as_string(value)}{comment(item.origin)}"


def array(field: str, items: list[Value]) -> Iterator[str]:
    """Yield a list, on one line if it is short and of one origin."""
    origins = {item.origin for item in items}
    short = ", ".join(as_string(item.value) for item in items)
    if len(origins) == 1 and len(short) < WIDTH:
        yield f"{field} = [{short}]{comment(items[0].origin)}"
        return
    one = len(origins) == 1
    yield f"{field} = [{comment(items[0].origin) if one else ''}"
    yield from (f"    {as_string(item.value)},{'' if one else comment(item.origin)}" for item in items)
    yield "]"


def as_toml(field: str, value: Any) -> str:
    """Return a value as TOML has it."""
    if value is None:
        return as_string(NONE)
    if isinstance(value, BestEffort):
        names = ", ".join(map(as_string, value.fields))
        return f'{{ default = "strict", best_effort = [{names}] }}' if names else '"best-effort"'
    if field in SIZES:
        return as_amount(value, format_size(value), parse_size)
    if field in TIMES:
        return as_amount(value, format_seconds(value), parse_seconds)
    if field == "umask":
        return f"0o{value:03o}"
    return as_string(value) if isinstance(value, str) else json.dumps(value)


def as_amount(value: float, text: str, parse: Callable[..., float]) -> str:
    """Return an amount as people read it, where that is all of it: what is shown can be loaded, and means the same."""
    try:
        same = parse(text, field="") == value
    except ConfigError:  # rounded up, it is more than can be had
        same = False
    return as_string(text) if same else json.dumps(value)


def as_key(name: str) -> str:
    """Return a key as TOML has it."""
    bare = name.isascii() and name.replace("-", "").replace("_", "").isalnum()
    return name if bare else as_string(name)


def as_string(text: str) -> str:
    """Return a basic string. JSON's are that, but for one letter that TOML wants escaped."""
    shown = json.dumps(text, ensure_ascii=False)
    return "".join(letter if letter.isprintable() else f"\\U{ord(letter):08x}" for letter in shown)
