"""`completion`: what completes the command line in a shell, made from its parser by shtab."""

from __future__ import annotations

import argparse
from typing import Any

import shtab

from proc_sandbox import policies
from proc_sandbox.cli.parser import make_parser

__all__ = ["completion_command", "script"]

FILES = ("FILE", "JOBS", "RESULTS")
WORDS = {
    "network_access": ["no", "yes", "loopback"],
    "backend": ["linux", "posix", "windows"],
    "enforcement": ["strict", "best-effort"],
}
"""Values that are words, where argparse leaves it to Config to refuse others."""
POLICIES = ("POLICY", "NAME|FILE|FILE:NAME")
COMMAND = {"bash": "_proc_sandbox_command", "zsh": "_command_names -e", "fish": "(__fish_complete_command)"}
"""What completes the command that is to be run, in each shell: the names of programs, and files after that."""
PREAMBLE = {"bash": '_proc_sandbox_command() { compgen -c -- "$1"; compgen -f -- "$1"; }'}


def teach(action: argparse.Action) -> None:
    """Say how the value of an option is completed."""
    told: Any = action
    if action.metavar == "DIR":
        told.complete = shtab.DIRECTORY
    elif action.metavar in FILES or action.metavar in POLICIES or "PATH" in str(action.metavar):
        told.complete = shtab.FILE
    elif action.dest == "preset":
        action.choices = [listed.name for listed in policies.listing() if listed.source != "user"]
    elif action.dest in WORDS and action.choices is None:
        action.choices = WORDS[action.dest]


def teach_all(parser: argparse.ArgumentParser) -> None:
    """Say it for all options of a parser, and of those below it."""
    for action in parser._actions:  # argparse has no other way to ask
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                teach_all(below)
        elif action.nargs == argparse.REMAINDER:
            told: Any = action
            told.complete = COMMAND
            action.help = "what to run"  # which the usage says already; shtab takes no notice of what has no help
        else:
            teach(action)


def script(shell: str) -> str:
    """Return the script for a shell: "bash", "zsh" or "fish"."""
    parser = make_parser(with_help=True)
    teach_all(parser)
    preamble: Any = PREAMBLE  # which it takes, and its types do not say
    return shtab.complete(parser, shell, preamble=preamble)


def completion_command(parsed: argparse.Namespace) -> int:
    """Print the script."""
    print(script(parsed.shell))
    return 0
