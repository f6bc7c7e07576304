"""A systemd user's scope: the launcher is in it, the caller is not, and it goes with the launcher."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.processes import output_of, until_false
from support.programs import by_cgroup, inside, text

import proc_sandbox as ps
from proc_sandbox.backends import current
from proc_sandbox.launcher.process import launcher


@pytest.fixture
def scope() -> str:
    """The scope's name; skips where there is none."""
    host = current().probe()
    if not host.cgroup or not host.cgroup.scope:
        pytest.skip("needs an unprivileged user with a systemd manager, on cgroup v2")
    return host.cgroup.scope


def cgroup_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cgroup").read_text().strip()


def test_the_launcher_is_in_the_scope_and_the_caller_is_not(scope: str) -> None:
    assert inside(["true"], memory_limit="64M").ok
    assert scope in cgroup_of(launcher().pid)
    assert scope not in cgroup_of(os.getpid())


def test_runs_with_the_hosts_network_have_their_limits_too(scope: str) -> None:
    """They have a launcher of their own, which is brought into the same scope."""
    result = inside(["true"], memory_limit="64M", network_access=True)
    assert by_cgroup(result, "memory_limit"), result
    assert result.peak_memory
    assert scope in cgroup_of(launcher(empty_network=False).pid)


def test_arguments_arrive_unchanged(scope: str) -> None:
    """systemd-run(1) would expand them."""
    del scope
    words = ["${HOME}", "$$", "%n", "$HOME", "%%"]
    assert text(inside(["printf", "%s\n", *words], memory_limit="64M")).splitlines() == words


def test_the_scope_goes_with_its_launcher(scope: str) -> None:
    del scope
    code = (
        "import proc_sandbox as ps\n"
        "from proc_sandbox.backends import current\n"
        "ps.run(['true'], memory_limit='64M')\n"
        "print(current().probe().cgroup.directories[0][1])\n"
    )
    directory = output_of(code).strip()
    assert directory.endswith(".scope")
    assert not until_false(lambda: os.path.exists(directory)), "systemd has not removed it"


def test_a_killed_launcher_is_followed_by_one_in_a_scope_of_its_own(scope: str) -> None:
    code = (
        "import os, signal, proc_sandbox as ps\n"
        "from proc_sandbox.backends import current\n"
        "from proc_sandbox.launcher.process import launcher\n"
        "for _ in range(2):\n"
        "    print(ps.run(['true'], memory_limit='64M').ok, current().probe().cgroup.scope)\n"
        "    killed = launcher(); os.kill(killed.pid, signal.SIGKILL); killed.process.wait()\n"
    )
    first, second = output_of(code).split("\n")[:2]
    assert first.startswith("True proc-sandbox-")
    assert second.startswith("True proc-sandbox-")
    assert first != second
    assert scope not in (first, second)


def test_it_is_told_by_which_mechanism(scope: str) -> None:
    del scope
    how = ps.capabilities().memory_limit
    assert isinstance(how, ps.Enforced)
    assert how.strength == "kernel"
