"""The files that a command sees: what the Config names, where it lies, and the system's own; nothing else."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from support.programs import READ_ONLY, ROOT, act, assert_refused, inside, python, text

import proc_sandbox as ps


def test_the_working_directory_is_at_its_own_path(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("given")
    result = inside(["sh", "-c", "pwd; cat in; echo made > out"], working_dir=tmp_path, check=True)
    assert text(result) == f"{tmp_path}\ngiven"
    assert (tmp_path / "out").read_text() == "made\n"


def test_none_means_a_private_directory_that_vanishes() -> None:
    first = inside(["sh", "-c", "pwd; ls -A; echo x > file; cat file"], check=True)
    assert text(first) == "/tmp/work\nx\n"
    assert text(inside(["ls", "-A", "/tmp/work", "/tmp"], check=True)).count("file") == 0


def test_runs_share_no_private_files() -> None:
    script = "for d in /tmp /dev/shm $HOME; do ls -A $d; touch $d/left; done"
    with ps.Sandbox() as box:
        listings = {text(box.run(["sh", "-c", script], check=True)) for _ in range(3)}
    assert len(listings) == 1
    assert "left" not in listings.pop()


def test_what_the_command_makes_belongs_to_the_directorys_owner(tmp_path: Path) -> None:
    script = "touch file; mkdir directory; ln -s file link; touch directory/below"
    inside(["sh", "-c", script], working_dir=tmp_path, check=True)
    owner = tmp_path.stat()
    for made in (tmp_path / "file", tmp_path / "directory", tmp_path / "link", tmp_path / "directory" / "below"):
        assert (made.lstat().st_uid, made.lstat().st_gid) == (owner.st_uid, owner.st_gid)
    inside(["sh", "-c", "echo again >> file; rm -r directory"], working_dir=tmp_path, check=True)
    assert (tmp_path / "file").read_text() == "again\n"


@pytest.mark.skipif(not ROOT, reason="only root can give a directory away")
def test_the_owner_may_be_anybody(tmp_path: Path) -> None:
    theirs, cache = tmp_path / "theirs", tmp_path / "cache"
    for directory, owner in ((theirs, 4321), (cache, 4322)):
        directory.mkdir(mode=0o700)
        (directory / "secret").write_text("s")
        (directory / "secret").chmod(0o600)
        for path in (directory / "secret", directory):
            os.chown(path, owner, owner)
    script = f"cat secret {cache}/secret && touch made {cache}/made && id -u"
    result = inside(["sh", "-c", script], working_dir=theirs, writable_dirs=[cache])
    assert text(result) == "ss1000\n", result
    assert (theirs / "made").stat().st_uid == 4321
    assert (cache / "made").stat().st_uid == 4322


@pytest.mark.usefixtures("idmap")
@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_file_of_the_callers_alone_is_readable_when_named(tmp_path: Path, mode: int) -> None:
    directory = tmp_path / "closed"
    directory.mkdir()
    secret = directory / "secret"
    secret.write_text("readable")
    secret.chmod(mode)
    directory.chmod(0o700)
    for grant in ({"allowed_dirs": [directory]}, {"read_only_dirs": [directory]}, {"allowed_dirs": [secret]}):
        assert text(inside(["cat", secret], **grant)) == "readable", grant


def test_parents_of_what_is_named_need_not_be_open(tmp_path: Path) -> None:
    """As /root is for root: 0700, and yet the directory below it was named."""
    closed = tmp_path / "home"
    project = closed / "deep" / "project"
    project.mkdir(parents=True)
    (closed / "other").write_text("hidden")
    (project / "file").write_text("seen\n")
    closed.chmod(0o700)
    result = inside(["sh", "-c", f"cat file; ls {closed}"], working_dir=project)
    assert text(result).split() == ["seen", "deep"], result


@pytest.mark.usefixtures("idmap")
def test_granted_to_read_is_not_granted_to_write(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("as it was")
    for field in ("allowed_dirs", "read_only_dirs"):
        assert text(inside(["cat", target], **{field: [tmp_path]})) == "as it was"
        for name, path in (("write", target), ("create", tmp_path / "new"), ("unlink", target), ("truncate", target)):
            assert_refused(inside(act(name, path), **{field: [tmp_path]}), READ_ONLY)
    assert target.read_text() == "as it was"
    assert list(tmp_path.iterdir()) == [target]


def test_writable_is_writable(tmp_path: Path) -> None:
    result = inside(["sh", "-c", f"echo x > {tmp_path}/new && cat {tmp_path}/new"], writable_dirs=[tmp_path])
    assert text(result) == "x\n", result
    assert (tmp_path / "new").stat().st_uid == tmp_path.stat().st_uid


def test_read_only_below_writable_and_the_other_way_round(tmp_path: Path) -> None:
    kept, work = tmp_path / "kept", tmp_path / "kept" / "work"
    work.mkdir(parents=True)
    script = "touch a; touch kept/b; touch kept/work/c; true"
    inside(["sh", "-c", script], working_dir=tmp_path, read_only_dirs=[kept], writable_dirs=[work])
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("?")) == ["a", "kept/work/c"]


def test_a_single_file_may_be_granted(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("1")
    other.write_text("2")
    result = inside(["sh", "-c", f"cat {one}; cat {other}"], allowed_dirs=[one])
    assert result.stdout == b"1"
    assert result.exit_code == 1
    assert inside(["sh", "-c", f"echo new > {one}"], writable_dirs=[one]).ok
    assert one.read_text() == "new\n"


def test_relative_paths_and_duplicates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "file").write_text("d")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path)
    result = inside(["cat", f"{data}/file"], working_dir="work", allowed_dirs=["data", "./data/", data, "work/../data"])
    assert result.stdout == b"d"
    assert text(inside(["pwd"], working_dir="work")) == f"{tmp_path}/work\n"


def test_benign_links_on_the_way_are_followed(tmp_path: Path) -> None:
    """The caller's own links, as /var/run -> /run: resolved on the host, before anything is mounted."""
    real = tmp_path / "real" / "deep"
    real.mkdir(parents=True)
    (real / "file").write_text("found")
    (tmp_path / "a").symlink_to("real")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    (tmp_path / "c").symlink_to("b/deep")
    (tmp_path / "d").symlink_to("c/file")
    for grant, path in ((tmp_path / "c", tmp_path / "c" / "file"), (tmp_path / "d", tmp_path / "d")):
        assert text(inside(["cat", path], allowed_dirs=[grant])) == "found", grant
    assert text(inside(["cat", "file"], working_dir=tmp_path / "c")) == "found"


