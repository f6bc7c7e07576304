"""Whoever of caller, warden and monitor dies: the run ends, all of it, and nobody is told a verdict that nobody knows."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import psutil
import pytest
from support.behaviours import HOLD, Runner, is_held
from support.processes import Witness, caller, output_of, until_false, witness
from support.programs import HANG, python

import proc_sandbox as ps
from proc_sandbox.backends.posix import process
from proc_sandbox.backends.posix.probe import psutil_directory
from proc_sandbox.backends.posix.process import shutdown, warden

DAEMON = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.write({fd}, b"daemon ")
        while True:
            time.sleep(3600)
    os._exit(0)
os.wait()
os.write({fd}, b"ready ")
while True:
    time.sleep(3600)
"""
"""A command with a daemon: it has left the session and has no parent of the run's."""


def monitor_of_the_only_run() -> psutil.Process:
    (found,) = [child for child in psutil.Process(warden().pid).children() if child.name() == "monitor"]
    return found


@contextmanager
def daemons(run: Runner, outcomes: list[object], **config: object) -> Iterator[Witness]:
    """A run with a daemon under way, in a thread; what became of it goes into outcomes."""

    def go() -> None:
        try:
            outcomes.append(run(python(DAEMON.format(fd=pipe.write_end)), pass_fds=[pipe.write_end], **config))
        except ps.SandboxError as error:
            outcomes.append(error)

    with witness() as pipe:
        thread = Thread(target=go)
        thread.start()
        pipe.hear(b"ready")
        pipe.hear(b"daemon")
        yield pipe
        thread.join(HANG)
        assert not thread.is_alive()
        pipe.wait_alone()


def test_a_monitor_that_is_killed_is_told_as_that(run: Runner) -> None:
    outcomes: list[object] = []
    with daemons(run, outcomes):
        monitor_of_the_only_run().kill()
    assert isinstance(outcomes[0], ps.LauncherDiedError)
    assert "monitor" in str(outcomes[0])


def test_a_warden_that_is_killed_is_told_as_that_and_the_next_one_ends_what_it_has_left(run: Runner) -> None:
    """The command's group dies by its monitor, the daemon, which has left it, by the mark."""
    outcomes: list[object] = []
    with daemons(run, outcomes):
        os.kill(warden().pid, signal.SIGKILL)
    assert isinstance(outcomes[0], ps.LauncherDiedError)
    assert run(["true"]).ok


def test_a_monitor_that_the_command_has_stopped_goes_on(run: Runner) -> None:
    code = "import os, signal, time; os.kill(os.getppid(), signal.SIGSTOP); time.sleep(3600)"
    assert run(python(code), timeout=0.3).reason is ps.Reason.TIMEOUT


def test_a_warden_that_the_command_has_stopped_goes_on_at_the_deadline(run: Runner) -> None:
    code = "import os, signal, sys, time; os.kill(int(sys.argv[1]), signal.SIGSTOP); time.sleep(3600)"
    assert run(python(code, str(warden().pid)), timeout=0.5).reason is ps.Reason.TIMEOUT


CALLER = """
import os, sys, warnings
warnings.simplefilter("ignore")
import proc_sandbox as ps
os.set_inheritable(int(sys.argv[1]), False)
{before}
ps.run([sys.executable, "-c", sys.argv[2]], backend="posix", enforcement="best-effort", pass_fds=[int(sys.argv[1])])
"""


@pytest.mark.parametrize("before", ["", "if os.fork() == 0:\n    import time; os.close(int(sys.argv[1])); time.sleep(3600)"])
def test_the_tree_ends_with_a_caller_that_is_killed(before: str) -> None:
    """Also where a child of the caller's lives on."""
    with witness() as pipe:
        code = CALLER.format(before=before)
        with caller(code, str(pipe.write_end), DAEMON.format(fd=pipe.write_end), pass_fds=[pipe.write_end], start_new_session=True) as killed:
            pipe.hear(b"ready")
            pipe.hear(b"daemon")
            killed.kill()
            pipe.wait_alone()
            if before:
                os.killpg(killed.pid, signal.SIGKILL)


