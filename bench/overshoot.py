"""By how much a tree of processes gets past a sampled memory limit: python bench/overshoot.py, as root, with gcc.

Each allocator runs in the sandbox of an ordinary user, who has no cgroup and so is sampled. Around that user is a memory
cgroup (v1) of the benchmark's own: its memory.max_usage_in_bytes is the kernel's exact count of everything, page tables and
stacks of the kernel included, and its limit keeps the machine out of danger. A cpu cgroup (v1) keeps the launcher and the run
in one scheduling group, as in a container: autogroups would else protect the sampler from the crowd (sched(7)).
"""

from __future__ import annotations

import argparse
import os
import pwd
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CGROUPS = Path("/sys/fs/cgroup")
MEGABYTE = 1 << 20
ALLOCATORS = {
    "nothing": ("idle", 1, 1),
    "one thread, memset": ("memset", 1, 1),
    "one thread, MAP_POPULATE": ("populate", 1, 1),
    "one thread, MADV_POPULATE_WRITE": ("advise", 1, 1),
    "one thread, huge pages": ("huge", 1, 1),
    "16 threads, memset": ("memset", 1, 16),
    "16 threads, huge pages": ("huge", 1, 16),
    "16 processes, huge pages": ("huge", 16, 1),
    "16 processes, files in /tmp": ("file", 16, 1),
    "300 processes, nothing": ("idle", 300, 1),
    "300 processes, MAP_POPULATE": ("populate", 300, 1),
    "300 processes, huge pages": ("huge", 300, 1),
    "300 processes, 6 threads each, huge pages": ("huge", 300, 6),
    "1900 processes, nothing": ("idle", 1900, 1),
    "1900 processes, MAP_POPULATE": ("populate", 1900, 1),
    "1900 processes, huge pages": ("huge", 1900, 1),
}
CALLER = """
import os, sys
uid, gid, cgroups, limit, directory, *command = sys.argv[1:]
for cgroup in cgroups.split(":"):
    with open(cgroup, "w") as file:
        file.write("0")
os.setgroups([])
os.setgid(int(gid))
os.setuid(int(uid))
import proc_sandbox as ps
config = dict(memory_limit=int(limit), max_processes=2000, tmp_size="8G", timeout=60, allowed_dirs=[directory])
ps.run(["true"], **config)
for line in sys.stdin:
    result = ps.run(command, **config) if line == "run\\n" else None
    print(result.reason.value if result else "", result.enforcement["memory_limit"].strength if result else "", flush=True)
"""


def compile_allocator(directory: Path) -> Path:
    """Return the attack of the tests, compiled."""
    program = directory / "allocate"
    source = ROOT / "tests/support/attacks/allocate.c"
    subprocess.run(["gcc", "-O2", "-pthread", "-o", program, source], check=True)
    directory.chmod(0o755)
    return program


def measure(cgroups: list[Path], user: pwd.struct_passwd, limit: int, command: list[str], rounds: int) -> tuple[int, list[int], str]:
    """Return what the cgroup held before, the peak of each round, and how the last run ended."""

    cgroup = cgroups[0]
    who = [f"{user.pw_uid}", f"{user.pw_gid}", ":".join(str(own / "cgroup.procs") for own in cgroups)]
    caller = subprocess.Popen(
        [sys.executable, "-c", CALLER, *who, str(limit), os.path.dirname(command[0]), *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd="/",
        env={"PYTHONPATH": str(ROOT / "src"), "PATH": os.environ["PATH"]},
    )

    def ask(word: str) -> str:
        assert caller.stdin
        assert caller.stdout
        print(word, file=caller.stdin, flush=True)
        return caller.stdout.readline().strip()

    ask("settle")
    peaks, answer, before = [], "", 0
    for _ in range(rounds):
        before = int((cgroup / "memory.usage_in_bytes").read_text())
        (cgroup / "memory.max_usage_in_bytes").write_text("0")
        answer = ask("run")
        peaks.append(int((cgroup / "memory.max_usage_in_bytes").read_text()) - before)
    caller.stdin.close()
    caller.wait()
    return before, peaks, answer


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--user", default="nobody", help="an ordinary user (default: nobody)")
    parser.add_argument("--limit", type=int, default=100, help="MiB (default: 100)")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each allocator (default: 5)")
    parser.add_argument("--bound", type=int, default=8192, help="MiB for the whole experiment (default: 8192)")
    parser.add_argument("--only", default="", help="allocators whose name contains this")
    options = parser.parse_args()
    cgroups = [CGROUPS / name / f"proc-sandbox-bench-{os.getpid()}" for name in ("memory", "cpu")]
    for cgroup in cgroups:
        cgroup.mkdir()
    try:
        (cgroups[0] / "memory.limit_in_bytes").write_text(str(options.bound * MEGABYTE))
        with tempfile.TemporaryDirectory() as directory:
            program = compile_allocator(Path(directory))
            print(f"limit {options.limit} MiB, {os.cpu_count()} processors, Linux {os.uname().release}, {options.rounds} rounds")
            print(f"{'':<42} {'median':>7} {'worst':>7}  MiB at the peak, above what was there before the run")
            for name, (way, *counts) in ALLOCATORS.items():
                if options.only in name:
                    command = [str(program), way, *map(str, counts)]
                    user = pwd.getpwnam(options.user)
                    _, peaks, answer = measure(cgroups, user, options.limit * MEGABYTE, command, options.rounds)
                    peaks.sort()
                    print(
                        f"{name:<42} {peaks[len(peaks) // 2] / MEGABYTE:>7.0f} {peaks[-1] / MEGABYTE:>7.0f}  {answer}",
                        flush=True,
                    )
    finally:
        for cgroup in cgroups:
            cgroup.rmdir()


if __name__ == "__main__":
    main()
