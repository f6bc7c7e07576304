"""Bytes pass unchanged both ways, and nobody waits for ever."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from support.behaviours import HOLD, Runner, promise
from support.programs import python

import proc_sandbox as ps

ECHO = "import sys, shutil; shutil.copyfileobj(sys.stdin.buffer, sys.stdout.buffer)"
ALL = bytes(range(256)) * 16


@promise("streams")
def test_bytes_pass_unchanged(run: Runner) -> None:
    result = run(python(ECHO), input=ALL)
    assert result.stdout == ALL


@promise("streams")
def test_much_passes_both_ways_without_a_deadlock(run: Runner) -> None:
    data = ALL * 4096  # 16 MiB
    result = run(python(ECHO), input=data, max_output="20M")
    assert result.stdout == data


@promise("streams")
def test_both_outputs_fill_at_once(run: Runner) -> None:
    code = "import os\nfor _ in range(64): os.write(1, b'o' * 65536); os.write(2, b'e' * 65536)"
    result = run(python(code), max_output="8M")
    assert (result.stdout, result.stderr) == (b"o" * (64 << 16), b"e" * (64 << 16))


@promise("streams")
@pytest.mark.parametrize("stdin", [None, ps.DEVNULL, b""])
def test_no_input_is_its_end(run: Runner, stdin: object) -> None:
    assert run(python("import sys; print(len(sys.stdin.buffer.read()))"), stdin=stdin).stdout.split() == [b"0"]


@promise("streams")
def test_text_goes_in_as_utf_8(run: Runner) -> None:
    assert run(python(ECHO), input="äöü €").stdout.decode() == "äöü €"


@promise("streams")
def test_text_comes_out_as_str_with_the_line_ends_of_python(run: Runner) -> None:
    code = "import sys; sys.stderr.buffer.write(b'a\\r\\nb\\rc\\n'); sys.stdout.buffer.write(sys.stdin.buffer.read() + b'\\xff')"
    result = run(python(code), input="naïve ☃", text=True)
    assert (result.stdout, result.stderr) == ("naïve ☃\N{REPLACEMENT CHARACTER}", "a\nb\nc\n")
    with run.sandbox() as box:
        assert box.run(python(ECHO), input="é", encoding="latin-1").stdout == "é"
    with pytest.raises(ps.ExecutionError) as caught:
        run(python("print('out'); raise SystemExit(3)"), text=True, check=True)
    assert caught.value.output == caught.value.result.stdout == "out\n"


@promise("streams")
def test_files_by_path_by_object_and_by_descriptor(run: Runner, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(ALL)
    result = run(python(ECHO), stdin=tmp_path / "in", stdout=tmp_path / "out")
    assert (result.stdout, (tmp_path / "out").read_bytes()) == (b"", ALL)
    with (tmp_path / "in").open("rb") as source, (tmp_path / "object").open("wb") as target:
        target.write(b"before ")
        run(python(ECHO), stdin=source, stdout=target)
    assert (tmp_path / "object").read_bytes() == b"before " + ALL
    with (tmp_path / "number").open("wb") as target:
        run(python(ECHO), input=b"x", stdout=target.fileno())
        target.write(b" after")  # it is open still
    assert (tmp_path / "number").read_bytes().startswith(b"x")


@promise("streams")
def test_objects_without_a_descriptor(run: Runner) -> None:
    target = io.BytesIO()
    result = run(python(ECHO), stdin=io.BytesIO(ALL), stdout=target)
    assert (result.stdout, target.getvalue()) == (b"", ALL)
    assert run(python(ECHO), stdin=io.StringIO("ä")).stdout.decode() == "ä"


@promise("streams")
def test_stderr_into_stdout_keeps_the_order(run: Runner) -> None:
    code = "import os\nfor number in range(100): os.write(1 + number % 2, b'%d ' % number)"
    result = run(python(code), stderr=ps.STDOUT)
    assert (result.stdout, result.stderr) == (b"".join(b"%d " % number for number in range(100)), b"")


@promise("streams")
def test_devnull_takes_everything(run: Runner) -> None:
    result = run(python("print('x')"), stdout=ps.DEVNULL, stderr=ps.DEVNULL)
    assert result.ok
    assert result.stdout == b""


@promise("streams")
def test_a_closed_descriptor_is_refused(run: Runner) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    os.close(writer)
    with pytest.raises(ps.ConfigError, match="stdout"):
        run(python("pass"), stdout=writer)


@promise("stdin unread")
@pytest.mark.parametrize("code", ["pass", "import os; os.close(0)", "import sys; sys.stdin.buffer.read(10)"])
def test_a_command_need_not_read_its_input(run: Runner, code: str) -> None:
    assert run(python(code), input=b"x" * (8 << 20)).ok


SURVIVOR = HOLD + """
import subprocess
child = "import os, time; os.write(1, b'child'); time.sleep(3600)"
options = {"stdout": None}
process = subprocess.Popen([sys.executable, "-I", "-S", "-c", child], **options)
time.sleep(0)
os.write(1, b"parent")
"""


@promise("survivor's pipe")
def test_who_keeps_the_pipe_open_keeps_nobody_waiting(run: Runner) -> None:
    """The run is over with its command; that it returns at all is the test."""
    result = run(python(SURVIVOR))
    assert result.ok
    assert result.stdout.replace(b"child", b"") == b"parent"
    assert not result.timed_out


@promise("streams")
def test_inherited_streams_are_the_callers(run: Runner, tmp_path: Path) -> None:
    """By a caller of its own, whose streams are pipes of ours."""
    from support.processes import output_of

    code = (
        "import sys, warnings\nwarnings.simplefilter('ignore')\nimport proc_sandbox as ps\n"
        f"ps.run({python('print(input())')!r}, backend={run.backend!r}, stdin=ps.INHERIT, stdout=ps.INHERIT, enforcement='best-effort')"
    )
    (tmp_path / "in").write_text("from the caller\n")
    with (tmp_path / "in").open("rb") as source:
        assert output_of(code, stdin=source).strip() == "from the caller"


