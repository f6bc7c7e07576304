"""Handles: a run that goes on while its caller does something else."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from support.behaviours import HOLD, LISTEN, Runner, is_held, promise
from support.processes import caller, output_of, until_false
from support.programs import HANG, python

import proc_sandbox as ps

on_unix = pytest.mark.skipif(sys.platform == "win32", reason="there is nothing like it on Windows")

ECHO = "import sys, shutil; shutil.copyfileobj(sys.stdin.buffer, sys.stdout.buffer)"
LINES = "import sys\nfor line in sys.stdin: print(line.strip().upper(), flush=True)"
UP = "import os; os.write(1, b'up\\n')\n"
FOR_EVER = UP + "import time\nwhile True: time.sleep(3600)"
HELD = HOLD + "held = hold('command')\nos.write(1, b'up\\n')\nwait_for_ever()"
ALL = bytes(range(256)) * 16


def is_up(process: ps.Popen[Any]) -> None:
    """Wait for the first line."""
    assert process.stdout is not None
    assert process.stdout.readline().strip() in (b"up", "up")


# --- what it says of itself, and waiting ---


@promise("handle")
def test_it_is_there_once_the_command_runs(run: Runner) -> None:
    with run.popen(python(LINES), stdin=ps.PIPE, stdout=ps.PIPE) as process:
        assert (process.poll(), process.returncode, process.args) == (None, None, tuple(python(LINES)))
        assert process.pid > 0
        if sys.platform != "win32":
            os.kill(process.pid, 0)
        assert str(process.pid) in repr(process)
        process.stdin.write(b"one\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"ONE" + os.linesep.encode()
        process.stdin.close()
        result = process.wait()
        assert (result.reason, result.exit_code, process.poll(), process.returncode) == (ps.Reason.EXITED, 0, 0, 0)
        assert process.result() is result
        assert "returncode 0" in repr(process)


@promise("handle")
def test_captured_output_is_in_the_result(run: Runner) -> None:
    with run.popen(python("import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)")) as process:
        result = process.wait()
    assert (result.stdout.split(), result.stderr.split(), process.returncode) == ([b"out"], [b"err"], 3)


@promise("handle")
def test_polling_alone_sees_the_end(run: Runner) -> None:
    with run.popen(python("print('x' * 1000000)"), max_output="2M") as process:
        assert not until_false(lambda: process.poll() is None)
        assert len(process.result().stdout.strip()) == 1_000_000


@promise("handle")
def test_waiting_is_given_up_and_the_run_goes_on(run: Runner) -> None:
    with run.popen(python(ECHO), stdin=ps.PIPE) as process:
        for timeout in (0, 0.05):
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(timeout)
        assert process.poll() is None
        process.stdin.close()
        assert process.wait(HANG).ok


@promise("not found")
def test_a_command_that_is_missing_is_raised_at_once(run: Runner, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        run.popen(["no-such-command-here"])
    no_program = tmp_path / "no-program"
    no_program.write_bytes(b"\x7fELF but not really")
    no_program.chmod(0o755)
    with pytest.raises(OSError, match="no-program"):
        run.popen([no_program], allowed_dirs=[tmp_path], stdin=ps.PIPE, stdout=ps.PIPE)


@promise("handle")
@pytest.mark.parametrize("options", [{"bufsize": "1"}, {"encoding": "no-such"}, {"text": True, "errors": "no-such"}])
def test_what_no_pipe_can_be_opened_with_is_refused(run: Runner, options: dict[str, Any]) -> None:
    with pytest.raises(ps.ConfigError, match=list(options)[-1]):
        run.popen(python("pass"), stdout=ps.PIPE, **options)


# --- pipes ---


@promise("pipes")
def test_much_passes_both_ways(run: Runner) -> None:
    data = ALL * 2048  # 8 MiB
    with run.popen(python(ECHO), stdin=ps.PIPE, stdout=ps.PIPE, stderr=ps.PIPE, max_output="20M") as process:
        out, err = process.communicate(data, timeout=HANG)
        assert (out == data, err) == (True, b"")
        assert process.result().ok


@promise("pipes")
def test_nothing_is_lost_when_waiting_is_given_up(run: Runner, tmp_path: Path) -> None:
    code = (
        "import os, sys, time\ndata = sys.stdin.buffer.read()\nsys.stdout.buffer.write(data[: 1 << 20]); sys.stdout.flush()\n"
        "while not os.path.exists('go'): time.sleep(0.01)\nsys.stdout.buffer.write(data[1 << 20 :])"
    )
    data = ALL * 1024
    with run.popen(python(code), stdin=ps.PIPE, stdout=ps.PIPE, working_dir=tmp_path, max_output="8M") as process:
        for _ in range(2):
            with pytest.raises(subprocess.TimeoutExpired):
                process.communicate(data if process.stdin else None, timeout=0.3)
        with pytest.raises(ps.ConfigError, match="input"):
            process.communicate(b"more")
        (tmp_path / "go").touch()
        assert process.communicate(timeout=HANG)[0] == data
        assert process.communicate()[0] == data, "again, the same"


@promise("pipes")
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le"])
def test_text_read_ahead_is_not_lost(run: Runner, encoding: str) -> None:
    """The file object has read more than the line, and that ends in the middle of a letter."""
    text = "erste Zeile\n" + "ä€" * 50_000 + "\nlast"
    code = f"import sys; text = 'erste Zeile\\n' + 'ä€' * 50_000 + '\\nlast'; sys.stdout.buffer.write(text.encode({encoding!r}))"
    with run.popen(python(code), stdout=ps.PIPE, encoding=encoding, max_output="1M") as process:
        assert process.stdout.readline() == "erste Zeile\n"
        out, _ = process.communicate(timeout=HANG)
        assert out == text.partition("\n")[2]


@promise("pipes")
@pytest.mark.parametrize("bufsize", [-1, 0, 1, 7])
def test_text_goes_both_ways_with_any_buffer(run: Runner, bufsize: int) -> None:
    with run.popen(python(LINES), stdin=ps.PIPE, stdout=ps.PIPE, text=True, bufsize=bufsize) as process:
        process.stdin.write("one\n")
        process.stdin.flush()
        assert process.stdout.readline() == "ONE\n"
        assert process.communicate("two\nthree\n", timeout=HANG) == ("TWO\nTHREE\n", None)


@promise("pipes")
def test_what_is_no_text_is_shown_as_such(run: Runner) -> None:
    with run.popen(python(r"import os; os.write(1, b'\xff\xfe!')"), stdout=ps.PIPE, text=True) as process:
        assert process.communicate(timeout=HANG)[0] == "\ufffd\ufffd!"


@promise("pipes")
def test_what_is_captured_is_text_too(run: Runner) -> None:
    with run.popen(python(r"import os; os.write(1, b'\xc3\xa9\r\n\xff')"), text=True) as process:
        result = process.wait(HANG)
        assert (result.stdout, result.stderr) == ("\xe9\n\ufffd", "")
        assert process.result() == result
    with run.popen(python(r"import os; os.write(1, b'\xff')"), encoding="ascii", errors="strict") as process:
        with pytest.raises(UnicodeDecodeError):
            process.wait(HANG)
        assert process.poll() == 0


@promise("pipes")
def test_after_the_end_pipes_are_read_still(run: Runner) -> None:
    with run.popen(python("print('x' * 20000)"), stdout=ps.PIPE, stderr=ps.PIPE, max_output=100) as process:
        assert process.wait(HANG).ok
        assert len(process.communicate()[0].strip()) == 20_000
    with run.popen(python("print('x' * 20000)"), stdout=ps.PIPE) as process:
        assert process.wait(HANG).ok
        assert len(process.stdout.read().strip()) == 20_000


@promise("pipes")
def test_what_communicate_throws_away_is_told(run: Runner) -> None:
    with run.popen(python("print('x' * 200000)"), stdout=ps.PIPE, max_output=1000) as process:
        out, _ = process.communicate(timeout=HANG)
        assert (out, process.result().stdout_truncated, process.result().stderr_truncated) == (b"x" * 1000, True, False)


@promise("stdin unread")
def test_a_command_need_not_read_its_pipe(run: Runner) -> None:
    with run.popen(python("import os; os.close(0); os.write(1, b'up\\n'); import time; time.sleep(3600)"), stdin=ps.PIPE, stdout=ps.PIPE) as process:
        is_up(process)
        process.stdin.write(b"x")  # in our own buffer still: what closing does with it must not matter
    with run.popen(python("import os; os.close(0); os.write(1, b'up\\n')"), stdin=ps.PIPE, stdout=ps.PIPE) as process:
        is_up(process)
        process.stdin.write(b"x")
        assert process.communicate(b"y" * 1_000_000, timeout=HANG)[0] == b""
        assert process.result().ok


@promise("pipes")
def test_stderr_goes_where_stdout_goes(run: Runner) -> None:
    code = "import os; os.write(1, b'a'); os.write(2, b'b'); os.write(1, b'c')"
    with run.popen(python(code), stdout=ps.PIPE, stderr=ps.STDOUT) as process:
        assert process.stderr is None
        assert process.communicate(timeout=HANG) == (b"abc", None)


@promise("pipes")
def test_pipes_that_the_caller_has_closed(run: Runner) -> None:
    with run.popen(python("import sys; sys.stdin.read()"), stdin=ps.PIPE, stdout=ps.PIPE) as process:
        process.stdin.close()
        process.stdout.close()
        assert process.communicate(timeout=HANG) == (None, None)


# --- ending it ---


@promise("handle")
def test_kill_is_a_cancellation(run: Runner, tmp_path: Path) -> None:
    with run.popen(python(HELD), stdout=ps.PIPE, working_dir=tmp_path) as process:
        is_up(process)
        process.kill()
        result = process.wait(HANG)
        assert (result.reason, result.exit_code) == (ps.Reason.CANCELLED, None)
        assert not is_held(tmp_path / "command")
        for harmless in (process.kill, process.terminate, process.close, process.kill):
            harmless()
    assert process.poll() == result.returncode


@promise("handle")
@pytest.mark.parametrize("error", [None, ZeroDivisionError, KeyboardInterrupt])
def test_leaving_the_block_ends_the_run(run: Runner, tmp_path: Path, error: type[BaseException] | None) -> None:
    def leave() -> None:
        with run.popen(python(HELD), stdout=ps.PIPE, working_dir=tmp_path) as process:
            kept.append(process)
            is_up(process)
            if error:
                raise error

    kept: list[ps.Popen[Any]] = []
    if error:
        with pytest.raises(error):
            leave()
    else:
        leave()
    assert not is_held(tmp_path / "command")
    assert kept[0].wait().reason is ps.Reason.CANCELLED
    assert kept[0].stdout is not None
    assert kept[0].stdout.closed


@promise("handle")
def test_a_forgotten_handle_ends_its_run_and_warns(run: Runner, tmp_path: Path) -> None:
    def forget() -> None:
        is_up(run.popen(python(HELD), stdout=ps.PIPE, working_dir=tmp_path))

    with pytest.warns(ResourceWarning, match="forgotten"):
        forget()
    assert not is_held(tmp_path / "command")


@promise("timeout")
def test_the_wall_time_limit_holds_while_nobody_waits(run: Runner, tmp_path: Path) -> None:
    with run.popen(python(HELD), timeout=0.5, working_dir=tmp_path) as process:
        if run.backend != "windows":  # its deadline is kept by who waits
            assert not until_false(lambda: (tmp_path / "command").exists() and is_held(tmp_path / "command"))
        assert process.wait(HANG).reason is ps.Reason.TIMEOUT


@promise("sandbox")
def test_runs_of_a_sandbox_by_handle(run: Runner) -> None:
    with run.sandbox() as box:
        with box.popen(python("open('kept', 'w').write('1')")) as process:
            assert process.wait(HANG).ok
        assert box.run(python("print(open('kept').read())")).stdout.split() == [b"1"]
        process = box.popen(python(FOR_EVER), stdout=ps.PIPE)
        is_up(process)
    assert process.wait().reason is ps.Reason.CANCELLED
    assert process.stdout is not None
    assert process.stdout.closed
    assert box.directory is None
    with pytest.raises(ps.SandboxClosedError):
        box.popen(python("pass"))


@promise("sandbox")
def test_cleanup_ends_what_another_thread_waits_for(run: Runner) -> None:
    box = run.sandbox()
    process = box.popen(python(FOR_EVER), stdout=ps.PIPE)
    is_up(process)
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(process.wait) for _ in range(2)]
        box.cleanup()
        assert [found.result(HANG).reason for found in waiting] == [ps.Reason.CANCELLED] * 2
    process.close()


HANDLE = """
import json, sys, warnings
import proc_sandbox as ps
warnings.simplefilter("ignore")
config = json.loads(sys.argv[1])
process = ps.Popen(sys.argv[2:], stdout=ps.PIPE, enforcement=ps.best_effort(*config.pop("lenient")), **config)
process.stdout.readline()
print("up", flush=True)
"""


def arguments(run: Runner, directory: Path, *command: str) -> list[str]:
    import json

    return [json.dumps({"backend": run.backend, "working_dir": str(directory), "lenient": [*run.never, "backend"]}), *command]


@promise("caller killed")
def test_the_run_ends_with_its_caller(run: Runner, tmp_path: Path) -> None:
    with caller(HANDLE + "sys.stdin.read()", *arguments(run, tmp_path, *python(HELD)), stdin=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == b"up"
        assert is_held(tmp_path / "command")
        process.kill()
        process.wait(HANG)
    assert not until_false(lambda: is_held(tmp_path / "command"))


@promise("handle")
@pytest.mark.parametrize("end", ["", "sys.exit(0)", "import threading; threading.Thread(target=process.wait, daemon=True).start()"])
def test_the_run_ends_with_the_interpreter(run: Runner, tmp_path: Path, end: str) -> None:
    with caller(HANDLE + end, *arguments(run, tmp_path, *python(HELD))) as process:
        out, err = process.communicate(timeout=HANG)
        assert (out.strip(), err, process.returncode) == (b"up", b"", 0)
    assert not is_held(tmp_path / "command")


# --- more than one thread, and signals ---


@promise("handle")
def test_several_threads_wait(run: Runner) -> None:
    with run.popen(python(ECHO), stdin=ps.PIPE) as process, ThreadPoolExecutor(6) as pool:
        waiting = [pool.submit(process.wait) for _ in range(4)]
        waiting.append(pool.submit(process.wait, HANG))
        asked = pool.submit(lambda: [process.usage() for _ in range(20)])
        assert len(asked.result(HANG)) == 20
        process.stdin.close()
        results = [found.result(HANG) for found in waiting]
    assert results[0].ok
    assert all(result is results[0] for result in results)


@promise("pipes")
def test_one_thread_waits_and_another_communicates(run: Runner) -> None:
    """Who waits moves the bytes, and is told of pipes that are given away meanwhile."""
    data = ALL * 1024
    with run.popen(python(ECHO), stdin=ps.PIPE, stdout=ps.PIPE, max_output="8M") as process, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(process.wait)
        assert process.communicate(data, timeout=HANG)[0] == data
        assert waiting.result(HANG).ok


@promise("handle")
def test_many_handles_at_once(run: Runner) -> None:
    processes = [run.popen(python(LINES), stdin=ps.PIPE, stdout=ps.PIPE, text=True) for _ in range(12)]
    try:
        with ThreadPoolExecutor(4) as pool:
            said = list(pool.map(lambda pair: pair[1].communicate(f"{pair[0]}a\n", timeout=HANG)[0], enumerate(processes)))
        assert said == [f"{number}A\n" for number in range(12)]
    finally:
        for process in processes:
            process.close()


class OursError(Exception):
    """What a signal handler raises."""


@pytest.fixture
def interrupt() -> Iterator[Callable[[Callable[[], object]], None]]:
    """Have something done by a signal handler in this thread, once it waits."""
    if sys.platform == "win32":
        pytest.skip("there are no signals")
    before = signal.getsignal(signal.SIGUSR2)
    timers: list[threading.Timer] = []

    def at_once(act: Callable[[], object]) -> None:
        signal.signal(signal.SIGUSR2, lambda *_: act())
        me = threading.get_ident()
        timers.append(threading.Timer(0.2, lambda: signal.pthread_kill(me, signal.SIGUSR2)))
        timers[-1].start()

    yield at_once
    for timer in timers:
        timer.join()
    signal.signal(signal.SIGUSR2, before)


@promise("handle")
@pytest.mark.parametrize("error", [OursError, KeyboardInterrupt])
def test_what_a_signal_handler_raises_leaves_and_the_run_goes_on(
    run: Runner, interrupt: Callable[[Callable[[], object]], None], error: type[BaseException]
) -> None:
    def act() -> None:
        raise error

    with run.popen(python(ECHO), stdin=ps.PIPE, stdout=ps.PIPE) as process:
        interrupt(act)
        with pytest.raises(error):
            process.wait()
        assert process.poll() is None
        assert process.communicate(b"after all", timeout=HANG)[0] == b"after all"


@promise("handle")
@pytest.mark.parametrize("act", ["kill", "close", "wait for the end", "ask"])
def test_a_signal_handler_uses_the_handle_that_is_waited_for(
    run: Runner, interrupt: Callable[[Callable[[], object]], None], act: str
) -> None:
    found: list[object] = []

    def ask() -> None:
        found.append(process.usage())
        process.kill()

    def wait_for_the_end() -> None:
        process.kill()
        found.append(process.wait(HANG))

    with run.popen(python(FOR_EVER), stdout=ps.PIPE) as process:
        is_up(process)
        interrupt({"kill": process.kill, "close": process.close, "wait for the end": wait_for_the_end, "ask": ask}[act])
        assert process.wait(HANG).reason is ps.Reason.CANCELLED
    assert len(found) == (act in ("ask", "wait for the end"))


@promise("handle")
@pytest.mark.parametrize("act", ["usage", "poll"])
@pytest.mark.parametrize("pty", [False, True])
def test_output_keeps_its_order_under_signal_handlers(run: Runner, act: str, *, pty: bool) -> None:
    """Handlers move bytes too, and none of the last is lost."""
    if sys.platform == "win32":
        pytest.skip("there are no signals")
    code = "import os\nfor number in range(40000): os.write(1, b'%09d\\n' % number)"

    handled: list[object] = []
    over = threading.Event()

    def heard(*_: object) -> None:
        if not over.is_set():
            handled.append(getattr(process, act)())
            signal.setitimer(signal.ITIMER_REAL, 0.001)  # again, when this is over

    before = signal.signal(signal.SIGALRM, heard)
    try:
        with run.popen(python(code), max_output="1M", pty=pty) as process:
            signal.setitimer(signal.ITIMER_REAL, 0.001)
            result = process.wait(HANG)
    finally:
        over.set()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert handled
    assert result.stdout == b"".join(b"%09d\r\n" % number if pty else b"%09d\n" % number for number in range(40000))


@promise("handle")
@on_unix
def test_a_child_by_fork_has_no_part_in_it(run: Runner) -> None:
    """Its copies of the pipes keep nobody waiting, what lies in their buffers is not written twice, and its end is not the run's."""
    with run.popen(python(ECHO), stdin=ps.PIPE, stdout=ps.PIPE) as process:
        process.stdin.write(b"once")
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                process.close()
                os.close(writer)
                os.read(reader, 1)
            finally:
                os._exit(0)
        try:
            assert process.communicate(timeout=HANG)[0] == b"once"
            assert process.result().ok
        finally:
            os.close(reader)
            os.close(writer)
            os.waitpid(child, 0)


