"""Who leaves the group, the session, its parent or its environment is found, but for what WEAKER says, which is shown to be so."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from support.behaviours import HOLD, Runner, is_held
from support.processes import library_path, until_false
from support.programs import HANG, python

import proc_sandbox as ps
from proc_sandbox.backends.posix.process import warden
from proc_sandbox.planner.posix.promises import WEAKER

STRAY = HOLD + """
file = hold(sys.argv[1])
os.set_inheritable(file.fileno(), True)
def leave(act):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            act()
            os._exit(1)
        os._exit(0)
    os.wait()
def stay():
    os.closerange(0, file.fileno())
    wait_for_ever()
def change():
    os.closerange(0, file.fileno())
    os.execve(sys.executable, [sys.executable, "-I", "-S", "-c", "import time; time.sleep(3600)"], {})
"""
"""leave(): a daemon that has no parent, session, group or descriptor of the run's but the file that tells whether it lives."""
KEEPS_ITS_ENVIRONMENT = STRAY + "leave(stay)"
IGNORES_AND_STOPS = STRAY + """
import signal
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT): signal.signal(number, signal.SIG_IGN)
leave(lambda: (os.kill(os.getpid(), signal.SIGSTOP), stay()))
"""
SEEN_BEFORE = STRAY + """
import time
if os.fork() == 0:
    os.setsid()
    time.sleep(0.5)  # many looks
    if os.fork() == 0:
        change()
    os._exit(0)
os.wait()
"""
UNSEEN = STRAY + """
import signal
with open(f"/proc/{os.getppid()}/stat") as stat:
    warden = int(stat.read().rpartition(")")[2].split()[1])
changed, writer = os.pipe()  # which execve() closes
os.kill(warden, signal.SIGSTOP)
leave(change)
os.close(writer)
os.read(changed, 1)
os.kill(warden, signal.SIGCONT)
"""
ATTACKS = {"keeps its environment": KEEPS_ITS_ENVIRONMENT, "ignores and stops": IGNORES_AND_STOPS, "seen before": SEEN_BEFORE}


def end(held: Path) -> None:
    """End whoever holds the file: the controls leave somebody."""
    for process in psutil.process_iter():
        try:
            if any(str(held) == file.path for file in process.open_files()):
                process.kill()
        except psutil.Error:
            continue
    assert not until_false(lambda: is_held(held))


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_stray_ends_with_the_run(run: Runner, tmp_path: Path, attack: str) -> None:
    held = tmp_path / "held"
    subprocess.run(python(ATTACKS[attack], str(held)), timeout=HANG, check=True)
    assert is_held(held), "the control did not work"
    end(held)
    assert run(python(ATTACKS[attack], str(held))).ok
    assert not is_held(held)


@pytest.mark.skipif(sys.platform != "linux", reason="it finds the warden through /proc")
def test_who_leaves_all_of_it_between_two_looks_stays_as_the_differences_say(run: Runner, tmp_path: Path) -> None:
    """The command stops the warden, whose user it has, to have time for it."""
    held = tmp_path / "held"
    assert run(python(UNSEEN, str(held))).ok
    assert is_held(held)
    assert "before the next look, is not found, and stays" in WEAKER["tree"][0]
    end(held)


BOMB = HOLD + """
file = hold(sys.argv[1])
try:
    for _ in range(8):  # 256 of them; RLIMIT_NPROC refuses some where there is one
        if os.fork() == 0:
            os.setsid()
except BlockingIOError:
    pass
wait_for_ever()
"""


def test_a_bomb_is_ended(run: Runner, tmp_path: Path) -> None:
    held = tmp_path / "held"
    result = run(python(BOMB, str(held)), max_processes=20)
    assert result.reason is ps.Reason.PROCESSES
    assert result.peak_processes is not None
    assert result.peak_processes > 20
    assert not is_held(held)


INNER = """
import sys, warnings
warnings.simplefilter("ignore")
sys.path += sys.argv[1].split(":")
import proc_sandbox as ps
ps.run(sys.argv[2:], backend="posix", enforcement="best-effort")
"""


def test_a_run_within_a_run_ends_with_it(run: Runner, tmp_path: Path) -> None:
    held, ready = tmp_path / "held", tmp_path / "ready"
    code = HOLD + "file = hold(sys.argv[1])\nopen(sys.argv[2], 'w').close()\nwait_for_ever()"
    places = f"{library_path()}:{os.path.dirname(os.path.dirname(psutil.__file__))}"
    result = run(python(INNER, places, *python(code, str(held), str(ready))), timeout=2)
    assert result.reason is ps.Reason.TIMEOUT
    assert ready.exists()
    assert not until_false(lambda: is_held(held))


def test_nothing_of_a_run_stays_in_the_warden(run: Runner) -> None:
    assert run(["true"]).ok
    process = psutil.Process(warden().pid)
    before = process.num_fds()
    for _ in range(5):
        assert run(["sh", "-c", "sleep 3600 & echo x"]).ok
    assert not until_false(lambda: process.num_fds() > before)  # the caller is told before all is closed
    assert not until_false(process.children)


def test_only_the_streams_are_open(run: Runner) -> None:
    leaked = os.dup(0)
    os.set_inheritable(leaked, True)
    try:
        code = "import os; print(sorted(int(n) for n in os.listdir('/dev/fd')))"
        found = eval(run(python(code)).stdout)
        assert found[:3] == [0, 1, 2]
        assert len(found) == 4  # and that of the listing itself
    finally:
        os.close(leaked)


def test_the_warden_imports_nothing_from_where_a_command_may_write(tmp_path: Path) -> None:
    (tmp_path / "psutil.py").write_text("raise SystemExit('planted')")
    (tmp_path / "json.py").write_text("raise SystemExit('planted')")
    code = (
        "import sys, warnings; import json as right; sys.path.insert(0, ''); warnings.simplefilter('ignore'); import proc_sandbox as ps; "
        "print(ps.run(['true'], backend='posix', enforcement='best-effort').ok)"
    )
    places = f"{library_path()}:{os.path.dirname(os.path.dirname(psutil.__file__))}"
    done = subprocess.run(
        [sys.executable, "-P" if sys.version_info >= (3, 11) else "-s", "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": places},
        capture_output=True, timeout=HANG, check=False,
    )  # fmt: skip
    assert done.stdout == b"True\n", done


def test_a_process_that_stopped_itself_stays_stopped_under_a_cpu_limit(run: Runner) -> None:
    """The limit continues whom it has stopped, and nobody else."""
    code = """
import os, signal, time
child = os.fork()
if child == 0:
    os.kill(os.getpid(), signal.SIGSTOP)
    print("continued", flush=True)
    os._exit(0)
os.waitpid(child, os.WUNTRACED)
end = time.process_time() + 0.2
while time.process_time() < end:
    pass
print("done")
"""
    result = run(python(code), cpu_limit=50)
    assert result.stdout == b"done\n"
    assert result.execution_time > 0.2


@pytest.mark.skipif(os.geteuid() == 0, reason="root has no RLIMIT_NPROC")
def test_behind_the_looks_stands_rlimit_nproc(run: Runner) -> None:
    code = "import resource; print(resource.getrlimit(resource.RLIMIT_NPROC)[0])"
    limit = int(run(python(code), max_processes=10).stdout)
    assert 138 <= limit < 100_000


def test_signals_to_the_group_of_the_caller_do_not_reach_the_warden(run: Runner) -> None:
    assert run(["true"]).ok
    assert os.getsid(warden().pid) == warden().pid
    os.kill(warden().pid, signal.SIGINT)
    assert run(["true"]).ok
