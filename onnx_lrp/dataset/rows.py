"""Columns made into one array a row; what can't be is a problem of that row alone."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError

__all__ = ["Encode", "Problem", "arrays", "encoded", "kept", "kind_of", "side_by_side"]

Encode = Callable[[str], Any]  # a text → its token ids, (T,)
NUMBERS = "fiub"


@dataclass(frozen=True)
class Problem:
    """Why a row can't be explained.

    Attributes:
        kind: "line" (malformed), "null", "number" (no numbers), "shape" (number of axes or width), "length" (of time), "nan"
            (infinity too), "id" (outside the embedding), "target", "keep", "model" (it overflows there), "memory", or "input" (all
            else that the engine refuses).
        reason: in words.
    """

    kind: str
    reason: str


def encoded(text: str, encode: Encode | None) -> Any:
    """Text → what the model reads; the one place where a tokenizer has a say.

    Args:
        text: a cell.
        encode: the tokenizer; None: the text holds numbers, as a JSON list or with spaces, commas or semicolons between them.

    Raises:
        ValueError: neither (:class:`InputError` is one).
    """
    if encode is not None:
        return encode(text)
    text = text.strip()
    if text.startswith("["):
        return json.loads(text)
    parts = text.replace(",", " ").replace(";", " ").split()
    numbers = [float(p) if set(p.lower()) & set(".enf") else int(p) for p in parts]
    return numbers[0] if len(numbers) == 1 and text == parts[0] else numbers


def arrays(column: Any, *, rank: int | None, strings: bool, encode: Encode | None) -> list[np.ndarray | Problem]:
    """One array, or a problem, for every row of a column.

    Args:
        column: pyarrow array, numpy array (rows first) or list of Python values.
        rank: axes of a row, None if unknown; a single number then counts as a sequence of one where that is 1.
        strings: whether the model itself reads text.
        encode: see :func:`encoded`.
    """
    if isinstance(column, np.ndarray) and column.dtype != object:
        return list(column) if column.dtype.kind in NUMBERS or strings else [_no_number(column.dtype)] * len(column)
    if hasattr(column, "to_pylist"):
        fast = _lists(_plain(column))
        column = column.to_pylist() if fast is None else fast
    return [_array(row, rank, strings, encode) for row in column]


def _no_number(what: Any) -> Problem:
    return Problem("number", f"holds {what}, not numbers")


def _plain(column: Any) -> Any:
    """Without dictionaries and extension types."""
    if hasattr(column, "indices"):
        column = column.dictionary_decode()
    return getattr(column, "storage", column)


def _lists(column: Any) -> Sequence[Any] | None:
    """Views into one buffer, None for a row without a value; None: not of that simple kind (a null within a row, text, …)."""
    dense = _dense(column)
    if dense is None:
        return None
    if column.null_count == 0:
        return dense
    return [None if null else row for null, row in zip(column.is_null().to_pylist(), dense, strict=True)]


def _dense(column: Any) -> Sequence[Any] | None:
    """Rows of an Arrow array, as an array where all are of one shape; None: nulls inside, or no numbers."""
    import pyarrow as arrow

    kind = column.type
    if not (arrow.types.is_list(kind) or arrow.types.is_large_list(kind) or arrow.types.is_fixed_size_list(kind)):
        numeric = arrow.types.is_integer(kind) or arrow.types.is_floating(kind) or arrow.types.is_boolean(kind)
        return column.to_numpy(zero_copy_only=False) if numeric and column.null_count == 0 else None
    if arrow.types.is_fixed_size_list(kind):
        offsets = (np.arange(len(column) + 1) + column.offset) * kind.list_size
    else:
        offsets = column.offsets.to_numpy()
    start, end = int(offsets[0]), int(offsets[-1])
    inner = _plain(column.values.slice(start, end - start))
    if inner.null_count:
        return None
    values = _dense(inner)
    if values is None:
        return None
    offsets = offsets - start
    if column.null_count == 0 and isinstance(values, np.ndarray) and len(column) and len(set(np.diff(offsets).tolist())) == 1:
        return values.reshape(len(column), int(offsets[1]), *values.shape[1:])
    bounds = offsets.tolist()
    rows = [values[a:b] for a, b in itertools.pairwise(bounds)]
    return rows if isinstance(values, np.ndarray) else [_stacked(row) for row in rows]


def _stacked(parts: Sequence[np.ndarray]) -> Any:
    """One array of parts of equal shape; others stay a list, which no array can be made of."""
    return np.stack(parts) if len({p.shape for p in parts}) == 1 else list(parts)


def _array(row: Any, rank: int | None, strings: bool, encode: Encode | None) -> np.ndarray | Problem:
    """One row."""
    if isinstance(row, np.ndarray) and row.dtype.kind in NUMBERS:
        return row if row.ndim or rank != 1 else row.reshape(1)
    if row is None or (rank == 0 and isinstance(row, str) and not strings and not row.strip()):
        return Problem("null", "no value")
    if isinstance(row, str) and not strings:
        try:
            row = encoded(row, encode)
        except ValueError as error:
            if encode is not None or isinstance(error, InputError):
                return Problem("number", f"text {_short(row)}: {error}")
            none = f"{_short(row)} is no number"
            return Problem("number", none if rank == 0 else f"{none} and no list of them, and no tokenizer was given")
    try:
        array = np.asarray(row)
    except (ValueError, TypeError):
        return _uneven(row)
    if array.dtype == object and not strings:
        return _uneven(row)
    if array.dtype.kind not in NUMBERS and not strings:
        return _no_number(_short(row))
    return array.reshape(1) if rank == 1 and array.ndim == 0 else array


def _uneven(row: Any) -> Problem:
    """Why no array can be made of it."""
    parts: list[Any] = [row]
    while any(isinstance(p, list | tuple | np.ndarray) for p in parts):
        if any(p is None for p in parts):
            break
        sizes = {len(p) if isinstance(p, list | tuple | np.ndarray) else 0 for p in parts}
        if len(sizes) > 1:
            return Problem("shape", f"steps of different widths: {', '.join(map(str, sorted(sizes)))}")
        parts = [q for p in parts for q in p]
    return Problem("null", "a null among its numbers") if any(p is None for p in parts) else _no_number(_short(row))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "…" + text[0]


def side_by_side(columns: Sequence[Sequence[np.ndarray | Problem]]) -> list[np.ndarray | Problem]:
    """One array a row of the numbers that several columns hold for it."""
    if len(columns) == 1:
        return list(columns[0])
    out: list[np.ndarray | Problem] = []
    for row in zip(*columns, strict=True):
        wrong = [p for p in row if isinstance(p, Problem)]
        same = not wrong and len({p.shape for p in row if isinstance(p, np.ndarray)}) == 1
        out.append(wrong[0] if wrong else np.stack(row, -1) if same else Problem("shape", "columns of different shapes"))
    return out


def kind_of(column: Any) -> Any:
    """The Arrow type of a column to keep; of text whose cells are all numbers, that of these."""
    import pyarrow as arrow

    if hasattr(column, "type"):
        return column.type
    if isinstance(column, np.ndarray):
        return arrow.array(list(column) if column.ndim > 1 else column).type
    filled = [cell for cell in column if cell is not None]
    if filled and all(isinstance(cell, str) for cell in filled):
        for read, kind in ((int, arrow.int64()), (float, arrow.float64())):
            try:
                for cell in filled:
                    read(cell)
            except ValueError:
                continue
            return kind
        return arrow.string()
    try:
        return arrow.array(filled).type
    except (arrow.ArrowException, OverflowError):  # of several types: as the first
        return arrow.array(filled[:1]).type


def kept(column: Any, kind: Any) -> tuple[Any, dict[int, Problem]]:
    """A column to keep, as an Arrow array of one type; what does not fit is null, and a problem of its row."""
    import pyarrow as arrow

    try:
        if hasattr(column, "type"):
            return column.cast(kind), {}
        if isinstance(column, np.ndarray):
            return arrow.array(list(column) if column.ndim > 1 else column).cast(kind), {}
        if not any(isinstance(cell, str) for cell in column):
            return arrow.array(column, kind), {}
    except (arrow.ArrowException, TypeError, OverflowError):
        column = column.to_pylist() if hasattr(column, "to_pylist") else list(column)
    read: Any = int if arrow.types.is_integer(kind) else float if arrow.types.is_floating(kind) else str
    cells: list[Any] = []
    problems = {}
    for i, cell in enumerate(column):
        try:
            value = read(cell) if isinstance(cell, str) or (read is str and cell is not None) else cell
            cells.append(arrow.scalar(value, kind))
        except (ValueError, TypeError, OverflowError, arrow.ArrowException):
            problems[i] = Problem("keep", f"{_short(cell)} is no {kind} as the rows before")
            cells.append(arrow.scalar(None, kind))
    return arrow.array([c.as_py() for c in cells], kind), problems
