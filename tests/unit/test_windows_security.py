"""What a run is given and what is taken back, on a fake Windows that obeys access control: tokens, entries, the journal, directories."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
from support.fake_security import (
    ADD_FILE,
    DELETE_CHILD,
    DOMAIN_ADMINS,
    LIST,
    USER,
    USERS,
    WRITE_DATA,
    FakeSecurity,
    SecureWin32,
    fake_tools,
)
from support.windows import Changed, failing

import proc_sandbox as ps
from proc_sandbox.backends.windows.appcontainer import CallerGrants, Containment, undo
from proc_sandbox.backends.windows.journal import Entry, Journal, parse
from proc_sandbox.backends.windows.private import PrivateDirectory, remove_tree, sweep
from proc_sandbox.backends.windows.security import (
    CHANGE_NOTIFY,
    FILE_ATTRIBUTE_READONLY,
    FILE_ATTRIBUTE_REPARSE_POINT,
    LOW,
    SE_GROUP_USE_FOR_DENY_ONLY,
    WRITE_DAC,
)
from proc_sandbox.backends.windows.token import make_token
from proc_sandbox.backends.windows.tools import Tools
from proc_sandbox.backends.windows.winapi import DELETE, ERROR_ACCESS_DENIED, ERROR_INVALID_PARAMETER, Win32Error
from proc_sandbox.planner.windows.plan import Access
from proc_sandbox.planner.windows.plan import Token as Asked

READ_DATA = 0x1


@pytest.fixture
def tools(tmp_path: Path) -> Tools:
    return fake_tools(str(tmp_path / "journal"))


def parts(tools: Tools) -> tuple[SecureWin32, FakeSecurity]:
    return cast(SecureWin32, tools.win32), cast(FakeSecurity, tools.security)


def contain(tools: Tools, *access: Access, capabilities: tuple[str, ...] | None = ()) -> Containment:
    return Containment(tools.control, tools.security, tools.journal, tools.callers, capabilities, access)


def snapshot(tools: Tools) -> dict[str, tuple[str, str]]:
    win32, _ = parts(tools)
    return {path: (found.dacl, found.label) for path, found in win32.tree.items()}


# --- tokens ---


def test_a_restricted_token_has_neither_privileges_nor_mighty_groups(tools: Tools) -> None:
    win32, security = parts(tools)
    own = security.process_token(win32.current_process())
    assert set(security.privileges(own)) > {CHANGE_NOTIFY}, "the control: there is something to take"
    token = make_token(win32, security, Asked(integrity="low"))
    assert security.privileges(token) == (CHANGE_NOTIFY,)
    assert security.integrity(token) == LOW
    denied = {group.sid for group in security.groups(token) if group.attributes & SE_GROUP_USE_FOR_DENY_ONLY}
    assert denied == {"S-1-5-32-544", DOMAIN_ADMINS}
    assert USERS not in denied
    for handle in (own, token):
        win32.close(handle)
    assert not win32.own_handles()


@pytest.mark.parametrize(("name", "value"), [("privileges", ("SeDebugPrivilege",)), ("integrity", "S-1-16-8192")])
def test_a_token_that_did_not_lose_what_was_asked_for_is_refused(tools: Tools, name: str, value: object) -> None:
    win32, _ = parts(tools)
    lying = Changed(tools.security, **{name: lambda token: value})  # type: ignore[arg-type]
    with pytest.raises(ps.LaunchError, match="accepted and not kept"):
        make_token(win32, cast(FakeSecurity, lying), Asked(integrity="low"))
    assert not win32.own_handles()


# --- AppContainers and access ---


def test_a_run_reaches_what_it_was_granted_and_nothing_after_its_end(tools: Tools) -> None:
    win32, security = parts(tools)
    security.make("C:\\data\\in", directory=True)
    security.make("C:\\data\\in\\a.txt")
    security.make("C:\\data\\out", directory=True)
    before = snapshot(tools)
    run = contain(tools, Access("C:\\data\\in", "read"), Access("C:\\data\\out", "write"))
    sid = win32.sids[run.package]
    assert security.profiles
    assert security.may("C:\\data\\in\\a.txt", READ_DATA, sid)
    assert not security.may("C:\\data\\in\\a.txt", WRITE_DATA, sid)
    assert security.may("C:\\data\\out", ADD_FILE, sid)
    assert not security.may("C:\\data", LIST, sid), "nothing above"
    assert not security.may("C:\\data\\out", DELETE, sid), "what was granted stays"
    assert not security.may("C:\\data\\out", DELETE_CHILD, sid)
    other = contain(tools, Access("C:\\data\\in", "read"))
    assert not security.may("C:\\data\\out", ADD_FILE, win32.sids[other.package]), "each run is another one"
    made = security.make("C:\\data\\out\\result")
    assert security.may(made.path, WRITE_DATA, sid)
    run.close()
    assert not security.may(made.path, READ_DATA, sid)
    other.close()
    del win32.tree[made.path.lower()]
    assert snapshot(tools) == before
    assert (security.profiles, win32.sids, win32.own_handles()) == (set(), {}, [])
    assert os.listdir(tools.journal.directory) == []


def test_what_is_read_only_below_what_is_writable(tools: Tools) -> None:
    win32, security = parts(tools)
    security.make("C:\\data\\out", directory=True)
    security.make("C:\\data\\out\\inputs", directory=True)
    security.make("C:\\data\\out\\inputs\\case")
    writable = (Access("C:\\data\\out", "write"), Access("C:\\data\\out\\inputs", "read"))
    control = contain(tools, *writable)
    assert security.may("C:\\data\\out\\inputs\\case", WRITE_DATA, win32.sids[control.package]), "the control: without the denial"
    control.close()
    run = contain(tools, *writable, Access("C:\\data\\out\\inputs", "deny_write"))
    sid = win32.sids[run.package]
    assert security.may("C:\\data\\out\\inputs\\case", READ_DATA, sid)
    for path, right in (("inputs\\case", WRITE_DATA), ("inputs\\case", DELETE), ("inputs", DELETE), ("inputs", ADD_FILE)):
        assert not security.may(f"C:\\data\\out\\{path}", right, sid)
    run.close()


def test_no_link_is_followed_when_access_is_given_or_taken_back(tools: Tools) -> None:
    """A command that can write to a granted directory leaves a junction there for the next run to be led by."""
    win32, security = parts(tools)
    secret = security.make("C:\\secret", directory=True)
    inner = security.make("C:\\secret\\key")
    security.make("C:\\data\\out", directory=True)
    security.make("C:\\data\\out\\trap", link="C:\\secret")
    run = contain(tools, Access("C:\\data\\out", "write"))
    sid = win32.sids[run.package]
    assert security.may("C:\\data\\out", ADD_FILE, sid), "the control: the walk was made"
    assert not security.may("C:\\secret", LIST, sid)
    assert not security.may("C:\\secret\\key", READ_DATA, sid)
    kept = secret.dacl, inner.dacl
    run.close()
    assert (secret.dacl, inner.dacl) == kept


def test_a_directory_that_is_swapped_for_a_link_in_the_middle_of_the_walk(tools: Tools) -> None:
    win32, security = parts(tools)
    security.make("C:\\secret", directory=True)
    security.make("C:\\secret\\key")
    security.make("C:\\data\\out", directory=True)
    security.make("C:\\data\\out\\key")
    real = security.names

    def swapped(path: str) -> tuple[str, ...]:
        found = real(path)
        if path.endswith("\\out") and "c:\\data\\out\\key" in win32.tree:
            del win32.tree["c:\\data\\out\\key"]
            win32.tree["c:\\data\\out"].link = "C:\\secret"  # of which "C:\data\out\key" now is a file
        return found

    security.names = swapped  # type: ignore[method-assign]
    run = contain(tools, Access("C:\\data\\out", "write"))
    assert not security.may("C:\\secret\\key", READ_DATA, win32.sids[run.package])
    run.close()


def test_what_denies_us_keeps_nobody_from_the_rest(tools: Tools) -> None:
    """A command leaves a file whose list shuts its owner out too: no later run stumbles over it, none is given it."""
    win32, security = parts(tools)
    security.make("C:\\data\\a-trap", directory=True, dacl="D:P(A;;FA;;;SY)(A;;0x0;;;OW)")
    security.make("C:\\data\\a-trap\\inside")
    security.make("C:\\data\\work")
    run = contain(tools, Access("C:\\data", "write"))
    sid = win32.sids[run.package]
    assert security.may("C:\\data\\work", WRITE_DATA, sid)
    assert not security.may("C:\\data\\a-trap", LIST, sid)
    run.close()
    assert not security.may("C:\\data\\work", WRITE_DATA, sid)
    with pytest.raises(Win32Error) as caught:
        contain(tools, Access("C:\\data\\a-trap", "write"))
    assert caught.value.filename == "\\\\?\\C:\\data\\a-trap"


CONDITION = '(XA;;FR;;;WD;(@User.Title=="a) ; (b("))'
"""A list may hold texts of anybody's making. "Security Descriptor Definition Language for Conditional ACEs" """


