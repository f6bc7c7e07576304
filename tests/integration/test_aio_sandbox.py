"""A Sandbox in an event loop."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import Any

import pytest
from support.loops import FAMILY, Loop, heard, is_alone
from support.processes import output_of, witness
from support.programs import HANG, python

import proc_sandbox as ps
from proc_sandbox import aio

EVERY_BACKEND = True


def test_files_stay_from_run_to_run_and_go_with_the_sandbox(with_loop: Loop) -> None:
    async def main() -> None:
        async with aio.Sandbox(timeout=HANG) as box:
            directory = box.directory
            assert directory is not None
            assert os.path.isdir(directory)
            assert (await box.run(["sh", "-c", "echo 1 > file"])).ok
            assert (await box.run(["cat", "file"], check=True, umask=0o77)).stdout == b"1\n"
        assert not os.path.exists(directory)
        assert box.closed
        await box.cleanup()
        with pytest.raises(ps.SandboxClosedError):
            await box.run(["true"])
        with pytest.raises(ps.SandboxClosedError):
            async with box:
                pass
        with pytest.raises(ps.SandboxClosedError, match="async with"):
            await aio.Sandbox().run(["true"])

    with_loop(main())


def test_a_sandbox_that_was_closed_before_it_was_entered_says_so(with_loop: Loop) -> None:
    async def main() -> None:
        box = aio.Sandbox()
        await box.cleanup()
        with pytest.raises(ps.SandboxClosedError, match="is closed"):
            async with box:
                pass
        with pytest.raises(ps.SandboxClosedError, match="is closed"):
            await box.run(["true"])

    with_loop(main())


def test_files_are_written_and_read_as_those_of_a_sandbox(with_loop: Loop) -> None:
    async def main() -> None:
        box = aio.Sandbox()
        with pytest.raises(ps.SandboxClosedError, match="not open yet"):
            await box.write("file", b"x")
        async with box:
            await box.write("sub/file", "tw\u00f6", mode=0o600)
            assert (await box.run(["stat", "-c", "%a", "sub/file"], text=True)).stdout == "600\n"
            assert await box.read("sub/file") == "tw\u00f6".encode()
            with pytest.raises(OSError, match="large"):
                await box.read("sub/file", max_size=2)
            with pytest.raises(FileNotFoundError):
                await box.read("no-such-file")
            piped = box.cmd(["cat", "sub/file"]) | box.cmd(["tee", "copy"])
            assert (await asyncio.to_thread(piped.run, text=True)).stdout == "tw\u00f6"
            assert await box.read("copy") == "tw\u00f6".encode()
        for ask in (box.read("copy"), box.write("copy", b"")):
            with pytest.raises(ps.SandboxClosedError, match="is closed"):
                await ask
        with pytest.raises(ps.SandboxClosedError, match="is closed"):
            box.cmd(["true"])

    with_loop(main())


def test_the_end_of_the_block_ends_a_pipeline_in_it(with_loop: Loop) -> None:
    with witness() as pipe:

        async def main() -> None:
            async with aio.Sandbox() as box:
                piped = box.cmd(python(FAMILY.format(pipe.write_end)), pass_fds=[pipe.write_end]) | box.cmd(["cat"])
                run = asyncio.ensure_future(asyncio.to_thread(piped.run))
                await heard(pipe, 4)
            assert is_alone(pipe)
            assert (await run).results[0].reason is ps.Reason.CANCELLED

        with_loop(main())


def test_cleanup_waits_for_what_is_written(with_loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """And so does who is cancelled: nobody writes to a directory that is gone."""
    go, found = threading.Event(), list[bool]()

    async def main() -> None:
        loop, begun = asyncio.get_running_loop(), asyncio.Event()

        def slow(self: ps.Sandbox, *arguments: Any, **options: Any) -> None:
            with self.entered():
                loop.call_soon_threadsafe(begun.set)
                assert go.wait(HANG)
                found.append(os.path.isdir(str(self.directory)))

        monkeypatch.setattr(ps.Sandbox, "write", slow)
        async with aio.Sandbox() as box:
            writing = asyncio.ensure_future(box.write("file", b"x"))
            await begun.wait()
            writing.cancel()
            closing = asyncio.ensure_future(box.cleanup())
            for _ in range(10):
                await asyncio.sleep(0)
            assert not writing.done()
            assert not closing.done()
            go.set()
            await closing
            assert found == [True]
            with pytest.raises(asyncio.CancelledError):
                await writing

    with_loop(main())


def test_cleanup_ends_the_runs_which_are_told_as_cancelled(with_loop: Loop) -> None:
    with witness() as pipe:

        async def main() -> None:
            async with aio.Sandbox() as box, aio.limit(3):
                command = python(FAMILY.format(pipe.write_end))
                runs = [asyncio.ensure_future(box.run(command, pass_fds=[pipe.write_end])) for _ in range(4)]
                await heard(pipe, 12)
            assert is_alone(pipe)
            found = await asyncio.gather(*runs, return_exceptions=True)
            assert [result.reason for result in found[:3] if isinstance(result, ps.Result)] == [ps.Reason.CANCELLED] * 3
            assert isinstance(found[3], ps.SandboxClosedError)  # it was not admitted yet

        with_loop(main())


def test_a_cancelled_block_leaves_nothing(with_loop: Loop) -> None:
    with witness() as pipe:
        directories: list[str | None] = []

        async def block() -> None:
            async with aio.Sandbox() as box:
                directories.append(box.directory)
                await box.run(python(FAMILY.format(pipe.write_end)), pass_fds=[pipe.write_end])

        async def main() -> None:
            task = asyncio.ensure_future(block())
            await heard(pipe, 4)
            while not task.done():
                task.cancel()
                await asyncio.sleep(0)
            assert task.cancelled()
            assert is_alone(pipe)
            assert directories[0] is not None
            assert not os.path.exists(directories[0])

        with_loop(main())


def test_a_block_that_is_thrown_away_leaves_nothing() -> None:
    code = """
import asyncio, gc, os
from proc_sandbox import aio
loop = asyncio.new_event_loop()
up, told = os.pipe()
async def block():
    async with aio.Sandbox() as box:
        print(os.path.isdir(box.directory))
        os.environ["BOX"] = box.directory
        await box.run(["sh", "-c", f"touch file; echo up >&{told}; sleep 600"], pass_fds=[told])
async def main():
    task = asyncio.ensure_future(block())
    await asyncio.to_thread(os.read, up, 100)
loop.run_until_complete(main())
loop.close()
gc.collect()
os.close(told)
print(os.read(up, 100), os.path.exists(os.environ["BOX"]))
"""
    assert output_of(code) == "True\nb'' False\n"
