"""Text instead of bytes: what text=, encoding= and errors= of run() mean."""

import codecs
from typing import TYPE_CHECKING, Any, NamedTuple

from proc_sandbox.errors import ConfigError
from proc_sandbox.result import Result

if TYPE_CHECKING:
    from typing import Literal, TypedDict

    from typing_extensions import Required

    from proc_sandbox.config import Options

    # The ways to ask for bytes or for text, one for each overload of whatever returns output; and the same with the fields of Config.

    class InBytes(TypedDict, total=False):
        """Output that stays bytes."""

        text: Literal[False] | None
        encoding: None
        errors: None

    class InText(TypedDict, total=False):
        """Output as str."""

        text: Required[Literal[True]]
        encoding: str | None
        errors: str | None

    class Encoded(TypedDict, total=False):
        """Output as str, for there is an encoding."""

        text: bool | None
        encoding: Required[str]
        errors: str | None

    class InEither(TypedDict, total=False):
        """Output as only the program knows."""

        text: bool | None
        encoding: str | None
        errors: str | None

    class BytesOptions(InBytes, Options, total=False):
        """Fields of Config, and output as bytes."""

    class TextOptions(InText, Options, total=False):
        """Fields of Config, and output as str."""

    class EncodedOptions(Encoded, Options, total=False):
        """Fields of Config, and output as str in an encoding."""

    class EitherOptions(InEither, Options, total=False):
        """Fields of Config, and output as either."""


__all__ = ["Decoding", "Encoder", "as_asked", "as_text", "check_decoding", "decoded", "input_bytes"]


class Decoding(NamedTuple):
    """How output becomes str, and input that is str bytes. errors: None: output that is no text is shown as such, input refused."""

    encoding: str = "utf-8"
    errors: str | None = None


def check_decoding(text: bool | None, encoding: str | None, errors: str | None) -> Decoding | None:
    """Return how output is decoded; None: it stays bytes. As in subprocess, encoding or errors alone ask for text too.

    Raises:
        ConfigError: Python does not know such an encoding of text, or such a way to treat errors.
    """
    if not text and encoding is None and errors is None:
        return None
    how = Decoding("utf-8" if encoding is None else encoding, errors)
    try:
        b"x".decode(how.encoding, "replace")
    except (LookupError, ValueError, TypeError):  # UnicodeError is a ValueError: some codecs cannot replace
        raise ConfigError("encoding", encoding, 'must be an encoding of text that Python knows, as "utf-8"') from None
    try:
        codecs.lookup_error("replace" if errors is None else errors)
    except (LookupError, ValueError, TypeError):
        raise ConfigError("errors", errors, 'must be what bytes.decode() takes, as "replace" or "strict"') from None
    return how


def decoded(data: bytes, how: Decoding) -> str:
    """Return bytes as text with "\\n" at the end of lines, as subprocess does."""
    return data.decode(how.encoding, "replace" if how.errors is None else how.errors).replace("\r\n", "\n").replace("\r", "\n")


def as_text(result: Result, how: Decoding) -> Result[str]:
    """Return the result with its output as str.

    Raises:
        UnicodeDecodeError: the output is no such text, and the caller chose errors="strict" or its like.
    """
    changed: Result[str] = object.__new__(Result)
    changed.__dict__.update(result.__dict__, stdout=decoded(result.stdout, how), stderr=decoded(result.stderr, how))
    return changed


def as_asked(result: Result, how: Decoding | None, *, check: bool) -> Result[Any]:
    """Return the result as who has it run wants it. how: None: its output stays bytes.

    Raises:
        ExecutionError: it is not ok, and that is to be checked. UnicodeDecodeError: as as_text().
    """
    asked: Result[Any] = result if how is None else as_text(result, how)
    return asked.check() if check else asked


class Encoder:
    """Makes bytes of input that comes in pieces, as input_bytes() does of a whole; what is bytes already stays so."""

    def __init__(self, how: Decoding | None = None) -> None:
        self.how = how or Decoding()
        make = codecs.lookup(self.how.encoding).incrementalencoder
        # What has a state has it over all pieces: UTF-16 begins once with a byte order mark, ISO 2022 goes back at the end.
        self.encoder = make(self.how.errors or "strict") if make else None

    def encode(self, piece: object) -> bytes:
        """Return a piece as bytes, which may be none yet.

        Raises:
            ConfigError: it is neither bytes nor str, or a str that cannot be encoded.
        """
        if isinstance(piece, (bytes, bytearray, memoryview)):
            return bytes(piece)
        if not isinstance(piece, str):
            raise ConfigError("input", piece, "every piece of it must be bytes, or str")
        return self.words(piece, final=False)

    def finish(self) -> bytes:
        """Return what comes after the last piece."""
        return self.words("", final=True)

    def words(self, piece: str, *, final: bool) -> bytes:
        if self.encoder is None:
            return input_bytes(piece, self.how) or b""
        try:
            return self.encoder.encode(piece, final)
        except UnicodeEncodeError as error:
            raise ConfigError("input", piece, f"cannot be encoded as {self.how.encoding} ({error.reason}); pass bytes") from None


def input_bytes(data: bytes | str | None, how: Decoding | None = None) -> bytes | None:
    """Return what is fed to stdin; a str is encoded as output is decoded, and its lines end as they do.

    Raises:
        ConfigError: it is neither bytes nor str, or a str that cannot be encoded.
    """
    if data is None:
        return None
    if isinstance(data, str):
        encoding, errors = how or Decoding()
        try:
            return data.encode(encoding, errors or "strict")
        except UnicodeEncodeError as error:
            raise ConfigError("input", data, f"cannot be encoded as {encoding} ({error.reason}); pass bytes") from None
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data)
    raise ConfigError("input", data, "pass bytes or str; a file goes to stdin=")
