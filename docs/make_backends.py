"""Write the table of backends in systems.md from what the tests recorded: python docs/make_backends.py. A test keeps it current."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent / "tests"))

from support.behaviours import PROMISES, differences
from support.pages import with_block

from proc_sandbox.planner.posix.promises import HELD_BY_SEATBELT, UNLIKE_LINUX

BEGIN = "<!-- backends: written by docs/make_backends.py from docs/behaviours.json -->"
END = "<!-- end of backends -->"


def table(columns: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """Yield the lines of promises x backends."""
    names = sorted(columns)
    yield f"| promise | {' | '.join(names)} |"
    yield "|---" * (len(names) + 1) + "|"
    for promise, text in PROMISES.items():
        cells = (columns[name].get(promise, "not tried").partition(":")[0] for name in names)
        yield f"| {text} | {' | '.join(cells)} |"


def reasons(backend: str) -> Iterator[str]:
    """Yield what a backend does not promise, and why; and where what it promises ends."""
    yield f"What `{backend}` does not promise:"
    yield ""
    for promise, why in differences(backend, "").items():
        yield f"- {PROMISES[promise]}: {why}"
    weaker = importlib.import_module(f"proc_sandbox.planner.{backend}.promises").WEAKER
    if weaker:
        yield ""
        yield f"Where a promise of `{backend}` ends:"
        yield ""
    for promise, texts in weaker.items():
        yield f"- {PROMISES[promise]}: {'; '.join(texts)}"


def reasons_on_mac() -> Iterator[str]:
    """Yield what is otherwise on macOS, where nobody has tried it yet."""
    yield "On macOS `posix` has Seatbelt, and is not Linux (none of it was tried on a Mac yet):"
    yield ""
    for promise in HELD_BY_SEATBELT:
        yield f"- {PROMISES[promise]}: by Seatbelt"
    for item in UNLIKE_LINUX:
        yield f"- `{item.about}`: {item.text}"


def block(columns: Mapping[str, Mapping[str, str]]) -> str:
    """Return all that stands between the marks."""
    lines = [*table(columns), "", *reasons("posix"), "", *reasons_on_mac(), "", *reasons("windows")]
    return "\n".join(lines)


def with_table(text: str, columns: Mapping[str, Mapping[str, str]]) -> str:
    """Return a page with all of it between its marks."""
    return with_block(text, BEGIN, END, block(columns))


if __name__ == "__main__":
    page = DOCS / "systems.md"
    recorded = json.loads((DOCS / "behaviours.json").read_text(encoding="utf-8"))
    page.write_text(with_table(page.read_text(encoding="utf-8"), recorded), encoding="utf-8")
