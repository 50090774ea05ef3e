"""Matrix products of every kind: weights on either side, vectors, batched weights, coefficients, gates, two signals."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from .build import Builder, Case, generators, opsets

__all__ = ["matmuls"]

KINDS = (
    "right",
    "left",
    "batched",
    "batched left",
    "vector",
    "left vector",
    "coefficient",
    "gate",
    "gate right",
    "signals",
    "outer",
)


@st.composite
def matmuls(draw: Any, *, kind: str | None = None) -> Case:
    """One MatMul between dense layers. ``kind``: one of ``KINDS`` or any (None). Shrinks to weights on the right."""
    kind = kind or draw(st.sampled_from(KINDS))
    b = Builder(draw(generators()), draw(opsets(least=9)))
    batch, time, width, hidden = (draw(st.integers(1, 3)) for _ in range(4))
    x = b.series(time, batch, width)  # (B, T, W)
    z = b.op("Tanh", x) if draw(st.booleans()) else b.op("Add", b.op("MatMul", x, b.weight(width, width)), b.weight(width))
    if kind == "right":
        y = b.op("MatMul", z, b.weight(width, hidden))
    elif kind == "left":
        y = b.op("MatMul", b.weight(hidden, time), z)
    elif kind == "batched":
        y = b.op("MatMul", z, b.weight(1, width, hidden))
    elif kind == "batched left":
        y = b.op("MatMul", b.weight(1, hidden, time), z)
    elif kind == "vector":
        y = b.over("Unsqueeze", b.op("MatMul", z, b.weight(width)), 2)
    elif kind == "left vector":
        y = b.over("Unsqueeze", b.op("MatMul", b.weight(time), z), 1)
    elif kind == "coefficient":  # made from a shape, so that it carries no relevance
        ones = b.op("ConstantOfShape", b.op("Shape", z))
        y = b.op("MatMul", b.op("Transpose", b.op("Add", ones, b.weight(width)), perm=[0, 2, 1]), z)
    elif kind in ("gate", "gate right"):
        gate = b.op("Softmax", b.op("MatMul", x, b.weight(width, time)), axis=2)
        swapped = b.op("Transpose", z, perm=[0, 2, 1])
        y = b.op("MatMul", gate, z) if kind == "gate" else b.op("Transpose", b.op("MatMul", swapped, gate), perm=[0, 2, 1])
    elif kind == "signals":
        y = b.op("MatMul", z, b.op("Transpose", b.op("Tanh", b.op("MatMul", x, b.weight(width, width))), perm=[0, 2, 1]))
    else:
        first = b.over("Unsqueeze", b.over("ReduceSum", z, 1, keepdims=0), 2)
        y = b.op("MatMul", first, b.over("Unsqueeze", b.over("ReduceMean", x, 1, keepdims=0), 1))
    y = b.op("Relu", y) if draw(st.booleans()) else y
    pooled = b.over("ReduceSum", y, 1, 2, keepdims=0)
    return b.case(b.op("MatMul", b.over("Unsqueeze", pooled, 1), b.weight(1, draw(st.integers(1, 3)))))
