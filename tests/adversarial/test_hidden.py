"""What is hidden in a granted directory: nothing of it is read, it stays where it is, and no later run finds it elsewhere."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.processes import library_path
from support.programs import FORBIDDEN, HANG, READ_ONLY, ROOT, act, assert_escapes, assert_refused, inside, text

import proc_sandbox as ps
from proc_sandbox.planner.linux import filesystem

NOTHING = frozenset({errno.ENODATA})
"""What the acts say where there was nothing to be found."""
UNPRIVILEGED = 65534


def fill(project: Path) -> list[Path]:
    """Make a project with secrets in it; return what is to be hidden."""
    (project / "deep" / "er").mkdir(parents=True)
    (project / "keys").mkdir()
    secrets = [project / ".env", project / "deep" / "er" / "token", project / "keys" / "key"]
    for path in secrets:
        path.write_text("the secret that nobody is to find")
    (project / "plain").write_text("plain")
    return [*secrets[:2], project / "keys"]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    directory = tmp_path / "project"
    fill(directory)
    return directory


def hidden_in(project: Path) -> list[Path]:
    return [project / ".env", project / "deep" / "er" / "token", project / "keys"]


def snapshot(project: Path) -> dict[str, object]:
    return {
        str(path.relative_to(project)): (path.lstat().st_mode, path.lstat().st_nlink, path.read_bytes() if path.is_file() else b"")
        for path in project.rglob("*")
    }


READING: list[tuple[str, tuple[str, ...]]] = [
    ("find_content", (".env",)),
    ("find_content", ("{project}/.env",)),
    ("find_content", ("keys/key",)),
    ("find_content", ("deep/er/token",)),
    ("find_content", ("/proc/self/root{project}/.env",)),
    ("find_content", ("/proc/self/cwd/.env",)),
    ("find_content", ("/proc/self/task/../cwd/deep/../.env",)),
    ("find_by_descriptor", (".env",)),
    ("find_by_descriptor", ("deep/er/token",)),
    ("find_entry", ("keys",)),
    ("find_anywhere", ("{project}",)),
]
STAYING: list[tuple[str, tuple[str, ...]]] = [
    *((name, (".env",)) for name in ("unlink", "write", "append", "truncate", "write_mapped", "chmod", "utime")),
    *((name, ("keys",)) for name in ("rmdir", "chmod", "utime")),
    ("rename", (".env", "other")),
    ("rename", ("keys", "other")),
    ("rename", ("plain", ".env")),
    ("exchange", (".env", "plain")),
    ("exchange", ("deep", "keys")),
    ("link", (".env", "other")),
    ("create", ("keys/new",)),
    ("mkdir", ("keys/new",)),
    ("unnamed", ("keys",)),
    ("rename", ("deep", "other")),
    ("rename", ("deep/er", "deep/other")),
    ("rename", ("deep/er", "other")),
]
MOUNTING: list[tuple[str, tuple[str, ...]]] = [
    *((name, (path,)) for name in ("unmount", "mount_tmpfs", "remount") for path in (".env", "keys")),
    ("bind", (".", "deep")),
    ("open_by_handle", (".env",)),
]
ACTS = [
    *((name, words, NOTHING | READ_ONLY | {errno.ENOENT}) for name, words in READING),
    *((name, words, READ_ONLY | {errno.ENOTEMPTY}) for name, words in STAYING),
    *((name, words, FORBIDDEN) for name, words in MOUNTING),
]


def command_of(name: str, words: tuple[str, ...], project: Path) -> list[str]:
    return act(name, *(word.format(project=project) for word in words))


@pytest.mark.parametrize("field", ["working_dir", "writable_dirs", "read_only_dirs", "allowed_dirs"])
@pytest.mark.parametrize(("name", "words"), READING)
def test_it_is_not_read(project: Path, field: str, name: str, words: tuple[str, ...]) -> None:
    config: dict[str, Any] = {field: project if field == "working_dir" else [project]}
    changed = command_of("in_directory", (str(project), name, *words), project)
    control = inside(changed, **config)
    assert "ESCAPED" in text(control), f"the control did not work: {control}"
    assert_refused(inside(changed, **config, hidden_paths=hidden_in(project)), NOTHING | {errno.ENOENT})


@pytest.mark.parametrize(("name", "words"), STAYING)
def test_it_stays_where_it_is(project: Path, tmp_path: Path, name: str, words: tuple[str, ...]) -> None:
    if name != "rmdir":
        fill(tmp_path / "control")
        assert_escapes(act(name, *words), cwd=tmp_path / "control")
    before = snapshot(project)
    result = inside(command_of(name, words, project), working_dir=project, hidden_paths=hidden_in(project))
    assert_refused(result, READ_ONLY | {errno.ENOTEMPTY})
    assert snapshot(project) == before


@pytest.mark.parametrize(("name", "words"), MOUNTING)
def test_it_is_not_uncovered(project: Path, name: str, words: tuple[str, ...]) -> None:
    result = inside(command_of(name, words, project), working_dir=project, hidden_paths=hidden_in(project))
    assert_refused(result, FORBIDDEN)


@pytest.mark.skipif(not ROOT, reason="without root the tests above are that")
def test_an_unprivileged_callers_secrets_are_as_safe(tmp_path: Path) -> None:
    """All of it again, of a user who has no rights of his own on the host."""
    place = Path(shutil.copytree(library_path(), f"/var/tmp/{tmp_path.parent.name}-{tmp_path.name}"))
    try:
        project = place / "project"
        fill(project)
        for path in (project, *project.rglob("*")):
            os.chown(path, UNPRIVILEGED, UNPRIVILEGED)
        code = """
