"""Scales and shifts per channel."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from .build import Builder, Case, generators, opsets

__all__ = ["normalizations"]


@st.composite
def normalizations(draw: Any) -> Case:
    """BatchNormalization of channels over time, or of plain rows, before or behind other layers. Shrinks to rows."""
    b = Builder(draw(generators()), draw(opsets()))
    batch, time, width = (draw(st.integers(1, 3)) for _ in range(3))
    series = draw(st.booleans())
    x = b.series(time, batch, width) if series else b.rows(batch, width)
    y = b.op("Transpose", x, perm=[0, 2, 1]) if series else x
    if draw(st.booleans()):
        y = b.op("Tanh", y)
    variance = b.const(b.rng.uniform(0.2, 2, width).astype(np.float32))
    statistics = [b.weight(width), b.weight(width), b.weight(width), variance]
    y = b.op("BatchNormalization", y, *statistics, epsilon=draw(st.sampled_from([1e-5, 0.1])))
    if draw(st.booleans()):
        y = b.op("Relu", y)
    if series:
        y = b.over("ReduceMean", y, 2, keepdims=0)
    return b.case(b.gemm(y, width, draw(st.integers(1, 3))))
