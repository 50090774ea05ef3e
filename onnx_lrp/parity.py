"""How far a forward pass may be from onnxruntime's: rounding of the run's precision, of halves, of quantized tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from .composites import assign, make_composite
from .errors import ParityError
from .ops.quantize import rounded, rounds
from .plan import Plan
from .precision import PRECISIONS
from .program import Program
from .rules import Policy
from .seeds import Target

__all__ = ["EFFECTS", "QUANTIZED", "differences", "is_quantized", "rounding", "tolerance"]

# On drawn recurrent and dense models 8 bits changed outputs by 0.3 % at the median and 8 % at most; where an output nearly cancels,
# what counts is how much rounding changes it.
RELATIVE = 0.2
EFFECTS = 4
QUANTIZED = (
    "quantized: the dequantized network is explained, computed without rounding; its outputs are held against onnxruntime's "
    f"to {RELATIVE:g} of their largest value, or to {EFFECTS} times what rounding changes in them"
)


def is_quantized(plan: Plan) -> bool:
    """Whether onnxruntime rounds signals of the model."""
    return plan.graph.model is not None and rounds(plan.graph.model.graph)


def tolerance(plan: Plan, precision: str) -> float:
    """Relative to an output's largest value."""
    rounds = PRECISIONS[precision].rounds
    if QUANTIZED in plan.notes:
        return max(RELATIVE, rounds)
    return max(rounds, 2e-2 if any(v.dtype.name == "float16" for v in plan.vars.values()) else 1e-3)


def rounding(plan: Plan, feeds: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray], precision: str) -> dict[str, float]:
    """What outputs of a quantized model may differ by, absolutely: some times what rounding the engine's own tensors changes."""
    if QUANTIZED not in plan.notes:
        return {}
    steps = tuple(dataclasses.replace(s, layer=rounded(s.node, s.layer)) for s in plan.steps)
    rules = assign(plan, make_composite("epsilon"))
    program = Program(dataclasses.replace(plan, steps=steps), policy=Policy(), rules=rules, precision=precision, jit="eager")
    found = program(feeds, Target("forward"))["outputs"]
    floats = {n: a for n, a in found.items() if isinstance(a, np.ndarray) and a.dtype.kind == "f"}
    return {n: EFFECTS * float(np.abs(a - outputs[n]).max(initial=0.0)) for n, a in floats.items()}


def differences(
    expected: Mapping[str, Any], outputs: Mapping[str, Any], relative: float, absolute: Mapping[str, float]
) -> Iterator[tuple[str, float, float]]:
    """(output, error, bound) of every float output, relative to the largest value of what is expected.

    Raises:
        ParityError: an output has another shape.
    """
    for name, want in expected.items():
        got = outputs.get(name)
        if not isinstance(want, np.ndarray) or not isinstance(got, np.ndarray) or want.dtype.kind not in "fiub":
            continue
        if got.shape != want.shape:
            raise ParityError(f"output {name!r}: shape {got.shape}, onnxruntime's is {want.shape}")
        if want.dtype.kind != "f" or not want.size:
            continue
        scale = max(float(np.abs(want.astype(np.float64)).max()), 1e-6)
        error = float(np.abs(got.astype(np.float64) - want.astype(np.float64)).max()) / scale
        yield name, error, max(relative, absolute.get(name, 0.0) / scale)
