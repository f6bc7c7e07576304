"""Fault injection: whichever step the kernel refuses, the command does not run, and the step is named.

strace(1) makes one kind of system call fail in the launcher and all that it forks: `--inject`. Calls that the command itself
would make are left out.
"""

from __future__ import annotations

import subprocess
import sys

import pytest
from support import faults
from support.processes import library_path_environment
from support.programs import HANG, ROOT

import proc_sandbox as ps
from proc_sandbox.backends import current

STEPS = [
    "clone3", "setns", "open_tree", "mount_setattr", "move_mount", "fsopen", "fsconfig", "fsmount", "pivot_root",
    "umount2", "sethostname", "setresuid", "setresgid", "capset", "close_range", "landlock_create_ruleset",
    "landlock_add_rule", "landlock_restrict_self", "seccomp", "setsid", "dup2", "setrlimit,prlimit64", "mkdirat", "symlinkat",
    "openat2", "chdir", "vfork", "chroot", "fchdir",
]  # fmt: skip
ONLY_ROOT = ["setgroups", "mknodat"]
PRCTL = ["bounding set", "no_new_privs", "dumpable", "pdeathsig"]


def run_with(*injection: str) -> subprocess.CompletedProcess[bytes]:
    """Run the launcher by hand on a plan that uses every mechanism but cgroups."""
    return faults.run_with(ps.plan(["echo", "RAN"], max_file_size="1M", timeout=HANG), *injection)


def test_without_a_fault_it_runs() -> None:
    """The control."""
    done = run_with("-e", "trace=none")
    assert done.stdout == b"RAN\n", done
    assert done.returncode == 0


@pytest.mark.parametrize("call", [*STEPS, *(ONLY_ROOT if ROOT else [])])
def test_a_refused_step_ends_the_run(call: str) -> None:
    if call.startswith("landlock") and not current().probe(ps.Config()).landlock_abi:
        pytest.skip("no Landlock here")
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


TWICE = """
import sys, warnings
import proc_sandbox as ps
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    try:
        print(ps.run(["echo", "RAN"]).stdout)
    except ps.UnsupportedError as error:
        print("refused", error.field)
    print(ps.run(["echo", "RAN"], enforcement="best-effort").enforcement["files"].reason != "")
print(sum("POSIX backend" in str(warning.message) for warning in said), sys.argv[1])
"""


def test_where_nothing_better_is_allowed_there_is_the_posix_backend() -> None:
    """It isolates nothing: so strict refuses, and best-effort says so."""
    injection = ["-e", "trace=pidfd_open", "-e", "inject=pidfd_open:error=ENOSYS"]
    done = subprocess.run(
        [faults.strace(), "-qq", "-o", "/dev/null", *injection, sys.executable, "-c", TWICE, "end"],
        env=library_path_environment(), capture_output=True, timeout=HANG, check=False,
    )  # fmt: skip
    assert done.stdout.decode() == "refused files\nTrue\n1 end\n", done
