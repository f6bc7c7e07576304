"""Policies: merged as they extend one another, refused with file, line and key, never taken from a place that others can write to."""

from __future__ import annotations

import itertools
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

import proc_sandbox as ps
from proc_sandbox import policies, presets
from proc_sandbox.policies import files, keys, merging
from proc_sandbox.policies.lines import lines_of, parts

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
    monkeypatch.setattr("platformdirs.user_config_path", lambda *_, **__: directory)
    return directory


def write(directory: Path, text: str, name: str = "sandbox.toml") -> Path:
    path = directory / name
    path.write_text(text)
    path.chmod(0o600)
    return path


def full(*paths: str) -> tuple[str, ...]:
    """Paths as Config has them, on every system."""
    return tuple(os.path.abspath(os.path.expanduser(path)) for path in paths)


def said(path: Path, text: str) -> list[str]:
    """What is said of a file, without its name."""
    write(path, text)
    return [str(error).replace(str(path / "sandbox.toml"), "FILE") for error in policies.check(path / "sandbox.toml")]


def test_a_policy_has_what_it_extends_and_its_own_wins(tmp_path: Path) -> None:
    config = ps.Config.from_toml(write(tmp_path, GOOD), "grader")
    assert (config.timeout, config.memory_limit) == (1.5, 256 << 20)
    assert config.read_only_dirs == (str(tmp_path / "tests"),)
    assert config.allowed_dirs == full("~/data", "/usr/share")
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
        ("[policies.a]\nx = '''\ntimeout = 1\n'''\n", 2, "x", "no such key; there are timeout, "),
        ("[policies.a]\nallowed_dirs = [\n  'a',\n  '',\n]\ntimeout = -1\n", 2, "allowed_dirs", ""),
        ("[policies]\na.timeout = 'soon'\n", 2, "timeout", "soon"),
        ("[policies.a]\nstdin = 'x'\n", 2, "stdin", "give it to run()"),
        ("[policies.a]\nenforcement = { strict = true }\n", 2, "enforcement", "best_effort ="),
        ("[policies.a]\nextends = 'b'\n[policies.b]\nextends = 'a'\n", 2, "extends", "in a circle: b -> a -> b"),
        ("[policies.a]\nextends = 'a'\n", 2, "extends", "no such policy"),
        ("[policies.a]\nextends = 3\n", 2, "extends", "must be a string"),
        ("[policies.a]\nextends = 'jugde'\n", 2, "extends", "no such policy"),
        ("[policies.a\n", 1, "policy", "not TOML"),
        ("[policies.a]\ntimeout = 1\ntimeout = 2\n", 3, "policy", "not TOML"),
        ("timeout = 1\n[policies.a]\n", 1, "timeout", "policies are tables [policies.NAME]"),
        ("[policies.a]\nnice = [\n", 3, "policy", "not TOML"),
        ("", None, "policies", "there are no tables"),
        ("[policies]\na = 1\n", 2, "a", "not a policy"),
        ("[policies]\na = { nice = 1,  'memory_limit' = '1X' }\n", 2, "memory_limit", "'1X'"),
        ("[policies.a.env]\nA = 1\n", 1, "env", "names and values must be str"),
        ("[policies.a]\nenv.B = 'x'\nenv.A = 1\n", 2, "env", "names and values must be str"),
        ("[policies.a]\nallowed_dirs = ['/x']\nhidden_paths = ['/x']\n", 3, "hidden_paths", "lies in it"),
        ("[policies.b]\nnice = 1\n[policies.a]\nextends = 'b'\nnice = 1979-05-27\n", 5, "nice", "whole number"),
        ("[policies.a]\nallowed_dirs = 'x'\n", 2, "allowed_dirs", "must be a list"),
        ("[policies.a]\nenforcement = { best_effort = ['cpu'] }\n", 2, "enforcement", "no such field"),
        ("[policies.a]\nenforcement = { default = 'best-effort', best_effort = ['cpu_limit'] }\n", 2, "enforcement", "write {"),
        ("[policies.a]\nworking_dir = '/x'\nread_only_dirs = ['/x']\n", 2, "working_dir", "name it once"),
    ],
)
def test_what_is_wrong_is_told_with_file_line_and_key(
    tmp_path: Path, text: str, line: int | None, key: str, words: str
) -> None:
    path = write(tmp_path, text)
    error = policies.check(path)[0]
    assert (error.file, error.line, error.field) == (str(path), line, key)
    assert words in str(error) and str(error).startswith(f"{path}:{line}: " if line else f"{path}: ")
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
    assert f'timeout = "1.5 s"  # {path}:13' in text
    assert f"# {path}:5" in text
    again = write(tmp_path, text, "again.toml")
    assert ps.Config.from_toml(again) == ps.Config.from_toml(path, "grader")


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (1, '"1 B"'),
        (1023, '"1023 B"'),
        (1536, '"1.5 KiB"'),
        (256 << 20, '"256 MiB"'),
        ((1 << 20) + 1, "1048577"),
        (5000 << 40, '"5000 TiB"'),
        ((1 << 62), '"4194304 TiB"'),
        ((1 << 63) - 1, "9223372036854775807"),
    ],
)
@pytest.mark.parametrize(("time", "told"), [(0.25, '"0.25 s"'), (1e-5, '"0.00001 s"'), (1 / 3, "0.3333333333333333"), (86400.0, '"86400 s"'), (1e9, '"1000000000 s"')])
def test_amounts_are_shown_as_people_read_them_and_mean_the_same(tmp_path: Path, size: int, shown: str, time: float, told: str) -> None:
    path = write(tmp_path, f"[policies.p]\nmax_output = {size}\ntimeout = {time!r}\n")
    text = policies.explain(str(path))
    assert f"max_output = {shown}  #" in text
    assert f"timeout = {told}  #" in text
    assert ps.Config.from_toml(write(tmp_path, text, "again.toml")) == ps.Config(max_output=size, timeout=time)
    valid = jsonschema.Draft202012Validator(policies.schema()).is_valid
    assert valid(files.parse("", text))


