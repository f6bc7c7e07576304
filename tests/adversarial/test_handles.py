"""What a command can do to who holds a handle to it."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest
from support.programs import HANG, python

import proc_sandbox as ps
from proc_sandbox import execution
from proc_sandbox.launcher import channel

CONTINUES_ITSELF = """
import ctypes, os, signal
libc = ctypes.CDLL(None, use_errno=True)
timers = [ctypes.c_void_p() for _ in range(200)]
def arm(*_):  # each once, later and later: one at least comes after it was stopped
    for number, timer in enumerate(timers, 1):
        libc.timer_settime(timer, 0, (ctypes.c_long * 4)(0, 0, 0, 500_000 * number), None)
signal.signal(signal.SIGCONT, arm)
for timer in timers:
    event = (ctypes.c_int * 16)(0, 0, signal.SIGCONT, 0)
    if libc.timer_create(1, event, ctypes.byref(timer)) < 0:
        os.write(1, b"REFUSED %d" % ctypes.get_errno())
        os._exit(0)
while True:
    arm()
    for _ in range(100):
        os.write(1, b"x" * 100)
"""
MUCH = 8 << 20
"""Bytes, of which a pipe holds few: who has written them goes on."""


def test_a_timer_does_not_continue_who_is_paused(monkeypatch: pytest.MonkeyPatch) -> None:
    def unfiltered(*arguments: Any, real: Any = execution.make_plan) -> Any:
        plan, paths = real(*arguments)
        return replace(plan, prefix=b"", seccomp=None), paths

    with monkeypatch.context() as control:
        control.setattr(execution, "make_plan", unfiltered)
        with ps.Popen(python(CONTINUES_ITSELF), stdout=ps.PIPE, timeout=HANG) as process:
            assert process.stdout is not None
            assert process.stdout.read(1) == b"x"
            process.pause()
            assert len(process.stdout.read(MUCH)) == MUCH, "it goes on"
    with ps.Popen(python(CONTINUES_ITSELF), stdout=ps.PIPE, timeout=HANG) as process:
        assert process.communicate()[0] == b"REFUSED 38"  # ENOSYS


@pytest.mark.parametrize("text", [False, True])
def test_who_does_not_read_makes_nobody_raise(text: bool) -> None:
    with ps.Popen(["sh", "-c", "exec <&-; echo closed; read x <&1; :"], stdin=ps.PIPE, stdout=ps.PIPE, text=text, timeout=HANG) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("x" if text else b"x")  # which stays in the file object
        assert process.stdout.readline().strip() in ("closed", b"closed")
        process.communicate()
        assert process.returncode is not None


def test_those_who_hear_no_sigterm_are_waited_for_at_the_same_time() -> None:
    """Each by itself could take its grace: all of them together a multiple of it."""
    deaf = ["sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 1; done"]
    box = ps.Sandbox(kill_grace=2, timeout=HANG)
    handles = [box.popen(deaf, stdout=ps.PIPE) for _ in range(3)]
    for handle in handles:
        assert handle.stdout is not None
        handle.stdout.readline()
    begun = [handle.usage().elapsed for handle in handles]
    box.cleanup()
    ran = [handle.wait().execution_time - before for handle, before in zip(handles, begun, strict=True)]
    # The first of them was ended as late as the others: an order, whatever a loaded machine takes.
    assert max(ran) - min(ran) < 2, "the last was asked to end when the first had ended"


def test_a_handle_can_be_closed_while_others_use_it() -> None:
    raised: list[BaseException] = []

    def use(what: Any) -> None:
        try:
            what()
        except BaseException as error:  # noqa: BLE001 - whatever it is
            raised.append(error)

    for _ in range(30):
        process = ps.Popen(["sleep", "60"], timeout=HANG)
        users = (process.wait, process.close, process.poll, process.kill, process.usage, process.terminate, process.close, process.wait)
        threads = [threading.Thread(target=use, args=(what,)) for what in users]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(HANG)
            assert not thread.is_alive()
    assert raised == []


def test_an_interrupt_loses_nothing_that_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command can end at the moment in which its caller is interrupted."""

    def interrupted(message: bytes) -> Any:
        monkeypatch.undo()
        raise KeyboardInterrupt

    with ps.Popen(["cat"], stdin=ps.PIPE, timeout=HANG, backend="linux") as process:
        monkeypatch.setattr(channel, "decode", interrupted)
        assert process.stdin
        process.stdin.close()  # now it ends, and not before decode() is another
        with pytest.raises(KeyboardInterrupt):
            process.wait()
        assert process.wait().ok
