"""What `import proc_sandbox` and `proc-sandbox run -- true` cost over an empty interpreter."""

from __future__ import annotations

import functools
import os
import statistics
import subprocess
import sys
import tempfile

from bench.measure import interleave, timed
from bench.table import Effort, Section, Table

__all__ = ["section"]

BASE = "python -c pass"
COMMANDS = {
    BASE: [sys.executable, "-c", "pass"],
    "import subprocess": [sys.executable, "-c", "import subprocess"],
    "import proc_sandbox": [sys.executable, "-c", "import proc_sandbox"],
    "proc-sandbox run -- true": [os.path.join(os.path.dirname(sys.executable), "proc-sandbox"), "run", "--", "true"],
}
ABOUT = """\
In fresh processes of this interpreter, with compiled bytecode, as pip installs it.

    python -m bench startup"""


def measure(rounds: int) -> dict[str, list[float]]:
    """Return the seconds of every counted start, by name; the first round fills the caches and is not counted."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with tempfile.TemporaryDirectory() as bytecode:
        environment["PYTHONPYCACHEPREFIX"] = bytecode

        def start(words: list[str]) -> bool:
            return subprocess.run(words, capture_output=True, check=False, env=environment).returncode == 0

        calls = {name: timed(functools.partial(start, words), name) for name, words in COMMANDS.items()}
        return interleave(calls, rounds, warm_up=1)


def section(effort: Effort) -> Section:
    """Measure and return what there is to say."""
    medians = {name: statistics.median(values) for name, values in measure(effort.of(50, 8)).items()}
    rows = [(name, f"{median * 1e3:.1f}", f"{(median - medians[BASE]) * 1e3:.1f}") for name, median in medians.items()]
    return Section("startup", "Start-up", ABOUT, [Table(("", "median, ms", f"over `{BASE}`, ms"), rows)])
