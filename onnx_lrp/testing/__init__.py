"""Hypothesis strategies for ONNX models, one file per op family, and the laws that every model keeps.

A strategy draws ``(ModelProto, {graph input: array})``; a law takes the two and raises AssertionError where it is broken.
"""

from __future__ import annotations

from hypothesis import strategies as st

from .activation import activations
from .add import sums
from .build import Case
from .concat import concats
from .conv import convolutions
from .expand import expansions
from .gather import gathers
from .gemm import dense_spellings, gemms
from .gru import grus
from .laws import assert_batch_equivariant, assert_conserves, assert_linear, assert_matches_runtime, assert_padding_neutral
from .lstm import lstms
from .mul import products
from .normalization import layer_norm_spellings, normalizations
from .pooling import poolings
from .recurrent import batch_first, split_directions
from .reduce import reductions
from .reshape import reshapes
from .resize import resizes
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
    "convolutions",
    "dense_spellings",
    "expansions",
    "gathers",
    "gemms",
    "grus",
    "layer_norm_spellings",
    "lstms",
    "models",
    "normalizations",
    "poolings",
    "products",
    "reductions",
    "reshapes",
    "resizes",
    "rnns",
    "shapes",
    "slices",
    "softmaxes",
    "split_directions",
    "sums",
    "transposes",
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
        convolutions,
        poolings,
        resizes,
    ]
    return st.one_of(*(family() for family in families), *(family(fixed=fixed) for family in (rnns, grus, lstms)))
