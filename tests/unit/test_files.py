"""Which paths of files in a Sandbox are taken, and as what."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

import proc_sandbox as ps
from proc_sandbox.backends.files import check_data, check_mode, components

NAMES = ("/host/box", "/tmp/work")


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("main.c", ("main.c",)),
        ("src//./main.c", ("src", "main.c")),
        (PurePosixPath("src/main.c"), ("src", "main.c")),
        ("/tmp/work/src/main.c", ("src", "main.c")),
        ("/host/box/a", ("a",)),
        ("...", ("...",)),
        ("a\\b:c", ("a\\b:c",)),
    ],
)
def test_good_paths(path: str | Path, parts: tuple[str, ...]) -> None:
    assert components(path, NAMES, windows=False) == parts


@pytest.mark.parametrize(
    "path", ["", ".", "/", "a/", "a/.", "..", "../a", "a/../b", "/etc/passwd", "/tmp/work", "/tmp/worker/a", "/tmp/work/../x", "a\0b", "\ud800", b"a", 5, None]
)
def test_bad_paths(path: object) -> None:
    with pytest.raises(ps.ConfigError) as caught:
        components(path, NAMES, windows=False)
    assert caught.value.field == "path"


@pytest.mark.parametrize("path", ["src/main.c", "src\\main.c", "C:\\box\\src/main.c"])
def test_good_paths_of_windows(path: str) -> None:
    assert components(path, ("C:\\box",), windows=True) == ("src", "main.c")


@pytest.mark.parametrize("path", ["..\\a", "C:a", "C:\\a", "a:stream", "nul", "src/NUL.txt", "com1", "a.", "a ", "a*", "\\\\?\\C:\\a", "\\a", "CONIN$"])
def test_bad_paths_of_windows(path: str) -> None:
    with pytest.raises(ps.ConfigError):
        components(path, ("C:\\box",), windows=True)


def test_data_and_mode() -> None:
    assert check_data("é") == b"\xc3\xa9"
    assert check_data(bytearray(b"x")) == b"x"
    assert check_mode(0o600) == 0o600
    for bad in (5, None, "\ud800"):
        with pytest.raises(ps.ConfigError):
            check_data(bad)
    for bad in (0o4755, -1, True, "644"):
        with pytest.raises(ps.ConfigError):
            check_mode(bad)
