"""memory_limit: the whole tree, in whatever kind of memory it hides; and never a false alarm.

Where a cgroup enforces the limit the kernel's word is exact. Where the tree is sampled, kinds of memory that sampling
cannot see are refused to the command instead: either way it never gets what the limit denies.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.fixtures import Programs
from support.programs import (
    MEGABYTE,
    ROOT,
    assert_escapes,
    by_cgroup,
    compile_launcher,
    inside,
    mechanism,
    outside,
    python,
    refusal,
    text,
)

import proc_sandbox as ps
from proc_sandbox.backends import current

KINDS = ["anonymous", "children", "shared", "memfd", "sysv"]


def assert_limited(result: ps.Result) -> None:
    """The memory was not to be had, and where the limit killed for it, the verdict says so."""
    output = text(result)
    assert "TRIED" in output, result
    refused = refusal(output) is not None
    if by_cgroup(result, "memory_limit") or not refused:
        assert result.memory_exceeded, result
        assert result.reason is ps.Reason.MEMORY
        assert result.error
        assert "50" in result.error
        with pytest.raises(ps.MemoryLimitExceeded):
            result.check()
    if by_cgroup(result, "memory_limit"):
        assert "ESCAPED" not in output, result
    assert not result.timed_out


@pytest.mark.parametrize("kind", KINDS)
def test_200_megabytes_do_not_fit_into_50(programs: Programs, kind: str) -> None:
    assert_escapes([programs("memory"), kind, "200"])
    assert_limited(
        inside([programs("memory"), kind, "200", "hold"], memory_limit="50M", allowed_dirs=[programs.directory])
    )


@pytest.mark.parametrize("directory", ["/tmp", "/dev/shm"])
def test_private_file_systems_count(programs: Programs, tmp_path: Path, directory: str) -> None:
    assert_escapes([programs("memory"), "file", "200", "leave", str(tmp_path / "file")])
    command = [programs("memory"), "file", "200", "hold", f"{directory}/file"]
    assert_limited(inside(command, memory_limit="50M", tmp_size="300M", allowed_dirs=[programs.directory]))


@pytest.mark.parametrize("kind", ["anonymous", "children"])
def test_what_fits_is_left_alone(programs: Programs, kind: str) -> None:
    result = inside([programs("memory"), kind, "30"], memory_limit="50M", allowed_dirs=[programs.directory])
    assert "ESCAPED" in text(result), result
    assert result.ok
    assert not result.memory_exceeded


def test_reserved_is_not_used(programs: Programs) -> None:
    """V8, Go and the JVM reserve gigabytes that they never touch."""
    result = inside([programs("memory"), "reserve", "4096"], memory_limit="50M", allowed_dirs=[programs.directory])
    assert result.ok, result


@pytest.mark.usefixtures("idmap")
def test_page_cache_is_no_memory_of_the_command(tmp_path: Path) -> None:
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(500 * MEGABYTE)
    code = "import sys\nwith open(sys.argv[1], 'rb', 0) as f:\n  n = 0\n  while b := f.read(1 << 20): n += len(b)\nprint(n)"
    result = inside(python(code, str(big)), memory_limit="50M", allowed_dirs=[tmp_path])
    assert text(result) == f"{500 * MEGABYTE}\n", result
    assert result.ok
    assert not result.memory_exceeded


def test_page_cache_of_what_the_command_writes_neither(tmp_path: Path) -> None:
    kind = outside(["stat", "-f", "-c", "%T", str(tmp_path)])
    if text(kind).strip() in {"tmpfs", "ramfs"}:
        pytest.skip("the test's own directory is memory, not a disk")
    code = "f = open('big', 'wb', 0)\nfor _ in range(150): f.write(bytes(1 << 20))\nprint(f.tell())"
    result = inside(python(code), memory_limit="50M", working_dir=tmp_path)
    assert text(result) == f"{150 * MEGABYTE}\n", result
    assert not result.memory_exceeded


@pytest.mark.parametrize("way", ["kill -9 $$", "exit 137"])
def test_looking_like_an_out_of_memory_kill_is_not_enough(way: str) -> None:
    result = inside(["sh", "-c", way], memory_limit="50M")
    assert not result.memory_exceeded
    assert result.reason in {ps.Reason.SIGNALED, ps.Reason.EXITED}


def test_an_allocation_that_fails_by_the_commands_own_limit_is_no_verdict() -> None:
    result = inside(
        ["sh", "-c", "ulimit -v 30000; exec dd if=/dev/zero of=/dev/null bs=200M count=1"], memory_limit="100M"
    )
    assert not result.memory_exceeded, result
    assert result.reason is ps.Reason.EXITED
    assert result.exit_code != 0


def test_a_child_over_the_limit_is_told_though_the_parent_lives(programs: Programs) -> None:
    script = f"{programs('memory')} anonymous 200 hold; exit 0"
    result = inside(["sh", "-c", script], memory_limit="50M", allowed_dirs=[programs.directory])
    assert result.memory_exceeded, result
    assert result.reason is ps.Reason.MEMORY
    assert not result.ok


def test_the_neighbour_is_not_blamed(programs: Programs) -> None:
    """Eight runs at once, every second of them greedy: each answers for itself."""

    def one(greedy: bool) -> ps.Result:
        command = [programs("memory"), "anonymous", "200" if greedy else "20", "hold" if greedy else "leave"]
        return inside(command, memory_limit="50M", allowed_dirs=[programs.directory])

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(one, [True, False] * 4))
    assert [result.memory_exceeded for result in results] == [True, False] * 4
    assert [result.ok for result in results] == [False, True] * 4


def test_one_greedy_run_leaves_nothing_to_the_next(programs: Programs) -> None:
    """Sandboxes that are used again start from nothing: no peak and no verdict of the one before."""
    greedy = [programs("memory"), "anonymous", "200", "hold"]
    for _ in range(3):
        assert inside(greedy, memory_limit="50M", allowed_dirs=[programs.directory]).memory_exceeded
        modest = inside(["true"], memory_limit="50M", allowed_dirs=[programs.directory])
        assert modest.ok
        assert not modest.memory_exceeded
        if by_cgroup(modest, "memory_limit"):
            assert modest.peak_memory is not None
            assert modest.peak_memory < 20 * MEGABYTE


def measures_peak(result: ps.Result) -> bool:
    """Whether a cgroup does: memory.peak is there since Linux 5.19."""
    version_2 = "cgroup2" in mechanism(result, "memory_limit")
    return by_cgroup(result, "memory_limit") and (not version_2 or any(Path("/sys/fs/cgroup").glob("*/memory.peak")))


@pytest.mark.parametrize(("kind", "megabytes"), [("anonymous", 100), ("children", 200), ("shared", 150)])
def test_the_peak_is_what_was_touched(programs: Programs, kind: str, megabytes: int) -> None:
    command = [programs("memory"), kind, str(megabytes)]
    result = inside(command, memory_limit="1G", allowed_dirs=[programs.directory])
    assert result.ok, result
    if not measures_peak(result):
        pytest.skip(f"the peak is exact only by a cgroup that keeps it; here: {result.enforcement['memory_limit']}")
    assert result.peak_memory is not None
    assert 0.9 * megabytes * MEGABYTE <= result.peak_memory <= 1.1 * megabytes * MEGABYTE
    assert result.usage.peak_memory == result.peak_memory


def test_the_peak_of_a_killed_run_stays_below_the_limit(programs: Programs) -> None:
    result = inside(
        [programs("memory"), "anonymous", "200", "hold"], memory_limit="50M", allowed_dirs=[programs.directory]
    )
    if measures_peak(result):
        assert result.peak_memory is not None
        assert 40 * MEGABYTE <= result.peak_memory <= 51 * MEGABYTE


def test_socket_buffers_are_bounded_where_memory_is_sampled() -> None:
    """Nobody maps what lies in a socket: by cgroup it is charged, by sampling it would not be seen."""
    code = """
