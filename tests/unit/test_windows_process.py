"""Command lines and environments of Windows, anywhere."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.windows import parse

import proc_sandbox as ps
from proc_sandbox.backends.windows.process import command_line, environment_block
from proc_sandbox.backends.windows.winapi import Win32Error

TEXT = st.text(st.characters(min_codepoint=1, max_codepoint=0x10FFFF), max_size=20) | st.text('\\" \t\na*', max_size=12)


@given(st.lists(TEXT, max_size=6))
@example(['\\" "', "", "\\\\", 'a\\\\"b c\\'])
def test_a_line_gives_the_arguments_back(arguments: list[str]) -> None:
    assert parse(command_line(["program", *arguments])) == ["program", *arguments]


@given(TEXT.filter(lambda name: '"' not in name))
def test_a_line_gives_the_program_back(name: str) -> None:
    assert parse(command_line([name, "a b"])) == [name, "a b"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["a.exe", "--x=1", "C:\\dir\\file.txt"], "a.exe --x=1 C:\\dir\\file.txt"),
        (["a b.exe", "c d"], '"a b.exe" "c d"'),
        (["a", ""], 'a ""'),
        (["a", 'say "hi"'], 'a "say \\"hi\\""'),
        (["a", "end\\ \\"], 'a "end\\ \\\\"'),
        (["a", "*.txt"], 'a "*.txt"'),
        (["a b\\", "x"], '"a b\\" x'),
    ],
)
def test_lines(arguments: list[str], line: str) -> None:
    assert command_line(arguments) == line


@pytest.mark.parametrize("arguments", [["a", "b\0c"], ["a\0", "b"], ['a"b', "c"]])
def test_what_no_line_can_say(arguments: list[str]) -> None:
    with pytest.raises(ps.ConfigError):
        command_line(arguments)


def test_environment_is_sorted_without_regard_to_case() -> None:
    assert environment_block([("b", "1"), ("A", "2"), ("_", "3"), ("a_", "4"), ("=C:", "C:\\x")]) == (
        "=C:=C:\\x\0A=2\0a_=4\0b=1\0_=3\0\0"
    )


def test_empty_environment() -> None:
    assert environment_block([]) == "\0\0"


@pytest.mark.parametrize(
    "variables",
    [
        [("", "x")],
        [("=", "x")],
        [("A=B", "x")],
        [("A\0", "x")],
        [("A", "x\0B=y")],
        [("Path", "x"), ("PATH", "y")],
        [("stra\u00dfe", "x"), ("STRA\u00dfE", "y")],
    ],
)
def test_environments_that_windows_cannot_have(variables: list[tuple[str, str]]) -> None:
    with pytest.raises(ps.ConfigError):
        environment_block(variables)


def test_names_that_differ_by_more_than_case_do_not_collide() -> None:
    assert environment_block([("STRASSE", "x"), ("STRA\u00dfE", "y")]).count("=") == 2


def test_errors_pickle_and_speak() -> None:
    error = pickle.loads(pickle.dumps(Win32Error("CreateProcessW", 5)))
    assert (error.function, error.code, str(error)) == (
        "CreateProcessW",
        5,
        "[Errno 13] CreateProcessW: Permission denied (Windows error 5)",
    )
