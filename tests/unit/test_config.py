"""Config: every field has a normaliser, a docstring and a default; bad values name the field and the remedy."""

from __future__ import annotations

import ast
import copy
import dataclasses
import inspect
import itertools
import os
import pickle
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import proc_sandbox as ps
from proc_sandbox import config as module
from proc_sandbox.config import NORMALISERS, check_command

FIELDS = [field.name for field in fields(ps.Config)]


def docstrings() -> dict[str, str]:
    """The string literal below each field."""
    (body,) = (
        node.body
        for node in ast.parse(inspect.getsource(module)).body
        if isinstance(node, ast.ClassDef) and node.name == "Config"
    )
    found = {}
    for node, after in itertools.pairwise(body):
        match node, after:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = text
    return found


@pytest.mark.parametrize("name", FIELDS)
def test_each_field_is_normalised_and_documented(name: str) -> None:
    assert name in NORMALISERS
    assert len(docstrings()[name]) > 20


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("value", [object(), -7, "\0", 10**40])
def test_each_field_refuses_what_makes_no_sense(name: str, value: object) -> None:
    if (name, value) in {("stdin", -7), ("stdout", -7), ("stderr", -7)}:
        value = -77
    with pytest.raises(ps.ConfigError) as caught:
        ps.Config(**{name: value})
    assert caught.value.field == name
    assert caught.value.remedy


def test_unknown_fields_name_the_nearest() -> None:
    with pytest.raises(ps.ConfigError, match="memory_limit"):
        ps.Config(memory_limt=1)  # type: ignore[call-arg]
    with pytest.raises(ps.ConfigError, match="timeout"):
        ps.Config().replace(timeot=1)


def test_frozen_hashable_equal_picklable() -> None:
    config = ps.Config(memory_limit="64M", env={"B": "2", "A": "1"}, timeout="5s")
    same = ps.Config(memory_limit=64 << 20, env=["A=1", "B=2"], timeout=5)
    assert config == same
    assert hash(config) == hash(same)
    assert pickle.loads(pickle.dumps(config)) == config
    with pytest.raises(FrozenInstanceError):
        config.timeout = 1  # type: ignore[misc]
    assert config.replace(timeout=None).timeout is None
    assert config.timeout == 5


def test_paths_are_absolute_and_named_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = ps.Config(working_dir=".", allowed_dirs=["a", tmp_path / "a", "b/../a"], writable_dirs=("c",))
    assert config.working_dir == str(tmp_path)
    assert config.allowed_dirs == (f"{tmp_path}/a",)
    assert config.writable_dirs == (f"{tmp_path}/c",)


@pytest.mark.parametrize("path", ["/", "/proc", "/proc/self/fd/3", "/sys/fs", "/dev/sda", "//proc/1", ""])
def test_places_that_cannot_be_granted(path: str) -> None:
    for name in ("working_dir", "allowed_dirs", "read_only_dirs", "writable_dirs", "hidden_paths"):
        with pytest.raises(ps.ConfigError):
            ps.Config(**{name: path if name == "working_dir" else [path]})


def test_both_writable_and_read_only() -> None:
    for other in ("allowed_dirs", "read_only_dirs"):
        with pytest.raises(ps.ConfigError, match="/srv/x"):
            ps.Config(**{"writable_dirs": ["/srv/x"], other: ["/srv/x/"]})
    with pytest.raises(ps.ConfigError):
        ps.Config(working_dir="/srv/x", read_only_dirs=["/srv/x"])


@pytest.mark.parametrize("env", [{"A": 1}, {"": "x"}, {"A=B": "x"}, {"A": "x\0"}, ["A"], "A=1", {"A": "\ud800"}, 5])
def test_environments_that_are_none(env: object) -> None:
    with pytest.raises(ps.ConfigError) as caught:
        ps.Config(env=env)  # type: ignore[arg-type]
    assert caught.value.field == "env"


@pytest.mark.parametrize("args", ["ls -l", b"ls", Path("/bin/ls"), [], (), [""], ["ls", 1], ["ls", None], ["a\0b"], None, {"ls"}])
def test_commands_that_are_none(args: object) -> None:
    with pytest.raises(ps.ConfigError) as caught:
        check_command(args)
    assert caught.value.field == "args"


@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), max_size=5))
def test_arguments_may_be_anything_else(rest: list[str]) -> None:
    assert check_command(["x", *rest]) == ("x", *rest)
    assert check_command([b"\xff", Path("p"), *rest]) == (os.fsdecode(b"\xff"), "p", *rest)


def test_best_effort_names_fields() -> None:
    assert ps.Config(enforcement=ps.best_effort("cpu_limit")).enforcement.fields == ("cpu_limit",)  # type: ignore[union-attr]
    with pytest.raises(ps.ConfigError):
        ps.Config(enforcement=ps.best_effort("cpu_limits"))


def test_bandwidth_is_bytes_per_second() -> None:
    config = ps.Config(read_bps="10M", write_bps=4096)
    assert (config.read_bps, config.write_bps) == (10 << 20, 4096)
    for value in (4095, "10M/s", 0, True):
        with pytest.raises(ps.ConfigError, match="write_bps"):
            ps.Config(write_bps=value)


def test_the_defaults_are_in_normal_form() -> None:
    config = ps.Config()
    for name in FIELDS:
        assert NORMALISERS[name](name, getattr(config, name)) == getattr(config, name)


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, lambda config: pickle.loads(pickle.dumps(config)), dataclasses.replace])
def test_what_was_found_out_of_a_config_holds_for_its_copies_and_not_for_what_is_changed(how: Any) -> None:
    named = how(ps.Config(allowed_dirs=["/usr"], stderr=ps.STDOUT))
    assert (named.names_paths, named.has_own_streams) == (True, True)
    changed = named.replace(allowed_dirs=[], stderr=ps.CAPTURE)
    assert (changed.names_paths, changed.has_own_streams) == (False, False)
    assert changed == ps.Config()
