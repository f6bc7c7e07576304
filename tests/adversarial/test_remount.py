"""Kernels before 5.12 have no mount_setattr(2): the mounts get their attributes one by one, and are as tight.

Here that call is made to fail as it does there, so that any kernel shows it; Landlock, which would stand behind the mounts,
is taken out of the plan.
"""

from __future__ import annotations

import contextlib
import errno
import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.faults import run_with
from support.programs import ROOT, act, refusal, text

import proc_sandbox as ps

MISSING = ("-e", "trace=mount_setattr", "-e", "inject=mount_setattr:error=ENOSYS")


def without(options: str, word: str) -> str:
    return ",".join(option for option in options.split(",") if not re.fullmatch(word, option))


def before_5_12(plan: ps.Plan, *, writable: bool = False) -> subprocess.CompletedProcess[bytes]:
    """Carry out what would be planned there, where nothing can be idmapped; `writable`: with nothing read-only."""
    mounts = tuple(m._replace(options=without(m.options, "idmap=.*")) for m in plan.mounts)
    if writable:
        mounts = tuple(m._replace(options=without(m.options, "ro")) for m in mounts)
    return run_with(replace(plan, prefix=b"", mounts=mounts, landlock=None), *MISSING)


@contextlib.contextmanager
def mounted(place: Path, options: str = "mode=1777") -> Iterator[None]:
    """A tmpfs, with a file that everybody may write to."""
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size=1m,{options}", "tmpfs", place], check=True)
    try:
        (place / "file").write_text("content")
        (place / "file").chmod(0o666)
        yield
    finally:
        subprocess.run(["umount", place], check=True)


def rows(table: str, top: Path) -> dict[str, list[str]]:
    """Of each mount below a directory its fields in mountinfo, proc_pid_mountinfo(5)."""
    fields = (line.split(" - ")[0].split() for line in table.splitlines())
    return {row[4].replace(r"\040", " "): row[5:] for row in fields if row[4].startswith(str(top))}


@pytest.fixture
def top(tmp_path: Path) -> Path:
    """A directory to be granted, which everybody may search and write to."""
    for parent in (tmp_path, *tmp_path.parents[:2]):
        parent.chmod(0o755)
    directory = tmp_path / "top"
    directory.mkdir()
    directory.chmod(0o777)
    return directory


def test_without_mount_setattr_it_runs() -> None:
    done = before_5_12(ps.plan(["echo", "RAN"]))
    assert done.stdout == b"RAN\n", done


@pytest.mark.parametrize("place", ["/", "/usr", "/proc"])
def test_the_view_is_read_only(place: str) -> None:
    """Of the launcher's own directories as of the host's: whatever their modes say."""
    done = before_5_12(ps.plan(["cat", "/proc/self/mountinfo"]))
    lines = [line.split() for line in text(done).splitlines()]
    assert any(row[4] == place for row in lines), done
    assert "ro" in [row[5].split(",")[0] for row in lines if row[4] == place], done


@pytest.mark.skipif(not ROOT, reason="only root can mount")
@pytest.mark.parametrize("place", [".", "inner", "a name/with  spaces", "inner/innermost"])
def test_every_mount_below_stays_unwritable(top: Path, place: str) -> None:
    with mounted(top / "inner"), mounted(top / "a name/with  spaces"), mounted(top / "inner/innermost", "mode=1777,noatime"):
        for name in ("create", "write"):
            target = top / place / ("file" if name == "write" else "new")
            if place == ".":
                (top / "file").write_text("content")
                (top / "file").chmod(0o666)
            plan = ps.plan(act(name, target), allowed_dirs=[top])
            assert "ESCAPED" in text(before_5_12(plan, writable=True)), "the control: writable where nothing makes it read-only"
            (top / place / "new").unlink(missing_ok=True)
            done = before_5_12(plan)
            assert refusal(text(done)) == errno.EROFS, done


@pytest.mark.skipif(not ROOT, reason="only root can mount")
def test_attributes_are_added_and_none_is_lost(top: Path) -> None:
    plan = ps.plan(["cat", "/proc/self/mountinfo"], allowed_dirs=[top])
    with mounted(top / "inner", "noexec,noatime"):
        before = rows(Path("/proc/self/mountinfo").read_text(), top)
        inside = rows(text(before_5_12(plan)), top)
        after = rows(Path("/proc/self/mountinfo").read_text(), top)
    assert set(inside) == {str(top), str(top / "inner")}
    for options, *tags in inside.values():
        assert {"ro", "nosuid", "nodev"} <= set(options.split(","))
        assert tags == [], "private: what is mounted elsewhere does not come in"
    assert {"noexec", "noatime"} <= set(inside[str(top / "inner")][0].split(","))
    assert before == after, "the host's own mounts are as they were"


@pytest.mark.skipif(not ROOT, reason="only root can mount")
def test_a_file_alone_stays_unwritable(top: Path) -> None:
    (top / "file").write_text("content")
    (top / "file").chmod(0o666)
    plan = ps.plan(act("write", top / "file"), allowed_dirs=[top / "file"])
    assert "ESCAPED" in text(before_5_12(plan, writable=True)), "the control"
    assert refusal(text(before_5_12(plan))) == errno.EROFS


@pytest.mark.skipif(not ROOT, reason="only root can mount")
def test_a_mount_that_another_covers_is_left_alone(top: Path) -> None:
    """As an automounter's is by what it mounted; nothing can reach it."""
    with mounted(top / "inner"), mounted(top / "inner"), mounted(top / "inner"):
        plan = ps.plan(act("create", top / "inner/new"), allowed_dirs=[top])
        assert "ESCAPED" in text(before_5_12(plan, writable=True)), "the control"
        (top / "inner/new").unlink()
        assert refusal(text(before_5_12(plan))) == errno.EROFS


@pytest.mark.skipif(not ROOT, reason="only root can mount")
@pytest.mark.parametrize(("decoy", "code"), [(None, errno.ENOENT), ("directory", errno.EBUSY), ("mount", errno.EBUSY)])
def test_a_mount_that_is_not_where_the_table_says_ends_the_run(top: Path, decoy: str | None, code: int) -> None:
    """Somebody may rename directories meanwhile: here what was on the way to a mount is covered by something else."""
    plan = ps.plan(["echo", "RAN"], allowed_dirs=[top])
    with contextlib.ExitStack() as stack:
        stack.enter_context(mounted(top / "way/inner"))
        assert before_5_12(plan).stdout == b"RAN\n", "the control"
        stack.enter_context(mounted(top / "way"))
        if decoy:
            (top / "way/inner").mkdir()
        if decoy == "mount":
            stack.enter_context(mounted(top / "way/inner"))
        done = before_5_12(plan)
        assert b"RAN" not in done.stdout
        assert f"failed mount {top} errno {code}\n".encode() in done.stderr, done
