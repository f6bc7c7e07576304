"""Handles: a run that goes on while its caller does something else, in subprocess.Popen's vocabulary; and its output as events.

There is no thread behind a handle, but for one with pipes to a terminal. Whoever waits for something (the command's beginning, its end, an answer) moves the run's bytes
meanwhile; of several threads one does, and the others wait for what it finds out.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import signal
import subprocess
import threading
import time
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from functools import partial
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, AnyStr, Generic, Literal, NamedTuple, cast, overload

from proc_sandbox.config import CAPTURE, PIPE, Config, check_command
from proc_sandbox.errors import ConfigError, LauncherDiedError
from proc_sandbox.execution import Args, Execution
from proc_sandbox.report import Ended, Failed, Live
from proc_sandbox.result import LiveUsage, Output, Result
from proc_sandbox.sandbox import Sandbox, check_input, configured
from proc_sandbox.streams import is_constant, is_sinks, shown, with_encoded_input
from proc_sandbox.supervise import Collector
from proc_sandbox.text import Decoding, as_text, check_decoding, input_bytes

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from proc_sandbox.backends.protocol import HeldRun, Pump
    from proc_sandbox.config import Options

__all__ = ["Event", "Exited", "Popen", "Started", "stream"]


MOST_CELLS = 0xFFFF
"""Rows or columns: struct winsize has unsigned shorts, ioctl_tty(2)."""
LARGEST_PIPE = 1 << 26
"""Bytes; more than a pipe holds on any system."""


class Started(NamedTuple):
    """The command has been executed. pid: its process id on the host; 0 where it had ended before that could be told."""

    pid: int


class Exited(NamedTuple):
    """The run has ended and nothing of it is left; always the last event. Its Result holds no output that events have brought."""

    result: Result


Event = Started | Output | Exited


class Held:
    """One run and whoever waits for something of it.

    Attributes: execution; outcome, None as long as the run goes on; failure, why nothing more will be known of it.
    """

    def __init__(self, execution: Execution) -> None:
        self.execution = execution
        self.run: HeldRun[Any] = cast("HeldRun[Any]", execution.run)
        self.outcome: Ended | Failed | None = None
        self.failure: BaseException | None = None
        self.changed = threading.Condition(threading.RLock())
        self.driven_by = 0  # the thread that moves bytes
        self.leaving = self.gone = False
        self.asking = threading.RLock()
        self.asked = 0
        try:
            self.pump: Pump = execution.run.pump(execution.streams)
            if execution.streams.relayed:
                self.be_driven()
        except BaseException:
            execution.close()
            raise

    def be_driven(self) -> None:
        """Have a thread move the bytes from now on: who reads or writes a pipe to a relay waits for what nobody else would move."""
        thread = threading.Thread(target=self.drive, name="proc-sandbox-terminal", daemon=True)
        with self.changed:  # which it has to take first
            thread.start()
            self.driven_by = thread.ident or 0

    def drive(self) -> None:
        """Move bytes until the run has ended."""
        try:
            self.advance(lambda: False)
        except BaseException:  # noqa: BLE001 - raised where the run is awaited: it is our failure
            return
        finally:
            with self.changed:
                self.driven_by = 0
                if self.leaving:
                    self.finish()
                self.changed.notify_all()

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
            self.take_turn(done, left)
        return True

    def take_turn(self, done: Callable[[], object], left: float | None) -> None:
        """Move bytes once, or wait for whoever does.

        Of what is raised meanwhile a failure is what a sink has raised, or the death of who serves the run. What a signal handler
        raises while nothing but time passes is none: the run goes on.
        """
        me, outermost, stepping = threading.get_ident(), False, False
        try:
            with self.changed:
                if self.failure is not None:
                    raise self.failure
                if self.outcome is not None or done():
                    return  # another thread was faster; what is awaited must not be looked for where nothing more comes
                if self.driven_by not in (0, me):
                    self.changed.wait(left)
                    return
                outermost = not self.driven_by
                self.driven_by = me  # a signal handler may come in between, and take a turn of its own
            stepping = True
            self.outcome = self.pump.step(left) or self.outcome
        except BaseException as error:
            if stepping and not self.pump.waiting and self.failure is None and is_sinks(error):
                self.failure = error
                self.run.kill()
            raise
        finally:
            with self.changed:
                if outermost:
                    self.driven_by = 0
                    if self.leaving:
                        self.finish()
                self.changed.notify_all()

    def await_beginning(self) -> None:
        self.advance(lambda: self.run.pid is not None)

    def usage(self) -> Live | None:
        """Return what the run has used until now; None when it has ended."""
        with self.asking:
            self.asked += 1
            number = self.asked  # what an exception has kept from being awaited is answered too
            self.ask(f"usage {number}")
            self.advance(lambda: self.run.answered >= number)
            return self.run.answer if self.run.answered >= number else None

    def ask(self, what: str) -> None:
        """Ask who serves the run for something; harmless after the end. Not while another thread lets go of the run."""
        with self.changed:
            if self.outcome is None and not self.gone:
                self.run.ask(what)

    def interrupt(self) -> None:
        """See to it that the thread that moves bytes, if there is another one, looks anew at what there is to move."""
        if self.driven_by not in (0, threading.get_ident()):
            self.usage()

    def close(self) -> None:
        """End the run, gently where its Config says so; returns when nothing of it is left."""
        try:
            if self.outcome is None and self.failure is None:
                self.ask("end")
                self.advance(lambda: False)
        finally:
            if self.outcome is None:
                self.ask("kill")
            self.let_go()

    def let_go(self) -> None:
        """Close what there is here of a run that is over, or is being killed: when nobody moves its bytes any more. From within that,
        in a signal handler, it is left to the turn that goes on.
        """
        me = threading.get_ident()
        with self.changed:
            while self.driven_by not in (0, me):
                self.changed.wait()
            if self.driven_by:
                self.leaving = True
            else:
                self.finish()

    def finish(self) -> None:
        if self.gone:
            return
        self.gone = True
        try:
            self.execution.close()
        finally:
            self.outcome = self.outcome or self.run.outcome
            if self.outcome is None and self.failure is None:
                self.failure = LauncherDiedError("the run was ended, and how was not told")


class Tap(io.RawIOBase):
    """Our end of a pipe that the command writes to; once communicate() has had what comes from it collected, that. rest: gives what
    belongs after its end.
    """

    def __init__(self, descriptor: int, rest: Callable[[], bytes]) -> None:
        self.source: Any = os.fdopen(descriptor, "rb", 0)
        self.rest = rest
        self.last = io.BytesIO()

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int | None:
        """Read once."""
        count = self.source.readinto(buffer)
        if count == 0 and len(buffer) and (count := self.last.readinto(buffer)) == 0 and (rest := self.rest()):
            self.last = io.BytesIO(rest)
            count = self.last.readinto(buffer)
        return cast("int | None", count)

    def fileno(self) -> int:
        """Return the pipe's descriptor."""
        return cast("int", self.source.fileno())

    def replace(self, data: bytes) -> None:
        """Close the pipe, and have this read from now on."""
        self.source.close()
        self.source = io.BytesIO(data)

    def close(self) -> None:
        """Close the pipe."""
        if not self.closed:
            self.source.close()
        super().close()


