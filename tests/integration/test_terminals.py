"""pty=True: a terminal of the command's own; and what becomes of the caller's."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import pytest
from support.behaviours import Runner
from support.processes import caller, output_of, until_false
from support.programs import HANG, python
from support.terminals import Terminal, caller_on, program_on, terminal

import proc_sandbox as ps

EVERY_BACKEND = True


def run(args: list[str], **config: object) -> ps.Result:
    """A run on a terminal that does not hang."""
    result = ps.run(args, **{"pty": True, "timeout": HANG, **config})  # type: ignore[arg-type]
    assert not result.timed_out, result
    assert result.stderr == b""
    return result


# --- the command's own terminal ---


def test_all_three_streams_are_one_terminal_that_controls_the_session() -> None:
    code = """
import os
names = {os.ttyname(n) for n in (0, 1, 2)}
print(len(names), os.tcgetpgrp(0) == os.getpgrp() == os.getsid(0) == os.getpid(), os.get_terminal_size())
os.write(2, b"errors\\n")
with open("/dev/tty", "wb", buffering=0) as tty: tty.write(b"by name\\n")
with open("/dev/stderr", "wb", buffering=0) as again: again.write(b"again\\n")
with open(names.pop(), "wb", buffering=0) as again: again.write(b"and again\\n")
"""
    lines = run(python(code)).stdout.split(b"\r\n")
    assert lines == [b"1 True os.terminal_size(columns=80, lines=24)", b"errors", b"by name", b"again", b"and again", b""]


@pytest.mark.parametrize("data", [b"", b"a line\n", b"no end of the line", b"one\ntwo"])
def test_input_is_typed_and_ends(data: bytes) -> None:
    code = "import sys; data = sys.stdin.buffer.read(); sys.stdout.write(repr(data))"
    assert run(python(code), input=data).stdout.endswith(repr(data).encode())


def test_whoever_reads_after_the_end_meets_it_too() -> None:
    assert run(["sh", "-c", "cat; cat; cat; echo over"], input=b"x\n").stdout == b"x\r\nx\r\nover\r\n"
    assert run(["sh", "-c", "cat; cat; echo over"]).stdout == b"over\r\n"


def test_who_takes_bytes_meets_the_end_as_well() -> None:
    """readline(3) sets another mode after the end was typed, to which it is a NUL then."""
    said = run(python("import sys; print(sys.argv)"), env={"TERM": "dumb"})
    assert said.ok
    shell = run(["bash", "--norc", "-i"], input=b"echo $((6*7))\n")
    assert b"\r\n42\r\n" in shell.stdout


def test_the_end_is_typed_again_to_who_has_lost_it() -> None:
    """As a shell does that sets the mode of lines, for the time of a command, while the end of the input is typed."""
    code = """
import os, tty
tty.setcbreak(0)
ends = 0
while ends < 4:
    ends += os.read(0, 1) == b"\\4"
print("all of them")
"""
    assert run(python(code), input=b"x").stdout.endswith(b"all of them\r\n")


@pytest.mark.parametrize("stdin", ["path", "file", "descriptor", "pipe", "memory"])
def test_input_can_come_from_anywhere(tmp_path: Path, stdin: str) -> None:
    place = tmp_path / "input"
    place.write_bytes(b"from there\n")
    with contextlib.ExitStack() as stack:
        reader, writer = os.pipe()
        os.write(writer, b"from there\n")
        os.close(writer)
        stack.callback(os.close, reader)
        file = stack.enter_context(place.open("rb"))
        source = {"path": place, "file": file, "descriptor": file.fileno(), "pipe": reader, "memory": io.BytesIO(b"from there\n")}
        assert run(["cat"], stdin=source[stdin]).stdout == b"from there\r\n" * 2


def test_output_can_go_anywhere(tmp_path: Path) -> None:
    place, memory, got = tmp_path / "output", io.BytesIO(), []
    for target in (place, memory, got.append, ps.DEVNULL, ps.Tee(got.append)):
        result = run(["sh", "-c", "echo out; echo err >&2"], stdout=target)
        assert result.stdout == (b"out\r\nerr\r\n" if isinstance(target, ps.Tee) else b"")
    assert place.read_bytes() == memory.getvalue() == b"out\r\nerr\r\n"
    assert b"".join(got) == b"out\r\nerr\r\n" * 2


@pytest.mark.parametrize("stderr", [ps.DEVNULL, "file", io.BytesIO(), 2])
def test_there_is_one_output(stderr: object) -> None:
    with pytest.raises(ps.ConfigError, match="stdout") as caught:
        ps.Config(pty=True, stderr=stderr)
    assert caught.value.field == "stderr"


def test_a_stage_of_a_pipeline_has_none() -> None:
    for stages in ((ps.cmd(["true"], pty=True), ps.cmd(["cat"])), (ps.cmd(["true"]), ps.cmd(["cat"], pty=True))):
        with pytest.raises(ps.ConfigError, match="pipeline"):
            (stages[0] | stages[1]).run()


def test_handles_and_streams() -> None:
    with ps.Popen(["sh", "-c", "read x; echo got $x"], pty=True, stdin=b"it\n") as process:
        assert process.wait(HANG).stdout == b"it\r\ngot it\r\n"
    events = list(ps.stream(["sh", "-c", "echo out; echo err >&2"], pty=True))
    assert b"".join(event for event in events if isinstance(event, ps.Output)) == b"out\r\nerr\r\n"


@pytest.mark.parametrize("data", [b"x" * 100_000, b"x\n" * 100_000], ids=["one line", "lines"])
def test_who_does_not_read_keeps_nobody_waiting(data: bytes) -> None:
    assert run(["true"], input=data).ok


def test_many_lines_arrive() -> None:
    """More than the terminal holds, each way."""
    data = b"".join(b"%d\n" % n for n in range(30_000))
    code = "import sys, termios, hashlib; data = sys.stdin.buffer.read(); print(hashlib.sha256(data).hexdigest())"
    import hashlib

    said = run(["sh", "-c", "stty -echo; echo go; exec " + " ".join(f"'{word}'" for word in python(code))], stdin=Late(data))
    assert said.stdout.split(b"\r\n")[-2].decode() == hashlib.sha256(data).hexdigest()


class Late:
    """Is read to its end as a file is; what comes before the command has set its mode is echoed, which does not matter here."""

    def __init__(self, data: bytes) -> None:
        self.file = io.BytesIO(data)

    def read(self, count: int) -> bytes:
        return self.file.read(min(count, 1000))


def test_output_that_is_still_on_its_way_at_the_end_is_there() -> None:
    code = "import os\nfor _ in range(200): os.write(1, b'y' * 999 + b'\\n')"
    for _ in range(5):
        assert run(python(code)).stdout == (b"y" * 999 + b"\r\n") * 200


def test_an_output_that_cannot_be_written_is_named() -> None:
    """It is we who write there, and the command knows nothing of it."""
    with pytest.raises(OSError, match="/dev/full") as caught:
        run(["echo", "x"], stdout="/dev/full")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, "/dev/full")
    with open("/dev/full", "wb", buffering=0) as file, pytest.raises(OSError, match="stdout") as caught:
        run(["sh", "-c", "yes"], stdout=file)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, "stdout")


def test_a_terminal_that_cannot_be_made_private_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def openpty(whole: Any = os.openpty) -> tuple[int, int]:
        made.extend(whole())
        return made[0], made[1]

    def refuse(descriptor: int, mode: int) -> None:
        raise OSError(errno.EROFS, "")

    monkeypatch.setattr(os, "openpty", openpty)
    monkeypatch.setattr(os, "fchmod", refuse)
    try:
        from proc_sandbox.backends.unix.terminal import open_terminal

        with pytest.raises(ps.LaunchError) as caught:
            open_terminal()
    finally:
        monkeypatch.undo()
    assert (caught.value.step, caught.value.errno) == ("terminal", errno.EROFS)
    for descriptor in made:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


@pytest.mark.parametrize(("count", "lost"), [(10, False), (100_000, True)])
def test_what_nobody_takes_at_the_end_is_told(monkeypatch: pytest.MonkeyPatch, count: int, lost: bool) -> None:
    """More than a pipe holds, and less than keeps the command waiting."""
    monkeypatch.setattr("proc_sandbox.backends.unix.terminal.PATIENCE", 0.0)
    reader, writer = os.pipe()
    try:
        result = run(["head", "-c", str(count), "/dev/zero"], stdout=writer)
    finally:
        os.close(reader)
        os.close(writer)
    assert result.ok
    assert result.output_truncated == (lost, False)


def test_max_output_holds() -> None:
    result = run(["sh", "-c", "yes | head -c 1000000"], max_output="1K")
    assert (len(result.stdout), result.output_truncated.stdout) == (1024, True)


def test_limits_hold_on_a_terminal() -> None:
    result = ps.run(["sh", "-c", "echo before; exec sleep 1000"], pty=True, timeout=3)
    assert (result.timed_out, bytes(result.stdout)) == (True, b"before\r\n")


def test_who_holds_the_terminal_after_the_command_ends_with_it() -> None:
    result = run(["sh", "-c", "trap '' HUP; sleep 1000 & echo left"])
    assert result.stdout == b"left\r\n"


def test_a_command_that_is_missing_leaves_nothing() -> None:
    with pytest.raises(FileNotFoundError):
        ps.run(["no-such-command"], pty=True)
    with pytest.raises(PermissionError):
        ps.run(["/etc/passwd"], pty=True)


def test_in_a_thread_and_a_forked_child() -> None:
    code = """
