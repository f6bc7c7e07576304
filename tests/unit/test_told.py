"""The launcher's last word on a run: Python reads the facts in the order in which the launcher tells them."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from proc_sandbox.errors import LauncherDiedError

pytest.importorskip("fcntl", reason="the launcher's end in Python is Linux's")

from proc_sandbox.launcher.channel import NUMBERS, decode, ended

HEADER = Path(__file__).resolve().parents[2] / "launcher" / "launcher.h"
NAMES = list(inspect.signature(ended).parameters)


def test_the_order_is_the_launchers() -> None:
    facts = HEADER.read_text().partition("#define FACTS(X)")[2].partition("\n\n")[0]
    assert re.findall(r"X\((\w+)\)", facts) == NAMES
    assert NUMBERS.size == 8 * len(NAMES)


def test_by_number_and_by_name_it_is_the_same() -> None:
    numbers = list(range(1, len(NAMES) + 1))
    by_name = b"".join(b"%s\0%d\0" % (name.encode(), number) for name, number in zip(NAMES, numbers, strict=True))
    assert decode(b"facts\0" + NUMBERS.pack(*numbers)) == decode(b"ended\0" + by_name)


@pytest.mark.parametrize("change", [{"status": "x"}, {"status": None}, {"unheard_of": "1"}])
def test_what_means_nothing_is_the_launchers_fault(change: dict[str, str | None]) -> None:
    facts = dict.fromkeys(NAMES, "0") | change
    message = "ended\0" + "".join(f"{name}\0{value}\0" for name, value in facts.items() if value is not None)
    with pytest.raises(LauncherDiedError, match="means nothing"):
        decode(message.encode())


@pytest.mark.parametrize("size", [0, 8, NUMBERS.size - 1, NUMBERS.size + 1])
def test_facts_that_were_cut_off_mean_nothing(size: int) -> None:
    with pytest.raises(LauncherDiedError, match="means nothing"):
        decode(b"facts\0" + bytes(size))
