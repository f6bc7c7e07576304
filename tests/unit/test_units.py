"""Sizes, durations and percentages: what is accepted, what is refused and how."""

from __future__ import annotations

import math
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

import proc_sandbox as ps
from proc_sandbox.units import format_seconds, format_size, parse_percent, parse_seconds, parse_size


@pytest.mark.parametrize(
    ("value", "size"),
    [(1, 1), ("1", 1), ("256M", 256 << 20), ("1.5 KiB", 1536), ("2g", 2 << 30), ("1T", 1 << 40), ("7B", 7)],
)
def test_sizes(value: int | str, size: int) -> None:
    assert parse_size(value, field="memory_limit") == size


@pytest.mark.parametrize(
    "value", [0, -1, 2**63, "0", "256MB", "1e9", "", "M", "-5M", "99999999T", True, 1.5, None, b"1M", math.nan]
)
def test_what_is_no_size(value: object) -> None:
    with pytest.raises(ps.ConfigError) as caught:
        parse_size(value, field="memory_limit")  # type: ignore[arg-type]
    assert caught.value.field == "memory_limit"
    assert caught.value.value is value
    assert "256M" in caught.value.remedy


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(1, 1.0), (0.25, 0.25), ("500ms", 0.5), ("2m", 120.0), ("1h", 3600.0), ("3 s", 3.0), (timedelta(minutes=1), 60.0)],
)
def test_durations(value: float | str | timedelta, seconds: float) -> None:
    assert parse_seconds(value, field="timeout") == seconds


@pytest.mark.parametrize("value", [0, -1, math.inf, math.nan, 10**400, "5 days", "", True, None, timedelta(0), 1e10])
def test_what_is_no_duration(value: object) -> None:
    with pytest.raises(ps.ConfigError) as caught:
        parse_seconds(value, field="timeout")  # type: ignore[arg-type]
    assert caught.value.field == "timeout"


@pytest.mark.parametrize(("value", "percent"), [(50, 50.0), ("250%", 250.0), (" 12.5 ", 12.5), (1, 1.0)])
def test_percentages(value: float | str, percent: float) -> None:
    assert parse_percent(value, field="cpu_limit") == percent


@pytest.mark.parametrize("value", [0, -5, 0.5, 100_001, math.nan, "half", True, None])
def test_what_is_no_percentage(value: object) -> None:
    with pytest.raises(ps.ConfigError):
        parse_percent(value, field="cpu_limit")  # type: ignore[arg-type]


@given(st.integers(1, 2**40))
def test_a_size_in_bytes_is_itself(size: int) -> None:
    assert parse_size(str(size), field="x") == parse_size(size, field="x") == size


@given(st.text())
def test_text_is_a_size_or_a_config_error(text: str) -> None:
    try:
        assert parse_size(text, field="x") > 0
    except ps.ConfigError as error:
        assert error.value == text


def test_for_people() -> None:
    assert format_size(64 << 20) == "64 MiB"
    assert format_size(100) == "100 B"
    assert format_seconds(1.23456) == "1.235 s"
    assert [format_seconds(time) for time in (86400, 1e9, 0.00002, 0)] == ["86400 s", "1000000000 s", "0.00002 s", "0 s"]
    assert format_size(2**63) == "8388608 TiB"