def test_a_condition_that_looks_like_entries_keeps_nobody_from_the_rest(tools: Tools) -> None:
    """Whoever makes a file says what its list is: a command too."""
    win32, security = parts(tools)
    security.make("C:\\data\\a-trap", dacl=f"D:(A;;FA;;;{USER}){CONDITION}")
    security.make("C:\\data\\work")
    before = snapshot(tools)
    run = contain(tools, Access("C:\\data", "write"))
    assert security.may("C:\\data\\work", WRITE_DATA, win32.sids[run.package])
    run.close()
    assert snapshot(tools) == before
    assert os.listdir(tools.journal.directory) == []


@pytest.mark.parametrize("kind", ["write", "read"])
def test_a_list_that_cannot_be_read_keeps_nobody_from_the_rest(tools: Tools, kind: str) -> None:
    """A condition of garbage, as the kernel keeps it and nobody can write it down."""
    win32, security = parts(tools)
    trap = security.make("C:\\data\\a-trap")
    security.make("C:\\data\\work")
    before = snapshot(tools)
    real = security.dacl

    def unreadable(handle: int) -> str:
        if win32.final_path(handle) == trap.path:
            raise Win32Error("ConvertSecurityDescriptorToStringSecurityDescriptorW", ERROR_INVALID_PARAMETER)
        return real(handle)

    security.dacl = unreadable  # type: ignore[method-assign]
    run = contain(tools, Access("C:\\data", kind))
    assert security.may("C:\\data\\work", READ_DATA, win32.sids[run.package])
    run.close()
    assert snapshot(tools) == before


