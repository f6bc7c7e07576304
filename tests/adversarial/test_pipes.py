"""A pipe between two runs is one way: who reads from it must not write to who writes to it, nor anybody to others by its means."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import pytest
from support.processes import victim
from support.programs import HANG, ROOT, assert_refused, outside, python, text

import proc_sandbox as ps
from proc_sandbox.backends import current
from proc_sandbox.backends.unix.streams import open_pipe
from proc_sandbox.execution import Execution
from proc_sandbox.streams import PipeEnd

BACK = """
import os, select, sys
side = sys.argv[1]
print("TRIED", file=sys.stderr)
try:
    if side == "reader":  # opens what it reads from, and writes the secret there
        os.write(os.open("/proc/self/fd/0", os.O_WRONLY), b"secret")
    else:  # opens what it writes to, and waits for the secret
        talk = os.open("/proc/self/fd/1", os.O_RDONLY)
        assert os.read(talk, 6) == b"secret"
except OSError as error:
    print("REFUSED", error.errno, file=sys.stderr)
else:
    print("ESCAPED", file=sys.stderr)
"""
"""Together: the reading command tells the writing one what it knows."""


AGAIN = """
import os, sys
print("TRIED", file=sys.stderr)
try:
    os.open("/proc/self/fd/" + sys.argv[1], getattr(os, sys.argv[2]) | os.O_NONBLOCK)
    print("ESCAPED", file=sys.stderr)
except OSError as error:
    print("REFUSED", error.errno, file=sys.stderr)
"""


def again(number: str, mode: str) -> list[str]:
    """A command that opens one of its streams again."""
    return python(AGAIN, number, mode)


def told(result: ps.Result) -> ps.Result:
    """The same, with what was said on stderr where the asserts look for it."""
    return replace(result, stdout=result.stderr)


class Plain(Protocol):
    """What has pipelines made of pipes as those to the caller are."""

    def __call__(self) -> contextlib.AbstractContextManager[object]: ...


@pytest.fixture
def plain_pipes(monkeypatch: pytest.MonkeyPatch) -> Plain:
    """For the controls; skips where nothing keeps a pipe from being opened again."""
    if not ROOT and not current().probe(ps.Config()).feature("landlock"):
        pytest.skip("without root the pipe is its reader's too, and nothing but Landlock keeps it from opening it again")

    @contextlib.contextmanager
    def made() -> Iterator[None]:
        def open_pipes(count: int) -> list[tuple[PipeEnd, PipeEnd]]:
            pipes = [open_pipe() for _ in range(count)]
            return [(PipeEnd(reader), PipeEnd(writer)) for reader, writer in pipes]

        with monkeypatch.context() as control:
            control.setattr(current(), "open_pipes", open_pipes)
            yield

    return made


def test_the_reading_command_cannot_answer(plain_pipes: Plain) -> None:
    pipeline = ps.cmd(python(BACK, "writer"), timeout=HANG) | ps.cmd(python(BACK, "reader"), timeout=HANG)
    with plain_pipes():
        assert all(b"ESCAPED" in said for said in pipeline.run().stderr)
    for each in pipeline.run().results:
        assert_refused(told(each), {errno.EACCES})


@pytest.mark.parametrize("mode", ["O_RDONLY", "O_WRONLY", "O_RDWR"])
def test_no_end_is_opened_again(plain_pipes: Plain, mode: str) -> None:
    """Not to read what the next one is to get, not to keep the pipe open when everybody else has gone."""
    pipeline = ps.cmd(again("1", mode)) | ps.cmd(again("0", mode))
    with plain_pipes():
        assert all(b"ESCAPED" in said for said in pipeline.run().stderr)
    for each in pipeline.run().results:
        assert_refused(told(each), {errno.EACCES})


OWNER = """
import fcntl, os, sys
print("TRIED", file=sys.stderr, flush=True)
try:
    for owner in (int(sys.argv[1]), -int(sys.argv[1])):
        fcntl.fcntl(1, fcntl.F_SETOWN, owner)
        fcntl.fcntl(1, fcntl.F_SETFL, fcntl.fcntl(1, fcntl.F_GETFL) | os.O_ASYNC)
        os.write(1, b"x")
        os.read(0, 1)
    print("ESCAPED", file=sys.stderr)
except OSError as error:
    print("REFUSED", error.errno, file=sys.stderr)
"""
"""Have the kernel signal somebody when the pipe is used: SIGIO ends who does not expect it (fcntl(2), F_SETOWN)."""


def test_nobody_is_signalled_by_way_of_the_pipe() -> None:
    command = python(OWNER)
    with victim() as first:
        reader, writer = os.pipe()
        try:
            outside([*command, str(first.pid)], stdin=reader, stdout=writer, capture_output=False)
        finally:
            os.close(reader)
            os.close(writer)
        assert first.wait(HANG) == -signal.SIGIO, "the control"
    with victim() as second:
        pipeline = ps.cmd(["echo", "some input"]) | ps.cmd([*command, str(second.pid)]) | ps.cmd(["cat"])
        assert_refused(told(pipeline.run().results[1]), {errno.ESRCH, errno.EPERM})
        assert second.stdin is not None
        second.stdin.close()
        assert second.wait(HANG) == 0


def test_flags_of_one_end_are_not_the_others() -> None:
    """Nor the caller's: each end is an open file of its own (fcntl(2), F_SETFL)."""
    first = python("import os, sys; os.set_blocking(1, False); sys.stdout.write('x'); sys.stdout.flush(); sys.stdin.read()")
    look = python("import os; os.read(0, 1); print(os.get_blocking(0))")
    assert text((ps.cmd(first) | ps.cmd(look)).run().results[-1]) == "True\n"


def test_nothing_of_a_pipe_has_a_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """When the first command starts, the FIFO's name is gone, and the directory in which it was."""
    seen: list[list[str]] = []
    plain = Execution.start

    def look(self: Execution, *rest: Any, **more: Any) -> Any:
        seen.append(os.listdir(tmp_path))
        return plain(self, *rest, **more)

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(Execution, "start", look)
    (ps.cmd(["true"]) | ps.cmd(["true"]) | ps.cmd(["true"])).run()
    assert seen == [[], [], []]
