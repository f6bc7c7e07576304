"""Job: everything in it is looked at when it is made."""

from __future__ import annotations

import copy
import pickle
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import proc_sandbox as ps

SOME: dict[str, Any] = {
    "timeout": "500ms",
    "memory_limit": "64M",
    "cpu_limit": "50%",
    "cpu_time_limit": 2,
    "max_processes": 10,
    "read_bps": "1M",
    "write_bps": "1M",
    "max_output": "1K",
    "max_file_size": "1M",
    "max_open_files": 64,
    "tmp_size": "1M",
    "working_dir": "work",
    "allowed_dirs": ["data"],
    "read_only_dirs": ["input"],
    "writable_dirs": ["out"],
    "hidden_paths": ["data/secret"],
    "env": {"A": "1"},
    "pass_env": ["TZ"],
    "stdin": b"x",
    "stdout": ps.DEVNULL,
    "stderr": ps.STDOUT,
    "pty": False,
    "network_access": "loopback",
    "pass_fds": [3],
    "hostname": "box",
    "umask": 0o77,
    "nice": 1,
    "core_dumps": True,
    "kill_grace": "1s",
    "prepared": 2,
    "enforcement": ps.best_effort("cpu_limit"),
    "backend": "posix",
}


@pytest.mark.parametrize(
    ("field", "args", "options"),
    [
        ("args", "ls -l", {}),
        ("args", [], {}),
        ("args", ["ls", "\0"], {}),
        ("timout", ["true"], {"timout": 5}),
        ("timeout", ["true"], {"timeout": -1}),
        ("stderr", ["true"], {"stderr": "log", "pty": True}),
        ("input", ["true"], {"input": 5}),
        ("input", ["true"], {"input": "\ud800"}),
        ("input", ["true"], {"input": "é", "encoding": "ascii"}),
        ("input", ["true"], {"input": b"x", "stdin": ps.DEVNULL}),
        ("encoding", ["true"], {"encoding": "no-such"}),
        ("errors", ["true"], {"errors": "no-such"}),
    ],
)
def test_what_is_not_valid_is_refused_when_it_is_made(field: str, args: Any, options: dict[str, Any]) -> None:
    with pytest.raises(ps.ConfigError) as caught:
        ps.Job(args, **options)
    assert caught.value.field == field


def test_every_field_can_be_taken_again_as_it_was_kept() -> None:
    assert SOME.keys() == {field.name for field in fields(ps.Config)}
    kept = ps.Job(["true"], **SOME).overrides
    assert ps.Config(**kept) == ps.Config(**SOME)


def test_what_it_holds_is_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command, places = ["cat"], ["data"]
    monkeypatch.chdir(tmp_path)
    job = ps.Job(command, input="x", allowed_dirs=places, read_only_dirs=(name for name in ("a", "b")))
    command.append("other")
    places.append("other")
    monkeypatch.chdir("/")
    assert job.args == ("cat",)
    assert job.overrides == {
        "allowed_dirs": (str(tmp_path / "data"),),
        "read_only_dirs": (str(tmp_path / "a"), str(tmp_path / "b")),
    }


def test_a_job_is_a_value() -> None:
    job = ps.Job(["cat"], input="x", text=True, timeout=5)
    assert copy.deepcopy(job) == job == pickle.loads(pickle.dumps(job))
    assert job != ps.Job(["cat"], input="x", timeout=5)
