"""Presets: the files, what of a project and a home directory goes into a Config, and what a caller's own fields do to that."""

from __future__ import annotations

import os
import pickle
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import proc_sandbox as ps
from proc_sandbox import policies, presets
from proc_sandbox.config import NORMALISERS

needs_links = pytest.mark.skipif(sys.platform == "win32", reason="not everybody may make links there")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "home"
    directory.mkdir()
    monkeypatch.setenv("HOME", str(directory))
    monkeypatch.setenv("USERPROFILE", str(directory))
    return directory


@pytest.fixture
def project(home: Path) -> Path:
    directory = home / "project"
    directory.mkdir()
    return directory


def touch(directory: Path, *names: str) -> None:
    for name in names:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if name.endswith("/") else path.write_text("x")


def below(directory: Path, paths: tuple[str, ...]) -> set[str]:
    return {Path(path).relative_to(directory).as_posix() for path in paths if Path(path).is_relative_to(directory)}


def test_there_are_these() -> None:
    assert presets.names() == ["agent", "build", "judge", "node", "python"]


@pytest.mark.parametrize("name", presets.names())
def test_a_preset_is_whole(name: str, project: Path) -> None:
    config = ps.Config.preset(name, working_dir=project)
    assert presets.description(name)[-1] == "."
    assert config.network_access is False
    assert None not in (config.timeout, config.memory_limit, config.max_processes)
    assert isinstance(config.enforcement, ps.config.BestEffort), "never all at once"
    assert set(config.enforcement.fields) <= {"max_file_size", "max_open_files", "tmp_size"}, "what is not about safety"


@pytest.mark.parametrize("name", presets.names())
def test_a_file_has_no_key_that_nobody_reads(name: str) -> None:
    table = presets.table_of(name)
    known = {item.name for item in fields(ps.Config)} - {"stdin", "stdout", "stderr", "pass_fds", "prepared", "backend"}
    assert set(table) <= known | set(presets.OWN_KEYS)
    for key, value in table.items():
        if key in NORMALISERS and key != "enforcement":
            NORMALISERS[key](key, value)


