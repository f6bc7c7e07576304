"""Many runs side by side: SandboxExecutor, a concurrent.futures.Executor, and run_many().

Theory of operation. A Crew is a queue and the threads that take from it, each of which sees one run through at a time; the executor
is its face, and when that is dropped the crew does what is queued and goes. A future stays what the standard library calls pending
until its run is over: so its own cancel() holds for a run that is under way too, and its own lock decides, once, whether the result
or the cancellation came first. What a cancellation does to the run hangs on the future as a callback, before any of the caller's.
"""

from __future__ import annotations

import atexit
import collections
import contextlib
import itertools
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from concurrent.futures import FIRST_EXCEPTION, Executor, Future, wait
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, overload

from proc_sandbox.backends import current
from proc_sandbox.config import Config, check_command
from proc_sandbox.errors import ConfigError, SandboxError
from proc_sandbox.execution import Args, remove_at_exit, run_to_end
from proc_sandbox.progress import bar
from proc_sandbox.result import Result, StreamT_co
from proc_sandbox.sandbox import check_input, configured
from proc_sandbox.streams import check_streams, with_encoded_input
from proc_sandbox.text import Decoding, as_asked, check_decoding, input_bytes

if TYPE_CHECKING:
    from typing import Literal

    from typing_extensions import Never, Unpack

    from proc_sandbox.backends.protocol import Run
    from proc_sandbox.config import Options
    from proc_sandbox.result import Output
    from proc_sandbox.text import (
        BytesOptions,
        EitherOptions,
        Encoded,
        EncodedOptions,
        InBytes,
        InEither,
        InText,
        TextOptions,
    )

__all__ = ["Job", "SandboxExecutor", "run_many"]

MOST_BY_DEFAULT = 32
"""As of concurrent.futures.ThreadPoolExecutor."""


@dataclass(frozen=True, init=False)
class Job(Generic[StreamT_co]):
    """A command with what is its own, for run_many() and SandboxExecutor.map(): its input, fields of Config, and output as text.

    Job(["./a"], input=b"1", timeout=5). Attributes: args, a tuple of str; input; text, encoding and errors, as given; overrides, the
    fields that were given, as Config has them.
    """

    args: tuple[str, ...]
    input: bytes | str | None
    overrides: Mapping[str, Any]
    text: bool | None
    encoding: str | None
    errors: str | None

    @overload
    def __init__(self: Job[Output], args: Args, *, input: bytes | str | None = None, **options: Unpack[BytesOptions]) -> None: ...

    @overload
    def __init__(self: Job[str], args: Args, *, input: bytes | str | None = None, **options: Unpack[TextOptions]) -> None: ...

    @overload
    def __init__(self: Job[str], args: Args, *, input: bytes | str | None = None, **options: Unpack[EncodedOptions]) -> None: ...

    @overload
    def __init__(self: Job[Any], args: Args, *, input: bytes | str | None = None, **options: Unpack[EitherOptions]) -> None: ...

    def __init__(
        self,
        args: Args,
        *,
        input: bytes | str | None = None,
        text: bool | None = None,
        encoding: str | None = None,
        errors: str | None = None,
        **overrides: Unpack[Options],
    ) -> None:
        """Say what is to be run; nothing is started yet.

        Args:
            args: The command and its arguments, as for run().
            input: What the command reads from stdin; instead of the Config's stdin.
            text: As of run(): whether output is str. It is where the Job asks for that or who has it run; the Job's encoding comes first.
            encoding: As of run().
            errors: As of run().
            overrides: Fields of Config, for this run.

        Raises:
            ConfigError: a value is not valid. What is so only together with the Config that it is run with is told then.
        """
        command = check_command(args)
        check_input(input, overrides)
        input_bytes(input, check_decoding(text, encoding, errors))
        config = configured(None, overrides)
        given = {name: getattr(config, name) for name in overrides}
        self.__dict__.update(args=command, input=input, overrides=given, text=text, encoding=encoding, errors=errors)


