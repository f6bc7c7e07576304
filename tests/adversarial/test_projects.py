"""What a run leaves behind in a project: it shows the next one, whose Config is made anew by a preset, nothing that is hidden."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.processes import library_path
from support.programs import HANG, ROOT, text

import proc_sandbox as ps

UNPRIVILEGED = 65534
SECRET = "the secret that nobody is to find"

# What one run does, what the next one does to see or to write it, and what the file is.
TRICKS = [
    ("ln -s conf/prod .envrc", "cat conf/prod", "conf/prod"),
    ("ln -s keys .cursor; ln -s keys/key .exrc", "cat keys/key", "keys/key"),
    ("ln -s .env .envrc; ln -s .aws/config .vimrc", "cat .env .aws/config", ".aws/config"),
    ("chmod 0 api", "chmod 755 api; cat api/.env", "api/.env"),
    ("chmod 311 api/deep", "cat api/deep/.env.local", "api/deep/.env.local"),
    ("chmod 444 api/deep", "chmod 755 api/deep; cat api/deep/.env.local", "api/deep/.env.local"),
    ("mkdir .git && cp api/plain .git/config && chmod 0 .git/config", "cat .env", ".env"),
    ("mkdir .git && cp api/plain .git/config && chmod 0 .git", "cat .env", ".env"),
]


def fill(project: Path) -> None:
    for name in (".env", "conf/prod", "keys/key", ".aws/config", "api/.env", "api/deep/.env.local"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(SECRET)
    (project / "api" / "plain").write_text("plain")
    (project / ".env.conf").symlink_to("conf/prod")
    (project / ".ssh").symlink_to("keys")


# The next run is made as the caller makes it, by a user that owns the project.
CODE = """
import json, sys
sys.path.insert(0, sys.argv[1])
import proc_sandbox as ps
project, scripts = json.load(sys.stdin)
try:
    for script in scripts:
        result = ps.run(["sh", "-c", script], config=ps.Config.preset("agent", working_dir=project, timeout=60))
        print(json.dumps([result.stdout.text(), result.stderr.text()]))
except ps.UnsupportedError as error:
    print(json.dumps(str(error)))
"""


def runs(project: Path, scripts: list[str], library: Path) -> list[Any]:
    """Return what the runs print, one after the other, each of a Config of its own; as an unprivileged user where we are root."""
    options: dict[str, Any] = {"cwd": "/", "env": {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}}
    if ROOT:
        options |= {"user": UNPRIVILEGED, "group": UNPRIVILEGED, "extra_groups": []}
        for path in (project, *project.rglob("*")):
            os.chown(path, UNPRIVILEGED, UNPRIVILEGED, follow_symlinks=False)
    interpreter = "/usr/bin/python3" if ROOT else sys.executable
    given = json.dumps([str(project), scripts])
    done = subprocess.run([interpreter, "-c", CODE, library], input=given, capture_output=True, text=True, timeout=HANG, check=False, **options)
    assert done.returncode == 0, done.stderr
    said = [json.loads(line) for line in done.stdout.splitlines()]
    if isinstance(said[0], str):
        pytest.skip(f"not for that user: {said[0]}")
    return said


@pytest.fixture
def place(tmp_path: Path) -> Any:
    """A directory that everybody can look into, with the library beside the project."""
    directory = Path(f"/var/tmp/{tmp_path.parent.name}-{tmp_path.name}")
    shutil.copytree(library_path(), directory)
    (directory / "project").mkdir()
    yield directory
    for path in directory.rglob("*"):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
    shutil.rmtree(directory)


@pytest.mark.parametrize(("first", "then", "secret"), TRICKS)
def test_no_run_uncovers_for_the_next_one_what_is_hidden(place: Path, first: str, then: str, secret: str) -> None:
    project = place / "project"
    fill(project)
    said = runs(project, [first, then, "cat api/plain; echo still"], place)
    assert SECRET not in str(said)
    assert "still" in said[2][0], "none keeps the next one from starting"
    for path in (project, *project.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
    assert (project / secret).read_text() == SECRET


def test_a_directory_that_holds_what_is_granted_is_not_closed(place: Path) -> None:
    if ROOT:
        pytest.skip("root can look into every directory")
    project = place / "project"
    fill(project)
    (project / "api").chmod(0)
    with pytest.raises(ps.ConfigError, match="cannot be looked into"):
        ps.Config.preset("agent", working_dir=project, writable_dirs=[project / "api" / "deep"])
    project.chmod(0)
    with pytest.raises(ps.ConfigError, match="cannot be looked into"):
        ps.Config.preset("agent", working_dir=project)
    project.chmod(0o755)


def test_without_a_preset_the_same_can_be_read(place: Path) -> None:
    """The control of the tests above."""
    fill(place / "project")
    result = ps.run(["sh", "-c", "cat .env conf/prod keys/key"], working_dir=place / "project")
    assert text(result) == SECRET * 3