def test_what_cannot_be_taken_back_keeps_nothing_else_from_it(tools: Tools) -> None:
    win32, security = parts(tools)
    for name in ("a", "a\\1", "a\\2", "b"):
        security.make(f"C:\\data\\{name}", directory=True)
    run = contain(tools, Access("C:\\data\\a", "write"), Access("C:\\data\\b", "write"))
    sid = win32.sids[run.package]
    real = security.set_dacl

    def stubborn(handle: int, text: str) -> None:
        if win32.final_path(handle).endswith(("\\1", "\\b")):
            raise Win32Error("SetKernelObjectSecurity", ERROR_ACCESS_DENIED)
        real(handle, text)

    security.set_dacl = stubborn  # type: ignore[method-assign]
    with pytest.warns(ResourceWarning, match="could not be taken back"):
        run.close()
    assert [name for name in ("a", "a\\1", "a\\2", "b") if security.may(f"C:\\data\\{name}", LIST, sid)] == ["a\\1", "b"]
    assert not security.profiles
    security.set_dacl = real  # type: ignore[method-assign]
    tools.journal.sweep(lambda entry: undo(tools.control, security, entry))
    assert not any(security.may(f"C:\\data\\{name}", LIST, sid) for name in ("a\\1", "b"))


@pytest.mark.parametrize(("kind", "capabilities"), [("write", ()), ("low", None)])
def test_a_directory_on_the_way_that_is_swapped_for_a_link(tools: Tools, kind: str, capabilities: tuple[str, ...] | None) -> None:
    """By a run that can write above what another run is given: after its path was looked at, before it is opened."""
    win32, security = parts(tools)
    security.make("C:\\secret", directory=True)
    security.make("C:\\secret\\inner", directory=True).label = "S:(ML;;NW;;;HI)"
    security.make("C:\\data\\way", directory=True)
    security.make("C:\\data\\way\\inner", directory=True)
    contain(tools, Access("C:\\data\\way\\inner", kind), capabilities=capabilities).close()
    run = contain(tools, Access("C:\\data\\way\\inner", kind), capabilities=capabilities)
    del win32.tree["c:\\data\\way\\inner"]
    security.make("C:\\data\\way", link="C:\\secret")
    before = snapshot(tools)
    run.close()
    assert snapshot(tools) == before, "nothing is taken away there"
    with pytest.raises(Win32Error) as caught:
        contain(tools, Access("C:\\data\\way\\inner", kind), capabilities=capabilities)
    assert caught.value.filename == "\\\\?\\C:\\data\\way\\inner"
    assert snapshot(tools) == before


