"""The kernel's doors: a table of calls that no command needs, new namespaces, and the entries of other machines."""

from __future__ import annotations

import errno
import platform
import re
import signal

import pytest
from support.fixtures import Programs
from support.programs import ATTACKS, FORBIDDEN, ROOT, assert_refused, inside, outside, refusal, text

import proc_sandbox as ps

X86 = platform.machine() == "x86_64"
ONLY_X86 = {"_sysctl", "create_module", "ioperm", "iopl", "kexec_file_load", "modify_ldt", "uselib", "ustat"}
TABLE = [
    name
    for name in re.findall(r'^\t\{"(\w+)", SYS_', (ATTACKS / "kernel.c").read_text(encoding="utf-8"), re.MULTILINE)
    if X86 or name not in ONLY_X86
]
NAMESPACES = ["NEWNS", "NEWCGROUP", "NEWUTS", "NEWIPC", "NEWUSER", "NEWPID", "NEWNET", "NEWTIME"]


def test_the_table_is_the_programs() -> None:
    assert len(TABLE) > 45


@pytest.mark.parametrize("name", TABLE)
def test_a_call_that_no_command_needs(programs: Programs, name: str) -> None:
    """Outside it reaches the kernel's own code, which finds fault with the arguments; inside the filter is before it."""
    control = text(outside([programs("kernel"), "call", name]))
    assert "TRIED" in control
    if ROOT:
        assert refusal(control) != errno.EPERM, f"the control did not work: {control}"
    result = inside([programs("kernel"), "call", name], allowed_dirs=[programs.directory])
    assert_refused(result, FORBIDDEN)


@pytest.mark.parametrize("number", [500, 600, 1000, 9999, 0x3FFFFFFF])
def test_what_is_newer_than_the_list_is_unknown(programs: Programs, number: int) -> None:
    result = inside([programs("kernel"), "number", str(number)], allowed_dirs=[programs.directory])
    assert_refused(result, {errno.ENOSYS})


@pytest.mark.parametrize("number", range(463, 470))  # setxattrat to file_setattr, Linux 6.13 to 6.17
def test_what_this_kernel_has_and_the_list_has_not(programs: Programs, number: int) -> None:
    """Numbers from 424 on are the same on every machine."""
    control = refusal(text(outside([programs("kernel"), "number", str(number)])))
    if control == errno.ENOSYS:
        pytest.skip("this kernel does not have it either")
    result = inside([programs("kernel"), "number", str(number)], allowed_dirs=[programs.directory])
    assert_refused(result, {errno.ENOSYS})


@pytest.mark.parametrize("name", ["io_uring_setup", "io_uring_enter", "io_uring_register"])
def test_io_uring_is_missing(programs: Programs, name: str) -> None:
    """ENOSYS rather than EPERM, so that programs fall back to what is filtered."""
    result = inside([programs("kernel"), "call", name], allowed_dirs=[programs.directory])
    assert_refused(result, {errno.ENOSYS, errno.EPERM})


@pytest.mark.parametrize("flag", NAMESPACES)
@pytest.mark.parametrize("way", ["unshare", "clone", "clone3"])
def test_no_namespace_is_made(programs: Programs, way: str, flag: str) -> None:
    if way == "clone" and flag == "NEWTIME":
        pytest.skip("clone(2) has no room for this flag")
    if ROOT or flag == "NEWUSER":
        control = text(outside([programs("kernel"), way, flag]))
        if ROOT:
            assert "ESCAPED" in control, f"the control did not work: {control}"
    result = inside([programs("kernel"), way, flag], allowed_dirs=[programs.directory])
    assert_refused(result, {errno.ENOSYS} if way == "clone3" else FORBIDDEN)


def test_threads_and_children_are_made(programs: Programs) -> None:
    """The control of the test above, inside."""
    for arguments in (["thread"], ["clone", "NONE"], ["unshare", "NONE"]):
        outcome = text(inside([programs("kernel"), *arguments], allowed_dirs=[programs.directory]))
        assert "ESCAPED" in outcome or (arguments[0] == "unshare" and "REFUSED" in outcome), arguments
    assert_refused(inside([programs("kernel"), "clone3", "NONE"], allowed_dirs=[programs.directory]), {errno.ENOSYS})


