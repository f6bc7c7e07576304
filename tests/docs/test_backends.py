"""The table of backends in docs/systems.md is what the tests recorded, not what somebody wrote."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
from support.behaviours import PROMISES, differences

PROJECT = Path(__file__).resolve().parents[2]


def test_the_table_is_made_from_the_record() -> None:
    made = runpy.run_path(str(PROJECT / "docs/make_backends.py"))
    columns = json.loads((PROJECT / "docs/behaviours.json").read_text(encoding="utf-8"))
    assert len(columns) >= 4
    page = (PROJECT / "docs/systems.md").read_text(encoding="utf-8")
    assert made["with_table"](page, columns) == page, "run docs/make_backends.py"


@pytest.mark.parametrize("backend", ["linux", "posix", "windows"])
def test_a_difference_is_one_from_a_promise(backend: str) -> None:
    for promise, why in differences(backend, "").items():
        assert promise in PROMISES
        assert why


def test_what_was_recorded_is_no_failure_and_agrees_with_the_differences() -> None:
    columns = json.loads((PROJECT / "docs/behaviours.json").read_text(encoding="utf-8"))
    for name, cells in columns.items():
        missing = differences(name.partition(",")[0], name.partition(", on ")[2])
        for promise, said in cells.items():
            assert promise in PROMISES
            assert said.partition(":")[0] in ("held", "refused", "no"), f"{name}: {promise}: {said}"
            assert (said.partition(":")[0] == "no") == (promise in missing), f"{name}: {promise}"
