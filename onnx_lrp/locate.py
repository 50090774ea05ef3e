"""Where a forward pass goes wrong first: the layer that differs from onnxruntime's, or that makes a number no number.

Asked only where something is wrong already, so it may take a run of its own, eager and with every tensor kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .errors import InputError, InvalidModel, ModelError, OnnxLrpError
from .layer import Affine
from .nested import Nested
from .plan import Plan
from .program import Program
from .recurrence import Recurrent
from .registry import is_float
from .runtime import Runtime

__all__ = [
    "check_weights",
    "first_different",
    "first_infinite",
    "infinite_in_engine",
    "infinite_in_runtime",
    "mistyped",
    "place",
    "refusal",
]

CONTRADICTION = "Type Error"  # in onnxruntime's reason
Arrays = Mapping[str, np.ndarray]


def place(array: np.ndarray) -> str:
    """The first entry that is not finite, as "nan at (0, 3)"; empty if all are."""
    if not is_float(array.dtype):
        return ""
    array = array.astype(np.float32) if array.dtype.kind != "f" else array
    wrong = np.argwhere(~np.isfinite(array))
    if not len(wrong):
        return ""
    where = tuple(int(i) for i in wrong[0])
    return f"{array[where]} at {where}" + (f" and {len(wrong) - 1} more" if len(wrong) > 1 else "")


def check_weights(plan: Plan) -> None:
    """Refuse weights on the relevance path that are no numbers. An infinite mask, bound or summand has a meaning, NaN has none.

    Raises:
        InvalidModel: with the layer, the parameter and the first place.
    """
    for step in plan.steps:
        if not any(o in plan.path for o in step.outputs) or isinstance(step.layer, Nested):
            continue
        layer: Any = step.layer
        weighted = isinstance(layer, Recurrent) or (isinstance(layer, Affine) and bool(layer.operands))
        for name, array in layer.parameters.items():
            if not is_float(array.dtype) or _sums(array):
                continue
            found = place(array if weighted else np.where(np.isinf(array), 0, array))
            if found:
                raise InvalidModel(f"{step.node.label}: its parameter {name} {array.shape} holds {found}; weights must be finite")


def _sums(array: np.ndarray) -> bool:
    """Whether an array has a finite sum, and so only finite entries: told in a quarter of the time of a look at each."""
    with np.errstate(all="ignore"):
        return array.dtype.kind == "f" and bool(np.isfinite(np.add.reduce(array, axis=None)))


def _engine(program: Program, given: Arrays) -> Arrays:
    try:
        return program.tensors(given)
    except Exception:  # the error that is being explained matters more
        return {}


def _theirs(plan: Plan, runtime: Runtime, feeds: Arrays) -> Arrays:
    """onnxruntime's values of every tensor that the engine computes, as far as it tells them."""
    names = [o for step in plan.steps for o in step.outputs if o and o in plan.vars and is_float(plan.vars[o].dtype)]
    try:
        return runtime.prefix(names, feeds)
    except Exception:
        return {}


def first_different(plan: Plan, program: Program, runtime: Runtime, feeds: Arrays, given: Arrays, bound: float) -> str:
    """The first layer whose output is off by more than ``bound`` of its largest value, for a message; empty if none is by itself.

    Args:
        feeds: the graph inputs.
        given: what the program takes.
    """
    ours, theirs = _engine(program, given), _theirs(plan, runtime, feeds)
    for step in plan.steps:
        for name in step.outputs:
            if name not in ours or name not in theirs:
                continue
            got, want = np.asarray(ours[name], np.float64), np.asarray(theirs[name], np.float64)
            if got.shape != want.shape:
                return f"{step.node.label} is the first layer that differs: {name!r} has shape {got.shape}, not {want.shape}"
            with np.errstate(invalid="ignore"):  # ∞ − ∞ differs, too
                apart = float(np.abs(got - want).max(initial=0.0))
            error = apart / max(float(np.abs(want).max(initial=0.0)), 1e-6)
            if not error <= bound:
                return f"{step.node.label} is the first layer that differs, by {error:.1e} in {name!r}"
    return ""


def first_infinite(plan: Plan, arrays: Arrays) -> str:
    """The first layer with an output that is not finite, for a message; empty if there is none among ``arrays``."""
    for step in plan.steps:
        for name in step.outputs:
            found = place(np.asarray(arrays[name])) if name in arrays else ""
            if found:
                return f"{step.node.label} is the first layer with such a value: {found} of {name!r}"
    return ""


def infinite_in_engine(plan: Plan, program: Program, given: Arrays) -> str:
    """:func:`first_infinite` of the engine's own forward pass."""
    return first_infinite(plan, _engine(program, given))


def infinite_in_runtime(plan: Plan, runtime: Runtime, feeds: Arrays) -> str:
    """:func:`first_infinite` of onnxruntime's."""
    return first_infinite(plan, _theirs(plan, runtime, feeds))


def mistyped(runtime: Runtime) -> InvalidModel | None:
    """The error of a model whose tensors have types that don't fit, by onnxruntime's word, which may only lack a kernel."""
    reason = runtime.reference[1]
    return InvalidModel(f"the model contradicts itself: {reason}") if CONTRADICTION in reason else None


def refusal(runtime: Runtime, feeds: Arrays, error: Exception) -> OnnxLrpError | None:
    """The error where the engine fails and onnxruntime doesn't run the model either; None where it does: the engine is to blame."""
    try:
        if (contradicts := mistyped(runtime)) is not None:
            return contradicts
        if runtime.reference[0] is None:
            reason = " ".join(str(error).split())[:200]
            return ModelError(f"the engine can't run the model ({reason}), and onnxruntime can't load it: {runtime.reference[1]}")
        runtime.forward(feeds)
        runtime.forward(feeds, as_written=True)
    except OnnxLrpError as why:
        return InputError(f"the model doesn't run on these inputs: {why}") if isinstance(why, InputError) else None
    return None
