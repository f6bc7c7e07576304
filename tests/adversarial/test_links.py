"""What one run leaves behind must not lead the host astray at the next: links, FIFOs and trees of a command's making."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.processes import output_of
from support.programs import HANG, inside, text

import proc_sandbox as ps


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A working directory."""
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file of the caller's beside it, which no Config names."""
    (tmp_path / "victim").write_text("the victim's\n")
    (tmp_path / "victim").chmod(0o600)
    return tmp_path / "victim"


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("above", [False, True])
def test_output_does_not_go_through_a_planted_link(work: Path, victim: Path, stream: str, above: bool) -> None:
    target = work / "out" / victim.name if above else work / "out"
    inside(["ln", "-s", str(victim.parent if above else victim), "out"], working_dir=work, check=True)
    with target.open("a") as control:  # whoever just opens it is led to the victim
        assert os.fstat(control.fileno()).st_ino == victim.stat().st_ino
    with pytest.raises(ps.ConfigError, match="link") as caught:
        inside(["echo", "owned"], working_dir=work, **{stream: target})
    assert caught.value.field == stream
    assert victim.read_text() == "the victim's\n"


def test_input_does_not_come_through_a_planted_link(work: Path, victim: Path) -> None:
    with ps.Sandbox() as box:
        assert box.directory
        box.run(["ln", "-s", str(victim), "in"], check=True)
        with pytest.raises(ps.ConfigError, match="link"):
            box.run(["cat"], stdin=os.path.join(box.directory, "in"))
    inside(["ln", "-s", str(victim), "in"], working_dir=work, check=True)
    with pytest.raises(ps.ConfigError, match="link"):
        inside(["cat"], working_dir=work, stdin=work / "in")
    inside(["sh", "-c", "echo mine > plain"], working_dir=work, check=True)
    assert text(inside(["cat"], working_dir=work, stdin=work / "plain")) == "mine\n"


def test_the_callers_own_links_are_followed(work: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "in").write_text("through\n")
    (tmp_path / "link").symlink_to("real")
    result = inside(["cat"], working_dir=work, stdin=tmp_path / "link" / "in", stdout=tmp_path / "link" / "out")
    assert result.ok
    assert (tmp_path / "real" / "out").read_text() == "through\n"


def test_the_report_of_the_command_line_is_no_way_out(work: Path, victim: Path) -> None:
    inside(["ln", "-s", str(victim), "report.json"], working_dir=work, check=True)
    words = ["run", "-C", str(work), "--json", str(work / "report.json"), "--", "true"]
    done = subprocess.run([sys.executable, "-m", "proc_sandbox", *words], capture_output=True, timeout=HANG, check=False)
    assert done.returncode == 125, done
    assert victim.read_text() == "the victim's\n"


@pytest.mark.parametrize("place", ["sandbox", "working_dir"])
def test_a_planted_program_shows_no_more_of_the_host(tmp_path: Path, work: Path, place: str) -> None:
    """It leads into what looks like a Python installation: such a prefix is shown only for what the caller itself has put there."""
    prefix = tmp_path / "prefix"
    (prefix / "bin").mkdir(parents=True)
    (prefix / "lib" / "python3.11").mkdir(parents=True)
    (prefix / "secret").write_text("the secret")
    script = prefix / "bin" / "tool"
    script.write_text(f"#!/bin/sh\ncat {prefix}/secret\n")
    script.chmod(0o755)
    assert "the secret" in text(inside([script])), "the control: named by the caller it is shown"
    config = {} if place == "sandbox" else {"working_dir": work}
    with ps.Sandbox(**config) as box:
        box.run(["ln", "-s", str(script), "solve"], check=True)
        with pytest.raises(FileNotFoundError) as caught:
            box.run(["./solve"])
        assert str(script) in str(caught.value)