def test_the_schema_takes_what_we_take(tmp_path: Path) -> None:
    schema = policies.schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    valid = jsonschema.Draft202012Validator(schema).is_valid
    assert valid(files.parse("", GOOD))
    for text in ("[policies.a]\nbogus = 1\n", "[policies.a]\nmemory_limit = '256 MX'\n", "[policies.a]\ntimeout = -1\n", "x = 1\n"):
        assert not valid(files.parse("", text))
    assert set(schema["properties"]["policies"]["additionalProperties"]["properties"]) == {*keys.FIELDS, *keys.OWN_KEYS}


class Point:
    """An entry point as importlib.metadata has it."""

    def __init__(self, made: object) -> None:
        self.made = made
        self.value = "theirs:thing"

    def load(self) -> object:
        return self.made


def test_another_distributions_preset_is_found_by_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def make(**changes: Any) -> ps.Config:
        return ps.Config(nice=5, timeout=3, hostname=f"of-{changes.get('nice', 'none')}")

    path = write(tmp_path, "[policies.x]\nextends = 'judge'\nnice = 9\n[policies.default]\n", "theirs.toml")
    points = {"theirs": make, "file": path, "config": ps.Config(nice=2), "x": str(path), "judge": make, "wrong": 3, "loop": path}
    monkeypatch.setattr(merging, "entry_points", lambda: {name: Point(made) for name, made in points.items()})
    monkeypatch.setattr(policies, "entry_points", merging.entry_points)
    assert ps.Config.preset("theirs", timeout=1) == ps.Config(nice=5, timeout=1, hostname="of-none")
    assert ps.Config.preset("theirs", nice=1) == ps.Config(nice=1, timeout=3, hostname="of-1")
    assert policies.find(str(write(tmp_path, "[policies.a]\nextends = 'theirs'\nnice = 6\n"))).hostname == "of-6"
    assert ps.Config.preset("config") == ps.Config(nice=2)
    assert ps.Config.preset("file") == ps.Config(), "the one that is called default"
    assert ps.Config.preset("x") == ps.Config.preset("judge", nice=9), "and ours wins over theirs of the same name"
    assert [item.name for item in policies.listing() if item.source == "entry point"] == ["theirs", "file", "config", "x", "wrong", "loop"]
    assert "hostname = \"of-none\"  # preset theirs" in policies.explain("theirs")
    with pytest.raises(ps.ConfigError, match="did you mean 'theirs'"):
        ps.Config.preset("their")
    with pytest.raises(ps.ConfigError, match="no path, no Config, and no function"):
        ps.Config.preset("wrong")
    write(tmp_path, "[policies.loop]\nextends = 'loop'\n", "theirs.toml")
    with pytest.raises(ps.ConfigError, match="in a circle: loop -> loop"):
        ps.Config.preset("loop")


