"""What is told to logging.getLogger("proc_sandbox"), at no cost where nobody listens. Nothing is ever printed.

To import logging takes longer than all the rest of this package's values, so it is not imported here: who has not imported it cannot
have asked it for anything. Where it is there, nothing is worded unless the logger is enabled for the level.

Levels: DEBUG a run's beginning and end; INFO what a limit ended, the launcher's start, whose cgroups are used; WARNING what
was killed from outside, a launcher that has died, what is not enforced (once for each reason), what is to be hidden and is not there
(once for each path).

What a command controls goes in escaped, for a line of the log is to be ours alone: its arguments as repr() has them, which leaves no
control character and no line end as it is. Values of variables, input and output never go in.
"""

from __future__ import annotations

import itertools
import sys
from typing import TYPE_CHECKING

from proc_sandbox.result import Reason
from proc_sandbox.visible import printable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from logging import Logger
    from typing import Any

    from proc_sandbox.result import Result

__all__ = ["DEBUG", "INFO", "WARNING", "listener", "not_there", "run_begins", "run_ended", "tell", "unenforced"]

NAME = "proc_sandbox"
DEBUG, INFO, WARNING = 10, 20, 30
"""As logging has them."""
LONGEST = 1000
"""Characters of a command that are shown; an argument alone can have 128 KiB (execve(2), MAX_ARG_STRLEN)."""

LEVELS = {
    Reason.TIMEOUT: INFO,
    Reason.CPU_TIME: INFO,
    Reason.MEMORY: INFO,
    Reason.PROCESSES: INFO,
    Reason.KILLED_OUTSIDE: WARNING,
}
"""At which level the end of a run is told; DEBUG where the command ended by itself, or the caller ended it."""

numbers = itertools.count(1)
prepared: dict[Any, Logger] = {}
"""The logger, by the module that it came from: a test may take that out of sys.modules, and import it again."""
said: set[tuple[str, str]] = set()
"""What was said once: what is not enforced and why, and what is to be hidden and is not there."""
MOST_SAID = 4096
"""A service that makes a directory for each run would fill the memory else."""


def listener(level: int) -> Logger | None:
    """Return the logger where somebody listens at that level."""
    logging = sys.modules.get("logging")
    if logging is None:
        return None
    logger = prepared.get(logging)
    if logger is None:
        # Another thread may be importing it at this moment, and a program may have a module of its own by that name.
        if not hasattr(logging, "captureWarnings"):
            return None
        logger = logging.getLogger(NAME)
        logger.addHandler(logging.NullHandler())
        prepared.clear()
        prepared[logging] = logger
    return logger if logger.isEnabledFor(level) else None


def tell(level: int, message: str, *arguments: object) -> None:
    """Log a message, where somebody listens; arguments as in logging. Never called with a lock held: a handler may do what it likes."""
    logger = listener(level)
    if logger is not None:
        logger.log(level, message, *arguments, stacklevel=2)


def shown(command: Sequence[str]) -> str:
    """Return a command as one line, without anything that a terminal or a reader of logs would act on."""
    text = "["
    for word in command:
        if len(text) > LONGEST:
            break
        text += (", " if len(text) > 1 else "") + repr(word[:LONGEST])
    return f"{text[:LONGEST]}..." if len(text) > LONGEST else f"{text}]"


def run_begins(command: Sequence[str]) -> int:
    """Tell of a run that is about to be started; return the number by which its end is told, 0 where nobody listens."""
    logger = listener(DEBUG)
    if logger is None:
        return 0
    number = next(numbers)
    logger.debug("run %d begins: %s", number, shown(command), stacklevel=3)
    return number


def run_ended(number: int, result: Result[Any]) -> None:
    """Tell of a run's end: what ended it and how long it took; of its arguments nothing but the command's name."""
    level = LEVELS.get(result.reason, DEBUG)
    logger = listener(level)
    if logger is None:
        return
    what = f"run {number}" if number else f"run of {printable(result.args[0][:LONGEST])}"
    end = result.error or f"exit status {result.exit_code}"
    message = "%s ended: %s: %s (%.3f s, %.3f s of CPU)"
    logger.log(level, message, what, result.reason.value, end, result.execution_time, result.cpu_time.total, stacklevel=3)


def unenforced(name: str, reason: str, remedy: str) -> None:
    """Tell what is not enforced, once for each reason."""
    logger = listener(WARNING)
    if logger is not None and is_new(name, reason):
        logger.warning("%s is not enforced: %s; remedy: %s", name, printable(reason), printable(remedy), stacklevel=3)


def not_there(paths: Sequence[str]) -> None:
    """Tell what is to be hidden and is not there, once for each. A preset names only what there is: so the caller did."""
    logger = listener(WARNING)
    if logger is None:
        return
    for path in paths:
        if is_new("hidden_paths", path):
            logger.warning("hidden_paths: %r is not there, so that nothing is hidden by that name; is it misspelt?", path, stacklevel=3)


def is_new(name: str, what: str) -> bool:
    """Return whether something has not been said yet, and note that it has."""
    if (name, what) in said:
        return False
    if len(said) >= MOST_SAID:
        said.clear()
    said.add((name, what))
    return True
