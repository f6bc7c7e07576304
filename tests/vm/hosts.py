#!/usr/bin/env python3
"""Run the project's tests on every kind of host that a virtual machine can be, and print what held where.

    tests/vm/hosts.py [--only NAME] [--select EXPRESSION] [--jobs N] [--record docs/hosts.json]

Each host is booted with QEMU (make test-vm builds the images first), or is a container by runc on this machine. It says by
which mechanism it enforces each limit (proc-sandbox doctor --json), and runs the tests that concern mechanisms.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support.container import with_this_package
from support.pages import with_block

BEGIN, END = "<!-- hosts: written by make test-vm -->", "<!-- end of hosts -->"
"""What encloses the table in docs/hosts.md."""
HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1]
LIMITS = ("memory_limit", "cpu_limit", "cpu_time_limit", "max_processes", "files", "processes", "network_access")
PROVES = "limits or endings or verdict or smoke or sandbox or cages or systemd or prepared"
QUICK = "limits_memory or limits_tasks or smoke or systemd"


class Machine(NamedTuple):
    """One kind of host: how it is booted, and which of the tests prove it."""

    name: str
    options: tuple[str, ...]
    select: str = QUICK
    wrapper: str = ""


class Container(NamedTuple):
    """A container on this machine: as its engine makes it by default, or with the flags that let us make namespaces."""

    name: str
    user: int
    namespaces: bool = False


NO_MANAGER = ("--append", "systemd.mask=user@1000.service")
CLOSED = ("--append", "sysctl.user.max_user_namespaces=0")
BARE = "without_namespaces or smoke"
ATTACKS = "tests/adversarial/test_without_namespaces.py"
HOSTS: tuple[Machine | Container, ...] = (
    Machine("cgroup v2, root", ("--user", "root"), PROVES),
    Machine("cgroup v2, systemd user", ("--session", "manager"), PROVES),
    Machine("cgroup v2, login by ssh", ("--session", "login")),
    Machine("cgroup v2, service with Delegate=yes", ("--session", "service", *NO_MANAGER)),
    Machine("cgroup v2, cron without a manager", ("--session", "bare", *NO_MANAGER)),
    Machine("cgroup v2, manager without cpu", ("--delegate", "memory,pids")),
    Machine("no Landlock, systemd user", ("--append", "lsm=yama,apparmor")),
    Machine("Linux 5.10, root", ("--kernel", "bullseye", "--user", "root"), PROVES),
    Machine("Linux 5.10, systemd user", ("--kernel", "bullseye"), PROVES),
    Machine("Linux 6.1, systemd user", ("--kernel", "bookworm")),
    Machine("Linux 7.2, systemd user", ("--kernel", "sid")),
    Machine("hybrid cgroups, root", ("--suite", "bookworm", "--cgroup", "hybrid", "--user", "root")),
    Machine("cgroup v1, root", ("--suite", "bookworm", "--cgroup", "v1", "--user", "root")),
    Machine("no user namespaces, systemd user", ("--session", "manager", *CLOSED), BARE),
    Machine("no user namespaces, root", ("--user", "root", *CLOSED), BARE),
    Machine("privileged container, cgroup v2", ("--user", "root"), QUICK, "tests/vm/guest/privileged-container"),
    Container("default container, root", 0),
    Container("default container, user", 1234),
    Container("container with seccomp and systempaths unconfined", 1234, namespaces=True),
)


def run_in(machine: Machine, *command: str, out: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command in a machine of that kind, with the compiled launcher carried along."""
    words = [str(HERE / "run_in"), *machine.options, "--project", str(PROJECT), "--timeout", "1500"]
    words += ["--carry", "src/proc_sandbox/_bin", "--env", "PYTHONPATH=src", *(["--out", str(out)] if out else [])]
    return subprocess.run([*words, "--", *command], capture_output=True, text=True, check=False)


def script(machine: Machine) -> str:
    where = f"tests/behaviour tests/integration tests/adversarial/test_evasion.py {ATTACKS}"
    tests = f"python3 -m pytest -q -rfE -p no:cacheprovider {where} -k '{machine.select}'"
    return f"python3 -m proc_sandbox doctor --json > /out/doctor.json; {tests} > /out/tests.txt 2>&1; tail -n 25 /out/tests.txt"


def try_machine(machine: Machine) -> tuple[dict[str, Any], str]:
    """Return what doctor and the tests said in a virtual machine."""
    with tempfile.TemporaryDirectory() as directory:
        wrapper = [machine.wrapper] if machine.wrapper else []
        done = run_in(machine, *wrapper, "sh", "-c", script(machine), out=Path(directory))
        report, tests = Path(directory, "doctor.json"), Path(directory, "tests.txt")
        said = json.loads(report.read_text()) if report.exists() and report.stat().st_size else {}
        return said, tests.read_text() if tests.exists() else done.stderr