import json, sys
sys.path.insert(0, sys.argv[1])
import proc_sandbox as ps
project, hidden, commands = json.load(sys.stdin)
try:
    for command in commands:
        result = ps.run(command, working_dir=project, hidden_paths=hidden, timeout=60)
        print(json.dumps([result.stdout.text(), result.stderr.text()]))
except ps.UnsupportedError as error:
    print(json.dumps(str(error)))
"""
        commands = [command_of(name, words, project) for name, words, _ in ACTS]
        given = json.dumps([str(project), [str(path) for path in hidden_in(project)], [["/usr/bin/python3", *words[1:]] for words in commands]])
        options: dict[str, Any] = {"user": UNPRIVILEGED, "group": UNPRIVILEGED, "extra_groups": [], "cwd": "/", "env": {"PATH": "/usr/bin:/bin"}}
        done = subprocess.run(["/usr/bin/python3", "-c", code, place], input=given, capture_output=True, text=True, timeout=HANG, check=True, **options)
        said = [json.loads(line) for line in done.stdout.splitlines()]
        if isinstance(said[0], str):
            pytest.skip(f"not for that user: {said[0]}")
        assert len(said) == len(ACTS)
        for (name, words, errors), (output, complaint) in zip(ACTS, said, strict=True):
            lines = output.split()
            assert "TRIED" in lines, (name, words, complaint)
            assert "ESCAPED" not in lines, (name, words)
            assert int(lines[lines.index("REFUSED") + 1]) in errors, (name, words, output)
    finally:
        shutil.rmtree(place)


MOVED = ["sh", "-c", "mv deep moved"]
LOOK = ["sh", "-c", "cat deep/er/token moved/er/token 2> /dev/null"]


@pytest.mark.usefixtures("nothing_on_the_way")
def test_without_that_a_later_run_finds_it_by_another_name(project: Path) -> None:
    config: dict[str, Any] = {"working_dir": project, "hidden_paths": hidden_in(project)}
    assert text(inside([*MOVED[:2], f"{MOVED[2]}; {LOOK[2]}"], **config)) == "", "in the same run it stays hidden"
    assert text(inside(LOOK, **config)) == "the secret that nobody is to find"


def test_no_later_run_finds_it_by_another_name(project: Path) -> None:
    config: dict[str, Any] = {"working_dir": project, "hidden_paths": hidden_in(project)}
    assert not inside(MOVED, **config).ok
    assert text(inside(LOOK, **config)) == ""
    assert inside(["sh", "-c", "mv deep/er/token here || mv plain deep/er/"], **config).ok, "by mv(1), which copies"
    assert sorted(os.listdir(project / "deep" / "er")) == ["plain", "token"]


def test_it_is_seen_as_empty_and_unwritable(project: Path) -> None:
    script = "stat -c '%F %a %s' .env keys; cat .env; ls -A keys; cat plain; echo x > .env || echo x > keys/new || echo refused"
    result = inside(["sh", "-c", script], working_dir=project, hidden_paths=hidden_in(project))
    assert text(result) == "regular empty file 444 0\ndirectory 555 40\nplainrefused\n"
    assert isinstance(result.enforcement["hidden_paths"], ps.Enforced)
    assert (project / ".env").read_text() == "the secret that nobody is to find"


def test_what_does_not_exist_or_is_not_granted_hides_nothing(project: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("x")
    result = inside(["cat", "plain"], working_dir=project, hidden_paths=[project / "missing", project / "plain" / "x", tmp_path / "elsewhere"])
    assert text(result) == "plain"
    how = result.enforcement["hidden_paths"]
    assert how == ps.Enforced(f"nothing of it is to be seen; not there: {str(project / 'missing')!r}, {str(project / 'plain' / 'x')!r}")
    plan: Any = ps.plan(["true"], working_dir=project, hidden_paths=[project / "missing"])
    assert not any(filesystem.EMPTY in mount.target for mount in plan.mounts)


def test_a_slip_of_the_pen_is_told(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    wrong = project / ".evn"
    with caplog.at_level("WARNING", "proc_sandbox"):
        for _ in range(2):
            result = inside(["cat", ".env", "plain"], working_dir=project, hidden_paths=[wrong, project / "keys"])
    assert text(result) == "the secret that nobody is to findplain", "as nothing is of that name"
    told = f"a read-only mount of nothing over each; not there: {str(wrong)!r}"
    assert result.enforcement["hidden_paths"] == ps.Enforced(told)
    assert told in ps.plan(["true"], working_dir=project, hidden_paths=[wrong, project / "keys"]).describe()
    said = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert [level for level, _ in said] == ["WARNING"], "once for each"
    assert f"{str(wrong)!r} is not there" in said[0][1]


def test_what_a_preset_does_not_find_is_no_slip_of_the_pen(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It names only what there is."""
    with caplog.at_level("WARNING", "proc_sandbox"):
        result = ps.run(["true"], config=ps.Config.preset("agent", working_dir=tmp_path))
    assert result.ok
    assert not caplog.records


