"""The files on the page of policies are good ones."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from proc_sandbox import policies

PAGE = (Path(__file__).parents[2] / "docs" / "policies.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("text", [text for text in BLOCKS if "policies." in text])
def test_a_file_is_good(text: str, tmp_path: Path) -> None:
    path = tmp_path / ("pyproject.toml" if "[tool." in text else "sandbox.toml")
    path.write_text(text)
    assert policies.check(path) == []
    assert policies.names(path)


def test_there_are_files_of_both_kinds() -> None:
    assert len([text for text in BLOCKS if "[policies." in text]) >= 2
    assert any("[tool.proc-sandbox.policies." in text for text in BLOCKS)
