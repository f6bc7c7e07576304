"""Other processes: not seen, not signalled, not traced; and the run's own machinery is out of reach too."""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.fixtures import Programs
from support.processes import caller, carriers, children, new_mark, victim, witness
from support.programs import (
    FORBIDDEN,
    INVISIBLE,
    ROOT,
    act,
    assert_escapes,
    assert_refused,
    inside,
    outside,
    python,
    refusal,
    text,
)

import proc_sandbox as ps

NOBODY_THERE = FORBIDDEN | INVISIBLE | {errno.ESRCH}
OF_A_PROCESS = ["environ", "mem", "root", "cwd", "exe", "fd", "maps", "map_files", "auxv"]


@pytest.fixture
def target() -> Iterator[int]:
    """A process of the caller's, outside."""
    with victim() as process:
        yield process.pid
        assert process.poll() is None, "the attack reached it"


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("signal_process", (0,)),
        ("signal_process", (int(signal.SIGCONT),)),
        ("pidfd", ()),
        ("ptrace", ()),
        ("peek", ()),
        ("priority", ()),
        ("affinity", ()),
        ("limit", ()),
        *(("proc_read", (name,)) for name in OF_A_PROCESS),
    ],
)
def test_a_process_outside_is_out_of_reach(target: int, name: str, arguments: tuple[object, ...]) -> None:
    assert_escapes(act(name, target, *arguments))
    assert_refused(inside(act(name, target, *arguments)), NOBODY_THERE)


def test_a_kill_by_number_hits_nobody(target: int) -> None:
    code = "import os, sys\nfor s in (9, 15, 19):\n  try: os.kill(int(sys.argv[1]), s)\n  except OSError as e: print('REFUSED', e.errno)"
    assert refusal(text(inside(python(code, str(target))))) == errno.ESRCH


def test_only_its_own_processes_are_seen(target: int) -> None:
    code = "import os; print(*sorted(int(n) for n in os.listdir('/proc') if n.isdigit()))"
    assert str(target) in text(outside(python(code))).split()
    seen = [int(pid) for pid in text(inside(python(code))).split()]
    assert len(seen) <= 2
    assert all(pid < 10 for pid in seen)


def test_kill_everybody(programs: Programs, target: int) -> None:
    """kill(-1) and kill(0), again and again: the caller, another run and the reaper live on, and the verdict is true."""
    results: list[ps.Result] = []
    mark = new_mark()
    gate_read, gate_write = os.pipe()
    with witness() as pipe:
        command = ["bash", "-c", f"echo ready >&{pipe.write_end}; cat; exit 3", mark]
        other = threading.Thread(
            target=lambda: results.append(inside(command, stdin=gate_read, pass_fds=[pipe.write_end]))
        )
        other.start()
        pipe.hear(b"ready")
        assert_survived = inside(act("kill_all", 200))
        assert "ESCAPED" in text(assert_survived), assert_survived
        assert assert_survived.ok
        blunt = inside(["sh", "-c", "kill -KILL -1; kill -STOP 1; kill -KILL 1; kill -KILL 0; echo alive"])
        assert blunt.reason is ps.Reason.SIGNALED or text(blunt) == "alive\n"
        assert not (blunt.timed_out or blunt.memory_exceeded)
        os.close(gate_write)
        other.join()
    os.close(gate_read)
    assert results[0].exit_code == 3
    os.kill(target, 0)


def test_the_groups_own_control() -> None:
    """kill(0) does reach what it may: the same act without the ignoring ends its own group, outside as inside."""
    code = "import os; os.kill(0, 15)"
    assert outside(python(code), start_new_session=True).returncode == -15
    result = inside(python("import os; os.kill(0, 15)"))
    assert result.signal == 15


