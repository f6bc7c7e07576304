"""Limits against a command that knows how they are measured: what nobody maps, nobody waits for, or continues itself."""

from __future__ import annotations

import errno
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.fixtures import Programs
from support.programs import assert_escapes, by_cgroup, inside, python, refusal, text

import proc_sandbox as ps


@pytest.mark.parametrize(("way", "amount"), [("shared", "200"), ("tables", "200"), ("leader", "200")])
def test_memory_that_no_page_table_shows(programs: Programs, way: str, amount: str) -> None:
    """Hundreds of megabytes by each way; the resident sizes say a few."""
    assert_escapes([programs("evade"), way, amount])
    command = [programs("evade"), way, amount]
    limits = {"memory_limit": "64M", "allowed_dirs": [programs.directory]}
    if way == "shared" and not by_cgroup(inside(["true"], **limits), "memory_limit"):
        assert refusal(text(inside(command, **limits))) == errno.EPERM, "what sampling could not see is not to be had"
        return
    result = inside([*command, "hold"], **limits)
    assert result.memory_exceeded, result
    assert result.reason is ps.Reason.MEMORY


def test_huge_pages_kept_by_a_small_part_of_each(programs: Programs) -> None:
    """A cgroup charges them whole, and then there are only small ones; a sampler does not see them, so they are not to be had."""
    assert_escapes([programs("evade"), "pages", "20"])
    result = inside([programs("evade"), "pages", "20"], memory_limit="64M", allowed_dirs=[programs.directory])
    if by_cgroup(result, "memory_limit"):
        assert result.peak_memory is not None
        assert result.peak_memory <= 64 << 20, result
    else:
        assert refusal(text(result)) is not None, result


def test_memory_is_not_passed_on_from_process_to_process(programs: Programs) -> None:
    """A child in its parent's memory that outlives it, and so on: faster than anybody looks. Only sampling minds."""
    assert_escapes([programs("evade"), "space", "0"])
    result = inside([programs("evade"), "space", "0"], memory_limit="64M", allowed_dirs=[programs.directory])
    if by_cgroup(result, "memory_limit"):
        assert "ESCAPED" in text(result)
    else:
        assert refusal(text(result)) == errno.EPERM, result


def hold_until_killed(programs: Programs, way: str, **limits: object) -> ps.Result:
    return inside([programs("evade"), way, "20"], allowed_dirs=[programs.directory], **limits)


def test_cpu_time_of_children_that_nobody_waits_for(programs: Programs) -> None:
    result = hold_until_killed(programs, "reap", cpu_time_limit=1)
    assert result.cpu_time_exceeded, result
    assert result.reason is ps.Reason.CPU_TIME
    assert 0.8 <= result.cpu_time.total <= 3, result


@pytest.mark.parametrize("way", ["reap", "continue"])
def test_the_rate_of_what_dies_or_continues_itself(programs: Programs, way: str) -> None:
    result = inside([programs("evade"), way, "3"], cpu_limit=30, timeout=5, allowed_dirs=[programs.directory])
    assert result.cpu_time.total / result.execution_time <= 0.45, result


def test_a_large_process_that_starts_many_small_ones(programs: Programs) -> None:
    """A child of vfork(2) runs for a moment in its parent's memory, which is not there twice."""
    del programs
    code = (
        "import subprocess\n"
        "x = bytearray(80 << 20)\n"
        "for i in range(0, len(x), 4096): x[i] = 1\n"
        "for _ in range(150): subprocess.run(['/bin/true'], check=True)\n"
    )
    result = inside(python(code), memory_limit="128M")
    assert result.ok, result
    assert not result.memory_exceeded


def test_a_forged_order_stops_nothing(programs: Programs) -> None:
    """Where no more signals can be queued the kernel drops who sent one: it looks as if it came from outside."""
    result = inside([programs("evade"), "orders", "0"], timeout=20, allowed_dirs=[programs.directory])
    assert result.ok, result
    assert "ESCAPED" in text(result)


def test_the_same_limit_fourteen_times(programs: Programs) -> None:
    """Cgroups are used again: what one run used must not shift the next one's limit."""
    command = [programs("busy"), "side", "1", "600"]
    for _ in range(14):
        result = inside(command, cpu_time_limit="200ms", allowed_dirs=[programs.directory])
        assert result.reason is ps.Reason.CPU_TIME, result
        assert 0.15 <= result.cpu_time.total <= 1.5, result


