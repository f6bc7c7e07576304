"""`proc-sandbox batch` for real: results as they come, interruptions, going on, and jobs that would forge results."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.cli import GUARD, cli
from support.processes import until_false

import proc_sandbox as ps


def write(path: Path, *jobs: dict[str, object]) -> str:
    path.write_text("".join(json.dumps(job) + "\n" for job in jobs))
    return str(path)


def results_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def sh(code: str, **facts: object) -> dict[str, object]:
    return {"args": ["sh", "-c", code], **facts}


def test_every_job_has_a_line(tmp_path: Path) -> None:
    out = tmp_path / "out"
    jobs = [
        sh("cat; exit 3", id="own", input="given"),
        sh("sleep 60", timeout="200ms"),
        {"args": ["no-such-command"]},
        sh("true"),
    ]
    done = cli("batch", write(tmp_path / "jobs", *jobs), "-o", str(out), "-w", "2", "-t", "60")
    assert done.returncode == 1
    assert done.stderr.decode() == "proc-sandbox: 4 of 4 jobs done: 1 ok, 3 not\n"
    found = {facts["id"]: facts for facts in results_of(out)}
    assert set(found) == {"own", 2, 3, 4}
    assert (found["own"]["exit_code"], found["own"]["stdout"], found["own"]["ok"]) == (3, "given", False)
    assert found[2]["reason"] == "timeout"
    assert found[3]["error_type"] == "CommandNotFoundError"
    assert found[4]["ok"] is True
    assert len(found[4]["job"]) == 16


def test_all_ok_is_0_and_quiet_says_nothing(tmp_path: Path) -> None:
    done = cli("batch", write(tmp_path / "jobs", sh("true"), sh("true")), "-o", str(tmp_path / "out"), "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_each_job_has_a_private_directory_of_its_own(tmp_path: Path) -> None:
    job = sh("ls -A; ls -A /tmp | wc -l; touch left /tmp/left")
    assert cli("batch", write(tmp_path / "jobs", *[job] * 6), "-o", str(tmp_path / "out"), "-w", "2").returncode == 0
    assert len({facts["stdout"] for facts in results_of(tmp_path / "out")}) == 1
    assert "left" not in results_of(tmp_path / "out")[0]["stdout"]


def test_nothing_runs_when_a_line_is_not_valid(tmp_path: Path) -> None:
    jobs, out = write(tmp_path / "jobs", sh("true"), sh("true", timeout="soon"), sh("true", tmeout=5)), tmp_path / "out"
    done = cli("batch", jobs, "-o", str(out))
    assert done.returncode == 125
    first, second, last = done.stderr.decode().splitlines()
    assert first.startswith(f"proc-sandbox: {jobs}:2:timeout: 'soon': not a duration")
    assert second.startswith(f"proc-sandbox: {jobs}:3:tmeout: 5: no such field")
    assert "nothing was run" in last
    assert not out.exists()
    assert cli("batch", jobs, "-o", str(out), "--keep-going").returncode == 1
    assert [facts["ok"] for facts in sorted(results_of(out), key=lambda facts: int(facts["id"]))] == [
        True,
        False,
        False,
    ]


@pytest.mark.parametrize(
    "words", [["-w", "0"], ["-w", "x"], ["-m", "nothing"], ["--stdin", "inherit"], ["--rw", "/no/such/directory"]]
)
def test_bad_usage_is_125(words: list[str], tmp_path: Path) -> None:
    done = cli("batch", write(tmp_path / "jobs", sh("true")), "-o", str(tmp_path / "out"), *words)
    assert done.returncode == 125, done.stderr
    assert done.stderr.count(b"\n") == 1
    assert not (tmp_path / "out").exists()


def test_the_same_command_goes_on(tmp_path: Path) -> None:
    """What has a result is not done again; what could not be run, what has changed and half a line are."""
    out, marks = tmp_path / "out", tmp_path / "marks"
    marks.mkdir()
    common: dict[str, object] = {"writable_dirs": [str(marks)]}

    def marked(name: str, code: str = "true") -> dict[str, object]:
        return sh(f"echo >> {marks}/{name}; {code}", id=name, **common)

    def count(name: str) -> int:
        return len((marks / name).read_text()) if (marks / name).exists() else 0

    jobs = [marked("fine"), marked("bad", "exit 1"), marked("late"), {"id": "missing", "args": ["no-such-command"]}]
    path = write(tmp_path / "jobs", *jobs)
    assert cli("batch", path, "-o", str(out), "-w", "1").returncode == 1
    lines = out.read_bytes().splitlines(keepends=True)
    assert len(lines) == 4
    out.write_bytes(b"".join(lines[:2]) + lines[2][:-30])
    again = cli("batch", path, "-o", str(out))
    assert again.returncode == 1, "one that is known to be bad is bad still"
    assert again.stderr.decode() == "proc-sandbox: 4 of 4 jobs done: 2 ok, 2 not (2 of them before)\n"
    assert [count(name) for name in ("fine", "bad", "late")] == [1, 1, 2]
    assert sorted(facts["id"] for facts in results_of(out)) == ["bad", "fine", "late", "missing"]
    jobs[1] = marked("bad")
    jobs[3] = sh("true", id="missing")
    assert cli("batch", write(tmp_path / "jobs", *jobs), "-o", str(out)).returncode == 0
    assert [count(name) for name in ("fine", "bad", "late")] == [1, 2, 2]
    assert cli("batch", path, "-o", str(out), "-t", "99", "-w", "1").returncode == 0
    assert count("fine") == 2, "with another limit it is another job"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_what_runs_and_keeps_what_is_written(number: int, tmp_path: Path) -> None:
    out, gate = tmp_path / "out", tmp_path / "gate"
    gate.mkdir()
    # While the gate is closed all but every fifth wait, the workers are soon full of such, and for the end of those nobody waits.
    jobs = [
        sh(f"[ -e {gate}/open ] || [ {n % 5} = 0 ] || sleep 1000", id=n, allowed_dirs=[str(gate)]) for n in range(40)
    ]
    words = ["batch", write(tmp_path / "jobs", *jobs), "-o", str(out), "-w", "4"]
    with subprocess.Popen([sys.executable, "-m", "proc_sandbox", *words], stderr=subprocess.PIPE) as process:
        assert not until_false(lambda: not out.exists() or out.read_bytes().count(b"\n") < 1)
        process.send_signal(number)
        _, told = process.communicate(timeout=GUARD)
    assert process.returncode == 128 + number
    assert b"the same command goes on" in told
    before = results_of(out)
    assert 1 <= len(before) < 40
    assert {facts["reason"] for facts in before} == {"exited"}
    (gate / "open").touch()
    assert cli(*words).returncode == 0
    found = results_of(out)
    assert found[: len(before)] == before
    assert sorted(facts["id"] for facts in found) == list(range(40))


def test_few_jobs_are_read_ahead(tmp_path: Path) -> None:
    """The file of results grows while the file of jobs is read: a million lines are never all there."""
    jobs, out = tmp_path / "jobs", tmp_path / "out"
    code = """