def test_an_entry_point_is_found_where_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a distribution brings it: files of its own, and entry_points.txt."""
    (tmp_path / "brought.py").write_text("import pathlib\npolicy = pathlib.Path(__file__).with_name('brought.toml')\n")
    write(tmp_path, "[policies.brought]\nnice = 4\n", "brought.toml")
    information = tmp_path / "brought-1.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: brought\nVersion: 1\n")
    (information / "entry_points.txt").write_text("[proc_sandbox.presets]\nbrought = brought:policy\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert ps.Config.preset("brought").nice == 4


# --- what is extended ---


def test_lists_and_variables_add_up_and_values_are_the_nearest(tmp_path: Path) -> None:
    text = """\
[policies.base]
env = { A = "1", B = "1" }
pass_env = ["TZ"]
allowed_dirs = ["/a", "/b"]
hidden_paths = ["/a/secret"]
writable_dirs = ["/w"]
timeout = 9
[policies.near]
extends = "base"
env = { B = "2" }
pass_env = ["LANG", "TZ"]
allowed_dirs = ["/c", "/a/secret"]
read_only_dirs = ["/w"]
timeout = "none"
"""
    config = ps.Config.from_toml(write(tmp_path, text), "near", env={"C": "3"}, allowed_dirs=["/d"])
    assert dict(config.env) == {"A": "1", "B": "2", "C": "3"}
    assert set(config.pass_env) == {"TZ", "LANG"}
    assert set(config.allowed_dirs) == {*full("/a", "/b", "/c", "/d", "/a/secret")}
    assert (config.hidden_paths, config.writable_dirs, config.read_only_dirs) == ((), (), full("/w")), "where the nearest puts them"
    assert config.timeout is None


def test_one_that_extends_its_own_name_means_anothers(tmp_path: Path, user_directory: Path) -> None:
    path = write(tmp_path, "[policies.judge]\nextends = 'judge'\nnice = 1\n")
    assert ps.Config.from_toml(path) == ps.Config.preset("judge", nice=1)
    write(user_directory, "[policies.judge]\nextends = 'judge'\numask = 0o077\n", "policies.toml")
    assert ps.Config.from_toml(path) == ps.Config.preset("judge", nice=1, umask=0o077)
    assert policies.find("judge") == ps.Config.preset("judge", umask=0o077)
    assert ps.Config.preset("judge").umask == 0o022, "a preset is ours, whatever the user calls by its name"


def test_a_users_policy_does_not_extend_one_of_another_file(tmp_path: Path, user_directory: Path) -> None:
    path = write(tmp_path, "[policies.a]\nextends = 'mine'\n[policies.b]\nextends = 'a'\n")
    write(user_directory, "[policies.mine]\nextends = 'b'\n", "policies.toml")
    with pytest.raises(ps.PolicyError, match="no such policy") as caught:
        ps.Config.from_toml(path, "a")
    assert caught.value.file == str(user_directory / "policies.toml")


@pytest.mark.skipif(sys.platform == "win32", reason="there are no owners")
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root, to give a file away")
def test_the_users_own_are_refused_where_they_are_anothers(user_directory: Path) -> None:
    path = write(user_directory, "[policies.mine]\nnice = 7\n", "policies.toml")
    for place in (path, user_directory):
        os.chown(place, 12345, -1)
        with pytest.raises(ps.PolicyError, match=r"belongs to another user \(12345\)"):
            policies.find("mine")
        os.chown(place, 0, -1)
    assert policies.find("mine").nice == 7


@pytest.mark.skipif(sys.platform == "win32", reason="there are no modes")
def test_where_a_link_leads_is_looked_at_too(user_directory: Path, tmp_path: Path) -> None:
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    write(open_to_all, "[policies.mine]\nnice = 7\n", "real.toml")
    (user_directory / "policies.toml").symlink_to(open_to_all / "real.toml")
    assert policies.find("mine").nice == 7
    open_to_all.chmod(0o777)
    with pytest.raises(ps.PolicyError, match="others than you can write to it"):
        policies.find("mine")
    open_to_all.chmod(0o1777)
    assert policies.find("mine").nice == 7, "there nobody takes another's file away"


def test_what_cannot_be_read_says_so(tmp_path: Path, user_directory: Path) -> None:
    with pytest.raises(ps.PolicyError, match="No such file"):
        ps.Config.from_toml(tmp_path / "missing.toml")
    (tmp_path / "latin.toml").write_bytes(b"# \xe9\n")
    with pytest.raises(ps.PolicyError, match="not UTF-8"):
        ps.Config.from_toml(tmp_path / "latin.toml")
    (user_directory / "policies.toml").symlink_to("nowhere")
    with pytest.raises(ps.PolicyError, match="No such file"):
        policies.find("mine")


def test_what_explains_itself_can_be_read_again(tmp_path: Path) -> None:
    text = """\
