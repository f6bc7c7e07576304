"""Whole runs: what ended them, what they wrote, what is left. On the fake Windows everywhere, for real where there is one."""

from __future__ import annotations

import errno
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.windows import failing
from support.windows_runs import FakeRunner, RealRunner, Runner

import proc_sandbox as ps
from proc_sandbox.backends.windows.job import NotKept
from proc_sandbox.backends.windows.run import KILLED, WindowsRun
from proc_sandbox.backends.windows.winapi import (
    ERROR_ACCESS_DENIED,
    JOB_OBJECT_LIMIT_JOB_MEMORY,
    ExtendedLimits,
)

MEGABYTE = 1 << 20


@pytest.fixture(params=["fake", "real"] if sys.platform == "win32" else ["fake"])
def runner(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Runner]:
    if request.param == "real":
        from proc_sandbox.backends.windows.native import Native

        wine = Native().wine_version()
        if wine and request.node.get_closest_marker("needs_windows"):
            pytest.skip(f"Wine {wine} accepts the limit and does not enforce it; this has never run on Windows")
        yield RealRunner()
        return
    fake = FakeRunner(str(tmp_path / "journal"))
    yield fake
    fake.check_nothing_is_left()


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeRunner]:
    """For what only a Windows of our own making does."""
    made = FakeRunner(str(tmp_path / "journal"))
    yield made
    made.check_nothing_is_left()


# --- what ended it ---


@pytest.mark.parametrize("code", [0, 1, 124, 255, 259, 0x7FFFFFFF])
def test_an_exit_code_is_the_commands_own(runner: Runner, code: int) -> None:
    result = runner.run(f"exit:{code}")
    assert (result.reason, result.exit_code, result.signal, result.error) == (ps.Reason.EXITED, code, None, None)
    assert result.returncode == code


def test_a_crash_is_an_unsigned_exit_code(runner: Runner) -> None:
    result = runner.run("crash")
    assert (result.reason, result.exit_code) == (ps.Reason.EXITED, 0xC0000005)
    assert not result.ok


def test_the_code_of_our_own_kills_is_nothing_special(runner: Runner) -> None:
    result = runner.run(f"exit:{KILLED - (1 << 32)}" if runner.real else f"exit:{KILLED}")
    assert (result.reason, result.exit_code) == (ps.Reason.EXITED, KILLED)


def test_a_timeout_ends_the_whole_tree(runner: Runner) -> None:
    result = runner.run("spawn:hang", "print:before\n", "hang", timeout=0.5 if runner.real else 0.05)
    assert (result.reason, result.exit_code, result.signal, result.timed_out) == (ps.Reason.TIMEOUT, None, None, True)
    assert b"before" in bytes(result.stdout) or runner.real
    assert result.error
    assert "wall time limit" in result.error


def test_the_tree_ends_with_the_command(runner: Runner) -> None:
    """A child that the command leaves behind is ended, and keeps nobody waiting by the pipe that it holds."""
    result = runner.run("spawn:hang", "exit:3")
    assert (result.reason, result.exit_code) == (ps.Reason.EXITED, 3)
    assert b"spawned" in bytes(result.stdout)


@pytest.mark.parametrize("late", [False, True])
def test_a_run_is_cancelled_from_another_thread(runner: Runner, late: bool) -> None:
    def watch(run: WindowsRun) -> None:
        if late:
            threading.Timer(0.05, run.kill).start()
        else:
            run.kill()

    result = runner.run("spawn:hang", "hang", watch=watch)
    assert (result.reason, result.exit_code) == (ps.Reason.CANCELLED, None)


def test_killing_what_has_ended_is_harmless(runner: Runner) -> None:
    kept: list[WindowsRun] = []
    assert runner.run("exit:0", watch=kept.append).ok
    kept[0].kill()
    kept[0].close()


# --- limits: the control comes first ---


@pytest.mark.needs_windows
def test_memory(runner: Runner) -> None:
    words = (f"allocate:{200 * MEGABYTE}", "hang")
    control = runner.run(*words, timeout=5 if runner.real else 0.05)
    assert (control.reason, bytes(control.stdout)) == (ps.Reason.TIMEOUT, b"allocated\n")
    result = runner.run(*words, memory_limit=128 * MEGABYTE)
    assert (result.reason, result.memory_exceeded, result.exit_code) == (ps.Reason.MEMORY, True, None)
    assert result.error
    assert "memory limit of 128 MiB" in result.error


