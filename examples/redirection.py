"""Standard streams: bytes in, captured or written to a file; a flood is cut and flagged."""

import io
import tempfile
from pathlib import Path

import proc_sandbox as ps


def example() -> list[tuple[str, ps.Result, bool]]:
    """Return (what was tried, its result, whether that is what should happen)."""
    sorted_lines = ps.run(["sort", "-n"], input=b"30\n4\n100\n")

    both = ps.run(["sh", "-c", "echo out; echo err >&2"], stderr=ps.STDOUT)

    with tempfile.TemporaryDirectory() as directory:
        source, target = Path(directory, "in.txt"), Path(directory, "out.txt")
        source.write_text("from a file\n")
        to_file = ps.run(["tr", "a-z", "A-Z"], stdin=source, stdout=target)
        written = target.read_text()

    memory = io.BytesIO()  # a binary stream without a descriptor
    to_stream = ps.run(["echo", "to an object"], stdout=memory)

    flood = ps.run(["sh", "-c", "yes | head -c 50000000"], max_output="64K")
    return [
        ("input=bytes, captured output", sorted_lines, sorted_lines.stdout == b"4\n30\n100\n"),
        ("stderr into stdout", both, both.stdout == b"out\nerr\n"),
        ("file to file", to_file, to_file.ok and written == "FROM A FILE\n"),
        ("stdout into io.BytesIO", to_stream, memory.getvalue() == b"to an object\n"),
        ("50 MB of output, 64 KiB kept", flood, flood.ok and flood.stdout_truncated),
    ]


if __name__ == "__main__":
    for title, result, as_expected in example():
        print(f"{title}: {len(result.stdout)} bytes captured, {as_expected=}")
