"""What `import proc_sandbox` and `proc-sandbox run -- true` cost over an empty interpreter.

    python bench/startup.py [--rounds N]

Interleaved, in fresh processes of this interpreter, with compiled bytecode, as pip installs it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import subprocess": [sys.executable, "-c", "import subprocess"],
    "import proc_sandbox": [sys.executable, "-c", "import proc_sandbox"],
    "proc-sandbox run -- true": [os.path.join(os.path.dirname(sys.executable), "proc-sandbox"), "run", "--", "true"],
}


def measure(rounds: int) -> dict[str, list[float]]:
    """Return the seconds of every counted start, by name; the first round fills the caches and is not counted."""
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with tempfile.TemporaryDirectory() as bytecode:
        environment["PYTHONPYCACHEPREFIX"] = bytecode
        for number in range(-1, rounds):
            for name, words in COMMANDS.items():
                begin = time.perf_counter()
                subprocess.run(words, capture_output=True, check=True, env=environment)
                if number >= 0:
                    times[name].append(time.perf_counter() - begin)
    return times


def main() -> int:
    """Measure and print; return the exit status."""
    parser = argparse.ArgumentParser(description="start-up time of the package and its command")
    parser.add_argument("--rounds", type=int, default=30, help="rounds (default: 30)")
    options = parser.parse_args()
    times = measure(options.rounds)
    base = statistics.median(times["python -c pass"])
    print(f"{'':<28} {'median ms':>10} {'over pass, ms':>14}")
    for name, values in times.items():
        median = statistics.median(values)
        print(f"{name:<28} {median * 1e3:>10.1f} {(median - base) * 1e3:>14.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
