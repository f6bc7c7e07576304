"""Streams: every byte arrives, none blocks another, and the caller's memory stays its own."""

from __future__ import annotations

import gc
import io
import os
import tempfile
import weakref
from pathlib import Path

import pytest
from support.processes import output_of
from support.programs import MEGABYTE, inside, python, text

import proc_sandbox as ps

EVERY_BACKEND = True

ALL_BYTES = bytes(range(256)) * 64

FLOOD = """
import os, sys, threading
block = bytes(1 << 20)
def flood(fd, megabytes):
    for _ in range(megabytes):
        view = memoryview(block)
        while view:
            view = view[os.write(fd, view):]
def drain():
    n = 0
    while chunk := os.read(0, 1 << 20):
        n += len(chunk)
    return n
out = threading.Thread(target=flood, args=(1, int(sys.argv[1])))
err = threading.Thread(target=flood, args=(2, int(sys.argv[1])))
out.start(); err.start()
n = drain() if sys.argv[2] == 'read' else 0
out.join(); err.join()
sys.exit(0 if n == int(sys.argv[3]) else 9)
"""


def test_bytes_come_back_as_they_went() -> None:
    assert inside(["cat"], input=ALL_BYTES).stdout == ALL_BYTES


def test_text_is_utf_8() -> None:
    result = inside(["cat"], input="naïve ☃\n")
    assert result.stdout == "naïve ☃\n".encode()
    assert result.stdout.text() == "naïve ☃\n"
    assert inside(["printf", r"\377ok"]).stdout.text() == "\ufffdok"


def test_nothing_is_nothing() -> None:
    assert inside(["cat"]).stdout == b""
    assert inside(["cat"], input=b"").stdout == b""
    assert inside(["cat"], stdin=ps.DEVNULL).stdout == b""
    assert inside(["readlink", "/proc/self/fd/0"]).ok


