"""The host's files: what was not named cannot be read, what was not given cannot be written, by any way."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import os
import shutil
import stat
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.fixtures import Programs
from support.processes import new_mark
from support.programs import (
    FORBIDDEN,
    INVISIBLE,
    READ_ONLY,
    ROOT,
    act,
    assert_escapes,
    assert_refused,
    inside,
    outside,
    python,
    text,
)

import proc_sandbox as ps


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file of the caller's that no Config names."""
    directory = tmp_path / "private"
    directory.mkdir()
    path = directory / new_mark()
    path.write_text("the secret")
    return path


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A working directory beside it."""
    directory = tmp_path / "work"
    directory.mkdir()
    return directory


# --- reading ---


@pytest.mark.parametrize("name", ["read", "walk_to"])
def test_a_secret_is_not_to_be_found(secret: Path, work: Path, name: str) -> None:
    assert_escapes(act(name, secret))
    assert_refused(inside(act(name, secret), working_dir=work), INVISIBLE)


def test_a_directory_beside_the_granted_one_is_not_listed(secret: Path, work: Path) -> None:
    assert_escapes(act("listdir", secret.parent))
    assert_refused(inside(act("listdir", secret.parent), working_dir=work), INVISIBLE)
    assert text(inside(["ls", "-A", work.parent], working_dir=work)).split() in ([], ["work"])


@pytest.mark.parametrize("kind", ["absolute", "relative", "through proc", "through the working directory"])
def test_a_link_leads_nowhere(secret: Path, work: Path, kind: str) -> None:
    """Planted by an earlier run, or by whoever sent the files."""
    target = {
        "absolute": str(secret),
        "relative": f"../private/{secret.name}",
        "through proc": f"/proc/self/root{secret}",
        "through the working directory": f"/proc/self/cwd/../private/{secret.name}",
    }[kind]
    (work / "link").symlink_to(target)
    assert_escapes(act("read", work / "link"), cwd=work)
    assert_refused(inside(act("read", "link"), working_dir=work), INVISIBLE)


def test_a_link_to_a_directory_leads_nowhere_either(secret: Path, work: Path) -> None:
    (work / "a").symlink_to("../private")
    assert_escapes(act("create", work / "a" / "control"))
    assert_refused(inside(act("create", "a/new"), working_dir=work), INVISIBLE)
    assert not (secret.parent / "new").exists()


PLACES = [
    "/root",
    "/home",
    "/run",
    "/var/run",
    "/sys",
    "/boot",
    "/var/log",
    "/var/lib",
    "/var/spool",
    "/mnt",
    "/srv",
    "/media",
    "/tmp",
]
SECRETS = [
    "/etc/shadow",
    "/etc/shadow-",
    "/etc/gshadow",
    "/etc/sudoers",
    "/proc/kcore",
    "/dev/mem",
    "/dev/kmsg",
]


def sample(place: str, limit: int = 40) -> Iterator[str]:
    """Some files of the host that this caller can open."""
    for directory, _, files in os.walk(place):
        for name in files:
            path = os.path.join(directory, name)
            with contextlib.suppress(OSError):
                if stat.S_ISREG(os.lstat(path).st_mode):
                    os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
                    yield path
                    limit -= 1
                    if not limit:
                        return


def test_the_hosts_own_places_are_not_there(tmp_path: Path) -> None:
    """Whatever of them this caller can open; the running interpreter's own prefix is what the command needs."""
    code = "import sys\nfor path in sys.stdin.read().split('\\0'):\n  try: open(path, 'rb').close()\n  except OSError: pass\n  else: print(path)"
    prefixes = text(outside(python("import sys; print(sys.base_prefix, sys.prefix, sep='\\n')"))).split()
    prefixes += [os.environ.get("PYENV_ROOT", str(Path.home() / ".pyenv")), str(Path(ps.__file__).resolve().parents[2])]
    paths = [path for place in PLACES for path in sample(place) if not path.startswith(tuple(prefixes))]
    paths += [path for path in SECRETS if os.access(path, os.R_OK)]
    (tmp_path / "canary").write_text("x")
    paths.append(str(tmp_path / "canary"))
    control = outside(python(code), input="\0".join(paths).encode(errors="surrogateescape"))
    assert str(tmp_path / "canary") in text(control)
    assert text(inside(python(code), input="\0".join(paths).encode(errors="surrogateescape"))) == ""


