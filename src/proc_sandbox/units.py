"""Sizes, durations and percentages: parse and print."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, NoReturn

from proc_sandbox.errors import ConfigError

if TYPE_CHECKING:
    from datetime import timedelta

__all__ = ["format_seconds", "format_size", "nanoseconds", "parse_percent", "parse_seconds", "parse_size"]

LARGEST = 2**63 - 1
SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(?:([KMGT])(?:iB)?|B)?\s*\Z", re.IGNORECASE)
FACTORS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
SECONDS = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|min|h)?\s*\Z")
LENGTHS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
SIZE_REMEDY = 'write bytes, or a number with K, M, G or T (binary multiples) as in "256M"'
SECONDS_REMEDY = 'write seconds, a timedelta, or a number with ms, s, m or h as in "500ms"'
PERCENT_REMEDY = "write percent of one core: 50 is half a core, 250 two and a half"


def refuse(field: str, value: object, remedy: str) -> NoReturn:
    raise ConfigError(field, value, remedy)


def parse_size(value: int | str, *, field: str, least: int = 1) -> int:
    """Return a size in bytes, at least `least` and below 2**63.

    Raises:
        ConfigError: it is no such size.
    """
    if isinstance(value, str):
        match = SIZE.match(value)
        if not match:
            refuse(field, value, f"not a size; {SIZE_REMEDY}")
        size = int(float(match[1]) * FACTORS[(match[2] or "").upper()])
    elif isinstance(value, int) and not isinstance(value, bool):
        size = value
    else:
        refuse(field, value, f"not a size; {SIZE_REMEDY}")
    if not least <= size <= LARGEST:
        refuse(field, value, f"must be at least {format_size(least)} and less than 2**63 bytes; {SIZE_REMEDY}")
    return size


def format_size(size: int) -> str:
    """Return a size for people: the largest binary unit that divides it well."""
    for unit in ("T", "G", "M", "K"):
        if size >= FACTORS[unit]:
            return f"{four_digits(size / FACTORS[unit])} {unit}iB"
    return f"{size} B"


def parse_seconds(value: float | str | timedelta, *, field: str) -> float:
    """Return a duration in seconds, more than 0 and at most 1e9.

    Raises:
        ConfigError: it is no such duration.
    """
    if isinstance(value, str):
        match = SECONDS.match(value)
        if not match:
            refuse(field, value, f"not a duration; {SECONDS_REMEDY}")
        seconds = float(match[1]) * LENGTHS[match[2] or ""]
    else:
        # A timedelta is known by its method: importing its module costs a millisecond of every start.
        total_seconds = getattr(value, "total_seconds", None)
        seconds = number(field, total_seconds() if total_seconds else value, f"not a duration; {SECONDS_REMEDY}")
    if not 0 < seconds <= 1e9:
        refuse(field, value, f"must be more than 0 and at most 1e9 s; {SECONDS_REMEDY}")
    return max(seconds, 1e-9)


def number(field: str, value: object, remedy: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        refuse(field, value, remedy)
    try:
        result = float(value)
    except OverflowError:
        refuse(field, value, remedy)
    if not math.isfinite(result):
        refuse(field, value, remedy)
    return result


def nanoseconds(seconds: float | None) -> int:
    """Return a duration as plans have it: in whole ns; 0 for none."""
    return round((seconds or 0) * 1e9)


def format_seconds(seconds: float) -> str:
    """Return a duration for people."""
    return f"{four_digits(seconds)} s"


def four_digits(value: float) -> str:
    """Return a number with four digits that count, or as many as it has before the point; never with an exponent."""
    text = f"{value:.4g}"
    if "e" not in text:
        return text
    return f"{value:.0f}" if value >= 1 else f"{value:.9f}".rstrip("0").rstrip(".")


def parse_percent(value: float | str, *, field: str) -> float:
    """Return percent of one core, at least 1 and at most 100,000.

    Raises:
        ConfigError: it is no such number.
    """
    if isinstance(value, str):
        text = value.strip().removesuffix("%")
        try:
            percent = number(field, float(text), PERCENT_REMEDY)
        except ValueError:
            refuse(field, value, f"not a percentage; {PERCENT_REMEDY}")
    else:
        percent = number(field, value, f"not a percentage; {PERCENT_REMEDY}")
    if not 1 <= percent <= 100_000:
        refuse(field, value, f"must be from 1 to 100000; {PERCENT_REMEDY}")
    return percent
