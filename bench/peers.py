"""The other sandboxes: each at its best fair configuration, with its version and flags, or the reason why it is not measured.

Fair: as much of the same isolation as the peer has (user, pid, ipc, uts and network namespaces, the system read-only, a /tmp and a
/proc of its own), the same limits where it has them, its output captured as subprocess captures it; and none of its conveniences.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import os
import re
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["PEERS", "Peer", "missing_notes", "peer_notes", "usable"]

SYSTEM = ["/usr", "/bin", "/lib", "/lib64", "/etc", "/proc", "/dev"]
MEMORY = 256 << 20
FILE_SIZE = 16 << 20


def captured(words: Sequence[str]) -> subprocess.CompletedProcess[bytes]:
    """Run a program as what is compared with it is run."""
    return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False)


class Peer:
    """One other sandbox.

    Attributes: name; flags, what it is given; slow: it takes part in every tenth round; lacks, what of the same it has not.
    """

    name = ""
    flags: Sequence[str] = ()
    slow = False
    lacks = ""

    def version(self) -> str:
        """Return which version is installed; nothing if none is."""
        raise NotImplementedError

    def run(self, command: Sequence[str], visible: str = "") -> tuple[bool, bytes]:
        """Run a command and return whether it ended with 0, and its output; visible: a directory that it must see.

        Raises:
            OSError, RuntimeError: the peer itself does not work.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Leave nothing behind."""

    def why_not(self) -> str:
        """Return why it is not measured; nothing if it is."""
        if not self.version():
            return "not installed"
        try:
            worked, said = self.run(["/bin/true"])
        except (Exception, SystemExit) as error:  # noqa: BLE001  (whatever a peer raises, it does not work here)
            return f"does not work here: {first_line(str(error)) or type(error).__name__}"
        return "" if worked else f"does not work here: {last_line(said)}"


def first_line(text: str) -> str:
    return next(iter(text.strip().splitlines()), "").strip()


def last_line(said: bytes) -> str:
    lines = said.decode(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else "it failed without a word"


class Program(Peer):
    """A peer that is a program of its own.

    Attributes: program; asks, the option after which it prints its version.
    """

    program = ""
    asks = "--version"

    def version(self) -> str:
        """Return what it says of itself."""
        if shutil.which(self.program) is None:
            return ""
        said = captured([self.program, self.asks])
        found = re.search(rb"\d+(\.\d+)+", said.stdout + said.stderr)
        return found[0].decode() if found else "unknown"

    def words(self, visible: str) -> list[str]:
        """Return everything before the command."""
        return [self.program, *self.flags]

    def run(self, command: Sequence[str], visible: str = "") -> tuple[bool, bytes]:
        """Run it as subprocess.run does."""
        done = captured([*self.words(visible), *command])
        return done.returncode == 0, done.stdout or done.stderr


class Bubblewrap(Program):
    """It has no limits."""

    name = program = "bwrap"
    lacks = "limits, system call filter"
    flags = (
        *("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-net", "--unshare-cgroup"),
        *(
            "--die-with-parent",
            "--new-session",
            "--ro-bind",
            "/",
            "/",
            "--proc",
            "/proc",
            "--dev",
            "/dev",
            "--tmpfs",
            "/tmp",
        ),
    )

    def words(self, visible: str) -> list[str]:
        """Show what must be visible over the empty /tmp."""
        return [self.program, *self.flags, *(("--ro-bind", visible, visible) if visible else ()), "--"]


class Firejail(Program):
    """Its --timeout is left out: with it every run takes 2 s, for that is how often it looks."""

    name = program = "firejail"
    slow = True
    lacks = "wall-clock limit (its own makes each run last 2 s); memory and processes by rlimit only"
    flags = (
        *(
            "--quiet",
            "--noprofile",
            "--net=none",
            "--private-tmp",
            "--private-dev",
            "--ipc-namespace",
            "--nonewprivs",
            "--seccomp",
        ),
        *("--caps.drop=all", "--read-only=/", f"--rlimit-as={MEMORY}", "--rlimit-nproc=32", "--rlimit-cpu=5"),
        f"--rlimit-fsize={FILE_SIZE}",
    )
    place = Path("/run/firejail")

    def __init__(self) -> None:
        self.was_there = self.place.exists()

    def close(self) -> None:
        """Take away what its first run as root leaves on the host: directories under /run, three of them mounts."""
        if self.was_there or not self.place.exists() or os.geteuid():
            return
        mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()]
        for mount in reversed(mounts):
            if mount.startswith(f"{self.place}/"):
                subprocess.run(["umount", mount], check=False)
        if not any(map(os.path.ismount, self.place.iterdir())):
            shutil.rmtree(self.place)


class Nsjail(Program):
    """Flags by its manual; it was not to be had where this was written."""

    name = program = "nsjail"
    asks = "--help"  # it has no --version
    flags = (
        *("-Mo", "--really_quiet", "--user", "1000", "--group", "1000", "--chroot", "/", "--cwd", "/tmp"),
        *(
            "--tmpfsmount",
            "/tmp",
            "--time_limit",
            "10",
            "--rlimit_as",
            "256",
            "--rlimit_cpu",
            "5",
            "--rlimit_fsize",
            "16",
        ),
        *("--rlimit_nproc", "32", "--"),
    )
    lacks = "memory and processes by rlimit only, where it has no cgroup"


class Isolate(Program):
    """A box is made once, before; only --run is timed. Flags by its manual; it was not to be had where this was written."""

    name = program = "isolate"
    lacks = "one run at a time in a box; memory by rlimit only, without --cg"
    flags = (
        *("--box-id=99", "--silent", "--mem=262144", "--processes=32", "--time=5", "--wall-time=10", "--fsize=16384"),
        *("--run", "--"),
    )
    made = False

    def run(self, command: Sequence[str], visible: str = "") -> tuple[bool, bytes]:
        """Make the box when it is first needed."""
        if not self.made:
            done = captured([self.program, "--box-id=99", "--init"])
            if done.returncode:
                return False, done.stderr
            self.made = True
        return super().run(command, visible)

    def close(self) -> None:
        """Take the box away."""
        if self.made:
            subprocess.run([self.program, "--box-id=99", "--cleanup"], check=False)


class Library(Peer):
    """A peer that is a Python package, used in this process.

    Attributes: package, its name on the package index.
    """

    package = ""

    def version(self) -> str:
        """Return what is installed beside us."""
        try:
            return importlib.metadata.version(self.package)
        except importlib.metadata.PackageNotFoundError:
            return ""


class Sandlock(Library):
    """One object for each thread, kept: it can run one command at a time, and what is made once need not be made again."""

    name = package = "sandlock"
    memory = "256M"
    lacks = "namespaces, CPU-time limit, file-size limit, /tmp and /proc of its own"
    flags = (
        f"fs_readable={SYSTEM}",
        "fs_writable=['/tmp']",
        f"clean_env=True, max_memory={memory!r}, max_processes=32, max_cpu=100, run(timeout=10)",
    )

    def __init__(self) -> None:
        self.kept = threading.local()

    def run(self, command: Sequence[str], visible: str = "") -> tuple[bool, bytes]:
        """Run it in this process's library."""
        boxes: dict[str, Any] = self.kept.__dict__
        if visible not in boxes:
            import sandlock

            boxes[visible] = sandlock.Sandbox(
                fs_readable=[*filter(os.path.exists, SYSTEM), *([visible] if visible else [])],
                fs_writable=["/tmp"],
                clean_env=True,
                max_memory=self.memory,
                max_processes=32,
                max_cpu=100,
            )
        done = boxes[visible].run(list(command), timeout=10)
        return bool(done.success), bytes(done.stdout or b"") or str(done.error).encode()