import os, threading
import proc_sandbox as ps
done = []
thread = threading.Thread(target=lambda: done.append(ps.run(["tty"], pty=True).ok))
thread.start(); thread.join()
pid = os.fork()
if not pid:
    os._exit(0 if ps.run(["tty"], pty=True).ok else 1)
print(done, os.waitpid(pid, 0)[1])
"""
    assert output_of(code) == "[True] 0\n"


def test_it_is_never_prepared() -> None:
    for _ in range(4):
        assert run(["tty"], prepared=2).stdout.startswith(b"/dev/")


def test_many_at_a_time() -> None:
    with ThreadPoolExecutor(8) as pool:
        names = list(pool.map(lambda n: run(["sh", "-c", f"tty; echo {n}"]).stdout, range(24)))
    assert [int(said.split()[1]) for said in names] == list(range(24))


# --- a handle's pipes to it ---

BOTH: dict[str, Any] = {"pty": True, "stdin": ps.PIPE, "stdout": ps.PIPE, "timeout": HANG}
SILENT = "stty -echo; echo up; "
"""What is typed is not shown."""


def read_until(file: IO[bytes], end: bytes) -> bytes:
    """Read what is shown until it ends with something."""
    shown = b""
    while not shown.endswith(end):
        piece = file.read(1)
        assert piece, shown
        shown += piece
    return shown


def test_a_dialogue_with_python() -> None:
    with ps.Popen(["python3", "-iq"], **BOTH) as process:
        read_until(process.stdout, b">>> ")
        process.stdin.write(b"print(6*7)\n")
        assert process.stdout.readline() == b"print(6*7)\r\n"
        assert process.stdout.readline() == b"42\r\n"
        read_until(process.stdout, b">>> ")
        process.stdin.write(b"import os; print(os.isatty(0), os.isatty(2), os.ttyname(0) == os.ttyname(1))\n")
        read_until(process.stdout, b"True True True\r\n>>> ")
        process.stdin.close()  # which types the end of the input until somebody has met it
        process.stdout.read()
        assert process.stdout.read() == b""
        assert process.wait().exit_code == 0


def test_a_dialogue_in_text() -> None:
    with ps.Popen(["sh", "-c", "read name; echo hello $name"], text=True, **BOTH) as process:
        process.stdin.write("you\n")
        assert process.stdout.read() == "you\nhello you\n"
        result = process.wait()
        assert (result.ok, result.stdout, result.stderr) == (True, "", "")


def test_a_password_is_not_shown() -> None:
    code = "import getpass; print('got', getpass.getpass('secret: '))"
    with ps.Popen(python(code), **BOTH) as process:
        shown = read_until(process.stdout, b"secret: ")  # after which nothing is shown: getpass() has set the mode before
        process.stdin.write(b"swordfish\n")
        shown += process.stdout.read()
        assert shown == b"secret: \r\ngot swordfish\r\n"


def test_one_of_both_is_a_pipe() -> None:
    heard = bytearray()
    with ps.Popen(["sh", "-c", "echo up; read x; echo got $x >&2"], pty=True, stdin=ps.PIPE, stdout=heard.extend, timeout=HANG) as process:
        assert (process.stdout, process.stderr) == (None, None)
        process.stdin.write(b"it\n")
        assert process.wait().ok
        assert heard in (b"up\r\nit\r\ngot it\r\n", b"it\r\nup\r\ngot it\r\n")
    with ps.Popen(["cat"], pty=True, stdin=b"x\n", stdout=ps.PIPE, stderr=ps.PIPE, timeout=HANG) as process:
        assert (process.stdin, process.stderr) == (None, None)
        assert process.stdout.read() == b"x\r\nx\r\n"
    with ps.Popen(["cat"], pty=True, stdin=ps.PIPE, timeout=HANG) as process:
        process.stdin.write(b"x\n")
        process.stdin.close()
        assert process.wait().stdout == b"x\r\nx\r\n"


@pytest.mark.parametrize("data", [None, b"", b"x\n", b"no end", b"line\n" * 50_000], ids=["none", "empty", "line", "open", "much"])
def test_communicate(data: bytes | None) -> None:
    with ps.Popen(["sh", "-c", SILENT + "exec cat"], **BOTH) as process:
        process.stdout.readline()
        out, err = process.communicate(data)
        assert (out, err) == ((data or b"").replace(b"\n", b"\r\n"), None)
        assert process.wait().ok


def test_communicate_after_something_was_said() -> None:
    with ps.Popen(["sh", "-c", SILENT + "head -n 3; yes | head -n 100000; echo over"], **BOTH) as process:
        assert process.stdout.readline() == b"up\r\n"
        process.stdin.write(b"one\n")
        assert process.stdout.readline() == b"one\r\n"
        process.stdin.write(b"two\n")
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.01)  # what nobody reads is on its way in several places
        out, _ = process.communicate(b"three\n")
        assert out == b"two\r\nthree\r\n" + b"y\r\n" * 100_000 + b"over\r\n"


def test_communicate_keeps_max_output_and_goes_on_after_a_timeout() -> None:
    with ps.Popen(["sh", "-c", SILENT + "read x; yes | head -c 500000"], max_output="1K", **BOTH) as process:
        process.stdout.readline()
        with pytest.raises(subprocess.TimeoutExpired):
            process.communicate(timeout=0.01)
        out, _ = process.communicate()
        assert out == (b"y\r\n" * 1000)[:1024]
        assert process.wait().output_truncated.stdout


def test_communicate_when_it_is_over() -> None:
    with ps.Popen(["sh", "-c", "echo out"], **BOTH) as process:
        process.wait()
        assert process.communicate(b"to nobody") == (b"out\r\n", None)


def test_what_is_shown_last_is_there_however_late_it_is_read() -> None:
    """More than a pipe holds: what was under way when the run ended is kept."""
    with ps.Popen(python(f"import os\nwhile True: os.write(1, b'{'y' * 99}' + b'\\n')"), **{**BOTH, "timeout": 1}) as process:
        result = process.wait()
        assert (result.timed_out, result.stdout) == (True, b"")
        shown = process.stdout.read()
    assert len(shown) > 100_000
    lines = shown.split(b"\r\n")
    assert set(lines[:-1]) == {b"y" * 99}


def test_a_flood_that_nobody_reads_waits() -> None:
    """With bounded memory: what waits is the command."""
    code = """