def test_runs_at_one_time_do_not_undo_one_another(tools: Tools) -> None:
    win32, security = parts(tools)
    runs = [contain(tools, Access("C:\\data", "read")) for _ in range(3)]
    sids = [win32.sids[run.package] for run in runs]
    runs[1].close()
    assert [security.may("C:\\data", LIST, sid) for sid in sids] == [True, False, True]
    for run in (runs[0], runs[2]):
        run.close()


def test_capabilities_are_the_networks_and_the_callers(tools: Tools) -> None:
    win32, security = parts(tools)
    security.make("C:\\Python", directory=True)
    interpreter = Access("C:\\Python", "read", holder="caller")
    first = contain(tools, interpreter, capabilities=("internetClient",))
    second = contain(tools, interpreter)
    assert win32.sids[first.capabilities[0]] == "S-1-15-3-1"
    (shared,) = (win32.sids[address] for address in second.capabilities)
    assert shared == win32.sids[first.capabilities[1]]
    assert security.may("C:\\Python", LIST, shared)
    first.close()
    second.close()
    assert security.may("C:\\Python", LIST, shared), "as long as the caller lives"
    tools.callers.take_back()
    assert not security.may("C:\\Python", LIST, shared)
    assert os.listdir(tools.journal.directory) == []


@pytest.mark.parametrize("function", ["create_profile", "set_dacl"])
def test_a_step_that_fails_leaves_nothing(tools: Tools, function: str) -> None:
    win32, security = parts(tools)
    before = snapshot(tools)
    broken = Changed(security, **{function: failing(function, ERROR_ACCESS_DENIED)})
    control = type(tools.control)(win32, cast(FakeSecurity, broken))
    with pytest.raises(Win32Error):
        Containment(control, cast(FakeSecurity, broken), tools.journal, tools.callers, (), [Access("C:\\data", "read")])
    assert snapshot(tools) == before
    assert (security.profiles, win32.sids, win32.own_handles()) == (set(), {}, [])
    assert os.listdir(tools.journal.directory) == []


def test_labels_are_as_they_were(tools: Tools) -> None:
    win32, security = parts(tools)
    security.make("C:\\data\\own", directory=True).label = "S:(ML;;NW;;;HI)"
    before = snapshot(tools)
    run = contain(tools, Access("C:\\data", "low"), capabilities=None)
    assert run.package == 0
    assert {win32.tree[path].label for path in ("c:\\data", "c:\\data\\own")} == {"S:(ML;OICI;NW;;;LW)"}
    run.close()
    assert snapshot(tools) == before


# --- the journal ---


def test_what_a_killed_caller_has_left_is_undone_by_the_next(tools: Tools) -> None:
    win32, security = parts(tools)
    before = snapshot(tools)
    dead = contain(tools, Access("C:\\data", "write"))
    dead_sid = win32.sids[dead.package]
    assert dead.written
    dead.written.leave()  # what the system does to a process that ends
    assert security.may("C:\\data", ADD_FILE, dead_sid)
    again = Journal(tools.journal.directory)
    again.sweep(lambda entry: undo(tools.control, security, entry))
    assert snapshot(tools) == before
    assert security.profiles == set()
    assert os.listdir(tools.journal.directory) == []


