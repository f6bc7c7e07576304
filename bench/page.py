"""The page of figures: what stands between its marks is written by the benchmark, so that it can be made again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench.table import bars_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from bench.table import Section, Table

__all__ = ["recorded", "with_block"]


def with_block(page: str, name: str, lines: Iterable[str]) -> str:
    """Return the page with a block between its marks.

    Raises:
        ValueError: the page does not have both marks.
    """
    begin, end = f"<!-- bench {name}: written by python -m bench --record -->", f"<!-- end of bench {name} -->"
    before, begun, rest = page.partition(begin)
    _, ended, after = rest.partition(end)
    if not begun or not ended:
        raise ValueError(f"the page has no place for the block: {begin} ... {end}")
    return "\n".join((f"{before}{begin}", *lines, f"{end}{after}"))


def recorded(page: str, machine: Table, sections: Sequence[Section], *, quick: bool, whole: bool = False) -> str:
    """Return the page with the machine and these sections as they were measured; whole: they are all that there are."""
    how = ["", "Measured with `--quick`: rough."] if quick else []
    page = with_block(page, "machine", [*machine.lines(), *how])
    if whole:
        page = with_block(page, "bars", bars_table([bar for section in sections for bar in section.bars]).lines())
    for section in sections:
        page = with_block(page, section.name, section.lines())
    return page
