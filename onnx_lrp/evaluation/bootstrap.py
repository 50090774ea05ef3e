"""Intervals by the bootstrap: samples drawn anew, with replacement, the same draws for everything that is compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

__all__ = ["Interval", "intervals"]


@dataclass(frozen=True)
class Interval:
    """The mean of N samples' figures and its interval by percentiles; ``count``: how many samples have the figure."""

    mean: float
    low: float
    high: float
    count: int

    def to_dict(self) -> dict[str, float | int]:
        """As numbers, ready for JSON."""
        return {"mean": self.mean, "low": self.low, "high": self.high, "count": self.count}


def intervals(
    figures: Mapping[str, np.ndarray], *, resamples: int = 1000, level: float = 0.95, seed: int = 0
) -> dict[str, Interval]:
    """The interval of every figure, from the same resamples (Efron & Tibshirani 1993, section 13.3).

    Args:
        figures: {name: (N,)}, NaN where a sample has none; all of the same N samples.
        level: what share of the resamples' means the interval holds.
    """
    if not figures:
        return {}
    names = list(figures)
    table = np.stack([np.asarray(figures[n], np.float64) for n in names], 1)  # (N, F)
    known = np.isfinite(table)
    filled = np.where(known, table, 0.0)
    rng = np.random.default_rng(seed)
    count = len(table)
    means = np.empty((resamples, len(names)))
    for first in range(0, resamples, 100):
        weights = rng.multinomial(count, np.full(count, 1 / count), size=min(100, resamples - first)).astype(np.float64)
        drawn = weights @ known
        with np.errstate(invalid="ignore", divide="ignore"):
            means[first : first + len(weights)] = (weights @ filled) / drawn
    tail = (1 - level) / 2
    out = {}
    for k, name in enumerate(names):
        own = means[:, k][np.isfinite(means[:, k])]
        n = int(known[:, k].sum())
        mean = float(filled[:, k].sum() / n) if n else float("nan")
        low, high = np.quantile(own, [tail, 1 - tail]) if len(own) else (np.nan, np.nan)
        out[name] = Interval(mean, float(low), float(high), n)
    return out
