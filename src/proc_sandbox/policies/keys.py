"""The keys of a policy: which fields of Config they are, and what their values mean in a file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from proc_sandbox.config import DEFAULTS, NORMALISERS, Config
from proc_sandbox.errors import ConfigError, PolicyError
from proc_sandbox.policies.files import Table, suggestion
from proc_sandbox.presets import read_enforcement

__all__ = ["FIELDS", "LISTS", "NONE", "OPTIONAL", "OWN_KEYS", "PATH_LISTS", "SIZES", "TIMES", "check_table", "normal", "normalised"]

NOT_IN_POLICIES = ("stdin", "stdout", "stderr", "pass_fds")
"""Fields that name what one process has open, for one run: in a file they would mean something else in each process."""
FIELDS = tuple(item.name for item in fields(Config) if item.name not in NOT_IN_POLICIES)
SIZES = ("memory_limit", "read_bps", "write_bps", "max_output", "max_file_size", "tmp_size")
TIMES = ("timeout", "cpu_time_limit", "kill_grace")
PATHS = ("working_dir",)
PATH_LISTS = ("allowed_dirs", "read_only_dirs", "writable_dirs", "hidden_paths")
LISTS = (*PATH_LISTS, "env", "pass_env")
"""Fields that hold more than one thing: what a policy names is added to what it extends."""
OWN_KEYS = ("extends", "description")
NONE = "none"
"""What stands for None, which TOML does not have: no such limit, whatever is extended."""
OPTIONAL = tuple(name for name in FIELDS if DEFAULTS[name] is None)


def check_table(table: Table) -> Iterator[PolicyError]:
    """Yield what is wrong with one policy by itself."""
    for key, value in table.values.items():
        if key in OWN_KEYS:
            if not isinstance(value, str):
                yield table.error(key, value, "must be a string")
        elif key in NOT_IN_POLICIES:
            yield table.error(key, value, "it names what one process has open; give it to run()")
        elif key not in FIELDS:
            yield table.error(key, value, suggestion(key, (*FIELDS, *OWN_KEYS), "no such key; there are"))
        else:
            try:
                normal(table, key, value)
            except ConfigError as error:
                yield table.error(key, error.value, error.remedy)


def normalised(table: Table) -> dict[str, Any]:
    """Return the fields that a policy names itself, as Config has them.

    Raises:
        PolicyError: something in it is not valid.
    """
    for error in check_table(table):
        raise error
    return {key: normal(table, key, value) for key, value in table.values.items() if key not in OWN_KEYS}


def normal(table: Table, key: str, value: Any) -> Any:
    """Return one field's value as Config has it.

    Raises:
        ConfigError: it is not valid.
    """
    if value == NONE and key in OPTIONAL:
        return None
    if key == "enforcement":
        value = read_enforcement(value)
    if key in LISTS and key != "env" and not isinstance(value, list):
        raise ConfigError(key, value, 'must be a list, as in ["a", "b"]')
    if key in PATHS:
        value = placed(table, value)
    elif key in PATH_LISTS:
        value = [placed(table, item) for item in value]
    return NORMALISERS[key](key, value)


def placed(table: Table, value: Any) -> Any:
    """Return a path as it is meant: from the home directory, or from the directory of its file."""
    if not isinstance(value, str) or not value:
        return value  # which Config refuses
    if "\0" in value:
        return value  # Config refuses it
    return os.path.join(os.path.dirname(os.path.abspath(table.file)), os.path.expanduser(value))
