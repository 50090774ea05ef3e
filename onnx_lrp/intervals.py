"""Interval arithmetic over operands, and which tensor an elementwise expression is a function of.

Bounds that hold for every input tell a gate from a signal; a common origin tells an activation written out (x · φ(x)) from a
product of two signals.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from .registry import ANY, Var

__all__ = ["Interval", "bounds", "hull", "inverse", "monotone", "origin_of", "plus", "times"]

Interval = tuple[float, float]


def bounds(operand: Any) -> Interval:
    """The bounds of an operand, constant or computed."""
    if isinstance(operand, Var):
        return operand.interval
    operand = np.asarray(operand)
    if not operand.size:
        return 0.0, 0.0
    low, high = float(operand.min()), float(operand.max())
    return ANY if math.isnan(low) else (low, high)


def hull(intervals: Iterable[Interval]) -> Interval:
    """The smallest interval around all."""
    lows, highs = zip(*intervals, strict=True)
    return min(lows), max(highs)


def plus(a: Interval, b: Interval) -> Interval:
    """Bounds of a sum."""
    low, high = a[0] + b[0], a[1] + b[1]
    return -math.inf if math.isnan(low) else low, math.inf if math.isnan(high) else high


def times(a: Interval, b: Interval) -> Interval:
    """Bounds of a product; 0 · ∞ is 0, as every entry is finite."""
    ends = [x * y if x and y else 0.0 for x in a for y in b]
    return ANY if any(math.isnan(e) for e in ends) else (min(ends), max(ends))


def inverse(x: Interval) -> Interval:
    """Bounds of 1 / x."""
    if x[0] <= 0 <= x[1]:
        return (0.0, math.inf) if x[0] == 0 else (-math.inf, 0.0) if x[1] == 0 else ANY
    return 1 / x[1], 1 / x[0]


def monotone(function: Callable[[Any], Any], x: Interval, within: Interval = ANY) -> Interval:
    """Bounds of a non-decreasing function, never wider than ``within``; ends where it has no value say nothing."""
    with np.errstate(all="ignore"):
        low, high = (float(function(np.float64(end))) for end in x)
    low = within[0] if math.isnan(low) else max(low, within[0])
    high = within[1] if math.isnan(high) else min(high, within[1])
    return (low, high) if low <= high else within


def origin_of(xs: Sequence[Var]) -> frozenset[str]:
    """What an elementwise function of ``xs`` is a function of alone; tensors that carry no relevance count as constants."""
    live = [x.origin | {x.name} for x in xs if x.live]
    if len(xs) == 1:
        return xs[0].origin | {xs[0].name}
    return frozenset.intersection(*live) if live else frozenset()
