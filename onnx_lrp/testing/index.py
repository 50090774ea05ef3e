"""Entries picked by computed places or conditions."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from .build import Builder, Case, generators, opsets

__all__ = ["indexings"]

KINDS = ("elements", "tuples", "batched tuples", "last step", "compress")


class Places:
    """A series (B, T, 2) between two dense layers, and constant places in it, the same for every sample."""

    def __init__(self, draw: Any, least: int) -> None:
        self.b = b = Builder(draw(generators()), draw(opsets(least=least)))
        batch, self.time, self.width, self.count = (draw(st.integers(1, 3)) for _ in range(4))
        self.batch = batch
        self.x = b.series(self.time, batch, self.width)
        z = b.op("MatMul", self.x, b.weight(self.width, 2))
        self.z = b.op("Tanh", z) if draw(st.booleans()) else z
        self.shape = b.op("Shape", self.x)
        self.rows = b.slice(self.shape, [0], [1], [0])

    def integers(self, high: int, *size: int) -> np.ndarray:
        """Places on an axis of length ``high``, from both ends."""
        return self.b.rng.integers(-high, high, size).astype(np.int64)

    def per_sample(self, array: np.ndarray) -> str:
        """A constant (1, …) repeated for every sample."""
        b = self.b
        return b.op("Expand", b.const(array[None]), b.op("Concat", self.rows, b.ints(*array.shape), axis=0))

    def samples(self) -> str:
        """The samples' numbers (B,)."""
        b = self.b
        return b.op("Range", b.const(0, np.int64), b.over("Squeeze", self.rows, 0), b.const(1, np.int64))

    def case(self, draw: Any, y: str) -> Case:
        """The model that goes on behind ``y`` (B, ·, 2)."""
        b = self.b
        y = b.op("Tanh", y)
        return b.case(b.gemm(b.over("ReduceSum", y, 1, keepdims=0), 2, draw(st.integers(1, 3))))


@st.composite
def indexings(draw: Any, *, kind: str | None = None) -> Case:
    """Entries of a series between two dense layers. ``kind``: one of ``KINDS`` or any (None). Shrinks to GatherElements."""
    kind = kind or draw(st.sampled_from(KINDS))
    p = Places(draw, 13 if kind == "batched tuples" else 11)
    b, z, time, count = p.b, p.z, p.time, p.count
    if kind == "elements":
        y = b.op("GatherElements", z, p.per_sample(p.integers(time, count, 2)), axis=draw(st.sampled_from([1, -2])))
    elif kind == "tuples":
        samples = b.op("Reshape", p.samples(), b.ints(-1, 1, 1))
        samples = b.op("Expand", samples, b.op("Concat", p.rows, b.ints(count, 1), axis=0))
        y = b.op("GatherND", z, b.op("Concat", samples, p.per_sample(p.integers(time, count, 1)), axis=2))
    elif kind == "batched tuples":
        y = b.op("GatherND", z, p.per_sample(p.integers(time, count, 1)), batch_dims=1)
    elif kind == "last step":
        lens = b.input("lens", b.rng.integers(1, time + 1, p.batch).astype(np.int64), ["batch"])
        last = b.op("Sub", lens, b.const(1, np.int64))
        pairs = b.op("Concat", *(b.over("Unsqueeze", v, 1) for v in (p.samples(), last)), axis=1)
        y = b.over("Unsqueeze", b.op("GatherND", z, pairs), 1)
    else:
        wanted = b.rng.random(time) < 0.5
        wanted[0] = True
        condition = b.const(wanted)
        if draw(st.booleans()):  # all but the last step, if there are more
            steps = b.over("Squeeze", b.slice(p.shape, [1], [2], [0]), 0)
            places = b.op("Range", b.const(0, np.int64), steps, b.const(1, np.int64))
            condition = b.op("Less", places, b.const(max(1, time - 1), np.int64))
        y = b.op("Compress", z, condition, axis=draw(st.sampled_from([1, -2])))
    return p.case(draw, y)
