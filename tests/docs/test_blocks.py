"""Every python and console block of the README and of all pages of docs/ runs, and prints what the page shows."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path

import pytest
from support.blocks import LANGUAGES, Block, blocks_of, matches, run_block

import proc_sandbox as ps
from proc_sandbox.docstrings import of_fields

ROOT = Path(__file__).parents[2]
PAGES = {
    str(page.relative_to(ROOT)): list(blocks_of(page.read_text(encoding="utf-8")))
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
}


RUN_ELSEWHERE = ("docs/command-line.md", "sh")
"""By test_command_line.py, in a directory with the files that they need."""


def runs(block: Block) -> bool:
    return block.language in ("python", "console") and not block.why


@pytest.mark.parametrize("page", [page for page, blocks in PAGES.items() if any(map(runs, blocks))])
def test_the_blocks_of_a_page_run(page: str, tmp_path: Path) -> None:
    for block in PAGES[page]:
        try:
            run_block(block, tmp_path)
        except AssertionError as error:
            raise AssertionError(f"{page}:{block.line}: {error}") from error


@pytest.mark.parametrize(
    ("page", "block"),
    [pytest.param(page, block, id=f"{page}:{block.line}") for page, blocks in PAGES.items() for block in blocks if block.why],
)
def test_a_block_that_is_not_run_is_listed_with_the_reason(page: str, block: Block) -> None:
    assert block.language in ("python", "console"), "a block of another kind is never run"
    pytest.skip(f"{page}:{block.line}: {block.why}")


def test_each_block_says_what_it_is() -> None:
    """One without a language, or of another name for a shell, would never be run."""
    unknown = [
        f"{page}:{block.line}"
        for page, blocks in PAGES.items()
        for block in blocks
        if block.language not in LANGUAGES and (page, block.language) != RUN_ELSEWHERE
    ]
    assert unknown == []
    assert sum(map(runs, PAGES["README.md"])) >= 3


@pytest.mark.parametrize(
    ("said", "shown", "same"),
    [
        ("a\nb\n", "a\nb\n", True),
        ("a\nb\n", "a\n", False),
        ("a\n", "a\nb\n", False),
        ("took 3 ms\n", "took ... ms\n", True),
        ("x\ny\nend\n", "...\nend\n", True),
        ("end\n", "...\nend\n", True),
        ("end\nmore\n", "...\nend\n", False),
        ("a.b\n", "a+b\n", False),
        ("", "a\n", False),
    ],
)
def test_what_is_shown_is_compared_with_what_is_said(said: str, shown: str, *, same: bool) -> None:
    assert matches(said, shown) == same


PAGE = """
```python title="solve.py"
print(42)
```

```python
import solve
```

```text
42
```

<!-- not run: needs Windows -->
```console
$ dir
```

```console
$ python3 -c 'import solve
> print("more")'
42
more
$ false
```
"""


def test_a_page_is_read_as_it_says(tmp_path: Path) -> None:
    file, uses, text, not_run, console = blocks_of(PAGE)
    assert (file.title, uses.prints, text.language, not_run.why) == ("solve.py", "42\n", "text", "needs Windows")
    run_block(not_run, tmp_path)
    with pytest.raises(AssertionError, match="solve"):
        run_block(uses, tmp_path)
    run_block(file, tmp_path)
    run_block(uses, tmp_path)
    with pytest.raises(AssertionError, match="shows"):
        run_block(uses._replace(prints="41\n"), tmp_path)
    with pytest.raises(AssertionError, match="ended with 1"):
        run_block(console, tmp_path)


def test_the_reference_of_the_fields_is_current_and_whole() -> None:
    """Each field says its default and the mechanism behind it."""
    docs = Path(__file__).parents[2] / "docs"
    specification = importlib.util.spec_from_file_location("make_reference", docs / "make_reference.py")
    assert specification
    assert specification.loader
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    described = of_fields()
    assert set(described) == {field.name for field in dataclasses.fields(ps.Config)}
    for name, text in described.items():
        assert "Default:" in text, name
        assert "Mechanism:" in text, name
    assert (docs / "config.md").read_text(encoding="utf-8") == module.reference(), "run docs/make_reference.py"
