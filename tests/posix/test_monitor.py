"""The monitor by hand: it does what the words say, names the step that fails, and does nothing that it does not understand."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.programs import HANG, python

from proc_sandbox.launcher import program_path
from proc_sandbox.version import __version__

STREAMS = ("fd", "0", "fd", "1", "fd", "2")


def monitor(*words: str, **options: object) -> subprocess.CompletedProcess[str]:
    command = [program_path("monitor"), "run", "version", __version__, *STREAMS, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=HANG, check=False, **options)  # type: ignore[call-overload,no-any-return]


def said(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Its last word, beside what the command has written."""
    return next(line for line in done.stderr.splitlines() if line.startswith("monitor:")).split()[1:]


def test_it_carries_the_words_out(tmp_path: Path) -> None:
    code = (
        "import os, resource; print(os.getcwd(), dict(os.environ)['KEY'], oct(os.umask(0)), os.nice(0), "
        "resource.getrlimit(resource.RLIMIT_NOFILE), os.getsid(0) == os.getpid() == os.getpgid(0))"
    )
    before = os.nice(0)
    words = ("cwd", str(tmp_path), "env", "KEY=a b", "umask", "63", "nice", "2", "rlimit", "RLIMIT_NOFILE", "99")
    done = monitor(*words, "exec", *[sys.executable, *python(code)])
    assert done.returncode == 0, done
    assert done.stdout == f"{tmp_path} a b 0o77 {before + 2} (99, 99) True\n"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("landlock-net", "exec", "/bin/true", "true"), "unknown word"),
        (("unshare", "user", "exec", "/bin/true", "true"), "unknown word"),
        (("sampled-memory", "1", "exec", "/bin/true", "true"), "unknown word"),
        (("rlimit", "RLIMIT_MSGQUEUE", "1", "exec", "/bin/true", "true"), "unknown name"),
        (("umask", "512", "exec", "/bin/true", "true"), "not a number in range"),
        (("timeout", "-1", "exec", "/bin/true", "true"), "not a number in range"),
        (("version", "0.0.0-other", "exec", "/bin/true", "true"), "is not the version"),
        (("fd", "3", "exec", "/bin/true", "true"), "descriptors named and sent differ"),
        (("exec", "/bin/true"), "exec needs an argument vector"),
        (("cwd", "/"), "no exec"),
    ],
)
def test_a_word_that_it_cannot_carry_out_is_refused(words: tuple[str, ...], why: str) -> None:
    done = monitor(*words)
    assert done.returncode == 125
    assert said(done)[:2] == ["failed", "words"]
    assert why in done.stderr


@pytest.mark.parametrize(
    ("words", "step", "object_", "error"),
    [
        (("cwd", "/nowhere", "exec", "/bin/true", "true"), "chdir", "/nowhere", errno.ENOENT),
        (("exec", "/nowhere", "true"), "exec", "/nowhere", errno.ENOENT),
        (("exec", "/tmp", "true"), "exec", "/tmp", errno.EACCES),
    ],
)
def test_the_step_that_fails_is_named(words: tuple[str, ...], step: str, object_: str, error: int) -> None:
    done = monitor(*words)
    assert said(done) == ["failed", step, object_, "errno", str(error)]


def test_the_deadline_ends_the_group_and_is_told() -> None:
    done = monitor("timeout", "200000000", "exec", "/bin/sh", "sh", "-c", "sleep 3600 & sleep 3600")
    facts = said(done)
    assert facts[:5] == ["ended", "done", "0", "status", "-1"]
    assert facts[facts.index("timed_out") + 1] == "1"
    assert int(facts[facts.index("wall") + 1]) >= 200_000_000


def test_a_kill_that_is_not_its_own_is_the_commands() -> None:
    facts = said(monitor("exec", "/bin/sh", "sh", "-c", "kill -9 $$"))
    assert facts[:5] == ["ended", "done", "1", "status", "9"]


def test_what_it_ignores_is_not_ignored_by_the_command() -> None:
    """/bin/sh keeps what was ignored when it started, and traps of it do nothing (POSIX, trap)."""
    done = monitor("exec", "/bin/sh", "sh", "-c", "for s in INT TERM HUP QUIT PIPE; do trap 'echo caught' $s; kill -s $s $$; done")
    assert done.stdout == "caught\n" * 5