import os, sys, time
import proc_sandbox as ps
def memory():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
with ps.Popen(["sh", "-c", "yes & echo $! >&2; wait"], pty=True, stdin=ps.PIPE, stdout=ps.PIPE, timeout=60) as process:
    process.stdout.readline()
    before, used = memory(), -1.0
    while used != (used := process.usage().cpu_time):  # it does no more
        time.sleep(0.2)
    print(memory() - before < 4_000_000, process.poll())
    assert b"y\\r\\n" * 1000 in process.stdout.read(100_000)
"""
    assert output_of(code) == "True None\n"


def test_who_does_not_read_keeps_the_writer_waiting_until_the_end() -> None:
    with ps.Popen(["sh", "-c", SILENT + "exec sleep 1000"], **{**BOTH, "timeout": 2}) as process:
        process.stdout.readline()
        with pytest.raises(BrokenPipeError):
            for _ in range(1000):
                process.stdin.write(b"line\n" * 1000)
        assert process.wait().timed_out


def test_nothing_that_is_written_is_lost() -> None:
    import hashlib

    data = b"".join(b"%d\n" % n for n in range(100_000))
    code = 'import sys, hashlib; print("up", flush=True); print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())'
    with ps.Popen(["sh", "-c", "stty -echo; exec " + " ".join(f"'{word}'" for word in python(code))], **BOTH) as process:
        process.stdout.readline()
        process.stdin.write(data)
        process.stdin.close()
        assert process.stdout.read().decode() == hashlib.sha256(data).hexdigest() + "\r\n"


def test_ctrl_c_reaches_the_foreground() -> None:
    with ps.Popen(["bash", "--norc", "--noprofile", "-i"], env={"PS1": "at> ", "TERM": "dumb"}, **BOTH) as process:
        read_until(process.stdout, b"at> ")
        process.stdin.write(b"sh -c 'echo go; exec sleep 1000'\n")
        read_until(process.stdout, b"\ngo\r\n")
        process.stdin.write(b"\x03")
        read_until(process.stdout, b"at> ")
        process.stdin.write(b"echo $?; exit 3\n")
        assert b"\n130\r\n" in process.stdout.read()
        assert process.wait().exit_code == 3


def test_its_size_can_be_set() -> None:
    code = """
