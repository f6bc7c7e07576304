"""Every file of examples/ runs, by itself and in the demo, and each verdict in it is the expected one."""

from __future__ import annotations

import importlib.util
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py") if path.stem != "demo")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the examples are for Linux")
NEEDED = {"compile_and_run_c": ("gcc", shutil.which("gcc")), "package_cli": ("Pygments", importlib.util.find_spec("pygments"))}
"""What an example needs beside the package and a shell, and whether it is there."""
PATIENCE = 240
"""Seconds; it guards against hanging only."""


@pytest.mark.parametrize("name", NAMES)
def test_an_example_runs_and_each_verdict_is_the_expected_one(name: str) -> None:
    what, there = NEEDED.get(name, ("", True))
    if not there:
        pytest.skip(f"needs {what}")
    done = subprocess.run([sys.executable, "-W", "error", str(EXAMPLES / f"{name}.py")], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    assert "as_expected=True" in done.stdout
    assert "as_expected=False" not in done.stdout, done.stdout


def test_the_demo_runs_all_of_them() -> None:
    demo = runpy.run_path(str(EXAMPLES / "demo.py"))
    assert sorted(demo["EXAMPLES"]) == NAMES


def test_the_overview_names_all_of_them() -> None:
    page = (EXAMPLES.parent / "docs" / "index.md").read_text(encoding="utf-8")
    assert [name for name in NAMES if f"`{name}.py`" not in page] == []
