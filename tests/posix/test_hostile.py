"""Commands that work against whoever looks at them. Each control takes out of the warden what holds, and shows that it is this."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import psutil
import pytest
from support.behaviours import HOLD, Runner, is_held
from support.processes import caller, until_false
from support.programs import HANG, python

import proc_sandbox as ps
from proc_sandbox.backends.posix import process
from proc_sandbox.backends.posix.process import shutdown, warden
from proc_sandbox.backends.posix.sampler import Row, Tree
from proc_sandbox.backends.posix.watch import Run

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells so of a process")
Warp = Callable[[str], None]


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> object:
    """without(CODE): the warden that comes next begins with that code."""

    boot = process.BOOT

    def warp(code: str) -> None:
        shutdown()
        imports = "import proc_sandbox.backends.posix.procfs as procfs, proc_sandbox.backends.posix.watch as watch"
        monkeypatch.setattr(process, "BOOT", boot.replace("from proc", f"{imports}; {code}; from proc", 1))

    yield warp
    shutdown()


NO_THREADS = "procfs.count_threads = lambda pid: 1"
ANYWHERE = (
    "import re; procfs.number = lambda pid, key: int(re.search(key + rb':\\t(\\d+)', procfs.read(f'/proc/{pid}/status'))[1])"
)
HEADLESS = HOLD + """
import ctypes, mmap, threading
libc = ctypes.CDLL(None)
def act():
    if sys.argv[2] == "fill":
        area = mmap.mmap(-1, 300 << 20)
        for at in range(0, len(area), mmap.PAGESIZE):
            area[at] = 1
    wait_for_ever()
def leave():
    threading.Thread(target=act).start()
    libc.pthread_exit(None)  # ctypes lets go of the interpreter's lock; the process lives, and is told as a zombie
if sys.argv[2] == "fill":
    leave()
reader, writer = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        file = hold(sys.argv[1])
        os.closerange(0, 3)
        os.write(writer, str(os.getpid()).encode())
        leave()
    os._exit(0)
os.wait()
stat = f"/proc/{os.read(reader, 20).decode()}/stat"
while open(stat).read().rpartition(")")[2].split()[0] != "Z":
    os.sched_yield()
"""


def end_holder(held: Path, pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    assert not until_false(lambda: is_held(held))


def headless_stray(run: Runner, held: Path) -> list[int]:
    """Run the attack; return the processes that are told as zombies and have threads still."""
    assert run(python(HEADLESS, str(held), "stray")).ok
    found = []
    for other in psutil.process_iter():
        try:
            if other.status() == psutil.STATUS_ZOMBIE and len(os.listdir(f"/proc/{other.pid}/task")) > 1:
                found.append(other.pid)
        except (psutil.Error, FileNotFoundError):
            continue
    return found


@linux_only
def test_a_process_whose_first_thread_has_ended_ends_with_the_run(run: Runner, tmp_path: Path, without: Warp) -> None:
    held = tmp_path / "held"
    without(NO_THREADS)
    (left,) = headless_stray(run, held)
    assert is_held(held), "the control did not work"
    end_holder(held, left)
    without("pass")
    assert headless_stray(run, held) == []
    assert not is_held(held)


@linux_only
def test_the_memory_of_a_process_whose_first_thread_has_ended_counts(run: Runner, without: Warp) -> None:
    attack = python(HEADLESS, "-", "fill")
    without(NO_THREADS)
    assert run(attack, memory_limit="100M", timeout=2).reason is ps.Reason.TIMEOUT, "the control did not work"
    without("pass")
    assert run(attack, memory_limit="100M").reason is ps.Reason.MEMORY


NAMED = """
import ctypes, sys, threading
ctypes.CDLL(None).prctl(15, sys.argv[1].encode(), 0, 0, 0)
for _ in range(int(sys.argv[2])):
    threading.Thread(target=threading.Event().wait, args=(1,)).start()
