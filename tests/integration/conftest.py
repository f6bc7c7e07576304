"""The fixtures that these tests share with their neighbours."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support import processes
from support.behaviours import Runner
from support.fixtures import programs
from support.loops import in_threads, with_loop

import proc_sandbox as ps
from proc_sandbox import sandbox
from proc_sandbox.launcher import process

__all__ = ["in_threads", "programs", "with_loop"]


PRELUDE = """
import warnings
import proc_sandbox.sandbox
from proc_sandbox import BestEffort
warnings.simplefilter("ignore", proc_sandbox.UnenforcedWarning)
proc_sandbox.sandbox.DEFAULT = proc_sandbox.Config(backend={backend!r}, enforcement={enforcement!r})
"""
"""For callers that are processes of their own."""


@pytest.fixture
def a_new_launcher() -> Iterator[None]:
    """For tests that look at the launcher itself: the one that they have is nobody else's."""
    process.shutdown()
    yield
    process.shutdown()


@pytest.fixture(autouse=True)
def runs_of_the_backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """In modules that say EVERY_BACKEND: what names no Config runs on the backend that the test is for."""
    callspec = getattr(request.node, "callspec", None)
    if callspec and callspec.params.get("backend", "linux") != "linux":
        runner = Runner(callspec.params["backend"])
        config = {"backend": runner.backend, "enforcement": ps.best_effort(*runner.never_asked())}
        monkeypatch.setattr(sandbox, "DEFAULT", ps.Config(**config))
        monkeypatch.setattr(processes, "prelude", PRELUDE.format(**config))
