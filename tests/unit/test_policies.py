"""Policies: merged as they extend one another, refused with file, line and key, never taken from a place that others can write to."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path

import jsonschema
import pytest

import proc_sandbox as ps
from proc_sandbox import policies

GOOD = """\
# of a course
[policies.base]
description = "what all have"
timeout = "5s"
memory_limit = "256M"   # "not = this"
env = { LANG = "C.UTF-8", "TZ" = "UTC" }
read_only_dirs = [
    "tests",            # a = 1
]

[policies.grader]
extends = "base"
"timeout" = 1.5
allowed_dirs = ["~/data", "/usr/share"]
enforcement = { default = "strict", best_effort = ["cpu_limit"] }
"""


@pytest.fixture(autouse=True)
def user_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's own policies lie here for a test."""
    directory = tmp_path / "configuration"
    directory.mkdir(mode=0o700)
    monkeypatch.setattr(policies, "user_file", lambda: directory / "policies.toml")
    return directory


def write(directory: Path, text: str, name: str = "sandbox.toml") -> Path:
    path = directory / name
    path.write_text(text)
    path.chmod(0o600)
    return path


def said(path: Path, text: str) -> list[str]:
    """What is said of a file, without its name."""
    write(path, text)
    return [str(error).replace(str(path / "sandbox.toml"), "FILE") for error in policies.check(path / "sandbox.toml")]


def test_a_policy_has_what_it_extends_and_its_own_wins(tmp_path: Path) -> None:
    config = ps.Config.from_toml(write(tmp_path, GOOD), "grader")
    assert (config.timeout, config.memory_limit) == (1.5, 256 << 20)
    assert config.read_only_dirs == (str(tmp_path / "tests"),)
    assert config.allowed_dirs == (os.path.expanduser("~/data"), "/usr/share")
    assert dict(config.env) == {"LANG": "C.UTF-8", "TZ": "UTC"}
    assert config.enforcement == ps.best_effort("cpu_limit")
    assert policies.names(tmp_path / "sandbox.toml") == ["base", "grader"]
    assert ps.Config.from_toml(tmp_path / "sandbox.toml", "grader", timeout=9).timeout == 9


def test_a_policy_alone_and_one_called_default_need_no_name(tmp_path: Path) -> None:
    assert ps.Config.from_toml(write(tmp_path, "[policies.x]\nnice = 3\n")).nice == 3
    both = write(tmp_path, "[policies.default]\nnice = 4\n[policies.other]\n")
    assert ps.Config.from_toml(both).nice == 4
    with pytest.raises(ps.PolicyError, match="name one of a, b"):
        ps.Config.from_toml(write(tmp_path, "[policies.a]\n[policies.b]\n"))


def test_a_pyproject_has_them_in_the_tools_table(tmp_path: Path) -> None:
    text = "[project]\nname = 'x'\n[tool.proc-sandbox.policies.ci]\ntimeout = '2m'\nfoo = 1\n"
    path = write(tmp_path, text, "pyproject.toml")
    (error,) = policies.check(path)
    assert (error.line, error.field, error.file) == (5, "foo", str(path))
    write(tmp_path, text.replace("foo = 1\n", ""), "pyproject.toml")
    assert ps.Config.from_toml(path).timeout == 120
    with pytest.raises(ps.PolicyError, match=r"there are no tables \[tool.proc-sandbox.policies.NAME\]"):
        ps.Config.from_toml(write(tmp_path, "[project]\nname = 'x'\n", "pyproject.toml"))