# --- signals to the command ---


@promise("signals")
def test_signals_reach_the_command(run: Runner) -> None:
    code = LISTEN + """
def answer(number, _): os.write(1, b"%d\\n" % number)
for number in (signal.SIGHUP, signal.SIGINT, signal.SIGUSR1, signal.SIGTERM): signal.signal(number, answer)
os.write(1, b"up\\n")
listen()
"""
    with run.popen(python(code), stdout=ps.PIPE) as process:
        is_up(process)
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGINT, signal.SIGTERM):
            process.send_signal(number)
            assert int(process.stdout.readline()) == number
        assert process.poll() is None


@promise("signals")
@pytest.mark.parametrize("number", [15, 9, 10])
def test_who_sent_a_signal_is_told(run: Runner, number: int) -> None:
    with run.popen(python(FOR_EVER), stdout=ps.PIPE) as process:
        is_up(process)
        process.send_signal(number)
        result = process.wait(HANG)
        assert (result.reason, result.signal, process.returncode) == (ps.Reason.SIGNALED, number, -number)
        assert "which the caller had sent" in (result.error or "")
    with run.popen(python(f"import os; os.kill(os.getpid(), {number})")) as process:
        result = process.wait(HANG)
        assert (result.reason, result.signal) == (ps.Reason.SIGNALED, number)
        assert "sent from inside" in (result.error or "")