import resource, sys
from proc_sandbox.cli import batch, main
most = 0
class Counting(batch.Batch):
    def execute(self, job):
        global most
        most = max(most, self.read - self.ok - self.bad)
        return super().execute(job)
    read = 0
    def to_be_done(self, jobs):
        for job in super().to_be_done(jobs):
            self.read += 1
            yield job
batch.Batch = Counting
assert main(["batch", sys.argv[1], "-o", sys.argv[2], "-w", "3", "-q"]) == 0
print(most)
"""
    write(jobs, *[sh("true")] * 60)
    done = subprocess.run(
        [sys.executable, "-c", code, str(jobs), str(out)], capture_output=True, timeout=GUARD, check=True
    )
    assert 1 <= int(done.stdout) <= 7
    assert len(results_of(out)) == 60


FORGED = '{"id": 2, "job": "0000000000000000", "ok": true}'


@pytest.mark.usefixtures("idmap")
def test_a_job_cannot_forge_results_or_jobs(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.touch()
    attack = sh(f"echo '{FORGED}' >> {out}", writable_dirs=[str(tmp_path)])
    args = [str(word) for word in attack["args"]]  # type: ignore[attr-defined]
    assert ps.run(args, writable_dirs=[tmp_path]).ok
    assert json.loads(out.read_text())["ok"] is True, "which is the control: the attack works"
    out.write_text("")
    done = cli("batch", write(tmp_path / "jobs", attack), "-o", str(out))
    assert done.returncode == 125
    assert b"a job could write to" in done.stderr
    assert out.read_text() == ""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = cli("batch", write(tmp_path / "jobs", sh("true")), "-o", str(elsewhere / "out"), "-C", str(tmp_path))
    assert done.returncode == 125
    assert done.stderr.count(b"\n") == 1


def test_progress_is_for_terminals(tmp_path: Path) -> None:
    import pty

    ours, theirs = pty.openpty()
    words = [
        sys.executable,
        "-m",
        "proc_sandbox",
        "batch",
        write(tmp_path / "jobs", sh("true")),
        "-o",
        str(tmp_path / "out"),
    ]
    with subprocess.Popen(
        words, stderr=theirs, stdin=subprocess.DEVNULL, env={**os.environ, "TERM": "xterm"}
    ) as process:
        os.close(theirs)
        printed = b""
        while True:
            try:
                chunk = os.read(ours, 65536)
            except OSError:  # EIO: nobody has it open any more
                break
            printed += chunk
    os.close(ours)
    assert process.returncode == 0
    assert b"1/1" in printed
    assert b"1 of 1 jobs done: 1 ok" in printed


def test_a_job_whose_stream_is_no_file_is_one_that_is_not_ok(tmp_path: Path) -> None:
    """It does not end the batch."""
    out = tmp_path / "out"
    jobs = [{"args": ["true"], "stdin": "\ud800"}, {"args": ["true"]}]
    done = cli("batch", write(tmp_path / "jobs", *jobs), "-o", str(out))
    assert b"Traceback" not in done.stderr
    assert sorted((facts["ok"], facts.get("error_type")) for facts in results_of(out)) == [(False, "ConfigError"), (True, None)]


@pytest.mark.parametrize("name", ["out", "jobs", "another name of out"])
def test_a_job_does_not_write_its_output_to_the_results(tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    out.touch()
    (tmp_path / "another name of out").hardlink_to(out)
    forged = json.dumps({"id": 2, "job": "0" * 16, "ok": True})
    done = cli("batch", write(tmp_path / "jobs", {"args": ["echo", forged], "stdout": str(tmp_path / name)}), "-o", str(out))
    assert done.returncode == 125
    assert b"jobs and results lie there" in done.stderr
    assert out.read_bytes() == b""


def test_what_is_wrong_with_a_job_does_nothing_to_the_terminal(tmp_path: Path) -> None:
    done = cli("batch", write(tmp_path / "jobs", {"args": ["true"], "\x1b[2J\u202e": 1}), "-o", str(tmp_path / "out"))
    assert b"\\x1b[2J" in done.stderr
    assert b"\x1b" not in done.stderr
