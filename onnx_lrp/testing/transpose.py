"""Axes in another order."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from .build import Builder, Case, generators, opsets

__all__ = ["transposes"]


@st.composite
def transposes(draw: Any) -> Case:
    """A series through permutations of its axes that end in (batch, features). Shrinks to a dense layer over steps."""
    b = Builder(draw(generators()), draw(opsets()))
    batch, time, width = (draw(st.integers(1, 3)) for _ in range(3))
    x = b.series(time, batch, width)
    kind = draw(st.sampled_from(["steps", "there and back", "reversed"]))
    if kind == "steps":
        y = b.op("MatMul", b.op("Transpose", x, perm=[0, 2, 1]), b.weight(time, 2))
        y = b.over("ReduceSum", b.op("Tanh", y), 1, keepdims=0)
    elif kind == "there and back":
        order = draw(st.permutations([0, 1, 2]))
        back = [order.index(k) for k in range(3)]
        y = b.op("Transpose", b.op("Tanh", b.op("Transpose", x, perm=order)), perm=back)
        y = b.over("ReduceSum", b.op("MatMul", y, b.weight(width, 2)), 1, keepdims=0)
    else:
        y = b.op("Transpose", b.op("Tanh", x))  # (width, time, batch)
        y = b.op("Transpose", b.over("ReduceSum", y, 1, keepdims=0))
        y = b.op("MatMul", y, b.weight(width, 2))
    return b.case(b.gemm(y, 2, draw(st.integers(1, 3))))
