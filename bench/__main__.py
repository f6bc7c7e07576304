"""python -m bench [sections] [--quick] [--record docs/performance.md]: measure and print, or write the page."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
import traceback
from pathlib import Path

from bench.machine import machine_table
from bench.page import recorded
from bench.table import Effort, Section, bars_table

SECTIONS = ("latency", "overhead", "throughput", "memory", "independence", "inside", "growth", "startup", "syscalls")


def measured(name: str, effort: Effort) -> Section:
    """Return one section; what went wrong in it is said in its place, and the others go on."""
    try:
        section: Section = importlib.import_module(f"bench.{name}").section(effort)
    except Exception as error:  # noqa: BLE001  (whatever it is, it is said)
        traceback.print_exc()
        return Section(name, name.capitalize(), "", notes=[f"not measured: {type(error).__name__}: {error}"])
    return section


def main() -> int:
    """Measure what is named, print it as it comes, and return the exit status: a bar that does not hold is a figure, not an error."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="what the product costs")
    parser.add_argument("sections", nargs="*", metavar="section", help=f"{', '.join(SECTIONS)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="fewer rounds: minutes less, rougher figures")
    parser.add_argument(
        "--record", type=Path, metavar="PAGE", help="write the sections into this page, between their marks"
    )
    options = parser.parse_args()
    if unknown := set(options.sections) - set(SECTIONS):
        parser.error(f"no such section: {', '.join(sorted(unknown))}")
    effort = Effort(options.quick, str(options.record.parent) if options.record else "")
    machine = machine_table()
    print("\n".join(machine.lines()), flush=True)
    done: list[Section] = []
    begin = time.monotonic()
    for name in options.sections or SECTIONS:
        section = measured(name, effort)
        done.append(section)
        print(f"\n## {section.title}\n", *section.lines(), sep="\n", flush=True)
    bars = [bar for section in done for bar in section.bars]
    if bars:
        print("\n## All bars\n", *bars_table(bars).lines(), sep="\n")
    print(f"\n{time.monotonic() - begin:.0f} s")
    if options.record:
        page = options.record.read_text(encoding="utf-8")
        options.record.write_text(
            recorded(page, machine, done, quick=options.quick, whole=not options.sections), encoding="utf-8"
        )
    return int(not all(section.about for section in done))


if __name__ == "__main__":
    sys.exit(main())
