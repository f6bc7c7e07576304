"""Sections, tables and bars, as text that reads as it is and that Markdown renders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["Bar", "Effort", "Section", "Table", "bars_table", "ms", "ratio"]


class Effort(NamedTuple):
    """How much is done: everything, or with quick what takes minutes less; plots: the directory that plots are written to,
    none if it is empty.
    """

    quick: bool = False
    plots: str = ""

    def of(self, full: int, quick: int) -> int:
        """Return the number of rounds or the like."""
        return quick if self.quick else full


class Bar(NamedTuple):
    """What a figure must not pass."""

    what: str
    value: float
    bound: float
    at_most: bool = True

    @property
    def held(self) -> bool:
        """Whether it does not."""
        return self.value <= self.bound if self.at_most else self.value >= self.bound


@dataclass(frozen=True)
class Table:
    """The first column names the row; the others are figures."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    left: bool = False
    """The other columns are words, not figures."""

    def lines(self) -> Iterator[str]:
        """Yield it with its columns aligned."""
        if self.title:
            yield from (f"**{self.title}**", "")
        widths = [max(3, *map(len, column)) for column in zip(self.columns, *self.rows, strict=True)]
        yield self.line(self.columns, widths)
        rules = [
            "-" * width if self.left or not place else "-" * (width - 1) + ":" for place, width in enumerate(widths)
        ]
        yield "| " + " | ".join(rules) + " |"
        for row in self.rows:
            yield self.line(row, widths)

    def line(self, row: Sequence[str], widths: Sequence[int]) -> str:
        """Return one row."""
        cells = [
            cell.ljust(width) if self.left or not place else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return "| " + " | ".join(cells) + " |"


@dataclass(frozen=True)
class Section:
    """What one module of the benchmark has to say."""

    name: str
    title: str
    about: str
    tables: Sequence[Table] = ()
    bars: Sequence[Bar] = ()
    notes: Sequence[str] = field(default=())

    def lines(self) -> Iterator[str]:
        """Yield all of it but the title."""
        yield self.about
        for table in self.tables:
            yield ""
            yield from table.lines()
        if self.bars:
            yield ""
            yield from bars_table(self.bars).lines()
        if self.notes:
            yield ""
            yield from (f"- {note}" for note in self.notes)


def bars_table(bars: Sequence[Bar]) -> Table:
    """Return the bars with what was measured."""
    rows = [
        (bar.what, f"{bar.value:.3f}", f"{'<=' if bar.at_most else '>='} {bar.bound:g}", "yes" if bar.held else "NO")
        for bar in bars
    ]
    return Table(("bar", "measured", "bound", "held"), rows)


def ms(seconds: float | None) -> str:
    """Return seconds as milliseconds, or a dash where there are none."""
    return "-" if seconds is None else f"{seconds * 1e3:.2f}"


def ratio(value: float, base: float) -> str:
    """Return how many times the base a value is."""
    return f"{value / base:.2f}"
