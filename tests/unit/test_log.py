"""What is told to logging: to whom listens, in one visible line, and nothing at all where nobody does."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator

import pytest
from support.logs import Records
from support.results import sample_result

import proc_sandbox as ps
from proc_sandbox import log


@pytest.fixture
def records() -> Iterator[Records]:
    with Records(logging.DEBUG) as found:
        yield found


def test_a_run_is_told_at_its_begin_and_end_by_one_number(records: Records) -> None:
    number = log.run_begins(("python3", "-c", "print(1)"))
    log.run_ended(number, sample_result(exit_code=3))
    begin, end = records.lines()
    assert begin == f"DEBUG run {number} begins: ['python3', '-c', 'print(1)']"
    assert end == f"DEBUG run {number} ended: exited: exit status 3 (0.250 s, 0.125 s of CPU)"
    assert {record.name for record in records.seen} == {"proc_sandbox"}


@pytest.mark.parametrize(
    ("reason", "level"),
    [
        (ps.Reason.EXITED, "DEBUG"),
        (ps.Reason.SIGNALED, "DEBUG"),
        (ps.Reason.CANCELLED, "DEBUG"),
        (ps.Reason.TIMEOUT, "INFO"),
        (ps.Reason.CPU_TIME, "INFO"),
        (ps.Reason.MEMORY, "INFO"),
        (ps.Reason.PROCESSES, "INFO"),
        (ps.Reason.KILLED_OUTSIDE, "WARNING"),
    ],
)
def test_what_a_limit_ended_is_said_louder_than_what_ended_by_itself(records: Records, reason: ps.Reason, level: str) -> None:
    log.run_ended(1, sample_result(reason=reason, error="why"))
    assert [record.levelname for record in records.seen] == [level]
    assert "why" in records.lines()[0]


def test_at_info_no_argument_is_shown_but_the_name_of_the_command() -> None:
    with Records(logging.INFO) as records:
        number = log.run_begins(("curl", "--user", "name:secret"))
        log.run_ended(number, sample_result(args=("curl", "--user", "name:secret"), reason=ps.Reason.TIMEOUT, error="late"))
    assert number == 0
    assert records.lines() == ["INFO run of curl ended: timeout: late (0.250 s, 0.125 s of CPU)"]


HOSTILE = ("x\nERROR root: all is lost", "\x1b[2J\x1b]0;title\x07", "\r\x08\x7f\x9b", "\u2028\u202e", "\udcff", "'\"$(reboot)")


def test_a_command_cannot_write_a_line_of_the_log_or_speak_to_a_terminal(records: Records) -> None:
    log.run_begins(HOSTILE)
    with Records(logging.INFO) as louder:
        log.run_ended(0, sample_result(args=HOSTILE, reason=ps.Reason.TIMEOUT, error="late"))
    log.unenforced("files", "no\nsuch\x1bthing", "none")
    for line in records.lines() + louder.lines():
        assert line.isprintable()
        line.encode()


def test_a_long_command_is_cut(records: Records) -> None:
    log.run_begins(["a" * 200_000, *["b"] * 100_000])
    log.run_begins(["a", *["b"] * 100_000])
    assert all(len(line) < 1100 and line.endswith("...") for line in records.lines())


def test_what_is_not_enforced_is_said_once_for_each_reason(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "said", set())
    for reason in ("no mechanism", "no mechanism", "another reason"):
        log.unenforced("files", reason, "none")
    assert records.lines() == [
        "WARNING files is not enforced: no mechanism; remedy: none",
        "WARNING files is not enforced: another reason; remedy: none",
    ]


def test_what_is_not_there_is_said_once_for_each_path(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "said", set())
    monkeypatch.setattr(log, "MOST_SAID", 2)
    for paths in (["/a"], ["/a", "/b\n"], ["/b\n"]):
        log.not_there(paths)
    said = "is not there, so that nothing is hidden by that name; is it misspelt?"
    assert records.lines() == [f"WARNING hidden_paths: '/a' {said}", f"WARNING hidden_paths: '/b\\n' {said}"]
    log.not_there(["/c", "/d"])
    assert len(log.said) <= 2, "for ever more of them fill no memory"


def test_where_nobody_listens_nothing_is_worded(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> str:
        raise AssertionError

    monkeypatch.setattr(log, "shown", never)
    monkeypatch.setattr(log, "printable", never)
    with Records(logging.WARNING):
        assert log.run_begins(("true",)) == 0
        log.run_ended(0, sample_result(reason=ps.Reason.TIMEOUT, error="late"))


def test_a_module_of_that_name_that_is_not_logging_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be the program's own, or logging itself while another thread is importing it."""
    monkeypatch.setitem(sys.modules, "logging", type(sys)("logging"))
    assert log.listener(log.WARNING) is None


PRINTS_NOTHING = """
import logging
from proc_sandbox import log
log.tell(log.WARNING, "unheard")
assert [type(handler) for handler in logging.getLogger("proc_sandbox").handlers] == [logging.NullHandler]
"""
NOT_IMPORTED = """
import sys
import proc_sandbox as ps
ps.run, ps.Sandbox, ps.plan, ps.Config(timeout=1)
from proc_sandbox import log
log.tell(log.WARNING, "unheard")
assert log.run_begins(["true"]) == 0
assert "logging" not in sys.modules, "it takes milliseconds"
"""


@pytest.mark.parametrize("code", [PRINTS_NOTHING, NOT_IMPORTED])
def test_nothing_is_printed_and_nothing_imported(code: str) -> None:
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