import os, signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGWINCH])
print(*os.get_terminal_size(0), flush=True)
signal.sigwait([signal.SIGWINCH])
print(*os.get_terminal_size(0), flush=True)
"""
    with ps.Popen(python(code), **BOTH) as process:
        assert process.stdout.readline() == b"80 24\r\n"
        process.set_size(40, 120)
        assert process.stdout.readline() == b"120 40\r\n"
        for rows, columns in ((0, 80), (24, 65536), ("24", 80)):
            with pytest.raises(ps.ConfigError):
                process.set_size(rows, columns)
        process.wait()
        process.set_size(24, 80)
    with ps.Popen(["true"]) as process, pytest.raises(ps.ConfigError, match="pty"):
        process.set_size(24, 80)


def test_it_can_be_left_at_any_time() -> None:
    with ps.Popen(["sh", "-c", SILENT + "yes"], **BOTH) as process:
        process.stdout.readline()
    with ps.Popen(["sh", "-c", SILENT + "exec sleep 1000"], **BOTH) as process:
        process.stdout.readline()
        process.kill()
        assert process.stdout.read() == b""
        assert process.wait().reason is ps.Reason.CANCELLED
        with pytest.raises(BrokenPipeError):
            process.stdin.write(b"x")
    with pytest.raises(FileNotFoundError):
        ps.Popen(["no-such-command"], **BOTH)
    assert not [thread for thread in threading.enumerate() if thread.name == "proc-sandbox-terminal" and thread.is_alive()]


def test_who_closes_its_output_does_not_look_any_more() -> None:
    with ps.Popen(["sh", "-c", SILENT + "yes | head -c 1000000; read x; exit $x"], **BOTH) as process:
        process.stdout.readline()
        process.stdout.close()
        process.stdin.write(b"7\n")
        assert process.wait().exit_code == 7


def test_several_threads_have_a_part_in_it() -> None:
    with ps.Popen(["sh", "-c", SILENT + "exec cat"], **BOTH) as process, ThreadPoolExecutor(3) as pool:
        process.stdout.readline()
        end = pool.submit(process.wait)
        shown = pool.submit(process.stdout.read)
        for n in range(2000):
            process.stdin.write(b"%d\n" % n)
            if not n % 500:
                assert process.usage().tasks != 0
        process.stdin.close()
        assert shown.result(HANG) == b"".join(b"%d\r\n" % n for n in range(2000))
        assert end.result(HANG).ok


def test_what_a_sink_raises_ends_it() -> None:
    def refuse(data: bytes) -> None:
        raise ValueError("no")

    with ps.Popen(["sh", "-c", "read x; echo up; exec sleep 1000"], pty=True, stdin=ps.PIPE, stdout=refuse, timeout=HANG) as process:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(b"x\n")
        with pytest.raises(ValueError, match="no"):
            process.wait()


def test_so_does_a_sink_that_wants_to_leave() -> None:
    """What no handler of Exception meets is raised where the run is awaited, not in the thread that moves bytes."""

    def leave(data: bytes) -> None:
        raise SystemExit(3)

    with ps.Popen(["sh", "-c", "read x; exec sleep 1000"], pty=True, stdin=ps.PIPE, stdout=leave, timeout=HANG) as process:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(b"x\n")
        with pytest.raises(SystemExit):
            process.wait()


@pytest.mark.parametrize("stdin", ["ps.PIPE", "None"])
def test_an_interrupt_while_the_rest_is_written_comes_out_of_wait(place: Terminal, stdin: str) -> None:
    """With a thread that moves bytes, and without one. Nothing is left behind, and the terminal is given back."""
    before = place.attributes()
    code = f"""
import os
import proc_sandbox as ps
from proc_sandbox.backends.unix.terminal import TerminalStreams
gate, go = os.pipe()
whole = TerminalStreams.write_rest
def write_rest(self):
    TerminalStreams.write_rest = whole
    raise KeyboardInterrupt
TerminalStreams.write_rest = write_rest
command = ["sh", "-c", f"head -c 1 <&{{gate}}; echo shown"]
with ps.Popen(command, pass_fds=[gate], pty=True, stdin={stdin}, stdout=ps.INHERIT, timeout=60) as process:
    os.write(go, b"x")
    try:
        process.wait()
    except KeyboardInterrupt:
        raised = True
print("raised", raised, ps.run(["sh", "-c", "exit 7"], pty=True, stdout=ps.INHERIT).exit_code, flush=True)
"""
    with caller_on(place, code) as process:
        place.until(b"raised True 7")
        assert place.wait(process) == 0
    assert place.attributes() == before


def test_an_interrupt_of_the_wait_leaves_the_verdict_to_the_next(place: Terminal) -> None:
    code = """
import os, signal
import proc_sandbox as ps
from proc_sandbox.backends.unix.terminal import TerminalStreams
whole = TerminalStreams.write_rest
def write_rest(self):
    TerminalStreams.write_rest = whole
    os.kill(os.getpid(), signal.SIGINT)
    whole(self)
TerminalStreams.write_rest = write_rest
signal.signal(signal.SIGINT, signal.default_int_handler)
gate, go = os.pipe()
command = ["sh", "-c", f"head -c 1 <&{gate}; echo shown; exit 7"]
with ps.Popen(command, pass_fds=[gate], pty=True, stdout=ps.INHERIT, timeout=60) as process:
    os.write(go, b"x")
    try:
        process.wait()
    except KeyboardInterrupt:
        print("raised", process.wait().exit_code, flush=True)
"""
    with caller_on(place, code) as process:
        place.until(b"raised 7")
        assert place.wait(process) == 0


@pytest.mark.parametrize("how", ["close", "kill"])
def test_a_sink_may_end_it(how: str) -> None:
    there: list[ps.Popen[bytes]] = []

    def sink(data: bytes) -> None:
        if there:
            getattr(there[0], how)()

    with ps.Popen(["sh", "-c", "while echo up; do sleep 0.05; done"], pty=True, stdin=ps.PIPE, stdout=sink, timeout=HANG) as process:
        there.append(process)
        assert process.wait().reason is ps.Reason.CANCELLED


def test_signal_handlers_may_ask_while_it_is_waited_for() -> None:
    code = """
import signal
import proc_sandbox as ps
told, answered = [], []
def ask(number, frame):
    told.append(process.usage().tasks)
    process.set_size(len(told), 80)
    if len(told) >= 5 and not answered:
        answered.append(True)
        process.stdin.write(b"x\\n")
class Raised(Exception):
    pass
def refuse(number, frame):
    raise Raised
with ps.Popen(["sh", "-c", "stty -echo; echo up; read x; read y; exit 4"], pty=True, stdin=ps.PIPE, stdout=ps.PIPE, timeout=60) as process:
    process.stdout.readline()
    signal.signal(signal.SIGALRM, ask)
    signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
    while not answered:
        signal.pause()
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, refuse)
    for wait in (process.wait, process.stdout.read):
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        try:
            wait()
        except Raised:
            print("raised")
    process.stdin.write(b"y\\n")
    print(process.wait().exit_code)
"""
    assert output_of(code) == "raised\nraised\n4\n"


def test_the_death_of_what_serves_the_run_is_told_to_who_reads(backend: str) -> None:
    if backend != "linux":
        pytest.skip("there is no launcher")
    code = """
import os, signal
import proc_sandbox as ps
with ps.Popen(["sh", "-c", "echo up; exec sleep 1000"], pty=True, stdin=ps.PIPE, stdout=ps.PIPE) as process:
    process.stdout.readline()
    children = open("/proc/self/task/%d/children" % os.getpid()).read().split()
    for child in children:
        os.kill(int(child), signal.SIGKILL)
    print(process.stdout.read())
    try:
        process.wait()
    except ps.LauncherDiedError:
        print("told")
"""
    assert output_of(code) == "b''\ntold\n"


def test_a_child_by_fork_has_no_part_in_it() -> None:
    code = """
import os
import proc_sandbox as ps
with ps.Popen(["cat"], pty=True, stdin=ps.PIPE, stdout=ps.PIPE, timeout=60) as process:
    process.stdin.write(b"one\\n")
    assert process.stdout.readline() == b"one\\r\\n"
    pid = os.fork()
    if not pid:
        process.stdin.write(b"from the child\\n")
        process.close()
        os._exit(0)
    status = os.waitpid(pid, 0)[1]
    process.stdin.close()
    print(status, process.stdout.read(), process.wait().ok)