@promise("signals")
def test_what_the_caller_blocks_is_not_blocked_in_its_runs(run: Runner, tmp_path: Path) -> None:
    """The mask is inherited (sigprocmask(2)), also by those that look after runs, and by signals they are told things."""
    code = "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())\n" + HANDLE
    code += f"process.send_signal(signal.SIGTERM)\nprint(process.wait({HANG / 2}).signal)\n"
    assert output_of(code, *arguments(run, tmp_path, *python(FOR_EVER))).split() == ["up", "15"]


@promise("signals")
def test_the_command_alone_gets_it(run: Runner, tmp_path: Path) -> None:
    """Not its children, as by kill(2); a terminal would send to all of them."""
    code = LISTEN + """
command = os.getpid()
def answer(*_):
    if os.getpid() == command: os.write(1, b"heard\\n")
    else: open("child", "w")
signal.signal(signal.SIGUSR1, answer)
if os.fork() == 0:
    os.write(1, b"up\\n")
listen()
"""
    with run.popen(python(code), stdout=ps.PIPE, working_dir=tmp_path) as process:
        is_up(process)
        process.send_signal(signal.SIGUSR1)
        assert process.stdout.readline() == b"heard\n"
    assert not (tmp_path / "child").exists()


@promise("handle")
@pytest.mark.parametrize("number", [0, -1, 65, "TERM", None])
def test_what_is_no_signal_is_refused(run: Runner, number: Any) -> None:
    with run.popen(python("pass")) as process, pytest.raises(ps.ConfigError, match="signal"):
        process.send_signal(number)


