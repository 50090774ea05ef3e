"""Comparisons, logic and integer arithmetic: nothing here carries relevance; bools are masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._lazy import tf
from ..intervals import bounds, origin_of
from ..layer import Layer, Plain, Trace, fill, mixed, operand_dims
from ..registry import ANY, Var, importer
from .gather import read_code

__all__ = ["Arithmetic", "Compute"]

Tensor = Any


@dataclass(frozen=True, eq=False, kw_only=True)
class Compute(Plain):
    """A bool for every entry of the broadcast operands."""

    op: str
    slots: tuple[int | str, ...]

    @property
    def title(self) -> str:
        return self.op

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        dims = operand_dims(self.slots, xs, self.parameters)
        return [Var("", np.dtype(np.bool_), dims, mask=True, interval=(0.0, 1.0), origin=origin_of(xs))]

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
}


def _register(op: str) -> None:
    if op in ("Not", "IsNaN"):

        @importer(op)
        def one(X: Any) -> Any:
            return Compute(op=op, slots=(0,)), (X,)
    else:

        @importer(op, since=7)
        def two(A: Any, B: Any) -> Any:
            code = read_code(A, B) if op == "Equal" else None
            if code is not None:
                return code
            slots, parameters, inputs = mixed(A, B)
            return Compute(parameters=parameters, op=op, slots=slots), inputs


for _op in COMPUTE:
    _register(_op)


@dataclass(frozen=True, eq=False, kw_only=True)
class IsInf(Plain):
    """True at infinities of the signs asked for."""

    negative: bool
    positive: bool

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        return [Var("", np.dtype(np.bool_), xs[0].dims, mask=True, interval=(0.0, 1.0), origin=origin_of(xs))]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        (x,) = xs
        found = tf.math.is_inf(x)
        if not self.negative:
            found &= x > 0
        return Trace(xs, [found if self.positive else found & (x < 0)], p)


@importer("IsInf", since=10)
def is_inf(X: Any, *, detect_negative: int = 1, detect_positive: int = 1) -> Any:
    return IsInf(negative=bool(detect_negative), positive=bool(detect_positive)), (X,)


@dataclass(frozen=True, eq=False, kw_only=True)
class Arithmetic(Layer):
    """Remainders and operations on bits. Integers keep being values (an embedding may follow); relevance does not pass."""

    op: str
    slots: tuple[int | str, ...]

    @property
    def title(self) -> str:
        return self.op

    def signals(self, xs: Sequence[Var]) -> Sequence[int]:
        return ()

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        interval = ANY
        if self.op in ("floor mod", "truncate mod"):
            slot = self.slots[1]
            low, high = bounds(self.parameters[slot] if isinstance(slot, str) else xs[slot])
            reach = max(abs(low), abs(high))
            interval = (min(low, 0.0), max(high, 0.0)) if self.op == "floor mod" else (-reach, reach)
        return [Var("", xs[0].dtype, operand_dims(self.slots, xs, self.parameters), interval=interval)]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        return Trace(xs, [ARITHMETIC[self.op](*fill(self.slots, xs, p))], p)


def _shift(shift: Any, a: Tensor, b: Tensor, gone: Tensor) -> Tensor:
    """``gone``: what is left when every bit has been moved out (TensorFlow leaves that open)."""
    inside = (b >= tf.zeros_like(b)) & (b < tf.cast(8 * a.dtype.size, b.dtype))
    return tf.where(inside, shift(a, tf.where(inside, b, tf.zeros_like(b))), gone)


def _truncated(a: Tensor, b: Tensor) -> Tensor:
    """a − b·trunc(a / b), exact; TensorFlow knows no derivative of it, so the added zeros have it."""
    rest = tf.truncatemod(a, b)
    if not rest.dtype.is_floating:
        return rest
    times = tf.round((tf.stop_gradient(a) - rest) / b)
    return tf.stop_gradient(rest) + (a - tf.stop_gradient(a)) - (b - tf.stop_gradient(b)) * tf.stop_gradient(times)


ARITHMETIC: dict[str, Any] = {
    "BitwiseAnd": lambda a, b: tf.bitwise.bitwise_and(a, b),
    "BitwiseOr": lambda a, b: tf.bitwise.bitwise_or(a, b),
    "BitwiseXor": lambda a, b: tf.bitwise.bitwise_xor(a, b),
    "BitwiseNot": lambda a: tf.bitwise.invert(a),
    "LEFT": lambda a, b: _shift(tf.bitwise.left_shift, a, b, tf.zeros_like(a)),
    "RIGHT": lambda a, b: _shift(
        tf.bitwise.right_shift, a, b, tf.where(a < tf.zeros_like(a), tf.bitwise.invert(tf.zeros_like(a)), tf.zeros_like(a))
    ),
    "floor mod": lambda a, b: tf.math.floormod(a, b),
    "truncate mod": lambda a, b: _truncated(a, b),
}


def _arithmetic(op: str, *operands: Any) -> Any:
    slots, parameters, inputs = mixed(*operands)
    return Arithmetic(parameters=parameters, op=op, slots=slots), inputs


def _register_bits(op: str) -> None:
    @importer(op, since=18)
    def two(A: Any, B: Any) -> Any:
        return _arithmetic(op, A, B)


for _op in ("BitwiseAnd", "BitwiseOr", "BitwiseXor"):
    _register_bits(_op)


@importer("BitwiseNot", since=18)
def bitwise_not(X: Any) -> Any:
    return _arithmetic("BitwiseNot", X)


@importer("BitShift", since=11)
def bit_shift(X: Any, Y: Any, *, direction: str) -> Any:
    return _arithmetic(direction, X, Y)


@importer("Mod", since=10)
def mod(A: Any, B: Any, *, fmod: int = 0) -> Any:
    return _arithmetic("truncate mod" if fmod else "floor mod", A, B)
