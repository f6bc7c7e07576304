"""Cgroups that are used again, and limits above the run's own: each run answers for itself alone. Needs cgroup v1 as root."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.fixtures import Programs
from support.processes import assert_nothing_survives_kills, caller, library_path_environment, new_mark, output_of
from support.programs import HANG, MEGABYTE, ROOT, by_cgroup, compile_launcher, inside, python

import proc_sandbox as ps
from proc_sandbox.backends import current


def memory_directory() -> Path:
    """The v1 cgroup below which this process may make others; skips where there is none."""
    host = current().probe().cgroup if ROOT else None
    if not host or host.version != 1 or not host.has("memory"):
        pytest.skip("needs cgroup v1 with memory, as root")
    return Path(dict(host.directories)["memory"])


def test_a_cgroup_that_cannot_be_emptied_is_not_used_again(tmp_path: Path) -> None:
    """Files on a tmpfs of the host's stay charged to whom they were written by: here to a run that has ended."""
    memory_directory()
    fill = python(f"f = open('f', 'wb')\nfor _ in range(60): f.write(bytes({MEGABYTE}))")
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tmp_path], check=True, timeout=HANG)
    try:
        for _ in range(4):
            written = inside(fill, memory_limit="128M", working_dir=tmp_path)
            assert written.peak_memory
            assert written.peak_memory > 50 * MEGABYTE, "the control: it is charged"
        for _ in range(5):
            result = inside(["true"], memory_limit="128M")
            assert result.ok
            assert result.peak_memory
            assert result.peak_memory < 20 * MEGABYTE, result
        assert inside(["true"], memory_limit="16M").ok, "less than what the last ones have left"
    finally:
        subprocess.run(["umount", "--lazy", tmp_path], check=True, timeout=HANG)


def test_not_even_little_of_what_cannot_be_emptied_is_left_to_the_next_run(tmp_path: Path) -> None:
    """Else its limit would be met before it has used that much itself."""
    memory_directory()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tmp_path], check=True, timeout=HANG)
    needs = python(f"x = bytes({4 * MEGABYTE})")
    alone = max(inside(needs, memory_limit="64M", prepared=0).peak_memory or 0 for _ in range(3))
    try:
        for number in range(4):
            fill = python(f"f = open('f{number}', 'wb')\nfor _ in range(3): f.write(bytes({MEGABYTE}))")
            assert inside(fill, memory_limit="64M", working_dir=tmp_path, prepared=0).ok
            for _ in range(5):
                peak = inside(needs, memory_limit="64M", prepared=0).peak_memory
                assert peak
                assert peak < alone + 2 * MEGABYTE
    finally:
        subprocess.run(["umount", "--lazy", tmp_path], check=True, timeout=HANG)


CALLER = """
import os, sys, threading
import proc_sandbox as ps
with open(os.path.join(sys.argv[1], "cgroup.procs"), "w") as file:
    file.write(str(os.getpid()))
quiet = []
idle = threading.Thread(target=lambda: quiet.append(ps.run(["sleep", "600"], memory_limit="1G", timeout=20)))
ps.run(["true"], memory_limit="1G")
idle.start()
greedy = ps.run([sys.argv[2], "anonymous", "400", "hold"], memory_limit="1G", allowed_dirs=[os.path.dirname(sys.argv[2])], timeout=15)
idle.join()
print(greedy.reason.value, greedy.memory_exceeded, greedy.peak_memory < 200 << 20, quiet[0].reason.value, quiet[0].memory_exceeded)
"""


def test_a_limit_above_is_not_the_runs_own(programs: Programs) -> None:
    """The caller's whole cgroup runs out of memory: neither who took it nor who slept has exceeded a limit of its own."""
    parent = memory_directory() / f"proc-sandbox-test-{os.getpid()}"
    parent.mkdir()
    try:
        (parent / "memory.limit_in_bytes").write_text(str(120 * MEGABYTE))
        (parent / "memory.memsw.limit_in_bytes").write_text(str(120 * MEGABYTE))
        command = [sys.executable, "-c", CALLER, str(parent), programs("memory")]
        environment = library_path_environment()
        done = subprocess.run(command, capture_output=True, timeout=HANG, check=False, env=environment)
    finally:
        parent.rmdir()
    words = done.stdout.decode().split()
    assert words[1:3] == ["False", "True"], done
    assert words[0] in {"killed_outside", "signaled", "timeout"}, done
    assert words[3:] == ["timeout", "False"], done


SLOW_END = """
#define _GNU_SOURCE
#include <sched.h>
void __real_end_life(void);
void __wrap_end_life(void) { __real_end_life(); unshare(CLONE_NEWNS); }
"""

NONE_IS_KILLED = """
import sys, concurrent.futures as futures, proc_sandbox as ps
from proc_sandbox.launcher import process
process.launcher_path = lambda: sys.argv[1]
with futures.ThreadPoolExecutor(4) as pool:
    for result in pool.map(lambda _: ps.run(["true"], max_processes=20, prepared=0), range(300)):
        if not result.ok:
            print(result.error)
"""


