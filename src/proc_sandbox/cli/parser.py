"""The parser of the command line: one function for each action, in ACTIONS. A further action is a further function there."""

from __future__ import annotations

import argparse
import functools
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

import proc_sandbox as ps
from proc_sandbox.cli import commands, options, status
from proc_sandbox.later import load

if TYPE_CHECKING:
    Chosen = argparse._SubParsersAction[Any]

__all__ = ["ACTIONS", "Parser", "make_parser"]

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
    """An ArgumentParser that teaches by example, and reports wrong usage with status 125, as timeout(1) and env(1) do."""

    def __init__(self, topic: str = "", **options: Any) -> None:
        # The width of the terminal is asked for with help only: to find it out argparse imports shutil, at each option.
        formatter = functools.partial(argparse.RawDescriptionHelpFormatter, width=WIDTH)
        super().__init__(**{**options, "formatter_class": formatter, "allow_abbrev": False})
        self.topic = topic
        self.actions: dict[str, Parser] = {}

    def error(self, message: str) -> NoReturn:
        """Print the usage and the message to stderr and exit with 125.

        Raises:
            SystemExit: always; nothing was started.
        """
        self.print_usage(sys.stderr)
        self.exit(status.FAILED, f"{self.prog}: {message}; see {self.prog} --help\n")

    def format_help(self) -> str:
        """Return the help text, which begins with examples."""
        from proc_sandbox.cli.examples import text_for

        return text_for(self.topic) + super().format_help()


def lazily(module: str, name: str) -> Callable[[argparse.Namespace], int]:
    """Return what does an action, from a module of this room that is imported when the action is done."""

    def handle(parsed: argparse.Namespace) -> int:
        code: int = load(f"{__package__}.{module}", name, {})(parsed)
        return code

    return handle


def make_parser(action: str = "", *, with_help: bool = False) -> Parser:
    """Return the parser of the whole command line up to `--`.

    Args:
        action: the one that is needed; "" for all. Making them costs milliseconds.
        with_help: also read the help text of the limits from the docstrings of Config, which
            costs some milliseconds. Default: False.
    """
    parser = Parser("", prog="proc-sandbox", usage="proc-sandbox ACTION ...")
    parser.add_argument("--version", action="version", version=f"proc-sandbox {ps.__version__}")
    chosen = parser.add_subparsers(dest="action", metavar="ACTION", required=True, prog="proc-sandbox")
    for name, add in ACTIONS.items():
        if action in ("", name):
            add(chosen, with_help)
    parser.actions = chosen.choices
    return parser


def add_colour(parser: argparse.ArgumentParser) -> None:
    """Add --colour. What NO_COLOR and TERM say counts for "auto"."""
    parser.add_argument(
        "--colour", "--color", choices=("auto", "always", "never"), default="auto",
        help="colours on stderr and in tables. Default: auto, on a terminal, without NO_COLOR and TERM=dumb",
    )  # fmt: skip


def add_telling(parser: argparse.ArgumentParser) -> None:
    """Add what is to be told of a run: for whatever action is carried out by commands.run_command()."""
    parser.add_argument("--json", metavar="FILE", help='write the result there; "-" is stdout')
    parser.add_argument("--stats", action="store_true", help="print what was used, and what held each limit, on stderr")
    said = parser.add_mutually_exclusive_group()
    said.add_argument("-q", "--quiet", action="store_true", help="say nothing about how it ended")
    said.add_argument("-v", "--verbose", action="store_true", help="say how it ended also after an ordinary exit")
    add_colour(parser)


def add_run(chosen: Chosen, with_help: bool) -> None:
    """Add `run`."""
    run = chosen.add_parser(
        "run", topic="run", help="run a command in a sandbox; its streams pass through",
        usage="proc-sandbox run [options] [limits] -- COMMAND [ARGUMENT...]", epilog=STATUS_TABLE,
    )  # fmt: skip
    add_telling(run)
    run.set_defaults(handler=commands.run_command)
    options.add_policy(run)
    options.add_options(run, with_help=with_help)
    run.add_argument("command", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)


def add_shell(chosen: Chosen, with_help: bool) -> None:
    """Add `shell`."""
    shell = chosen.add_parser(
        "shell", topic="shell", help="open a shell in the current directory, which it can write; nothing else of yours is there",
        usage="proc-sandbox shell [options] [limits] [-- COMMAND [ARGUMENT...]]",
        epilog="Without a COMMAND: $SHELL, or bash, or sh, the first one that is there inside. Exit status: as of run.",
    )  # fmt: skip
    add_telling(shell)
    shell.set_defaults(handler=lazily("shell", "shell_command"))
    options.add_policy(shell)
    options.add_options(shell, with_help=with_help)
    shell.add_argument("command", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)


def add_plan(chosen: Chosen, with_help: bool) -> None:
    """Add `plan`."""
    plan = chosen.add_parser(
        "plan", topic="plan", help="print what would be done for a command; nothing runs",
        usage="proc-sandbox plan [--json | --words] [limits] -- COMMAND [ARGUMENT...]",
    )  # fmt: skip
    form = plan.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print the plan as JSON")
    form.add_argument("--words", action="store_true", help="print only the launcher's own command line")
    plan.set_defaults(handler=commands.plan_command)
    options.add_policy(plan)
    options.add_options(plan, with_help=with_help)
    plan.add_argument("command", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)


