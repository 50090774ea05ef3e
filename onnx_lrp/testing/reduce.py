"""Sums, means and extremes over axes."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from .build import AXES_AS_INPUT, Builder, Case, generators, opsets

__all__ = ["reductions"]


SHARED = ("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceProd", "ReduceSumSquare")


@st.composite
def reductions(draw: Any) -> Case:
    """A series pooled over time, or over time and features. Shrinks to a maximum over one step."""
    b = Builder(draw(generators()), draw(opsets()))
    batch, time, width = draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(1, 3))
    x = b.series(time, batch, width)
    x = b.op("Tanh", b.op("MatMul", x, b.weight(width, width))) if draw(st.booleans()) else x
    op = draw(st.sampled_from(["ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", *SHARED]))
    x = b.op("Softplus", x) if op == "ReduceLogSum" else x
    both = draw(st.booleans())
    axes = draw(st.sampled_from([(1,), (-2,)] if b.opset >= 11 else [(1,)]))
    keepdims = int(draw(st.booleans()))
    if b.opset >= 18 and draw(st.integers(0, 7)) == 0:  # over no axis at all
        y = b.over("ReduceSum", b.op(op, x, noop_with_empty_axes=1), 1)
        return b.case(b.gemm(b.op("Reshape", y, b.ints(-1, width)), width, draw(st.integers(1, 3))))
    if both and b.opset >= AXES_AS_INPUT[op] and draw(st.booleans()):  # counted from the rank, as functions written out do
        rank = b.op("Size", b.op("Shape", x))
        y = b.op(op, x, b.op("Range", b.const(1, np.int64), rank, b.const(1, np.int64)), keepdims=keepdims)
    else:
        y = b.over(op, x, *((1, 2) if both else axes), keepdims=keepdims)
    size = 1 if both else width
    y = b.op("Reshape", y, b.ints(-1, size))
    return b.case(b.gemm(y, size, draw(st.integers(1, 3))))
