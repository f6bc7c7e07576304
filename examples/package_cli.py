"""Run a third-party package's own command line, pygmentize of Pygments, on a real file.

Needs Pygments beside this interpreter: python -m pip install pygments
"""

import sys
import tempfile
from pathlib import Path

import proc_sandbox as ps

SOURCE = Path(__file__).resolve()


def example() -> list[tuple[str, ps.Result, bool]]:
    """Return (what was tried, its result, whether that is what should happen)."""
    with tempfile.TemporaryDirectory() as directory:
        page = Path(directory, "page.html")
        with ps.Sandbox(
            working_dir=directory,
            read_only_dirs=[SOURCE.parent],
            timeout=60,
            memory_limit="256M",
            max_processes=8,
        ) as box:
            pygmentize = [sys.executable, "-m", "pygments"]
            made = box.run(
                [*pygmentize, "-f", "html", "-O", "full", "-o", page.name, str(SOURCE)],
            )
            text = page.read_text() if page.exists() else ""
            into_source = box.run([*pygmentize, "-f", "html", "-o", str(SOURCE), str(SOURCE)])
    return [
        ("pygmentize writes this file as HTML", made, made.ok and "pygmentize" in text),
        (
            "pygmentize may not write its input",
            into_source,
            into_source.exit_code == 1 and SOURCE.read_text().startswith('"""Run a third-party'),
        ),
    ]


if __name__ == "__main__":
    for title, result, as_expected in example():
        print(f"{title}: exit {result.exit_code}, {as_expected=}")
        print(result.stderr.text(), end="")
