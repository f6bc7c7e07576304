"""The names of the package, awaitable: for asyncio and what drives its tasks (uvloop, anyio on asyncio).

    from proc_sandbox import aio

    result = await aio.run(["python3", "untrusted.py"], timeout=5)

The event loop itself moves the run's bytes and hears of its end: no thread waits for it, and a slow reader or writer of the caller's
slows the command down. A task that is cancelled kills its run's whole tree, waits until nothing is left of it, however often it is
cancelled meanwhile, and is cancelled then; so asyncio.timeout() and asyncio.wait_for() do the right thing. The Config's own timeout
is a Result, as ever.

A short-lived thread does what may block: what the first run has to wait for; starts of runs whose streams are named by paths, and
all starts on the POSIX backend; a Sandbox's making and removal; each read() from a file object that is neither a descriptor nor in
memory. On Windows, whose default loop can watch no run, a thread waits for each; else nothing is different there.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias, overload

from proc_sandbox import sandbox
from proc_sandbox.aio.admission import Gate, Limit, limit
from proc_sandbox.aio.apart import apart, patiently
from proc_sandbox.aio.handle import Popen, stream
from proc_sandbox.aio.runs import Driver, abandon, driver_for, end, start, take
from proc_sandbox.config import Config, check_command
from proc_sandbox.errors import SandboxClosedError
from proc_sandbox.execution import Args
from proc_sandbox.result import Result
from proc_sandbox.sandbox import check_input, configured
from proc_sandbox.streams import check_streams
from proc_sandbox.text import Decoding, as_asked, check_decoding, input_bytes

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from proc_sandbox.backends.protocol import Run
    from proc_sandbox.config import Options
    from proc_sandbox.text import BytesOptions, EitherOptions, EncodedOptions, TextOptions

__all__ = ["Limit", "Popen", "Sandbox", "limit", "run", "stream"]

Input: TypeAlias = "bytes | str | AsyncIterable[bytes]"
"""What a command reads from stdin."""


@overload
async def run(
    args: Args, *, input: Input | None = None, check: bool = False, config: Config | None = None, **options: Unpack[BytesOptions]
) -> Result: ...


@overload
async def run(
    args: Args, *, input: Input | None = None, check: bool = False, config: Config | None = None, **options: Unpack[TextOptions]
) -> Result[str]: ...


@overload
async def run(
    args: Args, *, input: Input | None = None, check: bool = False, config: Config | None = None, **options: Unpack[EncodedOptions]
) -> Result[str]: ...


@overload
async def run(
    args: Args, *, input: Input | None = None, check: bool = False, config: Config | None = None, **options: Unpack[EitherOptions]
) -> Result[Any]: ...


async def run(
    args: Args,
    *,
    input: Input | None = None,
    check: bool = False,
    text: bool | None = None,
    encoding: str | None = None,
    errors: str | None = None,
    config: Config | None = None,
    **overrides: Unpack[Options],
) -> Result[Any]:
    """Run one command in a sandbox of its own and return the verdict; as proc_sandbox.run(), but for this:

    - input, and a file object as stdin, may be an asyncio.StreamReader or another object whose read() is a coroutine; input may be
      an asynchronous iterator of bytes too. The next piece is asked for when the command has taken the one before.
    - A file object as stdout or stderr is called in the loop. It may be an asyncio.StreamWriter, or its write() may be a coroutine:
      then nothing more is read until that has returned.
    - Without limit() as many runs are under way in one loop as a tenth of the descriptors that this process may have (the soft
      RLIMIT_NOFILE: 102 of 1,024; on Windows 100); the others wait for their turn.

    Raises:
        CancelledError: the task was cancelled; the command and all that it has started is gone.
        As proc_sandbox.run(). And what a stream of the caller's raises, when the run has been killed for it.
    """
    check_input(input, overrides)  # type: ignore[arg-type]
    decoding = check_decoding(text, encoding, errors)
    return await execute(args, configured(config, overrides), input=input, check=check, decoding=decoding)


async def execute(
    args: Args,
    config: Config,
    *,
    input: Input | None,
    check: bool,
    decoding: Decoding | None = None,
    box: Sandbox | None = None,
) -> Result[Any]:
    """Do one run; box: whose it is."""
    if isinstance(input, str):
        input = input_bytes(input, decoding)
    command = check_command(args)
    check_streams(config)
    driver = driver_for(config, input) if config.pty else Driver(config, input)
    places: list[Gate] = []
    try:
        await take(places)
        with Guest(box) as guest:
            one = await start(command, driver, guest.directory)
            try:
                guest.hold(one.run)
                outcome = await driver.communicate(one)
            except GeneratorExit:  # the task is thrown away with its loop: nothing can be awaited any more
                abandon(one, driver)
                raise
            except BaseException:
                await end(one, driver)
                raise
            await end(one, driver)
    finally:
        for place in places:
            place.leave()
    result = one.result(outcome)
    return as_asked(result, decoding, check=check)


class Guest:
    """A run in a Sandbox's directory, or in none."""

    def __init__(self, box: Sandbox | None) -> None:
        self.box = box
        self.run: Run[Any] | None = None
        self.end: Callable[[], object] | None = None
        self.directory: str | None = None

    def __enter__(self) -> Guest:
        if self.box is not None:
            self.box.check_open()
            self.directory = self.box.directory
            self.box.guests.add(self)
            self.box.empty.clear()
        return self

    def hold(self, run: Run[Any], end: Callable[[], object] | None = None) -> None:
        """Have the run that has begun ended by cleanup(), at once if that has been called meanwhile. end: default: it is killed."""
        self.run, self.end = run, end or run.kill
        if self.box is not None and self.box.closed:
            self.end()

    def let_go(self) -> None:
        """There is nothing to be ended any more, but to be waited for."""
        self.run = self.end = None

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()

    def leave(self) -> None:
        """Tell who waits in cleanup() that the run is over; harmless when done twice."""
        if self.box is not None:
            self.box.guests.discard(self)
            if not self.box.guests and not self.box.loop.is_closed():
                self.box.empty.set()