def test_one_slow_tree_does_not_delay_another_runs_deadline() -> None:
    """A tree of many tasks takes long to look at; the deadlines of others are not kept waiting for it."""
    with ThreadPoolExecutor(1) as pool:
        command = ["sh", "-c", "i=0; while [ $i -lt 300 ]; do sleep 60 & i=$((i+1)); done; wait"]
        crowd = pool.submit(inside, command, timeout=5.0, cpu_time_limit=100, memory_limit="2G")
        results = [inside(["sleep", "60"], timeout=0.3) for _ in range(5)]
        assert all(result.timed_out for result in results)
        assert crowd.result().timed_out


@pytest.mark.parametrize("call", ["aio", "lease"])
def test_what_belongs_to_the_whole_host_is_not_to_be_had(call: str) -> None:
    """One number for all users (fs.aio-nr); a lease that holds up whoever opens the file to write."""
    code = {
        "aio": "import ctypes; c = ctypes.c_ulong(0); r = libc.syscall(206 if x86 else 0, 64, ctypes.byref(c))",
        "lease": "fd, name = tempfile.mkstemp(); os.close(fd); r = libc.fcntl(os.open(name, os.O_RDONLY), 1024, 0); os.unlink(name)",
    }[call]
    script = (
        "import ctypes, os, tempfile\nlibc = ctypes.CDLL(None, use_errno=True); x86 = os.uname().machine == 'x86_64'\n"
        f"print('TRIED', flush=True)\n{code}\nprint('ESCAPED' if r >= 0 else f'REFUSED {{ctypes.get_errno()}}')"
    )
    assert_escapes([sys.executable, "-c", script])
    result = inside(python(script))
    assert "ESCAPED" not in text(result), result
    assert refusal(text(result)) is not None, result


def test_signals_in_the_queue_are_few(programs: Programs) -> None:
    """The kernel counts them for the user on the host as well: all of them taken, no timer could be made there."""
    code = (
        "import ctypes, os, signal\n"
        "libc = ctypes.CDLL(None); signal.pthread_sigmask(signal.SIG_BLOCK, {40}); n = 0\n"
        "while n < 5000 and libc.sigqueue(os.getpid(), 40, None) == 0: n += 1\n"
        "print(n)\n"
    )
    del programs
    assert int(text(inside(python(code)))) <= 1024


def test_watches_are_few() -> None:
    code = (
        "import ctypes, os\n"
        "libc = ctypes.CDLL(None); fd = libc.inotify_init1(0); n = 0; os.mkdir('/tmp/w')\n"
        "while n < 9000:\n"
        "    path = f'/tmp/w/{n}'; open(path, 'w').close()\n"
        "    if libc.inotify_add_watch(fd, path.encode(), 32) < 0: break\n"
        "    n += 1\n"
        "print(n)\n"
    )
    assert int(text(inside(python(code), tmp_size="64M"))) <= 8192


def test_descriptors_in_flight_do_not_lame_the_caller() -> None:
    """A user may have as many on the way as one process may have open, and without root the command is that user."""
    code = """
import array, os, socket, sys
fd, pairs, count = os.open("/dev/null", os.O_RDONLY), [], 0
for _ in range(12):
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET); pairs.append(pair); pair[0].setblocking(False)
    try:
        while True:
            pair[0].sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd] * 200))]); count += 200
    except OSError:
        pass
print(count, flush=True)
sys.stdin.read()
"""
    caller = (
        "import proc_sandbox as ps, os, sys, threading, resource\n"
        "soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, hard), hard))\n"
        "r, w = os.pipe(); out, inp = os.pipe()\n"
        f"hostile = threading.Thread(target=ps.run, args=([sys.executable, '-I', '-S', '-c', {code!r}],),\n"
        "    kwargs={'stdin': r, 'stdout': inp, 'max_open_files': 2048})\n"
        "hostile.start(); os.read(out, 100)\n"
        "print(ps.run(['echo', 'still here']).stdout.text(), end='', flush=True)\n"
        "os.close(w); hostile.join()\n"
    )
    done = subprocess.run([sys.executable, "-c", caller], capture_output=True, timeout=120, check=False)
    assert done.stdout == b"still here\n", done