@pytest.mark.parametrize("kind", ["path", "Path", "file", "descriptor", "bytes", "bytearray", "memoryview", "BytesIO"])
def test_stdin_from(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_bytes(ALL_BYTES)
    with path.open("rb") as file:
        sources: dict[str, object] = {
            "path": str(path),
            "Path": path,
            "file": file,
            "descriptor": file.fileno(),
            "bytes": ALL_BYTES,
            "bytearray": bytearray(ALL_BYTES),
            "memoryview": memoryview(ALL_BYTES),
            "BytesIO": io.BytesIO(ALL_BYTES),
        }
        assert inside(["cat"], stdin=sources[kind]).stdout == ALL_BYTES


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("kind", ["path", "Path", "file", "descriptor", "BytesIO"])
def test_output_to(stream: str, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "output"
    memory = io.BytesIO()
    command = ["cat"] if stream == "stdout" else ["sh", "-c", "cat >&2"]
    with path.open("wb") as file:
        sinks: dict[str, object] = {
            "path": str(path),
            "Path": path,
            "file": file,
            "descriptor": file.fileno(),
            "BytesIO": memory,
        }
        result = inside(command, input=ALL_BYTES, **{stream: sinks[kind]})
    assert result.ok, result
    assert getattr(result, stream) == b""
    assert (memory.getvalue() if kind == "BytesIO" else path.read_bytes()) == ALL_BYTES


def test_devnull_and_one_stream_for_both() -> None:
    both = inside(["sh", "-c", "echo a; echo b >&2; echo c"], stderr=ps.STDOUT)
    assert (both.stdout, both.stderr) == (b"a\nb\nc\n", b"")
    nothing = inside(["sh", "-c", "echo a; echo b >&2"], stdout=ps.DEVNULL, stderr=ps.DEVNULL)
    assert (nothing.stdout, nothing.stderr) == (b"", b"")
    assert nothing.ok


def test_inherit() -> None:
    code = (
        "import proc_sandbox as ps\n"
        "r = ps.run(['cat'], stdin=ps.INHERIT, stdout=ps.INHERIT)\n"
        "assert r.ok and r.stdout == b'', r"
    )
    with tempfile.TemporaryFile() as file:
        file.write(b"inherited\n")
        file.seek(0)
        assert output_of(code, stdin=file) == "inherited\n"


def test_the_cap_is_exact_and_flagged() -> None:
    exact = inside(["head", "-c", "4096", "/dev/zero"], max_output=4096)
    assert len(exact.stdout) == 4096
    assert not exact.output_truncated
    over = inside(["sh", "-c", "printf 0123456789; printf ab >&2"], max_output=4)
    assert (over.stdout, over.stderr) == (b"0123", b"ab")
    assert (over.output_truncated.stdout, over.output_truncated.stderr) == (True, False)
    assert (over.stdout_truncated, over.stderr_truncated) == (True, False)
    assert over.ok, "what is too much is thrown away; it does not end the run"
    other = inside(["sh", "-c", "printf 0123456789 >&2"], max_output=4)
    assert (other.output_truncated.stdout, other.output_truncated.stderr) == (False, True)


def test_64_megabytes_in_while_both_streams_flood() -> None:
    size = 64 * MEGABYTE
    result = inside(python(FLOOD, "64", "read", str(size)), input=bytes(size), max_output="1M")
    assert result.exit_code == 0, result.exit_code
    assert (len(result.stdout), len(result.stderr)) == (MEGABYTE, MEGABYTE)
    assert (result.output_truncated.stdout, result.output_truncated.stderr) == (True, True)


def test_the_callers_memory_is_bounded_by_max_output() -> None:
    """Half a gigabyte of output and 64 MiB of input from a file: the caller grows by no more than a few megabytes."""
    code = """
import resource, sys, tempfile
import proc_sandbox as ps
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) << 10
ps.run(["true"])
with tempfile.TemporaryFile() as source:
    source.truncate(64 << 20)
    base = peak()
    result = ps.run([sys.executable, "-I", "-S", "-c", sys.argv[1], "256", "read", str(64 << 20)],
                    stdin=source, max_output=1 << 20, timeout=120)
assert result.exit_code == 0 and result.output_truncated.stdout and result.output_truncated.stderr, result.exit_code
print(peak() - base)
"""
    assert int(output_of(code, FLOOD)) < 24 * MEGABYTE


def test_a_command_that_reads_a_little() -> None:
    result = inside(["head", "-c", "5"], input=b"12345" + bytes(8 * MEGABYTE))
    assert (result.stdout, result.exit_code) == (b"12345", 0)


def test_a_command_that_closes_stdin_early_and_goes_on() -> None:
    code = "import os, time\nos.close(0)\nos.write(1, b'closed')\ntime.sleep(0.2)\nos.write(1, b' and done')"
    result = inside(python(code), input=bytes(4 * MEGABYTE))
    assert (result.stdout, result.exit_code) == (b"closed and done", 0)


def test_a_command_that_floods_and_never_reads() -> None:
    result = inside(python(FLOOD, "16", "ignore", "0"), input=bytes(8 * MEGABYTE), max_output="64K")
    assert result.ok, result.exit_code


def test_a_command_that_closes_everything() -> None:
    code = "import os, time\nfor fd in (0, 1, 2): os.close(fd)\ntime.sleep(0.3)\nos._exit(5)"
    result = inside(python(code), input=b"x" * MEGABYTE)
    assert result.exit_code == 5
    assert result.execution_time >= 0.3


def test_sigpipe_is_the_commands_own() -> None:
    """The command starts with the default disposition, although Python ignores the signal in itself."""
    result = inside(["sh", "-c", "yes | head -n 1; echo ${PIPESTATUS:-done}"])
    assert result.stdout == b"y\ndone\n"
    ignored = text(inside(["grep", "SigIgn", "/proc/self/status"]))
    assert int(ignored.split()[1], 16) & 1 << 12 == 0, "SIGPIPE is ignored in the command"
    blocked = text(inside(["grep", "SigBlk", "/proc/self/status"]))
    assert int(blocked.split()[1], 16) == 0


def test_partial_output_survives_each_kind_of_end() -> None:
    loud = "import sys; sys.stdout.write('x' * 100000); sys.stdout.flush(); sys.stderr.write('e'); sys.stderr.flush(); "
    for rest, limits in (
        ("import time; time.sleep(600)", {"timeout": 5.0}),
        ("import os; os.kill(os.getpid(), 9)", {}),
        ("\nwhile True: pass", {"cpu_time_limit": 1}),
    ):
        result = inside(python(loud + rest), **limits)
        assert len(result.stdout) == 100000, result.reason
        assert result.stderr == b"e"


def test_descriptors_given_as_streams_stay_the_callers(tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as file:
        inside(["echo", "one"], stdout=file)
        inside(["echo", "two"], stdout=file)
        os.fstat(file.fileno())
    assert (tmp_path / "out").read_bytes() == b"one\ntwo\n"


def test_a_buffer_of_the_callers_is_bounded_too() -> None:
    """Ten times what may be kept, into an object without a descriptor."""
    buffer = io.BytesIO()
    result = inside(["head", "-c", "1000000", "/dev/zero"], stdout=buffer, max_output=100_000)
    assert len(buffer.getvalue()) == 100_000
    assert result.output_truncated.stdout
    assert not result.output_truncated.stderr


def test_nothing_of_the_callers_is_kept_after_the_run() -> None:
    """Plans are kept for the next run of a Config; the streams of this run must not be."""

    class Buffer(io.BytesIO):
        pass

    source, target = Buffer(b"x" * 1000), Buffer()
    seen = weakref.ref(source), weakref.ref(target)
    assert inside(["cat"], stdin=source, stdout=target).ok
    del source, target
    gc.collect()
    assert [reference() for reference in seen] == [None, None]


def test_text_streams_are_refused_before_anything_starts() -> None:
    with pytest.raises(ps.ConfigError, match="text") as caught:
        inside(["echo"], stdout=io.StringIO())
    assert caught.value.field == "stdout"
    assert inside(["cat"], stdin=io.StringIO("text may be read\n")).stdout.text() == "text may be read\n"


def test_a_stream_of_text_is_encoded_as_input_is() -> None:
    """Whoever has the command run: as one piece or as many, of which some are nothing in that encoding."""

    class Pieces:
        def __init__(self) -> None:
            self.left = ["é", "€", "é", ""]

        def read(self, size: int) -> str:
            del size
            return self.left.pop(0)

    odd = ["od", "-An", "-tx1"]
    assert ps.run(odd, stdin=io.StringIO("é"), encoding="latin-1").stdout.split() == ["e9"]
    assert ps.run(odd, stdin=io.StringIO("é"), text=True).stdout.split() == ["c3", "a9"]
    assert ps.run(odd, stdin=Pieces(), encoding="latin-1", errors="ignore").stdout.split() == ["e9", "e9"]
    with ps.Sandbox() as box:
        assert box.run(odd, stdin=io.StringIO("é"), encoding="latin-1").stdout.split() == ["e9"]
    with ps.SandboxExecutor() as pool:
        assert pool.submit(odd, stdin=io.StringIO("é"), encoding="latin-1").result().stdout.split() == ["e9"]
    with ps.Popen(odd, stdin=io.StringIO("é"), encoding="latin-1") as process:
        assert process.wait().stdout.split() == ["e9"]
    piped = (ps.cmd(["cat"], stdin=io.StringIO("é")) | ps.cmd(odd)).run(encoding="latin-1")
    assert piped.stdout.split() == ["e9"]
    with pytest.raises(ps.ConfigError, match="latin-1"):
        ps.run(odd, stdin=io.StringIO("€"), encoding="latin-1")


def test_a_sink_that_takes_a_little_at_a_time() -> None:
    class Narrow(io.RawIOBase):
        taken = bytearray()

        def write(self, data: bytes) -> int:  # type: ignore[override]
            self.taken += data[:3]
            return min(3, len(data))

    sink = Narrow()
    assert inside(["echo", "more than three"], stdout=sink).ok
    assert bytes(sink.taken) == b"more than three\n"


def test_flags_of_a_shared_file_stay_the_callers() -> None:
    """O_NONBLOCK belongs to the open file, not to the descriptor: set inside, it would hold outside."""
    read_end, write_end = os.pipe()
    try:
        code = "import fcntl, os; fcntl.fcntl(1, fcntl.F_SETFL, os.O_NONBLOCK | os.O_APPEND); print(os.get_blocking(1))"
        assert inside(python(code), stdout=write_end).ok
        assert os.read(read_end, 100) == b"False\n"
        assert os.get_blocking(write_end)
    finally:
        os.close(read_end)
        os.close(write_end)


def test_streams_have_their_names_in_dev() -> None:
    result = inside(["sh", "-c", "cat /dev/stdin > /dev/stdout; echo err > /dev/stderr"], input=b"in")
    assert (result.stdout, result.stderr) == (b"in", b"err\n")
