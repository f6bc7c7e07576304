"""Completion in real shells, as far as they are installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from support.cli import GUARD, cli

BASH = """
source "$1"
shift
COMP_WORDS=("$@") COMP_CWORD=$(( $# - 1 )) COMPREPLY=()
completer=$(complete -p proc-sandbox | sed 's/.*-F \\([^ ]*\\) .*/\\1/')
$completer 2>/dev/null
printf '%s\\n' "${COMPREPLY[@]}"
"""
CASES = [
    ((), {"run", "shell", "plan", "doctor", "batch", "ps", "kill", "policy", "completion"}),
    (("run", "--mem"), {"--memory-limit"}),
    (("run", "--net"), {"--net", "--network-access"}),
    (("run", "--net", ""), {"no", "yes", "loopback"}),
    (("policy", ""), {"show", "check", "list", "schema"}),
    (("run", "-t", "5", "--", "chmo"), {"chmod"}),
    (("batch", "jobs.j"), {"jobs.jsonl"}),
]


def script(shell: str, directory: Path) -> str:
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    done = cli("completion", shell)
    assert done.returncode == 0, done.stderr
    (directory / "script").write_bytes(done.stdout)
    (directory / "jobs.jsonl").touch()
    return str(directory / "script")


@pytest.mark.parametrize(("words", "expected"), CASES)
def test_bash(words: tuple[str, ...], expected: set[str], tmp_path: Path) -> None:
    command = ["bash", "-c", BASH, "bash", script("bash", tmp_path), "proc-sandbox", *(words or ("",))]
    done = subprocess.run(command, capture_output=True, timeout=GUARD, check=True, cwd=tmp_path)
    assert expected <= set(done.stdout.decode().split()), done


@pytest.mark.parametrize(("words", "expected"), CASES)
def test_fish(words: tuple[str, ...], expected: set[str], tmp_path: Path) -> None:
    line = "proc-sandbox " + " ".join(words)
    command = ["fish", "--no-config", "-c", f"source {script('fish', tmp_path)}; complete -C {line!r}"]
    done = subprocess.run(
        command,
        capture_output=True,
        timeout=GUARD,
        check=True,
        cwd=tmp_path,
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
    )
    assert expected <= {found.partition("\t")[0] for found in done.stdout.decode().splitlines()}, done


def test_zsh_reads_it(tmp_path: Path) -> None:
    subprocess.run(["zsh", "-f", "-n", script("zsh", tmp_path)], capture_output=True, timeout=GUARD, check=True)


def test_another_shell_is_wrong_usage() -> None:
    assert cli("completion", "csh").returncode == 125
