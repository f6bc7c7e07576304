"""The command line without a run: options from fields, values, exit statuses."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

import proc_sandbox as ps
from proc_sandbox.cli import commands, main, options, parse, status
from proc_sandbox.docstrings import of_fields

RESULT = ps.Result(
    args=("true",),
    exit_code=0,
    signal=None,
    execution_time=0.1,
    cpu_time=ps.CpuTime(0.0, 0.0),
    peak_memory=None,
    throttled_time=None,
    peak_processes=None,
    timed_out=False,
    memory_exceeded=False,
    cpu_time_exceeded=False,
    processes_exceeded=False,
    output_truncated=ps.Truncated(stdout=False, stderr=False),
    reason=ps.Reason.EXITED,
    stdout=ps.Output(b""),
    stderr=ps.Output(b""),
    error=None,
    enforcement={},
)

VALUES: dict[str, tuple[list[str], object]] = {
    "timeout": (["--timeout", "1.5"], 1.5),
    "memory_limit": (["--memory-limit", "64M"], 64 << 20),
    "cpu_limit": (["--cpu-limit", "50"], 50.0),
    "cpu_time_limit": (["--cpu-time-limit", "2s"], 2.0),
    "max_processes": (["--max-processes", "10"], 10),
    "read_bps": (["--read-bps", "10M"], 10 << 20),
    "write_bps": (["--write-bps", "4096"], 4096),
    "max_output": (["--max-output", "1M"], 1 << 20),
    "max_file_size": (["--max-file-size", "4096"], 4096),
    "max_open_files": (["--max-open-files", "64"], 64),
    "tmp_size": (["--tmp-size", "8M"], 8 << 20),
    "working_dir": (["--working-dir", "/srv/w"], "/srv/w"),
    "allowed_dirs": (["--allowed-dirs", "/srv/a", "--allowed-dirs", "/srv/b"], ("/srv/a", "/srv/b")),
    "read_only_dirs": (["--read-only-dirs", "/srv/a"], ("/srv/a",)),
    "writable_dirs": (["--writable-dirs", "/srv/a"], ("/srv/a",)),
    "hidden_paths": (["--hidden-paths", "/srv/a/.env", "--hide", "/srv/b"], ("/srv/a/.env", "/srv/b")),
    "env": (["--env", "B=2", "--env", "A=1=1"], (("A", "1=1"), ("B", "2"))),
    "pass_env": (["--pass-env", "TZ"], ("TZ",)),
    "stdin": (["--stdin", "devnull"], ps.DEVNULL),
    "stdout": (["--stdout", "capture"], ps.CAPTURE),
    "stderr": (["--stderr", "stdout"], ps.STDOUT),
    "network_access": (["--network-access", "loopback"], "loopback"),
    "pass_fds": (["--pass-fds", "5"], (5,)),
    "hostname": (["--hostname", "123"], "123"),
    "umask": (["--umask", "077"], 0o077),
    "nice": (["--nice", "5"], 5),
    "core_dumps": (["--core-dumps"], True),
    "prepared": (["--prepared", "2"], 2),
    "kill_grace": (["--kill-grace", "0.5"], 0.5),
    "pty": (["--pty"], True),
    "backend": (["--backend", "posix"], "posix"),
    "enforcement": (["--enforcement", "best-effort:cpu_limit"], ps.best_effort("cpu_limit")),
}


@pytest.mark.parametrize("name", [field.name for field in fields(ps.Config)])
def test_every_field_of_config_has_an_option(name: str) -> None:
    words, expected = VALUES[name]
    config = options.make_config(parse(["run", *words, "--", "true"]))
    assert getattr(config, name) == expected


def test_what_is_not_given_is_configs_default_but_for_the_streams() -> None:
    config = options.make_config(parse(["run", "--", "true"]))
    assert config == ps.Config(stdin=ps.INHERIT, stdout=ps.INHERIT, stderr=ps.INHERIT)


def test_short_names() -> None:
    words = ["-t", "5", "-m", "1M", "--cpu", "50", "--pids", "3", "-C", "/w"]
    words += ["--ro", "/r", "--rw", "/x", "-e", "A=1", "--net", "yes"]
    config = options.make_config(parse(["run", *words, "--", "true"]))
    assert config.timeout == 5
    assert config.memory_limit == 1 << 20
    assert config.cpu_limit == 50
    assert config.max_processes == 3
    assert config.working_dir == "/w"
    assert config.read_only_dirs == ("/r",)
    assert config.writable_dirs == ("/x",)
    assert config.env == (("A", "1"),)
    assert config.network_access is True


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["run", "--", "echo", "-n"], ["echo", "-n"]),
        (["run", "echo", "-n", "-m"], ["echo", "-n", "-m"]),
        (["run", "-t", "5", "sh", "-c", "--", "x"], ["sh", "-c", "--", "x"]),
        (["run", "--", "--", "x"], ["--", "x"]),
        (["plan", "--", "a", "--json"], ["a", "--json"]),
    ],
)
def test_what_follows_is_the_commands(words: list[str], command: list[str]) -> None:
    assert parse(words).command == command


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["walk"],
        ["run"],
        ["run", "--"],
        ["run", "--no-such-option", "--", "true"],
        ["run", "--timeo", "5", "--", "true"],
        ["run", "--timeout"],
        ["plan", "--json", "--words", "--", "true"],
        ["doctor", "--", "true"],
    ],
)
def test_wrong_usage_is_125(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 125
    assert "proc-sandbox" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "--memry-limit", "3", "--", "true"], "proc-sandbox run: no such option: --memry-limit; did you mean --memory-limit?"),
        (["run"], "proc-sandbox run: a command is missing; see proc-sandbox run --help"),
        (["ps", "x"], "proc-sandbox ps: 'x' is one word too many; see proc-sandbox ps --help"),
        (["kill", "1", "--pid"], "no such option: --pid; see proc-sandbox kill --help"),
        ([], "ACTION; see proc-sandbox --help"),
    ],
)
def test_wrong_usage_is_told_with_the_actions_own_usage(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(words)
    error = capsys.readouterr().err
    assert said in error
    assert error.startswith(" ".join(["usage: proc-sandbox", *words[:1]]))


@pytest.mark.parametrize(
    "words",
    [
        ["-m", "256 MB"],
        ["-m", "-1"],
        ["-t", "0"],
        ["-t", "soon"],
        ["--cpu", "nan"],
        ["--pids", "0.5"],
        ["--umask", "999"],
        ["-e", "NOEQUALS"],
        ["--net", "maybe"],
        ["--enforcement", "lax"],
        ["--enforcement", "best-effort:no_such_field"],
        ["--pass-fds", "1"],
        ["--stdout", "stdout"],
        ["--json", "/nonexistent/directory/result.json"],
    ],
)
def test_refused_values_are_125_and_name_the_field(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", *words, "--", "true"]) == 125
    error = capsys.readouterr().err
    assert error.startswith("proc-sandbox: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, 0),
        ({"exit_code": 3}, 3),
        ({"exit_code": 137}, 137),
        ({"exit_code": None, "signal": 9, "reason": ps.Reason.SIGNALED}, 137),
        ({"exit_code": None, "signal": 9, "reason": ps.Reason.TIMEOUT}, 124),
        ({"exit_code": None, "signal": 24, "reason": ps.Reason.CPU_TIME}, 123),
        ({"exit_code": None, "signal": 9, "reason": ps.Reason.MEMORY}, 122),
        ({"exit_code": None, "signal": 9, "reason": ps.Reason.KILLED_OUTSIDE}, 137),
        ({"exit_code": None, "reason": ps.Reason.CANCELLED}, 125),
    ],
)
def test_exit_status(changes: dict[str, object], expected: int) -> None:
    assert status.exit_status(replace(RESULT, **changes)) == expected  # type: ignore[arg-type]


def test_failure_status() -> None:
    assert status.failure_status(ps.CommandNotFoundError("execve", "x", 2)) == 127
    assert status.failure_status(ps.CommandNotExecutableError("execve", "x", 13)) == 126
    assert status.failure_status(ps.LaunchError("mount", "/srv", 1)) == 125


def test_help_has_the_docstring_of_every_field(capsys: pytest.CaptureFixture[str]) -> None:
    described = of_fields()
    assert sorted(described) == sorted(field.name for field in fields(ps.Config))
    assert all(described.values())
    with pytest.raises(SystemExit) as caught:
        main(["run", "--help"])
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    assert "--memory-limit SIZE" in printed
    assert "exit status of run" in printed


def test_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_args: object, **_keywords: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ps, "run", interrupt)
    assert main(["run", "--", "true"]) == 130


@pytest.mark.parametrize(
    ("how", "failure", "expected"),
    [
        (ps.Enforced("cgroup2 memory.max"), None, commands.ALL_ENFORCED),
        (ps.Unenforced("no cgroup", "delegate one"), None, commands.SOME_MISSING),
        (ps.Enforced("cgroup2 memory.max"), "mount: EPERM", commands.UNUSABLE),
    ],
)
def test_doctors_verdict(
    how: ps.Enforced | ps.Unenforced,
    failure: str | None,
    expected: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Capabilities:
        def items(self) -> list[tuple[str, ps.Enforced | ps.Unenforced]]:
            return [("memory_limit", how)]

        def report(self) -> str:
            return "memory_limit ..."

    monkeypatch.setattr(ps, "capabilities", lambda backend: Capabilities())
    monkeypatch.setattr(commands, "trial", lambda backend: failure)
    assert main(["doctor"]) == expected
    printed = capsys.readouterr().out
    assert f"a confined run of true(1): {failure or 'ok'}" in printed
    assert ("missing: memory_limit" in printed) == isinstance(how, ps.Unenforced)
