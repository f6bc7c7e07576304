"""The verdict is true: what ended the run, and nothing guessed from an exit code."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import signal
import subprocess
import threading
import time

import pytest
from support.behaviours import promise
from support.fixtures import Programs
from support.processes import carriers, new_mark, wait_dead, watched, witness
from support.programs import inside, python

import proc_sandbox as ps

EVERY_BACKEND = True

ALWAYS_REPORTED = {"files", "network_access", "privileges", "processes", "ipc", "syscalls"}


def test_a_shell_that_reports_137_is_no_memory_kill() -> None:
    result = inside(["sh", "-c", "sh -c 'kill -9 $$'; exit $?"], memory_limit="256M")
    assert result.exit_code == 137
    assert result.reason is ps.Reason.EXITED
    assert not result.memory_exceeded


def test_a_kill_from_outside_is_no_limit() -> None:
    mark = new_mark()
    results: list[ps.Result] = []
    with witness() as pipe:
        command = python(
            "import os, sys, time; os.write(int(sys.argv[1]), b'ready'); time.sleep(600)", str(pipe.write_end), mark
        )
        thread = threading.Thread(
            target=lambda: results.append(inside(command, pass_fds=[pipe.write_end], memory_limit="256M"))
        )
        thread.start()
        pipe.hear(b"ready")
        (pid,) = carriers(mark)
        with watched([pid]) as ends:
            os.kill(pid, signal.SIGKILL)
            wait_dead(ends)
        thread.join()
    (result,) = results
    assert result.signal == signal.SIGKILL
    assert result.reason in {ps.Reason.SIGNALED, ps.Reason.KILLED_OUTSIDE}
    assert not (result.timed_out or result.memory_exceeded or result.cpu_time_exceeded or result.ok)


def test_the_deadline_ends_a_run_and_keeps_its_output() -> None:
    began = time.monotonic()
    result = inside(python("print('before', flush=True); import time; time.sleep(600)"), timeout=1.0)
    elapsed = time.monotonic() - began
    assert result.timed_out
    assert result.reason is ps.Reason.TIMEOUT
    assert result.exit_code is None
    assert result.stdout == b"before\n"
    assert 1.0 <= result.execution_time <= elapsed
    assert not result.memory_exceeded
    assert not result.ok


def test_a_deadline_that_is_not_reached_leaves_no_trace() -> None:
    result = inside(["true"], timeout=100)
    assert result.ok
    assert not result.timed_out
    assert result.error is None


def test_execution_time_is_the_commands_own() -> None:
    began = time.monotonic()
    result = inside(["sleep", "0.5"])
    assert 0.5 <= result.execution_time <= time.monotonic() - began


def test_cpu_time_is_split(programs: Programs) -> None:
    result = inside([programs("busy"), "after", "1", "0.5"], allowed_dirs=[programs.directory])
    assert result.ok, result
    assert 0.4 <= result.cpu_time.total <= 5
    assert result.cpu_time.total == pytest.approx(result.cpu_time.user + result.cpu_time.system)
    assert result.usage.cpu_user == result.cpu_time.user
    assert result.usage.cpu_system == result.cpu_time.system


def test_the_streams_belong_to_their_commands() -> None:
    result = inside(["sh", "-c", "echo out; echo err >&2"])
    assert (result.stdout, result.stderr) == (b"out\n", b"err\n")
    assert (result.stdout.text(), result.stderr.text()) == ("out\n", "err\n")


@promise("files")
def test_every_isolation_and_limit_names_its_mechanism() -> None:
    limits = {"timeout": 100, "memory_limit": "256M", "max_processes": 50, "cpu_time_limit": 50, "cpu_limit": 100}
    result = inside(["true"], **limits)
    assert ALWAYS_REPORTED | set(limits) <= set(result.enforcement)
    for field, entry in result.enforcement.items():
        assert isinstance(entry, ps.Enforced), (field, entry)
        assert entry.mechanism, field


def test_a_limit_that_is_not_set_is_not_reported() -> None:
    result = inside(["true"], timeout=None, config=ps.Config())
    assert "memory_limit" not in result.enforcement
    assert "cpu_limit" not in result.enforcement


@pytest.fixture(scope="module")
def killed() -> ps.Result:
    """A run that its deadline has ended."""
    return inside(python("print('x', flush=True); import time; time.sleep(600)"), timeout=0.5)


def test_a_result_pickles_and_is_json(killed: ps.Result) -> None:
    again = pickle.loads(pickle.dumps(killed))
    assert again == killed
    assert again.reason is ps.Reason.TIMEOUT
    told = json.loads(json.dumps(killed.to_dict(), allow_nan=False))
    assert told["timed_out"] is True
    assert told["reason"] == "timeout"
    assert told["stdout"] == "x\n"


def test_a_result_is_frozen(killed: ps.Result) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        killed.exit_code = 0  # type: ignore[misc]


def test_an_error_is_one_line_for_humans(killed: ps.Result) -> None:
    assert killed.error
    assert "\n" not in killed.error
    assert "0.5" in killed.error or "500" in killed.error


def test_check_raises_what_subprocess_users_catch(killed: ps.Result) -> None:
    with pytest.raises(TimeoutError) as caught:
        killed.check()
    assert isinstance(caught.value, ps.ExecutionError)
    assert isinstance(caught.value, subprocess.CalledProcessError)
    with pytest.raises(subprocess.CalledProcessError) as failed:
        inside(["sh", "-c", "echo no; exit 3"], check=True)
    assert failed.value.returncode == 3
    assert failed.value.stdout == b"no\n"
    assert isinstance(failed.value, ps.SandboxError)
    good = inside(["true"], check=True)
    assert good.check() is good


def test_the_first_reason_stays_the_only_one(programs: Programs) -> None:
    """A run whose deadline passes while it spins: a timeout, although CPU time ran too."""
    result = inside(
        [programs("busy"), "side", "1", "600"], timeout=1, cpu_time_limit=500, allowed_dirs=[programs.directory]
    )
    assert result.reason is ps.Reason.TIMEOUT
    assert (result.timed_out, result.cpu_time_exceeded, result.memory_exceeded) == (True, False, False)
