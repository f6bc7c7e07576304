"""The pure parts of the POSIX backend: its planner, its messages, and which processes it takes for a run's."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import Any, NamedTuple

import pytest

import proc_sandbox as ps
from proc_sandbox.host import Feature, Grant, Hidden, Host, Paths
from proc_sandbox.planner import compile_plan
from proc_sandbox.planner.posix.mechanisms import LADDER
from proc_sandbox.planner.posix.plan import PosixPlan
from proc_sandbox.planner.posix.planner import NEW_DIRECTORY
from proc_sandbox.planner.posix.promises import DIFFERENCES, WEAKER
from proc_sandbox.result import Enforced, Unenforced

YES = Feature(True)
NO = Feature(False, "it is not there", "get it")
USER = Host("posix", {"linux": YES, "pss": YES, "uss": YES, "nproc": YES, "seatbelt": NO})
ROOT = replace(USER, features={**USER.features, "nproc": NO}, root=True)
MAC = replace(USER, features={"linux": NO, "pss": NO, "uss": YES, "nproc": YES, "seatbelt": YES})
BSD = replace(USER, features={"linux": NO, "pss": NO, "uss": NO, "nproc": YES, "seatbelt": NO})
PATHS = Paths(executable="/bin/echo", program="/bin/echo")


def plan(host: Host = USER, paths: Paths = PATHS, **config: Any) -> PosixPlan:
    config.setdefault("enforcement", "best-effort")
    config.setdefault("hidden_paths", [item.path for item in paths.hidden])
    made = compile_plan(ps.Config(**config), ["echo", "a"], host, paths)
    assert isinstance(made, PosixPlan)
    return made


@pytest.mark.parametrize("host", [USER, ROOT, BSD])
def test_strict_refuses_what_nothing_hides(host: Host) -> None:
    with pytest.raises(ps.UnsupportedError) as caught:
        plan(host, enforcement="strict")
    assert caught.value.remedy


def test_each_isolation_and_limit_is_said_once() -> None:
    said = plan(timeout=1, memory_limit="1G", cpu_limit=50, cpu_time_limit=1, max_processes=5, read_bps="1M").enforcement
    for name in ("files", "network_access", "privileges", "processes", "ipc", "syscalls", "read_bps"):
        assert isinstance(said[name], Unenforced), name
    for name in ("timeout", "memory_limit", "cpu_limit", "cpu_time_limit", "max_processes"):
        assert isinstance(said[name], Enforced)
        assert said[name].strength == "sampled"


@pytest.mark.parametrize(("host", "figure"), [(USER, "PSS"), (MAC, "footprint"), (BSD, "resident")])
def test_memory_is_measured_as_the_system_can(host: Host, figure: str) -> None:
    assert figure in plan(host, memory_limit="1G").enforcement["memory_limit"].mechanism  # type: ignore[union-attr]


def test_tasks_have_rlimit_nproc_behind_them_but_for_root() -> None:
    assert plan(max_processes=10).spare_tasks == 138
    assert plan(ROOT, max_processes=10).spare_tasks == 0
    assert "RLIMIT_NPROC" not in str(plan(ROOT, max_processes=10).enforcement["max_processes"])


def test_who_asks_for_no_limit_is_looked_at_less_often() -> None:
    tracked, measured = plan().sampling, plan(memory_limit="1G").sampling
    assert tracked
    assert measured
    assert tracked.interval > measured.interval
    assert (tracked.memory, tracked.tasks) == (0, 0)
    assert (measured.memory, measured.tasks) == (1 << 30, 2000)


def test_more_tasks_than_can_be_watched_are_refused() -> None:
    assert isinstance(plan(max_processes=5000).enforcement["max_processes"], Unenforced)


def test_the_monitor_is_not_told_what_the_warden_does() -> None:
    words = plan(timeout=1, memory_limit="1G", cpu_limit=50, cpu_time_limit=1, max_processes=5).words()
    assert not {"sample", "sampled-memory", "sampled-cpu", "sampled-tasks", "cpu-time"} & set(words)
    assert words[:2] == ("version", ps.__version__)
    assert words[words.index("timeout") + 1] == "1000000000"
    assert words[-4:] == ("exec", "/bin/echo", "echo", "a")


def test_under_seatbelt_the_command_is_executed_by_sandbox_exec() -> None:
    made = plan(MAC)
    words = made.words()
    at = words.index("exec")
    assert words[at + 1 : at + 4] == ("/usr/bin/sandbox-exec", "sandbox-exec", "-p")
    assert words[at + 4] == made.seatbelt
    assert words[-2:] == ("/bin/echo", "a")
    assert isinstance(made.enforcement["files"], Enforced)
    assert "(version 1)" in made.describe()


def test_a_core_file_is_refused_as_the_system_has_it() -> None:
    """core(5): only at 1 does Linux skip a pipe handler; a BSD would write that byte."""
    assert ("RLIMIT_CORE", 1) in plan().rlimits
    assert ("RLIMIT_CORE", 0) in plan(BSD).rlimits
    assert not [limit for limit in plan(core_dumps=True).rlimits if limit.name == "RLIMIT_CORE"]


def test_a_sandbox_is_at_home_in_its_directory() -> None:
    made = plan(paths=PATHS._replace(private="/private", grants=(Grant("/private", "/private", "write", True, 0, 0),)))
    variables = dict(made.environment)
    assert (made.cwd, variables["HOME"], variables["TMPDIR"]) == ("/private", "/private", "/private")
    assert plan().cwd == NEW_DIRECTORY


def test_what_is_hidden_needs_seatbelt() -> None:
    paths = PATHS._replace(hidden=(Hidden("/work/.env", "/work/.env", False),))
    with pytest.raises(ps.UnsupportedError) as caught:
        plan(paths=paths, enforcement=ps.best_effort("files", "network_access", "privileges", "processes", "ipc", "syscalls"))
    assert caught.value.field == "hidden_paths"
    assert isinstance(plan(paths=paths).enforcement["hidden_paths"], Unenforced)
    assert isinstance(plan(MAC, paths=paths).enforcement["hidden_paths"], Enforced)


def test_a_plan_is_json() -> None:
    assert json.loads(plan(memory_limit="1G").to_json())["sampling"]["memory"] == 1 << 30
    assert "isolation    none" in plan().describe()


def test_the_tables_are_for_people() -> None:
    assert set(LADDER) >= {"timeout", "memory_limit", "files", "syscalls"}
    assert all(reason for reason in DIFFERENCES.values())
    assert all(isinstance(text, str) and text for texts in WEAKER.values() for text in texts)
    assert not set(DIFFERENCES) & set(WEAKER)


if sys.platform != "win32":
    from proc_sandbox.backends.posix.frames import MOST, Frames, frame
    from proc_sandbox.backends.posix.sampler import Row, Table, Tree

    def test_messages_come_out_as_they_went_in_however_they_are_cut() -> None:
        messages = [b"", b"a", b"x" * 300, b"\0\0"]
        stream = b"".join(map(frame, messages))
        for size in (1, 3, 7, len(stream)):
            frames = Frames()
            found = [message for at in range(0, len(stream), size) for message in frames.feed(stream[at : at + size])]
            assert found == messages

    def test_a_message_that_nobody_sends_is_refused() -> None:
        with pytest.raises(ValueError, match="a message of"):
            Frames().feed((MOST + 1).to_bytes(4, "big"))

    class Process:
        """As psutil's, as far as Tree looks."""

        def __init__(self, pid: int, mark: str = "") -> None:
            self.pid = pid
            self.mark = mark

        def environ(self) -> dict[str, str]:
            return {"HOME": "/", "PROC_SANDBOX_RUN": self.mark}

    class Entry(NamedTuple):
        pid: int
        parent: int
        session: int = 1
        mark: str = ""
        met: int = 2
        zombie: bool = False

    known: dict[Entry, Process] = {}

    def table(*entries: Entry) -> Table:
        """A table in which these processes are; one that is the same is the same process."""
        made = Table()
        made.floor = 1
        for entry in entries:
            process = known.setdefault(entry, Process(entry.pid, entry.mark))
            made.known[entry.pid] = process, entry.met  # type: ignore[assignment]
            made.rows[entry.pid] = Row(process, entry.parent, entry.session, entry.session, entry.zombie, False)  # type: ignore[arg-type]
        return made

    COMMAND = Entry(100, 99, 100)

    def find(tree: Tree, *entries: Entry) -> set[int]:
        return set(tree.find(table(*entries), (100,)))

    def test_descendants_are_a_runs() -> None:
        assert find(Tree("m", 1), COMMAND, Entry(102, 101), Entry(101, 100), Entry(103, 7)) == {100, 101, 102}

    def test_the_mark_is_found_also_within_an_outer_runs() -> None:
        assert find(Tree("m", 1), Entry(101, 1, mark="m"), Entry(102, 1, mark="outer:m"), Entry(103, 1, mark="other")) == {101, 102}

    def test_who_was_seen_before_stays_a_runs() -> None:
        tree, child = Tree("m", 1), Entry(101, 100)
        assert find(tree, COMMAND, child) == {100, 101}
        orphaned = table(child)
        orphaned.rows[101] = orphaned.rows[101]._replace(parent=1)
        assert set(tree.find(orphaned, (100,))) == {101}

    def test_a_session_that_the_run_has_made_is_its_own() -> None:
        tree, leader = Tree("m", 1), Entry(101, 100, 101)
        assert find(tree, COMMAND, leader) == {100, 101}
        assert find(tree, leader, Entry(102, 1, 101)) == {101, 102}

    def test_a_session_of_somebody_elses_is_not_though_a_marked_process_is_in_it() -> None:
        """A server's, say, that has started something for the command."""
        tree, marked = Tree("m", 1), Entry(101, 50, 50, "m")
        assert find(tree, marked) == {101}
        assert find(tree, marked, Entry(102, 50, 50)) == {101}

    def test_a_number_that_is_given_again_is_another_process() -> None:
        tree, leader = Tree("m", 1), Entry(101, 100, 101)
        assert find(tree, COMMAND, leader) == {100, 101}
        assert find(tree, COMMAND, Entry(102, 101, 101, "other"), Entry(101, 1, 101, "other")) == {100}
        assert 101 not in tree.sessions

    def test_a_session_without_members_is_forgotten() -> None:
        tree = Tree("m", 1)
        find(tree, COMMAND, Entry(101, 100, 101))
        assert find(tree, COMMAND) == {100}
        assert find(tree, COMMAND, Entry(105, 104, 101)) == {100}

    def test_what_was_there_before_is_nobodys() -> None:
        assert find(Tree("m", 5), Entry(101, 100, 100, "m", met=5)) == set()

    def test_the_dead_are_not_members_but_what_they_used_counts() -> None:
        tree, child = Tree("m", 1), Entry(101, 100)
        found = table(COMMAND, child)
        tree.find(found, (100,))
        tree.used[found.rows[101].process] = 2.5
        tree.find(table(COMMAND), (100,))
        assert tree.used_by_dead == 2.5
        assert not tree.used
        assert find(tree, COMMAND._replace(zombie=True)) == set()
