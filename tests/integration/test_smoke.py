"""The main promises in one page, through the public API."""

from __future__ import annotations

from pathlib import Path

import pytest

import proc_sandbox as ps


def test_output_and_exit_code() -> None:
    result = ps.run(["sh", "-c", "echo out; echo err >&2; exit 3"])
    assert (result.exit_code, result.stdout, result.stderr) == (3, b"out\n", b"err\n")
    assert result.reason is ps.Reason.EXITED


def test_timeout() -> None:
    result = ps.run(["sleep", "60"], timeout=0.3)
    assert result.timed_out
    assert result.reason is ps.Reason.TIMEOUT


def test_memory() -> None:
    result = ps.run(["python3", "-c", "x = bytearray(200 << 20)"], memory_limit="50M", timeout=60)
    assert result.memory_exceeded
    assert result.reason is ps.Reason.MEMORY


def test_killing_itself_is_no_limit() -> None:
    result = ps.run(["sh", "-c", "kill -9 $$"], memory_limit="50M")
    assert (result.signal, result.memory_exceeded, result.timed_out) == (9, False, False)


@pytest.mark.usefixtures("idmap")
def test_host_file_is_out_of_reach(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    assert ps.run(["cat", str(secret)]).exit_code == 1
    assert ps.run(["cat", str(secret)], allowed_dirs=[tmp_path]).stdout == b"x"


def test_working_directory(tmp_path: Path) -> None:
    result = ps.run(["sh", "-c", "echo made > file; pwd"], working_dir=tmp_path)
    assert result.stdout.text().strip() == str(tmp_path)
    assert (tmp_path / "file").stat().st_uid == tmp_path.stat().st_uid


def test_missing_command() -> None:
    with pytest.raises(FileNotFoundError):
        ps.run(["no-such-command"])
