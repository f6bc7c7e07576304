"""File systems that cannot be idmapped, as a container's root is: what can be done there, and what is said of the rest."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.programs import HANG, ROOT, inside, text

import proc_sandbox as ps

pytestmark = pytest.mark.skipif(not ROOT, reason="only root's command has a uid of its own")


@pytest.fixture
def overlay(tmp_path: Path) -> Iterator[Path]:
    """A directory on overlayfs, with a file that everybody can read."""
    for name in ("lower", "upper", "work", "merged"):
        (tmp_path / name).mkdir()
    (tmp_path / "lower" / "data").write_text("of the lower one\n")
    options = ",".join(f"{key}dir={tmp_path}/{key}" for key in ("lower", "upper", "work"))
    command = ["mount", "-t", "overlay", "overlay", "-o", options, str(tmp_path / "merged")]
    if subprocess.run(command, capture_output=True, timeout=HANG, check=False).returncode:
        pytest.skip("no overlayfs here")
    try:
        yield tmp_path / "merged"
    finally:
        subprocess.run(["umount", "--lazy", tmp_path / "merged"], check=True, timeout=HANG)


def test_to_read_needs_no_idmap(overlay: Path) -> None:
    assert text(inside(["cat", overlay / "data"], allowed_dirs=[overlay])) == "of the lower one\n"


def test_to_write_is_refused_with_a_remedy(overlay: Path) -> None:
    with pytest.raises(ps.UnsupportedError, match="idmapped") as caught:
        inside(["true"], working_dir=overlay)
    assert caught.value.field == "files"
    assert str(overlay) in caught.value.reason
    assert "tmpfs" in caught.value.remedy


def test_best_effort_runs_and_says_so(overlay: Path) -> None:
    overlay.chmod(0o777)
    with pytest.warns(ps.UnenforcedWarning, match="idmapped"):
        result = inside(["sh", "-c", "cat data; echo x > made"], working_dir=overlay, enforcement="best-effort")
    assert text(result) == "of the lower one\n"
    assert isinstance(result.enforcement["files"], ps.Unenforced)
    assert (overlay / "made").stat().st_uid >= 1000


def test_a_sandbox_is_its_runs_own_all_the_same(overlay: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No mount can show it so: it is given to the uid that its runs have."""
    monkeypatch.setattr(tempfile, "tempdir", str(overlay))
    with ps.Sandbox() as box:
        assert box.run(["sh", "-c", "echo kept > file"], check=True).ok
        result = box.run(["sh", "-c", "cat file; echo more >> file; stat -c %U . file"], check=True)
        assert text(result) == "kept\nsandbox\nsandbox\n"
        with ps.Sandbox() as other:
            other.run(["true"], check=True)
            owners = {os.stat(each.directory).st_uid for each in (box, other) if each.directory}
            assert len(owners) == 2
    assert not [entry for entry in overlay.iterdir() if entry.name.startswith("proc-sandbox")]