class Sandbox:
    """A Config and a private directory that stays from run to run, as proc_sandbox.Sandbox; for one event loop.

        async with aio.Sandbox(timeout=10) as box:
            await box.run(["sh", "-c", "echo 1 > file"])
            await box.run(["cat", "file"])

    The directory is made when the block is entered, and gone when it is left. Any number of tasks may have runs in it at once.

    Attributes: config; closed.
    """

    def __init__(self, config: Config | None = None, **overrides: Unpack[Options]) -> None:
        self.config = configured(config, overrides)
        self.closed = False
        self.owner = os.getpid()
        self.box: sandbox.Sandbox | None = None
        self.guests: set[Guest] = set()
        self.empty = asyncio.Event()
        self.empty.set()

    @property
    def directory(self) -> str | None:
        """Where the private directory lies on the host; None without one."""
        return self.box.directory if self.box is not None else None

    @overload
    async def run(
        self, args: Args, *, input: Input | None = None, check: bool = False, **options: Unpack[BytesOptions]
    ) -> Result: ...

    @overload
    async def run(
        self, args: Args, *, input: Input | None = None, check: bool = False, **options: Unpack[TextOptions]
    ) -> Result[str]: ...

    @overload
    async def run(
        self, args: Args, *, input: Input | None = None, check: bool = False, **options: Unpack[EncodedOptions]
    ) -> Result[str]: ...

    @overload
    async def run(
        self, args: Args, *, input: Input | None = None, check: bool = False, **options: Unpack[EitherOptions]
    ) -> Result[Any]: ...

    async def run(
        self,
        args: Args,
        *,
        input: Input | None = None,
        check: bool = False,
        text: bool | None = None,
        encoding: str | None = None,
        errors: str | None = None,
        **overrides: Unpack[Options],
    ) -> Result[Any]:
        """Run one command; see run().

        Raises:
            SandboxClosedError: the block has not been entered, or cleanup() was called; nothing was started.
        """
        check_input(input, overrides)  # type: ignore[arg-type]
        self.check_open()
        decoding = check_decoding(text, encoding, errors)
        return await execute(args, configured(self.config, overrides), input=input, check=check, decoding=decoding, box=self)

    def popen(self, args: Args, *, config: Config | None = None, **overrides: Unpack[Options]) -> Popen:
        """Return a handle to one command in this Sandbox, to be entered: async with box.popen(...) as process; see Popen. A config
        takes the place of the Sandbox's.

        Raises:
            SandboxClosedError: when it is entered, and the Sandbox is not open; nothing was started.
        """
        return Popen(args, config=config, sandbox=self, **overrides)

    def guest(self) -> Guest:
        """Return what stands for a run here, to be entered."""
        return Guest(self)

    def check_open(self) -> None:
        if self.box is None:
            raise SandboxClosedError("this Sandbox is not open yet: async with aio.Sandbox(...) as box")
        if self.closed:
            raise SandboxClosedError("this Sandbox is closed; make a new one")

    async def cleanup(self) -> None:
        """End the runs that are under way, which return as cancelled, handles' gently where they have a kill_grace; then remove the
        private directory.

        Harmless when done twice, and in a child by os.fork(). Returns when nothing is left, however often the task is cancelled
        meanwhile. Not to be awaited by what a run of it waits for, such as a sink.

        Raises:
            CancelledError: it was. OSError: the private directory could not be removed; it can be tried again.
        """
        self.closed = True
        if os.getpid() != self.owner:
            return
        for guest in self.guests:
            if guest.end is not None:
                guest.end()
        late: asyncio.CancelledError | None = None
        try:
            await patiently(self.empty)
        except asyncio.CancelledError as error:
            late = error
        if self.box is not None:
            await apart(self.box.cleanup)
        if late is not None:
            raise late

    def kill_all(self) -> None:
        for guest in self.guests:
            if guest.run is not None:
                guest.run.kill()

    async def __aenter__(self) -> Sandbox:
        if self.closed:
            self.check_open()
        self.loop = asyncio.get_running_loop()
        if self.box is None:
            self.box = await apart(lambda: sandbox.Sandbox(self.config), sandbox.Sandbox.cleanup)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not GeneratorExit:
            await self.cleanup()
            return
        self.closed = True  # the task is thrown away: nothing can be awaited
        if self.box is not None and os.getpid() == self.owner:
            self.kill_all()
            self.box.cleanup()
