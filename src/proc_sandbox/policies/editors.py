"""The JSON Schema of files of policies, which editors complete and check by."""

from __future__ import annotations

from typing import Any

from proc_sandbox.config import BACKENDS, DEFAULTS, NAMES
from proc_sandbox.docstrings import first_paragraph, of_fields
from proc_sandbox.policies.keys import FIELDS, NONE, OPTIONAL, PATH_LISTS, SIZES, TIMES

__all__ = ["schema"]

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def text(pattern: str) -> dict[str, Any]:
    """Return the schema of a string; the pattern in the words that ECMA-262 and Python have in common."""
    return {"type": "string", "pattern": f"^{pattern}$"}


def whole(least: int, most: int | None = None) -> dict[str, Any]:
    """Return the schema of a whole number."""
    return {"type": "integer", "minimum": least, **({} if most is None else {"maximum": most})}


def either(*schemas: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": list(schemas)}


NUMBER = r"\s*[0-9]+(\.[0-9]+)?\s*"
STRINGS: dict[str, Any] = {"type": "array", "items": {"type": "string", "minLength": 1}}
ISOLATIONS = ("files", "privileges", "processes", "ipc", "syscalls")
SHAPES: dict[str, dict[str, Any]] = {
    **dict.fromkeys(SIZES, either(whole(1), text(NUMBER + r"(([kKmMgGtT]([iI][bB])?)|[bB])?\s*"))),
    **dict.fromkeys(TIMES, either({"type": "number", "exclusiveMinimum": 0, "maximum": 1e9}, text(NUMBER + r"(ms|s|m|min|h)?\s*"))),
    "cpu_limit": either({"type": "number", "minimum": 1, "maximum": 100_000}, text(NUMBER + r"%?")),
    "max_processes": whole(1, 1 << 22),
    "max_open_files": whole(8, 1 << 20),
    "umask": whole(0, 0o777),
    "nice": whole(0, 19),
    "prepared": whole(0, 16),
    **dict.fromkeys(PATH_LISTS, STRINGS),
    "pass_env": {"type": "array", "items": {"type": "string", "pattern": "^[^=]+$"}},
    "working_dir": {"type": "string", "minLength": 1},
    "env": either(
        {"type": "object", "additionalProperties": {"type": "string"}, "propertyNames": {"pattern": "^[^=]+$"}},
        {"type": "array", "items": {"type": "string", "pattern": "^[^=]+="}},
    ),
    "network_access": {"enum": [False, True, "loopback"]},
    "hostname": {"type": "string", "maxLength": 64, "pattern": r"^[^\u0000-\u001f\u007f]+$"},
    "backend": {"enum": list(BACKENDS)},
    "enforcement": either(
        {"enum": ["strict", "best-effort"]},
        {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "default": {"enum": ["strict", "best-effort"]},
                "best_effort": {"type": "array", "items": {"enum": [*NAMES, *ISOLATIONS]}},
            },
        },
    ),
}
"""Of each field that its default does not tell enough of."""
BY_TYPE: dict[type, dict[str, Any]] = {bool: {"type": "boolean"}, int: whole(0), str: {"type": "string"}, tuple: STRINGS}


def shape_of(name: str) -> dict[str, Any]:
    """Return the schema of one field's values."""
    shape = SHAPES[name] if name in SHAPES else BY_TYPE.get(type(DEFAULTS[name]), {})
    return either(shape, {"const": NONE}) if name in OPTIONAL else shape


def schema() -> dict[str, Any]:
    """Return a JSON Schema (draft 2020-12) of a file of policies, for editors. In a pyproject.toml it is that of [tool.proc-sandbox]."""
    told = of_fields()
    keys: dict[str, dict[str, Any]] = {
        "extends": {"type": "string", "description": "Another policy of the file, of the user's, or a preset."},
        "description": {"type": "string", "description": "What it is for, in one sentence."},
    }
    for name in FIELDS:
        keys[name] = {"description": first_paragraph(told.get(name, "")), **shape_of(name)}
    policy = {"type": "object", "additionalProperties": False, "properties": keys}
    return {
        "$schema": DIALECT,
        "title": "proc-sandbox policies",
        "type": "object",
        "required": ["policies"],
        "additionalProperties": False,
        "properties": {"policies": {"type": "object", "minProperties": 1, "additionalProperties": policy}},
    }
