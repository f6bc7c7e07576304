"""The page of presets says what their files say."""

from __future__ import annotations

import re
from pathlib import Path

import proc_sandbox as ps
from proc_sandbox import presets
from proc_sandbox.config import DEFAULTS, NORMALISERS

PAGE = (Path(__file__).parents[2] / "docs" / "presets.md").read_text(encoding="utf-8")
COLUMNS = ("timeout", "cpu_time_limit", "memory_limit", "max_processes", "max_file_size", "tmp_size", "max_output")


def test_the_table_is_that_of_the_files() -> None:
    rows = {row[0].strip("`"): row[2:] for row in (re.split(r" *\| *", line.strip("| ")) for line in PAGE.splitlines() if line.startswith("| `"))}
    assert sorted(rows) == presets.names()
    for name, cells in rows.items():
        table = presets.table_of(name)
        for field, cell in zip(COLUMNS, cells, strict=True):
            said = None if cell == "-" else int(cell) if cell.isdigit() else cell
            assert NORMALISERS[field](field, said) == NORMALISERS[field](field, table.get(field, DEFAULTS[field])), (name, field)


def test_each_has_a_section() -> None:
    assert {name for name in presets.names() if f"\n## {name}\n" in PAGE} == set(presets.names())
    assert set(re.findall(r'preset\("(\w+)"', PAGE)) == set(presets.names())
    assert ps.Config.preset.__doc__
    assert all(f'"{name}"' in ps.Config.preset.__doc__ for name in presets.names())
