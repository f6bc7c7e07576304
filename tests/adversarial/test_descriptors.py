"""Descriptors: 0, 1, 2 and what pass_fds names; and none of them leads further than it was opened for."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest
from support.processes import output_of
from support.programs import INVISIBLE, act, assert_escapes, assert_refused, inside, outside, python, text

import proc_sandbox as ps

LIST = """
import os
def is_open(number):
    try:
        os.fstat(number)
    except OSError:  # what listdir itself had open
        return False
    return True
print(*filter(is_open, sorted(map(int, os.listdir("/proc/self/fd")))))
"""


def test_200_open_directories_are_not_inherited() -> None:
    """CVE-2024-21626: one directory descriptor of the host's is the whole host."""
    code = """
import os, subprocess, sys
import proc_sandbox as ps
held = [os.open("/", os.O_RDONLY | os.O_DIRECTORY) for _ in range(200)]
for descriptor in held:
    os.set_inheritable(descriptor, True)
control = subprocess.run([sys.executable, "-I", "-S", "-c", sys.argv[1]], close_fds=False, capture_output=True).stdout
assert len(control.split()) >= 200, control
print(ps.run([sys.executable, "-I", "-S", "-c", sys.argv[1]]).stdout.text())
extra = [os.open("/", os.O_RDONLY | os.O_DIRECTORY) for _ in range(50)]
for descriptor in extra:
    os.set_inheritable(descriptor, True)
print(ps.run([sys.executable, "-I", "-S", "-c", sys.argv[1]]).stdout.text())
"""
    assert output_of(code, LIST).split("\n") == ["0 1 2", "", "0 1 2", "", ""]


