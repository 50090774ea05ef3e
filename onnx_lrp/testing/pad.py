"""Series padded by a constant or by their own entries."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from .build import Builder, Case, generators, opsets

__all__ = ["paddings"]


@st.composite
def paddings(draw: Any) -> Case:
    """A series padded or cut over time, weighted and summed. Shrinks to zeros behind it."""
    b = Builder(draw(generators()), draw(opsets()))
    batch, time, width = draw(st.integers(1, 3)), draw(st.integers(2, 4)), draw(st.integers(1, 3))
    x = b.series(time, batch, width)
    mode = draw(st.sampled_from(["constant", "edge", "reflect", *(["wrap"] if b.opset >= 19 else [])]))
    least = 0 if mode == "reflect" or time < 3 else -1  # onnxruntime mirrors what a negative amount cuts
    before, after = draw(st.integers(least, time - 1)), draw(st.integers(least, time - 1))
    value = draw(st.sampled_from([0.0, 0.7])) if mode == "constant" else 0.0
    pads = [0, before, 0, 0, after, 0]
    if b.opset < 11:
        y = b.op("Pad", x, pads=pads, mode=mode, value=value)
    else:
        kind = draw(st.sampled_from(["constant", "computed", "value", *(["axes"] if b.opset >= 18 else [])]))
        given = b.ints(*pads)
        if kind == "computed":
            steps = b.slice(b.op("Shape", x), [1], [2], [0])
            first = b.op("Sub", steps, b.ints(time - before))
            given = b.op("Concat", b.ints(0), first, b.ints(0, 0), b.ints(after), b.ints(0), axis=0)
        fill = [b.const(np.float32(value))] if mode == "constant" and (value or draw(st.booleans())) else []
        if kind == "value" and mode == "constant":
            fill = [b.over("ReduceMean", b.op("ConstantOfShape", b.ints(2)), 0, keepdims=0)]
        if kind == "axes":
            y = b.op("Pad", x, b.ints(before, after), *(fill or [""]), b.ints(draw(st.sampled_from([1, -2]))), mode=mode)
        else:
            y = b.op("Pad", x, given, *fill, mode=mode)
    z = b.op("MatMul", y, b.weight(width, 2))
    if draw(st.booleans()):  # inside a block, or behind one
        z = b.op("Tanh", z)
    z = b.op("Mul", z, b.weight(time + before + after, 1))
    return b.case(b.gemm(b.over("ReduceSum", z, 1, keepdims=0), 2, draw(st.integers(1, 3))))
