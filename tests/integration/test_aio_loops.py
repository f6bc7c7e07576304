"""Event loops that are several, forked, thrown away or interrupted: their runs go with them."""

from __future__ import annotations

import asyncio
import threading

import pytest
from support.loops import Loop
from support.processes import output_of

from proc_sandbox import aio

EVERY_BACKEND = True


FORK = """
import asyncio, os, sys
from proc_sandbox import aio
def child():
    pid = os.fork()
    if pid == 0:
        {0}
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
async def main():
    gate, go = os.pipe()
    up, told = os.pipe()
    run = asyncio.ensure_future(aio.run(["sh", "-c", f"echo >&{{told}}; read x <&{{gate}}; echo $x"], pass_fds=[gate, told]))
    came = asyncio.Event()
    asyncio.get_running_loop().add_reader(up, came.set)
    await came.wait()
    asyncio.get_running_loop().remove_reader(up)
    print(child(), flush=True)
    os.write(go, b"parent\\n")
    print((await run).stdout)
asyncio.run(main())
"""


@pytest.mark.parametrize(
    "does",
    [
        "sys.exit(7)",  # unwinds all tasks, which are its parent's
        "asyncio.events._set_running_loop(None); os._exit(asyncio.run(aio.run(['sh', '-c', 'exit 7'])).exit_code)",
    ],
)
def test_forks_harm_no_run_of_their_parent(does: str, backend: str) -> None:
    if backend != "linux" and does.startswith("sys"):
        pytest.skip("asyncio itself: closing its loop, the child takes its parent's out of the epoll instance that both have")
    assert output_of(FORK.format(does), env={"PYTHONWARNINGS": "ignore"}) == "7\nb'parent\\n'\n"


def test_two_loops_in_two_threads(with_loop: Loop) -> None:
    found: list[list[bytes]] = []

    async def many(name: str) -> None:
        results = await asyncio.gather(*(aio.run(["cat"], input=f"{name}{n}") for n in range(10)))
        found.append([bytes(result.stdout) for result in results])

    others = [threading.Thread(target=lambda name=name: asyncio.run(many(name))) for name in "ab"]  # type: ignore[misc]
    for thread in others:
        thread.start()
    with_loop(many("c"))
    for thread in others:
        thread.join()
    assert sorted(found) == [[f"{name}{n}".encode() for n in range(10)] for name in "abc"]


@pytest.mark.parametrize("closed", [True, False])
def test_a_loop_that_is_thrown_away_takes_its_runs_with_it(closed: bool) -> None:
    """Without having cancelled them: they end with their tasks."""
    code = """
import asyncio, gc, os, sys, threading, warnings
from proc_sandbox import aio
warnings.simplefilter("ignore", ResourceWarning)
loop = asyncio.new_event_loop()
loop.run_until_complete(aio.run(["true"]))
before = len(os.listdir("/proc/self/fd"))
up, told = os.pipe()
def begin():
    command = ["sh", "-c", f"echo up >&{told}; sleep 600"]
    return [loop.create_task(aio.run(command, pass_fds=[told])) for _ in range(3)]
tasks = begin()
heard = b""
while heard.count(b"up") < 3:
    loop.call_later(0.01, loop.stop)
    loop.run_forever()
    os.set_blocking(up, False)
    try: heard += os.read(up, 100)
    except BlockingIOError: pass
for thread in threading.enumerate():  # one that has just started a run still has the loop, until it has ended
    if "apart" in thread.name:
        thread.join()
if sys.argv[1] == "True":
    loop.close()
del tasks
if sys.argv[1] == "False":
    del loop
gc.collect()
os.close(told)
os.set_blocking(up, True)
print(os.read(up, 100), len(os.listdir("/proc/self/fd")) <= before)
"""
    assert output_of(code, str(closed)) == "b'' True\n"


def test_a_task_that_is_thrown_away_while_it_waits_for_the_end(backend: str) -> None:
    """Cancelled, and then the loop is closed before it could be done."""
    code = """
import asyncio, gc, os
from proc_sandbox import aio
loop = asyncio.new_event_loop()
up, told = os.pipe()
async def main():
    task = asyncio.ensure_future(aio.run(["sh", "-c", f"echo up >&{told}; sleep 600"], pass_fds=[told]))
    await asyncio.to_thread(os.read, up, 100)
    task.cancel()
    await asyncio.sleep(0)
    asyncio.get_running_loop().stop()
    await asyncio.Event().wait()
main = loop.create_task(main())
loop.run_forever()
loop.close()
del main
gc.collect()
os.close(told)
print(os.read(up, 100))
"""
    assert output_of(code) == "b''\n"


@pytest.mark.parametrize("moment", ["in the loop", "in a sink"])
def test_a_keyboard_interrupt(moment: str) -> None:
    code = """
import asyncio, os, signal, sys
from proc_sandbox import aio
up, told = os.pipe()
def interrupt():
    os.read(up, 100)
    os.kill(os.getpid(), signal.SIGINT)
class Sink:
    def write(self, data):
        if sys.argv[1] == "in a sink":
            raise KeyboardInterrupt
async def main():
    if sys.argv[1] == "in the loop":
        asyncio.get_running_loop().add_reader(up, interrupt)
    await aio.run(["sh", "-c", f"echo up >&{told}; echo; sleep 600"], pass_fds=[told], stdout=Sink())
try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("interrupted")
os.set_blocking(up, False)
os.close(told)
try:
    while os.read(up, 100): pass
    print("alone")
except BlockingIOError:
    print("not alone")
"""
    assert output_of(code, moment) == "interrupted\nalone\n"