class Keys(io.BufferedWriter):
    """Our end of a pipe to who types into a terminal: as from a user's keyboard, every piece goes at once."""

    def write(self, data: Any) -> int:
        """Write all of it."""
        count = super().write(data)
        self.flush()
        return count


class Kept:
    """What communicate() keeps of one pipe: the file, whose own buffers hold what comes first, and what was collected after that."""

    def __init__(self, file: Any, tap: Tap, collector: Collector) -> None:
        self.file, self.tap, self.collector = file, tap, collector
        self.data = bytearray()
        collector.sink = self.data.extend
        self.whole: Any = None

    def read(self) -> Any:
        """Return all of it, as text where the file is; the run has ended."""
        if self.whole is None:
            self.tap.replace(bytes(self.data))
            self.whole = self.file.read()
            self.file.close()
        return self.whole


class Popen(Generic[AnyStr]):
    """A command that runs in a sandbox while its caller goes on; as subprocess.Popen where nothing else is said.

    Of streams that are PIPE the other ends are attributes. What is captured (stdout and stderr by default) is moved while somebody
    waits or polls; a command that has filled a pipe waits for that. Leaving the block, close() and the end of the caller kill the
    whole tree. Thread-safe. A handle belongs to the process that made it: to its children by os.fork() the pipes are /dev/null.

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
    @overload
    def __init__(
        self: Popen[Any],
        args: Args,
        *,
        config: Config | None = ...,
        sandbox: Sandbox | None = ...,
        text: bool = ...,
        encoding: str | None = ...,
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
            text: Pipes, and what the Result has of the output, hold text: encoding (default: UTF-8), errors (default: "replace", for
                what a command writes need not be text).
            bufsize: Of pipes, as in open(); with 0 they are not buffered. By default what is written to a terminal is typed at once.
            overrides: Fields of Config, for this run. PIPE as stdin, stdout or stderr makes a pipe.

        Raises:
            SandboxError: as run(); nothing is left then.
        """
        self.closed = False
        self.owner = os.getpid()
        self.box = sandbox
        self.verdict: Result | None = None
        self.stdin = self.stdout = self.stderr = None
        self.taps: dict[str, Tap] = {}
        self.kept: dict[str, Kept] = {}
        if sandbox is not None and config is None:
            config = sandbox.config
        whole = configured(config, overrides)
        check_bufsize(bufsize)
        decoding = check_decoding(text, encoding, errors)
        whole = with_encoded_input(whole, decoding)
        self.coding = (decoding.encoding, decoding.errors or "replace") if decoding else None
        if sandbox is not None:
            sandbox.enter(self)
        try:
            self.held = Held(Execution(args, whole, private=sandbox.directory if sandbox else None, held=True))
        except BaseException:
            self.leave()
            raise
        self.args = self.held.execution.plan.command
        handles.add(self)
        try:
            if sandbox is not None:
                sandbox.lend(self)
            self.stdin = self.open_input(bufsize)
            self.stdout = self.open_output("stdout", bufsize)
            self.stderr = self.open_output("stderr", bufsize)
            self.held.await_beginning()
            if isinstance(self.held.outcome, Failed):
                self.held.execution.result(self.held.outcome)
        except BaseException:
            self.close()
            raise
        self.pid = self.held.run.pid or 0

    def open_input(self, bufsize: int) -> Any:
        descriptor = self.held.execution.streams.take("stdin")
        if descriptor is None:
            return None
        if self.held.execution.streams.relayed and bufsize == -1:
            return self.as_text(Keys(io.FileIO(descriptor, "wb")))
        return self.as_text(os.fdopen(descriptor, "wb", -1 if bufsize == 1 else bufsize), line_buffering=bufsize == 1)

    def open_output(self, name: str, bufsize: int) -> Any:
        descriptor = self.held.execution.streams.take(name)
        if descriptor is None:
            return None
        self.taps[name] = tap = Tap(descriptor, partial(self.held.execution.streams.rest_of, name))
        return self.as_text(io.BufferedReader(tap, bufsize if bufsize > 1 else io.DEFAULT_BUFFER_SIZE) if bufsize else tap)

    def as_text(self, file: Any, *, line_buffering: bool = False) -> Any:
        if self.coding is None:
            return file
        return io.TextIOWrapper(file, *self.coding, write_through=not line_buffering, line_buffering=line_buffering)

    # --- what subprocess.Popen has ---

    @property
    def returncode(self) -> int | None:
        """The exit status, or -N for signal N; None as long as nobody has seen the run end."""
        return self.verdict.returncode if self.verdict else None

    def poll(self) -> int | None:
        """Return the returncode if the run has ended, None if it has not."""
        if self.held.advance(lambda: False, 0):
            self.conclude()
        return self.returncode

    @overload
    def wait(self: Popen[bytes], timeout: float | None = None) -> Result: ...
    @overload
    def wait(self: Popen[str], timeout: float | None = None) -> Result[str]: ...
    def wait(self, timeout: float | None = None) -> Result[Any]:
        """Wait for the end of the run and return the verdict. timeout: seconds of waiting, after which the run goes on.

        Raises:
            subprocess.TimeoutExpired: it has not ended by then. LauncherDiedError: the run is dead, and nothing known of its end.
            UnicodeDecodeError: only with errors="strict" or its like.
        """
        if self.verdict is None and not self.held.advance(lambda: False, timeout):
            raise subprocess.TimeoutExpired(list(self.args), cast("float", timeout))
        result = self.conclude()
        return as_text(result, Decoding(*self.coding)) if self.coding else result

    @overload
    def result(self: Popen[bytes]) -> Result: ...
    @overload
    def result(self: Popen[str]) -> Result[str]: ...
    def result(self) -> Result[Any]:
        """Wait for the end of the run and return the verdict."""
        return self.wait()

    def conclude(self) -> Result:
        """Judge the run, which has ended, once; nothing of it is left then but pipes to be read."""
        with self.held.changed:
            if self.verdict is None:
                assert self.held.outcome is not None
                if self.held.driven_by == threading.get_ident():
                    # In a signal handler: what the turn around it has read is not kept yet.
                    return self.held.execution.verdict_on(self.held.outcome)
                self.verdict = self.held.execution.result(self.held.outcome)
        self.held.let_go()
        self.leave()
        return self.verdict

    def communicate(
        self, input: AnyStr | None = None, timeout: float | None = None
    ) -> tuple[AnyStr | None, AnyStr | None]:
        """Write input to stdin, read stdout and stderr to their ends where they are pipes, and wait for the end of the run.

        Of each stream max_output bytes are kept, and the rest is thrown away, which the Result then tells. After a timeout it can be
        called again, without input: nothing is lost.

        Raises:
            ConfigError: input without a pipe. subprocess.TimeoutExpired: as wait().
        """
        self.give_pipes_away(input)
        self.wait(timeout)
        out, err = (self.kept[name].read() if name in self.kept else None for name in ("stdout", "stderr"))
        return out, err

    def give_pipes_away(self, input: AnyStr | None) -> None:
        """Have the run's own driver move what the pipes hold."""
        if input is not None and (self.stdin is None or self.stdin.closed):
            raise ConfigError("input", input, "stdin is no open pipe, or communicate() has it already; pass stdin=PIPE, and input once")
        data = self.encoded(input)
        self.give_input_away(data)
        with self.held.changed:
            for name in ("stdout", "stderr"):
                self.give_output_away(name)
        self.held.interrupt()

    def encoded(self, input: AnyStr | None) -> bytes:
        if isinstance(input, str) and self.coding:
            return input.replace("\n", os.linesep).encode(*self.coding)
        return input_bytes(input) or b""

    def give_input_away(self, data: bytes) -> None:
        file: Any = self.stdin
        self.stdin = None
        if file is None or file.closed:
            return
        with unread():
            file.flush()
        descriptor = os.dup(file.fileno())
        with unread():
            file.close()
        with self.held.changed:
            if self.held.outcome is None and not self.held.gone:
                self.held.pump.feed(descriptor, data)
            else:
                os.close(descriptor)

    def give_output_away(self, name: str) -> None:
        file: Any = getattr(self, name)
        setattr(self, name, None)
        if file is None or file.closed:
            return
        # Up to max_output, and what is over it is told by the Result; but where that has been judged: a pipe is what bounds that.
        collector: Collector = Collector(LARGEST_PIPE) if self.verdict else getattr(self.held.execution.supervisor, name)
        self.kept[name] = Kept(file, self.taps[name], collector)
        self.held.pump.collect(os.dup(file.fileno()), collector.feed)

    def send_signal(self, number: int) -> None:
        """Send a signal to the command itself, not to what it has started; harmless after the end.

        Raises:
            ConfigError: there is no such signal. UnsupportedError: Windows, but for SIGTERM, which ends the run.
        """
        self.held.ask(order_to_send(number))

    def terminate(self) -> None:
        """Send SIGTERM to the command; on Windows as kill()."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the whole tree, which is then cancelled; harmless after the end."""
        self.held.ask("kill")

    # --- and more ---

    def pause(self) -> None:
        """Stop the whole tree until resume(); its time goes on, and a timeout ends it. Without a cgroup v2, which a run has that has a
        limit of one, what continues itself or others is stopped again within some 20 ms.

        Raises:
            UnsupportedError: this system has nothing like it.
        """
        self.held.ask("pause")

    def resume(self) -> None:
        """Let the tree go on after pause()."""
        self.held.ask("resume")

    def set_size(self, rows: int, columns: int) -> None:
        """Set the size of the command's terminal, as of a window: who is in its foreground is told by SIGWINCH. Harmless after the end.

        Raises:
            ConfigError: it has no terminal (pty=True); no terminal has such a size.
        """
        check_size(self.held.execution.config, rows, columns)
        with self.held.changed:
            if not self.held.gone:
                self.held.execution.streams.set_size(rows, columns)

    def usage(self) -> LiveUsage:
        """Return what the run has used until now; after its end what it has used in all."""
        live = self.held.usage() if self.verdict is None else None
        if live is None:
            self.held.advance(lambda: False)
            end = self.conclude()
            return whole_usage(end)
        return live_usage(live)

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
            for file in (self.stdin, self.stdout, self.stderr, *(kept.file for kept in self.kept.values())):
                if file is not None:
                    with unread():
                        file.close()

    def ask_to_end(self) -> None:
        """Begin what close() waits for."""
        self.held.ask("end")

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
        if not getattr(self, "closed", True) and self.verdict is None and hasattr(self, "held") and os.getpid() == self.owner:
            try:
                warnings.warn(f"{self!r} was forgotten while it runs; use a with block or wait()", ResourceWarning, source=self, stacklevel=2)
            finally:  # a warning may be an error
                self.close()

    def __repr__(self) -> str:
        state = f"pid {self.pid}" if self.verdict is None and hasattr(self, "pid") else f"returncode {self.returncode}"
        return f"<Popen: {state}, args: {list(getattr(self, 'args', ()))!r}>"


