"""Ops between quantized tensors, on the grid of :mod:`onnx_lrp.testing.quantize`, so that rounding has nothing to do."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from .build import Case, generators, opsets
from .quantize import MICROSOFT, Grid, W, X

__all__ = ["qlinears"]

KINDS = (
    "QLinearMatMul",
    "QGemm",
    "float QGemm",
    "QLinearAdd",
    "QLinearMul",
    "QLinearLeakyRelu",
    "QLinearConcat",
)


@st.composite
def qlinears(draw: Any, *, kind: str | None = None) -> Case:
    """QuantizeLinear, one or two such ops, DequantizeLinear. ``kind``: one of ``KINDS`` or any (None). Shrinks to QLinearMatMul."""
    b = Grid(draw(generators()), draw(opsets(least=10)))
    batch, width, out = (draw(st.integers(1, 3)) for _ in range(3))
    dtype, zero = draw(st.sampled_from([(np.uint8, 120), (np.int8, 0), (np.int8, -7)]))

    def scaled(scale: Any) -> tuple[str, str]:
        return b.scaled(scale, zero, dtype)

    x, at, kinds = b.op("QuantizeLinear", b.points(batch, width), *scaled(X)), X, list(KINDS)
    for name in [kind] if kind else draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=2)):
        here = (x, *scaled(at))
        if name in ("QLinearMatMul", "QGemm", "float QGemm"):
            columns = draw(st.booleans())
            scales = np.full(out, W) if columns else W
            w = (b.weights(width, out), *b.scaled(scales, np.zeros_like(scales), np.int8))
            alpha = draw(st.sampled_from([1.0, 0.5])) if name != "QLinearMatMul" else 1.0
            at *= W * alpha
            if name == "QLinearMatMul":
                x = b.op(name, *here, *w, *scaled(at))
            else:
                bias, after = b.const(b.grid(out), np.int32), () if name != "QGemm" else scaled(at)
                x = b.op("QGemm", *here, *w, bias, *after, alpha=alpha, **MICROSOFT)
            width = out
            if name == "float QGemm":
                return b.case(b.gemm(b.op("Tanh", x), width, draw(st.integers(1, 3))))
        elif name == "QLinearAdd":
            other = (b.const(b.grid(width) + zero, dtype), *scaled(at)) if draw(st.booleans()) else here
            x = b.op(name, *here, *other, *scaled(at), **MICROSOFT)
        elif name == "QLinearMul":
            other = (b.const(b.grid(width) + zero, dtype), *scaled(W)) if draw(st.booleans()) else here
            at *= at if other is here else W
            x = b.op(name, *here, *other, *scaled(at), **MICROSOFT)
        elif name == "QLinearLeakyRelu":
            at /= 2
            x = b.op(name, *here, *scaled(at), alpha=0.5, **MICROSOFT)
        else:
            rest = (b.const(b.grid(1, 2) + zero, dtype), *scaled(at))
            parts = [here, here] if draw(st.booleans()) or batch > 1 else [rest, here]
            x = b.op(name, *scaled(at), *(v for part in parts for v in part), axis=1, **MICROSOFT)
            width = 2 * width if parts[0] is here else width + 2
    y = b.op("DequantizeLinear", x, *scaled(at))
    return b.case(b.gemm(y, width, draw(st.integers(1, 3))) if draw(st.booleans()) else y)
