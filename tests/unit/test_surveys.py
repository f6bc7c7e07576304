"""What surveys keep from run to run, and what of that they notice to have changed."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import proc_sandbox as ps
from proc_sandbox.host import Feature, Host, Paths

if sys.platform != "linux":
    pytest.skip("Linux's survey", allow_module_level=True)

from proc_sandbox.backends.linux import survey as survey_module
from proc_sandbox.backends.linux import surveys as surveys_module
from proc_sandbox.backends.linux.survey import Survey
from proc_sandbox.backends.linux.surveys import Surveys

HOST = Host("linux", {name: Feature(True) for name in ("userns", "mountns", "pidns")}, root=True)
NOTHING = ps.Config()

Find = Callable[..., Paths]


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that is the system's own, with two directories of programs, both on PATH."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(survey_module, "SYSTEM", (str(tmp_path),))
    monkeypatch.setenv("PATH", f"{tmp_path}/one:{tmp_path}/two")
    survey_module.system_paths.cache_clear()
    yield tmp_path
    survey_module.system_paths.cache_clear()


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The programs for which a survey was made."""
    found: list[str] = []

    def counted(config: ps.Config, command: tuple[str, ...], *rest: Any, **more: Any) -> Survey:
        found.append(command[0])
        return survey_module.survey(config, command, *rest, **more)

    monkeypatch.setattr(surveys_module, "survey", counted)
    return found


def program(path: Path) -> str:
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return str(path)


def surveys(host: Host = HOST) -> Surveys:
    return Surveys(host, lambda path, device: True)


def test_what_is_the_same_is_looked_up_once(system: Path, made: list[str]) -> None:
    kept, tool = surveys(), program(system / "one" / "tool")
    first = kept.find(NOTHING, ("tool",), None, None)
    assert first.program == tool
    assert kept.find(ps.Config(timeout=5), ("tool", "argument"), None, None) is first
    assert made == ["tool"]
    assert kept.find(NOTHING, (tool,), None, None).executable == tool
    assert kept.find(NOTHING, (tool,), None, None).executable == tool
    assert made == ["tool", tool]


def test_a_program_that_was_removed(system: Path) -> None:
    kept = surveys()
    program(system / "one" / "tool")
    second = program(system / "two" / "tool")
    assert kept.find(NOTHING, ("tool",), None, None).program == str(system / "one" / "tool")
    (system / "one" / "tool").unlink()
    assert kept.find(NOTHING, ("tool",), None, None).program == second
    (system / "two" / "tool").unlink()
    with pytest.raises(FileNotFoundError):
        kept.find(NOTHING, ("tool",), None, None)


