"""A limit holds for the whole tree, and only what it ended is blamed on it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.behaviours import Runner, promise
from support.programs import MEGABYTE, python

import proc_sandbox as ps

FILL = "import sys, time\nblocks = []\nwhile True: blocks.append(bytearray(b'x' * (4 << 20))); time.sleep(0.002)"
"""Fills memory no faster than a look every 10 ms can see."""
BURN = "while True: pass"
MANY = """
import subprocess, sys
children = [subprocess.Popen([sys.executable, "-I", "-S", "-c", {code!r}], stdout=subprocess.PIPE) for _ in range({count})]
"""


def within(result: ps.Result, field: str) -> ps.Result:
    """The result, of which the field was enforced."""
    assert isinstance(result.enforcement[field], ps.Enforced)
    return result


@promise("memory")
def test_who_takes_too_much_memory_is_ended_and_named(run: Runner) -> None:
    result = within(run(python(FILL), memory_limit="128M"), "memory_limit")
    assert (result.reason, result.memory_exceeded, result.exit_code) == (ps.Reason.MEMORY, True, None)
    assert not result.timed_out
    assert "memory limit of 128 MiB" in (result.error or "")
    with pytest.raises(ps.MemoryLimitExceeded):
        result.check()


@promise("memory")
def test_who_stays_below_is_not_blamed(run: Runner) -> None:
    result = run(python("block = bytearray(b'x' * (64 << 20)); import os; os._exit(137)"), memory_limit="512M")
    assert (result.reason, result.exit_code, result.memory_exceeded) == (ps.Reason.EXITED, 137, False)


@promise("memory")
def test_reserving_is_not_using(run: Runner) -> None:
    """Java, Go and V8 reserve gigabytes; commit charge, which Windows counts, has none of it either (MEM_RESERVE)."""
    code = (
        "import ctypes; assert ctypes.windll.kernel32.VirtualAlloc(None, ctypes.c_size_t(8 << 30), 0x2000, 1)"
        if sys.platform == "win32"
        else "import mmap; block = mmap.mmap(-1, 8 << 30, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)"
    )
    assert run(python(code), memory_limit="256M").ok


@promise("memory of the tree")
def test_the_memory_limit_holds_for_all_together(run: Runner) -> None:
    """Four processes of which none is above the limit."""
    code = "import sys; block = bytearray(b'x' * (64 << 20)); print('up', flush=True); import time; time.sleep(3600)"
    parent = MANY.format(code=code, count=4) + "for child in children: child.stdout.readline()\nprint('all up', flush=True)\n"
    control = run(python(parent + "[child.kill() for child in children]"), memory_limit="2G")
    assert control.stdout.strip() == b"all up"
    result = within(run(python(parent + "import time; time.sleep(3600)"), memory_limit="160M"), "memory_limit")
    assert (result.reason, result.memory_exceeded) == (ps.Reason.MEMORY, True)


@promise("cpu time")
def test_who_burns_too_long_is_ended_and_named(run: Runner) -> None:
    result = within(run(python(BURN), cpu_time_limit=0.5), "cpu_time_limit")
    assert (result.reason, result.cpu_time_exceeded, result.exit_code) == (ps.Reason.CPU_TIME, True, None)
    assert result.cpu_time.total >= 0.5
    assert "CPU time limit of 0.5 s" in (result.error or "")
    with pytest.raises(ps.TimeLimitExceeded):
        result.check()


@promise("cpu time")
def test_who_sleeps_burns_nothing(run: Runner) -> None:
    result = run(python("import time; time.sleep(1.5)"), cpu_time_limit=1)
    assert (result.reason, result.cpu_time_exceeded) == (ps.Reason.EXITED, False)


@promise("cpu time of the tree")
def test_cpu_time_of_children_counts(run: Runner) -> None:
    """One after the other, each below the limit, each waited for."""
    code = "import subprocess, sys\n"
    burn = "import time\nwhile time.process_time() < 0.4: pass"
    code += f"while True: subprocess.run([sys.executable, '-I', '-S', '-c', {burn!r}], check=True)"
    result = within(run(python(code), cpu_time_limit=1.5), "cpu_time_limit")
    assert (result.reason, result.cpu_time_exceeded) == (ps.Reason.CPU_TIME, True)


@promise("cpu rate")
def test_the_cpu_limit_holds_for_the_whole_tree(run: Runner) -> None:
    """Two burn, and together they get a quarter of a processor. A busy host gives them less, never more."""
    code = MANY.format(code="import time\nend = time.monotonic() + 2\nwhile time.monotonic() < end: pass", count=2)
    result = within(run(python(code + "[child.wait() for child in children]"), cpu_limit=25), "cpu_limit")
    assert result.ok, result
    assert result.cpu_time.total < 0.25 * result.execution_time * 1.5 + 0.3
    control = subprocess.run(python("import time\nwhile time.process_time() < 1: pass"), check=False)
    assert control.returncode == 0


@promise("processes")
def test_there_are_no_more_processes_than_the_limit(run: Runner) -> None:
    """Twenty are asked for where eight may be: refused, or the run is ended, for which twenty wait."""
    code = """
