"""Probabilities: a last softmax, which relevance starts before, and one in the middle."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from .build import Builder, Case, generators, opsets

__all__ = ["softmaxes"]


@st.composite
def softmaxes(draw: Any) -> Case:
    """Softmax or LogSoftmax at the end, maybe with ArgMax beside or behind it, or as a gate inside. Shrinks to a last Softmax."""
    b = Builder(draw(generators()), draw(opsets()))
    batch, width, classes = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 4))
    z = b.gemm(b.rows(batch, width), width, classes)
    kind = draw(st.sampled_from(["Softmax", "LogSoftmax", "gate", "label", "hard gate"]))
    if kind in ("gate", "hard gate"):
        y = b.op("Mul", b.op("Softmax" if kind == "gate" else "Hardmax", z, axis=1), b.op("Tanh", z))
        return b.case(b.gemm(y, classes, draw(st.integers(1, 3))))
    p = b.op("Softmax" if kind == "label" else kind, z, **({"axis": 1} if draw(st.booleans()) else {}))
    if kind == "label":
        b.op("ArgMax", p, axis=1, keepdims=0)
    return b.case(p)
