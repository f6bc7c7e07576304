"""The code blocks of a Markdown page, and what the page says of them.

    ```python                       runs in a fresh interpreter, in the page's own temporary directory
    ```python title="solve.py"      a file of that name in that directory (any language may have a title)
    ```console                      lines after "$ " run through sh, "> " goes on; what stands between is what they print
    ```text                         right after a python block: what that prints
    <!-- not run: why -->           on the line above a block: it is not run

In what is printed "..." stands for anything, on a line of its own for any lines. The blocks of a page run in order.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

__all__ = ["LANGUAGES", "Block", "blocks_of", "matches", "run_block"]

LANGUAGES = {"python", "console", "text", "toml", "c", "json", "ini", "yaml", "dockerfile"}
"""What a block may be. Not among them: sh and bash, which would not be run."""
PATIENCE = 120
"""Seconds that one block may take; it guards against hanging only."""
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>[\w+-]*)(?P<rest>[^\n`]*)\n(?P<body>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
NOT_RUN = re.compile(r"<!-- not run: (?P<why>[^\n]+) -->\n+\Z")
TITLE = re.compile(r'title="([^"]+)"')


class Block(NamedTuple):
    """One block. line: where it begins; why: it is not run, else ""; title: the file it is, else ""; prints: what it prints, or None."""

    line: int
    language: str
    body: str
    why: str
    title: str
    prints: str | None


def blocks_of(text: str) -> Iterator[Block]:
    """Yield the blocks of a page, in order."""
    found = list(FENCE.finditer(text))
    for match, following in zip_longest(found, found[1:]):
        reason = NOT_RUN.search(text, 0, match.start())
        title = TITLE.search(match["rest"])
        prints = None
        if following and following["language"] == "text" and not text[match.end() : following.start()].strip():
            prints = following["body"]
        indent = re.compile(f"^{match['indent']}", re.MULTILINE)
        yield Block(
            line=text.count("\n", 0, match.start()) + 1,
            language=match["language"],
            body=indent.sub("", match["body"]),
            why=reason["why"] if reason else "",
            title=title[1] if title else "",
            prints=prints,
        )


def matches(said: str, shown: str) -> bool:
    """Return whether a program said what the page shows."""
    parts = []
    for line in shown.splitlines():
        if line.strip() == "...":
            parts.append(r"(?:.*\n)*")
        else:
            parts.append(".*".join(map(re.escape, line.rstrip().split("..."))) + r"[ \t]*\n")
    return re.fullmatch("".join(parts), said if said.endswith("\n") or not said else said + "\n") is not None


def run_block(block: Block, directory: Path) -> None:
    """Run a block in its page's directory.

    Raises:
        AssertionError: it fails, or prints something else than the page shows.
    """
    if block.why:
        return
    if block.title:
        (directory / block.title).write_text(block.body, encoding="utf-8")
    elif block.language == "python":
        said = output_of([sys.executable, "-W", "error", "-c", block.body], directory)
        check(block, block.prints, said)
    elif block.language == "console":
        for command, shown in commands_of(block.body):
            check(block, shown or None, output_of(["sh", "-c", command], directory))


def commands_of(body: str) -> Iterator[tuple[str, str]]:
    """Yield each command of a console block, and what the page shows after it."""
    command, shown = "", ""
    for line in body.splitlines(keepends=True):
        if line.startswith("$ "):
            if command:
                yield command, shown
            command, shown = line[2:], ""
        elif line.startswith("> ") and not shown:
            command += line[2:]
        else:
            shown += line
    if command:
        yield command, shown


def output_of(command: list[str], directory: Path) -> str:
    """Run a command and return what it printed, to both streams.

    Raises:
        AssertionError: it ended with another status than 0.
    """
    tools = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    done = subprocess.run(
        command, cwd=directory, env={**os.environ, "PATH": tools}, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=PATIENCE, check=False,
    )  # fmt: skip
    said = done.stdout.decode("utf-8", "replace")
    assert done.returncode == 0, f"{command[-1]}\nended with {done.returncode}:\n{said}"
    return said


def check(block: Block, shown: str | None, said: str) -> None:
    assert shown is None or matches(said, shown), f"line {block.line} shows:\n{shown}\nand it printed:\n{said}"
