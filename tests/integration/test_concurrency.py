"""Many runs: side by side, one after the other, from big callers; and nothing of them is left."""

from __future__ import annotations

import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from support.behaviours import promise
from support.processes import caller, output_of
from support.programs import HANG, MEGABYTE, inside, python, text

import proc_sandbox as ps

EVERY_BACKEND = True

COUNTS = """
import gc, json, os, pathlib, statistics, sys, tempfile, threading, time
import proc_sandbox as ps

def children(pid):
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = pathlib.Path("/proc", entry, "stat").read_text(errors="replace").rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == pid:
                found.append((int(entry), fields[0]))
    return found

def below(pid):
    return [one for child in children(pid) for one in (child, *below(child[0]))]

def cgroups():
    pids = [os.getpid(), *(pid for pid, _ in below(os.getpid()))]
    names = [f"-{pid}-" for pid in pids]
    return sum(any(name in directory + "-" for name in names)
               for top in [pathlib.Path("/sys/fs/cgroup")] if top.is_dir()
               for _, directories, _ in os.walk(top) for directory in directories)

def counts():
    gc.collect()
    family = below(os.getpid())
    launchers = [pid for pid, _ in family]
    fds = {"self": len(os.listdir("/proc/self/fd"))}
    mounts = sum("pytest-of" not in line for line in open("/proc/self/mountinfo"))  # not what the tests beside this one mount
    held = 0
    below_mounts = 0
    for pid in launchers:
        try:
            held += len(os.listdir(f"/proc/{pid}/fd"))
            below_mounts += sum("pytest-of" not in line for line in open(f"/proc/{pid}/mountinfo"))
        except OSError:
            pass
    return {
        "descriptors": fds["self"], "descriptors of the launcher": held, "threads": len(os.listdir("/proc/self/task")),
        "python threads": threading.active_count(), "mounts": mounts, "mounts of the launcher": below_mounts,
        "processes": len(family), "zombies": sum(state == "Z" for _, state in family), "cgroups": cgroups(),
        "files": len(os.listdir(tempfile.gettempdir())),
    }
"""


def test_64_at_once_from_one_sandbox() -> None:
    gate = threading.Barrier(64, timeout=HANG)
    with ps.Sandbox(timeout=HANG, memory_limit="256M", max_processes=20) as box:

        def one(number: int) -> ps.Result:
            gate.wait()
            return box.run(["sh", "-c", f"cat; exit {number}"], input=f"{number}".encode() * 1000)

        with ThreadPoolExecutor(64) as pool:
            results = list(pool.map(one, range(64)))
    assert [result.exit_code for result in results] == list(range(64))
    assert [result.stdout for result in results] == [f"{number}".encode() * 1000 for number in range(64)]
    assert not any(result.timed_out or result.memory_exceeded for result in results)


def test_64_that_are_really_alive_together() -> None:
    """Each waits until all have come: nothing queues them up in secret."""
    read_end, write_end = os.pipe()
    gate_read, gate_write = os.pipe()

    def one(number: int) -> ps.Result:
        command = ["bash", "-c", f"echo {number} >&{write_end}; read line"]
        return inside(command, pass_fds=[write_end], stdin=gate_read)

    try:
        with ThreadPoolExecutor(64) as pool:
            futures = [pool.submit(one, number) for number in range(64)]
            arrived = b""
            while arrived.count(b"\n") < 64:
                arrived += os.read(read_end, 4096)
            assert not any(future.done() for future in futures)
            os.close(gate_write)
            gate_write = -1
            results = [future.result() for future in futures]
    finally:
        for descriptor in (read_end, write_end, gate_read, gate_write):
            if descriptor >= 0:
                os.close(descriptor)
    assert sorted(map(int, arrived.split())) == list(range(64))
    assert all(result.reason is ps.Reason.EXITED for result in results)


@promise("others")
def test_64_different_configs_at_once() -> None:
    def one(number: int) -> ps.Result:
        return inside(
            ["sh", "-c", "uname -n; umask; echo $N"], hostname=f"h{number}", umask=number, env={"N": str(number)}
        )

    with ThreadPoolExecutor(64) as pool:
        results = list(pool.map(one, range(64)))
    assert [text(result).split() for result in results] == [[f"h{n}", f"{n:04o}", f"{n}"] for n in range(64)]