@pytest.mark.skipif(not X86, reason="entries of x86 machines")
@pytest.mark.parametrize("entry", ["int80", "x32"])
def test_another_entry_is_death(programs: Programs, entry: str) -> None:
    """The same calls have other numbers there, so a list of numbers would be no list at all."""
    control = outside([programs("entry"), entry])
    assert "TRIED" in text(control)
    if control.returncode == -signal.SIGSEGV:
        pytest.skip("this kernel has no such entry")
    assert "ESCAPED" in text(control), control
    result = inside([programs("entry"), entry], allowed_dirs=[programs.directory])
    assert "TRIED" in text(result)
    assert "ESCAPED" not in text(result)
    assert result.signal == signal.SIGSYS, result
    assert result.reason is ps.Reason.SIGNALED


def test_the_filter_is_in_force_for_children_too(programs: Programs) -> None:
    script = "grep Seccomp: /proc/self/status; sh -c 'grep Seccomp: /proc/self/status'"
    assert text(inside(["sh", "-c", script])) == "Seccomp:\t2\n" * 2
    nested = ["sh", "-c", f"sh -c '{programs('kernel')} unshare NEWUSER'"]
    assert_refused(inside(nested, allowed_dirs=[programs.directory]), FORBIDDEN)


def test_the_filter_is_in_force_for_every_grant(programs: Programs, tmp_path: object) -> None:
    """No grant opens more than what it says."""
    grants: list[dict[str, object]] = [
        {"network_access": True},
        {"network_access": "loopback"},
        {"working_dir": tmp_path},
        {"memory_limit": "256M", "max_processes": 20},
        {"core_dumps": True},
    ]
    for grant in grants:
        for name in ("bpf", "mount", "ptrace", "keyctl", "io_uring_setup", "userfaultfd", "perf_event_open"):
            result = inside([programs("kernel"), "call", name], **{"allowed_dirs": [programs.directory], **grant})
            assert_refused(result, FORBIDDEN)


def test_a_command_may_confine_itself_further() -> None:
    """seccomp(2) and landlock(7) stay usable: a browser or a test runner that sandboxes itself still can."""
    code = "import ctypes; print(ctypes.CDLL(None, use_errno=True).prctl(38, 1, 0, 0, 0))"
    assert text(inside(["python3", "-c", code])) == "0\n"


def test_the_calls_that_ordinary_programs_need_are_there() -> None:
    code = """
import os, select, signal, socket, tempfile, threading, time, mmap, fcntl, resource, subprocess
os.getrandom(1); os.sched_getaffinity(0); os.getpriority(0, 0); time.clock_getres(time.CLOCK_MONOTONIC)
select.epoll().close(); r, w = os.pipe(); select.select([r], [w], [], 0); os.set_blocking(r, False)
with tempfile.TemporaryFile() as f:
    f.write(b'x' * 4096); f.flush(); fcntl.flock(f, fcntl.LOCK_EX); mmap.mmap(f.fileno(), 4096).close()
    os.posix_fallocate(f.fileno(), 0, 8192); os.fsync(f.fileno())
os.symlink('a', '/tmp/l'); os.readlink('/tmp/l'); os.mkfifo('/tmp/f'); os.rename('/tmp/f', '/tmp/g'); os.statvfs('/')
signal.setitimer(signal.ITIMER_REAL, 100); signal.sigtimedwait([signal.SIGUSR1], 0)
t = threading.Thread(target=time.sleep, args=(0.01,)); t.start(); t.join()
assert subprocess.run(['true']).returncode == 0
pid = os.posix_spawn('/bin/true', ['true'], {}); assert os.waitpid(pid, 0)[1] == 0
os.pidfd_open(os.getpid()); os.times(); resource.getrusage(resource.RUSAGE_SELF); os.uname(); os.sysconf('SC_NPROCESSORS_ONLN')
print('all')
"""
    result = inside(["python3", "-c", code])
    assert text(result) == "all\n", result
