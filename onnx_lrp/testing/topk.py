"""The best entries of a row, and the steps that hold them."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from .build import Builder, Case, generators, opsets

__all__ = ["choices"]


@st.composite
def choices(draw: Any) -> Case:
    """The k largest or smallest entries over time, weighted and summed; or of the scores at the end. Shrinks to the former."""
    b = Builder(draw(generators()), draw(opsets()))
    batch, time, width = draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(1, 3))
    last = draw(st.booleans())
    axis = 1
    if last:
        z, size = b.gemm(b.rows(batch, width), width, 4), 4
    else:
        z, size = b.op("Tanh", b.op("MatMul", b.series(time, batch, width), b.weight(width, 2))), time
    count = draw(st.integers(1, size))
    more = {"largest": draw(st.sampled_from([1, 0]))} if b.opset >= 11 else {}
    if b.opset < 10:
        values, _ = b.ops("TopK", z, outputs=2, k=count, axis=axis)
    else:
        wanted = b.ints(count)
        if draw(st.booleans()):
            length = b.slice(b.op("Shape", z), [1], [2], [0])
            wanted = b.op("Sub", length, b.const([size - count], np.int64))
        values, _ = b.ops("TopK", z, wanted, outputs=2, axis=draw(st.sampled_from([axis, axis if last else -2])), **more)
    if last:
        return b.case(values)
    y = b.op("Mul", values, b.weight(count, 1))
    return b.case(b.gemm(b.over("ReduceSum", y, 1, keepdims=0), 2, draw(st.integers(1, 3))))
