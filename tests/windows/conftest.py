"""Each test on the fake Windows, and where there is one on the real one, or Wine."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from support.windows import FakeWindows, RealWindows, Windows


@pytest.fixture(params=["fake", "real"] if sys.platform == "win32" else ["fake"])
def windows(request: pytest.FixtureRequest) -> Iterator[Windows]:
    """Where the test runs. On the fake, all that was opened must have been closed."""
    if request.param == "fake":
        fake = FakeWindows()
        yield fake
        assert not fake.win32.own_handles(), "handles are left"
        return
    real = RealWindows()
    wine = real.win32.wine_version()
    if wine and request.node.get_closest_marker("needs_windows"):
        pytest.skip(f"Wine {wine} does not do this; it has never run on Windows")
    yield real


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "needs_windows: what Wine does not do; on the fake everywhere, for real on Windows only"
    )
