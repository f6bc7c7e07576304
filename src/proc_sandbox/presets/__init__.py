"""Presets: Configs that are right for a kind of use, as data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["description", "fields_of", "names"]

HERE = Path(__file__).parent


def names() -> list[str]:
    """Return the names of all presets."""
    return sorted(path.stem for path in HERE.glob("*.toml"))


def description(name: str) -> str:
    """Return what a preset is for, in one sentence."""
    raise KeyError(name)


def fields_of(name: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a preset; changes: what else the Config will be made of."""
    raise KeyError(name, changes)