@promise("handle")
@pytest.mark.skipif(sys.platform != "win32", reason="Windows alone has no signals")
def test_what_windows_does_not_have_is_refused(run: Runner) -> None:
    with run.popen(python(FOR_EVER), stdout=ps.PIPE) as process:
        is_up(process)
        for ask in (lambda: process.send_signal(2), process.pause, process.resume):
            with pytest.raises(ps.UnsupportedError) as caught:
                ask()
            assert caught.value.remedy
        process.terminate()
        assert process.wait(HANG).reason is ps.Reason.CANCELLED


# --- pausing ---

COUNTING = """
import os, sys, time
def count(name):
    with open(name, "ab", buffering=0) as file:
        while True:
            file.write(b"x")
            time.sleep(0.001)
if os.fork() == 0:
    if os.fork() == 0:
        os.setsid()
        count("grandchild")
    count("child")
count("command")
"""
NAMES = ("command", "child", "grandchild")


def sizes(directory: Path) -> list[int]:
    return [(directory / name).stat().st_size if (directory / name).exists() else 0 for name in NAMES]


def goes_on(directory: Path) -> bool:
    """Whether any of them does something within a while."""
    before, end = sizes(directory), time.monotonic() + 0.3
    while time.monotonic() < end:
        time.sleep(0.01)
        if sizes(directory) != before:
            return True
    return False


