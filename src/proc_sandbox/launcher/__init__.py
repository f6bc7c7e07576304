"""The Python end of the launcher: start it, send it runs, hear what became of them."""

import os

__all__ = ["program_path"]


def program_path(name: str) -> str:
    """Return where one of our programs lies: inside the package, never on PATH."""
    return os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(__file__))), "_bin", name)
