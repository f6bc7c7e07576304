"""The truth table: what ended a run, from bare facts."""

from __future__ import annotations

import itertools
import json
import pickle
from dataclasses import replace
from typing import Any

import pytest

import proc_sandbox as ps
from proc_sandbox.launcher.channel import decode
from proc_sandbox.report import Ended
from proc_sandbox.verdict import pressure, reason_of

EXITED_0, EXITED_137 = {"exit_code": 0, "signal": None}, {"exit_code": 137, "signal": None}
KILLED, TERMINATED = ({"exit_code": None, "signal": number} for number in (9, 15))
UNFINISHED = {"done": False, "exit_code": None, "signal": None}
BASE = Ended(
    done=True, exit_code=0, signal=None, wall=1, user=0, system=0, peak=-1, tasks=0, oom_kills=0, outside_oom_kills=0, refused_forks=0, throttled=-1,
    timed_out=False, cpu_exceeded=False, memory_exceeded=False, tasks_exceeded=False, cancelled=False,
)  # fmt: skip


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({}, "exited"),
        ({**EXITED_137}, "exited"),
        ({**KILLED}, "signaled"),
        ({**TERMINATED}, "signaled"),
        ({**KILLED, "oom_kills": 1}, "memory"),
        ({**KILLED, "oom_kills": 1, "memory_exceeded": True}, "memory"),
        ({**TERMINATED, "oom_kills": 1}, "signaled"),
        ({**KILLED, "outside_oom_kills": 1}, "killed_outside"),
        ({**UNFINISHED, "outside_oom_kills": 1}, "killed_outside"),
        ({**EXITED_0, "outside_oom_kills": 1}, "exited"),
        ({**EXITED_0, "oom_kills": 3}, "exited"),
        ({"timed_out": True}, "exited"),
        ({**KILLED, "timed_out": True}, "signaled"),
        ({**UNFINISHED, "timed_out": True}, "timeout"),
        ({**UNFINISHED, "tasks_exceeded": True}, "processes"),
        ({"tasks_exceeded": True}, "exited"),
        ({**UNFINISHED, "cpu_exceeded": True}, "cpu_time"),
        ({**UNFINISHED, "memory_exceeded": True}, "memory"),
        ({**UNFINISHED, "oom_kills": 1}, "memory"),
        ({**UNFINISHED, "oom_kills": 1, "timed_out": True}, "memory"),
        ({**UNFINISHED, "cancelled": True}, "cancelled"),
        ({**UNFINISHED}, "killed_outside"),
    ],
)
def test_reasons(facts: dict[str, Any], reason: str) -> None:
    assert reason_of(BASE._replace(**facts)).value == reason  # type: ignore[arg-type]


def test_what_the_command_did_is_never_called_a_limit() -> None:
    """Whatever status it chooses: without an act of the launcher or of the kernel no limit is named."""
    for status in range(1 << 16):  # as wait(2) gives them
        if (status & 0x7F) == 0 or (status & 0xFF) < 0x7F:
            words = b"\0".join(f"{name} {number}".replace(" ", "\0").encode() for name, number in facts(status).items())
            assert reason_of(decode(b"ended\0" + words + b"\0")) in (ps.Reason.EXITED, ps.Reason.SIGNALED)


def facts(status: int) -> dict[str, int]:
    """What the launcher says of a command that ended by itself with that wait status."""
    return {**dict.fromkeys(set(Ended._fields) - {"exit_code", "signal"}, 0), "done": 1, "status": status}


def test_each_combination_has_one_reason() -> None:
    names = ("done", "timed_out", "cpu_exceeded", "memory_exceeded", "cancelled")
    for flags in itertools.product((False, True), repeat=len(names)):
        reason = reason_of(BASE._replace(**dict(zip(names, flags, strict=True))))
        assert isinstance(reason, ps.Reason)
        assert (reason in (ps.Reason.EXITED, ps.Reason.SIGNALED)) == flags[0]