@pytest.mark.parametrize("when", ["others begin", "it is killed"])
def test_a_run_whose_maker_has_gone_belongs_to_the_launcher(tmp_path: Path, when: str) -> None:
    """As with very many runs. Who made it has a mount namespace to take down, after pthread_join(3) and before its children are told."""
    memory_directory()
    slow_end = tmp_path / "slow_end.c"
    slow_end.write_text(SLOW_END)
    launcher = compile_launcher(tmp_path / f"launcher-{new_mark()}", "-static", "-DNESTS=-1", "-Wl,--wrap=end_life", slow_end)
    if when == "others begin":
        assert output_of(NONE_IS_KILLED, str(launcher)) == ""
        return
    assert_nothing_survives_kills(launcher, "4", max_processes=20)


def test_cgroups_go_when_many_runs_are_over() -> None:
    """A crowd needs many at once; afterwards few are kept."""
    directory = memory_directory()
    code = (
        "import os, sys, time, concurrent.futures as futures, proc_sandbox as ps\n"
        "from proc_sandbox.launcher.process import launcher\n"
        "def count(): return sum(e.name.startswith(f'proc-sandbox-{launcher().pid}-') for e in os.scandir(sys.argv[1]))\n"
        "with futures.ThreadPoolExecutor(40) as pool:\n"
        "    list(pool.map(lambda _: ps.run(['sleep', '0.2'], memory_limit='64M'), range(40)))\n"
        "while count() > 17: time.sleep(0.01)\n"  # a run's end is told before its cgroup is removed
        "print(count())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(directory)],
        capture_output=True, timeout=HANG, check=True, env=library_path_environment(),
    )  # fmt: skip
    assert 1 <= int(done.stdout) <= 17


def test_the_mechanism_is_the_one_under_test() -> None:
    memory_directory()
    assert by_cgroup(inside(["true"], memory_limit="64M"), "memory_limit")
    assert ps.capabilities().memory_limit


KILLED = """
import os, signal, proc_sandbox as ps
from proc_sandbox.launcher.process import launcher
ps.run(["true"], memory_limit="64M")
print(launcher().pid, flush=True)
os.kill(launcher().pid, signal.SIGKILL)
os.kill(os.getpid(), signal.SIGKILL)
"""


def of(pid: int) -> list[Path]:
    """The memory cgroups of a launcher."""
    return list(memory_directory().glob(f"proc-sandbox-{pid}-*"))


def test_cgroups_of_a_killed_launcher_are_swept_by_the_next() -> None:
    memory_directory()
    with caller(KILLED) as process:
        assert process.stdout is not None
        dead = int(process.stdout.readline())
        process.wait(HANG)
    assert of(dead), "the control: nobody has removed them"
    output_of("import proc_sandbox as ps; ps.run(['true'], memory_limit='64M')")
    assert of(dead) == []


def test_what_is_in_use_elsewhere_is_not_swept() -> None:
    """In another pid namespace the number in its name is nobody here; the lock tells that somebody is there."""
    directory = memory_directory()
    foreign = directory / "proc-sandbox-99999999-0"
    similar = directory / "proc-sandbox-of-somebody"
    foreign.mkdir()
    similar.mkdir()
    lock = os.open(foreign, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH)
        output_of("import proc_sandbox as ps; ps.run(['true'], memory_limit='64M')")
        assert foreign.exists()
        fcntl.flock(lock, fcntl.LOCK_UN)
        output_of("import proc_sandbox as ps; ps.run(['true'], memory_limit='64M')")
        assert not foreign.exists()
        assert similar.exists()
    finally:
        os.close(lock)
        similar.rmdir()
        if foreign.exists():
            foreign.rmdir()


MANY = """
import os, sys, threading, time
import proc_sandbox as ps
COUNT = [sys.executable, "-I", "-S", "-c", "import os, time\\nn = 0\\ntry:\\n  while n < 20:\\n    if not os.fork(): time.sleep(60); os._exit(0)\\n    n += 1\\nexcept OSError: pass\\nprint(n)"]
limits = {"memory_limit": "64M", "max_processes": 6, "timeout": 100}
few = ps.run(COUNT, **limits).stdout
box = ps.Sandbox(**limits)
threads = [threading.Thread(target=box.run, args=(["sh", "-c", "touch $0; exec sleep 90", str(number)],)) for number in range(150)]
for thread in threads:
    thread.start()
end = time.monotonic() + 90
while len(os.listdir(box.directory)) < 150 and time.monotonic() < end:
    time.sleep(0.05)
many = [ps.run(COUNT, **limits).stdout for _ in range(5)]
from proc_sandbox.launcher.process import launcher
print(few.decode().strip(), *(said.decode().strip() for said in many), len(os.listdir(f"/proc/{launcher().pid}/task")) < 140)
box.cleanup()
for thread in threads:
    thread.join()
"""


def test_with_very_many_runs_alive_the_limit_of_tasks_is_as_exact_and_no_thread_is_kept_for_each() -> None:
    memory_directory()
    assert output_of(MANY).split() == ["5", *["5"] * 5, "True"]
