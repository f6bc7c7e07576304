"""A run's socket serves the next one: none is ever told what was meant for another, and none is left behind."""

from __future__ import annotations

import gc
import os
import resource
import signal
import subprocess
import threading
from pathlib import Path

import pytest
from support.processes import output_of, until_false, wait_dead
from support.programs import ROOT

import proc_sandbox as ps
from proc_sandbox.launcher import process
from proc_sandbox.launcher.process import launcher_path

pytestmark = pytest.mark.usefixtures("a_new_launcher")


def open_descriptors() -> int:
    gc.collect()  # a launcher's end can be polled as long as anybody knows it, an exception's frames too
    return len(os.listdir("/proc/self/fd"))


def spare_of_a_run() -> int:
    """Do one run, and return the descriptor of its socket, which is kept."""
    assert ps.run(["true"]).ok
    (spare,) = process.launcher().spares
    return spare.fileno()


def run_many(runs: int = 8) -> int:
    """Do some runs, eight at a time; return how many sockets are kept then."""
    with ps.SandboxExecutor(max_workers=8) as pool:
        assert all(result.ok for result in pool.map([["sleep", "0.2"]] * runs))
    return len(process.launcher().spares)


def test_runs_one_after_another_have_one_socket() -> None:
    first, before = spare_of_a_run(), open_descriptors()
    for _ in range(5):
        assert spare_of_a_run() == first
    assert open_descriptors() == before


def test_an_order_kills_the_run_whose_socket_it_comes_on_and_never_the_next() -> None:
    """What was sent in the moment in which a run ended comes when it has ended; before the next one, which has the same socket."""
    for order in (b"kill", b"end", b"signal 9", b"pause", b"usage 1"):
        descriptor = spare_of_a_run()
        process.launcher().spares[0].send(order)
        result = ps.run(["sh", "-c", "echo alive"], timeout=30)
        assert (result.stdout, result.reason) == (b"alive\n", ps.Reason.EXITED), order
        assert process.launcher().spares[0].fileno() == descriptor
    [spare] = process.launcher().spares
    killer = threading.Timer(0.2, lambda: spare.send(b"kill"))  # while the run goes on the same order is its own
    killer.start()
    assert ps.run(["sleep", "60"], timeout=60).reason is ps.Reason.CANCELLED
    killer.join()


def test_a_run_that_was_asked_for_something_leaves_its_socket_to_nobody() -> None:
    box = ps.Sandbox()
    runner = threading.Thread(target=lambda: box.run(["sleep", "60"]))
    runner.start()
    until_false(lambda: not box.alive)
    box.cleanup()
    runner.join()
    assert process.launcher().spares == []


def test_a_run_that_did_not_begin_leaves_its_socket_to_nobody(tmp_path: Path) -> None:
    spare_of_a_run()
    (tmp_path / "script").write_text("#!/no/such/interpreter\n")
    (tmp_path / "script").chmod(0o755)
    with pytest.raises(FileNotFoundError):
        ps.run(["./script"], working_dir=tmp_path)
    assert process.launcher().spares == []
    assert ps.run(["true"]).ok


def test_what_means_nothing_is_answered_and_harms_no_run() -> None:
    spare_of_a_run()
    [spare] = process.launcher().spares
    for words in (b"nonsense\0", b"memfd\0", b"exec\0true\0true\0", b"\0"):
        spare.send(words)
        assert spare.recv(4096).startswith(b"failed\0words\0"), words
    spare.send(b"no word ends here")
    assert ps.run(["true"]).ok
    assert process.launcher().spares == [spare]


@pytest.mark.skipif(not ROOT, reason="only root sees which descriptors the launcher has")
@pytest.mark.parametrize("room", [0, 1])
def test_a_launcher_without_room_for_descriptors_says_so_and_goes_on(room: int) -> None:
    spare_of_a_run()
    assert ps.run(["true"]).ok
    pid = process.launcher().pid
    taken = sorted(map(int, os.listdir(f"/proc/{pid}/fd")))
    free = [number for number in range(taken[-1] + 2) if number not in taken][room]
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (free, limits[1]))
    with pytest.raises(ps.LaunchError, match="RLIMIT_NOFILE"):
        ps.run(["true"])
    resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
    assert ps.run(["true"]).ok
    assert process.launcher().pid == pid


