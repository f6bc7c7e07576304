"""The verdict is true: what the command did is told as it was, and nothing is blamed on a limit that did not act."""

from __future__ import annotations

import json
import os
import pickle
import signal
import sys
from pathlib import Path

import pytest
from support.behaviours import Runner, promise
from support.programs import outside, python

import proc_sandbox as ps

WINDOWS = sys.platform == "win32"


@promise("exit")
@pytest.mark.parametrize("status", [0, 1, 2, 42, 124, 125, 126, 127, 128, 137, 139, 143, 255])
def test_every_exit_status_is_the_commands_own(run: Runner, status: int) -> None:
    result = run(python(f"import os; os._exit({status})"), timeout=60, memory_limit="1G" if not WINDOWS else None)
    assert (result.exit_code, result.signal, result.reason) == (status, None, ps.Reason.EXITED)
    assert result.ok is (status == 0)
    assert not (result.timed_out or result.memory_exceeded or result.cpu_time_exceeded or result.processes_exceeded)
    assert result.returncode == status


@promise("exit")
def test_a_result_travels_and_says_what_was_run(run: Runner) -> None:
    result = run(python("print('out')"))
    assert pickle.loads(pickle.dumps(result)) == result
    assert json.loads(json.dumps(result.to_dict()))["stdout"] == f"out{os.linesep}"
    assert result.args[0] == sys.executable
    assert result.execution_time > 0


@promise("exit")
def test_check_raises_what_subprocess_would(run: Runner) -> None:
    with pytest.raises(ps.ExecutionError) as caught:
        run(python("import sys; sys.exit('sorry')"), check=True)
    assert caught.value.returncode == 1
    assert caught.value.result.stderr.text().strip() == "sorry"


@promise("crash")
@pytest.mark.skipif(WINDOWS, reason="there are no signals")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL", "SIGABRT", "SIGUSR1", "SIGXCPU", "SIGSEGV", "SIGINT"])
def test_a_signal_of_its_own_is_told_as_one(run: Runner, name: str) -> None:
    number = int(getattr(signal, name))
    code = f"import os, signal; signal.signal({number}, signal.SIG_DFL) if {number} != 9 else 0; os.kill(os.getpid(), {number})"
    assert outside(python(code)).returncode == -number
    result = run(python(code), memory_limit="1G", cpu_time_limit=100)
    assert (result.exit_code, result.signal, result.reason) == (None, number, ps.Reason.SIGNALED)
    assert result.returncode == -number
    assert not (result.timed_out or result.memory_exceeded or result.cpu_time_exceeded)


@promise("crash")
@pytest.mark.skipif(not WINDOWS, reason="there are signals")
def test_a_crash_is_the_status_that_windows_gives(run: Runner) -> None:
    result = run(python("import ctypes; ctypes.windll.kernel32.TerminateProcess(ctypes.c_void_p(-1), 0xC0000005)"))
    assert (result.exit_code, result.signal, result.reason) == (0xC0000005, None, ps.Reason.EXITED)


@promise("not found")
def test_a_missing_command_is_an_error(run: Runner, tmp_path: Path) -> None:
    for missing in ("no-such-command-here", str(tmp_path / "missing")):
        with pytest.raises(FileNotFoundError) as caught:
            run([missing], allowed_dirs=[tmp_path])
        assert isinstance(caught.value, ps.CommandNotFoundError)
        assert os.path.basename(missing) in str(caught.value)


@promise("not found")
def test_a_directory_is_no_command(run: Runner, tmp_path: Path) -> None:
    with pytest.raises(PermissionError):
        run([str(tmp_path)], allowed_dirs=[tmp_path])


@promise("not found")
def test_what_is_no_program_cannot_be_executed(run: Runner, tmp_path: Path) -> None:
    file = tmp_path / ("text.exe" if WINDOWS else "text")
    file.write_text("this is no program")
    file.chmod(0o755)
    with pytest.raises(ps.LaunchError) as caught:
        run([str(file)], allowed_dirs=[tmp_path])
    assert caught.value.step == "exec"


@promise("not found")
def test_a_working_directory_that_is_not_there_is_named(run: Runner, tmp_path: Path) -> None:
    with pytest.raises(ps.ConfigError, match="working_dir"):
        run(python("pass"), working_dir=tmp_path / "missing")


LIMITS = {
    "timeout": 60,
    "memory_limit": "1G",
    "cpu_limit": 100,
    "cpu_time_limit": 60,
    "max_processes": 50,
    "read_bps": "100M",
    "write_bps": "100M",
    "max_file_size": "1G",
}


@promise("honesty")
@pytest.mark.parametrize("field", LIMITS)
def test_a_limit_is_enforced_or_refused(run: Runner, field: str) -> None:
    """By itself, for some are refused."""
    value = LIMITS[field]
    try:
        result = ps.run(python("pass"), **{**run.config(**{field: value}), "enforcement": ps.best_effort(*run.never_asked(field))})
    except ps.UnsupportedError as error:
        assert error.field == field
        assert error.reason
        assert error.remedy
        with pytest.warns(ps.UnenforcedWarning, match=field):
            result = ps.run(python("pass"), backend=run.backend, enforcement="best-effort", **{field: value})  # type: ignore[arg-type]
        assert isinstance(result.enforcement[field], ps.Unenforced)
    else:
        how = result.enforcement[field]
        assert isinstance(how, ps.Enforced)
        assert how.mechanism
    assert result.ok


@promise("honesty")
def test_strict_refuses_what_the_backend_never_promises(run: Runner) -> None:
    if not run.never:
        assert ps.run(python("pass"), backend=run.backend).ok  # type: ignore[arg-type]
        return
    always = [name for name in run.never if name not in LIMITS]
    with pytest.raises(ps.UnsupportedError) as caught:
        ps.run(python("pass"), backend=run.backend, **({} if always else {run.never[0]: LIMITS[run.never[0]]}))  # type: ignore[arg-type]
    assert caught.value.field in run.never


@promise("plan")
def test_a_plan_can_be_read_by_people_and_programs(run: Runner) -> None:
    plan = ps.plan(python("pass"), **run.config(timeout=5, env={"LEVEL": "3"}))
    assert "timeout 5 s" in plan.describe()
    assert "LEVEL=3" in plan.describe()
    data = json.loads(plan.to_json())
    assert data["timeout"] == 5_000_000_000
    assert data["command"] == list(python("pass"))
    assert set(data["enforcement"]) == set(plan.enforcement)
    assert pickle.loads(pickle.dumps(plan)) == plan


@promise("usage")
def test_cpu_time_is_told(run: Runner) -> None:
    code = "import time\nwhile time.process_time() < 0.3: pass"
    result = run(python(code), cpu_time_limit=100)
    assert 0.25 <= result.cpu_time.total < 50
    assert result.cpu_time.user > 0


@promise("usage")
def test_peak_memory_is_told(run: Runner) -> None:
    code = "import sys; block = bytearray(b'x' * (96 << 20)); print('up', flush=True); sys.stdin.read()"
    result = run(python(code), memory_limit="1G")
    assert result.ok
    assert result.peak_memory is not None
    assert 90 << 20 <= result.peak_memory < 1 << 30
