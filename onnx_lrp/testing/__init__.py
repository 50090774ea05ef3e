"""Hypothesis strategies for ONNX models, one file per op family, and the laws that every model keeps.

A strategy draws ``(ModelProto, {graph input: array})``; a law takes the two and raises AssertionError where it is broken.
"""

from __future__ import annotations

from hypothesis import strategies as st

from .activation import activation_spellings, activations
from .add import sums
from .attention import attention_spellings, attentions
from .build import Case
from .concat import concats
from .conv import convolutions
from .einsum import einsum_spellings, einsums
from .expand import expansions
from .features import features
from .gather import gathers
from .gemm import dense_spellings, gemm_forms, gemms
from .gru import grus
from .index import indexings
from .laws import (
    assert_batch_equivariant,
    assert_conserves,
    assert_linear,
    assert_matches_runtime,
    assert_padding_neutral,
    assert_within_intervals,
)
from .linear_model import linear_models, two_class_heads
from .logic import conditions
from .loop import cell_spellings, loops
from .lstm import lstms
from .matmul import matmuls
from .mul import products
from .normalization import layer_norm_spellings, normalizations
from .pad import paddings
from .pooling import poolings
from .power import powers
from .qlinear import qlinears
from .quantize import quantizations
from .recurrent import batch_first, split_directions
from .reduce import reductions
from .reshape import reshapes
from .resize import resizes
from .reverse import reversals
from .rnn import rnns
from .scan_sum import running_sums
from .select import selection_spellings, selections
from .sequence import sequences
from .shape import shapes
from .slice import slices
from .softmax import softmaxes
from .topk import choices
from .transpose import transposes

__all__ = [
    "activation_spellings",
    "activations",
    "assert_batch_equivariant",
    "assert_conserves",
    "assert_linear",
    "assert_matches_runtime",
    "assert_padding_neutral",
    "assert_within_intervals",
    "attention_spellings",
    "attentions",
    "batch_first",
    "cell_spellings",
    "choices",
    "concats",
    "conditions",
    "convolutions",
    "dense_spellings",
    "einsum_spellings",
    "einsums",
    "expansions",
    "features",
    "gathers",
    "gemm_forms",
    "gemms",
    "grus",
    "indexings",
    "layer_norm_spellings",
    "linear_models",
    "loops",
    "lstms",
    "matmuls",
    "models",
    "normalizations",
    "paddings",
    "poolings",
    "powers",
    "products",
    "qlinears",
    "quantizations",
    "reductions",
    "reshapes",
    "resizes",
    "reversals",
    "rnns",
    "running_sums",
    "selection_spellings",
    "selections",
    "sequences",
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
    families = [
        gemms,
        sums,
        activations,
        reductions,
        reshapes,
        transposes,
        slices,
        concats,
        expansions,
        gathers,
        shapes,
        softmaxes,
        products,
        normalizations,
        convolutions,
        quantizations,
        qlinears,
        gemm_forms,
        matmuls,
        einsums,
        selections,
        powers,
        conditions,
        running_sums,
        paddings,
        reversals,
        indexings,
        choices,
        sequences,
        poolings,
        features,
        linear_models,
        resizes,
        attentions,
        loops,
    ]
    return st.one_of(*(family() for family in families), *(family(fixed=fixed) for family in (rnns, grus, lstms)))