def test_a_planted_program_on_the_path_shows_no_more_either(
    tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By another name of the working directory, with a pyvenv.cfg beside it that makes it look like an environment."""
    secret = tmp_path / "secretapp"
    (secret / "lib" / "python3.11").mkdir(parents=True)
    (secret / "bin").mkdir()
    (secret / "key").write_text("the key")
    (secret / "bin" / "tool").write_text(f"#!/bin/sh\ncat {secret}/key\n")
    (secret / "bin" / "tool").chmod(0o755)
    (tmp_path / "alias").symlink_to(work)
    (work / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path}/alias/bin:{os.environ['PATH']}")
    inside(["sh", "-c", f"echo > pyvenv.cfg; ln -s {secret}/bin/tool bin/tool-of-mine"], working_dir=work, check=True)
    with pytest.raises(FileNotFoundError):
        inside(["tool-of-mine"], working_dir=work)
    plan = ps.plan(["true"], working_dir=work)
    assert not any(str(secret) in mount.source for mount in plan.mounts)


def test_what_leads_to_an_open_file_is_no_planted_link(work: Path) -> None:
    """/dev/stderr and process substitution: the caller's own open pipes."""
    script = f"{sys.executable} -m proc_sandbox run -C {work} --json /dev/fd/3 --stdin <(echo hello) -- cat 3>&1 >/dev/null | head -c 1"
    done = subprocess.run(["bash", "-c", script], capture_output=True, timeout=HANG, check=False)
    assert done.stdout == b"{", done


@pytest.mark.usefixtures("idmap")
def test_a_prefix_that_everybody_can_write_to_is_none(tmp_path: Path) -> None:
    (tmp_path / "lib" / "python3.11").mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    shutil.copy("/bin/true", tmp_path / "bin" / "tool")
    assert inside([tmp_path / "bin" / "tool"]).ok
    tmp_path.chmod(0o1777)
    with pytest.raises(FileNotFoundError, match="allowed_dirs"):
        inside([tmp_path / "bin" / "tool"])


@pytest.mark.parametrize("field", ["allowed_dirs", "read_only_dirs", "writable_dirs"])
def test_another_name_of_the_directory_is_the_same_directory(work: Path, tmp_path: Path, field: str) -> None:
    private = tmp_path / "private"
    private.mkdir()
    (private / "key").write_text("the key")
    (tmp_path / "alias").symlink_to(work)
    inside(["ln", "-s", str(private), "sub"], working_dir=work, check=True)
    for name in (work / "sub", tmp_path / "alias" / "sub"):
        with pytest.raises(ps.ConfigError, match="link"):
            inside(["cat", str(private / "key")], working_dir=work, **{field: [name]})


@pytest.mark.parametrize("stream", ["stdin", "stdout"])
def test_a_planted_fifo_keeps_nobody_waiting(work: Path, stream: str) -> None:
    inside(["mkfifo", "-m", "666", "fifo"], working_dir=work, check=True)
    with pytest.raises(ps.ConfigError):
        inside(["true"], working_dir=work, **{stream: work / "fifo"})


def test_a_fifo_is_no_program(work: Path) -> None:
    with ps.Sandbox() as box:
        box.run(["mkfifo", "-m", "777", "solve"], check=True)
        with pytest.raises(PermissionError):
            box.run(["./solve"])
    inside(["mkfifo", "-m", "777", "solve"], working_dir=work, check=True)
    with pytest.raises(PermissionError):
        inside(["./solve"], working_dir=work)


DEEP = """
import os, sys
for number in range(int(sys.argv[1])):
    os.mkdir(sys.argv[2]); open('file', 'w').close(); os.chdir(sys.argv[2])
os.mkdir('closed'); os.mkdir('closed/below'); os.chmod('closed/below', 0); os.chmod('closed', 0)
"""


@pytest.mark.parametrize(("depth", "name"), [("3000", "d"), ("300", "d" * 250)])
def test_however_deep_it_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, depth: str, name: str) -> None:
    """Deeper than a path can be long and a recursion deep."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with ps.Sandbox() as box:
        box.run(["python3", "-c", DEEP, depth, name], check=True)
        assert box.directory
        with pytest.raises((OSError, RecursionError)):  # the control: by its path the lowest one is out of reach
            os.listdir(os.path.join(box.directory, *[name] * int(depth)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to mount")
def test_what_is_mounted_in_it_is_not_emptied(tmp_path: Path) -> None:
    """Also where it is the same file system, so that no device number tells."""
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "file").write_text("x")
    with ps_temporary(tmp_path):
        box = ps.Sandbox()
        assert box.directory
        place = Path(box.directory, "mounted")
        place.mkdir()
        subprocess.run(["mount", "--bind", foreign, place], check=True, timeout=HANG)
        try:
            with pytest.raises(OSError):
                box.cleanup()
            assert (foreign / "file").exists()
        finally:
            subprocess.run(["umount", "--lazy", place], check=True, timeout=HANG)
        box.cleanup()
    assert [path.name for path in tmp_path.iterdir()] == ["foreign"]


@pytest.mark.usefixtures("idmap")
def test_what_a_killed_caller_has_left_is_swept_by_the_next(tmp_path: Path) -> None:
    code = "import os, proc_sandbox as ps\nbox = ps.Sandbox(); box.run(['touch', 'x'], check=True); print(box.directory, flush=True)\n"
    environment = {"TMPDIR": str(tmp_path)}
    foreign = tmp_path / "proc-sandbox-private-notes"
    foreign.mkdir()
    with ps_temporary(tmp_path), ps.Sandbox() as alive:
        assert alive.directory
        left = output_of(code + "os.kill(os.getpid(), 9) if os.fork() == 0 else os.wait()\nos._exit(0)", env=environment).strip()
        assert os.path.exists(left), "the control: nobody has removed it"
        output_of("import proc_sandbox as ps\nps.Sandbox().cleanup()", env=environment)
        assert not os.path.exists(left)
        assert os.path.exists(alive.directory), "one that is in use stays"
        assert foreign.exists(), "and so does what only has a similar name"


class ps_temporary:
    """Sets the directory for temporary files of this process for a while."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def __enter__(self) -> None:
        import tempfile

        self.before = tempfile.tempdir
        tempfile.tempdir = str(self.directory)

    def __exit__(self, *_: object) -> None:
        import tempfile

        tempfile.tempdir = self.before


