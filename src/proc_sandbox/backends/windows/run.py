"""One run: prepared step by step, watched until it ends, undone in reverse.

The thread that called run(), or that waits for something of a handle, waits at the job's completion port, for a message or the next look: no message is sure to come
("JOBOBJECT_ASSOCIATE_COMPLETION_PORT"), so what the job and the process say themselves decides. Threads move only the bytes of pipes.
"""

from __future__ import annotations

import contextlib
import errno
import math
import threading
import time
import warnings
from collections.abc import Callable
from types import TracebackType

from proc_sandbox.backends.windows.appcontainer import Containment
from proc_sandbox.backends.windows.job import Job
from proc_sandbox.backends.windows.limits import bounds, promised
from proc_sandbox.backends.windows.private import PrivateDirectory
from proc_sandbox.backends.windows.process import OWN_CONSOLE, Process, command_line, environment_block, start
from proc_sandbox.backends.windows.security import MITIGATION_BITS
from proc_sandbox.backends.windows.streams import Streams
from proc_sandbox.backends.windows.token import make_token
from proc_sandbox.backends.windows.tools import Tools
from proc_sandbox.backends.windows.winapi import (
    ERROR_INVALID_PARAMETER,
    ERROR_NOT_ENOUGH_QUOTA,
    JOB_OBJECT_MSG_ACTIVE_PROCESS_LIMIT,
    JOB_OBJECT_MSG_END_OF_JOB_TIME,
    JOB_OBJECT_MSG_JOB_MEMORY_LIMIT,
    JOB_OBJECT_MSG_PROCESS_MEMORY_LIMIT,
    PROCESS_QUERY_LIMITED_INFORMATION,
    Completion,
    Creation,
    Win32Error,
)
from proc_sandbox.errors import LaunchError, UnsupportedError
from proc_sandbox.planner.windows.plan import SCRATCH, TICK, WindowsPlan
from proc_sandbox.report import Ended, Failed, Live

__all__ = ["WindowsRun"]

KILLED = 0xE0505342
"""Exit code of what we end. It decides nothing by itself: what a command exits with is its own."""
LOOK = 50
"""Milliseconds between two looks."""
LOOK_AT_TIME = 20
"""The same where CPU time is watched."""


