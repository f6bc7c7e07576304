"""For every test: temporary files of this worker's own, and at the end a look at whether anything was left behind."""

from __future__ import annotations

import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.leaks import Before

import proc_sandbox as ps
from proc_sandbox.backends import current, shutdown

pytest_plugins = ["support.promises"]

ELSEWHERE = {"adversarial", "integration", "vm"} if sys.platform != "linux" else set()
"""Folders whose tests are about Linux."""


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    return True if collection_path.name in ELSEWHERE else None


def pytest_configure() -> None:
    """Heed signals as usual, and with us all that the tests start: a shell starts what is in its background with some of them ignored
    (POSIX, 2.11), as nohup(1) does.
    """
    for name, usual in (("SIGINT", signal.default_int_handler), ("SIGHUP", signal.SIG_DFL), ("SIGQUIT", signal.SIG_DFL), ("SIGTERM", signal.SIG_DFL)):
        number = getattr(signal, name, None)  # Windows has but two of them
        if number is not None and signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)


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
    usual = tempfile.tempdir
    tempfile.tempdir = str(directory)
    before = Before(directory)
    yield
    current()  # which knows of what the command line has started
    shutdown()
    tempfile.tempdir = usual
    before.check()