"""
    assert output_of(code) == r"0 b'one\r\n' True" + "\n"


# --- the caller's terminal ---

RUN = """
import sys
import proc_sandbox as ps
print("ready", flush=True)
result = ps.run(sys.argv[1:], pty=True, stdin=ps.INHERIT, stdout=ps.INHERIT)
print("over", result.reason.value, result.exit_code, flush=True)
"""


JOB = b"sh -c 'echo go; exec sleep 1000'\r"
"""What prints is in the foreground then: a shell that is interrupted while it puts a job there may lose the terminal to it."""


def shell_on(place: Terminal) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    """bash on a terminal of its own, joined to that one."""
    code = RUN.replace("pty=True", r"pty=True, env={'PS1': 'at> ', 'TERM': 'xterm'}")
    return caller_on(place, code, "bash", "--norc", "--noprofile", "-i")


@pytest.fixture
def place() -> Terminal:
    with terminal() as made:
        yield made  # type: ignore[misc]


def test_bytes_go_through_and_the_terminal_is_given_back(place: Terminal) -> None:
    before = place.attributes()
    with caller_on(place, RUN, "sh", "-c", "echo begun; head -c 4 | od -An -tx1; exit 7") as process:
        place.until(b"begun\r\n")
        assert place.is_raw
        place.type(b"\xff\x00\x01\r")
        place.until(rb"ff 00 01 0a\r\n.*over exited 7")
        assert place.wait(process) == 0
    assert place.attributes() == before
    assert place.left() == b""


def test_its_keys_are_the_users(place: Terminal) -> None:
    with caller_on(place, RUN, "sh", "-c", "stty -a; read x; echo got $x") as process:
        place.until(rb"erase = \^H;")
        place.type(b"ax\x08b\r")
        place.until(b"got ab\r\n")
        assert place.wait(process) == 0


def test_ctrl_c_ends_the_job_and_not_the_shell(place: Terminal) -> None:
    with shell_on(place) as process:
        place.until(b"at> ")
        place.type(JOB)
        place.until(rb"\rgo\r\n")
        place.type(b"\x03")
        place.until(b"at> ")
        place.type(b"echo $?; exit 3\r")
        place.until(rb"\r130\r\n")
        place.until(b"over exited 3")
        assert place.wait(process) == 0


def test_ctrl_z_and_fg(place: Terminal) -> None:
    with shell_on(place) as process:
        place.until(b"at> ")
        place.type(b"sh -c 'echo go; read x; echo got $x'\r")
        place.until(rb"\rgo\r\n")
        place.type(b"\x1a")
        place.until(rb"Stopped")
        place.until(b"at> ")
        place.type(b"fg\r")
        place.until(rb"fg\r\n.*read x")
        place.type(b"something\r")
        place.until(b"got something\r\n")
        place.until(b"at> ")
        place.type(b"\x04")
        place.until(b"over exited")
        assert place.wait(process) == 0


def test_the_size_follows(place: Terminal) -> None:
    code = """
import os, signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGWINCH])
size = os.get_terminal_size(0)
print(*size, flush=True)
while size.lines != 7:
    signal.sigwait([signal.SIGWINCH])
    size = os.get_terminal_size(0)
    print(*size, flush=True)
"""
    with caller_on(place, RUN, *python(code)) as process:
        place.until(b"100 30\r\n")
        place.resize(40, 120)
        place.until(b"120 40\r\n")
        place.resize(7, 20)
        place.until(rb"20 7\r\n.*over exited 0")
        assert place.wait(process) == 0


def test_a_thread_does_not_follow_signals_but_looks(place: Terminal) -> None:
    code = """
import sys, threading
import proc_sandbox as ps
run = lambda: ps.run(["sh", "-c", "stty size; read x; stty size"], pty=True, stdin=ps.INHERIT, stdout=ps.INHERIT)
thread = threading.Thread(target=run)
thread.start(); thread.join()
"""
    with caller_on(place, code) as process:
        place.until(b"30 100\r\n")
        place.resize(40, 120)
        place.type(b"\r")
        place.until(b"40 120\r\n")
        assert place.wait(process) == 0


def test_the_way_out(place: Terminal) -> None:
    """A command that listens to nothing."""
    before = place.attributes()
    with caller_on(place, RUN, "sh", "-c", "stty raw -echo; trap '' INT QUIT HUP TERM; echo begun; exec sleep 1000") as process:
        place.until(b"begun")
        place.type(b"\x03\x1c\x1a\x1d\x1d")
        place.type(b"\x1d")
        place.until(b"over cancelled None")
        assert place.wait(process) == 0
    assert place.attributes() == before


WAYS_OUT = {
    "kitty": b"\x1b[93;5u",
    "kitty with all flags": b"\x1b[57442;133:1u\x1b[93:125:93;133:1u\x1b[93::93;133:3u",
    "xterm": b"\x1b[27;5;93~",
    "windows": b"\x1b[17;29;0;1;8;1_\x1b[221;27;29;1;8;1_\x1b[221;27;29;0;8;1_",
    "between answers": b"\x1b[1;1R\x1d\x1b[1;1R",
}


@pytest.mark.parametrize("way", WAYS_OUT)
def test_no_command_closes_the_way_out(place: Terminal, way: str) -> None:
    """By having the terminal send keys in other ways, or answers all the time."""
    with caller_on(place, RUN, "sh", "-c", "stty raw -echo; printf '\\033[>1u\\033[>4;2m\\033[?9001hbegun'; exec sleep 1000") as process:
        place.until(b"begun")
        place.type(WAYS_OUT[way] * 2)
        place.type(WAYS_OUT[way])
        place.until(b"over cancelled None")
        assert place.wait(process) == 0


def test_a_timeout_gives_it_back(place: Terminal) -> None:
    before = place.attributes()
    code = RUN.replace("pty=True", "pty=True, timeout=3")
    with caller_on(place, code, "sh", "-c", "printf '\\033[?1000hbegun'; exec sleep 1000") as process:
        place.until(b"begun")
        place.until(rb"\x1b\[\?1000l.*over timeout None")
        assert place.wait(process) == 0
    assert place.attributes() == before


def test_failures_give_it_back(place: Terminal) -> None:
    before = place.attributes()
    for command, status in (("no-such-command", 127), ("/etc/passwd", 126)):
        with program_on(place, "run", "--pty", "--", command) as process:
            assert place.wait(process) == status
        assert place.attributes() == before


def test_an_exception_gives_it_back(place: Terminal) -> None:
    before = place.attributes()
    code = """