def test_ends_of_all_kinds_at_once(tmp_path: Path) -> None:
    commands = [
        (["true"], {}, ps.Reason.EXITED),
        (["sh", "-c", "kill -9 $$"], {}, ps.Reason.SIGNALED),
        (["sleep", "600"], {"timeout": 1}, ps.Reason.TIMEOUT),
        (python("while True: pass"), {"cpu_time_limit": 0.5}, ps.Reason.CPU_TIME),
        (["pwd"], {"working_dir": tmp_path}, ps.Reason.EXITED),
    ] * 6
    with ThreadPoolExecutor(len(commands)) as pool:
        futures = [pool.submit(inside, command, **limits) for command, limits, _ in commands]
        assert [future.result().reason for future in futures] == [reason for _, _, reason in commands]


def test_500_in_sequence_leave_nothing(tmp_path: Path) -> None:
    """Counted after 50 runs and again after 500 more.

    Sets of cgroups are kept for the next run, up to three that are emptied in turn: their number may still grow. A reaper ends
    after its run is told to have ended, for a moment; and nothing is prepared here.
    """
    code = (
        COUNTS
        + """
os.mkdir("work")
def some(n):
    for i in range(n):
        kind = i % 5
        if kind == 0:
            assert ps.run(["true"], prepared=0).ok
        elif kind == 1:
            assert ps.run(["cat"], input=b"x" * 10000, memory_limit="64M", max_processes=5, prepared=0).ok
        elif kind == 2:
            assert ps.run(["sh", "-c", "sleep 100 & exit 0"], working_dir="work", timeout=50, prepared=0).ok
        elif kind == 3:
            assert ps.run(["sh", "-c", "kill -9 $$"], cpu_limit=50, prepared=0).signal == 9
        else:
            try:
                ps.run(["no-such-command-anywhere"])
            except FileNotFoundError:
                pass
def at_rest():
    end = time.monotonic() + 30
    while (found := counts())["processes"] > 1 and time.monotonic() < end:  # who serves us is one
        pass
    return found
some(50)
before = at_rest()
some(500)
print(json.dumps([before, at_rest()]))
"""
    )
    home = tmp_path / "tmp"
    home.mkdir()
    before, after = json.loads(output_of(code, env={"TMPDIR": str(home)}, cwd=tmp_path))
    assert after["zombies"] == 0
    assert after["files"] == 0
    kept = {"cgroups", "descriptors of the launcher"}
    assert {name: after[name] for name in after.keys() - kept} == {name: before[name] for name in before.keys() - kept}
    assert after["zombies"] == 0
    assert after["cgroups"] <= 3 * 4
    assert after["descriptors of the launcher"] <= before["descriptors of the launcher"] + 2 * 20


def test_many_configs_leave_no_more_than_a_few(tmp_path: Path) -> None:
    """Views and cgroups are kept for the next run of the same plan, but not for ever."""
    code = (
        COUNTS
        + """
for i in range(200):
    os.mkdir(f"d{i}")
    assert ps.run(["true"], allowed_dirs=[f"d{i}"], memory_limit=(64 << 20) + (i << 12), max_processes=5 + i).ok
middle = counts()
for i in range(200):
    assert ps.run(["true"], allowed_dirs=[f"d{i}"], umask=i, memory_limit=(96 << 20) + (i << 12)).ok
print(json.dumps([middle, counts()]))
"""
    )
    middle, after = json.loads(output_of(code, cwd=tmp_path))
    for what in ("descriptors", "descriptors of the launcher", "processes", "mounts", "cgroups"):
        assert after[what] <= middle[what] * 1.5 + 8, (what, middle, after)
    assert after["processes"] < 150
    assert after["descriptors of the launcher"] < 1000


def test_a_caller_with_four_gigabytes_is_not_copied() -> None:
    """A fork of the caller would write-protect its pages, and it would pay a fault for each one that it touches later.

    The control is a fork; how long a run takes from a big caller is the benchmarks' affair.
    """
    code = """
import mmap, os, resource
import proc_sandbox as ps
memory = mmap.mmap(-1, 4 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.madvise(mmap.MADV_HUGEPAGE)
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for offset in range(0, len(memory), 1 << 21):
        memory[offset] = 1
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
pid = os.fork()
if not pid:
    os._exit(0)
control = faults()
os.waitpid(pid, 0)
for _ in range(5):
    assert ps.run(["true"]).ok
print(control >= 1000, faults() < 100)
"""
    assert output_of(code) == "True True\n"


