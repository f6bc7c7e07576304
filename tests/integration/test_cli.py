"""The command line for real: streams, exit statuses, --json, plan, doctor."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from support.cli import GUARD, cli

if TYPE_CHECKING:
    from pathlib import Path

def read_json(path: Path) -> dict[str, Any]:
    """Return the object that --json wrote."""
    facts: dict[str, Any] = json.loads(path.read_text())
    return facts


def test_streams_pass_through() -> None:
    done = cli("run", "--", "sh", "-c", "cat; echo problem >&2", stdin=b"some input\n")
    assert done.stdout == b"some input\n"
    assert done.stderr == b"problem\n"
    assert done.returncode == 0


@pytest.mark.parametrize("code", [0, 1, 122, 124, 137, 255])
def test_the_commands_own_exit_status(code: int, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    done = cli("run", "--json", str(file), "--", "sh", "-c", f"exit {code}")
    assert done.returncode == code
    facts = read_json(file)
    assert facts["reason"] == "exited"
    assert facts["exit_code"] == code
    assert done.stderr == b""


def test_a_signal_is_128_and_its_number(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    done = cli("run", "--json", str(file), "--", "sh", "-c", "kill -KILL $$")
    assert done.returncode == 128 + 9
    assert read_json(file)["reason"] == "signaled"


def test_timeout_is_124(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    done = cli("run", "-t", "300ms", "--json", str(file), "--", "sleep", "60")
    assert done.returncode == 124
    assert done.stderr.startswith(b"proc-sandbox: timed out: wall time limit of 0.3 s exceeded (ran ")
    assert done.stderr.count(b"\n") == 1
    facts = read_json(file)
    assert facts["reason"] == "timeout"
    assert facts["timed_out"] is True


def test_how_it_ended_is_told_as_is_asked_for() -> None:
    late = ["-t", "300ms", "--", "sleep", "60"]
    quiet = cli("run", "--quiet", *late)
    assert (quiet.returncode, quiet.stderr) == (124, b"")
    assert cli("run", "--colour", "always", *late).stderr.startswith(b"proc-sandbox: \033[33mtimed out")
    assert cli("run", "-v", "--", "sh", "-c", "exit 3").stderr.startswith(b"proc-sandbox: exited with 3 (ran ")
    crash = cli("run", "--", "sh", "-c", "kill -SEGV $$")
    assert crash.returncode == 128 + 11
    assert crash.stderr.startswith(b"proc-sandbox: killed by SIGSEGV, sent from inside (ran ")
    assert cli("run", "--", "sh", "-c", "kill -PIPE $$").stderr == b""


def test_stats_are_a_table_on_stderr() -> None:
    done = cli("run", "--stats", "-t", "60", "--", "echo", "hello")
    assert done.stdout == b"hello\n"
    rows = {line.split()[0]: line for line in done.stderr.decode().splitlines()[1:]}
    assert "60 s" in rows["timeout"]
    assert {"files", "network_access", "max_output"} <= set(rows)


def test_cpu_time_is_123() -> None:
    done = cli("run", "-t", "30", "--cpu-time-limit", "1", "--", "sh", "-c", "while :; do :; done")
    assert done.returncode == 123


def test_memory_is_122(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    code = "data = bytearray(200 << 20)"
    done = cli("run", "-t", "60", "-m", "50M", "--json", str(file), "--", sys.executable, "-c", code)
    assert done.returncode == 122, done.stderr
    assert read_json(file)["memory_exceeded"] is True


def test_not_found_is_127(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    done = cli("run", "--json", str(file), "--", "no-such-command")
    assert done.returncode == 127
    assert b"no-such-command" in done.stderr
    assert b"Traceback" not in done.stderr
    assert read_json(file)["error_type"] == "CommandNotFoundError"


def test_not_executable_is_126(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o644)
    done = cli("run", "-C", str(tmp_path), "--", "./script")
    assert done.returncode == 126, done.stderr
    assert b"Traceback" not in done.stderr


def test_our_failure_is_125(tmp_path: Path) -> None:
    done = cli("run", "-C", str(tmp_path / "missing"), "--", "true")
    assert done.returncode == 125
    assert b"missing" in done.stderr
    assert b"Traceback" not in done.stderr


def test_output_to_a_file_and_into_the_json(tmp_path: Path) -> None:
    file, out = tmp_path / "result.json", tmp_path / "out"
    words = ["--stdout", str(out), "--stderr", "capture", "--json", str(file)]
    done = cli("run", *words, "--", "sh", "-c", "echo one; echo two >&2")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert out.read_bytes() == b"one\n"
    assert read_json(file)["stderr"] == "two\n"


def test_json_to_stdout() -> None:
    done = cli("run", "--json", "-", "--stdout", "capture", "--", "echo", "hello")
    assert json.loads(done.stdout)["stdout"] == "hello\n"


def test_limits_reach_the_command() -> None:
    done = cli(
        "run", "-e", "GREETING=hello", "--umask", "077", "--max-open-files", "99", "--hostname", "box",
        "--", "sh", "-c", "echo $GREETING; umask; ulimit -n; uname -n",
    )  # fmt: skip
    assert done.stdout.split() == [b"hello", b"0077", b"99", b"box"]


@pytest.mark.usefixtures("idmap")
def test_plan_runs_nothing(tmp_path: Path) -> None:
    command = ["-C", str(tmp_path), "-m", "64M", "--", "touch", "made"]
    text = cli("plan", *command).stdout.decode()
    facts = json.loads(cli("plan", "--json", *command).stdout)
    words = cli("plan", "--words", *command).stdout.decode()
    for line in (text.partition("by hand:\n")[2], facts["command_line"], words):
        launcher, verb, *rest = shlex.split(line)
        assert launcher.endswith("_bin/launcher")
        assert verb == "run"
        assert rest[-2:] == ["touch", "made"]
    assert facts["command"] == ["touch", "made"]
    assert "executable   /usr/bin/touch" in text
    assert not list(tmp_path.iterdir())


def test_the_printed_command_line_repeats_the_run() -> None:
    words = cli("plan", "--words", "--", "sh", "-c", "echo by hand; id -u; exit 7").stdout.decode()
    assert shlex.split(words)
    done = subprocess.run(["sh", "-c", words], capture_output=True, timeout=GUARD, check=False)
    assert done.stdout == b"by hand\n1000\n", done.stderr
    assert done.returncode == 7


def test_plan_into_a_closed_pipe_is_quiet() -> None:
    command = f"{shlex.quote(sys.executable)} -m proc_sandbox plan -- true | true"
    done = subprocess.run(["sh", "-c", command], capture_output=True, timeout=GUARD, check=False)
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr


def test_doctor() -> None:
    text = cli("doctor")
    assert text.returncode in {0, 1}, text.stdout + text.stderr
    assert b"a confined run of true(1): ok" in text.stdout
    facts = cli("doctor", "--json")
    assert facts.returncode == text.returncode
    assert json.loads(facts.stdout)["trial"] == "ok"


def test_best_effort_warns_in_one_line(tmp_path: Path) -> None:
    """Whatever is unenforced here is told; nothing of Python's own warning format is."""
    file = tmp_path / "result.json"
    words = ["--enforcement", "best-effort", "-m", "64M", "--cpu", "50", "--pids", "20"]
    done = cli("run", *words, "--json", str(file), "--", "true")
    assert done.returncode == 0, done.stderr
    unenforced = [n for n, how in read_json(file)["enforcement"].items() if "reason" in how]
    lines = done.stderr.decode().splitlines()
    assert len(lines) >= bool(unenforced)
    assert all(line.startswith("proc-sandbox: warning: ") for line in lines)


