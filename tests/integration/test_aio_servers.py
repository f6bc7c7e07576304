"""Runs in an event loop whose server is killed."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest
from support.loops import Loop, family, heard
from support.processes import witness

import proc_sandbox as ps
from proc_sandbox import aio

EVERY_BACKEND = True


def kill_server(backend: str) -> None:
    if backend == "linux":
        from proc_sandbox.launcher.process import launcher

        os.kill(launcher().pid, signal.SIGKILL)
    else:
        from proc_sandbox.backends.posix.process import warden

        os.kill(warden().pid, signal.SIGKILL)


def test_who_serves_the_runs_is_killed(with_loop: Loop, backend: str) -> None:
    """All know it, and the next run has another one."""
    with witness() as pipe:

        async def main() -> None:
            runs = [family(pipe) for _ in range(5)]
            await heard(pipe, 20)
            kill_server(backend)
            found = await asyncio.gather(*runs, return_exceptions=True)
            assert [type(error) for error in found] == [ps.LauncherDiedError] * 5, found
            pipe.wait_alone()
            assert (await aio.run(["echo", "again"])).stdout == b"again\n"

        with_loop(main())


def test_who_serves_the_runs_is_killed_while_a_fork_of_ours_lives(with_loop: Loop, backend: str) -> None:
    """Which holds copies of all our sockets."""
    with witness() as pipe:

        async def main() -> int:
            runs = [family(pipe) for _ in range(3)]
            await heard(pipe, 12)
            held, go = os.pipe()
            child = os.fork()
            if child == 0:
                os.close(go)
                os.read(held, 1)
                os._exit(0)
            os.close(held)
            kill_server(backend)
            found = await asyncio.gather(*runs, return_exceptions=True)
            os.close(go)
            assert [type(error) for error in found] == [ps.LauncherDiedError] * 3, found
            assert (await aio.run(["echo", "again"])).stdout == b"again\n"
            return child

        os.waitpid(with_loop(main()), 0)


def test_it_is_killed_and_somebody_else_has_the_other_end(with_loop: Loop, backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child by os.fork() that another thread has made in the moment of the start: the run's socket does not tell its end."""
    module = __import__(f"proc_sandbox.backends.{'unix.streams' if backend == 'linux' else 'posix.backend'}", fromlist=["*"])
    kind = module.LaunchedRun if backend == "linux" else module.PosixRun
    copies, real = [], kind.hand_over

    def copying(run: Any, theirs: Any, *rest: Any) -> None:
        copies.append(os.dup(theirs.fileno()))
        real(run, theirs, *rest)

    with witness() as pipe:

        async def main() -> None:
            with monkeypatch.context() as patch:
                patch.setattr(kind, "hand_over", copying)
                runs = [family(pipe) for _ in range(2)]
                await heard(pipe, 8)
            kill_server(backend)
            found = await asyncio.gather(*runs, return_exceptions=True)
            assert [type(error) for error in found] == [ps.LauncherDiedError] * 2, found
            for copy in copies:
                os.close(copy)
            pipe.wait_alone()

        with_loop(main())


def test_killed_and_cancelled_at_once(with_loop: Loop, backend: str) -> None:
    with witness() as pipe:

        async def main() -> None:
            runs = [family(pipe) for _ in range(3)]
            await heard(pipe, 12)
            kill_server(backend)
            for run in runs:
                run.cancel()
            await asyncio.wait(runs)
            assert all(run.cancelled() for run in runs)
            pipe.wait_alone()

        with_loop(main())
