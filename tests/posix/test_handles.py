"""What a handle asks of warden and monitor, and what becomes of it where the command is in their way."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.behaviours import HOLD, Runner, is_held
from support.processes import until_false
from support.programs import HANG, python

import proc_sandbox as ps
from proc_sandbox.backends.posix.frames import Frames, frame
from proc_sandbox.launcher import program_path
from proc_sandbox.version import __version__

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="by /proc")


class Monitor:
    """A monitor, and its warden: the test."""

    def __init__(self, channel: socket.socket, output: int) -> None:
        self.channel = channel
        self.output = output  # of the command
        self.frames = Frames()
        self.heard: list[list[str]] = []

    def hear(self) -> list[str]:
        """Its next message."""
        while not self.heard:
            data = self.channel.recv(4096)
            assert data, "the monitor has ended"
            self.heard += [message.decode().split("\0")[:-1] for message in self.frames.feed(data)]
        return self.heard.pop(0)


@contextmanager
def monitor(*words: str) -> Iterator[Monitor]:
    """One that has been told a run."""
    ours, theirs = socket.socketpair()
    reader, writer = os.pipe()
    streams = [os.open(os.devnull, os.O_RDWR), writer, os.open(os.devnull, os.O_RDWR)]
    passed = [theirs.fileno(), *streams]
    ours.settimeout(HANG)
    command = [program_path("monitor"), "serve", *map(str, passed)]
    with ours, subprocess.Popen(command, pass_fds=passed) as process:
        theirs.close()
        for descriptor in streams:
            os.close(descriptor)
        said = "\0".join(("version", __version__, "fd", "0", "fd", "1", "fd", "2", *words, ""))
        ours.sendall(frame(said.encode()))
        yield Monitor(ours, reader)
        os.close(reader)
        ours.close()
        process.wait(HANG)


def facts(words: list[str]) -> dict[str, int]:
    assert words[0] == "ended", words
    return dict(zip(words[1::2], map(int, words[2::2]), strict=True))


def test_the_beginning_is_told_once_it_was_executed() -> None:
    with monitor("held", "exec", "/bin/sh", "sh", "-c", "exit 3") as it:
        started = it.hear()
        assert started[0] == "started"
        assert it.hear() == ["began"]
        assert it.hear() == ["over"]
        it.channel.send(b"r")
        assert facts(it.hear())["status"] == 3 << 8
    with monitor("held", "exec", "/nowhere", "x") as it:
        assert it.hear()[0] == "started"
        assert [it.hear()[0] for _ in range(2)] == ["over", "failed"], "and not that it has begun"
    with monitor("exec", "/bin/sh", "sh", "-c", "exit 3") as it:
        assert [it.hear()[0] for _ in range(2)] == ["started", "over"], "nobody holds it"
        it.channel.send(b"r")


def test_signals_to_who_is_dead_are_sent_to_nobody() -> None:
    """Its number is its own until the monitor lets go of it, which is after the last signal."""
    with monitor("held", "exec", "/bin/sh", "sh", "-c", "exit 3") as it:
        pid = int(it.hear()[2])
        assert [it.hear()[0] for _ in range(2)] == ["began", "over"]
        os.kill(pid, 0)  # a zombie: the number cannot be given again
        it.channel.send(bytes([signal.SIGTERM, signal.SIGKILL]) + b"t")
        it.channel.send(bytes([signal.SIGTERM]) + b"r")
        said = facts(it.hear())
        assert (said["status"], said["terminated"], said["done"]) == (3 << 8, 0, 1)
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@pytest.mark.parametrize(("order", "timed_out"), [(b"t", 0), (b"", 1)])
def test_sigterm_and_after_the_grace_sigkill(order: bytes, timed_out: int) -> None:
    words = ["held", "grace", "200000000", *(["timeout", "2000000000"] if timed_out else [])]
    with monitor(*words, "exec", "/bin/sh", "sh", "-c", "trap '' TERM; echo up; sleep 3600 & wait; sleep 3600") as it:
        assert [it.hear()[0] for _ in range(2)] == ["started", "began"]
        assert os.read(it.output, 3) == b"up\n"
        if order:
            it.channel.send(order)
        assert it.hear() == ["terminated"]
        assert it.hear() == ["over"]
        it.channel.send(b"r")
        said = facts(it.hear())
        assert (said["done"], said["terminated"], said["timed_out"]) == (0, 1, timed_out)


@linux_only
@pytest.mark.parametrize("stopped", ["monitor", "both"])
def test_who_stops_its_monitor_is_ended_all_the_same(run: Runner, tmp_path: Path, stopped: str) -> None:
    code = HOLD + """
import signal
held = hold("command")
signal.signal(signal.SIGTERM, signal.SIG_IGN)
monitor = os.getppid()
with open(f"/proc/{monitor}/stat") as stat:
    warden = int(stat.read().rpartition(")")[2].split()[1])
os.write(1, b"up\\n")
for _ in range(300):
    for pid in VICTIMS:
        try: os.kill(pid, signal.SIGSTOP)
        except OSError: pass
    time.sleep(0.01)
wait_for_ever()
""".replace("VICTIMS", "(monitor,)" if stopped == "monitor" else "(monitor, warden)")
    process = run.popen(python(code), stdout=ps.PIPE, working_dir=tmp_path, kill_grace=0.2)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.send_signal(signal.SIGWINCH)
        process.pause()
        process.resume()
        process.close()
    except ps.LauncherDiedError:
        assert stopped == "both", "who is kept from its work is killed, and that is told"
        process.close()
    assert not until_false(lambda: is_held(tmp_path / "command"))


@linux_only
def test_a_handle_whose_warden_is_killed(run: Runner, tmp_path: Path) -> None:
    from proc_sandbox.backends.posix.process import warden

    code = HOLD + "held = hold('command')\nos.write(1, b'up\\n')\nwait_for_ever()"
    process = run.popen(python(code), stdout=ps.PIPE, working_dir=tmp_path)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    os.kill(warden().pid, signal.SIGKILL)
    for _ in range(2):
        with pytest.raises(ps.LauncherDiedError):
            process.wait(HANG)
    for harmless in (process.kill, process.terminate, process.pause, process.close, process.kill):
        harmless()
    assert not until_false(lambda: is_held(tmp_path / "command"))
    assert run(["true"]).ok, "the next run has a new one"


def test_who_has_stopped_itself_stays_so(run: Runner, tmp_path: Path) -> None:
    code = """
import os, signal, time
if os.fork() == 0:
    os.kill(os.getpid(), signal.SIGSTOP)
    open("went-on", "w")
os.write(1, b"up\\n")
while True:
    with open("goes-on", "a") as file: file.write("x")
    time.sleep(0.001)
"""
    with run.popen(python(code), stdout=ps.PIPE, working_dir=tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        child = until_stopped(process.pid)
        process.pause()
        assert not until_false(lambda: state(process.pid) != "stopped")
        process.resume()
        assert not until_false(lambda: state(process.pid) == "stopped")
        assert state(child) == "stopped"
        assert not (tmp_path / "went-on").exists()


def state(pid: int) -> str:
    import psutil

    return str(psutil.Process(pid).status())


def until_stopped(pid: int) -> int:
    import psutil

    found: list[int] = []

    def look() -> bool:
        found[:] = [child.pid for child in psutil.Process(pid).children() if child.status() == "stopped"]
        return not found

    assert not until_false(look)
    return found[0]
