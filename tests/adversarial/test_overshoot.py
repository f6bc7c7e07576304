"""A memory limit that is only sampled, against what allocates as fast as it can; and who dies when the host has no memory."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.fixtures import Programs
from support.processes import until_false
from support.programs import HANG, MEGABYTE, ROOT, assert_escapes, inside, outside, sampled, text

import proc_sandbox as ps
from proc_sandbox.launcher.process import launcher_path

CGROUPS = Path("/sys/fs/cgroup/memory")
BYSTANDER = """
import subprocess, sys
open(sys.argv[1], "w").write("0")
held = b"x" * (100 << 20)
subprocess.run(sys.argv[2:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print("alive")
"""


@pytest.mark.parametrize(
    ("way", "processes", "threads"),
    [("memset", 1, 16), ("populate", 1, 1), ("huge", 1, 1), ("huge", 16, 4), ("sealed", 16, 1), ("stack", 16, 1), ("advise", 16, 1)],
)
def test_fast_allocators(programs: Programs, way: str, processes: int, threads: int) -> None:
    command = [programs("allocate"), way, str(processes), str(threads), "768"]
    limits = {"allowed_dirs": [programs.directory], "timeout": HANG}
    assert "ESCAPED" in sampled(command, 0, changes={"sampling": None}, **limits), "the control: nobody looks"
    said = sampled(command, 100 * MEGABYTE, **limits)
    assert "memory_exceeded 1" in said, said
    assert "ESCAPED" not in said


@pytest.mark.parametrize("way", ["sealed", "stack"])
def test_no_limit_on_data_holds(programs: Programs, way: str) -> None:
    """Why there is no RLIMIT_DATA: what has become read-only, or grows down, is no data to it (mm/mmap.c, is_data_mapping)."""
    command = ["sh", "-c", 'ulimit -d 102400; exec "$@"', "-", programs("allocate")]
    assert_escapes([*command, way, "1", "1", "300"])


def test_crowds_within_the_limit_are_left_alone(programs: Programs) -> None:
    """A tree that is stopped to be looked at goes on."""
    command = [programs("allocate"), "memset", "60", "1", "64"]
    said = sampled(command, 1 << 31, allowed_dirs=[programs.directory], timeout=HANG)
    assert "ESCAPED" in said, said
    assert "memory_exceeded 0" in said


def test_the_run_goes_first_and_cannot_change_it() -> None:
    result = inside(["sh", "-c", "cat /proc/self/oom_score_adj; echo 0 > /proc/self/oom_score_adj; cat /proc/self/oom_score_adj"])
    assert text(result) == "1000\n1000\n", result


@pytest.fixture
def small_host() -> Iterator[Path]:
    """A memory cgroup of 192 MB: as if the host had no more."""
    if not ROOT or not (CGROUPS / "memory.limit_in_bytes").exists():
        pytest.skip("needs root and cgroup v1, to make a small host")
    cgroup = CGROUPS / f"proc-sandbox-test-{os.getpid()}"
    cgroup.mkdir()
    try:
        (cgroup / "memory.limit_in_bytes").write_text(str(192 * MEGABYTE))
        yield cgroup / "cgroup.procs"
        assert not until_false(lambda: (cgroup / "cgroup.procs").read_text())
    finally:
        cgroup.rmdir()


@pytest.mark.parametrize(("score", "survives"), [(0, False), (1000, True)])
def test_out_of_memory_the_bystander_survives(programs: Programs, small_host: Path, score: int, survives: bool) -> None:
    """The kernel kills the largest; a run of many small processes is never that, but by oom_score_adj."""
    command = [programs("allocate"), "memset", "12", "1", "2048"]
    plan = ps.plan(command, allowed_dirs=[programs.directory], timeout=HANG)
    words = replace(plan, prefix=b"", cgroup=None, sampling=None, oom_score_adj=score).words()
    completed = outside([sys.executable, "-c", BYSTANDER, str(small_host), launcher_path(), "run", *words])
    assert (text(completed) == "alive\n") is survives, completed
