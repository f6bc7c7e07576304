"""The files of `batch` without a run: what a job may be, what is told of one that is none, what has a result already."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

import proc_sandbox as ps
from proc_sandbox.cli.jobs import Done, Job, JobError, Results, make_job, read_jobs, survey

BASE = ps.Config(timeout=5)


def job(facts: object, base: ps.Config = BASE, number: int = 3) -> Job:
    return make_job(json.dumps(facts).encode(), number, "jobs:3", base)


def test_a_job_has_what_the_command_line_says_and_its_own() -> None:
    made = job(
        {
            "args": ["cat"],
            "input": "x",
            "memory_limit": "64M",
            "umask": "077",
            "stdout": "devnull",
            "enforcement": "best-effort:nice",
        }
    )
    assert (made.id, made.args, made.input) == (3, ["cat"], "x")
    assert (made.config.timeout, made.config.memory_limit, made.config.umask) == (5, 64 << 20, 0o077)
    assert made.config.stdout == ps.DEVNULL
    assert made.config.enforcement == ps.best_effort("nice")
    assert job({"id": "a", "args": ["cat"], "timeout": None}).config.timeout is None


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"args": ["true"], "timeout": "soon"}, "jobs:3:timeout: 'soon': not a duration"),
        ({"args": ["true"], "tmeout": 5}, "jobs:3:tmeout: 5: no such field; did you mean 'timeout'?"),
        ({"args": "true"}, "jobs:3:args: 'true': a list"),
        ({"args": []}, "jobs:3:args: []"),
        ({"args": ["a", 1]}, "jobs:3:args"),
        ({"args": ["a\0b"]}, "jobs:3:args"),
        ({"args": ["\ud800"]}, "jobs:3:args"),
        ({"args": ["a"], "input": 3}, "jobs:3:input"),
        ({"args": ["a"], "input": "\ud800"}, "jobs:3:input"),
        ({"args": ["a"], "input": "", "stdin": "/x"}, "jobs:3:input"),
        ({"args": ["a"], "stdin": "inherit"}, "jobs:3:stdin"),
        ({"args": ["a"], "stdout": 1}, "jobs:3:stdout: 1: must be a path"),
        ({"args": ["a"], "id": 1.5}, "jobs:3:id"),
        ({"args": ["a"], "id": True}, "jobs:3:id"),
        ([], "jobs:3: not a job: a JSON object is needed"),
    ],
)
def test_what_is_wrong_is_told_by_line_and_key(facts: object, told: str) -> None:
    with pytest.raises(JobError) as caught:
        job(facts)
    assert str(caught.value).startswith(told)


@pytest.mark.parametrize(
    "line",
    [b"{", b"\xff", b"[" * 100_000, b'{"args": ["a"], "args": ["b"]}', b'{"args": ["a"], "timeout": NaN}', b"1" * 5000],
)
def test_a_line_that_is_no_json_is_told(line: bytes) -> None:
    with pytest.raises(JobError):
        make_job(line, 1, "jobs:1", BASE)


def test_another_job_has_another_digest() -> None:
    facts: dict[str, Any] = {"id": 1, "args": ["a"], "input": "x"}
    same = job(facts)
    assert job({**facts, "id": 2}).digest == same.digest
    assert job({**facts, "id": 2}).key != same.key
    assert job({"input": "x", "args": ["a"], "id": 1, "timeout": "5s"}) == same
    others = [{"args": ["a", ""]}, {"input": "y"}, {"input": None}, {"timeout": 4}, {"env": {"A": "1"}}]
    assert len({same.digest, *(job({**facts, **change}).digest for change in others)}) == 6
    assert job(facts, BASE.replace(timeout=6)).digest != same.digest


def write(path: Path, *lines: object) -> str:
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return str(path)


def test_a_survey_counts_what_is_wrong_and_what_is_there_twice(tmp_path: Path) -> None:
    path = write(
        tmp_path / "jobs", {"args": ["a"], "id": 1}, "", "x", {"args": ["b"], "id": 1}, {"args": ["c"], "id": "1"}
    )
    found = survey(path, BASE, str(tmp_path / "out"))
    assert (found.jobs, found.wrong, len(found.twice)) == (4, 2, 1)
    assert found.errors[0].startswith(f"{path}:3: not a job")
    assert "the id 1 is there twice" in found.errors[1]


def test_many_errors_are_counted_and_few_are_kept(tmp_path: Path) -> None:
    found = survey(write(tmp_path / "jobs", *["x"] * 1000), BASE, "out")
    assert (found.wrong, len(found.errors)) == (1000, 20)


def test_jobs_are_read_one_by_one(tmp_path: Path) -> None:
    found = read_jobs(write(tmp_path / "jobs", {"args": ["a"]}, "x"), BASE, "out")
    assert isinstance(next(found), Job)
    assert isinstance(next(found), JobError)


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there")
@pytest.mark.parametrize("name", ["jobs", "results"])
def test_a_job_must_not_write_to_what_is_told_of_it(name: str, tmp_path: Path) -> None:
    for directory in ("jobs", "results"):
        (tmp_path / directory).mkdir()
    (tmp_path / "link").symlink_to(tmp_path / name)
    for field, value in (("working_dir", str(tmp_path / "link")), ("writable_dirs", [str(tmp_path)])):
        path = write(tmp_path / "jobs" / "jobs", {"args": ["a"], field: value})
        (found,) = read_jobs(path, BASE, str(tmp_path / "results" / "results"))
        assert f":1:{field}: " in str(found)
        assert "a job could write to" in str(found)


def test_only_files_are_read(tmp_path: Path) -> None:
    with pytest.raises(ps.ConfigError, match="JOBS"):
        survey(str(tmp_path), BASE, "out")
    with pytest.raises(ps.ConfigError, match="No such file"):
        survey(str(tmp_path / "missing"), BASE, "out")


def line(made: Job, **facts: object) -> dict[str, object]:
    return {"id": made.id, "job": made.digest, "ok": True, **facts}


def test_what_has_a_result_is_known(tmp_path: Path) -> None:
    fine, bad, refused, new = (job({"args": [word]}, number=number) for number, word in enumerate("abcd"))
    jobs = write(tmp_path / "jobs")
    out = write(tmp_path / "out", line(fine), line(bad, ok=False), line(refused, ok=False, error_type="LaunchError"))
    results = Results(out, jobs)
    results.close()
    assert [each in results.done for each in (fine, bad, refused, new)] == [True, True, False, False]
    assert [results.done.is_ok(each) for each in (fine, bad)] == [True, False]


def test_half_a_line_is_cut_off(tmp_path: Path) -> None:
    made = job({"args": ["a"]})
    out = Path(write(tmp_path / "out", line(made)))
    whole = out.read_bytes()
    out.write_bytes(whole + whole[:-1])
    results = Results(str(out), write(tmp_path / "jobs"))
    assert out.read_bytes() == whole
    results.add({"id": 2})
    results.close()
    assert out.read_bytes() == whole + b'{"id": 2}\n'


@pytest.mark.parametrize("text", ["no json\n", '{"id": 1}\n', "[]\n", '{"id": 1, "ok": true}\nx\n'])
def test_a_file_of_something_else_is_left_alone(text: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_text(text)
    with pytest.raises(ps.ConfigError, match="no result"):
        Results(str(out), write(tmp_path / "jobs"))
    assert out.read_text() == text


def test_results_go_to_a_file_of_their_own(tmp_path: Path) -> None:
    jobs = write(tmp_path / "jobs")
    with pytest.raises(ps.ConfigError, match="file of jobs"):
        Results(jobs, jobs)
    with pytest.raises(ps.ConfigError, match="--out"):
        Results(str(tmp_path), jobs)
    first = Results(str(tmp_path / "out"), jobs)
    first.close()
    Results(str(tmp_path / "out"), jobs).close()


@pytest.mark.skipif(sys.platform == "win32", reason="flock(2)")
def test_two_batches_do_not_write_to_one_file(tmp_path: Path) -> None:
    jobs = write(tmp_path / "jobs")
    first = Results(str(tmp_path / "out"), jobs)
    with pytest.raises(ps.ConfigError, match="another batch"):
        Results(str(tmp_path / "out"), jobs)
    first.close()
    Results(str(tmp_path / "out"), jobs).close()


def test_nothing_is_done_at_first() -> None:
    done = Done()
    done.close()
    assert job({"args": ["a"]}) not in done
