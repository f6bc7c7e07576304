"""Run the examples and print a table of verdicts; exit 1 if one is not what it should be."""

from __future__ import annotations

import importlib
import sys

import proc_sandbox as ps

EXAMPLES = (
    "timeout",
    "memory_limit",
    "redirection",
    "environment",
    "compile_and_run_c",
    "package_cli",
    "live_handle",
    "events",
    "many_runs",
    "pipeline",
    "service",
)
COLUMNS = ("example", "what was tried", "reason", "exit", "wall s", "cpu s", "peak MiB", "as expected")
RIGHT_ALIGNED = {"exit", "wall s", "cpu s", "peak MiB"}


def row(name: str, title: str, result: ps.Result[bytes | str], as_expected: bool) -> tuple[str, ...]:
    """Return one line of the table."""
    peak = "-" if result.peak_memory is None else f"{result.peak_memory / 2**20:.1f}"
    return (
        name,
        title,
        result.reason.value,
        str(result.returncode),
        f"{result.execution_time:.3f}",
        f"{result.cpu_time.total:.3f}",
        peak,
        "yes" if as_expected else "NO",
    )


def print_table(rows: list[tuple[str, ...]]) -> None:
    """Print rows under COLUMNS, padded to the widest cell."""
    widths = [max(map(len, column)) for column in zip(COLUMNS, *rows, strict=True)]
    for cells in (COLUMNS, tuple("-" * width for width in widths), *rows):
        padded = (
            cell.rjust(width) if column in RIGHT_ALIGNED else cell.ljust(width)
            for column, cell, width in zip(COLUMNS, cells, widths, strict=True)
        )
        print("  ".join(padded).rstrip())


def describe_failure(title: str, result: ps.Result[bytes | str]) -> str:
    """Return what is needed to see why a verdict is not the expected one."""
    return f"{title}: error={result.error!r} stdout={result.stdout[:500]!r} stderr={result.stderr[-2000:]!r}"


def main() -> int:
    """Run everything; return the exit status."""
    rows: list[tuple[str, ...]] = []
    failures: list[str] = []
    mechanisms: dict[str, str] = {}
    for name in EXAMPLES:
        try:
            outcomes = importlib.import_module(name).example()
        except ps.SandboxError as error:
            rows.append((name, "(could not be run)", "-", "-", "-", "-", "-", "NO"))
            failures.append(f"{name}: {type(error).__name__}: {error}")
            continue
        for title, result, as_expected in outcomes:
            rows.append(row(name, title, result, as_expected))
            if not as_expected:
                failures.append(describe_failure(title, result))
            for asked, how in result.enforcement.items():
                mechanism = how.mechanism if isinstance(how, ps.Enforced) else f"NOT: {how.reason}"
                mechanisms.setdefault(asked, mechanism)
    print_table(rows)
    print("\nenforced by:")
    for asked, mechanism in sorted(mechanisms.items()):
        print(f"  {asked:<16} {mechanism}")
    good = sum(cells[-1] == "yes" for cells in rows)
    print(f"\n{good} of {len(rows)} verdicts as expected")
    for failure in failures:
        print(f"unexpected: {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
