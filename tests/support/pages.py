"""Blocks of a page that a program writes: what stands between two marks."""

from __future__ import annotations

__all__ = ["with_block"]


def with_block(page: str, begin: str, end: str, block: str) -> str:
    """Return the page with the block between its marks.

    Raises:
        ValueError: the page does not have both marks.
    """
    before, begun, rest = page.partition(begin)
    _, ended, after = rest.partition(end)
    if not begun or not ended:
        raise ValueError(f"the page has no place for the block: {begin} ... {end}")
    return f"{before}{begin}\n{block}\n{end}{after}"