def test_it_is_hidden_by_every_name_that_a_link_gives_it(project: Path, tmp_path: Path) -> None:
    """The project is granted by a link and has both names; what is hidden is named by a link of the caller's own."""
    (tmp_path / "other").symlink_to(project)
    (tmp_path / "to-env").symlink_to("other/.env")
    look = ["cat", project / ".env", tmp_path / "other" / ".env"]
    assert text(inside(look, working_dir=tmp_path / "other")) == "the secret that nobody is to find" * 2
    for name in (project / ".env", tmp_path / "other" / ".env", tmp_path / "to-env"):
        assert text(inside(look, working_dir=tmp_path / "other", hidden_paths=[name])) == ""


# In a mount namespace of the test's own, where {place}/data is also {place}/mnt and {place}/far/data.
BOUND = """
import os, subprocess, sys
import proc_sandbox as ps
place, = sys.argv[1:]
data, mnt, far = f"{place}/data", f"{place}/mnt", f"{place}/far of all"
for name in (f"{data}/sub/deep", mnt, f"{far}/data"):
    os.makedirs(name)
open(f"{data}/sub/deep/secret", "w").write("the secret that nobody is to find")
subprocess.run(["mount", "--bind", data, mnt], check=True)
subprocess.run(["mount", "--bind", f"{data}/sub", f"{far}/data"], check=True)
names = [f"{data}/sub/deep/secret", f"{mnt}/sub/deep/secret", f"{far}/data/deep/secret"]
look = ["sh", "-c", 'for name; do cat "$name" 2> /dev/null; done; true', "sh", *names]
write = ["sh", "-c", 'for name; do echo evil > "$name"; mv "${name%/*}" "${name%/*}.old"; done; true', "sh", *names]
for shown in ({"working_dir": place}, {"allowed_dirs": [place]}, {"allowed_dirs": [mnt]}, {"working_dir": f"{far}/data"}):
    print("control", ps.run(look, **shown).stdout.text())
    for name in names:
        for hidden in (name, os.path.dirname(name)):
            print("hidden", repr(ps.run(look, **shown, hidden_paths=[hidden]).stdout.text()))
for writable in (place, mnt, far):
    for name in names:
        ps.run(write, working_dir=writable, read_only_dirs=[os.path.dirname(name)])
        print("kept", os.listdir(f"{data}/sub"), open(names[0]).read())
try:
    ps.run(["true"], allowed_dirs=[f"{mnt}/sub/deep"], hidden_paths=[data])
except ps.ConfigError as error:
    print("refused", error)
ps.run(write, working_dir=mnt)
print("evil", os.listdir(f"{data}/sub"))
"""


@pytest.mark.skipif(not ROOT, reason="only root can mount")
def test_it_is_hidden_by_every_name_that_a_mount_gives_it(tmp_path: Path) -> None:
    """And what is only to be read is so by each of them, though the directory around it is writable."""
    command = ["unshare", "--mount", "--propagation", "private", sys.executable, "-c", BOUND, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANG, check=False)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert [line for line in said if line.startswith("control")] == [
        f"control {'the secret that nobody is to find' * count}" for count in (3, 3, 1, 1)
    ]
    assert [line for line in said if line.startswith("hidden")] == ["hidden ''"] * 24
    assert [line for line in said if line.startswith("kept")] == ["kept ['deep'] the secret that nobody is to find"] * 9
    assert any(line.startswith("refused") for line in said)
    assert "evil ['deep.old']" in said, "the control"


