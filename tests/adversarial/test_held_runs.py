"""A command that knows that somebody holds a handle to it: it goes on while it is paused, does not heed SIGTERM, looks for what the
handle's own means have left in it, and ends in the moment in which it is signalled.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.behaviours import HOLD, LISTEN, Runner, is_held
from support.processes import status_of, until_false, victim
from support.programs import HANG, python

import proc_sandbox as ps

pytestmark = pytest.mark.filterwarnings("ignore::proc_sandbox.UnenforcedWarning")


@pytest.fixture
def run(backend: str) -> Runner:
    return Runner(backend)


COUNT = """
import ctypes, os, signal, sys, time
def count(name):
    with open(name, "ab", buffering=0) as file:
        while True:
            file.write(b"x")
            time.sleep(0.001)
"""
BY_TIMER = COUNT + """
class Event(ctypes.Structure): # sigevent(3type)
    _fields_ = [("value", ctypes.c_void_p), ("signo", ctypes.c_int), ("notify", ctypes.c_int), ("rest", ctypes.c_char * 48)]
libc, armed = ctypes.CDLL(None, use_errno=True), True
for number in range(1, 101): # each once: what is not delivered is not armed again
    timer, event = ctypes.c_void_p(), Event(None, signal.SIGCONT, 0)
    seconds, rest = divmod(number * 100_000_000, 1_000_000_000)
    times = (ctypes.c_long * 4)(0, 0, seconds, rest)
    armed = armed and not libc.timer_create(1, ctypes.byref(event), ctypes.byref(timer)) and not libc.timer_settime(timer, 0, times, None)
os.write(1, b"armed\\n" if armed else b"refused\\n")
count("itself")
"""
BY_EACH_OTHER = COUNT + """
def wake(*pids):
    while True:
        for pid in pids:
            try: os.kill(pid, signal.SIGCONT)
            except OSError: pass
command = os.getpid()
child = os.fork()
if child == 0:
    if os.fork() == 0:
        os.setsid()
        wake(command, os.getppid())
    count("child")
if os.fork() == 0:
    wake(command, child)
os.write(1, b"up\\n")
count("itself")
"""


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def goes_on(*paths: Path) -> Callable[[], bool]:
    """Whether one of them grows within a while."""

    def look() -> bool:
        before = [size(path) for path in paths]
        threading.Event().wait(0.3)
        return [size(path) for path in paths] != before

    return look


def is_stopped(pid: int) -> bool:
    return status_of(pid)[0] == "T"


def test_who_continues_itself_by_a_timer_is_stopped_again(tmp_path: Path) -> None:
    """The control: stopped once, it goes on. Linux's own backend lets it have no such timer: test_handles.py."""
    run = Runner("posix")
    with subprocess.Popen(python(BY_TIMER), cwd=tmp_path, stdout=subprocess.PIPE) as control:
        assert control.stdout is not None
        assert control.stdout.readline() == b"armed\n"
        control.send_signal(signal.SIGSTOP)
        assert not until_false(lambda: not goes_on(tmp_path / "itself")())
        control.kill()
    inside = tmp_path / "inside"
    inside.mkdir()
    with run.popen(python(BY_TIMER), stdout=ps.PIPE, working_dir=inside) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"armed\n"
        process.pause()
        for _ in range(5):
            assert not until_false(lambda: not is_stopped(process.pid)), "stopped again, each time"
            assert not until_false(lambda: is_stopped(process.pid)), "the attack works: it goes on for a moment"
        process.resume()
        assert not until_false(lambda: not goes_on(inside / "itself")())


@pytest.mark.parametrize("options", [{}, {"max_processes": 100}])
def test_those_who_continue_each_other_stand_still(run: Runner, tmp_path: Path, options: dict[str, int]) -> None:
    """The control: with one of them stopped, the others continue it."""
    with run.popen(python(BY_EACH_OTHER), stdout=ps.PIPE, working_dir=tmp_path, **options) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        os.kill(process.pid, signal.SIGSTOP)
        assert not until_false(lambda: not goes_on(tmp_path / "itself")())
        process.pause()
        still = goes_on(tmp_path / "itself", tmp_path / "child")
        assert not until_false(still)
        assert not still()
        process.resume()
        assert not until_false(lambda: not still())


def test_sigterm_is_no_occasion_to_stay(run: Runner, tmp_path: Path) -> None:
    """On SIGTERM it starts what ignores all signals, in sessions of their own; what holds a file is alive."""
    code = HOLD + LISTEN + """
def start(*_):
    for number in range(5):
        if os.fork() == 0:
            os.setsid()
            for each in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
                signal.signal(each, signal.SIG_IGN)
            if os.fork() == 0:
                held = hold(f"stray-{number}")
                os.write(1, b"stray\\n")
                wait_for_ever()
            os._exit(0)
signal.signal(signal.SIGTERM, start)
os.write(1, b"up\\n")
listen()
"""
    said: list[bytes] = []
    with run.popen(python(code), stdout=ps.PIPE, working_dir=tmp_path, kill_grace=1) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        with ThreadPoolExecutor(1) as pool:
            closing = pool.submit(process.wait)
            process.terminate()
            said = [process.stdout.readline() for _ in range(5)]
            process.held.ask("end")
            assert closing.result(HANG).reason is ps.Reason.CANCELLED
    assert said == [b"stray\n"] * 5
    assert not any(is_held(tmp_path / f"stray-{number}") for number in range(5))