class BenchExec(Library):
    """What `runexec` does, without starting an interpreter for each run; with cgroups where it finds any."""

    name = "runexec (BenchExec)"
    package = "BenchExec"
    slow = True
    lacks = "process limit, file-size limit, system call filter; output goes to a file"
    flags = (
        "RunExecutor(dir_modes={'/': 'read-only', '/run': 'hidden', '/tmp': 'hidden'})",
        "execute_run(hardtimelimit=5, walltimelimit=10, memlimit=256 MiB) [runexec --read-only-dir / --hidden-dir /run --hidden-dir /tmp]",
    )
    executor: Any = None

    def run(self, command: Sequence[str], visible: str = "") -> tuple[bool, bytes]:
        """Run it in this process's library."""
        if self.executor is None:
            from benchexec.runexecutor import RunExecutor

            modes = {"/": "read-only", "/run": "hidden", "/tmp": "hidden"}
            with quiet():
                self.executor = RunExecutor(dir_modes=modes)
        with quiet(), tempfile.NamedTemporaryFile() as output:
            done = self.executor.execute_run(
                list(command),
                output.name,
                hardtimelimit=5,
                walltimelimit=10,
                memlimit=MEMORY,
                workingDir="/",
                write_header=False,
            )
            said = output.read()
        exit_code = done.get("exitcode")
        if exit_code is None:
            return False, f"ended as {done.get('terminationreason')}".encode()
        return not exit_code.raw, said


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what BenchExec logs of each run off the terminal."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


PEERS: tuple[type[Peer], ...] = (Bubblewrap, Sandlock, Isolate, Nsjail, Firejail, BenchExec)


@contextlib.contextmanager
def usable() -> Iterator[tuple[list[Peer], dict[str, str]]]:
    """Give those that work here, and of the others why not, by name; at the end nothing of them is left."""
    peers = [make() for make in PEERS]
    try:
        missing = {peer.name: why for peer in peers if (why := peer.why_not())}
        yield [peer for peer in peers if peer.name not in missing], missing
    finally:
        for peer in peers:
            peer.close()


def missing_notes(missing: Mapping[str, str]) -> list[str]:
    """Return a line for each peer that is not measured."""
    return [f"not measured: {name}: {why}" for name, why in missing.items()]


def peer_notes(peers: Sequence[Peer]) -> list[str]:
    """Return a line for each that is measured: its version, its flags, and what of the same it does not have."""
    return [f"{peer.name} {peer.version()}: `{' '.join(peer.flags)}`; it does not have: {peer.lacks}" for peer in peers]