def all_go_on(directory: Path) -> bool:
    before = sizes(directory)
    return not until_false(lambda: any(now <= then for now, then in zip(sizes(directory), before, strict=True)))


@promise("pause")
@pytest.mark.parametrize("options", [{}, {"memory_limit": "512M"}, {"cpu_limit": 50}])
def test_the_whole_tree_stands_still(run: Runner, tmp_path: Path, options: dict[str, Any]) -> None:
    with run.popen(python(COUNTING), working_dir=tmp_path, **options) as process:
        for _ in range(2):
            assert all_go_on(tmp_path)
            process.pause()
            assert not until_false(lambda: goes_on(tmp_path))
            assert process.poll() is None
            assert process.usage().tasks >= 3
            assert not goes_on(tmp_path)
            process.resume()
        assert all_go_on(tmp_path)
        process.pause()
        process.pause()
        process.resume()
        assert all_go_on(tmp_path), "it is no counter"


@promise("pause")
def test_a_paused_run_ends_all_the_same(run: Runner, tmp_path: Path) -> None:
    for end in (lambda process: process.kill(), lambda process: process.close()):
        with run.popen(python(HELD), stdout=ps.PIPE, working_dir=tmp_path, kill_grace=HANG) as process:
            is_up(process)
            process.pause()
            end(process)
            assert process.wait(HANG).reason is ps.Reason.CANCELLED
        assert not is_held(tmp_path / "command")
    with run.popen(python(FOR_EVER), timeout=1) as process:
        process.pause()
        assert process.wait(HANG).reason is ps.Reason.TIMEOUT


