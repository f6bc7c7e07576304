"""The public face on Windows, be it Wine: Sandbox, asyncio, the death of a caller, the command line."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

if sys.platform != "win32":
    pytest.skip("the public face needs the real system", allow_module_level=True)

import proc_sandbox as ps
from proc_sandbox.backends import current

LENIENT: dict[str, Any] = {"enforcement": "best-effort", "timeout": 120}
HANG = 120


@pytest.fixture(autouse=True)
def lenient() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ps.UnenforcedWarning)
        yield


def python(code: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", textwrap.dedent(code)]


def private_directories() -> set[str]:
    return {name for name in os.listdir(current().tools.temporary) if name.startswith("proc-sandbox-private")}  # type: ignore[attr-defined]


def test_strict_refuses_what_this_system_does_not_keep() -> None:
    missing = {name for name, how in ps.capabilities().items() if isinstance(how, ps.Unenforced)}
    if "memory_limit" not in missing:
        pytest.skip("this system keeps it")
    with pytest.raises(ps.UnsupportedError) as caught:
        ps.run(python("pass"), memory_limit="64M")
    assert caught.value.field in missing
    assert caught.value.remedy


def test_a_sandbox_keeps_its_files_and_leaves_nothing() -> None:
    before = private_directories()
    with ps.Sandbox(**LENIENT) as box:
        box.run(python("open('kept', 'w').write('1')"), check=True)
        assert box.run(python("print(open('kept').read())"), check=True).stdout.text() == "1\r\n"
        assert box.directory
        assert len(private_directories()) == len(before) + 1
    assert private_directories() == before


def test_a_sandbox_is_removed_whatever_was_left() -> None:
    before = private_directories()
    with ps.Sandbox(**LENIENT) as box:
        code = r"""
            import os, stat
            open("read-only", "w").close()
            os.chmod("read-only", stat.S_IREAD)
            place = os.getcwd()
            for _ in range(25):
                place += "\\" + "x" * 100
                os.mkdir("\\\\?\\" + place)
            open("\\\\?\\" + place + "\\file", "w").close()
            for name in ("NUL", "dot.", "blank "):
                try:
                    open("\\\\?\\" + os.getcwd() + "\\" + name, "w").close()
                except OSError as error:
                    print(name, error)
        """
        assert box.run(python(code), check=True).ok
    assert private_directories() == before


def test_cleanup_ends_what_is_under_way() -> None:
    box = ps.Sandbox(**LENIENT)
    started = threading.Event()
    results: list[ps.Result] = []

    class Started:
        def write(self, data: bytes) -> int:
            started.set()
            return len(data)

    thread = threading.Thread(
        target=lambda: results.append(box.run(python("print(1, flush=True); import time; time.sleep(1000)"), stdout=Started()))
    )
    thread.start()
    assert started.wait(HANG)
    box.cleanup()
    thread.join(HANG)
    assert [result.reason for result in results] == [ps.Reason.CANCELLED]


def test_asyncio_runs_many_at_once_under_the_proactor_loop() -> None:
    """The loop's own subprocesses go on beside: neither waits for the other."""

    async def own() -> bytes:
        process = await asyncio.create_subprocess_exec(*python("print('own')"), stdout=asyncio.subprocess.PIPE)
        return (await process.communicate())[0].strip()

    async def both() -> tuple[list[ps.Result], bytes]:
        assert type(asyncio.get_running_loop()).__name__ == "ProactorEventLoop"
        runs = [asyncio.to_thread(ps.run, python(f"print({number})"), **LENIENT) for number in range(6)]
        results, said = await asyncio.gather(asyncio.gather(*runs), own())
        return list(results), said

    results, said = asyncio.run(both())
    assert [result.stdout.text().strip() for result in results] == [str(number) for number in range(6)]
    assert said == b"own"


def test_asyncio_cancels_by_cleanup() -> None:
    async def cancelled() -> list[ps.Result]:
        box = ps.Sandbox(**LENIENT)
        loop, started = asyncio.get_running_loop(), asyncio.Event()

        class Started:
            def write(self, data: bytes) -> int:
                loop.call_soon_threadsafe(started.set)
                return len(data)

        code = python("print(1, flush=True); import time; time.sleep(1000)")
        runs = [asyncio.create_task(asyncio.to_thread(box.run, code, stdout=Started())) for _ in range(3)]
        await asyncio.wait_for(started.wait(), HANG)
        await asyncio.to_thread(box.cleanup)
        return list(await asyncio.gather(*runs, return_exceptions=True))  # type: ignore[arg-type]

    for result in asyncio.run(cancelled()):
        assert isinstance(result, ps.SandboxClosedError) or result.reason is ps.Reason.CANCELLED


CALLER = """
    import subprocess, sys, warnings
    warnings.simplefilter("ignore")
    import proc_sandbox as ps
    box = ps.Sandbox(enforcement="best-effort")
    print(box.directory, flush=True)
    box.run([sys.executable, "-c", "print('alive', flush=True); import time; time.sleep(1000)"], stdout=ps.INHERIT)
"""


