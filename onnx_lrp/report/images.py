"""Pictures: relevance with axes of rows and columns, and mostly one of channels; as maps that fit a page or a terminal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Image", "binned", "picture"]

SMALLEST, SLIMMEST = 8, 4  # of a picture without channels: rows and columns; how much wider than high, or higher than wide


@dataclass(frozen=True, eq=False)
class Image:
    """Relevance at a picture.

    Attributes:
        relevance: (C, H, W).
        values: what the model read there, (C, H, W); None for internal tensors.
    """

    relevance: np.ndarray
    values: np.ndarray | None

    @property
    def whole(self) -> np.ndarray:
        """(H, W), summed over channels."""
        return np.asarray(self.relevance.sum(0))


def picture(relevance: np.ndarray, values: np.ndarray | None) -> Image | None:
    """What one sample looks like; None where it is no picture.

    Args:
        relevance: (C, H, W), (H, W, C) with at most four channels, or (H, W); more axes in front count as channels.
        values: the same shape.
    """
    shape = relevance.shape
    if len(shape) == 2:
        low, high = sorted(shape)
        if low < SMALLEST or high > SLIMMEST * low:  # a table
            return None
    elif len(shape) < 3:
        return None
    if 0 in shape:
        return None

    def channels_first(one: np.ndarray) -> np.ndarray:
        if one.ndim == 3 and _channels_last(*one.shape):
            one = np.moveaxis(one, 2, 0)
        return one.reshape(-1, *one.shape[-2:])

    return Image(channels_first(relevance), None if values is None else channels_first(values))


def _channels_last(first: int, second: int, last: int) -> bool:
    """As TensorFlow has them: one, or up to four behind two axes that look like rows and columns."""
    low, high = sorted((first, second))
    return last == 1 < first or last <= 4 < low <= high <= SLIMMEST * low


def binned(matrix: np.ndarray, every: int) -> np.ndarray:
    """Sums over blocks of every × every; smaller ones at the right and lower edges: (H, W) → (⌈H/every⌉, ⌈W/every⌉)."""
    rows, columns = (np.arange(0, size, every) for size in matrix.shape)
    return np.asarray(np.add.reduceat(np.add.reduceat(matrix, rows, axis=0), columns, axis=1))
