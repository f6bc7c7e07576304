"""Callers that fork: parent and child run commands, and no copy that a child has keeps anything of its parent's from ending."""

from __future__ import annotations

import select
import subprocess
from pathlib import Path

import pytest
from support.behaviours import HOLD, is_held
from support.processes import caller, output_of, until_false, watched
from support.programs import HANG, python

EVERY_BACKEND = True

FORKS = f"""
import os, signal, sys, threading
import proc_sandbox as ps
from proc_sandbox.backends.posix import process as posix
from proc_sandbox.backends.posix.backend import PosixRun
from proc_sandbox.backends.unix import pipes
from proc_sandbox.launcher import process as linux
PATIENCE = {HANG / 2:.0f}
signal.alarm(PATIENCE)
""" + """
children, threads, forked = [], [], threading.Event()
def fork():
    child = os.fork()
    if child == 0:
        signal.alarm(PATIENCE)
        sys.stdin.read()  # lives until the test lets go
        os._exit(0)
    children.append(child)
    forked.set()
def fork_meanwhile():
    threads.append(threading.Thread(target=fork))
    threads[-1].start()
    forked.wait(0.2)  # in vain, if it has to wait
    forked.clear()
def with_fork(place, name, after):
    real = getattr(place, name)
    def act(*rest, **more):
        if not after: fork_meanwhile()
        found = real(*rest, **more)
        if after: fork_meanwhile()
        return found
    setattr(place, name, act)
def end():
    for thread in threads: thread.join()
    print("children" if children else "none", flush=True)
    sys.stdin.read()
    for child in children: os.waitpid(child, 0)
"""
"""A caller from which another thread forks whenever something is done, and which waits for the test at its end, as its children do."""


def assert_says(process: subprocess.Popen[bytes], *lines: str) -> None:
    """These are the next lines; where it has ended before, what it said of that."""
    assert process.stdout is not None
    assert process.stderr is not None
    said = [process.stdout.readline().decode().strip() for _ in lines]
    assert said == [*lines], said if said[-1] else process.stderr.read().decode()


@pytest.mark.parametrize(
    ("fork", "code"),
    [
        ("os, 'pipe', True", "print(ps.run(['cat'], input=b'x', timeout=20).reason.value, flush=True)"),
        ("os, 'pipe', True", """
with ps.Popen(["cat"], stdin=ps.PIPE, stdout=ps.PIPE, timeout=20) as process:
    process.stdin.write(b"x")
    process.stdin.close()
    assert process.stdout.read() == b"x"
    print(process.wait().reason.value, flush=True)
"""),
        ("os, 'pipe', True", """
with ps.Popen(["cat"], pty=True, stdin=ps.PIPE, stdout=ps.PIPE, timeout=20) as process:
    process.stdin.close()
    process.stdout.read()
    print(process.wait().reason.value, flush=True)
"""),
        ("pipes, 'PipeEnd', False", "print((ps.cmd(['echo', 'x']) | ps.cmd(['cat'], timeout=20)).run().results[-1].reason.value, flush=True)"),
    ],
    ids=["run", "handle", "conversation", "pipeline"],
)  # fmt: skip
def test_a_fork_waits_for_what_is_being_made(fork: str, code: str) -> None:
    """What is not noted yet the child could not close: of a pipe the reader's end would not come, nor that of subprocess's own."""
    with caller(FORKS + f"with_fork({fork})\n{code}\nend()\n", stdin=-1) as process:
        assert_says(process, "exited", "children")


@pytest.mark.parametrize("before", ["", "ps.run(['true'])"], ids=["first", "next"])
def test_a_run_whose_start_is_interrupted_ends_though_its_caller_has_forked(tmp_path: Path, before: str) -> None:
    """Its socket, by whose end its server hears that nobody wants it any more, is in nobody's books: a child has a copy."""
    code = FORKS + f"""
reader, writer = os.pipe()
def interrupt(place, name):
    real = getattr(place, name)
    def act(*rest, **more):
        found = real(*rest, **more)
        if place is linux.Launcher and rest[1].startswith(b"idmap"): return found
        os.read(reader, 1)  # the command is there
        fork_meanwhile()
        raise KeyboardInterrupt
    setattr(place, name, act)
{before}
interrupt(linux.Launcher, "send")
interrupt(PosixRun, "hand_over")
try: ps.run([*sys.argv[1:], str(writer)], working_dir=".", pass_fds=[writer])
except KeyboardInterrupt: print("interrupted", flush=True)
end()
"""
    held = HOLD + "held = hold('held')\nos.write(int(sys.argv[1]), b'x')\nwait_for_ever()"
    with caller(code, *python(held), stdin=-1, cwd=tmp_path) as process:
        assert_says(process, "interrupted", "children")
        assert not until_false(lambda: is_held(tmp_path / "held"))


def test_shutdown_does_not_wait_for_a_child() -> None:
    """The server that is being ended is in nobody's books any more."""
    code = FORKS + """
from proc_sandbox.backends import shutdown
ps.run(["true"])
with_fork(linux.Launcher, "close", False)
with_fork(posix.Warden, "close", False)
shutdown()
print("over", flush=True)
end()
"""
    with caller(code, stdin=-1) as process:
        assert_says(process, "over", "children")