def test_of_a_link_what_it_leads_to_is_hidden(project: Path) -> None:
    (project / "link").symlink_to("plain")
    result = inside(["cat", project / "link", project / "plain"], allowed_dirs=[project], hidden_paths=[project / "link"])
    assert text(result) == ""


def test_a_link_that_a_command_may_have_made_is_refused(project: Path) -> None:
    (project / ".env").rename(project / "real")
    assert inside(["ln", "-s", "plain", ".env"], working_dir=project).ok
    hiding = ps.Config(working_dir=project, hidden_paths=[project / ".env"])
    with pytest.raises(ps.ConfigError, match="link that the command may have made; remove it") as caught:
        ps.run(["cat", "real"], config=hiding)
    assert caught.value.field == "hidden_paths"
    (project / ".env").unlink()
    assert ps.run(["cat", "plain"], config=hiding).ok, "as the error says"


def test_what_holds_something_granted_cannot_be_hidden(project: Path, tmp_path: Path) -> None:
    for hidden in (project, tmp_path, project / "keys"):
        with pytest.raises(ps.ConfigError, match="lies in it") as caught:
            ps.Config(working_dir=project, allowed_dirs=[project / "keys" / "key"], hidden_paths=[hidden])
        assert caught.value.field == "hidden_paths"
    (tmp_path / "other").symlink_to(project)
    with pytest.raises(ps.ConfigError, match="lies in it"):
        inside(["true"], allowed_dirs=[project / "keys"], hidden_paths=[tmp_path / "other"])
    for system in ("/usr", "/etc/ssl", os.path.dirname(os.path.dirname(sys.executable))):
        if os.path.isdir(system):
            with pytest.raises(ps.ConfigError, match=r"lies in it|cannot be hidden"):
                inside(["true"], hidden_paths=[system])


def test_what_lies_in_the_systems_directories_can_be_hidden() -> None:
    look = ["ls", "/usr/share"]
    assert text(inside(look))
    assert text(inside(look, hidden_paths=["/usr/share"])) == ""


def test_a_hidden_command_is_not_found(project: Path) -> None:
    (project / "tool").write_text("#!/bin/sh\n")
    (project / "tool").chmod(0o755)
    assert inside(["./tool"], working_dir=project).ok
    with pytest.raises(ps.CommandNotFoundError, match="hidden_paths"):
        inside([project / "tool"], allowed_dirs=[project], hidden_paths=[project / "tool"])


def test_hidden_below_read_only_below_writable(project: Path) -> None:
    """Whatever lies around it, and however often."""
    config: dict[str, Any] = {"working_dir": project, "read_only_dirs": [project / "deep"], "writable_dirs": [project / "deep" / "er"]}
    hidden = [*hidden_in(project), project / "keys" / "key"]
    result = inside(["sh", "-c", "cat .env deep/er/token; ls -A keys; touch deep/er/new"], **config, hidden_paths=hidden)
    assert text(result) == ""
    assert (project / "deep" / "er" / "new").exists()
    assert (project / "deep" / "er" / "token").read_text() == "the secret that nobody is to find"


def test_in_a_sandbox_that_is_kept(project: Path) -> None:
    with ps.Sandbox(writable_dirs=[project], hidden_paths=hidden_in(project)) as box:
        for _ in range(3):
            assert box.run(["cat", project / ".env", project / "plain"]).stdout == b"plain"


# --- what is not covered, as the documentation says ---


def test_a_hard_link_to_it_is_another_name(project: Path) -> None:
    os.link(project / ".env", project / "copy")
    result = inside(["cat", ".env", "copy"], working_dir=project, hidden_paths=[project / ".env"])
    assert text(result) == "the secret that nobody is to find", "the documentation says so: name both"
    assert text(inside(["cat", ".env", "copy"], working_dir=project, hidden_paths=[project / ".env", project / "copy"])) == ""


def test_a_file_that_gets_the_name_later_is_seen(project: Path) -> None:
    """What did not exist is the command's to make; and what is replaced on the host while it runs is the new one."""
    later = project / "later"
    assert text(inside(["sh", "-c", "echo mine > later; cat later"], working_dir=project, hidden_paths=[later])) == "mine\n"
    command = ["sh", "-c", "cat .env; echo ready; read line; cat .env"]
    with ps.Popen(command, stdin=ps.PIPE, stdout=ps.PIPE, working_dir=project, hidden_paths=[project / ".env"]) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        (project / "new").write_text("replaced")
        (project / "new").rename(project / ".env")
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert process.stdout.read() == b"replaced"
