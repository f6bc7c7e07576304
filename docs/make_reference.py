"""Write config.md from the docstrings of Config's fields: python docs/make_reference.py. A test keeps it current."""

from __future__ import annotations

import ast
import inspect
import textwrap
from pathlib import Path

import proc_sandbox as ps

HEAD = """# Config

Every limit and grant, as `docs/make_reference.py` reads them from the source. Give them to `ps.run(...)`, `ps.Sandbox(...)` or
`ps.Config(...)`; on the command line `memory_limit` is `--memory-limit`.
"""


def fields() -> dict[str, str]:
    """Return each field's docstring."""
    body = ast.parse(textwrap.dedent(inspect.getsource(ps.Config))).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for node, following in zip(body.body, body.body[1:], strict=False):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and isinstance(following, ast.Expr):
            assert isinstance(following.value, ast.Constant)
            found[node.target.id] = inspect.cleandoc(str(following.value.value).strip())
    return found


def reference() -> str:
    """Return the page."""
    return HEAD + "".join(f"\n## {name}\n\n{text}\n" for name, text in fields().items())


if __name__ == "__main__":
    Path(__file__).with_name("config.md").write_text(reference(), encoding="utf-8")
