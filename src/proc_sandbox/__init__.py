"""Run commands that nobody should trust, under limits, and say truthfully what happened.

Theory of operation. A Config says what is limited and what is granted. What the machine can do (Host) and where things
are (Paths) are looked up; from these compile_plan() decides, purely, everything that will be done: the Plan. A small C
launcher carries it out between fork and exec and watches over the run; when it has ended, judge() concludes, purely, from
the facts what they mean: the Result. See docs/mechanisms.md.

    import proc_sandbox as ps

    result = ps.run(["python3", "untrusted.py"], timeout=5, memory_limit="256M", working_dir="work")
"""

from typing import TYPE_CHECKING, Any

from proc_sandbox.config import CAPTURE, DEVNULL, INHERIT, PIPE, STDOUT, BestEffort, Config, Tee, best_effort
from proc_sandbox.errors import (
    CommandNotExecutableError,
    CommandNotFoundError,
    ConfigError,
    ExecutionError,
    LauncherDiedError,
    LaunchError,
    MemoryLimitExceeded,
    PolicyError,
    SandboxClosedError,
    SandboxError,
    TimeLimitExceeded,
    UnenforcedWarning,
    UnsupportedError,
)
from proc_sandbox.later import load
from proc_sandbox.result import (
    CpuTime,
    Enforced,
    LiveUsage,
    Output,
    Pressure,
    Reason,
    Result,
    Truncated,
    Unenforced,
    Usage,
)
from proc_sandbox.version import __version__

if TYPE_CHECKING:
    from proc_sandbox.executor import Job, SandboxExecutor, run_many
    from proc_sandbox.handle import Event, Exited, Popen, Started, stream
    from proc_sandbox.pipeline import Command, Pipeline, PipelineResult, cmd
    from proc_sandbox.planner.model import Plan
    from proc_sandbox.sandbox import Capabilities, Sandbox, capabilities, plan, run

__all__ = [
    "CAPTURE",
    "DEVNULL",
    "INHERIT",
    "PIPE",
    "STDOUT",
    "BestEffort",
    "Capabilities",
    "Command",
    "CommandNotExecutableError",
    "CommandNotFoundError",
    "Config",
    "ConfigError",
    "CpuTime",
    "Enforced",
    "Event",
    "ExecutionError",
    "Exited",
    "Job",
    "LaunchError",
    "LauncherDiedError",
    "LiveUsage",
    "MemoryLimitExceeded",
    "Output",
    "Pipeline",
    "PipelineResult",
    "Plan",
    "PolicyError",
    "Popen",
    "Pressure",
    "Reason",
    "Result",
    "Sandbox",
    "SandboxClosedError",
    "SandboxError",
    "SandboxExecutor",
    "Started",
    "Tee",
    "TimeLimitExceeded",
    "Truncated",
    "Unenforced",
    "UnenforcedWarning",
    "UnsupportedError",
    "Usage",
    "__version__",
    "best_effort",
    "capabilities",
    "cmd",
    "plan",
    "run",
    "run_many",
    "stream",
]

LATER = {
    "Capabilities": "sandbox",
    "Command": "pipeline",
    "Event": "handle",
    "Exited": "handle",
    "Job": "executor",
    "Pipeline": "pipeline",
    "PipelineResult": "pipeline",
    "Plan": "planner.model",
    "Popen": "handle",
    "Sandbox": "sandbox",
    "SandboxExecutor": "executor",
    "Started": "handle",
    "capabilities": "sandbox",
    "cmd": "pipeline",
    "plan": "sandbox",
    "run": "sandbox",
    "run_many": "executor",
    "stream": "handle",
}
"""What does the work is imported when it is first named (PEP 562): who only catches errors or makes a Config need not wait."""


def __getattr__(name: str) -> Any:
    if name not in LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return load(f"{__name__}.{LATER[name]}", name, globals())


def __dir__() -> list[str]:
    return __all__
