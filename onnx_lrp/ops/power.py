"""Pow: x², x³, √x are activations; a negative exponent makes a normalizer, constant for relevance (Ali et al. 2022)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._lazy import tf
from ..intervals import Interval, bounds, hull, inverse, origin_of
from ..layer import Opaque, Share, Trace, fill, mixed, operand_dims, unbroadcast
from ..registry import ANY, Var, importer

__all__ = ["Pow"]

Tensor = Any


@dataclass(frozen=True, eq=False, kw_only=True)
class Pow(Opaque):
    """base to the exponent. ``signal``: 0 (a power of the base), 1 (an exponential of the exponent), None (a normalizer)."""

    slots: tuple[int | str, ...]
    signal: int | None

    def signals(self, xs: Sequence[Var]) -> Sequence[int]:
        slot = None if self.signal is None else self.slots[self.signal]
        return (slot,) if isinstance(slot, int) and xs[slot].is_float else ()

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        base, exponent = fill(self.slots, xs, self.parameters)
        interval: Interval = (0.0, math.inf) if bounds(base)[0] >= 0 else ANY
        if isinstance(exponent, np.ndarray) and exponent.size:
            interval = hull(_power(bounds(base), float(e)) for e in np.unique(exponent))
        dims = operand_dims(self.slots, xs, self.parameters)
        return [Var("", base.dtype, dims, interval=interval, origin=origin_of(xs))]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        base, exponent = fill(self.slots, xs, p)
        square = self.slots[1] in self.parameters and np.all(self.parameters[str(self.slots[1])] == 2)
        if square and base.dtype.is_floating:
            return Trace(xs, [base * base + tf.cast(tf.zeros_like(exponent), base.dtype)], p)
        if base.dtype == exponent.dtype:
            return Trace(xs, [tf.pow(base, exponent)], p)
        if base.dtype.is_floating:
            return Trace(xs, [tf.pow(base, tf.cast(exponent, base.dtype))], p)
        # an integer base takes its type, whatever the exponent's
        wide = tf.float64
        return Trace(xs, [tf.cast(tf.pow(tf.cast(base, wide), tf.cast(exponent, wide)), base.dtype)], p)

    def relevance(self, rule: Any, trace: Trace, rs: Sequence[Tensor | None]) -> Share:
        (signal,) = (self.slots[self.signal] if self.signal is not None else None,)
        return Share([unbroadcast(rs[0], x) if i == signal else None for i, x in enumerate(trace.inputs)])


def _power(x: Interval, exponent: float) -> Interval:
    """Bounds of x ** exponent."""
    low, high = x
    if exponent < 0:
        return inverse(_power(x, -exponent))
    if exponent != int(exponent):  # defined for x ≥ 0 only
        low, high = max(low, 0.0), max(high, 0.0)
    with np.errstate(over="ignore"):
        ends = float(np.float64(low) ** exponent), float(np.float64(high) ** exponent)
    if exponent == int(exponent) and int(exponent) % 2 == 0 and low <= 0 <= high:
        return (1.0, 1.0) if exponent == 0 else (0.0, max(ends))
    return min(ends), max(ends)


@importer("Pow", since=7)
def pow_(X: Any, Y: Any, *, node: Any) -> Any:
    slots, parameters, inputs = mixed(X, Y)
    base, exponent = (isinstance(v, Var) and v.live for v in (X, Y))
    if base and exponent:
        raise node.refuse("base and exponent both depend on an attribution point")
    signal = 1 if exponent else None if bounds(Y)[1] < 0 else 0
    return Pow(parameters=parameters, slots=slots, signal=signal), inputs
