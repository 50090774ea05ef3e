"""How a model is explained, drawn: the options of a rule, and the seeds that relevance starts from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from ..composites import PRESETS
from ..errors import InputError
from ..rules import GATE_RULES, NAMES
from .build import generators

__all__ = ["rules", "seeds"]

EPSILONS = (1e-3, 0.1, 1e-2)
BIAS_FACTORS = (0.0, 1.0, 0.5)


def rules(
    *, epsilons: Sequence[float] = EPSILONS, bias_factors: Sequence[float] = BIAS_FACTORS
) -> st.SearchStrategy[dict[str, Any]]:
    """Options of a rule as :func:`onnx_lrp.load` takes them: ``load(model, **options)``: rules by name, gate rules, presets.

    "prop" is left out: where gate + signal is near 0 it moves more than rounding can follow. Shrinks to the epsilon rule.

    Args:
        epsilons: stabilizers to draw from, each a finite number >= 0.
        bias_factors: shares of bias and stabilizer that go to the lower units, each in [0, 1].

    Raises:
        InputError: none is given, or one lies outside its range.
    """
    if not epsilons or any(not 0 <= e < float("inf") for e in epsilons):
        raise InputError(f"epsilons must be finite numbers >= 0, at least one, got {epsilons!r}")
    if not bias_factors or any(not 0 <= d <= 1 for d in bias_factors):
        raise InputError(f"bias_factors must lie in [0, 1], at least one, got {bias_factors!r}")
    plain = {"epsilon": st.sampled_from(epsilons), "bias_factor": st.sampled_from(bias_factors)}
    named = {**plain, "rule": st.sampled_from(sorted(NAMES))}
    gated = {"epsilon": st.sampled_from(epsilons), "gates": st.sampled_from([g for g in GATE_RULES if g != "prop"])}
    composed = {"composite": st.sampled_from(PRESETS)}
    return st.one_of([st.fixed_dictionaries(options) for options in (plain, named, gated, composed)])


@st.composite
def seeds(draw: Any, *, shape: Sequence[int], classes: int | None = None) -> np.ndarray:
    """Seed tensors of the explained tensor's shape, float64: one entry of 1, or normal numbers. Shrinks to a 1 at the first entry.

    Args:
        shape: of the scores that are explained; no axis is empty.
        classes: axis of classes: the entry of 1 is drawn for every position along it, not once for the whole tensor.
    """
    shape = tuple(shape)
    if any(not isinstance(n, int | np.integer) or n < 1 for n in shape):
        raise InputError(f"shape must be sizes >= 1, got {shape}")
    if classes is not None and not 0 <= classes < len(shape):
        raise InputError(f"classes must be an axis of {shape}, got {classes}")
    if draw(st.booleans()):
        return draw(generators()).normal(size=shape)
    seed = np.zeros(shape)
    if classes is None:
        seed.reshape(-1)[draw(st.integers(0, seed.size - 1))] = 1
        return seed
    rows = np.moveaxis(seed, classes, -1).reshape(-1, shape[classes])
    for row in rows:
        row[draw(st.integers(0, shape[classes] - 1))] = 1
    kept = [n for axis, n in enumerate(shape) if axis != classes]
    return np.moveaxis(rows.reshape(*kept, shape[classes]), -1, classes)
