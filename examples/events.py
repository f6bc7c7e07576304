"""What a command does, as it does it: each piece of output when it is written, the verdict last."""

import contextlib

import proc_sandbox as ps

BUILD = "for part in lexer parser linker; do echo \"compiling $part\"; done; echo 'warning: old file' >&2; exit 2"
ENDLESS = "echo 'error: first of many' >&2; while :; do sleep 0.05; done"


def example() -> list[tuple[str, ps.Result, bool]]:
    """Return (what was tried, its result, whether that is what should happen)."""
    said = {"stdout": b"", "stderr": b""}
    verdicts: list[ps.Result] = []
    for event in ps.stream(["sh", "-c", BUILD], timeout=60):
        if isinstance(event, ps.Output):
            said[event.stream] += event
        elif isinstance(event, ps.Exited):
            verdicts.append(event.result)  # it holds no output: the events have brought that
    (built,) = verdicts

    with ps.Sandbox(timeout=60) as box:
        with contextlib.closing(ps.stream(["sh", "-c", ENDLESS], sandbox=box)) as events:
            errors = next(event for event in events if isinstance(event, ps.Output) and event.stream == "stderr")
        after = box.run(["echo", "the endless one is gone"])  # leaving the block has ended it

    return [
        ("output in pieces, then the verdict", built, built.exit_code == 2 and said["stdout"].count(b"compiling") == 3),
        ("each piece says of which stream it is", built, said["stderr"] == b"warning: old file\n"),
        ("left at the first error", after, errors.text().startswith("error: first") and after.ok),
    ]


if __name__ == "__main__":
    for title, result, as_expected in example():
        print(f"{title}: exit {result.exit_code}, {as_expected=}")