@pytest.mark.parametrize("number", [1, 2, 3, 9, 15, 17, 18, 19, 20, 34, 64])
def test_pid_1_takes_no_signal_from_inside(number: int) -> None:
    code = f"import os\ntry: os.kill(1, {number})\nexcept OSError as e: print('refused', e.errno)\nprint('alive')"
    result = inside(python(code))
    assert result.ok, result
    assert "alive" in text(result)


@pytest.mark.parametrize("name", OF_A_PROCESS)
def test_the_reaper_is_closed(name: str) -> None:
    """It has seen the host: its root, its memory and its descriptors are none of the command's business."""
    assert "ESCAPED" in text(inside(act("proc_read", "self", name))) or name == "mem", "the control: its own process it may read"
    assert_refused(inside(act("proc_read", 1, name)), INVISIBLE | FORBIDDEN)


@pytest.mark.parametrize("name", ["ptrace", "peek", "limit", "affinity", "priority"])
def test_the_reaper_is_not_to_be_steered(name: str) -> None:
    assert_refused(inside(act(name, 1)), NOBODY_THERE)


@pytest.mark.parametrize("name", ["ptrace", "peek"])
def test_not_even_a_child_is_traced(programs: Programs, name: str) -> None:
    """Tracing one's own child is harmless in itself, but the calls have a long history."""
    script = 'sleep 1000 >/dev/null 2>&1 & "$@" $!; kill -9 $!'
    command = ["sh", "-c", script, "sh", *act(name)]
    assert_escapes(command)
    assert_refused(inside(command), FORBIDDEN)


def test_two_runs_do_not_see_one_another() -> None:
    mark = new_mark()
    code = """
import os, sys
def words(number):
    try:
        return open(f"/proc/{number}/cmdline", "rb").read()
    except OSError:  # it has ended meanwhile
        return b""
print(any(sys.argv[1].encode() in words(n) for n in os.listdir("/proc") if n.isdigit() and int(n) != os.getpid()))
"""
    with witness() as pipe, ThreadPoolExecutor(1) as pool:
        gate_read, gate_write = os.pipe()
        first = pool.submit(
            inside, ["bash", "-c", f"echo r >&{pipe.write_end}; cat; exit 0", mark], stdin=gate_read, pass_fds=[pipe.write_end]
        )
        pipe.hear(b"r")
        (pid, *_) = carriers(mark)
        if ROOT:
            assert text(outside(python(code, mark))) == "True\n"
        assert text(inside(python(code, mark))) == "False\n"
        assert_refused(inside(act("signal_process", pid, 0)), {errno.ESRCH})
        os.close(gate_write)
        assert first.result().ok
        os.close(gate_read)


@pytest.mark.skipif(not ROOT, reason="an unprivileged caller has one uid to give")
def test_a_root_callers_command_is_nobody_on_the_host() -> None:
    """Neither uid 0 nor the same uid as the run beside it."""
    mark = new_mark()
    with witness() as pipe, ThreadPoolExecutor(2) as pool:
        gate_read, gate_write = os.pipe()
        command = ["bash", "-c", f"echo r >&{pipe.write_end}; read line; exit 0", mark]
        runs = [pool.submit(inside, command, stdin=gate_read, pass_fds=[pipe.write_end]) for _ in range(2)]
        while pipe.heard.count(b"r") < 2:
            pipe.hear(b"r" * 1 if pipe.heard.count(b"r") == 0 else b"r\nr")
        uids = [os.stat(f"/proc/{pid}").st_uid for pid in carriers(mark)]
        groups = [
            Path(f"/proc/{pid}/status").read_text().split("Groups:")[1].split("\n")[0].split() for pid in carriers(mark)
        ]
        os.close(gate_write)
        assert all(run.result().reason is ps.Reason.EXITED for run in runs)
        os.close(gate_read)
    assert len(set(uids)) == 2
    assert all(uid >= 1000 for uid in uids)
    assert all("0" not in group for group in groups)