def stream(
    args: Args,
    *,
    input: bytes | str | None = None,
    config: Config | None = None,
    sandbox: Sandbox | None = None,
    **overrides: Unpack[Options],
) -> Generator[Event, None, None]:
    """Run a command and yield what happens: Started, Output as it comes, Exited at the end.

    What comes is not kept: max_output holds for what is yielded of each stream, and the Result tells whether there was more. A command
    waits while nobody takes its events. Leaving the loop ends the run (where the generator has a name: its close(), or
    contextlib.closing()).

    Raises:
        ConfigError: a value is not valid, or stdout or stderr goes elsewhere. SandboxError: as run(), when the first event is asked for, which starts the command.
    """
    command = check_command(args)
    if sandbox is not None and config is None:
        config = sandbox.config
    events: deque[Event] = deque()
    whole = configured_for_events(config, overrides, input_bytes(input), lambda name: EventSink(name, events))
    return happenings(command, whole, sandbox, events)


def configured_for_events(
    config: Config | None, overrides: Mapping[str, Any], data: bytes | None, sink: Callable[[str], object]
) -> Config:
    """Return the Config of a run whose output becomes events. data: its input; sink: gives what takes the stream of that name.

    Raises:
        ConfigError: a value is not valid, or a stream goes elsewhere or comes from where nobody writes.
    """
    check_not_given(overrides)
    check_input(data, overrides)
    base = configured(config, overrides)
    check_free(base)
    if data is None and is_constant(base.stdin, PIPE):
        raise ConfigError("stdin", "PIPE", "stream() gives no handle to write to; pass input=..., or use Popen")
    streams: dict[str, Any] = {name: sink(name) for name in ("stdout", "stderr")}
    if base.pty:
        del streams["stderr"]  # a terminal has one output
    if data is not None:
        streams["stdin"] = data
    return base.replace(**streams)