@pytest.mark.parametrize(
    ("text", "line", "key", "words"),
    [
        ("[policies.a]\nmemory_limit = '256 MX'\n", 2, "memory_limit", "'256 MX'"),
        ("# x\n\n[policies.a]\nmemory_limt = 1\n", 4, "memory_limt", "did you mean 'memory_limit'?"),
        ("[policies.a]\nx = '''\ntimeout = 1\n'''\n", 2, "x", "the keys are"),
        ("[policies.a]\nallowed_dirs = [\n  'a',\n  '',\n]\ntimeout = -1\n", 2, "allowed_dirs", ""),
        ("[policies]\na.timeout = 'soon'\n", 2, "timeout", "soon"),
        ("[policies.a]\nstdin = 'x'\n", 2, "stdin", "give it to run()"),
        ("[policies.a]\nenforcement = { strict = true }\n", 2, "enforcement", "best_effort ="),
        ("[policies.a]\nextends = 'b'\n[policies.b]\nextends = 'a'\n", 4, "extends", "in a circle: a -> b -> a"),
        ("[policies.a]\nextends = 'a'\n", 2, "extends", "no such policy"),
        ("[policies.a]\nextends = 3\n", 2, "extends", "must be a string"),
        ("[policies.a]\nextends = 'jugde'\n", 2, "extends", "no such policy"),
        ("[policies.a\n", 1, "policy", "not TOML"),
        ("[policies.a]\ntimeout = 1\ntimeout = 2\n", 3, "policy", "not TOML"),
        ("timeout = 1\n[policies.a]\n", 1, "timeout", "policies are tables [policies.NAME]"),
        ("", None, "policies", "there are no tables"),
        ("[policies.a]\nworking_dir = '/x'\nread_only_dirs = ['/x']\n", None, "working_dir", "name it once"),
    ],
)
def test_what_is_wrong_is_told_with_file_line_and_key(
    tmp_path: Path, text: str, line: int | None, key: str, words: str
) -> None:
    path = write(tmp_path, text)
    error = policies.check(path)[0]
    assert (error.file, error.line, error.field) == (str(path), line, key)
    assert words in str(error) and str(error).startswith(f"{path}:{line or '?'}: ")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    with pytest.raises(ps.ConfigError):
        ps.Config.from_toml(path, "a")


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    text = "[policies.a]\ntimeout = 'x'\nnice = 99\n[policies.b]\nbogus = 1\n"
    assert [line.split(": ")[:2] for line in said(tmp_path, text)] == [
        ["FILE:2", "timeout"], ["FILE:3", "nice"], ["FILE:5", "bogus"],
    ]  # fmt: skip
    assert said(tmp_path, GOOD) == []


def test_one_is_found_by_its_name_or_its_file(tmp_path: Path, user_directory: Path) -> None:
    path = write(tmp_path, GOOD)
    write(user_directory, "[policies.mine]\nnice = 7\n[policies.base]\nnice = 8\n", "policies.toml")
    assert policies.find(f"{path}:grader") == ps.Config.from_toml(path, "grader")
    assert policies.find("mine").nice == 7
    assert policies.find("mine", nice=1).nice == 1
    assert [item.name for item in policies.listing() if item.source == "user"] == ["mine", "base"]
    with pytest.raises(ps.ConfigError, match=r"no such policy; .*\./nobody\.toml"):
        policies.find("nobody")
    write(tmp_path, "[policies.a]\nextends = 'mine'\n")
    assert policies.find(str(path)).nice == 7
    write(tmp_path, "[policies.base]\nextends = 'mine'\n[policies.a]\nextends = 'base'\n")  # the file's own comes first
    assert policies.find(f"{path}:a").nice == 7


def test_none_is_taken_from_where_the_caller_happens_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "[policies.evil]\nnice = 7\n", "evil.toml")
    write(tmp_path, "[tool.proc-sandbox.policies.evil]\nnice = 7\n", "pyproject.toml")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ps.ConfigError, match="no such policy"):
        policies.find("evil")
    assert policies.find("./evil.toml").nice == 7


@pytest.mark.skipif(sys.platform == "win32", reason="there are no modes")
def test_the_users_own_are_refused_where_others_can_write(user_directory: Path) -> None:
    path = write(user_directory, "[policies.mine]\nnice = 7\n", "policies.toml")
    for place, mode in ((path, 0o622), (user_directory, 0o777)):
        before = place.stat().st_mode
        place.chmod(mode)
        with pytest.raises(ps.PolicyError, match="others than you can write to it"):
            policies.find("mine")
        place.chmod(before)
    assert policies.find("mine").nice == 7


