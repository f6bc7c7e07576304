"""The one launcher of a process: begun before it is needed, greeted once, and never kept when it is no good."""

import os
import signal
from collections.abc import Iterator

import pytest

import proc_sandbox as ps
from proc_sandbox.launcher import process


@pytest.fixture(autouse=True)
def a_new_one() -> Iterator[None]:
    process.shutdown()
    yield
    process.shutdown()


def test_one_that_was_begun_is_the_one_that_is_used() -> None:
    process.begin()
    begun = process.launchers[True]
    assert not begun.greeting
    assert process.launcher() is begun
    assert begun.greeting
    process.begin()
    assert process.launcher() is begun


def test_one_that_dies_before_it_greets_is_not_kept() -> None:
    process.begin()
    begun = process.launchers[True]
    begun.socket.recv(4096)  # so that nothing is left to read but the end
    os.kill(begun.pid, signal.SIGKILL)
    with pytest.raises(ps.LauncherDiedError, match="did not answer"):
        process.launcher()
    assert not process.launchers
    assert ps.run(["true"]).ok