@pytest.mark.needs_windows
def test_memory_of_all_processes_together(runner: Runner) -> None:
    part = f"spawn:allocate:{80 * MEGABYTE};hang"
    assert runner.run(part, part, "hang", timeout=5 if runner.real else 0.05).reason is ps.Reason.TIMEOUT, "the control"
    result = runner.run(part, part, "hang", memory_limit=128 * MEGABYTE)
    assert result.reason is ps.Reason.MEMORY


@pytest.mark.needs_windows
def test_who_makes_do_without_the_memory_is_ended_all_the_same(runner: Runner) -> None:
    """An allocation fails and the program exits by itself: whichever comes first, the verdict is the same."""
    result = runner.run(f"allocate:{200 * MEGABYTE}", "exit:0", memory_limit=128 * MEGABYTE)
    assert (result.reason, result.exit_code) == (ps.Reason.MEMORY, None)


@pytest.mark.needs_windows
def test_number_of_processes(runner: Runner) -> None:
    words = ("spawn:hang", "spawn:hang", "spawn:hang", "exit:0")
    control = runner.run(*words)
    assert bytes(control.stdout) == b"spawned\n" * 3
    assert control.processes_exceeded is False
    result = runner.run(*words, max_processes=3)
    assert bytes(result.stdout).startswith(b"spawned\nspawned\nrefused")
    assert (result.reason, result.processes_exceeded) == (ps.Reason.EXITED, True)


@pytest.mark.needs_windows
def test_cpu_time_in_user_mode(runner: Runner) -> None:
    words = ("burn:2000", "print:burnt\n", "hang")
    assert runner.run(*words, timeout=30 if runner.real else 0.05).timed_out, "the control"
    result = runner.run(*words, cpu_time_limit=1)
    assert (result.reason, result.exit_code, result.cpu_time_exceeded) == (ps.Reason.CPU_TIME, None, True)
    assert result.cpu_time.total >= 1


def test_cpu_time_in_kernel_mode(fake: FakeRunner) -> None:
    """JOB_TIME does not count it: the accounting is looked at."""
    fake.win32.programs["c:\\program files\\child.exe"] = lambda process: (process.burn(0, 20_000_000), process.hang())
    assert fake.run("x", timeout=0.05).timed_out, "the control"
    result = fake.run("x", cpu_time_limit=1)
    assert (result.reason, result.cpu_time.system) == (ps.Reason.CPU_TIME, 2.0)


def test_cpu_time_that_windows_itself_has_ended(fake: FakeRunner) -> None:
    """Without a message ("JOBOBJECT_END_OF_JOB_TIME_INFORMATION"): the exit code is ERROR_NOT_ENOUGH_QUOTA, which any program may have."""
    result = fake.run("burn:5000", cpu_time_limit=1)
    assert (result.reason, result.exit_code) == (ps.Reason.CPU_TIME, None)
    own = fake.run("exit:1816", cpu_time_limit=1)
    assert (own.reason, own.exit_code) == (ps.Reason.EXITED, 1816)


@pytest.mark.needs_windows
def test_cpu_rate_is_told_to_the_job(runner: Runner) -> None:
    assert runner.run("exit:0", cpu_limit=50).ok


# --- streams ---


def test_streams(runner: Runner) -> None:
    result = runner.run("echo", "error:problem", data=b"in and out\0\xff")
    assert (bytes(result.stdout), bytes(result.stderr)) == (b"in and out\0\xff", b"problem")


def test_full_pipes_both_ways_do_not_lock(runner: Runner) -> None:
    data = b"x" * (4 * MEGABYTE)
    result = runner.run("flood-error:1000000", "echo", data=data, max_output="8M")
    assert bytes(result.stdout) == data
    assert len(result.stderr) == 1_000_000


def test_output_is_kept_up_to_its_limit(runner: Runner) -> None:
    result = runner.run("flood:3000000", max_output="1M")
    assert (len(result.stdout), result.stdout_truncated, result.ok) == (MEGABYTE, True, True)


def test_a_command_that_does_not_read(runner: Runner) -> None:
    assert runner.run("exit:0", data=b"x" * (4 * MEGABYTE)).ok


class BrokenError(Exception):
    pass


class Broken:
    """A caller's file that fails."""

    def write(self, data: bytes) -> int:
        raise BrokenError

    def read(self, size: int) -> bytes:
        raise BrokenError


@pytest.mark.parametrize("name", ["stdin", "stdout"])
def test_a_callers_file_that_fails_ends_the_run(runner: Runner, name: str) -> None:
    options: dict[str, Any] = {name: Broken()}
    with pytest.raises(BrokenError):
        runner.run("print:x", "hang", **options)


