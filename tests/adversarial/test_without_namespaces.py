"""Attacks where no namespaces can be had: in a container as its engine makes it, or where they are switched off.

On a host that has them the same plans are made by not telling the planner of them; in a container they are all there is.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.fixtures import CompiledPrograms, Programs
from support.processes import carriers, children, library_path, new_mark, status_of, victim, wait_dead, watched, witness
from support.programs import (
    FORBIDDEN,
    HANG,
    INVISIBLE,
    ROOT,
    act,
    assert_escapes,
    assert_refused,
    carry_out,
    inside,
    python,
    text,
)

import proc_sandbox as ps
from proc_sandbox.backends import current, made, make
from proc_sandbox.backends.linux import backend
from proc_sandbox.backends.unix.streams import open_pipe
from proc_sandbox.host import Feature, Host
from proc_sandbox.launcher.process import launcher, shutdown
from proc_sandbox.planner.linux.mechanisms import SCOPES
from proc_sandbox.streams import PipeEnd

REFUSED = Feature(False, "not told of", "")
TAKEN = ("userns", "mountns", "pidns", "ipcns", "utsns", "netns", "cgroupns", "idmap", "root")


def bare_host(greeting: dict[str, str], real: Any = backend.host_from_greeting) -> Host:
    found: Host = real(greeting)
    return replace(found, root=False, features={**found.features, **dict.fromkeys(TAKEN, REFUSED)})


@pytest.fixture(autouse=True)
def no_namespaces(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No namespaces, and no cgroups either."""
    monkeypatch.setattr(backend, "host_from_greeting", bare_host)
    monkeypatch.setattr(backend, "with_cgroups", lambda host, _: host)
    made.pop("linux", None)
    if current().probe().landlock_abi < SCOPES:
        pytest.skip(f"Landlock ABI {SCOPES} is needed")
    yield
    made["linux"] = make("linux")  # a new one, which knows how to end the launcher, and has not looked at anything yet


@pytest.fixture(autouse=True)
def reachable_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """As root the command has a user of its own, to whom root's own installations are closed."""
    if ROOT:
        monkeypatch.setattr(sys, "executable", "/usr/bin/python3")


