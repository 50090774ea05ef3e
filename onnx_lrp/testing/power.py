"""Powers on the path, and as normalizers beside it."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from .build import Builder, Case, generators, opsets

__all__ = ["powers"]

KINDS = ("square", "cube", "root", "per feature", "exponential", "inverse", "inverse root", "variance")


@st.composite
def powers(draw: Any, *, kind: str | None = None) -> Case:
    """Pow with constant exponents or a constant base. ``kind``: one of ``KINDS`` or any (None). Shrinks to a square."""
    kind = kind or draw(st.sampled_from(KINDS))
    b = Builder(draw(generators()), draw(opsets()))
    batch, width, hidden = (draw(st.integers(1, 3)) for _ in range(3))
    z = b.gemm(b.rows(batch, width), width, hidden)
    positive = b.op("Add", b.op("Softplus", z), b.const(np.float32(0.3)))
    if kind in ("square", "cube"):
        exponent = 2 if kind == "square" else 3
        y = b.op("Pow", z, b.const(exponent, np.int64 if b.opset >= 12 and draw(st.booleans()) else np.float32))
    elif kind == "root":
        y = b.op("Pow", positive, b.const(np.float32(0.5)))
    elif kind == "per feature":
        y = b.op("Pow", positive, b.const(np.linspace(0.5, 2, hidden), np.float32))
    elif kind == "exponential":
        y = b.op("Pow", b.const(np.float32(1.7)), z)
    elif kind == "variance":
        centred = b.op("Sub", z, b.over("ReduceMean", z, 1))
        variance = b.over("ReduceMean", b.op("Pow", centred, b.const(np.float32(2))), 1)
        y = b.op("Mul", centred, b.op("Pow", b.op("Add", variance, b.const(np.float32(0.2))), b.const(np.float32(-0.5))))
    else:
        y = b.op("Mul", z, b.op("Pow", positive, b.const(np.float32(-1 if kind == "inverse" else -0.5))))
    return b.case(b.gemm(y, hidden, draw(st.integers(1, 3))))
