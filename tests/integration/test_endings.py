"""Nothing survives: every ending of a run, with processes in it that want to stay.

Each run leaves daemons in four fashions (double-forked with setsid, deaf to every signal, stopped, orphaned), all of
which hold a pipe of the test and the command's own streams.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.behaviours import promise
from support.fixtures import Programs
from support.processes import (
    Witness,
    assert_nothing_survives_kills,
    caller,
    carriers,
    children,
    new_mark,
    output_of,
    wait_dead,
    watched,
    witness,
)
from support.programs import HANG, inside, outside, python, text

import proc_sandbox as ps
from proc_sandbox.launcher.process import launcher_path

EVERY_BACKEND = True

COUNT = 40

CALLER = """
import os, signal, sys, threading
import proc_sandbox as ps
fd, how, program = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
def handler(number, frame):
    raise RuntimeError("from a handler")
signal.signal(signal.SIGUSR1, handler)
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in a shell's background
def run():
    return ps.run(program, allowed_dirs=[os.path.dirname(program[0])], pass_fds=[fd])
if how == "thread":
    threading.Thread(target=run, daemon=True).start()
    sys.stdin.readline()
    sys.exit(0)
try:
    print(run().reason)
except BaseException as error:
    print(type(error).__name__, flush=True)
    print(ps.run(["echo", "again"]).stdout)
"""


@contextlib.contextmanager
def daemons(programs: Programs, ending: str, count: int = COUNT) -> Iterator[tuple[list[str], Witness, str]]:
    """A command that leaves daemons, the pipe that they hold, and the mark by which the host shows them."""
    mark = new_mark()
    with witness() as pipe:
        yield [programs("daemons"), str(count), str(pipe.write_end), ending, mark], pipe, mark


def test_the_control_daemons_survive_outside(programs: Programs) -> None:
    """Without a sandbox they all stay, so that the tests below prove something. The test clears them away itself."""
    with daemons(programs, "exit", 8) as (command, pipe, mark):
        assert (
            outside(command, pass_fds=[pipe.write_end], stdout=subprocess.DEVNULL, capture_output=False).returncode == 0
        )
        pipe.hear(b"ready")
        left = carriers(mark)
        try:
            assert len(left) == 8
        finally:
            with watched(left) as ends:
                for pid in left:
                    os.kill(pid, signal.SIGKILL)
                wait_dead(ends)


@pytest.mark.parametrize(
    ("ending", "limits", "reason"),
    [
        ("exit", {}, ps.Reason.EXITED),
        ("kill", {}, ps.Reason.SIGNALED),
        ("hang", {"timeout": 3.0}, ps.Reason.TIMEOUT),
        ("spin", {"cpu_time_limit": 1}, ps.Reason.CPU_TIME),
        ("eat", {"memory_limit": "100M"}, ps.Reason.MEMORY),
        ("flood", {"timeout": 3.0, "max_output": "64K"}, ps.Reason.TIMEOUT),
    ],
)
def test_an_ending_by_itself_or_by_a_limit(
    programs: Programs, ending: str, limits: dict[str, object], reason: ps.Reason
) -> None:
    with daemons(programs, ending) as (command, pipe, mark):
        result = inside(command, pass_fds=[pipe.write_end], allowed_dirs=[programs.directory], **limits)
        assert carriers(mark) == []
        assert result.reason is reason, result
        pipe.hear(b"ready")
        pipe.wait_alone()


def test_a_grandchild_that_keeps_stdout_does_not_keep_the_caller(programs: Programs) -> None:
    """The run ends with its command, long before the sleeper would have let go of the pipe."""
    began = time.monotonic()
    result = inside(["sh", "-c", "echo said; sleep 3000 & exit 4"])
    assert (result.exit_code, result.stdout) == (4, b"said\n")
    assert time.monotonic() - began < HANG / 2


def test_other_ends_do_not_tell_of_a_run_that_has_left_processes() -> None:
    """As long as its daemons die, runs beside it end, of which the launcher is told by the same eventfd for all."""
    code = (
        "import os, sys\nfor _ in range(100):\n  if os.fork() == 0:\n    for _ in iter(int, 1): pass\n"
        "import time; time.sleep(0.2)"
    )
    over = threading.Event()

    def end_again_and_again() -> None:
        while not over.is_set():
            inside(["true"])

    others = [threading.Thread(target=end_again_and_again) for _ in range(2)]
    for other in others:
        other.start()
    try:
        for _ in range(5):
            mark = new_mark()
            assert inside(python(code, mark)).ok
            assert carriers(mark) == []
    finally:
        over.set()
        for other in others:
            other.join()


def test_what_was_written_before_the_end_is_all_there() -> None:
    code = "import os, subprocess, sys\nsubprocess.Popen(['sleep', '3000'])\nos.write(1, b'x' * 60000); os._exit(0)"
    for _ in range(10):
        assert len(inside(python(code)).stdout) == 60000


def test_a_command_that_stops_itself_meets_its_deadline() -> None:
    result = inside(["sh", "-c", "echo before; kill -STOP $$; echo after"], timeout=1.0)
    assert (result.reason, result.stdout) == (ps.Reason.TIMEOUT, b"before\n")


@promise("others")
def test_a_command_that_stops_everything_meets_its_deadline() -> None:
    code = "import os, signal\nprint('x', flush=True)\nos.kill(0, signal.SIGSTOP)\nos.kill(-1, signal.SIGSTOP)\nimport time; time.sleep(600)"
    result = inside(python(code), timeout=1.0)
    assert result.reason is ps.Reason.TIMEOUT


@promise("others")
def test_a_bounded_fork_bomb_is_over_with_its_run(programs: Programs) -> None:
    """Bounded by its own tickets as well: should the limit not hold, the host stays usable."""
    script = f"for i in 1 2 3 4; do {programs('tasks')} bomb 60 & done; wait"
    result = inside(["sh", "-c", script], max_processes=30, allowed_dirs=[programs.directory], timeout=30)
    assert "refused" in text(result) or b"fork" in result.stderr or result.timed_out  # the shell may be the one refused
    assert "ESCAPED" not in text(result)


@pytest.mark.parametrize(("number", "said"), [(signal.SIGINT, "KeyboardInterrupt"), (signal.SIGUSR1, "RuntimeError")])
def test_an_exception_in_the_caller(programs: Programs, number: signal.Signals, said: str) -> None:
    """Ctrl-C, or whatever a signal handler raises: the tree is dead before the exception leaves, and the next run works."""
    with daemons(programs, "hang") as (command, pipe, mark):
        with caller(CALLER, str(pipe.write_end), "main", *command, pass_fds=[pipe.write_end]) as process:
            pipe.hear(b"ready")
            in_the_box = [pid for pid in carriers(mark) if pid != process.pid]
            assert len(in_the_box) == COUNT + 1
            with watched(in_the_box) as ends:
                process.send_signal(number)
                assert process.stdout is not None
                assert process.stdout.readline() == said.encode() + b"\n"
                wait_dead(ends)
                assert process.stdout.readline() == b"b'again\\n'\n"
        pipe.wait_alone()
        assert carriers(mark) == []


@pytest.mark.parametrize("how", ["killed", "terminated", "exits while a thread runs"])
def test_the_end_of_the_caller(programs: Programs, how: str) -> None:
    with daemons(programs, "hang") as (command, pipe, mark):
        mode = "thread" if how.startswith("exits") else "main"
        options = {"pass_fds": [pipe.write_end], "stdin": subprocess.PIPE}
        with caller(CALLER, str(pipe.write_end), mode, *command, **options) as process:
            pipe.hear(b"ready")
            launchers = children(process.pid)
            assert launchers
            with watched(launchers) as ends:
                if how == "killed":
                    process.kill()
                elif how == "terminated":
                    process.terminate()
                else:
                    assert process.stdin is not None
                    process.stdin.write(b"go\n")
                    process.stdin.flush()
                process.wait(HANG)
                wait_dead(ends)
        pipe.wait_alone()
        assert carriers(mark) == []


def test_the_launcher_killed() -> None:
    """A fault of ours, or of whoever killed it: every run of it is dead, the caller is told, the next run works."""
    code = """