@pytest.fixture
def directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """One that everybody can reach, and in it the directories of Sandboxes; pytest's own are closed."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        os.chmod(name, 0o755)
        monkeypatch.setattr(tempfile, "tempdir", name)
        yield Path(name)


@pytest.fixture
def programs(directory: Path) -> Programs:
    """The compiled programs, where everybody can reach them."""
    return CompiledPrograms(directory)


@pytest.fixture
def secret(directory: Path) -> Path:
    """A file that anybody may read and write, where nothing but Landlock keeps a command from it."""
    directory.chmod(0o777)
    path = directory / "secret"
    path.write_text("secret")
    path.chmod(0o666)
    return path


def unwalled(args: list[str], **config: Any) -> str:
    """The control: what the command prints when Landlock and the filter are taken from the plan."""
    return text(carry_out(ps.plan(args, **config), landlock=None, seccomp=None, reach="children"))


def test_it_is_such_a_plan() -> None:
    plan = ps.plan(["true"])
    assert (plan.namespaces, plan.mounts) == ((), ())
    assert all(isinstance(how, ps.Enforced) for how in plan.enforcement.values())


def test_ordinary_programs_work() -> None:
    code = "import subprocess, threading, os\nthreading.Thread(target=print, args=('thread',)).start()\nprint(subprocess.run(['echo', 'child'], stdout=1, check=True).returncode, len(os.urandom(9)), open('/proc/self/maps').read(1) != '')"
    assert sorted(text(inside(python(code))).split("\n")) == sorted(["thread", "child", "0 9 True", ""])


@pytest.mark.usefixtures("directory")
def test_a_sandbox_keeps_its_directory() -> None:
    with ps.Sandbox() as sandbox:
        own = Path(sandbox.directory or "")
        assert (
            sandbox.run(["sh", "-c", "pwd; echo $HOME $TMPDIR; echo kept > file"]).stdout.decode().split()
            == [str(own)] * 3
        )
        assert sandbox.run(["cat", "file"]).stdout == b"kept\n"
        assert sandbox.run(["sh", "-c", "mkdir deep; rm file; ls"]).stdout == b"deep\n"
    assert not own.exists()


@pytest.mark.parametrize("name", ["read", "write", "append", "truncate", "unlink", "write_mapped"])
def test_files_that_nobody_named(secret: Path, name: str) -> None:
    assert "ESCAPED" in unwalled(act(name, secret)), "the control"
    secret.write_text("secret")
    secret.chmod(0o666)
    assert_refused(inside(act(name, secret)), INVISIBLE)
    assert secret.read_text() == "secret"


def test_what_is_hidden_in_a_granted_directory_is_refused_or_told(secret: Path) -> None:
    with pytest.raises(ps.UnsupportedError) as caught:
        inside(["cat", secret], allowed_dirs=[secret.parent], hidden_paths=[secret])
    assert caught.value.field == "hidden_paths"
    with pytest.warns(match="hidden_paths"):
        result = inside(["cat", secret], allowed_dirs=[secret.parent], hidden_paths=[secret], enforcement=ps.best_effort("hidden_paths"))
    assert isinstance(result.enforcement["hidden_paths"], ps.Unenforced)
    assert text(result) == "secret", "it was told that it would be seen"
    assert inside(["true"], hidden_paths=[secret]).ok, "where it is not granted it is not seen"


@pytest.mark.parametrize("name", ["write", "append", "truncate", "unlink", "write_mapped"])
def test_what_is_to_be_read_is_not_written(secret: Path, name: str) -> None:
    assert "ESCAPED" in unwalled(act(name, secret), allowed_dirs=[secret.parent]), "the control"
    secret.write_text("secret")
    secret.chmod(0o666)
    assert_refused(inside(act(name, secret), allowed_dirs=[secret.parent]), {errno.EACCES, errno.EROFS, errno.EPERM})
    assert inside(["cat", secret], allowed_dirs=[secret.parent]).stdout == b"secret"


def test_what_is_to_be_read_in_what_can_be_written_is_refused(directory: Path) -> None:
    """Landlock's rules add up: it could not be kept from being written."""
    (directory / "kept").mkdir()
    with pytest.raises(ps.UnsupportedError, match="Landlock knows no exceptions"):
        ps.plan(
            ["true"],
            writable_dirs=[directory],
            read_only_dirs=[directory / "kept"],
            enforcement=ps.best_effort("tmp_size"),
        )


