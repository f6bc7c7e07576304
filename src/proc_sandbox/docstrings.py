"""The docstrings of Config's fields: what the help of the command line, the JSON Schema and docs/config.md say of each is written once.

Docstrings under fields exist only in the source, so this reads it: never for a run.
"""

from __future__ import annotations

import ast
import inspect
import textwrap

from proc_sandbox.config import Config

__all__ = ["first_paragraph", "of_fields"]


def of_fields() -> dict[str, str]:
    """Return each field's docstring; nothing where the source is not there, which nobody needs to run a command."""
    try:
        source = inspect.getsource(Config)
    except OSError:
        return {}
    body = ast.parse(textwrap.dedent(source)).body[0]
    assert isinstance(body, ast.ClassDef)
    found = {}
    for node, following in zip(body.body, body.body[1:], strict=False):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and isinstance(following, ast.Expr):
            assert isinstance(following.value, ast.Constant)
            found[node.target.id] = inspect.cleandoc(str(following.value.value).strip())
    return found


def first_paragraph(text: str) -> str:
    """Return the first paragraph of a docstring, in one line."""
    return " ".join(text.partition("\n\n")[0].split())
