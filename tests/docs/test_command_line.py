"""Every example of the help, and every block of the page on the command line, works as it is written."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.cli import GUARD, KILLED, cli, furnish, home_of, shell

from proc_sandbox import presets
from proc_sandbox.cli.examples import TOPICS

PAGE = Path(__file__).parents[2] / "docs" / "command-line.md"
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the examples are for Linux")


@contextlib.contextmanager
def with_a_run(line: str) -> Iterator[str]:
    """A line in which the id of a run stands, and the id is one's that is alive."""
    if KILLED not in line:
        yield line
        return
    command = [sys.executable, "-m", "proc_sandbox", "run", "--", "sh", "-c", "echo up; cat"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == b"up\n"
        (found,) = [run for run in json.loads(cli("ps", "--json").stdout) if run["owner"] == process.pid]
        yield line.replace(KILLED, str(found["id"]))
        process.stdin.close()
        assert process.wait(timeout=GUARD) == 128 + 9, "it was killed"


def works(line: str, directory: Path) -> subprocess.CompletedProcess[bytes]:
    if "judge" in line and not presets.names():
        pytest.skip("there are no presets yet")
    furnish(directory)
    if line.startswith("proc-sandbox shell"):
        return on_a_terminal(line, directory)
    with with_a_run(line) as real:
        done = shell(real, directory)
    assert done.returncode == 0, done
    assert b"Traceback" not in done.stderr
    return done


def on_a_terminal(line: str, directory: Path) -> subprocess.CompletedProcess[bytes]:
    """Who is asked for something there types `exit`."""
    from support.terminals import caller_on, terminal

    code = f"import os; os.execvp('sh', ['sh', '-c', {line!r}])"
    with terminal() as place, caller_on(place, code, env=home_of(directory), cwd=directory) as process:
        if " -- " not in line:
            for _ in line.strip().splitlines():
                place.until(rb"\(sandbox\) .*\$ ")
                place.type(b"exit\r")
        status = place.wait(process)
        return subprocess.CompletedProcess(line, status, place.shown, b"")


EXAMPLES = [
    pytest.param(line, id=line) for line in sorted({line for topic in TOPICS.values() for line, _ in topic.examples})
]


@pytest.mark.usefixtures("idmap")
@pytest.mark.parametrize("line", EXAMPLES)
def test_an_example_of_the_help_works_as_written(line: str, tmp_path: Path) -> None:
    # What this host lacks is told by doctor with 1, which is no fault of the example.
    works(f"{line} || [ $? = 1 ]" if line.startswith("proc-sandbox doctor") else line, tmp_path)


@pytest.mark.usefixtures("idmap")
@pytest.mark.parametrize(
    "block", [pytest.param(match[1], id=match[1].splitlines()[0]) for match in BLOCK.finditer(PAGE.read_text())]
)
def test_a_block_of_the_page_works_as_written(block: str, tmp_path: Path) -> None:
    works(block, tmp_path)


def test_there_are_blocks_for_every_action() -> None:
    blocks = "".join(match[1] for match in BLOCK.finditer(PAGE.read_text()))
    assert all(f"proc-sandbox {action}" in blocks for action in TOPICS)