class WindowsRun:
    """One execution in progress."""

    def __init__(self, tools: Tools, plan: WindowsPlan, streams: Streams, user: str) -> None:
        self.tools = tools
        self.plan = plan
        self.began = time.monotonic_ns()
        self.cancelled = threading.Event()
        self.broken = threading.Event()  # one of the caller's own files has failed
        self.failed: Failed | None = None
        self.outcome: Ended | Failed | None = None
        self.wall = 0  # ns that it took, once it is over
        self.pid: int | None = None
        self.answered = 0
        self.answer: Live | None = None
        self.woken = threading.Event()  # by bytes that came, of which one message at a time tells
        self.memory_exceeded = self.cpu_exceeded = self.timed_out = False
        self.refused = 0 if plan.job.processes else -1
        self.undo = contextlib.ExitStack()
        self.step, self.object = "", ""
        try:
            self.prepare(streams, user)
        except Win32Error as error:
            self.undo.close()
            self.failed = Failed(self.step, error.filename or self.object, error.errno or errno.EINVAL, error.strerror or "")
        except BaseException:
            self.undo.close()
            raise

    # --- the steps, in order: what a later one needs is there, and what it does is undone before that ---

    def prepare(self, streams: Streams, user: str) -> None:
        place = self.make_scratch(user)
        containment = self.contain(place)
        token = self.make_token()
        self.job = self.make_job()
        self.process = self.execute(streams, containment, token, place)
        self.pid = self.process.pid

    def make_scratch(self, user: str) -> Callable[[str], str]:
        """Make the run's own directory; return what puts its name into the plan's texts."""
        self.step = "private"
        if not self.plan.scratch:
            return lambda text: text
        scratch = PrivateDirectory(self.tools, user)
        self.undo.callback(remove, scratch)
        return lambda text: text.replace(SCRATCH, scratch.path)

    def contain(self, place: Callable[[str], str]) -> Containment:
        self.step = "access"
        tools = self.tools
        access = [item._replace(path=place(item.path)) for item in self.plan.access]
        found = Containment(tools.control, tools.security, tools.journal, tools.callers, self.plan.app_container, access)
        self.undo.callback(found.close)
        return found

    def make_token(self) -> int:
        self.step = "token"
        if self.plan.token is None:
            return 0
        token = make_token(self.tools.win32, self.tools.security, self.plan.token)
        self.undo.callback(self.tools.win32.close, token)
        return token

    def make_job(self) -> Job:
        self.step = "job"
        job = Job(self.tools.win32)
        self.undo.callback(job.close)
        missing = promised(job.bind(bounds(self.plan.job)))
        if missing:  # the probe found it kept: this job is in another one, or the system has changed
            raise LaunchError("job", missing[0].name, errno.ENOTSUP, missing[0].reason)
        return job

    def execute(self, streams: Streams, containment: Containment, token: int, place: Callable[[str], str]) -> Process:
        self.step, self.object = "exec", self.plan.executable
        told = Creation(
            application=self.plan.executable,
            command_line=command_line(self.plan.command),
            environment=environment_block([(name, place(value)) for name, value in self.plan.environment]),
            directory=place(self.plan.cwd),
            flags=OWN_CONSOLE,
            streams=streams.theirs,
            inherited=streams.inherited,
            jobs=(self.job.handle,),
            token=token,
            package=containment.package,
            capabilities=containment.capabilities,
            mitigations=sum(MITIGATION_BITS[name] for name in self.plan.mitigations),
        )
        process = start(self.tools.win32, told)
        self.undo.callback(process.close)
        self.undo.callback(self.job.end, KILLED)
        return process

    # --- the watch ---

    def communicate(self, streams: Streams) -> Ended | Failed:
        """Move bytes both ways until the run has ended, then take what the pipes still hold."""
        pump = self.pump(streams)
        while (outcome := pump.step()) is None:
            pass
        return outcome

    def pump(self, streams: Streams) -> Watch:
        """Return what watches step by step; bytes are moved from now on."""
        return Watch(self, streams)

    def fail(self) -> None:
        self.broken.set()
        self.job.wake()

    def stir(self) -> None:
        """Have who waits look at what has come."""
        if not self.woken.is_set():
            self.woken.set()
            self.job.wake()

    def wait(self, milliseconds: int) -> None:
        """Wait for a message of the job."""
        message = self.job.next_message(milliseconds)
        self.woken.clear()
        self.heed(message)

    def finish(self, streams: Streams) -> Ended:
        """End what is left, take what the pipes hold, and return what happened.

        Raises:
            Exception: of one of the caller's own files.
        """
        self.wall = self.wall or time.monotonic_ns() - self.began
        for message in self.job.messages():  # what was posted before the end
            self.heed(message)
        self.job.end(KILLED)
        streams.finish()
        return self.facts(self.wall)

    def rest(self) -> int:
        """Return the milliseconds until the next look."""
        look = LOOK_AT_TIME if self.plan.cpu_time else LOOK
        if not self.plan.timeout:
            return look
        left = self.began + self.plan.timeout - time.monotonic_ns()
        return max(0, min(look, -(-left // 1_000_000)))

    def is_over(self) -> bool:
        """Return whether the command has ended, or is to be ended."""
        return self.process.wait(0) or self.is_to_end()

    def is_to_end(self) -> bool:
        self.timed_out = bool(self.plan.timeout) and time.monotonic_ns() - self.began >= self.plan.timeout
        self.cpu_exceeded = self.cpu_exceeded or self.is_out_of_time()
        return (
            self.memory_exceeded or self.timed_out or self.cpu_exceeded or self.cancelled.is_set() or self.broken.is_set()
        )

    def is_out_of_time(self) -> bool:
        if not self.plan.cpu_time:
            return False
        used = self.job.accounting()
        return (used.user + used.kernel) * TICK >= self.plan.cpu_time

    def heed(self, message: Completion | None) -> None:
        """Take a message of the job for what it says. "JOBOBJECT_ASSOCIATE_COMPLETION_PORT" """
        kind = message.message if message else 0
        if kind in (JOB_OBJECT_MSG_JOB_MEMORY_LIMIT, JOB_OBJECT_MSG_PROCESS_MEMORY_LIMIT):
            self.memory_exceeded = True
        elif kind == JOB_OBJECT_MSG_END_OF_JOB_TIME:
            self.cpu_exceeded = True
        elif kind == JOB_OBJECT_MSG_ACTIVE_PROCESS_LIMIT and self.refused >= 0:
            self.refused += 1

    def facts(self, wall: int) -> Ended:
        """Return what happened, when nothing of the run is left."""
        used = self.job.accounting()
        # JOB_TIME ends the run without a message: then processes were terminated for it, and the time is used up.
        if self.plan.job.user_time and used.terminated and used.user >= self.plan.job.user_time:
            self.cpu_exceeded = True
        code = self.process.exit_code()
        by_kernel = self.cpu_exceeded and bool(used.terminated) and code == ERROR_NOT_ENOUGH_QUOTA
        done = self.ended_by_itself(code, by_kernel=by_kernel)
        peak = self.job.peaks().job
        return Ended(
            done=done,
            exit_code=code if done else None,
            signal=None,
            wall=wall,
            user=used.user * TICK,
            system=used.kernel * TICK,
            peak=peak or -1,
            refused_forks=self.refused,
            timed_out=self.timed_out,
            cpu_exceeded=self.cpu_exceeded,
            memory_exceeded=self.memory_exceeded,
            cancelled=self.cancelled.is_set(),
        )

    def ended_by_itself(self, code: int | None, *, by_kernel: bool) -> bool:
        """Return whether the command ended before we ended it. What had no memory any more did not: an allocation beyond the limit fails,
        and what a program makes of that is the limit's doing.
        """
        if self.memory_exceeded or by_kernel:
            return False
        return code != KILLED or not (self.timed_out or self.cpu_exceeded or self.cancelled.is_set() or self.broken.is_set())

    def kill(self) -> None:
        """End the whole tree, which is then cancelled; from any thread, harmless after the end."""
        if self.failed is None:
            self.cancelled.set()
            self.job.terminate(KILLED)
            self.job.wake()

    def ask(self, what: str) -> None:
        """Do what the holder of a handle asks for.

        Raises:
            UnsupportedError: Windows has nothing like it.
        """
        if self.failed is not None or self.outcome is not None:
            return
        if what in ("kill", "end", "signal 15"):
            self.kill()
        elif what.startswith("usage "):
            self.answer = self.live()
            self.answered = int(what.partition(" ")[2])
        elif what.startswith("signal"):
            raise UnsupportedError("send_signal", "Windows has no signals", "terminate() or kill(), which end the whole tree there")
        else:
            reason = "Windows documents no way to stop a tree of processes: SuspendThread is for debuggers, and misses threads that are being made"
            raise UnsupportedError(what, reason, "cpu_limit, which slows a run down; or kill() it and run it again")

    def live(self) -> Live:
        """Return what the run has used until now. Bytes read and written are counted for pipes and consoles too, and so say nothing of
        disks ("IO_COUNTERS").
        """
        used = self.job.accounting()
        return Live(time.monotonic_ns() - self.began, (used.user + used.kernel) * TICK, self.committed(), used.active)

    def committed(self) -> int:
        """Return the commit charge of all processes together, as the limit counts; -1 where one may not be asked. A job tells of its peak
        only.
        """
        win32, total = self.tools.win32, 0
        for pid in self.job.processes():
            try:
                process = win32.open_process(pid, PROCESS_QUERY_LIMITED_INFORMATION)
            except Win32Error as error:
                if error.code == ERROR_INVALID_PARAMETER:
                    continue  # it has ended meanwhile
                return -1
            try:
                if win32.is_process_in_job(process, self.job.handle):  # else its number was given again
                    total += win32.process_memory(process).commit
            except Win32Error:
                return -1
            finally:
                win32.close(process)
        return total

    def close(self) -> None:
        """End the run if it has not ended; returns when nothing of it is left."""
        self.undo.close()

    def retire(self) -> None:
        """Close a run that has ended, and that nobody else can name any more."""
        self.close()

    def __enter__(self) -> WindowsRun:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Watch:
    """Watches over a run, in whatever thread waits for it; threads of their own move the bytes.

    Attributes: waiting, whether nothing but time was passing when an exception left step().
    """

    def __init__(self, run: WindowsRun, streams: Streams) -> None:
        self.run = run
        self.streams = streams
        self.waiting = False
        if run.failed is None:
            streams.begin(run.fail, run.stir)

    def collect(self, descriptor: int, keep: Callable[[bytes], object]) -> None:
        """Read what comes from a handle's pipe; the descriptor is ours from now on. When the run has ended: all that is there."""
        reader = self.streams.collect(descriptor, keep)
        if self.run.outcome is not None:
            reader.finish()

    def feed(self, descriptor: int, data: bytes) -> None:
        """Write to a handle's pipe, then close it; the descriptor is ours from now on."""
        self.streams.feed(descriptor, data)

    def step(self, wait: float | None = None) -> Ended | Failed | None:
        """Wait until something has happened, at the most until the next look, and return the outcome if there is one.

        wait: seconds at the most.

        Raises:
            Exception: of one of the caller's own files.
        """
        run = self.run
        if run.outcome is None and run.failed is None:
            self.waiting = True
            if not run.is_over():
                rest = run.rest()
                run.wait(rest if wait is None else min(rest, math.ceil(wait * 1000)))
                if not run.is_over():
                    return None
            self.waiting = False
        run.outcome = run.outcome or run.failed or run.finish(self.streams)
        return run.outcome


def remove(scratch: PrivateDirectory) -> None:
    """Remove a run's own directory; what cannot be is left to the next caller."""
    try:
        scratch.remove()
    except OSError as error:
        warnings.warn(f"{scratch.path} could not be removed, the next caller tries again: {error}", ResourceWarning, stacklevel=2)
