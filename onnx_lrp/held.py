"""How a sequence of tensors of unequal shapes is held: one tensor, its elements joined along an axis, and a table of sizes beside.

Shared by the layers that make and read such sequences, by loops that collect them, and by the backend, which feeds them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ._lazy import tf
from .dims import Dim, fresh
from .layer import Routing
from .registry import Parts, Var

__all__ = [
    "FLAT",
    "MOST_AXES",
    "Held",
    "around",
    "count_of",
    "flat",
    "lengths",
    "line",
    "place",
    "plain",
    "span",
    "sum_of",
    "table_of",
]

Tensor = Any
MOST_AXES = 8  # of an element that is flattened
FLAT = "elements that differ in more than one axis carry no relevance"


def table_of(name: str) -> str:
    """The name of the table beside a sequence."""
    return f"{name}~sizes"


def plain(x: Var) -> Var:
    """The tensor that holds a sequence, as a tensor."""
    return dataclasses.replace(x, parts=None)


def line(x: Tensor, axis: int | None) -> Tensor:
    """(1, R) int64: an element's line in the table."""
    shape = tf.shape(x, out_type=tf.int64)
    if axis is not None:
        return shape[None, axis : axis + 1]
    return tf.pad(shape, [[0, MOST_AXES - x.shape.rank]], constant_values=-1)[None]


def flat(x: Tensor, axis: int | None) -> Tensor:
    """An element as it is joined with others."""
    return tf.reshape(x, [-1]) if axis is None else x


def lengths(table: Tensor) -> Any:
    """(N,): how much of the joined axis each element takes; an ndarray where that is known before the program runs."""
    known = tf.get_static_value(table)
    if known is not None:
        return np.prod(np.where(known < 0, 1, known), 1).astype(np.int32)
    return tf.cast(tf.reduce_prod(tf.where(table < 0, tf.ones_like(table), table), 1), tf.int32)


def place(position: Any, count: Any) -> Any:
    """A position counted from the front; an int where it and the number of elements are known."""
    known = position if isinstance(position, int) else tf.get_static_value(position)
    if known is not None and isinstance(count, int):
        at = int(np.reshape(known, -1)[0])
        return at + count if at < 0 else at
    at = tf.cast(tf.reshape(position, []), tf.int32)
    return tf.where(at < 0, at + count, at)


def span(x: Tensor, axis: int, start: Any, size: Any = -1) -> Tensor:
    """``size`` entries along an axis from ``start`` on, -1: all that are left."""
    begin, sizes = [0] * x.shape.rank, [-1] * x.shape.rank
    begin[axis], sizes[axis] = start, size
    return tf.slice(x, begin, sizes)


def around(r: Tensor, axis: int, before: Any, after: Any) -> Tensor:
    """A tensor with so many zeros before and after it along an axis."""
    return tf.pad(r, [[before, after] if a == axis else [0, 0] for a in range(r.shape.rank)])


def count_of(sizes: Any) -> Any:
    """Their number."""
    return len(sizes) if isinstance(sizes, np.ndarray) else tf.shape(sizes)[0]


def sum_of(sizes: Any) -> Any:
    """Their sum."""
    return int(sizes.sum()) if isinstance(sizes, np.ndarray) else tf.reduce_sum(sizes)


@dataclass(frozen=True, eq=False, kw_only=True)
class Held(Routing):
    """Makes a sequence. Outputs: the tensor, and the ``table`` beside it. ``axis``: see :class:`~onnx_lrp.registry.Parts`."""

    table: str
    axis: int | None

    def signals(self, xs: Sequence[Var]) -> Sequence[int]:
        return (0,) if xs and xs[0].is_float else ()

    def names(self, outputs: Sequence[str]) -> Sequence[str]:
        return [outputs[0], self.table]

    def barrier(self, output: int) -> str:
        return FLAT if self.axis is None else ""

    def held(
        self, base: Var, dims: Sequence[Dim] | None, count: Dim, rank: int | None, known: Sequence[int] | None = None
    ) -> list[Var]:
        """Vars of both outputs. ``dims``: of an element, or of the whole; the joined axis is new unless ``known`` is all of it."""
        if self.axis is None:
            dims = (fresh(None),)
        elif dims is not None and known is not None:
            dims = (*dims[: self.axis], fresh(sum(known)), *dims[self.axis + 1 :])
        elif dims is not None:
            dims = (*dims[: self.axis], fresh(None), *dims[self.axis + 1 :])
        parts = Parts(self.table, self.axis, rank, None if known is None else tuple(known))
        whole = dataclasses.replace(base, dims=dims if dims is None else tuple(dims), value=None, origin=frozenset(), parts=parts)
        columns = fresh(MOST_AXES) if self.axis is None else Dim()
        return [whole, Var(self.table, np.dtype(np.int64), (count, columns))]
