"""An explanation as a table: one row a sample, step and feature, in named columns; :func:`frame` makes it a pandas DataFrame."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import MissingExtra

if TYPE_CHECKING:
    from .explanation import Explanation

__all__ = ["columns", "frame", "order"]

INDEX = ("point", "rank", "class", "sample", "step", "feature")


def frame(explanation: Explanation, point: str | None, *, per_step: bool) -> Any:
    """See :meth:`Explanation.to_pandas`."""
    try:
        pandas = importlib.import_module("pandas")
    except ImportError as error:
        raise MissingExtra("pandas", extra="data", purpose="a DataFrame of an explanation") from error
    found = pandas.DataFrame(columns(explanation, point, per_step=per_step))
    if explanation.lengths is not None and {"step", "sample"} <= set(found):
        found = found[~(found["step"] >= explanation.lengths[found["sample"]])].reset_index(drop=True)
    for name in ("step", "feature", "class"):
        if name in found and found[name].dtype.kind == "f":  # absent at some of the points
            found[name] = found[name].astype("Int64")
    document = explanation.to_dict()
    residual = [r if r == r else None for r in np.ravel(explanation.residual).tolist()]
    shape = np.shape(explanation.residual)
    # lists and numbers alone: pandas compares attrs where it joins frames, and writes them as JSON where it saves one
    found.attrs = {name: document[name] for name in ("explained", "target", "seed", "settings")}
    found.attrs["residual"] = np.reshape(np.asarray(residual, object), shape).tolist()
    return found


def columns(explanation: Explanation, point: str | None = None, *, per_step: bool = False) -> dict[str, np.ndarray]:
    """The columns of the table by name, each (rows,); see :meth:`Explanation.to_pandas`."""
    names = list(explanation.relevance) if point is None else [explanation._point(point)]
    parts = [_columns(explanation, name, per_step=per_step) for name in names]
    lengths = [len(part["relevance"]) for part in parts]
    named = [n for n in (*INDEX, "relevance", "value") if any(n in part for part in parts)]
    return {n: _stacked([part.get(n) for part in parts], lengths) for n in named}


def order(rank: int, axes: Sequence[int | None], lead: int = 0) -> list[int]:
    """The axes of an array in the order in which they count up from row to row: class, sample, step, all others.

    Args:
        rank: of the array, the axis of classes included.
        axes: of samples and of time, without that axis; None where there is none.
        lead: 1 if there is an axis of classes in front, else 0.
    """
    first = [*range(lead), *(axis + lead for axis in axes if axis is not None)]
    return first + [axis for axis in range(rank) if axis not in first]


def _stacked(parts: list[np.ndarray | None], lengths: list[int]) -> np.ndarray:
    """Columns one below the other; NaN where a point has none."""
    whole = [np.full(n, np.nan) if part is None else part for part, n in zip(parts, lengths, strict=True)]
    if len({part.dtype.kind in "fiub" for part in whole}) > 1:  # words and numbers
        whole = [part.astype(object) for part in whole]
    return np.concatenate(whole) if len(whole) > 1 else whole[0]


def _columns(explanation: Explanation, name: str, *, per_step: bool) -> dict[str, np.ndarray]:
    """Of one attribution point."""
    batch, time = explanation.axes[name]
    lead = int(explanation.several)
    relevance, value = explanation.relevance[name], _value(explanation, name)
    rank = relevance.ndim - lead
    ids = value is not None and rank == 3 and name not in explanation.inputs
    if time is None and (per_step or ids):  # as per_step() has it; the position of an id is a step, also in a bag of words
        time = next((axis for axis in range(rank) if axis != batch), None)
    axes = order(relevance.ndim, (batch, time), lead)
    if value is not None and value.dtype.kind == "V":  # bfloat16, which pandas and Arrow don't know
        value = value.astype(np.float32)
    value = None if value is None else np.transpose(value, [axis - lead for axis in axes[lead:]])
    shape = [relevance.shape[axis] for axis in axes[lead:]]
    named = [n for n, axis in (("sample", batch), ("step", time)) if axis is not None]
    sizes = dict(zip(named, shape, strict=False))
    others = shape[len(sizes) :]
    if per_step:
        relevance = explanation.per_step(name)
        value = value if value is not None and value.size == np.prod([*sizes.values()]) else None  # one a step
    else:
        relevance = np.transpose(relevance, axes)
        value = None if value is None else np.broadcast_to(value, shape)
        sizes |= {"feature": int(np.prod(others))} if others else {}
    full = (len(explanation.seed) if lead else 1, *sizes.values())
    places = np.indices(full, sparse=True)
    found = {"point": np.full(int(np.prod(full)), name, object), "rank": places[0]}
    # where there is no axis of samples there is one sample, or samples and another axis are one
    found |= {"sample": np.full((), -1 if explanation.seed.shape[-1] > 1 else 0), **dict(zip(sizes, places[1:], strict=True))}
    found["relevance"] = relevance.reshape(full)
    if value is not None:
        found["value"] = value.reshape(1, *sizes.values())
    found = {n: column if n == "point" else np.broadcast_to(column, full).reshape(-1) for n, column in found.items()}
    _classes(explanation, found)
    return found


def _classes(explanation: Explanation, found: dict[str, np.ndarray]) -> None:
    """``class`` where several were explained and a sample has one; ``rank`` where that is not the same."""
    rank, target = found["rank"], np.asarray(explanation.target)
    if not explanation.several or target.ndim == 1:
        del found["rank"]
    if explanation.several and target.ndim == 1:
        found["class"] = target[rank]
    elif explanation.several and target.shape == explanation.seed.shape and found["sample"].min(initial=0) >= 0:
        found["class"] = target[rank, found["sample"]]


def _value(explanation: Explanation, name: str) -> np.ndarray | None:
    """What the model read at each entry, of the point's rank: the graph input's values, or behind integers (B, T) these as
    (B, T, 1); None: the point is an internal tensor.
    """
    shape = explanation.relevance[name].shape[int(explanation.several) :]
    if name in explanation.inputs:
        return explanation.inputs[name] if explanation.inputs[name].shape == shape else None
    origins = explanation.origins.get(name, ())
    array = explanation.inputs.get(origins[0]) if len(origins) == 1 else None
    if array is None or array.dtype.kind not in "iu":
        return None
    if array.shape == shape:
        return array
    return array[..., None] if array.shape == shape[:-1] else None
