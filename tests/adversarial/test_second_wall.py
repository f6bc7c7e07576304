"""Where two walls stand, each holds alone: the launcher carries out a plan from which the other one is taken."""

from __future__ import annotations

import errno
import os
import socket
import stat
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.processes import output_of, witness
from support.programs import HANG, ROOT, act, carry_out, inside, python, refusal, text

import proc_sandbox as ps
from proc_sandbox.backends import current


def by_hand(plan: ps.Plan, **changes: object) -> str:
    """Carry out a changed plan and return what the command printed."""
    return text(carry_out(plan, **changes))


@pytest.fixture
def no_landlock() -> None:
    """Skip where the kernel has no Landlock."""
    if not current().probe(ps.Config()).landlock_abi:
        pytest.skip("no Landlock here")


def without(word: str) -> Callable[[ps.Plan], tuple[object, ...]]:
    """The plan's mounts without an option."""

    def change(plan: ps.Plan) -> tuple[object, ...]:
        mounts = plan.mounts
        return tuple(m._replace(options=",".join(o for o in m.options.split(",") if o != word)) for m in mounts)

    return change


@pytest.fixture
def directory() -> Iterator[Path]:
    """One that does not lie below /tmp: all of the run's own /tmp may be written to, and Landlock knows no exceptions."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        yield Path(name)


@pytest.mark.usefixtures("no_landlock", "idmap")
@pytest.mark.parametrize("name", ["write", "append", "truncate"])
def test_landlock_alone_keeps_what_is_to_be_read(directory: Path, name: str) -> None:
    (directory / "file").write_text("x")
    plan = ps.plan(act(name, directory / "file"), allowed_dirs=[directory])
    writable = without("ro")(plan)
    assert "ESCAPED" in by_hand(plan, mounts=writable, landlock=None), "the control: without both it is written to"
    assert refusal(by_hand(plan, mounts=writable)) == errno.EACCES
    assert refusal(by_hand(plan, landlock=None)) == errno.EROFS, "and the mount alone holds as well"


@pytest.mark.usefixtures("no_landlock", "idmap")
@pytest.mark.parametrize(("name", "places"), [("create", ["new"]), ("unnamed", ["."]), ("mkdir", ["new"]), ("symlink", ["x", "new"])])
def test_landlock_alone_lets_nothing_be_made(directory: Path, name: str, places: list[str]) -> None:
    plan = ps.plan(act(name, *(directory / place for place in places)), allowed_dirs=[directory])
    writable = without("ro")(plan)
    assert refusal(by_hand(plan, mounts=writable)) == errno.EACCES
    assert list(directory.iterdir()) == []
    assert "ESCAPED" in by_hand(plan, mounts=writable, landlock=None), "the control"


@pytest.mark.usefixtures("no_landlock")
def test_landlock_alone_keeps_from_the_hosts_network() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = f"import socket; print('TRIED', flush=True)\ntry: socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 5); print('ESCAPED')\nexcept OSError as e: print('REFUSED', e.errno)"
        plan = ps.plan(python(code))
        if not plan.landlock or plan.landlock.abi < 4:
            pytest.skip("Landlock knows no network here")
        assert "ESCAPED" in by_hand(plan, network="host", seccomp=None, landlock=None)
        assert refusal(by_hand(plan, network="host", seccomp=None)) == errno.EACCES
        assert refusal(by_hand(plan, network="host", landlock=None)) == errno.EAFNOSUPPORT, "seccomp alone"
        assert refusal(by_hand(plan, seccomp=None, landlock=None)) == errno.ENETUNREACH, "the empty network alone"


@pytest.mark.usefixtures("no_landlock", "idmap")
@pytest.mark.skipif(not ROOT, reason="needs to make a device")
def test_landlock_alone_keeps_from_devices(tmp_path: Path) -> None:
    try:
        os.mknod(tmp_path / "zero", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("this host lets nobody make devices")
    (tmp_path / "zero").chmod(0o666)
    code = f"import fcntl\ntry: fcntl.ioctl(open('{tmp_path}/zero', 'rb'), 0x5401, bytes(64))\nexcept OSError as e: print('REFUSED', e.errno)"
    plan = ps.plan(python(code), allowed_dirs=[tmp_path])
    if not plan.landlock or plan.landlock.abi < 5:
        pytest.skip("Landlock knows no devices here")
    reachable = without("nodev")(plan)
    assert refusal(by_hand(plan, mounts=reachable, landlock=None)) == errno.ENOTTY, "the control: it reaches the driver"
    assert refusal(by_hand(plan, mounts=reachable)) == errno.EACCES


def mounted(result: ps.Result) -> dict[str, set[str]]:
    """Mount points with their options, as /proc/self/mountinfo tells; the last of each counts."""
    return {line.split()[4]: set(line.split()[5].split(",")) for line in text(result).splitlines()}


def test_every_mount_has_the_options_that_it_should(tmp_path: Path) -> None:
    (tmp_path / "rw").mkdir()
    grants = {"allowed_dirs": [tmp_path], "writable_dirs": [tmp_path / "rw"]}
    seen = mounted(inside(["cat", "/proc/self/mountinfo"], **grants))
    assert all("nosuid" in options for options in seen.values())
    assert {point for point, options in seen.items() if "ro" not in options and not point.startswith("/dev/")} <= {
        "/tmp", "/dev/shm", "/proc/keys", str(tmp_path / "rw"),  # /proc/keys is /dev/null, which may be written to
    }  # fmt: skip
    assert {"ro", "nodev", "noexec"} <= seen["/proc"]
    assert "nodev" in seen["/tmp"]
    assert "nodev" in seen[str(tmp_path / "rw")]
    assert "ro" in seen["/"], "the root is sealed"


@pytest.mark.skipif(not ROOT, reason="needs to mount on the host")
def test_what_the_host_mounts_later_does_not_appear(tmp_path: Path) -> None:
    """Mounts of the host do not propagate into a run that is under way."""
    (tmp_path / "sub").mkdir()
    gate_read, gate_write = os.pipe()
    script = f"echo ready >&3; read line; ls {tmp_path}/sub"
    with witness() as pipe:
        results: list[ps.Result] = []
        os.dup2(pipe.write_end, 200)
        runner = threading.Thread(
            target=lambda: results.append(
                inside(["bash", "-c", script.replace(">&3", ">&200")], allowed_dirs=[tmp_path], stdin=gate_read, pass_fds=[200])
            )
        )
        runner.start()
        try:
            pipe.hear(b"ready")
            subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tmp_path / "sub"], check=True, timeout=HANG)
            (tmp_path / "sub" / "later").write_text("x")
        finally:
            os.write(gate_write, b"go\n")
            runner.join()
            subprocess.run(["umount", "--lazy", tmp_path / "sub"], check=False, timeout=HANG)
            for descriptor in (200, gate_read, gate_write):
                os.close(descriptor)
    assert text(results[0]) == ""


def test_a_hard_limit_of_the_callers_stays(tmp_path: Path) -> None:
    """Below what the Config asks for: a process may not have more than its caller could give it."""
    del tmp_path
    code = (
        "import resource, proc_sandbox as ps\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (500, 500))\n"
        "print(ps.run(['sh', '-c', 'ulimit -n'], max_open_files=1024).stdout.text(), end='')\n"
        "print(ps.run(['sh', '-c', 'ulimit -n'], max_open_files=100).stdout.text(), end='')\n"
    )
    assert output_of(code) == "500\n100\n"