def test_file_handles_do_not_lead_around_the_view(secret: Path, work: Path) -> None:
    if ROOT:
        assert_escapes(act("open_by_handle", secret))
    (work / "own").write_text("")
    assert_refused(inside(act("open_by_handle", "own"), working_dir=work), FORBIDDEN)


def test_chroot_and_back(secret: Path, work: Path) -> None:
    if ROOT:
        assert_escapes(act("chroot_out", work))
    assert_refused(inside(act("chroot_out", "."), working_dir=work), FORBIDDEN)


# --- writing ---

CHANGES: list[tuple[str, tuple[str, ...]]] = [
    ("write", ("file",)),
    ("append", ("file",)),
    ("truncate", ("file",)),
    ("write_mapped", ("file",)),
    ("create", ("new",)),
    ("unnamed", (".",)),
    ("unlink", ("file",)),
    ("rename", ("file", "other")),
    ("link", ("file", "other")),
    ("symlink", ("file", "other")),
    ("mkdir", ("new",)),
    ("rmdir", ("empty",)),
    ("chmod", ("file",)),
    ("utime", ("file",)),
]
ROOT_CHANGES: list[tuple[str, tuple[str, ...]]] = [("chown", ("file",)), ("mknod", ("new",)), ("setxattr", ("file",))]


def fill(directory: Path) -> dict[str, object]:
    """A file and an empty directory; returns what `snapshot` sees."""
    directory.mkdir()
    (directory / "file").write_text("content")
    (directory / "empty").mkdir()
    os.utime(directory / "file", (5, 5))
    return snapshot(directory)