def test_threads_that_open_while_runs_start() -> None:
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            descriptors = [os.open("/", os.O_RDONLY | os.O_DIRECTORY) for _ in range(50)]
            for descriptor in descriptors:
                os.set_inheritable(descriptor, True)
            for descriptor in descriptors:
                os.close(descriptor)

    threads = [threading.Thread(target=churn) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        assert {text(inside(["sh", "-c", "cd /proc/self/fd; echo *"])) for _ in range(30)} <= {"0 1 2\n", "0 1 2 3\n"}
        assert text(inside(python(LIST))) == "0 1 2\n"
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_what_is_named_is_passed_at_its_number() -> None:
    read_end, write_end = os.pipe()
    other_read, other_write = os.pipe()
    try:
        code = f"{LIST}\nos.write({write_end}, b'through')"
        result = inside(python(code), pass_fds=[write_end])
        assert text(result) == f"0 1 2 {write_end}\n"
        assert os.read(read_end, 64) == b"through"
        both = inside(python(LIST), pass_fds=[other_write, write_end])
        assert text(both) == f"0 1 2 {' '.join(map(str, sorted((write_end, other_write))))}\n"
    finally:
        for descriptor in (read_end, write_end, other_read, other_write):
            os.close(descriptor)


def test_numbers_that_cross_are_not_mixed_up() -> None:
    """The descriptors arrive under other numbers, which may be one another's."""
    pipes = [os.pipe() for _ in range(30)]
    try:
        numbers = [write_end for _, write_end in pipes]
        code = "import os, sys\nfor n in sys.argv[1:]: os.write(int(n), n.encode())"
        inside(python(code, *map(str, reversed(numbers))), pass_fds=numbers[::-1], check=True)
        assert [os.read(read_end, 64) for read_end, _ in pipes] == [str(number).encode() for number in numbers]
    finally:
        for pair in pipes:
            for descriptor in pair:
                os.close(descriptor)


def test_the_standard_streams_are_plain_pipes() -> None:
    """No socket of the launcher's, nothing that is shared with another run."""
    result = inside(["sh", "-c", "readlink /proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2"])
    kinds = text(result).split()
    assert kinds[0] == "/dev/null" or kinds[0].startswith("pipe:"), kinds
    assert all(kind.startswith("pipe:") for kind in kinds[1:]), kinds


@pytest.mark.parametrize("mode", [0o600, 0o666])
def test_an_input_file_is_not_opened_again_for_writing(tmp_path: Path, mode: int) -> None:
    """/proc/self/fd/0 opens the file anew, with the rights of who opens it, not with those of the descriptor."""
    path = tmp_path / "input"
    path.write_text("the input")
    path.chmod(mode)
    with path.open("rb") as file:
        assert_escapes(act("append", "/proc/self/fd/0"), stdin=file)
    path.write_text("the input")
    with path.open("rb") as file:
        assert_refused(inside(act("append", "/proc/self/fd/0"), stdin=file), INVISIBLE | {errno.EPERM, errno.EROFS})
        assert_refused(inside(act("write", "/proc/self/fd/0"), stdin=file), INVISIBLE | {errno.EPERM, errno.EROFS})
    assert path.read_text() == "the input"


def test_an_output_file_is_not_opened_again_for_reading(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("what others wrote\n")
    with path.open("ab") as file:
        assert (
            b"ESCAPED"
            in outside(
                ["sh", "-c", "cat <&0 /proc/self/fd/2 >/dev/null && echo ESCAPED"],
                stderr=file,
                capture_output=False,
                stdout=-1,
            ).stdout
        )
        result = inside(["sh", "-c", "cat /proc/self/fd/2"], stderr=file)
    assert b"others" not in result.stdout
    assert result.exit_code != 0


def test_a_passed_file_leads_no_further(tmp_path: Path) -> None:
    """A read-only descriptor of a file stays one, and its directory stays unseen."""
    secret = tmp_path / "secret"
    secret.write_text("s")
    passed = tmp_path / "passed"
    passed.write_text("p")
    descriptor = os.open(passed, os.O_RDONLY)
    try:
        code = (
            "import os, sys\n"
            "fd = int(sys.argv[1])\n"
            "print(os.pread(fd, 9, 0))\n"
            "for path, flags in ((f'/proc/self/fd/{fd}', os.O_WRONLY), (f'/proc/self/fd/{fd}/../secret', 0), (sys.argv[2], 0)):\n"
            "  try: os.open(path, flags); print('ESCAPED')\n"
            "  except OSError: pass\n"
            "try: os.write(fd, b'x'); print('ESCAPED')\n"
            "except OSError: pass\n"
        )
        assert text(inside(python(code, str(descriptor), str(secret)), pass_fds=[descriptor])) == "b'p'\n"
    finally:
        os.close(descriptor)
    assert passed.read_text() == "p"


def test_a_working_directory_by_descriptor_is_refused(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    try:
        for path in (f"/proc/self/fd/{descriptor}", f"/dev/fd/{descriptor}", f"/proc/{os.getpid()}/fd/{descriptor}"):
            with pytest.raises(ps.ConfigError):
                ps.Config(working_dir=path)
    finally:
        os.close(descriptor)


def test_the_callers_descriptors_stay_as_they_are() -> None:
    read_end, write_end = os.pipe()
    try:
        before = (os.get_inheritable(write_end), os.get_blocking(write_end), os.get_blocking(read_end))
        inside(["true"], pass_fds=[write_end], stdin=read_end)
        assert (os.get_inheritable(write_end), os.get_blocking(write_end), os.get_blocking(read_end)) == before
        os.fstat(read_end)
    finally:
        os.close(read_end)
        os.close(write_end)


# From a directory of the host's by descriptor: around a mount over a hidden file, around one that makes read-only, and out.
AROUND = """
import os, sys
number = int(sys.argv[1])
for name, flags in ((".env", os.O_RDONLY), ("kept/file", os.O_WRONLY), ("../other", os.O_RDONLY)):
    try:
        os.close(os.open(name, flags, dir_fd=number))
        print("ESCAPED", name)
    except OSError:
        pass
"""


def test_a_directory_is_not_passed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tmp_path / "project"
    (project / "kept").mkdir(parents=True)
    for path in (project / ".env", project / "kept" / "file", tmp_path / "other"):
        path.write_text("x")
    config: dict[str, object] = {"working_dir": project, "hidden_paths": [project / ".env"], "read_only_dirs": [project / "kept"]}
    held = os.open(project, os.O_RDONLY | os.O_DIRECTORY)
    here = os.open(project, os.O_PATH | os.O_DIRECTORY)
    file = os.open(project / ".env", os.O_RDONLY)
    try:
        for given in ({"pass_fds": [held]}, {"pass_fds": [here]}, {"stdin": held}, {"stdin": tmp_path}, {"stdout": held}, {"stdin": Fileno(held)}):
            with pytest.raises(ps.ConfigError, match="it is a directory") as caught:
                inside(python(AROUND, str(held)), **config, **given)  # type: ignore[arg-type]
            assert caught.value.field in given
        read = python("import os, sys; print(os.read(int(sys.argv[1]), 9))", str(file))
        assert text(inside(read, **config, pass_fds=[file])) == "b'x'\n", "a file is what it is"  # type: ignore[arg-type]
        monkeypatch.setattr("proc_sandbox.streams.check_open", lambda *words: None)
        result = inside(python(AROUND, str(held)), **config, pass_fds=[held])  # type: ignore[arg-type]
        assert "ESCAPED .env" in text(result), "the control"
    finally:
        for descriptor in (held, here, file):
            os.close(descriptor)


class Fileno:
    """An object with a descriptor."""

    def __init__(self, number: int) -> None:
        self.number = number

    def fileno(self) -> int:
        return self.number

    def read(self, size: int) -> bytes:
        return b""
