"""What people read is made of visible characters, in one line: in logs, on terminals, in comments of policies.

What is shown may come from a command, or be named by one: a path, an argument, an error's text. It is not to end a line and begin one
that looks like ours, and not to do anything to a terminal.
"""

from __future__ import annotations

__all__ = ["printable"]


def printable(text: str) -> str:
    """Return a text with everything escaped that is no visible character: control characters, line ends, marks that turn the
    direction of writing, bytes that are no text.
    """
    return text if text.isprintable() else "".join(char if char.isprintable() else escaped(char) for char in text)


def escaped(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is no text: os.fsdecode()
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
