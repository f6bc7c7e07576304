"""Small commands for the tests; how they are run outside, where they must do their worst, and inside.

An attack prints TRIED, then ESCAPED or "REFUSED ERRNO". `assert_escapes` is the control: the same act without the
sandbox. `assert_refused` is the promise.
"""

from __future__ import annotations

import errno
import functools
import os
import re
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import proc_sandbox as ps

HANG = 120.0
"""Seconds after which a test counts as hung; nothing is ever expected to take as long."""

MEGABYTE = 1 << 20
ATTACKS = Path(__file__).with_name("attacks")
ROOT = hasattr(os, "geteuid") and os.geteuid() == 0

INVISIBLE = frozenset({errno.ENOENT, errno.EACCES, errno.ENOTDIR})
"""How the kernel refuses what is not in the view at all."""

READ_ONLY = frozenset({errno.EROFS, errno.EACCES, errno.EPERM, errno.EXDEV, errno.EBUSY})
"""How it refuses to change what is there to be read."""

FORBIDDEN = frozenset({errno.EPERM, errno.ENOSYS})
"""How the system call filter refuses: denied, or as if it were newer than the kernel."""


def python(code: str, *arguments: str) -> list[str]:
    """A command that runs the code with the interpreter of the tests, and nothing but its standard library."""
    return [sys.executable, "-I", "-S", "-c", code, *arguments]


@functools.cache
def source(name: str) -> str:
    """The text of an attack written in Python."""
    return (ATTACKS / name).read_text(encoding="utf-8")


def act(name: str, *arguments: object) -> list[str]:
    """A command that does one act of attacks/acts.py."""
    return python(source("acts.py"), name, *(str(argument) for argument in arguments))


def outside(args: Sequence[str | os.PathLike[str]], **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run without the sandbox; for what the test has bounded itself."""
    options.setdefault("capture_output", True)
    return subprocess.run(args, timeout=HANG, check=False, **options)


def inside(args: Sequence[str | os.PathLike[str]], **config: Any) -> ps.Result:
    """Run in the sandbox; a run that reaches the guard against hanging fails the test."""
    guarded = "timeout" not in config
    config.setdefault("timeout", HANG)
    result = ps.run(args, **config)
    assert not (guarded and result.timed_out), f"hung: {result}"
    return result


LAUNCHER = Path(__file__).resolve().parents[2] / "launcher"


def compile_launcher(target: Path, *flags: str | Path) -> Path:
    """A launcher that is compiled otherwise than the package's."""
    sources = [*LAUNCHER.glob("*.c"), *LAUNCHER.glob("linux/*.c")]
    command = ["gcc", "-std=gnu17", f'-DVERSION="{ps.__version__}"', *flags, *sources, "-o", target, "-lpthread"]
    subprocess.run(command, check=True, timeout=HANG, capture_output=True)
    return target


def carry_out(plan: ps.Plan, **changes: Any) -> subprocess.CompletedProcess[bytes]:
    """Let the launcher carry out a plan by hand, with these changes."""
    from proc_sandbox.launcher.process import launcher_path

    return outside([launcher_path(), "run", *replace(plan, prefix=b"", **changes).words()])


def sampled(args: Sequence[str | os.PathLike[str]], memory: int, /, changes: Mapping[str, Any] | None = None, **config: Any) -> str:
    """Run under a memory limit that is sampled, whatever better this host has; return all that it and the launcher said."""
    from proc_sandbox.planner.unix.plan import Sampling

    watch = Sampling(10_000_000, memory=memory)
    completed = carry_out(ps.plan(args, **config), **{"cgroup": None, "sampling": watch, **(changes or {})})
    return (completed.stdout + completed.stderr).decode()


def text(result: ps.Result | subprocess.CompletedProcess[bytes]) -> str:
    """Standard output as text with plain ends of lines, whoever ran the command."""
    return bytes(result.stdout).decode("utf-8", "replace").replace("\r\n", "\n")


def refusal(output: str) -> int | None:
    """The errno that an attack met, None when it met none."""
    found = re.search(r"^REFUSED (\d+)$", output, re.MULTILINE)
    return int(found[1]) if found else None


def assert_escapes(args: Sequence[str | os.PathLike[str]], **options: Any) -> None:
    """The control: outside, the act succeeds."""
    completed = outside(args, **options)
    lines = text(completed).split("\n")
    assert "TRIED" in lines, completed
    assert "ESCAPED" in lines, f"the control did not work: {completed}"


def assert_refused(result: ps.Result, errors: Collection[int]) -> None:
    """The promise: it was tried, and refused by one of these errors."""
    output = text(result)
    lines = output.split("\n")
    assert "TRIED" in lines, f"the attack did not even start: {result}"
    assert "ESCAPED" not in lines, f"escaped: {result}"
    met = refusal(output)
    names = sorted(errno.errorcode[error] for error in errors)
    assert met in errors, f"refused by {errno.errorcode.get(met or 0, met)}, expected one of {names}: {result}"


def mechanism(result: ps.Result, field: str) -> str:
    """The mechanism that enforced a field, in lower case; empty when nothing did."""
    entry = result.enforcement[field]
    return entry.mechanism.lower() if isinstance(entry, ps.Enforced) else ""


def by_cgroup(result: ps.Result, field: str) -> bool:
    """Whether a cgroup judged it, so that the figures are the kernel's."""
    return "cgroup" in mechanism(result, field)


def library_path() -> str:
    """Where the package under test is imported from, for callers that a test starts as processes of their own."""
    return str(Path(ps.__file__).resolve().parents[1])