import subprocess, sys
children = []
try:
    for _ in range(20):
        children.append(subprocess.Popen([sys.executable, "-I", "-S", "-c", "input()"], stdin=subprocess.PIPE))
except OSError:
    pass
print(len(children), sum(child.poll() is None for child in children), flush=True)
if len(children) == 20 and sys.argv[1:]:
    children[0].wait()
for child in children:
    child.kill()
"""
    control = run(python(code), max_processes=60)
    assert control.stdout.split() == [b"20", b"20"], control
    result = within(run(python(code, "wait"), max_processes=8), "max_processes")
    if result.reason is ps.Reason.PROCESSES:
        assert result.processes_exceeded
    else:
        assert result.ok, result
        assert int(result.stdout.split()[1]) < 8
        assert result.processes_exceeded in (True, None)


@promise("threads")
def test_threads_count_too(run: Runner) -> None:
    code = """
import sys, threading
stop = threading.Event()
threads = []
try:
    for _ in range(20):
        thread = threading.Thread(target=stop.wait)
        thread.start()
        threads.append(thread)
except RuntimeError:
    pass
print(len(threads), flush=True)
if len(threads) == 20 and sys.argv[1:]:
    threads[0].join()
stop.set()
"""
    assert run(python(code), max_processes=60).stdout.split() == [b"20"]
    result = within(run(python(code, "wait"), max_processes=8), "max_processes")
    if result.reason is ps.Reason.PROCESSES:
        assert result.processes_exceeded
    else:
        assert int(result.stdout) < 8


FLOOD = "import sys, os\ndata = b'x' * (1 << 20)\nfor _ in range({count}): os.write({stream}, data)\nos.write({other}, b'end')"


@promise("output")
@pytest.mark.parametrize(("stream", "other"), [(1, 2), (2, 1)])
def test_output_beyond_its_limit_is_thrown_away(run: Runner, stream: int, other: int) -> None:
    result = run(python(FLOOD.format(count=64, stream=stream, other=other)), max_output="1M")
    assert result.ok
    flooded, small = (result.stdout, result.stderr) if stream == 1 else (result.stderr, result.stdout)
    assert len(flooded) == MEGABYTE
    assert small == b"end"
    assert (result.stdout_truncated, result.stderr_truncated) == (stream == 1, stream == 2)


@promise("file size")
def test_no_file_grows_beyond_its_limit(run: Runner, tmp_path: Path) -> None:
    code = "file = open('big', 'wb', 0)\nfor _ in range(64): file.write(b'x' * (1 << 20))"
    assert run(python(code), working_dir=tmp_path).ok
    result = within(run(python(code), working_dir=tmp_path, max_file_size="4M"), "max_file_size")
    assert not result.ok
    assert os.path.getsize(tmp_path / "big") <= 4 * MEGABYTE


@promise("open files")
def test_no_process_has_more_open_files_than_its_limit(run: Runner) -> None:
    code = "import os\nfiles = []\ntry:\n    while len(files) < 200: files.append(os.open(os.devnull, os.O_RDONLY))\nexcept OSError: pass\nprint(len(files))"
    assert run(python(code), max_open_files=500).stdout.split() == [b"200"]
    result = within(run(python(code), max_open_files=32), "max_open_files")
    assert 16 < int(result.stdout) < 32
