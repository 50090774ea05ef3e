"""Hypothesis strategies for ONNX models, one file per op family, and the laws that every model keeps.

A strategy draws ``(ModelProto, {graph input: array})``; a law takes the two and raises AssertionError where it is broken.
"""

from __future__ import annotations

from hypothesis import strategies as st

from .activation import activations
from .add import sums
from .build import Case
from .concat import concats
from .expand import expansions
from .features import features
from .gather import gathers
from .gemm import dense_spellings, gemms
from .gru import grus
from .laws import assert_batch_equivariant, assert_conserves, assert_linear, assert_matches_runtime, assert_padding_neutral
from .linear_model import linear_models, two_class_heads
from .lstm import lstms
from .mul import products
from .normalization import normalizations
from .qlinear import qlinears
from .quantize import quantizations
from .recurrent import batch_first, split_directions
from .reduce import reductions
from .reshape import reshapes
from .rnn import rnns
from .shape import shapes
from .slice import slices
from .softmax import softmaxes
from .transpose import transposes

__all__ = [
    "activations",
    "assert_batch_equivariant",
    "assert_conserves",
    "assert_linear",
    "assert_matches_runtime",
    "assert_padding_neutral",
    "batch_first",
    "concats",
    "dense_spellings",
    "expansions",
    "features",
    "gathers",
    "gemms",
    "grus",
    "linear_models",
    "lstms",
    "models",
    "normalizations",
    "products",
    "qlinears",
    "quantizations",
    "reductions",
    "reshapes",
    "rnns",
    "shapes",
    "slices",
    "softmaxes",
    "split_directions",
    "sums",
    "transposes",
    "two_class_heads",
]


def models(*, fixed: bool = True) -> st.SearchStrategy[Case]:
    """Models of every family. ``fixed``: weights may be written for one batch size. Shrinks towards the smaller families."""
    plain = [gemms, sums, activations, reductions, reshapes, transposes]
    families = [
        *plain,
        slices,
        concats,
        expansions,
        gathers,
        shapes,
        softmaxes,
        products,
        normalizations,
        quantizations,
        qlinears,
        features,
        linear_models,
    ]
    return st.one_of(*(family() for family in families), *(family(fixed=fixed) for family in (rnns, grus, lstms)))
