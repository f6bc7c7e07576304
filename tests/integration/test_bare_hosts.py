"""Hosts on which something is missing that one takes for granted: /proc, a writable root, room in /dev/shm, or capabilities
in the user namespace that was given.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import Any

import pytest
from support.faults import strace
from support.processes import library_path_environment
from support.programs import HANG, ROOT

root_only = pytest.mark.skipif(not ROOT or not shutil.which("unshare"), reason="needs root and unshare(1)")
DOCTOR = [sys.executable, "-m", "proc_sandbox", "doctor", "--json"]


def told_by(command: list[str]) -> dict[str, Any]:
    """What doctor says when it is started so; all isolations have to be there, and a run has to work."""
    done = subprocess.run(command, capture_output=True, env=library_path_environment(), timeout=HANG, check=False)
    assert done.stdout, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    assert told["trial"] == "ok", told
    for name in ("files", "privileges", "processes", "ipc", "syscalls", "network_access"):
        assert told[name]["strength"] == "kernel", (name, told[name])
    return told


def with_mounts(script: str) -> list[str]:
    """The doctor in a mount namespace in which the script has done something before."""
    return ["unshare", "--mount", "sh", "-ec", f'{script}; exec "$@"', "sh", *DOCTOR]


@root_only
def test_without_proc() -> None:
    told = told_by(with_mounts("umount -l /proc"))
    assert "Landlock" in told["files"]["mechanism"]
    assert told["files"]["remedy"] == "mount -t proc proc /proc"
    assert "mechanism" not in told["memory_limit"], "nobody can look, and nothing says so"


@root_only
def test_with_a_root_that_is_read_only() -> None:
    told = told_by(with_mounts("mount -o remount,bind,ro /; ! touch /x 2>/dev/null"))
    assert told["files"]["mechanism"].startswith("mount namespace")


@root_only
def test_with_a_tiny_shared_memory() -> None:
    assert told_by(with_mounts("mount -t tmpfs -o size=4k none /dev/shm"))["files"]["mechanism"].startswith(
        "mount namespace"
    )


def test_with_a_user_namespace_that_holds_no_capabilities() -> None:
    """As Ubuntu's AppArmor restriction gives it: it can be made, but nothing be done with it."""
    inject = ["-e", "trace=mount,open_tree,fsopen", "-e", "inject=mount,open_tree,fsopen:error=EACCES"]
    told = told_by([strace(), "-f", "-qq", "-o", "/dev/null", *inject, *DOCTOR])
    assert "Landlock" in told["files"]["mechanism"]
    assert told["privileges"]["mechanism"].startswith("a user of its own" if ROOT else "the caller's user")
