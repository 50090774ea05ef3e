"""Products: with constants, gates, masks and normalizers, of two signals, and attention."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from .build import Builder, Case, generators, opsets

__all__ = ["products"]

KINDS = (
    "constant",
    "divided",
    "gate",
    "gate first",
    "two gates",
    "signals",
    "mask",
    "normalizer",
    "attention",
    "softmax written out",
    "matmul",
)


@st.composite
def products(draw: Any, *, kind: str | None = None) -> Case:
    """One product in the middle of a dense model. ``kind``: one of ``KINDS`` or any (None). Shrinks to a constant factor."""
    kind = kind or draw(st.sampled_from(KINDS))
    b = Builder(draw(generators()), draw(opsets(least=9)))
    batch, width, hidden = (draw(st.integers(1, 3)) for _ in range(3))
    if kind in ("attention", "softmax written out", "matmul"):
        x = b.series(draw(st.integers(1, 3)), batch, width)
        keys = b.op("Transpose", b.op("MatMul", x, b.weight(width, hidden)), perm=[0, 2, 1])
        scores = b.op("MatMul", b.op("MatMul", x, b.weight(width, hidden)), keys)
        gate = (
            _softmax(b, scores)
            if kind.startswith("softmax")
            else (b.op("Softmax", scores, axis=2) if kind == "attention" else b.op("Tanh", scores))
        )
        y = b.op("MatMul", gate, b.op("MatMul", x, b.weight(width, hidden)))
        return b.case(b.gemm(b.over("ReduceMean", y, 1, keepdims=0), hidden, draw(st.integers(1, 3))))
    x = b.rows(batch, width)
    z, other = b.gemm(x, width, hidden), b.gemm(x, width, hidden)
    if kind == "constant":
        y = b.op("Mul", *draw(st.permutations([z, b.weight(hidden)])))
    elif kind == "divided":
        y = b.op("Div", z, b.const(np.abs(b.numbers(hidden)) + 0.5))
    elif kind == "gate":
        y = b.op("Mul", b.op("Tanh", z), b.op("Sigmoid", other))
    elif kind == "gate first":
        y = b.op("Mul", b.op("HardSigmoid", other), z)
    elif kind == "two gates":
        y = b.op("Mul", b.op("Sigmoid", z), b.op("Sigmoid", other))
    elif kind == "signals":
        y = b.op("Mul", z, b.op("Tanh", other))
    elif kind == "mask":
        mask = b.op("Cast", b.op("Greater", other, b.const(np.float32(0))), to=1)
        y = b.op("Mul", b.op("Tanh", z), mask)
    else:
        y = b.op("Div", z, b.op("Add", b.op("Abs", other), b.const(np.float32(1))))
    return b.case(b.gemm(y, hidden, draw(st.integers(1, 3))))


def _softmax(b: Builder, scores: str) -> str:
    """As attention layers write it: eˣ, the sum over keys, a small number so that no sum is zero."""
    terms = b.op("Exp", b.op("Sub", scores, b.over("ReduceMax", scores, 2)))
    return b.op("Div", terms, b.op("Add", b.over("ReduceSum", terms, 2), b.const(np.float32(1e-7))))
