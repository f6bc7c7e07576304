"""Sandbox: a private directory that stays from run to run, and is gone afterwards whatever a run did to it."""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
from pathlib import Path

import pytest
from support.behaviours import promise
from support.processes import output_of
from support.programs import inside, text

import proc_sandbox as ps

EVERY_BACKEND = True


@promise("private directory")
def test_files_stay_from_run_to_run_and_no_longer(backend: str) -> None:
    with ps.Sandbox() as box:
        place = text(box.run(["sh", "-c", "echo kept > file; pwd"], check=True))
        assert place == ("/tmp/work\n" if backend == "linux" else f"{box.directory}\n")
        assert text(box.run(["cat", "file"], check=True)) == "kept\n"
        assert box.directory
        directory = Path(box.directory)
        assert (directory / "file").read_text() == "kept\n"
        assert text(inside(["ls", "-A"])) == "", "a run of its own starts empty"
    assert not directory.exists()


def test_a_program_made_there_is_run_by_its_name() -> None:
    with ps.Sandbox() as box:
        box.run(["sh", "-c", "printf '#!/bin/sh\\necho $0 $1\\n' > tool; chmod +x tool"], check=True)
        assert text(box.run(["./tool", "x"], check=True)) == "./tool x\n"
        with pytest.raises(FileNotFoundError):
            box.run(["./missing"])


def test_closed_directories_do_not_stop_the_cleanup() -> None:
    with ps.Sandbox() as box:
        box.run(["sh", "-c", "mkdir -p a/b/c; touch a/b/c/f; chmod 0 a/b/c a/b a ."], check=True)
        directory = box.directory
    assert directory
    assert not os.path.lexists(directory)


def test_a_cleanup_that_fails_keeps_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the disk has no room for, or a signal interrupts, can be tried again."""
    box = ps.Sandbox()
    box.run(["mkdir", "full"], check=True)
    assert box.directory
    directory = box.directory

    def full(*_: object, **__: object) -> str:
        raise OSError(errno.ENOSPC, "no room")

    for module, name in ((tempfile, "mkdtemp"), (fcntl, "flock")):
        with monkeypatch.context() as patch:
            before = sorted(os.listdir("/dev/fd"))
            patch.setattr(module, name, full)
            with pytest.raises(OSError, match="no room"):
                box.cleanup()
            assert sorted(os.listdir("/dev/fd")) == before
    box.cleanup()
    assert not os.path.lexists(directory)


def test_cleanup_follows_no_link(tmp_path: Path) -> None:
    """A run plants links to everything that the caller could delete; the cleanup deletes the links."""
    kept = tmp_path / "kept"
    kept.mkdir(mode=0o755)
    (kept / "file").write_text("x")
    mode = kept.stat().st_mode
    with ps.Sandbox() as box:
        box.run(["sh", "-c", f"ln -s {kept} link; mkdir d; ln -s {kept}/file d/f; ln -s / d/root; chmod 0 d"], check=True)
    assert (kept / "file").read_text() == "x"
    assert kept.stat().st_mode == mode


def test_a_working_directory_of_the_callers_takes_its_place(tmp_path: Path) -> None:
    before = set(os.listdir(tempfile.gettempdir()))
    with ps.Sandbox(working_dir=tmp_path) as box:
        box.run(["touch", "made"], check=True)
        assert box.directory is None
    assert (tmp_path / "made").exists()
    assert set(os.listdir(tempfile.gettempdir())) == before


@pytest.mark.usefixtures("idmap")
def test_cleanup_from_a_signal_handler_does_not_wait_for_itself() -> None:
    """SIGTERM ends the box while this very thread runs something in it."""
    code = (
        "import os, signal, proc_sandbox as ps\n"
        "box = ps.Sandbox()\n"
        "signal.signal(signal.SIGALRM, lambda *_: box.cleanup())\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.2)\n"
        "place = box.directory\n"
        "print(box.run(['sleep', '60']).reason.value, os.path.exists(place))\n"
    )
    assert output_of(code) == "cancelled False\n"


@pytest.mark.usefixtures("idmap")
def test_a_forked_child_leaves_its_parents_box_alone() -> None:
    code = (
        "import os, threading, proc_sandbox as ps\n"
        "with ps.Sandbox() as box:\n"
        "    said = []\n"
        "    runner = threading.Thread(target=lambda: said.append(box.run(['sleep', '1']).reason.value))\n"
        "    ps.run(['true']); runner.start()\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        box.cleanup(); os._exit(0)\n"
        "    print(os.waitpid(child, 0)[1], os.path.exists(box.directory)); runner.join(); print(said)\n"
    )
    assert output_of(code) == "0 True\n['exited']\n"


@pytest.mark.usefixtures("idmap")
def test_a_box_that_is_forgotten_leaves_nothing(tmp_path: Path) -> None:
    code = "import proc_sandbox as ps\nbox = ps.Sandbox(); box.run(['touch', 'x'], check=True); print(box.directory)\n"
    place = output_of(code, env={"TMPDIR": str(tmp_path)}).strip()
    assert place.startswith(str(tmp_path))
    assert list(tmp_path.iterdir()) == []
