"""Tensors joined and split."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from .build import Builder, Case, generators, opsets

__all__ = ["concats"]


@st.composite
def concats(draw: Any) -> Case:
    """Concat of branches, one of them maybe constant, and Split on the way. Shrinks to two branches."""
    b = Builder(draw(generators()), draw(opsets(least=8)))
    batch, width, hidden = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 2))
    x = b.rows(batch, width)
    parts = [b.op("Tanh", b.gemm(x, width, hidden)) for _ in range(draw(st.integers(1, 2)))]
    parts.append(b.gemm(x, width, hidden))
    if draw(st.booleans()):
        count = b.slice(b.op("Shape", x), [0], [1], [0])
        parts.append(b.op("Expand", b.weight(1, hidden), b.op("Concat", count, b.ints(hidden), axis=0)))
    order = draw(st.permutations(parts))
    z = b.op("Concat", *order, axis=draw(st.sampled_from([1, -1] if b.opset >= 11 else [1])))
    total = hidden * len(parts)
    if draw(st.booleans()):
        z = b.op("Add", z, b.weight(total))  # the parts are terms of one block
    if draw(st.booleans()):
        first = draw(st.integers(1, total - 1))
        sizes = [first, total - first]
        if b.opset >= 13:
            left, right = b.ops("Split", z, b.ints(*sizes), outputs=2, axis=1)
        else:
            left, right = b.ops("Split", z, outputs=2, axis=1, split=sizes)
        z = b.op("Concat", right, b.op("Relu", left), axis=1)
    elif b.opset >= 18 and draw(st.booleans()):
        z = b.op("Concat", *reversed(b.ops("Split", z, outputs=2, axis=1, num_outputs=2)), axis=1)
    return b.case(b.gemm(z, total, draw(st.integers(1, 3))))
