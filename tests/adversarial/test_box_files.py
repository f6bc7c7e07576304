"""Sandbox.write() and read() while the commands do their worst to lead the caller out of the box, or to keep it waiting."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.programs import HANG, ROOT, python

import proc_sandbox as ps
from proc_sandbox.backends.unix import files


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A directory of the caller's with a file, which no Config names."""
    directory = tmp_path / "victim"
    directory.mkdir()
    (directory / "file").write_text("the caller's")
    return directory


@pytest.fixture(params=["private", "working_dir"])
def box(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[ps.Sandbox, Path]]:
    """A Sandbox, and its directory on the host."""
    (tmp_path / "work").mkdir()
    with ps.Sandbox(**({} if request.param == "private" else {"working_dir": tmp_path / "work"})) as made:
        yield made, Path(made.directory or tmp_path / "work")


Box = tuple[ps.Sandbox, Path]


def test_no_link_is_followed(box: Box, victim: Path) -> None:
    made, place = box
    made.run(["sh", "-c", f"ln -s {victim} dir; ln -s {victim}/file link; ln -s {victim}/new dangling; ln -s . self"], check=True)
    assert (place / "link").read_text() == "the caller's", "the control"
    assert (place / "dir" / "file").read_text() == "the caller's"
    for path in ("link", "dir/file", "dangling", "self/link"):
        with pytest.raises(OSError, match="link") as caught:
            made.read(path)
        assert caught.value.errno == errno.ELOOP
    for path in ("dir/file", "dir/new", "self/new"):
        with pytest.raises(OSError, match="link"):
            made.write(path, "owned")
    for path in ("link", "dangling"):
        made.write(path, "inside")
        assert made.read(path) == b"inside", "the link was replaced"
    assert os.listdir(victim) == ["file"]
    assert (victim / "file").read_text() == "the caller's"


def test_nothing_but_a_file_is_opened(box: Box) -> None:
    made, _ = box
    made.run(["sh", "-c", "mkfifo fifo"], check=True)
    made.run(python("import socket; socket.socket(socket.AF_UNIX).bind('socket')"), check=True)
    for path in ("fifo", "socket"):
        with pytest.raises(OSError, match="not a regular file"):
            made.read(path)
        made.write(path, "now a file")
        assert made.read(path) == b"now a file"


def test_a_fifo_that_comes_at_the_last_moment_keeps_nobody_waiting(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    made, place = box
    made.write("file", "x")
    plain = files.check_readable

    def swap(*rest: object) -> None:
        plain(*rest)  # type: ignore[arg-type]
        if (place / "file").is_file():
            (place / "file").unlink()
            os.mkfifo(place / "file")

    monkeypatch.setattr(files, "check_readable", swap)
    with pytest.raises(OSError, match="not a regular file"):
        made.read("file")


SWAP = """
import ctypes, os, sys
# A directory and a link to the caller's change places, as fast as it goes.
libc = ctypes.CDLL(None, use_errno=True)
victim = sys.argv[1]
os.makedirs("a", exist_ok=True)
os.symlink(victim, "b")
open("a/file", "w").write("inside")
print("up", flush=True)
while True:
    libc.renameat2(-100, b"a", -100, b"b", 2)
"""


def test_no_swap_of_a_directory_with_a_link_leads_out(box: Box, victim: Path) -> None:
    """The control: who opens the path is led to the caller's file within moments."""
    made, place = box
    up = threading.Event()

    class Heard:
        def write(self, data: bytes) -> None:
            up.set()

    runner = threading.Thread(target=lambda: made.run(python(SWAP, str(victim)), stdout=Heard(), timeout=HANG))
    runner.start()
    try:
        assert up.wait(HANG)
        seen: set[str] = set()
        while seen != {"inside", "the caller's"}:
            seen.add((place / "a" / "file").read_text())
        refused = read = written = 0
        while not (refused > 50 and read > 50 and written > 50):
            try:
                assert made.read("a/file") in (b"inside", b"from outside")
                read += 1
                made.write("a/file", "from outside")
                written += 1
            except OSError as error:
                assert error.errno in (errno.ELOOP, errno.ENOTDIR, errno.ENOENT), error
                refused += 1
    finally:
        made.cleanup()
        runner.join(HANG)
    assert os.listdir(victim) == ["file"]
    assert (victim / "file").read_text() == "the caller's"


@pytest.mark.skipif(not ROOT, reason="a file of somebody else's that this process may read")
def test_another_name_of_somebody_elses_file_is_not_read(tmp_path: Path) -> None:
    """Where a run has no view of its own, link(2) may give it one (fs.protected_hardlinks=0)."""
    work = tmp_path / "work"
    work.mkdir()
    os.chown(work, 12345, 12345)
    (tmp_path / "secret").write_text("the secret")
    os.link(tmp_path / "secret", work / "name")
    (work / "own").write_text("own")
    os.chown(work / "own", 12345, 12345)
    os.link(work / "own", work / "second")
    assert (work / "name").read_text() == "the secret"
    with ps.Sandbox(working_dir=work) as box:
        with pytest.raises(PermissionError, match="somebody else"):
            box.read("name")
        assert box.read("second") == b"own"
        box.write("name", "replaced")
        box.write("second", "replaced")
    assert (tmp_path / "secret").read_text() == "the secret"
    assert (work / "own").read_text() == "own"


def test_a_directory_that_was_moved_away_is_written_where_it_is(tmp_path: Path) -> None:
    """Who has been given the directory around the Sandbox's can put a link in its place: it is held by its descriptor."""
    victim = tmp_path / "victim"
    victim.mkdir()
    with ps.Sandbox() as box:
        box.write("file", "x")
        assert box.directory
        moved = Path(box.directory + "-moved")
        Path(box.directory).rename(moved)
        try:
            Path(box.directory).symlink_to(victim)
            with pytest.raises(ps.LaunchError):
                box.write("file", "y")
        finally:
            Path(box.directory).unlink()
            moved.rename(box.directory)
    assert os.listdir(victim) == []
