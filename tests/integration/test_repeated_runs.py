"""What is kept from run to run is that of this launcher, and what a run keeps open is gone with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import proc_sandbox as ps
from proc_sandbox.backends import current, shutdown
from proc_sandbox.backends.unix import streams


def test_another_launcher_is_surveyed_for_anew() -> None:
    backend: Any = current("linux")
    ps.run(["true"])
    before = backend.known
    ps.run(["true"])
    assert backend.known is before
    shutdown()
    ps.run(["true"])
    assert backend.known.launcher is not before.launcher
    assert backend.known.surveys is not before.surveys


def test_a_program_that_goes_between_two_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    (tmp_path / "true").symlink_to("/bin/false")  # not visible inside
    for _ in range(2):
        assert ps.run(["true"]).exit_code == 0
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            ps.run([str(tmp_path / "true")])


@pytest.mark.parametrize("few", [0, 64])
def test_our_ends_of_pipes_change_nothing(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "FEW", few)
    result = ps.run(["sh", "-c", "echo out; echo err >&2; exec >&- 2>&-; sleep 0.05"], timeout=20)
    assert (result.stdout, result.stderr, result.exit_code) == (b"out\n", b"err\n", 0)
    assert ps.run(["cat"], input=b"x" * 200_000).stdout == b"x" * 200_000
    assert not streams.open_streams