import os, sys
import proc_sandbox as ps
fd, mark = int(sys.argv[1]), sys.argv[2]
try:
    print(ps.run(["bash", "-c", f"echo ready >&{fd}; sleep 3000; exit", mark], pass_fds=[fd]))
except ps.LauncherDiedError as error:
    print("told", flush=True)
print(ps.run(["echo", "again"]).stdout)
"""
    mark = new_mark()
    with witness() as pipe:
        with caller(code, str(pipe.write_end), mark, pass_fds=[pipe.write_end]) as process:
            pipe.hear(b"ready")
            in_the_box = [pid for pid in carriers(mark) if pid != process.pid]
            assert in_the_box
            with watched(in_the_box) as ends:
                for pid in children(process.pid):
                    os.kill(pid, signal.SIGKILL)
                wait_dead(ends)
            out, err = process.communicate(timeout=HANG)
            assert out.decode().splitlines() == ["told", "b'again\\n'"], err
        pipe.wait_alone()


@pytest.mark.parametrize("seed", ["1", "2", "3"])
def test_the_launcher_killed_at_any_moment(tmp_path: Path, seed: str) -> None:
    """Also between the birth of a run's first process and its first step: it would wait for the launcher's word for ever."""
    copy = tmp_path / f"launcher-{new_mark()}"
    shutil.copy(launcher_path(), copy)
    assert_nothing_survives_kills(copy, seed)


def test_a_stopped_caller_does_not_stop_the_deadline() -> None:
    """The launcher holds the deadline: the run ends while its caller cannot move."""
    code = """
