"""For every test: temporary files of this worker's own, and at the end a look at whether anything was left behind."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.processes import children, until_false

import proc_sandbox as ps
from proc_sandbox.backends import current
from proc_sandbox.backends.linux.cgroup import sweep
from proc_sandbox.launcher.process import shutdown


def cgroups_of_the_dead() -> set[str]:
    """Cgroups whose launcher is gone: nobody would remove them any more."""
    found = current().probe().cgroup
    if found:
        sweep(found)  # as the next caller would
    left = set()
    for _, directory in found.directories if found else ():
        for entry in os.scandir(directory):
            match = re.match(r"proc-sandbox-(\d+)-", entry.name)
            if match and not os.path.exists(f"/proc/{match[1]}"):
                left.add(entry.path)  # not swept, although its launcher is gone
    return left


def mounts() -> set[str]:
    return {line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()}


def descriptors() -> dict[str, str]:
    found = {}
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found[number] = os.readlink(f"/proc/self/fd/{number}")
    return found


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    """Skip what needs a directory to be idmapped where the kernel cannot do that (before 5.12, as root)."""
    try:
        return (yield)
    except ps.UnsupportedError as error:
        if "idmapped" in error.reason and not current().probe(ps.Config()).feature("idmap"):
            pytest.skip(str(error))
        raise


@pytest.fixture
def idmap() -> None:
    """Skip there what goes on in a process of its own, or is about files that only their owner may use."""
    host = current().probe(ps.Config())
    if host.root and not host.feature("idmap"):
        pytest.skip(f"no file of the caller's can be shown as the command's own: {host.feature('idmap').reason}")


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Processes, threads, mounts, cgroups, descriptors and temporary files are at the end what they were before."""
    directory = tmp_path_factory.mktemp("temporary")
    before = tempfile.tempdir
    tempfile.tempdir = str(directory)
    own, threads, mounted, opened = set(children(os.getpid())), set(threading.enumerate()), mounts(), descriptors()
    yield
    shutdown()
    tempfile.tempdir = before
    assert not until_false(lambda: set(children(os.getpid())) - own), "processes are left"
    assert not until_false(cgroups_of_the_dead), "cgroups are left"
    assert not {thread for thread in set(threading.enumerate()) - threads if not thread.daemon}, "threads are left"
    assert not {place for place in mounts() - mounted if "proc-sandbox-private" in place or str(directory) in place}
    assert not [path for path in directory.iterdir() if path.name.startswith("proc-sandbox")], "files are left"
    leaked = {number: link for number, link in descriptors().items() if number not in opened}
    assert not {link for link in leaked.values() if "ns/" in link or "cgroup" in link or "_bin" in link}, leaked
