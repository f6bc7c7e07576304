"""What real runs tell logging, from every thread; and what never gets there."""

from __future__ import annotations

import logging
import os
import re
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
from support.logs import Records
from support.programs import python

import proc_sandbox as ps
from proc_sandbox import log
from proc_sandbox.backends import current
from proc_sandbox.launcher import process


def test_a_run_and_its_launcher_are_told() -> None:
    process.shutdown()
    with Records(logging.DEBUG) as records:
        result = ps.run(["sh", "-c", "exit 3"])
    pid = process.launchers[True].pid
    begin, end = (line for line in records.lines() if "run " in line)
    assert f"INFO the launcher has started: process {pid}, without the host's network" in records.lines()
    assert re.fullmatch(r"DEBUG run \d+ begins: \['sh', '-c', 'exit 3'\]", begin)
    assert re.fullmatch(r"DEBUG run \d+ ended: exited: exit status 3 \(.* s, .* s of CPU\)", end)
    assert f"({result.execution_time:.3f} s," in end


def test_what_a_limit_ended_is_told() -> None:
    with Records(logging.INFO) as records:
        ps.run(["sleep", "60"], timeout=0.1)
    (line,) = (line for line in records.lines() if "run of" in line)
    assert line.startswith("INFO run of sleep ended: timeout: wall time limit of 0.1 s exceeded")


class Raises(logging.Filter):
    """A filter that takes no record, and says so in the worst way."""

    def filter(self, record: logging.LogRecord) -> bool:
        raise ValueError(record.msg)


def test_a_filter_that_raises_leaves_no_pipes_open() -> None:
    ps.run(["true"])
    logger, raises = logging.getLogger(log.NAME), Raises()
    before = len(os.listdir("/proc/self/fd"))
    with Records(logging.DEBUG):
        logger.addFilter(raises)
        try:
            with pytest.raises(ValueError, match="begins"):
                ps.run(["true"])
        finally:
            logger.removeFilter(raises)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_launcher_that_died_is_told_once() -> None:
    ps.run(["true"])
    dead = process.launchers[True]
    with Records(logging.WARNING) as records, pytest.raises(ps.LauncherDiedError):
        ps.run(["sh", "-c", "echo; sleep 60"], stdout=KillsLauncher(dead.pid))
    assert [line for line in records.lines() if "has died" in line] == [
        f"WARNING the launcher, process {dead.pid}, has died, and its runs with it; the next run starts another"
    ]
    assert ps.run(["true"]).ok


class KillsLauncher:
    """A stream that ends the launcher when the command, which is under way then, writes something."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def write(self, data: bytes) -> int:
        os.kill(self.pid, signal.SIGKILL)
        return len(data)


def test_where_cgroups_come_from_is_told_when_a_limit_asks_for_them() -> None:
    process.shutdown()
    with Records(logging.INFO) as records:
        ps.run(["true"])
        assert not any("cgroups" in line for line in records.lines())
        ps.run(["true"], memory_limit="64M", enforcement="best-effort")
        ps.run(["true"], memory_limit="64M", enforcement="best-effort")
    (line,) = (line for line in records.lines() if "cgroups" in line)
    found = current().probe().cgroup
    assert ("no cgroups" in line) == (found is None)


def test_each_thread_is_told_of_by_its_own_number() -> None:
    with Records(logging.DEBUG) as records, ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda status: ps.run(["sh", "-c", f"exit {status}"]), range(40)))
    assert [result.exit_code for result in results] == list(range(40))
    told = [record for record in records.seen if record.getMessage().startswith("run ")]
    threads: dict[str, set[int]] = {}
    statuses: dict[str, str] = {}
    for record in told:
        number, _, rest = record.getMessage().removeprefix("run ").partition(" ")
        threads.setdefault(number, set()).add(record.thread or 0)
        if begun := re.search(r"'exit (\d+)'", rest):
            statuses[number] = begun[1]
        else:
            assert f"exit status {statuses[number]} " in rest
    assert len(threads) == 40
    assert all(len(who) == 1 for who in threads.values())


def test_a_handler_may_run_commands_itself() -> None:
    """No lock is held while a handler works."""

    class Curious(Records):
        def emit(self, record: logging.LogRecord) -> None:
            super().emit(record)
            if not self.busy:
                self.busy = True
                assert ps.run(["true"], memory_limit="64M", enforcement="best-effort").ok
                self.busy = False

        busy = False

    process.shutdown()
    with Curious(logging.DEBUG) as records:
        assert ps.run(["true"], memory_limit="64M", enforcement="best-effort").ok
    assert len(records.seen) > 4


def test_neither_variables_nor_input_nor_output_get_into_the_log() -> None:
    code = "import os, sys; print(sys.stdin.read(), os.environ['A'], os.environ['B']); sys.exit('SECRET-stderr')"
    os.environ["B"] = "SECRET-passed"
    try:
        with Records(logging.DEBUG) as records:
            result = ps.run(python(code), input="SECRET-input", env={"A": "SECRET-env"}, pass_env=["B"], text=True)
    finally:
        del os.environ["B"]
    assert result.stdout == "SECRET-input SECRET-env SECRET-passed\n"
    assert len(records.seen) >= 2
    for record in records.seen:
        assert "SECRET-" not in record.getMessage().replace("'SECRET-stderr'", "")
        assert "SECRET-" not in repr({name: value for name, value in vars(record).items() if name not in ("args", "message")})


def test_what_is_not_enforced_is_warned_of_each_time_and_logged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "said", set())
    accepted = ps.best_effort("files", "network_access", "privileges", "processes", "ipc", "syscalls")
    with Records(logging.WARNING) as records:
        for _ in range(2):
            with pytest.warns(ps.UnenforcedWarning):
                ps.run(["true"], backend="posix", enforcement=accepted)
    told = [line for line in records.lines() if line.startswith("WARNING network_access is not enforced")]
    assert len(told) == 1


def test_what_was_not_started_is_an_exception_and_no_line_with_its_name() -> None:
    with Records(logging.DEBUG) as records, pytest.raises(ps.CommandNotFoundError):
        ps.run(["no-such\ncommand"])
    assert all(line.isprintable() for line in records.lines())