@pytest.mark.parametrize(
    "name", ["with space", "new\nline", "-dash", "ünïcödé", "back\\slash", "colon:comma,", "%s$HOME"]
)
def test_any_name_will_do(tmp_path: Path, name: str) -> None:
    directory = tmp_path / name
    directory.mkdir()
    (directory / name).write_text("here")
    assert text(inside(["cat", str(directory / name)], allowed_dirs=[directory])) == "here"
    assert text(inside(["sh", "-c", "cat -- *"], working_dir=directory)) == "here"


def test_names_that_are_no_text(tmp_path: Path) -> None:
    directory = os.fsencode(tmp_path) + b"/\xff\xfe"
    os.mkdir(directory)
    with open(directory + b"/file", "wb") as file:
        file.write(b"bytes")
    assert inside(["cat", "file"], working_dir=os.fsdecode(directory)).stdout == b"bytes"


@pytest.mark.skipif(not ROOT, reason="needs files of another uid")
def test_below_a_directory_that_may_only_be_passed(tmp_path: Path) -> None:
    """A file below a 0711 directory of another uid."""
    parent = tmp_path / "parent"
    inner = parent / "inner"
    inner.mkdir(parents=True)
    (inner / "file").write_text("x")
    os.chown(parent, 4321, 4321)
    parent.chmod(0o711)
    assert inside(["cat", inner / "file"], allowed_dirs=[inner]).stdout == b"x"


