"""BatchNormalization: in inference a scale and a shift per channel, an affine term of its block.

Its statistics are constants of the file, so nothing is lost by calling the whole an affine map.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._lazy import tf
from ..layer import Affine, Trace
from ..linear import LinearMap
from ..registry import Var, importer

__all__ = ["ChannelAffine"]

Tensor = Any


@dataclass(frozen=True, eq=False, kw_only=True)
class ChannelAffine(Affine):
    """scale · x + shift, channels on axis 1. parameters: scale (C,), shift (C,)."""

    @property
    def title(self) -> str:
        return "BatchNormalization"

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        return [Var("", xs[0].dtype, xs[0].dims)]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        (x,) = xs
        return Trace(xs, [x * _along(p["scale"], x) + _along(p["shift"], x)], p)

    def linear(self, trace: Trace) -> LinearMap:
        (x,) = trace.inputs
        return _map(_along(trace.parameters["scale"], x))

    def bias(self, trace: Trace) -> Tensor | None:
        return _along(trace.parameters["shift"], trace.inputs[0])


def _along(v: Tensor, x: Tensor) -> Tensor:
    """v (C,) shaped to meet axis 1 of x (B, C, …); a single axis is the channel."""
    return tf.reshape(v, [-1] + [1] * max(x.shape.rank - 2, 0))


def _map(scale: Tensor) -> LinearMap:
    return LinearMap(
        call=lambda xs: scale * xs[0],
        pull=lambda s: [scale * s],
        mapped=lambda f: _map(f(scale)),
    )


def _read(X: Any, scale: Any, B: Any, mean: Any, var: Any, epsilon: float, node: Any) -> Any:
    if any(isinstance(v, Var) for v in (scale, B, mean, var)):
        raise node.refuse("scale, shift and statistics must be constant")
    if any(node.outputs[1:]):
        raise node.refuse("its running statistics are read: export the model in inference mode")
    factor = scale.astype(np.float64) / np.sqrt(var.astype(np.float64) + epsilon)
    return ChannelAffine(parameters={"scale": factor, "shift": B - factor * mean}), (X,)


@importer("BatchNormalization", since=7)
def batch_normalization_7(
    X: Any, scale: Any, B: Any, mean: Any, var: Any, *, epsilon: float = 1e-5, momentum: float = 0.9, spatial: int = 1, node: Any
) -> Any:
    if not spatial:
        raise node.refuse("spatial=0 is not read")
    return _read(X, scale, B, mean, var, epsilon, node)


@importer("BatchNormalization", since=14)
def batch_normalization(
    X: Any,
    scale: Any,
    B: Any,
    input_mean: Any,
    input_var: Any,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
    node: Any,
) -> Any:
    if training_mode:
        raise node.refuse("training_mode is set: export the model in inference mode")
    return _read(X, scale, B, input_mean, input_var, epsilon, node)
