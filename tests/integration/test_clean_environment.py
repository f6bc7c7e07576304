"""The environment: a small clean one, and what the caller names."""

from __future__ import annotations

import contextlib
import os
import subprocess
from pathlib import Path

import pytest
from support.behaviours import promise
from support.processes import caller, children, output_of
from support.programs import HANG, inside, outside, text

import proc_sandbox as ps

EVERY_BACKEND = True

CANARIES = [
    *(
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AZURE_CLIENT_SECRET",
        "GITHUB_TOKEN",
        "GH_TOKEN",
    ),
    *("GITHUB_ENV", "GITLAB_TOKEN", "NPM_TOKEN", "PYPI_TOKEN", "TWINE_PASSWORD", "OPENAI_API_KEY", "ANTHROPIC_API_KEY"),
    *("HF_TOKEN", "SLACK_TOKEN", "STRIPE_KEY", "DATABASE_URL", "PGPASSWORD", "MYSQL_PWD", "REDIS_URL", "VAULT_TOKEN"),
    *(
        "KUBECONFIG",
        "DOCKER_HOST",
        "DOCKER_CONFIG",
        "SSH_AUTH_SOCK",
        "SSH_AGENT_PID",
        "GPG_AGENT_INFO",
        "DBUS_SESSION_BUS_ADDRESS",
    ),
    *(
        "XDG_RUNTIME_DIR",
        "XAUTHORITY",
        "DISPLAY",
        "WAYLAND_DISPLAY",
        "HTTP_PROXY",
        "https_proxy",
        "NETRC",
        "PYTHONSTARTUP",
    ),
    *("BASH_ENV", "NODE_OPTIONS", "GCONV_PATH", "PROC_SANDBOX_CANARY"),
]
SECRET = "canary-5f3a9c"


def variables(result: ps.Result) -> dict[str, str]:
    """What env(1) printed."""
    return dict(line.partition("=")[::2] for line in text(result).splitlines())


@promise("private directory")
def test_the_default_is_small_and_clean(backend: str) -> None:
    got = variables(inside(["env"], check=True))
    assert got.pop("PATH") == "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    home = got.pop("HOME")
    assert home == ("/tmp/home" if backend == "linux" else got.pop("TMPDIR"))
    assert got.pop("LANG") == "C.UTF-8"
    assert got.pop("USER") == got.pop("LOGNAME") == "sandbox"
    assert set(got) <= {"PWD", "SHELL"} | ({"PROC_SANDBOX_RUN"} if backend == "posix" else set())


@promise("others")
def test_canaries_reach_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CANARIES:
        monkeypatch.setenv(name, f"{SECRET}-{name}")
    assert len(CANARIES) >= 40
    script = "env; cat /proc/*/environ /proc/*/cmdline 2>/dev/null; set; true"
    control = text(outside(["env"]))
    assert control.count(SECRET) >= 40
    result = inside(["sh", "-c", script])
    assert result.ok
    assert SECRET not in text(result)


def test_the_launcher_has_none_of_them_either() -> None:
    """Its memory would be the prize of whoever broke into it."""
    code = "import proc_sandbox as ps, sys; print(ps.run(['true']).ok, flush=True); sys.stdin.read()"
    with caller(
        code, stdin=subprocess.PIPE, env={name: SECRET for name in CANARIES if name != "PYTHONSTARTUP"}
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"True\n"
        launchers = children(process.pid)
        assert launchers
        for pid in launchers:
            with contextlib.suppress(PermissionError):  # it is not dumpable: only root may look
                assert SECRET.encode() not in Path(f"/proc/{pid}/environ").read_bytes()
            assert SECRET.encode() not in Path(f"/proc/{pid}/cmdline").read_bytes()
        process.communicate(timeout=HANG)


@promise("private directory")
@pytest.mark.parametrize(
    "given",
    [
        {"A": "1", "B": "two words", "C": ""},
        ["A=1", "B=two words", "C="],
        lambda: (pair for pair in ["A=1", "B=two words", "C="]),
    ],
)
def test_what_is_named_arrives(given: object, backend: str) -> None:
    got = variables(inside(["env"], env=given() if callable(given) else given))
    assert (got["A"], got["B"], got["C"]) == ("1", "two words", "")
    assert got["HOME"] == ("/tmp/home" if backend == "linux" else got["TMPDIR"])


def test_what_is_named_wins_over_the_default() -> None:
    got = variables(inside(["env"], env={"PATH": "/bin:/usr/bin", "HOME": "/tmp", "LANG": "de_DE.UTF-8"}))
    assert (got["PATH"], got["HOME"], got["LANG"]) == ("/bin:/usr/bin", "/tmp", "de_DE.UTF-8")


def test_pass_env_passes_these_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANTED", "yes")
    monkeypatch.setenv("UNWANTED", "no")
    monkeypatch.delenv("ABSENT", raising=False)
    got = variables(inside(["env"], pass_env=["WANTED", "ABSENT"]))
    assert got["WANTED"] == "yes"
    assert "UNWANTED" not in got
    assert "ABSENT" not in got
    assert variables(inside(["env"], pass_env=["WANTED"], env={"WANTED": "mine"}))["WANTED"] == "mine"


def test_values_may_be_any_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    value = "".join(chr(number) for number in range(1, 128)) + os.fsdecode(bytes(range(128, 256)))
    monkeypatch.setenv("PASSED", value)
    result = inside(["sh", "-c", 'printf %s "$GIVEN"; printf %s "$PASSED"'], env={"GIVEN": value}, pass_env=["PASSED"])
    assert result.stdout == os.fsencode(value) * 2


@pytest.mark.parametrize(
    "name", ["LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "GCONV_PATH", "MALLOC_CHECK_", "LD_DEBUG"]
)
def test_variables_of_the_caller_do_nothing_to_the_launcher(name: str, tmp_path: Path) -> None:
    value = str(tmp_path / "missing.so") if name.startswith(("LD_P", "LD_A", "LD_L", "GC")) else "all"
    code = "import proc_sandbox as ps; r = ps.run(['true']); assert r.ok and not r.stderr, r; print('fine')"
    assert output_of(code, env={name: value}).endswith("fine\n")


def test_variables_given_to_the_command_reach_it_alone(tmp_path: Path) -> None:
    """LD_DEBUG makes a dynamically linked program talk: the command may, nothing of ours must before it."""
    result = inside(["env"], env={"LD_PRELOAD": str(tmp_path / "missing.so"), "BASH_ENV": "/x", "PYTHONSTARTUP": "/y"})
    assert result.ok
    got = variables(result)
    assert (got["BASH_ENV"], got["PYTHONSTARTUP"]) == ("/x", "/y")


def test_the_sandbox_does_not_follow_the_callers_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SETTING", "old")
    config = ps.Config(env={"FIXED": "1"}, pass_env=["SETTING"])
    monkeypatch.setenv("SETTING", "new")
    assert variables(inside(["env"], config=config))["SETTING"] == "new", "names are passed on at each run"
