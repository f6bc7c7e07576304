"""Options of the command line, derived from the fields of Config.

A field is written once, in Config: its name gives the option (`memory_limit`, `--memory-limit`),
its default the shape (a flag, an option to repeat, one value), its docstring the help. Here is only
what the shape of a value on a command line needs beyond that.
"""

from __future__ import annotations

import argparse
import re
from dataclasses import MISSING, Field, fields
from typing import TYPE_CHECKING, Any

import proc_sandbox as ps

if TYPE_CHECKING:
    from collections.abc import Callable

ALIASES: dict[str, tuple[str, ...]] = {
    "timeout": ("-t",),
    "memory_limit": ("-m",),
    "cpu_limit": ("--cpu",),
    "max_processes": ("--pids",),
    "working_dir": ("-C",),
    "read_only_dirs": ("--ro",),
    "writable_dirs": ("--rw",),
    "hidden_paths": ("--hide",),
    "env": ("-e",),
    "network_access": ("--net",),
}
"""Short names beside the derived one, for the limits that people type."""

NAMES = tuple(field.name for field in fields(ps.Config))
"""The destinations of the options."""

STREAM_WORDS = {
    "inherit": ps.INHERIT,
    "devnull": ps.DEVNULL,
    "capture": ps.CAPTURE,
    "stdout": ps.STDOUT,
}
NETWORK_WORDS: dict[str, bool | str] = {"no": False, "yes": True, "loopback": "loopback"}

DEFAULT = ps.Config()
PASS_THROUGH = {"stdin": ps.INHERIT, "stdout": ps.INHERIT, "stderr": ps.INHERIT}
"""What the command line changes in Config's defaults: the streams are the caller's."""

STREAM_HELP = "Default: inherit, the caller's own. With capture it is kept for --json. A path is a file."


def read_number(text: str) -> int | float | str:
    """Return a plain number as one, anything else as it is: Config knows units and refusals."""
    if re.fullmatch(r"[+-]?[0-9]+", text):
        return int(text)
    if re.fullmatch(r"[+-]?[0-9]*\.[0-9]+", text):
        return float(text)
    return text


def read_octal(text: str) -> int | str:
    """Return "022" as umask(1) reads it, in octal; anything else as it is, for Config to refuse."""
    return int(text, 8) if re.fullmatch(r"[0-7]+", text) else text


def read_stream(text: str) -> int | str:
    """Return the constant that a word such as "devnull" names, or the text, which is a path.

    A file of such a name is written `./devnull`.
    """
    return STREAM_WORDS.get(text, text)


def read_network(text: str) -> bool | str:
    """Return what yes, no and loopback mean; anything else as it is, for Config to refuse."""
    return NETWORK_WORDS.get(text, text)


def read_enforcement(text: str) -> object:
    """Return "strict", "best-effort", or for "best-effort:FIELD,FIELD" these fields alone."""
    name, colon, listed = text.partition(":")
    if name == "best-effort" and colon:
        return ps.best_effort(*listed.split(","))
    return text


READERS: dict[str, tuple[Callable[[str], object], str]] = {
    "stdin": (read_stream, "inherit|devnull|PATH"),
    "stdout": (read_stream, "inherit|devnull|capture|PATH"),
    "stderr": (read_stream, "inherit|devnull|capture|stdout|PATH"),
    "network_access": (read_network, "no|yes|loopback"),
    "enforcement": (read_enforcement, "strict|best-effort[:FIELD,...]"),
    "backend": (str, "linux|posix|windows"),
    "umask": (read_octal, "OCTAL"),
    "working_dir": (str, "DIR"),
    "hidden_paths": (str, "PATH"),
    "env": (str, "NAME=VALUE"),
    "pass_env": (str, "NAME"),
    "pass_fds": (read_number, "FD"),
    "timeout": (read_number, "SECONDS"),
    "cpu_time_limit": (read_number, "SECONDS"),
    "kill_grace": (read_number, "SECONDS"),
    "cpu_limit": (read_number, "PERCENT"),
    "memory_limit": (read_number, "SIZE"),
    "read_bps": (read_number, "SIZE"),
    "write_bps": (read_number, "SIZE"),
    "max_output": (read_number, "SIZE"),
    "max_file_size": (read_number, "SIZE"),
    "tmp_size": (read_number, "SIZE"),
    "prepared": (read_number, "N"),
}
"""Per field how a value is read and what the help calls it; a field not listed goes by its default."""


