"""Normalizations of channels, layers and groups, and the spellings of a LayerNormalization."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from .build import Builder, Case, generators, opsets

__all__ = ["layer_norm_spellings", "normalizations"]

# kind → the first opset of its node
KINDS = {
    "BatchNormalization": 7,
    "LayerNormalization": 17,
    "InstanceNormalization": 7,
    "GroupNormalization": 18,
    "MeanVarianceNormalization": 9,
    "LpNormalization": 7,
    "LRN": 7,
    "SimplifiedLayerNormalization": 7,
}
EPSILONS = st.sampled_from([1e-5, 0.1])


@st.composite
def normalizations(draw: Any, *, kind: str | None = None) -> Case:
    """A normalization of channels over time, or of plain rows, before or behind other layers.

    ``kind``: one of ``KINDS`` or any. Shrinks to BatchNormalization of rows.
    """
    kind = kind or draw(st.sampled_from(list(KINDS)))
    b = Builder(draw(generators()), draw(opsets(least=KINDS[kind])))
    batch, groups = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    time = draw(st.integers(1 if kind == "BatchNormalization" else 2, 4))  # onnxruntime divides by the deviation of one number
    width = groups * draw(st.integers(1, 2))
    series = kind not in ("BatchNormalization", "LpNormalization") or draw(st.booleans())
    x = b.series(time, batch, width) if series else b.rows(batch, width)
    y = b.op("Transpose", x, perm=[0, 2, 1]) if series else x
    if draw(st.booleans()):
        y = b.op("Tanh", y)
    if kind == "BatchNormalization":
        variance = b.const(b.rng.uniform(0.2, 2, width).astype(np.float32))
        statistics = [b.weight(width), b.weight(width), b.weight(width), variance]
        y = b.op(kind, y, *statistics, epsilon=draw(EPSILONS))
    elif kind in ("LayerNormalization", "SimplifiedLayerNormalization"):
        axis = draw(st.sampled_from([-1, 2, 1, -2]))
        sizes = (time,) if axis in (-1, 2) else (width, time)
        parameters = [b.weight(*sizes)] if kind.startswith("S") or draw(st.booleans()) else [b.weight(*sizes), b.weight(*sizes)]
        count = 3 if kind == "LayerNormalization" and draw(st.booleans()) else 1
        y, *statistics = b.ops(kind, y, *parameters, outputs=count, axis=axis, epsilon=draw(EPSILONS))
        if statistics:
            mean, inverse = statistics
            inverse = b.op("Min", inverse, b.const(np.float32(2)))  # a large one is as inexact as the differences it is made of
            y = b.op("Add", b.op("Mul", y, inverse), mean)
    elif kind == "InstanceNormalization":
        y = b.op(kind, y, b.weight(width), b.weight(width), epsilon=draw(EPSILONS))
    elif kind == "GroupNormalization":
        entries = width if b.opset >= 21 else groups
        y = b.op(kind, y, b.weight(entries), b.weight(entries), num_groups=groups, epsilon=draw(EPSILONS))
    elif kind == "MeanVarianceNormalization":
        y = b.op(kind, y, axes=draw(st.sampled_from([[2], [1, 2]])))
    elif kind == "LpNormalization":
        y = b.op(kind, y, axis=draw(st.sampled_from([-1, 1])), p=draw(st.integers(1, 2)))
    else:
        y = b.op(kind, b.over("Unsqueeze", y, 3), size=draw(st.sampled_from([1, 3, 5])), alpha=draw(EPSILONS), bias=1.5)
        y = b.over("Squeeze", y, 3)
    if draw(st.booleans()):
        y = b.op("Relu", y)
    if series:
        y = b.over("ReduceMean", y, 2, keepdims=0)
    return b.case(b.gemm(y, width, draw(st.integers(1, 3))))


SPELLINGS = ("node", "from its statistics", "squared by Mul", "squared by Pow", "times the inverse", "centred last")


@st.composite
def layer_norm_spellings(draw: Any) -> tuple[list[Any], dict[str, np.ndarray]]:
    """One LayerNormalization between dense layers, as its node and as exporters decompose it: (models, inputs)."""
    rng = draw(generators())
    batch, time, width, hidden, out = (draw(st.integers(1, 4)) for _ in range(5))
    epsilon = np.float32(draw(EPSILONS))
    x = rng.normal(0, 1, (batch, time, width)).astype(np.float32)
    w, v = (rng.normal(0, 1, s).astype(np.float32) for s in ((width, hidden), (hidden, out)))
    scale, shift = (rng.normal(0, 1, hidden).astype(np.float32) for _ in range(2))
    before = draw(st.booleans())  # an activation in front, else one block reaches through
    models = []
    for kind in SPELLINGS:
        b = Builder(rng, 17)
        y = b.op("MatMul", b.input("x", x, ["batch", time, width]), b.const(w))
        y = _layer_norm(b, kind, b.op("Tanh", y) if before else y, scale, shift, epsilon)
        models.append(b.case(b.over("ReduceSum", b.op("MatMul", b.op("Relu", y), b.const(v)), 1, keepdims=0))[0])
    return models, {"x": x}


def _layer_norm(b: Builder, kind: str, x: str, scale: np.ndarray, shift: np.ndarray, epsilon: np.float32) -> str:
    """Over the last axis of x (B, T, H), in one of the ``SPELLINGS``."""
    if kind == "node":
        return b.op("LayerNormalization", x, b.const(scale), b.const(shift), epsilon=float(epsilon))
    if kind == "from its statistics":
        _, mean, inverse = b.ops("LayerNormalization", x, b.const(scale), outputs=3, epsilon=float(epsilon))
        normal = b.op("Mul", b.op("Sub", x, mean), inverse)
        return b.op("Add", b.op("Mul", normal, b.const(scale)), b.const(shift))
    if kind == "centred last":  # Keras: x (γ/σ) + (β − mean γ/σ), means by GlobalAveragePool
        mean = b.op("GlobalAveragePool", x)
        difference = b.op("Sub", x, mean)
        variance = b.op("GlobalAveragePool", b.op("Mul", difference, difference))
        inverse = b.op("Reciprocal", b.op("Sqrt", b.op("Add", variance, b.const(epsilon))))
        factor = b.op("Mul", inverse, b.const(scale))
        rest = b.op("Add", b.op("Mul", b.op("Neg", mean), factor), b.const(shift))
        return b.op("Add", b.op("Mul", x, factor), rest)
    centred = b.op("Sub", x, b.over("ReduceMean", x, -1))
    square = b.op("Pow", centred, b.const(np.float32(2))) if kind == "squared by Pow" else b.op("Mul", centred, centred)
    deviation = b.op("Sqrt", b.op("Add", b.over("ReduceMean", square, -1), b.const(epsilon)))
    normal = b.op("Mul", centred, b.op("Reciprocal", deviation)) if kind == "times the inverse" else b.op("Div", centred, deviation)
    return b.op("Add", b.op("Mul", normal, b.const(scale)), b.const(shift))
