"""Hear what the package logs."""

from __future__ import annotations

import logging
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Records"]


class Records(logging.Handler):
    """Keeps the records of "proc_sandbox" from a level on, for the length of the block; seen: the records, in order."""

    def __init__(self, level: int) -> None:
        super().__init__()
        self.logger = logging.getLogger("proc_sandbox")
        self.wanted = level
        self.seen: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append(record)

    def lines(self) -> list[str]:
        """Return each record as level and message."""
        return [f"{record.levelname} {record.getMessage()}" for record in self.seen]

    def __enter__(self) -> Self:
        self.usual = self.logger.level
        self.logger.setLevel(self.wanted)
        self.logger.addHandler(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.logger.removeHandler(self)
        self.logger.setLevel(self.usual)
