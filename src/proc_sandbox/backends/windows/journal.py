"""What was changed on this machine for a run, written down before it is done: so that a later caller can undo it.

A file for each run, in a directory of the user's own. The caller holds it open as long as the run is alive, by a handle that lets nobody
rename it (no FILE_SHARE_DELETE, which Python's open() never gives; "CreateFileW"). When the caller dies, however that may be, the
system closes the handle: the next caller of the same user renames the file, which only one can, undoes what it says and removes it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import IO

__all__ = ["Entry", "Journal"]

NAME = re.compile(r"run-[0-9a-f]{16}(-[0-9a-f]{16})?\.json\Z")


@dataclass
class Entry:
    """What one run has changed: its AppContainer's profile, paths with entries of a SID, paths with a label, labels as they were."""

    profile: str = ""
    sid: str = ""
    paths: list[str] = field(default_factory=list)
    labelled: list[str] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)


class Written:
    """An entry of ours in the journal: changed by write(), gone with done()."""

    def __init__(self, path: str, entry: Entry) -> None:
        self.path = path
        self.entry = entry
        self.file: IO[str] | None = open(path, "x", encoding="utf-8")  # noqa: SIM115 - held as long as the run is alive
        self.write()

    def write(self) -> None:
        """Have on the disk what the entry says now: a line more, so that the last one is whole until the next one is."""
        assert self.file
        self.file.write(json.dumps(asdict(self.entry)) + "\n")
        self.file.flush()
        os.fsync(self.file.fileno())

    def remember_label(self, path: str, label: str) -> None:
        """Write down a label before it is changed; what is written down is what was there at first."""
        if path not in self.entry.labels:
            self.entry.labels[path] = label
            self.write()

    def leave(self) -> None:
        """Close it and let it lie: what could not be undone is left to the next caller."""
        if self.file:
            self.file.close()
            self.file = None

    def done(self) -> None:
        """Remove it: everything has been undone."""
        self.leave()
        with contextlib.suppress(FileNotFoundError):  # another caller has it, to whom it looked left behind
            os.unlink(self.path)


class Journal:
    """The entries of all callers of this user."""

    def __init__(self, directory: str) -> None:
        self.directory = directory

    def begin(self, entry: Entry) -> Written:
        """Write down what is about to be done."""
        os.makedirs(self.directory, exist_ok=True)
        return Written(os.path.join(self.directory, f"run-{secrets.token_hex(8)}.json"), entry)

    def sweep(self, undo: Callable[[Entry], None]) -> None:
        """Undo what callers that died have left. What cannot be undone stays and is tried again; it keeps nobody from running."""
        for path in self.left():
            # Its owner lives, or another caller was faster: at any moment in which nobody holds it, for what is renamed is an entry still.
            with contextlib.suppress(FileNotFoundError, PermissionError):
                settle(claim(path), undo)

    def left(self) -> Iterator[str]:
        with contextlib.suppress(FileNotFoundError):
            yield from [os.path.join(self.directory, name) for name in os.listdir(self.directory) if NAME.match(name)]


def settle(path: str, undo: Callable[[Entry], None]) -> None:
    """Undo what an entry says, and remove it."""
    with open(path, encoding="utf-8") as file:  # held: nobody else takes it from us
        try:
            entry = parse(file.read())
            if entry:
                undo(entry)
        except (OSError, ValueError) as error:
            warnings.warn(f"what a killed caller has changed could not be undone: {path}: {error}", ResourceWarning, stacklevel=3)
            return
    os.unlink(path)


def claim(path: str) -> str:
    """Rename an entry, which cannot be done while somebody holds it; return its new path."""
    head = os.path.basename(path)[: len("run-") + 16]
    claimed = os.path.join(os.path.dirname(path), f"{head}-{secrets.token_hex(8)}.json")
    os.rename(path, claimed)
    return claimed


def parse(text: str) -> Entry | None:
    """Return the last entry that is whole; None where the caller died before the first one was, and so had done nothing.

    Raises:
        ValueError: another version has written it.
    """
    lines = text.split("\n")[:-1]
    try:
        return Entry(**json.loads(lines[-1])) if lines else None
    except TypeError as error:
        raise ValueError(str(error)) from None
