"""Dense layers in every spelling, and rewritings of one spelling into another."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from .build import Builder, Case, generators, opsets

__all__ = ["dense_spellings", "gemms"]

SPELLINGS = ("gemm", "transposed", "scaled", "matmul", "bias last", "bias first", "two biases", "left", "batched")


@st.composite
def gemms(draw: Any) -> Case:
    """One to three dense layers, each in a spelling of its own. Shrinks to one Gemm."""
    b = Builder(draw(generators()), draw(opsets()))
    batch, width = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    flat = draw(st.booleans())
    time = 1 if flat else draw(st.integers(1, 3))
    x = b.rows(batch, width) if flat else b.series(time, batch, width)
    for _ in range(draw(st.integers(1, 3))):
        out = draw(st.integers(1, 4))
        kinds = SPELLINGS[:-2] if flat else SPELLINGS[3:]
        x = _layer(b, draw(st.sampled_from(kinds)), x, width, out, time, absent=draw(st.booleans()))
        x, width = (b.op("Relu", x) if draw(st.booleans()) else x), out
    return b.case(x if flat else b.over("ReduceSum", x, 1, keepdims=0))


def _layer(b: Builder, kind: str, x: str, width: int, out: int, time: int, *, absent: bool) -> str:
    w, c = b.numbers(width, out), b.numbers(out)
    if kind == "left":
        x = b.op("MatMul", b.weight(time, time), x)
    if kind == "batched":
        return b.op("MatMul", x, b.const(np.stack([w] * 1)))
    if kind == "gemm" and absent and b.opset >= 11:
        return b.op("Gemm", x, b.const(w))
    if kind == "scaled" and absent:
        return b.op("Gemm", x, b.const(w), b.const(c[:1]), alpha=0.7, beta=-1.3)
    return spell(b, kind, x, w, c)


def spell(b: Builder, kind: str, x: str, w: np.ndarray, c: np.ndarray) -> str:
    """x w + c (``matmul``, ``batched``: without c) in one of the spellings."""
    if kind == "gemm":
        return b.op("Gemm", x, b.const(w), b.const(c))
    if kind == "transposed":
        return b.op("Gemm", x, b.const(w.T), b.const(c), transB=1)
    if kind == "scaled":
        return b.op("Gemm", x, b.const(w / 2), b.const(c / 4), alpha=2.0, beta=4.0)
    z = b.op("MatMul", x, b.const(w))
    if kind == "bias last":
        return b.op("Add", z, b.const(c))
    if kind == "bias first":
        return b.op("Add", b.const(c), z)
    if kind == "two biases":
        return b.op("Add", b.op("Add", b.const(c / 2), z), b.const(c / 2))
    return z


@st.composite
def dense_spellings(draw: Any) -> tuple[list[Any], dict[str, np.ndarray]]:
    """The same two dense layers in every spelling: (models, inputs). Equal networks must get equal relevance."""
    rng = draw(generators())
    batch, width, hidden, out = (draw(st.integers(1, 4)) for _ in range(4))
    x = rng.normal(0, 1, (batch, width)).astype(np.float32)
    w, v = (rng.normal(0, 1, s).astype(np.float32) for s in ((width, hidden), (hidden, out)))
    c, d = (rng.normal(0, 1, n).astype(np.float32) for n in (hidden, out))
    models = []
    for kind in ("gemm", "transposed", "scaled", "bias last", "bias first", "two biases"):
        b = Builder(rng, 13)
        name = b.input("x", x, ["batch", width])
        models.append(b.case(spell(b, kind, b.op("Tanh", spell(b, kind, name, w, c)), v, d))[0])
    return models, {"x": x}
