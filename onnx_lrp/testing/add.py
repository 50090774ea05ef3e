"""Sums of signals and constants, whatever their order and broadcasting."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from .build import Builder, Case, generators, opsets

__all__ = ["sums"]


@st.composite
def sums(draw: Any) -> Case:
    """Add, Sub, Neg, Sum and Mean over dense branches and constants. Shrinks to x + constant."""
    b = Builder(draw(generators()), draw(opsets(least=9)))
    batch, width, out = (draw(st.integers(1, 3)) for _ in range(3))
    x = b.rows(batch, width)
    z = b.op("MatMul", x, b.weight(width, out))
    for op in draw(st.lists(st.sampled_from(["Add", "Sub", "Neg", "Sum", "Mean", "Tanh"]), min_size=1, max_size=4)):
        other = b.weight(*draw(st.sampled_from([(out,), (1, out), (1,), ()])))
        if draw(st.booleans()):
            other = b.op("Tanh", b.gemm(x, width, out))
        if op in ("Neg", "Tanh"):
            z = b.op(op, z)
        elif op in ("Sum", "Mean"):
            z = b.op(op, z, other, b.weight(out))
        else:
            z = b.op(op, *draw(st.sampled_from([(z, other), (other, z)])))
    return b.case(z)