def add_doctor(chosen: Chosen, with_help: bool) -> None:
    """Add `doctor`."""
    doctor = chosen.add_parser(
        "doctor", topic="doctor", help="print what this host can enforce, how, and what to do about the rest",
        usage="proc-sandbox doctor [--json] [limits]",
        epilog="With limits or a policy: whether these can be enforced here.\n"
        "Exit status: 0 everything (but perhaps disk limits), 1 something is missing, 2 nothing can run.",
    )  # fmt: skip
    doctor.add_argument("--json", action="store_true", help="print it as JSON")
    doctor.set_defaults(handler=commands.doctor_command)
    options.add_policy(doctor)
    options.add_options(doctor, with_help=with_help)


def add_batch(chosen: Chosen, with_help: bool) -> None:
    """Add `batch`."""
    batch = chosen.add_parser(
        "batch", topic="batch", help="run the jobs of a file, many at a time; go on where it was interrupted",
        usage="proc-sandbox batch JOBS --out RESULTS [--workers N] [options] [limits]",
        epilog="Exit status: 0 every job is ok, 1 some are not, 125 bad usage (nothing was run),\n"
        "130 interrupted: the same command goes on.",
    )  # fmt: skip
    batch.add_argument("jobs", metavar="JOBS", help="a file with one JSON object a line: args, and what else is to be as on the "
                       "command line: id, input, and every limit and grant by its name")  # fmt: skip
    batch.add_argument("-o", "--out", metavar="RESULTS", required=True, help="the file that gets a line for each job as it ends; "
                       "what is in it already is not done again")  # fmt: skip
    batch.add_argument(
        "-w", "--workers", metavar="N", type=options.read_number, help="jobs at a time. Default: one for each processor"
    )
    batch.add_argument("--keep-going", action="store_true", help="run the jobs that are valid although others are not")
    batch.add_argument("-q", "--quiet", action="store_true", help="no progress and no summary on stderr")
    add_colour(batch)
    batch.set_defaults(handler=lazily("batch", "batch_command"))
    options.add_policy(batch)
    options.add_options(batch, with_help=with_help)


def add_ps(chosen: Chosen, with_help: bool) -> None:
    """Add `ps`."""
    del with_help
    parser = chosen.add_parser(
        "ps", topic="ps", help="list the runs that are alive, yours (root: everybody's)", usage="proc-sandbox ps [--json]",
        epilog="Only what the kernel tells is believed: which processes are runs, what they use, what their\n"
        "cgroups allow. The arguments are what the command shows of itself, as for ps(1). Time limits, and\n"
        "what is sampled, are known to the run's launcher alone. Runs of the backend posix are not listed.",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    add_colour(parser)
    parser.set_defaults(handler=lazily("live", "ps_command"))


def add_kill(chosen: Chosen, with_help: bool) -> None:
    """Add `kill`."""
    del with_help
    parser = chosen.add_parser(
        "kill", topic="kill", help="end a run, with all of its processes", usage="proc-sandbox kill ID...",
        epilog="Nothing but a run of yours (root: anybody's) is ever killed. Its caller is told killed_outside.\n"
        "Exit status: 0, or 1 where an ID is no such run.",
    )  # fmt: skip
    parser.add_argument(
        "ids", metavar="ID", nargs="+", type=int, help="what `proc-sandbox ps` calls it: the command's process id"
    )
    parser.set_defaults(handler=lazily("live", "kill_command"))


def add_policy_action(chosen: Chosen, with_help: bool) -> None:
    """Add `policy`."""
    del with_help
    policy = chosen.add_parser(
        "policy", topic="policy", help="show, check and list policies", usage="proc-sandbox policy ACTION ..."
    )
    below = policy.add_subparsers(dest="policy_action", metavar="ACTION", required=True, prog="proc-sandbox policy")
    show = below.add_parser(
        "show", topic="policy show", help="print what a policy comes to, everything that it extends included"
    )
    show.add_argument("spec", metavar="POLICY", help="NAME, FILE or FILE:NAME")
    check = below.add_parser("check", topic="policy check", help="say what is wrong in files of policies")
    check.add_argument("files", metavar="FILE", nargs="+", help="a TOML file")
    listed = below.add_parser(
        "list", topic="policy list", help="list the policies that have a name: presets, and yours"
    )
    listed.add_argument("--names", action="store_true", help="print the names only")
    add_colour(listed)
    below.add_parser("schema", topic="policy schema", help="print the JSON Schema of such files, for editors")
    for name, parser in (("show", show), ("check", check), ("list", listed), ("schema", below.choices["schema"])):
        parser.set_defaults(handler=lazily("policy", f"{name}_command"))


def add_completion(chosen: Chosen, with_help: bool) -> None:
    """Add `completion`."""
    del with_help
    parser = chosen.add_parser(
        "completion", topic="completion", help="print what completes this command line in a shell",
        usage="proc-sandbox completion bash|zsh|fish",
    )  # fmt: skip
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="which shell")
    parser.set_defaults(handler=lazily("completion", "completion_command"))


ACTIONS: dict[str, Callable[[Any, bool], None]] = {
    "run": add_run,
    "shell": add_shell,
    "plan": add_plan,
    "doctor": add_doctor,
    "batch": add_batch,
    "ps": add_ps,
    "kill": add_kill,
    "policy": add_policy_action,
    "completion": add_completion,
}
"""What can be done, and what adds its options."""
