"""The Windows planner: expected plans as JSON beside this file, and the table of what each limit becomes. Runs on any system."""

from __future__ import annotations

import json
import os
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from support.windows_hosts import FEATURES, NO_APP_CONTAINER, PATHS, WINDOWS, WINE, grant

import proc_sandbox as ps
from proc_sandbox.host import Feature, Hidden, Host, Paths
from proc_sandbox.planner import capabilities_of, compile_plan
from proc_sandbox.planner.windows.mechanisms import LADDER
from proc_sandbox.planner.windows.plan import SCRATCH, UI, Access, JobLimits, Token, WindowsPlan
from proc_sandbox.planner.windows.planner import cpu_rate, priority
from proc_sandbox.planner.windows.promises import DIFFERENCES, WEAKER

PLANS = Path(__file__).with_name("plans")
LIMITS: dict[str, Any] = {"memory_limit": "64M", "cpu_limit": 50, "cpu_time_limit": 2, "max_processes": 10, "timeout": 5}
GRANTED = PATHS._replace(
    grants=(grant("C:\\data", "read"), grant("D:\\out", "write"), grant("D:\\out\\inputs", "read")), private="C:\\Temp\\own"
)


def plan(host: Host = WINDOWS, paths: Paths = PATHS, **config: Any) -> WindowsPlan:
    config.setdefault("hidden_paths", [item.path for item in paths.hidden])
    made = compile_plan(ps.Config(**config), ["whoami", "/all"], host, paths)
    assert isinstance(made, WindowsPlan)
    return made


