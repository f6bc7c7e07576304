"""The one launcher of a process: begun before it is needed, greeted once, and never kept when it is no good."""

import os
import re
import signal
import threading
from pathlib import Path

import pytest
from support.processes import children, output_of, until_false
from support.programs import ROOT

import proc_sandbox as ps
from proc_sandbox.launcher import process

pytestmark = pytest.mark.usefixtures("a_new_launcher")


def test_one_that_was_begun_is_the_one_that_is_used() -> None:
    process.begin()
    begun = process.launchers[True]
    assert not begun.greeting
    assert process.launcher() is begun
    assert begun.greeting
    process.begin()
    assert process.launcher() is begun


def test_one_that_dies_before_it_greets_is_not_kept() -> None:
    process.begin()
    begun = process.launchers[True]
    begun.socket.recv(4096)  # so that nothing is left to read but the end
    os.kill(begun.pid, signal.SIGKILL)
    with pytest.raises(ps.LauncherDiedError, match="did not answer"):
        process.launcher()
    assert not process.launchers
    assert ps.run(["true"]).ok


CLOSED = """
import os, sys
import proc_sandbox as ps
out = os.dup(1)
os.set_inheritable(out, False)
for descriptor in map(int, sys.argv[1]):
    os.close(descriptor)
os.write(out, ps.run(["sh", "-c", "cat; echo out; echo err >&2"]).stdout)
"""


@pytest.mark.parametrize("closed", ["0", "12", "02", "012"])
def test_a_caller_without_streams_of_its_own(closed: str) -> None:
    """As a daemon may be: then sockets and pipes have the numbers of what it closed."""
    assert output_of(CLOSED, closed) == "out\n"


@pytest.mark.skipif(not ROOT, reason="only root sees the launcher's descriptors")
def test_a_caller_of_many_descriptors_gives_it_no_high_one() -> None:
    """Each clone copies the table of descriptors up to the highest one."""
    null = os.open(os.devnull, os.O_RDONLY)
    many = [os.dup(null) for _ in range(400)]
    try:
        begun = process.launcher()
        assert begun.socket.fileno() > 400, "where its other end was too"
        assert max(map(int, os.listdir(f"/proc/{begun.pid}/fd"))) < 200
    finally:
        for descriptor in (null, *many):
            os.close(descriptor)


@pytest.mark.skipif(not ROOT, reason="only root sees the launcher's memory")
def test_what_only_the_launcher_needs_no_run_has() -> None:
    """Mappings that are not copied by a clone have the flag "dc" (proc_pid_smaps(5))."""
    runner = threading.Thread(target=lambda: ps.run(["sleep", "1"], timeout=60))
    runner.start()
    pid = process.launcher().pid
    until_false(lambda: not children(pid))
    (reaper,) = children(pid)
    own = set()
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            area = line.split()[0]
        elif line.startswith("VmFlags:") and " dc" in line:
            own.add(area)
    theirs = {line.split()[0] for line in Path(f"/proc/{reaper}/maps").read_text().splitlines()}
    runner.join()
    assert own
    assert not own & theirs
