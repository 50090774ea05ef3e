"""Series with their first steps in reverse."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from .build import Builder, Case, generators, opsets

__all__ = ["reversals"]


@st.composite
def reversals(draw: Any) -> Case:
    """A series reversed up to given or computed lengths, in either layout, weighted and summed. Shrinks to full lengths."""
    b = Builder(draw(generators()), draw(opsets(least=11)))
    batch, time, width = draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(1, 3))
    x = b.series(time, batch, width)
    first = draw(st.booleans())  # batch first
    y = x if first else b.op("Transpose", x, perm=[1, 0, 2])
    if draw(st.booleans()):
        lens = b.input("lens", b.rng.integers(1, time + 1, batch).astype(np.int64), ["batch"])
    else:
        lens = b.op("Expand", b.ints(time), b.slice(b.op("Shape", x), [0], [1], [0]))
    y = b.op("ReverseSequence", y, lens, batch_axis=0 if first else 1, time_axis=1 if first else 0)
    y = y if first else b.op("Transpose", y, perm=[1, 0, 2])
    z = b.op("Tanh", b.op("Mul", b.op("MatMul", y, b.weight(width, 2)), b.weight(time, 1)))
    return b.case(b.gemm(b.over("ReduceSum", z, 1, keepdims=0), 2, draw(st.integers(1, 3))))
