"""The command line as a person has it: a directory with the files of the examples, and `proc-sandbox` on PATH."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

__all__ = ["GUARD", "KILLED", "cli", "furnish", "home_of", "shell"]

GUARD = 120
"""Seconds: only against hanging."""
KILLED = "4242"
"""The id of a run in examples: there is one in its place when they are run."""
POLICY = """\
[policies.strict]
description = "Five seconds and 64 MiB"
timeout = "5s"
memory_limit = "64M"
"""


def cli(*words: str, stdin: bytes = b"", cwd: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    """Run `python -m proc_sandbox` and return what came of it."""
    return subprocess.run(
        [sys.executable, "-m", "proc_sandbox", *words],
        input=stdin,
        capture_output=True,
        timeout=GUARD,
        check=False,
        cwd=cwd,
    )


def furnish(directory: Path) -> None:
    """Put there what the examples use."""
    (directory / "script.py").write_text("import os\nprint('level', os.environ.get('LEVEL'))\n")
    (directory / "sandbox.toml").write_text(POLICY)
    jobs = [{"args": ["python3", "-c", f"print({number} ** 2)"]} for number in range(4)]
    (directory / "jobs.jsonl").write_text("".join(json.dumps(job) + "\n" for job in jobs))
    for name in ("data", "out"):
        (directory / name).mkdir()
    (directory / "data" / "one").write_text("1\n")


def home_of(directory: Path) -> dict[str, str]:
    """The environment of a person in that directory."""
    program = directory / "bin" / "proc-sandbox"
    if not program.exists():
        program.parent.mkdir(exist_ok=True)
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m proc_sandbox "$@"\n')
        program.chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}",
        "XDG_CONFIG_HOME": str(directory),
    }


def shell(line: str, directory: Path) -> subprocess.CompletedProcess[bytes]:
    """Do what a person types in that directory."""
    environment = home_of(directory)
    return subprocess.run(
        ["sh", "-ec", line],
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=GUARD,
        check=False,
    )
