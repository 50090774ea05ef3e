"""Entries overwritten, added to, chosen or multiplied at computed places."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from .build import Case
from .index import Places

__all__ = ["scatters"]

SINCE = {"none": 11, "add": 17, "mul": 17, "max": 18, "min": 18}  # reduction → opset
KINDS = tuple((reduction, tuples) for tuples in (False, True) for reduction in SINCE)


@st.composite
def scatters(draw: Any, *, reduction: str | None = None, tuples: bool | None = None) -> Case:
    """One scatter into a series between two dense layers.

    ``reduction``: a key of ``SINCE`` or any (None). ``tuples``: ScatterND or ScatterElements, or any (None).
    Shrinks to a ScatterElements that overwrites.
    """
    kinds = [k for k in KINDS if reduction in (None, k[0]) and tuples in (None, k[1])]
    reduction, tuples = draw(st.sampled_from(kinds))
    reducing = {} if reduction == "none" else {"reduction": reduction}
    p = Places(draw, SINCE[reduction])
    b, z, time = p.b, p.z, p.time
    if tuples:
        step = p.per_sample(p.integers(time, 1, 1))
        places = b.op("Concat", b.op("Reshape", p.samples(), b.ints(-1, 1, 1)), step, axis=2)
        new = b.op("MatMul", b.over("ReduceSum", p.x, 1, keepdims=1), b.weight(p.width, 2))
        if reduction == "mul":
            new = b.op("Expand", b.weight(1, 1, 2), b.op("Concat", p.rows, b.ints(1, 2), axis=0))
        return p.case(draw, b.op("ScatterND", z, places, new, **reducing))
    indices = p.per_sample(p.integers(time, p.count, 2))
    new = b.op("Expand", b.const(b.numbers(1, p.count, 2)), b.op("Shape", indices))
    if reduction != "mul" and draw(st.booleans()):
        new = b.op("MatMul", b.over("ReduceSum", p.x, 1, keepdims=1), b.weight(p.width, 2))
        new = b.op("Expand", new, b.op("Shape", indices))
        if reducing and draw(st.booleans()):  # into a constant
            z = b.op("Expand", b.const(b.numbers(1, time, 2)), b.op("Shape", z))
    if reduction == "none":  # onnxruntime leaves open which of two updates wins
        order = np.argsort(b.rng.random((time, 2)), axis=0)[:1]
        indices = p.per_sample(order.astype(np.int64))
        new = b.slice(new, [0], [1], [1])
    return p.case(draw, b.op("ScatterElements", z, indices, new, axis=1, **reducing))
