"""What was found, row by row: nested lists of the rows' own lengths, as Arrow columns or as numpy arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .engine import Found

__all__ = ["columns", "objects"]


def columns(found: Sequence[Found]) -> tuple[np.ndarray, dict[str, Any]]:
    """(rows in rising order, {name: Arrow array of as many entries})."""
    import pyarrow as arrow

    rows = np.concatenate([f.rows for f in found])
    order = np.argsort(rows, kind="stable")
    made = {}
    for name in found[0].fields:
        pieces = [piece for f in found for piece in _pieces(f, name)]
        made[name] = _nested(pieces).take(arrow.array(order))
    return rows[order], made


def _pieces(found: Found, name: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """(array (b, …), lengths of its second axis (b,)): what is behind a row's own end is gone."""
    array = found.fields[name]
    if array.ndim < 2:
        return [(array, np.zeros(len(array), np.int64))]
    time, full = found.times.get(name), np.full(len(array), array.shape[1])
    if time is None or found.lengths is None or (found.lengths == array.shape[time]).all():
        return [(array, full)]
    if time == 1:
        return [(array, found.lengths)]
    cut = [np.take(array[k : k + 1], range(n), time) for k, n in enumerate(found.lengths)]
    return [(part, np.full(1, part.shape[1])) for part in cut]


def _nested(pieces: Sequence[tuple[np.ndarray, np.ndarray]]) -> Any:
    """One Arrow array of all pieces, a list for every axis behind that of rows."""
    import pyarrow as arrow

    first, _ = pieces[0]
    if first.dtype == object:
        return arrow.array([str(value) for array, _ in pieces for value in array])
    if first.ndim == 1:
        return arrow.array(np.concatenate([array for array, _ in pieces]))
    sizes = [np.concatenate([lengths for _, lengths in pieces])]
    flat = []
    for array, lengths in pieces:
        whole = (lengths == array.shape[1]).all()
        flat.append(array.reshape(-1) if whole else array[np.arange(array.shape[1]) < lengths[:, None]].reshape(-1))
    for axis in range(2, first.ndim):
        inner = [np.full(int(lengths.sum()) * int(np.prod(array.shape[2:axis])), array.shape[axis]) for array, lengths in pieces]
        sizes.append(np.concatenate(inner))
    made = arrow.array(np.concatenate(flat))
    for size in reversed(sizes):
        offsets = np.concatenate([[0], np.cumsum(size)])
        if offsets[-1] > np.iinfo(np.int32).max:
            made = arrow.LargeListArray.from_arrays(arrow.array(offsets), made)
        else:
            made = arrow.ListArray.from_arrays(arrow.array(offsets.astype(np.int32)), made)
    return made


def objects(found: Sequence[Found], size: int) -> dict[str, np.ndarray]:
    """{name: (size,) array}: numbers where a row has one, else an array a row; None, NaN or -1 in rows that were not found."""
    names: Mapping[str, np.ndarray] = found[0].fields if found else {}
    made: dict[str, np.ndarray] = {}
    for name, like in names.items():
        if like.ndim == 1 and like.dtype != object:
            made[name] = np.full(size, np.nan if like.dtype.kind == "f" else -1, like.dtype)
            for f in found:
                made[name][f.rows] = f.fields[name]
            continue
        made[name] = np.full(size, None, object)
        for f in found:
            at = 0
            for array, lengths in _pieces(f, name):
                for k, length in enumerate(lengths):
                    made[name][f.rows[at]] = array[k] if array.ndim < 2 else array[k, :length]
                    at += 1
    return made
