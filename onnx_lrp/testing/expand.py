"""Tensors repeated by Expand and Tile."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from .build import Builder, Case, generators, opsets

__all__ = ["expansions"]


@st.composite
def expansions(draw: Any) -> Case:
    """A sample's features repeated over time, weighted and pooled. Shrinks to Expand over one step."""
    b = Builder(draw(generators()), draw(opsets(least=8)))
    batch, width, time = (draw(st.integers(1, 3)) for _ in range(3))
    x = b.over("Unsqueeze", b.rows(batch, width), 1)
    kind = draw(st.sampled_from(["Expand", "computed", "Tile"]))
    if kind == "Expand":
        y = b.op("Expand", x, b.ints(1, time, 1))
    elif kind == "Tile":
        y = b.op("Tile", x, b.ints(1, time, 1))
    else:
        count = b.slice(b.op("Shape", x), [0], [1], [0])
        y = b.op("Expand", x, b.op("Concat", count, b.ints(time, width), axis=0))
    y = b.op("Tanh", b.op("Add", b.op("Mul", y, b.weight(time, 1)), b.weight(time, width)))
    return b.case(b.gemm(b.over("ReduceMean", y, 1, keepdims=0), width, draw(st.integers(1, 3))))
