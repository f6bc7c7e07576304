"""Windows' names for files: what can be granted and run, and what reads otherwise than it is written. Nothing is looked up here."""

from __future__ import annotations

import pytest

import proc_sandbox as ps
from proc_sandbox.backends.windows.survey import candidates, check_journal, check_path, locate
from proc_sandbox.host import Grant


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        ("C:\\data", "C:\\data"),
        ("c:/data/in", "c:\\data\\in"),
        ("\\\\?\\D:\\very\\long", "D:\\very\\long"),
        ("C:\\data\\..\\other", "C:\\data\\..\\other"),
        ("C:\\console\\auxiliary\\com10\\nullify", "C:\\console\\auxiliary\\com10\\nullify"),
        ("C:\\Program Files\\a.b.c", "C:\\Program Files\\a.b.c"),
    ],
)
def test_what_can_be_granted(written: str, plain: str) -> None:
    assert check_path("allowed_dirs", written) == plain


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("C:\\", "whole drive"),
        ("C:", "in full"),
        ("C:data", "in full"),
        ("\\data", "in full"),
        ("data", "in full"),
        ("\\\\server\\share\\dir", "share"),
        ("//server/share/dir", "share"),
        ("\\\\?\\UNC\\server\\share", "device"),
        ("\\\\?\\Volume{b75e2c83-0000-0000-0000-602f00000000}\\x", "device"),
        ("\\\\?\\GLOBALROOT\\Device\\HarddiskVolume1", "device"),
        ("\\\\.\\PhysicalDrive0", "device"),
        ("//./pipe/x", "device"),
        ("C:\\data\\NUL", "name of a device"),
        ("C:\\data\\con.txt", "name of a device"),
        ("C:\\data\\Com1", "name of a device"),
        ("C:\\data\\LPT\u00b2", "name of a device"),
        ("C:\\aux \\x", "name of a device"),
        ("C:\\data.\\x", "dots and blanks"),
        ("C:\\data \\x", "dots and blanks"),
        ("C:\\data\\...", "dots and blanks"),
        ("C:\\data:stream", "stream"),
        ("C:\\data\\file.txt::$DATA", "stream"),
    ],
)
def test_what_cannot(written: str, reason: str) -> None:
    with pytest.raises(ps.ConfigError, match=reason) as caught:
        check_path("allowed_dirs", written)
    assert (caught.value.field, caught.value.value) == ("allowed_dirs", written)


@pytest.mark.parametrize(
    ("name", "tried"),
    [
        ("python", ["python.com", "python.exe", "python.bat", "python.cmd"]),
        ("python.exe", ["python.exe", "python.exe.com", "python.exe.exe", "python.exe.bat", "python.exe.cmd"]),
        ("python3.11", ["python3.11", "python3.11.com", "python3.11.exe", "python3.11.bat", "python3.11.cmd"]),
    ],
)
def test_what_a_name_stands_for(name: str, tried: list[str]) -> None:
    assert list(candidates(name)) == tried


@pytest.mark.parametrize("place", ["C:\\Users\\me", "c:\\users\\ME\\local\\journal", "C:\\Users\\me\\local\\journal\\x"])
def test_the_journal_cannot_be_granted_for_writing(place: str) -> None:
    """Whoever writes there has the next caller take entries and labels of its choice away, with that caller's rights."""
    journal = "C:\\Users\\me\\local\\journal"
    check_journal(Grant(place, place, "read", True, 0, 0), journal)
    check_journal(Grant("C:\\Users\\me\\work", "C:\\Users\\me\\work", "write", True, 0, 0), journal)
    check_journal(Grant(place, place, "write", True, 0, 0), "")
    with pytest.raises(ps.ConfigError, match="for a later caller to undo"):
        check_journal(Grant(place, place, "write", True, 0, 0), journal)


@pytest.mark.parametrize("name", ["NUL", "con", "com1.exe", "x\\aux", "tool.exe ", "tool.bat.", "tool.exe:stream", "dir\\", "CONOUT$"])
def test_no_command_can_have_such_a_name(name: str) -> None:
    """As a batch file with a dot behind it was run by those who looked at the ending alone (CVE-2024-43402)."""
    with pytest.raises(ps.CommandNotFoundError, match="no file on Windows"):
        locate(name, ps.Config(), None)
