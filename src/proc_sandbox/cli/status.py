"""Exit statuses: Result or error -> number, as timeout(1) and env(1) use them."""

from __future__ import annotations

import proc_sandbox as ps

PROCESSES = 121
MEMORY = 122
CPU_TIME = 123
TIMEOUT = 124
FAILED = 125
NOT_EXECUTABLE = 126
NOT_FOUND = 127
SIGNALED = 128
INTERRUPTED = 130
"""128 + SIGINT: what a shell expects of a program that the user interrupted."""
BROKEN_PIPE = 141
"""128 + SIGPIPE."""

OF_REASON = {
    ps.Reason.TIMEOUT: TIMEOUT,
    ps.Reason.CPU_TIME: CPU_TIME,
    ps.Reason.MEMORY: MEMORY,
    ps.Reason.PROCESSES: PROCESSES,
}
"""The reasons that are a limit's; all others pass on what the command did."""


def exit_status(result: ps.Result) -> int:
    """Return the exit status that tells of this result: the limit's, the command's or 128+N."""
    if result.reason in OF_REASON:
        return OF_REASON[result.reason]
    if result.exit_code is not None:
        return result.exit_code
    if result.signal is not None:
        return SIGNALED + result.signal
    return FAILED


def failure_status(error: ps.SandboxError) -> int:
    """Return the exit status for a run that was not begun: 125, 126 or 127."""
    if isinstance(error, ps.CommandNotFoundError):
        return NOT_FOUND
    if isinstance(error, ps.CommandNotExecutableError) or isinstance(error, ps.LaunchError) and error.step == "exec":
        return NOT_EXECUTABLE
    return FAILED
