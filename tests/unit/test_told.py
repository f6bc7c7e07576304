"""The launcher's last word on a run: Python expects the facts in the order in which the launcher tells them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from proc_sandbox.errors import LauncherDiedError

pytest.importorskip("fcntl", reason="the launcher's end in Python is Linux's")

from proc_sandbox.launcher.channel import TOLD, decode

RUN = Path(__file__).resolve().parents[2] / "launcher" / "run.c"


def test_the_order_is_the_launchers() -> None:
    """Another order would be understood too, by a slower way, and nobody would notice."""
    body = RUN.read_text().partition("static void facts(")[2].partition("\n}")[0]
    assert [name.encode() for name in re.findall(r'add_number\(message, "(\w+)"', body)] == TOLD


@pytest.mark.parametrize("change", [{"status": "x"}, {"status": None}, {"unheard_of": "1"}])
def test_what_means_nothing_is_the_launchers_fault(change: dict[str, str | None]) -> None:
    facts = {name.decode(): "0" for name in TOLD} | change
    message = "ended\0" + "".join(f"{name}\0{value}\0" for name, value in facts.items() if value is not None)
    with pytest.raises(LauncherDiedError, match="means nothing"):
        decode(message.encode())