def test_nor_by_another_name_that_a_mount_gives_it(directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = tmp_path / "kept"
    kept.mkdir()
    monkeypatch.setattr("proc_sandbox.backends.linux.survey.names_by_mounts", lambda path, mounts: [f"{directory}/kept"])
    (directory / "kept").mkdir()
    with pytest.raises(ps.UnsupportedError, match="Landlock knows no exceptions"):
        ps.plan(["true"], writable_dirs=[directory], read_only_dirs=[kept], enforcement=ps.best_effort("tmp_size"))


@pytest.mark.usefixtures("directory")
def test_files_are_moved_between_directories_of_ones_own() -> None:
    with ps.Sandbox() as sandbox:
        assert (
            sandbox.run(
                ["sh", "-c", "mkdir a b && echo x > a/f && mv a/f b/f && ln b/f a/g && touch c && cat a/g"]
            ).stdout
            == b"x\n"
        )


def test_read_only_and_truncate_at_once(secret: Path) -> None:
    """O_RDONLY | O_TRUNC empties a file whose reading alone was asked for."""
    code = "import os\nprint('TRIED')\ntry: os.open({!r}, os.O_RDONLY | os.O_TRUNC); print('ESCAPED')\nexcept OSError as e: print('REFUSED', e.errno)"
    assert "ESCAPED" in unwalled(python(code.format(str(secret))), allowed_dirs=[secret.parent])
    secret.write_text("secret")
    assert_refused(inside(python(code.format(str(secret))), allowed_dirs=[secret.parent]), {errno.EACCES, errno.EPERM})


@pytest.mark.parametrize("name", ["chmod", "chown", "utime", "setxattr"])
@pytest.mark.skipif(ROOT, reason="as root the command has a user of its own, who owns nothing")
def test_what_landlock_does_not_know_of(secret: Path, name: str) -> None:
    assert "ESCAPED" in unwalled(act(name, secret)) or name in {"setxattr", "chown"}, "the control"
    assert_refused(inside(act(name, secret)), FORBIDDEN)
    assert_refused(inside(act(name, secret), allowed_dirs=[secret.parent]), FORBIDDEN)


def test_nobody_is_watched(secret: Path) -> None:
    code = (
        "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\nfd = libc.inotify_init1(0)\nprint('TRIED')\n"
        f"r = libc.inotify_add_watch(fd, {str(secret.parent).encode()!r}, 0xfff)\n"
        "print('ESCAPED' if r >= 0 else f'REFUSED {ctypes.get_errno()}')"
    )
    assert "ESCAPED" in unwalled(python(code)), "the control"
    assert_refused(inside(python(code)), FORBIDDEN)


@pytest.mark.parametrize("number", [0, signal.SIGTERM, signal.SIGKILL, signal.SIGCONT])
def test_signals_stay_inside(number: int) -> None:
    with victim() as process:
        if not ROOT:
            assert_escapes(act("signal_process", process.pid, 0))
            assert "ESCAPED" in unwalled(act("signal_process", process.pid, 0)), "the control"
        assert_refused(inside(act("signal_process", process.pid, number)), {errno.EPERM})
        assert process.poll() is None
        reaper = python(
            f"import os\nprint('TRIED')\ntry: os.kill(os.getppid(), {number}); print('ESCAPED')\nexcept OSError as e: print('REFUSED', e.errno)"
        )
        assert "ESCAPED" in unwalled(python("import os\nos.kill(os.getppid(), 0); print('ESCAPED')")), "the control"
        assert_refused(inside(reaper), {errno.EPERM})


@pytest.mark.usefixtures("directory")
def test_kill_everybody_reaches_nobody_else() -> None:
    with victim() as process, ps.Sandbox() as sandbox, witness() as pipe:
        other = threading.Thread(
            target=lambda: sandbox.run(
                ["bash", "-c", f"echo up >&{pipe.write_end}; sleep 3000"], pass_fds=[pipe.write_end]
            )
        )
        other.start()
        pipe.hear(b"up")
        assert inside(act("kill_all", 3)).reason is ps.Reason.EXITED
        assert process.poll() is None
        assert launcher().process.poll() is None
        assert other.is_alive(), "a run beside it"
        sandbox.cleanup()
        other.join()


@pytest.mark.parametrize("name", ["environ", "cmdline", "mem", "fd", "root", "cwd", "status", "maps"])
def test_proc_tells_of_nobody_else(name: str) -> None:
    with victim() as process:
        assert_escapes(act("proc_read", process.pid, name))
        assert_refused(inside(act("proc_read", process.pid, name)), INVISIBLE | {errno.EPERM})
        assert_refused(inside(act("proc_read", os.getpid(), name)), INVISIBLE | {errno.EPERM})


@pytest.mark.parametrize("name", ["priority", "affinity", "limit", "ptrace", "peek"])
def test_other_processes_are_left_alone(name: str) -> None:
    with victim() as process:
        if not ROOT and name in {
            "priority",
            "affinity",
            "limit",
        }:  # as root another user; the others ask for more than a filter
            assert "ESCAPED" in unwalled(act(name, process.pid)), "the control"
        assert_refused(inside(act(name, process.pid)), FORBIDDEN | {errno.EACCES})


def test_nor_all_of_a_user() -> None:
    """setpriority(2) with PRIO_USER: every process of the caller's user would become slow. So there is no control of it."""
    assert_refused(inside(tried("os.setpriority(os.PRIO_USER, 0, 19)")), {errno.EPERM})
    assert_refused(inside(tried("os.setpriority(os.PRIO_PROCESS, 0, 19); os.stat('/nowhere')")), {errno.ENOENT})


def test_a_socket_of_the_hosts(directory: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(directory / "socket"))
        (directory / "socket").chmod(0o777)
        server.listen()
        assert_escapes(act("unix_stream", directory / "socket"))
        for config in ({}, {"allowed_dirs": [directory]}, {"network_access": True}):
            assert_refused(inside(act("unix_stream", directory / "socket"), **config), {errno.EPERM, errno.EACCES})


def test_an_abstract_socket_of_the_hosts() -> None:
    name = f"\0{new_mark()}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(name)
        server.listen()
        code = f"import socket\nprint('TRIED')\ntry: socket.socket(socket.AF_UNIX).connect({name!r}); print('ESCAPED')\nexcept OSError as e: print('REFUSED', e.errno)"
        assert "ESCAPED" in unwalled(python(code), network_access=True), "the control"
        for config in ({}, {"network_access": True}):
            assert_refused(inside(python(code), **config), {errno.EPERM, errno.EACCES})


def test_the_network() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert "ESCAPED" in unwalled(act("tcp", "127.0.0.1", port), network_access=True), "the control"
        assert_refused(inside(act("tcp", "127.0.0.1", port)), {errno.EAFNOSUPPORT})


@pytest.mark.parametrize(
    ("name", "arguments"), [("sysv", (1,)), ("sysv_queue", (1,)), ("sysv_semaphore", (1,)), ("posix_queue", ("/q",))]
)
def test_ipc_of_the_host(name: str, arguments: tuple[object, ...]) -> None:
    assert_refused(inside(act(name, *arguments)), FORBIDDEN)


@pytest.mark.parametrize("ending", ["exit", "kill", "hang"])
def test_nothing_survives(programs: Programs, ending: str) -> None:
    mark = new_mark()
    with witness() as pipe:
        command = [programs("daemons"), "40", str(pipe.write_end), ending, mark]
        config: dict[str, Any] = {"timeout": 3.0} if ending == "hang" else {}
        result = inside(command, pass_fds=[pipe.write_end], allowed_dirs=[programs.directory], **config)
        assert carriers(mark) == []
        assert result.timed_out == (ending == "hang")
        pipe.hear(b"ready")
        pipe.wait_alone()


def test_nothing_survives_a_reaper_that_is_killed(programs: Programs) -> None:
    """By somebody outside: what it leaves comes to the launcher, which ends it before it says that the run has ended."""
    mark = new_mark()
    with witness() as pipe:
        command = [programs("daemons"), "40", str(pipe.write_end), "hang", mark]
        results: list[ps.Result] = []
        thread = threading.Thread(
            target=lambda: results.append(inside(command, pass_fds=[pipe.write_end], allowed_dirs=[programs.directory]))
        )
        thread.start()
        pipe.hear(b"ready")
        reapers = [pid for pid in children(launcher().pid) if set(children(pid)) & set(carriers(mark))]
        assert len(reapers) == 1
        with watched(carriers(mark)) as ends:
            os.kill(reapers[0], signal.SIGKILL)
            thread.join(HANG)
            assert results[0].reason is ps.Reason.KILLED_OUTSIDE
            wait_dead(ends)
        pipe.wait_alone()
    assert carriers(mark) == []


def test_memory_is_sampled(programs: Programs) -> None:
    result = inside(
        [programs("daemons"), "4", "1", "eat", new_mark()], memory_limit="100M", allowed_dirs=[programs.directory]
    )
    assert (result.reason, result.memory_exceeded) == (ps.Reason.MEMORY, True)


def test_memory_that_is_shared_counts_once() -> None:
    """Ten children that have 60 MB from their parent and write to none of it."""
    code = (
        "import os, signal, time\nblock = bytearray(60 << 20)\n"
        "children = []\n"
        "for _ in range(10):\n    pid = os.fork()\n    if pid == 0: time.sleep(3000)\n    children.append(pid)\n"
        "time.sleep(0.5)\nfor pid in children: os.kill(pid, signal.SIGKILL)\nprint('lived')"
    )
    result = inside(python(code), memory_limit="200M")
    assert (result.reason, result.stdout) == (ps.Reason.EXITED, b"lived\n"), result


def test_memory_that_is_lent_counts_once() -> None:
    """subprocess uses vfork(2): until it has become another program the child shows its parent's memory as its own."""
    code = "import subprocess\nblock = bytearray(120 << 20)\nfor _ in range(60): subprocess.run(['true'], check=True)\nprint('lived')"
    result = inside(python(code), memory_limit="200M")
    assert (result.reason, result.stdout) == (ps.Reason.EXITED, b"lived\n"), result


def test_cpu_is_rationed() -> None:
    result = inside(python("import time\nend = time.monotonic() + 3\nwhile time.monotonic() < end: pass"), cpu_limit=30)
    assert result.cpu_time.total < 0.7 * result.execution_time


def test_tasks_are_bounded() -> None:
    many = ["sh", "-c", "for i in $(seq 60); do sleep 3000 & done; wait"]
    result = inside(many, max_processes=30, timeout=HANG / 4)
    if ROOT:
        assert b"fork" in result.stderr
    else:
        assert (result.reason, result.processes_exceeded) == (ps.Reason.PROCESSES, True)
        assert (result.error or "").startswith("limit of 30 processes exceeded (ran ")
    assert not inside(["true"], max_processes=30).processes_exceeded


def tried(line: str, setup: str = "") -> list[str]:
    """A command that tries one line of Python and tells."""
    return python(
        f"import ctypes, fcntl, os, socket\n{setup}\nprint('TRIED', flush=True)\ntry:\n    {line}\n    print('ESCAPED')\nexcept OSError as e: print('REFUSED', e.errno)"
    )


def test_a_descriptor_for_nothing(secret: Path) -> None:
    """Access mode 3: Landlock asks for no right, and the descriptor serves for times, flags and comparisons."""
    command = tried(f"os.utime(os.open({str(secret)!r}, 3))")
    assert "ESCAPED" in unwalled(command), "the control"
    assert_refused(inside(command), {errno.EACCES})
    assert_refused(inside(command, allowed_dirs=[secret.parent]), {errno.EACCES})


def test_flags_of_what_is_only_to_be_read(secret: Path) -> None:
    """FS_IOC_SETFLAGS: Landlock knows no ioctl of file systems."""
    command = tried(
        "fcntl.ioctl(fd, 0x40086602, (0x40).to_bytes(8, 'little'))", f"fd = os.open({str(secret)!r}, os.O_RDONLY)"
    )
    assert_refused(inside(command, allowed_dirs=[secret.parent]), {errno.ENOTTY})
    terminal = inside(python("import sys; print(sys.stdin.isatty())"), stdin=b"")
    assert terminal.stdout == b"False\n"


@pytest.mark.parametrize(
    "line", ["os.getxattr(path, 'user.x')", "os.listxattr(path)", "os.getxattr(path, 'user.x', follow_symlinks=False)"]
)
def test_attributes_by_name(secret: Path, line: str) -> None:
    assert_refused(inside(tried(line, f"path = {str(secret)!r}")), {errno.EOPNOTSUPP})


@pytest.mark.parametrize(
    "name", ["net/unix", "net/tcp", "mountinfo", "task/self/net/unix", "root/etc/passwd", "cwd/etc/passwd"]
)
def test_its_own_proc_tells_of_nothing_else(name: str) -> None:
    assert_refused(inside(tried(f"open('/proc/self/{name}').read()")), INVISIBLE)


@pytest.mark.parametrize("line", ["socket.socket(socket.AF_UNIX)", "socket.socketpair()[0].bind('\\0squatted')"])
def test_names_of_the_hosts_sockets_are_not_taken(line: str) -> None:
    assert "ESCAPED" in unwalled(tried(line)), "the control"
    assert_refused(inside(tried(line)), {errno.EACCES, errno.EPERM})


def test_the_users_watches_are_not_used_up() -> None:
    assert_refused(inside(tried("ctypes.CDLL(None).inotify_init1(0) >= 0 or os.stat('/nowhere')")), {errno.ENOENT})


@pytest.mark.filterwarnings("ignore::proc_sandbox.UnenforcedWarning")  # as root another user may not write there
def test_a_link_in_the_way_of_a_rule(directory: Path) -> None:
    """A run before, or beside, has put it there since the plan was made."""
    (directory / "work" / "out").mkdir(parents=True)
    (directory / "victim").mkdir(mode=0o777)
    plan = ps.plan(
        ["touch", directory / "victim" / "new"], writable_dirs=[directory / "work" / "out"], enforcement="best-effort"
    )
    (directory / "work" / "out").rmdir()
    (directory / "work" / "out").symlink_to(directory / "victim")
    done = carry_out(plan)
    assert b"failed landlock" in done.stderr
    assert not list((directory / "victim").iterdir())


def test_a_sandbox_that_cannot_see_its_own_children() -> None:
    """Nested in such a plan /proc is closed: a sampled limit would see nothing, so there is none."""
    code = "import proc_sandbox as ps\nprint(type(ps.capabilities().memory_limit).__name__, ps.run(['true']).ok)"
    command = python(code)
    package = library_path()
    result = inside([command[0], "-S", *command[3:]], allowed_dirs=[package], env={"PYTHONPATH": package})
    assert text(result) == "Unenforced True\n", result


@pytest.mark.skipif(not ROOT, reason="only root can give a directory away")
@pytest.mark.usefixtures("directory")
def test_no_two_sandboxes_have_one_user() -> None:
    with contextlib.ExitStack() as stack:
        boxes = [stack.enter_context(ps.Sandbox()) for _ in range(33)]
        users = [text(box.run(["id", "-u"])) for box in boxes[:-1]]
        assert len(set(users)) == 32
        with pytest.raises(ps.UnsupportedError, match="clean one of them up first"):
            boxes[-1].run(["true"])
        boxes[0].cleanup()
        assert boxes[-1].run(["true"]).ok


def test_what_could_not_be_started_leaves_nothing(directory: Path) -> None:
    """No pid 1 takes it along: the process that was to become the command is waited for."""
    script = directory / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    before = set(children(launcher().pid))
    for _ in range(3):
        with pytest.raises(ps.CommandNotFoundError):
            ps.run([script], allowed_dirs=[directory])
    assert not set(children(launcher().pid)) - before


@pytest.mark.usefixtures("directory")
def test_files_of_the_callers_are_the_runs_own() -> None:
    """Written before the first run too: as root the directory gets a user of its own."""
    with ps.Sandbox() as box:
        box.write("made/by/caller", "x", mode=0o600)
        assert text(box.run(["sh", "-c", "cat made/by/caller; echo y > made/by/command; rm made/by/caller; pwd"], check=True)) == f"x{box.directory}\n"
        assert box.read("made/by/command") == b"y\n"


AGAIN = """
import os, sys
print("TRIED", file=sys.stderr)
try:
    os.open("/proc/self/fd/0", os.O_RDWR | os.O_NONBLOCK)
    print("ESCAPED", file=sys.stderr)
except OSError as error:
    print("REFUSED", error.errno, file=sys.stderr)
"""


def test_the_pipe_of_a_pipeline_is_one_way(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = ps.cmd(["true"]) | ps.cmd(python(AGAIN))
    with monkeypatch.context() as control:
        control.setattr(current(), "open_pipes", lambda count: [tuple(map(PipeEnd, open_pipe())) for _ in range(count)])
        assert b"ESCAPED" in pipeline.run().stderr[1]
    result = pipeline.run().results[1]
    assert_refused(replace(result, stdout=result.stderr), {errno.EACCES})


def test_nobody_is_signalled_by_way_of_a_pipe() -> None:
    """The process is seen, and the kernel would send SIGIO in the command's name (fcntl(2), F_SETOWN)."""
    code = (
        "import fcntl, os, sys\n"
        "fcntl.fcntl(1, fcntl.F_SETOWN, int(sys.argv[1]))\n"
        "fcntl.fcntl(1, fcntl.F_SETFL, fcntl.fcntl(1, fcntl.F_GETFL) | os.O_ASYNC)\n"
        "os.write(1, b'x' * 10)\n"
    )
    with victim() as target:
        reader, writer = os.pipe()
        try:
            subprocess.run([sys.executable, "-c", code, str(target.pid)], stdout=writer, check=True, timeout=HANG)
            os.read(reader, 10)
        finally:
            os.close(reader)
            os.close(writer)
        assert target.wait(HANG) == -signal.SIGIO, "the control"
    with victim() as target:
        (ps.cmd(python(code, str(target.pid))) | ps.cmd(["wc", "-c"])).run()
        assert target.stdin is not None
        target.stdin.close()
        assert target.wait(HANG) == 0


def test_a_terminal_of_its_own_and_no_other() -> None:
    master, slave = os.openpty()
    try:
        number = os.fstat(slave).st_rdev
        device = os.major(number) << 8 | os.minor(number) & 0xFF | (os.minor(number) & ~0xFF) << 12
        assert_escapes(act("reach_terminal", device), pass_fds=(slave,))
        assert_refused(inside(act("reach_terminal", device), pty=True), {errno.ENOENT})
        said = text(inside(["sh", "-c", "tty; echo again >/dev/stderr; echo by name >$(tty)"], pty=True)).split("\n")
        assert said[1:] == ["again", "by name", ""]
        assert said[0] not in ("not a tty", os.ttyname(slave))
    finally:
        os.close(master)
        os.close(slave)


def wait_if_ours(reaper: int) -> None:
    """In a container without an init what has lost its parent becomes a child of the container's first process, which the tests may be."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(reaper, 0)


def test_nothing_survives_the_launcher_of_a_caller_that_blocks_signals() -> None:
    """The reaper would have inherited that (sigprocmask(2)), and would not hear that the launcher has died."""
    shutdown()  # the next run starts another
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        with ps.Popen(["sleep", "3000"], timeout=HANG) as process:
            serving, reaper = launcher().pid, status_of(process.pid)[1]
            with watched([process.pid, reaper, serving]) as ends:
                os.kill(serving, signal.SIGKILL)
                wait_dead(ends)
                wait_if_ours(reaper)
            with pytest.raises(ps.LauncherDiedError):
                process.wait()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_a_reaper_that_waits_for_its_launcher_ends_with_it() -> None:
    """It has told that the run is over, and waits until that is known; SIGTERM, which tells of the launcher's death, is a signal that it hears."""
    with ps.Popen(["cat"], stdin=ps.PIPE, timeout=HANG) as process:
        serving = launcher().pid
        reaper = status_of(process.pid)[1]  # the launcher may have others from before
        with watched([reaper, serving]) as served, watched([process.pid]) as commands:
            os.kill(serving, signal.SIGSTOP)
            try:
                assert process.stdin is not None
                process.stdin.close()
                wait_dead(commands)
                while children(reaper):
                    os.sched_yield()
                while Path(f"/proc/{reaper}/wchan").read_text().startswith("do_wait"):
                    os.sched_yield()
            finally:
                os.kill(serving, signal.SIGKILL)
            wait_dead(served)  # both: as long as the launcher has a thread that reaper is its child
            wait_if_ours(reaper)
        with pytest.raises(ps.LauncherDiedError):
            process.wait()
