"""The same entries in another shape or precision."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from onnx import TensorProto

from .build import Builder, Case, generators, opsets

__all__ = ["reshapes"]


@st.composite
def reshapes(draw: Any) -> Case:
    """Reshape, Flatten, Squeeze, Unsqueeze, Identity, Dropout, Cast between two dense layers. Shrinks to one Identity."""
    b = Builder(draw(generators()), draw(opsets()))
    batch, width, hidden = draw(st.integers(1, 3)), draw(st.integers(1, 3)), 2 * draw(st.integers(1, 2))
    z = b.op("Tanh", b.gemm(b.rows(batch, width), width, hidden))
    kinds = ["Identity", "Reshape", "zero", "Flatten", "Squeeze", "Dropout", "Cast", *(["CastLike"] if b.opset >= 15 else [])]
    for kind in draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=3)):
        if kind == "Reshape":
            z = b.op("Reshape", b.op("Reshape", z, b.ints(-1, 2, hidden // 2)), b.ints(-1, hidden))
        elif kind == "zero":
            z = b.op("Reshape", b.op("Reshape", z, b.ints(0, hidden // 2, 2)), b.ints(0, -1))
        elif kind == "Flatten":
            z = b.op("Flatten", b.op("Reshape", z, b.ints(-1, 1, 2, hidden // 2)))
        elif kind == "Squeeze":
            axis = draw(st.sampled_from([0, 1, 2]))
            z = b.over("Squeeze", b.over("Unsqueeze", z, axis), axis)
        elif kind == "Cast":
            z = b.op("Cast", b.op("Cast", z, to=TensorProto.DOUBLE), to=TensorProto.FLOAT)
        elif kind == "CastLike":
            z = b.op("CastLike", b.op("CastLike", z, b.const(1, np.float64)), b.const(1, np.float32))
        else:
            z = b.op(kind, z)
    return b.case(b.gemm(z, hidden, draw(st.integers(1, 3))))
