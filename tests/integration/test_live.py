"""`proc-sandbox ps` and `kill`: what is alive is listed, whatever the command makes of itself; nothing else is killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.cli import GUARD, cli
from support.faults import strace
from support.processes import until_false, victim, wait_dead, watched
from support.programs import ROOT

from proc_sandbox.backends.linux import live

WAIT = "import sys; print('up', flush=True); sys.stdin.read()"


@contextlib.contextmanager
def run_of(*words: str, wrapped: tuple[str, ...] = (), **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """`proc-sandbox run` of a command that says "up" and then waits for the end of its stdin."""
    command = [*wrapped, sys.executable, "-m", "proc_sandbox", "run", *words]
    options.setdefault("stderr", subprocess.PIPE)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line == b"up\n", (line, process.stderr.read() if process.stderr and not line else b"")
        try:
            yield process
        finally:
            process.stdin.close()  # type: ignore[union-attr]
            process.wait(timeout=GUARD)


def listed(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    """What is told of the one run of that caller."""
    (found,) = [run for run in json.loads(cli("ps", "--json").stdout) if run["owner"] == process.pid]
    return dict(found)


def test_a_run_is_listed_with_what_it_is_and_has() -> None:
    words = ["-m", "64M", "--pids", "7", "--cpu", "50", "--enforcement", "best-effort"]
    with run_of(*words, "--", sys.executable, "-c", WAIT, "mark") as process:
        found = listed(process)
        assert found["arguments"][-1] == "mark"
        assert found["program"] == os.path.realpath(sys.executable)
        assert found["uid"] == os.geteuid()
        assert found["tasks"] == 1
        assert found["prepared"] is False
        assert found["cpu"] >= 0
        assert 0 < found["memory"] < 64 << 20
        assert found["since"] >= 0
        limits = (found["memory_limit"], found["max_processes"], found["cpu_limit"])
        assert limits in {(64 << 20, 7, 50.0), (None, None, None)}, "of the cgroup, if there is one"
        assert os.readlink(f"/proc/{found['id']}/exe") == found["program"]
        table = cli("ps").stdout.decode()
        assert f"\n{found['id']} " in table
        assert f" {process.pid} " in table
    assert process.pid not in {run["owner"] for run in json.loads(cli("ps", "--json").stdout)}


def test_kill_ends_a_run_and_its_caller_is_told(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    with (
        run_of("--json", str(file), "--", "sh", "-c", "sleep 1000 & echo up; cat") as process,
        run_of("--", sys.executable, "-c", WAIT) as other,
    ):
        found = listed(process)
        with watched([found["id"], found["reaper"]]) as ends:
            assert cli("kill", str(found["id"])).returncode == 0
            wait_dead(ends)
        assert process.wait(timeout=GUARD) == 128 + 9
        assert listed(other)
    assert json.loads(file.read_text())["reason"] == "killed_outside"
    assert other.returncode == 0


def test_nothing_but_a_run_is_killed() -> None:
    with victim() as bystander, run_of("--", "sh", "-c", "sleep 1000 & echo up; cat") as process:
        found = listed(process)
        inside = [int(pid) for pid in Path(f"/proc/{found['id']}/task/{found['id']}/children").read_text().split()]
        assert inside
        for pid in (bystander.pid, process.pid, found["launcher"], found["reaper"], *inside, os.getpid(), 1, -1, 0):
            done = cli("kill", "--", str(pid)) if pid < 0 else cli("kill", str(pid))
            assert done.returncode in {1, 125}, pid
        assert bystander.poll() is None
        assert process.poll() is None
        assert listed(process)["id"] == found["id"]


def test_a_number_that_was_taken_over_is_not_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look and the signal: the run has gone, and its reaper's number is another run's."""
    with run_of("--", sys.executable, "-c", WAIT) as process:
        found = next(run for run in live.live_runs() if run.owner == process.pid)
        looks = iter([[found._replace(reaper_born=found.reaper_born - 1)], [found]])
        monkeypatch.setattr(live, "live_runs", lambda: next(looks))
        assert live.kill_run(found.id) is False
        assert process.poll() is None


ESCAPES = "\033]0;owned\007\033[2J\u202e\n4242 root fake"


def test_what_a_command_shows_does_nothing_to_a_terminal() -> None:
    with run_of("--", sys.executable, "-c", WAIT, ESCAPES) as process:
        assert ESCAPES in listed(process)["arguments"], "which is the control: it is there"
        table = cli("ps").stdout.decode()
        assert "\\x1b]0;owned\\x07\\x1b[2J\\u202e\\x0a4242 root fake" in table
        assert all(line.isprintable() for line in table.splitlines())


DISGUISE = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(15, b"launcher", 0, 0, 0) == 0   # PR_SET_NAME
libc.prctl(4, 0, 0, 0, 0)                           # PR_SET_DUMPABLE: nobody may look what is executed
child = os.fork()
if child == 0:
    libc.prctl(15, b"launcher", 0, 0, 0)
    grandchild = os.fork()
    if grandchild == 0:
        print("up", flush=True)
        sys.stdin.read()
    os.wait()
    os._exit(0)
