"""Selections: Where by masks from the input or from lengths, Max and Min of signals and limits, triangles."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from .build import Builder, Case, generators, opsets

__all__ = ["selection_spellings", "selections"]

KINDS = ("where", "constant side", "filled side", "causal", "piecewise", "max", "limited", "clipped max", "triangle", "ids")


def _side(b: Builder, x: str, width: int, hidden: int, how: str) -> str:
    z = b.gemm(x, width, hidden)
    return z if how == "affine" else b.op("Tanh", z)


@st.composite
def selections(draw: Any, *, kind: str | None = None) -> Case:
    """One selection between dense layers. ``kind``: one of ``KINDS`` or any (None). Shrinks to Where of two signals."""
    kind = kind or draw(st.sampled_from(KINDS))
    b = Builder(draw(generators()), draw(opsets(least=14 if kind == "triangle" else 9)))
    batch, width, hidden = (draw(st.integers(1, 3)) for _ in range(3))
    if kind in ("triangle", "causal"):
        time = draw(st.integers(1, 3))
        x = b.series(time, batch, width)
        z = b.op("MatMul", x, b.weight(width, time))
        k = draw(st.integers(-1, 1))
        if kind == "triangle":
            upper = int(draw(st.booleans()))
            y = b.op("Trilu", z, b.const(k, np.int64), upper=upper) if draw(st.booleans()) else b.op("Trilu", z, upper=upper)
        else:
            y = b.op("Where", b.const(np.tril(np.ones((time, time)), k).astype(bool)), z, b.const(np.float32(-2)))
        y = b.op("Relu", y) if draw(st.booleans()) else y
        return b.case(b.gemm(b.over("ReduceSum", y, 1, keepdims=0), time, draw(st.integers(1, 3))))
    if kind == "ids":  # unknown words become word 1
        ids = b.input("x", b.rng.integers(0, 9, (batch, width)), ["batch", width])
        known = b.op("Where", b.op("Less", ids, b.const(4, np.int64)), ids, b.const(1, np.int64))
        rows = b.op("Gather", b.weight(4, hidden), known)
        return b.case(b.gemm(b.over("ReduceSum", rows, 1, keepdims=0), hidden, draw(st.integers(1, 3))))
    x = b.rows(batch, width)
    z = _side(b, x, width, hidden, draw(st.sampled_from(["affine", "tanh"])))
    other = _side(b, x, width, hidden, draw(st.sampled_from(["affine", "tanh"])))
    condition = b.op("Greater", b.gemm(x, width, hidden), b.const(np.float32(0)))
    if kind == "where":
        y = b.op("Where", condition, z, other)
    elif kind == "constant side":
        y = b.op("Where", condition, *draw(st.permutations([z, b.weight(*draw(st.sampled_from([(), (hidden,)])))])))
    elif kind == "filled side":  # zeros_like, and a computed constant with entries
        filled = b.op("ConstantOfShape", b.op("Shape", z))
        filled = b.op("Add", filled, b.weight(hidden)) if draw(st.booleans()) else filled
        y = b.op("Where", condition, z, filled)
    elif kind == "piecewise":
        negative = draw(st.sampled_from(["zero", "scaled", "elu"]))
        low = {
            "zero": lambda: b.const(np.float32(0)),
            "scaled": lambda: b.op("Mul", z, b.const(np.float32(0.1))),
            "elu": lambda: b.op("Sub", b.op("Exp", z), b.const(np.float32(1))),
        }[negative]()
        y = b.op("Where", b.op("Greater", z, b.const(np.float32(0))), z, low)
    elif kind == "max":
        y = b.op(draw(st.sampled_from(["Max", "Min"])), *draw(st.sampled_from([(z,), (z, other), (z, other, z)])))
    elif kind == "limited":
        y = b.op(draw(st.sampled_from(["Max", "Min"])), *draw(st.permutations([z, b.weight(hidden)])))
    else:
        y = b.op("Max", z, b.const(np.float32(0.1)), other, b.op("ConstantOfShape", b.op("Shape", z)))
    y = b.op("Add", y, b.gemm(x, width, hidden)) if draw(st.booleans()) else y
    y = b.op("Relu", y) if draw(st.booleans()) else y
    return b.case(b.gemm(y, hidden, draw(st.integers(1, 3))))


@st.composite
def selection_spellings(draw: Any) -> tuple[list[Any], dict[str, Any]]:
    """A selection as Where, m·a + (1 − m)·b and m·a + Cast(Not(m))·b: (models, inputs). Equal networks, equal relevance."""
    rng = draw(generators())
    batch, width, hidden = (draw(st.integers(1, 4)) for _ in range(3))
    array = rng.normal(0, 1, (batch, width)).astype(np.float32)
    weights = [rng.normal(0, 1, (width, hidden)).astype(np.float32) for _ in range(3)]
    biases = [rng.normal(0, 1, hidden).astype(np.float32) for _ in range(2)]
    last = rng.normal(0, 1, (hidden, 2)).astype(np.float32)
    tails = draw(st.lists(st.sampled_from(["Tanh", "Add"]), max_size=2))
    shapes = [draw(st.sampled_from(["affine", "Tanh", "constant"])) for _ in range(2)]
    shapes[0] = "affine" if shapes == ["constant", "constant"] else shapes[0]
    models = []
    for kind in ("where", "one minus", "not"):
        b = Builder(rng, 17)
        x = b.input("x", array, ["batch", width])
        condition = b.op("Greater", b.op("MatMul", x, b.const(weights[2])), b.const(np.float32(0)))
        sides = []
        for shape, w, c in zip(shapes, weights, biases, strict=False):
            z = b.const(c) if shape == "constant" else b.op("Add", b.op("MatMul", x, b.const(w)), b.const(c))
            sides.append(b.op("Tanh", z) if shape == "Tanh" else z)
        if kind == "where":
            y = b.op("Where", condition, *sides)
        else:
            m = b.op("Cast", condition, to=1)
            n = b.op("Sub", b.const(np.float32(1)), m) if kind == "one minus" else b.op("Cast", b.op("Not", condition), to=1)
            y = b.op("Add", b.op("Mul", m, sides[0]), b.op("Mul", sides[1], n))
        for tail in tails:
            y = b.op("Tanh", y) if tail == "Tanh" else b.op("Add", y, b.const(biases[0]))
        models.append(b.case(b.op("MatMul", y, b.const(last)))[0])
    return models, {"x": array}
