"""How much of an attribution point is shown, and what counts as its strongest part."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Room", "finite", "largest_of", "strongest"]


@dataclass(frozen=True)
class Room:
    """How much of one attribution point is shown.

    Attributes:
        cells: of a heat map.
        words: in a row.
        features: rows of a heat map.
        bars: features without time.
        terse: many figures share a page: without what is repeated on hover, or of an embedding's features.
    """

    cells: int = 12_000
    words: int = 2_000
    features: int = 32
    bars: int = 60
    terse: bool = False

    @classmethod
    def of(cls, count: int) -> Room:
        """For one of ``count`` figures on a page."""
        count = max(count, 1)
        wide = 36_000 if count <= 100 else 24_000  # the frames of many figures cost as much
        cells, words, bars = (min(most, total // count) for most, total in ((12_000, wide), (2_000, 8_000), (60, 4_000)))
        return cls(max(cells, 64), max(words, 40), 32, max(bars, 20), count > 20)


def finite(array: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(array), array, 0.0)


def largest_of(*arrays: np.ndarray) -> float:
    """Where a scale for all of them ends: the largest finite size; 1 where all are zero."""
    return max(float(np.abs(finite(array)).max(initial=0)) for array in arrays) or 1.0


def strongest(rows: np.ndarray, count: int) -> list[int]:
    """The columns that moved most relevance, each row counting alike, in their order."""
    sizes = np.abs(rows) / np.maximum(np.abs(rows).max(1, keepdims=True), 1e-300)
    return sorted(int(k) for k in np.argsort(-sizes.sum(0), kind="stable")[:count])
