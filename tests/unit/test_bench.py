"""The benchmark's pure parts: turns, statistics, tables and the page; and that a peer that is missing is named."""

from __future__ import annotations

import importlib.metadata
import itertools
import statistics
from collections import Counter
from pathlib import Path
from typing import NoReturn

import pytest

from bench.inside import ALL, PARTS, THREE, compared, figures
from bench.measure import Turns, interleave, summary, timed, turns
from bench.overhead import Marks, Poll
from bench.page import recorded, with_block
from bench.peers import PEERS, Bubblewrap, missing_notes, usable
from bench.table import Bar, Section, Table, ms, ratio

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("count", range(1, 12))
def test_every_round_has_everyone_once(count: int) -> None:
    for number in range(3 * count):
        assert sorted(turns(count, number)) == list(range(count))


@pytest.mark.parametrize("count", range(2, 12))
def test_everyone_follows_everyone_equally_often(count: int) -> None:
    pairs = Counter(pair for number in range(2 * count) for pair in itertools.pairwise(turns(count, number)))
    assert set(pairs) == set(itertools.permutations(range(count), 2))
    assert set(pairs.values()) == {2}


@pytest.mark.parametrize("count", range(1, 12))
def test_everyone_has_every_place_equally_often(count: int) -> None:
    places = Counter(item for number in range(2 * count) for item in enumerate(turns(count, number)))
    assert set(places.values()) == {2}
    assert len(places) == count * count


def test_where_some_take_part_seldom_everyone_follows_everyone_too() -> None:
    """Numbered by the rounds of all, those of the peers would have two orders of four."""
    everyone = Turns()
    rounds = [everyone.order(("a", "b", "c", "d") if number % 4 == 0 else ("a", "b")) for number in range(32)]
    for many in (2, 4):
        pairs = Counter(pair for order in rounds if len(order) == many for pair in itertools.pairwise(order))
        assert set(pairs) == set(itertools.permutations("abcd"[:many], 2))
        assert len(set(pairs.values())) == 1


def test_the_warm_up_is_not_counted_and_the_slow_take_part_seldom() -> None:
    calls: list[str] = []

    def variant(name: str, value: float) -> float:
        calls.append(name)
        return value

    found = interleave(
        {"a": lambda: variant("a", 1.0), "b": lambda: variant("b", 2.0), "slow": lambda: variant("slow", 3.0)},
        20,
        warm_up=3,
        seldom=["slow"],
    )
    assert found == {"a": [1.0] * 20, "b": [2.0] * 20, "slow": [3.0] * 2}
    assert Counter(calls) == {"a": 23, "b": 23, "slow": 2}


def test_what_a_part_took_inside_is_compared_within_its_round() -> None:
    """A machine that is slow for a while is slow for both: rounds that took ten times as long say the same."""
    said = "getpid {0}\nstat {1}\nopen+close {2}\ncompile {3}\nmissed 0\n"
    bare = [figures(said.format(*(slow * part for part in (1, 1, 2, 6))).encode()) for slow in (1, 10, 1)]
    inside = {number: figures(said.format(*(bare[number]["getpid"] * part for part in (2, 1, 3, 6))).encode()) for number in (0, 1)}
    assert bare[0][THREE] == 8
    assert bare[0][ALL] == 10
    found = compared(inside, dict(enumerate(bare)))
    assert list(found) == list(PARTS)
    assert found == {"getpid": 2, "stat": 1, "compile": 1, THREE: 9 / 8, "open+close": 1.5, ALL: 1.2}


def test_what_python_does_before_it_waits_and_the_waiting_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a run that is waited for twice, the second time with work in between."""
    times = iter((15.0, 20.0, 22.0, 25.0))
    monkeypatch.setattr("bench.overhead.thread_time", lambda: next(times))

    class Asleep:
        register = unregister = None

        def poll(self, _: float | None) -> list[tuple[int, int]]:
            return [(1, 1)]

    marks = Marks()
    marks.sent = 10.0
    poll = Poll(Asleep(), marks)  # type: ignore[arg-type]
    assert poll.poll(None) == [(1, 1)]
    assert poll.poll(None) == [(1, 1)]
    assert (marks.got_ready, marks.polled) == (5.0, 8.0)


def test_a_run_that_failed_has_no_time() -> None:
    assert timed(lambda: True, "good")() >= 0
    with pytest.raises(RuntimeError, match="bad"):
        timed(lambda: False, "bad")()


def test_few_measurements_tell_no_p99() -> None:
    values = [float(number) for number in range(1, 102)]
    assert summary(values) == (101, 51.0, 100.0)
    assert summary(values[:49]) == (49, statistics.median(values[:49]), None)
    assert summary([2.0]) == (1, 2.0, None)


def test_a_table_is_aligned_and_a_bar_knows_its_side() -> None:
    lines = list(Table(("", "ms"), [("subprocess", ms(0.00123)), ("ours", ms(None))], "title").lines())
    assert lines == [
        "**title**",
        "",
        "|            |   ms |",
        "| ---------- | ---: |",
        "| subprocess | 1.23 |",
        "| ours       |    - |",
    ]
    assert ratio(3, 2) == "1.50"
    assert Bar("at most", 1.1, 1.1).held
    assert not Bar("at most", 1.2, 1.1).held
    assert Bar("at least", 0.7, 0.6, at_most=False).held
    assert not Bar("at least", 0.5, 0.6, at_most=False).held


def test_a_page_is_written_between_its_marks_only() -> None:
    page = (ROOT / "docs/performance.md").read_text(encoding="utf-8")
    section = Section("memory", "Memory", "about", bars=[Bar("what", 1, 2)])
    made = recorded(page, Table(("machine", ""), [("kernel", "x")], left=True), [section], quick=True)
    again = recorded(made, Table(("machine", ""), [("kernel", "x")], left=True), [section], quick=True)
    assert made == again
    assert "| what" in made
    assert made.splitlines()[0] == page.splitlines()[0]
    assert "<!-- bench syscalls:" in made
    with pytest.raises(ValueError, match="no place"):
        with_block("nothing", "memory", [])


def test_peers_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def not_there(name: str) -> NoReturn:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(importlib.metadata, "version", not_there)
    with usable() as (peers, missing):
        assert peers == []
        assert missing == {peer.name: "not installed" for peer in PEERS}
        assert set(missing) == {"bwrap", "sandlock", "isolate", "nsjail", "firejail", "runexec (BenchExec)"}
        assert "not measured: nsjail: not installed" in missing_notes(missing)


def test_a_peer_that_does_not_work_says_why_in_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bubblewrap, "version", lambda self: "1")
    monkeypatch.setattr(Bubblewrap, "run", lambda self, command: (False, b"first\nbwrap: No permissions\n"))
    assert Bubblewrap().why_not() == "does not work here: bwrap: No permissions"
