"""Products. A factor that carries no relevance, lies in [0, 1] (a gate) or normalizes is a coefficient; the other is the signal.

Gate rule ``all``: the signal takes all (Arras et al. 2017, section 2.2). Signal × signal: half each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._lazy import tf
from ..intervals import Interval, bounds, inverse, origin_of, times
from ..layer import Affine, Opaque, Share, Trace, coefficient, fill, mixed, operand_dims, unbroadcast
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

    def decision(self, xs: Sequence[Var]) -> str:
        slot, signal = self.slots[1 - self.signal], self.slots[self.signal]
        if isinstance(slot, str):
            return ""
        if self.divide:
            return f"normalizer {xs[slot].name}"
        return coefficient(xs[slot], xs[signal] if isinstance(signal, int) else None)

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

    def shared(self, xs: Sequence[Var]) -> GatedProduct | None:
        """The same product where its gate takes a share of the relevance, too; None: it has no gate that could."""
        slot = self.slots[1 - self.signal]
        if self.divide or isinstance(slot, str) or not xs[slot].live or xs[slot].mask:
            return None
        held = tuple(s for s in self.slots if isinstance(s, int) and not xs[s].live)
        return GatedProduct(parameters=self.parameters, base=self, held=held)


@dataclass(frozen=True, eq=False, kw_only=True)
class GatedProduct(Opaque):
    """gate · signal under a gate rule other than "all": a step of its own, both factors take a share (Arras et al. 2019).

    ``held``: factors that carry no relevance; what they take is absorbed.
    """

    base: Gated
    held: tuple[int, ...] = ()

    @property
    def title(self) -> str:
        return "Mul"

    def decision(self, xs: Sequence[Var]) -> str:
        return self.base.decision(xs)

    def signals(self, xs: Sequence[Var]) -> Sequence[int]:
        return [s for s in self.base.slots if isinstance(s, int)]

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        return self.base.infer(xs)

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        return self.base.run(xs, p)

    def relevance(self, rule: Any, trace: Trace, rs: Sequence[Tensor | None]) -> Share:
        operands = fill(self.base.slots, trace.inputs, trace.parameters)
        gate, signal = operands[1 - self.base.signal], operands[self.base.signal]
        r: Tensor = rs[0]
        to_gate, to_signal, lost = rule.split(gate, signal, r)
        shares: list[Tensor | None] = [None] * len(trace.inputs)
        absorbed: dict[str, Tensor] = {} if lost is None else {"stabilizer": lost}
        for position, part in ((1 - self.base.signal, to_gate), (self.base.signal, to_signal)):
            slot = self.base.slots[position]
            if part is None:
                continue
            if isinstance(slot, str) or slot in self.held:
                absorbed["constant"] = part
            else:
                part = unbroadcast(part, operands[position])
                before = shares[slot]
                shares[slot] = part if before is None else before + part
        return Share(shares, absorbed)


@dataclass(frozen=True, eq=False, kw_only=True)
class Product(Opaque):
    """signal × signal: half the relevance each."""

    def decision(self, xs: Sequence[Var]) -> str:
        return "two signals, half each"

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
    """u(x) · v(x) or u(x) / v(x), both elementwise (GELU, SiLU, Mish, hard-swish written out): an activation.

    Inputs: both operands and x, which relevance passes to, so that x is the root as it is in front of the fused op.
    """

    divide: bool = False

    @property
    def title(self) -> str:
        return "Activation"

    def decision(self, xs: Sequence[Var]) -> str:
        return f"a function of {xs[2].name}"

    def signals(self, xs: Sequence[Var]) -> Sequence[int]:
        return (2,)

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        a, b, x = xs
        low, high = _quotient(a, b) if self.divide else times(a.interval, b.interval)
        if a.name == b.name and not self.divide:
            low = max(low, 0.0)
        dims = operand_dims((0, 1), xs, {})
        return [Var("", a.dtype, dims, interval=(low, high), mask=a.mask and b.mask, origin=x.origin | {x.name})]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        return Trace(xs, [xs[0] / xs[1] if self.divide else xs[0] * xs[1]], p)

    def relevance(self, rule: Any, trace: Trace, rs: Sequence[Tensor | None]) -> Share:
        return Share([None, None, unbroadcast(rs[0], trace.inputs[2])])


def _of_one(a: Any, b: Any, node: Any) -> Var | None:
    """The nearest signal that both operands are elementwise functions of, or None."""
    if not (isinstance(a, Var) and isinstance(b, Var) and (a.live or b.live) and a.is_float):
        return None
    shared = [node.lookup(name) for name in (a.origin | {a.name}) & (b.origin | {b.name})]
    return max((x for x in shared if x is not None and x.live), key=lambda x: len(x.origin), default=None)


@importer("Mul", since=7)
def mul(A: Any, B: Any, *, node: Any) -> Any:
    slots, parameters, inputs = mixed(A, B)
    x = _of_one(A, B, node)
    if x is not None:
        return SelfGated(), (A, B, x)
    interval = times(bounds(A), bounds(B))
    live = [isinstance(x, Var) and x.live for x in (A, B)]
    if all(live):
        gates = [x.is_gate for x in (A, B)]
        if not any(gates):
            return Product(), inputs
        signal = 1 if gates[0] else 0  # gate × gate: the second operand is the signal
    else:
        masked = isinstance(A, Var) and A.mask and isinstance(B, Var) and not B.mask and not any(live)
        signal = 1 if live[1] or not isinstance(A, Var) or masked else 0
        signal_, other = (A, B)[signal], (A, B)[1 - signal]
        state = not other.mask if isinstance(other, Var) else not np.any(other)
        if any(live) and signal_.is_gate and state:
            signal = 1 - signal  # a gate on a computed constant or a zero state: relevance doesn't enter the gate
    return Gated(parameters=parameters, slots=slots, signal=signal, interval=interval), inputs


@importer("Div", since=7)
def div(A: Any, B: Any, *, node: Any) -> Any:
    slots, parameters, inputs = mixed(A, B)
    x = _of_one(A, B, node) if isinstance(A, Var) and A.live else None
    if x is not None:
        return SelfGated(divide=True), (A, B, x)
    interval = _quotient(A, B)
    if isinstance(A, Var) and isinstance(B, Var) and A.interval[0] >= 0 and _holds_sum(B, A, node):
        interval = (0.0, 1.0)
    return Gated(parameters=parameters, slots=slots, signal=0, divide=True, interval=interval), inputs


NEVER_LESS = ("Cast", "Expand", "Identity", "Max", "Unsqueeze")  # the output than the (first) input
NORMS = ("ReduceL1", "ReduceL2", "ReduceMax", "ReduceSum")


def _holds_sum(total: Var, part: Var, node: Any) -> bool:
    """Whether ``total`` is the sum (or another norm) of ``part`` ≥ 0, maybe with something added: a softmax written out."""
    name, made = total.name, node.producer(total.name)
    while made is not None and not made.domain and made.op not in NORMS:
        below = [v for v in map(node.lookup, made.inputs) if v is not None and v.live]
        if len(below) != 1:
            return False
        added = made.op == "Add" and node.lookup(name).interval[0] >= below[0].interval[0] > -math.inf
        lower = made.op == "Clip" and "max" not in made.attributes and not any(made.inputs[2:])
        if not (added or lower or made.op in NEVER_LESS):
            return False
        name, made = below[0].name, node.producer(below[0].name)
    return made is not None and not made.domain and made.inputs[0] == part.name


def _quotient(A: Any, B: Any) -> Interval:
    by = inverse(bounds(B))
    interval = times(bounds(A), by)
    if is_float(A.dtype):
        return interval
    return ANY if by == ANY else (min(interval[0], 0.0), max(interval[1], 0.0))  # integers truncate
