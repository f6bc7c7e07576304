"""max_processes, max_open_files, max_file_size, tmp_size, and the small settings beside them."""

from __future__ import annotations

import errno
import os
import re
import resource
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.fixtures import Programs
from support.processes import output_of
from support.programs import HANG, MEGABYTE, assert_escapes, by_cgroup, inside, python, text

import proc_sandbox as ps


def counted(result: ps.Result) -> tuple[int, int, int]:
    """How many tasks were made, how many refused, and the last errno."""
    found = re.search(r"made (\d+) refused (\d+) errno (\d+)", text(result))
    assert found, result
    return int(found[1]), int(found[2]), int(found[3])


@pytest.mark.parametrize("kind", ["fork", "thread", "bomb"])
def test_tasks_are_counted_over_the_tree(programs: Programs, kind: str) -> None:
    assert_escapes([programs("tasks"), kind, "40"])
    result = inside([programs("tasks"), kind, "40"], max_processes=10, allowed_dirs=[programs.directory])
    made, refused, error = counted(result)
    # The command itself is the tenth; one of a bomb may fork when another has left already.
    assert 1 <= made <= 9 if kind != "bomb" else made < 40
    assert refused >= 1
    assert error == errno.EAGAIN
    assert "ESCAPED" not in text(result)
    if by_cgroup(result, "max_processes"):
        assert result.processes_exceeded
    assert result.reason is ps.Reason.EXITED, "a refused fork does not end the run"


@pytest.mark.parametrize("kind", ["fork", "thread"])
def test_the_limit_is_exact(programs: Programs, kind: str) -> None:
    """Ten tasks means ten: the command and nine more, none of them spent on machinery of ours."""
    fits = inside([programs("tasks"), kind, "9"], max_processes=10, allowed_dirs=[programs.directory])
    assert counted(fits)[:2] == (9, 0), fits
    assert not fits.processes_exceeded
    over = inside([programs("tasks"), kind, "10"], max_processes=10, allowed_dirs=[programs.directory])
    assert counted(over)[:2] == (9, 1), over


def test_one_task_is_one_task() -> None:
    alone = inside(["true"], max_processes=1)
    assert alone.ok, alone
    result = inside(["sh", "-c", "true & wait; /bin/true"], max_processes=1)
    assert result.exit_code != 0
    assert b"ork" in result.stderr


def test_each_run_has_a_budget_of_its_own(programs: Programs) -> None:
    """RLIMIT_NPROC would count one uid's tasks over the whole host: twenty runs must not see one another."""
    gate = threading.Barrier(20, timeout=HANG)

    def one(_: int) -> tuple[int, int, int]:
        gate.wait()
        command = [programs("tasks"), "fork", "12"]
        return counted(inside(command, max_processes=10, allowed_dirs=[programs.directory]))

    with ThreadPoolExecutor(20) as pool:
        assert [made for made, _, _ in pool.map(one, range(20))] == [9] * 20


def test_a_run_that_forks_little_is_not_accused(programs: Programs) -> None:
    inside([programs("tasks"), "fork", "40"], max_processes=10, allowed_dirs=[programs.directory])
    result = inside(["sh", "-c", "true; true"], max_processes=10, allowed_dirs=[programs.directory])
    assert result.ok
    assert not result.processes_exceeded


def test_peak_processes_where_it_is_known(programs: Programs) -> None:
    result = inside([programs("tasks"), "fork", "5"], max_processes=50, allowed_dirs=[programs.directory])
    assert result.peak_processes is None or 1 <= result.peak_processes <= 50
    assert result.usage.peak_processes == result.peak_processes


def test_open_files() -> None:
    code = "import os\nn = 0\ntry:\n  while True: os.open('/dev/null', os.O_RDONLY); n += 1\nexcept OSError as e: print(n, e.errno)"
    result = inside(python(code), max_open_files=32)
    count, error = map(int, text(result).split())
    assert count <= 32
    assert count >= 20
    assert error == errno.EMFILE