def happenings(args: Args, config: Config, sandbox: Sandbox | None, events: deque[Event]) -> Generator[Event, None, None]:
    with Popen[bytes](args, config=config, sandbox=sandbox) as process:
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
            raise ConfigError(name, shown(overrides[name]), "stream() yields both; use run() or Popen to send them elsewhere")


def check_free(config: Config) -> None:
    """Refuse a Config that sends output to where stream() would not: of a terminal that is stdout.

    Raises:
        ConfigError: it does.
    """
    for name in ("stdout",) if config.pty else ("stdout", "stderr"):
        given = getattr(config, name)
        if not is_constant(given, CAPTURE) and not is_constant(given, PIPE):
            remedy = f"the Config has it, and stream() yields both; pass config.replace({name}=CAPTURE), or use run() or Popen"
            raise ConfigError(name, shown(given), remedy)


def order_to_send(number: int) -> str:
    """Return the word by which a signal is sent.

    Raises:
        ConfigError: there is no such signal.
    """
    if not isinstance(number, int) or not 1 <= number <= 64:
        raise ConfigError("signal", number, "must be the number of a signal, as signal.SIGTERM")
    return f"signal {int(number)}"


def check_size(config: Config, rows: int, columns: int) -> None:
    """Refuse what no terminal can be told.

    Raises:
        ConfigError: there is no terminal, or there is none of that size.
    """
    if not config.pty:
        raise ConfigError("pty", False, "only a terminal has a size; pass pty=True")
    for name, number in (("rows", rows), ("columns", columns)):
        if not isinstance(number, int) or not 1 <= number <= MOST_CELLS:
            raise ConfigError(name, number, f"must be a number from 1 to {MOST_CELLS}")


