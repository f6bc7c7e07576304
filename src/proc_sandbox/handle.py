"""Handles: a run that goes on while its caller does something else, in subprocess.Popen's vocabulary; and its output as events.

There is no thread behind a handle. Whoever waits for something (the command's beginning, its end, an answer) moves the run's bytes
meanwhile; of several threads one does, and the others wait for what it finds out.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, AnyStr, Generic, Literal, NamedTuple, cast, overload

from proc_sandbox.config import PIPE, Config
from proc_sandbox.errors import ConfigError, LauncherDiedError
from proc_sandbox.execution import Args, Execution
from proc_sandbox.report import Ended, Failed, Live
from proc_sandbox.result import LiveUsage, Output, Result
from proc_sandbox.sandbox import Sandbox, configured
from proc_sandbox.supervise import Collector
from proc_sandbox.text import check_decoding, decoded, input_bytes

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from proc_sandbox.backends.protocol import HeldRun, Pump
    from proc_sandbox.config import Options

__all__ = ["Event", "Exited", "Popen", "Started", "stream"]


class Started(NamedTuple):
    """The command has been executed. pid: its process id on the host; 0 where it had ended before that could be told."""

    pid: int


class Exited(NamedTuple):
    """The run has ended and nothing of it is left; always the last event. Its Result holds no output that events have brought."""

    result: Result


Event = Started | Output | Exited


class Held:
    """One run and whoever waits for something of it.

    Attributes: execution; outcome, None as long as the run goes on.
    """

    def __init__(self, execution: Execution) -> None:
        self.execution = execution
        self.run: HeldRun[Any] = cast("HeldRun[Any]", execution.run)
        self.outcome: Ended | Failed | None = None
        self.failure: BaseException | None = None
        self.changed = threading.Condition(threading.RLock())
        self.driven_by = 0  # the thread that moves bytes
        self.closed = False
        self.asking = threading.Lock()
        self.moved = 0
        try:
            self.pump: Pump = execution.run.pump(execution.streams)
        except BaseException:
            execution.close()
            raise

    def advance(self, done: Callable[[], object], timeout: float | None = None) -> bool:
        """Move bytes until something is so, or the run has ended; return whether that came in time. timeout: seconds.

        Raises:
            LauncherDiedError: what watches over the run was killed, and the run is dead with it.
        """
        end = None if timeout is None else time.monotonic() + timeout
        looked = False
        while not done() and self.outcome is None:
            left = None if end is None else max(0.0, end - time.monotonic())
            if looked and left == 0:
                return False
            looked = True
            self.take_turn(left)
        return True

    def take_turn(self, left: float | None) -> None:
        """Move bytes once, or wait for whoever does."""
        me = threading.get_ident()
        outermost = driving = False
        try:  # from here on: an exception of a signal's would have the others wait for ever for who does nothing any more
            with self.changed:
                if self.failure is not None:
                    raise self.failure
                if self.driven_by and self.driven_by != me:
                    self.changed.wait(left)
                    return
                driving, outermost, self.driven_by = True, not self.driven_by, me  # a signal handler may come in between
            self.outcome = self.pump.step(left) or self.outcome
        except Exception as error:
            self.failure = error
            raise
        finally:
            if driving:
                with self.changed:
                    if outermost:
                        self.driven_by = 0
                    self.changed.notify_all()

    def ask(self, what: str) -> None:
        """Ask for something; harmless after the end: another thread may close what is asked at this moment."""
        with self.changed:
            if self.outcome is None and not self.closed:
                self.run.ask(what)

    def await_beginning(self) -> None:
        self.advance(lambda: self.run.pid is not None)

    def usage(self) -> Live | None:
        """Return what the run has used until now; None when it has ended."""
        with self.asking:
            self.run.answers.clear()
            if self.outcome is None:
                self.ask("usage")
                self.advance(lambda: self.run.answers)
            return self.run.answers[-1] if self.run.answers else None

    def close(self) -> None:
        """End the run, gently where its Config says so; returns when nothing of it is left."""
        try:
            if self.outcome is None and self.failure is None:
                self.ask("end")
                self.advance(lambda: False)
        finally:
            self.undo()

    def undo(self) -> None:
        """Close all that was opened for the run, once: two threads may find at the same time that it has ended."""
        with self.changed:
            self.closed = True
            if self.outcome is None and self.failure is None:  # a signal's exception came in between: there is nothing to wait for
                self.failure = LauncherDiedError("the run was ended, and nobody has heard how")
            self.execution.close()


class Popen(Generic[AnyStr]):
    """A command that runs in a sandbox while its caller goes on; as subprocess.Popen where nothing else is said.

    Of streams that are PIPE the other ends are attributes. What is captured (stdout and stderr by default) is moved while somebody
    waits or polls; a command that has filled a pipe waits for that. Leaving the block, close() and the end of the caller kill the
    whole tree. Thread-safe. A handle belongs to the process that made it: not to its children by os.fork().

    Attributes: args; pid, the command's process id on the host; stdin, stdout, stderr, files where PIPE was asked for, else None.
    """

    stdin: IO[AnyStr] | None
    stdout: IO[AnyStr] | None
    stderr: IO[AnyStr] | None

    @overload
    def __init__(
        self: Popen[bytes],
        args: Args,
        *,
        config: Config | None = ...,
        sandbox: Sandbox | None = ...,
        text: Literal[False] = ...,
        encoding: None = ...,
        errors: None = ...,
        bufsize: int = ...,
        **overrides: Unpack[Options],
    ) -> None: ...
    @overload
    def __init__(
        self: Popen[str],
        args: Args,
        *,
        config: Config | None = ...,
        sandbox: Sandbox | None = ...,
        text: Literal[True],
        encoding: str | None = ...,
        errors: str | None = ...,
        bufsize: int = ...,
        **overrides: Unpack[Options],
    ) -> None: ...
    @overload
    def __init__(
        self: Popen[str],
        args: Args,
        *,
        config: Config | None = ...,
        sandbox: Sandbox | None = ...,
        text: bool = ...,
        encoding: str,
        errors: str | None = ...,
        bufsize: int = ...,
        **overrides: Unpack[Options],
    ) -> None: ...
    def __init__(
        self,
        args: Args,
        *,
        config: Config | None = None,
        sandbox: Sandbox | None = None,
        text: bool = False,
        encoding: str | None = None,
        errors: str | None = None,
        bufsize: int = -1,
        **overrides: Unpack[Options],
    ) -> None:
        """Start the command; return when it has been executed.

        Args:
            args: The command and its arguments; never a shell line.
            config: The limits and grants; None: the defaults, or the Sandbox's.
            sandbox: In whose directory it runs; its cleanup() ends the run.
            text: Pipes hold text: encoding (default: UTF-8), errors (default: "replace", for what a command writes need not be text).
            bufsize: Of pipes, as in open(); with 0 they are not buffered.
            overrides: Fields of Config, for this run. PIPE as stdin, stdout or stderr makes a pipe.

        Raises:
            SandboxError: as run(); nothing is left then.
        """
        self.closed = False
        self.owner = os.getpid()
        self.box = sandbox
        self.verdict: Result | None = None
        self.stdin = self.stdout = self.stderr = None
        self.kept: dict[str, Collector] = {}
        if sandbox is not None and config is None:
            config = sandbox.config
        whole = configured(config, overrides)
        self.decoding = check_decoding(text, encoding, errors)
        if sandbox is not None:
            sandbox.enter(self)
        try:
            self.held = Held(Execution(args, whole, private=sandbox.directory if sandbox else None, held=True))
        except BaseException:
            self.leave()
            raise
        self.args = self.held.execution.plan.command
        try:
            if sandbox is not None:
                sandbox.lend(self)
            self.stdin = self.open_pipe("stdin", "w", bufsize)
            self.stdout = self.open_pipe("stdout", "r", bufsize)
            self.stderr = self.open_pipe("stderr", "r", bufsize)
            self.held.await_beginning()
            if isinstance(self.held.outcome, Failed):
                self.held.execution.result(self.held.outcome)
        except BaseException:
            self.close()
            raise
        self.pid = self.held.run.pid or 0

    def open_pipe(self, name: str, mode: str, bufsize: int) -> Any:
        descriptor = self.held.execution.streams.take(name)
        if descriptor is None:
            return None
        file: Any = os.fdopen(descriptor, mode + "b", bufsize)
        if self.decoding is None:
            return file
        encoding, errors = self.decoding
        return io.TextIOWrapper(file, encoding, errors or "replace", write_through=True, line_buffering=bufsize == 1)

    # --- what subprocess.Popen has ---

    @property
    def returncode(self) -> int | None:
        """The exit status, or -N for signal N; None as long as nobody has seen the run end."""
        return self.verdict.returncode if self.verdict else None

    def poll(self) -> int | None:
        """Return the returncode if the run has ended, None if it has not."""
        if self.held.advance(lambda: False, 0):
            self.result()
        return self.returncode

    def wait(self, timeout: float | None = None) -> Result:
        """Wait for the end of the run and return the verdict. timeout: seconds of waiting, after which the run goes on.

        Raises:
            subprocess.TimeoutExpired: it has not ended by then. LauncherDiedError: the run is dead, and nothing known of its end.
        """
        if self.verdict is None and not self.held.advance(lambda: False, timeout):
            raise subprocess.TimeoutExpired(list(self.args), cast("float", timeout))
        return self.conclude()

    def result(self) -> Result:
        """Wait for the end of the run and return the verdict."""
        return self.wait()

    def conclude(self) -> Result:
        """Judge the run, which has ended, once; nothing of it is left then but pipes to be read."""
        with self.held.changed:
            if self.verdict is None:
                assert self.held.outcome is not None
                self.verdict = self.held.execution.result(self.held.outcome)
                self.held.undo()
                self.leave()
        return self.verdict

    def communicate(
        self, input: AnyStr | None = None, timeout: float | None = None
    ) -> tuple[AnyStr | None, AnyStr | None]:
        """Write input to stdin, read stdout and stderr to their ends where they are pipes, and wait for the end of the run.

        Of each stream max_output bytes are kept, and the rest is thrown away, which the Result then tells. After a timeout it can be
        called again: nothing is lost.

        Raises:
            ConfigError: input without a pipe. subprocess.TimeoutExpired: as wait().
        """
        self.give_pipes_away(input)
        self.wait(timeout)
        out, err = (self.found(name) for name in ("stdout", "stderr"))
        return out, err

    def give_pipes_away(self, input: AnyStr | None) -> None:
        """Have the run's own driver move what the pipes hold."""
        if input is not None and self.stdin is None:
            raise ConfigError("input", input, "stdin is no pipe; pass stdin=PIPE")
        if self.stdin is not None:
            data = input_bytes(input, self.decoding)
            stdin, self.stdin = self.stdin, None
            try:
                stdin.flush()
            except BrokenPipeError:  # the command does not read any more, which is its right
                close_pipe(stdin)
            else:
                self.held.pump.feed(stdin, data or b"")
        cap = self.held.execution.config.max_output
        for name in ("stdout", "stderr"):
            file = getattr(self, name)
            if file is not None:
                self.kept[name] = collector = Collector(cap)
                self.held.pump.collect(file, collector.feed)
                setattr(self, name, None)

    def found(self, name: str) -> Any:
        if name not in self.kept:
            return None
        data = bytes(self.kept[name].kept)
        return decoded(data, self.decoding) if self.decoding else data

    def send_signal(self, number: int) -> None:
        """Send a signal to the command itself, not to what it has started; harmless after the end.

        Raises:
            ConfigError: there is no such signal. UnsupportedError: Windows, but for SIGTERM, which ends the run.
        """
        if not isinstance(number, int) or not 1 <= number <= 64:
            raise ConfigError("signal", number, "must be the number of a signal, as signal.SIGTERM")
        self.order(f"signal {int(number)}")

    def terminate(self) -> None:
        """Send SIGTERM to the command; on Windows as kill()."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the whole tree, which is then cancelled; harmless after the end."""
        if self.verdict is None:
            self.held.ask("kill")

    # --- and more ---

    def order(self, what: str) -> None:
        if self.verdict is None:
            self.held.ask(what)

    def pause(self) -> None:
        """Stop the whole tree until resume(); its time goes on, and a timeout ends it. Without a cgroup v2, which a run has that has a
        limit of one, what continues itself or others is stopped again within some 20 ms.

        Raises:
            UnsupportedError: this system has nothing like it.
        """
        self.order("pause")

    def resume(self) -> None:
        """Let the tree go on after pause()."""
        self.order("resume")

    def usage(self) -> LiveUsage:
        """Return what the run has used until now; after its end what it has used in all."""
        live = self.held.usage() if self.verdict is None else None
        if live is None:
            end = self.wait()
            return LiveUsage(end.execution_time, end.cpu_time.total, 0, 0, end.read_bytes, end.written_bytes)
        known = [None if value < 0 else value for value in (live.memory, live.disk_read, live.disk_written)]
        return LiveUsage(live.wall / 1e9, live.cpu / 1e9, known[0], live.tasks, known[1], known[2])

    def close(self) -> None:
        """End the run if it has not ended, gently where its Config has a kill_grace, and close all pipes. Harmless when done twice,
        and in a child by os.fork().
        """
        if self.closed:
            return
        self.closed = True
        try:
            if os.getpid() == self.owner and self.verdict is None:
                self.held.close()
                if isinstance(self.held.outcome, Ended):
                    self.conclude()
        finally:
            self.leave()
            for file in (self.stdin, self.stdout, self.stderr):
                if file is not None:
                    close_pipe(file)

    def ask_to_end(self) -> None:
        """Begin what close() waits for."""
        self.order("end")

    def leave(self) -> None:
        """Tell the Sandbox that the run is over."""
        if self.box is not None:
            self.box.give_back(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "closed", True) and self.verdict is None and hasattr(self, "held"):
            warnings.warn(f"{self!r} was forgotten while it runs; use a with block or wait()", ResourceWarning, source=self, stacklevel=2)
            self.close()

    def __repr__(self) -> str:
        state = f"pid {self.pid}" if self.verdict is None and hasattr(self, "pid") else f"returncode {self.returncode}"
        return f"<Popen: {state}, args: {list(getattr(self, 'args', ()))!r}>"


