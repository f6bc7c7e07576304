"""Text instead of bytes: decoding, line ends, and Results of str."""

from __future__ import annotations

import json
import pickle
from typing import Any

import pytest
from support.results import sample_result

import proc_sandbox as ps
from proc_sandbox.text import Decoding, Encoder, as_text, check_decoding, input_bytes


def text_of(data: bytes, how: Decoding) -> str:
    return as_text(sample_result(stdout=ps.Output(data)), how).stdout


def test_without_any_of_the_three_output_stays_bytes() -> None:
    assert check_decoding(None, None, None) is None
    assert check_decoding(False, None, None) is None


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((True, None, None), Decoding("utf-8", None)),
        ((None, "latin-1", None), Decoding("latin-1", None)),
        ((False, None, "strict"), Decoding("utf-8", "strict")),
        ((True, "ascii", "ignore"), Decoding("ascii", "ignore")),
    ],
)
def test_encoding_or_errors_alone_ask_for_text(given: tuple[Any, Any, Any], expected: Decoding) -> None:
    assert check_decoding(*given) == expected


@pytest.mark.parametrize(
    ("field", "given"),
    [
        ("encoding", (True, "no-such", None)),
        ("encoding", (None, "hex", None)),
        ("encoding", (None, "rot13", None)),
        ("encoding", (None, "", None)),
        ("encoding", (None, "utf-8\0", None)),
        ("encoding", (None, 8, None)),
        ("errors", (True, None, "no-such")),
        ("errors", (None, None, "")),
        ("errors", (None, None, 8)),
    ],
)
def test_what_python_cannot_decode_with_is_refused_before_anything_runs(field: str, given: tuple[Any, Any, Any]) -> None:
    with pytest.raises(ps.ConfigError) as caught:
        check_decoding(*given)
    assert caught.value.field == field


def test_line_ends_become_newlines_as_in_subprocess() -> None:
    assert text_of(b"a\r\nb\rc\nd\r\n", Decoding()) == "a\nb\nc\nd\n"


def test_what_is_no_text_does_not_raise_unless_that_is_asked_for() -> None:
    assert text_of(b"ok \xff\xfe", Decoding()) == "ok \N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}"
    assert text_of(b"\xff", Decoding("utf-8", "surrogateescape")) == "\udcff"
    with pytest.raises(UnicodeDecodeError):
        text_of(b"\xff", Decoding("utf-8", "strict"))


def test_a_character_that_max_output_cut_is_shown_as_cut() -> None:
    assert text_of("na\N{LATIN SMALL LETTER I WITH DIAERESIS}ve".encode()[:3], Decoding()) == "na\N{REPLACEMENT CHARACTER}"


def test_input_is_encoded_as_output_is_decoded_and_keeps_its_line_ends() -> None:
    assert input_bytes(None) is None
    assert input_bytes("é\r\n") == b"\xc3\xa9\r\n"
    assert input_bytes("é", Decoding("latin-1")) == b"\xe9"
    assert input_bytes(b"\xff", Decoding("ascii")) == b"\xff"
    assert input_bytes("\udcff", Decoding("utf-8", "surrogateescape")) == b"\xff"


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "utf-16", "iso2022_jp", "idna"])
def test_input_in_pieces_is_encoded_as_the_whole(encoding: str) -> None:
    """With one byte order mark, and back in ASCII at the end."""
    words = "ab.cd" if encoding == "idna" else "aä1" if encoding == "latin-1" else "a日本"
    encoder = Encoder(Decoding(encoding))
    assert b"".join([*map(encoder.encode, words), encoder.finish()]) == words.encode(encoding)


def test_pieces_that_are_no_text_of_the_encoding_are_refused() -> None:
    with pytest.raises(ps.ConfigError, match="latin-1"):
        Encoder(Decoding("latin-1")).encode("€")
    assert Encoder(Decoding("latin-1", "ignore")).encode("€") == b""
    with pytest.raises(ps.ConfigError, match="bytes, or str"):
        Encoder().encode(5)
    assert Encoder(Decoding("latin-1")).encode(bytearray(b"\xff")) == b"\xff"


@pytest.mark.parametrize(("data", "how"), [("€", Decoding("latin-1")), ("\ud800", None)])
def test_input_that_cannot_be_encoded_is_refused(data: str, how: Decoding | None) -> None:
    with pytest.raises(ps.ConfigError) as caught:
        input_bytes(data, how)
    assert caught.value.field == "input"


def test_all_else_of_a_result_stays_as_it_is() -> None:
    result = sample_result(stdout=ps.Output(b"out\n"), stderr=ps.Output(b"err\n"))
    words = as_text(result, Decoding())
    assert (words.stdout, words.stderr) == ("out\n", "err\n")
    assert type(words) is ps.Result
    kept = {name: value for name, value in vars(result).items() if name not in ("stdout", "stderr")}
    assert {name: value for name, value in vars(words).items() if name not in ("stdout", "stderr")} == kept


def test_a_result_of_text_pickles_compares_hashes_and_is_json() -> None:
    result = sample_result(stdout=ps.Output(b"out\n"))
    words = as_text(result, Decoding())
    assert pickle.loads(pickle.dumps(words)) == words == as_text(result, Decoding())
    assert hash(words) == hash(as_text(result, Decoding()))
    assert json.loads(json.dumps(words.to_dict()))["stdout"] == "out\n"
    assert words.to_dict() == result.to_dict()


def test_what_no_encoding_can_hold_does_not_get_into_json() -> None:
    words = as_text(sample_result(stdout=ps.Output(b"a\xff")), Decoding("utf-8", "surrogateescape"))
    assert words.to_dict()["stdout"] == "a?"


def test_the_error_of_check_has_the_output_as_it_was_asked_for() -> None:
    words = as_text(sample_result(exit_code=3, stdout=ps.Output(b"out\n")), Decoding())
    with pytest.raises(ps.ExecutionError) as caught:
        words.check()
    assert (caught.value.output, caught.value.stderr) == ("out\n", "")
    assert pickle.loads(pickle.dumps(caught.value)).result == words


def test_a_result_can_be_written_with_its_parameter() -> None:
    assert ps.Result[str].__origin__ is ps.Result  # type: ignore[attr-defined]
