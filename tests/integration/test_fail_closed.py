"""Fault injection: whichever step the kernel refuses, the command does not run, and the step is named.

strace(1) makes one kind of system call fail in the launcher and all that it forks: `--inject`. Calls that the command itself
would make are left out.
"""

from __future__ import annotations

import functools
import shutil
import subprocess

import pytest
from support.programs import HANG, ROOT

import proc_sandbox as ps
from proc_sandbox.launcher.process import launcher_path

STEPS = [
    "clone3", "setns", "open_tree", "mount_setattr", "move_mount", "fsopen", "fsconfig", "fsmount", "pivot_root",
    "umount2", "sethostname", "setresuid", "setresgid", "capset", "close_range", "landlock_create_ruleset",
    "landlock_add_rule", "landlock_restrict_self", "seccomp", "setsid", "dup2", "setrlimit,prlimit64", "mkdirat", "symlinkat",
    "openat2", "chdir", "vfork", "chroot", "fchdir",
]  # fmt: skip
ONLY_ROOT = ["setgroups", "mknodat"]
PRCTL = ["bounding set", "no_new_privs", "dumpable", "pdeathsig"]


@functools.cache
def strace() -> str:
    """Return strace's path; skip where it is missing or may not trace."""
    found = shutil.which("strace")
    if not found:
        pytest.skip("strace is not installed")
    if subprocess.run([found, "-qq", "-o", "/dev/null", "true"], capture_output=True, timeout=HANG, check=False).returncode:
        pytest.skip("this host lets nobody trace")
    return found


def run_with(*injection: str) -> subprocess.CompletedProcess[bytes]:
    """Run the launcher by hand on a plan that uses every mechanism but cgroups."""
    plan = ps.plan(["echo", "RAN"], max_file_size="1M", timeout=HANG)
    command = [launcher_path(), "run", *plan.words()]
    trace = [strace(), "-f", "-qq", "-o", "/dev/null", *injection]
    return subprocess.run([*trace, *command], capture_output=True, timeout=HANG, check=False)


def test_without_a_fault_it_runs() -> None:
    """The control."""
    done = run_with("-e", "trace=none")
    assert done.stdout == b"RAN\n", done
    assert done.returncode == 0


@pytest.mark.parametrize("call", [*STEPS, *(ONLY_ROOT if ROOT else [])])
def test_a_refused_step_ends_the_run(call: str) -> None:
    done = run_with("-e", f"trace={call}", "-e", f"inject={call}:error=EPERM")
    assert b"RAN" not in done.stdout, done
    assert done.returncode != 0


@pytest.mark.parametrize("step", PRCTL)
def test_a_refused_confinement_ends_the_run(step: str) -> None:
    """prctl(2) is many calls in one: each of its uses fails in turn, until none is left that is looked at."""
    refused = 0
    for number in range(1, 64):
        done = run_with("-e", "trace=prctl", "-e", f"inject=prctl:error=EPERM:when={number}")
        refused += b"RAN" not in done.stdout
        if step.encode() in done.stderr:
            assert b"RAN" not in done.stdout, done
            return
    raise AssertionError(f"{step} was never seen to fail; {refused} runs were refused")
