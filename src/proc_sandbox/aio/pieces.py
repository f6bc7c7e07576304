"""Streams of the caller's that have to be awaited: where input comes from, and where output goes."""

from __future__ import annotations

import inspect
import io
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Protocol, TypeAlias

from proc_sandbox.aio.apart import Apart
from proc_sandbox.config import Config, Tee
from proc_sandbox.streams import CHUNK, EncodedInput, descriptor_of, whole
from proc_sandbox.text import Decoding, Encoder

__all__ = ["AsyncReadable", "Input", "Pieces", "awaited_input", "awaited_output", "in_threads", "may_block", "with_awaited_targets"]


class AsyncReadable(Protocol):
    """What has bytes, or text, piece by piece, and is awaited for each: an asyncio.StreamReader, or the like."""

    async def read(self, size: int, /) -> bytes | str:
        """Return at most that much; nothing at the end."""
        ...


Input: TypeAlias = bytes | str | AsyncIterable[bytes | str] | AsyncReadable
"""What a command reads from stdin."""

Pieces = Callable[[], Awaitable[bytes]]
"""Each call gives the next piece of a stream, b"" at its end."""

IN_MEMORY = (io.BytesIO, io.StringIO)


def awaited_input(stream: object, how: Decoding | None = None) -> Pieces | None:
    """Return the pieces of what has to be awaited: a coroutine method read(), or asynchronous iteration; None where it is neither.
    how: in which encoding, where it brings text.
    """
    read: Any = getattr(stream, "read", None)
    if read is not None:  # asyncio.StreamReader can be iterated too, but by lines, whose length has a limit
        awaitable = inspect.iscoroutinefunction(read) and descriptor_of(stream) is None
        return encoded(Reads(read), how) if awaitable else None
    return encoded(stream.__aiter__(), how) if hasattr(stream, "__aiter__") else None


class Reads:
    """What is read, until that is nothing. No generator, which somebody would have to close."""

    def __init__(self, read: Callable[[int], Awaitable[Any]]) -> None:
        self.read = read

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        if piece := await self.read(CHUNK):
            return piece
        raise StopAsyncIteration


def encoded(iterator: AsyncIterator[Any], how: Decoding | None) -> Pieces:
    """Return the pieces of an iterator: none of them is empty but the end."""
    encoder = Encoder(how)
    over = False

    async def following() -> bytes:
        nonlocal over
        while not over:
            try:
                piece = await iterator.__anext__()
            except StopAsyncIteration:
                over = True
                return encoder.finish()
            if data := encoder.encode(piece):
                return data
        return b""

    return following


def may_block(stream: object) -> bool:
    """Return whether a file object may keep its reader waiting, for all that is known of it."""
    if isinstance(stream, EncodedInput):
        stream = stream.stream
    return hasattr(stream, "read") and type(stream) not in IN_MEMORY


def in_threads(source: Iterator[bytes]) -> Pieces:
    """Return pieces that may block: each is read in a thread, for which who is cancelled does not wait."""

    async def read() -> bytes:
        job = Apart(lambda: next(source, b""))
        await job.done.wait()
        return job.result()

    return read


def awaited_output(stream: Any) -> Callable[[bytes], object] | None:
    """Return what writes to an asyncio.StreamWriter, or to another object that has a coroutine drain() beside write(); None for all
    others. What it returns is to be awaited before it is called again.
    """
    drain = getattr(stream, "drain", None)
    if drain is None or not inspect.iscoroutinefunction(drain) or descriptor_of(stream) is not None:
        return None
    write = whole(stream.write)

    def write_and_drain(data: bytes) -> object:
        write(data)
        return drain()

    return write_and_drain


def with_awaited_targets(config: Config) -> Config:
    """Return the Config with its Tees' targets as what is called with bytes, where it has to be awaited."""
    changes: dict[str, Any] = {}
    for name in ("stdout", "stderr"):
        stream = getattr(config, name)
        if isinstance(stream, Tee):
            changes[name] = Tee(*(awaited_output(target) or target for target in stream.targets))
    return config.replace(**changes) if changes else config