def test_a_server_that_has_not_greeted_ends_with_its_caller() -> None:
    """Though a child, which lives on, was made meanwhile."""
    code = FORKS + """
with_fork(linux.Launcher, "await_greeting", False)
with_fork(posix.Warden, "await_greeting", False)
ps.run(["true"])
print(*(server.pid for server in (*linux.launchers.values(), *posix.wardens)), flush=True)
end()
"""
    with caller(code, stdin=-1) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        assert_says(process, "children")
        with watched([pid]) as ends:
            process.kill()
            assert not until_false(lambda: not select.select(ends, [], [], 0)[0])


def test_who_waits_for_another_lock_does_not_have_the_one_that_forks_wait_for(backend: str) -> None:
    """A signal handler runs a command while its own thread has that lock, and another thread starts what serves runs."""
    server = {"linux": "linux.launcher", "posix": "posix.warden"}[backend]
    code = FORKS + f"""
from proc_sandbox import later
from proc_sandbox.backends import shutdown
ps.run(["true"])
shutdown()
asks = threading.Event()
def begun(real):
    def act(*rest, **more):
        asks.set()
        return real(*rest, **more)
    return act
linux.begun, posix.begun = begun(linux.begun), begun(posix.begun)
thread = threading.Thread(target={server})
def handle(*_):
    thread.start()
    asks.wait()
    print(ps.run(["true"]).reason.value, flush=True)
signal.signal(signal.SIGUSR1, handle)
with later.lock:
    os.kill(os.getpid(), signal.SIGUSR1)
thread.join()
"""
    assert output_of(code) == "exited\n"


def test_a_fork_that_was_interrupted_leaves_the_child_no_lock() -> None:
    """Python ignores what a signal handler raises while a fork waits, and says so; then the fork goes on."""
    code = FORKS + """
from proc_sandbox import later
taken, let_go = threading.Event(), threading.Event()
def hold():
    with later.lock:
        taken.set()
        let_go.wait()
thread = threading.Thread(target=hold)
thread.start()
taken.wait()
def handle(*_): raise KeyboardInterrupt
signal.signal(signal.SIGALRM, handle)
signal.setitimer(signal.ITIMER_REAL, 0.1)
child = os.fork()
if child == 0:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(60)
    print(ps.run(["true"]).reason.value, flush=True)
    grandchild = os.fork()
    if grandchild: os.waitpid(grandchild, 0)
    else: print(ps.run(["true"]).reason.value, flush=True)
    os._exit(0)
print(os.waitpid(child, 0)[1], flush=True)
let_go.set()
thread.join()
print(ps.run(["true"]).reason.value, os.waitstatus_to_exitcode(os.spawnlp(os.P_WAIT, "true", "true")), flush=True)
"""
    with caller(code) as process:
        out, err = process.communicate(timeout=HANG)
    assert out.split() == [b"exited", b"exited", b"0", b"exited", b"0"]
    assert b"KeyboardInterrupt" in err
    assert process.returncode == 0


def test_forked_callers_run_side_by_side() -> None:
    code = """
import os, sys
import proc_sandbox as ps
ps.run(["true"])
pids = []
for number in range(8):
    pid = os.fork()
    if pid == 0:
        good = all(ps.run(["echo", f"{number} {i}"]).stdout == f"{number} {i}\\n".encode() for i in range(5))
        os._exit(0 if good else 1)
    pids.append(pid)
    assert ps.run(["echo", "parent"]).stdout == b"parent\\n"
print([os.waitpid(pid, 0)[1] for pid in pids])
"""
    assert output_of(code) == f"{[0] * 8}\n"


def test_a_fork_while_other_threads_run() -> None:
    """No lock that some thread held at the fork may block the child."""
    code = """
import os, signal, threading
import proc_sandbox as ps
stop = threading.Event()
def busy():
    while not stop.is_set():
        assert ps.run(["true"]).ok
threads = [threading.Thread(target=busy) for _ in range(4)]
for thread in threads: thread.start()
statuses = []
for _ in range(10):
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        os._exit(0 if ps.run(["echo", "x"]).stdout == b"x\\n" else 1)
    statuses.append(os.waitpid(pid, 0)[1])
stop.set()
for thread in threads: thread.join()
print(statuses)
"""
    assert output_of(code, env={"PYTHONWARNINGS": "ignore::DeprecationWarning"}) == f"{[0] * 10}\n"


def test_multiprocessing_workers() -> None:
    code = """
import multiprocessing, sys
import proc_sandbox as ps
def work(n):
    return ps.run(["echo", str(n)]).stdout
if __name__ == "__main__":
    ps.run(["true"])
    with multiprocessing.get_context("fork").Pool(4) as pool:
        print(b"".join(pool.map(work, range(8))).split())
"""
    assert output_of(code) == f"{[str(n).encode() for n in range(8)]}\n"


def test_input_ends_though_the_caller_has_forked() -> None:
    """A child by os.fork() holds copies of everything; those of the pipe to a command's stdin are closed in it."""
    code = (
        "import os, sys, threading, time, io, proc_sandbox as ps\n"
        "gate, go = os.pipe()\n"
        "class Slow(io.RawIOBase):\n"
        "    def read(self, size=-1):\n"
        "        os.read(gate, 1); return b''\n"
        "runner = threading.Thread(target=lambda: print(ps.run(['cat'], stdin=Slow(), timeout=60).reason.value, flush=True))\n"
        "ps.run(['true']); runner.start()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    sys.stdin.read(); os._exit(0)\n"  # lives until the test lets go
        "os.write(go, b'x'); runner.join(); print('done', flush=True); os.waitpid(child, 0)\n"
    )
    with caller(code, stdin=-1) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"exited\n"
        assert process.stdout.readline() == b"done\n"
