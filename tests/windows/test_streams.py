"""Streams: all that a command says, up to the cap; nothing waits for what nobody will do."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.windows import HANG, Changed, FakeWindows, RealWindows, Windows, failing

import proc_sandbox as ps
from proc_sandbox.backends.grants import PlantedLinkError
from proc_sandbox.backends.windows.files import read_file, write_file
from proc_sandbox.backends.windows.job import Bounds, Job
from proc_sandbox.backends.windows.links import open_named
from proc_sandbox.backends.windows.process import start
from proc_sandbox.backends.windows.streams import Streams
from proc_sandbox.backends.windows.winapi import (
    DETACHED_PROCESS,
    GENERIC_READ,
    GENERIC_WRITE,
    JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE,
    ExtendedLimits,
    Win32Error,
)
from proc_sandbox.supervise import Supervisor

LARGE = 300_000
"""Bytes; more than any pipe takes."""


def run(
    windows: Windows,
    *words: str,
    data: bytes | None = None,
    during: Callable[[Job, Streams], object] = lambda job, streams: None,
    writable: tuple[str, ...] = (),
    **config: Any,
) -> Supervisor:
    """What a backend does with one command, with no limit but its own end."""
    settings = ps.Config(**config)
    supervisor = Supervisor(settings.max_output)
    streams = Streams(windows.win32, settings, data, supervisor, writable)
    try:
        with Job(windows.win32) as job:
            job.bind(Bounds(ExtendedLimits(JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE)))
            creation = windows.child(*words)._replace(
                jobs=(job.handle,), flags=DETACHED_PROCESS, streams=streams.theirs, inherited=streams.inherited
            )
            with start(windows.win32, creation) as process:
                streams.release()
                streams.begin(job.wake)
                during(job, streams)
                assert process.wait(HANG)
                job.end(1)
                streams.finish()
    finally:
        streams.close()
    return supervisor


def test_both_streams(windows: Windows) -> None:
    supervisor = run(windows, "print:out", "error:err")
    assert (bytes(supervisor.stdout.kept), bytes(supervisor.stderr.kept)) == (b"out", b"err")


def test_a_write_of_nothing_is_not_the_end(windows: Windows) -> None:
    """Programs do that, and a reader is told of it where the pipe is not Wine's."""
    assert bytes(run(windows, "print:before", "nothing", "nothing", "print:after").stdout.kept) == b"beforeafter"


def test_no_deadlock(windows: Windows) -> None:
    """One pipe is full while the other one is written to."""
    supervisor = run(windows, f"flood:{LARGE}", f"flood-error:{LARGE}", f"flood:{LARGE}")
    assert (len(supervisor.stdout.kept), len(supervisor.stderr.kept)) == (2 * LARGE, LARGE)


def test_stderr_to_stdout(windows: Windows) -> None:
    supervisor = run(windows, "print:a", "error:b", "print:c", stderr=ps.STDOUT)
    assert bytes(supervisor.stdout.kept) == b"abc"


def test_through_the_command(windows: Windows) -> None:
    """Both directions at once, and its stdin ends."""
    data = bytes(range(256)) * 4000
    assert bytes(run(windows, "echo", data=data).stdout.kept) == data


def test_no_input(windows: Windows) -> None:
    assert bytes(run(windows, "echo", "print:end").stdout.kept) == b"end"


def test_input_that_the_command_does_not_read(windows: Windows) -> None:
    assert bytes(run(windows, "print:here", data=b"x" * 10 * LARGE).stdout.kept) == b"here"


def test_input_that_the_command_reads_in_part(windows: Windows) -> None:
    assert bytes(run(windows, "read:3", data=b"abc" + b"x" * 10 * LARGE).stdout.kept) == b"abc"


def test_command_that_is_ended_while_its_input_waits(windows: Windows) -> None:
    """Our thread is in the middle of a write that nobody will take."""
    ended = run(windows, "hang", data=b"x" * 10 * LARGE, during=lambda job, streams: job.terminate(1))
    assert not ended.stdout.kept


def test_cap(windows: Windows) -> None:
    """The command may go on writing; what is beyond the cap is thrown away."""
    supervisor = run(windows, f"flood:{LARGE}", "error:end", max_output=1000)
    assert (len(supervisor.stdout.kept), supervisor.stdout.truncated) == (1000, True)
    assert (bytes(supervisor.stderr.kept), supervisor.stderr.truncated) == (b"end", False)


