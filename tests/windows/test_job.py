"""A job holds a tree together, counts it, tells of it and ends it."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.fake_win32 import FakeProcess
from support.windows import HANG, Changed, FakeWindows, Windows, failing

import proc_sandbox
from proc_sandbox.backends.windows.job import VALUES, Bounds, Job, NotKept
from proc_sandbox.backends.windows.process import Process, start
from proc_sandbox.backends.windows.winapi import (
    CREATE_SUSPENDED,
    DETACHED_PROCESS,
    ERROR_ACCESS_DENIED,
    ERROR_INVALID_FUNCTION,
    ERROR_INVALID_HANDLE,
    ERROR_INVALID_PARAMETER,
    ERROR_NOT_ENOUGH_QUOTA,
    JOB_OBJECT_CPU_RATE_CONTROL_ENABLE,
    JOB_OBJECT_CPU_RATE_CONTROL_HARD_CAP,
    JOB_OBJECT_LIMIT_ACTIVE_PROCESS,
    JOB_OBJECT_LIMIT_BREAKAWAY_OK,
    JOB_OBJECT_LIMIT_DIE_ON_UNHANDLED_EXCEPTION,
    JOB_OBJECT_LIMIT_JOB_MEMORY,
    JOB_OBJECT_LIMIT_JOB_TIME,
    JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE,
    JOB_OBJECT_LIMIT_PRIORITY_CLASS,
    JOB_OBJECT_LIMIT_PROCESS_MEMORY,
    JOB_OBJECT_LIMIT_PROCESS_TIME,
    JOB_OBJECT_LIMIT_SILENT_BREAKAWAY_OK,
    JOB_OBJECT_MSG_ABNORMAL_EXIT_PROCESS,
    JOB_OBJECT_MSG_ACTIVE_PROCESS_LIMIT,
    JOB_OBJECT_MSG_ACTIVE_PROCESS_ZERO,
    JOB_OBJECT_MSG_END_OF_JOB_TIME,
    JOB_OBJECT_MSG_END_OF_PROCESS_TIME,
    JOB_OBJECT_MSG_EXIT_PROCESS,
    JOB_OBJECT_MSG_JOB_MEMORY_LIMIT,
    JOB_OBJECT_MSG_NEW_PROCESS,
    JOB_OBJECT_MSG_PROCESS_MEMORY_LIMIT,
    JOB_OBJECT_POST_AT_END_OF_JOB,
    PRIORITY_CLASSES,
    PROCESS_QUERY_INFORMATION,
    STATUS_ACCESS_VIOLATION,
    Completion,
    CpuRate,
    Created,
    Creation,
    ExtendedLimits,
    Win32Error,
)

MEGABYTE = 1 << 20
KILL_ON_CLOSE = Bounds(ExtendedLimits(JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE))
CAPPED = JOB_OBJECT_CPU_RATE_CONTROL_ENABLE | JOB_OBJECT_CPU_RATE_CONTROL_HARD_CAP


def limits(flags: int, **values: int) -> Bounds:
    return Bounds(ExtendedLimits(flags | JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE, **values))


@contextmanager
def job_with(windows: Windows, bounds: Bounds = KILL_ON_CLOSE) -> Iterator[Job]:
    """A job in which nothing is left at the end."""
    with Job(windows.win32) as job:
        job.bind(bounds)
        yield job
        job.end(1)


class Child(Process):
    """A process in a job, with a pipe from it. It has no console, for Wine has another process in the job for each."""

    def __init__(self, windows: Windows, job: Job, *words: str, flags: int = DETACHED_PROCESS) -> None:
        reader, writer = windows.win32.create_pipe()
        windows.win32.set_inheritable(writer, inheritable=True)
        null = windows.win32.duplicate(writer, inheritable=True)
        creation = windows.child(*words)._replace(
            jobs=(job.handle,), flags=flags, streams=(null, writer, writer), inherited=(null, writer)
        )
        try:
            started = start(windows.win32, creation)
        except BaseException:
            windows.win32.close(reader)
            raise
        finally:
            windows.win32.close(null)
            windows.win32.close(writer)
        super().__init__(started.win32, started.handle, started.pid)
        self.reader = reader

    def line(self) -> str:
        """Wait for a line of it."""
        line = b""
        while not line.endswith(b"\n"):
            data = self.win32.read(self.reader, 1)
            if not data:
                break
            line += data
        return line.decode().strip()

    def close(self) -> None:
        super().close()
        reader, self.reader = self.reader, 0
        if reader:
            self.win32.close(reader)


def messages(job: Job, until: int) -> list[Completion]:
    """What the job tells up to a message."""
    found: list[Completion] = []
    while not found or found[-1].message != until:
        message = job.next_message(HANG)
        assert message, f"no message {until} after {found}"
        found.append(message)
    return found


def is_inside(windows: Windows, job: Job, pid: int) -> bool:
    handle = windows.win32.open_process(pid, PROCESS_QUERY_INFORMATION)
    try:
        return windows.win32.is_process_in_job(handle, job.handle)
    finally:
        windows.win32.close(handle)


def test_born_inside(windows: Windows) -> None:
    """PROC_THREAD_ATTRIBUTE_JOB_LIST: there is no time at which it is outside."""
    with job_with(windows) as job, Child(windows, job, "hang", flags=DETACHED_PROCESS | CREATE_SUSPENDED) as child:
        assert windows.win32.is_process_in_job(child.handle, job.handle)
        assert job.processes() == (child.pid,)
        assert job.next_message(HANG) == Completion(JOB_OBJECT_MSG_NEW_PROCESS, 1, child.pid)


def test_messages_of_a_life(windows: Windows) -> None:
    with job_with(windows) as job, Child(windows, job, "exit:7") as child:
        found = messages(job, JOB_OBJECT_MSG_ACTIVE_PROCESS_ZERO)
        assert [(message.message, message.value) for message in found] == [
            (JOB_OBJECT_MSG_NEW_PROCESS, child.pid),
            (JOB_OBJECT_MSG_EXIT_PROCESS, child.pid),
            (JOB_OBJECT_MSG_ACTIVE_PROCESS_ZERO, 0),
        ]
        assert child.wait(HANG)
        assert child.exit_code() == 7


def test_without_the_attribute(windows: Windows) -> None:
    """Where Windows is too old for the list of jobs, it is put into them asleep."""
    given = windows.win32

    def create(creation: Creation) -> Created:
        if creation.jobs:
            raise Win32Error("UpdateProcThreadAttribute", ERROR_INVALID_PARAMETER)
        assert creation.flags & CREATE_SUSPENDED
        return given.create_process(creation)

    old = Changed(given, create_process=create)
    with (
        job_with(windows) as job,
        start(old, windows.child("exit:5")._replace(jobs=(job.handle,), flags=DETACHED_PROCESS)) as process,
    ):
        assert messages(job, JOB_OBJECT_MSG_NEW_PROCESS)[-1].value == process.pid
        assert process.wait(HANG)
        assert process.exit_code() == 5


def test_what_cannot_be_put_into_its_job_never_runs(windows: Windows) -> None:
    """Nothing is left, neither the process nor a handle."""
    given, made = windows.win32, []

    def create(creation: Creation) -> Created:
        if creation.jobs:
            raise Win32Error("UpdateProcThreadAttribute", ERROR_INVALID_PARAMETER)
        created = given.create_process(creation)
        made.append(given.duplicate(created.process, inheritable=False))
        return created

    broken = Changed(
        given, create_process=create, assign_process=failing("AssignProcessToJobObject", ERROR_ACCESS_DENIED)
    )
    with job_with(windows) as job:
        with pytest.raises(Win32Error, match="AssignProcessToJobObject"):
            start(broken, windows.child("exit:5")._replace(jobs=(job.handle,)))
        assert given.wait(made[0], HANG)
        assert given.exit_code(made[0]) == 1
        given.close(made[0])


def test_another_refusal_is_no_reason_to_start_it_otherwise(windows: Windows) -> None:
    tried = []

    def create(creation: Creation) -> Created:
        tried.append(creation)
        raise Win32Error("CreateProcessW", ERROR_INVALID_PARAMETER)

    with job_with(windows) as job, pytest.raises(Win32Error, match="CreateProcessW"):
        start(Changed(windows.win32, create_process=create), windows.child("exit:5")._replace(jobs=(job.handle,)))
    assert len(tried) == 1


def test_children_are_inside(windows: Windows) -> None:
    with job_with(windows) as job, Child(windows, job, "spawn:hang", "hang") as child:
        assert child.line() == "spawned"
        found = job.processes()
        assert len(found) == 2
        assert child.pid in found
        assert all(is_inside(windows, job, pid) for pid in found)


def test_counts(windows: Windows) -> None:
    with job_with(windows) as job, Child(windows, job, "spawn:exit:0", "wait", "print:done\n", "hang") as child:
        assert child.line() == "spawned"
        assert child.line() == "done"
        accounting = job.accounting()
        assert (accounting.total, accounting.active) == (2, 1)


def test_terminate(windows: Windows) -> None:
    with job_with(windows) as job, Child(windows, job, "spawn:hang", "hang") as child:
        assert child.line() == "spawned"
        job.terminate(77)
        assert child.wait(HANG)
        assert child.exit_code() == 77
        messages(job, JOB_OBJECT_MSG_ACTIVE_PROCESS_ZERO)
        assert job.accounting().active == 0


def test_what_has_ended_starts_nothing() -> None:
    """The fake's own: there a thread runs on after its process was ended, up to the next thing that it asks for."""
    ended, tried = threading.Event(), threading.Event()

    def program(process: FakeProcess) -> None:
        assert ended.wait(HANG / 1000)
        try:
            process.spawn("child hang")
        finally:
            tried.set()

    windows = FakeWindows()
    windows.win32.programs[r"c:\child.exe"] = program
    with job_with(windows) as job, Child(windows, job) as child:
        job.terminate(1)
        ended.set()
        assert tried.wait(HANG / 1000)
        assert list(windows.win32.processes) == [child.pid]
        assert job.accounting().active == 0


