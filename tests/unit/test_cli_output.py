"""What the command line prints, without a run: examples, verdicts, tables, colours; and what it never lets through to a terminal."""

from __future__ import annotations

import io
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

import proc_sandbox as ps
from proc_sandbox.cli import main, options, parse
from proc_sandbox.cli.examples import TOPICS
from proc_sandbox.cli.parser import ACTIONS
from proc_sandbox.cli.printing import print_table, quoted, wants_colour
from proc_sandbox.cli.verdict import print_stats, print_verdict, stats_rows, verdict_line
from proc_sandbox.visible import printable

RESULT = ps.Result(
    args=("true",),
    exit_code=0,
    signal=None,
    execution_time=5.003,
    cpu_time=ps.CpuTime(1.0, 0.5),
    peak_memory=1 << 20,
    throttled_time=None,
    peak_processes=None,
    timed_out=False,
    memory_exceeded=False,
    cpu_time_exceeded=False,
    processes_exceeded=False,
    output_truncated=ps.Truncated(),
    reason=ps.Reason.EXITED,
    stdout=ps.Output(),
    stderr=ps.Output(),
    error=None,
    enforcement={"timeout": ps.Enforced("a deadline"), "memory_limit": ps.Unenforced("no cgroup", "get one")},
)
LATE = replace(
    RESULT, exit_code=None, signal=9, reason=ps.Reason.TIMEOUT, error="wall time limit of 5 s exceeded (ran 5.003 s)"
)
PIPE = replace(
    RESULT, exit_code=None, signal=13, reason=ps.Reason.SIGNALED, error="killed by SIGPIPE, sent from inside (ran 1 s)"
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("action", ["", *ACTIONS, "policy show", "policy check", "policy list", "policy schema"])
def test_help_begins_with_examples(action: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([*action.split(), "--help"])
    assert caught.value.code == 0
    about, _, rest = capsys.readouterr().out.partition("\n\nexamples:\n")
    assert about
    assert rest.splitlines()[1].startswith("  ")
    assert "proc-sandbox" in rest.splitlines()[1]
    assert "\nusage: proc-sandbox" in rest


def test_every_action_has_examples_and_none_is_of_something_else() -> None:
    assert set(TOPICS) == {"", *ACTIONS}
    for action, topic in TOPICS.items():
        assert all("proc-sandbox " + action in line for line, _ in topic.examples)
        assert all(shlex.split(line) for line, _ in topic.examples)


def test_the_verdict_is_one_line() -> None:
    assert verdict_line(LATE) == "timed out: wall time limit of 5 s exceeded (ran 5.003 s)"
    assert verdict_line(RESULT) == "exited with 0 (ran 5.003 s)"
    assert "memory limit was exceeded" in verdict_line(replace(RESULT, memory_exceeded=True))
    assert verdict_line(PIPE) == PIPE.error


@pytest.mark.parametrize(
    ("result", "said"), [(RESULT, False), (LATE, True), (PIPE, False), (replace(PIPE, signal=11), True)]
)
def test_nothing_is_said_of_what_is_ordinary(result: ps.Result, said: bool, capsys: pytest.CaptureFixture[str]) -> None:
    print_verdict(result, "auto", always=False)
    printed = capsys.readouterr().err
    assert bool(printed) == said
    assert "\033" not in printed
    print_verdict(result, "always", always=True)
    assert capsys.readouterr().err.startswith("proc-sandbox: \033[3")


def test_colours_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert wants_colour("auto", Terminal())
    assert not wants_colour("never", Terminal())
    assert not wants_colour("auto", io.StringIO())
    assert wants_colour("always", io.StringIO())
    monkeypatch.setenv("NO_COLOR", "")
    assert wants_colour("auto", Terminal())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not wants_colour("auto", Terminal())
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not wants_colour("auto", Terminal())


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ünïcode", "plain ünïcode"),
        ("\033]0;title\007", "\\x1b]0;title\\x07"),
        ("a\nb\tc\r", "a\\x0ab\\x09c\\x0d"),
        ("\x9b31m", "\\x9b31m"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\udcff", "\\xff"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_nothing_that_moves_a_terminal_gets_through(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert quoted([text]).isprintable()


def test_a_command_is_quoted_as_for_a_shell() -> None:
    assert quoted(["sh", "-c", "echo 'a b'", ""]) == "sh -c 'echo '\\''a b'\\''' ''"
    assert shlex.split(quoted(["a'b", "$(x)", ""])) == ["a'b", "$(x)", ""]


@pytest.mark.parametrize("kind", [io.StringIO, Terminal])
def test_a_table_has_every_cell_and_no_markup(kind: type[io.StringIO], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")
    file = kind()
    print_table(("id", "what"), [("1", "[red]x[/red]"), ("22", "a\033[2Jb")], file, colour="never")
    assert "[red]x[/red]" in file.getvalue()
    assert "a\\x1b[2Jb" in file.getvalue()
    assert "\033" not in file.getvalue()


def test_a_table_that_is_piped_is_plain() -> None:
    file = io.StringIO()
    print_table(("id", "what"), [("1", "one"), ("22", "two")], file)
    assert file.getvalue() == "id  what\n1   one\n22  two\n"


def test_stats_tell_use_and_enforcement(capsys: pytest.CaptureFixture[str]) -> None:
    config = ps.Config(timeout=5, memory_limit="64M")
    rows = {row[0]: row[1:] for row in stats_rows(RESULT, config)}
    assert rows["timeout"] == ("5.003 s", "5 s", "kernel", "a deadline")
    assert rows["memory_limit"] == ("1 MiB", "64 MiB", "none", "no cgroup")
    assert rows["cpu_time_limit"] == ("1.5 s", "-", "-", "-")
    assert "max_processes" not in rows
    print_stats(RESULT, config, "auto")
    assert "a deadline" in capsys.readouterr().err


POLICY = """
[policies.x]
timeout = 5
memory_limit = "64M"
env = { A = "1", B = "2" }
read_only_dirs = ["a"]
allowed_dirs = ["b"]
pass_env = ["TZ"]
"""


def config_over_policy(directory: Path, *words: str) -> ps.Config:
    (directory / "policy.toml").write_text(POLICY)
    return options.make_config(parse(["run", "--policy", str(directory / "policy.toml"), *words, "--", "true"]))


def test_options_win_over_a_policy_and_lists_add_to_it(tmp_path: Path) -> None:
    found = config_over_policy(tmp_path, "-t", "9", "-e", "B=3", "-e", "C=4", "--ro", str(tmp_path / "c"), "--pass-env", "LANG", "--stdout", "devnull")
    assert (found.timeout, found.memory_limit) == (9, 64 << 20)
    assert dict(found.env) == {"A": "1", "B": "3", "C": "4"}
    assert set(found.read_only_dirs) == {str(tmp_path / "a"), str(tmp_path / "c")}
    assert set(found.pass_env) == {"TZ", "LANG"}
    assert (found.stdin, found.stdout, found.stderr) == (ps.INHERIT, ps.DEVNULL, ps.INHERIT)


def test_a_path_goes_where_the_option_says(tmp_path: Path) -> None:
    found = config_over_policy(tmp_path, "--rw", str(tmp_path / "a"))
    assert (found.writable_dirs, found.read_only_dirs, found.allowed_dirs) == ((str(tmp_path / "a"),), (), (str(tmp_path / "b"),))


def test_policy_and_preset_exclude_one_another(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["run", "--policy", "a", "--preset", "b", "--", "true"])
    assert caught.value.code == 125
    assert "not allowed with" in capsys.readouterr().err
