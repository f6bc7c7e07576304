"""Messages on a stream socket: their length in four bytes, the most significant first, then their bytes.

macOS has no SOCK_SEQPACKET for AF_UNIX. launcher/posix/ reads and writes the same.
"""

from __future__ import annotations

import struct

__all__ = ["MOST", "Frames", "frame"]

HEAD = struct.Struct(">I")
MOST = 16 << 20
"""Bytes of a message; the monitor takes no more words."""


def frame(message: bytes) -> bytes:
    """Return a message as it is sent."""
    return HEAD.pack(len(message)) + message


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
        found = []
        while len(self.buffer) >= HEAD.size:
            (size,) = HEAD.unpack_from(self.buffer)
            if size > MOST:
                raise ValueError(f"a message of {size} bytes")
            end = HEAD.size + size
            if len(self.buffer) < end:
                break
            found.append(bytes(self.buffer[HEAD.size : end]))
            del self.buffer[:end]
        return found
