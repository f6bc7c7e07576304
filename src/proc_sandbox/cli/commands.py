"""What `run`, `plan` and `doctor` do, each from its parsed options to an exit status."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any, TextIO

import proc_sandbox as ps
from proc_sandbox.backends import current
from proc_sandbox.cli import options, status

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

TRUE = ["cmd", "/d", "/c", "exit 0"] if sys.platform == "win32" else ["true"]
"""true(1), or what does as little."""
ALL_ENFORCED, SOME_MISSING, UNUSABLE = 0, 1, 2
"""Exit statuses of `doctor`."""
ON_DEMAND = ("read_bps", "write_bps")
"""What few hosts have: that it is missing is told, but changes the exit status only for who asks for it."""


def open_report(path: str | None, config: ps.Config) -> contextlib.AbstractContextManager[TextIO | None]:
    """Return the file for --json, opened before the run: one that can't be written stops it. A link that the command may
    have made is not followed.

    Raises:
        ConfigError: the file can't be opened for writing; nothing was started.
    """
    if path is None or path == "-":
        return contextlib.nullcontext(None if path is None else sys.stdout)
    try:
        return open(current(config.backend).open_report(path, config.writable_places()), "w", encoding="utf-8")
    except OSError as error:
        remedy = "name a file in a directory that you may write"
        raise ps.ConfigError("--json", path, f"{remedy} ({error.strerror})") from error


def write_json(file: TextIO, facts: dict[str, Any]) -> None:
    """Write one JSON object to the file of --json."""
    import json

    json.dump(facts, file, indent=2)
    file.write("\n")
    file.flush()


def run_command(parsed: argparse.Namespace) -> int:
    """Run the command and return its exit status; see run_with()."""
    return run_with(options.make_config(parsed), parsed.command, parsed)


def run_with(config: ps.Config, command: Sequence[str], parsed: argparse.Namespace) -> int:
    """Run a command and return its exit status, or the one of the limit that ended it. parsed: what is to be told of it.

    Raises:
        SandboxError: the command was not run; --json has `error` and `error_type`.
    """
    with open_report(parsed.json, config) as report:
        try:
            result = ps.run(command, config=config)
        except ps.SandboxError as error:
            if report is not None:
                write_json(report, {"error": str(error), "error_type": type(error).__name__})
            raise
        if report is not None:
            write_json(report, result.to_dict())
    if not parsed.quiet and (parsed.verbose or result.reason is not ps.Reason.EXITED):
        from proc_sandbox.cli.verdict import print_verdict

        print_verdict(result, parsed.colour, always=parsed.verbose)
    if not parsed.quiet and result.output_truncated.stdout:
        print("proc-sandbox: stdout: what was printed last is missing: nobody took it for too long", file=sys.stderr)
    if parsed.stats:
        from proc_sandbox.cli.verdict import print_stats

        print_stats(result, config, parsed.colour)
    return status.exit_status(result)


def plan_command(parsed: argparse.Namespace) -> int:
    """Print what would be done for the command; nothing is run.

    Raises:
        SandboxError: the command could not be run either.
    """
    config = options.make_config(parsed)
    plan = ps.plan(parsed.command, config=config)
    by_hand = current(config.backend).by_hand(plan)
    if parsed.json:
        import json

        json.dump({**plan.to_dict(), "command_line": by_hand}, sys.stdout, indent=2)
        print()
    elif parsed.words:
        print(by_hand or "no program carries plans out on this system")
    else:
        print(plan.describe().rstrip("\n"))
        if by_hand:
            print(f"\nthe same by hand:\n{by_hand}")
    return 0


def trial(backend: Any = None) -> str | None:
    """Run true(1) under everything that this host offers; return what went wrong, if anything."""
    try:
        result = ps.run(TRUE, timeout=60, enforcement="best-effort", backend=backend)
    except ps.SandboxError as error:
        return str(error)
    return None if result.ok else result.error or f"true(1) ended with {result.returncode}"


def policy_failure(parsed: argparse.Namespace) -> str | None:
    """Return why the limits and grants that were given as options or by a policy cannot be enforced here; None where they can.

    Raises:
        ConfigError: a value is not valid.
    """
    try:
        ps.plan(TRUE, config=options.make_config(parsed))
    except ps.UnsupportedError as error:
        return str(error)
    return None


def doctor_command(parsed: argparse.Namespace) -> int:
    """Print what this host can enforce, prove with one run that it works, return the verdict.

    With limits given as options or by a policy the verdict is on these: 0 when all of them can be enforced here, else 1.
    """
    try:
        backend = getattr(parsed, "backend", None)
        capabilities = ps.capabilities(backend=backend)
    except ps.SandboxError as error:
        print(f"proc-sandbox: {error}", file=sys.stderr)
        return UNUSABLE
    missing = [name for name, how in capabilities.items() if isinstance(how, ps.Unenforced)]
    failure = trial(backend)
    asked = any(name in parsed for name in options.NAMES) or bool(parsed.policy or parsed.preset)
    refused = policy_failure(parsed) if asked else None
    if parsed.json:
        import json

        facts: dict[str, object] = {**capabilities.to_dict(), "trial": failure or "ok"}
        if asked:
            facts["policy"] = refused or "ok"
        json.dump(facts, sys.stdout, indent=2)
        print()
    else:
        print(capabilities.report().rstrip("\n"))
        print(f"\na confined run of true(1): {failure or 'ok'}")
        print(f"missing: {', '.join(missing) or 'nothing'}")
        if asked:
            print(f"what was asked for: {refused or 'can be enforced here'}")
    if failure is not None:
        return UNUSABLE
    return SOME_MISSING if (refused if asked else set(missing) - set(ON_DEMAND)) else ALL_ENFORCED
