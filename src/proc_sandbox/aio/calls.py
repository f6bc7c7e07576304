"""run(), awaited."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

from proc_sandbox.aio.admission import Gate
from proc_sandbox.aio.pieces import Input
from proc_sandbox.aio.room import Guest, Room
from proc_sandbox.aio.runs import abandon, driver_for, end, start, take
from proc_sandbox.config import Config, check_command
from proc_sandbox.execution import Args
from proc_sandbox.result import Result
from proc_sandbox.sandbox import check_input, configured
from proc_sandbox.streams import check_streams
from proc_sandbox.text import Decoding, as_asked, check_decoding

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from proc_sandbox.config import Options
    from proc_sandbox.text import BytesOptions, EitherOptions, EncodedOptions, TextOptions

__all__ = ["execute", "run"]


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

    - input, and a file object as stdin, may be an asyncio.StreamReader or another AsyncReadable; input may be an asynchronous
      iterator of bytes, or of text, too. The next piece is asked for when the command has taken the one before.
    - A file object as stdout or stderr is called in the loop. It may be an asyncio.StreamWriter, or its write() may be a coroutine:
      then nothing more is read until that has returned.
    - Without limit() as many runs are under way in one loop as a tenth of the descriptors that this process may have (the soft
      RLIMIT_NOFILE: 102 of 1,024; on Windows 100); the others wait for their turn.

    Raises:
        CancelledError: the task was cancelled; the command and all that it has started is gone.
        As proc_sandbox.run(). And what a stream of the caller's raises, when the run has been killed for it.
    """
    check_input(input, overrides)
    decoding = check_decoding(text, encoding, errors)
    return await execute(args, configured(config, overrides), input=input, check=check, decoding=decoding)


async def execute(
    args: Args,
    config: Config,
    *,
    input: Input | None,
    check: bool,
    decoding: Decoding | None = None,
    room: Room | None = None,
) -> Result[Any]:
    """Do one run; room: where it is."""
    command = check_command(args)
    check_streams(config)
    driver = driver_for(config, input, decoding)
    places: list[Gate] = []
    try:
        await take(places)
        with Guest(room) as guest:
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
