"""What a handle asks of a run, on the fake Windows; what Wine and Windows make of handles is in tests/behaviour/test_handles.py."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support.windows import failing
from support.windows_runs import FakeRunner

import proc_sandbox as ps
from proc_sandbox.backends.windows.run import Watch, WindowsRun
from proc_sandbox.backends.windows.streams import Streams
from proc_sandbox.backends.windows.winapi import ERROR_ACCESS_DENIED
from proc_sandbox.report import Ended, Failed
from proc_sandbox.supervise import Supervisor

MEGABYTE = 1 << 20


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeRunner]:
    made = FakeRunner(str(tmp_path / "journal"))
    yield made
    made.check_nothing_is_left()


class Held(NamedTuple):
    """A run that goes on."""

    run: WindowsRun
    watch: Watch
    streams: Streams
    supervisor: Supervisor

    def end(self) -> Ended | Failed:
        """Step until it is over."""
        while (outcome := self.watch.step()) is None:
            pass
        return outcome


@contextlib.contextmanager
def held(fake: FakeRunner, *words: str, **config: Any) -> Iterator[Held]:
    supervisor = Supervisor(MEGABYTE)
    streams = fake.backend.open_streams(ps.Config(**config), None, supervisor, held=True)
    try:
        with fake.backend.start(fake.plan(*words, **config), streams, held=True) as run:
            streams.release()
            yield Held(run, run.pump(streams), streams, supervisor)
    finally:
        streams.close()


def test_a_step_is_no_longer_than_it_is_told(fake: FakeRunner) -> None:
    with held(fake, "hang") as it:
        assert it.run.pid
        assert it.run.pid in fake.win32.processes
        assert it.watch.step(0) is None
        assert it.watch.step(0.01) is None
        it.run.ask("kill")
        outcome = it.end()
        assert isinstance(outcome, Ended)
        assert (outcome.cancelled, outcome.done) == (True, False)
        assert it.run.outcome is it.watch.step() is outcome, "told again, whoever asks"
        it.run.ask("usage 1")
        assert it.run.answered == 0, "harmless after the end"


def test_a_command_that_was_not_run(fake: FakeRunner) -> None:
    del fake.win32.programs["c:\\program files\\child.exe"]
    with held(fake, "x") as it:
        assert it.run.pid is None
        assert isinstance(it.watch.step(0), Failed)
        it.run.ask("kill")


def test_pipes_are_the_callers(fake: FakeRunner) -> None:
    with held(fake, "echo", "error:problem", stdin=ps.PIPE, stdout=ps.PIPE, stderr=ps.PIPE) as it:
        descriptors = [it.streams.take(name) for name in ("stdin", "stdout", "stderr")]
        assert all(descriptors)
        assert [it.streams.take(name) for name in ("stdin", "stdout", "stderr")] == [None] * 3
        said: dict[int, bytearray] = {1: bytearray(), 2: bytearray()}
        for number in (1, 2):
            it.watch.collect(descriptors[number] or 0, said[number].extend)
        it.watch.feed(descriptors[0] or 0, b"x" * MEGABYTE)
        it.end()
        assert (bytes(said[1]), bytes(said[2])) == (b"x" * MEGABYTE, b"problem")
        assert not fake.win32.descriptors


def test_pipes_that_nobody_took_are_closed(fake: FakeRunner) -> None:
    with held(fake, "exit:0", stdin=ps.PIPE, stdout=ps.PIPE) as it:
        it.end()


def test_what_is_left_in_a_pipe_is_read_after_the_end(fake: FakeRunner) -> None:
    with held(fake, "print:rest", stdout=ps.PIPE) as it:
        descriptor = it.streams.take("stdout")
        assert descriptor
        it.end()
        said = bytearray()
        it.watch.collect(descriptor, said.extend)
        assert said == b"rest"


def test_what_comes_wakes_who_waits(fake: FakeRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    """By one message at a time: a command that writes for ever fills no port that nobody looks at."""
    posted = []
    given = fake.win32.post_completion
    monkeypatch.setattr(fake.win32, "post_completion", lambda port, completion: (posted.append(completion), given(port, completion)))
    with held(fake, "flood:900000", "hang") as it:
        while len(it.supervisor.stdout.kept) < 900_000:
            threading.Event().wait(0.001)
        assert len(posted) == 1
        it.watch.step(0)
        it.run.ask("end")
        it.end()


def test_usage(fake: FakeRunner) -> None:
    with held(fake, "spawn:allocate:5000000;hang", f"allocate:{3 * MEGABYTE}", "burn:1500", "print:up", "hang") as it:
        while b"up" not in it.supervisor.stdout.kept:
            it.watch.step()
        while not any(process.memory == 5_000_000 for process in fake.win32.processes.values()):
            it.watch.step()
        it.run.ask("usage 1")
        answer = it.run.answer
        assert it.run.answered == 1
        assert answer
        assert (answer.memory, answer.tasks, answer.cpu) == (3 * MEGABYTE + 5_000_000, 2, 1_500_000_000)
        assert (answer.disk_read, answer.disk_written) == (-1, -1)
        assert answer.wall > 0


def test_memory_of_who_has_taken_over_a_number_is_not_the_runs(fake: FakeRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    with held(fake, f"allocate:{MEGABYTE}", "print:up", "hang") as it:
        while b"up" not in it.supervisor.stdout.kept:
            it.watch.step()
        assert it.run.committed() == MEGABYTE
        other = fake.backend.start(fake.plan("hang"), stranger := fake.backend.open_streams(ps.Config(), None, Supervisor(1)))
        assert other.pid
        pids = it.run.job.processes()
        monkeypatch.setattr(it.run.job, "processes", lambda: (*pids, other.pid, 999))
        assert it.run.committed() == MEGABYTE, "one that has ended does not count either"
        monkeypatch.setattr(fake.win32, "process_memory", failing("K32GetProcessMemoryInfo", ERROR_ACCESS_DENIED))
        assert it.run.committed() == -1, "not known is not little"
        other.close()
        stranger.close()


@pytest.mark.parametrize("what", ["signal 2", "signal 9", "pause", "resume"])
def test_what_windows_has_not_is_refused(fake: FakeRunner, what: str) -> None:
    with held(fake, "hang") as it:
        with pytest.raises(ps.UnsupportedError) as caught:
            it.run.ask(what)
        assert caught.value.reason
        assert caught.value.remedy
        it.run.ask("signal 15")
        outcome = it.end()
        assert isinstance(outcome, Ended)
        assert outcome.cancelled