def test_nothing_of_a_handles_own_is_open_in_it(run: Runner) -> None:
    """What tells of its beginning has ended with execve(2), whatever numbers the caller's descriptors have."""
    code = "import os\nfor name in sorted(map(int, os.listdir('/proc/self/fd'))):\n    try: print(name, os.readlink(f'/proc/self/fd/{name}').partition(':')[0])\n    except OSError: pass"
    given = [os.open(os.devnull, os.O_RDONLY) for _ in range(24)]
    try:
        for passed in ((), tuple(given)):
            options = {"pass_fds": passed} if passed else {}
            with run.popen(python(code), stdin=ps.PIPE, stdout=ps.PIPE, stderr=ps.PIPE, text=True, **options) as process:
                out, err = process.communicate(timeout=HANG)
            assert (process.returncode, err) == (0, "")
            found = dict(line.split() for line in out.splitlines())
            assert [found.pop(str(number)) for number in range(3)] == ["pipe"] * 3
            assert set(map(int, found)) == set(passed)
        with pytest.raises(FileNotFoundError):
            run.popen(["/proc/self/no-such-program"], pass_fds=tuple(given))
    finally:
        for descriptor in given:
            os.close(descriptor)


def test_who_ends_in_the_moment_of_a_signal_takes_nobody_with_it(run: Runner) -> None:
    """Signals by the hundred, to commands that end meanwhile; what else this user has is not met."""
    with victim() as bystander, ThreadPoolExecutor(1) as pool:
        for _ in range(20):
            with run.popen(["true"]) as process:
                over = threading.Event()

                def send(process: ps.Popen[bytes] = process, over: threading.Event = over) -> int:
                    sent = 0
                    while not over.is_set():
                        process.send_signal(signal.SIGKILL)
                        sent += 1
                    return sent

                sending = pool.submit(send)
                result = process.wait(HANG)
                over.set()
                assert sending.result(HANG) >= 0
                assert (result.reason, result.exit_code) == (ps.Reason.EXITED, 0) or (
                    result.reason is ps.Reason.SIGNALED and "which the caller had sent" in (result.error or "")
                ), result
        assert bystander.poll() is None


def test_a_command_that_kills_itself_is_not_taken_for_the_callers_signal(run: Runner) -> None:
    with run.popen(python("import os, sys; sys.stdin.read(); os.kill(os.getpid(), 10)"), stdin=ps.PIPE) as process:
        process.send_signal(signal.SIGCONT)
        assert process.stdin is not None
        process.stdin.close()
        result = process.wait(HANG)
    assert (result.reason, result.signal) == (ps.Reason.SIGNALED, 10)
    assert "sent from inside" in (result.error or "")


def test_a_command_cannot_speak_for_who_serves_it(run: Runner) -> None:
    """All that a handle hears comes on sockets that the command does not have: what it writes is output."""
    lies = [b"ended\0done\0" + b"1\0", b"began\0pid\0" + b"1\0", b"usage\0wall\0" + b"0\0", b"\0\0\0\x05over\0"]
    code = f"import os, time\nfor lie in {lies!r}:\n    for number in (0, 1, 2): \n        try: os.write(number, lie)\n        except OSError: pass\ntime.sleep(3600)"
    with run.popen(python(code), stdout=ps.PIPE, stderr=ps.PIPE) as process:
        assert process.stdout is not None
        said = b""
        while not said.endswith(lies[-1]):
            said += process.stdout.read1(4096)  # type: ignore[attr-defined]
        assert process.usage().tasks == 1
        assert process.poll() is None
        assert process.pid != 1
    assert process.wait().reason is ps.Reason.CANCELLED


def test_a_handle_whose_launcher_is_killed(tmp_path: Path) -> None:
    """By somebody outside: no command reaches it. The run is dead with it, which every use says that has to know."""
    from proc_sandbox.launcher.process import launcher

    run = Runner("linux")
    code = HOLD + "held = hold('command')\nos.write(1, b'up\\n')\nwait_for_ever()"
    with ThreadPoolExecutor(2) as pool:
        process = run.popen(python(code), stdout=ps.PIPE, working_dir=tmp_path)
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        waiting = [pool.submit(process.wait) for _ in range(2)]
        os.kill(launcher().pid, signal.SIGKILL)
        for found in waiting:
            with pytest.raises(ps.LauncherDiedError):
                found.result(HANG)
    for use in (process.wait, process.poll, process.usage, process.communicate):
        with pytest.raises(ps.LauncherDiedError):
            use()
    for harmless in (process.kill, process.terminate, process.pause, process.close, process.kill):
        harmless()
    assert not until_false(lambda: is_held(tmp_path / "command"))
    assert run(["true"]).ok, "the next run has a new one"
