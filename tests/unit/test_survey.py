"""Where things are: what the survey finds of a host's own files, on a host made for the purpose."""

from __future__ import annotations

from pathlib import Path

import pytest

from proc_sandbox.backends.linux.mounts import Mounted, names_by_mounts, unescape
from proc_sandbox.backends.linux.survey import as_it_stands, interpreter_paths, numbers_of_disks
from proc_sandbox.backends.unix.survey import programs_on
from proc_sandbox.host import SystemPath


def test_a_file_of_the_systems_own(tmp_path: Path) -> None:
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    (found,) = as_it_stands(str(tmp_path / "resolv.conf"))
    assert (found.path, found.kind) == (str(tmp_path / "resolv.conf"), "file")


def test_a_link_is_shown_with_where_it_leads(tmp_path: Path) -> None:
    """As /etc/resolv.conf, whose text lies in /run where a service keeps it: one without the other is no name service."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "stub").write_text("nameserver 127.0.0.53\n")
    (tmp_path / "etc").mkdir()
    link = tmp_path / "etc" / "resolv.conf"
    link.symlink_to("../run/stub")
    shown, target = as_it_stands(str(link))
    assert shown == SystemPath(str(link), "symlink", str(tmp_path / "run" / "stub"))
    assert (target.path, target.kind) == (str(tmp_path / "run" / "stub"), "file")


def test_a_link_into_the_system_needs_no_more() -> None:
    assert [entry.kind for entry in as_it_stands("/usr")] == ["dir"]
    for entry in as_it_stands("/bin"):
        assert entry.kind in ("dir", "symlink")


def test_a_link_that_leads_nowhere_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "resolv.conf").symlink_to("missing")
    assert list(as_it_stands(str(tmp_path / "resolv.conf"))) == []
    assert list(as_it_stands(str(tmp_path / "nothing"))) == []


def test_a_command_that_is_installed_later_is_found(tmp_path: Path) -> None:
    """A server lives longer than what was true when it first looked."""
    assert list(programs_on(str(tmp_path), "late")) == []
    (tmp_path / "late").write_text("#!/bin/sh\n")
    (tmp_path / "late").chmod(0o755)
    assert list(programs_on(str(tmp_path), "late")) == [str(tmp_path / "late")]
    (tmp_path / "late").unlink()
    assert list(programs_on(str(tmp_path), "late")) == []


def test_every_disk_counts_but_those_without_a_number(tmp_path: Path) -> None:
    """A path of several to an nvme disk has none: nothing is addressed to it."""
    for name, number in (("sda", "8:0\n"), ("dm-0", "253:0\n"), ("loop0", "7:0\n"), ("nvme0c0n1", "")):
        (tmp_path / name).mkdir()
        if number:
            (tmp_path / name / "dev").write_text(number)
    assert sorted(numbers_of_disks(str(tmp_path))) == ["253:0", "7:0", "8:0"]


def make_environment(place: Path, home: Path) -> Path:
    """What `python -m venv --copies` makes; its interpreter."""
    (place / "bin").mkdir(parents=True)
    (place / "bin" / "python").touch()
    (place / "pyvenv.cfg").write_text(f"home = {home}\ninclude-system-site-packages = false\n")
    return place / "bin" / "python"


def test_an_environment_whose_interpreter_is_a_copy_comes_with_what_it_was_made_from(tmp_path: Path) -> None:
    base = tmp_path / "base"
    (base / "lib" / "python3.99").mkdir(parents=True)
    (base / "bin").mkdir()
    first = make_environment(tmp_path / "first", base / "bin")
    second = make_environment(tmp_path / "second", first.parent)
    assert [entry.path for entry in interpreter_paths(str(second))] == [str(tmp_path / name) for name in ("second", "first", "base")]
    make_environment(tmp_path / "itself", tmp_path / "itself" / "bin")
    assert [entry.path for entry in interpreter_paths(str(tmp_path / "itself" / "bin" / "python"))] == [str(tmp_path / "itself")]


def test_an_environment_cannot_name_what_is_no_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever wrote its pyvenv.cfg: ~/.local has lib/python3.N too, and the caller's data beside it."""
    home = tmp_path / "home"
    (home / ".local" / "lib" / "python3.99").mkdir(parents=True)
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("HOME", str(home))
    for number, named in enumerate((home / "bin", home / ".local" / "bin", tmp_path / "data" / "bin", Path("/bin"))):
        python = make_environment(tmp_path / f"venv{number}", named)
        assert [entry.path for entry in interpreter_paths(str(python))] == [str(python.parents[1])]


def test_the_other_names_of_a_path_by_mounts(tmp_path: Path) -> None:
    """Only those that lead to the same file: what is below another mount has none."""
    for name in ("a/b/c", "m"):
        (tmp_path / name).mkdir(parents=True)
    top = str(tmp_path)
    mounts = [Mounted("8:1", "/", "/"), Mounted("8:1", f"{top}/a/b", f"{top}/m"), Mounted("8:2", f"{top}/a", f"{top}/a")]
    assert list(names_by_mounts(f"{top}/a/b/c", mounts)) == []
    (tmp_path / "a" / "b" / "file").write_text("x")
    (tmp_path / "m" / "file").hardlink_to(tmp_path / "a" / "b" / "file")  # as a bind mount would show it
    assert list(names_by_mounts(f"{top}/a/b/file", mounts)) == [f"{top}/m/file"]
    assert list(names_by_mounts(f"{top}/m/file", mounts)) == [f"{top}/a/b/file"]


def test_an_escaped_mount_point() -> None:
    assert unescape("/a\\040b\\134") == "/a b\\"