# --- usage ---


@promise("live usage")
def test_what_was_used_grows(run: Runner) -> None:
    code = UP + "import sys, time\nend = time.process_time() + 0.5\nwhile time.process_time() < end: pass\nos.write(1, b'done\\n')\nsys.stdin.read()"
    with run.popen(python(code), stdin=ps.PIPE, stdout=ps.PIPE, cpu_time_limit=100) as process:
        is_up(process)
        first = process.usage()
        assert first.tasks >= 1
        assert not until_false(lambda: process.usage().cpu_time < first.cpu_time + 0.1)
        assert process.stdout.readline().strip() == b"done"
        last = process.usage()
        assert last.elapsed > first.elapsed
        assert last.cpu_time >= 0.4
        process.stdin.close()
        result = process.wait(HANG)
        assert result.execution_time >= last.elapsed
        end = process.usage()
        assert (end.elapsed, end.cpu_time, end.tasks) == (result.execution_time, result.cpu_time.total, 0)


@promise("live usage")
def test_memory_is_that_of_the_tree(run: Runner) -> None:
    code = UP + "import sys\nfor size in (0, 60, 0):\n    held = b'x' * (size << 20); os.write(1, b'%d\\n' % size); sys.stdin.readline()"
    with run.popen(python(code), stdin=ps.PIPE, stdout=ps.PIPE, bufsize=0, memory_limit="512M") as process:
        is_up(process)
        memory = []
        for _ in range(3):
            process.stdout.readline()
            memory.append(process.usage().memory)
            assert process.poll() is None, process.result()
            process.stdin.write(b"\n")
        assert all(memory), memory
        assert memory[1] > memory[0] + (50 << 20)
        assert memory[2] < memory[1] - (50 << 20), "what is used now, not the peak"


# --- SIGTERM first ---

POLITE = LISTEN + """
def polite(name, code, *before):
    def end(*_):
        with open(name, "a") as file:
            file.write("TERM ")
        if code is not None:
            os._exit(code)
    signal.signal(signal.SIGTERM, end)
    for act in before:
        act()
    listen()
"""


@promise("grace")
@pytest.mark.parametrize("timeout", [None, 1.0])
def test_the_tree_ends_itself(run: Runner, tmp_path: Path, timeout: float | None) -> None:
    code = POLITE + """
reader, writer = os.pipe()
for name in ("child", "elsewhere"):
    if os.fork() == 0:
        if name == "elsewhere":
            os.setsid()
        polite(name, 0, lambda: os.write(writer, b"u"))
while len(os.read(reader, 1)) and not os.read(reader, 1): pass
def wait_and_exit(*_):
    with open("command", "a") as file:
        file.write("TERM ")
    for _ in range(2):
        os.wait()
    os._exit(7)
signal.signal(signal.SIGTERM, wait_and_exit)
os.write(1, b"up\\n")
listen()
"""
    options = {} if timeout is None else {"timeout": timeout}
    with run.popen(python(code), stdout=ps.PIPE, working_dir=tmp_path, kill_grace=HANG, **options) as process:
        is_up(process)
        if timeout:
            process.wait(HANG)
    result = process.wait()
    assert (result.reason, result.exit_code) == (ps.Reason.TIMEOUT if timeout else ps.Reason.CANCELLED, 7)
    assert [(tmp_path / name).read_text() for name in ("command", "child", "elsewhere")] == ["TERM "] * 3, "each of them once"


