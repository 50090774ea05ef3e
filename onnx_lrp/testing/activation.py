"""Dense models with any unary activation in the middle."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from .build import Builder, Case, generators, opsets

__all__ = ["activations"]

# op → (opset it came with, attributes it may have)
OPS: dict[str, tuple[int, dict[str, float]]] = {
    "Abs": (7, {}),
    "Acos": (7, {}),
    "Acosh": (9, {}),
    "Asin": (7, {}),
    "Asinh": (9, {}),
    "Atan": (7, {}),
    "Atanh": (9, {}),
    "Celu": (13, {"alpha": 0.6}),
    "Clip": (7, {}),
    "Cos": (7, {}),
    "Cosh": (9, {}),
    "Elu": (7, {"alpha": 0.7}),
    "Erf": (9, {}),
    "Exp": (7, {}),
    "Gelu": (20, {}),
    "HardSigmoid": (7, {"alpha": 0.3, "beta": 0.4}),
    "HardSwish": (14, {}),
    "LeakyRelu": (7, {"alpha": 0.2}),
    "Log": (7, {}),
    "Mish": (18, {}),
    "Reciprocal": (7, {}),
    "Relu": (7, {}),
    "Selu": (7, {"alpha": 1.5, "gamma": 1.1}),
    "Sigmoid": (7, {}),
    "Sign": (9, {}),
    "Sin": (7, {}),
    "Sinh": (9, {}),
    "Softplus": (7, {}),
    "Softsign": (7, {}),
    "Sqrt": (7, {}),
    "Tan": (7, {}),
    "Tanh": (7, {}),
    "ThresholdedRelu": (11, {"alpha": 0.3}),
}
INSIDE = {"Acos", "Asin", "Atanh", "Log", "Sqrt", "Tan"}  # defined, and tame, on (0, 1)


@st.composite
def activations(draw: Any, *, op: str | None = None) -> Case:
    """Gemm, activation, Gemm. ``op``: which activation, or any (None). Shrinks to the first by name with default attributes."""
    name = op or draw(st.sampled_from(sorted(OPS)))
    least, defaults = OPS[name]
    b = Builder(draw(generators()), draw(opsets(least=least)))
    batch, width, hidden = (draw(st.integers(1, 3)) for _ in range(3))
    z = b.gemm(b.rows(batch, width), width, hidden)
    if name in INSIDE:
        z = b.op("Sigmoid", z)
        if name == "Atanh":  # saturated sigmoids are 1 in float32
            z = b.op("Mul", z, b.const(np.float32(0.9)))
    elif name == "Acosh":
        z = b.op("Add", b.op("Softplus", z), b.const(np.float32(1.1)))
    attributes = defaults if defaults and draw(st.booleans()) else {}
    if name == "Clip":
        bounds = {"min": -0.4, "max": 0.6}
        a = b.op("Clip", z, *(b.const(np.float32(v)) for v in bounds.values())) if b.opset >= 11 else b.op("Clip", z, **bounds)
    elif name == "Gelu":
        a = b.op("Gelu", z, approximate=draw(st.sampled_from(["none", "tanh"])))
    elif name == "Reciprocal":  # a normalizer beside the path
        a = b.op("Mul", z, b.op("Reciprocal", b.op("Add", b.op("Softplus", z), b.const(np.float32(1)))))
    else:
        a = b.op(name, z, **attributes)
    return b.case(b.gemm(a, hidden, draw(st.integers(1, 3))))