def test_the_journal_knows_all_before_it_is_done(tools: Tools) -> None:
    """Whenever the caller dies: what is in the access control is in the journal."""
    _, security = parts(tools)
    seen = []
    real = security.set_dacl

    def spied(handle: int, text: str) -> None:
        (name,) = os.listdir(tools.journal.directory)
        entry = parse(Path(tools.journal.directory, name).read_text())
        assert entry
        seen.append((entry.paths, entry.sid in text, entry.profile in security.profiles))
        real(handle, text)

    security.set_dacl = spied  # type: ignore[method-assign]
    contain(tools, Access("C:\\data", "read")).close()
    assert seen[0] == (["C:\\data"], True, True)


def test_an_entry_that_cannot_be_undone_stays(tools: Tools) -> None:
    run = contain(tools, Access("C:\\data", "read"))
    broken = Changed(tools.security, delete_profile=failing("DeleteAppContainerProfile", ERROR_ACCESS_DENIED))
    run.security = cast(FakeSecurity, broken)
    with pytest.warns(ResourceWarning, match="the next run tries again"):
        run.close()
    with pytest.warns(ResourceWarning, match="could not be undone"):
        tools.journal.sweep(lambda entry: undo(tools.control, cast(FakeSecurity, broken), entry))
    assert len(os.listdir(tools.journal.directory)) == 1
    tools.journal.sweep(lambda entry: undo(tools.control, tools.security, entry))
    assert os.listdir(tools.journal.directory) == []
    assert parts(tools)[1].profiles == set()


@pytest.mark.parametrize("text", ["", '{"profile": "half'])
def test_a_caller_that_died_while_it_wrote_had_done_nothing(tools: Tools, text: str) -> None:
    os.makedirs(tools.journal.directory)
    Path(tools.journal.directory, f"run-{'0' * 16}.json").write_text(text)
    Path(tools.journal.directory, "notes.txt").write_text("not ours")
    tools.journal.sweep(lambda entry: pytest.fail(f"undone: {entry}"))
    assert os.listdir(tools.journal.directory) == ["notes.txt"]