import signal, sys
import proc_sandbox as ps
def fail(*_): raise ZeroDivisionError
signal.signal(signal.SIGUSR1, fail)
print("ready", flush=True)
try:
    ps.run(["sh", "-c", "echo begun; sleep 1000"], pty=True, stdin=ps.INHERIT, stdout=ps.INHERIT)
except ZeroDivisionError:
    print("raised", flush=True)
"""
    with caller_on(place, code) as process:
        place.until(b"begun")
        process.send_signal(signal.SIGUSR1)
        place.until(b"raised")
        assert place.attributes() == before
        assert place.wait(process) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_that_ends_the_caller_gives_it_back(place: Terminal, number: signal.Signals) -> None:
    before = place.attributes()
    with caller_on(place, RUN, "sh", "-c", "printf '\\033[31mbegun'; sleep 1000") as process:
        place.until(b"begun")
        assert place.attributes() != before
        process.send_signal(number)
        assert place.wait(process) == -number
    assert place.attributes() == before
    assert place.left() == b""


def test_a_caller_that_has_its_own_way_with_signals_keeps_it(place: Terminal) -> None:
    code = """
import signal, sys
import proc_sandbox as ps
got = []
signal.signal(signal.SIGTERM, lambda *_: got.append("term"))
signal.signal(signal.SIGWINCH, lambda *_: (got.append("size"), print("resized", flush=True)))
ps.run(["sh", "-c", "echo begun; read x"], pty=True, stdin=ps.INHERIT, stdout=ps.INHERIT)
print(got, signal.getsignal(signal.SIGHUP) == signal.SIG_DFL, flush=True)
"""
    with caller_on(place, code) as process:
        place.until(b"begun")
        process.send_signal(signal.SIGTERM)
        place.resize(10, 40)
        place.until(b"resized")
        place.type(b"x\r")
        place.until(rb"\['term', 'size'\] True|\['size', 'term'\] True")
        assert place.wait(process) == 0


UNDER_JOB_CONTROL = """
import os, signal, sys
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
job = os.fork()
if not job:
    os.setpgid(0, 0)
    os.tcsetpgrp(0, os.getpid())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    os.execv(sys.executable, [sys.executable, "-c", *sys.argv[1:]])
print("job", job, flush=True)
while os.WIFSTOPPED(status := os.waitpid(job, os.WUNTRACED)[1]):
    os.tcsetpgrp(0, os.getpgrp())
    print("Stopped by", os.WSTOPSIG(status), flush=True)
    sys.stdin.readline()
    os.tcsetpgrp(0, job)
    os.kill(job, signal.SIGCONT)
sys.exit(os.waitstatus_to_exitcode(status))
"""
"""A shell's part of it; unlike a shell it leaves the terminal's mode as it finds it."""


def test_a_caller_that_is_stopped_gives_it_back_and_takes_it_again(place: Terminal) -> None:
    before = place.attributes()
    command = "echo begun; read x; echo got $x; read x; echo got $x"
    with caller_on(place, UNDER_JOB_CONTROL, RUN, "sh", "-c", command) as process:
        job = int(place.until(rb"job (\d+)")[1])
        place.until(b"begun")
        for said in (b"it", b"more"):
            assert place.is_raw
            os.kill(job, signal.SIGTSTP)
            place.until(b"Stopped by %d" % signal.SIGTSTP)
            assert place.attributes() == before
            place.type(b"\n")  # to the shell
            assert not until_false(lambda: not place.is_raw)
            place.type(said + b"\r")
            place.until(b"got " + said)
        assert place.wait(process) == 0
    assert place.attributes() == before


def test_a_job_of_a_shell_is_stopped_from_outside_and_continued(place: Terminal, tmp_path: Path) -> None:
    """The shell outside is one of the host's: job control is between it and us."""
    (tmp_path / "run.py").write_text(RUN)
    code = "import os, sys; os.execvp('bash', ['bash', '--norc', '--noprofile', '-i'])"
    environment = {"PS1": "host> ", "TERM": "dumb", "RUN": str(tmp_path / "run.py"), "PY": sys.executable, "PRELUDE": ""}
    with caller_on(place, code, env=environment) as process:
        place.until(b"host> ")
        place.type(b'"$PY" "$RUN" sh -c \'echo pid $PPID; echo begun; read x; echo got $x\'\n')
        place.until(rb"\nbegun\r\n")
        child = next(pid for pid in children_of(process.pid))
        os.kill(child, signal.SIGTSTP)
        place.until(b"Stopped")
        place.until(b"host> ")
        place.type(b"echo $((6*7))\n")
        place.until(rb"\n42\r\n")
        place.type(b"fg\n")
        place.until(rb"\nfg?|fg\r\n")
        place.type(b"it\r")
        place.until(b"got it")
        place.until(b"over exited 0")
        place.until(b"host> ")
        place.type(b"exit\n")
        assert place.wait(process) == 0


def children_of(pid: int) -> list[int]:
    from support.processes import children

    return children(pid)


def test_in_a_thread_it_is_given_back_at_the_interpreters_exit(place: Terminal) -> None:
    before = place.attributes()
    code = """
import sys, threading
import proc_sandbox as ps
threading.Thread(target=ps.run, args=(["sh", "-c", "echo begun; sleep 1000"],), daemon=True,
                 kwargs=dict(pty=True, stdin=ps.INHERIT, stdout=ps.INHERIT)).start()
while True:
    line = open(sys.argv[1]).readline()
    break
"""
    reader, writer = os.pipe()
    try:
        with caller_on(place, code, f"/dev/fd/{reader}", pass_fds=(reader,)) as process:
            place.until(b"begun")
            os.write(writer, b"end\n")
            assert place.wait(process) == 0
    finally:
        os.close(reader)
        os.close(writer)
    assert place.attributes() == before


SECOND = {
    "both typed": ({"stdin": "ps.INHERIT", "stdout": "ps.INHERIT"}, "stdin"),
    "both shown": ({"stdout": "ps.INHERIT"}, "stdout"),
    "by their files": ({"stdin": "sys.stdin", "stdout": "2"}, "stdin"),
}


@pytest.mark.parametrize("streams", SECOND)
def test_one_run_at_a_time_has_it(place: Terminal, streams: str) -> None:
    """A second one would take the first one's mode for what it is to give back, and both would read what is typed."""
    before = place.attributes()
    given, field = SECOND[streams]
    options = ", ".join(f"{name}={value}" for name, value in given.items())
    code = f"""
import sys
import proc_sandbox as ps
one = ps.Popen(["sh", "-c", "echo begun; exec sleep 1000"], pty=True, timeout=60, {options})
try:
    two = ps.Popen(["true"], pty=True, timeout=60, {options})
except ps.ConfigError as error:
    print("refused", error.field, "another run has your terminal" in str(error))
one.close()
print(ps.run(["sh", "-c", "exit 7"], pty=True, timeout=60, {options}).exit_code, flush=True)
if "two" in vars():
    two.close()
"""
    with caller_on(place, code) as process:
        place.until(f"refused {field} True\r?\n.*7\r\n".encode())
        assert place.wait(process) == 0
    assert place.attributes() == before