def test_what_is_merged_can_be_read_again(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    text = policies.explain(f"{path}:grader")
    assert f"timeout = 1.5  # {path}:13" in text
    assert f"# {path}:5" in text
    again = write(tmp_path, text, "again.toml")
    assert ps.Config.from_toml(again) == ps.Config.from_toml(path, "grader")


def test_the_schema_takes_what_we_take(tmp_path: Path) -> None:
    schema = policies.schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    valid = jsonschema.Draft202012Validator(schema).is_valid
    assert valid(policies.parse("", GOOD))
    for text in ("[policies.a]\nbogus = 1\n", "[policies.a]\nmemory_limit = '256 MX'\n", "[policies.a]\ntimeout = -1\n", "x = 1\n"):
        assert not valid(policies.parse("", text))
    assert set(schema["properties"]["policies"]["additionalProperties"]["properties"]) == {*policies.FIELDS, *policies.OWN_KEYS}


def test_another_distributions_preset_is_found_by_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Point:
        value = "theirs:make"

        def load(self) -> object:
            return lambda **changes: ps.Config(nice=5, timeout=3)

    monkeypatch.setattr(policies, "entry_points", lambda: {"theirs": Point()})
    assert ps.Config.preset("theirs", timeout=1) == ps.Config(nice=5, timeout=1)
    assert policies.find(str(write(tmp_path, "[policies.a]\nextends = 'theirs'\nnice = 6\n"))) == ps.Config(nice=6, timeout=3)
    with pytest.raises(ps.ConfigError, match="did you mean 'theirs'"):
        ps.Config.preset("their")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param('[policies.a]\nallowed_dirs = ' + "[" * 50_000 + "]" * 50_000, "not TOML", id="arrays in arrays"),
        pytest.param("[policies.a]\nenv." + ".".join("a" * 3000) + " = 1", "deep", id="tables in tables"),
        pytest.param("[policies.a]\ntimeout = " + "1" * 5000, "not TOML", id="thousands of digits"),
        pytest.param("[policies.a]\nmemory_limit = 0x" + "f" * 5000, "64 bits", id="which Python does not show"),
        pytest.param("[policies.a]\nextra = 0x" + "f" * 5000, "64 bits", id="of a key that there is not"),
        pytest.param("".join(f'[policies.p{i}]\nextends = "p{i + 1}"\n' for i in range(3000)) + "[policies.p3000]\n", "extend one another", id="a long chain"),
        pytest.param("[policies.a]\n" + "".join(f"k{i} = 1\n" for i in range(60_000)), "more than", id="many keys"),
        pytest.param('[policies.a]\nallowed_dirs = ["~\\u0000x"]', "NUL", id="a user's name that is none"),
    ],
)
def test_a_hostile_file_is_refused_as_any_other(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in said(tmp_path, text)[0]


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.toml")
    for place in (tmp_path / "fifo.toml", "/dev/zero"):
        with pytest.raises(ps.PolicyError, match="no regular file"):
            policies.load(place)


def test_keys_have_all_escapes_of_toml(tmp_path: Path) -> None:
    path = write(tmp_path, '[policies."\\U00000061"]\nenv."\\U0001F600\t" = "x"\n"time\\u006fut" = "soon"\n')
    assert [(error.line, error.field) for error in policies.check(path)] == [(3, "timeout")]


def test_what_is_shown_is_what_there_is(tmp_path: Path) -> None:
    """No name and no value writes lines of its own, or speaks to the terminal."""
    name = "a]\nnetwork_access = true # "
    directory = tmp_path / "x\ncore_dumps = true # "
    directory.mkdir()
    path = write(directory, f'[policies.{policies.as_toml(name)}]\nenv = {{ A = "\\u009b2J\\u202e" }}\n')
    shown = policies.explain(str(path))
    assert all(line.isprintable() for line in shown.splitlines())
    assert policies.load(write(tmp_path, shown, "shown.toml"), name) == policies.load(path)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="there are no such modes")
def test_what_takes_the_place_of_the_users_own_is_refused(tmp_path: Path, user_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who can write to a directory on the way can do so when the file has been looked at."""
    write(user_directory, "[policies.mine]\n", "policies.toml")
    other = write(tmp_path, "[policies.mine]\nnetwork_access = true\n")
    other.chmod(0o666)

    def swapping(*arguments: object, real: object = policies.read, **options: object) -> object:
        os.replace(other, user_directory / "policies.toml")
        return real(*arguments, **options)  # type: ignore[operator]

    monkeypatch.setattr(policies, "read", swapping)
    with pytest.raises(ps.PolicyError, match="others than you can write"):
        policies.find("mine")


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="there are no such modes")
def test_where_a_link_of_the_users_own_leads_is_looked_at_too(tmp_path: Path, user_directory: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    (user_directory / "policies.toml").symlink_to(write(shared, "[policies.mine]\n"))
    policies.find("mine")
    shared.chmod(0o777)
    with pytest.raises(ps.PolicyError, match="others than you can write"):
        policies.find("mine")