def test_a_child_by_fork_has_a_warden_of_its_own(run: Runner) -> None:
    assert run(["true"]).ok
    ours = warden().pid
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            done = run(["true"])
            os.write(writer, f"{done.ok} {warden().pid}".encode())
            shutdown()
        finally:
            os._exit(0)
    os.close(writer)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    with open(reader, "rb") as pipe:
        ok, theirs = pipe.read().split()
    assert ok == b"True"
    assert int(theirs) != ours
    assert warden().pid == ours
    assert run(["true"]).ok


BUSY = """
import os, sys, threading, warnings
warnings.simplefilter("ignore")
import proc_sandbox as ps
reader, writer = os.pipe()
def go():
    result = ps.run(sys.argv[2:], backend="posix", enforcement="best-effort", pass_fds=[writer], env=[f"FD={{writer}}"], timeout=1.0)
    print(result.reason, flush=True)
threading.Thread(target=go).start()
os.read(reader, 1)
print("up", flush=True)
{act}
"""
HOLDER = HOLD + """
file = hold(sys.argv[1])
os.write(int(os.environ["FD"]), b"x")
wait_for_ever()
"""


@pytest.mark.parametrize("act", ["sum(range(10 ** 13))", ""])
def test_the_deadline_holds_while_the_caller_is_busy_or_stopped(act: str, tmp_path: Path) -> None:
    """sum() does not let go of the interpreter's lock until it is done."""
    held = tmp_path / "held"
    with caller(BUSY.format(act=act), "-", *python(HOLDER, str(held))) as busy:
        assert busy.stdout is not None
        assert busy.stdout.readline() == b"up\n"
        if not act:
            busy.send_signal(signal.SIGSTOP)
        assert not until_false(lambda: is_held(held))
        if not act:
            busy.send_signal(signal.SIGCONT)
            assert busy.stdout.readline() == b"timeout\n"


def test_a_monitor_that_cannot_be_started_is_an_error_that_says_so(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    shutdown()
    monkeypatch.setattr(process, "program_path", lambda name: f"/nowhere/{name}")
    with pytest.raises(ps.LaunchError) as caught:
        run(["true"])
    assert (caught.value.step, caught.value.filename) == ("monitor", "/nowhere/monitor")
    shutdown()


def test_a_warden_that_cannot_be_started_is_an_error_that_says_so(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    shutdown()
    monkeypatch.setattr(process, "BOOT", "import sys; sys.exit(1)")
    with pytest.raises(ps.LauncherDiedError, match="died before"):
        run(["true"])


def test_a_warden_that_fails_says_why(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    shutdown()
    broken = "import proc_sandbox.backends.posix.watch as w; w.Run.begin = lambda *a: 1 // 0; from proc_sandbox.backends.posix.warden import main"
    monkeypatch.setattr(process, "BOOT", process.BOOT.replace("from proc_sandbox.backends.posix.warden import main", broken))
    with pytest.raises(ps.LauncherDiedError, match="ZeroDivisionError"):
        run(["true"])
    shutdown()


CLOSED = """
import os, sys, warnings
import proc_sandbox as ps
from proc_sandbox.backends import get_ready
warnings.simplefilter("ignore")
out = os.dup(1)
os.set_inheritable(out, False)
for descriptor in map(int, sys.argv[1]):
    os.close(descriptor)
config = ps.Config(backend="posix", enforcement="best-effort")
get_ready(config)
os.write(out, ps.run(["sh", "-c", "cat; echo out; echo err >&2"], config=config).stdout)
"""


@pytest.mark.parametrize("closed", ["0", "01", "12", "012"])
def test_the_warden_of_a_caller_without_streams_of_its_own(closed: str) -> None:
    """As a daemon may be: its sockets have the numbers of what it closed, where the warden is begun before there are any others."""
    assert output_of(CLOSED, closed) == "out\n"


def test_without_psutil_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", [])
    with pytest.raises(ps.UnsupportedError) as caught:
        psutil_directory()
    assert "pip install 'proc-sandbox[posix]'" in caught.value.remedy