def test_long_words_come_over_it_too() -> None:
    spare_of_a_run()
    result = ps.run(["sh", "-c", "echo ${#A}"], env={"A": "x" * 100_000})
    assert result.stdout == b"100000\n"
    assert ps.run(["true"]).ok


def test_with_the_launcher_go_all_its_sockets() -> None:
    assert ps.run(["true"]).ok
    process.shutdown()  # the end of the last launcher is known until there is another one
    before = open_descriptors()
    assert run_many() > 1
    dead = process.launcher()
    os.kill(dead.pid, signal.SIGKILL)
    wait_dead([dead.end])
    assert ps.run(["true"]).ok
    assert dead.spares == []
    assert process.launcher() is not dead
    process.shutdown()
    del dead
    assert open_descriptors() == before


@pytest.mark.skipif(not ROOT, reason="only root sees which descriptors the launcher has")
def test_the_launcher_closes_what_is_closed_here() -> None:
    spare_of_a_run()
    descriptors = f"/proc/{process.launcher().pid}/fd"

    def sockets() -> int:
        return sum("socket" in os.readlink(f"{descriptors}/{each}") for each in os.listdir(descriptors))

    before = sockets()
    assert before > 0
    assert run_many() > 1
    process.launcher().close_spares()
    spare_of_a_run()
    assert not until_false(lambda: sockets() > before)


def test_no_more_are_kept_than_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "MOST_SPARE", 3)
    assert run_many(16) <= 3


def test_a_child_by_fork_has_sockets_of_its_own() -> None:
    code = (
        "import os, proc_sandbox as ps\n"
        "from proc_sandbox.launcher import process\n"
        "ps.run(['true'])\n"
        "kept = process.launcher().spares[0].fileno()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    closed = not os.path.exists(f'/proc/self/fd/{kept}') and not process.launchers\n"
        "    os._exit(0 if closed and ps.run(['true']).ok else 1)\n"
        "print(os.waitpid(child, 0)[1], ps.run(['true']).ok, process.launcher().spares[0].fileno() == kept)\n"
    )
    assert output_of(code) == "0 True True\n"


def test_a_child_by_fork_ends_no_later_run_of_its_parents() -> None:
    """It was made by a sink in the middle of a run, and leaves that when its parent has begun the next one."""
    code = (
        "import os, sys, proc_sandbox as ps\n"
        "gate, go = os.pipe()\n"
        "pids = []\n"
        "def sink(data):\n"
        "    if not pids:\n"
        "        pids.append(os.fork())\n"
        "        if not pids[0]:\n"
        "            os.read(gate, 1)\n"
        "            sys.exit(0)\n"
        "    return len(data)\n"
        "print(ps.run(['echo', 'one'], stdout=sink).reason.value)\n"
        "def other(data):\n"
        "    os.write(go, b'x')\n"
        "    os.waitpid(pids[0], 0)\n"
        "    return len(data)\n"
        "print(ps.run(['sh', '-c', 'echo; sleep 0.3'], stdout=other, timeout=60).reason.value)\n"
    )
    assert output_of(code) == "exited\nexited\n"


def test_by_hand_no_stream_is_taken_for_another(tmp_path: Path) -> None:
    """Three descriptors where four are named: the first would be the second one's."""
    given = os.open(tmp_path / "given", os.O_RDWR | os.O_CREAT)
    plan = ps.plan(["echo", "hello"], pass_fds=[given])
    os.close(given)
    kept = tmp_path / "kept"
    kept.write_bytes(b"as it was")
    with kept.open("r+b") as stdin:
        words = [launcher_path(), "run", *plan.words()]
        done = subprocess.run(words, stdin=stdin, capture_output=True, check=False, timeout=60)
    assert done.returncode == 125
    assert b"descriptors named and sent differ" in done.stderr
    assert kept.read_bytes() == b"as it was"


@pytest.mark.parametrize("ahead", [0, 1])
def test_each_run_has_an_open_file_of_its_own_for_nothing_to_read(ahead: int) -> None:
    """O_NONBLOCK belongs to the open file: by that of one for all runs could tell each other things."""
    code = "import os; print(os.get_blocking(0), os.read(0, 1), os.fstat(0).st_rdev == os.makedev(1, 3)); os.set_blocking(0, False)"
    for _ in range(3):
        result = ps.run(["python3", "-c", code], prepared=ahead, timeout=60)
        assert result.stdout == b"True b'' True\n", result.stderr
