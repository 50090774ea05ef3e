"""Series taken apart into sequences of tensors and put together again."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from .build import Builder, Case, generators, opsets

__all__ = ["sequences"]


@st.composite
def sequences(draw: Any) -> Case:
    """A series as a sequence of its steps, changed and joined again, or unrolled. Shrinks to splitting and joining."""
    b = Builder(draw(generators()), draw(opsets(least=11)))
    batch, time, width = draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(1, 3))
    x = b.series(time, batch, width)
    z = b.op("MatMul", x, b.weight(width, 2))
    z = b.op("Tanh", z) if draw(st.booleans()) else z
    keep = draw(st.booleans())
    steps = b.op("SplitToSequence", z, axis=draw(st.sampled_from([1, -2])), keepdims=int(keep))
    if draw(st.booleans()):
        first = draw(st.integers(1, time))
        sizes = draw(st.sampled_from([b.const(time, np.int64), b.const(1, np.int64), b.ints(first, time - first)]))
        parts = b.op("SplitToSequence", z, sizes, axis=1)
        z = b.op("ConcatFromSequence", parts, axis=1)
        steps = b.op("SplitToSequence", z, axis=1, keepdims=int(keep))
    kind = draw(st.sampled_from(["join", "construct", "insert", "erase", "accumulate"]))
    count = time

    def at(index: int) -> str:
        place = b.const(index, np.int64)
        if draw(st.booleans()):  # computed
            place = b.op("Sub", b.op("SequenceLength", steps), b.const(time - index % time, np.int64))
        return b.op("SequenceAt", steps, place)

    if kind == "construct":
        order = draw(st.lists(st.integers(-time, time - 1), min_size=1, max_size=3))
        steps = b.op("SequenceConstruct", *(at(i) for i in order))
        count = len(order)
    elif kind == "insert":
        new = at(draw(st.integers(0, time - 1)))
        where = draw(st.sampled_from([[], [b.const(0, np.int64)], [b.const(-1, np.int64)]]))
        steps = b.op("SequenceInsert", steps, new, *where)
        count += 1
    elif kind == "erase" and time > 1:
        where = draw(st.sampled_from([[], [b.const(0, np.int64)], [b.const(-1, np.int64)]]))
        steps = b.op("SequenceErase", steps, *where)
        count -= 1
    elif kind == "accumulate":
        many = b.op("SequenceEmpty")
        for index in range(time):
            many = b.op("SequenceInsert", many, at(index))
        steps = many
    y = b.op("ConcatFromSequence", steps, axis=1, new_axis=0 if keep else 1)
    y = b.op("Mul", y, b.weight(count, 1))
    return b.case(b.gemm(b.over("ReduceSum", y, 1, keepdims=0), 2, draw(st.integers(1, 3))))
