"""Unary activations: relevance passes through them unchanged (Bach et al. 2015, section 2.4).

One table gives the forward function and the interval each keeps, so that gates are recognised further down.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .._lazy import tf
from ..intervals import Interval, bounds, hull, inverse, monotone, origin_of, times
from ..layer import Elementwise, Trace, constant_dims, fill, mixed, operand_dims
from ..registry import ANY, Var, importer

__all__ = ["Activation", "activate"]

Tensor = Any


def _hard_sigmoid(x: Tensor, alpha: float = 0.2, beta: float = 0.5) -> Tensor:
    return tf.clip_by_value(alpha * x + beta, 0.0, 1.0)


def _shrink(x: Tensor, bias: float, lambd: float) -> Tensor:
    return tf.where(x < -lambd, x + bias, tf.where(x > lambd, x - bias, tf.zeros_like(x)))


# name → (function, default attributes)
FUNCTIONS: dict[str, tuple[Callable[..., Tensor], dict[str, Any]]] = {
    "Abs": (lambda x: tf.abs(x), {}),
    "Acos": (lambda x: tf.acos(x), {}),
    "Acosh": (lambda x: tf.acosh(x), {}),
    "Asin": (lambda x: tf.asin(x), {}),
    "Asinh": (lambda x: tf.asinh(x), {}),
    "Atan": (lambda x: tf.atan(x), {}),
    "Atanh": (lambda x: tf.atanh(x), {}),
    "Ceil": (lambda x: tf.math.ceil(x), {}),
    "Affine": (lambda x, alpha, beta: alpha * x + beta, {"alpha": 1.0, "beta": 0.0}),
    "Celu": (lambda x, alpha: tf.maximum(x, 0.0) + tf.minimum(alpha * tf.math.expm1(x / alpha), 0.0), {"alpha": 1.0}),
    "Cos": (lambda x: tf.cos(x), {}),
    "Cosh": (lambda x: tf.cosh(x), {}),
    "Elu": (lambda x, alpha: tf.where(x < 0, alpha * tf.math.expm1(tf.minimum(x, 0.0)), x), {"alpha": 1.0}),
    "Erf": (lambda x: tf.math.erf(x), {}),
    "Exp": (lambda x: tf.exp(x), {}),
    "Floor": (lambda x: tf.floor(x), {}),
    "HardSigmoid": (lambda x, alpha, beta: _hard_sigmoid(x, alpha, beta), {"alpha": 0.2, "beta": 0.5}),
    "HardSwish": (lambda x: x * _hard_sigmoid(x, 1 / 6, 0.5), {}),
    "LeakyRelu": (lambda x, alpha: tf.where(x < 0, alpha * x, x), {"alpha": 0.01}),
    "Log": (lambda x: tf.math.log(x), {}),
    "Mish": (lambda x: x * tf.tanh(tf.math.softplus(x)), {}),
    "Reciprocal": (lambda x: 1 / x, {}),
    "Relu": (lambda x: tf.nn.relu(x), {}),
    "Round": (lambda x: tf.round(x), {}),
    "ScaledTanh": (lambda x, alpha, beta: alpha * tf.tanh(beta * x), {"alpha": 1.0, "beta": 1.0}),
    "Selu": (
        lambda x, alpha, gamma: gamma * tf.where(x < 0, alpha * tf.math.expm1(tf.minimum(x, 0.0)), x),
        {"alpha": 1.67326319217681884765625, "gamma": 1.05070102214813232421875},
    ),
    "Shrink": (lambda x, bias, lambd: _shrink(x, bias, lambd), {"bias": 0.0, "lambd": 0.5}),
    "Sigmoid": (lambda x: tf.sigmoid(x), {}),
    "Sign": (lambda x: tf.sign(x), {}),
    "Sin": (lambda x: tf.sin(x), {}),
    "Sinh": (lambda x: tf.sinh(x), {}),
    "Softplus": (lambda x: tf.math.softplus(x), {}),
    "Softsign": (lambda x: tf.math.softsign(x), {}),
    "Sqrt": (lambda x: tf.sqrt(x), {}),
    "Swish": (lambda x, alpha: x * tf.sigmoid(alpha * x), {"alpha": 1.0}),
    "Tan": (lambda x: tf.tan(x), {}),
    "Tanh": (lambda x: tf.tanh(x), {}),
    "ThresholdedRelu": (lambda x, alpha: tf.where(x > alpha, x, tf.zeros_like(x)), {"alpha": 1.0}),
}


def _swish_range(x: Interval, lowest: float) -> Interval:
    """Bounds of x · φ(x) with 0 ≤ φ ≤ 1, whose minimum is ``lowest``."""
    return (max(lowest, x[0]) if x[0] < 0 else 0.0), max(x[1], 0.0)


def _abs_range(x: Interval) -> Interval:
    return (0.0 if x[0] <= 0 <= x[1] else min(abs(x[0]), abs(x[1]))), max(abs(x[0]), abs(x[1]))


def _within(low: float, high: float) -> Callable[[Interval, Any], Interval]:
    return lambda x, a: (low, high)


def _rising(function: Callable[..., Any], low: float = -math.inf, high: float = math.inf) -> Callable[[Interval, Any], Interval]:
    """Bounds of a non-decreasing function of (x, attributes)."""
    return lambda x, a: monotone(lambda v: function(v, **a), x, (low, high))


def _leaky(x: Any, alpha: float) -> Any:
    return alpha * x if x < 0 else x


# name → bounds of the function, given those of x and the attributes; a name that is not here keeps none
RANGES: dict[str, Callable[[Interval, Mapping[str, Any]], Interval]] = {
    "Abs": lambda x, a: _abs_range(x),
    "Acos": _within(0.0, math.pi + 1e-6),
    "Acosh": _rising(np.arccosh, 0.0),
    "Asin": _rising(np.arcsin, -math.pi / 2 - 1e-6, math.pi / 2 + 1e-6),
    "Asinh": _rising(np.arcsinh),
    "Atan": _rising(np.arctan),
    "Atanh": _rising(np.arctanh),
    "Ceil": _rising(np.ceil),
    "Cos": _within(-1.0, 1.0),
    "Cosh": lambda x, a: monotone(np.cosh, _abs_range(x), (1.0, math.inf)),
    "Erf": _rising(lambda x: math.erf(x)),
    "Exp": _rising(np.exp, 0.0),
    "Floor": _rising(np.floor),
    "HardSwish": lambda x, a: _swish_range(x, -0.375),
    "Log": _rising(np.log),
    "Mish": lambda x, a: _swish_range(x, -0.3089),
    "Reciprocal": lambda x, a: inverse(x),
    "Relu": _rising(lambda x: max(x, 0.0)),
    "Round": _rising(np.rint),
    "Sigmoid": _rising(lambda x: 1 / (1 + np.exp(-x)), 0.0, 1.0),
    "Sign": _rising(np.sign),
    "Sin": _within(-1.0, 1.0),
    "Sinh": _rising(np.sinh),
    "Softplus": _rising(lambda x: np.logaddexp(x, 0.0), 0.0),
    "Softsign": _rising(lambda x: x / (1 + abs(x)), -1.0, 1.0),
    "Sqrt": _rising(np.sqrt, 0.0),
    "Tanh": _rising(np.tanh),
}
# with attributes that may turn them round
SHAPED: dict[str, tuple[Callable[[Mapping[str, Any]], bool], Callable[[Interval, Mapping[str, Any]], Interval]]] = {
    "Celu": (
        lambda a: a["alpha"] > 0,
        _rising(lambda x, alpha: max(x, 0.0) + min(alpha * np.expm1(x / alpha), 0.0)),
    ),
    "Elu": (lambda a: a["alpha"] >= 0, _rising(lambda x, alpha: alpha * np.expm1(x) if x < 0 else x)),
    "HardSigmoid": (lambda a: a["alpha"] > 0, _rising(lambda x, alpha, beta: np.clip(alpha * x + beta, 0, 1), 0.0, 1.0)),
    "LeakyRelu": (lambda a: a["alpha"] > 0, _rising(_leaky)),
    "Selu": (
        lambda a: a["alpha"] >= 0 and a["gamma"] >= 0,
        _rising(lambda x, alpha, gamma: gamma * (alpha * np.expm1(x) if x < 0 else x)),
    ),
    "Swish": (lambda a: a["alpha"] > 0, lambda x, a: _swish_range(x, -0.2785 / a["alpha"])),
    "ThresholdedRelu": (lambda a: a["alpha"] >= 0, _rising(lambda x, alpha: x if x > alpha else 0.0)),
}


def activate(name: str, attributes: Mapping[str, Any] | None = None) -> Callable[[Tensor], Tensor]:
    """The forward function of an activation of the standard, its defaults filled in."""
    function, defaults = FUNCTIONS[name]
    settings = {**defaults, **{k: v for k, v in (attributes or {}).items() if k in defaults}}
    return lambda x: function(x, **settings)


def _interval(name: str, before: Interval, attributes: Mapping[str, Any]) -> Interval:
    settings = {**FUNCTIONS[name][1], **attributes}
    if name in SHAPED:
        keeps, bounds_of = SHAPED[name]
        return bounds_of(before, settings) if keeps(settings) else (0.0, 1.0) if name == "HardSigmoid" else ANY
    return RANGES[name](before, settings) if name in RANGES else ANY


@dataclass(frozen=True, eq=False, kw_only=True)
class Activation(Elementwise):
    """``name`` of the ONNX standard with its attributes."""

    name: str
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return self.name

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        (x,) = xs
        origin = x.origin | {x.name}
        return [dataclasses.replace(x, value=None, interval=_interval(self.name, x.interval, self.attributes), origin=origin)]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        return Trace(xs, [activate(self.name, self.attributes)(xs[0])], p)

    def signals(self, xs: Sequence[Var]) -> Sequence[int]:
        return () if self.name == "Reciprocal" else (0,)


def _register(name: str, defaults: dict[str, Any]) -> None:
    # One importer a name, its keyword-only parameters being the op's attributes.
    if defaults:
        names = ", ".join(f"{k}={v!r}" for k, v in defaults.items())
        scope: dict[str, Any] = {"Activation": Activation}
        keys = ", ".join(f"{k!r}: {k}" for k in defaults)
        exec(
            f"def read(X, *, {names}):\n    return Activation(name={name!r}, attributes={{{keys}}}), (X,)\n", scope
        )  # a signature can't be built otherwise
        importer(name)(scope["read"])
    else:

        @importer(name)
        def read(X: Var) -> Any:
            return Activation(name=name), (X,)


for _name, (_, _defaults) in FUNCTIONS.items():
    if _name not in ("Affine", "ScaledTanh"):
        _register(_name, _defaults)


@dataclass(frozen=True, eq=False, kw_only=True)
class Gelu(Elementwise):
    """x Φ(x), or its tanh approximation."""

    approximate: bool = False

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        return [
            dataclasses.replace(
                xs[0], value=None, interval=_swish_range(xs[0].interval, -0.171), origin=xs[0].origin | {xs[0].name}
            )
        ]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        (x,) = xs  # tf.nn.gelu has its constants in float32
        inner = tf.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)) if self.approximate else tf.math.erf(x / math.sqrt(2))
        return Trace(xs, [0.5 * x * (1 + inner)], p)


@importer("Gelu", since=20)
def gelu(X: Var, *, approximate: str = "none") -> Any:
    return Gelu(approximate=approximate == "tanh"), (X,)


@dataclass(frozen=True, eq=False, kw_only=True)
class Clip(Elementwise):
    """Clamps between bounds (slots: x, low, high; None: open); relevance passes to x, as through any saturation."""

    slots: tuple[int | str | None, ...]

    def signals(self, xs: Sequence[Var]) -> Sequence[int]:
        return (0,) if self.slots[0] == 0 else ()

    def _operands(self, xs: Sequence[Any], p: Mapping[str, Any]) -> list[Any]:
        return [None if s is None else p[s] if isinstance(s, str) else xs[s] for s in self.slots]

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        x, low, high = self._operands(xs, self.parameters)
        at_least = (-math.inf, -math.inf) if low is None else bounds(low)
        at_most = (math.inf, math.inf) if high is None else bounds(high)
        inside = bounds(x)
        inside = (max(inside[0], at_least[0]), max(inside[1], at_least[1]))
        inside = (min(inside[0], at_most[0]), min(inside[1], at_most[1]))
        if not isinstance(x, Var):
            return [Var("", x.dtype, constant_dims(x), interval=inside)]
        return [dataclasses.replace(x, value=None, interval=inside, origin=origin_of(xs) if x.live else frozenset())]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        x, low, high = self._operands(xs, p)
        if low is not None:
            x = tf.maximum(x, tf.cast(tf.reshape(low, []), x.dtype))
        if high is not None:  # last: where the bounds cross, the upper one holds
            x = tf.minimum(x, tf.cast(tf.reshape(high, []), x.dtype))
        return Trace(xs, [x], p)


def read_clip(x: Any, low: Any, high: Any) -> Any:
    """Clip with whatever bounds are there; an infinite one is none."""
    ends = [None if isinstance(v, np.ndarray) and np.all(np.isinf(v)) else v for v in (low, high)]
    slots: list[int | str | None] = []
    used, parameters, inputs = mixed(x, *ends)
    given = iter(used)
    slots = [None if v is None else next(given) for v in (x, *ends)]
    return Clip(parameters=parameters, slots=tuple(slots)), inputs


@importer("Clip", since=1)
def clip_attributes(input: Any, *, min: float = -math.inf, max: float = math.inf, consumed_inputs: Any = None) -> Any:
    return read_clip(input, np.asarray(min, np.float64), np.asarray(max, np.float64))


@importer("Clip", since=11)
def clip(input: Any, min: Any = None, max: Any = None) -> Any:
    return read_clip(input, min, max)


@dataclass(frozen=True, eq=False, kw_only=True)
class PRelu(Elementwise):
    """x, times a slope (constant, or computed off the path) where it is negative. Slots: x, slope."""

    slots: tuple[int | str, ...]

    def signals(self, xs: Sequence[Var]) -> Sequence[int]:
        return (0,) if self.slots[0] == 0 else ()

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        x, slope = fill(self.slots, xs, self.parameters)
        inside = bounds(x)
        below = times((min(inside[0], 0.0), min(inside[1], 0.0)), bounds(slope))
        above = (max(inside[0], 0.0), max(inside[1], 0.0))
        if inside[0] >= 0:
            below = above
        if inside[1] < 0:
            above = below
        dims = operand_dims(self.slots, xs, self.parameters)
        return [Var("", x.dtype, dims, interval=hull([below, above]), origin=origin_of(xs))]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        x, slope = fill(self.slots, xs, p)
        return Trace(xs, [tf.where(x < 0, slope * x, x)], p)


@importer("PRelu", since=7)
def prelu(X: Any, slope: Any, *, node: Any) -> Any:
    if isinstance(slope, Var) and slope.live:
        raise node.refuse("the slope depends on an attribution point")
    data, own = X.shape, slope.shape
    if data is not None and own is not None:
        longer = any(n == 1 and s not in (1, None) for n, s in zip(data[::-1], own[::-1], strict=False))
        if longer or len(own) > len(data):
            raise node.refuse(f"a slope of shape {own} does not broadcast to data of shape {data}")
    slots, parameters, inputs = mixed(X, slope)
    return PRelu(parameters=parameters, slots=slots), inputs
