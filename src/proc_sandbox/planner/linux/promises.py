"""What the Linux backend does not promise, and where what it promises ends: data, which the tests go by and docs/systems.md shows."""

from collections.abc import Mapping

__all__ = ["DIFFERENCES", "WEAKER"]

DIFFERENCES: Mapping[str, str] = {}
"""What this backend does not promise at all: names of promises (tests/support/behaviours.py), and why. docs/systems.md shows it."""

WEAKER: Mapping[str, tuple[str, ...]] = {}
"""What it promises, and where the promise ends: docs/mechanisms.md, for it depends on the host. docs/systems.md shows it."""
