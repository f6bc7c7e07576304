"""Streams of the caller's that have to be awaited: where input comes from, and where output goes."""

from __future__ import annotations

import inspect
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

from proc_sandbox.aio.apart import Apart
from proc_sandbox.config import Config, Tee
from proc_sandbox.errors import ConfigError
from proc_sandbox.streams import CHUNK, descriptor_of, encode, whole

__all__ = ["Pieces", "awaited_input", "awaited_output", "in_threads", "may_block", "with_awaited_targets"]

Pieces = Callable[[], Awaitable[bytes]]
"""Each call gives the next piece of a stream, b"" at its end."""

IN_MEMORY = (io.BytesIO, io.StringIO)


def awaited_input(stream: object) -> Pieces | None:
    """Return the pieces of what has to be awaited: a coroutine method read(), or asynchronous iteration; None where it is neither."""
    read: Any = getattr(stream, "read", None)
    if read is not None:  # asyncio.StreamReader can be iterated too, but by lines, whose length has a limit
        return (lambda: checked(read(CHUNK))) if inspect.iscoroutinefunction(read) and descriptor_of(stream) is None else None
    if not hasattr(stream, "__aiter__"):
        return None
    iterator: AsyncIterator[Any] = stream.__aiter__()
    return lambda: next_of(iterator)


async def checked(reading: Awaitable[Any]) -> bytes:
    """Return a piece as bytes.

    Raises:
        ConfigError: it is neither bytes nor str.
    """
    piece = await reading
    if not isinstance(piece, (bytes, bytearray, memoryview, str)):
        raise ConfigError("input", piece, "every piece of it must be bytes")
    return bytes(encode(piece))  # type: ignore[arg-type]


async def next_of(iterator: AsyncIterator[Any]) -> bytes:
    """Return the next piece that is not empty."""
    while True:
        try:
            piece = await checked(iterator.__anext__())
        except StopAsyncIteration:
            return b""
        if piece:
            return piece


def may_block(stream: object) -> bool:
    """Return whether a file object may keep its reader waiting, for all that is known of it."""
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