def test_file_size(tmp_path: Path) -> None:
    code = (
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "f = open('big', 'wb', 0)\n"
        "try:\n"
        "  while f.tell() < 4 << 20: f.write(bytes(65536))\n"
        "except OSError as e: print(e.errno)"
    )
    result = inside(python(code), working_dir=tmp_path, max_file_size="1M")
    assert text(result) == f"{errno.EFBIG}\n", result
    assert (tmp_path / "big").stat().st_size == MEGABYTE
    blunt = inside(["sh", "-c", "exec head -c 4M /dev/zero > blunt"], working_dir=tmp_path, max_file_size="1M")
    assert not blunt.ok
    assert (tmp_path / "blunt").stat().st_size == MEGABYTE


def test_the_file_size_limit_does_not_bind_output() -> None:
    result = inside(["head", "-c", "3M", "/dev/zero"], max_file_size="1M")
    assert result.ok, result
    assert len(result.stdout) == 3 * MEGABYTE


def test_tmp_size() -> None:
    code = (
        "import sys\n"
        "total = 0\n"
        "for path in ('/tmp/a', '/dev/shm/b'):\n"
        "  f = open(path, 'wb', 0)\n"
        "  try:\n"
        "    while total < 64 << 20: total += f.write(bytes(65536))\n"
        "  except OSError as e: error = e.errno\n"
        "print(total, error)"
    )
    result = inside(python(code), tmp_size="8M")
    total, error = map(int, text(result).split())
    assert error == errno.ENOSPC
    assert 4 * MEGABYTE <= total <= 8 * MEGABYTE + 65536


def test_many_small_files_end_too() -> None:
    """Inodes are memory; the private file systems bound them."""
    code = (
        "import os\n"
        "n = 0\n"
        "try:\n"
        "  while n < 300000: os.close(os.open(f'/tmp/{n}', os.O_CREAT | os.O_WRONLY)); n += 1\n"
        "except OSError as e: print(n, e.errno)\n"
        "else: print(n, 0)"
    )
    result = inside(python(code), tmp_size="8M")
    count, error = map(int, text(result).split())
    assert error == errno.ENOSPC
    assert count < 300000


def test_the_caller_keeps_its_own_limits() -> None:
    before = {name: resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name.startswith("RLIMIT_")}
    inside(["true"], max_open_files=16, max_file_size="1M", cpu_time_limit=5, max_processes=5, core_dumps=False)
    after = {name: resource.getrlimit(getattr(resource, name)) for name in before}
    assert after == before


def test_umask(tmp_path: Path) -> None:
    inside(["sh", "-c", "touch file; mkdir directory"], working_dir=tmp_path, umask=0o077, check=True)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "directory").stat().st_mode & 0o777 == 0o700
    assert text(inside(["sh", "-c", "umask"])) == "0022\n"


def test_nice() -> None:
    base = os.getpriority(os.PRIO_PROCESS, 0)
    assert text(inside(["nice"], nice=7)) == f"{min(19, base + 7)}\n"


def test_nice_is_added_to_the_callers() -> None:
    code = "import os, proc_sandbox as ps\nos.nice(10)\nprint([int(ps.run(['nice'], nice=n).stdout) for n in (0, 5, 12)])\n"
    assert output_of(code) == "[10, 15, 19]\n"


def test_hostname() -> None:
    assert text(inside(["uname", "-n"])) == "sandbox\n"
    assert text(inside(["uname", "-n"], hostname="judge-1")) == "judge-1\n"
    assert os.uname().nodename != "judge-1"


def test_no_core_is_left(tmp_path: Path) -> None:
    result = inside(["sh", "-c", "kill -SEGV $$"], working_dir=tmp_path)
    assert result.signal == 11
    assert not list(tmp_path.iterdir())
    limit = text(inside(["sh", "-c", "ulimit -c"])).strip()
    assert limit in {"0", "1"}
