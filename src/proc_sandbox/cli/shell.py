"""What `shell` does: a shell in the current directory, on a terminal of its own that is joined to the caller's."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import proc_sandbox as ps
from proc_sandbox import presets
from proc_sandbox.cli import commands, options

if TYPE_CHECKING:
    import argparse

__all__ = ["shell_command"]

NO_SHELLS = ("false", "nologin")
"""What stands in $SHELL for who is to have none."""
PROMPTS = {"bash": r"(sandbox) \w\$ ", "zsh": "(sandbox) %~ %# "}
PROMPT = "(sandbox) $ "
REMEDY = "go to a directory of the work that is to be done, or name one: -C DIR"


def shell_command(parsed: argparse.Namespace) -> int:
    """Run a shell, or the command, as `run --pty` would in the current directory; return its exit status.

    Raises:
        SandboxError: it was not run.
    """
    if not os.isatty(0):
        raise ps.ConfigError("shell", "stdin", "it is no terminal; without one: proc-sandbox run -- COMMAND")
    config = placed(options.make_config(parsed, pty=True))
    shell = parsed.command[0] if parsed.command else find_shell(config)
    inside = {"PS1": PROMPTS.get(os.path.basename(shell), PROMPT), "SHELL": shell}
    config = config.replace(env={**inside, **dict(config.env)})
    if not parsed.quiet:
        print(f"proc-sandbox: {config.working_dir} can be written here; Ctrl-] three times ends it all", file=sys.stderr)
    return commands.run_with(config, parsed.command or [shell], parsed)


def placed(config: ps.Config) -> ps.Config:
    """Return the Config with the current directory as working_dir where it has none.

    Raises:
        ConfigError: the directory cannot be given away, is gone, or the home directory lies in it and --rw does not name it.
    """
    if config.working_dir is None:
        try:
            config = config.replace(working_dir=os.getcwd())
        except (OSError, ps.ConfigError):
            raise ps.ConfigError("working_dir", ".", f"it cannot be given to a command; {REMEDY}") from None
    directory = config.working_dir or ""
    named = (presets.holds(os.path.realpath(place), os.path.realpath(directory)) for place in config.writable_dirs)
    home = presets.home_in(directory)
    if home and not any(named):
        remedy = f"a home directory lies in it ({home}), with keys and what runs at your next login; {REMEDY}; or say --rw {directory} too"
        raise ps.ConfigError("working_dir", directory, remedy)
    return config


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
