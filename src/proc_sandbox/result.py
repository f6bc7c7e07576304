"""What a run means: the one reason that ended it, its output, its usage, and what enforced each limit."""


from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Generic, NamedTuple

from proc_sandbox.errors import ExecutionError, MemoryLimitExceeded, TimeLimitExceeded

if TYPE_CHECKING:  # a default for a type variable comes with Python 3.13 (PEP 696)
    from typing_extensions import TypeVar
else:
    from typing import TypeVar

__all__ = ["CpuTime", "Enforced", "LiveUsage", "Output", "Pressure", "Reason", "Result", "Truncated", "Unenforced", "Usage"]


class Reason(str, Enum):
    """The one thing that ended a run."""

    EXITED = "exited"
    SIGNALED = "signaled"
    TIMEOUT = "timeout"
    CPU_TIME = "cpu_time"
    MEMORY = "memory"
    PROCESSES = "processes"
    CANCELLED = "cancelled"
    KILLED_OUTSIDE = "killed_outside"

    __str__ = str.__str__  # the same in every version of Python


class Output(bytes):
    """What a stream held, or as an event a piece of it: bytes with a way to read them as text.

    stream: of an event "stdout" or "stderr", else "".
    """

    stream: str = ""

    @property
    def data(self) -> bytes:
        """The bytes alone."""
        return bytes(self)

    def text(self, encoding: str = "utf-8", errors: str = "replace") -> str:
        """Return it as text; what is no text becomes U+FFFD."""
        return self.decode(encoding, errors)


if TYPE_CHECKING:
    StreamT_co = TypeVar("StreamT_co", bound=bytes | str, default=Output, covariant=True)
else:
    StreamT_co = TypeVar("StreamT_co", covariant=True)
"""What a Result has as its output: Output, which is bytes, or with text=True str. Without a parameter Result is Result[Output]."""


class Enforced(NamedTuple):
    """A limit or isolation that held, and by which mechanism.

    strength: "kernel" where the kernel lets nothing past it, "sampled" where it is looked after from time to time,
    "partial" where some of what the limit is on passes by the mechanism, as that says.
    remedy: what would bring a stronger one here; "" where there is none.
    """

    mechanism: str
    strength: str = "kernel"
    remedy: str = ""


class Unenforced(NamedTuple):
    """A limit or isolation that was asked for and did not hold: why, and what to do about it."""

    reason: str
    remedy: str


class CpuTime(NamedTuple):
    """CPU time of the whole tree, in seconds."""

    user: float
    system: float

    @property
    def total(self) -> float:
        """User and system time together."""
        return self.user + self.system


class Pressure(NamedTuple):
    """Seconds in which at least one task of the run waited for it (the kernel's PSI, "some": cgroup v2 *.pressure).

    cpu: for a processor, cpu_limit too. memory: for memory to be reclaimed or read back. io: for disks, their limits too.
    """

    cpu: float
    memory: float
    io: float


class Usage(NamedTuple):
    """What the whole tree used: seconds, bytes, tasks; None where it was not measured."""

    cpu_user: float
    cpu_system: float
    peak_memory: int | None
    peak_processes: int | None
    read_bytes: int | None = None
    written_bytes: int | None = None


class LiveUsage(NamedTuple):
    """What a run that goes on has used until now; None where it is not measured.

    elapsed, cpu_time: seconds. memory: bytes that the whole tree has now, page cache that it is charged for among it where a cgroup
    measures. tasks: processes and threads now. read_bytes, written_bytes: from and to disks.
    """

    elapsed: float
    cpu_time: float
    memory: int | None
    tasks: int
    read_bytes: int | None = None
    written_bytes: int | None = None


class Truncated(NamedTuple):
    """Which stream wrote more than max_output. True when either did."""

    stdout: bool = False
    stderr: bool = False

    def __bool__(self) -> bool:
        return self.stdout or self.stderr


