"""The command `proc-sandbox`: run, plan, doctor.

A thin room over the public face: options become a `Config`, a `Result` becomes an exit status.

    options.py    fields of Config -> options, and option values -> a Config
    commands.py   what `run`, `plan` and `doctor` do
    status.py     Result or error -> exit status, after timeout(1) and env(1)
"""

from __future__ import annotations

import argparse
import functools
import gc
import os
import sys
import warnings
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

import proc_sandbox as ps
from proc_sandbox.backends import begin
from proc_sandbox.cli import commands, options, status

if TYPE_CHECKING:
    from collections.abc import Sequence

WIDTH = int(os.environ.get("COLUMNS", "") or 100) if os.environ.get("COLUMNS", "").isdigit() else 100
"""Columns of the help text."""
STATUS_TABLE = """\
exit status of run (the command's own, unless):
  121  the limit of processes ended the run  125  proc-sandbox itself failed: nothing was run
  122  the memory limit ended the run        126  the command exists but can't be executed
  123  the CPU time limit ended the run      127  the command was not found
  124  the wall time limit ended the run     128+N  signal N ended the command
A command may exit with any of these numbers itself; --json FILE tells which it was.
"""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that reports wrong usage with status 125, as timeout(1) and env(1) do."""

    def __init__(self, **options: Any) -> None:
        # The width of the terminal is asked for with help only: to find it out argparse imports shutil, at each option.
        super().__init__(**options, formatter_class=functools.partial(argparse.RawDescriptionHelpFormatter, width=WIDTH))

    def error(self, message: str) -> NoReturn:
        """Print the usage and the message to stderr and exit with 125.

        Raises:
            SystemExit: always; nothing was started.
        """
        self.print_usage(sys.stderr)
        self.exit(status.FAILED, f"{self.prog}: {message}\n")


def make_parser(action: str = "", *, with_help: bool = False) -> argparse.ArgumentParser:
    """Return the parser of the whole command line up to `--`.

    Args:
        action: the one whose options are needed; "" for all. Making them costs milliseconds too.
        with_help: also read the help text of the limits from the docstrings of Config, which
            costs some milliseconds. Default: False.
    """
    parser = Parser(
        prog="proc-sandbox",
        description="Run an untrusted command under limits, and tell the truth about it.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"proc-sandbox {ps.__version__}")
    chosen = parser.add_subparsers(dest="action", metavar="{run,plan,doctor}", required=True)

    run = chosen.add_parser(
        "run",
        help="run a command in a sandbox; its streams pass through",
        usage="proc-sandbox run [limits] -- COMMAND [ARGUMENT...]",
        epilog=STATUS_TABLE,
        allow_abbrev=False,
    )
    run.add_argument("--json", metavar="FILE", help='write the result there; "-" is stdout')
    run.set_defaults(handler=commands.run_command)

    plan = chosen.add_parser(
        "plan",
        help="print what would be done for a command; nothing runs",
        usage="proc-sandbox plan [--json | --words] [limits] -- COMMAND [ARGUMENT...]",
        allow_abbrev=False,
    )
    form = plan.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print the plan as JSON")
    form.add_argument("--words", action="store_true", help="print only the launcher's own command line")
    plan.set_defaults(handler=commands.plan_command)

    for name, taker in (("run", run), ("plan", plan)):
        if action in ("", name):
            options.add_options(taker, with_help=with_help)
        taker.add_argument("command", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)

    doctor = chosen.add_parser(
        "doctor",
        help="print what this host can enforce, how, and what to do about the rest",
        description="With limits: whether these can be enforced here. Exit status: 0 everything (but perhaps disk limits), 1 something is missing, "
        "2 nothing can run.",
        usage="proc-sandbox doctor [--json] [limits]",
        allow_abbrev=False,
    )
    doctor.add_argument("--json", action="store_true", help="print it as JSON")
    doctor.set_defaults(handler=commands.doctor_command)
    if action in ("", "doctor"):
        options.add_options(doctor, with_help=with_help)
    return parser


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
    parser = make_parser(action, with_help="-h" in ours or "--help" in ours)
    parsed = parser.parse_args(ours)
    if not hasattr(parsed, "command"):
        if cut < len(words):
            parser.error(f"{parsed.action} takes no command")
        return parsed
    if parsed.command and cut < len(words):  # sh -c -- 'x': this "--" is the command's own
        rest = ["--", *rest]
    parsed.command = [*parsed.command, *rest]
    if not parsed.command:
        parser.error(f"a command is missing: proc-sandbox {parsed.action} [limits] -- COMMAND")
    return parsed


def show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Print a warning as one line, without the place in our own source."""
    print(f"proc-sandbox: warning: {message}", file=sys.stderr)


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
            if parsed.handler is commands.run_command:
                begin(getattr(parsed, "backend", None))
            code: int = parsed.handler(parsed)
            sys.stdout.flush()
        except ps.SandboxError as error:
            print(f"proc-sandbox: {error}", file=sys.stderr)
            return status.failure_status(error)
        except BrokenPipeError:
            # `proc-sandbox plan ... | head`: the reader has gone. Keep the interpreter's own
            # flush at exit from complaining.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return status.BROKEN_PIPE
        except OSError as error:  # a full disk, a stream that cannot be written: never the command's own status
            print(f"proc-sandbox: {error}", file=sys.stderr)
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
