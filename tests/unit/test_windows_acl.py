"""Access control as text: what is put in can be taken out, and gives what it says and no more."""

from __future__ import annotations

import pytest
from support.fake_security import allows, inherited

from proc_sandbox.backends.windows.acl import entries, label, split, with_entries, without

ME, RUN, OTHER = "S-1-5-21-1-2-3-1001", "S-1-15-2-1-2-3-4-5-6-7", "S-1-15-2-1-2-3-4-5-6-77"
BEFORE = f"D:AI(D;;FW;;;BU)(A;;FA;;;{ME})(A;OICIID;FA;;;SY)(A;OICIID;FA;;;BA)"
READ_DATA, WRITE_DATA, DELETE, DELETE_CHILD, WRITE_DAC = 0x1, 0x2, 0x10000, 0x40, 0x40000


def test_what_is_put_in_can_be_taken_out() -> None:
    given = with_entries(BEFORE, entries("write", RUN, directory=True, top=True))
    assert given != BEFORE
    assert without(given, RUN) == BEFORE.replace("D:AI", "D:ARAI"), "AR is not kept: it has AI taken over"
    assert without(given, OTHER) == given


def test_denials_come_first_and_what_is_inherited_last() -> None:
    given = with_entries(BEFORE, [*entries("read", RUN, directory=True, top=True), *entries("deny_write", RUN, directory=True, top=True)])
    kinds = [(entry.strip("()").split(";")[0], "ID" in entry.split(";")[1]) for entry in split(given)[1]]
    assert kinds == sorted(kinds, key=lambda kind: (kind[1], kind[0] != "D"))


@pytest.mark.parametrize(
    ("kind", "allowed", "refused"),
    [
        ("read", [READ_DATA], [WRITE_DATA, DELETE, WRITE_DAC]),
        ("write", [READ_DATA, WRITE_DATA], [DELETE, DELETE_CHILD, WRITE_DAC]),
        ("deny_write", [], [READ_DATA, WRITE_DATA]),
    ],
)
def test_what_a_granted_directory_gives_itself(kind: str, allowed: list[int], refused: list[int]) -> None:
    given = with_entries("D:", entries(kind, RUN, directory=True, top=True))
    assert all(allows(given, [RUN], right) for right in allowed)
    assert not any(allows(given, [RUN], right) for right in refused)
    assert not any(allows(given, [OTHER], right) for right in allowed)


def test_what_is_made_in_a_writable_directory_can_be_deleted_and_not_taken_over() -> None:
    given = with_entries("D:", entries("write", RUN, directory=True, top=True))
    for directory in (False, True):
        below = inherited(given, directory=directory)
        assert allows(below, [RUN], READ_DATA | WRITE_DATA | DELETE)
        assert not allows(below, [RUN], WRITE_DAC)
        assert not allows(below, [RUN], DELETE_CHILD)
        assert without(below, RUN) == "D:ARAI"


def test_a_denial_below_a_writable_directory_holds() -> None:
    """The control first: without the denial what is inherited gives the write."""
    writable = inherited(with_entries("D:", entries("write", RUN, directory=True, top=True)), directory=True)
    read = with_entries(writable, entries("read", RUN, directory=True, top=True))
    assert allows(read, [RUN], WRITE_DATA)
    denied = with_entries(read, entries("deny_write", RUN, directory=True, top=True))
    assert allows(denied, [RUN], READ_DATA)
    assert not any(allows(denied, [RUN], right) for right in (WRITE_DATA, DELETE, WRITE_DAC))


def test_lists_of_other_kinds() -> None:
    assert with_entries("D:NO_ACCESS_CONTROL", entries("read", RUN, directory=False, top=True)) == "D:NO_ACCESS_CONTROL"
    conditional = '(XA;;FX;;;S-1-1-0;(@User.Title=="PM (acting)" && (Member_of {SID(BA)})))'
    assert split(f"D:P{conditional}(A;;FA;;;{ME})") == ("D:P", [conditional, f"(A;;FA;;;{ME})"])
    assert without(f"D:P{conditional}(A;;FA;;;{RUN})", RUN) == f"D:P{conditional}"
    for broken in ("D:(A;;FA;;;BA", "D:(A;;FA;;;BA)x"):
        with pytest.raises(ValueError, match="not an access control list"):
            split(broken)


def test_labels() -> None:
    assert label("low", directory=True) == "S:(ML;OICI;NW;;;LW)"
    assert label("medium", directory=False) == "S:(ML;;NW;;;ME)"


def test_layouts_of_structures() -> None:
    """x86-64: as Microsoft's headers lay them out."""
    from ctypes import sizeof

    from proc_sandbox.backends.windows import native_security as native

    sizes = {"SidAndAttributes": 16, "LuidAndAttributes": 12, "SecurityAttributes": 24, "FileInformation": 52}
    assert {name: sizeof(getattr(native, name)) for name in sizes} == sizes
    assert native.SecurityAttributes.descriptor.offset == 8
    assert native.SidAndAttributes.attributes.offset == 8
    for name, (_, _, arguments) in native.SIGNATURES.items():
        assert arguments, name


def test_what_this_system_does_not_have_is_an_error_when_it_is_called() -> None:
    import sys

    from proc_sandbox.backends.windows.native_security import NativeSecurity
    from proc_sandbox.backends.windows.winapi import ERROR_PROC_NOT_FOUND, Win32Error

    if sys.platform != "win32":
        with pytest.raises(Win32Error) as caught:
            NativeSecurity().container_sid("x")
        assert caught.value.code == ERROR_PROC_NOT_FOUND