@dataclass(frozen=True)
class Result(Generic[StreamT_co]):
    """The verdict on one run.

    stdout, stderr: what was captured, as Output (bytes), or as str where run() was called with text=True.

    exit_code: None when a signal ended the command; signal: its number, or None. execution_time: seconds of wall clock.
    peak_memory: bytes of the whole tree where a cgroup measures it, otherwise the largest that was sampled (with cgroup v2
    before Linux 5.19 too, every 10 ms), or the largest single process. processes_exceeded: the kernel refused a fork because
    of the limit, or where tasks are sampled the run was ended for it; None where that cannot be told (RLIMIT_NPROC).
    throttled_time: seconds for which cpu_limit kept the tree waiting, summed over processors; None where no cgroup tells.
    read_bytes, written_bytes: what went from and to disks during the run, summed; a disk that lies on another counts at both,
    what stays in the page cache does not; None without a cgroup v2 with the io controller. pressure: for how long the run waited,
    and for what; None without a cgroup v2, or where the kernel keeps no PSI. A run without a limit has no cgroup.
    reason names the one thing that ended the run; error says it in one line, or is None after an ordinary exit.
    """

    args: tuple[str, ...]
    exit_code: int | None
    signal: int | None
    execution_time: float
    cpu_time: CpuTime
    peak_memory: int | None
    peak_processes: int | None
    throttled_time: float | None
    timed_out: bool
    memory_exceeded: bool
    cpu_time_exceeded: bool
    processes_exceeded: bool | None
    output_truncated: Truncated
    reason: Reason
    stdout: StreamT_co
    stderr: StreamT_co
    error: str | None
    enforcement: Mapping[str, Enforced | Unenforced] = field(hash=False)
    read_bytes: int | None = None
    written_bytes: int | None = None
    pressure: Pressure | None = None

    @property
    def ok(self) -> bool:
        """The command ended by itself, with exit status 0."""
        return self.reason is Reason.EXITED and self.exit_code == 0

    @property
    def returncode(self) -> int:
        """As in subprocess: the exit status, or -N for signal N."""
        return self.exit_code if self.exit_code is not None else -(self.signal or 9)

    @property
    def usage(self) -> Usage:
        """What the whole tree used."""
        cpu = self.cpu_time
        return Usage(cpu.user, cpu.system, self.peak_memory, self.peak_processes, self.read_bytes, self.written_bytes)

    @property
    def stdout_truncated(self) -> bool:
        """The command wrote more than max_output to stdout."""
        return self.output_truncated.stdout

    @property
    def stderr_truncated(self) -> bool:
        """The command wrote more than max_output to stderr."""
        return self.output_truncated.stderr

    def check(self) -> "Result[StreamT_co]":
        """Return this result if it is ok.

        Raises:
            TimeLimitExceeded, MemoryLimitExceeded, ExecutionError: it is not.
        """
        if self.ok:
            return self
        kinds = {
            Reason.TIMEOUT: TimeLimitExceeded,
            Reason.CPU_TIME: TimeLimitExceeded,
            Reason.MEMORY: MemoryLimitExceeded,
        }
        raise kinds.get(self.reason, ExecutionError)(self)

    def to_dict(self) -> dict[str, object]:
        """Return it as JSON-ready data; a stream of bytes that are no UTF-8 is given in base64 too."""
        import base64

        data: dict[str, object] = {
            name: getattr(self, name)
            for name in self.__dataclass_fields__
            if name not in ("stdout", "stderr", "enforcement", "cpu_time", "output_truncated", "reason", "args")
        }
        data["args"] = [argument.encode("utf-8", "replace").decode() for argument in self.args]
        data["ok"] = self.ok
        data["returncode"] = self.returncode
        data["reason"] = self.reason.value
        data["cpu_time"] = self.cpu_time._asdict()
        data["pressure"] = self.pressure._asdict() if self.pressure else None
        data["output_truncated"] = self.output_truncated._asdict()
        for name in ("stdout", "stderr"):
            stream: bytes | str = getattr(self, name)
            if isinstance(stream, str):
                data[name] = stream.encode("utf-8", "replace").decode()  # with some errors= it can hold what no encoding can
                continue
            data[name] = stream.decode("utf-8", "replace")
            try:
                stream.decode()
            except UnicodeDecodeError:
                data[f"{name}_base64"] = base64.b64encode(stream).decode()
        data["enforcement"] = {name: how._asdict() for name, how in self.enforcement.items()}
        return data