def test_what_survives_keeps_nobody(windows: Windows) -> None:
    """Somebody outside the job holds the ends of all pipes: what was written is taken, and that is all."""
    win32 = windows.win32
    held: list[int] = []

    class Keeping(Streams):
        def release(self) -> None:
            held.extend(win32.duplicate(handle, inheritable=False) for handle in self.owned)
            super().release()

    supervisor = Supervisor(1 << 20)
    streams = Keeping(win32, ps.Config(), b"x" * 10 * LARGE, supervisor)
    with Job(win32) as job:
        creation = windows.child("print:here", "error:there")._replace(
            jobs=(job.handle,), flags=DETACHED_PROCESS, streams=streams.theirs, inherited=streams.inherited
        )
        with start(win32, creation) as process:
            streams.release()
            streams.begin(job.wake)
            assert process.wait(HANG)
            job.end(1)
    streams.finish()
    streams.close()
    assert (bytes(supervisor.stdout.kept), bytes(supervisor.stderr.kept)) == (b"here", b"there")
    for handle in held:
        win32.close(handle)


def test_what_is_in_a_pipe_at_the_end_is_taken(windows: Windows) -> None:
    """Although the run is over when our thread first looks."""
    supervisor = Supervisor(1 << 20)
    streams = Streams(windows.win32, ps.Config(), None, supervisor)
    windows.win32.write(streams.theirs[1], b"late")
    for pump in streams.pumps:
        pump.ending.set()
    streams.begin(lambda: None)
    streams.finish()
    streams.close()
    assert bytes(supervisor.stdout.kept) == b"late"


def test_a_pipe_that_never_runs_dry(windows: Windows, monkeypatch: pytest.MonkeyPatch) -> None:
    """A survivor that writes faster than we read."""
    monkeypatch.setattr("proc_sandbox.backends.windows.streams.LIMIT_AFTER_END", 100_000)
    endless = Changed(windows.win32, available=lambda handle: 1000, read=lambda handle, size: b"x" * 1000)
    supervisor = Supervisor(10)
    streams = Streams(endless, ps.Config(), None, supervisor)
    streams.release()
    streams.begin(lambda: None)
    streams.finish()
    streams.close()
    assert supervisor.stdout.truncated


class BrokenFile(io.RawIOBase):
    def write(self, data: Any) -> int:
        raise RuntimeError("the disk is full")

    def read(self, size: int = -1) -> bytes:
        raise RuntimeError("the disk is gone")


def test_a_callers_file_that_fails(windows: Windows) -> None:
    """Who waits for the run is woken, and raises what the file raised."""
    with pytest.raises(RuntimeError, match="the disk is full"):
        run(windows, "print:x", "hang", stdout=BrokenFile(), during=wait_for_failure)


def wait_for_failure(job: Job, streams: Streams) -> None:
    try:
        while job.next_message(HANG):  # None: woken
            pass
        streams.check()
    finally:
        job.end(1)


def test_a_callers_file_that_fails_to_be_read(windows: Windows) -> None:
    with pytest.raises(RuntimeError, match="the disk is gone"):
        run(windows, "echo", stdin=BrokenFile())


def test_callers_file_in_memory(windows: Windows) -> None:
    kept = io.BytesIO()
    run(windows, "echo", stdin=io.BytesIO(b"x" * LARGE), stdout=kept)
    assert len(kept.getvalue()) == LARGE


def test_null(windows: Windows) -> None:
    supervisor = run(windows, "print:x", "echo", stdin=ps.DEVNULL, stdout=ps.DEVNULL)
    assert not supervisor.stdout.kept


@pytest.fixture
def directory(windows: Windows, tmp_path: Path) -> str:
    """A directory, there or in the fake."""
    if windows.real:
        return str(tmp_path)
    make(windows, "C:\\work")
    return "C:\\work"


def make(windows: Windows, path: str, *, link: str | None = None) -> None:
    fake = windows.win32
    fake.make_path("C:\\")  # type: ignore[attr-defined]
    fake.make_path(path, link=link)  # type: ignore[attr-defined]


def content(windows: Windows, path: str) -> bytes:
    return Path(path).read_bytes() if windows.real else bytes(windows.win32.files[path.lower()].data)  # type: ignore[attr-defined]


@pytest.mark.parametrize("inside", [False, True])
def test_named_files(windows: Windows, directory: str, inside: bool) -> None:
    """A file is written anew, and read."""
    path = f"{directory}\\file"
    writable = (directory,) if inside else ()
    run(windows, f"print:{'long' * 10}", stdout=path, writable=writable)
    run(windows, "print:here", stdout=path, writable=writable)
    assert content(windows, path) == b"here"
    assert bytes(run(windows, "echo", stdin=path, writable=writable).stdout.kept) == b"here"


