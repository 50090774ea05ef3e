"""Dense models with any unary activation in the middle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

from .build import Builder, Case, generators, opsets

__all__ = ["activation_spellings", "activations"]

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
    "Ceil": (7, {}),
    "Clip": (7, {}),
    "Cos": (7, {}),
    "Cosh": (9, {}),
    "Elu": (7, {"alpha": 0.7}),
    "Erf": (9, {}),
    "Exp": (7, {}),
    "Floor": (7, {}),
    "Gelu": (20, {}),
    "HardSigmoid": (7, {"alpha": 0.3, "beta": 0.4}),
    "HardSwish": (14, {}),
    "LeakyRelu": (7, {"alpha": 0.2}),
    "Log": (7, {}),
    "Mish": (18, {}),
    "PRelu": (7, {}),
    "Reciprocal": (7, {}),
    "Relu": (7, {}),
    "Round": (11, {}),
    "Selu": (7, {"alpha": 1.5, "gamma": 1.1}),
    "Shrink": (9, {"bias": 0.1, "lambd": 0.2}),
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
        a = _clip(b, z, draw(st.sampled_from(["both", "low", "high", "computed"])))
    elif name == "PRelu":
        slope = b.weight(*draw(st.sampled_from([(hidden,), (1, hidden), (1,)])))
        if b.opset >= 9 and draw(st.booleans()):  # computed, but not from the values of the input
            slope = b.op("Add", slope, b.op("ConstantOfShape", b.op("Shape", z)))
        a = b.op("PRelu", z, slope)
    elif name == "Gelu":
        a = b.op("Gelu", z, approximate=draw(st.sampled_from(["none", "tanh"])))
    elif name == "Reciprocal":  # a normalizer beside the path
        a = b.op("Mul", z, b.op("Reciprocal", b.op("Add", b.op("Softplus", z), b.const(np.float32(1)))))
    else:
        a = b.op(name, z, **attributes)
    return b.case(b.gemm(a, hidden, draw(st.integers(1, 3))))


def _clip(b: Builder, z: str, bounds: str) -> str:
    low, high = -0.4, 0.6
    if b.opset < 11:
        return b.op("Clip", z, **({} if bounds == "high" else {"min": low}), **({} if bounds == "low" else {"max": high}))
    ends = ["" if bounds == "high" else b.const(np.float32(low)), "" if bounds == "low" else b.const(np.float32(high))]
    if bounds == "computed":
        ends[1] = b.op("Cast", b.over("Squeeze", b.slice(b.op("Shape", z), [1], [2], [0]), 0), to=1)
    return b.op("Clip", z, *ends)


@st.composite
def activation_spellings(draw: Any) -> tuple[list[Any], dict[str, np.ndarray]]:
    """An activation as one node and written out in several orders: (models, inputs). In double, so that 1/6 and √2 are one number.
    Equal networks, equal relevance.

    The first model is the fused one where the standard has one. Shrinks to SiLU.
    """
    kind = draw(st.sampled_from(sorted(IDIOMS)))
    rng = draw(generators())
    batch, width, hidden = (draw(st.integers(1, 4)) for _ in range(3))
    array = rng.normal(0, 1, (batch, width))
    w, v = (rng.normal(0, 1, s) for s in ((width, hidden), (hidden, 2)))
    c = rng.normal(0, 1, hidden)
    inner = draw(st.sampled_from(["affine", "Tanh", "Sigmoid"]))
    models = []
    for write in IDIOMS[kind]:
        b = Builder(rng, 20)
        z = b.op("Gemm", b.input("x", array, ["batch", width]), b.const(w), b.const(c))
        z = z if inner == "affine" else b.op(inner, z)
        models.append(b.case(b.op("Cast", b.op("MatMul", write(b, z), b.const(v)), to=1))[0])
    return models, {"x": array}


def _number(b: Builder, value: float) -> str:
    return b.const(np.float64(value))


def _normal(b: Builder, x: str) -> str:
    """1 + erf(x / √2)."""
    return b.op("Add", b.op("Erf", b.op("Div", x, _number(b, 2**0.5))), _number(b, 1))


def _tanh_normal(b: Builder, x: str, cube: str) -> str:
    """1 + tanh(√(2/π) (x + 0.044715 x³))."""
    inner = b.op("Add", x, b.op("Mul", _number(b, 0.044715), cube))
    return b.op("Add", _number(b, 1), b.op("Tanh", b.op("Mul", _number(b, (2 / np.pi) ** 0.5), inner)))


def _relu6(b: Builder, x: str) -> str:
    return b.op("Clip", b.op("Add", x, _number(b, 3)), _number(b, 0), _number(b, 6))


Writer = Callable[[Builder, str], str]
IDIOMS: dict[str, tuple[Writer, ...]] = {
    "gelu": (
        lambda b, x: b.op("Gelu", x),
        lambda b, x: b.op("Mul", b.op("Mul", x, _normal(b, x)), _number(b, 0.5)),
        lambda b, x: b.op("Mul", b.op("Mul", _number(b, 0.5), x), _normal(b, x)),
        lambda b, x: b.op("Mul", x, b.op("Mul", _number(b, 0.5), _normal(b, x))),
        lambda b, x: b.op("Mul", b.op("Mul", _normal(b, x), _number(b, 0.5)), x),
        lambda b, x: b.op("Mul", _number(b, 0.5), b.op("Mul", _normal(b, x), x)),
    ),
    "tanh gelu": (
        lambda b, x: b.op("Gelu", x, approximate="tanh"),
        lambda b, x: b.op("Mul", b.op("Mul", _number(b, 0.5), x), _tanh_normal(b, x, b.op("Pow", x, _number(b, 3)))),
        lambda b, x: b.op("Mul", _number(b, 0.5), b.op("Mul", x, _tanh_normal(b, x, b.op("Mul", b.op("Mul", x, x), x)))),
        lambda b, x: b.op("Mul", b.op("Mul", _tanh_normal(b, x, b.op("Mul", x, b.op("Mul", x, x))), x), _number(b, 0.5)),
    ),
    "silu": (
        lambda b, x: b.op("Mul", x, b.op("Sigmoid", x)),
        lambda b, x: b.op("Mul", b.op("Sigmoid", x), x),
        lambda b, x: b.op("Div", x, b.op("Add", _number(b, 1), b.op("Exp", b.op("Neg", x)))),
        lambda b, x: b.op("Mul", x, b.op("Reciprocal", b.op("Add", b.op("Exp", b.op("Neg", x)), _number(b, 1)))),
    ),
    "mish": (
        lambda b, x: b.op("Mish", x),
        lambda b, x: b.op("Mul", x, b.op("Tanh", b.op("Softplus", x))),
        lambda b, x: b.op("Mul", b.op("Tanh", b.op("Log", b.op("Add", _number(b, 1), b.op("Exp", x)))), x),
    ),
    "hard swish": (
        lambda b, x: b.op("HardSwish", x),
        lambda b, x: b.op("Div", b.op("Mul", x, _relu6(b, x)), _number(b, 6)),
        lambda b, x: b.op("Mul", b.op("Mul", x, _relu6(b, x)), _number(b, 1 / 6)),
        lambda b, x: b.op("Mul", x, b.op("Mul", _relu6(b, x), _number(b, 1 / 6))),
        lambda b, x: b.op("Mul", b.op("Div", _relu6(b, x), _number(b, 6)), x),
    ),
    "relu": (
        lambda b, x: b.op("Relu", x),
        lambda b, x: b.op("Max", x, _number(b, 0)),
        lambda b, x: b.op("Clip", x, _number(b, 0)),
        lambda b, x: b.op("Where", b.op("Greater", x, _number(b, 0)), x, _number(b, 0)),
    ),
    "leaky": (
        lambda b, x: b.op("LeakyRelu", x, alpha=0.125),
        lambda b, x: b.op("PRelu", x, _number(b, 0.125)),
        lambda b, x: b.op("Max", x, b.op("Mul", x, _number(b, 0.125))),
        lambda b, x: b.op("Where", b.op("Less", x, _number(b, 0)), b.op("Mul", x, _number(b, 0.125)), x),
    ),
    "elu": (
        lambda b, x: b.op("Elu", x),
        lambda b, x: b.op("Where", b.op("Greater", x, _number(b, 0)), x, b.op("Sub", b.op("Exp", x), _number(b, 1))),
    ),
}
