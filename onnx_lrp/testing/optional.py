"""Optionals around a series, and questions whether they hold it."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from onnx import TensorProto, helper

from .build import Builder, Case, generators

__all__ = ["optionals"]


@st.composite
def optionals(draw: Any) -> Case:
    """A series between two dense layers, put into an optional and taken out of it where it is there. Shrinks to Optional alone."""
    b = Builder(draw(generators()), 18)
    batch, time, width = draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(1, 3))
    z = b.op("Tanh", b.op("MatMul", b.series(time, batch, width), b.weight(width, 2)))
    held = b.op("Optional", z)
    y = b.op("OptionalGetElement", held)
    if draw(st.booleans()):
        asked = [] if draw(st.booleans()) else [held]
        sides = []
        for name, taken in (("then", y), ("else", z)):
            node = helper.make_node("Neg", [taken], [name])
            sides.append(helper.make_graph([node], name, [], [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)]))
        y = b.op("If", b.op("OptionalHasElement", *asked), then_branch=sides[0], else_branch=sides[1])
    return b.case(b.gemm(b.over("ReduceSum", y, 1, keepdims=0), 2, draw(st.integers(1, 3))))
