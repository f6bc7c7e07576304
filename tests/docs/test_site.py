"""The site: whole, built without a warning, fetching nothing from elsewhere; and its pages readable in the repository as well."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import proc_sandbox as ps
from proc_sandbox import aio

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
NAV = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)")


def test_every_page_is_in_the_menu() -> None:
    listed = re.findall(r"^ *- (?:[^#\n]*: )?([\w./-]+\.md)$", NAV, re.MULTILINE)
    assert sorted(listed) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))


def test_the_reference_has_every_public_name_once() -> None:
    page = (DOCS / "reference.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^::: proc_sandbox\.(\w+)$", page, re.MULTILINE)) == sorted(ps.__all__)
    assert sorted(re.findall(r"^::: proc_sandbox\.aio\.(\w+)$", page, re.MULTILINE)) == sorted(aio.__all__)


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "SECURITY.md", *sorted(DOCS.rglob("*.md"))], ids=lambda page: page.name)
def test_links_are_relative_and_lead_to_files(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).is_file(), target
        assert page.is_relative_to(DOCS) <= (page.parent / target).resolve().is_relative_to(DOCS), "the site ends at docs/"


def test_the_tests_that_the_threat_table_names_exist() -> None:
    table = (DOCS / "security.md").read_text(encoding="utf-8").partition("| the command tries to |")[2].partition("\n\n")[0]
    named = re.findall(r"`((?:\w+/)?test_\w+\.py)`", table)
    assert len(named) > 15
    for name in named:
        assert (ROOT / "tests" / (name if "/" in name else f"adversarial/{name}")).is_file(), name


def build(config: Path, to: Path) -> subprocess.CompletedProcess[str]:
    """Build as `make docs` does."""
    if importlib.util.find_spec("mkdocs") is None:
        pytest.skip("the extra docs is not installed: make docs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(config), "-d", str(to)]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, check=False)


class Fetched(HTMLParser):
    """What a browser fetches for a page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href", "object": "data"}
        self.found += [value for name, value in attrs if name == names.get(tag) and value]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("site")
    done = build(ROOT / "mkdocs.yml", to)
    assert done.returncode == 0, done.stdout + done.stderr
    return to


def test_nothing_is_fetched_from_another_host(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 15
    for page in pages:
        parser = Fetched()
        parser.feed(page.read_text(encoding="utf-8"))
        assert parser.found
        assert [url for url in parser.found if "//" in url] == [], page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", sheet.read_text(encoding="utf-8")), sheet


def test_the_reference_holds_the_docstrings(site: Path) -> None:
    page = (site / "reference.html").read_text(encoding="utf-8")
    for words in ("Run one command in a sandbox of its own", "Memory of the whole tree", "A limit or isolation that held"):
        assert words in page
    assert page.count('id="proc_sandbox.Config.') > 25


@pytest.mark.parametrize(
    "fault", ["[x](nowhere.md)", "[x](index.md#nowhere)", "::: proc_sandbox.nothing", ""], ids=["link", "anchor", "name", "page"]
)
def test_a_fault_stops_the_build(fault: str, tmp_path: Path) -> None:
    """The control: --strict with --quiet, for one, stops at nothing."""
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[0].replace("paths: [src]", f"paths: [{ROOT / 'src'}]")
    (tmp_path / "docs").mkdir()
    (tmp_path / "mkdocs.yml").write_text(text + "\nnav:\n  - index.md\n", encoding="utf-8")
    (tmp_path / "docs" / "index.md").write_text("# x\n", encoding="utf-8")
    assert build(tmp_path / "mkdocs.yml", tmp_path / "good").returncode == 0
    (tmp_path / "docs" / "index.md").write_text(f"# x\n\n{fault}\n", encoding="utf-8")
    if not fault:
        (tmp_path / "docs" / "orphan.md").write_text("# y\n", encoding="utf-8")
    assert build(tmp_path / "mkdocs.yml", tmp_path / "bad").returncode != 0
