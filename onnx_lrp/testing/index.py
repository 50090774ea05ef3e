"""Entries picked or overwritten by computed places."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from .build import Builder, Case, generators, opsets

__all__ = ["indexings"]

SCATTERS = ("add", "max", "min", "mul")
KINDS = (
    *("elements", "tuples", "batched tuples", "last step", "compress"),
    *("scatter", *(f"scatter {r}" for r in SCATTERS), "scatter tuples", *(f"{r} tuples" for r in SCATTERS)),
)


@st.composite
def indexings(draw: Any, *, kind: str | None = None) -> Case:
    """One indexing op on a series between two dense layers. ``kind``: one of ``KINDS`` or any (None). Shrinks to GatherElements."""
    kind = kind or draw(st.sampled_from(KINDS))
    reduction = next((r for r in SCATTERS if r in kind.split()), "none")
    since = {"none": 11, "add": 17, "mul": 17, "max": 18, "min": 18}[reduction]
    least = 13 if kind == "batched tuples" else since
    reducing = {} if reduction == "none" else {"reduction": reduction}
    b = Builder(draw(generators()), draw(opsets(least=least)))
    batch, time, width, count = (draw(st.integers(1, 3)) for _ in range(4))
    x = b.series(time, batch, width)
    z = b.op("MatMul", x, b.weight(width, 2))
    z = b.op("Tanh", z) if draw(st.booleans()) else z
    shape = b.op("Shape", x)
    rows = b.slice(shape, [0], [1], [0])

    def integers(high: int, *size: int) -> np.ndarray:
        return b.rng.integers(-high, high, size).astype(np.int64)

    def per_sample(array: np.ndarray) -> str:
        """A constant (1, …) repeated for every sample."""
        return b.op("Expand", b.const(array[None]), b.op("Concat", rows, b.ints(*array.shape), axis=0))

    if kind == "elements":
        y = b.op("GatherElements", z, per_sample(integers(time, count, 2)), axis=draw(st.sampled_from([1, -2])))
    elif kind == "tuples":
        samples = b.op("Range", b.const(0, np.int64), b.over("Squeeze", rows, 0), b.const(1, np.int64))
        samples = b.op("Reshape", samples, b.ints(-1, 1, 1))
        samples = b.op("Expand", samples, b.op("Concat", rows, b.ints(count, 1), axis=0))
        y = b.op("GatherND", z, b.op("Concat", samples, per_sample(integers(time, count, 1)), axis=2))
    elif kind == "batched tuples":
        y = b.op("GatherND", z, per_sample(integers(time, count, 1)), batch_dims=1)
    elif kind == "last step":
        lens = b.input("lens", b.rng.integers(1, time + 1, batch).astype(np.int64), ["batch"])
        samples = b.op("Range", b.const(0, np.int64), b.over("Squeeze", rows, 0), b.const(1, np.int64))
        last = b.op("Sub", lens, b.const(1, np.int64))
        pairs = b.op("Concat", *(b.over("Unsqueeze", v, 1) for v in (samples, last)), axis=1)
        y = b.over("Unsqueeze", b.op("GatherND", z, pairs), 1)
    elif kind.startswith("scatter") and kind != "scatter tuples":
        indices = per_sample(integers(time, count, 2))
        new = b.op("Expand", b.const(b.numbers(1, count, 2)), b.op("Shape", indices))
        if reduction != "mul" and draw(st.booleans()):
            new = b.op("MatMul", b.over("ReduceSum", x, 1, keepdims=1), b.weight(width, 2))
            new = b.op("Expand", new, b.op("Shape", indices))
            if reducing and draw(st.booleans()):  # into a constant
                z = b.op("Expand", b.const(b.numbers(1, time, 2)), b.op("Shape", z))
        if kind == "scatter":  # onnxruntime leaves open which of two updates wins
            order = np.argsort(b.rng.random((time, 2)), axis=0)[:1]
            indices = per_sample(order.astype(np.int64))
            new = b.slice(new, [0], [1], [1])
        y = b.op("ScatterElements", z, indices, new, axis=1, **reducing)
    elif kind.endswith("tuples"):
        step = per_sample(integers(time, 1, 1))
        samples = b.op("Range", b.const(0, np.int64), b.over("Squeeze", rows, 0), b.const(1, np.int64))
        places = b.op("Concat", b.op("Reshape", samples, b.ints(-1, 1, 1)), step, axis=2)
        new = b.op("MatMul", b.over("ReduceSum", x, 1, keepdims=1), b.weight(width, 2))
        if reduction == "mul":
            new = b.op("Expand", b.weight(1, 1, 2), b.op("Concat", rows, b.ints(1, 2), axis=0))
        y = b.op("ScatterND", z, places, new, **reducing)
    else:
        wanted = b.rng.random(time) < 0.5
        wanted[0] = True
        condition = b.const(wanted)
        if draw(st.booleans()):  # all but the last step, if there are more
            steps = b.over("Squeeze", b.slice(shape, [1], [2], [0]), 0)
            places = b.op("Range", b.const(0, np.int64), steps, b.const(1, np.int64))
            condition = b.op("Less", places, b.const(max(1, time - 1), np.int64))
        y = b.op("Compress", z, condition, axis=draw(st.sampled_from([1, -2])))
    y = b.op("Tanh", y)
    return b.case(b.gemm(b.over("ReduceSum", y, 1, keepdims=0), 2, draw(st.integers(1, 3))))
