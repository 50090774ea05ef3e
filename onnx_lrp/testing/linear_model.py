"""Linear classifiers and regressors as scikit-learn's models are exported: one node, labels looked up, probabilities named."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from .build import Builder, Case, generators, opsets
from .features import CLASSICAL

__all__ = ["linear_models", "two_class_heads"]


@st.composite
def linear_models(draw: Any, *, post: str | None = None, rows: int | None = None) -> Case:
    """LinearClassifier, also behind a hidden layer and before a Normalizer, or LinearRegressor.

    ``post``: a post_transform, or any (None); ``rows`` of coefficients, 1 for two classes on one score. Shrinks to plain scores.
    """
    b = Builder(draw(generators()), draw(opsets(least=11)))
    post = post or draw(st.sampled_from(["NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO"]))
    batch, width = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    rows = rows or draw(st.integers(1, 3))
    x = b.rows(batch, width)
    if draw(st.booleans()):
        x = b.op("Relu", b.gemm(x, width, width))
    coefficients = [float(v) for v in b.numbers(rows * width)]
    numbers: dict[str, Any] = {
        "coefficients": coefficients,
        "intercepts": [float(v) for v in b.numbers(rows)],
        "post_transform": post,
    }
    if draw(st.booleans()):
        return b.case(b.op("LinearRegressor", x, targets=rows, **numbers, **CLASSICAL))
    labels = list(range(max(rows, 2)))
    _, scores = b.ops("LinearClassifier", x, outputs=2, classlabels_ints=labels, **numbers, **CLASSICAL)
    if post != "NONE" and rows > 1 and draw(st.booleans()):
        scores = b.op("Normalizer", scores, norm="L1", **CLASSICAL)
    return b.case(scores)


@st.composite
def two_class_heads(draw: Any) -> tuple[Case, tuple[int, int]]:
    """[1 − p, p] or [p, 1 − p] with p = sigmoid z, in several spellings; and the signs with which the classes start from z."""
    b = Builder(draw(generators()), draw(opsets(least=11)))
    batch, width = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    z = b.gemm(b.rows(batch, width), width, 1)
    flat = draw(st.booleans())
    p = b.op("Sigmoid", b.over("Squeeze", z, 1) if flat else z)
    p = b.over("Unsqueeze", p, 1) if flat else p
    one = b.const(1, np.float32)
    rest = b.op("Sub", one, p) if draw(st.booleans()) else b.op("Add", b.op("Neg", p), one)
    second = draw(st.booleans())
    y = b.op("Concat", *((rest, p) if second else (p, rest)), axis=draw(st.sampled_from([1, -1])))
    return b.case(b.op("Identity", y)), (-1, 1) if second else (1, -1)
