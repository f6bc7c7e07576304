"""Nothing survives: when a run ends, however it ends, every process of it is dead."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.behaviours import HOLD, Runner, is_held, promise
from support.processes import caller, until_false
from support.programs import HANG, python

import proc_sandbox as ps

TREE = HOLD + """
import subprocess
def start(name, code):
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    child = subprocess.Popen([sys.executable, "-I", "-S", "-c", PRELUDE + code, name], **options)
    assert child.stdout.read(2) == b"up", name
    return child
"""
CHILD = """
held = hold(sys.argv[1])
os.write(1, b"up")
wait_for_ever()
"""
PARENT = """
held = hold(sys.argv[1])
child = start("grandchild", CHILD)
os.write(1, b"up")
wait_for_ever()
"""
WHOLE = """
held = hold("command")
child = start("child", PARENT)
os.write(1, b"all up")
"""
FOR_EVER = "wait_for_ever()\n"
DAEMON = """
held = hold("command")
reader, writer = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        daemon = hold("daemon")
        for descriptor in range(3, 1024):
            if descriptor not in (daemon.fileno(), writer):
                try:
                    os.close(descriptor)
                except OSError:
                    pass
        os.write(writer, b"u")
        wait_for_ever()
    os._exit(0)
os.wait()
assert os.read(reader, 1) == b"u"
os.write(1, b"all up")
"""
NAMES = ("command", "child", "grandchild")


def tree(last: str, first: str = WHOLE) -> list[str]:
    """A command with a child and a grandchild, which then does what is said last."""
    prelude = f"PRELUDE = {TREE!r}\nCHILD = {CHILD!r}\nPARENT = {PARENT!r}\n"
    # The children need the prelude too, with itself in it.
    return python(f"{prelude}PRELUDE = 'PRELUDE = ' + repr(PRELUDE) + '\\nCHILD = ' + repr(CHILD) + '\\n' + PRELUDE\n{TREE}{first}{last}")


def assert_nobody_is_left(directory: Path, names: tuple[str, ...] = NAMES) -> None:
    for name in names:
        assert not is_held(directory / name), f"{name} is alive"


@promise("tree")
@pytest.mark.parametrize("last", ["sys.exit(3)", "os._exit(3)"])
def test_what_the_command_started_ends_with_it(run: Runner, tmp_path: Path, last: str) -> None:
    result = run(tree(last), working_dir=tmp_path)
    assert result.stdout == b"all up", result
    assert (result.reason, result.exit_code) == (ps.Reason.EXITED, 3)
    assert_nobody_is_left(tmp_path)


def until_up(run: Runner, directory: Path, command: list[str], **config: float) -> ps.Result:
    """Run under a limit of time, a longer one each time, until the command has come to its end before."""
    seconds = 2.0
    while True:
        result = run(command, working_dir=directory, timeout=seconds, **config)
        if b"all up" in result.stdout:
            return result
        seconds *= 2
        assert seconds < HANG


@promise("timeout")
def test_the_wall_time_limit_is_named_and_output_kept(run: Runner, tmp_path: Path) -> None:
    result = until_up(run, tmp_path, python("import os, time; os.write(1, b'all up'); time.sleep(3600)"))
    assert result.stdout == b"all up"
    assert (result.reason, result.timed_out, result.exit_code) == (ps.Reason.TIMEOUT, True, None)
    assert result.execution_time >= 2
    assert "wall time limit" in (result.error or "")
    with pytest.raises(TimeoutError):
        result.check()


@promise("timeout")
def test_the_tree_ends_at_the_limit(run: Runner, tmp_path: Path) -> None:
    assert until_up(run, tmp_path, tree(FOR_EVER)).timed_out
    assert_nobody_is_left(tmp_path)


@promise("timeout")
def test_a_command_that_ignores_every_signal_ends_at_the_limit(run: Runner, tmp_path: Path) -> None:
    code = "import os, signal, time\n"
    code += "for number in set(signal.Signals):\n    try: signal.signal(number, signal.SIG_IGN)\n    except (OSError, ValueError): pass\n"
    assert until_up(run, tmp_path, python(code + "os.write(1, b'all up')\nwhile True: time.sleep(3600)")).timed_out


@promise("daemons")
@pytest.mark.parametrize("last", ["sys.exit(0)", FOR_EVER])
def test_a_daemon_ends_with_the_run(run: Runner, tmp_path: Path, last: str) -> None:
    command = tree(last, DAEMON)
    result = run(command, working_dir=tmp_path) if last != FOR_EVER else until_up(run, tmp_path, command)
    assert result.stdout == b"all up", result
    assert_nobody_is_left(tmp_path, ("command", "daemon"))


@promise("cancel")
def test_a_run_is_cancelled_from_another_thread(run: Runner, tmp_path: Path) -> None:
    box = run.sandbox(working_dir=tmp_path)
    heard = threading.Event()

    class Listener:
        def write(self, data: bytes) -> None:
            heard.set()

    def cancel() -> None:
        assert heard.wait(HANG)
        box.cleanup()

    thread = threading.Thread(target=cancel)
    thread.start()
    result = box.run(tree(FOR_EVER), stdout=Listener())
    thread.join()
    assert (result.reason, result.exit_code) == (ps.Reason.CANCELLED, None)
    assert_nobody_is_left(tmp_path)


@promise("exception")
def test_the_tree_ends_when_an_exception_leaves(run: Runner, tmp_path: Path) -> None:
    class Broken:
        def write(self, data: bytes) -> None:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(tree(FOR_EVER), working_dir=tmp_path, stdout=Broken())
    assert_nobody_is_left(tmp_path)


CALLER = """
import json, sys, warnings
import proc_sandbox as ps
warnings.simplefilter("ignore")
class Listener:
    def write(self, data):
        print("up", flush=True)
config = json.loads(sys.argv[1])
ps.run(sys.argv[2:], stdout=Listener(), enforcement=ps.best_effort(*config.pop("lenient")), **config)
"""


@contextlib.contextmanager
def caller_with_a_tree(run: Runner, directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    import json

    config = json.dumps({"backend": run.backend, "working_dir": str(directory), "lenient": [*run.never, "backend"]})
    with caller(CALLER, config, *tree(FOR_EVER)) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == b"up"
        yield process


@promise("caller killed")
def test_the_tree_ends_with_its_caller(run: Runner, tmp_path: Path) -> None:
    with caller_with_a_tree(run, tmp_path) as process:
        assert all(is_held(tmp_path / name) for name in NAMES)
        process.kill()
        process.wait(HANG)
    for name in NAMES:
        assert not until_false(lambda name=name: is_held(tmp_path / name)), f"{name} is alive"  # type: ignore[misc]


@promise("exception")
@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C there belongs to the console, which this caller has none of")
def test_the_tree_ends_when_the_caller_is_interrupted(run: Runner, tmp_path: Path) -> None:
    with caller_with_a_tree(run, tmp_path) as process:
        os.kill(process.pid, signal.SIGINT)
        process.wait(HANG)
    assert_nobody_is_left(tmp_path)
