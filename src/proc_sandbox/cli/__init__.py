"""The command `proc-sandbox`: run, plan, doctor and the rest.

A thin room over the public face: options become a `Config`, a `Result` becomes an exit status.

    parser.py      the actions, and the options of each
    examples.py    how the help of each begins
    options.py     fields of Config -> options, and option values -> a Config
    commands.py    what `run`, `plan` and `doctor` do
    status.py      Result or error -> exit status, after timeout(1) and env(1)
    verdict.py     a Result -> the line and the table on stderr
    printing.py    colours, tables, and text that does nothing to a terminal
    batch.py       `batch`; its jobs and its results: jobs.py
    shell.py       `shell`
    live.py        `ps` and `kill`
    policy.py      `policy`
    completion.py  `completion`

What stands below status.py is imported when it is needed: `proc-sandbox run` starts in milliseconds (python -m bench startup).
"""

from __future__ import annotations

import gc
import os
import sys
import warnings
from typing import TYPE_CHECKING, TextIO

import proc_sandbox as ps
from proc_sandbox.backends import begin
from proc_sandbox.cli import status
from proc_sandbox.cli.parser import ACTIONS, make_parser

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Return the parsed command line; `command` is what follows the first `--`, untouched.

    Without `--` the command begins at the first word that is no option.

    Raises:
        SystemExit: wrong usage (125), or --help and --version (0); nothing was started.
    """
    # Split by hand: which "--" argparse removes differs between versions of Python.
    words = list(argv)
    cut = words.index("--") if "--" in words else len(words)
    ours, rest = words[:cut], words[cut + 1 :]
    action = next((word for word in ours if not word.startswith("-")), "")
    parser = make_parser(action if action in ACTIONS else "", with_help="-h" in ours or "--help" in ours)
    parsed, unknown = parser.parse_known_args(ours)
    used = parser.actions[parsed.action]
    if unknown:
        used.error(not_known(unknown[0], parsed))
    if not hasattr(parsed, "command"):
        if cut < len(words):
            used.error(f"{parsed.action} takes no command")
        return parsed
    if parsed.command and cut < len(words):  # sh -c -- 'x': this "--" is the command's own
        rest = ["--", *rest]
    parsed.command = [*parsed.command, *rest]
    if not parsed.command and parsed.action != "shell":
        used.error("a command is missing")
    return parsed


def not_known(word: str, parsed: argparse.Namespace) -> str:
    """Return what is said of a word that the action does not take."""
    if not word.startswith("-"):
        return f"{word!r} is one word too many"
    from difflib import get_close_matches

    from proc_sandbox.cli.options import long_options

    near = get_close_matches(word.partition("=")[0], long_options(), 1) if "policy" in parsed else ()
    return f"no such option: {word}" + (f"; did you mean {near[0]}?" if near else "")


def show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning as one line, without the place in our own source."""
    complain(f"warning: {message}")


def complain(text: object) -> None:
    """Print one line on stderr. What is not ours in it, names of files and keys of policies, does nothing to the terminal."""
    from proc_sandbox.visible import printable

    print(f"proc-sandbox: {printable(str(text))}", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    Args:
        argv: the words after the program's name. Default: `sys.argv[1:]`.

    Raises:
        SystemExit: wrong usage (125), or --help and --version (0).
    """
    with warnings.catch_warnings():
        warnings.simplefilter("default", ps.UnenforcedWarning)
        warnings.showwarning = show_warning  # restored by catch_warnings
        try:
            parsed = parse(sys.argv[1:] if argv is None else argv)
            if parsed.action in ("run", "shell"):
                begin(getattr(parsed, "backend", None))
            code: int = parsed.handler(parsed)
            sys.stdout.flush()
        except ps.SandboxError as error:
            complain(error)
            return status.failure_status(error)
        except BrokenPipeError:
            # `proc-sandbox plan ... | head`: the reader has gone. Keep the interpreter's own
            # flush at exit from complaining.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return status.BROKEN_PIPE
        except OSError as error:  # a full disk, a stream that cannot be written: never the command's own status
            complain(error)
            return status.FAILED
        except KeyboardInterrupt:
            return status.INTERRUPTED  # the run was killed on the way here
    return code


def program() -> int:
    """Be the command `proc-sandbox`: main(), after which the interpreter ends."""
    try:
        code = main()
        # Windows' exit codes are unsigned, and sys.exit() takes a C long, which is signed there: 0xC0000005 is -1073741819.
        return code - (1 << 32) if code >> 31 else code
    finally:
        # At its end the interpreter looks through everything that was imported for cycles: milliseconds, for memory that
        # the kernel takes back anyway.
        gc.freeze()
