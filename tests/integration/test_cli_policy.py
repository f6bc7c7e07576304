"""Policies on the command line: named, won over by options, shown, checked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.cli import cli, furnish


def test_a_policy_is_taken_and_options_win_over_it(tmp_path: Path) -> None:
    furnish(tmp_path)
    done = cli("run", "--policy", "sandbox.toml:strict", "--json", "r.json", "-t", "300ms", "--", "sleep", "60", cwd=tmp_path)
    assert done.returncode == 124
    assert b"limit of 0.3 s exceeded" in done.stderr
    assert "memory_limit" in json.loads((tmp_path / "r.json").read_text())["enforcement"], "which is the policy's"
    plan = json.loads(cli("plan", "--json", "--policy", "sandbox.toml", "--", "true", cwd=tmp_path).stdout)
    assert plan["timeout"] == 5_000_000_000


def test_variables_and_directories_add_to_a_policy(tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text('[policies.p]\nenv = { A = "1", B = "2" }\nread_only_dirs = ["one"]\n')
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    line = f'echo $A $B $C; ls {tmp_path}/one {tmp_path}/two | grep -c file'
    done = cli("run", "--policy", "p.toml", "-e", "B=3", "-e", "C=4", "--ro", "two", "--", "sh", "-c", line, cwd=tmp_path)
    assert done.stdout == b"1 3 4\n2\n", done.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--policy", "sandbox.toml:strikt"], "did you mean 'strict'?"),
        (["--policy", "missing.toml"], "missing.toml"),
        (["--policy", "no-such-policy"], "no-such-policy"),
        (["--preset", "sandbox.toml"], "preset: 'sandbox.toml'"),
        (["--policy", "sandbox.toml", "-m", "nothing"], "proc-sandbox: memory_limit: 'nothing'"),
    ],
)
@pytest.mark.parametrize("action", [["run"], ["plan"]])
def test_what_is_wrong_is_told_and_nothing_runs(action: list[str], words: list[str], told: str, tmp_path: Path) -> None:
    furnish(tmp_path)
    done = cli(*action, *words, "--", "touch", "made", cwd=tmp_path)
    assert done.returncode == 125
    assert told in done.stderr.decode()
    assert b"Traceback" not in done.stderr


def test_doctor_tells_whether_a_policy_can_be_enforced(tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text('[policies.fine]\ntimeout = 5\n[policies.wrong]\nread_only_dirs = ["missing"]\n')
    fine = cli("doctor", "--json", "--policy", "p.toml:fine", cwd=tmp_path)
    assert (fine.returncode, json.loads(fine.stdout)["policy"]) == (0, "ok")
    assert cli("doctor", "--policy", "p.toml:wrong", cwd=tmp_path).returncode == 125


def test_batch_takes_a_policy(tmp_path: Path) -> None:
    furnish(tmp_path)
    (tmp_path / "jobs").write_text('{"args": ["sleep", "60"], "timeout": "200ms"}\n{"args": ["true"]}\n')
    done = cli("batch", "jobs", "-o", "out.jsonl", "--policy", "sandbox.toml:strict", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert {facts["reason"] for facts in found} == {"timeout", "exited"}
    assert all("memory_limit" in facts["enforcement"] for facts in found)


def test_show_prints_what_a_policy_comes_to(tmp_path: Path) -> None:
    furnish(tmp_path)
    done = cli("policy", "show", "sandbox.toml:strict", cwd=tmp_path)
    assert done.returncode == 0
    assert b'timeout = "5 s"  # sandbox.toml:3' in done.stdout
    assert cli("policy", "show", "sandbox.toml:x", cwd=tmp_path).returncode == 125


def test_check_tells_file_line_and_key(tmp_path: Path) -> None:
    furnish(tmp_path)
    assert cli("policy", "check", "sandbox.toml", cwd=tmp_path).returncode == 0
    (tmp_path / "wrong.toml").write_text('[policies.p]\ntimeout = 5\nmemry_limit = "64M"\nnice = "\\u001b[2J"\n')
    done = cli("policy", "check", "sandbox.toml", "wrong.toml", cwd=tmp_path)
    assert done.returncode == 1
    first, second = done.stderr.decode().splitlines()
    assert first.startswith("wrong.toml:3: memry_limit: ")
    assert second.startswith("wrong.toml:4: nice: ")
    assert "\033" not in done.stderr.decode()


def test_list_and_schema() -> None:
    names = cli("policy", "list", "--names").stdout.decode().split()
    table = cli("policy", "list").stdout.decode()
    assert all(name in table for name in names)
    assert json.loads(cli("policy", "schema").stdout)["properties"]


def test_an_error_does_nothing_to_the_terminal(tmp_path: Path) -> None:
    """Its file may be somebody else's."""
    (tmp_path / "p.toml").write_text('[policies.p]\n"\\u001b[2J\\u202e" = 1\n')
    done = cli("run", "--policy", "p.toml", "--", "true", cwd=tmp_path)
    assert done.returncode == 125
    assert b"\\x1b[2J" in done.stderr
    assert done.stderr.decode().rstrip("\n").isprintable()