RESULT = ps.Result(
    args=("x",), exit_code=None, signal=9, execution_time=1.0, cpu_time=ps.CpuTime(0.5, 0.25), peak_memory=None,
    peak_processes=None, throttled_time=None, timed_out=True, memory_exceeded=False, cpu_time_exceeded=False, processes_exceeded=False,
    output_truncated=ps.Truncated(stdout=True), reason=ps.Reason.TIMEOUT, stdout=ps.Output(b"\xff\xfe"),
    stderr=ps.Output("ä".encode()), error="wall time limit of 1 s exceeded",
    enforcement={"timeout": ps.Enforced("launcher"), "cpu_limit": ps.Unenforced("why", "what to do")},
)  # fmt: skip


def test_pressure_is_there_or_not() -> None:
    assert pressure(BASE) is None
    assert pressure(BASE._replace(cpu_pressure=5, memory_pressure=0)) is None
    known = BASE._replace(cpu_pressure=1_500_000_000, memory_pressure=0, io_pressure=250_000_000)
    assert pressure(known) == ps.Pressure(cpu=1.5, memory=0.0, io=0.25)
    data = replace(RESULT, pressure=pressure(known), read_bytes=7).to_dict()
    assert data["pressure"] == {"cpu": 1.5, "memory": 0.0, "io": 0.25}
    assert (data["read_bytes"], data["written_bytes"], RESULT.to_dict()["pressure"]) == (7, None, None)


def test_a_result_travels() -> None:
    assert pickle.loads(pickle.dumps(RESULT)) == RESULT
    data = json.loads(json.dumps(RESULT.to_dict()))
    assert data["reason"] == "timeout"
    assert data["stdout_base64"] == "//4="
    assert data["stderr"] == "ä"
    assert "stderr_base64" not in data
    assert data["enforcement"]["cpu_limit"] == {"reason": "why", "remedy": "what to do"}
    assert data["cpu_time"] == {"user": 0.5, "system": 0.25}
    assert data["returncode"] == -9


@pytest.mark.parametrize(
    ("reason", "kind", "builtin"),
    [
        (ps.Reason.TIMEOUT, ps.TimeLimitExceeded, TimeoutError),
        (ps.Reason.CPU_TIME, ps.TimeLimitExceeded, TimeoutError),
        (ps.Reason.MEMORY, ps.MemoryLimitExceeded, ps.ExecutionError),
        (ps.Reason.SIGNALED, ps.ExecutionError, ps.SandboxError),
    ],
)
def test_check_raises_what_fits(reason: ps.Reason, kind: type[Exception], builtin: type[Exception]) -> None:
    result = replace(RESULT, reason=reason)
    with pytest.raises(kind) as caught:
        result.check()
    assert isinstance(caught.value, builtin)
    again = pickle.loads(pickle.dumps(caught.value))
    assert type(again) is type(caught.value)
    assert again.result == result


@pytest.mark.parametrize(
    "error",
    [
        ps.ConfigError("timeout", -1, "more than 0"),
        ps.UnsupportedError("cpu_limit", "no cgroup", "run as root"),
        ps.LaunchError("mount", "/srv", 1),
        ps.CommandNotFoundError("find", "nope", 2, "searched /bin"),
        ps.CommandNotExecutableError("exec", "/x", 13),
        ps.LauncherDiedError("gone"),
        ps.SandboxClosedError("closed"),
    ],
)
def test_errors_travel(error: ps.SandboxError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)
    assert isinstance(error, ps.SandboxError)


def test_builtin_kin() -> None:
    assert isinstance(ps.CommandNotFoundError("exec", "x", 2), FileNotFoundError)
    assert isinstance(ps.CommandNotExecutableError("exec", "x", 13), PermissionError)
    assert isinstance(ps.ConfigError("a", 1, "b"), ValueError)
