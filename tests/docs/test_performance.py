"""The table of a run's system calls in docs/performance.md is what a run makes now, where the host has the same mechanisms."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from bench.ours import enforcement_table
from bench.syscalls import AHEAD, INTERPRETER, ROLES, calls_of, count, counted

PAGE = Path(__file__).parents[2] / "docs" / "performance.md"
WAITING = {"epoll_wait", "futex", "poll", "read", "wait4", "recvmsg"}
"""How often these are made depends on how often somebody is woken."""


def rows_of(title: str) -> Iterator[list[str]]:
    """Yield the rows of a table of the page, by the words above it or in its head."""
    block = PAGE.read_text(encoding="utf-8").partition("<!-- bench syscalls")[2].partition("<!-- end of bench syscalls")[0]
    table = block.partition(title)[2].partition("\n\n")[2].partition("\n\n")[0] if title.startswith("**") else block.partition(title)[2]
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and not line.startswith("| ---") and cells[0] != "who":
            yield cells


def recorded(title: str) -> dict[str, dict[str, float]]:
    """What the page says of one kind of run, as count() says it."""
    return {
        who: {name: float(number) for number, name in (item.split() for item in which.split(", "))}
        for who, _, which in rows_of(f"**{title}**")
    }


def differences(said: Mapping[str, Mapping[str, float]], made: Mapping[str, Mapping[str, float]]) -> list[str]:
    found = []
    for who in ROLES:
        for name in sorted({*said.get(who, {}), *made.get(who, {})}):
            before, now = said.get(who, {}).get(name, 0), made.get(who, {}).get(name, 0)
            if abs(before - now) > (2 if name in WAITING else 1):
                found.append(f"{who}: {name}: {before:g} in the page, {now:g} now")
    return found


def test_the_page_counts_the_system_calls_that_a_run_makes() -> None:
    if not shutil.which("strace"):
        pytest.skip("strace is not installed")
    here = [list(row) for row in enforcement_table().rows]
    there = [cells for cells in rows_of("| limit or isolation") if len(cells) == 3 and cells[0] != "limit or isolation"]
    if os.geteuid() or here != there or not INTERPRETER.startswith("/usr/"):
        pytest.skip("another user, other mechanisms or another kind of interpreter than the page was written with")
    assert differences(recorded("Nothing prepared"), counted(0)) == []
    made = counted(1)
    if sum(made.get(AHEAD, {}).values()) < 100:
        pytest.skip("the machine is busy, and prepares nothing")
    assert differences(recorded("A sandbox is prepared"), made) == []


TRACE = """\
10 execve("/usr/bin/python3", ["python3"], 0x7f) = 0
10 access("/begin/-1", F_OK) = -1 ENOENT
10 clone3({flags=CLONE_VM}) = 11
11 execve("/x/_bin/launcher", ["launcher", "serve"], 0x7f) = 0
11 recvmsg(4,  <unfinished ...>
10 access("/end", F_OK) = -1 ENOENT
10 access("/begin/0", F_OK) = -1 ENOENT
10 sendmsg(3, {}, 0) = 5
11 <... recvmsg resumed>{}, 0) = 5
11 clone3({flags=CLONE_NEWPID}) = 12
12 fcntl(3, F_DUPFD_CLOEXEC, 64) = 64
12 vfork( <unfinished ...>
13 rt_sigaction(SIGPIPE, {}, NULL, 8) = 0
13 execve("/bin/true", ["true"], 0x7f) = 0
12 <... vfork resumed>) = 2
13 brk(NULL) = 0x55
13 +++ exited with 0 +++
12 --- SIGCHLD ---
12 exit_group(0) = ?
11 socketpair(AF_UNIX, SOCK_SEQPACKET, 0, [5, 6]) = 0
11 epoll_wait(4, [], 1, -1) = 0
10 access("/end", F_OK) = -1 ENOENT
"""


def test_who_makes_which_call_is_told_by_what_each_does_first() -> None:
    assert count(TRACE.splitlines(), 1) == {
        "caller": {"sendmsg": 1},
        "launcher": {"clone3": 1},
        "reaper": {"exit_group": 1, "fcntl": 1, "vfork": 1},
        "command": {"execve": 1, "rt_sigaction": 1},
        AHEAD: {"epoll_wait": 1, "socketpair": 1},
    }
    assert len(list(calls_of(TRACE.splitlines()))) == 18
