"""Sandbox: a private directory that stays from run to run, and is gone afterwards whatever a run did to it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gc
import os
import sys
import tempfile
import warnings
import weakref
from pathlib import Path
from typing import Any

import pytest
from support.behaviours import promise
from support.processes import output_of
from support.programs import inside, text

import proc_sandbox as ps

EVERY_BACKEND = True


def kept() -> list[str]:
    """Private directories, those that are there and those that are open."""
    place, found = tempfile.gettempdir(), []
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # that of the listing
            found.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    return sorted(name for name in found if name.startswith(f"{place}/")) + sorted(os.listdir(place))


def full(*_: object, **__: object) -> str:
    """In place of what needs room on the disk."""
    raise OSError(errno.ENOSPC, "no room")


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

    for module, name in ((tempfile, "mkdtemp"), (fcntl, "flock")):
        with monkeypatch.context() as patch:
            before = kept()
            patch.setattr(module, name, full)
            with pytest.raises(OSError, match="no room"):
                box.cleanup()
            assert kept() == before
    box.cleanup()
    assert not os.path.lexists(directory)


def test_what_comes_between_a_removal_and_its_note_is_no_error_later(monkeypatch: pytest.MonkeyPatch) -> None:
    before = kept()
    box = ps.Sandbox()
    box.run(["touch", "made"], check=True)
    assert box.directory

    def interrupted(self: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(weakref.finalize, "detach", interrupted)
        with pytest.raises(KeyboardInterrupt):
            box.cleanup()
    box.cleanup()
    assert kept() == before


def test_what_was_moved_away_is_not_taken_for_removed(tmp_path: Path) -> None:
    box = ps.Sandbox()
    assert box.directory
    elsewhere = tmp_path / "elsewhere"
    os.rename(box.directory, elsewhere)
    with pytest.raises(FileNotFoundError):
        box.cleanup()
    os.rename(elsewhere, box.directory)
    box.cleanup()


def test_a_forgotten_directory_that_cannot_be_removed_is_left_to_the_next_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    before = kept()
    box = ps.Sandbox()
    box.run(["mkdir", "full"], check=True)
    directory, failures = box.directory, []
    assert directory

    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "mkdtemp", full)
        patch.setattr(sys, "unraisablehook", failures.append)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            del box
            gc.collect()
    assert len(failures) == 1
    assert os.path.lexists(directory)
    ps.Sandbox().cleanup()
    assert not os.path.lexists(directory)
    assert kept() == before


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
