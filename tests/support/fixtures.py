"""Fixtures of the integration and adversarial tests."""

from __future__ import annotations

import fcntl
import os
import subprocess
from pathlib import Path
from typing import Protocol

import pytest

from support.programs import ATTACKS, HANG

FLAGS = ["-std=gnu17", "-O1", "-Wall", "-Wextra", "-pthread"]


class Programs(Protocol):
    """The C programs of attacks/, compiled when first asked for."""

    directory: Path

    def __call__(self, name: str) -> str:
        """The path of the program of that name."""


class CompiledPrograms:
    """Compiles into one directory for all workers of a test session, each program once."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def __call__(self, name: str) -> str:
        target = self.directory / name
        with (self.directory / f".{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not target.exists():
                fresh = target.with_suffix(".new")
                command = ["gcc", *FLAGS, "-o", str(fresh), str(ATTACKS / f"{name}.c")]
                subprocess.run(command, check=True, timeout=HANG)
                fresh.rename(target)
        return str(target)


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    """The compiled programs; name their directory in allowed_dirs."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    directory = base / "programs"
    directory.mkdir(exist_ok=True)
    return CompiledPrograms(directory)
