"""A Sandbox whose runs are awaited; see proc_sandbox.sandbox."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

from proc_sandbox.aio.apart import apart
from proc_sandbox.aio.calls import execute
from proc_sandbox.aio.handle import Popen
from proc_sandbox.aio.pieces import Input
from proc_sandbox.aio.room import Room
from proc_sandbox.config import Config
from proc_sandbox.execution import Args
from proc_sandbox.result import Result
from proc_sandbox.sandbox import MOST_READ, check_input, configured
from proc_sandbox.text import check_decoding

if TYPE_CHECKING:
    import os
    from types import TracebackType

    from typing_extensions import Self, Unpack

    from proc_sandbox.config import Options
    from proc_sandbox.pipeline import Command
    from proc_sandbox.text import BytesOptions, EitherOptions, EncodedOptions, TextOptions

__all__ = ["Sandbox"]


class Sandbox:
    """A Config and a private directory that stays from run to run, as proc_sandbox.Sandbox; for one event loop.

        async with aio.Sandbox(timeout=10) as box:
            await box.run(["sh", "-c", "echo 1 > file"])
            await box.run(["cat", "file"])

    The directory is made when the block is entered, and gone when it is left. Any number of tasks may have runs in it at once.

    Attributes: config.
    """

    def __init__(self, config: Config | None = None, **overrides: Unpack[Options]) -> None:
        self.config = configured(config, overrides)
        self.held = Room(self.config)

    @property
    def closed(self) -> bool:
        """Whether cleanup() was called."""
        return self.held.closed

    @property
    def directory(self) -> str | None:
        """Where the private directory lies on the host; None without one."""
        return self.held.directory

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
        check_input(input, overrides)
        self.held.opened()
        decoding = check_decoding(text, encoding, errors)
        return await execute(args, configured(self.config, overrides), input=input, check=check, decoding=decoding, room=self.held)

    def popen(self, args: Args, *, config: Config | None = None, limit: int = 1 << 16, **overrides: Unpack[Options]) -> Popen:
        """Return a handle to one command in this Sandbox, to be entered: async with box.popen(...) as process; see Popen. A config
        takes the place of the Sandbox's.

        Raises:
            SandboxClosedError: when it is entered, and the Sandbox is not open; nothing was started.
        """
        return Popen(args, config=config, sandbox=self, limit=limit, **overrides)

    def cmd(self, args: Args, **overrides: Unpack[Options]) -> Command:
        """Return a command that runs in this Sandbox, alone or in a pipeline: box.cmd(...) | box.cmd(...); see Command.

        Its run() waits in its thread, as pipelines know no loop: await asyncio.to_thread((one | other).run). cleanup() ends it.

        Raises:
            ConfigError: a value is not valid. SandboxClosedError: the Sandbox is not open.
        """
        return self.held.opened().cmd(args, **overrides)

    async def write(self, path: str | os.PathLike[str], data: bytes | str, *, mode: int = 0o644) -> None:
        """Write a file anew in the private directory, or the working_dir; as proc_sandbox.Sandbox.write(), in a thread. A task that is
        cancelled meanwhile waits until it is written.

        Raises:
            As proc_sandbox.Sandbox.write(). SandboxClosedError: the Sandbox is not open.
        """
        box = self.held.opened()
        await apart(lambda: box.write(path, data, mode=mode))

    async def read(self, path: str | os.PathLike[str], *, max_size: int | str = MOST_READ) -> bytes:
        """Return what a regular file in the private directory, or the working_dir, holds; as proc_sandbox.Sandbox.read(), in a thread.

        Raises:
            As proc_sandbox.Sandbox.read(). SandboxClosedError: the Sandbox is not open.
        """
        box = self.held.opened()
        return await apart(lambda: box.read(path, max_size=max_size))

    async def cleanup(self) -> None:
        """End the runs that are under way, which return as cancelled, handles' gently where they have a kill_grace; then remove the
        private directory.

        Harmless when done twice, and in a child by os.fork(). Returns when nothing is left, however often the task is cancelled
        meanwhile. Not to be awaited by what a run of it waits for, such as a sink.

        Raises:
            CancelledError: it was. OSError: the private directory could not be removed; it can be tried again.
        """
        await self.held.close()

    async def __aenter__(self) -> Self:
        await self.held.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is GeneratorExit:
            self.held.abandon()
        else:
            await self.held.close()
