"""The exceptions.

What the command did is a Result; an exception means that the caller or the host is at fault.

    SandboxError
    ├── ConfigError(ValueError)          field, value, remedy    nothing was started
    │   └── PolicyError                  file, line             likewise; of a file of policies
    ├── UnsupportedError                 field, reason, remedy   nothing was started
    ├── SandboxClosedError(ValueError)                           nothing was started
    ├── LaunchError(OSError)             step, filename, errno   the command did not run, nothing is left
    │   ├── CommandNotFoundError(FileNotFoundError)
    │   └── CommandNotExecutableError(PermissionError)
    ├── LauncherDiedError                it was killed; every run of it is dead
    └── ExecutionError(CalledProcessError)   result              only with check=True
        ├── TimeLimitExceeded(TimeoutError)
        └── MemoryLimitExceeded
"""

from __future__ import annotations

import errno as errno_module
import os
import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from proc_sandbox.result import Result

__all__ = [
    "CommandNotExecutableError",
    "CommandNotFoundError",
    "ConfigError",
    "ExecutionError",
    "LaunchError",
    "LauncherDiedError",
    "MemoryLimitExceeded",
    "PolicyError",
    "SandboxClosedError",
    "SandboxError",
    "TimeLimitExceeded",
    "UnenforcedWarning",
    "UnsupportedError",
]


class SandboxError(Exception):
    """Base of all errors of this package."""


class ConfigError(SandboxError, ValueError):
    """A value is not valid; nothing was started.

    Attributes: field, value, remedy.
    """

    def __init__(self, field: str, value: object, remedy: str) -> None:
        super().__init__(field, value, remedy)
        self.field = field
        self.value = value
        self.remedy = remedy

    def __str__(self) -> str:
        try:
            shown = repr(self.value)
        except (ValueError, RecursionError):  # an integer with thousands of digits, lists in lists in lists
            shown = f"<{type(self.value).__name__}>"
        return f"{self.field}: {shown if len(shown) <= 200 else shown[:200] + '...'}: {self.remedy}"


class PolicyError(ConfigError):
    """Something in a file of policies is not valid; nothing was started.

    Attributes: file, line (None where it is not known), field (the key), value, remedy.
    """

    def __init__(self, file: str, line: int | None, field: str, value: object, remedy: str) -> None:
        SandboxError.__init__(self, file, line, field, value, remedy)
        self.file = file
        self.line = line
        self.field = field
        self.value = value
        self.remedy = remedy

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {super().__str__()}"


class UnsupportedError(SandboxError):
    """A limit or isolation cannot be enforced on this host; nothing was started.

    Attributes: field, reason (each mechanism that was tried), remedy.
    """

    def __init__(self, field: str, reason: str, remedy: str) -> None:
        super().__init__(field, reason, remedy)
        self.field = field
        self.reason = reason
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.field} cannot be enforced here: {self.reason}; remedy: {self.remedy}"


class SandboxClosedError(SandboxError, ValueError):
    """The Sandbox was cleaned up; nothing was started."""


class LauncherDiedError(SandboxError):
    """The launcher could not be started, or has died; every run of it is dead."""


class UnenforcedWarning(UserWarning):
    """With enforcement="best-effort": something that was asked for is not enforced."""


class LaunchError(SandboxError, OSError):
    """A step before the command failed: the command did not run, and nothing is left.

    Attributes: step, filename (or None), errno, hint.
    """

    def __init__(self, step: str, filename: str | None, errno: int, hint: str | None = None) -> None:
        super().__init__(errno, os.strerror(errno), filename)
        self.step = step
        self.hint = hint

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return type(self), (self.step, self.filename, self.errno, self.hint)

    def __str__(self) -> str:
        number = self.errno or 0
        where = f"{self.filename}: " if self.filename else ""
        step = "command" if self.step == "find" else self.step
        text = f"{step}: {where}{self.strerror} [{errno_module.errorcode.get(number, str(number))}]"
        return f"{text}; {self.hint}" if self.hint else text


class CommandNotFoundError(LaunchError, FileNotFoundError):
    """There is no such command, or it is not visible inside; hint says which directory to allow."""


class CommandNotExecutableError(LaunchError, PermissionError):
    """The command is there and may not be executed."""


class ExecutionError(SandboxError, subprocess.CalledProcessError):
    """With check=True: the command did not exit with 0.

    Attributes: result, and those of subprocess.CalledProcessError.
    """

    def __init__(self, result: Result[Any]) -> None:
        out, err = (stream if isinstance(stream, str) else bytes(stream) for stream in (result.stdout, result.stderr))
        subprocess.CalledProcessError.__init__(self, result.returncode, list(result.args), out, err)
        self.result = result

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return type(self), (self.result,)

    def __str__(self) -> str:
        return self.result.error or f"{self.result.args[0]!r} exited with {self.result.exit_code}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"


class TimeLimitExceeded(ExecutionError, TimeoutError):
    """The wall clock or CPU time limit ended the run."""


class MemoryLimitExceeded(ExecutionError):
    """The memory limit ended the run."""
