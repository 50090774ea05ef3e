"""Values of the forward pass, and the few ways in which one is made of others."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf

ANY = (-math.inf, math.inf)
counter = itertools.count()


class Missing(Exception):
    """The table lacks an op that relevance would have to pass."""


@dataclass(eq=False)
class Value:
    """A tensor of the forward pass.

    Attributes:
        now: its entries, float64 where they are floats.
        kind: "data" (carries no relevance), "point" (relevance ends), "sum" (affine in its sources), "route", "pass" (an
            activation or a part of a product).
        sources, function: what it is computed from, data left out, and how.
        operands: sources that constant weights are applied to.
        summed: affine with more than one term.
        bounds: interval by theory, not by what the entries are.
        state: a constant that is no weight: an initial state.
        root: a carried state or a mixture of a gate, a root wherever it stands.
        factors: (coefficient, signal) of a product; terms: ((value, sign), …) of a plain sum; literal: (base, negated) of a mask
            or gate.
    """

    now: Any
    kind: str = "data"
    sources: tuple[Value, ...] = ()
    function: Callable[..., Any] | None = None
    operands: frozenset[int] = frozenset()
    summed: bool = False
    bounds: tuple[float, float] = ANY
    mask: bool = False
    constant: bool = False
    shaped: bool = False  # depends on the shapes of inputs, not on their values
    filled: bool = False  # repeated by a shape that is computed
    valued: bool = False  # integers made from an integer input's values
    state: bool = False
    root: bool = False
    origin: frozenset[Value] = frozenset()
    factors: tuple[Value, Value] | None = None
    terms: tuple[tuple[Value, float], ...] | None = None
    literal: tuple[Any, bool] | None = None
    parts: frozenset[Value] = frozenset()  # what it is the sum or another norm of
    number: int = field(default_factory=lambda: next(counter))

    @property
    def live(self) -> bool:
        return self.kind != "data"

    @property
    def gate(self) -> bool:
        return self.bounds[0] >= -1e-6 and self.bounds[1] <= 1 + 1e-6

    @property
    def is_float(self) -> bool:
        return np.asarray(self.now).dtype.kind == "f"


def as64(array: Any) -> np.ndarray:
    """The array, in float64 if it holds floats of any width."""
    array = np.asarray(array)
    return array.astype(np.float64) if array.dtype.kind == "f" or array.dtype.name.startswith(("bfloat", "float")) else array


def constant(array: Any) -> Value:
    array = as64(array)
    bounds = (float(array.min()), float(array.max())) if array.dtype.kind == "f" and array.size else ANY
    return Value(array, constant=True, shaped=True, bounds=bounds)


def data(now: Any, args: Sequence[Value], **known: Any) -> Value:
    """A value that carries no relevance; what it depends on follows from its arguments."""
    now = as64(now)
    dtype = now.dtype
    integer = dtype.kind in "iu"
    return Value(
        now,
        constant=all(a.constant for a in args),
        shaped=all(a.shaped for a in args),
        filled=any(a.filled for a in args),
        valued=integer and any(a.valued for a in args),
        state=dtype.kind == "f" and any(a.state for a in args),
        **known,
    )


def build(kind: str, function: Callable[..., Any], args: Sequence[Value], operands: Sequence[int] = (), **known: Any) -> Value:
    """function(*args) as a value of ``kind``; data if no argument carries relevance."""
    sources = tuple(a for a in args if a.live)
    if not sources:
        known.pop("summed", None)
        return data(function(*(a.now for a in args)), args, **known)

    def call(*live: Any) -> Any:
        left = iter(live)
        return function(*(next(left) if a.live else a.now for a in args))

    live = [k for k, a in enumerate(args) if a.live]
    now = np.asarray(call(*(a.now for a in sources)))
    return Value(now, kind, sources, call, frozenset(live.index(k) for k in operands if k in live), **known)


def route(function: Callable[..., Any], *args: Value, **known: Any) -> Value:
    """Entries moved, selected or repeated."""
    floats = [a for a in args if a.is_float]
    known.setdefault("bounds", (min(a.bounds[0] for a in floats), max(a.bounds[1] for a in floats)) if floats else ANY)
    known.setdefault("mask", bool(args) and all(a.mask for a in args))
    return build("route", function, args, **known)


def activation(function: Callable[[Any], Any], x: Value, bounds: tuple[float, float] = ANY, *, elementwise: bool = True) -> Value:
    origin = x.origin | {x} if elementwise else frozenset()
    return build("pass", function, [x], bounds=bounds, origin=origin)


def total(args: Sequence[Value], signs: Sequence[float]) -> Value:
    """Σ sign · arg with broadcasting."""
    if not args[0].is_float:
        return data(sum(s * a.now for a, s in zip(args, (int(s) for s in signs), strict=True)), args)

    def add(*xs: Any) -> Any:
        return sum((s * x for x, s in zip(xs[1:], signs[1:], strict=True)), signs[0] * xs[0])

    ends = [sorted((s * a.bounds[0], s * a.bounds[1])) for a, s in zip(args, signs, strict=True)]
    bounds = (sum(e[0] for e in ends), sum(e[1] for e in ends))
    moving = [a for a in args if not a.constant]
    origin = moving[0].origin | {moving[0]} if len(moving) == 1 else frozenset()
    out = build(
        "sum",
        add,
        args,
        summed=len(args) > 1,
        bounds=ANY if any(math.isnan(b) for b in bounds) else bounds,
        mask=len(moving) == 1 and moving[0].mask,
        origin=origin,
        terms=tuple(zip(args, signs, strict=True)),
    )
    one = len(args) == 2 and args[0].constant and np.all(args[0].now == 1) and list(signs) == [1, -1]
    if one:
        base, negated = literal(args[1])
        out.literal = (base, not negated)
    if mixture(out) == "gate":
        out.root = True
    return out


def scale(coefficient: Value, signal: Value, *, divide: bool = False) -> Value:
    """signal · coefficient, linear in the signal."""
    coefficient_now = 1 / coefficient.now if divide else coefficient.now
    ends = [a * b if a and b else 0.0 for a in signal.bounds for b in coefficient.bounds]
    bounds = ANY if divide or any(math.isnan(e) for e in ends) else (min(ends), max(ends))
    if divide and coefficient.constant and np.all(coefficient_now > 0):
        low, high = float(np.min(coefficient_now)), float(np.max(coefficient_now))
        bounds = (min(b * signal.bounds[0] for b in (low, high)), max(b * signal.bounds[1] for b in (low, high)))
    origin = signal.origin | {signal} if coefficient.constant else frozenset()
    out = build("sum", lambda x: x * coefficient_now, [signal], bounds=bounds, origin=origin)
    out.mask = signal.mask and (coefficient.mask or coefficient.constant)
    out.constant = out.constant and coefficient.constant
    out.shaped = out.shaped and coefficient.shaped
    if not divide:
        out.factors = (coefficient, signal)
    return out


def literal(x: Value) -> tuple[Any, bool]:
    return x.literal or (x, False)


def complement(a: Value, b: Value) -> bool:
    """a + b = 1 by how they were made."""
    (base, flipped), (other, flipped_too) = literal(a), literal(b)
    return base is other and flipped != flipped_too


def mixture(x: Value) -> str | None:
    """Whether a sum is g·a + (1 − g)·b, or a + g·(b − a), with a "gate" or a "mask" g."""
    if x.terms is None or len(x.terms) != 2:
        return None
    (a, sign_a), (b, sign_b) = x.terms
    if sign_a == sign_b == 1 and a.factors and b.factors and complement(a.factors[0], b.factors[0]):
        return "mask" if all(f.mask and np.isin(f.now, (0, 1)).all() for f in (a.factors[0], b.factors[0])) else "gate"
    for base, sign_base, product, sign in ((a, sign_a, b, sign_b), (b, sign_b, a, sign_a)):
        if sign_base == 1 and product.factors and product.factors[0].gate and not product.factors[0].constant:
            inner = product.factors[1].terms
            if inner and len(inner) == 2 and sorted(f for _, f in inner) == [-1, 1] and (base, -sign) in inner:
                return "gate"
    return None


def halves(function: Callable[[Any, Any], Any], a: Value, b: Value) -> Value:
    """function(a, b), bilinear: half the gradient through each."""

    def both(x: Any, y: Any) -> Any:
        return (function(x, tf.stop_gradient(y)) + function(tf.stop_gradient(x), y)) / 2

    ends = [p * q if p and q else 0.0 for p in a.bounds for q in b.bounds]
    return build("pass", both, [a, b], bounds=ANY if any(math.isnan(e) for e in ends) else (min(ends), max(ends)))


def product(a: Value, b: Value) -> Value:
    if not a.is_float:
        return data(a.now * b.now, [a, b])
    if (x := of_one(a, b)) is not None:
        return self_gated(x, a.now * b.now)
    if a.live and b.live:
        if not (a.gate or b.gate):
            return halves(lambda x, y: x * y, a, b)
        return scale(a, b) if a.gate else scale(b, a)
    signal, other = (b, a) if b.live else (a, b)
    if signal.live:
        if signal.gate and not other.constant and not other.gate and (other.state or other.filled):
            out = data(signal.now * other.now, [signal, other])  # a gate on an initial state: a constant
            out.factors = (signal, other)
            return out
        return scale(other, signal)
    out = data(a.now * b.now, [a, b], mask=a.mask and b.mask)
    gate, x = (a, b) if a.gate and not a.constant else (b, a)
    out.factors = (gate, x) if gate.gate else None
    out.bounds = (0.0, 1.0) if a.gate and b.gate else ANY
    return out


def of_one(a: Value, b: Value) -> Value | None:
    """The nearest signal that both are elementwise functions of."""
    shared = [x for x in (a.origin | {a}) & (b.origin | {b}) if x.live]
    return max(shared, key=lambda x: x.number, default=None) if a.live or b.live else None


def self_gated(x: Value, now: Any) -> Value:
    """A product or quotient of two functions of x: an activation of x."""
    return build("pass", lambda t: now, [x], origin=x.origin | {x})