def test_a_file_that_is_not_there(windows: Windows, directory: str) -> None:
    with pytest.raises(ps.ConfigError, match="stdin"):
        run(windows, "echo", stdin=f"{directory}\\none")


@pytest.fixture
def outside(windows: Windows, directory: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A directory that the command cannot write to, and a link to it named "link" in the one that it can."""
    if not windows.real:
        make(windows, "C:\\outside")
        make(windows, f"{directory}\\link", link="C:\\outside")
        yield "C:\\outside"
        return
    target = str(tmp_path_factory.mktemp("outside"))
    make_junction(target, f"{directory}\\link")
    if not os.path.lexists(f"{directory}\\link") or not windows.win32.is_link(f"{directory}\\link"):
        pytest.skip("no junction can be made here: Wine has none")
    yield target


def make_junction(target: str, link: str) -> None:
    """What a command can make without a privilege."""
    if sys.platform == "win32":
        import _winapi

        with contextlib.suppress(OSError):
            _winapi.CreateJunction(target, link)


def test_tee(windows: Windows, directory: str) -> None:
    pieces: list[bytes] = []
    supervisor = run(windows, "print:here", stdout=ps.Tee(f"{directory}\\copy", pieces.append), stderr=pieces.append)
    assert bytes(supervisor.stdout.kept) == b"".join(pieces) == content(windows, f"{directory}\\copy") == b"here"


def test_planted_links_are_not_followed(windows: Windows, directory: str, outside: str) -> None:
    with pytest.raises(PlantedLinkError):
        open_named(windows.win32, f"{directory}\\link\\file", GENERIC_WRITE, [directory])
    if windows.real:
        assert not os.listdir(outside)
    # The control: without a command that could have put it there, it is the caller's own.
    windows.win32.close(open_named(windows.win32, f"{directory}\\link\\file", GENERIC_WRITE, []))
    assert content(windows, f"{outside}\\file") == b""


def test_a_planted_link_at_the_end(windows: Windows, directory: str, outside: str) -> None:
    for access in (GENERIC_READ, GENERIC_WRITE):
        with pytest.raises(PlantedLinkError):
            open_named(windows.win32, f"{directory}\\link", access, [directory])


def test_files_of_a_sandbox(windows: Windows, directory: str) -> None:
    for data in (b"long" * 1000, b"short", b""):
        write_file(windows.win32, directory, ("file",), data, [directory])
        assert content(windows, f"{directory}\\file") == data
        assert read_file(windows.win32, directory, ("file",), 4000, [directory]) == data
    write_file(windows.win32, directory, ("file",), b"four", [directory])
    with pytest.raises(OSError, match="pass a larger max_size"):
        read_file(windows.win32, directory, ("file",), 3, [directory])
    with pytest.raises(FileNotFoundError):
        read_file(windows.win32, directory, ("none",), 3, [directory])


def test_files_of_a_sandbox_are_not_found_by_a_planted_link(windows: Windows, directory: str, outside: str) -> None:
    for parts in (("link", "file"), ("link",)):
        with pytest.raises(PlantedLinkError):
            write_file(windows.win32, directory, parts, b"x", [directory])
        with pytest.raises(PlantedLinkError):
            read_file(windows.win32, directory, parts, 10, [directory])
    if windows.real:
        assert not os.listdir(outside)


def test_a_callers_own_link_to_where_the_command_writes(windows: Windows, directory: str, outside: str) -> None:
    """It lies where the command cannot write, and what it leads to holds no link."""
    windows.win32.close(open_named(windows.win32, f"{directory}\\link\\file", GENERIC_WRITE, [outside]))


def test_a_link_that_comes_in_between(windows: Windows) -> None:
    """Found out before anything is changed: what was opened is not where it should be."""
    if not isinstance(windows, FakeWindows):
        pytest.skip("on the fake only: the moment has to be met")
    fake = windows.win32
    make(windows, "C:\\work")
    make(windows, "C:\\outside")
    fake.make_path("C:\\outside\\file").data += b"precious"
    fake.make_path("C:\\work\\sub")
    fake.make_path("C:\\work\\sub\\file")
    given = fake.open_file

    def open_file(path: str, access: int, *others: int) -> int:
        if access:
            fake.make_path("C:\\work\\sub", link="C:\\outside")
        return given(path, access, *others)

    fake.open_file = open_file  # type: ignore[method-assign, assignment]
    with pytest.raises(PlantedLinkError):
        open_named(fake, "C:\\work\\sub\\file", GENERIC_WRITE, ["C:\\work"])
    assert fake.files["c:\\outside\\file"].data == b"precious"


def test_callers_descriptor(windows: Windows, tmp_path: Path) -> None:
    """It stays the caller's, as it was."""
    if windows.real:
        with (tmp_path / "file").open("wb") as file:
            file.write(b"before ")
            run(windows, "print:here", stdout=file)
            file.write(b" after")
        assert (tmp_path / "file").read_bytes() == b"before here after"
        return
    reader, writer = windows.win32.create_pipe()
    windows.win32.descriptors[7] = writer  # type: ignore[attr-defined]
    run(windows, "print:here", stdout=7)
    assert not windows.win32.is_inheritable(writer)
    assert windows.win32.read(reader, 100) == b"here"
    windows.win32.close(reader)
    windows.win32.close(writer)


def test_tee_to_a_callers_descriptor(windows: Windows, tmp_path: Path) -> None:
    if windows.real:
        with (tmp_path / "file").open("wb") as file:
            file.write(b"before ")
            run(windows, "print:here", stdout=ps.Tee(file))
            file.write(b" after")
        assert (tmp_path / "file").read_bytes() == b"before here after"
        return
    reader, writer = windows.win32.create_pipe()
    windows.win32.descriptors[7] = writer  # type: ignore[attr-defined]
    run(windows, "print:here", stdout=ps.Tee(7))
    assert windows.win32.read(reader, 100) == b"here"
    windows.win32.close(reader)
    windows.win32.close(writer)


def test_a_descriptor_that_is_none(windows: Windows) -> None:
    """The number of a socket on Windows, say."""
    with pytest.raises(ps.ConfigError, match="stdout"):
        run(windows, "print:x", stdout=4000)


def test_many_at_once_under_an_event_loop(windows: Windows) -> None:
    """On Windows that is the proactor's, with a completion port of its own and a child of its own."""

    async def all_of_them() -> list[bytes]:
        runs = [asyncio.to_thread(run, windows, "echo", data=b"%d" % number * LARGE) for number in range(4)]
        other = await asyncio.create_subprocess_exec(sys.executable, "-I", "-S", "-c", "input()", stdin=subprocess.PIPE)
        done = [bytes(supervisor.stdout.kept) for supervisor in await asyncio.gather(*runs)]
        await other.communicate(b"\n")
        assert other.returncode == 0
        return done

    assert asyncio.run(all_of_them()) == [b"%d" % number * LARGE for number in range(4)]


@pytest.mark.skipif(sys.platform != "win32", reason="there is no Windows here; the fake looks after every test")
def test_no_handle_is_left() -> None:
    real = RealWindows()
    count = ctypes.c_uint32()

    def handles() -> int:
        if sys.platform == "win32":
            ctypes.WinDLL("kernel32").GetProcessHandleCount(ctypes.c_void_p(-1), ctypes.byref(count))
        return count.value

    run(real, "echo", data=b"x")
    before = handles()
    for _ in range(5):
        run(real, "echo", data=b"x")
    assert handles() == before


def test_stream_that_this_process_does_not_have(windows: Windows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows.win32, "standard_handle", lambda number: 0)
    with pytest.raises(ps.ConfigError, match="no such stream"):
        run(windows, "print:x", stdout=ps.INHERIT)


@pytest.mark.parametrize("function", ["create_pipe", "set_inheritable", "open_file"])
def test_nothing_is_left_when_one_cannot_be_opened(
    windows: Windows, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    monkeypatch.setattr(windows.win32, function, failing(function, 1450))
    with pytest.raises(Win32Error):
        Streams(windows.win32, ps.Config(), None, Supervisor(10))


@pytest.mark.skipif(sys.platform != "win32", reason="there is no Windows here")
def test_inherit() -> None:
    """Through a caller of its own, whose streams the tests have."""
    code = (
        "import sys; sys.path[:0] = %r\n"
        "from windows.test_streams import run\n"
        "from support.windows import RealWindows\n"
        "import proc_sandbox as ps\n"
        "run(RealWindows(), 'echo', 'error:there', stdin=ps.INHERIT, stdout=ps.INHERIT, stderr=ps.INHERIT)\n"
    ) % [str(Path(ps.__file__).parents[1]), str(Path(__file__).parents[1])]
    done = subprocess.run([sys.executable, "-c", code], input=b"here", capture_output=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == (b"here", b"there")
