"""Compile a C program with the system's gcc inside the sandbox, then run it on input."""

import tempfile
from pathlib import Path

import proc_sandbox as ps

SUM_OF_PRIMES = r"""
#include <stdio.h>

int main(void)
{
        long n, sum = 0;

        if (scanf("%ld", &n) != 1)
                return 2;
        for (long i = 2; i <= n; i++) {
                long d = 2;

                while (d * d <= i && i % d)
                        d++;
                if (d * d > i)
                        sum += i;
        }
        printf("%ld\n", sum);
        return 0;
}
"""
BROKEN = "int main(void) { return undeclared; }\n"


def example() -> list[tuple[str, ps.Result, bool]]:
    """Return (what was tried, its result, whether that is what should happen)."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "primes.c").write_text(SUM_OF_PRIMES)
        Path(directory, "broken.c").write_text(BROKEN)
        with ps.Sandbox(working_dir=directory, timeout=60, memory_limit="512M") as box:
            built = box.run(["gcc", "-O2", "-Wall", "-o", "primes", "primes.c"])
            solved = box.run(["./primes"], input=b"100000\n", timeout=10, memory_limit="64M")
            broken = box.run(["gcc", "-o", "broken", "broken.c"])
    return [
        ("gcc compiles a program", built, built.ok),
        ("the program runs: sum of primes", solved, solved.stdout == b"454396537\n"),
        ("gcc refuses a broken one", broken, broken.exit_code == 1 and "undeclared" in broken.stderr.text()),
    ]


if __name__ == "__main__":
    for title, result, as_expected in example():
        print(f"{title}: exit {result.exit_code}, {as_expected=}")
        print(result.stdout.text() + result.stderr.text(), end="")
