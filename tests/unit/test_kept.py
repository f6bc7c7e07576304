"""What is kept from run to run beside surveys: Configs with changes, and plans."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

import proc_sandbox as ps
from proc_sandbox import sandbox
from proc_sandbox.host import Feature, Host, Paths
from proc_sandbox.planner.linux import planner
from proc_sandbox.planner.unix.words import encode
from proc_sandbox.report import Ended, Report
from proc_sandbox.sandbox import derived
from proc_sandbox.verdict import judge

BASE = ps.Config(timeout=1, max_processes=1)
NAMES = ("userns", "mountns", "pidns", "netns", "seccomp", "close_range", "cgroup2", "setuid")
HOST = Host("linux", {name: Feature(True) for name in NAMES}, root=True, landlock_abi=6, uid_range=(1 << 20, 64))
PATHS = Paths(executable="true", program="/bin/true")


@pytest.fixture(autouse=True)
def nothing_is_kept() -> Iterator[None]:
    sandbox.made.clear()
    planner.compiled.clear()
    yield
    sandbox.made.clear()
    planner.compiled.clear()


# --- Configs with changes ---


def test_the_same_changes_give_the_same_config() -> None:
    changed = derived(BASE, {"timeout": 5, "memory_limit": "256M"})
    assert changed == BASE.replace(timeout=5, memory_limit="256M")
    assert derived(BASE, {"timeout": 5, "memory_limit": "256M"}) is changed
    assert derived(BASE, {"timeout": 6, "memory_limit": "256M"}) == BASE.replace(timeout=6, memory_limit="256M")
    assert derived(ps.Config(), {"timeout": 5, "memory_limit": "256M"}).max_processes is None


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ({"timeout": 1}, {"timeout": True}),
        ({"max_processes": 1}, {"max_processes": True}),
        ({"max_processes": 1}, {"max_processes": 1.0}),
        ({"core_dumps": True}, {"core_dumps": 1}),
        ({"network_access": False}, {"network_access": 0}),
        ({"pass_fds": (3,)}, {"pass_fds": (3.0,)}),
        ({"stdin": 0}, {"stdin": False}),
    ],
)
def test_what_is_equal_and_of_another_type_is_looked_at(good: dict[str, Any], bad: dict[str, Any]) -> None:
    for _ in range(2):
        derived(BASE, good)
        with pytest.raises(ps.ConfigError):
            derived(BASE, bad)


def test_what_is_not_valid_is_refused_every_time() -> None:
    for _ in range(2):
        with pytest.raises(ps.ConfigError, match="no such field"):
            derived(BASE, {"time_out": 1})
        with pytest.raises(ps.ConfigError):
            derived(BASE, {"timeout": -1})
    assert not sandbox.made


def test_a_relative_path_leads_from_where_the_caller_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        assert derived(BASE, {"working_dir": "."}).working_dir == str(tmp_path / name)
        assert derived(BASE, {"allowed_dirs": ["."]}).allowed_dirs == (str(tmp_path / name),)


def test_what_can_be_changed_or_is_the_callers_is_not_kept() -> None:
    names = ["A"]
    assert derived(BASE, {"pass_env": names}).pass_env == ("A",)
    names.append("B")
    assert derived(BASE, {"pass_env": names}).pass_env == ("A", "B")
    derived(BASE, {"stdout": io.BytesIO()})
    derived(BASE, {"stdin": b"secret"})
    derived(BASE.replace(stdin=b"secret"), {"timeout": 5})
    assert not sandbox.made


def test_configs_are_not_kept_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "MOST_MADE", 3)
    for number in range(1, 10):
        assert derived(BASE, {"timeout": number}).timeout == number
        assert derived(ps.Config(max_processes=number), {"timeout": 5}).max_processes == number
        assert len(sandbox.made) <= 3


# --- plans ---


def test_a_plan_is_made_once_and_has_each_runs_command() -> None:
    first = planner.compile_plan(BASE, ("true",), HOST, PATHS)
    other = planner.compile_plan(BASE, ("true", "x"), HOST, PATHS)
    assert (first.command, other.command) == (("true",), ("true", "x"))
    assert other == replace(first, command=("true", "x"))
    assert first.with_command(("true", "x")).to_json() == other.to_json()
    assert len(planner.compiled) == 1


def test_another_host_config_or_place_has_a_plan_of_its_own() -> None:
    first = planner.compile_plan(BASE, ("true",), HOST, PATHS)
    without = replace(HOST, landlock_abi=0)
    assert first.landlock
    assert planner.compile_plan(BASE, ("true",), without, PATHS).landlock is None
    assert planner.compile_plan(BASE, ("true",), HOST, PATHS).landlock
    assert planner.compile_plan(BASE, ("true",), HOST, PATHS._replace(executable="false")).executable == "false"
    assert planner.compile_plan(BASE.replace(timeout=2), ("true",), HOST, PATHS).timeout == 2_000_000_000


def test_equal_values_have_equal_plans() -> None:
    first = planner.compile_plan(BASE, ("true",), HOST, PATHS)
    assert planner.compile_plan(BASE.replace(), ("true",), HOST, Paths(*PATHS)) == first


def test_a_plan_that_is_kept_keeps_nothing_of_the_callers() -> None:
    for stream in (io.BytesIO(), sys.stdout):
        planner.compile_plan(BASE.replace(stdout=stream), ("true",), HOST, PATHS)
    planner.compile_plan(BASE.replace(stdin=b"secret"), ("true",), HOST, PATHS)
    assert not planner.compiled
    planner.compile_plan(BASE.replace(stderr=ps.STDOUT), ("true",), HOST, PATHS)
    assert len(planner.compiled) == 1


def test_plans_are_not_kept_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planner, "MOST_KEPT", 3)
    for number in range(1, 10):
        plan = planner.compile_plan(ps.Config(timeout=number), ("true",), HOST, PATHS)
        assert plan.timeout == number * 1_000_000_000
        assert len(planner.compiled) <= 3


# --- the end of a run ---


def test_a_result_has_every_field() -> None:
    plan = planner.compile_plan(BASE, ("true",), HOST, PATHS)
    result = judge(plan, BASE, Report(Ended(True, 0, None, 1, 2, 3)))
    assert list(vars(result)) == [item.name for item in fields(ps.Result)]
    assert ps.Result(**vars(result)) == result


def test_words_are_those_of_the_command_and_of_the_plan() -> None:
    """They are encoded once for each command, and kept beside the plan's fields."""
    fresh = planner.compile_plan(BASE, ("true", "a"), HOST, PATHS)
    assert planner.compile_plan(BASE, ("true", "a"), HOST, PATHS) is fresh
    other = planner.compile_plan(BASE, ("true", "b"), HOST, PATHS)
    assert encode(fresh).endswith(b"exec\0true\0true\0a\0")
    assert encode(other).endswith(b"exec\0true\0true\0b\0")
    for plan in (fresh.with_command(("true", "b")), planner.compile_plan(BASE, ["true", "b"], HOST, PATHS)):
        assert encode(plan) == encode(other)
    changed = replace(fresh, cwd="/elsewhere", prefix=b"")
    assert b"cwd\0/elsewhere\0" in encode(changed)
    end = b"exec\0true\0true\0a\0"
    assert encode(fresh, held=True) == encode(fresh)[: -len(end)] + b"held\0" + end
    assert "whole" not in fresh.to_dict()