def try_container(container: Container) -> tuple[dict[str, Any], str]:
    """Return what doctor and the tests said in a container."""

    def python(*arguments: str) -> subprocess.CompletedProcess[str]:
        with tempfile.TemporaryDirectory() as directory:
            return with_this_package(arguments, Path(directory), user=container.user, namespaces=container.namespaces)

    where = ["tests/integration/test_smoke.py"] if container.namespaces else [ATTACKS]
    said = json.loads(python("-m", "proc_sandbox", "doctor", "--json").stdout or "{}")
    return said, python("-m", "pytest", "-q", "-rfE", "-p", "no:cacheprovider", *where).stdout


def try_host(machine: Machine | Container) -> dict[str, Any]:
    """Return the mechanisms of a host and how its tests went."""
    said, text = try_machine(machine) if isinstance(machine, Machine) else try_container(machine)
    counts = {word: int(number) for number, word in re.findall(r"(\d+) (passed|failed|skipped|error)", text[-500:])}
    failures = re.findall(r"^(?:FAILED|ERROR) (\S+)", text, re.MULTILINE)
    mechanisms = {name: said.get(name, {}).get("mechanism", "none") for name in LIMITS}
    return {"host": machine.name, "mechanisms": mechanisms, "counts": counts, "failures": failures, "trial": said.get("trial"),
            "said": text[-500:], "why": re.findall(r"^E  .*|^\S+:\d+: \w+$", text, re.MULTILINE)}  # fmt: skip


def show(found: dict[str, Any]) -> None:
    counts = found["counts"]
    print(f"{found['host']}: {counts.get('passed', 0)} passed, {counts.get('failed', 0) + counts.get('error', 0)} failed, "
          f"{counts.get('skipped', 0)} skipped", flush=True)  # fmt: skip
    for name, mechanism in found["mechanisms"].items():
        print(f"    {name:<16}{mechanism}")
    for failure in found["failures"]:
        print(f"    FAILED {failure}", flush=True)
    for line in found["why"]:
        print(f"        {line[:400]}", flush=True)
    if not counts:
        print(found["said"], flush=True)


def table(rows: list[dict[str, Any]]) -> str:
    """Return the hosts x limits table in Markdown, from what the runs recorded."""
    lines = ["| host | " + " | ".join(LIMITS) + " | tests |", "|---" * (len(LIMITS) + 2) + "|"]
    for row in rows:
        cells = [row["mechanisms"].get(name, "not recorded").split(",")[0].split(":")[0] for name in LIMITS]
        counts = row["counts"]
        tests = f"{counts.get('passed', 0)} passed, {counts.get('failed', 0) + counts.get('error', 0)} failed"
        lines.append(f"| {row['host']} | " + " | ".join(cells) + f" | {tests} |")
    return "\n".join(lines)


def record(path: Path, row: dict[str, Any]) -> None:
    """Put a host's row into the record, in the place of an older one, and write the table beside it."""
    known = {old["host"]: old for old in json.loads(path.read_text())} if path.exists() else {}
    known[row["host"]] = {key: value for key, value in row.items() if key not in ("said", "why")}
    rows = [known[machine.name] for machine in HOSTS if machine.name in known]
    path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    page = PROJECT / "docs/hosts.md"
    page.write_text(with_table(page.read_text(encoding="utf-8"), rows), encoding="utf-8")


def with_table(text: str, rows: list[dict[str, Any]]) -> str:
    """Return a page with the table between its marks."""
    return with_block(text, BEGIN, END, table(rows))


def main() -> int:
    parser = argparse.ArgumentParser(description="the project's tests on every kind of host")
    parser.add_argument("--only", action="append", help="a host's name, or a part of it; repeatable")
    parser.add_argument("--record", type=Path, help="JSON file that gets what was found; the table of docs/hosts.md is made from it")
    parser.add_argument("--select", help="pytest's -k, in place of each machine's own; for a quick look")
    parser.add_argument("--jobs", type=int, default=1, help="how many at a time (1): each takes a processor and some 2 GiB")
    options = parser.parse_args()
    hosts = [host for host in HOSTS if not options.only or any(part in host.name for part in options.only)]
    if options.select:
        hosts = [host._replace(select=options.select) if isinstance(host, Machine) else host for host in hosts]
    rows = []
    with ThreadPoolExecutor(options.jobs) as pool:
        for row in pool.map(try_host, hosts):
            rows.append(row)
            show(row)
            if options.record and row["counts"]:  # else it was not tried
                record(options.record, row)
    return any(row["failures"] or not row["counts"].get("passed") for row in rows)


if __name__ == "__main__":
    sys.exit(main())