def test_doctor_tells_whether_a_policy_can_be_enforced(tmp_path: Path) -> None:
    fine = cli("doctor", "--json", "-t", "5", "--pids", "10")
    assert fine.returncode == 0, fine
    assert json.loads(fine.stdout)["policy"] == "ok"
    assert json.loads(fine.stdout)["timeout"]["strength"] == "kernel"
    wrong = cli("doctor", "-m", "nothing")
    assert wrong.returncode == 125, wrong
    assert b"memory_limit" in wrong.stderr
    missing = cli("doctor", "--rw", str(tmp_path / "missing"))
    assert missing.returncode == 125


def test_a_run_imports_nothing_that_it_does_not_need() -> None:
    """What it costs to start is measured by bench; this is why it stays so."""
    code = "import sys; from proc_sandbox.cli import main; assert main(['run', '--', 'true']) == 0; print(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=GUARD, check=True)
    loaded = set(done.stdout.decode().split())
    assert {"proc_sandbox.cli.parser", "proc_sandbox.cli.commands"} <= loaded, "which is the control"
    heavy = {"rich", "shtab", "platformdirs", "json", "concurrent.futures", "proc_sandbox.policies"}
    own = {f"proc_sandbox.cli.{name}" for name in ("batch", "jobs", "live", "policy", "printing", "verdict", "examples", "completion")}
    assert not loaded & (heavy | own)
