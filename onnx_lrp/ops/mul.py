"""Products. A factor that carries no relevance, lies in [0, 1] (a gate) or normalizes is a coefficient; the other is the signal.

Gate rule ``all``: the signal takes all (Arras et al. 2017, section 2.2). Signal × signal: half each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .._lazy import tf
from ..intervals import Interval, bounds, inverse, origin_of, times
from ..layer import Affine, Opaque, Share, Trace, fill, mixed, operand_dims, unbroadcast
from ..linear import LinearMap
from ..registry import ANY, Var, importer, is_float

__all__ = ["Gated", "Product"]

Tensor = Any


@dataclass(frozen=True, eq=False, kw_only=True)
class Gated(Affine):
    """signal * factor, or signal / factor: linear in the signal (slot ``signal``), the factor a coefficient."""

    slots: tuple[int | str, ...]
    signal: int
    divide: bool = False
    interval: tuple[float, float] = ANY

    @property
    def title(self) -> str:
        return "Div" if self.divide else "Mul"

    def signals(self, xs: Sequence[Var]) -> Sequence[int]:
        slot = self.slots[self.signal]
        return () if isinstance(slot, str) else (slot,)

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        dims = operand_dims(self.slots, xs, self.parameters)
        masks = all(x.mask for x in xs)
        return [Var("", xs[0].dtype, dims, interval=self.interval, mask=masks, origin=origin_of(xs))]

    def sums(self, xs: Sequence[Var]) -> bool:
        return False

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        a, b = fill(self.slots, xs, p)
        if not self.divide:
            return Trace(xs, [a * b], p)
        return Trace(xs, [a / b if a.dtype.is_floating else tf.cast(tf.truncatediv(a, b), a.dtype)], p)

    def linear(self, trace: Trace) -> LinearMap:
        operands = fill(self.slots, trace.inputs, trace.parameters)
        factor = operands[1 - self.signal]
        return self._map(1 / factor if self.divide else factor, operands[self.signal], len(trace.inputs))

    def _map(self, factor: Tensor, x: Tensor, count: int) -> LinearMap:
        slot = self.slots[self.signal]

        def pull(s: Tensor) -> list[Tensor | None]:
            cotangents: list[Tensor | None] = [None] * count
            cotangents[int(slot)] = unbroadcast(s * factor, x)
            return cotangents

        return LinearMap(
            call=lambda xs: xs[int(slot)] * factor,
            pull=pull,
            mapped=lambda f: self._map(f(factor), x, count),
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Product(Opaque):
    """signal × signal: half the relevance each."""

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        dims = operand_dims((0, 1), xs, {})
        return [Var("", xs[0].dtype, dims, interval=times(xs[0].interval, xs[1].interval), origin=origin_of(xs))]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        return Trace(xs, [xs[0] * xs[1]], p)

    def relevance(self, rule: Any, trace: Trace, rs: Sequence[Tensor | None]) -> Share:
        r: Tensor = rs[0]
        half = r / 2
        return Share([unbroadcast(half, x) for x in trace.inputs])


@dataclass(frozen=True, eq=False, kw_only=True)
class SelfGated(Opaque):
    """x · φ(x), φ elementwise (GELU, SiLU, Mish, hard-swish written out): an activation, so relevance passes to x."""

    signal: int

    def signals(self, xs: Sequence[Var]) -> Sequence[int]:
        return (self.signal,)

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        a, b = xs[0], xs[-1]
        low, high = times(a.interval, b.interval)
        interval = (max(low, 0.0), high) if a.name == b.name else (low, high)
        return [Var("", a.dtype, operand_dims(range(len(xs)), xs, {}), interval=interval, origin=origin_of(xs))]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        return Trace(xs, [xs[0] * xs[-1]], p)

    def relevance(self, rule: Any, trace: Trace, rs: Sequence[Tensor | None]) -> Share:
        return Share([unbroadcast(rs[0], x) if i == self.signal else None for i, x in enumerate(trace.inputs)])


def _self_gated(a: Var, b: Var) -> int | None:
    """Which factor stands for x if both are elementwise functions of one tensor, else None."""
    if a.name in b.origin or a.name == b.name:
        return 0
    if b.name in a.origin:
        return 1
    if a.origin & b.origin:
        if a.is_gate != b.is_gate:
            return int(a.is_gate)
        return 0 if len(a.origin) <= len(b.origin) else 1
    return None


@importer("Mul", since=7)
def mul(A: Any, B: Any) -> Any:
    slots, parameters, inputs = mixed(A, B)
    if isinstance(A, Var) and isinstance(B, Var) and A.live and B.live:
        own = _self_gated(A, B)
        if own is not None:
            return SelfGated(signal=own), inputs
    interval = times(bounds(A), bounds(B))
    live = [isinstance(x, Var) and x.live for x in (A, B)]
    if all(live):
        gates = [x.is_gate for x in (A, B)]
        if not any(gates):
            return Product(), inputs
        signal = 1 if gates[0] else 0  # gate × gate: the second operand is the signal
    else:
        signal = 1 if live[1] or not isinstance(A, Var) else 0
        signal_, other = (A, B)[signal], (A, B)[1 - signal]
        if any(live) and signal_.is_gate and isinstance(other, Var) and not other.mask:
            signal = 1 - signal  # a gate on a computed constant, such as an initial state: relevance doesn't enter the gate
    return Gated(parameters=parameters, slots=slots, signal=signal, interval=interval), inputs


@importer("Div", since=7)
def div(A: Any, B: Any) -> Any:
    slots, parameters, inputs = mixed(A, B)
    return Gated(parameters=parameters, slots=slots, signal=0, divide=True, interval=_quotient(A, B)), inputs


def _quotient(A: Any, B: Any) -> Interval:
    by = inverse(bounds(B))
    interval = times(bounds(A), by)
    if is_float(A.dtype):
        return interval
    return ANY if by == ANY else (min(interval[0], 0.0), max(interval[1], 0.0))  # integers truncate
