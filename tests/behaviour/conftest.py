"""One set of tests for every backend that is here."""

from __future__ import annotations

import pytest
from support.behaviours import Runner


@pytest.fixture
def run(backend: str) -> Runner:
    """run(), and Sandbox as run.sandbox(), for the backend; strict in every limit that is asked for."""
    return Runner(backend)