class Task:
    """One run that was asked for, from its submission to its end."""

    def __init__(
        self, command: tuple[str, ...], config: Config, data: bytes | None, *, check: bool, decoding: Decoding | None = None
    ) -> None:
        self.command = command
        self.config = config
        self.data = data
        self.check = check
        self.decoding = decoding
        self.owner = os.getpid()
        self.lock = threading.RLock()  # a signal handler may cancel what its own thread is about to cancel
        self.run: Run[Any] | None = None
        self.future = RunFuture()
        self.future.add_done_callback(self.stop)  # the first one: the tree is killed before anybody is told

    def stop(self, future: Future[Result[Any]]) -> None:
        """Kill the run of a future that was cancelled; in a child by os.fork() it is the parent's run."""
        if future.cancelled() and os.getpid() == self.owner:
            with self.lock:
                if self.run is not None:
                    self.run.kill()

    def hold(self, run: Run[Any]) -> None:
        """Have this run killed by a cancellation, at once if there was one."""
        with self.lock:
            self.run = run
            if self.future.cancelled():
                run.kill()

    def let_go(self, run: Run[Any]) -> None:
        """There is nothing to be killed any more."""
        del run
        with self.lock:
            self.run = None

    def carry_out(self) -> None:
        """See the run through, and settle the future when nothing of it is left."""
        result = error = None
        if not self.future.cancelled():
            self.future.begun = True
            try:
                result = self.execute()
            except BaseException as caught:  # noqa: BLE001 - whatever it is, who asks for the result is to have it
                error = caught
        # False where it was cancelled meanwhile: who waits for it is told now.
        if self.future.set_running_or_notify_cancel():
            if result is not None:
                self.future.set_result(result)
            else:
                self.future.set_exception(error)
        del error  # its traceback has this frame

    def execute(self) -> Result[Any]:
        result = run_to_end(self.command, with_encoded_input(self.config, self.decoding), data=self.data, holder=self)
        return as_asked(result, self.decoding, check=self.check)


class RunFuture(Future[Result[Any]]):
    """A future that can be cancelled until its run is over."""

    begun = False

    def running(self) -> bool:
        """Return whether the run is under way."""
        return self.begun and not self.done()


class Crew:
    """A queue of tasks, and the threads that see them through."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.condition = threading.Condition(threading.RLock())
        self.queue: collections.deque[Task] = collections.deque()
        self.under_way: set[Task] = set()
        self.threads: set[threading.Thread] = set()
        self.idle = 0
        self.closed = False
        crews.add(self)

    def put(self, task: Task) -> None:
        """Have a task done; a thread is started for it where none is idle and there may be one more.

        Raises:
            RuntimeError: the executor was shut down.
        """
        with self.condition:
            if self.closed:
                raise RuntimeError("cannot submit after shutdown; make a new SandboxExecutor")
            if self.idle <= len(self.queue) and len(self.threads) < self.size:
                self.start()
            self.queue.append(task)
            self.condition.notify()

    def start(self) -> None:
        # Daemons: the interpreter's exit does not wait for their runs, but ends them (end_all).
        thread = threading.Thread(target=self.work, name=f"SandboxExecutor-{len(self.threads)}", daemon=True)
        self.threads.add(thread)
        try:
            thread.start()
        except BaseException:
            self.threads.discard(thread)
            raise

    def work(self) -> None:
        try:
            while (task := self.take()) is not None:
                try:
                    task.carry_out()
                finally:
                    with self.condition:
                        self.under_way.discard(task)
                del task  # an idle thread keeps no result
        finally:
            with self.condition:
                self.threads.discard(threading.current_thread())

    def take(self) -> Task | None:
        """Return the next task; None when there is nothing more to come."""
        with self.condition:
            self.idle += 1
            try:
                while not self.queue:
                    if self.closed:
                        return None
                    self.condition.wait()
                task = self.queue.popleft()
                self.under_way.add(task)
                return task
            finally:
                self.idle -= 1

    def close(self) -> None:
        """Take no more tasks; what is queued is done still."""
        with self.condition:
            self.closed = True
            self.condition.notify_all()

    def cancel_queued(self) -> None:
        """Cancel what no thread has begun."""
        with self.condition:
            queued = list(self.queue)
            self.queue.clear()
        cancel(queued)
        for task in queued:
            task.carry_out()  # tells who waits for it

    def kill(self) -> None:
        """Cancel everything, and take no more."""
        self.close()
        self.cancel_queued()
        with self.condition:
            under_way = list(self.under_way)
        cancel(under_way)

    def join(self) -> None:
        """Return when all threads are gone; one of them does not wait for itself."""
        with self.condition:
            threads = self.threads - {threading.current_thread()}
        for thread in threads:
            thread.join()


def cancel(tasks: Iterable[Task]) -> None:
    for task in tasks:
        task.future.cancel()


crews: weakref.WeakSet[Crew] = weakref.WeakSet()


def end_all() -> None:
    """End all runs of all executors at the interpreter's exit."""
    for crew in list(crews):
        crew.kill()
    for crew in list(crews):
        crew.join()