SWAP = "mv {own} {own}.old && ln -s {victim} {own}"


@pytest.fixture
def crossed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory for temporary files that a command is given to write to, and beside it something of the host's."""
    (tmp_path / "temporary").mkdir()
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "secret").write_text("secret")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    return tmp_path


def test_a_command_is_not_given_where_its_sandbox_lies(crossed: Path) -> None:
    for granted in (crossed / "temporary", crossed):
        with ps.Sandbox(writable_dirs=[granted]) as box, pytest.raises(ps.ConfigError, match="Sandbox's own directory lies in it"):
            box.run(["true"])


def test_a_sandbox_whose_directory_was_moved_away(crossed: Path) -> None:
    """By a run that was given the place where it lies: the next run of the Sandbox is not led to the host's."""
    with ps.Sandbox() as box:
        own, owner = box.directory, (crossed / "victim").stat().st_uid
        swap = SWAP.format(own=own, victim=crossed / "victim")
        assert ps.run(["sh", "-c", swap], writable_dirs=[crossed / "temporary"], allowed_dirs=[crossed / "victim"]).ok
        with pytest.raises(ps.LaunchError, match="moved away"):
            box.run(["sh", "-c", "cat secret; echo x > planted"])
        assert (crossed / "victim").stat().st_uid == owner
        assert [path.name for path in (crossed / "victim").iterdir()] == ["secret"]
        os.unlink(own or "")
        os.rename(f"{own}.old", own or "")
    assert list((crossed / "temporary").iterdir()) == []
