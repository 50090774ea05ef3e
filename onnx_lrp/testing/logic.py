"""Masks from comparisons and logic, and integer arithmetic in front of an embedding."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from .build import Builder, Case, generators, opsets

__all__ = ["conditions"]

COMPARISONS = ("Greater", "Less", "Equal", "GreaterOrEqual", "LessOrEqual")


@st.composite
def conditions(draw: Any) -> Case:
    """A dense layer masked by conditions on its input, or an embedding of ids that were computed. Shrinks to one comparison."""
    kind = draw(st.sampled_from(["compare", "combine", "nan", "mod", "bits", "float mod"]))
    b = Builder(draw(generators()), draw(opsets(least=18 if kind == "bits" else 13)))
    batch, width, hidden = (draw(st.integers(1, 3)) for _ in range(3))
    if kind in ("mod", "bits"):
        ids = b.rng.integers(0, 40, (batch, width)).astype(np.int32)
        x = b.input("x", ids, ["batch", width])
        three = b.const(3, np.int32)
        if kind == "mod":
            rows = b.op("Mod", x, three, fmod=int(draw(st.booleans())))
        else:
            op = draw(st.sampled_from(["BitwiseAnd", "BitwiseNot"]))
            rows = b.op("BitwiseAnd", x if op == "BitwiseAnd" else b.op("BitwiseNot", x), three)
        table = b.op("Gather", b.weight(4, hidden), rows)
        return b.case(b.gemm(b.over("ReduceSum", table, 1, keepdims=0), hidden, draw(st.integers(1, 3))))
    x = b.rows(batch, width)
    z = b.gemm(x, width, hidden)
    if kind == "float mod":
        y = b.op("Add", z, b.op("Mod", z, b.const(np.float32(0.7)), fmod=1))
        return b.case(b.gemm(b.op("Tanh", y), hidden, draw(st.integers(1, 3))))
    first = b.op(draw(st.sampled_from(COMPARISONS)), z, b.weight(hidden))
    if kind == "combine":
        second = b.op("Less", z, b.const(np.float32(0.5)))
        first = b.op("Not", b.op(draw(st.sampled_from(["And", "Or", "Xor"])), first, second))
    elif kind == "nan":
        first = b.op("Or", first, b.op(draw(st.sampled_from(["IsNaN", "IsInf"])), z))
    y = b.op("Mul", b.op("Tanh", z), b.op("Cast", first, to=1))
    return b.case(b.gemm(y, hidden, draw(st.integers(1, 3))))
