"""System calls that fail as if the kernel refused them, or did not know them: strace(1), `--inject`."""

from __future__ import annotations

import functools
import shutil
import subprocess

import pytest

import proc_sandbox as ps
from proc_sandbox.launcher.process import launcher_path
from support.programs import HANG


@functools.cache
def strace() -> str:
    """Return strace's path; skip where it is missing or may not trace."""
    found = shutil.which("strace")
    if not found:
        pytest.skip("strace is not installed")
    if subprocess.run([found, "-qq", "-o", "/dev/null", "true"], capture_output=True, timeout=HANG, check=False).returncode:
        pytest.skip("this host lets nobody trace")
    return found


def run_with(plan: ps.Plan, *injection: str) -> subprocess.CompletedProcess[bytes]:
    """Carry a plan out by hand, under strace with these options."""
    trace = [strace(), "-f", "-qq", "-o", "/dev/null", *injection]
    return subprocess.run([*trace, launcher_path(), "run", *plan.words()], capture_output=True, timeout=HANG, check=False)