# --- what the command finds ---


def test_its_directory_is_its_own_and_gone_afterwards(runner: Runner) -> None:
    result = runner.run("directory")
    place = result.stdout.text()
    assert "proc-sandbox-private-" in place
    assert place != runner.run("directory").stdout.text()
    assert runner.run("environment:TEMP").stdout.text() != place
    if runner.real:
        assert not Path(place).exists()


def test_nothing_of_the_callers_environment(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    assert runner.run("environment:SECRET").stdout.text() == "(unset)"
    assert runner.run("environment:SECRET", env={"Secret": "given"}).stdout.text() == "given"


def test_it_gets_its_three_streams_and_nothing_else(runner: Runner) -> None:
    """The control: a handle of ours that is inheritable, as a careless library leaves them."""
    if runner.real:
        pytest.skip("test_process.py has it with the real system's handles")
    fake = runner
    assert isinstance(fake, FakeRunner)
    reader, writer = fake.win32.create_pipe()
    fake.win32.set_inheritable(reader, inheritable=True)
    assert fake.run(f"handle:{reader}").stdout.text() == "closed\n"
    for handle in (reader, writer):
        fake.win32.close(handle)


def test_a_run_has_its_token_its_container_and_its_job(fake: FakeRunner) -> None:
    result = fake.run("exit:0", network_access=True)
    assert result.ok
    process = next(found for found in fake.win32.processes.values() if found.creation.command_line.startswith("child "))
    token = fake.win32.tokens[process.pid]
    assert token.package.startswith("S-1-15-2-")
    assert token.capabilities == ("S-1-15-3-1", "S-1-15-3-2", "S-1-15-3-3")
    assert token.privileges == ("SeChangeNotifyPrivilege",)
    assert process.jobs[0].ui == 0xFF
    assert fake.win32.mitigated[process.pid]
    assert all(isinstance(how, ps.Enforced) for how in result.enforcement.values())


# --- what does not start ---


def test_a_command_that_is_not_there(fake: FakeRunner) -> None:
    del fake.win32.programs["c:\\program files\\child.exe"]
    with pytest.raises(ps.LaunchError) as caught:
        fake.run("x")
    assert (caught.value.step, caught.value.errno) == ("exec", errno.ENOENT)


@pytest.mark.parametrize(
    ("function", "step"),
    [("create_directory", "private"), ("create_profile", "access"), ("restricted_token", "token"), ("create_job", "job"),
     ("set_port", "job"), ("create_process", "exec")],
)  # fmt: skip
def test_each_step_that_fails_is_named_and_leaves_nothing(
    fake: FakeRunner, function: str, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = fake.plan("hang")
    owner = fake.security if hasattr(fake.security, function) else fake.win32
    monkeypatch.setattr(owner, function, failing(function, ERROR_ACCESS_DENIED))
    with pytest.raises(ps.LaunchError, match=function) as caught:
        fake.carry_out(planned, ps.Config())
    assert (caught.value.step, caught.value.errno) == (step, errno.EACCES)


def test_a_limit_that_this_job_did_not_take_stops_the_run(fake: FakeRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe found it kept; for this run it is read back again."""
    planned = fake.plan("hang", memory_limit="64M")
    real = fake.win32.extended_limits

    def forgetful(job: int) -> ExtendedLimits:
        kept = real(job)
        return kept._replace(flags=kept.flags & ~JOB_OBJECT_LIMIT_JOB_MEMORY)

    monkeypatch.setattr(fake.win32, "extended_limits", forgetful)
    with pytest.raises(ps.LaunchError, match="accepted and not kept") as caught:
        fake.carry_out(planned, ps.Config(memory_limit="64M"))
    assert (caught.value.step, caught.value.filename) == ("job", "job_memory")
    assert NotKept("job_memory", "accepted and not kept").name == caught.value.filename


# --- many at once ---


def test_many_at_once(runner: Runner) -> None:
    results: list[ps.Result] = []

    def one(number: int) -> None:
        results.append(runner.run(f"print:{number}", f"exit:{number}"))

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted((result.exit_code, result.stdout.text()) for result in results) == [(n, str(n)) for n in range(8)]


def test_shutdown_ends_all_runs(runner: Runner) -> None:
    from proc_sandbox.backends import shutdown

    def watch(run: WindowsRun) -> None:
        threading.Timer(0.05, runner.backend.shutdown if isinstance(runner, FakeRunner) else shutdown).start()

    assert runner.run("hang", watch=watch).reason is ps.Reason.CANCELLED
    assert runner.run("exit:0").ok, "and the next one works"
