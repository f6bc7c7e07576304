"""What a command finds around it: its arguments, its environment, its directory, and nothing else of the caller's."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from support.behaviours import Runner, promise, variable
from support.programs import python

import proc_sandbox as ps

ARGUMENTS = [
    ["plain"],
    [""],
    ["", "", ""],
    ["two words", "tab\there", "new\nline", "cr\rhere"],
    ['"', '""', 'a"b', '\\"', '\\\\"', '"\\', "\\", "\\\\", "a\\", "a\\\\ b", 'a b\\"', "trailing space \\"],
    ["'", "'single'", "$HOME", "`id`", "%PATH%", "%", "^", "&", "|", "<", ">", "!x!", ";", "*", "?", "~", "#"],
    ["--", "-", "-c", "--flag=value", "/flag", "@file"],
    ["äöü", "日本語", "😀", "e\u0301", "\u202e"],
    ["x" * 8000],
]


@promise("arguments")
@pytest.mark.parametrize("arguments", ARGUMENTS, ids=range(len(ARGUMENTS)))
def test_arguments_arrive_as_they_were_given(run: Runner, arguments: list[str]) -> None:
    result = run(python("import json, sys; print(json.dumps(sys.argv[1:]))", *arguments))
    assert json.loads(result.stdout) == arguments


@promise("environment")
def test_nothing_is_inherited(run: Runner) -> None:
    with variable("A_SECRET_OF_THE_CALLER", "secret"):
        result = run(python("import json, os; print(json.dumps(dict(os.environ)))"))
        assert "A_SECRET_OF_THE_CALLER" not in json.loads(result.stdout)
        passed = run(python("import os; print(os.environ['A_SECRET_OF_THE_CALLER'])"), pass_env=["A_SECRET_OF_THE_CALLER"])
        assert passed.stdout.split() == [b"secret"]


@promise("environment")
def test_what_is_given_arrives(run: Runner) -> None:
    given = {"PLAIN": "1", "EMPTY": "", "EQUALS": "a=b=c", "UNICODE": "äöü 日本語 😀", "SPACES": "  two  words  "}
    names = sorted(given)
    if sys.platform == "win32":
        names.remove("EMPTY")  # a variable without a value does not exist there
    code = "import json, os, sys; print(json.dumps([os.environ[name] for name in sys.argv[1:]]))"
    assert json.loads(run(python(code, *names), env=given).stdout) == [given[name] for name in names]


@promise("directory")
def test_the_command_starts_in_its_directory_and_writes_there(run: Runner, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("read")
    code = "import os; open('out', 'w').write(open('in').read() + ' and written'); print(os.getcwd())"
    result = run(python(code), working_dir=tmp_path, check=True)
    assert os.path.samefile(result.stdout.text().strip(), tmp_path)
    assert (tmp_path / "out").read_text() == "read and written"
    assert (tmp_path / "out").stat().st_uid == tmp_path.stat().st_uid


@promise("directory")
def test_a_directory_may_have_any_name(run: Runner, tmp_path: Path) -> None:
    for name in ("with space", "äöü", "-dash", "a,b"):
        place = tmp_path / name
        place.mkdir()
        assert run(python("open('made', 'w').close()"), working_dir=place).ok
        assert (place / "made").exists()


@promise("private directory")
def test_a_run_without_a_directory_has_one_that_vanishes(run: Runner) -> None:
    code = "import os; open('made', 'w').close(); print(os.getcwd()); print(os.listdir('.'))"
    first, second = (run(python(code), check=True).stdout.text().splitlines() for _ in range(2))
    assert "made" in first[1]
    assert first[1] == second[1]
    assert not os.path.exists(os.path.join(first[0], "made"))


@promise("sandbox")
def test_files_stay_from_run_to_run_and_go_with_the_sandbox(run: Runner) -> None:
    with run.sandbox() as box:
        box.run(python("open('kept', 'w').write('kept'); import os; os.makedirs('deep/er')"), check=True)
        assert box.run(python("print(open('kept').read())"), check=True).stdout.split() == [b"kept"]
        directory = box.directory
        assert directory
        assert os.path.isdir(directory)
    assert not os.path.exists(directory)


@promise("sandbox")
def test_what_is_hard_to_remove_goes_too(run: Runner) -> None:
    code = "import os, stat\nopen('read-only', 'w').close()\nos.chmod('read-only', stat.S_IREAD)\nos.mkdir('d'); open('d/f', 'w').close()\n"
    code += "os.chmod('d/f', stat.S_IREAD)\nos.chmod('d', stat.S_IREAD | stat.S_IEXEC)"
    with run.sandbox() as box:
        box.run(python(code), check=True)
        directory = box.directory
    assert directory
    assert not os.path.exists(directory)


@promise("sandbox")
def test_a_closed_sandbox_runs_nothing(run: Runner) -> None:
    box = run.sandbox()
    box.cleanup()
    box.cleanup()
    with pytest.raises(ps.SandboxClosedError):
        box.run(python("pass"))


@promise("descriptors")
def test_nothing_open_of_the_callers_arrives(run: Runner) -> None:
    """A file that any child would inherit if nobody saw to it."""
    if sys.platform == "win32":
        import msvcrt

        reader, writer = os.pipe()
        handle = msvcrt.get_osfhandle(writer)
        os.set_handle_inheritable(handle, True)
        code = f"import ctypes; print(ctypes.windll.kernel32.WriteFile(ctypes.c_void_p({handle}), b'x', 1, None, None))"
    else:
        reader, writer = os.pipe()
        os.set_inheritable(writer, True)
        code = f"import os\ntry: print(os.write({writer}, b'x'))\nexcept OSError: print(0)"
    try:
        assert run(python(code)).stdout.split() == [b"0"]
        os.write(writer, b"ours")
        assert os.read(reader, 10) == b"ours"
    finally:
        os.close(reader)
        os.close(writer)


@promise("pass_fds")
def test_named_descriptors_arrive(run: Runner) -> None:
    reader, writer = os.pipe()
    try:
        run(python(f"import os; os.write({writer}, b'through')"), pass_fds=[writer], check=True)
        assert os.read(reader, 10) == b"through"
    finally:
        os.close(reader)
        os.close(writer)
