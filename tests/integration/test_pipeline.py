"""Pipelines: commands side by side, one verdict each, nothing of them left whatever one of them does."""

from __future__ import annotations

import errno
import os
import signal
import stat
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.behaviours import HOLD, is_held
from support.processes import caller, output_of
from support.programs import HANG, MEGABYTE, python, text

import proc_sandbox as ps

EVERY_BACKEND = True

SLEEPER = f"{HOLD}\nkept = hold(sys.argv[1])\nprint('up', flush=True)\nwait_for_ever()"
COUNT = "import sys; n = 0\nwhile data := sys.stdin.buffer.read(1 << 16): n += len(data)\nprint(n)"


@pytest.fixture(autouse=True)
def nothing_stays_open() -> Iterator[None]:
    """All descriptors that a pipeline opened here are closed."""
    ps.run(["true"])  # the launcher's own stay
    before = os.listdir("/proc/self/fd") if sys.platform == "linux" else []
    yield
    assert not {*(os.listdir("/proc/self/fd") if sys.platform == "linux" else [])}.difference(before)


def test_each_reads_what_the_one_before_writes() -> None:
    pipeline = ps.cmd(["cat"]) | ps.cmd(["tr", "a-z", "A-Z"]) | ps.cmd(["sh", "-c", "cat; echo problem >&2; exit 3"])
    result = pipeline.run(input="hello\n")
    assert result.stdout == b"HELLO\n"
    assert result.stderr == (b"", b"", b"problem\n")
    assert [each.exit_code for each in result.results] == [0, 0, 3]
    assert not result.ok
    assert result.to_dict()["ok"] is False
    with pytest.raises(ps.ExecutionError) as caught:
        result.check()
    assert caught.value.result is result.results[2]
    with pytest.raises(ps.ExecutionError):
        pipeline.run(check=True)
    assert (ps.cmd(["true"]) | ps.cmd(["true"])).run(check=True).ok


def test_output_is_text_where_that_is_asked_for() -> None:
    talker = ps.cmd(["sh", "-c", "cat; printf 'probl\\303\\250me\\r\\n' >&2"])
    pipeline = talker | ps.cmd(["sh", "-c", "cat; exit 3"])
    result = pipeline.run(input="é\n", text=True)
    assert (result.stdout, result.stderr) == ("é\n", ("problème\n", ""))
    assert [type(each.stdout) for each in result.results] == [str, str]
    assert pipeline.run(input="é", encoding="latin-1").stdout == "é"  # encoded as it is decoded, and passed on as it is
    with pytest.raises(ps.ExecutionError) as caught:
        pipeline.run(input="x", text=True, check=True)
    assert caught.value.result.stdout == "x"
    with pytest.raises(UnicodeDecodeError):
        pipeline.run(input=b"\xff", errors="strict")
    with pytest.raises(ps.ConfigError, match="encoding"):
        pipeline.run(encoding="no-such")
    assert talker.run(input="x").stdout == b"x"
    assert talker.run(input="x", text=True).stderr == "problème\n"


def test_pipelines_are_joined() -> None:
    cat = ps.cmd(["cat"])
    for whole in ((cat | cat) | (cat | cat), cat | (cat | (cat | cat)), cat | cat | cat | cat):
        assert isinstance(whole, ps.Pipeline)
        assert len(whole.commands) == 4
        assert whole.run(input=b"x").stdout == b"x"


def test_ten_stages_with_more_than_pipes_hold() -> None:
    pipeline: ps.Pipeline | ps.Command = ps.cmd(["cat"])
    for _ in range(9):
        pipeline = pipeline | ps.cmd(["cat"])
    data = os.urandom(3 * MEGABYTE)
    assert pipeline.run(input=data).stdout == data


def test_much_passes_between_them() -> None:
    result = (ps.cmd(["head", "-c", str(100 * MEGABYTE), "/dev/zero"]) | ps.cmd(["cat"]) | ps.cmd(python(COUNT))).run()
    assert text(result.results[-1]) == f"{100 * MEGABYTE}\n"
    assert result.ok


def test_who_writes_to_one_that_has_ended_gets_sigpipe() -> None:
    result = (ps.cmd(["yes"]) | ps.cmd(["head", "-n", "1"])).run()
    writer, reader = result.results
    assert (writer.reason, writer.signal) == (ps.Reason.SIGNALED, 13)
    assert reader.ok
    assert result.stdout == b"y\n"
    assert not result.ok, "as pipefail has it; reader.ok is what counts there"


def test_the_cause_is_raised_rather_than_its_consequence() -> None:
    with pytest.raises(ps.ExecutionError) as caught:
        (ps.cmd(["yes"]) | ps.cmd(["false"])).run(check=True)
    assert caught.value.cmd == ["false"]


