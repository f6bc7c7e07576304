"""What goes to a terminal: colours only where they are wanted, tables, and no character that would do something to it."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from typing import TextIO

from proc_sandbox.visible import printable

__all__ = ["is_smart", "paint", "print_table", "quoted", "wants_colour"]

CODES = {"green": "32", "yellow": "33", "red": "31"}
"""Of ECMA-48's "select graphic rendition"."""
WORD = re.compile(r"[\w@%+=:,./-]+\Z", re.ASCII)
"""What a shell reads as one word as it is."""


def is_smart(file: TextIO) -> bool:
    """Return whether a stream is a terminal that can do more than write one line below the other."""
    return file.isatty() and os.environ.get("TERM") != "dumb"


def wants_colour(choice: str, file: TextIO) -> bool:
    """Return whether to write colours: "always", "never", or "auto": to a terminal that knows them, without NO_COLOR."""
    if choice != "auto":
        return choice == "always"
    # Windows' own console knows them only once it is asked; the newer terminals say who they are.
    knows = sys.platform != "win32" or "WT_SESSION" in os.environ or "TERM" in os.environ
    return is_smart(file) and knows and not os.environ.get("NO_COLOR")


def paint(text: str, colour: str) -> str:
    """Return a text in a colour."""
    return f"\033[{CODES[colour]}m{text}\033[0m"


def quoted(words: Sequence[str]) -> str:
    """Return a command as it could be typed, as far as it has visible characters only, in one line."""
    return " ".join(printable(word if WORD.match(word) else "'" + word.replace("'", "'\\''") + "'") for word in words)


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]], file: TextIO, *, colour: str = "auto") -> None:
    """Print a table: on a terminal as wide as that is, anywhere else one row a line, in columns of blanks."""
    rows = [[printable(cell) for cell in row] for row in rows]
    if is_smart(file):
        print_rich(head, rows, file, colour=wants_colour(colour, file))
        return
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip(), file=file)


def print_rich(head: Sequence[str], rows: Sequence[Sequence[str]], file: TextIO, *, colour: bool) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in head:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    Console(file=file, color_system="auto" if colour else None, highlight=False).print(table)
