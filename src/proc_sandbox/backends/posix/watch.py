"""One run in the warden: its monitor, the looks at its tree, its end, and the last word on it.

States: a run is read (words and descriptors come in), watched, then swept: whoever is left is stopped, so that nobody can start anybody
else, and killed, until a look finds nobody and missed nobody. Then the monitor lets go of the command, and the caller is told.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import psutil

from proc_sandbox.backends.posix import MARK, MONITOR
from proc_sandbox.backends.posix.frames import Frames, frame
from proc_sandbox.backends.posix.sampler import DENIED, GONE, Row, Table, Tree, tasks_of_user

__all__ = ["Run", "receive"]

SECOND = 1_000_000_000
FIRST_LOOK = 5_000_000
SWEEP_INTERVAL = 0.002
"""Seconds between two looks at what is being ended: the death of who is not our child is no event that POSIX knows."""
LAST_CHANCE = 5.0
"""Seconds for a monitor to say that the command is dead, which it was told to kill; then the monitor is taken for out of order."""
LATE = 1.0
"""Seconds after the deadline at which the monitor, which holds it, is taken for stopped."""
LOOKS_AT_ONCE = 20
PAUSE_INTERVAL = 20_000_000
"""ns between two looks at a tree that is to stand still."""
LAST_SIGNAL = 64
UNCLEAR = 50
"""Looks in a row at which nobody was found but somebody new to us, who may have been anybody's, was gone before we could look: on a
host that starts many programs there is no end of them.
"""
MAX_RSS_UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes: getrusage(2) of macOS and of Linux and the BSDs."""
DESCRIPTORS = 253
COUNT_SECONDS = 1.0

counted: dict[str, float] = {}


def user_tasks() -> int:
    """Return how many tasks the user has, counted at most once a second: it takes long."""
    if time.monotonic() - counted.get("at", -COUNT_SECONDS) >= COUNT_SECONDS:
        counted.update(at=time.monotonic(), tasks=tasks_of_user())
    return int(counted["tasks"])


def task_limit(spare: int) -> bytes:
    """Return the word for RLIMIT_NPROC, so much above what the user has; never above the hard limit, which is lower then anyway."""
    if not spare or not hasattr(resource, "RLIMIT_NPROC"):
        return b""
    value, hard = user_tasks() + spare, resource.getrlimit(resource.RLIMIT_NPROC)[1]
    if hard not in (resource.RLIM_INFINITY, -1):
        value = min(value, hard)
    return f"rlimit\0RLIMIT_NPROC\0{value}\0".encode()