def whole_usage(end: Result) -> LiveUsage:
    """Return what a run that has ended has used in all."""
    return LiveUsage(end.execution_time, end.cpu_time.total, 0, 0, end.read_bytes, end.written_bytes)


def live_usage(live: Live) -> LiveUsage:
    """Return what is told of a run that goes on in a caller's units."""
    known = [None if value < 0 else value for value in (live.memory, live.disk_read, live.disk_written)]
    return LiveUsage(live.wall / 1e9, live.cpu / 1e9, known[0], live.tasks, known[1], known[2])


def check_bufsize(bufsize: int) -> None:
    """Refuse what no pipe could be opened with, before anything is started."""
    if not isinstance(bufsize, int):
        raise ConfigError("bufsize", bufsize, "must be a number of bytes, as in open()")


@contextlib.contextmanager
def unread() -> Iterator[None]:
    """Let it pass that nobody reads from a pipe any more, which is the command's right. Windows calls that EINVAL."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.EINVAL):
            raise


handles: weakref.WeakSet[Popen[Any]] = weakref.WeakSet()


def after_fork_in_child() -> None:
    """A child by os.fork() has no part in its parent's pipes: they would not end before it does, and what is buffered for them would be
    written twice. Their files stay open, on /dev/null.
    """
    for handle in list(handles):
        for tap in handle.taps.values():
            tap.rest = bytes
    files = [file for handle in list(handles) for file in (handle.stdin, handle.stdout, handle.stderr) if file and not file.closed]
    if files:
        null = os.open(os.devnull, os.O_RDWR)
        for file in files:
            os.dup2(null, file.fileno(), inheritable=False)
        os.close(null)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=after_fork_in_child)
