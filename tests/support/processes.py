"""Eyes for what is alive: the processes of a run as the host sees them, and pipes that tell when all are gone."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.programs import HANG, library_path

PATIENCE = 30.0
"""Seconds for what has been killed to be taken down; nothing is expected to need them."""


def until_false(look: Callable[[], object]) -> object:
    """Look until nothing is found; return what stays. For what the kernel or a service takes down by itself."""
    end = time.monotonic() + PATIENCE
    while (found := look()) and time.monotonic() < end:
        time.sleep(0)  # gives the processor away
    return found


def new_mark() -> str:
    """A word that is nowhere else on this host, to be put into a command's arguments."""
    return f"mark-{uuid.uuid4().hex}"


def carriers(mark: str) -> list[int]:
    """The processes of the whole host that have the mark among their arguments; the caller itself not counted."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            with contextlib.suppress(OSError):
                if mark.encode() in Path("/proc", entry, "cmdline").read_bytes():
                    found.append(int(entry))
    return found


def status_of(pid: int) -> tuple[str, int]:
    """State and parent of a process, from proc_pid_stat(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    return fields[0], int(fields[1])


def children(pid: int) -> list[int]:
    """The direct children of a process, zombies too."""
    if not os.path.isdir("/proc/self"):
        import psutil

        return [child.pid for child in psutil.Process(pid).children()]
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                if status_of(int(entry))[1] == pid:
                    found.append(int(entry))
    return found


def descendants(pid: int) -> list[int]:
    """All below a process."""
    below = children(pid)
    for child in list(below):
        below += descendants(child)
    return below


@contextlib.contextmanager
def watched(pids: Iterable[int]) -> Iterator[list[int]]:
    """Descriptors that tell the end of these processes, whose numbers nobody can take over meanwhile."""
    descriptors: list[int] = []
    try:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                descriptors.append(os.pidfd_open(pid))
        yield descriptors
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def wait_dead(descriptors: Iterable[int]) -> None:
    """Wait until every process behind the descriptors has ended."""
    for descriptor in descriptors:
        assert select.select([descriptor], [], [], HANG)[0], "a process is still alive"


@dataclass
class Witness:
    """A pipe whose write end is given to a command: it hears from it, and sees when the last holder is gone."""

    read_end: int
    write_end: int
    heard: bytes = b""

    def hear(self, word: bytes) -> None:
        """Wait until the word has come."""
        while word not in self.heard:
            assert select.select([self.read_end], [], [], HANG)[0], f"never heard {word!r}, but {self.heard!r}"
            chunk = os.read(self.read_end, 65536)
            assert chunk, f"the command ended before it said {word!r}; it said {self.heard!r}"
            self.heard += chunk

    def wait_alone(self) -> None:
        """Wait until nobody has the write end any more."""
        self.let_go()
        while True:
            assert select.select([self.read_end], [], [], HANG)[0], "somebody still holds the pipe"
            chunk = os.read(self.read_end, 65536)
            self.heard += chunk
            if not chunk:
                return

    def let_go(self) -> None:
        """Close our own write end."""
        if self.write_end >= 0:
            os.close(self.write_end)
            self.write_end = -1


@contextlib.contextmanager
def witness() -> Iterator[Witness]:
    """A new pipe, closed at the end."""
    read_end, write_end = os.pipe()
    pipe = Witness(read_end, write_end)
    try:
        yield pipe
    finally:
        pipe.let_go()
        os.close(read_end)


@contextlib.contextmanager
def victim(*, mark: str | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A process outside, of this user, for attacks to aim at; killed at the end."""
    code = "import sys; print('up', flush=True); sys.stdin.read()"
    command = [sys.executable, "-I", "-S", "-c", code, mark or new_mark()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        try:
            yield process
        finally:
            process.kill()


def library_path_environment() -> dict[str, str]:
    """This process's environment, and where the package under test is imported from."""
    return {**os.environ, "PYTHONPATH": library_path()}


prelude = ""
"""What every caller does first: where a test is for another backend than the best, it is made the default here."""


@contextlib.contextmanager
def caller(code: str, *arguments: str, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A Python process of its own that uses the package; killed at the end if it has not ended."""
    environment = {**library_path_environment(), **options.pop("env", {})}
    options.setdefault("stdout", subprocess.PIPE)
    options.setdefault("stderr", subprocess.PIPE)
    command = [sys.executable, "-c", prelude + code, *arguments]
    with subprocess.Popen(command, env=environment, **options) as process:
        try:
            yield process
        finally:
            if sys.platform != "win32":
                with contextlib.suppress(ProcessLookupError):
                    process.send_signal(signal.SIGCONT)
            process.kill()


def output_of(code: str, *arguments: str, **options: Any) -> str:
    """What such a caller prints; it must end well."""
    with caller(code, *arguments, **options) as process:
        out, err = process.communicate(timeout=HANG)
        assert process.returncode == 0, err.decode("utf-8", "replace")
        return str(out.decode("utf-8", "replace"))


KILLED_AT_RANDOM = """
import json, os, random, signal, sys, threading, time
import proc_sandbox as ps
from proc_sandbox.launcher import process
process.launcher_path = lambda: sys.argv[1]
config = json.loads(sys.argv[3])
def one():
    for _ in range(3):
        try:
            ps.run(["true"], **config)
        except ps.SandboxError:
            return
random.seed(int(sys.argv[2]))
for _ in range(40):
    ps.run(["true"], **config)
    threads = [threading.Thread(target=one) for _ in range(2)]
    for thread in threads: thread.start()
    until = time.monotonic() + random.random() * 0.006
    while time.monotonic() < until: pass
    os.kill(process.launcher().pid, signal.SIGKILL)
    for thread in threads: thread.join()
"""


def assert_nothing_survives_kills(launcher: Path, seed: str, **config: int) -> None:
    """A caller's launcher is killed at random moments of runs. Its name, one of its own, is in the arguments of all that it starts."""
    output_of(KILLED_AT_RANDOM, str(launcher), seed, json.dumps(config))
    with watched(carriers(str(launcher))) as ends:
        wait_dead(ends)
    assert carriers(str(launcher)) == []