def test_end_returns_when_nothing_is_left(windows: Windows) -> None:
    with job_with(windows) as job, Child(windows, job, "spawn:spawn:hang;hang", "spawn:hang", "hang") as child:
        child.line()
        job.end(9)
        assert job.processes() == ()
        assert child.exit_code() == 9
        job.end(9)  # harmless


def test_kill_on_close(windows: Windows) -> None:
    job = Job(windows.win32)
    job.bind(KILL_ON_CLOSE)
    with Child(windows, job, "hang") as child:
        job.close()
        assert child.wait(HANG)


def test_without_it_the_children_live_on(windows: Windows) -> None:
    """The control of the test above."""
    job = Job(windows.win32)
    with Child(windows, job, "print:here\n", "hang") as child:
        job.close()
        assert child.line() == "here"
        assert child.exit_code() is None
        windows.win32.terminate_process(child.handle, 4)
        assert child.wait(HANG)


OWNER = """
import sys
from proc_sandbox.backends.windows.job import Bounds, Job
from proc_sandbox.backends.windows.native import Native
from proc_sandbox.backends.windows.process import command_line, start
from proc_sandbox.backends.windows.winapi import JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE, Creation, ExtendedLimits
import os
win32 = Native()
job = Job(win32)
job.bind(Bounds(ExtendedLimits(JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE)))
line = command_line([sys.executable, "-I", "-S", "-c", "import time; time.sleep(3600)"])
child = start(win32, Creation(sys.executable, line, f"SYSTEMROOT={os.environ['SYSTEMROOT']}\\0\\0", jobs=(job.handle,)))
print(child.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "win32", reason="there is no Windows here")
def test_kill_on_close_when_the_owner_is_killed() -> None:
    """Also when nobody closes: the owner's end is the end of its handles."""
    from proc_sandbox.backends.windows.native import Native

    win32 = Native()
    code = f"import sys; sys.path.insert(0, {str(Path(proc_sandbox.__file__).parents[1])!r})\n" + OWNER
    with subprocess.Popen([sys.executable, "-I", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
        assert owner.stdout
        child = win32.open_process(int(owner.stdout.readline()), PROCESS_QUERY_INFORMATION | 0x100000)
        assert not win32.wait(child, 0)
        owner.kill()
        assert win32.wait(child, HANG)
        win32.close(child)


def test_no_way_out(windows: Windows) -> None:
    with job_with(windows) as job, Child(windows, job, "spawn-free:hang", "hang") as child:
        assert child.line() == f"refused {ERROR_ACCESS_DENIED}"
        assert job.processes() == (child.pid,)


@pytest.mark.parametrize(
    ("flag", "act"),
    [(JOB_OBJECT_LIMIT_BREAKAWAY_OK, "spawn-free:exit:0"), (JOB_OBJECT_LIMIT_SILENT_BREAKAWAY_OK, "spawn:exit:0")],
)
def test_way_out_where_the_job_has_one(windows: Windows, flag: int, act: str) -> None:
    """The control of the test above."""
    with job_with(windows, limits(flag)) as job, Child(windows, job, act, "wait", "print:done\n", "hang") as child:
        assert child.line() == "spawned"
        assert child.line() == "done"
        assert job.accounting().total == 1


def test_nested_from_birth(windows: Windows) -> None:
    with job_with(windows) as outer, job_with(windows) as inner:
        creation = windows.child("hang")._replace(jobs=(outer.handle, inner.handle), flags=DETACHED_PROCESS)
        with start(windows.win32, creation) as process:
            assert windows.win32.is_process_in_job(process.handle, outer.handle)
            assert windows.win32.is_process_in_job(process.handle, inner.handle)
            outer.terminate(6)
            assert process.wait(HANG)
            assert process.exit_code() == 6


def test_nested_later(windows: Windows) -> None:
    with job_with(windows) as outer, job_with(windows) as inner, Child(windows, outer, "hang") as child:
        windows.win32.assign_process(inner.handle, child.handle)
        assert windows.win32.is_process_in_job(child.handle, outer.handle)
        assert inner.processes() == (child.pid,)
        outer.terminate(6)
        assert child.wait(HANG)
        messages(inner, JOB_OBJECT_MSG_ACTIVE_PROCESS_ZERO)


def test_wake(windows: Windows) -> None:
    with job_with(windows) as job:
        thread = threading.Thread(target=job.wake)
        thread.start()
        assert job.next_message(HANG) is None
        thread.join()


def test_after_its_end_a_job_takes_no_harm(windows: Windows) -> None:
    with job_with(windows) as job:
        pass
    job.wake()
    job.terminate(1)
    job.close()


def test_unknown_handle(windows: Windows) -> None:
    job = windows.win32.create_job()
    windows.win32.close(job)
    with pytest.raises(Win32Error) as caught:
        windows.win32.terminate_job(job, 1)
    assert caught.value.code == ERROR_INVALID_HANDLE


def test_unknown_limit(windows: Windows) -> None:
    with (
        job_with(windows) as job,
        pytest.raises(Win32Error) as caught,
    ):
        windows.win32.set_extended_limits(job.handle, ExtendedLimits(1 << 30))
        assert caught.value.code == ERROR_INVALID_PARAMETER


def test_crash(windows: Windows) -> None:
    """The code is the exception's, unsigned."""
    with (
        job_with(windows, limits(JOB_OBJECT_LIMIT_DIE_ON_UNHANDLED_EXCEPTION)) as job,
        Child(windows, job, "crash") as child,
    ):
        assert child.wait(HANG)
        assert child.exit_code() == STATUS_ACCESS_VIOLATION


def test_exit_code_that_means_still_active(windows: Windows) -> None:
    with job_with(windows) as job, Child(windows, job, "print:here\n", "exit:259") as child:
        child.line()
        assert child.wait(HANG)
        assert child.exit_code() == 259


EVERYTHING = Bounds(
    ExtendedLimits(
        flags=JOB_OBJECT_LIMIT_PROCESS_TIME | JOB_OBJECT_LIMIT_JOB_TIME | JOB_OBJECT_LIMIT_ACTIVE_PROCESS
        | JOB_OBJECT_LIMIT_PRIORITY_CLASS | JOB_OBJECT_LIMIT_PROCESS_MEMORY | JOB_OBJECT_LIMIT_JOB_MEMORY
        | JOB_OBJECT_LIMIT_DIE_ON_UNHANDLED_EXCEPTION | JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE,
        process_time=10_000_000,
        job_time=20_000_000,
        active_processes=3,
        priority_class=PRIORITY_CLASSES["below normal"],
        process_memory=64 * MEGABYTE + 1,
        job_memory=128 * MEGABYTE + 4095,
    ),
    ui=0xFF,
    cpu_rate=CpuRate(CAPPED, 2500),
)  # fmt: skip


def test_all_bounds_are_read_back(windows: Windows) -> None:
    """Wine has the classes for some and keeps none: nothing that it accepts is taken for a limit."""
    with Job(windows.win32) as job:
        lost = dict(job.bind(EVERYTHING))
    if not windows.win32.wine_version():
        assert lost == {}
        return
    assert set(lost) == {*VALUES, "die_on_unhandled_exception", "kill_on_job_close", "ui", "cpu_rate"} - {"affinity"}
    assert lost["job_memory"] == lost["active_processes"] == "accepted and not kept"
    assert "accepted, and cannot be read back" in lost["ui"]
    assert lost["cpu_rate"].startswith("refused")


def test_a_limit_that_is_kept_otherwise_is_not_kept(windows: Windows) -> None:
    other = Changed(
        windows.win32, extended_limits=lambda job: ExtendedLimits(JOB_OBJECT_LIMIT_ACTIVE_PROCESS, active_processes=4)
    )
    with Job(other) as job:
        asked = Bounds(ExtendedLimits(JOB_OBJECT_LIMIT_ACTIVE_PROCESS, active_processes=3))
        assert job.bind(asked) == (NotKept("active_processes", "accepted and not kept"),)


def test_other_bounds_that_are_kept_otherwise(windows: Windows) -> None:
    """Asked of a system that has both, and gives back less than it was given."""
    lying = Changed(
        windows.win32,
        set_cpu_rate=lambda job, rate: None,
        cpu_rate=lambda job: CpuRate(0, 0),
        ui_restrictions=lambda job: 0x0F,
    )
    with Job(lying) as job:
        assert job.bind(Bounds(ui=0xFF, cpu_rate=CpuRate(CAPPED, 2500))) == (
            NotKept("ui", "accepted and not kept"),
            NotKept("cpu_rate", "accepted and not kept"),
        )
        assert job.bind(Bounds(ui=0x03)) == ()  # more than was asked for is kept as well


def test_a_way_out_that_nobody_asked_for_is_told(windows: Windows) -> None:
    other = Changed(windows.win32, extended_limits=lambda job: ExtendedLimits(JOB_OBJECT_LIMIT_BREAKAWAY_OK))
    with Job(other) as job:
        assert job.bind(Bounds()) == (NotKept("breakaway_ok", "there without being asked for"),)


def test_accounting_without_bytes(windows: Windows) -> None:
    """Where the better class is missing, as it is in Wine, times and counts come from the other one."""
    old = Changed(windows.win32, basic_and_io_accounting=failing("QueryInformationJobObject", ERROR_INVALID_FUNCTION))
    with Job(old) as job:
        assert job.accounting() == (0, 0, 0, 0, 0, 0, -1, -1)
        assert not job.counts_io


def test_accounting_that_fails_for_another_reason(windows: Windows) -> None:
    broken = Changed(windows.win32, basic_and_io_accounting=failing("QueryInformationJobObject", ERROR_ACCESS_DENIED))
    with Job(broken) as job, pytest.raises(Win32Error):
        job.accounting()


# What follows has never run on Windows: on the fake it holds for what Microsoft documents.


@pytest.mark.needs_windows
@pytest.mark.parametrize(
    ("bounds", "told"),
    [
        (limits(JOB_OBJECT_LIMIT_JOB_MEMORY, job_memory=256 * MEGABYTE), JOB_OBJECT_MSG_JOB_MEMORY_LIMIT),
        (limits(JOB_OBJECT_LIMIT_PROCESS_MEMORY, process_memory=256 * MEGABYTE), JOB_OBJECT_MSG_PROCESS_MEMORY_LIMIT),
    ],
)
def test_memory(windows: Windows, bounds: Bounds, told: int) -> None:
    with (
        job_with(windows, bounds) as job,
        Child(windows, job, f"allocate:{64 * MEGABYTE}", f"allocate:{512 * MEGABYTE}", "hang") as child,
    ):
        assert child.line() == "allocated"
        assert child.line().startswith("refused")
        assert messages(job, told)[-1].value == child.pid
        assert 64 * MEGABYTE <= job.peaks().job < 256 * MEGABYTE


@pytest.mark.needs_windows
def test_memory_of_all_together(windows: Windows) -> None:
    half = f"allocate:{160 * MEGABYTE}"
    with (
        job_with(windows, limits(JOB_OBJECT_LIMIT_JOB_MEMORY, job_memory=256 * MEGABYTE)) as job,
        Child(windows, job, half, f"spawn:{half};hang", "hang") as child,
    ):
        # Parent and child write at once: in which order they do, nobody knows.
        assert sorted(child.line() for _ in range(3)) == ["allocated", "refused 1455", "spawned"]


@pytest.mark.needs_windows
def test_number_of_processes(windows: Windows) -> None:
    with (
        job_with(windows, limits(JOB_OBJECT_LIMIT_ACTIVE_PROCESS, active_processes=2)) as job,
        Child(windows, job, "spawn:hang", "spawn:hang", "hang") as child,
    ):
        assert child.line() == "spawned"
        assert child.line() == f"refused {ERROR_NOT_ENOUGH_QUOTA}"
        messages(job, JOB_OBJECT_MSG_ACTIVE_PROCESS_LIMIT)
        assert len(job.processes()) == 2


@pytest.mark.needs_windows
def test_time_of_the_job(windows: Windows) -> None:
    """The system ends it, whatever we do; that it was this limit is told by the accounting."""
    with (
        job_with(windows, limits(JOB_OBJECT_LIMIT_JOB_TIME, job_time=3_000_000)) as job,
        Child(windows, job, "burn:1500", "burn:1500", "hang") as child,
    ):
        assert child.wait(HANG)
        assert child.exit_code() == ERROR_NOT_ENOUGH_QUOTA
        assert job.accounting().user >= 3_000_000


@pytest.mark.needs_windows
def test_time_of_the_job_told(windows: Windows) -> None:
    """Where a message is asked for, that is all that happens."""
    with Job(windows.win32) as job:
        windows.win32.set_end_of_job_time(job.handle, JOB_OBJECT_POST_AT_END_OF_JOB)
        job.bind(limits(JOB_OBJECT_LIMIT_JOB_TIME, job_time=3_000_000))
        with Child(windows, job, "burn:1500", "print:here\n", "hang") as child:
            messages(job, JOB_OBJECT_MSG_END_OF_JOB_TIME)
            assert child.line() == "here"
        job.end(1)


@pytest.mark.needs_windows
def test_time_of_a_process(windows: Windows) -> None:
    with (
        job_with(windows, limits(JOB_OBJECT_LIMIT_PROCESS_TIME, process_time=3_000_000)) as job,
        Child(windows, job, "burn:1500", "hang") as child,
    ):
        assert messages(job, JOB_OBJECT_MSG_END_OF_PROCESS_TIME)[-1].value == child.pid
        assert child.wait(HANG)


@pytest.mark.needs_windows
def test_times_are_counted(windows: Windows) -> None:
    with job_with(windows) as job, Child(windows, job, "burn:300", "print:done\n", "hang") as child:
        child.line()
        accounting = job.accounting()
        assert accounting.user + accounting.kernel >= 2_500_000
        times = windows.win32.process_times(child.handle)
        assert times.user + times.kernel >= 2_500_000


@pytest.mark.needs_windows
def test_abnormal_exit_is_told(windows: Windows) -> None:
    with (
        job_with(windows, limits(JOB_OBJECT_LIMIT_DIE_ON_UNHANDLED_EXCEPTION)) as job,
        Child(windows, job, "crash") as child,
    ):
        assert messages(job, JOB_OBJECT_MSG_ABNORMAL_EXIT_PROCESS)[-1].value == child.pid


@pytest.mark.needs_windows
def test_ui_limits_only_for_who_is_in_no_job_yet(windows: Windows) -> None:
    """ "AssignProcessToJobObject": so a caller that is in a job itself can have none for its runs."""
    with job_with(windows) as outer, Job(windows.win32) as inner, Child(windows, outer, "hang") as child:
        inner.bind(Bounds(ui=0xFF))
        with pytest.raises(Win32Error) as caught:
            windows.win32.assign_process(inner.handle, child.handle)
        assert caught.value.code == ERROR_ACCESS_DENIED


@pytest.mark.needs_windows
def test_cpu_rate(windows: Windows) -> None:
    """A tenth of one processor: what the child has burnt when it says so took ten times as long."""
    if not windows.real:
        pytest.skip("the fake keeps no clock")
    import os
    import time

    rate = 1000 // (os.cpu_count() or 1)
    bounds = Bounds(ExtendedLimits(JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE), cpu_rate=CpuRate(CAPPED, rate))
    with job_with(windows, bounds) as job, Child(windows, job, "print:go\n", "burn:500", "print:done\n") as child:
        child.line()
        before = time.monotonic()
        child.line()
        assert time.monotonic() - before > 2.5
