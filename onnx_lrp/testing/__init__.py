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
from .einsum import einsum_spellings, einsums
from .expand import expansions
from .gather import gathers
from .gemm import dense_spellings, gemm_forms, gemms
from .gru import grus
from .laws import (
    assert_batch_equivariant,
    assert_conserves,
    assert_linear,
    assert_matches_runtime,
    assert_padding_neutral,
    assert_within_intervals,
)
from .logic import conditions
from .lstm import lstms
from .matmul import matmuls
from .mul import products
from .normalization import normalizations
from .power import powers
from .recurrent import batch_first, split_directions
from .reduce import reductions
from .reshape import reshapes
from .rnn import rnns
from .scan_sum import running_sums
from .select import selection_spellings, selections
from .shape import shapes
from .slice import slices
from .softmax import softmaxes
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
    "concats",
    "conditions",
    "dense_spellings",
    "einsum_spellings",
    "einsums",
    "expansions",
    "gathers",
    "gemm_forms",
    "gemms",
    "grus",
    "lstms",
    "matmuls",
    "models",
    "normalizations",
    "powers",
    "products",
    "reductions",
    "reshapes",
    "rnns",
    "running_sums",
    "selection_spellings",
    "selections",
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
    families = [*plain, slices, concats, expansions, gathers, shapes, softmaxes, products, normalizations]
    families += [gemm_forms, matmuls, einsums, selections, powers, conditions, running_sums, attentions]
    return st.one_of(*(family() for family in families), *(family(fixed=fixed) for family in (rnns, grus, lstms)))
