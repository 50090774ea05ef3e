"""What was found, row by row: nested lists of the rows' own lengths, as Arrow columns or as numpy arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import InputError
from .engine import Found

__all__ = ["columns", "labels", "nested", "objects"]


def columns(found: Sequence[Found], texts: Sequence[Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
    """(rows in rising order, {name: Arrow array of as many entries}).

    Args:
        texts: the text of every row, over whose words relevance is added up.

    Raises:
        InputError: relevance has other steps than the text has pieces.
    """
    import pyarrow as arrow

    rows = np.concatenate([f.rows for f in found])
    order = np.argsort(rows, kind="stable")
    made = {}
    for name in found[0].fields:
        pieces = [piece for f in found for piece in _pieces(f, name)]
        if pieces[0][0].dtype == object:
            words = [str(value) for array, _ in pieces for value in array]
            made[name] = arrow.array([words[k] for k in order.tolist()], arrow.string())
        elif pieces[0][0].ndim == 1:
            made[name] = arrow.array(np.concatenate([array for array, _ in pieces])[order])
        else:
            flat, sizes = _in_order(pieces, order)
            if texts is not None and name in found[0].steps:
                flat, sizes = _folded(flat, sizes, [texts[i] for i in rows[order].tolist()], name)
            made[name] = nested(flat, sizes)
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


def _in_order(pieces: Sequence[tuple[np.ndarray, np.ndarray]], order: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """All entries one after the other, rows in ``order``, and what :func:`nested` needs of their shapes.

    Copied once, row by row: Arrow's ``take`` makes an index of every single number, which is twice what is moved.
    """
    lengths = np.concatenate([own for _, own in pieces])
    inner = np.concatenate([np.tile(array.shape[2:], (len(array), 1)).astype(np.int64) for array, _ in pieces])
    volumes = lengths * inner.prod(1)
    stops = np.empty_like(volumes)
    stops[order] = np.cumsum(volumes[order])
    flat = np.empty(int(volumes.sum()), pieces[0][0].dtype)
    bounds = zip((stops - volumes).tolist(), stops.tolist(), lengths.tolist(), strict=True)
    for row, (start, stop, length) in zip((row for array, _ in pieces for row in array), bounds, strict=True):
        flat[start:stop] = row[:length].reshape(-1)
    sizes, each = [lengths[order]], lengths[order]
    for axis in range(inner.shape[1]):
        sizes.append(np.repeat(inner[order, axis], each))
        each = each * inner[order, axis]
    return flat, sizes


def _folded(flat: np.ndarray, sizes: list[np.ndarray], texts: Sequence[Any], name: str) -> tuple[np.ndarray, list[np.ndarray]]:
    """Sums over the pieces of each word, as :func:`onnx_lrp.labels.fold` makes them, of all rows at once."""
    lengths, width = sizes[0], int(np.prod([s[0] for s in sizes[1:] if len(s)]))
    other = [k for k, text in enumerate(texts) if len(text) != lengths[k]]
    if other or any(len(set(s.tolist())) > 1 for s in sizes[1:]):
        k = other[0] if other else 0
        raise InputError(
            f"{name}: {lengths[k]} steps for the {len(texts[k])} pieces of a text; relevance by word needs one for each: "
            "take --by piece (words=False)"
        )
    starts = np.cumsum(lengths) - lengths
    firsts = [start + word.first for start, text in zip(starts.tolist(), texts, strict=True) for word in text.words]
    counts = np.asarray([len(text.words) for text in texts])
    made = np.add.reduceat(flat.reshape(int(lengths.sum()), width), firsts, axis=0).reshape(-1)
    each, inner = counts, []
    for size in sizes[1:]:
        inner.append(np.full(int(each.sum()), size[0]))
        each = each * size[0]
    return made, [counts, *inner]


def labels(texts: Sequence[Any], *, words: bool) -> dict[str, Any]:
    """The pieces of texts, and their words, as Arrow lists of text: what the entries of relevance stand for; and how many more
    pieces were cut off.
    """
    import pyarrow as arrow

    made = {"pieces": [text.pieces for text in texts]}
    if words:
        made["words"] = [[word.text for word in text.words] for text in texts]
    found = {}
    for name, rows in made.items():
        flat = arrow.array([part for row in rows for part in row], arrow.string())
        found[name] = nested(flat, [np.asarray([len(row) for row in rows])])
    return {**found, "left_out": arrow.array([text.left_out for text in texts], arrow.int32())}


def nested(flat: Any, sizes: Sequence[np.ndarray]) -> Any:
    """Lists of lists: (n,) lengths of the outermost, then for every axis the lengths of all lists there, one after the other.

    Args:
        flat: the entries, as a numpy or an Arrow array.
    """
    import pyarrow as arrow

    made = arrow.array(flat) if isinstance(flat, np.ndarray) else flat
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
