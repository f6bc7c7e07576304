"""Commands joined by pipes, each with rules of its own: who reads the files never sees who counts the words."""

import tempfile
from pathlib import Path

import proc_sandbox as ps

TEXT = "the quick fox\njumps over\nthe lazy dog\n"


def example() -> list[tuple[str, ps.Result[str], bool]]:
    """Return (what was tried, its result, whether that is what should happen)."""
    with tempfile.TemporaryDirectory() as directory:
        source = Path(directory, "text")
        source.write_text(TEXT)
        read = ps.cmd(["cat", str(source)], read_only_dirs=[source], timeout=60)
        words = ps.cmd(["tr", "-s", " ", "\n"], timeout=60)
        most = ps.cmd(["sh", "-c", "sort | uniq -c | sort -rn | head -n 1"], timeout=60, max_processes=16)
        counted = (read | words | most).run(text=True)
        peeping = (read | ps.cmd(["cat", str(source)], timeout=60)).run(text=True)  # the file is granted to the first only
    failing = (ps.cmd(["echo", "x"]) | ps.cmd(["sh", "-c", "cat >&2; exit 4"])).run(text=True)
    return [
        ("three commands, the last one's output", counted.results[-1], counted.ok and counted.stdout.split() == ["2", "the"]),
        ("a grant is one command's", peeping.results[1], not peeping.results[1].ok and not peeping.stdout),
        ("each has its own verdict", failing.results[1], [each.exit_code for each in failing.results] == [0, 4]),
    ]


if __name__ == "__main__":
    for title, result, as_expected in example():
        print(f"{title}: exit {result.exit_code}, {as_expected=}")
