"""The mechanics of the POSIX backend, where it is: these tests look inside of it. What it promises is tested in behaviour/."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from support.behaviours import Runner

if sys.platform == "win32":
    collect_ignore_glob = ["*"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("ignore::proc_sandbox.UnenforcedWarning"))


@pytest.fixture
def run() -> Runner:
    """run() of the POSIX backend."""
    return Runner("posix")