@pytest.mark.skipif(ROOT, reason="root may trace everything")
def test_the_launcher_is_closed_to_its_own_user() -> None:
    """It is not dumpable: another process of the same user cannot read the memory it sets runs up with."""
    code = "import proc_sandbox as ps, sys; print(ps.run(['true']).ok, flush=True); sys.stdin.read()"
    with victim() as control:
        assert_escapes(act("proc_read", control.pid, "mem"))
    with caller(code, stdin=-1) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"True\n"
        for pid in children(process.pid):
            for command in (act("ptrace", pid), act("proc_read", pid, "mem"), act("proc_read", pid, "environ")):
                assert refusal(text(outside(command))) in {errno.EACCES, errno.EPERM}


CAP_SYS_NICE, CAP_SYS_RESOURCE = 23, 24


def has_capability(number: int) -> bool:
    """Whether this process has it: a virtual machine's or a container's root may not."""
    line = Path("/proc/self/status").read_text().split("CapEff:")[1].split("\n")[0]
    return bool(int(line, 16) >> number & 1)


@pytest.mark.parametrize("name", ["real_time", "nicer", "raise_limit", "shun_oom"])
def test_no_limit_is_lifted(name: str) -> None:
    if has_capability(CAP_SYS_NICE) and has_capability(CAP_SYS_RESOURCE):
        assert_escapes(act(name))
    assert_refused(inside(act(name)), {errno.EPERM, errno.EACCES, errno.EROFS})


@pytest.mark.parametrize("uid", [0, 1, 65534])
def test_no_other_identity_is_taken(uid: int) -> None:
    if ROOT:
        assert_escapes(act("become", uid))
    assert_refused(inside(act("become", uid)), {errno.EPERM, errno.EINVAL})


def test_no_privilege_is_left(programs: Programs) -> None:
    result = inside([programs("identity")], allowed_dirs=[programs.directory])
    lines = dict(line.split(":\t") for line in text(result).splitlines() if ":\t" in line)
    assert {name: int(value, 16) for name, value in lines.items() if name.startswith("Cap")} == {
        f"Cap{kind}": 0 for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")
    }
    assert lines["NoNewPrivs"] == "1"
    if ROOT:
        assert "CapEff:\t0000000000000000" not in text(outside([programs("identity")]))


def test_groups_of_the_caller_are_dropped() -> None:
    assert text(inside(["id", "-G"])) == "1000\n"


def test_the_cgroups_are_not_in_sight() -> None:
    """Else a command could leave its own, or lift its limits."""
    script = "cat /proc/self/cgroup | sed 's/.*://' | sort -u; ls /sys/fs/cgroup; grep cgroup /proc/self/mounts; true"
    assert set(text(inside(["sh", "-c", script], memory_limit="256M", max_processes=20)).split()) <= {"/"}


def test_signals_in_the_launchers_name_do_nothing() -> None:
    """A command can write any sender into a siginfo of its own; pid 1 stops the tree only when the launcher asks."""
    code = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
number = 129 if os.uname().machine == "x86_64" else 138  # rt_sigqueueinfo
sent = 0
for code in (-1, -3, 0):
    for signal in (10, 12):
        info = (ctypes.c_int * 32)(signal, 0, code, 0, 0)
        sent += libc.syscall(number, 1, signal, info) == 0
print("sent", sent)
"""
    result = inside(python(code))
    assert result.ok, result
    assert text(result) in {"sent 2\n", "sent 4\n"}, "the kernel keeps si_code 0 for itself"


def test_the_reapers_limits_are_not_the_commands() -> None:
    """20,000 orphans cost pid 1 more CPU time than the command may use: the limit names itself, not the host."""
    code = (
        "import os\n"
        "for _ in range(20000):\n"
        "  if not os.fork():\n"
        "    if not os.fork(): os._exit(0)\n"
        "    os._exit(0)\n"
        "  os.wait()\n"
    )
    assert inside(python(code), cpu_time_limit=1, max_processes=100).reason is ps.Reason.CPU_TIME
