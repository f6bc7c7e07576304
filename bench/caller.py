"""A calling process of a certain size: python -m bench.caller [--memory N] ...; told "NAME\\n" it makes one run, says its seconds.

It stands for a program that has grown: memory, threads, descriptors. Mounts it makes only in a mount namespace that it shares with
nobody, which whoever starts it must have made for it.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import mmap
import os
import resource
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from bench.latency import BASE, bare, by_peer, ours
from bench.measure import timed
from bench.ours import TRUE, configs
from bench.peers import Sandlock

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["NAMESPACE", "Caller"]

NAMESPACE = Path("/proc/self/ns/mnt")
MADV_POPULATE_WRITE = 23  # <linux/mman.h>, Linux 5.14; the mmap module does not know it


class Caller:
    """Such a process, as who measures sees it."""

    def __init__(self, arguments: Sequence[str] = (), *, own_mounts: bool = False) -> None:
        """Start it and wait until it has the size that it is to have.

        Raises:
            RuntimeError: it cannot be had; why not.
        """
        self.place = (
            tempfile.mkdtemp()
        )  # the host sees nothing in it: its mounts go with the namespace that they are made in
        outside = os.readlink(NAMESPACE)
        words = [sys.executable, "-m", "bench.caller", "--outside", outside, "--place", self.place, *arguments]
        if own_mounts:
            words = ["unshare", "--mount", "--propagation", "private", *words]
        root = Path(__file__).resolve().parents[1]
        self.process = subprocess.Popen(
            words, cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            self.names = self.answer().split("|")
        except BaseException:
            self.close()
            raise

    def answer(self) -> str:
        assert self.process.stdout
        line = self.process.stdout.readline().strip()
        if not line:
            said = self.process.communicate()[1].strip().splitlines()
            raise RuntimeError(said[-1] if said else f"a caller ended with {self.process.returncode}")
        return line

    def run(self, name: str) -> float:
        """Have it make one run; return the seconds."""
        assert self.process.stdin
        print(name, file=self.process.stdin, flush=True)
        return float(self.answer())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it; returns when it has ended."""
        if self.process.returncode is None:
            self.process.communicate()
        os.rmdir(self.place)


def hold_memory(size: int) -> mmap.mmap | None:
    """Return that much resident memory, in small pages: what a fork would have to copy the tables of."""
    if not size:
        return None
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    try:
        memory.madvise(MADV_POPULATE_WRITE)
    except OSError:  # an older kernel
        for place in range(0, size, mmap.PAGESIZE):
            memory[place] = 1
    return memory


def hold_descriptors(count: int) -> None:
    """Open that many descriptors in all."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    for _ in range(count - 1):
        os.open(os.devnull, os.O_RDONLY)


def hold_threads(count: int) -> None:
    """Have that many threads in all; the others sleep."""
    for _ in range(count - 1):
        threading.Thread(target=threading.Event().wait, daemon=True).start()


def make_mounts(count: int, place: str, outside: str) -> None:
    """Make that many mounts at and below a directory.

    Raises:
        SystemExit: this is the mount namespace of whoever started us. OSError: the kernel refuses.
    """
    if os.readlink(NAMESPACE) == outside:
        raise SystemExit("mounts are made in a namespace of their own only: unshare --mount --propagation private")
    libc = ctypes.CDLL(None, use_errno=True)
    for number in range(count):
        target = os.path.join(place, str(number)) if number else place
        os.makedirs(target, exist_ok=True)
        if libc.mount(b"bench", os.fsencode(target), b"tmpfs", 0, b"size=8m"):
            raise OSError(ctypes.get_errno(), f"mount {target}")


def main() -> int:
    """Grow, then make a run for each line; return the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--memory", type=int, default=0, help="bytes")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--descriptors", type=int, default=1)
    parser.add_argument("--mounts", type=int, default=0)
    parser.add_argument("--place", default="", help="an empty directory, for the mounts")
    parser.add_argument("--outside", required=True, help="the mount namespace of the host, as readlink(1) tells it")
    options = parser.parse_args()
    if options.mounts:
        make_mounts(options.mounts, options.place, options.outside)
    held = hold_memory(options.memory)
    hold_descriptors(options.descriptors)
    hold_threads(options.threads)
    calls = {BASE: functools.partial(bare, TRUE)}
    calls.update({name: functools.partial(ours, TRUE, config) for name, config in configs().items()})
    sandlock = Sandlock()
    if not sandlock.why_not():
        calls[sandlock.name] = functools.partial(by_peer, sandlock, TRUE)
    runs = {name: timed(call, name) for name, call in calls.items()}
    print("|".join(runs), flush=True)
    for line in sys.stdin:
        print(runs[line.strip()](), flush=True)
    del held
    return 0


if __name__ == "__main__":
    sys.exit(main())