[policies."a b"]
extends = "agent"
working_dir = "p"
timeout = "none"
memory_limit = 1048577
umask = 0o077
cpu_limit = 12.5
hidden_paths = ["q\\u007f\\"\\\\"]
env = { "X Y" = "ü\\n" }
enforcement = { best_effort = ["files"] }
"""
    path = write(tmp_path, text)
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / ".env").touch()
    shown = policies.explain(f"{path}:a b")
    assert ps.Config.from_toml(write(tmp_path, shown, "again.toml")) == ps.Config.from_toml(path)
    assert "umask = 0o077" in shown
    assert 'memory_limit = 1048577  # ' in shown
    assert f"{json.dumps(str(tmp_path / 'p' / '.env'))},  # preset agent" in shown


def test_a_preset_that_is_about_a_directory_is_given_one(tmp_path: Path) -> None:
    with pytest.raises(ps.ConfigError, match="working_dir=") as caught:
        ps.Config.preset("agent")
    assert caught.value.field == "preset"
    path = write(tmp_path, "[policies.a]\nextends = 'agent'\n")
    assert policies.check(path) == [], "it is given when it is used"
    assert "# working_dir: to be given when it is used" in policies.explain(str(path))
    with pytest.raises(ps.ConfigError, match="working_dir="):
        ps.Config.from_toml(path)
    assert ps.Config.from_toml(path, working_dir=tmp_path).working_dir == str(tmp_path)


# --- lines, and what editors are told ---

VALUES = (
    "1", "true", "'a = 1 # no'", '"x\\"] = "', "1979-05-27T07:32:00Z", "{ a = 1, 'b c' = [2, 3], d.e = { f = '}' } }", "{}", "[]",
    "[\n  'a', # comment = [ {\n  { x = 1 },\n]", '"""\n[policies.no]\nkey = 1\n\\""""', "'''\n[no]\n'' = '''", '"""two quotes: """""',
)  # fmt: skip
KEYS = ("plain%d", '"quoted key%d"', "'literal.key%d'", "a-b_%d", '"\\u00fc%d"', "dotted%d . 'k'")
HEADS = ("[t%d]", '[ t%d . "u v" ]', "[[array%d]]", "[[array%d.of]]", "# [a] = comment\n[x%d] # [y]", "\r\n[w%d]\r")


@given(st.lists(st.tuples(st.sampled_from(HEADS), st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from(VALUES))))))
def test_the_line_of_every_key_is_found(document: list[tuple[str, list[tuple[str, str]]]]) -> None:
    """Each name has a number of its own, so that the document is TOML, and no value is taken for a key."""
    lines: list[str] = []
    expected: set[tuple[str, int]] = set()
    numbers = itertools.count()
    for head, entries in document:
        lines += (head % next(numbers)).split("\n")
        for key, value in entries:
            name = key % next(numbers)
            expected.add((parts([name])[0], len(lines) + 1))
            lines += f"{name} = {value}  # {name} = 0".split("\n")
    text = "\n".join(lines) + "\n"
    files.parse("", text)
    in_values = {"a", "b c", "d", "e", "f"}
    found = {(path[-1], line) for path, line in lines_of(text).items()}
    assert expected <= found, text
    heads = {"t", "u v", "array", "of", "x", "w", "k"}
    assert {name.rstrip("0123456789") for name, _ in found - expected} <= heads | in_values, text


def samples(name: str) -> list[object]:
    """What may be written for a field, good and bad."""
    size = [1, "256M", "1.5 GiB", "10 kb", "7B", "256 MX", "", "-1M", -1, "M", True, [], "1\nM"]
    times = [1, 0.5, "500ms", "5 s", "2m", "1min", "1h", "5 d", 0, -1, "", "ms", True]
    numbers = [0, 1, 7, 8, 16, 17, 19, 20, 511, 512, 1 << 20, (1 << 20) + 1, 1 << 22, (1 << 22) + 1, -1, 1.5, "1", True]
    lists = [[], ["x"], ["a", "b"], [""], [1], "x", {}]
    words = ["", "x", "none", "linux", "loopback", "strict", "best-effort", True, False, 1, "x" * 65, 50, "50%", "0.5 %", 0.5, 100_001]
    enforcements = [{"default": "strict"}, {"best_effort": ["cpu_limit"]}, {"best_effort": ["no"]}, {"x": 1}, {"default": "best-effort"}]
    return [*size, *times, *numbers, *lists, *words, *enforcements, {"A": "1"}, {"A": 1}, {"": "x"}, ["A=1"], ["A"]]


@pytest.mark.parametrize("name", keys.FIELDS)
def test_the_schema_takes_what_a_file_may_say_and_nothing_else(name: str, tmp_path: Path) -> None:
    valid = jsonschema.Draft202012Validator(policies.schema()).is_valid
    taken = 0
    for value in samples(name):
        table = files.Table(str(tmp_path / "x.toml"), "a", {name: value}, {}, ("policies", "a"))
        good = not list(keys.check_table(table))
        errors = " ".join(error.remedy for error in keys.check_table(table))
        if "must be at least" in errors or "must be more than 0" in errors or "must be from 1 to 100000" in errors:
            continue  # of a string a pattern does not tell
        assert valid({"policies": {"a": {name: value}}}) == good, value
        taken += good
    assert taken


def test_the_schema_tells_editors_what_each_key_is() -> None:
    schema = policies.schema()
    told = schema["properties"]["policies"]["additionalProperties"]["properties"]
    assert all(told[name]["description"].endswith(".") or told[name]["description"] for name in keys.FIELDS)
    assert told["timeout"]["description"].startswith("Wall clock time of the run")


def test_presets_are_listed_with_what_they_are_for() -> None:
    found = {item.name: item for item in policies.listing() if item.source == "preset"}
    assert set(found) == set(presets.names())
    assert all(item.description and os.path.exists(item.path) for item in found.values())


def test_what_a_preset_refuses_is_told_with_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (error,) = policies.check(write(tmp_path, "[policies.a]\nextends = 'agent'\nworking_dir = '.'\n"))
    assert (error.line, error.field) == (3, "working_dir")
    assert "home directory lies in it" in error.remedy


def test_nothing_of_it_is_imported_before_it_is_asked_for() -> None:
    code = "import sys, proc_sandbox as ps; ps.Config(); print([m for m in sys.modules if m.split('.')[0] in ('tomllib', 'tomli', 'platformdirs') or 'policies' in m or 'presets' in m])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"
    code = "import sys, proc_sandbox as ps; ps.Config.preset('judge'); print('platformdirs' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "False\n", "only where a name is looked up"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("[policies.a]\nallowed_dirs = " + "[" * 50_000 + "]" * 50_000, id="arrays in arrays"),
        pytest.param("[policies.a]\nenv." + ".".join("a" * 3000) + " = 1", id="tables in tables"),
        pytest.param("[policies.a]\ntimeout = " + "1" * 5000, id="thousands of digits"),
        pytest.param("[policies.a]\nmemory_limit = 0x" + "f" * 5000, id="which Python does not show"),
        pytest.param("[policies.a]\nextra = 0x" + "f" * 5000, id="of a key that there is not"),
        pytest.param("".join(f'[policies.p{i}]\nextends = "p{i + 1}"\n' for i in range(300)) + "[policies.p300]\nx = 1\n", id="a long chain"),
        pytest.param("[policies.a]\n" + "".join(f"k{i} = 1\n" for i in range(60_000)), id="many keys"),
        pytest.param('[policies.a]\nallowed_dirs = ["~\\u0000x"]', id="a user's name that is none"),
    ],
)
def test_a_hostile_file_is_refused_as_any_other(tmp_path: Path, text: str) -> None:
    errors = policies.check(write(tmp_path, text))
    assert errors
    assert all(str(error) for error in errors)


@pytest.mark.skipif(sys.platform == "win32", reason="there are no FIFOs")
def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.toml")
    for place in (tmp_path / "fifo.toml", "/dev/zero"):
        with pytest.raises(ps.PolicyError, match="no regular file"):
            policies.load(place)


def test_what_is_shown_writes_no_lines_of_its_own(tmp_path: Path) -> None:
    directory = tmp_path / "x\ncore_dumps = true # "
    directory.mkdir()
    text = '[policies."a]\\nnetwork_access = true # "]\nenv = { A = "\\u009b2J\\u202e" }\n'
    path = write(directory, text)
    shown = policies.explain(str(path))
    assert all(line.isprintable() for line in shown.splitlines())
    assert "x\\x0acore_dumps = true" in shown  # what it was can be told
    assert policies.load(write(tmp_path, shown, "shown.toml")) == policies.load(path)


def test_quoted_keys_have_all_that_toml_has(tmp_path: Path) -> None:
    path = write(tmp_path, '[policies."\\U00000061"]\nenv."\\U0001F600\t\\\\U00000061" = "x"\n"time\\u006fut" = "soon"\n')
    assert [(error.line, error.field) for error in policies.check(path)] == [(3, "timeout")]
