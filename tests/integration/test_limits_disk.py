"""read_bps and write_bps: the whole tree, direct and through the page cache; what was read, written and waited for.

The times asserted are lower bounds, so that a busy host does no harm: with the limit the work takes at least 0.7 of what its
bytes need, and without it less.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.programs import HANG, MEGABYTE, inside, mechanism, python

import proc_sandbox as ps

SIZE, LIMIT = 8 * MEGABYTE, 2 * MEGABYTE
LEAST = 0.7 * SIZE / LIMIT
"""Seconds."""
WAYS = [pytest.param([], id="page cache"), pytest.param(["iflag=direct"], id="direct")]


def needs(field: str) -> None:
    how = getattr(ps.capabilities(), field)
    if isinstance(how, ps.Unenforced):
        pytest.skip(f"{field} cannot be enforced here: {how.reason}")


@pytest.fixture
def disk() -> Iterator[Path]:
    """A directory on a disk, and not in memory or on another system."""
    directory = Path(tempfile.mkdtemp(dir="/var/tmp"))
    directory.chmod(0o755)  # without an idmap root's command is somebody else
    try:
        if os.major(directory.stat().st_dev) == 0:
            pytest.skip("/var/tmp is on no disk")
        yield directory
    finally:
        shutil.rmtree(directory)


@pytest.fixture
def uncached(disk: Path) -> Path:
    """A file that the page cache does not hold."""
    path = disk / "file"
    path.write_bytes(os.urandom(SIZE))
    path.chmod(0o644)
    forget(path)
    return path


def forget(path: Path) -> None:
    """Take a file out of the page cache."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def read(path: Path, flags: list[str], **config: object) -> ps.Result:
    command = ["dd", f"if={path}", "of=/dev/null", "bs=1M", *flags]
    result = inside(command, allowed_dirs=[path.parent], max_processes=10, **config)
    assert result.ok, result.stderr.text()
    forget(path)
    return result


def is_free(run: Callable[[], ps.Result]) -> bool:
    """Whether it can be faster than the limit allows: once in a few times is enough, for the machine may be busy."""
    return any(run().execution_time < LEAST for _ in range(5))


def write(directory: Path, name: str, flags: list[str], **config: object) -> ps.Result:
    command = ["dd", "if=/dev/zero", f"of={name}", "bs=1M", f"count={SIZE // MEGABYTE}", *flags]
    result = inside(command, working_dir=directory, max_processes=10, **config)
    assert result.ok, result.stderr.text()
    return result


@pytest.mark.parametrize("flags", WAYS)
def test_reading(uncached: Path, flags: list[str]) -> None:
    needs("read_bps")
    assert is_free(lambda: read(uncached, flags)), "the control: without the limit it is faster"
    result = read(uncached, flags, read_bps=LIMIT)
    assert result.execution_time >= LEAST
    if result.read_bytes is not None:
        assert result.read_bytes >= 0.9 * SIZE
        assert result.pressure
        assert result.pressure.io >= 0.5 * LEAST


def test_the_limit_is_of_the_whole_tree(uncached: Path) -> None:
    needs("read_bps")
    parts = " ".join(f"dd if={uncached} of=/dev/null bs=1M iflag=direct skip={2 * n} count=2 &" for n in range(4))
    command = ["sh", "-c", f"{parts} wait"]
    assert is_free(lambda: inside(command, allowed_dirs=[uncached.parent])), "the control"
    assert inside(command, allowed_dirs=[uncached.parent], read_bps=LIMIT).execution_time >= LEAST


def test_the_next_run_has_no_limit(uncached: Path) -> None:
    """Its cgroup may be the same."""
    needs("read_bps")
    for other in ({}, {"read_bps": "1T"}, {}):
        assert read(uncached, ["iflag=direct"], read_bps=LIMIT).execution_time >= LEAST
        assert is_free(lambda other=other: read(uncached, ["iflag=direct"], **other))


@pytest.mark.parametrize("flags", [pytest.param(["conv=fsync"], id="page cache"), pytest.param(["oflag=direct"], id="direct")])
def test_writing(disk: Path, flags: list[str]) -> None:
    needs("write_bps")
    assert is_free(lambda: write(disk, "free", flags)), "the control: without the limit it is faster"
    result = write(disk, "limited", flags, write_bps=LIMIT)
    assert result.execution_time >= LEAST
    assert result.written_bytes is not None
    assert result.written_bytes >= 0.9 * SIZE
    assert result.usage.written_bytes == result.written_bytes
    assert result.pressure
    assert result.pressure.io >= 0.5 * LEAST


def test_who_waits_for_a_limited_disk_can_be_killed(uncached: Path) -> None:
    """The whole file at once at 64 KiB/s would hold its reader for two minutes, and a process that waits for a disk does not
    die before the disk has answered.
    """
    needs("read_bps")
    command = ["dd", f"if={uncached}", "of=/dev/null", "bs=8M", "iflag=direct"]
    began = time.monotonic()
    result = inside(command, allowed_dirs=[uncached.parent], read_bps="64K", timeout=2)
    assert result.timed_out, result
    assert time.monotonic() - began < SIZE / (64 << 10) / 2


def test_cgroup_v1_is_not_said_to_limit_writing() -> None:
    if not mechanism(inside(["true"], max_processes=10), "max_processes").startswith("cgroup1"):
        pytest.skip("needs cgroup v1")
    with pytest.raises(ps.UnsupportedError, match="page cache") as caught:
        inside(["true"], write_bps=LIMIT)
    assert caught.value.remedy
    with pytest.warns(ps.UnenforcedWarning, match="write_bps"):
        lenient = inside(["true"], write_bps=LIMIT, enforcement=ps.best_effort("write_bps"))
    assert isinstance(lenient.enforcement["write_bps"], ps.Unenforced)


BUSY = python("import time\nwhile time.process_time() < 0.2: pass")


def test_pressure_is_of_this_run_alone() -> None:
    waiting = inside(BUSY, cpu_limit=10)
    if waiting.pressure is None:
        assert not (mechanism(waiting, "cpu_limit").startswith("cgroup2") and os.path.exists("/proc/pressure/cpu"))
        pytest.skip("needs cgroup v2 with PSI")
    assert waiting.pressure.cpu > 0.5, waiting
    assert waiting.to_dict()["pressure"] == waiting.pressure._asdict()
    idle = inside(["true"], cpu_limit=1000, timeout=HANG)
    assert idle.pressure
    assert idle.pressure.cpu < waiting.pressure.cpu
    assert inside(["true"], timeout=HANG).pressure is None, "no limit asked for a cgroup"