os.wait()
"""
EXECUTE = f"import os, sys; os.execv(sys.executable, ['/x/proc_sandbox/_bin/launcher', '-c', {DISGUISE!r}])"


@pytest.fixture(params=["namespaces", "Landlock"])
def wrapped(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """What a caller is started with: on a host with namespaces, and as on one without."""
    if request.param == "namespaces":
        return ()
    inject = ["-e", "trace=mount,open_tree,fsopen", "-e", "inject=mount,open_tree,fsopen:error=EACCES"]
    return (strace(), "-f", "-qq", "-o", "/dev/null", *inject)


def descendant(process: subprocess.Popen[bytes], wrapped: tuple[str, ...]) -> Callable[[live.LiveRun], bool]:
    """Whether a run is that caller's: strace(1) is between us."""
    if not wrapped:
        return lambda run: run.owner == process.pid
    callers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return lambda run: str(run.owner) in callers


def test_a_command_in_disguise_is_one_run_and_can_be_killed(wrapped: tuple[str, ...]) -> None:
    """It calls itself launcher, as do its child and grandchild; a listing by names would show its own as runs."""
    with run_of("--", sys.executable, "-c", EXECUTE, wrapped=wrapped) as process:
        everyone = live.processes()
        (run,) = filter(descendant(process, wrapped), live.live_runs())
        below = live.tree(
            everyone[run.id], {pid: [each for each in everyone.values() if each.parent == pid] for pid in everyone}
        )
        assert [each.name for each in below] == ["launcher"] * 3, "which is the control: by name they are launchers"
        assert not {each.pid for each in below[1:]} & {each.id for each in live.live_runs()}
        assert run.tasks == 3
        with watched([each.pid for each in below]) as ends:
            assert live.kill_run(run.id) is True
            wait_dead(ends)


NESTED = """
import os, socket, sys
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
if os.fork() == 0:
    os.dup2(theirs.fileno(), 0)
    os.execv(sys.argv[1], ["launcher", "serve"])
theirs.close()
assert ours.recv(4096), "it greets"
print("up", flush=True)
sys.stdin.read()
"""


def test_a_launcher_in_a_run_is_a_part_of_the_run() -> None:
    """A command that starts one itself, where it can."""
    program = live.launcher_path()
    with run_of("--ro", os.path.dirname(program), "--", sys.executable, "-c", NESTED, program) as process:
        (run,) = [run for run in live.live_runs() if run.owner == process.pid]
        inside = Path(f"/proc/{run.id}/task/{run.id}/children").read_text().split()
        names = [Path(f"/proc/{pid}/comm").read_text() for pid in inside]
        assert names == ["launcher\n"], "which is the control: it is there"
        assert not {int(pid) for pid in inside} & {each.launcher for each in live.live_runs()}


def test_prepared_sandboxes_are_told_as_such() -> None:
    code = """
import proc_sandbox as ps, sys
for _ in range(3):
    ps.run(["true"], prepared=2)
print("up", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        for run in live.live_runs():  # there may be none: they are made while a processor is free
            if run.owner == process.pid:
                assert (run.prepared, run.program, run.arguments) == (True, None, ())
        process.communicate()


@pytest.mark.skipif(not ROOT, reason="needs two users")
def test_one_user_does_not_see_anothers_runs() -> None:
    as_user = ("setpriv", "--reuid", "12345", "--regid", "12345", "--clear-groups")
    look = [*as_user, sys.executable, "-m", "proc_sandbox"]
    with run_of("--", sys.executable, "-c", WAIT) as process:
        found = listed(process)
        seen = subprocess.run([*look, "ps", "--json"], capture_output=True, check=True, timeout=GUARD, cwd="/")
        assert process.pid not in {run["owner"] for run in json.loads(seen.stdout)}
        assert (
            subprocess.run([*look, "kill", str(found["id"])], capture_output=True, check=False, cwd="/").returncode == 1
        )
        assert process.poll() is None
    with run_of("--", sys.executable, "-c", WAIT, wrapped=as_user, cwd="/") as process:
        assert listed(process)["uid"] == 12345, "root sees all"
        seen = subprocess.run([*look, "ps", "--json"], capture_output=True, check=True, timeout=GUARD, cwd="/")
        (own,) = json.loads(seen.stdout)
        assert own["owner"] == process.pid
        assert own["program"] == os.path.realpath(sys.executable)
        assert (
            subprocess.run([*look, "kill", str(own["id"])], capture_output=True, check=False, cwd="/").returncode == 0
        )
        assert process.wait(timeout=GUARD) == 128 + signal.SIGKILL


def test_the_table_is_not_cut_while_runs_end() -> None:
    """What is gone between two looks is no error."""
    code = "import proc_sandbox as ps\nwhile True: ps.run(['true'])"
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        try:
            for _ in range(20):
                live.live_runs()
        finally:
            process.kill()
    assert not until_false(lambda: [run for run in live.live_runs() if run.owner == process.pid])