def test_one_that_never_reads_ends_by_its_own_limit() -> None:
    result = (ps.cmd(["yes"]) | ps.cmd(["sleep", "3600"], timeout=0.3) | ps.cmd(["cat"])).run()
    assert [each.reason for each in result.results] == [ps.Reason.SIGNALED, ps.Reason.TIMEOUT, ps.Reason.EXITED]


def test_one_that_never_ends_ends_by_its_own_limit() -> None:
    result = (ps.cmd(["sh", "-c", "echo first; exec sleep 3600"], timeout=0.3) | ps.cmd(["cat"])).run()
    assert [each.reason for each in result.results] == [ps.Reason.TIMEOUT, ps.Reason.EXITED]
    assert result.stdout == b"first\n"


def test_each_has_its_own_rules(tmp_path: Path) -> None:
    (tmp_path / "words").write_text("b\na\n")
    reader = ps.cmd(["cat", "words"], working_dir=tmp_path)
    result = (reader | ps.cmd(["sh", "-c", "echo $A; sort"], env={"A": "set"}) | ps.cmd(["sh", "-c", "cat; echo $A"])).run()
    assert result.stdout == b"set\na\nb\n\n"


def test_sandboxes_keep_their_files() -> None:
    with ps.Sandbox() as one, ps.Sandbox(env={"A": "2"}) as two:
        one.write("in", "text\n")
        assert (one.cmd(["cat", "in"]) | two.cmd(["tee", "out"]) | one.cmd(["tee", "copy"])).run().ok
        assert (two.read("out"), one.read("copy")) == (b"text\n", b"text\n")
        assert text(two.cmd(["sh", "-c", "echo $A"]).run()) == "2\n"
        assert text(two.cmd(["cat", "out"], env={}).run(check=True)) == "text\n"
        last = one.cmd(["cat"])
    with pytest.raises(ps.SandboxClosedError):
        (ps.cmd(["true"]) | last).run()


def test_a_cleanup_kills_its_stages_and_waits(tmp_path: Path) -> None:
    """The others see the end of the pipe, as with a shell."""
    held = tmp_path / "held"
    with ps.Sandbox() as box:
        heard = threading.Event()

        class Heard:
            def write(self, data: bytes) -> None:
                heard.set()

        found: list[ps.PipelineResult] = []
        command = python(SLEEPER.replace("'up'", "'up', file=sys.stderr"), str(held))
        first = box.cmd(command, writable_dirs=[tmp_path], stderr=Heard())
        thread = threading.Thread(target=lambda: found.append((first | ps.cmd(["cat"])).run()))
        thread.start()
        assert heard.wait(HANG)
    thread.join(HANG)
    assert [each.reason for each in found[0].results] == [ps.Reason.CANCELLED, ps.Reason.EXITED]
    assert not is_held(held)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_where_one_cannot_be_started_the_others_are_killed(tmp_path: Path, place: int) -> None:
    commands = [ps.cmd(python(SLEEPER, str(tmp_path / f"{n}")), working_dir=tmp_path) for n in range(2)]
    commands.insert(place, ps.cmd(["no-such-command"]))
    with pytest.raises(FileNotFoundError):
        (commands[0] | commands[1] | commands[2]).run()
    assert not any(is_held(path) for path in tmp_path.iterdir())


def test_one_that_fails_at_the_last_moment_ends_the_others(tmp_path: Path) -> None:
    """Its interpreter is missing: that is known when all have been started."""
    (tmp_path / "script").write_text("#!/no/such/interpreter\n")
    (tmp_path / "script").chmod(0o755)
    sleeper = ps.cmd(python(SLEEPER, str(tmp_path / "held")), working_dir=tmp_path)
    with pytest.raises(FileNotFoundError):
        (sleeper | ps.cmd([str(tmp_path / "script")], allowed_dirs=[tmp_path]) | ps.cmd(["cat"])).run()
    assert not (tmp_path / "held").exists() or not is_held(tmp_path / "held")


def test_an_error_in_the_callers_own_file_ends_all(tmp_path: Path) -> None:
    class Full:
        def write(self, data: bytes) -> None:
            raise MemoryError("no room")

    sleeper = ps.cmd(python(SLEEPER, str(tmp_path / "held")), working_dir=tmp_path)
    with pytest.raises(MemoryError):
        (sleeper | ps.cmd(["cat"], stdout=Full())).run()
    assert not is_held(tmp_path / "held")


