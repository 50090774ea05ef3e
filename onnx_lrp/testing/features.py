"""Feature preparation before a dense layer, as scikit-learn's pipelines have it."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from .build import Builder, Case, generators, opsets

__all__ = ["preparations"]

KINDS = ("Scaler", "Normalizer", "Imputer", "missing", "ArrayFeatureExtractor", "FeatureVectorizer", "Binarizer")
CLASSICAL = {"domain": "ai.onnx.ml"}


@st.composite
def preparations(draw: Any, *, kind: str | None = None, integers: bool | None = None) -> Case:
    """One such op on floats or integers, then a dense layer. ``kind``: one of ``KINDS`` or any (None). Shrinks to a Scaler."""
    b = Builder(draw(generators()), draw(opsets(least=11)))
    kind = kind or draw(st.sampled_from(KINDS))
    batch, width = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    whole = kind not in ("missing", "Binarizer", "FeatureVectorizer") and (draw(st.booleans()) if integers is None else integers)
    array = b.rng.integers(-3, 4, (batch, width)) if whole else np.where(b.numbers(batch, width) > 1, 0, b.numbers(batch, width))
    array = array.astype(np.int64 if whole else np.float32)
    if kind == "missing":
        array = np.where(b.rng.random(array.shape) < 0.3, np.float32(np.nan), array)
    x = b.input("x", array, ["batch", width])
    if kind == "Scaler":
        count = draw(st.sampled_from([1, width]))
        numbers = [[float(v) for v in b.numbers(count)] for _ in range(2)]
        z = b.op(kind, x, offset=numbers[0], scale=numbers[1], **CLASSICAL)
    elif kind == "Normalizer":
        norms = ["L1", "L2"] if np.any(array.max(1) <= 0) else ["L1", "L2", "MAX"]
        z = b.op(kind, x, norm=draw(st.sampled_from(norms)), **CLASSICAL)
    elif kind in ("Imputer", "missing"):
        count = draw(st.sampled_from([1, width]))
        if whole:
            z = b.op("Imputer", x, imputed_value_int64s=[int(v) for v in b.rng.integers(-3, 4, count)], **CLASSICAL)
            z = b.op("Cast", z, to=1)
        else:
            gone = {"replaced_value_float": float("nan")} if kind == "missing" else {}
            z = b.op("Imputer", x, imputed_value_floats=[float(v) for v in b.numbers(count)], **gone, **CLASSICAL)
    elif kind == "ArrayFeatureExtractor":
        columns = draw(st.lists(st.integers(0, width - 1), min_size=1, max_size=3))
        z = b.op(kind, x, b.ints(*columns), **CLASSICAL)
        z, width = b.op("Cast", z, to=1) if whole else z, len(columns)
    elif kind == "FeatureVectorizer":
        z, width = b.op(kind, x, b.op("Tanh", x), inputdimensions=[width, width], **CLASSICAL), 2 * width
    else:
        mask = b.op(kind, x, threshold=0.2, **CLASSICAL)
        z = b.op("Mul", b.op("Tanh", x), mask)
    z = b.gemm(z, width, draw(st.integers(1, 3)))
    return b.case(b.op("Identity", z))
