"""A container as Docker makes it by default, run by runc with no engine and no image: its files are the host's own, read-only.

No CAP_SYS_ADMIN, a filter that refuses namespaces and mounts, /sys/fs/cgroup read-only, parts of /proc masked: what
docs.docker.com, "Seccomp security profiles for Docker", and `docker run --help` tell of.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from support.processes import library_path, new_mark

CAPABILITIES = [
    f"CAP_{name}"
    for name in [
        "CHOWN",
        "DAC_OVERRIDE",
        "FSETID",
        "FOWNER",
        "MKNOD",
        "NET_RAW",
        "SETGID",
        "SETUID",
        "SETFCAP",
        "SETPCAP",
        "NET_BIND_SERVICE",
        "SYS_CHROOT",
        "KILL",
        "AUDIT_WRITE",
    ]
]
NAMESPACE_FLAGS = (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000)  # CLONE_NEW*: clone(2)
EPERM, ENOSYS = 1, 38
REFUSED = [
    "unshare",
    "setns",
    "mount",
    "umount2",
    "pivot_root",
    "move_mount",
    "open_tree",
    "fsopen",
    "fsmount",
    "fsconfig",
    "fspick",
    "mount_setattr",
    "bpf",
    "perf_event_open",
    "kcmp",
    "ptrace",
    "process_vm_readv",
    "process_vm_writev",
    "pidfd_getfd",
    "process_madvise",
    "keyctl",
    "add_key",
    "request_key",
    "userfaultfd",
    "io_uring_setup",
    "io_uring_enter",
    "io_uring_register",
    "name_to_handle_at",
    "open_by_handle_at",
    "quotactl",
    "reboot",
    "swapon",
    "swapoff",
    "kexec_load",
]
MASKED = [
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/scsi",
    "/sys/firmware",
]
READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc")


def runtime() -> str | None:
    """Return the path of runc; None where there is none, or where it may not be used."""
    return shutil.which("runc") if os.geteuid() == 0 else None


def filter_of(*, namespaces: bool) -> dict[str, Any]:
    rules: list[dict[str, Any]] = [{"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS}]
    if not namespaces:
        rules += [{"names": REFUSED, "action": "SCMP_ACT_ERRNO", "errnoRet": EPERM}]
        for flag in NAMESPACE_FLAGS:
            where = {"index": 0, "value": flag, "valueTwo": flag, "op": "SCMP_CMP_MASKED_EQ"}
            rules.append({"names": ["clone"], "action": "SCMP_ACT_ERRNO", "errnoRet": EPERM, "args": [where]})
    machine = "SCMP_ARCH_X86_64" if platform.machine() == "x86_64" else "SCMP_ARCH_AARCH64"
    return {"defaultAction": "SCMP_ACT_ALLOW", "architectures": [machine], "syscalls": rules}


def mount(target: str, kind: str, source: str, *options: str) -> dict[str, Any]:
    return {"destination": target, "type": kind, "source": source, "options": list(options)}


def mounts(read_only: Sequence[str], writable: Sequence[str]) -> Iterator[dict[str, Any]]:
    yield mount("/proc", "proc", "proc")
    yield mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k")
    yield mount("/dev/pts", "devpts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5")
    yield mount("/dev/shm", "tmpfs", "shm", "nosuid", "noexec", "nodev", "mode=1777", "size=65536k")
    yield mount("/tmp", "tmpfs", "tmpfs", "nosuid", "nodev", "mode=1777", "size=512m")
    yield mount("/sys", "sysfs", "sysfs", "nosuid", "noexec", "nodev", "ro")
    for path in read_only:
        yield mount(path, "bind", path, "rbind", "ro")
    for path in writable:
        yield mount(path, "bind", path, "rbind", "rw")


def specification(
    command: Sequence[str], root: Path, *, user: int, environment: Mapping[str, str], cwd: str,
    read_only: Sequence[str], writable: Sequence[str], namespaces: bool, without: str = "",
) -> dict[str, Any]:  # fmt: skip
    """Return what runc is to do: runtime-spec, config.md."""
    bounding = [name for name in CAPABILITIES if name != without]
    own = bounding if user == 0 else []
    return {
        "ociVersion": "1.0.2",
        "root": {"path": str(root), "readonly": True},
        "hostname": "container",
        "process": {
            "terminal": False,
            "user": {"uid": user, "gid": user},
            "args": list(command),
            "env": [f"{name}={value}" for name, value in environment.items()],
            "cwd": cwd,
            "capabilities": {"bounding": bounding, "effective": own, "permitted": own},
            "noNewPrivileges": user != 0,
        },
        "mounts": list(mounts(read_only, writable)),
        "linux": {
            "namespaces": [{"type": name} for name in ("pid", "mount", "ipc", "uts", "network")],
            "seccomp": filter_of(namespaces=namespaces),
            "maskedPaths": [] if namespaces else MASKED,
            "readonlyPaths": [] if namespaces else READ_ONLY,
        },
    }


def run_in_container(
    command: Sequence[str],
    directory: Path,
    *,
    user: int = 0,
    environment: Mapping[str, str] | None = None,
    cwd: str = "/",
    read_only: Sequence[str] = (),
    writable: Sequence[str] = (),
    namespaces: bool = False,
    without: str = "",
    timeout: float = 600,
) -> subprocess.CompletedProcess[str]:
    """Run a command in a container of its own.

    Args:
        directory: where the container's root and its configuration are made.
        user: uid and gid of the command.
        read_only, writable: paths of the host that are seen there, beside the system's.
        namespaces: as with seccomp=unconfined and systempaths=unconfined: no capability more, but nothing is in the way.
        without: a capability that is taken from root (--cap-drop).
        timeout: seconds; only against hanging.
    """
    root = directory / "root"
    root.mkdir()
    system = []
    for path in SYSTEM:
        if os.path.islink(path):
            (root / path[1:]).symlink_to(os.readlink(path))
        elif os.path.isdir(path):
            system.append(path)
    spec = specification(
        command, root, user=user, environment={"PATH": "/usr/local/bin:/usr/bin:/bin", **(environment or {})}, cwd=cwd,
        read_only=[*system, *read_only], writable=writable, namespaces=namespaces, without=without,
    )  # fmt: skip
    for place in spec["mounts"]:  # what is bound needs a place in a root that runc may write to
        target = root / place["destination"][1:]
        if os.path.isfile(place["source"]):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch()
        else:
            target.mkdir(parents=True, exist_ok=True)
            if "mode=1777" in place["options"]:
                target.chmod(0o1777)  # runc gives a tmpfs the mode of what it covers
    (directory / "config.json").write_text(json.dumps(spec))
    runc = runtime()
    assert runc
    words = [runc, f"--root={directory / 'state'}", "run", f"--bundle={directory}", new_mark()]
    return subprocess.run(words, capture_output=True, text=True, timeout=timeout, check=False, stdin=subprocess.DEVNULL)


def interpreter() -> str:
    """Return an interpreter that everybody can reach and that can use the packages of this one: not one below /root."""
    system = "/usr/bin/python3"
    ask = [system, "-c", f"import sys; print(sys.version_info[:2] == {sys.version_info[:2]})"]
    same = (
        os.path.exists(system)
        and subprocess.run(ask, capture_output=True, text=True, check=False).stdout.strip() == "True"
    )
    return system if same else sys.executable


def with_this_package(
    arguments: Sequence[str], directory: Path, *, user: int, namespaces: bool = False, without: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run Python with the package under test, its tests and the test tools in a container."""
    tree = str(Path(__file__).resolve().parents[2])
    paths = [library_path(), f"{tree}/tests", sysconfig.get_paths()["purelib"]]
    needed = [tree, *paths, sys.prefix, sys.base_prefix]
    return run_in_container(
        [interpreter(), *arguments],
        directory,
        user=user,
        environment={"PYTHONPATH": ":".join(paths), "PYTHONDONTWRITEBYTECODE": "1", "HOME": "/tmp"},
        cwd=tree,
        read_only=[path for path in outermost(needed) if not path.startswith("/usr/")],
        namespaces=namespaces,
        without=without,
    )


def outermost(paths: Sequence[str]) -> list[str]:
    """Return the paths that lie in none of the others."""
    unique = list(dict.fromkeys(paths))
    return [path for path in unique if not any(path.startswith(other + "/") for other in unique)]
