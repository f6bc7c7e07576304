"""The system call filter as it is installed decides what the one that it was made from decides."""

from __future__ import annotations

import subprocess
from pathlib import Path

from support.programs import HANG, LAUNCHER


def test_equal_answers_that_stand_once_decide_the_same(tmp_path: Path) -> None:
    """Every set of options, every system call's number, foreign machines, and arguments that are looked at."""
    program = tmp_path / "filter"
    source = Path(__file__).parents[1] / "support" / "filter.c"
    flags = ["-std=gnu17", "-O2", "-D_GNU_SOURCE", f"-I{LAUNCHER}"]
    subprocess.run(["gcc", *flags, source, "-o", program], check=True, timeout=HANG, capture_output=True)
    compared, different, plain, most = map(
        int, subprocess.run([program], check=True, timeout=HANG, capture_output=True).stdout.split()
    )
    assert compared > 4_000_000
    assert different == 0
    assert most < plain, "the control: the longest is shorter than the last one was, which is not the longest"