@pytest.mark.parametrize(
    ("name", "host", "paths", "config"),
    [
        ("windows-bare", WINDOWS, PATHS, {}),
        ("windows-limits", WINDOWS, PATHS, {**LIMITS, "nice": 5, "core_dumps": True, "network_access": True}),
        ("windows-sandbox", WINDOWS, GRANTED, {"env": {"Path": "C:\\tools", "LEVEL": "3"}}),
        ("windows-low-integrity", NO_APP_CONTAINER, GRANTED, {**LIMITS, "enforcement": "best-effort"}),
        ("windows-wine", WINE, PATHS, {**LIMITS, "enforcement": "best-effort"}),
    ],
)
def test_the_plan_is_the_expected_one(name: str, host: Host, paths: Paths, config: dict[str, Any]) -> None:
    """A difference here is a decision about security: read it as one. PROC_SANDBOX_RECORD=1 writes them anew."""
    file = PLANS / f"{name}.json"
    made = plan(host, paths, **config)
    if os.environ.get("PROC_SANDBOX_RECORD"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(made.to_json() + "\n", encoding="utf-8")
    assert json.loads(made.to_json()) == json.loads(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("percent", "processors", "rate"),
    [
        (100, 1, 10_000),
        (50, 1, 5_000),
        (50, 8, 625),
        (250, 4, 6_250),
        (33, 7, 471),  # 471.4: a limit is not to be passed
        (100, 64, 156),
        (6400, 64, 10_000),
        (100_000, 2, 10_000),  # more than there is
        (1, 100, 1),
        (1, 200, 0),  # less than can be told
    ],
)
def test_percent_of_one_core_as_a_part_of_all(percent: float, processors: int, rate: int) -> None:
    assert cpu_rate(percent, processors) == rate


def test_a_cpu_limit_that_cannot_be_told_is_refused() -> None:
    many = replace(WINDOWS, processors=200)
    with pytest.raises(ps.UnsupportedError, match="2 percent of one core here"):
        plan(many, cpu_limit=1)
    lenient = plan(many, cpu_limit=1, enforcement=ps.best_effort("cpu_limit"))
    assert lenient.job.cpu_rate == 0
    assert isinstance(lenient.enforcement["cpu_limit"], ps.Unenforced)


def test_limits_of_the_job() -> None:
    made = plan(**LIMITS)
    assert made.job == JobLimits(memory=64 << 20, processes=10, user_time=20_000_000, cpu_rate=625)
    assert made.job.ui == UI
    assert (made.timeout, made.cpu_time) == (5_000_000_000, 2_000_000_000)
    assert made.job.kill_on_close
    assert made.job.die_on_unhandled_exception
    assert plan().job == JobLimits()


def test_what_a_host_does_not_keep_is_not_told_to_the_job() -> None:
    made = plan(WINE, **LIMITS, enforcement="best-effort")
    assert made.job == JobLimits(ui=(), die_on_unhandled_exception=False)
    assert (made.token, made.app_container, made.access, made.mitigations) == (None, None, (), ())
    assert made.cpu_time == 0, "what is not promised is not watched"
    assert made.enforcement["memory_limit"] == ps.Unenforced(
        "job object JOB_MEMORY: commit charge of the tree: accepted and not kept", "run on Windows itself"
    )
    assert isinstance(made.enforcement["timeout"], ps.Enforced)


@pytest.mark.parametrize("name", ["memory_limit", "cpu_limit", "cpu_time_limit", "max_processes"])
def test_strict_refuses_what_a_host_does_not_keep(name: str) -> None:
    missing = {"memory_limit": "job_memory", "cpu_limit": "job_cpu_rate", "cpu_time_limit": "job_time", "max_processes": "job_processes"}
    host = replace(WINDOWS, features={**FEATURES, missing[name]: Feature(False, "accepted and not kept", "run on Windows itself")})
    with pytest.raises(ps.UnsupportedError, match="accepted and not kept") as caught:
        plan(host, **{name: LIMITS[name]})
    assert (caught.value.field, caught.value.remedy) == (name, "run on Windows itself")


ASKED: dict[str, Any] = {
    "read_bps": "1M", "write_bps": "1M", "max_file_size": "1M", "max_open_files": 64, "tmp_size": "8M",
    "hostname": "other", "umask": 0o077, "pass_fds": (3,),
}  # fmt: skip


@pytest.mark.parametrize("name", ASKED)
def test_what_windows_has_no_mechanism_for(name: str) -> None:
    with pytest.raises(ps.UnsupportedError) as caught:
        plan(**{name: ASKED[name]})
    assert caught.value.field == name
    assert caught.value.remedy
    said = plan(**{name: ASKED[name]}, enforcement=ps.best_effort(name)).enforcement[name]
    assert isinstance(said, ps.Unenforced)
    assert said.remedy == caught.value.remedy
    assert name not in plan().enforcement or name == "max_output", "its default asks for nothing"


def test_what_is_hidden_is_refused_where_it_would_be_seen() -> None:
    paths = GRANTED._replace(hidden=(Hidden("C:\\data\\.env", "C:\\data\\.env", False),))
    with pytest.raises(ps.UnsupportedError) as caught:
        plan(paths=paths)
    assert caught.value.field == "hidden_paths"
    assert isinstance(plan(paths=paths, enforcement="best-effort").enforcement["hidden_paths"], ps.Unenforced)
    assert "hidden_paths" not in plan(paths=GRANTED).enforcement


ELSEWHERE = {
    "max_output", "working_dir", "allowed_dirs", "read_only_dirs", "writable_dirs", "env", "pass_env", "stdin", "stdout", "stderr",
    "nice", "core_dumps", "kill_grace", "prepared", "enforcement", "backend", "pty",
}  # fmt: skip
"""Fields that are not a limit of the ladder: grants are `files`, the rest always works."""


def test_every_field_of_config_is_answered_for() -> None:
    names = {field.name for field in fields(ps.Config)}
    assert names - set(LADDER) <= ELSEWHERE
    assert set(LADDER) - names == {"files", "privileges", "processes", "ipc", "syscalls"}
    assert all(rungs for rungs in LADDER.values())


def test_what_is_different_is_said_by_the_names_of_promises() -> None:
    from support.behaviours import PROMISES

    assert set(DIFFERENCES) | set(WEAKER) <= set(PROMISES)
    assert not set(DIFFERENCES) & set(WEAKER)
    of_limits = {"cpu_time_limit": "cpu time", "max_processes": "processes", "syscalls": "honesty", "read_bps": "honesty",
                 "write_bps": "honesty", "max_file_size": "file size"}  # fmt: skip
    for name, how in capabilities_of(WINDOWS).items():
        if isinstance(how, ps.Unenforced) or how.strength != "kernel":
            assert of_limits[name] in {**DIFFERENCES, **WEAKER}


def test_how_strong_each_mechanism_is() -> None:
    said = capabilities_of(WINDOWS)
    assert {name for name, how in said.items() if isinstance(how, ps.Unenforced)} == {"read_bps", "write_bps", "max_file_size"}
    weak = {name: how.strength for name, how in said.items() if isinstance(how, ps.Enforced) and how.strength != "kernel"}
    assert weak == {"cpu_time_limit": "sampled", "max_processes": "partial", "syscalls": "partial"}


def test_network() -> None:
    assert plan().app_container == ()
    assert plan(network_access=True).app_container == ("internetClient", "internetClientServer", "privateNetworkClientServer")
    with pytest.raises(ps.UnsupportedError, match="no network of a run's own") as caught:
        plan(network_access="loopback")
    assert caught.value.field == "network_access"
    lenient = plan(network_access="loopback", enforcement=ps.best_effort("network_access"))
    assert lenient.app_container == (), "less than asked for, never more"
    with pytest.raises(ps.UnsupportedError) as caught:
        plan(NO_APP_CONTAINER, enforcement=ps.best_effort("files"))
    assert (caught.value.field, caught.value.remedy) == ("network_access", "Windows 8 or newer")


def test_without_an_app_container_low_integrity_is_applied_and_not_called_enough() -> None:
    with pytest.raises(ps.UnsupportedError) as caught:
        plan(NO_APP_CONTAINER)
    assert caught.value.field == "files"
    made = plan(NO_APP_CONTAINER, GRANTED, enforcement="best-effort")
    said = made.enforcement["files"]
    assert isinstance(said, ps.Unenforced)
    assert "reading stays open" in said.reason
    assert made.token == Token(integrity="low")
    assert made.access == (Access("C:\\Temp\\own", "low"), Access("D:\\out", "low"), Access("D:\\out\\inputs", "medium"))
    for name in ("processes", "ipc", "privileges"):
        how = made.enforcement[name]
        assert isinstance(how, ps.Enforced)
        assert how.remedy == "Windows 8 or newer", "what would be stronger is said"


def test_a_caller_in_a_job_has_no_ui_restrictions_and_says_so() -> None:
    host = replace(WINDOWS, features={**FEATURES, "job_ui": Feature(False, "denied", "start the caller outside of a job")})
    made = plan(host)
    how = made.enforcement["ipc"]
    assert isinstance(how, ps.Enforced)
    assert (how.strength, how.remedy, made.job.ui) == ("partial", "start the caller outside of a job", ())
    with pytest.raises(ps.UnsupportedError, match="denied"):
        plan(replace(host, features={**host.features, "appcontainer": Feature(False, "no", "do")}), enforcement=ps.best_effort("files", "network_access"))


def test_who_may_touch_what() -> None:
    made = plan(paths=GRANTED)
    assert made.access == (
        Access("C:\\Users\\me\\Python311", "read", holder="caller"),
        Access("C:\\Temp\\own", "write"),
        Access("C:\\data", "read"),
        Access("D:\\out", "write"),
        Access("D:\\out\\inputs", "read"),
        Access("D:\\out\\inputs", "deny_write"),
    )
    assert (made.cwd, made.scratch) == ("C:\\Temp\\own", False)
    assert plan().access[-1] == Access(SCRATCH, "write")
    assert (plan().cwd, plan().scratch) == (SCRATCH, True)


@pytest.mark.parametrize(
    ("writable", "readable", "denied"),
    [("D:\\out", "d:\\OUT\\x", True), ("D:\\out", "D:\\outer", False), ("D:\\out\\", "D:\\out\\x", True), ("D:\\x\\..\\out", "D:\\out\\x", True)],
)
def test_what_lies_in_another_directory_is_known_whatever_its_spelling(writable: str, readable: str, denied: bool) -> None:
    made = plan(paths=PATHS._replace(grants=(grant(writable, "write"), grant(readable, "read"))))
    assert (Access(readable, "deny_write") in made.access) == denied


def test_the_environment_is_small_and_inherits_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    names = [name for name, _ in plan().environment]
    assert names == [
        "COMSPEC", "NUMBER_OF_PROCESSORS", "OS", "PATH", "PATHEXT", "SYSTEMDRIVE", "SYSTEMROOT", "TEMP", "TMP", "USERNAME",
        "USERPROFILE", "WINDIR",
    ]  # fmt: skip
    found = dict(plan().environment)
    assert found["PATH"] == "C:\\Users\\me\\Python311;C:\\Windows\\System32;C:\\Windows;C:\\Windows\\System32\\Wbem"
    assert (found["TEMP"], found["USERPROFILE"], found["SYSTEMDRIVE"]) == (SCRATCH, SCRATCH, "C:")


def test_names_of_variables_are_the_same_in_either_case() -> None:
    found = plan(env={"Path": "C:\\tools", "systemroot": "X", "a": "1"}).environment
    assert [name for name, _ in found if name.upper() in ("PATH", "SYSTEMROOT")] == ["Path", "systemroot"]
    assert [name.upper() for name, _ in found] == sorted(name.upper() for name, _ in found), "as CreateProcess wants them"
    with pytest.raises(ps.ConfigError, match="either case"):
        plan(env={"A": "1", "a": "2"})


@pytest.mark.parametrize(("nice", "name"), [(0, ""), (1, "below normal"), (9, "below normal"), (10, "idle"), (19, "idle")])
def test_niceness_is_a_priority_class(nice: int, name: str) -> None:
    assert priority(nice) == plan(nice=nice).job.priority == name


def test_the_plan_is_data_and_tells_all() -> None:
    assert plan(**LIMITS) == plan(**LIMITS)
    text = plan(paths=GRANTED, **LIMITS).describe()
    for part in ("job memory = 67108864", "job cpu_rate = 625", "AppContainer of the run's own; capabilities: none", "deny_write D:\\out\\inputs",
                 "deny-only", "kill_on_close", "mitigations"):  # fmt: skip
        assert part in text
    assert plan().command == ("whoami", "/all")


def test_there_is_no_terminal_yet() -> None:
    with pytest.raises(ps.UnsupportedError) as caught:
        compile_plan(ps.Config(pty=True, enforcement="best-effort"), ["cmd"], WINDOWS, PATHS)
    assert caught.value.field == "pty"
