"""`policy`: show, check, list policies, and print the schema of their files."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from proc_sandbox import policies
from proc_sandbox.cli.printing import print_table
from proc_sandbox.visible import printable

if TYPE_CHECKING:
    import argparse

__all__ = ["check_command", "list_command", "schema_command", "show_command"]

FINE, WRONG = 0, 1
"""Exit statuses of `policy check`."""


def show_command(parsed: argparse.Namespace) -> int:
    """Print what a policy comes to.

    Raises:
        ConfigError: there is none of that name, or it is not valid.
    """
    print(policies.explain(parsed.spec).rstrip("\n"))
    return FINE


def check_command(parsed: argparse.Namespace) -> int:
    """Print what is wrong in files, a line for each thing; return 1 if there is any."""
    code = FINE
    for path in parsed.files:
        errors = policies.check(path)
        for error in errors:
            print(printable(str(error)), file=sys.stderr)
        code = WRONG if errors else code
    return code


def list_command(parsed: argparse.Namespace) -> int:
    """Print the policies that have a name."""
    found = policies.listing()
    if parsed.names:
        for listed in found:
            print(printable(listed.name))
    else:
        rows = [(listed.name, listed.source, str(listed.path or ""), listed.description) for listed in found]
        print_table(("name", "source", "file", ""), rows, sys.stdout, colour=parsed.colour)
    return FINE


def schema_command(parsed: argparse.Namespace) -> int:
    """Print the JSON Schema of a file of policies."""
    del parsed
    json.dump(policies.schema(), sys.stdout, indent=2)
    print()
    return FINE
