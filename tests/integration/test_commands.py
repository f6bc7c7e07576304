"""What the caller runs works without ceremony; and what cannot work says why."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from support.behaviours import promise
from support.fixtures import Programs
from support.processes import output_of
from support.programs import HANG, inside, outside, python, text

import proc_sandbox as ps

EVERY_BACKEND = True


def script(path: Path, body: str) -> Path:
    """An executable script."""
    path.write_text(body)
    path.chmod(0o755)
    return path


def test_the_interpreter_of_the_caller() -> None:
    code = "import sys, json, ssl, ctypes, hashlib; print(sys.version_info[:2])"
    assert text(inside([sys.executable, "-c", code])) == f"{sys.version_info[:2]}\n"


def test_python3_as_the_callers_path_has_it() -> None:
    """Through a shim of pyenv too, which is a shell script in a home directory."""
    code = "import sys, json, zlib; print(sys.version_info[:2])"
    expected = text(outside(["python3", "-c", code]))
    assert expected
    assert text(inside(["python3", "-c", code])) == expected


def test_a_virtual_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    venv = home / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True, timeout=HANG)
    site = next(venv.glob("lib/python*/site-packages"))
    (site / "only_here.py").write_text("ANSWER = 42\n")
    home.chmod(0o700)
    code = "import only_here, sys; print(only_here.ANSWER, sys.prefix)"
    assert text(inside([venv / "bin" / "python", "-c", code])) == f"42 {venv}\n"
    monkeypatch.setenv("PATH", f"{venv}/bin:{os.environ['PATH']}")
    assert text(inside(["python3", "-c", code])) == f"42 {venv}\n"


@promise("files written")
def test_a_virtual_environment_stays_as_it_is(tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True, timeout=HANG)
    before = sorted(venv.rglob("*"))
    code = f"import os\ntry: open({str(venv / 'new')!r}, 'w')\nexcept OSError as e: print(e.errno in (1, 13, 30))"
    assert text(inside([venv / "bin" / "python", "-c", code])) == "True\n"
    assert sorted(venv.rglob("*")) == before


def test_a_script_by_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative to the command's working directory, which need not be the caller's."""
    (tmp_path / "untrusted.py").write_text("import os; print(os.getcwd())")
    script(tmp_path / "run.sh", "#!/bin/sh\necho $0 $1\n")
    (tmp_path / "below").mkdir()
    script(tmp_path / "below" / "tool", "#!/bin/sh\npwd\n")
    assert text(inside(["python3", "untrusted.py"], working_dir=tmp_path)) == f"{tmp_path}\n"
    assert text(inside(["./run.sh", "x"], working_dir=tmp_path)) == "./run.sh x\n"
    assert text(inside(["below/tool"], working_dir=tmp_path)) == f"{tmp_path}\n"
    monkeypatch.chdir(tmp_path)
    assert text(inside(["./run.sh", "y"], working_dir=".")) == "./run.sh y\n"


def test_a_script_is_only_found_by_a_path(tmp_path: Path) -> None:
    script(tmp_path / "tool-that-is-nowhere-else", "#!/bin/sh\n")
    with pytest.raises(FileNotFoundError):
        inside(["tool-that-is-nowhere-else"], working_dir=tmp_path)


@pytest.mark.parametrize("first", ["#!/bin/sh", "#! /bin/sh -e", "#!/usr/bin/env sh", "#!/usr/bin/env -S sh -e"])
def test_scripts_that_name_their_interpreter(tmp_path: Path, first: str) -> None:
    script(tmp_path / "script", f"{first}\necho by $0\n")
    assert text(inside(["./script"], working_dir=tmp_path)) == "by ./script\n"
    assert text(inside([tmp_path / "script"], allowed_dirs=[tmp_path])) == f"by {tmp_path}/script\n"


def test_a_script_for_the_callers_python(tmp_path: Path) -> None:
    """`#!/path/of/a/venv/bin/python`, as pip writes it into every command that it installs."""
    script(tmp_path / "tool", f"#!{sys.executable}\nimport sys; print('tool', *sys.argv[1:])\n")
    assert text(inside(["./tool", "a"], working_dir=tmp_path)) == "tool a\n"


def test_a_script_with_an_interpreter_beside_it(tmp_path: Path, programs: Programs) -> None:
    shutil.copy(programs("multicall"), tmp_path / "interpreter")
    script(tmp_path / "script", f"#!{tmp_path}/interpreter word\n")
    assert text(inside(["./script"], working_dir=tmp_path)) == "applet interpreter word ./script\n"