def test_the_first_run_of_many_threads_starts_one_launcher() -> None:
    code = (
        COUNTS
        + """
from concurrent.futures import ThreadPoolExecutor
gate = threading.Barrier(32)
def one(n):
    gate.wait()
    return ps.run(["echo", str(n)]).stdout
with ThreadPoolExecutor(32) as pool:
    assert list(pool.map(one, range(32))) == [f"{n}\\n".encode() for n in range(32)]
print(len(children(os.getpid())))
"""
    )
    assert output_of(code) == "1\n"


def test_big_data_through_many_at_once() -> None:
    def one(number: int) -> bool:
        data = bytes([number]) * (4 * MEGABYTE)
        return inside(["cat"], input=data).stdout == data

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(one, range(16)))


def test_from_a_caller_with_many_descriptors() -> None:
    """select(2) would fail above 1023."""
    code = """
import os, resource
import proc_sandbox as ps
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
held = [os.open("/dev/null", os.O_RDONLY) for _ in range(min(hard, 4096) - 200)]
for fd in held: os.set_inheritable(fd, True)
print(ps.run(["sh", "-c", "cat; ls /proc/self/fd"], input=b"x\\n").stdout.text().split())
"""
    assert output_of(code) == "['x', '0', '1', '2', '3']\n"


BYSTANDERS = """
import collections, threading, proc_sandbox as ps
reasons = collections.Counter()
def bystander():
    for _ in range(8):
        reasons[ps.run(["sleep", "0.1"]).reason.value] += 1
def victim():
    for number in range(60):
        box = ps.Sandbox()
        runner = threading.Thread(target=lambda: box.run(["true"]))
        runner.start()
        box.cleanup()
        runner.join()
threading.excepthook = lambda arguments: reasons.update([arguments.exc_type.__name__])
threads = [threading.Thread(target=bystander) for _ in range(3)] + [threading.Thread(target=victim) for _ in range(2)]
for thread in threads: thread.start()
for thread in threads: thread.join()
reasons.pop("SandboxClosedError", None)
print(dict(reasons))
"""


def test_a_run_cancelled_at_its_very_end_harms_no_other() -> None:
    """The launcher's last word and the caller's "kill" cross: that is no sign that the launcher has died."""
    assert output_of(BYSTANDERS) == "{'exited': 24}\n"


def test_the_callers_streams_end_with_the_caller_not_with_the_launcher() -> None:
    code = "import os, sys, proc_sandbox as ps\nps.run(['true']); print('ran', flush=True); os.close(1); sys.stdin.read()\n"
    with caller(code, stdin=-1) as process:
        assert process.stdout is not None
        assert process.stdout.read() == b"ran\n"  # to the end, while it still lives
        assert process.poll() is None


def test_what_a_signals_exception_interrupts_is_closed_once(tmp_path: Path) -> None:
    """Hundreds of runs interrupted at any moment: no descriptor is left, and none is closed a second time."""
    del tmp_path
    code = (
        "import os, random, signal, sys, proc_sandbox as ps\n"
        "class Stop(Exception): pass\n"
        "def handler(*_): raise Stop\n"
        "signal.signal(signal.SIGALRM, handler); random.seed(1)\n"
        "for _ in range(5): ps.run(['true'])\n"
        "before, odd = len(os.listdir('/proc/self/fd')), []\n"
        "for number in range(300):\n"
        "    try:\n"
        "        signal.setitimer(signal.ITIMER_REAL, 1e-6 + random.random() * 0.003)\n"
        "        ps.run(['true'], input=b'x')\n"
        "        signal.setitimer(signal.ITIMER_REAL, 0)\n"
        "    except Stop: pass\n"
        "    except Exception as error: odd.append(repr(error))\n"
        "signal.setitimer(signal.ITIMER_REAL, 0)\n"
        "ps.run(['true'])\n"
        "print(len(os.listdir('/proc/self/fd')) - before <= 20, odd)\n"
    )
    assert output_of(code) == "True []\n"
