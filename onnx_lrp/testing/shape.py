"""Shape arithmetic around the path: relevance stops at every shape."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from onnx import TensorProto, numpy_helper

from .build import Builder, Case, generators, opsets

__all__ = ["shapes"]


@st.composite
def shapes(draw: Any) -> Case:
    """Shapes, sizes, ranges and filled tensors computed from the input and used beside the path. Shrinks to a Reshape."""
    kind = draw(st.sampled_from(["reshape", "filled", "positions", "size", "eye"]))
    b = Builder(draw(generators()), draw(opsets(least=11)))
    batch, time, width = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    x = b.series(time, batch, width)
    if b.opset >= 15:
        count, steps = b.op("Shape", x, start=0, end=1), b.op("Shape", x, start=1, end=2)
    else:
        shape = b.op("Shape", x)
        count, steps = b.slice(shape, [0], [1], [0]), b.slice(shape, [1], [2], [0])
    z = b.op("MatMul", x, b.weight(width, 2))
    if kind == "reshape":
        z = b.op("Reshape", z, b.op("Concat", count, steps, b.ints(2), axis=0))
    elif kind == "filled":
        fill = numpy_helper.from_array(np.asarray([0.5], np.float32))
        z = b.op("Add", z, b.op("ConstantOfShape", b.op("Concat", count, steps, b.ints(2), axis=0), value=fill))
    elif kind == "positions":
        zero, one = b.const(0, np.int64), b.const(1, np.int64)
        places = b.op("Cast", b.op("Range", zero, b.over("Squeeze", steps, 0), one), to=TensorProto.FLOAT)
        z = b.op("Add", z, b.over("Unsqueeze", places, 1))
    elif kind == "eye":
        like = b.op("ConstantOfShape", b.op("Concat", steps, b.ints(2), axis=0))
        z = b.op("Add", z, b.op("EyeLike", like, k=draw(st.sampled_from([0, 1, -1]))))
    else:
        z = b.op("Div", z, b.op("Cast", b.op("Size", steps), to=TensorProto.FLOAT))
    return b.case(b.gemm(b.over("ReduceSum", b.op("Tanh", z), 1, keepdims=0), 2, draw(st.integers(1, 3))))
