"""Pooling of channels over one to three axes, in windows or over all of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from hypothesis import strategies as st
from onnx import TensorProto

from .build import Builder, Case, generators, opsets

__all__ = ["poolings"]

POOLS = ("AveragePool", "MaxPool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
DILATED = {"AveragePool": 19, "MaxPool": 10, "LpPool": 18}  # since which opset windows may have gaps
CEILED = {"AveragePool": 10, "MaxPool": 10, "LpPool": 18}


@st.composite
def poolings(draw: Any, *, op: str | None = None) -> Case:
    """One pooling of a tensor with channels before a dense layer. ``op``: one of ``POOLS`` or any. Shrinks to an AveragePool of
    windows of one entry."""
    op = op or draw(st.sampled_from(POOLS))
    # onnxruntime has no GlobalLpPool of opset 22
    b = Builder(draw(generators()), draw(opsets().filter(lambda v: op != "GlobalLpPool" or v < 22)))
    rank, channels, batch = (draw(st.integers(1, 3)) for _ in range(3))
    kernel, strides, dilations = ([draw(st.integers(1, n)) for _ in range(rank)] for n in (3, 3, 2))
    if b.opset < DILATED.get(op, 99):
        dilations = [1] * rank
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    sizes = [draw(st.integers(n, n + 2)) for n in spans]
    named = [f"s{i}" if draw(st.booleans()) else n for i, n in enumerate(sizes)]
    x = b.input("x", b.numbers(batch, channels, *sizes), ["batch", channels, *named])
    if draw(st.booleans()):
        x = b.op("Tanh", x)
    settings: dict[str, Any] = {}
    if op.endswith("LpPool"):
        settings["p"] = draw(st.integers(1, 3))
    if not op.startswith("Global"):
        settings |= {"kernel_shape": kernel, "strides": strides}
        if dilations != [1] * rank:
            settings["dilations"] = dilations
        padding = draw(st.sampled_from(["none", "pads", "VALID", "SAME_UPPER", "SAME_LOWER"]))
        if padding == "pads":
            settings["pads"] = [draw(st.integers(0, k - 1)) for k in kernel * 2]
        elif padding != "none":
            settings["auto_pad"] = padding
            if padding.startswith("SAME"):  # onnxruntime's pads are its own where windows have gaps in or between them
                settings.pop("dilations", None)
                settings["strides"] = [min(k, s) for k, s in zip(kernel, strides, strict=True)]
        if b.opset >= CEILED[op] and padding in ("none", "pads") and draw(st.booleans()):
            settings["ceil_mode"] = 1
        if op == "AveragePool" and draw(st.booleans()):
            settings["count_include_pad"] = 1
    if op == "MaxPool" and b.opset >= 10 and draw(st.booleans()):
        y, indices = b.ops(op, x, outputs=2, storage_order=draw(st.integers(0, 1)), **settings)
        within = b.op("Mod", indices, b.const(math.prod(sizes), np.int64))  # whatever channel and sample it is
        y = b.op("Add", y, b.op("Mul", b.op("Cast", within, to=TensorProto.FLOAT), b.const(np.float32(0.1))))
    else:
        y = b.op(op, x, **settings)
    if draw(st.booleans()):
        y = b.op("Relu", y)
    y = b.over("ReduceMean", y, *range(2, rank + 2), keepdims=0)
    return b.case(b.gemm(y, channels, draw(st.integers(1, 3))))
