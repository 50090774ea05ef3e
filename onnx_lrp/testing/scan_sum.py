"""Running sums along an axis."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from .build import Builder, Case, generators, opsets

__all__ = ["running_sums"]


@st.composite
def running_sums(draw: Any) -> Case:
    """CumSum over time or features in the middle of a dense model. Shrinks to a plain running sum over one step."""
    b = Builder(draw(generators()), draw(opsets(least=11)))
    batch, time, width = (draw(st.integers(1, 3)) for _ in range(3))
    x = b.series(time, batch, width)
    x = b.op("Tanh", b.op("MatMul", x, b.weight(width, width))) if draw(st.booleans()) else x
    settings = {k: int(draw(st.booleans())) for k in ("exclusive", "reverse")}
    axis = draw(st.sampled_from([1, 2, -1]))
    y = b.op("CumSum", x, b.const(axis, draw(st.sampled_from([np.int32, np.int64]))), **settings)
    y = b.op("Relu", y) if draw(st.booleans()) else y
    return b.case(b.gemm(b.over("ReduceMean", y, 1, keepdims=0), width, draw(st.integers(1, 3))))
