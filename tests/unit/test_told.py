"""The launcher's last word on a run: Python reads the facts in the order in which the launcher tells them."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

from proc_sandbox.errors import LauncherDiedError

pytest.importorskip("fcntl", reason="the launcher's end in Python is Linux's")

from proc_sandbox.launcher.channel import NUMBERS, decode
from proc_sandbox.report import Ended

HEADER = Path(__file__).resolve().parents[2] / "launcher" / "launcher.h"
KINDS = {"bool": "?", "int64_t": "q"}
NAMED = ["done", "status", *(name for name in Ended._fields if name not in ("done", "exit_code", "signal"))]
"""As the POSIX backend's warden tells them."""


def test_the_order_is_the_launchers() -> None:
    facts = re.findall(r"X\((\w+), (\w+)\)", HEADER.read_text().partition("#define FACTS(X)")[2].partition("\n\n")[0])
    assert [name for _, name in facts] == list(Ended._fields)
    assert struct.Struct("=" + "".join(KINDS[kind] for kind, _ in facts)).size == NUMBERS.size
    numbers = NUMBERS.unpack(NUMBERS.pack(*range(len(facts))))
    assert [isinstance(number, bool) for number in numbers] == [kind == "bool" for kind, _ in facts]


@pytest.mark.parametrize(("status", "code", "signal"), [(3 << 8, 3, -1), (9, -1, 9), (0, 0, -1)])
def test_by_number_and_by_name_it_is_the_same(status: int, code: int, signal: int) -> None:
    numbers = {name: number % 2 if Ended.__annotations__[name] is bool else number for number, name in enumerate(Ended._fields, 100)}
    numbers.update(done=1, exit_code=code, signal=signal)
    told = numbers | {"status": status}
    by_name = b"".join(b"%s\0%d\0" % (name.encode(), told[name]) for name in NAMED)
    found = decode(b"facts\0" + NUMBERS.pack(*numbers.values()))
    assert isinstance(found, Ended)
    assert found == decode(b"ended\0" + by_name)
    assert list(map(type, found)) == list(map(type, decode(b"ended\0" + by_name)))
    assert (found.exit_code, found.signal) == (None if code < 0 else code, None if signal < 0 else signal)


def test_what_did_not_end_by_itself_has_neither() -> None:
    found = decode(b"facts\0" + NUMBERS.pack(0, -1, -1, *[0] * (len(Ended._fields) - 3)))
    assert isinstance(found, Ended)
    assert (found.done, found.exit_code, found.signal) == (False, None, None)


@pytest.mark.parametrize("change", [{"status": "x"}, {"status": None}, {"unheard_of": "1"}, {"wall": None}])
def test_what_means_nothing_is_the_launchers_fault(change: dict[str, str | None]) -> None:
    facts = dict.fromkeys(NAMED, "0") | change
    message = "ended\0" + "".join(f"{name}\0{value}\0" for name, value in facts.items() if value is not None)
    with pytest.raises(LauncherDiedError, match="means nothing"):
        decode(message.encode())


@pytest.mark.parametrize("size", [0, 8, NUMBERS.size - 1, NUMBERS.size + 1])
def test_facts_that_were_cut_off_mean_nothing(size: int) -> None:
    with pytest.raises(LauncherDiedError, match="means nothing"):
        decode(b"facts\0" + bytes(size))