@promise("grace")
@pytest.mark.parametrize("timeout", [None, 1.0])
def test_who_does_not_heed_it_is_killed(run: Runner, tmp_path: Path, timeout: float | None) -> None:
    code = HOLD + POLITE + "held = hold('held')\npolite('command', None, lambda: os.write(1, b'up\\n'))"
    options = {} if timeout is None else {"timeout": timeout}
    with run.popen(python(code), stdout=ps.PIPE, working_dir=tmp_path, kill_grace=1.0, **options) as process:
        is_up(process)
        if timeout:
            process.wait(HANG)
    result = process.wait()
    assert (result.reason, result.exit_code) == (ps.Reason.TIMEOUT if timeout else ps.Reason.CANCELLED, None)
    assert (tmp_path / "command").read_text() == "TERM "
    assert not is_held(tmp_path / "held")


@promise("grace")
def test_kill_does_not_wait(run: Runner, tmp_path: Path) -> None:
    code = POLITE + "polite('command', 0, lambda: os.write(1, b'up\\n'))"
    with run.popen(python(code), stdout=ps.PIPE, working_dir=tmp_path, kill_grace=HANG) as process:
        is_up(process)
        process.kill()
        assert process.wait(HANG).reason is ps.Reason.CANCELLED
    assert not (tmp_path / "command").exists()
    code = POLITE + "polite('command', None, lambda: os.write(1, b'up\\n'))"
    process = run.popen(python(code), stdout=ps.PIPE, working_dir=tmp_path, kill_grace=HANG)
    is_up(process)
    with ThreadPoolExecutor(1) as pool:
        closing = pool.submit(process.close)
        assert not until_false(lambda: not (tmp_path / "command").exists())
        process.kill()
        closing.result(HANG)
    assert process.wait().reason is ps.Reason.CANCELLED


@promise("grace")
def test_run_has_it_too(run: Runner) -> None:
    code = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(5)); time.sleep(3600)"
    result = run(python(code), timeout=2, kill_grace=HANG)
    assert (result.reason, result.exit_code) == (ps.Reason.TIMEOUT, 5)


# --- events ---


@promise("events")
def test_what_happens_is_told_as_it_happens(run: Runner) -> None:
    code = "import sys\nfor line in sys.stdin: print(line.strip(), flush=True); print(line.strip().upper(), file=sys.stderr, flush=True)\nsys.exit(3)"
    events = list(run.stream(python(code), input="one\ntwo\n"))
    assert isinstance(events[0], ps.Started)
    assert isinstance(events[-1], ps.Exited)
    assert events[-1].result.exit_code == 3
    said = {"stdout": b"", "stderr": b""}
    for event in events[1:-1]:
        assert isinstance(event, ps.Output)
        said[event.stream] += event.data
    assert (said["stdout"].split(), said["stderr"].split()) == ([b"one", b"two"], [b"ONE", b"TWO"])


@promise("events")
def test_a_piece_comes_while_the_command_goes_on(run: Runner, tmp_path: Path) -> None:
    code = UP + "import time\nwhile not os.path.exists('go'): time.sleep(0.01)\nos.write(1, b'gone\\n')"
    said = b""
    for event in run.stream(python(code), working_dir=tmp_path):
        if isinstance(event, ps.Output):
            said += event.data
            (tmp_path / "go").touch()
    assert said.split() == [b"up", b"gone"]


@promise("events")
def test_events_stop_at_max_output(run: Runner) -> None:
    events = list(run.stream(python("print('x' * 200000)"), max_output=5000))
    assert sum(len(event) for event in events if isinstance(event, ps.Output)) == 5000
    assert isinstance(events[-1], ps.Exited)
    assert events[-1].result.stdout_truncated


@promise("events")
@pytest.mark.parametrize("error", [None, ZeroDivisionError, KeyboardInterrupt])
def test_leaving_the_loop_ends_the_run(run: Runner, tmp_path: Path, error: type[BaseException] | None) -> None:
    def leave() -> None:
        for event in run.stream(python(HELD), working_dir=tmp_path):
            if isinstance(event, ps.Output):
                if error:
                    raise error
                break

    if error:
        with pytest.raises(error):
            leave()
    else:
        leave()
    assert not is_held(tmp_path / "command")


