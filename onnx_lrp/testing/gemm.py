"""Dense layers in every spelling, and rewritings of one spelling into another."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from .build import Builder, Case, generators, opsets

__all__ = ["dense", "dense_spellings", "gemm_forms"]

SPELLINGS = ("gemm", "transposed", "scaled", "matmul", "bias last", "bias first", "two biases", "left", "batched")


@st.composite
def dense(draw: Any) -> Case:
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
    if kind == "weights left":  # as onnxruntime writes a MatMul with the weights on the left
        columns = b.op("Gemm", b.const(w), x, b.const(c[:, None]), transA=1, transB=1)
        return b.op("Transpose", columns, perm=[1, 0])
    if kind == "turned":
        return b.op("Gemm", b.op("Transpose", x, perm=[1, 0]), b.const(w), b.const(c), transA=1)
    z = b.op("MatMul", x, b.const(w))
    if kind == "bias last":
        return b.op("Add", z, b.const(c))
    if kind == "bias first":
        return b.op("Add", b.const(c), z)
    if kind == "two biases":
        return b.op("Add", b.op("Add", b.const(c / 2), z), b.const(c / 2))
    return z


FORMS = ("left", "left transposed", "right transposed", "coefficient", "gate", "signals", "signals transposed")


@st.composite
def gemm_forms(draw: Any, *, form: str | None = None) -> Case:
    """One Gemm in the middle with constant, computed or no C. ``form``: what its factors are. Shrinks to weights on the left."""
    form = form or draw(st.sampled_from(FORMS))
    b = Builder(draw(generators()), draw(opsets(least=9)))
    batch, width, hidden = (draw(st.integers(1, 3)) for _ in range(3))
    x = b.rows(batch, width)
    z = b.op("Tanh", x) if draw(st.booleans()) else b.op("Add", b.op("MatMul", x, b.weight(width, width)), b.weight(width))
    across = b.op("Transpose", z, perm=[1, 0])
    scale = {"alpha": 0.7, "beta": draw(st.sampled_from([1.0, -1.3, 0.0]))} if draw(st.booleans()) else {}
    flipped = form.startswith("left")
    last = b.op("Transpose", b.op("MatMul", x, b.weight(width, hidden)), perm=[1, 0]) if flipped else None
    shape = (hidden, 1) if flipped else (hidden,)
    c = draw(st.sampled_from(["constant", "scalar", "computed", "filled"] + (["none"] if b.opset >= 11 else [])))
    if c == "filled":
        filled = b.op("ConstantOfShape", b.op("Shape", last or b.op("MatMul", x, b.weight(width, hidden))))
        addend = b.op("Add", filled, b.weight(1))
    elif c == "computed":
        addend = last or b.op("MatMul", x, b.weight(width, hidden))
    else:
        addend = "" if c == "none" else b.weight(*(shape if c == "constant" else ()))
    more = [addend] if addend else []
    if form == "left":  # (H, W) @ (W, B)
        y = b.op("Gemm", b.weight(hidden, width), across, *more, **scale)
    elif form == "left transposed":
        y = b.op("Gemm", b.weight(width, hidden), z, *more, transA=1, transB=1, **scale)
    elif form == "right transposed":
        y = b.op("Gemm", across, b.weight(hidden, width), *more, transA=1, transB=1, **scale)
    elif form == "coefficient":  # computed, but not from the values of the input
        rows = b.op("ConstantOfShape", b.slice(b.op("Shape", x), [1], [2], [0]))
        w = b.op("Add", b.over("Unsqueeze", rows, 1), b.weight(width, hidden))
        y = b.op("Gemm", z, w, *more, **scale)
    else:  # the samples meet one another, so everything is one sample
        n = draw(st.integers(1, 2))
        fixed = b.input("u", b.numbers(n, width), [n, width])
        other = b.op("MatMul", b.op("Transpose", fixed, perm=[1, 0]), b.weight(n, hidden))  # (W, H)
        if form == "gate":
            y = b.op("Gemm", z, b.op("Sigmoid", other), *more, **scale)
        elif form == "signals":
            y = b.op("Gemm", z, other, *more, **scale)
        else:
            y = b.op("Gemm", z, b.op("Transpose", other, perm=[1, 0]), *more, transB=1, **scale)
    y = b.op("Transpose", y, perm=[1, 0]) if flipped else y
    y = b.op("Relu", y) if draw(st.booleans()) else y
    return b.case(b.op("MatMul", y, b.weight(hidden, draw(st.integers(1, 3)))))


@st.composite
def dense_spellings(draw: Any) -> tuple[list[Any], dict[str, np.ndarray]]:
    """The same two dense layers in every spelling: (models, inputs). Equal networks must get equal relevance."""
    rng = draw(generators())
    batch, width, hidden, out = (draw(st.integers(1, 4)) for _ in range(4))
    x = rng.normal(0, 1, (batch, width)).astype(np.float32)
    w, v = (rng.normal(0, 1, s).astype(np.float32) for s in ((width, hidden), (hidden, out)))
    c, d = (rng.normal(0, 1, n).astype(np.float32) for n in (hidden, out))
    models = []
    for kind in ("gemm", "transposed", "scaled", "weights left", "turned", "bias last", "bias first", "two biases"):
        b = Builder(rng, 13)
        name = b.input("x", x, ["batch", width])
        models.append(b.case(spell(b, kind, b.op("Tanh", spell(b, kind, name, w, c)), v, d))[0])
    return models, {"x": x}