@pytest.mark.parametrize("change", ["directory", "mode", "outside", "hidden link"])
def test_a_program_that_is_none_any_more(system: Path, change: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    kept, tool = surveys(), Path(program(system / "one" / "tool"))
    second = program(system / "two" / "tool")
    assert kept.find(NOTHING, ("tool",), None, None).program == str(tool)
    if change == "mode":
        tool.chmod(0o644)
    else:
        tool.unlink()
    if change == "directory":
        tool.mkdir()
    elif change == "outside":
        tool.symlink_to("/nowhere/at/all")
    elif change == "hidden link":
        tool.symlink_to(program(tmp_path_factory.mktemp("elsewhere") / "tool"))
    assert kept.find(NOTHING, ("tool",), None, None).program == second


def test_a_directory_of_programs_that_was_replaced_by_a_link(system: Path) -> None:
    kept = surveys()
    program(system / "one" / "tool")
    (system / "three").mkdir()
    first = kept.find(NOTHING, ("tool",), None, None)
    (system / "one").rename(system / "old")
    (system / "one").symlink_to("three")
    with pytest.raises(FileNotFoundError):
        kept.find(NOTHING, ("tool",), None, None)
    other = program(system / "three" / "tool")
    found = kept.find(NOTHING, ("tool",), None, None)
    assert found is not first
    assert os.path.realpath(found.program) == other


def test_another_file_in_the_programs_place(system: Path, made: list[str]) -> None:
    kept = surveys()
    program(system / "one" / "tool")
    kept.find(NOTHING, ("tool",), None, None)
    program(system / "one" / "new")
    (system / "one" / "new").replace(system / "one" / "tool")
    kept.find(NOTHING, ("tool",), None, None)
    assert made == ["tool", "tool"]


def test_another_path(system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = surveys()
    first, second = program(system / "one" / "tool"), program(system / "two" / "tool")
    assert kept.find(NOTHING, ("tool",), None, None).program == first
    turned = f"{system}/two:{system}/one"
    assert kept.find(ps.Config(env={"PATH": turned}), ("tool",), None, None).program == second
    assert kept.find(ps.Config(env={"PATH": turned, "MORE": "1"}), ("tool",), None, None).program == second
    assert kept.find(NOTHING, ("tool",), None, None).program == first
    monkeypatch.setenv("PATH", turned)
    assert kept.find(NOTHING, ("tool",), None, None).program == second


def test_another_interpreter_that_runs_us(system: Path, made: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    kept = surveys()
    program(system / "one" / "tool")
    kept.find(NOTHING, ("tool",), None, None)
    monkeypatch.setattr(sys, "executable", program(system / "two" / "python3"))
    kept.find(NOTHING, ("tool",), None, None)
    assert made == ["tool", "tool"]


def test_the_hosts_network_shows_more(system: Path) -> None:
    kept = surveys()
    program(system / "one" / "tool")
    closed = kept.find(NOTHING, ("tool",), None, None)
    assert kept.find(ps.Config(network_access="loopback"), ("tool",), None, None) is closed
    assert kept.find(ps.Config(network_access=True), ("tool",), None, None) is not closed


def test_each_private_directory_has_its_own(system: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    kept = surveys()
    program(system / "one" / "tool")
    places = [str(tmp_path_factory.mktemp("private")) for _ in range(2)]
    owners = [(status.st_dev, status.st_ino, status.st_uid, status.st_gid) for status in map(os.stat, places)]
    found = [kept.find(NOTHING, ("tool",), place, owner) for place, owner in zip(places, owners, strict=True)]
    assert [paths.grants[0].source for paths in found] == places
    assert kept.find(NOTHING, ("tool",), places[0], owners[0]) is found[0]
    assert kept.find(NOTHING, ("tool",), places[0], (*owners[0][:2], 12345, 12345)) is not found[0]
    assert kept.find(NOTHING, ("tool",), None, None).grants == ()


def test_named_paths_are_looked_up_for_every_run(system: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A command may have put a link there."""
    kept = surveys()
    program(system / "one" / "tool")
    outer = tmp_path_factory.mktemp("outer")
    (outer / "data").mkdir()
    config = ps.Config(working_dir=outer, writable_dirs=[outer / "data"])
    assert len(kept.find(config, ("tool",), None, None).grants) == 2
    (outer / "data").rmdir()
    with pytest.raises(ps.ConfigError, match="No such file"):
        kept.find(config, ("tool",), None, None)
    (outer / "data").symlink_to("/usr")
    with pytest.raises(ps.ConfigError, match="is a link that the command may have made"):
        kept.find(config, ("tool",), None, None)
    assert not kept.kept


def test_disks_are_looked_up_for_every_run(system: Path, made: list[str]) -> None:
    kept = surveys()
    program(system / "one" / "tool")
    for _ in range(2):
        kept.find(ps.Config(read_bps="10M"), ("tool",), None, None)
    assert made == ["tool", "tool"]


def test_what_depends_on_the_current_directory_is_not_kept(system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = surveys()
    program(system / "one" / "tool")
    monkeypatch.chdir(system / "one")
    assert "current directory" in kept.find(NOTHING, ("./tool",), None, None).hint
    monkeypatch.chdir(system)
    assert kept.find(NOTHING, ("./tool",), None, None).hint == ""
    assert not kept.kept


def test_where_another_installation_of_python_is_shown_it_is_looked_at_for_every_run(
    system: Path, made: list[str], tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, installation = surveys(), tmp_path_factory.mktemp("installation")
    (installation / "bin").mkdir()
    (installation / "pyvenv.cfg").touch()
    program(installation / "bin" / "tool")
    monkeypatch.setenv("PATH", f"{installation}/bin")
    assert str(installation) in [entry.path for entry in kept.find(NOTHING, ("tool",), None, None).system]
    (installation / "pyvenv.cfg").unlink()
    with pytest.raises(FileNotFoundError, match="not visible inside"):
        kept.find(NOTHING, ("tool",), None, None)


def test_not_more_are_kept_than_a_server_has_room_for(system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(surveys_module, "MOST_KEPT", 3)
    kept = surveys()
    for number in range(10):
        program(system / "one" / f"tool{number}")
        kept.find(NOTHING, (f"tool{number}",), None, None)
        assert len(kept.kept) <= 3


def test_a_host_without_namespaces_has_its_own(system: Path) -> None:
    program(system / "one" / "tool")
    bare = surveys(replace(HOST, features={}))
    assert len(bare.find(NOTHING, ("tool",), None, None).system) > len(surveys().find(NOTHING, ("tool",), None, None).system)
