"""In a container as its engine makes it, and in a sandbox of our own: what can be had there, and that it holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.container import runtime, with_this_package
from support.processes import library_path
from support.programs import inside, python, text

import proc_sandbox as ps
from proc_sandbox.backends import current
from proc_sandbox.planner.linux.mechanisms import SCOPES

TREE = Path(__file__).resolve().parents[2]
USERS = pytest.mark.parametrize("user", [0, 1234])
needs_runc = pytest.mark.skipif(runtime() is None, reason="needs root and runc")


def in_container(directory: Path, user: int, *arguments: str, namespaces: bool = False) -> str:
    """What Python prints in a container; it must end well."""
    done = with_this_package(arguments, directory, user=user, namespaces=namespaces)
    assert done.returncode == 0, (done.stdout, done.stderr)
    return done.stdout


@needs_runc
@USERS
def test_everything_has_its_mechanism_in_a_default_container(tmp_path: Path, user: int) -> None:
    told = json.loads(in_container(tmp_path, user, "-m", "proc_sandbox", "doctor", "--json"))
    assert told.pop("trial") == "ok"
    assert "Landlock" in told["files"]["mechanism"]
    assert told["max_processes"]["mechanism"].startswith("RLIMIT_NPROC" if user == 0 else "sampled")
    missing = [name for name, how in told.items() if "mechanism" not in how]
    assert missing == ["read_bps", "write_bps"]


@needs_runc
@USERS
def test_the_attacks_of_a_default_container(tmp_path: Path, user: int) -> None:
    attacks = str(TREE / "tests/adversarial/test_without_namespaces.py")
    assert "passed" in in_container(tmp_path, user, "-m", "pytest", "-p", "no:cacheprovider", attacks)


@needs_runc
@USERS
def test_a_container_that_lets_us_make_namespaces(tmp_path: Path, user: int) -> None:
    """The flags that doctor names are enough."""
    told = json.loads(in_container(tmp_path, user, "-m", "proc_sandbox", "doctor", "--json", namespaces=True))
    assert (told["trial"], told["processes"]["mechanism"]) == ("ok", "pid namespace")


@needs_runc
@pytest.mark.parametrize("capability", ["CAP_KILL", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_SETUID"])
def test_root_that_could_not_end_what_it_started(tmp_path: Path, capability: str) -> None:
    """It gives its runs no user of their own: their ends would not be its to order."""
    done = with_this_package(["-m", "proc_sandbox", "doctor", "--json"], tmp_path, user=0, without=capability)
    told = json.loads(done.stdout)
    assert told["trial"] == "ok"
    assert told["privileges"]["mechanism"].startswith("the caller's user")


@pytest.mark.skipif(current().probe(ps.Config()).landlock_abi < SCOPES, reason=f"Landlock ABI {SCOPES} is needed")
def test_a_sandbox_in_a_sandbox() -> None:
    code = """
import proc_sandbox as ps
print(ps.run(["sh", "-c", "echo inner; exit 3"], enforcement="strict").to_dict()["exit_code"])
print(ps.run(["sh", "-c", "sleep 3000 & sleep 3000"], timeout=1).reason)
print(ps.run(["python3", "-c", "x = bytearray(300 << 20)"], memory_limit="100M").reason)
with ps.Sandbox() as box:
    print(box.run(["sh", "-c", "echo kept > file; cat file"]).stdout.decode().strip())
"""
    command = python(code)
    command = [command[0], "-S", *command[3:]]  # not -I: the package is found by PYTHONPATH
    result = inside(command, allowed_dirs=[library_path()], env={"PYTHONPATH": library_path()})
    assert text(result).split() == ["3", "timeout", "memory", "kept"], result
    assert result.reason is ps.Reason.EXITED
