"""The table of docs/hosts.md is what was recorded, not what somebody wrote."""

import json
import runpy
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]


def test_the_table_is_made_from_the_record() -> None:
    hosts = runpy.run_path(str(PROJECT / "tests/vm/hosts.py"))
    rows = json.loads((PROJECT / "docs/hosts.json").read_text(encoding="utf-8"))
    assert len(rows) > 5
    page = (PROJECT / "docs/hosts.md").read_text(encoding="utf-8")
    assert hosts["with_table"](page, rows) == page