def after_fork_in_child() -> None:
    """Close the child's copies: it has none of the threads, and a lock of theirs may be held for ever."""
    for crew in list(crews):
        crew.condition = threading.Condition(threading.RLock())
        crew.closed = True
        crew.queue.clear()
        crew.under_way.clear()
        crew.threads.clear()
    crews.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=after_fork_in_child)


class SandboxExecutor(Executor):
    """A concurrent.futures.Executor of commands: each runs in a sandbox of its own, as run() has it.

    A future can be cancelled while its run is under way: the tree is killed. cancelled(), done() and result() say so at once; wait()
    and as_completed() name the future when nothing of the run is left. What the command did is the future's result, an exception of
    run()'s its exception; a value that is not valid raises ConfigError at submit() already.

    As a context manager it waits for all runs at the end, as the standard library's do; KeyboardInterrupt and SystemExit kill them.
    At the interpreter's exit what is running is killed. Thread-safe. In a child by os.fork() it is closed.

    Attributes: config; max_workers.
    """

    def __init__(self, config: Config | None = None, *, max_workers: int | None = None, **overrides: Unpack[Options]) -> None:
        """Make an executor; no thread is started yet.

        Args:
            config: The limits and grants of each run; None: the defaults, which grant nothing.
            max_workers: Runs at one time. Default: the processors that this process may use and 4, at most 32.
            overrides: Fields of Config.

        Raises:
            ConfigError: a value is not valid. UnsupportedError: this system has no such backend.
        """
        self.config = configured(config, overrides)
        self.max_workers = workers(max_workers)
        self.crew = Crew(self.max_workers)
        self.dropped = weakref.finalize(self, self.crew.close)
        self.dropped.atexit = False
        # What comes last here comes first at the interpreter's exit: our threads go before what they make use of.
        current(self.config.backend)
        remove_at_exit()
        atexit.unregister(end_all)
        atexit.register(end_all)

    @overload  # type: ignore[override]
    def submit(
        self, args: Args, /, *rest: Never, input: bytes | str | None = None, check: bool = False, **options: Unpack[BytesOptions]
    ) -> Future[Result]: ...

    @overload
    def submit(
        self, args: Args, /, *rest: Never, input: bytes | str | None = None, check: bool = False, **options: Unpack[TextOptions]
    ) -> Future[Result[str]]: ...

    @overload
    def submit(
        self, args: Args, /, *rest: Never, input: bytes | str | None = None, check: bool = False, **options: Unpack[EncodedOptions]
    ) -> Future[Result[str]]: ...

    @overload
    def submit(
        self, args: Args, /, *rest: Never, input: bytes | str | None = None, check: bool = False, **options: Unpack[EitherOptions]
    ) -> Future[Result[Any]]: ...

    def submit(
        self,
        args: Args,
        /,
        *rest: Never,
        input: bytes | str | None = None,
        check: bool = False,
        text: bool | None = None,
        encoding: str | None = None,
        errors: str | None = None,
        **overrides: Unpack[Options],
    ) -> Future[Any]:
        """Have one command run; return the future of its Result.

        Args:
            args: The command and its arguments, as for run().
            input: What the command reads from stdin; instead of the Config's stdin.
            check: The future raises ExecutionError (or a class of it) unless the command exited with 0.
            text: As of run(): whether output is str.
            encoding: As of run().
            errors: As of run(); with "strict" the future raises where it is no such text.
            overrides: Fields of Config, for this run.

        Raises:
            ConfigError: a value is not valid. RuntimeError: the executor was shut down.
        """
        if callable(args) or rest:
            remedy = 'Python callables are not run; submit a command, as in submit(["python3", "script.py"])'
            raise ConfigError("args", args, remedy)
        command = check_command(args)
        check_input(input, overrides)
        decoding = check_decoding(text, encoding, errors)
        config = configured(self.config, overrides)
        check_streams(config)
        task = Task(command, config, input_bytes(input, decoding), check=check, decoding=decoding)
        self.crew.put(task)
        return task.future

    def submit_job(self, job: Job[Any] | Args, *, check: bool = False, **how: Unpack[InEither]) -> Future[Any]:
        """Have a Job run, or a bare command; see submit(). how: as what output comes where the Job does not ask for text."""
        if not isinstance(job, Job):
            return self.submit(job, check=check, **how)
        if check_decoding(job.text, job.encoding, job.errors) is not None:
            how = {"text": job.text, "encoding": job.encoding, "errors": job.errors}
        return self.submit(job.args, input=job.input, check=check, **how, **job.overrides)

    @overload  # type: ignore[override]
    def map(
        self, commands: Iterable[Job | Args], /, *, timeout: float | None = None, buffersize: int | None = None, **how: Unpack[InBytes]
    ) -> Iterator[Result]: ...

    @overload
    def map(
        self, commands: Iterable[Job[str]], /, *, timeout: float | None = None, buffersize: int | None = None, **how: Unpack[InEither]
    ) -> Iterator[Result[str]]: ...

    @overload
    def map(
        self, commands: Iterable[Job[Any] | Args], /, *, timeout: float | None = None, buffersize: int | None = None, **how: Unpack[InText]
    ) -> Iterator[Result[str]]: ...

    @overload
    def map(
        self, commands: Iterable[Job[Any] | Args], /, *, timeout: float | None = None, buffersize: int | None = None, **how: Unpack[Encoded]
    ) -> Iterator[Result[str]]: ...

    @overload
    def map(
        self, commands: Iterable[Job[Any] | Args], /, *, timeout: float | None = None, buffersize: int | None = None, **how: Unpack[InEither]
    ) -> Iterator[Result[Any]]: ...

    def map(
        self,
        commands: Iterable[Job[Any] | Args],
        /,
        *,
        timeout: float | None = None,
        buffersize: int | None = None,
        text: bool | None = None,
        encoding: str | None = None,
        errors: str | None = None,
    ) -> Iterator[Result[Any]]:
        """Return an iterator of the Results of many commands, in their order; they start at once.

        Args:
            commands: Commands, or Jobs. From an iterator no more is taken than is under way or waits: it may be endless.
            timeout: Seconds, from this call, after which asking for a Result that is not there raises TimeoutError.
            buffersize: Commands whose Results have not been asked for yet. Default: 4 for each worker.
            text: As of run(), for all of them; a Job may ask for text itself.
            encoding: As of run().
            errors: As of run().

        What is raised for one command (LaunchError, ...) is raised when its Result is asked for. That, and leaving the iterator,
        cancels what is not done yet.

        Raises:
            ConfigError: a value is not valid.
        """
        end = None if timeout is None else time.monotonic() + timeout
        most = 4 * self.max_workers if buffersize is None else whole_number("buffersize", buffersize)
        check_decoding(text, encoding, errors)
        left = (self.submit_job(job, text=text, encoding=encoding, errors=errors) for job in check_commands(commands))
        futures: collections.deque[Future[Any]] = collections.deque()
        try:
            fill(futures, left, most)
        except BaseException:
            cancel_all(futures)
            raise
        return self.results(futures, left, most, end)

    def results(
        self, futures: collections.deque[Future[Any]], left: Iterator[Future[Any]], most: int, end: float | None
    ) -> Iterator[Result[Any]]:
        try:
            while futures:
                result = futures[0].result(None if end is None else end - time.monotonic())
                futures.popleft()
                fill(futures, left, most)
                yield result
        finally:
            cancel_all(futures)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more commands; harmless when done twice.

        Args:
            wait: Return when nothing is under way any more.
            cancel_futures: Cancel what has not begun; what is running goes on: kill() ends that too.
        """
        self.crew.close()
        if cancel_futures:
            self.crew.cancel_queued()
        if wait:
            self.crew.join()

    def kill(self) -> None:
        """Cancel all futures that are not done, those that are running too; returns when nothing of them is left."""
        self.crew.kill()
        self.crew.join()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and not issubclass(kind, Exception):
            self.kill()
        self.shutdown()


def fill(futures: collections.deque[Future[Any]], left: Iterator[Future[Any]], most: int) -> None:
    """Have as many runs under way as there may be; each is submitted when it is taken from what is left."""
    futures.extend(itertools.islice(left, most - len(futures)))


def cancel_all(futures: Iterable[Future[Any]]) -> None:
    for future in futures:
        future.cancel()


def workers(most: int | None) -> int:
    """Return how many runs there may be at one time.

    Raises:
        ConfigError: not a number from 1.
    """
    if most is None:
        return min(MOST_BY_DEFAULT, processors() + 4)
    return whole_number("max_workers", most)


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def whole_number(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(name, value, "must be a whole number from 1")
    return value


def check_commands(commands: Iterable[Job[Any] | Args]) -> Iterable[Job[Any] | Args]:
    """Refuse what was meant as one command, which would be taken for many.

    Raises:
        ConfigError: a string, of which each letter would be one.
    """
    if isinstance(commands, (str, bytes)):
        raise ConfigError("commands", commands, 'a list of commands is needed, as in [["ls", "-l"], ["true"]]')
    return commands


@overload
def run_many(
    commands: Iterable[Job | Args],
    *,
    config: Config | None = None,
    max_workers: int | None = None,
    progress: bool | None = None,
    check: bool = False,
    return_exceptions: Literal[False] = False,
    **options: Unpack[BytesOptions],
) -> list[Result]: ...


@overload
def run_many(
    commands: Iterable[Job[str]],
    *,
    config: Config | None = None,
    max_workers: int | None = None,
    progress: bool | None = None,
    check: bool = False,
    return_exceptions: Literal[False] = False,
    **options: Unpack[EitherOptions],
) -> list[Result[str]]: ...


@overload
def run_many(
    commands: Iterable[Job[Any] | Args],
    *,
    config: Config | None = None,
    max_workers: int | None = None,
    progress: bool | None = None,
    check: bool = False,
    return_exceptions: Literal[False] = False,
    **options: Unpack[TextOptions],
) -> list[Result[str]]: ...


@overload
def run_many(
    commands: Iterable[Job[Any] | Args],
    *,
    config: Config | None = None,
    max_workers: int | None = None,
    progress: bool | None = None,
    check: bool = False,
    return_exceptions: Literal[False] = False,
    **options: Unpack[EncodedOptions],
) -> list[Result[str]]: ...


@overload
def run_many(
    commands: Iterable[Job[Any] | Args],
    *,
    config: Config | None = None,
    max_workers: int | None = None,
    progress: bool | None = None,
    check: bool = False,
    return_exceptions: Literal[False] = False,
    **options: Unpack[EitherOptions],
) -> list[Result[Any]]: ...


@overload
def run_many(
    commands: Iterable[Job | Args],
    *,
    config: Config | None = None,
    max_workers: int | None = None,
    progress: bool | None = None,
    check: bool = False,
    return_exceptions: Literal[True],
    **options: Unpack[BytesOptions],
) -> list[Result | SandboxError]: ...


@overload
def run_many(
    commands: Iterable[Job[str]],
    *,
    config: Config | None = None,
    max_workers: int | None = None,
    progress: bool | None = None,
    check: bool = False,
    return_exceptions: Literal[True],
    **options: Unpack[EitherOptions],
) -> list[Result[str] | SandboxError]: ...


@overload
def run_many(
    commands: Iterable[Job[Any] | Args],
    *,
    config: Config | None = None,
    max_workers: int | None = None,
    progress: bool | None = None,
    check: bool = False,
    return_exceptions: Literal[True],
    **options: Unpack[TextOptions],
) -> list[Result[str] | SandboxError]: ...


@overload
def run_many(
    commands: Iterable[Job[Any] | Args],
    *,
    config: Config | None = None,
    max_workers: int | None = None,
    progress: bool | None = None,
    check: bool = False,
    return_exceptions: Literal[True],
    **options: Unpack[EncodedOptions],
) -> list[Result[str] | SandboxError]: ...


@overload
def run_many(
    commands: Iterable[Job[Any] | Args],
    *,
    config: Config | None = None,
    max_workers: int | None = None,
    progress: bool | None = None,
    check: bool = False,
    return_exceptions: Literal[True],
    **options: Unpack[EitherOptions],
) -> list[Result[Any] | SandboxError]: ...


def run_many(
    commands: Iterable[Job[Any] | Args],
    *,
    config: Config | None = None,
    max_workers: int | None = None,
    progress: bool | None = None,
    check: bool = False,
    return_exceptions: bool = False,
    text: bool | None = None,
    encoding: str | None = None,
    errors: str | None = None,
    **overrides: Unpack[Options],
) -> list[Any]:
    """Run many commands side by side, each in a sandbox of its own, and return their Results in the order of the commands.

    An exception, KeyboardInterrupt too, kills what is under way: when it leaves, nothing is left.

    Args:
        commands: Commands, or Jobs where some have an input or limits of their own. From an iterator they are taken as runs end.
        config: The limits and grants of each run; None: the defaults, which grant nothing.
        max_workers: Runs at one time; as of SandboxExecutor.
        progress: Whether a bar on stderr tells how far it is. Default: if stderr is a terminal.
        check: Raise ExecutionError (or a class of it) unless each command exited with 0.
        return_exceptions: The SandboxError that is raised for one command takes the place of its Result, and the others go on.
        text: As of run(), for all of them; a Job may ask for text itself.
        encoding: As of run().
        errors: As of run().
        overrides: Fields of Config, for all of them.

    Raises:
        As run(): what is raised for any of the commands.
    """
    check_commands(commands)
    check_decoding(text, encoding, errors)
    pool = SandboxExecutor(config, max_workers=max_workers, **overrides)
    how: InEither = {"text": text, "encoding": encoding, "errors": errors}
    many = Many(pool, check=check, keep_going=return_exceptions, how=how)
    with contextlib.ExitStack() as stack:
        stack.callback(many.pool.kill)
        many.advance = stack.enter_context(progress_bar(progress, len(commands) if isinstance(commands, Sized) else None))
        return many.run(commands)


class Many:
    """What run_many() has under way."""

    def __init__(self, pool: SandboxExecutor, *, check: bool, keep_going: bool, how: InEither) -> None:
        self.pool = pool
        self.check = check
        self.how = how
        self.keep_going = keep_going
        self.room = threading.Semaphore(2 * pool.max_workers)  # so that a thread finds its next run waiting
        self.failed = threading.Event()
        self.advance: Callable[[bool], object] = lambda ok: None

    def run(self, commands: Iterable[Job[Any] | Args]) -> list[Any]:
        futures: list[Future[Any]] = []
        for command in commands:
            self.room.acquire()
            if self.failed.is_set():
                break
            futures.append(self.submit(command))
        if not self.keep_going:
            wait(futures, return_when=FIRST_EXCEPTION)
            for future in futures:
                if future.done():
                    future.result()
        return [self.outcome(future) for future in futures]

    def submit(self, command: Job[Any] | Args) -> Future[Any]:
        try:
            future = self.pool.submit_job(command, check=self.check, **self.how)
        except SandboxError as error:
            if not self.keep_going:
                raise
            future = Future()
            future.set_exception(error)
        future.add_done_callback(self.done)
        return future

    def done(self, future: Future[Any]) -> None:
        failed = future.cancelled() or future.exception() is not None
        if failed and not self.keep_going:
            self.failed.set()
        self.room.release()
        self.advance(not failed and future.result().ok)

    def outcome(self, future: Future[Any]) -> Any:
        try:
            return future.result()
        except SandboxError as error:
            if not self.keep_going:
                raise
            return error


def progress_bar(asked: bool | None, total: int | None) -> contextlib.AbstractContextManager[Callable[[bool], object]]:
    """Return what shows how far it is, where that is wanted."""
    if not (sys.stderr is not None and sys.stderr.isatty() if asked is None else asked):
        return contextlib.nullcontext(lambda ok: None)
    return bar(total)
