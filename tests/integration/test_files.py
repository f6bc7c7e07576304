"""Sandbox.write() and read(): what the caller puts there is the commands', and what they make can be taken."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest
from support.programs import MEGABYTE, text

import proc_sandbox as ps

EVERY_BACKEND = True


def test_commands_read_and_write_what_the_caller_wrote() -> None:
    with ps.Sandbox() as box:
        box.write("main.sh", "cat data/in; echo more >> data/in; mkdir data/new; echo own > data/new/file\n")
        box.write("data/in", b"bytes\n")
        box.write("tool", "#!/bin/sh\necho run\n", mode=0o755)
        assert text(box.run(["sh", "main.sh"], check=True)) == "bytes\n"
        assert text(box.run(["./tool"], check=True)) == "run\n"
        assert box.read("data/in") == b"bytes\nmore\n"
        assert box.read(Path("data") / "new" / "file") == b"own\n"


def test_it_is_written_before_the_first_run_and_with_any_mode() -> None:
    with ps.Sandbox() as box:
        box.write("deep/er/secret", "kept", mode=0o600)
        assert text(box.run(["cat", "deep/er/secret"], check=True)) == "kept"
        box.run(["sh", "-c", "rm -r deep"], check=True)


def test_what_is_there_is_replaced() -> None:
    with ps.Sandbox() as box:
        box.write("file", "long content")
        box.write("file", "short", mode=0o640)
        assert box.read("file") == b"short"
        assert text(box.run(["stat", "-c", "%a", "file"], check=True)) == "640\n"
        assert text(box.run(["ls", "-A"], check=True)) == "file\n", "nothing else is left there"
        box.write("empty", b"")
        assert box.read("empty") == b""


def test_names_by_which_the_directory_is_known(backend: str) -> None:
    with ps.Sandbox() as box:
        start = text(box.run(["pwd"], check=True)).strip()
        box.write(f"{start}/src/a", "1")
        assert box.read("src/a") == b"1"
        assert box.read(f"{box.directory}/src/a") == b"1"
        for elsewhere in ("/etc/passwd", "../a", f"{start}/../x"):
            with pytest.raises(ps.ConfigError) as caught:
                box.read(elsewhere)
            assert caught.value.field == "path"


def test_a_working_directory_of_the_callers(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with ps.Sandbox(working_dir=tmp_path / "link") as box:
        box.write("sub/a", "x")
        assert (tmp_path / "real" / "sub" / "a").read_text() == "x"
        assert text(box.run(["cat", "sub/a"], check=True)) == "x"
        assert box.read(tmp_path / "link" / "sub" / "a") == b"x"
        box.run(["sh", "-c", "echo y > sub/b"], check=True)
        assert box.read("sub/b") == b"y\n"


def test_reading_is_bounded() -> None:
    with ps.Sandbox() as box:
        box.run(["sh", "-c", "truncate -s 1T large; head -c 100 /dev/zero > small"], check=True)
        with pytest.raises(OSError, match="pass a larger max_size") as caught:
            box.read("large")
        assert caught.value.errno == errno.EFBIG
        assert len(box.read("small", max_size=100)) == 100
        with pytest.raises(OSError, match="99 bytes"):
            box.read("small", max_size=99)
        box.write("much", bytes(3 * MEGABYTE))
        assert len(box.read("much", max_size="3M")) == 3 * MEGABYTE
        with pytest.raises(ps.ConfigError):
            box.read("small", max_size="big")


def test_what_is_missing_or_no_file_is_told() -> None:
    with ps.Sandbox() as box:
        box.run(["mkdir", "dir"], check=True)
        with pytest.raises(FileNotFoundError):
            box.read("missing")
        with pytest.raises(FileNotFoundError):
            box.read("no/dir")
        with pytest.raises(OSError, match="not a regular file"):
            box.read("dir")
        with pytest.raises(IsADirectoryError):
            box.write("dir", "x")
        box.write("file", "x")
        with pytest.raises(NotADirectoryError):
            box.write("file/below", "x")
        assert text(box.run(["ls", "-A"], check=True)) == "dir\nfile\n"
    for act in (lambda: box.read("file"), lambda: box.write("file", "x")):
        with pytest.raises(ps.SandboxClosedError):
            act()


def test_what_is_made_belongs_to_the_directorys_owner(tmp_path: Path) -> None:
    """As what commands make does; the umask of the caller says nothing of the file."""
    if os.geteuid() == 0:
        os.chown(tmp_path, 12345, 12345)
    before = os.umask(0o077)
    try:
        with ps.Sandbox(working_dir=tmp_path) as box:
            box.write("a/b", "x", mode=0o664)
    finally:
        os.umask(before)
    for made in (tmp_path / "a", tmp_path / "a" / "b"):
        assert (made.stat().st_uid, made.stat().st_gid) == (tmp_path.stat().st_uid, tmp_path.stat().st_gid)
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o664