def test_a_second_one_in_a_thread_is_refused_too(place: Terminal) -> None:
    before = place.attributes()
    code = """
import threading
import proc_sandbox as ps
def second():
    try:
        ps.run(["true"], pty=True, timeout=60, stdout=ps.INHERIT)
    except ps.ConfigError:
        refused.set()
    over.set()
refused, over = threading.Event(), threading.Event()
one = ps.Popen(["sh", "-c", "read x"], pty=True, timeout=60, stdin=ps.PIPE, stdout=ps.INHERIT)
threading.Thread(target=second).start()
over.wait()
one.stdin.write(b"x\\n")
one.wait()
print("refused", refused.is_set(), flush=True)
"""
    with caller_on(place, code) as process:
        place.until(b"refused True")
        assert place.wait(process) == 0
    assert place.attributes() == before


def test_the_terminal_goes_away() -> None:
    """Its window is closed: nobody is left to type, and the run ends."""
    with terminal() as place:
        code = RUN.replace("import sys", "import signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN)")
        reader, writer = os.pipe()
        code = code.replace('print("over"', f'import os; os.write({writer}, result.reason.value.encode()); sys.exit(0); print("over"')
        with caller_on(place, code, "sh", "-c", "trap '' HUP; echo begun; exec sleep 1000", pass_fds=(writer,)) as process:
            os.close(writer)
            place.until(b"begun")
            os.close(place.master)
            os.close(place.slave)
            assert os.read(reader, 100) == b"cancelled"
            process.wait(HANG)
        os.close(reader)
        place.master, place.slave = os.openpty()  # to be closed


def test_a_terminal_that_has_gone_is_not_asked_again_and_again() -> None:
    """Where only the output is shown and the caller lives on: it waits for the run's end, and does not run meanwhile."""
    code = """
import os, select, signal, sys
import proc_sandbox as ps
from proc_sandbox.backends.unix import terminal
signal.signal(signal.SIGHUP, signal.SIG_IGN)
gate, go = os.pipe()
steps = 0
class Pump(terminal.TerminalPump):
    def step(self, wait=None):
        global steps
        steps += 1
        if steps == 1:
            os.write(1, b"ready")  # at once: then the terminal goes
        if steps == 1000:
            os.write(go, b"too often")
        found = super().step(wait)
        if self.terminal.caller.silent:
            os.write(go, b"silent")
        return found
terminal.TerminalPump = Pump
result = ps.run(["sh", "-c", "head -c 1 <&%d" % gate], pass_fds=[gate], pty=True, stdout=ps.INHERIT)
os.write(int(sys.argv[1]), b"%s %d" % (result.reason.value.encode(), steps < 100))
"""
    heard, told = os.pipe()
    place = Terminal(30, 100)
    with caller_on(place, code, str(told), pass_fds=[told]) as process:
        os.close(told)
        place.until(b"ready")
        os.close(place.master)
        os.close(place.slave)
        assert process.wait(HANG) == 0
    assert os.read(heard, 100) == b"exited 1"
    os.close(heard)


def test_only_the_output_is_shown(place: Terminal) -> None:
    """Nothing is typed for the command; the interrupt key is the caller's still, and its terminal is given back all the same."""
    before = place.attributes()
    code = RUN.replace("stdin=ps.INHERIT", "stdin=None")
    with caller_on(place, code, "sh", "-c", "cat; echo begun; sleep 1000") as process:
        place.until(b"begun\r\n")
        place.type(b"for nobody")
        place.type(b"\x03")
        assert place.wait(process) == -signal.SIGINT
        place.until(b"KeyboardInterrupt")
    assert place.attributes() == before
    assert place.left() == b""


STANDING = """
import signal, sys
import proc_sandbox as ps
numbers = [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGCONT, signal.SIGWINCH]
before = [signal.getsignal(number) for number in numbers]
def same():
    return [signal.getsignal(number) for number in numbers] == before
def start():
    return ps.Popen(["sh", "-c", "stty -echo; echo begun; read x; echo got $x"], pty=True, stdin=ps.PIPE, stdout=ps.INHERIT, timeout=60)
"""


def test_a_handle_types_and_the_terminal_shows(place: Terminal) -> None:
    """Its thread gives the terminal back, and the main thread stops listening to signals when it has waited."""
    before = place.attributes()
    code = """
with start() as process:
    sys.stdin.readline()
    process.stdin.write(b"it\\n")
    process.wait()
    print("over", same(), flush=True)
"""
    with caller_on(place, STANDING + code) as process:
        place.until(b"begun\r\n")
        assert place.is_raw
        place.type(b"\n")
        place.until(rb"got it\r\n.*over True")
        assert place.wait(process) == 0
    assert place.attributes() == before


def test_a_handle_that_is_left_on_its_thread_does_not_disarm_the_next(place: Terminal) -> None:
    """The signals of the first are listened to still when the second begins: it is given back on SIGTERM all the same."""
    before = place.attributes()
    code = """
with start() as first:
    first.stdin.write(b"it\\n")
    while not first.held.outcome:
        first.held.changed.acquire(); first.held.changed.wait(1); first.held.changed.release()
    ps.run(["sh", "-c", "echo second; exec sleep 1000"], pty=True, stdin=ps.INHERIT, stdout=ps.INHERIT)
"""
    with caller_on(place, STANDING + code) as process:
        place.until(b"second\r\n")
        process.send_signal(signal.SIGTERM)
        assert place.wait(process) == -signal.SIGTERM
    assert place.attributes() == before


def test_a_terminal_that_cannot_be_opened_again_is_told(place: Terminal) -> None:
    """One that is not its session's, and has no name here."""
    code = """
import os
import proc_sandbox as ps
def ttyname(descriptor):
    raise OSError(19, "No such device")
os.ttyname = ttyname
try:
    ps.run(["true"], pty=True, stdout=ps.INHERIT)
except ps.LaunchError as error:
    print("told", error.step, error.filename, error.errno, flush=True)
"""
    with caller(code, stdin=place.slave, stdout=place.slave, stderr=place.slave, start_new_session=True) as process:
        place.until(b"told terminal stdout 19")
        assert place.wait(process) == 0


# --- the command line ---


