"""Products. A factor that carries no relevance, lies in [0, 1] (a gate) or normalizes is a coefficient; the other is the signal.

Gate rule ``all``: the signal takes all (Arras et al. 2017, section 2.2). Signal × signal: half each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._lazy import tf
from ..layer import Affine, Elementwise, Opaque, Plain, Share, Trace, fill, mixed, operand_dims, unbroadcast
from ..linear import LinearMap
from ..registry import ANY, Var, importer
from .gather import read_code
from .gemm import read_matmul

__all__ = ["Gated", "MatMulGated", "Product"]

Tensor = Any


def _bounds(operand: Any, interval: tuple[float, float] | None = None) -> tuple[float, float]:
    if isinstance(operand, Var):
        return operand.interval
    return (float(operand.min()), float(operand.max())) if operand.size else (0.0, 0.0)


def _product(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
    with np.errstate(invalid="ignore"):
        ends = [x * y if x and y else 0.0 for x in a for y in b]
    return (min(ends), max(ends)) if not any(np.isnan(e) for e in ends) else ANY


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
        origin = xs[0].origin | {xs[0].name} if len(xs) == 1 else frozenset[str]()
        masks = all(x.mask for x in xs)
        return [Var("", xs[0].dtype, dims, interval=self.interval, mask=masks, origin=origin)]

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
        return [Var("", xs[0].dtype, dims, interval=_product(xs[0].interval, xs[1].interval))]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        return Trace(xs, [xs[0] * xs[1]], p)

    def relevance(self, rule: Any, trace: Trace, rs: Sequence[Tensor | None]) -> Share:
        r: Tensor = rs[0]
        half = r / 2
        return Share([unbroadcast(half, x) for x in trace.inputs])


@dataclass(frozen=True, eq=False, kw_only=True)
class SelfGated(Elementwise):
    """x · φ(x), φ elementwise (GELU, SiLU, Mish, hard-swish written out): an activation, so relevance passes to x."""

    signal: int

    def signals(self, xs: Sequence[Var]) -> Sequence[int]:
        return (self.signal,)

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        origin = frozenset().union(*(x.origin | {x.name} for x in xs))
        return [Var("", xs[0].dtype, operand_dims(range(len(xs)), xs, {}), origin=origin)]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        return Trace(xs, [xs[0] * xs[-1]], p)


def _self_gated(a: Var, b: Var) -> int | None:
    """Which factor is x if the other one is an elementwise function of it, else None."""
    if a.name in b.origin or a.name == b.name:
        return 0
    if b.name in a.origin:
        return 1
    if a.origin & b.origin:
        return 0 if len(a.origin) <= len(b.origin) else 1
    return None


@importer("Mul", since=7)
def mul(A: Any, B: Any) -> Any:
    slots, parameters, inputs = mixed(A, B)
    if isinstance(A, Var) and isinstance(B, Var) and A.live and B.live:
        own = _self_gated(A, B)
        if own is not None:
            return SelfGated(signal=own), inputs
    interval = _product(_bounds(A), _bounds(B))
    live = [isinstance(x, Var) and x.live for x in (A, B)]
    if all(live):
        gates = [x.is_gate for x in (A, B)]
        if not any(gates):
            return Product(), inputs
        signal = 1 if gates[0] else 0  # gate × gate: the second operand is the signal
    else:
        signal = 1 if live[1] or not isinstance(A, Var) else 0
        signal_, other = (A, B)[signal], (A, B)[1 - signal]
        if any(live) and signal_.is_gate and isinstance(other, Var) and not other.is_gate:
            signal = 1 - signal  # a gate on a computed constant, such as an initial state: relevance doesn't enter the gate
    return Gated(parameters=parameters, slots=slots, signal=signal, interval=interval), inputs


@importer("Div", since=7)
def div(A: Any, B: Any) -> Any:
    slots, parameters, inputs = mixed(A, B)
    low, high = _bounds(B)
    interval = ANY if low <= 0 <= high else _product(_bounds(A), tuple(sorted((1 / low, 1 / high))))  # type: ignore[arg-type]
    return Gated(parameters=parameters, slots=slots, signal=0, divide=True, interval=interval), inputs


@dataclass(frozen=True, eq=False, kw_only=True)
class MatMulGated(Affine):
    """a @ b of two computed tensors, one of which is a gate (attention weights) or carries no relevance: linear in the other."""

    signal: int

    def signals(self, xs: Sequence[Var]) -> Sequence[int]:
        return (self.signal,)

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        return [Var("", xs[0].dtype, matmul_dims(xs))]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        return Trace(xs, [tf.matmul(xs[0], xs[1])], p)

    def linear(self, trace: Trace) -> LinearMap:
        return self._map(trace.inputs[1 - self.signal], trace.inputs[self.signal])

    def _map(self, factor: Tensor, x: Tensor) -> LinearMap:
        def pull(s: Tensor) -> list[Tensor | None]:
            if self.signal == 1:
                return [None, unbroadcast(tf.matmul(factor, s, transpose_a=True), x)]
            return [unbroadcast(tf.matmul(s, factor, transpose_b=True), x), None]

        def call(xs: Sequence[Tensor]) -> Tensor:
            return tf.matmul(factor, xs[1]) if self.signal == 1 else tf.matmul(xs[0], factor)

        return LinearMap(call=call, pull=pull, mapped=lambda f: self._map(f(factor), x))


@dataclass(frozen=True, eq=False, kw_only=True)
class MatMulProduct(Opaque):
    """a @ b of two signals: a sum of products; the epsilon rule on the sum, half of every product to each factor."""

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        return [Var("", xs[0].dtype, matmul_dims(xs))]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        return Trace(xs, [tf.matmul(xs[0], xs[1])], p)

    def relevance(self, rule: Any, trace: Trace, rs: Sequence[Tensor | None]) -> Share:
        a, b = trace.inputs
        s, stabilizer = rule.ratio(trace.outputs[0], rs[0])
        left = a * unbroadcast(tf.matmul(s, b, transpose_b=True), a) / 2
        right = b * unbroadcast(tf.matmul(a, s, transpose_a=True), b) / 2
        return Share([left, right], {"stabilizer": stabilizer})


def matmul_dims(xs: Sequence[Var]) -> Any:
    from ..dims import broadcast

    a, b = (x.dims for x in xs)
    if a is None or b is None or len(a) < 2 or len(b) < 2:
        return None
    a[-1].same(b[-2])
    return (*broadcast([a[:-2], b[:-2]]), a[-2], b[-1])


@importer("MatMul", since=1)
def matmul(A: Any, B: Any) -> Any:
    if not (isinstance(A, Var) and isinstance(B, Var)):
        return read_matmul(A, B)
    if not (A.live and B.live):
        return MatMulGated(signal=1 if B.live else 0), (A, B)
    if A.is_gate or B.is_gate:
        return MatMulGated(signal=1 if A.is_gate else 0), (A, B)
    return MatMulProduct(), (A, B)


@dataclass(frozen=True, eq=False, kw_only=True)
class Compute(Plain):
    """A function of tensors that carries no relevance, with the dims of the broadcast operands."""

    op: str
    slots: tuple[int | str, ...]
    dtype: Any = None

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        dims = operand_dims(self.slots, xs, self.parameters)
        dtype = np.dtype(self.dtype) if self.dtype is not None else xs[0].dtype
        is_mask = dtype == np.dtype(bool)
        return [Var("", dtype, dims, mask=is_mask, interval=(0.0, 1.0) if is_mask else ANY)]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        return Trace(xs, [COMPUTE[self.op](*fill(self.slots, xs, p))], p)


COMPUTE: dict[str, Any] = {
    "Equal": lambda a, b: tf.equal(a, b),
    "Less": lambda a, b: tf.less(a, b),
    "LessOrEqual": lambda a, b: tf.less_equal(a, b),
    "Greater": lambda a, b: tf.greater(a, b),
    "GreaterOrEqual": lambda a, b: tf.greater_equal(a, b),
    "And": lambda a, b: tf.logical_and(a, b),
    "Or": lambda a, b: tf.logical_or(a, b),
    "Xor": lambda a, b: tf.math.logical_xor(a, b),
    "Not": lambda a: tf.logical_not(a),
    "IsNaN": lambda a: tf.math.is_nan(a),
    "Floor": lambda a: tf.floor(a),
    "Ceil": lambda a: tf.math.ceil(a),
    "Round": lambda a: tf.round(a),
}


def _register(op: str) -> None:
    if op in ("Not", "IsNaN", "Floor", "Ceil", "Round"):

        @importer(op)
        def one(X: Any) -> Any:
            dtype = np.bool_ if op in ("Not", "IsNaN") else None
            return Compute(op=op, slots=(0,), dtype=dtype), (X,)
    else:

        @importer(op, since=7)
        def two(A: Any, B: Any) -> Any:
            code = read_code(A, B) if op == "Equal" else None
            if code is not None:
                return code
            slots, parameters, inputs = mixed(A, B)
            return Compute(parameters=parameters, op=op, slots=slots, dtype=np.bool_), inputs


for _op in COMPUTE:
    _register(_op)
