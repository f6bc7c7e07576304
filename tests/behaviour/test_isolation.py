"""What was not granted is out of reach. Each act is shown to work without the sandbox first."""

from __future__ import annotations

import errno
import socket
import sys
from pathlib import Path

from support.behaviours import Runner, promise
from support.processes import victim
from support.programs import assert_escapes, assert_refused, outside, python, text

ACT = """
import os, sys
def act(what):
    print("TRIED", flush=True)
    try:
        what()
    except OSError as error:
        print("REFUSED", error.errno)
    else:
        print("ESCAPED")
"""
ERRORS = frozenset(errno.errorcode)
"""Whichever: systems refuse in their own ways."""


@promise("files")
def test_files_that_were_not_granted_cannot_be_read(run: Runner, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    command = python(ACT + "act(lambda: open(sys.argv[1]).read())", str(tmp_path / "secret"))
    assert_escapes(command)
    assert_refused(run(command), ERRORS)
    assert "ESCAPED" in text(run(command, allowed_dirs=[tmp_path]))


@promise("files written")
def test_files_that_were_not_granted_cannot_be_written(run: Runner, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("before")
    command = python(ACT + "act(lambda: open(sys.argv[1], 'a').close())", str(tmp_path / "file"))
    assert_escapes(command)
    assert_refused(run(command), ERRORS)
    assert_refused(run(command, allowed_dirs=[tmp_path]), ERRORS)
    assert "ESCAPED" in text(run(command, writable_dirs=[tmp_path]))
    assert (tmp_path / "file").read_text() == "before"


@promise("network")
def test_the_network_cannot_be_reached(run: Runner) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        command = python(ACT + f"import socket\nact(lambda: socket.create_connection(('127.0.0.1', {port}), 60))")
        assert_escapes(command)
        assert_refused(run(command), ERRORS)


@promise("others")
def test_processes_of_the_host_cannot_be_ended(run: Runner) -> None:
    with victim() as process:
        aim = "os.kill(int(sys.argv[1]), 15)" if sys.platform == "win32" else "os.kill(int(sys.argv[1]), 0)"
        command = python(ACT + f"act(lambda: {aim})", str(process.pid))
        if sys.platform != "win32":  # there the control would end it
            assert_escapes(command)
        assert_refused(run(command), ERRORS)
        assert process.poll() is None


def test_the_control_works() -> None:
    assert "ESCAPED" in text(outside(python(ACT + "act(lambda: None)")))