threading.Event().wait(0.5)
"""


@linux_only
def test_a_process_is_not_believed_what_its_name_says_of_its_threads(run: Runner, without: Warp) -> None:
    """15 is PR_SET_NAME: the name is the first thing in /proc/PID/status."""
    fewer, more = python(NAMED, "Threads:\t1", "60"), python(NAMED, "Threads:\t999", "1")
    without(ANYWHERE)
    assert run(fewer, max_processes=20).ok, "the control did not work"
    assert run(more, max_processes=20).reason is ps.Reason.PROCESSES, "the control did not work"
    without("pass")
    assert run(fewer, max_processes=20).reason is ps.Reason.PROCESSES
    assert run(more, max_processes=20).ok


def test_who_was_continued_by_others_is_stopped_again_at_the_next_look() -> None:
    """By the CPU limit: else once would be enough for ever."""
    ours, theirs = socket.socketpair()
    with ours, subprocess.Popen(["sleep", "3600"]) as sleeps:
        try:
            looked_at = Run(theirs, "-")
            looked_at.tree = Tree("-", 0)
            looked_at.tree.members = {sleeps.pid: Row(psutil.Process(sleeps.pid), 0, 0, 0, zombie=False, stopped=False)}
            for _ in range(2):
                looked_at.stop_all()
                assert os.WIFSTOPPED(os.waitpid(sleeps.pid, os.WUNTRACED)[1])
                sleeps.send_signal(signal.SIGCONT)
        finally:
            sleeps.kill()
            theirs.close()


STOP_BOTH = """
import os, signal, sys, time
monitor = os.getppid()
with open(f"/proc/{monitor}/stat") as stat:
    warden = int(stat.read().rpartition(")")[2].split()[1])
while True:
    for process in (warden, monitor):
        try:
            os.kill(process, signal.SIGSTOP)
        except ProcessLookupError:
            os._exit(0)
    if sys.argv[1] == "once":
        time.sleep(3600)
"""


def nobody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process.Warden, "nudge", lambda self: None)


@linux_only
def test_where_warden_and_monitor_are_stopped_the_caller_continues_them(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes: list[ps.Result] = []
    with monkeypatch.context() as patch:
        nobody_looks(patch)
        thread = Thread(target=lambda: outcomes.append(run(python(STOP_BOTH, "once"), timeout=0.3)))
        thread.start()
        thread.join(3)
        assert thread.is_alive(), "the control did not work"
    thread.join(HANG)
    assert outcomes[0].reason is ps.Reason.TIMEOUT


@linux_only
def test_where_they_are_stopped_again_and_again_the_run_ends_nevertheless(run: Runner) -> None:
    """As a verdict, or as the error that says that the warden was killed: whoever was faster."""
    try:
        assert run(python(STOP_BOTH, "always"), timeout=0.3).reason is ps.Reason.TIMEOUT
    except ps.LauncherDiedError:
        pass
    assert run(["true"]).ok


@linux_only
def test_a_stopped_warden_keeps_no_caller_from_its_end(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys, warnings; warnings.simplefilter('ignore'); import proc_sandbox as ps; "
        "from proc_sandbox.backends.posix.process import warden; "
        "print(ps.run(['true'], backend='posix', enforcement='best-effort').ok, flush=True); os.kill(warden().pid, signal.SIGSTOP)"
    )
    with caller(code) as stops:
        assert stops.stdout is not None
        assert stops.stdout.readline() == b"True\n"
        assert stops.wait(HANG) == 0


@linux_only
def test_a_monitor_that_is_stopped_when_its_warden_is_killed_does_not_stay(run: Runner, tmp_path: Path) -> None:
    heard = tmp_path / "heard"
    code = """
import os, signal, time
monitor = os.getppid()
with open(f"/proc/{monitor}/stat") as stat:
    warden = int(stat.read().rpartition(")")[2].split()[1])
print(monitor, flush=True)
os.kill(monitor, signal.SIGSTOP)
os.kill(warden, signal.SIGKILL)
time.sleep(3600)
"""
    with pytest.raises(ps.LauncherDiedError):
        run(python(code), stdout=heard)
    assert not until_false(lambda: psutil.pid_exists(int(heard.read_text())))


def test_a_run_whose_warden_dies_once_it_has_it_is_not_started_again(run: Runner, tmp_path: Path, without: Warp) -> None:
    """The caller starts a run again whose warden has died before it had the run."""
    log = tmp_path / "log"
    started = "watch.Run.start_monitor = lambda run, words, was=watch.Run.start_monitor: (was(run, words), {act})"
    log.touch()
    act = f"[None for _ in iter(lambda: __import__('os').path.getsize({str(log)!r}), 2)], __import__('os')._exit(1)"
    without(started.format(act=act))
    with pytest.raises(ps.LauncherDiedError):
        run(["sh", "-c", f"echo x >> {log}; sleep 3600"])
    assert log.read_text() == "x\n"
    assert warden().pid
