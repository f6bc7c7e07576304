"""Where the command and what the Config names lie, on real directories: Windows only, be it Wine."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

if sys.platform != "win32":
    pytest.skip("real directories of Windows", allow_module_level=True)

import subprocess

import proc_sandbox as ps
from proc_sandbox.backends.windows.native import Native
from proc_sandbox.backends.windows.survey import grants, hidden_paths, locate, survey


def junction(link: Path, target: Path) -> None:
    """Make a junction, which needs no privilege; skip where there is no such thing."""
    done = subprocess.run(["cmd", "/d", "/c", "mklink", "/j", str(link), str(target)], capture_output=True, check=False)
    if done.returncode or not os.path.lexists(link):
        pytest.skip("this Windows makes no junctions (Wine 8 has no mklink /j)")


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory on the PATH with programs in it."""
    place = tmp_path / "tools"
    place.mkdir()
    for name in ("first.exe", "second.com", "both.com", "both.exe", "script.bat", "other.cmd", "plain"):
        (place / name).write_bytes(b"MZ")
    monkeypatch.setenv("PATH", str(place))
    yield place


@pytest.mark.parametrize(
    ("name", "found"),
    [("first", "first.exe"), ("FIRST.EXE", "first.exe"), ("second", "second.com"), ("both", "both.com")],
)
def test_a_name_is_looked_up_on_the_path(tools: Path, name: str, found: str) -> None:
    assert locate(name, ps.Config(), None).lower() == str(tools / found).lower()


def test_the_journals_directory_is_not_written_to(tmp_path: Path) -> None:
    config = ps.Config(writable_dirs=[tmp_path])

    def survey_with(journal: Path) -> object:
        command, kept = [sys.executable], str(journal)
        return survey(Native(), config, command, None, contained=False, readable=lambda path: True, journal=kept)

    survey_with(tmp_path.parent / "elsewhere" / "journal")
    with pytest.raises(ps.ConfigError, match="for a later caller to undo"):
        survey_with(tmp_path / "data" / "journal")


def test_never_in_the_current_directory(tools: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As cmd and CreateProcess do, where whoever can write there would choose the program."""
    (tmp_path / "evil.exe").write_bytes(b"MZ")
    monkeypatch.chdir(tmp_path)
    for path in (str(tools), f";{tools}", f".;{tools}", "", "..\\x"):
        monkeypatch.setenv("PATH", path)
        with pytest.raises(ps.CommandNotFoundError):
            locate("evil", ps.Config(), None)
    with pytest.raises(ps.CommandNotFoundError, match="working_dir"):
        locate(".\\evil", ps.Config(), None)
    assert locate(".\\evil", ps.Config(working_dir=tmp_path), None) == str(tmp_path / "evil.exe"), "the control"


@pytest.mark.parametrize("name", ["script", "script.bat", "other", "OTHER.CMD"])
def test_a_batch_file_is_refused_with_the_remedy(tools: Path, name: str) -> None:
    with pytest.raises(ps.CommandNotExecutableError, match="cmd.exe") as caught:
        locate(name, ps.Config(), None)
    assert isinstance(caught.value, PermissionError)
    with pytest.raises(ps.CommandNotExecutableError):
        locate(str(tools / name), ps.Config(), None)


def test_a_path_in_full_and_what_depends_on_a_current_directory(tools: Path) -> None:
    full = str(tools / "first")
    assert locate(full, ps.Config(), None) == full + ".exe"
    assert locate(full.replace("\\", "/"), ps.Config(), None) == full + ".exe"
    for word in (full[2:], f"{full[:2]}{tools.name}\\first"):
        with pytest.raises(ps.CommandNotFoundError):
            locate(word, ps.Config(), None)
    with pytest.raises(ps.CommandNotExecutableError, match="directory"):
        locate(str(tools), ps.Config(), None)


def test_the_path_that_the_command_will_have(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "C:\\nothing")
    assert locate("first", ps.Config(env={"Path": str(tools)}), None) == str(tools / "first.exe")


def test_what_is_granted_must_be_there(tmp_path: Path) -> None:
    win32 = Native()
    with pytest.raises(ps.ConfigError, match="name one that exists"):
        grants(win32, ps.Config(allowed_dirs=[tmp_path / "missing"]), None)
    with pytest.raises(ps.ConfigError, match="it is a file"):
        grants(win32, ps.Config(working_dir=sys.executable), None)
    with pytest.raises(ps.ConfigError, match="belongs to Windows"):
        grants(win32, ps.Config(writable_dirs=[os.environ["SYSTEMROOT"]]), None)
    (found,) = grants(win32, ps.Config(allowed_dirs=[tmp_path]), None)
    assert (found.access, found.directory, found.source.lower()) == ("read", True, str(tmp_path.resolve()).lower())


def test_read_only_wins_over_writable_of_the_same_directory(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    named = ps.Config(writable_dirs=[tmp_path], read_only_dirs=[tmp_path / "in"])
    assert [item.access for item in grants(Native(), named, None)] == ["write", "read"]


def test_what_is_hidden_is_told_where_it_would_be_seen(tmp_path: Path) -> None:
    granted, other = tmp_path / "granted", tmp_path / "other"
    for directory in (granted, other):
        directory.mkdir()
        (directory / "secret").write_text("x")
    named = ps.Config(allowed_dirs=[granted], hidden_paths=[granted / "secret", other / "secret", granted / "missing"])
    shown = [item.source for item in grants(Native(), named, None)]
    assert [Path(item.path) for item in hidden_paths(Native(), named, shown, None, contained=True)[0]] == [granted / "secret"]
    assert hidden_paths(Native(), named, shown, None, contained=True)[1] == (str(granted / "missing"),)
    assert len(hidden_paths(Native(), named, shown, None, contained=False)[0]) == 2, "where reading is open both are seen"
    with pytest.raises(ps.ConfigError, match="lies in it"):  # in another spelling
        hidden_paths(Native(), ps.Config(hidden_paths=[str(granted).upper()]), shown, None, contained=True)


def test_a_junction_that_a_command_may_have_made_is_not_followed(tmp_path: Path) -> None:
    """The control: one of the caller's own is."""
    writable, secret = tmp_path / "out", tmp_path / "secret"
    writable.mkdir()
    secret.mkdir()
    junction(tmp_path / "own", secret)
    junction(writable / "trap", secret)
    (found,) = grants(Native(), ps.Config(allowed_dirs=[tmp_path / "own"]), None)
    assert Path(found.source).name == "secret"
    with pytest.raises(ps.ConfigError, match="link that the command may have made"):
        grants(Native(), ps.Config(writable_dirs=[writable], allowed_dirs=[writable / "trap"]), None)


def test_what_cannot_be_seen_inside_is_said_with_the_remedy(tools: Path) -> None:
    win32 = Native()
    with pytest.raises(ps.CommandNotFoundError, match="allowed_dirs"):
        survey(win32, ps.Config(), ["first"], None, contained=True, readable=lambda path: True)
    shown = survey(win32, ps.Config(allowed_dirs=[tools]), ["first"], None, contained=True, readable=lambda path: True)
    assert shown.executable == str(tools / "first.exe")
    own = survey(win32, ps.Config(), [sys.executable], None, contained=True, readable=lambda path: False)
    assert [entry.private for entry in own.system if entry.path == sys.prefix] == [True]
