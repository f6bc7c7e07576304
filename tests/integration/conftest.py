"""The fixtures that these tests share with their neighbours."""

from support.fixtures import programs

__all__ = ["programs"]
