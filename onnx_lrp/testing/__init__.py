"""Hypothesis strategies for ONNX models, one file per op family, the laws that every model keeps, and the check of a given model.

A strategy of models draws ``(ModelProto, {graph input: array})``, :func:`feeds` draws the inputs of one given model; a law takes
the two and raises AssertionError where it is broken; :func:`check` searches a model's inputs for a breach of any law. Strategies
take keyword arguments, and say what they shrink to. Importing this package imports neither hypothesis nor the engine, so that the
pytest plugin in it costs nothing where it is not asked for.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TYPE_CHECKING, Any

from ..errors import MissingExtra

if TYPE_CHECKING:
    from hypothesis import strategies as st

    from .activation import activation_spellings, activations
    from .add import sums
    from .attention import attention_spellings, attentions
    from .build import Case
    from .checking import Breach, Report, Verdict, check, replay_command
    from .concat import concats
    from .conv import convolutions
    from .einsum import einsum_spellings, einsums
    from .expand import expansions
    from .features import preparations
    from .gather import gathers
    from .gemm import dense, dense_spellings, gemm_forms
    from .gru import grus
    from .index import indexings
    from .inputs import feeds
    from .laws import (
        assert_batch_equivariant,
        assert_conserves,
        assert_deterministic,
        assert_finite,
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
    from .options import rules, seeds
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
    "LAWS",
    "Breach",
    "Report",
    "Verdict",
    "activation_spellings",
    "activations",
    "assert_batch_equivariant",
    "assert_conserves",
    "assert_deterministic",
    "assert_finite",
    "assert_linear",
    "assert_matches_runtime",
    "assert_padding_neutral",
    "assert_within_intervals",
    "attention_spellings",
    "attentions",
    "batch_first",
    "cell_spellings",
    "check",
    "choices",
    "concats",
    "conditions",
    "convolutions",
    "dense",
    "dense_spellings",
    "einsum_spellings",
    "einsums",
    "expansions",
    "feeds",
    "gathers",
    "gemm_forms",
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
    "preparations",
    "products",
    "qlinears",
    "quantizations",
    "reductions",
    "replay_command",
    "reshapes",
    "resizes",
    "reversals",
    "rnns",
    "rules",
    "running_sums",
    "seeds",
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

LAWS = ("parity", "conservation", "equivariance", "linearity", "determinism", "finiteness")  # of a given model


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    _load()
    return globals()[name]


def __dir__() -> list[str]:
    return sorted(__all__)


def _load() -> None:
    """Make every public name of the modules here one of this package."""
    try:
        importlib.import_module("hypothesis")
    except ImportError as error:
        raise MissingExtra("hypothesis", extra="test", purpose="drawing models and inputs") from error
    for file in pkgutil.iter_modules(__path__):
        if file.name != "plugin":
            module = importlib.import_module(f"{__name__}.{file.name}")
            globals().update({n: getattr(module, n) for n in module.__all__ if n in __all__})


def models(*, fixed: bool = True) -> st.SearchStrategy[Case]:
    """Models of every family. ``fixed``: weights may be written for one batch size. Shrinks towards the smaller families."""
    from hypothesis import strategies as st

    _load()
    families = [
        dense,
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
        preparations,
        linear_models,
        resizes,
        attentions,
        loops,
    ]
    return st.one_of(*(family() for family in families), *(family(fixed=fixed) for family in (rnns, grus, lstms)))
