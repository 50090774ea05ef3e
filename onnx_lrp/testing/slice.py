"""Parts of a series, with any start, end and step."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from .build import Builder, Case, generators, opsets

__all__ = ["slices"]

END = 2**63 - 1


@st.composite
def slices(draw: Any) -> Case:
    """A series sliced over time and maybe features, weighted and summed. Shrinks to the first step."""
    b = Builder(draw(generators()), draw(opsets()))
    batch, time, width = draw(st.integers(1, 3)), draw(st.integers(1, 5)), draw(st.integers(1, 3))
    x = b.series(time, batch, width)
    kind = draw(
        st.sampled_from(["range", "last", "backwards", "stride", "both", "computed"] if b.opset >= 10 else ["range", "last"])
    )
    first = draw(st.integers(0, time - 1))
    if kind == "range":
        y = b.slice(x, [first], [draw(st.sampled_from([first + 1, time, 2**31 - 1]))], [1])
    elif kind == "last":
        y = b.slice(x, [-1], [2**31 - 1], [1])
    elif kind == "backwards":
        y = b.op("Slice", x, b.ints(-1), b.ints(-END), b.ints(1), b.ints(draw(st.sampled_from([-1, -2]))))
    elif kind == "stride":
        y = b.op("Slice", x, b.ints(first), b.ints(END), b.ints(1), b.ints(2))
    elif kind == "both":
        y = b.op("Slice", x, b.ints(first, 0), b.ints(END, width), b.ints(1, 2))
    else:
        steps = b.slice(b.op("Shape", x), [1], [2], [0])
        y = b.op("Slice", x, b.op("Sub", steps, b.ints(1)), steps, b.ints(1))
    y = b.over("ReduceSum", b.op("Tanh", b.op("MatMul", y, b.weight(width, 2))), 1, keepdims=0)
    return b.case(b.gemm(y, 2, draw(st.integers(1, 3))))