@pytest.mark.parametrize("kind", ["relative", "absolute", "chain", "above"])
def test_one_program_under_many_names(tmp_path: Path, programs: Programs, kind: str) -> None:
    """As busybox does it: which program it is, the name by which it is called says."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "lib").mkdir()
    target = tmp_path / ("lib" if kind == "above" else "bin") / "multi"
    shutil.copy(programs("multicall"), target)
    name = tmp_path / "bin" / "applet"
    if kind == "chain":
        (tmp_path / "bin" / "middle").symlink_to("multi")
        name.symlink_to("middle")
    else:
        name.symlink_to({"relative": "multi", "absolute": str(target), "above": "../lib/multi"}[kind])
    assert text(inside([name, "x"], allowed_dirs=[tmp_path])) == "applet applet x\n"
    assert (
        text(inside(["./applet"], working_dir=tmp_path / "bin", allowed_dirs=[tmp_path / "lib"])) == "applet applet\n"
    )


def test_a_command_in_a_granted_directory_is_run_by_its_path(programs: Programs) -> None:
    assert text(inside([programs("multicall")], allowed_dirs=[programs.directory])) == "applet multicall\n"
    assert text(inside([os.fsencode(programs("multicall"))], allowed_dirs=[programs.directory])) == "applet multicall\n"


def test_a_command_by_its_name_finds_its_directory_on_its_path(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python looks for itself by the name that it was called by: also where the caller grants what is seen anyway."""
    tool = programs.directory / "show-path"
    tool.write_text("#!/bin/sh\necho $PATH\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs.directory}:{os.environ['PATH']}")
    assert text(inside(["show-path"], allowed_dirs=[programs.directory])).split(":")[0] == str(programs.directory)
    assert str(programs.directory) not in text(inside(["sh", "-c", "echo $PATH"], allowed_dirs=[programs.directory]))


def test_a_command_of_the_commands_own_path(programs: Programs) -> None:
    """PATH in env is the one by which the command is looked up, too."""
    path = f"{programs.directory}:/usr/bin:/bin"
    result = inside(["sh", "-c", "multicall"], env={"PATH": path}, allowed_dirs=[programs.directory])
    assert programs("multicall")
    assert text(result) == "applet multicall\n", result


def test_gcc_compiles_and_its_program_runs(tmp_path: Path) -> None:
    (tmp_path / "main.c").write_text('#include <stdio.h>\nint main(void) { puts("compiled inside"); return 3; }\n')
    with ps.Sandbox(working_dir=tmp_path, memory_limit="512M", timeout=HANG, max_processes=20) as box:
        box.run(["gcc", "-O1", "-o", "main", "main.c"], check=True)
        result = box.run(["./main"])
    assert (result.stdout, result.exit_code) == (b"compiled inside\n", 3)


# --- what cannot work ---


def test_a_command_that_is_nowhere() -> None:
    with pytest.raises(FileNotFoundError) as caught:
        inside(["no-such-command-anywhere"])
    error = caught.value
    assert isinstance(error, ps.CommandNotFoundError)
    assert isinstance(error, ps.LaunchError)
    assert isinstance(error, ps.SandboxError)
    assert error.errno == errno.ENOENT
    assert error.filename == "no-such-command-anywhere"
    assert "no-such-command-anywhere" in str(error)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.errno) == (type(error), str(error), error.errno)


@pytest.mark.parametrize("name", ["/no/such/path", "./missing", "/etc/passwd/below"])
def test_a_path_that_is_nowhere(name: str) -> None:
    with pytest.raises((FileNotFoundError, NotADirectoryError)) as caught:
        inside([name])
    assert isinstance(caught.value, ps.LaunchError)
    assert name in str(caught.value)


@promise("files")
def test_a_command_that_exists_but_is_not_visible(programs: Programs) -> None:
    """The error says just that, and what to allow."""
    with pytest.raises(FileNotFoundError) as caught:
        inside([programs("multicall")])
    message = str(caught.value)
    assert isinstance(caught.value, ps.CommandNotFoundError)
    assert str(programs.directory) in message
    assert "allowed_dirs" in message


@promise("files")
def test_an_interpreter_that_is_not_visible(tmp_path: Path, programs: Programs) -> None:
    script(tmp_path / "script", f"#!{programs('multicall')}\n")
    with pytest.raises(FileNotFoundError) as caught:
        inside(["./script"], working_dir=tmp_path)
    assert str(programs.directory) in str(caught.value)


def test_an_interpreter_that_is_nowhere(tmp_path: Path) -> None:
    script(tmp_path / "script", "#!/no/such/interpreter\n")
    with pytest.raises(FileNotFoundError) as caught:
        inside(["./script"], working_dir=tmp_path)
    assert "/no/such/interpreter" in str(caught.value)


@promise("files")
def test_a_link_whose_target_is_not_visible(tmp_path: Path, programs: Programs) -> None:
    (tmp_path / "tool").symlink_to(programs("multicall"))
    with pytest.raises(FileNotFoundError) as caught:
        inside(["./tool"], working_dir=tmp_path)
    assert str(programs.directory) in str(caught.value)


@pytest.mark.parametrize("what", ["file", "directory"])
def test_a_command_that_is_not_executable(tmp_path: Path, what: str) -> None:
    path = tmp_path / "thing"
    if what == "file":
        path.write_text("#!/bin/sh\n")
        path.chmod(0o644)
    else:
        path.mkdir()
    with pytest.raises(PermissionError) as caught:
        inside(["./thing"], working_dir=tmp_path)
    assert isinstance(caught.value, ps.CommandNotExecutableError)
    assert isinstance(caught.value, ps.SandboxError)
    assert caught.value.errno == errno.EACCES
    assert "thing" in str(caught.value)


