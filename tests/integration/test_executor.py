"""SandboxExecutor and run_many: futures as the standard library has them, and nothing left of what was cancelled."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import gc
import io
import itertools
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.behaviours import HOLD, is_held
from support.processes import caller, output_of
from support.programs import HANG, python, text

import proc_sandbox as ps

EVERY_BACKEND = True


class Sleepers:
    """Commands that hold a lock on a file of theirs, say so, and go on for ever."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.count = itertools.count()
        self.said = threading.Condition()
        self.words: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Take what they say: it is given as their stdout."""
        with self.said:
            self.words.append(data)
            self.said.notify_all()

    def wait_up(self, number: int) -> None:
        """Wait until that many of them are up."""
        with self.said:
            assert self.said.wait_for(lambda: b"".join(self.words).count(b"up") >= number, HANG)

    def command(self) -> tuple[list[str], dict[str, Any], Path]:
        """One more: the command, its Config, its file."""
        path = self.directory / f"held-{next(self.count)}"
        code = f"{HOLD}\nkept = hold(sys.argv[1])\nprint('up', flush=True)\nwait_for_ever()"
        return python(code, str(path)), {"working_dir": self.directory, "stdout": self}, path


@pytest.fixture
def sleepers(tmp_path: Path) -> Sleepers:
    """In a directory of their own."""
    return Sleepers(tmp_path)


def test_futures_have_results() -> None:
    with ps.SandboxExecutor(timeout=HANG, max_workers=2) as pool:
        futures = [pool.submit(["sh", "-c", f"cat; exit {code}"], input=f"{code}") for code in range(5)]
        done = list(concurrent.futures.as_completed(futures, HANG))
    assert set(done) == set(futures)
    assert [(future.result().exit_code, text(future.result())) for future in futures] == [(n, f"{n}") for n in range(5)]
    assert not any(future.cancelled() or future.running() or future.cancel() for future in futures)


def test_each_run_has_a_directory_of_its_own() -> None:
    with ps.SandboxExecutor(max_workers=2) as pool:
        futures = [pool.submit(["sh", "-c", "ls -A; touch made"]) for _ in range(4)]
        assert [text(future.result()) for future in futures] == [""] * 4


def test_overrides_hold_for_one_run(tmp_path: Path) -> None:
    with ps.SandboxExecutor(env={"A": "1"}) as pool:
        assert text(pool.submit(["sh", "-c", "echo $A"], env={"A": "2"}).result()) == "2\n"
        assert text(pool.submit(["sh", "-c", "echo $A"]).result()) == "1\n"
        assert text(pool.submit(["pwd"], working_dir=tmp_path).result()) == f"{tmp_path}\n"


def test_bad_values_are_told_at_once() -> None:
    with ps.SandboxExecutor() as pool:
        for args, options in (("ls -l", {}), ([], {}), (["true"], {"timeout": -1}), (["true"], {"input": 5}), (["true"], {"stdin": 4095})):
            with pytest.raises(ps.ConfigError):
                pool.submit(args, **options)  # type: ignore[arg-type]
        with pytest.raises(ps.ConfigError, match="callables are not run"):
            pool.submit(json.loads, "1")  # type: ignore[arg-type]
        for size in (0, -1, True, "2"):
            with pytest.raises(ps.ConfigError, match="buffersize"):
                pool.map([["true"]], buffersize=size)  # type: ignore[arg-type]
        with pytest.raises(ps.ConfigError, match="a list of commands"):
            pool.map("ls")
    with pytest.raises(ps.ConfigError, match="a list of commands"):
        ps.run_many("ls")
    with pytest.raises(ps.ConfigError, match="max_workers"):
        ps.SandboxExecutor(max_workers=0)


def test_what_cannot_be_started_is_the_futures_exception() -> None:
    with ps.SandboxExecutor() as pool:
        missing, failing, fine = pool.submit(["no-such-command"]), pool.submit(["false"], check=True), pool.submit(["true"])
        with pytest.raises(FileNotFoundError):
            missing.result()
        with pytest.raises(ps.ExecutionError):
            failing.result()
        assert fine.result().ok


def test_output_is_text_where_that_is_asked_for() -> None:
    latin = ["printf", "na\\303\\257ve\\r\\n\\377"]
    with ps.SandboxExecutor(timeout=HANG, max_workers=2) as pool:
        assert pool.submit(latin).result().stdout == b"na\xc3\xafve\r\n\xff"
        assert pool.submit(latin, text=True).result().stdout == "naïve\n\ufffd"
        assert pool.submit(["cat"], input="é", encoding="latin-1").result().stdout == "é"
        failed = pool.submit(["sh", "-c", "echo problem >&2; exit 3"], text=True, check=True).exception()
        assert isinstance(failed, ps.ExecutionError)
        assert failed.result.stderr == "problem\n"
        assert isinstance(pool.submit(latin, errors="strict").exception(), UnicodeDecodeError)
        assert [each.stdout for each in pool.map([latin, ps.Job(latin, errors="ignore")], text=True)] == ["naïve\n\ufffd", "naïve\n"]
        with pytest.raises(ps.ConfigError, match="encoding"):
            pool.submit(latin, encoding="no-such")
        with pytest.raises(ps.ConfigError, match="encoding"):
            pool.map([latin], encoding="no-such")


def test_nothing_is_taken_after_shutdown() -> None:
    pool = ps.SandboxExecutor(max_workers=1)
    future = pool.submit(["true"])
    pool.shutdown()
    pool.shutdown()
    assert future.done()
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(["true"])


def test_a_running_future_is_cancelled_with_its_tree(sleepers: Sleepers) -> None:
    command, config, path = sleepers.command()
    told: list[object] = []
    with ps.SandboxExecutor(max_workers=1) as pool:
        future = pool.submit(command, **config)
        behind = pool.submit(["true"])
        future.add_done_callback(told.append)
        sleepers.wait_up(1)
        assert future.running()
        assert not future.done()
        assert is_held(path)
        assert future.cancel()
        assert future.cancel()
        assert future.cancelled()
        assert future.done()
        assert not future.running()
        assert told == [future]
        with pytest.raises(concurrent.futures.CancelledError):
            future.result(HANG)
        done, _ = concurrent.futures.wait([future], HANG)
        assert done == {future}
        assert not is_held(path), "wait() names it when nothing is left"
        assert behind.result(HANG).ok, "its thread goes on"


def test_as_completed_names_what_was_cancelled(sleepers: Sleepers) -> None:
    with ps.SandboxExecutor(max_workers=3) as pool:
        futures = []
        for _ in range(3):
            command, config, _ = sleepers.command()
            futures.append(pool.submit(command, **config))
        queued = pool.submit(["true"])
        sleepers.wait_up(3)
        assert queued.cancel()
        for future in futures:
            future.cancel()
        assert set(concurrent.futures.as_completed([*futures, queued], HANG)) == {*futures, queued}


def test_cancelling_beside_the_end_loses_no_result_and_tells_it_once() -> None:
    """The cancellation aims at the very end of the run, from another thread."""
    told: list[concurrent.futures.Future[ps.Result]] = []
    kept = cancelled = 0
    with ps.SandboxExecutor(max_workers=4) as pool:
        futures = []
        for _ in range(150):
            future = pool.submit(["true"])
            future.add_done_callback(told.append)
            futures.append(future)
        for number, future in enumerate(futures):
            if number >= 4:
                concurrent.futures.wait([futures[number - 4]], HANG)
            if future.cancel():
                cancelled += 1
                assert future.cancelled()
                with pytest.raises(concurrent.futures.CancelledError):
                    future.result(HANG)
            else:
                kept += 1
                assert future.result(HANG).ok
    assert kept + cancelled == 150
    assert sorted(map(id, told)) == sorted(map(id, futures))
    assert all(future.cancelled() or future.result().ok for future in futures)


def test_shutdown_cancels_what_has_not_begun(sleepers: Sleepers) -> None:
    command, config, path = sleepers.command()
    pool = ps.SandboxExecutor(max_workers=1)
    running, queued = pool.submit(command, **config), pool.submit(["true"])
    sleepers.wait_up(1)
    pool.shutdown(wait=False, cancel_futures=True)
    assert queued.cancelled()
    assert concurrent.futures.wait([queued], HANG).done == {queued}
    assert running.running()
    assert is_held(path)
    pool.kill()
    assert running.cancelled()
    assert not is_held(path)


def test_an_interrupt_that_leaves_the_block_kills(sleepers: Sleepers) -> None:
    command, config, path = sleepers.command()
    with pytest.raises(KeyboardInterrupt), ps.SandboxExecutor() as pool:
        future = pool.submit(command, **config)
        sleepers.wait_up(1)
        raise KeyboardInterrupt
    assert future.cancelled()
    assert not is_held(path)


def test_a_dropped_executor_does_what_it_was_given_and_goes() -> None:
    before = set(threading.enumerate())
    pool = ps.SandboxExecutor(max_workers=2)
    futures = [pool.submit(["true"]) for _ in range(4)]
    threads = set(threading.enumerate()) - before
    assert threads
    del pool
    gc.collect()
    assert all(future.result(HANG).ok for future in futures)
    for thread in threads:
        thread.join(HANG)
        assert not thread.is_alive()


def test_no_more_threads_than_workers() -> None:
    with ps.SandboxExecutor(max_workers=3) as pool:
        list(pool.map([["true"]] * 20))
        assert len(pool.crew.threads) <= 3
    assert ps.SandboxExecutor().max_workers == min(32, len(os.sched_getaffinity(0)) + 4)


def test_map_is_in_order_and_takes_no_more_than_it_needs() -> None:
    taken = 0

    def commands() -> Iterator[ps.Job | list[str]]:
        nonlocal taken
        for taken in itertools.count(1):
            yield ps.Job(["cat"], input=str(taken)) if taken % 2 else ["echo", "-n", str(taken)]

    with ps.SandboxExecutor(max_workers=3) as pool:
        results = pool.map(commands(), buffersize=5)
        assert taken == 5
        assert [text(next(results)) for _ in range(20)] == [str(n) for n in range(1, 21)]
        assert taken <= 25
        results.close()  # type: ignore[attr-defined]


def test_map_raises_where_its_turn_is_and_cancels_the_rest(sleepers: Sleepers) -> None:
    command, config, path = sleepers.command()
    with ps.SandboxExecutor(max_workers=3) as pool:
        results = pool.map([["true"], ["no-such-command"], ps.Job(command, **config)])
        assert next(results).ok
        sleepers.wait_up(1)
        with pytest.raises(FileNotFoundError):
            next(results)
    assert not is_held(path)


def test_map_has_a_time_limit(sleepers: Sleepers) -> None:
    command, config, path = sleepers.command()
    with ps.SandboxExecutor() as pool:
        results = pool.map([ps.Job(command, **config)], timeout=0.1)
        sleepers.wait_up(1)
        with pytest.raises(concurrent.futures.TimeoutError):
            next(results)
    assert not is_held(path)


def test_asyncio_waits_for_them_and_cancels_them(sleepers: Sleepers) -> None:
    command, config, path = sleepers.command()

    async def main(pool: ps.SandboxExecutor) -> None:
        assert (await asyncio.wrap_future(pool.submit(["true"]))).ok
        task = asyncio.wrap_future(pool.submit(command, **config))
        await asyncio.to_thread(sleepers.wait_up, 1)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    with ps.SandboxExecutor() as pool:
        asyncio.run(main(pool))
    assert not is_held(path)


def test_many_threads_submit_at_once() -> None:
    with ps.SandboxExecutor(max_workers=4) as pool, concurrent.futures.ThreadPoolExecutor(8) as threads:
        futures = list(threads.map(lambda number: pool.submit(["sh", "-c", f"exit {number}"]), range(40)))
        assert [future.result().exit_code for future in futures] == list(range(40))


def test_a_forked_child_has_a_closed_copy() -> None:
    code = (
        "import os, proc_sandbox as ps\n"
        "pool = ps.SandboxExecutor(max_workers=1)\n"
        "first = pool.submit(['sleep', '3600'])\n"
        "while not first.running(): os.sched_yield()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    try:\n"
        "        pool.submit(['true'])\n"
        "    except RuntimeError:\n"
        "        first.cancel(); pool.shutdown(); pool.kill()\n"
        "        with ps.SandboxExecutor() as own: ok = own.submit(['true']).result().ok\n"
        "        os._exit(not ok)\n"
        "    os._exit(2)\n"
        "print(os.waitpid(child, 0)[1], first.running())\n"
        "first.cancel(); pool.shutdown()\n"
    )
    assert output_of(code) == "0 True\n"


def test_the_interpreters_exit_kills_what_is_running(tmp_path: Path) -> None:
    command = python(f"{HOLD}\nkept = hold(sys.argv[1])\nprint('up', flush=True)\nwait_for_ever()", str(tmp_path / "held"))
    code = (
        "import sys, threading, proc_sandbox as ps\n"
        "class Heard:\n"
        "    up = threading.Event()\n"
        "    def write(self, data): self.up.set()\n"
        "pool = ps.SandboxExecutor(max_workers=1)\n"
        f"future = pool.submit({command!r}, working_dir={str(tmp_path)!r}, stdout=Heard())\n"
        "queued = pool.submit(['true'])\n"
        "Heard.up.wait(); print('up')\n"
    )
    assert output_of(code) == "up\n"
    assert not is_held(tmp_path / "held")


def test_run_many_returns_results_in_order() -> None:
    commands = [ps.Job(["sh", "-c", "cat; exit $X"], input=str(n), env={"X": str(n)}) for n in range(30)]
    results = ps.run_many(iter(commands), max_workers=4, timeout=HANG)
    assert [(text(result), result.exit_code) for result in results] == [(str(n), n) for n in range(30)]
    assert ps.run_many([]) == []


def test_run_many_returns_text_where_it_or_the_job_asks_for_it() -> None:
    jobs = [ps.Job(["cat"], input="é"), ps.Job(["cat"], input="é", encoding="latin-1"), ps.Job(["cat"], input="é", text=False)]
    assert [result.stdout for result in ps.run_many(jobs, timeout=HANG)] == ["é".encode(), "é", "é".encode()]
    assert [result.stdout for result in ps.run_many(jobs, text=True, timeout=HANG)] == ["é"] * 3
    assert [result.stdout for result in ps.run_many(jobs, encoding="utf-16", timeout=HANG)] == ["é"] * 3
    mixed = ps.run_many([["true"], ["no-such-command"]], text=True, return_exceptions=True)
    assert isinstance(mixed[0], ps.Result)
    assert mixed[0].stdout == ""
    assert isinstance(mixed[1], ps.CommandNotFoundError)
    with pytest.raises(ps.ConfigError, match="errors"):
        ps.run_many([], errors="no-such")


def test_run_many_raises_what_one_raises_and_kills_the_others(sleepers: Sleepers) -> None:
    command, config, path = sleepers.command()

    def commands() -> Iterator[ps.Job | list[str]]:
        yield ps.Job(command, **config)
        sleepers.wait_up(1)
        yield ["no-such-command"]
        yield from itertools.repeat(["true"])  # it would never end

    with pytest.raises(FileNotFoundError):
        ps.run_many(commands(), max_workers=2)
    assert not is_held(path)
    with pytest.raises(ps.ConfigError):
        ps.run_many([["true"], []])
    with pytest.raises(ps.ExecutionError):
        ps.run_many([["true"], ["false"]], check=True)


def test_run_many_goes_on_where_it_is_told_to() -> None:
    results = ps.run_many([["true"], ["no-such-command"], [], ["false"]], return_exceptions=True)
    kinds = [type(result) for result in results]
    assert kinds == [ps.Result, ps.CommandNotFoundError, ps.ConfigError, ps.Result]


def test_an_interrupt_ends_run_many(tmp_path: Path) -> None:
    command = python(f"{HOLD}\nkept = hold(sys.argv[1])\nprint('up', flush=True)\nwait_for_ever()", str(tmp_path / "held"))
    code = (
        "import sys, proc_sandbox as ps\n"
        "class Heard:\n"
        "    def write(self, data): print('up', flush=True)\n"
        f"job = ps.Job({command!r}, working_dir={str(tmp_path)!r}, stdout=Heard())\n"
        "try:\n"
        "    ps.run_many([job, *[['sleep', '3600']] * 8], max_workers=2)\n"
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


def test_progress_is_shown_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for asked, stream, shown in ((None, Terminal(), True), (False, Terminal(), False), (None, io.StringIO(), False), (True, io.StringIO(), True)):
        monkeypatch.setattr(sys, "stderr", stream)
        ps.run_many([["true"], ["false"], ["no-such-command"]], progress=asked, return_exceptions=True)
        assert all((word in stream.getvalue()) is shown for word in ("3/3", "2 not ok"))
    monkeypatch.setattr(sys, "stderr", None)
    assert len(ps.run_many([["true"]])) == 1