def test_an_unknown_one() -> None:
    with pytest.raises(ps.ConfigError, match="judge"):
        presets.fields_of("jugde", {})
    for name in ("jugde", "nope", 5, None, [], b"judge"):
        with pytest.raises(ps.ConfigError, match="the presets are agent, build, judge, node, python") as caught:
            ps.Config.preset(name)  # type: ignore[arg-type]
        assert (caught.value.field, caught.value.value) == ("preset", name)
    with pytest.raises(ps.ConfigError, match=r"did you mean 'node'\? the presets are agent"):
        ps.Config.preset("nope")
    for name in (5, None, []):
        with pytest.raises(ps.ConfigError, match="must be a str"):
            policies.find(name)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("strict", "strict"),
        ({"default": "best-effort"}, "best-effort"),
        ({"best_effort": ["tmp_size"]}, ps.best_effort("tmp_size")),
        ({"default": "strict", "best_effort": ["tmp_size"]}, ps.best_effort("tmp_size")),
        ({"default": "strict", "best_effort": []}, "strict"),
        ({"default": "best-effort", "best_effort": ["tmp_size"]}, None),
        ({"default": "strict", "best_efort": ["tmp_size"]}, None),
        ({"best_effort": "tmp_size"}, None),
    ],
)
def test_enforcement_means_the_same_in_a_preset_and_in_a_policy(
    value: Any, expected: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.toml").write_text('description = "x."\n' + as_toml(value))
    (tmp_path / "policy.toml").write_text("[policies.mine]\n" + as_toml(value))
    monkeypatch.setattr(presets, "HERE", tmp_path)
    for make in (lambda: ps.Config.preset("mine"), lambda: ps.Config.from_toml(tmp_path / "policy.toml")):
        if expected is None:
            with pytest.raises(ps.ConfigError, match="write { default"):
                make()
        else:
            assert make().enforcement == expected
    presets.table_of.cache_clear()


def as_toml(enforcement: Any) -> str:
    if isinstance(enforcement, str):
        return f"enforcement = '{enforcement}'\n"
    return f"enforcement = {{ {', '.join(f'{key} = {value!r}' for key, value in enforcement.items())} }}\n"


def test_extends() -> None:
    build, agent = presets.table_of("build"), presets.table_of("agent")
    assert agent["memory_limit"] == build["memory_limit"]
    assert agent["timeout"] != build["timeout"]
    assert agent["env"]["PIP_NO_INDEX"] == "1"


def test_what_the_caller_gives_comes_last(project: Path, tmp_path: Path, home: Path) -> None:
    touch(project, ".env")
    touch(home, ".nvm/x")
    config = ps.Config.preset(
        "agent", working_dir=project, timeout=5, env={"A": "1", "PIP_NO_INDEX": "0"}, hidden_paths=[project / "mine"],
        allowed_dirs=(place for place in [tmp_path]), pass_env=["MINE"],
    )  # fmt: skip
    assert config.timeout == 5
    assert below(project, config.hidden_paths) == {".env", "mine"}, "who hides one more uncovers none"
    assert set(config.allowed_dirs) == {str(home / ".nvm"), str(tmp_path)}
    assert {"PATH", "MINE"} <= set(config.pass_env)
    assert dict(config.env)["A"] == "1"
    assert (dict(config.env)["PIP_NO_INDEX"], dict(config.env)["GOPROXY"]) == ("0", "off")
    assert dict(ps.Config.preset("build", env=["A=1"]).env).items() >= {"A": "1", "GOPROXY": "off"}.items()


@pytest.mark.parametrize("field", ["hidden_paths", "allowed_dirs", "env", "pass_env"])
def test_what_is_no_list_is_refused_as_ever(field: str, project: Path) -> None:
    for value in (5, "x", None):
        with pytest.raises(ps.ConfigError):
            ps.Config.preset("agent", working_dir=project, **{field: value})  # type: ignore[arg-type]


def test_a_policy_that_extends_a_preset_adds_to_it(project: Path) -> None:
    touch(project, ".env", "more")
    file = project.parent / "policies.toml"
    file.write_text(f'[policies.mine]\nextends = "agent"\nworking_dir = "{project.as_posix()}"\nhidden_paths = ["project/more"]\n', encoding="utf-8")
    assert below(project, ps.Config.from_toml(file).hidden_paths) == {".env", "more"}
    assert below(project, ps.Config.from_toml(file, hidden_paths=[project / "x"]).hidden_paths) == {".env", "more", "x"}
    assert ".env" in policies.explain(str(file))
    assert ".env" in policies.explain("agent", working_dir=project, hidden_paths=[project / "more"])


# --- agent ---


def made_by(way: str, project: Path) -> ps.Config:
    """Return the Config of a project, by the preset or by a policy that extends it."""
    if way == "preset":
        return ps.Config.preset("agent", working_dir=project)
    file = project.parent / "policies.toml"
    file.write_text(f'[policies.mine]\nextends = "agent"\nworking_dir = "{project.as_posix()}"\n', encoding="utf-8")
    return ps.Config.from_toml(file)


@pytest.mark.parametrize("way", ["preset", "policy"])
@pytest.mark.parametrize("change", [lambda config: config, lambda config: config.replace(timeout=5), lambda config: pickle.loads(pickle.dumps(config))])
def test_what_a_config_keeps_of_its_project_is_not_taken_away(project: Path, home: Path, way: str, change: Any) -> None:
    touch(project, ".env", ".envrc", "data/", "src/main.py")
    touch(home, "other/.env")
    config = change(made_by(way, project))
    for field, value in (
        ("working_dir", home / "other"), ("working_dir", None), ("hidden_paths", [project / "data"]), ("hidden_paths", ()),
        ("read_only_dirs", [project / "data"]), ("read_only_dirs", []),
    ):  # fmt: skip
        with pytest.raises(ps.ConfigError) as caught:
            config.replace(**{field: value})
        assert caught.value.field == field
        with pytest.raises(ps.ConfigError):
            ps.run(["true"], config=config, **{field: value})  # type: ignore[arg-type]
    more = config.replace(working_dir=project, hidden_paths=[*config.hidden_paths, project / "data"], timeout=5)
    assert below(project, more.hidden_paths) == {".env", "data"}
    with pytest.raises(ps.ConfigError):
        more.replace(hidden_paths=config.hidden_paths)
    free = ps.Config.preset("build", working_dir=project, hidden_paths=[project / ".env"])
    assert free.replace(hidden_paths=(), working_dir=home / "other").hidden_paths == (), "that is no preset for a project"


@pytest.mark.parametrize("given", [{}, {"working_dir": None}])
def test_an_agent_needs_a_project(given: dict[str, Any]) -> None:
    with pytest.raises(ps.ConfigError, match="working_dir="):
        ps.Config.preset("agent", **given)


@needs_links
def test_a_home_directory_is_no_project(home: Path, project: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(home)
    for directory in (home, tmp_path, tmp_path / "link", "~"):
        with pytest.raises(ps.ConfigError, match="home directory"):
            ps.Config.preset("agent", working_dir=directory)
    for directory in (project / "missing", 5):
        with pytest.raises(ps.ConfigError):
            ps.Config.preset("agent", working_dir=directory)  # type: ignore[arg-type]
    assert ps.Config.preset("agent", working_dir="~/project").working_dir == str(project)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no pwd")
def test_nor_is_that_of_its_owner(home: Path, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As root sees it by sudo, whose HOME is another one."""
    import pwd

    theirs = tmp_path / "theirs"
    theirs.mkdir()
    entry = pwd.struct_passwd(("them", "x", os.getuid(), 0, "", str(theirs), "/bin/sh"))
    monkeypatch.setattr("pwd.getpwuid", lambda uid: entry)
    with pytest.raises(ps.ConfigError, match="home directory"):
        ps.Config.preset("agent", working_dir=theirs)
    assert ps.Config.preset("agent", working_dir=project).working_dir == str(project)


def test_what_is_hidden_in_a_project(project: Path) -> None:
    touch(project, ".env", ".env.local", "api/.env", "packages/web/.env.production", "server.pem", ".aws/credentials", "credentials.json")
    touch(project, ".env.example", "api/.env.sample", "node_modules/x/.env", ".venv/.env", "src/main.py", "secrets.py", "a/b/c/.env")
    config = ps.Config.preset("agent", working_dir=project)
    assert below(project, config.hidden_paths) == {
        ".env", ".env.local", "api/.env", "packages/web/.env.production", "server.pem", ".aws", "credentials.json",
    }  # fmt: skip


def test_upper_case_is_as_secret(project: Path) -> None:
    touch(project, ".ENV", "Secrets.YAML", "api/.Env.Local", "a/b/C.txt", ".ENVRC")
    config = ps.Config.preset("agent", working_dir=project)
    assert below(project, config.hidden_paths) == {".ENV", "Secrets.YAML", "api/.Env.Local"}
    assert below(project, config.read_only_dirs) == {".ENVRC"}


def test_what_is_read_only_in_a_project(project: Path) -> None:
    touch(project, ".git/hooks/pre-commit", ".git/config", ".vscode/tasks.json", ".envrc", "x.code-workspace", "src/main.py", "Makefile")
    config = ps.Config.preset("agent", working_dir=project)
    assert below(project, config.read_only_dirs) == {".git", ".vscode", ".envrc", "x.code-workspace"}
    assert config.writable_dirs == ()


def test_who_names_git_gets_it_but_for_what_git_runs(project: Path) -> None:
    touch(project, ".git/hooks/pre-commit", ".git/config", ".git/info/attributes", ".envrc")
    config = ps.Config.preset("agent", working_dir=project, writable_dirs=[project / ".git"])
    assert below(project, config.read_only_dirs) == {".git/hooks", ".git/config", ".git/info", ".envrc"}
    assert config.writable_dirs == (str(project / ".git"),)


@pytest.mark.parametrize(
    ("line", "hidden"),
    [
        ("url = https://user:token@example.org/x.git", True),
        ("url = https://ghp_0123456789abcdefghij@example.org/x.git", True),
        ("extraHeader = AUTHORIZATION: basic eA==", True),
        ("url = https://:token@example.org/x.git", True),
        ("smtpPass = hunter2", True),
        ("token=0123", True),
        ("helper = \"!f() { echo username=me; echo password=hunter2; }; f\"", True),
        ("helper = cache", False),
        ("url = https://example.org/x.git", False),
        ("url = ssh://git@example.org/x.git", False),
        ("url = git@example.org:x/y.git", False),
        ("#" * (1 << 20), True),
    ],
)
def test_a_git_config_with_a_password_is_hidden(project: Path, line: str, hidden: bool) -> None:
    touch(project, ".git/hooks/pre-commit", ".git/config")
    (project / ".git" / "config").write_text(f"[core]\n{line}\n")
    config = ps.Config.preset("agent", working_dir=project)
    assert below(project, config.hidden_paths) == ({".git/config"} if hidden else set())
    committing = ps.Config.preset("agent", working_dir=project, writable_dirs=[project / ".git"])
    assert below(project, committing.read_only_dirs) == ({".git/hooks"} if hidden else {".git/hooks", ".git/config"})
    shown = ps.Config.preset("agent", working_dir=project, allowed_dirs=[project / ".git" / "config"])
    assert below(project, shown.hidden_paths) == set()


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("hooksPath = tools/hooks", {"tools/hooks"}),
        ('hookspath="tools/hooks/"', {"tools/hooks"}),
        ("[core] hooksPath = tools", {"tools"}),
        ("hooksPath = .", set()),
        ("hooksPath = ..", set()),
        ("hooksPath = ../elsewhere", set()),
        ("hooksPath = /etc", set()),
        ("hooksPath = missing", set()),
        ("path = ../tools/gitconfig", {"tools/gitconfig"}),
        ("fsmonitor = ./tools/watch --fast", {"tools/watch"}),
        ("clean = python3 tools/watch %f", {"tools/watch"}),
        ('helper = "!tools/watch; true"', {"tools/watch"}),
        ("merge = tools/watch", set()),
    ],
)
def test_what_gits_config_has_run_is_read_only(project: Path, line: str, kept: set[str]) -> None:
    touch(project, ".git/config", "tools/hooks/pre-commit", "tools/gitconfig", "tools/watch")
    touch(project.parent, "elsewhere/pre-commit")
    (project / ".git" / "config").write_text(f"[core]\n\t{line}\n")
    assert below(project, ps.Config.preset("agent", working_dir=project).read_only_dirs) == {".git", *kept}
    config = ps.Config.preset("agent", working_dir=project, writable_dirs=[project / "tools" / "hooks"])
    assert below(project, config.read_only_dirs) == {".git", *(kept - {"tools/hooks", "tools"})}, "what is granted"


def test_so_is_one_of_a_submodule_or_a_worktree(project: Path) -> None:
    names = (".git/modules/a/config", ".git/modules/lib/b/config", ".git/worktrees/w/config.worktree", ".git/config.worktree")
    touch(project, ".git/config", ".git/modules/c/config", *names)
    for name in names:
        (project / name).write_text("url = https://user:token@example.org/x.git")
    config = ps.Config.preset("agent", working_dir=project, writable_dirs=[project / ".git"])
    assert below(project, config.hidden_paths) == set(names)
    assert below(project, config.read_only_dirs) == {".git/config", ".git/modules", ".git/worktrees"}


@needs_links
def test_no_link_to_a_git_config_is_followed(project: Path, tmp_path: Path) -> None:
    touch(tmp_path, "elsewhere/config")
    (tmp_path / "elsewhere" / "config").write_text("url = https://user:token@example.org")
    (project / ".git").symlink_to(tmp_path / "elsewhere")
    assert below(project, ps.Config.preset("agent", working_dir=project).hidden_paths) == set()
    (project / ".git").unlink()
    touch(project, ".git/hooks/x")
    (project / ".git" / "config").symlink_to(tmp_path / "elsewhere" / "config")
    assert below(project, ps.Config.preset("agent", working_dir=project).hidden_paths) == set()


def test_who_names_a_secret_sees_it(project: Path) -> None:
    touch(project, ".env", ".env.local")
    config = ps.Config.preset("agent", working_dir=project, allowed_dirs=[project / ".env"])
    assert below(project, config.hidden_paths) == {".env.local"}


def test_tools_of_the_home_directory_and_no_credentials(home: Path, project: Path) -> None:
    touch(home, ".cargo/bin/cargo", ".cargo/credentials.toml", ".rustup/settings.toml", ".ssh/id_ed25519", ".aws/credentials", ".nvm/nvm.sh")
    touch(home, ".local/share/uv/python/x", ".local/share/uv/credentials/credentials.toml", ".local/share/mise/installs/x", ".local/share/mise/token")
    config = ps.Config.preset("agent", working_dir=project)
    assert below(home, config.allowed_dirs) == {".cargo/bin", ".rustup", ".nvm", ".local/share/uv/python", ".local/share/mise/installs"}
    assert below(home, config.hidden_paths) == {".ssh", ".aws", ".cargo/credentials.toml", ".local/share/uv/credentials"}
    assert dict(config.env)["RUSTUP_HOME"] == str(home / ".rustup")
    assert "PYENV_ROOT" not in dict(config.env)


def test_what_the_caller_grants_to_be_written_is_not_only_readable(home: Path, project: Path) -> None:
    touch(home, ".nvm/nvm.sh")
    config = ps.Config.preset("agent", working_dir=project, writable_dirs=["~/.nvm"])
    assert (config.writable_dirs, config.allowed_dirs) == ((str(home / ".nvm"),), ())


@needs_links
def test_links_of_a_project(project: Path, home: Path, tmp_path: Path) -> None:
    """What they lead to is hidden where it can be seen; none of a command's making keeps the next run from starting."""
    touch(project, "conf/env", ".git/config")
    touch(tmp_path, "shared/env", "elsewhere/env")
    (project / ".env").symlink_to("conf/env")
    (project / ".env.shared").symlink_to(tmp_path / "shared" / "env")
    (project / ".env.elsewhere").symlink_to(tmp_path / "elsewhere" / "env")
    for number, target in enumerate((".", "..", ".git", "/", home, "missing", ".env.9", tmp_path / "shared", "/usr")):
        (project / f".env.{number}").symlink_to(target)
    config = ps.Config.preset("agent", working_dir=project, allowed_dirs=[tmp_path / "shared"])
    assert config.hidden_paths == (str(project / "conf" / "env"), str(tmp_path / "shared" / "env"))
    assert below(project, config.read_only_dirs) == {".git"}


@needs_links
def test_no_link_uncovers_what_is_hidden(project: Path) -> None:
    """A link of a read-only name: what it leads to is hidden all the same, and no Config is refused."""
    touch(project, "conf/prod", ".aws/config", ".env.local", ".git/config")
    (project / ".env").symlink_to("conf/prod")
    for name, target in ((".envrc", "conf/prod"), (".vimrc", ".aws/config"), (".vscode", ".aws"), (".exrc", ".env.local"), (".env.git", ".git")):
        (project / name).symlink_to(target)
    config = ps.Config.preset("agent", working_dir=project)
    assert below(project, config.hidden_paths) == {"conf/prod", ".aws", ".env.local"}
    assert below(project, config.read_only_dirs) == {".git"}


@needs_links
def test_links_to_a_project(project: Path, tmp_path: Path) -> None:
    touch(project, ".env", ".git/config")
    (tmp_path / "link").symlink_to(project)
    config = ps.Config.preset("agent", working_dir=tmp_path / "link")
    assert config.hidden_paths == (str(tmp_path / "link" / ".env"),)
    assert config.read_only_dirs == (str(tmp_path / "link" / ".git"),)


def test_more_secrets_than_can_be_hidden_are_an_error(project: Path) -> None:
    touch(project, *(f".env.{number}" for number in range(presets.MOST_FOUND + 1)))
    with pytest.raises(ps.ConfigError, match="more than 128"):
        ps.Config.preset("agent", working_dir=project)


def test_nothing_is_both_hidden_and_read_only() -> None:
    table = presets.table_of("agent")
    assert not set(table["project_hidden"]) & set(table["project_read_only"])
    assert not set(table["home_hidden"]) & set(table["home_readable"])
    assert all(not os.path.isabs(path.lstrip("!")) and ".." not in path for key in presets.OWN_KEYS[2:6] for path in table[key])
