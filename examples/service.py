"""A service on asyncio that runs what its clients send: some at a time, bounded, and gone with who asked for it.

A client sends a program for awk(1) in one line and gets what that prints, or why it got no further.
"""

import asyncio
import contextlib

import proc_sandbox as ps
from proc_sandbox import aio

LIMITS = ps.Config(timeout=60, max_processes=4, max_output="64K")
AT_A_TIME = 4


class Service:
    """Listens on a port of the loopback; results: of the runs that have ended."""

    def __init__(self) -> None:
        self.results: list[ps.Result[str]] = []

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client."""
        program = (await reader.readline()).decode().strip()
        limits = LIMITS.replace(timeout=0.3) if "while" in program else LIMITS
        async with aio.limit(AT_A_TIME):
            result = await aio.run(["awk", f"BEGIN {{ {program} }}"], config=limits, text=True)
        self.results.append(result)
        writer.write((result.stdout if result.ok else f"{result.reason}: {result.error or result.stderr}\n").encode())
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        writer.close()


async def ask(port: int, program: str) -> str:
    """Be a client."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"{program}\n".encode())
    reply = (await reader.read()).decode()
    writer.close()
    return reply


async def serve_and_ask(programs: list[str]) -> tuple[list[str], list[ps.Result[str]]]:
    """Serve these clients at the same time; return the replies in order, and the results as they came."""
    service = Service()
    server = await asyncio.start_server(service.answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    replies = await asyncio.gather(*(ask(port, program) for program in programs))
    server.close()
    await server.wait_closed()
    return replies, service.results


async def leave() -> ps.Result[str]:
    """Give up waiting, as a service does whose client has gone: the task is cancelled, and the run's whole tree with it."""
    async with aio.Sandbox(LIMITS) as box:
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(box.run(["sh", "-c", "sleep 60 & sleep 60"]), timeout=0.3)
        async with box.popen(["tee", "notes"], stdin=ps.PIPE) as process:  # a handle in the same directory
            await process.communicate(b"still here\n")
        return await box.run(["cat", "notes"], text=True)


def example() -> list[tuple[str, ps.Result[str], bool]]:
    """Return (what was tried, its result, whether that is what should happen)."""
    sums = [f"print {number} * 2" for number in range(8)]
    replies, results = asyncio.run(serve_and_ask([*sums, "while (1);"]))
    late = next(result for result in results if result.timed_out)
    after = asyncio.run(leave())
    return [
        ("eight clients at once", results[0], replies[:8] == [f"{number * 2}\n" for number in range(8)]),
        ("one sends an endless loop", late, replies[8].startswith("timeout: ")),
        ("one has gone: its tree is killed", after, after.stdout == "still here\n"),
    ]


if __name__ == "__main__":
    for title, result, as_expected in example():
        print(f"{title}: {result.reason.value}, {as_expected=}")