@promise("events")
def test_what_cannot_be_run_raises(run: Runner) -> None:
    with pytest.raises(FileNotFoundError):
        next(run.stream(["no-such-command-here"]))
    # What is not valid is refused at the call, not when the first event is asked for.
    for options in ({"stdout": None}, {"stderr": ps.PIPE}, {"stdin": ps.PIPE}):
        with pytest.raises(ps.ConfigError, match=next(iter(options))):
            run.stream(python("pass"), **options)
    with pytest.raises(ps.ConfigError, match="stdin"):
        ps.stream(python("pass"), config=ps.Config(stdin=ps.PIPE, **run.config()))
    for name, value in (("stdout", "log"), ("stdout", ps.DEVNULL), ("stderr", ps.STDOUT), ("stderr", ps.Tee("log"))):
        with pytest.raises(ps.ConfigError, match="the Config has it") as caught:
            ps.stream(python("pass"), config=ps.Config(**{name: value}, **run.config()))  # type: ignore[arg-type]
        assert caught.value.field == name
    assert list(ps.stream(python("pass"), config=ps.Config(stdout=ps.CAPTURE, stderr=ps.PIPE, **run.config())))
    with pytest.raises(ps.ConfigError, match="input"):
        run.stream(python("pass"), stdin=ps.DEVNULL, input=b"x")
    with pytest.raises(ps.ConfigError, match="args"):
        run.stream("echo x")


# --- where output goes ---


@promise("sinks")
def test_functions_and_tees(run: Runner, tmp_path: Path) -> None:
    pieces: list[bytes] = []
    memory, numbered = io.BytesIO(), tmp_path / "numbered"
    with numbered.open("wb") as file:
        file.write(b"before ")
        tee = ps.Tee(tmp_path / "path", file, memory, pieces.append)
        result = run(python("import sys; print('out'); print('err', file=sys.stderr)"), stdout=tee, stderr=pieces.append)
        file.write(b" after")
    out = result.stdout
    assert out.split() == [b"out"]
    assert ((tmp_path / "path").read_bytes(), memory.getvalue(), numbered.read_bytes()) == (out, out, b"before " + out + b" after")
    assert sorted(b"".join(pieces).split()) == [b"err", b"out"]
    assert result.stderr == b""
    with run.popen(python("print('out')"), stdout=ps.Tee(tmp_path / "handle")) as process:
        assert process.wait(HANG).stdout == (tmp_path / "handle").read_bytes() == out


@promise("sinks")
def test_max_output_holds_for_each_target(run: Runner, tmp_path: Path) -> None:
    pieces: list[bytes] = []
    result = run(python("print('x' * 100000)"), stdout=ps.Tee(tmp_path / "path", pieces.append), max_output=1000)
    assert (len(result.stdout), (tmp_path / "path").stat().st_size, sum(map(len, pieces))) == (1000, 1000, 1000)
    assert result.stdout_truncated


@promise("sinks")
@pytest.mark.parametrize("tee", [False, True])
def test_what_a_function_raises_ends_the_run(run: Runner, tmp_path: Path, tee: bool) -> None:
    def broken(data: bytes) -> None:
        raise OursError(data)

    target: Any = ps.Tee(broken) if tee else broken
    with pytest.raises(OursError):
        run(python(HELD), stdout=target, working_dir=tmp_path)
    assert not is_held(tmp_path / "command")
    with contextlib.suppress(OursError):  # what it writes may come before it is told that it has begun
        process = run.popen(python(HELD), stdout=target, working_dir=tmp_path)
        for _ in range(2):
            with pytest.raises(OursError):
                process.wait(HANG)
        process.close()
    assert not is_held(tmp_path / "command")


@promise("sinks")
@pytest.mark.parametrize("target", ["directory", "closed", "text"])
def test_a_target_that_cannot_be_written_to_is_refused(run: Runner, tmp_path: Path, target: str) -> None:
    closed = (tmp_path / "file").open("wb")
    closed.close()
    targets: dict[str, Any] = {"directory": tmp_path, "closed": closed, "text": io.StringIO()}
    with pytest.raises(ps.ConfigError):
        run(python("pass"), stdout=ps.Tee(targets[target]))


@promise("handle")
def test_its_end_is_told_where_nobody_waits(run: Runner) -> None:
    """By output_of, whose caller makes sure that nothing is printed at its exit."""
    code = f"import warnings; warnings.simplefilter('ignore'); import proc_sandbox as ps; p = ps.Popen({python('print(1)')!r}, backend={run.backend!r}, enforcement='best-effort')\nwhile p.poll() is None: pass\nprint(p.returncode, p.result().stdout.text().strip())"
    assert output_of(code).split() == ["0", "1"]
