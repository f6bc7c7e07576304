"""The version, in one place; the launcher is built with the same."""

__version__ = "0.1.0"