def test_a_run_ends_with_its_caller_and_the_next_caller_tidies_up() -> None:
    command = [sys.executable, "-c", textwrap.dedent(CALLER)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as caller:
        assert caller.stdout
        directory = caller.stdout.readline().decode().strip()
        assert caller.stdout.readline().strip() == b"alive"
        sweep = "import proc_sandbox as ps; ps.capabilities()"
        subprocess.run([sys.executable, "-c", sweep], check=True, timeout=HANG)
        assert os.path.isdir(directory), "the control: it is in use"
        caller.kill()  # TerminateProcess: nothing of Python runs any more
        assert caller.stdout.read() == b"", "the pipe ends when the command has: it held the other end"
    subprocess.run([sys.executable, "-c", sweep], check=True, timeout=HANG)
    assert not os.path.exists(directory)


# --- many runs, pipelines, files ---


def test_an_executor_cancels_what_is_running() -> None:
    heard = threading.Event()

    class Heard:
        def write(self, data: bytes) -> None:
            heard.set()

    with ps.SandboxExecutor(max_workers=2, **LENIENT) as pool:
        fine = pool.submit(python("print(6 * 7)"))
        endless = pool.submit(python("print('up', flush=True); import time; time.sleep(1000)"), stdout=Heard())
        assert fine.result(HANG).stdout.text().strip() == "42"
        assert heard.wait(HANG)
        assert endless.cancel()
    assert endless.cancelled()
    results = ps.run_many([python(f"raise SystemExit({number})") for number in range(4)], max_workers=2, **LENIENT)
    assert [result.exit_code for result in results] == [0, 1, 2, 3]


UPPER = "import sys; sys.stdout.write(sys.stdin.read().upper())"


def test_a_pipeline() -> None:
    first = ps.cmd(python("import sys; print('started', file=sys.stderr); print(sys.stdin.read())"), **LENIENT)
    result = (first | ps.cmd(python(UPPER), **LENIENT) | ps.cmd(python("import sys; sys.exit(len(sys.stdin.read()))"), **LENIENT)).run(input="some")
    assert [each.exit_code for each in result.results] == [0, 0, 5], result
    assert result.stderr[0].text().strip() == "started"
    data = b"x" * 3_000_000
    copy = ps.cmd(python("import shutil, sys; shutil.copyfileobj(sys.stdin.buffer, sys.stdout.buffer)"), **LENIENT)
    assert (copy | copy | copy).run(input=data).stdout == data


def test_a_pipeline_with_one_that_cannot_be_started() -> None:
    with pytest.raises(FileNotFoundError):
        (ps.cmd(python("import time; time.sleep(1000)"), **LENIENT) | ps.cmd(["no-such-command"], **LENIENT)).run()


def test_a_pipeline_in_which_one_never_ends() -> None:
    endless = ps.cmd(python("import time; time.sleep(1000)"), **{**LENIENT, "timeout": 1})
    result = (endless | ps.cmd(python(UPPER), **LENIENT)).run()
    assert [each.reason for each in result.results] == [ps.Reason.TIMEOUT, ps.Reason.EXITED]


def test_files_are_put_there_and_taken() -> None:
    with ps.Sandbox(**LENIENT) as box:
        box.write("in.txt", "some text")
        box.run(python("import os; os.mkdir('sub'); open('sub/out.txt', 'w').write(open('in.txt').read().upper())"), check=True)
        assert box.read("sub/out.txt") == b"SOME TEXT"
        assert box.read(rf"{box.directory}\\sub\\out.txt") == b"SOME TEXT"
        for bad in ("nul", "../x", "in.txt:stream", "C:\\Windows\\win.ini"):
            with pytest.raises(ps.ConfigError):
                box.read(bad)


# --- the command line ---


def cli(*words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "proc_sandbox", *words]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=HANG, check=False)


def test_run_passes_streams_and_exit_code_through(tmp_path: Path) -> None:
    code = "import sys; sys.stdout.write(sys.stdin.read()); sys.stderr.write('problem'); sys.exit(7)"
    file = tmp_path / "result.json"
    done = cli("run", "--enforcement", "best-effort", "--json", str(file), "--", *python(code), stdin=b"some input")
    assert (done.returncode, done.stdout) == (7, b"some input"), done
    assert b"problem" in done.stderr
    facts = json.loads(file.read_text())
    assert (facts["reason"], facts["exit_code"]) == ("exited", 7)


def test_run_tells_of_a_timeout_and_of_what_was_not_run() -> None:
    late = cli("run", "--enforcement", "best-effort", "-t", "0.5", "--", *python("while True: pass"))
    assert late.returncode == 124
    assert b"wall time limit" in late.stderr
    assert cli("run", "--enforcement", "best-effort", "--", "no-such-command").returncode == 127
    assert cli("run", "--pass-fds", "x", "--", "cmd").returncode == 125


def test_doctor_and_plan() -> None:
    doctor = cli("doctor", "--json")
    facts = json.loads(doctor.stdout)
    assert facts["timeout"]["strength"] == "kernel"
    assert facts["trial"] == "ok"
    missing = [name for name, how in facts.items() if isinstance(how, dict) and "reason" in how]
    assert doctor.returncode == (1 if missing else 0), doctor
    assert b"confined run" in cli("doctor").stdout
    plan = cli("plan", "--json", "--enforcement", "best-effort", "-t", "5", "--", "cmd")
    assert json.loads(plan.stdout)["timeout"] == 5_000_000_000
    assert b"NOT ENFORCED" in cli("plan", "--enforcement", "best-effort", "--", "cmd").stdout


def test_ctrl_c_ends_the_run_with_the_caller() -> None:
    """Ctrl-Break here, which alone can be sent to a process group; Python raises KeyboardInterrupt for both."""
    code = "print('alive', flush=True); import time; time.sleep(1000)"
    command = [sys.executable, "-m", "proc_sandbox", "run", "--enforcement", "best-effort", "--", *python(code)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, creationflags=subprocess.CREATE_NEW_PROCESS_GROUP
    ) as caller:
        assert caller.stdout
        assert caller.stdout.readline().strip() == b"alive"
        try:
            os.kill(caller.pid, signal.CTRL_BREAK_EVENT)
        except (OSError, SystemError) as error:  # Wine without a console
            caller.kill()
            pytest.skip(f"no console to send it on: {error}")
        assert caller.stdout.read() == b"", "the pipe ends when the command has"
        assert caller.wait(HANG) != 0