class Run:
    """One run of the warden's.

    Attributes: socket, to the caller; channel, to the monitor, None before and after it; next_look, seconds of time.monotonic(), when
    it is to be looked at; over, whether the caller has been told.
    """

    def __init__(self, caller: socket.socket, program: str) -> None:
        caller.setblocking(False)
        self.socket = caller
        self.program = program
        self.channel: socket.socket | None = None
        self.monitor: subprocess.Popen[bytes] | None = None
        self.frames, self.monitor_frames = Frames(), Frames()
        self.descriptors: list[int] = []
        self.tree: Tree | None = None
        self.plan: dict[str, Any] = {}
        self.command = 0
        self.next_look = float("inf")
        self.over = self.gone = False  # gone: the caller does not listen any more
        self.command_over = self.ordered = False
        self.swept_since = 0.0
        self.outcome: list[bytes] = []
        self.flags = dict.fromkeys(("cancelled", "memory_exceeded", "cpu_exceeded", "tasks_exceeded"), False)
        self.peak, self.peak_tasks = 0, 1  # the command itself, should nobody have looked
        self.stopped: dict[int, Row] = {}
        self.allowance = 0
        self.cpu_seen = self.looked_at = 0
        self.interval = FIRST_LOOK
        self.deadline = float("inf")
        self.unclear = 0
        self.began = 0  # ns of time.monotonic_ns(); 0: the command has not been executed yet
        self.asked = self.sent = 0
        self.paused = self.terminated = self.terminating = False
        self.late = False  # the monitor was told to end the command gently, and need not say that its time is over

    # --- the caller ---

    def on_caller(self, table: Table) -> None:
        """Take what the caller says: first the run, then orders."""
        came = receive(self.socket, 1 << 16, DESCRIPTORS)
        if came is None:
            return
        data, descriptors = came
        self.descriptors += descriptors
        self.gone = self.gone or not data
        try:
            messages = self.frames.feed(data)
        except ValueError:  # no message at all
            messages, self.gone = [], True
        for message in messages:
            if self.tree is None and not self.over:
                self.begin(message, table)
            else:
                self.heed(message.decode("ascii", "replace"))
        if self.gone and self.tree is None:
            self.finish()
        elif self.gone:
            self.cancel()

    def heed(self, order: str) -> None:
        """Do what the caller asks for; whatever else it says, the run is to end."""
        word, _, number = order.partition(" ")
        over = self.ordered or self.command_over
        if word == "signal" and number.isdigit() and 1 <= int(number) <= LAST_SIGNAL:
            if not over:
                self.sent |= 1 << int(number) - 1
                self.order(bytes([int(number)]))
        elif order in ("pause", "resume"):
            self.pause(order == "pause")
        elif word == "usage" and number.isdigit():
            self.asked = 0 if over else int(number)  # of a run that is being ended the outcome tells
            self.next_look = 0.0
        elif order == "end" and self.plan.get("grace"):
            self.end_gently()
        else:
            self.cancel()

    def pause(self, pause: bool) -> None:
        self.paused = pause
        if pause:
            self.next_look = 0.0
        elif self.allowance >= 0:
            self.continue_all()

    def end_gently(self) -> None:
        """SIGTERM, and SIGKILL after the grace: the monitor's to send and to time, as at the run's own deadline. Should it be kept from
        that, ours.
        """
        if self.ordered or self.command_over or self.terminated:
            return
        self.flags["cancelled"] = True
        self.late = True
        self.order(b"t")
        self.deadline = min(self.deadline, time.monotonic() + self.plan["grace"] / SECOND + LATE)

    def cancel(self) -> None:
        """End the run because its caller says so, or has gone."""
        if not self.command_over and not self.ordered:
            self.flags["cancelled"] = True
        self.end()

    def tell(self, message: bytes) -> None:
        """Tell the caller; the socket is fresh and holds it. One that has gone does not matter."""
        with contextlib.suppress(OSError):
            self.socket.sendall(frame(message))

    # --- the monitor ---

    def begin(self, message: bytes, table: Table) -> None:
        """Start what the caller has sent: a plan's words, or the sweep of a run whose warden has died."""
        head, _, words = message.partition(b"\n")
        self.plan = json.loads(head)
        # Before anything is started: the caller starts a run again whose warden has died before it has said so.
        self.tell(b"got")
        if not words:
            self.tree = Tree(self.plan["mark"], -1, (MARK, MONITOR))
            self.outcome = [b"swept"]
            self.command_over = True
            self.end()
            return
        table.refresh()  # what is there now is not the run's
        self.tree = Tree(self.plan["mark"], table.look)
        for descriptor in self.descriptors:
            os.set_inheritable(descriptor, False)
        try:
            self.start_monitor(task_limit(self.plan["spare_tasks"]) + words)
        except OSError as error:
            self.outcome = [b"failed", b"monitor", os.fsencode(self.program), b"errno", str(error.errno or 0).encode()]
            self.command_over = True
            if self.channel is not None:
                self.channel.close()
                self.channel = None
        finally:
            while self.descriptors:
                os.close(self.descriptors.pop())
        if self.command_over:
            self.end()

    def start_monitor(self, words: bytes) -> None:
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        passed = [theirs.fileno(), *self.descriptors]
        # A monitor that is stopped when its warden dies is found by a mark of its own, and by that of a run that its caller is in.
        marks = {name: os.environ[name] for name in (MARK,) if name in os.environ} | {MONITOR: self.plan["mark"]}
        with theirs:
            self.monitor = subprocess.Popen(
                [self.program, "serve", *map(str, passed)], env=marks, cwd="/", pass_fds=passed,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        with contextlib.suppress(BrokenPipeError):  # it has died, which its channel tells
            self.channel.sendall(frame(words))
        self.channel.setblocking(False)
        self.looked_at = time.monotonic_ns()
        self.next_look = time.monotonic() + FIRST_LOOK / SECOND
        if self.plan["timeout"]:
            self.deadline = time.monotonic() + self.plan["timeout"] / SECOND + LATE

    def order(self, what: bytes) -> None:
        if self.channel is not None and self.monitor is not None:
            with contextlib.suppress(OSError):
                self.channel.send(what)
            self.monitor.send_signal(signal.SIGCONT)  # the command has our user, and may have stopped it

    def on_monitor(self) -> None:
        """Take what the monitor says."""
        assert self.channel is not None
        try:
            data = self.channel.recv(1 << 16)
        except (BlockingIOError, InterruptedError):
            return
        except ConnectionError:
            data = b""
        for message in self.monitor_frames.feed(data):
            self.on_message(message.split(b"\0")[:-1])
        if not data:
            self.on_monitor_end()

    def on_message(self, words: list[bytes]) -> None:
        if words[0] == b"started":
            self.command = int(words[2])
            return
        if words[0] == b"began":
            self.began = time.monotonic_ns()
            self.tell(b"began\0pid\0%d\0" % self.command)
            return
        if words[0] == b"terminated":
            self.on_terminated()
            return
        if words[0] != b"over":
            self.outcome = words
        self.command_over = True
        self.end()

    def on_terminated(self) -> None:
        """The command has been sent SIGTERM; so are all others at the next look, which comes at once."""
        self.terminated = self.terminating = True
        self.paused = False  # who is stopped would not hear it
        self.next_look = 0.0
        self.deadline = time.monotonic() + self.plan["grace"] / SECOND + LATE

    def on_monitor_end(self) -> None:
        """Its last word has been heard before; one that has not said any was killed, and of the command nothing is known."""
        assert self.monitor is not None
        self.monitor.wait()
        self.channel = self.monitor = None
        self.command = 0  # from now on its number may be given again
        if not self.outcome:
            self.outcome = [b"died", b"the monitor of the run was killed: how the command ended is not known"]
            self.command_over = True
        self.end()

    # --- looking ---

    def roots(self) -> tuple[int, ...]:
        """Return the command's number, as long as nobody else can have it."""
        return (self.command,) if self.command else ()

    def look(self, table: Table) -> None:
        """Do what is due: measure and keep to the limits, or sweep."""
        assert self.tree is not None
        began = time.monotonic_ns()
        if self.ordered or self.command_over:
            self.sweep(table)
            return
        self.tree.find(table, self.roots())
        self.measure(began)
        if self.ordered:
            self.sweep(table)
            return
        if self.terminating:
            self.terminate_all()
        if self.paused:
            self.hold_still(table)
        if self.asked:
            self.tell_usage()
            self.asked = 0
        self.order(b"")  # nothing but the signal that lets it go on
        if time.monotonic() >= self.deadline:
            self.on_deadline()
        cost = time.monotonic_ns() - began
        self.interval = min(self.interval * 2, self.plan["interval"])
        interval = min(self.interval, PAUSE_INTERVAL) if self.paused else self.interval
        wait = max(interval, 2 * cost)  # a tree that takes long to look at is looked at less often
        if self.allowance < 0:
            wait = max(wait, min(-self.allowance * 1000 // self.plan["cpu"], SECOND // 10))
        self.next_look = time.monotonic() + wait / SECOND

    def on_deadline(self) -> None:
        """The monitor has not done what it should have by now: somebody keeps stopping it."""
        if self.plan["grace"] and not self.late:
            self.late = True
            self.order(b"t")
            self.deadline += self.plan["grace"] / SECOND + LATE
        else:
            self.end()

    def terminate_all(self) -> None:
        """Send SIGTERM to all but the command, which has it from the monitor, and let them hear it."""
        assert self.tree is not None
        self.terminating = False
        for pid, row in self.tree.members.items():
            if pid != self.command:
                signal_to(row.process.terminate)
        self.continue_all()

    def hold_still(self, table: Table) -> None:
        """Stop whoever goes on, until nobody new is found; again at each look, for others of the run may have continued it."""
        assert self.tree is not None
        held: set[int] = set()
        for _ in range(LOOKS_AT_ONCE):
            self.stop_all()
            if not self.tree.members.keys() - held:
                break
            held |= self.tree.members.keys()
            table.refresh()
            self.tree.find(table, self.roots())

    def tell_usage(self) -> None:
        """Answer the caller. One that has not read what it has asked for before is not waited for; in what has room for anything at all,
        all of this has (socket(7), SO_SNDLOWAT).
        """
        assert self.tree is not None
        found = self.tree.measure(0)
        facts = {"wall": time.monotonic_ns() - self.began, "cpu": found.cpu, "memory": found.memory, "tasks": found.tasks}
        words = ["usage", "number", str(self.asked), *(word for name, value in facts.items() for word in (name, str(value))), "disk_read", "-1", "disk_written", "-1", ""]
        with contextlib.suppress(OSError):
            self.socket.send(frame("\0".join(words).encode()))

    def measure(self, now: int) -> None:
        assert self.tree is not None
        plan = self.plan
        found = self.tree.measure(plan["memory"] or sys.maxsize)
        self.peak, self.peak_tasks = max(self.peak, found.memory), max(self.peak_tasks, found.tasks)
        for name, used, limit in (
            ("memory_exceeded", found.memory - 1, plan["memory"]),
            ("tasks_exceeded", found.tasks - 1, plan["tasks"]),
            ("cpu_exceeded", found.cpu, plan["cpu_time"]),
        ):
            if limit and used >= limit:
                self.flags[name] = True
                self.end()
                return
        if plan["cpu"]:
            self.ration(now, found.cpu)

    def ration(self, now: int, cpu: int) -> None:
        """A bucket that fills at the rate of the limit and holds a tenth of a second of it: cpu.max does the same."""
        rate = self.plan["cpu"]
        self.allowance += (now - self.looked_at) * rate // 1000 - (cpu - self.cpu_seen)
        self.allowance = min(self.allowance, SECOND // 10 * rate // 1000)
        self.looked_at, self.cpu_seen = now, cpu
        if self.allowance < 0:
            self.stop_all()
        elif not self.paused:
            self.continue_all()

    def stop_all(self) -> None:
        assert self.tree is not None
        for pid, row in self.tree.members.items():
            if not row.stopped and signal_to(row.process.suspend):  # again, too: others of the run may have continued it
                self.stopped[pid] = row

    def continue_all(self) -> None:
        """Those that we have stopped: who stopped before by itself stays so."""
        while self.stopped:
            signal_to(self.stopped.popitem()[1].process.resume)

    # --- ending ---

    def end(self) -> None:
        """End all of it, from the next turn of the loop on; harmless when it is being ended."""
        if not self.ordered and not self.command_over:
            self.order(b"k")
        if not self.swept_since:
            self.swept_since = time.monotonic()
        self.ordered = True
        self.next_look = 0.0

    def sweep(self, table: Table) -> None:
        """Stop whoever is found until nobody new is, then kill all; let the monitor go when nobody is left.

        The command itself is the monitor's to kill, as long as there is one: it tells its own SIGKILL from another's.
        """
        assert self.tree is not None
        stopped: set[int] = set()
        for _ in range(LOOKS_AT_ONCE):
            table.refresh()
            found = self.tree.find(table, self.roots())
            theirs = {pid: row for pid, row in found.items() if pid != self.command}
            new = theirs.keys() - stopped
            if not new:
                break
            for pid in new:
                signal_to(theirs[pid].process.suspend)
            stopped |= new
        for row in theirs.values():
            self.kill(row)
        left = [row for row in theirs.values() if may_signal(row.process)]
        self.next_look = time.monotonic() + SWEEP_INTERVAL
        self.unclear = self.unclear + 1 if table.vanished and not left else 0
        if left or 0 < self.unclear < UNCLEAR or not self.command_over:
            self.lose_patience()
        elif self.channel is not None and not self.outcome:
            self.order(b"r")
            self.next_look = time.monotonic() + LAST_CHANCE
        elif self.channel is None:
            self.finish()

    def kill(self, row: Row) -> None:
        """Kill a process and its group, which cannot be anybody else's: who is in it is in a session that the run has made."""
        assert self.tree is not None
        ours = row.session in self.tree.sessions or row.session == self.command
        if row.group and row.group != self.command and ours and row.process.is_running():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(row.group, signal.SIGKILL)
        signal_to(row.process.kill)

    def lose_patience(self) -> None:
        """A monitor that does not do what it was told is out of order, or the command waits in the kernel: it is reported so."""
        if self.monitor is None:
            return
        self.monitor.send_signal(signal.SIGCONT)
        if time.monotonic() - self.swept_since > LAST_CHANCE and not self.command_over:
            self.monitor.kill()

    def finish(self) -> None:
        """Tell the caller."""
        while self.descriptors:
            os.close(self.descriptors.pop())
        self.tell(b"\0".join((*self.last_word(), b"")))
        self.over = True

    def last_word(self) -> list[bytes]:
        if not self.outcome or self.outcome[0] != b"ended":
            return self.outcome
        facts = {self.outcome[i].decode(): int(self.outcome[i + 1]) for i in range(1, len(self.outcome) - 1, 2)}
        cpu = self.tree.cpu if self.tree else 0
        user = max(facts["user"], cpu - facts["system"])
        used, limit = user + facts["system"], self.plan["cpu_time"]
        said = {
            **dict.fromkeys(("oom_kills", "outside_oom_kills"), 0),
            **dict.fromkeys(("refused_forks", "throttled", "disk_read", "disk_written"), -1),
            **dict.fromkeys(("cpu_pressure", "memory_pressure", "io_pressure"), -1),
            **{name: facts[name] for name in ("done", "status", "wall", "system", "timed_out", "terminated")},
            **self.flags,
            "sent": self.sent,
            "user": user,
            "peak": max(self.peak, facts["maxrss"] * MAX_RSS_UNIT),
            "tasks": self.peak_tasks,
            "cpu_exceeded": self.flags["cpu_exceeded"] or bool(limit) and used >= limit,
        }
        return [b"ended", *(word for name, value in said.items() for word in (name.encode(), str(int(value)).encode()))]


def receive(source: socket.socket, size: int, most: int) -> tuple[bytes, list[int]] | None:
    """Return what has come, nothing at the end, with at most so many descriptors; None where nothing is there yet.

    Raises:
        OSError: the descriptors did not fit into the table, and nobody could be told otherwise; the warden ends with this, and all runs.
    """
    try:
        data, rights, flags, _ = source.recvmsg(size, socket.CMSG_SPACE(most * 4))
    except (BlockingIOError, InterruptedError):
        return None
    except ConnectionError:
        return b"", []
    if flags & socket.MSG_CTRUNC:
        raise OSError(errno.EMFILE, "the warden's hard limit on descriptors (RLIMIT_NOFILE) is too low for so many runs at once")
    found: list[int] = []
    for level, kind, content in rights:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found += memoryview(content[: len(content) - len(content) % 4]).cast("i").tolist()
    return data, found


def signal_to(send: Callable[[], None]) -> bool:
    """Send a signal to a process that may be gone, or be another user's by now; return whether it was sent."""
    try:
        send()
    except (*GONE, *DENIED):
        return False
    return True


def may_signal(process: psutil.Process) -> bool:
    """Return whether a process is there still, and ours to end: a set-user-ID program is not (kill(2), EPERM)."""
    try:
        os.kill(process.pid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True

