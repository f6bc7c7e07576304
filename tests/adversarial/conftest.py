"""The fixtures that these tests share with their neighbours."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.fixtures import programs

from proc_sandbox.planner.linux import filesystem, planner

__all__ = ["programs"]


@pytest.fixture
def nothing_on_the_way(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Take out the mechanism that keeps the directories in which something hidden or read-only lies."""
    monkeypatch.setattr(filesystem, "on_the_way", lambda *_: ())
    planner.compile_base.cache_clear()
    planner.compiled.clear()
    yield
    planner.compile_base.cache_clear()
    planner.compiled.clear()
