"""Entries picked by index: embeddings, one-hot vectors, and steps of a series."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from .build import Builder, Case, generators, opsets

__all__ = ["gathers"]


@st.composite
def gathers(draw: Any) -> Case:
    """Token ids into an embedding or one-hot rows, or a series read at given steps. Shrinks to an embedding of one token."""
    b = Builder(draw(generators()), draw(opsets(least=9)))
    batch, width, time = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 4))
    kind = draw(st.sampled_from(["embedding", "one-hot", "equal", "steps", "last"]))
    if kind in ("embedding", "one-hot", "equal"):
        ids = b.rng.integers(0, 5, (batch, time)).astype(draw(st.sampled_from([np.int64, np.int32])))
        tokens = b.input("tokens", ids, ["batch", "time"])
        if kind == "embedding":
            y = b.op("Gather", b.weight(5, width), tokens)
        elif kind == "equal":
            row = b.const(np.arange(5).reshape(draw(st.sampled_from([(5,), (1, 1, 5)]))), ids.dtype)
            y = b.op("Cast", b.op("Equal", *draw(st.permutations([b.over("Unsqueeze", tokens, 2), row]))), to=1)
            y = b.op("MatMul", y, b.weight(5, width))
        else:
            tokens = b.op("Cast", tokens, to=7) if ids.dtype != np.int64 else tokens
            values, axis = draw(st.sampled_from([[0, 1], [-1, 2]])), draw(st.sampled_from([-1, 2, 1, 0]))
            whole = draw(st.booleans())
            y = b.op("OneHot", tokens, b.const([5], np.int64), b.const(values, np.int64 if whole else np.float32), axis=axis)
            y = b.op("Cast", y, to=1) if whole else y
            y = b.op("Transpose", y, perm={1: [0, 2, 1], 0: [1, 2, 0]}[axis]) if axis in (0, 1) else y
            y = b.op("MatMul", y, b.weight(5, width))
        y = b.over("ReduceMean", y, 1, keepdims=0)
    elif kind == "steps":
        steps = draw(st.lists(st.integers(0, time - 1), min_size=1, max_size=4))
        y = b.op("Gather", b.series(time, batch, width), b.ints(*steps), axis=1)
        y = b.over("ReduceSum", b.op("Tanh", y), 1, keepdims=0)
    else:
        at = b.const(draw(st.sampled_from([0, -1] if b.opset >= 11 else [0])), np.int64)
        y = b.op("Gather", b.series(time, batch, width), at, axis=1)
    return b.case(b.gemm(y, width, draw(st.integers(1, 3))))