def test_an_entry_that_another_caller_takes_at_the_same_time(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes what we have just renamed, for that is an entry like others; and once more what we have just closed."""
    for number in range(2):
        tools.journal.begin(Entry(sid=f"S-1-2-{number}")).leave()
    taken: list[str] = []
    real = os.rename

    def raced(path: str, place: str) -> None:
        real(path, place)
        taken.append(place)
        os.unlink(place)

    monkeypatch.setattr(os, "rename", raced)
    tools.journal.sweep(lambda entry: pytest.fail(f"undone: {entry}"))
    assert len(taken) == 2
    monkeypatch.undo()
    written = tools.journal.begin(Entry())
    monkeypatch.setattr(written, "leave", lambda: (type(written).leave(written), os.unlink(written.path)))
    written.done()


def test_what_another_caller_finishes_when_we_have_closed_it(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    tools.journal.begin(Entry(sid="S-1-2-3")).leave()
    real = os.unlink
    monkeypatch.setattr(os, "unlink", lambda path: (real(path), real(path)))
    tools.journal.sweep(lambda entry: None)
    assert list(tools.journal.left()) == []


@pytest.mark.parametrize("line", ['{"from": "another version"}', "not json", "[]", '{"sid": "\udcff"}'])
def test_an_entry_that_nobody_can_read_keeps_nobody_from_running(tools: Tools, line: str) -> None:
    os.makedirs(tools.journal.directory)
    odd = Path(tools.journal.directory, f"run-{'0' * 16}.json")
    odd.write_bytes(line.encode("utf-8", "surrogateescape") + b"\n")
    tools.journal.begin(Entry(sid="S-1-2-3")).leave()
    undone: list[Entry] = []
    with pytest.warns(ResourceWarning, match="could not be undone"):
        tools.journal.sweep(undone.append)
    assert undone == [Entry(sid="S-1-2-3")]
    assert len(list(tools.journal.left())) == 1


def test_the_last_whole_line_counts() -> None:
    assert parse('{"sid": "a"}\n{"sid": "b", "paths": ["x"]}\n{"sid": "c') == Entry(sid="b", paths=["x"])


# --- private directories ---


def test_a_private_directory_is_the_users_own(tools: Tools) -> None:
    win32, security = parts(tools)
    own = PrivateDirectory(tools, USER)
    dacl = win32.tree[own.path.lower()].dacl
    assert dacl.startswith("D:P"), "nothing from above"
    assert not security.may(own.path, LIST, "S-1-1-0", USERS)
    with pytest.raises(Win32Error):
        security.move(own.path, "C:\\elsewhere")
    sweep(tools, USER)
    assert own.path.lower() in win32.tree, "it is in use"
    own.remove()
    own.remove()
    assert own.path.lower() not in win32.tree
    assert not win32.own_handles()


def test_whatever_a_command_left_is_removed_and_no_link_is_followed(tools: Tools) -> None:
    win32, security = parts(tools)
    outside = security.make("C:\\data\\precious")
    own = PrivateDirectory(tools, USER)
    security.make(f"{own.path}\\read-only").attributes |= FILE_ATTRIBUTE_READONLY
    security.make(f"{own.path}\\junction", link="C:\\data")
    security.make(f"{own.path}\\NUL")
    security.make(f"{own.path}\\dot.")
    denied = security.make(f"{own.path}\\denied", directory=True, dacl="D:P")
    security.make(f"{denied.path}\\inside", dacl=f"D:P(D;;FA;;;{USER})")
    place = own.path
    for level in range(300):
        place = security.make(f"{place}\\level-{level}", directory=True).path
    assert len(place) > 2000
    security.make(f"{place}\\file")
    own.remove()
    assert not [path for path in win32.tree if "proc-sandbox-private" in path]
    assert outside.path.lower() in win32.tree
    assert not win32.own_handles()


def test_no_path_grows_beyond_what_windows_takes(tools: Tools) -> None:
    """A command can build a deeper tree than any path can name, by moving directories into one another."""
    _, security = parts(tools)
    own = PrivateDirectory(tools, USER)
    place = own.path
    for _ in range(8):
        place = security.make(f"{place}\\{'x' * 200}", directory=True).path
    longest = 0
    real = security.move

    def measured(path: str, target: str) -> None:
        nonlocal longest
        longest = max(longest, len(path), len(target))
        real(path, target)

    security.move = measured  # type: ignore[method-assign]
    own.remove()
    assert longest < len(own.path) + 300


def test_a_directory_of_a_dead_caller_is_swept(tools: Tools) -> None:
    win32, security = parts(tools)
    own = PrivateDirectory(tools, USER)
    security.make(f"{own.path}\\file")
    own.hold()  # what the system does to a process that ends
    own.forgotten.detach()
    sweep(tools, USER)
    assert not [path for path in win32.tree if "proc-sandbox-private" in path]


def test_what_cannot_be_removed_is_said_and_can_be_tried_again(tools: Tools) -> None:
    win32, security = parts(tools)
    own = PrivateDirectory(tools, USER)
    file = security.make(f"{own.path}\\open")
    file.opened.append(0)  # somebody has it open, a virus scanner
    with pytest.raises(Win32Error):
        own.remove()
    file.opened.clear()
    own.remove()
    assert own.path.lower() not in win32.tree


def test_a_sandbox_that_was_forgotten(tools: Tools) -> None:
    win32, _ = parts(tools)
    path = PrivateDirectory(tools, USER).path
    assert path.lower() not in win32.tree
    remaining = [entry for entry in win32.tree if "private" in entry]
    assert not remaining


def test_another_users_directory_is_left_alone(tools: Tools) -> None:
    win32, security = parts(tools)
    foreign = security.make("C:\\Temp\\proc-sandbox-private-0123456789abcdef", directory=True, dacl="D:P(A;;FA;;;SY)(A;;FR;;;OW)")
    win32.tree["c:\\temp"].dacl = f"D:P(A;;0x7;;;{USER})"  # list and add, as C:\Windows\Temp
    sweep(tools, USER)
    assert foreign.path.lower() in win32.tree


def test_a_junction_in_the_place_of_a_private_directory_is_not_followed(tools: Tools) -> None:
    """Where others can make directories beside ours (a service's C:\\Windows\\Temp), and where a command can write to the place of a dead
    caller's.
    """
    win32, security = parts(tools)
    precious = security.make("C:\\data\\precious")
    trap = security.make("C:\\Temp\\proc-sandbox-private-0123456789abcdef", link="C:\\data")
    sweep(tools, USER)
    assert precious.path.lower() in win32.tree
    assert trap.path.lower() in win32.tree, "it is not one of our directories"
    remove_tree(tools, trap.path)
    assert precious.path.lower() in win32.tree
    assert trap.path.lower() not in win32.tree


def test_a_directory_that_becomes_a_junction_when_it_is_moved(tools: Tools) -> None:
    """By a process that has outlived its run: it holds a handle to an empty directory, of which it can make a junction."""
    win32, security = parts(tools)
    precious = security.make("C:\\data\\precious")
    own = PrivateDirectory(tools, USER)
    security.make(f"{own.path}\\inner", directory=True)
    real = security.move

    def led_away(path: str, place: str) -> None:
        real(path, place)
        moved = win32.at(place)
        moved.link, moved.attributes = "C:\\data", moved.attributes | FILE_ATTRIBUTE_REPARSE_POINT

    security.move = led_away  # type: ignore[method-assign]
    own.remove()
    assert precious.path.lower() in win32.tree
    assert not [path for path in win32.tree if "proc-sandbox-private" in path]


def test_only_what_this_user_owns_is_swept(tools: Tools) -> None:
    """Somebody else's, open to all, could become a junction at any moment."""
    win32, security = parts(tools)
    name = "C:\\Temp\\proc-sandbox-private-0123456789abcdef"
    foreign = security.make(name, directory=True, dacl="D:P(A;OICI;FA;;;S-1-1-0)" + f"(A;;FA;;;{USER})")
    foreign.owner = "S-1-5-21-10-20-30-1002"
    sweep(tools, USER)
    assert foreign.path.lower() in win32.tree
    foreign.owner = USER
    sweep(tools, USER)
    assert foreign.path.lower() not in win32.tree, "the control"


def test_the_owner_of_what_a_command_made_may_not_change_its_access(tools: Tools) -> None:
    """The same user, but in an AppContainer: else it could shut us out of what it leaves."""
    win32, security = parts(tools)
    own = PrivateDirectory(tools, USER)
    run = contain(tools, Access(own.path, "write"))
    sid = win32.sids[run.package]
    made = security.make(f"{own.path}\\made")
    assert security.may(made.path, WRITE_DATA, sid)
    assert not security.may(made.path, WRITE_DAC, sid)
    run.close()
    own.remove()


def test_the_tree_of_somebody_elses_making(tools: Tools) -> None:
    with pytest.raises(Win32Error):
        remove_tree(tools, "C:\\Temp\\missing")


def test_the_callers_grants_are_taken_back_at_its_exit(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of one who made no Sandbox, and so has nothing else to end."""
    import atexit

    kept: list[Callable[[], object]] = []
    monkeypatch.setattr(atexit, "register", kept.append)
    tools.callers.give([Access("C:\\data", "read", holder="caller")])
    (end,) = kept
    end()
    assert list(tools.journal.left()) == []


def test_the_callers_grants_once(tools: Tools) -> None:
    grants = CallerGrants(tools.control, tools.security, tools.journal)
    item = Access("C:\\data", "read", holder="caller")
    assert grants.give([item]) == grants.give([item])
    (name,) = os.listdir(tools.journal.directory)
    grants.take_back()
    grants.take_back()
    assert not os.path.exists(os.path.join(tools.journal.directory, name))
