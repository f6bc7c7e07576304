"""Every python block of the README and the guide runs, each on its own."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

import proc_sandbox as ps

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", *(str(page.relative_to(ROOT)) for page in sorted((ROOT / "docs").rglob("*.md"))))
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks() -> list[object]:
    """Return each block as a test parameter, named by page and line."""
    found: list[object] = []
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        for match in BLOCK.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            found.append(pytest.param(match[1], id=f"{page}:{line}"))
    return found


@pytest.mark.parametrize("code", blocks())
def test_block_runs(code: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()


def test_the_readme_has_blocks() -> None:
    assert BLOCK.search((ROOT / "README.md").read_text(encoding="utf-8"))


def test_the_reference_of_the_fields_is_current_and_whole() -> None:
    """Each field says its default and the mechanism behind it."""
    docs = Path(__file__).parents[2] / "docs"
    specification = importlib.util.spec_from_file_location("make_reference", docs / "make_reference.py")
    assert specification
    assert specification.loader
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    described = module.fields()
    assert set(described) == {field.name for field in dataclasses.fields(ps.Config)}
    for name, text in described.items():
        assert "Default:" in text, name
        assert "Mechanism:" in text, name
    assert (docs / "config.md").read_text(encoding="utf-8") == module.reference(), "run docs/make_reference.py"
