"""In which line of a TOML file a key is, which its reader does not tell."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

__all__ = ["Lines", "lines_of"]

Lines = dict[tuple[str, ...], int]
"""The line of each table and key, by its path."""
TOKEN = re.compile(
    r"""
    (?P<string> \"{3} (?: \\. | [^\\] )*? \"{3,5} | '{3} .*? '{3,5} | " (?: \\. | [^"\\\n] )* " | ' [^'\n]* ' )
    | (?P<comment> \# [^\n]* ) | (?P<mark> [\[\]{}=,\n] ) | (?P<bare> [A-Za-z0-9_.-]+ )
    """,
    re.DOTALL | re.VERBOSE,
)
PART = re.compile(r"""("(?:\\.|[^"\\])*")|'([^']*)'|([A-Za-z0-9_-]+)""")


@dataclass
class Scope:
    """Where keys are read: the file below a head, an inline table, or an array, whose tables have no path."""

    kind: str
    path: tuple[str, ...] | None


class Reader:
    """Goes through the tokens of a text that is TOML."""

    def __init__(self) -> None:
        self.found: Lines = {}
        self.scopes = [Scope("file", ())]
        self.words: list[str] = []
        self.key: tuple[str, ...] | None = ()
        self.in_value = False

    def take(self, mark: str | None, text: str, line: int) -> None:
        """Take the next token; mark: None if it is part of a key or a value."""
        scope = self.scopes[-1]
        if mark == "\n":
            if scope.kind == "file":
                self.begin()
        elif mark in ("]", "}") and scope.kind != "file":
            self.scopes.pop()
            self.in_value = True
        elif self.in_value:
            self.take_in_value(mark, scope)
        elif mark == "]":
            self.take_head(line)
        elif mark == "=":
            self.key = None if scope.path is None else (*scope.path, *parts(self.words))
            self.record(self.key or (), line)
            self.words, self.in_value = [], True
        elif mark is None:
            self.words.append(text)

    def begin(self) -> None:
        """A key is next."""
        self.words, self.in_value = [], False

    def take_in_value(self, mark: str | None, scope: Scope) -> None:
        if mark == "[":
            self.scopes.append(Scope("array", None))
        elif mark == "{":
            self.scopes.append(Scope("table", None if scope.kind == "array" else self.key))
            self.begin()
        elif mark == "," and scope.kind == "table":
            self.begin()

    def take_head(self, line: int) -> None:
        if self.words:  # of [[name]] the second bracket has none
            self.scopes[0].path = parts(self.words)
            self.record(parts(self.words), line)
            self.words = []

    def record(self, path: tuple[str, ...], line: int) -> None:
        for count in range(1, len(path) + 1):
            self.found.setdefault(path[:count], line)


def lines_of(text: str) -> Lines:
    """Return the line of each table and key in a text that is TOML; of a table in an array no line is told."""
    reader, line, position = Reader(), 1, 0
    for token in TOKEN.finditer(text):
        line += text.count("\n", position, token.start())
        position = token.start()
        if not token["comment"]:
            reader.take(token["mark"], token[0], line)
    return reader.found


def parts(words: list[str]) -> tuple[str, ...]:
    """Return the keys of a dotted one."""
    found = PART.findall("".join(words))
    return tuple(unquoted(basic) if basic else literal or bare for basic, literal, bare in found)


def unquoted(basic: str) -> str:
    """Return what a quoted key says. TOML's escapes are JSON's, but for one of eight digits."""
    as_json = re.sub(r"((?:^|[^\\])(?:\\\\)*)\\U([0-9a-fA-F]{8})", lambda found: found[1] + json.dumps(chr(int(found[2], 16)))[1:-1], basic)
    return str(json.loads(as_json, strict=False))  # a tab may stand there as it is
