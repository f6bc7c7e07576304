"""The Seatbelt profile of macOS: expected profiles as text, and that no path says more in one than its own name.

With PROC_SANDBOX_WRITE_EXPECTED=1 the expected ones are written anew: a change of them is a change of what is let through.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.behaviours import PROMISES

import proc_sandbox as ps
from proc_sandbox.host import Feature, Grant, Hidden, Host, Paths, SystemPath
from proc_sandbox.planner import compile_plan
from proc_sandbox.planner.ladder import choose
from proc_sandbox.planner.posix import seatbelt
from proc_sandbox.planner.posix.promises import DIFFERENCES, HELD_BY_SEATBELT, UNLIKE_LINUX

EXPECTED = Path(__file__).parent / "seatbelt"
MAC = Host("posix", {"seatbelt": Feature(True)})
WORK, PRIVATE = "/Users/ann/work", "/private/var/folders/x/T/proc-sandbox-1"


def grant(path: str, access: str = "read", *, directory: bool = True, source: str = "") -> Grant:
    return Grant(path, source or path, access, directory, 501, 20)


CASES: dict[str, tuple[dict[str, Any], Paths]] = {
    "bare": ({}, Paths()),
    "private": ({}, Paths(grants=(grant("/var/folders/x/T/proc-sandbox-1", "write"),), private=PRIVATE)),
    "directories": (
        {"working_dir": WORK, "read_only_dirs": [f"{WORK}/lib/fixed"], "allowed_dirs": ["/tmp/data", "/Users/ann/notes.txt"]},
        Paths(
            system=(SystemPath("/Users/ann/.venv", "dir"), SystemPath("/opt/py", "symlink", "/Users/ann/.venv")),
            grants=(
                grant(WORK, "write"),
                grant(f"{WORK}/lib/fixed"),
                grant("/tmp/data", source="/private/tmp/data"),
                grant("/Users/ann/notes.txt", directory=False),
            ),
        ),
    ),
    "hidden": (
        {"working_dir": WORK, "hidden_paths": [f"{WORK}/.env", f"{WORK}/deep/keys"]},
        Paths(
            grants=(grant(WORK, "write"),),
            hidden=(Hidden(f"{WORK}/.env", f"{WORK}/.env", False), Hidden(f"{WORK}/deep/keys", f"{WORK}/deep/keys", True)),
        ),
    ),
    "network": ({"network_access": True}, Paths()),
    "loopback": ({"network_access": "loopback", "enforcement": "best-effort"}, Paths()),
    "names": (
        {"working_dir": '/Users/ann/a"b\\c) (allow default', "allowed_dirs": ["/Users/ann/Größe 目录"]},
        Paths(grants=(grant('/Users/ann/a"b\\c) (allow default', "write"), grant("/Users/ann/Größe 目录"))),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_expected_profiles(name: str) -> None:
    values, paths = CASES[name]
    made = seatbelt.profile(ps.Config(**values), paths)
    file = EXPECTED / f"{name}.sb"
    if os.environ.get("PROC_SANDBOX_WRITE_EXPECTED"):
        file.write_text(made, encoding="utf-8")
    assert made == file.read_text(encoding="utf-8")


# --- what a profile says, read by a reader of its own ---


class Text(str):
    """A string in the profile, as against a symbol."""

    __slots__ = ()


def read(text: str) -> list[Any]:
    """Read S-expressions: lists, symbols, strings in which a backslash takes the next letter for itself, comments."""
    stack: list[list[Any]] = [[]]
    letters = iter(text)
    word = ""
    for letter in letters:
        if letter in '(); \n"' and word:
            stack[-1].append(word)
            word = ""
        if letter == "(":
            stack.append([])
        elif letter == ")":
            done = stack.pop()
            stack[-1].append(done)
        elif letter == '"':
            stack[-1].append(Text("".join(read_string(letters))))
        elif letter == ";":
            while next(letters, "\n") != "\n":
                pass
        elif letter not in " \n":
            word += letter
    assert len(stack) == 1, "a list that does not end"
    assert not word
    return stack[0]


def read_string(letters: Iterator[str]) -> Iterator[str]:
    for letter in letters:
        if letter == '"':
            return
        yield next(letters) if letter == "\\" else letter
    raise AssertionError("a string that does not end")


class Said(NamedTuple):
    """One filter of one operation of one rule."""

    verb: str
    operation: str
    kind: str
    path: str


def said(profile: str) -> list[Said]:
    """Return what a profile says of paths, in order."""
    found = []
    for verb, *rest in read(profile):
        operations = [item for item in rest if isinstance(item, str)]
        for item in rest:
            if isinstance(item, list) and item[0] in ("literal", "subpath"):
                found += [Said(verb, operation, item[0], item[1]) for operation in operations]
    return found


def decide(profile: str, operation: str, path: str) -> bool:
    """Return whether a profile lets an operation through: the last rule that matches, one for the exact operation before one
    for a wildcard.
    """
    answer = {True: False, False: False}
    for rule in said(profile):
        exact = rule.operation == operation
        if not exact and not (rule.operation.endswith("*") and operation.startswith(rule.operation[:-1])):
            continue
        if path == rule.path or rule.kind == "subpath" and path.startswith(rule.path + "/"):
            answer[exact] = rule.verb == "allow"
            if exact and rule.verb == "deny":
                return False
    return answer[True] or answer[False]


def shape(expression: Any) -> Any:
    """Return an expression without what its strings say."""
    if isinstance(expression, list):
        return tuple(shape(item) for item in expression)
    return "string" if isinstance(expression, Text) else expression


LETTERS = st.characters(exclude_characters="/\0", exclude_categories=("Cc", "Cs"))
COMPONENT = st.text(LETTERS, min_size=1, max_size=30).filter(lambda name: name not in (".", ".."))
HOSTILE = st.sampled_from(['"', "\\", '\\"', '") (subpath "/', "(allow default)", ";", "#|", "|#", "'", "`", ",@", "\u2028", "#t", "(param", '"))('])
NAME = st.one_of(COMPONENT, st.lists(st.one_of(HOSTILE, COMPONENT), min_size=1, max_size=6).map(lambda parts: "".join(parts).replace("/", "_")))
NESTED = st.lists(NAME, min_size=1, max_size=4).map(lambda parts: "/Users/" + "/".join(parts)).filter(lambda path: len(path.encode()) < 1000)


def profile_of(*grants: Grant) -> str:
    return seatbelt.profile(ps.Config(), Paths(grants=grants))


@given(NESTED, st.sampled_from(["read", "write"]), st.booleans())
def test_a_path_says_its_own_name_and_nothing_else(path: str, access: str, directory: bool) -> None:
    made = profile_of(grant(path, access, directory=directory))
    depth = path.count("/")
    plain = profile_of(grant("/Users/" + "/".join("zyxw"[: depth - 1]), access, directory=directory))
    assert sorted(map(repr, map(shape, read(made)))) == sorted(map(repr, map(shape, read(plain))))
    new = {rule.path for rule in said(made)} - {rule.path for rule in said(profile_of())}
    steps = path.split("/")
    assert new == {"/".join(steps[:count]) for count in range(2, len(steps) + 1)}


@given(st.text(max_size=40))
def test_any_text_is_a_string_or_is_refused(text: str) -> None:
    try:
        written = seatbelt.quoted("/" + text, "allowed_dirs")
    except ps.ConfigError:
        return
    assert read(f"({written})") == [[Text("/" + text)]]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/a\nb", "control"), ("/a\tb", "control"), ("/a\x7f", "control"), ("/a\0b", "control"), ("/a\udcff", "UTF-8"), ("a", "absolute"),
        ("//a", "absolute"), ("/a/../b", "absolute"), ("/a/", "absolute"), ("/" + "a" * 1023, "1023"), ("/" + "ä" * 512, "1023"),
    ],
)  # fmt: skip
def test_what_cannot_be_written_is_refused(path: str, reason: str) -> None:
    for refused in (grant(path), grant("/Users/x", source=path), grant(path, "write", directory=False)):
        with pytest.raises(ps.ConfigError, match=reason) as caught:
            profile_of(refused)
        assert caught.value.field in ("allowed_dirs", "writable_dirs")
    with pytest.raises(ps.ConfigError, match=reason):
        seatbelt.profile(ps.Config(), Paths(system=(SystemPath(path, "dir"),)))


def test_the_field_that_named_a_path_is_told() -> None:
    with pytest.raises(ps.ConfigError) as caught:
        seatbelt.profile(ps.Config(working_dir="/a\nb"), Paths(grants=(grant("/a\nb", "write"),)))
    assert caught.value.field == "working_dir"
    with pytest.raises(ps.ConfigError) as caught:
        seatbelt.profile(ps.Config(read_only_dirs=["/a\nb"]), Paths(grants=(grant("/a\nb"),)))
    assert caught.value.field == "read_only_dirs"


def test_the_root_is_never_a_tree() -> None:
    for refused in (grant("/", "write"), grant("/x", source="/")):
        with pytest.raises(ps.ConfigError, match="below the root"):
            profile_of(refused)
    assert "(subpath \"/\")" not in profile_of(grant("/", "read", directory=False))


def test_more_than_fits_is_refused() -> None:
    with pytest.raises(ps.ConfigError, match="bytes of rules"):
        profile_of(*(grant(f"/Users/{number:05}/{'d' * 100}") for number in range(2000)))


# --- what is let through ---

ROOT, INNER, DEEP = "/Users/w", "/Users/w/a/fixed", "/Users/w/a/fixed/open"


def test_what_is_read_only_in_a_writable_directory() -> None:
    made = profile_of(grant(INNER), grant(ROOT, "write"))
    assert decide(made, "file-write-data", f"{ROOT}/x")
    assert decide(made, "file-read-data", f"{INNER}/x")
    for path in (INNER, f"{INNER}/x"):
        assert not decide(made, "file-write-data", path)
        assert not decide(made, "file-write-unlink", path)
    for path in (ROOT, f"{ROOT}/a"):
        assert not decide(made, "file-write-unlink", path), "who moves it takes the rule off what it holds"
        assert decide(made, "file-write-create", f"{path}/new")


def test_what_is_writable_in_what_is_read_only_in_a_writable_directory() -> None:
    made = profile_of(grant(DEEP, "write"), grant(ROOT, "write"), grant(INNER))
    assert decide(made, "file-write-data", f"{DEEP}/x")
    assert not decide(made, "file-write-data", f"{INNER}/x")
    for path in (ROOT, INNER, DEEP):
        assert not decide(made, "file-write-unlink", path)


def test_a_file_is_not_a_tree() -> None:
    made = profile_of(grant("/Users/f", "write", directory=False))
    assert decide(made, "file-write-data", "/Users/f")
    assert not decide(made, "file-write-data", "/Users/f/x")
    assert not decide(made, "file-write-data", "/Users/f2")
    alone = profile_of(grant("/Users/w", "write"), grant("/Users/w/f", directory=False))
    assert not decide(alone, "file-write-data", "/Users/w/f")


def test_the_way_can_be_asked_for_and_not_listed() -> None:
    made = profile_of(grant("/tmp/data", source="/private/tmp/data"), grant("/Users/l/deep", source="/Users/ann/real"))
    for path in ("/tmp", "/private/tmp", "/Users", "/Users/l", "/Users/l/deep", "/Users/ann"):
        assert decide(made, "file-read-metadata", path), path
        assert not decide(made, "file-read-data", path), path
    assert decide(made, "file-read-data", "/private/tmp/data/x")
    assert not decide(made, "file-read-metadata", "/private/tmp/other")


def test_links_of_the_system_are_resolved() -> None:
    made = profile_of(grant("/tmp/d", "write"), grant("/tmp/d/fixed"), grant("/tmpx", "write"))
    assert decide(made, "file-write-data", "/private/tmp/d/x")
    assert not decide(made, "file-write-data", "/private/tmp/d/fixed/x")
    assert decide(made, "file-write-data", "/tmpx/x")
    assert not decide(made, "file-write-data", "/tmp/d/x")


@pytest.mark.parametrize("access", [False, "loopback", True])
def test_every_rule_but_the_known_ones_is_about_something_named(access: Any) -> None:
    made = seatbelt.profile(ps.Config(network_access=access, enforcement="best-effort"), Paths(grants=(grant("/Users/w", "write"),)))
    rules = read(made)
    assert rules[:2] == [["version", "1"], ["deny", "default"]]
    unfiltered = [rule for rule in rules if rule[0] == "allow" and not any(isinstance(item, list) for item in rule)]
    assert unfiltered == [["allow", "process-fork"]]
    assert ["allow", "process-info*", "signal", ["target", "same-sandbox"]] in rules
    operations = {item for rule in rules if rule[0] == "allow" for item in rule[1:] if isinstance(item, str)}
    assert not any(name.startswith(("ipc-", "iokit", "mach-register", "appleevent", "lsopen", "pseudo-tty", "file-ioctl", "file-mount")) for name in operations)
    assert any(name.startswith("network") for name in operations) == bool(access)
    if access == "loopback":
        assert "(remote ip)" not in made


def test_no_network_names_no_service_of_it() -> None:
    made = seatbelt.profile(ps.Config(), Paths())
    for text in ("configd", "trustd", "mDNSResponder", "resolv.conf", "net.routetable"):
        assert text not in made
        assert text in seatbelt.profile(ps.Config(network_access=True), Paths())


def test_each_name_has_its_reason() -> None:
    for table in (seatbelt.MACH_SERVICES, seatbelt.NETWORK_SERVICES, seatbelt.SYSCTLS, seatbelt.SYSTEM, UNLIKE_LINUX):
        assert all(all(item[:2]) for item in table)
    assert set(HELD_BY_SEATBELT) <= set(DIFFERENCES) <= set(PROMISES)
    names = [item.name for item in (*seatbelt.MACH_SERVICES, *seatbelt.NETWORK_SERVICES)]
    assert not any(part in name for name in names for part in ("launchservices", "lsd", "Security", "pasteboard", "windowserver", "cfprefsd"))
    assert not any("proc." in item.name for item in seatbelt.SYSCTLS)


# --- the command line, the ladder, the probe ---


def test_the_command_is_told_from_the_options() -> None:
    assert seatbelt.command_line("P", "/bin/echo", ["echo", "-p", "x"]) == ("sandbox-exec", "-p", "P", "--", "/bin/echo", "-p", "x")
    with pytest.raises(ps.ConfigError, match="full path"):
        seatbelt.command_line("P", "echo", ["echo"])


def test_the_rungs_say_what_does_not_hold() -> None:
    ladder = {name: (rung,) for name, rung in seatbelt.RUNGS.items()}
    held = {name: choose(name, ps.Config(), MAC, ladder)[1] for name in ladder}
    assert {name: how.strength for name, how in held.items() if isinstance(how, ps.Enforced)} == {
        "files": "kernel", "privileges": "kernel", "processes": "partial", "ipc": "kernel", "syscalls": "partial",
    }  # fmt: skip
    with pytest.raises(ps.UnsupportedError, match="caller is root"):
        choose("privileges", ps.Config(), Host("posix", MAC.features, root=True), ladder)
    without = Host("posix", {"seatbelt": seatbelt.NESTED})
    for name in ladder:
        with pytest.raises(ps.UnsupportedError, match="second profile"):
            choose(name, ps.Config(), without, ladder)


def test_the_network_on_macos() -> None:
    denied = seatbelt.network_enforcement(ps.Config(), MAC)
    assert isinstance(denied, ps.Enforced)
    assert "UNIX" in denied.mechanism
    assert isinstance(seatbelt.network_enforcement(ps.Config(network_access=True), Host("posix", {})), ps.Enforced)
    with pytest.raises(ps.UnsupportedError, match="one loopback network"):
        seatbelt.network_enforcement(ps.Config(network_access="loopback"), MAC)
    with pytest.raises(ps.UnsupportedError):
        seatbelt.network_enforcement(ps.Config(), Host("posix", {"seatbelt": seatbelt.MISSING}))
    lenient = seatbelt.network_enforcement(ps.Config(network_access="loopback", enforcement=ps.best_effort("network_access")), MAC)
    assert isinstance(lenient, ps.Unenforced)


@pytest.mark.parametrize(
    ("status", "text", "found"),
    [
        (0, "", Feature(True)),
        (None, "", seatbelt.MISSING),
        (71, "sandbox-exec: sandbox_apply: Operation not permitted\n", seatbelt.NESTED),
        (65, "sandbox-exec: <input string>:3:9:\n\tunbound variable: file-test-existence\n", "unbound variable"),
        (-6, "", "status -6"),
    ],
)
def test_only_a_clean_end_proves_a_profile(status: int | None, text: str, found: Feature | str) -> None:
    feature = seatbelt.trial_feature(status, text)
    if isinstance(found, str):
        assert not feature
        assert found in feature.reason
        assert feature.remedy
    else:
        assert feature == found


def test_a_terminal_of_its_own_is_refused() -> None:
    """It would have to be told from the caller's, which no ioctl(2) may reach."""
    with pytest.raises(ps.UnsupportedError, match="Seatbelt") as caught:
        compile_plan(ps.Config(pty=True, enforcement="best-effort"), ["tty"], MAC, Paths(executable="/usr/bin/tty"))
    assert caught.value.field == "pty"
