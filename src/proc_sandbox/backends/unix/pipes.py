"""Pipes between runs, and one poll loop that moves the bytes of several runs and waits for all of them.

A pipe is one way by what opened it. But who has an end of an anonymous one can open it again the other way, by /proc/self/fd
(proc_pid_fd(5)): its mode lets its maker, and Landlock lets everybody, for it lies in no file system. Then the reading run could
write to the one whose output it reads, which the caller has not asked for. So a pipe between runs is a FIFO (fifo(7)) that lies in a
file system: nobody's rule allows what lies there, and as root its mode allows nobody else. Its name is gone before a run has it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
from collections.abc import Sequence

from proc_sandbox import later
from proc_sandbox.backends.unix.private import PrivateDirectory
from proc_sandbox.backends.unix.streams import DescriptorStreams, Feeder, LaunchedRun, drain, read_some
from proc_sandbox.errors import LaunchError
from proc_sandbox.report import Ended, Failed
from proc_sandbox.streams import PipeEnd

__all__ = ["communicate", "open_pipes"]


def open_pipes(count: int) -> list[tuple[PipeEnd, PipeEnd]]:
    """Return pipes between runs, each as what is read from and what is written to.

    Raises:
        LaunchError: they cannot be made; nothing is left.
    """
    found: list[tuple[PipeEnd, PipeEnd]] = []
    try:
        with contextlib.ExitStack() as stack:
            place = PrivateDirectory()
            stack.callback(place.remove)
            for number in range(count):
                with later.lock:  # as for open_pipe()
                    found.append(open_fifo(os.path.join(place.path, f"pipe-{number}")))
    except BaseException as error:
        for end in (end for pipe in found for end in pipe):
            end.close()
        if isinstance(error, OSError):
            raise LaunchError("pipe", error.filename, error.errno or errno.EIO) from error
        raise
    return found


def open_fifo(path: str) -> tuple[PipeEnd, PipeEnd]:
    os.mkfifo(path, 0o600)
    reader = PipeEnd(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))  # without waiting for who writes
    try:
        writer = PipeEnd(os.open(path, os.O_WRONLY | os.O_CLOEXEC))
        os.set_blocking(reader, True)
    except BaseException:
        reader.close()
        raise
    return reader, writer


def communicate(stages: Sequence[tuple[LaunchedRun, DescriptorStreams]]) -> list[Ended | Failed]:
    """Move the bytes of several runs both ways until all of them have ended; return their outcomes. Where one could not be begun the
    others are killed.

    Raises:
        LauncherDiedError: what watches over a run was killed, and the run is dead with it.
    """
    poll = Poll([Stage(run, streams) for run, streams in stages])
    while any(stage.outcome is None for stage in poll.stages):
        poll.step()
    return [stage.outcome for stage in poll.stages if stage.outcome is not None]


class Stage:
    """One run: what it waits for, by descriptor, and its outcome when there is one."""

    def __init__(self, run: LaunchedRun, streams: DescriptorStreams) -> None:
        self.run = run
        self.streams = streams
        self.outcome: Ended | Failed | None = None
        self.end = run.launcher_end()
        if self.end < 0:
            run.lost()  # it has died, which another run's thread has seen already
        self.feeder = Feeder(streams)

    def wanted(self) -> dict[int, int]:
        """Return the descriptors that this run is waiting for."""
        if self.outcome is not None:
            return {}
        wanted = dict.fromkeys((self.run.fileno(), self.end, *self.streams.readers), select.POLLIN)
        if self.streams.writer >= 0:
            wanted[self.streams.writer] = select.POLLOUT
        return wanted

    def move(self, ready: set[int]) -> None:
        """Move what can be moved; take the outcome if it is there."""
        if self.run.is_behind() or self.run.fileno() in ready:
            self.outcome = self.run.receive()
            if self.outcome is not None:
                self.streams.close_ends()
                drain(self.streams)
            return
        for descriptor in ready.intersection(self.streams.readers):
            if read_some(descriptor, self.streams.readers[descriptor]) == 0:
                del self.streams.readers[descriptor]
                os.close(descriptor)
        if self.streams.writer in ready:
            self.feeder.write()
        if self.end in ready:
            self.run.lost()


class Poll:
    """Waits for what any of the stages waits for."""

    def __init__(self, stages: list[Stage]) -> None:
        self.stages = stages
        self.poll = select.poll()
        patience = [stage.run.patience for stage in stages if stage.run.patience is not None]
        self.patience = min(patience, default=None)
        for stage in stages:
            self.follow(stage, {})

    def follow(self, stage: Stage, before: dict[int, int]) -> None:
        """Wait for what a stage is waiting for now. Stages have no descriptor in common but their launcher's end."""
        wanted = stage.wanted()
        shared = {other.end for other in self.stages if other is not stage and other.outcome is None}
        for descriptor in before.keys() - wanted.keys() - shared:
            self.poll.unregister(descriptor)
        for descriptor, event in wanted.items():
            if descriptor not in before:
                self.poll.register(descriptor, event)

    def step(self) -> None:
        behind = any(stage.outcome is None and stage.run.is_behind() for stage in self.stages)
        ready = {descriptor for descriptor, _ in self.poll.poll(0 if behind else self.patience)}
        for stage in self.stages:
            if stage.outcome is not None:
                continue
            stage.run.look_after()
            before = stage.wanted()
            if stage.run.is_behind() or ready.intersection(before):
                stage.move(ready)
                self.follow(stage, before)
                if isinstance(stage.outcome, Failed):
                    self.kill()

    def kill(self) -> None:
        for stage in self.stages:
            if stage.outcome is None:
                stage.run.kill()