def test_the_system_is_there_to_be_used() -> None:
    script = "test -d /usr/lib && test -e /bin/sh && test -e /etc/passwd && ls -l /proc/self/exe > /dev/null"
    assert inside(["sh", "-c", script]).ok
    code = (
        "import os, tempfile\n"
        "open('/dev/null', 'wb').write(b'x')\n"
        "assert open('/dev/zero', 'rb').read(3) == bytes(3)\n"
        "assert len(open('/dev/urandom', 'rb').read(3)) == 3\n"
        "assert len(os.urandom(3)) == 3\n"
        "try: open('/dev/full', 'wb', 0).write(b'x')\n"
        "except OSError as e: assert e.errno == 28\n"
        "tempfile.NamedTemporaryFile().write(b'x')\n"
        "import multiprocessing; multiprocessing.Lock()\n"
        "open(os.path.expanduser('~/file'), 'w').write('x')\n"
        "print(sorted(os.listdir('/dev')))"
    )
    result = inside(python(code))
    assert result.ok, result
    for device in ("null", "zero", "full", "random", "urandom", "shm", "fd", "stdin", "stdout", "stderr"):
        assert repr(device) in text(result), device


def test_names_are_resolved() -> None:
    """/etc/passwd inside knows the command's uid, whatever the host has for it."""
    result = inside(["sh", "-c", "id -un; id -gn; id -u; id -g; id -G; echo ~"], check=True)
    assert text(result) == "sandbox\nsandbox\n1000\n1000\n1000\n/tmp/home\n"


def test_home_is_empty_and_private() -> None:
    result = inside(["sh", "-c", 'ls -A "$HOME" && echo x > "$HOME/.rc" && cat "$HOME/.rc"'])
    assert text(result) == "x\n", result


@pytest.mark.parametrize("field", ["working_dir", "allowed_dirs", "read_only_dirs", "writable_dirs"])
def test_a_path_that_is_not_there_is_named(tmp_path: Path, field: str) -> None:
    missing = tmp_path / "missing"
    with pytest.raises(ps.ConfigError) as caught:
        inside(["true"], **{field: missing if field == "working_dir" else [missing]})
    assert caught.value.field == field
    assert str(missing) in str(caught.value)
    assert not missing.exists()


def test_a_file_is_no_working_directory(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(ps.ConfigError) as caught:
        inside(["true"], working_dir=file)
    assert caught.value.field == "working_dir"
    assert str(file) in str(caught.value)


def test_the_working_directory_may_be_large_and_deep(tmp_path: Path) -> None:
    code = "import os\nfor n in range(200):\n  os.mkdir('d' * 100); os.chdir('d' * 100)\nopen('bottom', 'w').write('x')"
    assert inside(python(code), working_dir=tmp_path).ok
    assert inside(python(code)).ok, "and in the private one, which is then taken away"


def test_a_directory_swapped_for_a_file_between_runs(tmp_path: Path) -> None:
    """What was true at the last run is looked at again."""
    directory = tmp_path / "directory"
    directory.mkdir()
    with ps.Sandbox(allowed_dirs=[directory]) as box:
        assert box.run(["ls", directory]).ok
        directory.rmdir()
        with pytest.raises(ps.ConfigError):
            box.run(["ls", directory])
        directory.mkdir()
        (directory / "new").write_text("")
        assert text(box.run(["ls", directory])) == "new\n"


def test_errors_are_the_kernels_own() -> None:
    result = inside(act("read", "/no/such/file"))
    assert_refused(result, {errno.ENOENT})


def test_a_link_below_another_grant_is_what_it_is_on_the_host(tmp_path: Path) -> None:
    """proj/current -> releases/1, with all of proj granted: the name lies in a directory that is shown already."""
    (tmp_path / "releases" / "1").mkdir(parents=True)
    (tmp_path / "current").symlink_to("releases/1")
    result = inside(["sh", "-c", "pwd -P; echo x > made"], allowed_dirs=[tmp_path], working_dir=tmp_path / "current")
    assert text(result) == f"{tmp_path}/releases/1\n"
    assert (tmp_path / "releases" / "1" / "made").exists()
    assert text(inside(["ls", tmp_path / "current"], allowed_dirs=[tmp_path, tmp_path / "current"])) == "made\n"


def test_a_hundred_directories(tmp_path: Path) -> None:
    places = [tmp_path / str(number) for number in range(100)]
    for place in places:
        place.mkdir()
        (place / "x").write_text("")
    assert text(inside(["sh", "-c", f"ls {tmp_path}/*/x | wc -l"], allowed_dirs=places)) == "100\n"


def test_more_directories_than_there_is_room_for(tmp_path: Path) -> None:
    places = [tmp_path / str(number) for number in range(400)]
    for place in places:
        place.mkdir()
    with pytest.raises(ps.ConfigError, match="mounts"):
        inside(["true"], allowed_dirs=places)
