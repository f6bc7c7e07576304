"""What a Windows has: found out by trying, so that what is accepted and not done counts as missing."""

from __future__ import annotations

import ntpath
import os
import sys
from pathlib import Path
from typing import cast

import pytest
from support.fake_security import FakeSecurity, SecureWin32, fake_tools
from support.windows import act, failing

from proc_sandbox.backends.windows.probe import IN_JOB, NEWER, probe
from proc_sandbox.backends.windows.tools import Tools
from proc_sandbox.backends.windows.winapi import (
    ERROR_ACCESS_DENIED,
    ERROR_INVALID_PARAMETER,
    JOB_OBJECT_LIMIT_JOB_MEMORY,
    JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE,
    CpuRate,
    Creation,
    ExtendedLimits,
)

ALL = {
    "job", "job_memory", "job_processes", "job_time", "job_cpu_rate", "job_priority", "job_exceptions", "job_ui", "restricted_token",
    "low_integrity", "mitigations", "appcontainer",
}  # fmt: skip


@pytest.fixture
def tools(tmp_path: Path) -> Tools:
    return fake_tools(str(tmp_path / "journal"), {ntpath.normpath(sys.executable).lower(): act})


def missing(tools: Tools) -> dict[str, str]:
    """What is missing and why; whatever the probe started, opened or wrote down is gone."""
    host = probe(tools)
    win32, security = cast(SecureWin32, tools.win32), cast(FakeSecurity, tools.security)
    assert set(host.features) == ALL
    assert host.processors == (os.cpu_count() or 0)
    assert not win32.own_handles()
    assert all(process.ended for process in win32.processes.values())
    assert not any(process.thread.is_alive() for process in win32.processes.values()), "the trial's program has run"
    assert (security.profiles, win32.sids, list(tools.journal.left())) == (set(), {}, [])
    return {name: feature.reason for name, feature in host.features.items() if not feature}


def test_a_journal_that_cannot_be_written(tools: Tools, tmp_path: Path) -> None:
    """A service may have no directory of its own for it: then no AppContainer can be, and all else can."""
    (tmp_path / "journal").write_text("a file")
    host = probe(tools)
    assert {name for name, feature in host.features.items() if not feature} == {"appcontainer"}


def test_a_windows_that_does_what_it_says_has_everything(tools: Tools) -> None:
    assert missing(tools) == {}


@pytest.mark.parametrize(
    ("lie", "lost"),
    [
        ("privileges", {"restricted_token", "low_integrity"}),
        ("integrity", {"low_integrity"}),
        ("mitigations", {"mitigations"}),
        ("package", {"appcontainer"}),
    ],
)
def test_what_a_process_did_not_get_is_missing_whatever_the_call_said(tools: Tools, lie: str, lost: set[str]) -> None:
    cast(SecureWin32, tools.win32).lies.add(lie)
    found = missing(tools)
    assert set(found) == lost
    assert all(reason.startswith("accepted and not kept") for reason in found.values())
    assert all(probe(tools).features[name].remedy == NEWER for name in lost)


def test_limits_that_a_job_forgets(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Wine: all zeros are read back, and only what was tried counts for the job as a whole."""
    monkeypatch.setattr(tools.win32, "extended_limits", lambda job: ExtendedLimits())
    monkeypatch.setattr(tools.win32, "ui_restrictions", lambda job: 0)
    monkeypatch.setattr(tools.win32, "cpu_rate", lambda job: CpuRate(0, 0))
    found = missing(tools)
    assert set(found) == {name for name in ALL if name.startswith("job_")}
    assert set(found.values()) == {"accepted and not kept"}


def test_one_limit_that_a_job_forgets(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    real = cast(SecureWin32, tools.win32).extended_limits
    monkeypatch.setattr(
        tools.win32, "extended_limits", lambda job: (kept := real(job))._replace(flags=kept.flags & ~JOB_OBJECT_LIMIT_JOB_MEMORY)
    )
    assert set(missing(tools)) == {"job_memory"}


def test_a_job_that_does_not_end_its_processes(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one flag on which everything rests is tried, not read."""
    win32 = cast(SecureWin32, tools.win32)
    real = win32.set_extended_limits
    monkeypatch.setattr("proc_sandbox.backends.windows.probe.LONG", 1)
    monkeypatch.setattr(
        win32, "set_extended_limits", lambda job, limits: real(job, limits._replace(flags=limits.flags & ~JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE))
    )
    host = probe(tools)
    assert host.features["job"].reason == "a process outlives its job: KILL_ON_JOB_CLOSE is not kept"


def test_a_caller_in_a_job_with_which_no_ui_restrictions_go(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    """ "Nested Jobs": a job with UI restrictions cannot be part of a hierarchy."""
    win32 = cast(SecureWin32, tools.win32)
    real, restricted = win32.create_process, set[int]()
    monkeypatch.setattr(win32, "set_ui_restrictions", lambda job, flags: restricted.add(job))
    monkeypatch.setattr(win32, "ui_restrictions", lambda job: 0xFF)

    def refuse(creation: Creation) -> object:
        if restricted & set(creation.jobs):
            failing("CreateProcessW", ERROR_ACCESS_DENIED)()
        return real(creation)

    monkeypatch.setattr(win32, "create_process", refuse)
    host = probe(tools)
    assert [name for name, feature in host.features.items() if not feature] == ["job_ui"]
    assert host.features["job_ui"].remedy == IN_JOB


@pytest.mark.parametrize(
    ("function", "lost"),
    [
        ("DeriveAppContainerSidFromAppContainerName", {"appcontainer"}),
        ("CreateAppContainerProfile", {"appcontainer"}),
        ("CreateRestrictedToken", {"restricted_token", "low_integrity"}),
    ],
)
def test_what_an_older_windows_does_not_have(tools: Tools, function: str, lost: set[str]) -> None:
    cast(FakeSecurity, tools.security).lacks.add(function)
    found = missing(tools)
    assert set(found) == lost
    assert all(function in reason for reason in found.values())


def test_a_cpu_rate_that_is_refused(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    """ "JOBOBJECT_CPU_RATE_CONTROL_INFORMATION": not with a rate in an outer job, nor with fair share scheduling of sessions."""
    monkeypatch.setattr(tools.win32, "set_cpu_rate", failing("SetInformationJobObject", ERROR_INVALID_PARAMETER))
    found = missing(tools)
    assert set(found) == {"job_cpu_rate"}
    assert "refused" in found["job_cpu_rate"]


def test_without_the_number_of_processors_no_rate_can_be_told(tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert set(missing(tools)) == {"job_cpu_rate"}
