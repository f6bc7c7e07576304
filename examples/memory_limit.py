"""A memory limit for the whole tree: what exceeds it is ended, and the result says so."""

import sys

import proc_sandbox as ps

TOUCH = "data = bytearray({size} << 20); print('touched {size} MiB')"
KILLS_ITSELF = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"


def python(code: str) -> ps.Result:
    """Run Python code with 64 MiB."""
    return ps.run([sys.executable, "-c", code], memory_limit="64M", timeout=30)


def example() -> list[tuple[str, ps.Result, bool]]:
    """Return (what was tried, its result, whether that is what should happen)."""
    within = python(TOUCH.format(size=20))
    above = python(TOUCH.format(size=200))
    suicide = python(KILLS_ITSELF)
    return [
        ("touches 20 MiB of 64", within, within.ok and not within.memory_exceeded),
        ("touches 200 MiB of 64", above, above.memory_exceeded),
        ("kills itself: not the limit", suicide, suicide.signal == 9 and not suicide.memory_exceeded),
    ]


if __name__ == "__main__":
    for title, result, as_expected in example():
        print(f"{title}: {result.reason.value}, peak {result.peak_memory} bytes, {as_expected=}")
