"""Write config.md from the docstrings of Config's fields: python docs/make_reference.py. A test keeps it current."""

from __future__ import annotations

from pathlib import Path

from proc_sandbox.docstrings import of_fields

HEAD = """# Config

Every limit and grant, as `docs/make_reference.py` reads them from the source. Give them to `ps.run(...)`, `ps.Sandbox(...)` or
`ps.Config(...)`; on the command line `memory_limit` is `--memory-limit`.
"""


def reference() -> str:
    """Return the page."""
    return HEAD + "".join(f"\n## {name}\n\n{text}\n" for name, text in of_fields().items())


if __name__ == "__main__":
    Path(__file__).with_name("config.md").write_text(reference(), encoding="utf-8")