def snapshot(directory: Path) -> dict[str, object]:
    """Everything that the acts above could change."""
    seen: dict[str, object] = {}
    for path in sorted(directory.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        seen[path.name] = (status.st_mode, status.st_uid, status.st_gid, status.st_mtime, status.st_nlink, content)
    return seen


@pytest.mark.parametrize("grant", ["allowed_dirs", "read_only_dirs", "read_only_dirs below a writable one"])
@pytest.mark.parametrize(("name", "arguments"), [*CHANGES, *ROOT_CHANGES])
def test_what_may_be_read_is_not_changed(tmp_path: Path, grant: str, name: str, arguments: tuple[str, ...]) -> None:
    control, target = tmp_path / "control", tmp_path / "outer" / "target"
    fill(control)
    if (name, arguments) in CHANGES or ROOT:
        completed = outside(act(name, *(control / argument for argument in arguments)))
        if f"REFUSED {errno.EOPNOTSUPP}" in text(completed):
            pytest.skip(f"this file system knows no {name}")
        assert "ESCAPED" in text(completed), completed
    target.parent.mkdir()
    before = fill(target)
    options = {grant: [target]} if " " not in grant else {"read_only_dirs": [target], "working_dir": target.parent}
    result = inside(act(name, *(target / argument for argument in arguments)), **options)
    assert_refused(result, READ_ONLY)
    assert snapshot(target) == before


def test_a_file_is_not_carried_over_into_a_writable_place(tmp_path: Path, work: Path) -> None:
    """A hard link or a rename would give the read-only file another, writable name."""
    kept = tmp_path / "kept"
    before = fill(kept)
    for name in ("link", "rename"):
        for source, target in ((kept / "file", work / "stolen"), (kept / "file", kept / "moved")):
            assert_refused(inside(act(name, source, target), working_dir=work, read_only_dirs=[kept]), READ_ONLY)
    below = work / "below"
    inner = fill(below)
    for name in ("link", "rename"):
        result = inside(act(name, "below/file", "stolen"), working_dir=work, read_only_dirs=[below])
        assert_refused(result, READ_ONLY)
    assert (snapshot(kept), snapshot(below)) == (before, inner)
    assert not (work / "stolen").exists()


def test_a_read_only_directory_is_so_by_every_name(tmp_path: Path, work: Path) -> None:
    """The writable directory around it is named by a link, and has both names inside."""
    kept, other = work / "a" / "kept", tmp_path / "other"
    kept.parent.mkdir()
    before = fill(kept)
    other.symlink_to(work)
    for named in (kept, other / "a" / "kept"):
        for place in (kept, other / "a" / "kept"):
            result = inside(act("write", place / "file"), working_dir=other, read_only_dirs=[named])
            assert_refused(result, READ_ONLY)
    assert snapshot(kept) == before


@pytest.mark.parametrize("name", ["rename", "rmdir", "unlink"])
def test_a_read_only_directory_keeps_its_place(work: Path, name: str) -> None:
    """Else the command would move it away and put one of its own there."""
    kept = work / "kept"
    before = fill(kept)
    arguments = (kept, work / "moved") if name == "rename" else (kept,)
    assert_refused(
        inside(act(name, *arguments), working_dir=work, read_only_dirs=[kept]),
        READ_ONLY | {errno.EISDIR, errno.ENOTEMPTY},
    )
    assert snapshot(kept) == before


def test_a_read_only_file_keeps_its_place(work: Path) -> None:
    kept = work / "config.toml"
    kept.write_text("policy")
    (work / "mine").write_text("mine")
    for command in (act("rename", "mine", kept), act("unlink", kept), act("write", kept), act("rename", kept, "gone")):
        assert_refused(inside(command, working_dir=work, read_only_dirs=[kept]), READ_ONLY)
    assert kept.read_text() == "policy"


MOVE_AND_WRITE = "mv a x; mkdir -p a/b/kept; for d in a x; do echo new > $d/b/kept/file; echo new > $d/b/kept/new; done; true"


@pytest.mark.usefixtures("nothing_on_the_way")
def test_without_a_mount_an_ancestor_is_moved_away_for_a_later_run(work: Path) -> None:
    """That later run has another directory under the name, and writes to what was to be read only."""
    kept, moved = work / "a" / "b" / "kept", work / "x" / "b" / "kept"
    kept.parent.mkdir(parents=True)
    before = fill(kept)
    inside(["sh", "-c", MOVE_AND_WRITE], working_dir=work, read_only_dirs=[kept])
    assert snapshot(moved) == before, "in the same run it stays read-only"
    inside(["sh", "-c", "echo new > x/b/kept/new"], working_dir=work, read_only_dirs=[kept])
    assert (moved / "new").exists()


def test_an_ancestor_is_not_moved_away(work: Path) -> None:
    kept = work / "a" / "b" / "kept"
    kept.parent.mkdir(parents=True)
    before, number = fill(kept), kept.stat().st_ino
    (work / "link").symlink_to("a")
    for script in (MOVE_AND_WRITE, "mv a/b x", "rm -rf a", "mv link/b x", "echo new > x/b/kept/new"):
        inside(["sh", "-c", script], working_dir=work, read_only_dirs=[kept])  # mv(1) copies what it cannot move
        assert snapshot(kept) == before
        assert kept.stat().st_ino == number
    assert inside(["sh", "-c", "echo mine > a/b/mine && mv a/b/mine a/"], working_dir=work, read_only_dirs=[kept]).ok


@pytest.mark.parametrize(
    "place", ["/", "/usr", "/bin", "/etc", "/lib", "/dev", "/proc", "/root", "/home", "/var", "/usr/local"]
)
def test_the_system_is_not_written_to(place: str) -> None:
    name = f"{place.rstrip('/')}/{new_mark()}"
    result = inside(act("create", name))
    assert_refused(result, READ_ONLY | INVISIBLE)
    assert not os.path.lexists(name)


def test_nothing_but_the_commands_own_is_writable() -> None:
    """A walk over the whole view, the package's own files included."""
    assert_refused(inside(act("writable_places")), {errno.EACCES})


def test_no_sysctl_can_be_opened_for_writing() -> None:
    """Nor sysrq and its kin; also when the caller is root."""
    if ROOT:
        assert_escapes(act("sysctls"))
    assert_refused(inside(act("sysctls")), {errno.EACCES})


@pytest.mark.parametrize("name", ["mount_tmpfs", "bind", "remount", "unmount"])
def test_no_mount_is_made_or_changed(tmp_path: Path, name: str) -> None:
    kept = tmp_path / "kept"
    before = fill(kept)
    arguments = ("/tmp", kept) if name == "bind" else (kept,)
    result = inside(act(name, *arguments), read_only_dirs=[kept])
    assert_refused(result, FORBIDDEN)
    assert snapshot(kept) == before


@pytest.mark.skipif(not ROOT, reason="only root can mount")
@pytest.mark.parametrize("grant", ["allowed_dirs", "read_only_dirs", "below the working directory"])
def test_a_file_system_mounted_below_stays_unwritable(tmp_path: Path, grant: str) -> None:
    """Read-only is recursive; also for what was mounted after the launcher had been started."""
    assert inside(["true"]).ok
    outer = tmp_path / "outer"
    inner = outer / "inner"
    inner.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", inner], check=True)
    try:
        (inner / "file").write_text("content")
        assert_escapes(act("create", inner / "control"))
        options = {"working_dir": tmp_path, "read_only_dirs": [outer]} if " " in grant else {grant: [outer]}
        assert text(inside(["cat", inner / "file"], **options)) == "content"
        for name in ("write", "create"):
            path = inner / ("file" if name == "write" else "new")
            assert_refused(inside(act(name, path), **options), READ_ONLY)
        assert (inner / "file").read_text() == "content"
    finally:
        subprocess.run(["umount", inner], check=True)


@pytest.mark.skipif(not ROOT, reason="only root can make devices")
def test_a_device_in_a_granted_directory_is_only_a_name(tmp_path: Path) -> None:
    os.mknod(tmp_path / "device", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    (tmp_path / "device").chmod(0o666)
    assert_escapes(act("read", tmp_path / "device"))
    for grant in ({"allowed_dirs": [tmp_path]}, {"writable_dirs": [tmp_path]}, {"working_dir": tmp_path}):
        assert_refused(inside(act("read", tmp_path / "device"), **grant), {errno.EACCES, errno.EPERM})


# --- what outlives the run ---

SET_ID_WAYS = ["chmod", "fchmod", "fchmodat", "fchmodat2", "open", "openat2", "mknod", "mkdir", "unnamed"]
if os.uname().machine == "x86_64":
    SET_ID_WAYS += ["old_open", "old_creat"]


@pytest.mark.parametrize("way", SET_ID_WAYS)
def test_no_set_id_file_is_left_behind(programs: Programs, work: Path, tmp_path: Path, way: str) -> None:
    """What a command makes belongs to the directory's owner: with a set-user-ID bit it would be a gift to itself."""
    control = outside([programs("kernel"), way, tmp_path / "control"])
    if f"REFUSED {errno.ENOSYS}" not in text(control):
        assert "ESCAPED" in text(control), control
    result = inside([programs("kernel"), way, "new"], working_dir=work, allowed_dirs=[programs.directory])
    assert_refused(result, FORBIDDEN)
    for path in work.rglob("*"):
        assert not path.lstat().st_mode & (stat.S_ISUID | stat.S_ISGID), path


@pytest.mark.skipif(not ROOT, reason="needs a set-user-ID program of root's")
def test_a_set_user_id_program_gains_nothing(programs: Programs) -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        directory = Path(name)
        directory.chmod(0o755)
        shutil.copy(programs("identity"), directory / "identity")
        os.chown(directory / "identity", 0, 0)
        (directory / "identity").chmod(0o4755)
        control = outside([directory / "identity"], user=65534, group=65534, extra_groups=[])
        assert "real 65534 effective 0" in text(control), "the control did not work"
        for grant in ({"allowed_dirs": [directory]}, {"working_dir": directory}):
            result = inside([directory / "identity"], **grant)
            assert "real 1000 effective 1000 saved 1000" in text(result), result


def test_the_systems_set_user_id_programs_gain_nothing() -> None:
    found = [path for path in ("/usr/bin/su", "/bin/su", "/usr/bin/mount", "/usr/bin/passwd") if Path(path).exists()]
    for path in found:
        result = inside(["sh", "-c", f"{path} --help > /dev/null 2>&1; {path} -c id root < /dev/null"], timeout=60)
        assert "uid=0" not in text(result)
    assert "NoNewPrivs:\t1" in text(inside(["grep", "NoNewPrivs", "/proc/self/status"]))


# --- CVEs of others ---


def test_running_programs_are_not_rewritten() -> None:
    """CVE-2019-5736: through /proc/PID/exe to the host's own binary."""
    launcher = Path(ps.__file__).parent / "_bin" / "launcher"
    before = hashlib.sha256(launcher.read_bytes()).digest()
    refused = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ETXTBSY, errno.ENOENT}
    assert_refused(inside(act("executables")), refused)
    script = "for p in /proc/[0-9]*; do cat /dev/null > $p/exe; done 2>/dev/null; exec /proc/1/exe"
    inside(["sh", "-c", script], timeout=60)
    assert hashlib.sha256(launcher.read_bytes()).digest() == before
    assert inside(["true"]).ok


@pytest.mark.parametrize("target", ["/oldroot/etc", "../../..", "/proc/1/root", "/proc/self/root", "../private", "/"])
@pytest.mark.parametrize("field", ["read_only_dirs", "writable_dirs", "allowed_dirs"])
def test_mounts_below_a_planted_link_stay_inside(secret: Path, work: Path, target: str, field: str) -> None:
    """CVE-2026-87766: making a mount's target followed the command's link out to the host."""
    (work / "a").symlink_to(target)
    before = {place: sorted(os.listdir(place)) for place in ("/", "/etc", secret.parent, work, work.parent)}
    with contextlib.suppress(ps.ConfigError, ps.LaunchError):
        result = inside(["cat", f"a/{secret.name}"], working_dir=work, **{field: [work / "a" / "planted"]})
        assert "secret" not in text(result)
    assert {place: sorted(os.listdir(place)) for place in before} == before


@pytest.mark.parametrize("target", ["/", "/proc", "/proc/self/root", "/sys"])
@pytest.mark.parametrize("field", ["allowed_dirs", "writable_dirs", "working_dir"])
def test_a_grant_that_turns_out_to_be_everything(tmp_path: Path, target: str, field: str) -> None:
    """The path itself is refused; so is a link to it."""
    link = tmp_path / "link"
    link.symlink_to(target)
    with pytest.raises((ps.ConfigError, ps.LaunchError)) as caught:
        inside(["true"], **{field: link if field == "working_dir" else [link]})
    assert str(link) in str(caught.value) or target in str(caught.value)


RENAME_EXCHANGE = 2


@pytest.mark.parametrize("field", ["allowed_dirs", "writable_dirs"])
def test_a_directory_that_becomes_a_link_in_between(secret: Path, tmp_path: Path, field: str) -> None:
    """CVE-2021-30465: between the look and the mount, a link to the whole host takes the directory's place."""
    grant, other = tmp_path / "grant", tmp_path / "other"
    grant.mkdir()
    other.symlink_to("/")
    libc = ctypes.CDLL(None, use_errno=True)
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            for _ in range(100):
                libc.renameat2(-100, os.fsencode(grant), -100, os.fsencode(other), RENAME_EXCHANGE)

    seen: set[str] = set()
    racer = threading.Thread(target=swap)
    racer.start()
    try:
        for _ in range(300):
            script = f"cat {grant}{secret} 2>/dev/null; cat {other}{secret} 2>/dev/null; touch {grant}/made{secret.name} 2>/dev/null; true"
            try:
                result = inside(["sh", "-c", script], **{field: [grant]})
            except (ps.ConfigError, ps.LaunchError) as refusal:
                seen.add(type(refusal).__name__)
            else:
                seen.add("ran")
                assert "secret" not in text(result)
    finally:
        stop.set()
        racer.join()
    assert seen
    assert not Path("/", f"made{secret.name}").exists()


@pytest.mark.usefixtures("idmap")
def test_a_racer_inside_gains_nothing(secret: Path, work: Path) -> None:
    """The command itself swaps a directory and a link while the next run of the same directory starts."""
    code = (
        "import os, sys\n"
        "os.makedirs('d', exist_ok=True)\n"
        "os.path.islink('l') or os.symlink(sys.argv[1], 'l')\n"
        "while True:\n"
        "  os.rename('d', 't'); os.rename('l', 'd'); os.rename('t', 'l')\n"
    )
    (work / "d").mkdir()
    results: list[ps.Result] = []
    racer = threading.Thread(
        target=lambda: results.append(inside(python(code, str(secret.parent)), working_dir=work, timeout=6.0))
    )
    racer.start()
    ran = 0
    while racer.is_alive():
        with contextlib.suppress(ps.ConfigError, ps.LaunchError, FileNotFoundError):
            result = inside(["sh", "-c", f"cat d/{secret.name} l/{secret.name}; true"], working_dir=work)
            assert "the secret" not in text(result)
            ran += 1
    racer.join()
    assert ran
    assert results


@pytest.mark.usefixtures("idmap")
def test_cleaning_up_does_not_leave_the_box(secret: Path, work: Path) -> None:
    """CVE-2024-28185 and kin: what the command left lying about is not followed when it is taken away."""
    script = f"""
    ln -s {secret} link; ln -s {secret.parent} directory; mkfifo fifo; mkdir -p deep/er; ln -s /etc deep/er/etc
    ln -s {secret} /tmp/link; ln -s {secret.parent} /dev/shm/directory; ln -s / $HOME/root
    """
    inside(["sh", "-c", script], check=True)
    with ps.Sandbox(working_dir=work) as box:
        box.run(["sh", "-c", script], check=True)
    assert secret.read_text() == "the secret"
    assert (work / "link").is_symlink()
    assert Path("/etc/passwd").exists()
