"""What `shell` does: a shell in the current directory, on a terminal of its own that is joined to the caller's."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import proc_sandbox as ps
from proc_sandbox.cli import commands, options

if TYPE_CHECKING:
    import argparse

__all__ = ["shell_command"]

NO_SHELLS = ("false", "nologin")
"""What stands in $SHELL for who is to have none."""
PROMPTS = {"bash": r"(sandbox) \w\$ ", "zsh": "(sandbox) %~ %# "}
PROMPT = "(sandbox) $ "


def shell_command(parsed: argparse.Namespace) -> int:
    """Run a shell, or the command, as `run --pty` would in the current directory; return its exit status.

    Raises:
        SandboxError: it was not run.
    """
    if not os.isatty(0):
        raise ps.ConfigError("shell", "stdin", "it is no terminal; without one: proc-sandbox run -- COMMAND")
    parsed.pty = True
    config = options.make_config(parsed)
    if config.working_dir is None:
        parsed.working_dir = here()
        config = config.replace(working_dir=parsed.working_dir)
    shell = parsed.command[0] if parsed.command else find_shell(config)
    parsed.command = parsed.command or [shell]
    inside = {"PS1": PROMPTS.get(os.path.basename(shell), PROMPT), "SHELL": shell}
    parsed.env = [*(f"{name}={value}" for name, value in inside.items()), *getattr(parsed, "env", ())]
    if not parsed.quiet:
        print(f"proc-sandbox: {config.working_dir} can be written here; Ctrl-] three times ends it all", file=sys.stderr)
    return commands.run_command(parsed)


def here() -> str:
    """Return the current directory, where that can be given away.

    Raises:
        ConfigError: it can not, or is gone.
    """
    remedy = "go to a directory of the work that is to be done, or name one: -C DIR"
    try:
        directory = os.getcwd()
        granted = ps.Config(working_dir=directory).working_dir
    except (OSError, ps.ConfigError):
        raise ps.ConfigError("working_dir", ".", f"it cannot be given to a command; {remedy}") from None
    assert granted
    home, place = os.path.realpath(os.path.expanduser("~")), os.path.realpath(granted)
    if os.path.commonpath([home, place]) == place:
        raise ps.ConfigError("working_dir", granted, f"your home directory holds keys and what runs at your next login; {remedy}")
    return granted


def find_shell(config: ps.Config) -> str:
    """Return the first shell that can be run inside.

    Raises:
        CommandNotFoundError: there is not even sh.
    """
    usual = os.environ.get("SHELL", "")
    for shell in filter(None, ("" if os.path.basename(usual) in NO_SHELLS else usual, "bash")):
        try:
            return ps.plan([shell], config=config).executable
        except (ps.CommandNotFoundError, ps.CommandNotExecutableError):
            continue
    return ps.plan(["sh"], config=config).executable
