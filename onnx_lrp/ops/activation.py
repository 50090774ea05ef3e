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
from ..layer import Elementwise, Trace
from ..registry import ANY, Var, importer

__all__ = ["Activation", "activate"]

Tensor = Any
Interval = tuple[float, float]


def _erf_gelu(x: Tensor) -> Tensor:
    return tf.nn.gelu(x, approximate=False)


def _hard_sigmoid(x: Tensor, alpha: float = 0.2, beta: float = 0.5) -> Tensor:
    return tf.clip_by_value(alpha * x + beta, 0.0, 1.0)


# name → (function, default attributes)
FUNCTIONS: dict[str, tuple[Callable[..., Tensor], dict[str, Any]]] = {
    "Abs": (lambda x: tf.abs(x), {}),
    "Acos": (lambda x: tf.acos(x), {}),
    "Acosh": (lambda x: tf.acosh(x), {}),
    "Asin": (lambda x: tf.asin(x), {}),
    "Asinh": (lambda x: tf.asinh(x), {}),
    "Atan": (lambda x: tf.atan(x), {}),
    "Atanh": (lambda x: tf.atanh(x), {}),
    "Affine": (lambda x, alpha, beta: alpha * x + beta, {"alpha": 1.0, "beta": 0.0}),
    "Celu": (lambda x, alpha: tf.maximum(x, 0.0) + tf.minimum(alpha * tf.math.expm1(x / alpha), 0.0), {"alpha": 1.0}),
    "Cos": (lambda x: tf.cos(x), {}),
    "Cosh": (lambda x: tf.cosh(x), {}),
    "Elu": (lambda x, alpha: tf.where(x < 0, alpha * tf.math.expm1(tf.minimum(x, 0.0)), x), {"alpha": 1.0}),
    "Erf": (lambda x: tf.math.erf(x), {}),
    "Exp": (lambda x: tf.exp(x), {}),
    "HardSigmoid": (lambda x, alpha, beta: _hard_sigmoid(x, alpha, beta), {"alpha": 0.2, "beta": 0.5}),
    "HardSwish": (lambda x: x * _hard_sigmoid(x, 1 / 6, 0.5), {}),
    "LeakyRelu": (lambda x, alpha: tf.where(x < 0, alpha * x, x), {"alpha": 0.01}),
    "Log": (lambda x: tf.math.log(x), {}),
    "Mish": (lambda x: x * tf.tanh(tf.math.softplus(x)), {}),
    "Reciprocal": (lambda x: 1 / x, {}),
    "Relu": (lambda x: tf.nn.relu(x), {}),
    "ScaledTanh": (lambda x, alpha, beta: alpha * tf.tanh(beta * x), {"alpha": 1.0, "beta": 1.0}),
    "Selu": (
        lambda x, alpha, gamma: gamma * tf.where(x < 0, alpha * tf.math.expm1(tf.minimum(x, 0.0)), x),
        {"alpha": 1.67326319217681884765625, "gamma": 1.05070102214813232421875},
    ),
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

BOUNDS: dict[str, Interval] = {
    "Sigmoid": (0.0, 1.0),
    "HardSigmoid": (0.0, 1.0),
    "Tanh": (-1.0, 1.0),
    "Softsign": (-1.0, 1.0),
    "Erf": (-1.0, 1.0),
    "Sin": (-1.0, 1.0),
    "Cos": (-1.0, 1.0),
    "Sign": (-1.0, 1.0),
    "Softplus": (0.0, math.inf),
    "Exp": (0.0, math.inf),
    "Sqrt": (0.0, math.inf),
}

# Normalizers: constant for relevance (Ali et al. 2022).
NORMALIZERS = {"Reciprocal", "Sqrt"}


def activate(name: str, attributes: Mapping[str, Any] | None = None) -> Callable[[Tensor], Tensor]:
    """The forward function of an activation of the standard, its defaults filled in."""
    function, defaults = FUNCTIONS[name]
    settings = {**defaults, **{k: v for k, v in (attributes or {}).items() if k in defaults}}
    return lambda x: function(x, **settings)


def _interval(name: str, before: Interval) -> Interval:
    low, high = BOUNDS.get(name, ANY)
    if name in ("Relu", "Abs"):
        low, high = (max(0.0, before[0]), max(0.0, before[1])) if name == "Relu" else (0.0, max(-before[0], before[1]))
    return low, high


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
        return [dataclasses.replace(x, value=None, interval=_interval(self.name, x.interval), origin=origin)]

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
        return [dataclasses.replace(xs[0], value=None, interval=ANY, origin=xs[0].origin | {xs[0].name})]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        return Trace(xs, [tf.nn.gelu(xs[0], approximate=self.approximate)], p)


@importer("Gelu", since=20)
def gelu(X: Var, *, approximate: str = "none") -> Any:
    return Gelu(approximate=approximate == "tanh"), (X,)


@dataclass(frozen=True, eq=False, kw_only=True)
class Clip(Elementwise):
    """Clamps to constants; relevance passes, as through any saturation."""

    low: float = -math.inf
    high: float = math.inf

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        (x,) = xs
        inside = (min(max(x.interval[0], self.low), self.high), max(min(x.interval[1], self.high), self.low))
        return [dataclasses.replace(x, value=None, interval=inside, origin=x.origin | {x.name})]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        x = xs[0]
        if math.isfinite(self.low):
            x = tf.maximum(x, tf.cast(self.low, x.dtype))
        if math.isfinite(self.high):
            x = tf.minimum(x, tf.cast(self.high, x.dtype))
        return Trace(xs, [x], p)


@importer("Clip", since=1)
def clip_attributes(input: Var, *, min: float = -math.inf, max: float = math.inf, consumed_inputs: Any = None) -> Any:
    return Clip(low=min, high=max), (input,)


@importer("Clip", since=11)
def clip(input: Var, min: Any = None, max: Any = None, *, node: Any) -> Any:
    if isinstance(min, Var) or isinstance(max, Var):
        raise node.refuse("min and max must be constants")
    low = -math.inf if min is None else float(np.asarray(min).reshape(-1)[0])
    high = math.inf if max is None else float(np.asarray(max).reshape(-1)[0])
    return Clip(low=low, high=high), (input,)