def long_options() -> list[str]:
    """Return the options for the fields of Config by their long names."""
    aliases = [alias for names in ALIASES.values() for alias in names if alias.startswith("--")]
    return [*aliases, *("--" + name.replace("_", "-") for name in NAMES)]


def default_of(field: Field[Any]) -> object:
    """Return a field's default value; None if it has none."""
    if field.default is not MISSING:
        return field.default
    return None if field.default_factory is MISSING else field.default_factory()


def add_options(parser: argparse.ArgumentParser, *, with_help: bool = False) -> None:
    """Add an option for every field of Config; one that is not given leaves no trace."""
    described: dict[str, str] = {}
    if with_help:
        from proc_sandbox.docstrings import first_paragraph, of_fields

        described = {name: first_paragraph(text) for name, text in of_fields().items()}
    limits = parser.add_argument_group("limits and grants")
    for field in fields(ps.Config):
        default = default_of(field)
        names = (*ALIASES.get(field.name, ()), "--" + field.name.replace("_", "-"))
        help_text = STREAM_HELP if field.name in PASS_THROUGH else described.get(field.name, "")
        help_text = help_text.replace("%", "%%")
        common: dict[str, Any] = {"dest": field.name, "default": argparse.SUPPRESS}
        if field.name in READERS or not isinstance(default, bool):
            by_default: Callable[[str], object] = str if isinstance(default, (str, tuple)) else read_number
            reader, metavar = READERS.get(field.name, (by_default, metavar_of(field.name)))
            common |= {"type": reader, "metavar": metavar}
            common["action"] = "append" if isinstance(default, tuple) else "store"
        else:
            common["action"] = argparse.BooleanOptionalAction
        limits.add_argument(*names, help=help_text or None, **common)


def metavar_of(name: str) -> str:
    """Return what the help calls the value of an option that has no entry in READERS."""
    return "DIR" if name.endswith("_dirs") else name.rpartition("_")[2].upper()


def add_policy(parser: argparse.ArgumentParser) -> None:
    """Add --policy and --preset: a Config with a name, over which what is given as options wins."""
    named = parser.add_argument_group("policies").add_mutually_exclusive_group()
    named.add_argument(
        "--policy", metavar="NAME|FILE|FILE:NAME",
        help="limits and grants from a TOML file, or of that name; other options win over it, those that may be repeated add to it",
    )  # fmt: skip
    named.add_argument("--preset", metavar="NAME", help="a policy that comes with this program: proc-sandbox policy list")


def named_config(parsed: argparse.Namespace, given: dict[str, Any]) -> ps.Config:
    """Return the Config that --policy or --preset names; given: the options that no stream is.

    Raises:
        ConfigError: there is none of that name, or it is not valid, also with an option.
    """
    if parsed.preset is not None:
        return ps.Config.preset(parsed.preset, **given)
    from proc_sandbox import policies

    return policies.find(parsed.policy, **given)


def make_config(parsed: argparse.Namespace, *, streams: bool = True, **fixed: Any) -> ps.Config:
    """Return the Config that the given options ask for. With a policy they are as one that extends it.

    Args:
        streams: what no option says of a stream is that it is the caller's own. False: it is Config's default.
        fixed: Fields that are so whatever the options say.

    Raises:
        ConfigError: a value is refused; nothing was started.
    """
    given = {name: getattr(parsed, name) for name in NAMES if name in parsed} | fixed
    limits = {name: value for name, value in given.items() if name not in PASS_THROUGH}
    own = {name: value for name, value in given.items() if name in PASS_THROUGH}  # which no policy has
    named = parsed.policy is not None or parsed.preset is not None
    config = named_config(parsed, limits) if named else ps.Config(**limits)
    return config.replace(**{**(PASS_THROUGH if streams else {}), **own})
