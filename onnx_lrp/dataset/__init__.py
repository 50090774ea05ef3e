"""Whole datasets: files in, files out. Rows are read as a stream, explained in bunches of like length, and written in shards."""

from __future__ import annotations

__all__: list[str] = []