import sys
import proc_sandbox as ps
fd = int(sys.argv[1])
print(ps.run(["bash", "-c", f"echo ready >&{fd}; sleep 3000"], pass_fds=[fd], timeout=15).timed_out)
"""
    with witness() as pipe, caller(code, str(pipe.write_end), pass_fds=[pipe.write_end]) as process:
        pipe.hear(b"ready")
        in_the_box = [
            pid for launcher in children(process.pid) for reaper in children(launcher) for pid in children(reaper)
        ]
        assert in_the_box
        with watched(in_the_box) as ends:
            process.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            wait_dead(ends)
            process.send_signal(signal.SIGCONT)
        out, err = process.communicate(timeout=HANG)
        assert out == b"True\n", err


def test_a_busy_interpreter_does_not_stop_the_deadline() -> None:
    """Another thread holds the interpreter's lock in C code for longer than the limit."""
    code = """
import ctypes, sys, threading, time
import proc_sandbox as ps
results = []
thread = threading.Thread(target=lambda: results.append(ps.run(["sleep", "3000"], timeout=1)))
ps.run(["true"])
thread.start()
time.sleep(0.3)
ctypes.PyDLL(None).sleep(4)  # a PyDLL keeps the lock
thread.join()
print(results[0].timed_out, results[0].execution_time < 3)
"""
    assert output_of(code) == "True True\n"


def test_a_fork_of_the_caller_changes_nothing(programs: Programs) -> None:
    """The child ends, by every way there is; the parent's run goes on. And the child may run something itself."""
    code = """
import os, sys, threading
import proc_sandbox as ps
results = []
read_end, write_end = os.pipe()
assert ps.run(["true"]).ok
thread = threading.Thread(target=lambda: results.append(
    ps.run(["bash", "-c", f"echo r >&{write_end}; cat"], stdin=gate_read, pass_fds=[write_end])))
gate_read, gate_write = os.pipe()
thread.start()
os.read(read_end, 1)
for way in range(3):
    pid = os.fork()
    if pid == 0:
        os.close(gate_write)
        if way == 0:
            os._exit(0)
        if way == 1:
            result = ps.run(["echo", "child"])
            os._exit(0 if result.stdout == b"child\\n" else 1)
        os.kill(os.getpid(), 9)
    status = os.waitpid(pid, 0)[1]
    assert status == (9 if way == 2 else 0), (way, status)
os.write(gate_write, b"still here")
os.close(gate_write)
thread.join()
print(results[0].stdout, results[0].reason.value)
"""
    assert output_of(code) == "b'still here' exited\n"


def test_runs_of_a_thread_that_is_gone() -> None:
    """A parent-death signal would belong to the thread that started the launcher; runs must outlive that thread."""
    code = """
import threading
import proc_sandbox as ps
first = threading.Thread(target=lambda: ps.run(["true"]))
first.start(); first.join()
print(ps.run(["sh", "-c", "sleep 0.5; echo fine"]).stdout)
"""
    assert output_of(code) == "b'fine\\n'\n"


@pytest.mark.usefixtures("idmap")
def test_cleanup_ends_what_still_runs(programs: Programs) -> None:
    with daemons(programs, "hang") as (command, pipe, mark):
        box = ps.Sandbox(allowed_dirs=[programs.directory], pass_fds=[pipe.write_end])
        ends: list[object] = []

        def target() -> None:
            try:
                ends.append(box.run(command).reason)
            except ps.SandboxClosedError as error:
                ends.append(error)

        thread = threading.Thread(target=target)
        thread.start()
        pipe.hear(b"ready")
        box.cleanup()
        thread.join(HANG)
        assert not thread.is_alive()
        assert ends[0] is ps.Reason.CANCELLED or isinstance(ends[0], ps.SandboxClosedError)
        assert carriers(mark) == []
        pipe.wait_alone()


def test_no_temporary_file_is_left(tmp_path: Path) -> None:
    """The caller's own temporary directory, in every ending of a run and of the caller."""
    code = """
import os, sys
import proc_sandbox as ps
ps.run(["sh", "-c", "echo x > /tmp/a; echo x > file"], input=b"x" * 1000000)
ps.run(["sleep", "60"], timeout=0.2)
try:
    ps.run(["no-such-command"])
except FileNotFoundError:
    pass
os.kill(os.getpid(), int(sys.argv[1])) if sys.argv[1] != "0" else None
"""
    for number in ("0", "15", "9"):
        with caller(code, number, env={"TMPDIR": str(tmp_path)}) as process:
            process.communicate(timeout=HANG)
        assert list(tmp_path.iterdir()) == []


def test_a_signal_handler_that_returns_does_not_disturb_a_run() -> None:
    """EINTR is not the user's business (PEP 475)."""
    hits = []
    before = signal.signal(signal.SIGALRM, lambda *_: hits.append(1))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
        result = inside(["sh", "-c", "sleep 1; echo done"])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert result.stdout == b"done\n"
    assert hits