def test_a_file_that_is_no_program(tmp_path: Path) -> None:
    path = tmp_path / "noise"
    path.write_bytes(b"\x00\x01\x02\x03 this is no program")
    path.chmod(0o755)
    with pytest.raises(OSError, match="noise") as caught:
        inside(["./noise"], working_dir=tmp_path)
    assert caught.value.errno == errno.ENOEXEC
    assert isinstance(caught.value, ps.LaunchError)


def test_a_failed_launch_leaves_nothing_to_the_next(tmp_path: Path) -> None:
    with ps.Sandbox(working_dir=tmp_path, timeout=HANG) as box:
        for _ in range(20):
            with pytest.raises(FileNotFoundError):
                box.run(["./missing"])
            assert box.run(["true"]).ok


# --- arguments ---


@pytest.mark.parametrize(
    "arguments",
    [
        ["-c", "--", "-"],
        ["", "", ""],
        ["${HOME}", "$$", "%n", "$(id)", "`id`", "~", "*", "a;b", "&", "|", ">x"],
        ["new\nline", "tab\t", "\\", '"', "'", "\r", "\x7f", "\x01"],
        ["=x", "A=B", "--name=value"],
        ["☃", "ü", "\U0001f600"],
        ["x" * 100_000],
        ["y"] * 5_000,
    ],
)
def test_arguments_arrive_unchanged(arguments: list[str]) -> None:
    code = "import sys; sys.stdout.write('\\0'.join(sys.argv[1:]))"
    assert inside([*python(code), *arguments]).stdout == "\0".join(arguments).encode()


def test_every_byte_may_be_an_argument() -> None:
    every = bytes(range(1, 256))
    assert inside(["printf", "%s", os.fsdecode(every)]).stdout == every
    assert inside([b"printf", b"%s", every]).stdout == every


def test_too_much_is_told_as_the_kernel_tells_it() -> None:
    with pytest.raises(OSError, match="E2BIG|too long") as caught:
        inside(["true", "x" * (200 * 1024)])
    assert caught.value.errno == errno.E2BIG
    assert isinstance(caught.value, ps.LaunchError)


def test_argv_0_may_be_the_commands_own_matter() -> None:
    result = inside(["sh", "-c", "cat /proc/$$/cmdline"])
    assert result.stdout.startswith(b"sh\0-c\0")


@promise("others")
def test_the_command_is_a_session_of_its_own() -> None:
    code = "import os; print(os.getsid(0) == os.getpid() or os.getsid(0) != 0, os.getppid())"
    assert text(inside(python(code))) == "True 1\n"


def test_results_say_what_was_run() -> None:
    assert inside(["sh", "-c", "true"]).args == ("sh", "-c", "true")


def test_the_launcher_is_no_part_of_path() -> None:
    """It is found beside the package; nothing with a set-user-ID bit is shipped."""
    package = Path(ps.__file__).parent
    for path in package.rglob("*"):
        assert not path.stat().st_mode & (stat.S_ISUID | stat.S_ISGID), path


def test_a_path_that_leads_up_and_down_again(tmp_path: Path) -> None:
    """../venv/bin/python: on the host it exists, inside the directory that it passes through does not."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "bin").mkdir()
    script(tmp_path / "bin" / "tool", "#!/bin/sh\necho here\n")
    assert text(inside([tmp_path / "elsewhere" / ".." / "bin" / "tool"], allowed_dirs=[tmp_path / "bin"])) == "here\n"


def test_a_script_in_the_callers_directory_names_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path / "x.sh", "#!/bin/sh\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="working_dir"):
        inside(["./x.sh"])
    with ps.Sandbox() as box, pytest.raises(FileNotFoundError, match="working_dir"):
        box.run(["./x.sh"])


def test_a_script_with_the_other_systems_line_ends(tmp_path: Path) -> None:
    script(tmp_path / "x.sh", "#!/bin/sh\r\necho x\r\n")
    with pytest.raises(FileNotFoundError, match="carriage return"):
        inside(["./x.sh"], working_dir=tmp_path)


def test_links_that_hide_a_command_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory of links first in PATH (a package manager's): the program is there behind it."""
    (tmp_path / "sh").symlink_to("/bin/sh")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert text(inside(["sh", "-c", "echo found"])) == "found\n"


def test_signals_that_the_caller_ignores_are_not_ignored_inside(backend: str) -> None:
    """But for the two that libc keeps for itself (nptl(7)): POSIX cannot ask for them."""
    code = "import proc_sandbox as ps\nprint(ps.run(['grep', 'SigIgn', '/proc/self/status']).stdout.text(), end='')\n"
    wrapped = f"import signal, sys\nfor n in (1, 2, 3, 13, 15, 18, 20, 22): signal.signal(n, signal.SIG_IGN)\n{code}"
    ignored = int(output_of(wrapped).split()[1], 16)
    assert ignored & ~(0 if backend == "linux" else 3 << 31) == 0
