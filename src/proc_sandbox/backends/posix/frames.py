"""Messages on a stream socket: their length in four bytes, the most significant first, then their bytes.

macOS has no SOCK_SEQPACKET for AF_UNIX. launcher/posix/ reads and writes the same.
"""

from __future__ import annotations

import struct

__all__ = ["MOST", "Frames", "frame", "frame_at"]

HEAD = struct.Struct(">I")
MOST = 16 << 20
"""Bytes of a message; the monitor takes no more words."""


def frame(message: bytes) -> bytes:
    """Return a message as it is sent."""
    return HEAD.pack(len(message)) + message


def frame_at(data: bytearray, start: int) -> tuple[bytes, int] | None:
    """Return the message that begins there and where the next one does; None where it is not complete yet.

    Raises:
        ValueError: it would be larger than any that is ever sent.
    """
    if len(data) < start + HEAD.size:
        return None
    (size,) = HEAD.unpack_from(data, start)
    if size > MOST:
        raise ValueError(f"a message of {size} bytes")
    end = start + HEAD.size + size
    return (bytes(data[start + HEAD.size : end]), end) if len(data) >= end else None


class Frames:
    """Bytes in, messages out."""

    def __init__(self) -> None:
        self.buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Take what was read; return the messages that are complete now.

        Raises:
            ValueError: a message would be larger than any that is ever sent.
        """
        self.buffer += data
        messages = []
        read = 0
        while (found := frame_at(self.buffer, read)) is not None:
            message, read = found
            messages.append(message)
        del self.buffer[:read]
        return messages