def test_streams_that_leave_no_room_for_a_pipe_are_refused(tmp_path: Path) -> None:
    cat = ps.cmd(["cat"])
    with pytest.raises(ps.ConfigError, match="pipe from the command before") as caught:
        (cat | ps.cmd(["cat"], stdin=b"x")).run()
    assert caught.value.field == "stdin"
    with pytest.raises(ps.ConfigError, match="pipe to the next command"):
        (ps.cmd(["cat"], stdout=tmp_path / "out") | cat).run()
    with pytest.raises(ps.ConfigError, match="stdout: 'DEVNULL': it is the pipe"):
        (ps.cmd(["cat"], stdout=ps.DEVNULL) | cat).run()
    with pytest.raises(ps.ConfigError, match="name one of them"):
        (ps.cmd(["cat"], stdin=b"x") | cat).run(input=b"y")
    with pytest.raises(ps.ConfigError):
        ps.cmd("cat | cat")
    with pytest.raises(TypeError):
        cat | ["cat"]  # type: ignore[operator]
    (ps.cmd(["cat"], stdin=b"x") | ps.cmd(["cat"], stdout=tmp_path / "out")).run(check=True)
    assert (tmp_path / "out").read_bytes() == b"x"


def test_errors_go_along_where_they_are_asked_to() -> None:
    result = (ps.cmd(["sh", "-c", "echo out; echo err >&2"], stderr=ps.STDOUT) | ps.cmd(["sort"])).run()
    assert result.stdout == b"err\nout\n"


def test_no_more_than_max_output_is_kept_of_each() -> None:
    noisy = python("import sys; sys.stderr.write('e' * 100000); sys.stdout.write('o' * 100000)")
    result = (ps.cmd(noisy, max_output=10) | ps.cmd(["cat"], max_output=20)).run()
    assert [(len(each.stdout), len(each.stderr)) for each in result.results] == [(0, 10), (20, 0)]
    assert result.results[0].stderr_truncated
    assert result.results[1].stdout_truncated


def test_a_fork_in_the_middle_keeps_no_pipe_open() -> None:
    """A child by os.fork() of another thread has no end of the pipe: or the reader would never see the writer's."""
    code = (
        "import os, proc_sandbox as ps\n"
        "from proc_sandbox.execution import Execution\n"
        "children = []\n"
        "plain = Execution.start\n"
        "def forking(self, *rest, **more):\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        import signal; signal.pause()\n"
        "    children.append(child)\n"
        "    return plain(self, *rest, **more)\n"
        "ps.run(['true'])\n"
        "Execution.start = forking\n"
        "print((ps.cmd(['echo', 'x']) | ps.cmd(['cat']) | ps.cmd(['cat'])).run().stdout)\n"
        "for child in children: os.kill(child, 9); os.waitpid(child, 0)\n"
    )
    assert output_of(code) == "b'x\\n'\n"


def test_both_backends_in_one_pipeline(backend: str) -> None:
    other = ps.cmd(["cat"], backend="linux", enforcement="strict") if sys.platform == "linux" else ps.cmd(["cat"])
    result = (ps.cmd(["echo", backend]) | other | ps.cmd(["cat"])).run()
    assert text(result.results[-1]) == f"{backend}\n"


def test_an_interrupt_ends_all(tmp_path: Path) -> None:
    command = python(SLEEPER.replace("'up'", "'up', file=sys.stderr"), str(tmp_path / "held"))
    code = (
        "import proc_sandbox as ps\n"
        "class Heard:\n"
        "    def write(self, data): print('up', flush=True)\n"
        f"sleeper = ps.cmd({command!r}, working_dir={str(tmp_path)!r}, stderr=Heard())\n"
        "try:\n"
        "    (ps.cmd(['sleep', '3600']) | sleeper | ps.cmd(['cat'])).run()\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted', flush=True)\n"
    )
    with caller(code) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=HANG)
        assert (out, process.returncode) == (b"interrupted\n", 0), err
    assert not is_held(tmp_path / "held")


def test_the_death_of_who_serves_the_runs_is_told(backend: str) -> None:
    server = "launcher.process import launcher" if backend == "linux" else "backends.posix.process import warden as launcher"
    code = (
        "import os, signal, proc_sandbox as ps\n"
        f"from proc_sandbox.{server}\n"
        "class Heard:\n"
        "    def write(self, data): os.kill(launcher().pid, signal.SIGKILL)\n"
        "try:\n"
        "    (ps.cmd(['sh', '-c', 'echo up >&2; sleep 3600'], stderr=Heard()) | ps.cmd(['cat']) | ps.cmd(['cat'])).run()\n"
        "except ps.LauncherDiedError:\n"
        "    print('told', ps.cmd(['echo', 'x']).run().ok)\n"
    )
    assert output_of(code) == "told True\n"


def test_where_no_pipe_can_be_made_nothing_is_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(path: str, mode: int) -> None:
        if path.endswith("-1"):
            raise OSError(errno.EPERM, os.strerror(errno.EPERM), path)
        os.mknod(path, stat.S_IFIFO | mode)

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(os, "mkfifo", refuse)
    with pytest.raises(ps.LaunchError, match="pipe") as caught:
        (ps.cmd(["true"]) | ps.cmd(["true"]) | ps.cmd(["true"])).run()
    assert (caught.value.step, caught.value.errno) == ("pipe", errno.EPERM)
    assert os.listdir(tmp_path) == []
