"""Activations by name: function, default attributes, bounds."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from .values import ANY

HARD = {"alpha": 0.2, "beta": 0.5}
ACTIVATIONS: dict[str, tuple[Callable[..., Any], dict[str, float], tuple[float, float]]] = {
    "Abs": (lambda x: tf.abs(x), {}, ANY),
    "Acos": (lambda x: tf.acos(x), {}, ANY),
    "Acosh": (lambda x: tf.acosh(x), {}, ANY),
    "Affine": (lambda x, alpha, beta: alpha * x + beta, {"alpha": 1.0, "beta": 0.0}, ANY),
    "Asin": (lambda x: tf.asin(x), {}, ANY),
    "Asinh": (lambda x: tf.asinh(x), {}, ANY),
    "Atan": (lambda x: tf.atan(x), {}, ANY),
    "Atanh": (lambda x: tf.atanh(x), {}, ANY),
    "Celu": (lambda x, alpha: tf.where(x > 0, x, alpha * (tf.exp(tf.minimum(x, 0.0) / alpha) - 1)), {"alpha": 1.0}, ANY),
    "Cos": (lambda x: tf.cos(x), {}, (-1, 1)),
    "Ceil": (lambda x: tf.math.ceil(x), {}, ANY),
    "Cosh": (lambda x: tf.cosh(x), {}, ANY),
    "Elu": (lambda x, alpha: tf.where(x > 0, x, alpha * (tf.exp(tf.minimum(x, 0.0)) - 1)), {"alpha": 1.0}, ANY),
    "Erf": (lambda x: tf.math.erf(x), {}, (-1, 1)),
    "Exp": (lambda x: tf.exp(x), {}, (0, math.inf)),
    "Floor": (lambda x: tf.floor(x), {}, ANY),
    "HardSigmoid": (lambda x, alpha, beta: tf.maximum(0.0, tf.minimum(1.0, alpha * x + beta)), HARD, (0, 1)),
    "HardSwish": (lambda x: x * tf.maximum(0.0, tf.minimum(1.0, x / 6 + 0.5)), {}, ANY),
    "LeakyRelu": (lambda x, alpha: tf.where(x > 0, x, alpha * x), {"alpha": 0.01}, ANY),
    "Log": (lambda x: tf.math.log(x), {}, ANY),
    "Mish": (lambda x: x * tf.tanh(tf.math.log1p(tf.exp(x))), {}, ANY),
    "Relu": (lambda x: tf.maximum(x, 0.0), {}, ANY),
    "Round": (lambda x: tf.round(x), {}, ANY),
    "ScaledTanh": (lambda x, alpha, beta: alpha * tf.tanh(beta * x), {"alpha": 1.0, "beta": 1.0}, ANY),
    "Selu": (
        lambda x, alpha, gamma: gamma * tf.where(x > 0, x, alpha * (tf.exp(tf.minimum(x, 0.0)) - 1)),
        {"alpha": 1.67326319217681884765625, "gamma": 1.05070102214813232421875},
        ANY,
    ),
    "Sigmoid": (lambda x: 1 / (1 + tf.exp(-x)), {}, (0, 1)),
    "Sign": (lambda x: tf.sign(x), {}, (-1, 1)),
    "Sin": (lambda x: tf.sin(x), {}, (-1, 1)),
    "Sinh": (lambda x: tf.sinh(x), {}, ANY),
    "Softplus": (lambda x: tf.maximum(x, 0.0) + tf.math.log1p(tf.exp(-tf.abs(x))), {}, (0, math.inf)),
    "Softsign": (lambda x: x / (1 + tf.abs(x)), {}, (-1, 1)),
    "Sqrt": (lambda x: tf.sqrt(x), {}, (0, math.inf)),
    "Swish": (lambda x, alpha: x / (1 + tf.exp(-alpha * x)), {"alpha": 1.0}, ANY),
    "Tan": (lambda x: tf.tan(x), {}, ANY),
    "Tanh": (lambda x: tf.tanh(x), {}, (-1, 1)),
    "ThresholdedRelu": (lambda x, alpha: tf.where(x > alpha, x, 0.0), {"alpha": 1.0}, ANY),
}


def elementwise(name: str, settings: dict[str, Any]) -> tuple[Callable[[Any], Any], tuple[float, float]]:
    function, defaults, bounds = ACTIVATIONS[name]
    given = {**defaults, **{k: v for k, v in settings.items() if k in defaults}}
    return (lambda x: function(tf.convert_to_tensor(x, tf.float64), **given)), bounds


def gelu(x: Any, approximate: str = "none") -> Any:
    if approximate == "tanh":
        return 0.5 * x * (1 + tf.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + tf.math.erf(x / math.sqrt(2)))
