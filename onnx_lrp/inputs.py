"""What callers pass in, made into arrays of the model's dtypes, or refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .errors import InputError
from .graph import Value
from .plan import Plan
from .registry import is_float

__all__ = ["id_limits", "may_miss", "prepare_inputs", "unlike_declared", "unmasked"]

DYNAMIC = "export it with a dynamic batch axis (PyTorch: dynamic_shapes or dynamic_axes; tf2onnx: None in the input signature)"


def prepare_inputs(inputs: Any, plan: Plan, *, sizes: bool = True) -> dict[str, np.ndarray]:
    """Arrays by graph input name, checked. Or by the names of ``plan.feeds``, where the caller computed the cut himself.

    Raises:
        InputError: unknown or missing names, wrong rank or sizes, NaN or infinity, an array that can't be cast, an empty axis.
    """
    values = plan.graph.inputs
    if isinstance(inputs, Mapping) or (hasattr(inputs, "files") and hasattr(inputs, "keys")):
        given = {str(k): inputs[k] for k in inputs.keys()}  # noqa: SIM118  (an NpzFile is no dict)
    elif len(values) == 1:
        given = {values[0].name: inputs}
    else:
        raise InputError(f"this model has {len(values)} inputs: pass {{name: array}} with {', '.join(v.name for v in values)}")
    names = [v.name for v in values]
    if plan.prefix and set(given) == set(plan.feeds) and set(given) != set(names):
        return {name: _array(given[name], _cut(name, plan)) for name in plan.feeds}
    unknown = sorted(set(given) - set(names))
    if unknown:
        raise InputError(f"unknown input {unknown[0]!r}; this model takes {', '.join(str(v) for v in values)}")
    missing = [n for n in names if n not in given]
    if missing:
        raise InputError(f"input {missing[0]!r} is missing; this model takes {', '.join(str(v) for v in values)}")
    feeds = {v.name: _array(given[v.name], v, missing=may_miss(v.name, plan)) for v in values}
    if sizes:  # else which branches a call takes is still open, and with it what fits what
        _sizes(feeds, plan)
    return feeds


def _cut(name: str, plan: Plan) -> Value:
    """An internal tensor at which the caller enters, in place of the inputs it is computed from."""
    var = plan.vars[name]
    return Value(name, var.dtype, None if var.dims is None else tuple(d.size for d in var.dims))


def may_miss(name: str, plan: Plan) -> bool:
    """Whether NaN stands for a missing entry: something replaces it, or asks for it."""
    return any(node.op in ("Imputer", "IsNaN") for node in plan.graph.readers.get(name, ()))


def _array(given: Any, value: Value, *, missing: bool = False) -> np.ndarray:
    name = value.name
    unmasked(name, given)
    try:
        array = np.asarray(given)
    except (ValueError, TypeError) as error:
        raise InputError(f"input {name!r}: not an array: {error}") from error
    if value.dtype is None:
        raise InputError(f"input {name!r} is no tensor in this model; that can't be fed")
    if value.dtype == object and array.dtype.kind in "UST":  # strings
        array = array.astype(object)
    if array.dtype.kind not in "fiub" and array.dtype != value.dtype:
        is_text = array.dtype.kind == "U" and value.dtype.kind == "i"
        ids = "; an onnx_lrp.text.Tokenizer makes ids of texts, on the command line --text" if is_text else ""
        raise InputError(f"input {name!r}: can't make {value.dtype} of {array.dtype} data{ids}")
    wrong = ~np.isfinite(array) if array.dtype.kind == "f" else np.zeros(array.shape, bool)
    if missing and array.dtype.kind == "f":
        wrong &= ~np.isnan(array)
    if np.any(wrong):
        where = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise InputError(f"input {name!r}: {array[where]} at {where}; inputs must be finite")
    if value.shape is not None and array.ndim != len(value.shape):
        raise InputError(f"input {name!r}: got shape {array.shape}, expected {len(value.shape)} axes as in {value}")
    for axis, size in enumerate(array.shape):
        if size == 0:
            raise InputError(f"input {name!r}: axis {axis} of shape {array.shape} is empty; there is nothing to explain")
    return _cast(array, value)


def unmasked(name: str, *given: Any) -> None:
    """Refuse masked entries, whose numbers numpy would hand on as if they were none.

    Raises:
        InputError: there are such.
    """
    if any(map(np.ma.is_masked, given)):
        raise InputError(f"input {name!r}: entries are masked, and a model reads all; fill them with a value, or leave them out")


def _cast(array: np.ndarray, value: Value) -> np.ndarray:
    want = value.dtype
    assert want is not None
    if array.dtype == want:
        return array
    if is_float(want):
        with np.errstate(over="ignore"):
            cast = array.astype(want)
        if array.dtype.kind == "f" and not np.all(np.isfinite(cast.astype(np.float64))):
            raise InputError(f"input {value.name!r}: values up to {np.abs(array).max():g} overflow {want}")
        return cast
    if array.dtype.kind == "f" and not np.all(array == np.round(array)):
        raise InputError(f"input {value.name!r}: expected {want}, got {array.dtype} with fractions")
    if want.kind in "iu" and array.size:
        limits = np.iinfo(want)
        if array.min() < limits.min or array.max() > limits.max:
            raise InputError(f"input {value.name!r}: values {array.min()} to {array.max()} don't fit {want}")
    return array.astype(want)


def unlike_declared(feeds: Mapping[str, np.ndarray], plan: Plan) -> InputError | None:
    """What to say of inputs that are not of the sizes in the file, where which branch it takes depends on them: the samples
    of a batch may take several, so that those of a file for one sample are not run one by one.
    """
    for value in plan.graph.inputs:
        for axis, (size, fixed) in enumerate(zip(feeds[value.name].shape, value.shape or (), strict=False)):
            if not isinstance(fixed, int) or fixed == size:
                continue
            if axis != plan.batch_axis(value.name):
                return InputError(f"input {value.name!r}: axis {axis} has size {size}, expected {fixed} ({value})")
            alone = "pass one sample at a time, as each may take another branch, or " if fixed == 1 else ""
            return InputError(
                f"input {value.name!r}: batch {size}, but the file was exported for batches of {fixed}; {alone}{DYNAMIC}"
            )
    return None


def _sizes(feeds: Mapping[str, np.ndarray], plan: Plan) -> None:
    seen: dict[Any, tuple[int, str]] = {}
    batch = plan.batch.root if plan.batch is not None else None
    for value in plan.graph.inputs:
        array = feeds[value.name]
        for axis, (dim, size) in enumerate(zip(plan.vars[value.name].dims or (), array.shape, strict=False)):
            label = next(iter(dim.roots)) if len(dim.labels) == 1 else None
            fixed = value.shape[axis] if value.shape is not None else None
            if label is not None and label is batch:
                if isinstance(fixed, int) and fixed not in (1, size):
                    raise InputError(
                        f"input {value.name!r}: batch {size}, but the file was exported for batches of {fixed}; {DYNAMIC}"
                    )
                fixed = None
            if isinstance(fixed, int) and fixed != size:
                what = f"length {size}" if label in plan.times else f"size {size}"
                raise InputError(f"input {value.name!r}: axis {axis} has {what}, expected {fixed} ({value}; got {array.shape})")
            if label is not None:
                before = seen.setdefault(label, (size, value.name))
                if before[0] != size:
                    raise InputError(
                        f"input {value.name!r}: axis {axis} has size {size}, but input {before[1]!r} has {before[0]} there"
                    )
    ranges(feeds, plan)


def id_limits(plan: Plan) -> dict[str, tuple[int, str]]:
    """{tensor of token ids: (rows of the embedding it indexes, the node in words)}."""
    found: dict[str, tuple[int, str]] = {}
    for step in plan.steps:
        slots: Any = getattr(step.layer, "slots", ())
        if step.layer.title == "Embedding" and step.inputs and slots and slots[0] in step.layer.parameters:
            count = int(step.layer.parameters[slots[0]].shape[getattr(step.layer, "axis", 0)])
            name = step.inputs[-1]
            found[name] = min(found.get(name, (count, step.node.label)), (count, step.node.label))
    return found


def ranges(feeds: Mapping[str, np.ndarray], plan: Plan) -> None:
    """Token ids must lie inside the embedding they index."""
    for name, (count, where) in id_limits(plan).items():
        ids = feeds.get(name)
        if ids is not None and ids.size and (ids.min() < -count or ids.max() >= count):
            wrong = int(ids.max()) if ids.max() >= count else int(ids.min())
            raise InputError(f"input {name!r}: id {wrong} is outside the embedding of {count} rows ({where})")
