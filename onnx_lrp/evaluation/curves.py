"""Deletion and insertion curves: the score while units are taken away, or put back, by their relevance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Grid", "aopc", "masks", "order"]


def order(relevance: np.ndarray, *, rising: bool = False) -> np.ndarray:
    """(U,) units from the most relevant to the least; ``rising``: the other way. Of equal ones the first comes first."""
    return np.argsort(relevance if rising else -relevance, kind="stable")


@dataclass(frozen=True)
class Grid:
    """After how many units a curve is read.

    Attributes:
        points: K, how many readings there are beside the first, at none.
        by: "count": after 1, 2, … K units, at most all of a sample's; "share": after 1/K, 2/K, … of a sample's units.
    """

    points: int = 10
    by: str = "count"

    def counts(self, units: int) -> np.ndarray:
        """(K + 1,) units gone at every reading, of a sample of so many."""
        k = np.arange(self.points + 1)
        return np.minimum(k, units) if self.by == "count" else np.round(k * units / self.points).astype(int)


def masks(ranked: np.ndarray, counts: Sequence[int] | np.ndarray) -> list[np.ndarray]:
    """(K + 1)(U,) bool: the first so many of ``ranked`` are True."""
    place = np.empty(len(ranked), np.intp)
    place[ranked] = np.arange(len(ranked))
    return [place < count for count in counts]


def aopc(curves: np.ndarray) -> np.ndarray:
    """(N,) area over the perturbation curve of curves (N, K + 1): 1/(K+1) Σ_{k=0..K} f(x⁰) − f(xᵏ).

    Samek et al. 2017, *Evaluating the visualization of what a deep neural network has learned*, eq. 12, of each sample.
    """
    return (curves[:, :1] - curves).mean(1)