import socket
pair = socket.socketpair()
before = pair[0].getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
try:
    pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, before * 4)
except PermissionError:
    print("refused")
print(pair[0].getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= before)
"""
    result = inside(python(code), memory_limit="64M")
    assert text(result) == "refused\nTrue\n" or by_cgroup(result, "memory_limit")


BOTH = """
import os, resource, time
ours, theirs = os.pipe()
child = os.fork()
held = b"x" * (40 << 20)
if child == 0:
    os.write(theirs, b"!")
    time.sleep(600)
os.read(ours, 1)
time.sleep(1)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_the_peak_is_looked_for_where_the_kernel_keeps_none(tmp_path: Path) -> None:
    """As before Linux 5.19: two processes hold 40 MB each, the larger of them is not the peak of the tree."""
    host = current().probe().cgroup
    if not ROOT or not host or host.version != 2 or not host.has("memory"):
        pytest.skip("needs cgroup v2 with memory, as root")
    blind = compile_launcher(tmp_path / "launcher", '-DMEMORY_PEAK="none"')
    words = ps.plan(python(BOTH), memory_limit="200M").words()
    done = outside([blind, "run", *words])
    said = done.stderr.decode().split()
    assert int(done.stdout) << 10 < 75 * MEGABYTE, "the control: no single process is that large"
    assert said[said.index("exit_code") + 1] == "0", said
    assert int(said[said.index("peak") + 1]) > 75 * MEGABYTE, said


def test_what_children_share_counts_once() -> None:
    """However long it takes to look at them all: a server that has forked with its data loaded is an ordinary program."""
    code = (
        "import os, signal, time\nblock = bytearray(200 << 20)\nchildren = []\n"
        "for _ in range(32):\n    pid = os.fork()\n    if pid == 0: time.sleep(3000)\n    children.append(pid)\n"
        "time.sleep(1)\nfor pid in children: os.kill(pid, signal.SIGKILL)\nprint('lived')"
    )
    result = inside(python(code), memory_limit="1G")
    assert (result.reason, result.stdout) == (ps.Reason.EXITED, b"lived\n"), result
    assert result.peak_memory
    assert result.peak_memory < 500 * MEGABYTE
