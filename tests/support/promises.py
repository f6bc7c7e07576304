"""A pytest plugin: which promise a test tests, for which backend, and the record from which the table in docs/systems.md is made.

A test says which promise it tests, `@promise("timeout")`. Where a backend's own list of differences names that promise, the
test is skipped with what the list says. A limit that is refused is a failure, but on Wine, which enforces none.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import proc_sandbox as ps
from proc_sandbox.backends import HERE
from support.behaviours import PROMISES, WINE, column, differences

ISOLATIONS = {"files": "files", "files written": "files", "network": "network_access", "others": "processes"}
"""What Wine does not isolate is refused without being asked for, so that there is nothing to run."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --record-behaviours."""
    parser.addoption("--record-behaviours", metavar="FILE", help="write there which promise held for which backend")


def pytest_configure(config: pytest.Config) -> None:
    """Add the marker, and what records."""
    config.addinivalue_line("markers", "promise(name): which entry of support.behaviours.PROMISES the test tests")
    record = config.getoption("--record-behaviours", None)
    if record and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Record(Path(record)))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make one test for each backend that is here, of those that ask for `backend` or whose module says EVERY_BACKEND."""
    if getattr(metafunc.module, "EVERY_BACKEND", False) and "backend" not in metafunc.fixturenames:
        metafunc.fixturenames.append("backend")
    asked = [mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")]
    if "backend" in metafunc.fixturenames and "backend" not in asked:
        metafunc.parametrize("backend", HERE)


def backend_of(item: pytest.Item) -> str | None:
    """The backend that a test is for, if it is for one."""
    name: str | None = getattr(item, "callspec", None) and item.callspec.params.get("backend")  # type: ignore[attr-defined]
    return name


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where every backend is tried, what one of them does not enforce is known."""
    for item in items:
        if backend_of(item) not in (None, "linux"):
            item.add_marker(pytest.mark.filterwarnings("ignore::proc_sandbox.UnenforcedWarning"))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what the backend does not promise."""
    marker, backend = item.get_closest_marker("promise"), backend_of(item)
    if marker is None or not backend:
        return
    assert marker.args[0] in PROMISES, f"support.behaviours.PROMISES does not have {marker.args[0]!r}"
    item.user_properties += [("promise", marker.args[0]), ("column", column(backend))]
    missing = differences(backend, platform.system()).get(marker.args[0])
    if missing:
        item.user_properties.append(("cell", f"no: {missing}"))
        pytest.skip(f"{backend} does not promise it: {missing}")
    lacking = ps.capabilities(backend=backend).mechanisms[ISOLATIONS[marker.args[0]]] if WINE and marker.args[0] in ISOLATIONS else None
    if isinstance(lacking, ps.Unenforced):
        item.user_properties.append(("cell", f"refused: {ISOLATIONS[marker.args[0]]} {lacking.reason}"))
        pytest.skip(f"refused, as it should be: {lacking.reason}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Take a refusal on Wine as what it should be."""
    try:
        return (yield)
    except ps.UnsupportedError as error:
        if "promise" in dict(item.user_properties) and WINE:
            item.user_properties.append(("cell", f"refused: {error.field} {error.reason}"))
            pytest.skip(f"refused, as it should be: {error}")
        raise


class Record:
    """What each test said, merged into the file: other hosts' columns stay."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cells: dict[str, dict[str, set[str]]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        facts: dict[str, Any] = dict(report.user_properties)
        if "promise" in facts and (report.when == "call" or report.outcome != "passed"):
            if report.skipped and "cell" not in facts:
                return  # skipped for a reason of its own
            said = "FAILED" if report.failed else facts.get("cell", "held")
            self.cells.setdefault(facts["column"], {}).setdefault(facts["promise"], set()).add(said)

    def pytest_sessionfinish(self) -> None:
        columns = json.loads(self.path.read_text(encoding="utf-8")) if self.path.exists() else {}
        for name, promises in self.cells.items():
            columns[name] = {key: worst(promises[key]) for key in PROMISES if key in promises}
        self.path.write_text(json.dumps(columns, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def worst(said: set[str]) -> str:
    """One word of several tests: a promise of which one half is refused is not held."""
    return min(said, key=lambda cell: ("FAILED", "refused", "no", "held").index(cell.partition(":")[0]))
