"""What this Windows can do: found out by trying, on a job and on programs that are started asleep and never wake.

What a call accepts proves nothing (Wine accepts memory limits, restricted tokens and low integrity, and does nothing): each limit is read
back from the job, and of the rest it is the trial process itself that is asked what it got.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterator

from proc_sandbox.backends.windows.appcontainer import PREFIX, undo
from proc_sandbox.backends.windows.job import Job, NotKept
from proc_sandbox.backends.windows.journal import Entry
from proc_sandbox.backends.windows.limits import bounds, promised
from proc_sandbox.backends.windows.process import OWN_CONSOLE, Process, command_line, environment_block, start
from proc_sandbox.backends.windows.security import CHANGE_NOTIFY, LOW, MITIGATION_BITS, MITIGATION_POLICIES
from proc_sandbox.backends.windows.token import make_token
from proc_sandbox.backends.windows.tools import Tools
from proc_sandbox.backends.windows.winapi import CREATE_SUSPENDED, ERROR_PROC_NOT_FOUND, Creation, Win32Error
from proc_sandbox.errors import LaunchError
from proc_sandbox.host import Feature, Host
from proc_sandbox.planner.windows.plan import UI, JobLimits, Token
from proc_sandbox.planner.windows.planner import MITIGATIONS

__all__ = ["probe"]

TRIAL = JobLimits(memory=256 << 20, processes=16, user_time=600_000_000, cpu_rate=5000, priority="below normal")
"""Values that no default can be taken for."""
BARE = JobLimits(ui=(), die_on_unhandled_exception=False)
"""A job that only holds its processes together."""
OF_JOB = {
    "job_memory": "job_memory",
    "active_processes": "job_processes",
    "job_time": "job_time",
    "cpu_rate": "job_cpu_rate",
    "priority_class": "job_priority",
    "die_on_unhandled_exception": "job_exceptions",
    "ui": "job_ui",
}
"""What a bound of job.py is called as a feature."""
LONG = 10_000
"""Milliseconds after which what should have ended by then counts as alive."""
NOT_KEPT = "accepted and not kept"
NEWER = "Windows 10, Windows Server 2016 or newer"
ON_WINDOWS = "run on Windows itself: Wine holds processes together, and neither limits nor isolates them"
IN_JOB = "start the caller outside of a job: in one no other with UI restrictions can be nested"


def probe(tools: Tools) -> Host:
    """Return what this machine can do."""
    remedy = ON_WINDOWS if tools.win32.wine_version() else NEWER
    features = {**job_features(tools, remedy), **token_features(tools, remedy)}
    features["appcontainer"] = tried(lambda: try_container(tools), remedy)
    processors = os.cpu_count() or 0
    if not processors:
        features["job_cpu_rate"] = Feature(False, "the number of processors cannot be told", remedy)
    return Host("windows", features, processors=processors)


def tried(attempt: Callable[[], str], remedy: str) -> Feature:
    """Return what an attempt came to; it returns why not, or ""."""
    try:
        reason = attempt()
    except LaunchError as error:
        reason = error.hint or str(error)
    except Win32Error as error:
        absent = error.code == ERROR_PROC_NOT_FOUND
        reason = f"there is no {error.function} here" if absent else error.strerror or str(error)
    except OSError as error:
        reason = f"the journal cannot be written: {error}"
    return Feature(not reason, reason, remedy if reason else "")


def job_features(tools: Tools, remedy: str) -> dict[str, Feature]:
    """Return what a job keeps, and whether it can be had at all."""
    with Job(tools.win32) as job:
        lost = {item.name: item for item in job.bind(bounds(TRIAL))}
    found = {feature: kept(lost.get(name), remedy) for name, feature in OF_JOB.items()}
    found["job"] = tried(lambda: try_job(tools, BARE), "")
    if found["job_ui"] and found["job"] and (reason := tried(lambda: try_job(tools, BARE._replace(ui=UI)), "").reason):
        found["job_ui"] = Feature(False, reason, IN_JOB)
    return found


def kept(lost: NotKept | None, remedy: str) -> Feature:
    return Feature(False, lost.reason, remedy) if lost else Feature(True)


@contextlib.contextmanager
def asleep(tools: Tools, limits: JobLimits, **creation: object) -> Iterator[tuple[Job, Process]]:
    """Have a program in a job, started and not running."""
    with Job(tools.win32) as job:
        missing = promised(job.bind(bounds(limits)))
        if missing:
            raise LaunchError("job", missing[0].name, errno.ENOTSUP, missing[0].reason)
        told = Creation(
            application=sys.executable,
            command_line=command_line([sys.executable]),
            environment=environment_block([("SYSTEMROOT", os.environ.get("SYSTEMROOT", "C:\\Windows"))]),
            flags=CREATE_SUSPENDED | OWN_CONSOLE,
            jobs=(job.handle,),
        )
        with start(tools.win32, told._replace(**creation)) as process:  # type: ignore[arg-type]
            try:
                yield job, process
            finally:
                if job.handle:
                    job.end(1)


def try_job(tools: Tools, limits: JobLimits) -> str:
    """Try whether a process is born in a job, and ends with it."""
    with asleep(tools, limits) as (job, process):
        if not tools.win32.is_process_in_job(process.handle, job.handle):
            return "the process is not in its job"
        job.close()
        return "" if process.wait(LONG) else "a process outlives its job: KILL_ON_JOB_CLOSE is not kept"


def token_features(tools: Tools, remedy: str) -> dict[str, Feature]:
    """Return what a token takes from a process that is started with it."""
    low = tried(lambda: try_token(tools, Token(integrity="low")), remedy)
    return {
        "restricted_token": low or tried(lambda: try_token(tools, Token()), remedy),
        "low_integrity": low,
        "mitigations": tried(lambda: try_mitigations(tools), remedy),
    }


def try_token(tools: Tools, asked: Token) -> str:
    token = make_token(tools.win32, tools.security, asked)
    try:
        with asleep(tools, BARE, token=token) as (_, process):
            return lost_by(tools, process, asked)
    finally:
        tools.win32.close(token)


def lost_by(tools: Tools, process: Process, asked: Token) -> str:
    """Return what a process has not lost although its token had."""
    token = tools.security.process_token(process.handle)
    try:
        if set(tools.security.privileges(token)) - {CHANGE_NOTIFY}:
            return f"{NOT_KEPT}: the process has its privileges still"
        if asked.integrity and tools.security.integrity(token) != LOW:
            return f"{NOT_KEPT}: the process has its integrity still"
        return ""
    finally:
        tools.win32.close(token)


def try_mitigations(tools: Tools) -> str:
    bits = sum(MITIGATION_BITS[name] for name in MITIGATIONS)
    with asleep(tools, BARE, mitigations=bits) as (_, process):
        policies = {name: tools.security.mitigation(process.handle, MITIGATION_POLICIES[name]) for name in MITIGATIONS}
    missing = [name for name, policy in policies.items() if not policy & 1]
    return f"{NOT_KEPT}: {', '.join(missing)}" if missing else ""


def try_container(tools: Tools) -> str:
    """Try whether a process can be in an AppContainer; its profile is undone as a run's is."""
    entry = Entry(profile=f"{PREFIX}trial-{os.getpid()}")
    entry.sid = tools.security.container_sid(entry.profile)
    written = tools.journal.begin(entry)
    try:
        tools.security.create_profile(entry.profile)
        package = tools.security.allocate_sid(entry.sid)
        try:
            with asleep(tools, BARE, package=package) as (_, process):
                return "" if in_container(tools, process) else NOT_KEPT
        finally:
            tools.security.free(package)
    finally:
        undo(tools.control, tools.security, entry)
        written.done()


def in_container(tools: Tools, process: Process) -> bool:
    token = tools.security.process_token(process.handle)
    try:
        return tools.security.is_app_container(token)
    finally:
        tools.win32.close(token)