def close_pipe(file: IO[Any]) -> None:
    """Close our end; what the command has not read nobody will."""
    with contextlib.suppress(BrokenPipeError):
        file.close()


def stream(
    args: Args,
    *,
    input: bytes | str | None = None,
    config: Config | None = None,
    sandbox: Sandbox | None = None,
    **overrides: Unpack[Options],
) -> Iterator[Event]:
    """Run a command and yield what happens: Started, Output as it comes, Exited at the end.

    What comes is not kept: max_output holds for what is yielded of each stream, and the Result tells whether there was more. A command
    waits while nobody takes its events. Leaving the loop ends the run.

    Raises:
        SandboxError: as run(), when the first event is asked for.
    """
    check_not_given(overrides)
    if sandbox is not None and config is None:
        config = sandbox.config
    events: deque[Event] = deque()
    sinks: Mapping[str, Any] = {name: EventSink(name, events) for name in ("stdout", "stderr")}
    whole = configured(config, cast("Any", {**overrides, **sinks}))
    if input is not None:
        whole = whole.replace(stdin=input_bytes(input))
    with Popen[bytes](args, config=whole, sandbox=sandbox) as process:
        yield Started(process.pid)
        ended = False
        while not ended:
            ended = process.held.advance(lambda: events) and not events
            while events:
                yield events.popleft()
        yield Exited(process.wait())


class EventSink:
    """Takes what one stream brings."""

    def __init__(self, name: str, events: deque[Event]) -> None:
        self.name = name
        self.events = events

    def write(self, data: bytes) -> int:
        """Take it."""
        piece = Output(data)
        piece.stream = self.name
        self.events.append(piece)
        return len(data)


def check_not_given(overrides: Mapping[str, Any]) -> None:
    for name in ("stdout", "stderr"):
        if name in overrides:
            raise ConfigError(name, overrides[name], "stream() yields both; use run() or Popen to send them elsewhere")
    if overrides.get("stdin") == PIPE:
        raise ConfigError("stdin", "PIPE", "stream() gives no handle to write to; pass input=..., or use Popen")