def test_shell_opens_one_in_the_current_directory(place: Terminal, tmp_path: Path, backend: str, idmap: None) -> None:
    (tmp_path / "here").write_text("file")
    before = place.attributes()
    words = ["--backend", backend, *(["--enforcement", "best-effort"] if backend == "posix" else [])]
    with program_on(place, "shell", *words, cwd=tmp_path, env={"SHELL": "/bin/bash"}) as process:
        place.until(rb"\(sandbox\) .*\$ " if backend == "linux" else rb"[$#] $")  # which reads the host's /etc/bash.bashrc
        place.type(b"ls; echo new >made; tty; echo $SHELL $TERM\r")
        place.until(rb"\rhere\r\n.*/dev/pts/\d+\r\n/bin/bash xterm\r\n")
        place.type(b"exit 5\r")
        assert place.wait(process) == 5
    assert place.attributes() == before
    assert (tmp_path / "made").read_text() == "new\n"


@pytest.mark.parametrize("usual", ["/usr/sbin/nologin", "/no/such/shell", ""])
def test_shell_takes_one_that_is_there(place: Terminal, tmp_path: Path, usual: str, idmap: None) -> None:
    with program_on(place, "shell", "-t", "60", cwd=tmp_path, env={"SHELL": usual}) as process:
        place.until(rb"\(sandbox\) .*\$ ")
        place.type(b"ps -o comm= -p $$; exit\r")
        place.until(rb"\rbash\r\n")
        assert place.wait(process) == 0


def test_shell_runs_a_command_too(place: Terminal, tmp_path: Path, idmap: None) -> None:
    with program_on(place, "shell", "-t", "0.5", "--", "sleep", "1000", cwd=tmp_path) as process:
        place.until(b"wall time limit of 0.5 s exceeded")
        assert place.wait(process) == 124


def test_shell_needs_a_terminal() -> None:
    done = subprocess.run([sys.executable, "-m", "proc_sandbox", "shell"], check=False, stdin=subprocess.DEVNULL, capture_output=True, timeout=HANG)
    assert done.returncode == 125
    assert b"it is no terminal; without one: proc-sandbox run" in done.stderr


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home directory in one that belongs to the user too."""
    directory = tmp_path / "outer" / "user"
    directory.mkdir(parents=True)
    (directory / "secret").write_text("the secret\n")
    (tmp_path / "work").mkdir()
    (tmp_path / "link").symlink_to("outer")
    (tmp_path / "policy.toml").write_text('[policies.wide]\nworking_dir = "outer"\n')
    return directory


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("/", []),
        ("/proc", []),
        ("{home}", []),
        ("{top}/outer", []),
        ("{top}/link", []),
        ("{top}/work", ["-C", "~"]),
        ("{top}/work", ["-C", "{top}/link"]),
        ("{top}/work", ["--policy", "{top}/policy.toml"]),
        ("{top}/outer", ["--rw", "{home}"]),
    ],
)
def test_shell_does_not_give_everything_away(place: Terminal, where: str, words: list[str], home: Path, tmp_path: Path) -> None:
    where, *words = (word.format(home=home, top=tmp_path) for word in (where, *words))
    with program_on(place, "shell", *words, "--", "cat", home / "secret", cwd=where, env={"HOME": str(home)}) as process:
        place.until(b"-C DIR")
        assert place.wait(process) == 125
    assert b"the secret" not in place.left()


@pytest.mark.parametrize(("where", "words"), [("{home}", ["--rw", "~"]), ("{top}/work", ["-C", "{top}/link", "--rw", "{top}/outer"]), ("{top}/work", ["--rw", "~"])])
def test_shell_gives_the_home_directory_to_who_names_it(
    place: Terminal, where: str, words: list[str], home: Path, tmp_path: Path, idmap: None
) -> None:
    where, *words = (word.format(home=home, top=tmp_path) for word in (where, *words))
    with program_on(place, "shell", *words, "--", "cat", home / "secret", cwd=where, env={"HOME": str(home)}) as process:
        place.until(b"the secret")
        assert place.wait(process) == 0


def test_shell_takes_a_policy_and_what_is_given_beside_it(place: Terminal, tmp_path: Path, idmap: None) -> None:
    """Variables of its own give way to the caller's."""
    (tmp_path / "policy.toml").write_text('[policies.mine]\nenv = { PS1 = "mine> ", ONE = "1" }\n')
    words = ["--policy", "policy.toml", "-e", "TWO=2"]
    with program_on(place, "shell", *words, "--", "sh", "-c", "echo $ONE$TWO $SHELL $PS1; pwd", cwd=tmp_path) as process:
        place.until(rb"12 sh mine>\s*\r\n" + str(tmp_path).encode())
        assert place.wait(process) == 0


def test_run_has_it_as_an_option(place: Terminal, backend: str) -> None:
    words = ["--backend", backend, *(["--enforcement", "best-effort"] if backend == "posix" else [])]
    with program_on(place, "run", "--pty", *words, "--", "stty", "size") as process:
        place.until(b"30 100\r\n")
        assert place.wait(process) == 0
    done = subprocess.run(
        [sys.executable, "-m", "proc_sandbox", "run", "--pty", *words, "--", "cat"],
        input=b"x\n", capture_output=True, timeout=HANG, check=False,
    )  # fmt: skip
    assert done.stdout == b"x\r\nx\r\n"


def test_output_to_a_pipe_that_nobody_reads_ends_it(place: Terminal, backend: str) -> None:
    before = place.attributes()
    reader, writer = os.pipe()
    words = ["--backend", backend, *(["--enforcement", "best-effort"] if backend == "posix" else [])]
    with program_on(place, "run", "--pty", *words, "--", "yes", stdout=writer) as process:
        os.close(writer)
        os.read(reader, 10)
        os.close(reader)
        assert place.wait(process) == 141
    assert place.attributes() == before


def test_the_command_line_tells_what_nobody_took(backend: str) -> None:
    code = """
import sys
from proc_sandbox.backends.unix import terminal
from proc_sandbox.cli import program
terminal.PATIENCE = 0.0
sys.exit(program())
"""
    words = ["--backend", backend, *(["--enforcement", "best-effort"] if backend == "posix" else [])]
    with caller(code, "run", "--pty", *words, "--", "head", "-c", "100000", "/dev/zero") as process:
        assert process.wait(HANG) == 0  # and nobody has read a byte
        assert process.stderr is not None
        assert b"what was printed last is missing" in process.stderr.read()


def test_the_plan_says_so(backend: str) -> None:
    runner = Runner(backend)
    planned = ps.plan(["true"], pty=True, **runner.config())
    assert "a terminal of its own" in planned.describe()
    assert planned.to_dict()["terminal"]
