"""Sequences of tensors of unequal shapes, as one tensor: elements joined along the axis in which they differ, their sizes beside.

That axis keeps its place among the others, so a batch axis stays one, and every op is routing. Elements that differ in more than
one axis are flattened before they are joined: then a forward pass knows them, and relevance can't pass.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._lazy import tf
from ..dims import fresh, unify
from ..held import FLAT, MOST_AXES, Held, around, count_of, flat, lengths, line, place, span, sum_of
from ..layer import Routing, Trace, constant_dims, fill
from ..registry import Var
from .gather import bounds
from .reshape import reshape_like

__all__ = ["Blank", "Chained", "Cut", "Inserted", "Removed", "Spread", "Stack", "Taken"]

Tensor = Any


@dataclass(frozen=True, eq=False, kw_only=True)
class Cut(Held):
    """SplitToSequence: the tensor itself, and where it is cut along ``axis``.

    ``known``: the sizes; else ``size``: every part's but the last one's; else a second input holds one or the other.
    """

    size: int | None = None
    known: tuple[int, ...] | None = None

    @property
    def title(self) -> str:
        return "SplitToSequence"

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        x = xs[0]
        count = fresh(None if self.known is None else len(self.known))
        whole, table = self.held(x, x.dims, count, x.rank, self.known)
        return [dataclasses.replace(whole, dims=x.dims), table]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        x, *rest = xs
        if self.known is not None:
            return Trace(xs, [x, tf.constant(self.known, tf.int64)[:, None]], p)
        axis = self.axis or 0
        split = tf.cast(rest[0], tf.int64) if rest else tf.constant(self.size, tf.int64)
        if split.shape.rank == 0:
            total = x.shape[axis]
            static = tf.get_static_value(split)
            if total is not None and static is not None:
                at = np.arange(0, total, int(static))
                split = tf.constant(np.minimum(total - at, int(static)), tf.int64)
            else:
                whole = tf.shape(x, out_type=tf.int64)[axis]
                split = tf.minimum(whole - tf.range(0, whole, split), split)
        return Trace(xs, [x, split[:, None]], p)

    def route(self, trace: Trace, rs: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        return [rs[0], *[None] * (len(trace.inputs) - 1)]


@dataclass(frozen=True, eq=False, kw_only=True)
class Chained(Held):
    """SequenceConstruct: operands (inputs or constants) of unequal shapes."""

    slots: tuple[int | str, ...]

    @property
    def title(self) -> str:
        return "SequenceConstruct"

    def signals(self, xs: Sequence[Var]) -> Sequence[int]:
        return [i for i, x in enumerate(xs) if x.is_float]

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        every = [like(self.parameters[s]) if isinstance(s, str) else xs[s] for s in self.slots]
        ranks = {x.rank for x in every}
        sizes = None if self.axis is None else [(x.shape or ())[self.axis] if x.shape else None for x in every]
        known = None if sizes is None or None in sizes else [s for s in sizes if s is not None]
        dims = next((x.dims for x in every if x.dims is not None), None)
        if self.axis is not None:
            for x in every:
                dims = tuple(
                    a if i == self.axis else unify(a, b) for i, (a, b) in enumerate(zip(dims or (), x.dims or (), strict=False))
                )
        rank = ranks.pop() if len(ranks) == 1 else None
        return self.held(hull(every), dims, fresh(len(every)), rank, known)

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        every = fill(self.slots, xs, p)
        rows = [line(x, self.axis) for x in every]
        y = tf.concat([flat(x, self.axis) for x in every], self.axis or 0)
        return Trace(xs, [y, tf.concat(rows, 0)], p)

    def _parts(self, trace: Trace, r: Tensor) -> list[tuple[int | str, Tensor]]:
        every = fill(self.slots, trace.inputs, trace.parameters)
        axis = self.axis or 0
        sizes = [flat(x, self.axis).shape[axis] for x in every]
        if None in sizes:
            sizes = tf.stack([tf.shape(flat(x, self.axis))[axis] for x in every])
        return list(zip(self.slots, tf.split(r, sizes, axis=axis, num=len(every)), strict=True))

    def route(self, trace: Trace, rs: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        parts = {slot: part for slot, part in self._parts(trace, rs[0]) if not isinstance(slot, str)}
        return [reshape_like(parts[i], x) for i, x in enumerate(trace.inputs)]

    def lost(self, trace: Trace, rs: Sequence[Tensor | None]) -> Sequence[tuple[Tensor, Tensor]]:
        return [(trace.parameters[slot], part) for slot, part in self._parts(trace, rs[0]) if isinstance(slot, str)]


@dataclass(frozen=True, eq=False, kw_only=True)
class Spread(Held):
    """A stack (N, …) of equal elements, held as one of unequal ones. ``rank``: of an element, where a stack of none doesn't say."""

    rank: int | None = None

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        x = xs[0]
        empty = x.rank == 1 and x.dims is not None and x.dims[0].size == 0 and self.rank != 0
        dims = None if x.dims is None or empty else x.dims[1:]
        if empty and self.rank is not None:
            dims = tuple(fresh(None) for _ in range(self.rank))
        count = fresh(None) if x.dims is None else x.dims[0]
        whole, table = self.held(x, dims, count, self.rank if dims is None else len(dims))
        if empty and whole.dims is not None:
            whole = dataclasses.replace(
                whole, dims=tuple(fresh(0) if a == (self.axis or 0) else d for a, d in enumerate(whole.dims))
            )
        return [whole, table]

    def _order(self, rank: int) -> list[int]:
        axis = self.axis or 0
        return [*range(1, axis + 1), 0, *range(axis + 1, rank)]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        (x,) = xs
        if self.axis is None:
            shape = tf.shape(x, out_type=tf.int64)
            own = tf.pad(shape[1:], [[0, MOST_AXES + 1 - x.shape.rank]], constant_values=-1)
            return Trace(xs, [tf.reshape(x, [-1]), tf.tile(own[None], [shape[0], 1])], p)
        if x.shape.rank == 1 and self.rank:  # a stack of none
            return Trace(xs, [tf.zeros([0] * self.rank, x.dtype), tf.zeros([0, 1], tf.int64)], p)
        y = tf.transpose(x, self._order(x.shape.rank))
        shape = tf.shape(y)
        whole = tf.concat([shape[: self.axis], shape[self.axis : self.axis + 1] * shape[self.axis + 1], shape[self.axis + 2 :]], 0)
        table = tf.fill([shape[self.axis], 1], tf.cast(shape[self.axis + 1], tf.int64))
        return Trace(xs, [tf.reshape(y, whole), table], p, {"shape": shape})

    def route(self, trace: Trace, rs: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        (x,) = trace.inputs
        if self.axis is None or "shape" not in trace.saved:
            return [reshape_like(rs[0], x)]
        back = [int(a) for a in np.argsort(self._order(x.shape.rank))]
        return [tf.transpose(tf.reshape(rs[0], trace.saved["shape"]), back)]


@dataclass(frozen=True, eq=False, kw_only=True)
class Blank(Routing):
    """A stack of no elements (0,) as one of elements whose ``rank`` − 1 axes are known."""

    rank: int

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        dims = (fresh(0), *(fresh(None) for _ in range(self.rank - 1)))
        return [dataclasses.replace(xs[0], dims=dims, value=None, origin=frozenset())]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        return Trace(xs, [tf.zeros([0] * self.rank, xs[0].dtype)], p)

    def route(self, trace: Trace, rs: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        return [tf.zeros_like(trace.inputs[0])]


@dataclass(frozen=True, eq=False, kw_only=True)
class Stack(Routing):
    """A sequence and its table as the stack (N, …) of its elements, which turn out to be equal."""

    axis: int

    def signals(self, xs: Sequence[Var]) -> Sequence[int]:
        return (0,) if xs[0].is_float else ()

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        x, table = xs
        dims = x.dims
        if dims is not None:
            count = fresh(None) if table.dims is None else table.dims[0]
            dims = (count, *dims[: self.axis], fresh(None), *dims[self.axis + 1 :])
        return [dataclasses.replace(x, dims=dims, value=None, origin=frozenset(), parts=None)]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        x, table = xs
        sizes = lengths(table)
        # the largest size: times their number that is more than there is unless all are equal, and the reshape fails
        size = int(sizes.max()) if isinstance(sizes, np.ndarray) else tf.reduce_max(sizes)
        shape = tf.shape(x)
        shape = tf.concat([shape[: self.axis], tf.stack([count_of(sizes), size]), shape[self.axis + 1 :]], 0)
        y = tf.reshape(x, shape)
        y.set_shape([None] * (x.shape.rank + 1))
        order = [self.axis, *(a for a in range(x.shape.rank + 1) if a != self.axis)]
        return Trace(xs, [tf.transpose(y, order)], p)

    def route(self, trace: Trace, rs: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        x, _ = trace.inputs
        order = [*range(1, self.axis + 1), 0, *range(self.axis + 1, x.shape.rank + 1)]
        return [reshape_like(tf.transpose(rs[0], order), x), None]


@dataclass(frozen=True, eq=False, kw_only=True)
class Taken(Routing):
    """SequenceAt. Inputs: the sequence, its table, the position unless that is known."""

    axis: int | None
    rank: int | None
    position: int | None

    @property
    def title(self) -> str:
        return "SequenceAt"

    def signals(self, xs: Sequence[Var]) -> Sequence[int]:
        return (0,) if xs[0].is_float else ()

    def barrier(self, output: int) -> str:
        return FLAT if self.axis is None else ""

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        x = xs[0]
        dims = x.dims
        if self.axis is None:
            dims = None if self.rank is None else tuple(fresh(None) for _ in range(self.rank))
        elif dims is not None:
            dims = (*dims[: self.axis], fresh(None), *dims[self.axis + 1 :])
        return [dataclasses.replace(x, dims=dims, value=None, origin=frozenset(), parts=None)]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        x, table, *rest = xs
        axis, sizes = self.axis or 0, lengths(table)
        at = place(rest[0] if self.position is None else self.position, count_of(sizes))
        sizes = sizes if isinstance(at, int) else tf.convert_to_tensor(sizes)
        start, size = sum_of(sizes[:at]), int(sizes[at]) if isinstance(sizes, np.ndarray) else sizes[at]
        y = span(x, axis, start, size)
        if self.axis is None:
            shape = table[at] if self.rank is None else table[at, : self.rank]
            y = tf.reshape(y, shape if self.rank is not None else tf.boolean_mask(shape, shape >= 0))
        whole = tf.shape(x)[axis] if x.shape[axis] is None else x.shape[axis]
        return Trace(xs, [y], p, {"before": start, "after": whole - start - size})

    def route(self, trace: Trace, rs: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        saved = trace.saved
        back = around(flat(rs[0], self.axis), self.axis or 0, saved["before"], saved["after"])
        return [reshape_like(back, trace.inputs[0]), *[None] * (len(trace.inputs) - 1)]


@dataclass(frozen=True, eq=False, kw_only=True)
class Inserted(Held):
    """SequenceInsert. Slots: the sequence, its table, the element, and the position unless that is known (None: at the end)."""

    slots: tuple[int | str, ...]
    position: int | None = None

    @property
    def title(self) -> str:
        return "SequenceInsert"

    def signals(self, xs: Sequence[Var]) -> Sequence[int]:
        return [s for s in (self.slots[0], self.slots[2]) if isinstance(s, int) and xs[s].is_float]

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        whole, table, element, *_ = fill(self.slots, xs, self.parameters)
        element = element if isinstance(element, Var) else like(element)
        rank = whole.parts.rank if whole.parts is not None and whole.parts.rank == element.rank else None
        count = table.dims[0] + 1 if table.dims is not None else fresh(None)
        dims = element.dims if whole.dims is None else whole.dims
        if self.axis is not None and dims is not None and element.dims is not None:
            dims = tuple(a if i == self.axis else unify(a, b) for i, (a, b) in enumerate(zip(dims, element.dims, strict=True)))
        return self.held(hull([whole, element]), dims, count, rank)

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        whole, table, element, *rest = fill(self.slots, xs, p)
        axis, sizes = self.axis or 0, lengths(table)
        piece, new = flat(element, self.axis), line(element, self.axis)
        if self.axis is not None:  # of a sequence of none nothing but the rank is known
            shape = tf.shape(piece)
            none = tf.concat([shape[:axis], [0], shape[axis + 1 :]], 0)
            rank = whole.shape.rank
            whole = tf.reshape(whole, tf.where(tf.equal(tf.shape(table)[0], 0), none, tf.shape(whole)))
            whole.set_shape([None] * rank)
        count = count_of(sizes)
        at = count if not rest and self.position is None else place(rest[0] if rest else self.position, count)
        sizes = sizes if isinstance(at, int) else tf.convert_to_tensor(sizes)
        start = sum_of(sizes[:at])
        y = tf.concat([span(whole, axis, 0, start), piece, span(whole, axis, start)], axis)
        lines = tf.concat([table[:at], new, table[at:]], 0)
        return Trace(xs, [y, lines], p, {"start": start, "size": tf.shape(piece)[axis]})

    def _parts(self, trace: Trace, r: Tensor) -> list[Tensor | None]:
        whole, _, element, *_ = fill(self.slots, trace.inputs, trace.parameters)
        axis, start, size = self.axis or 0, trace.saved["start"], trace.saved["size"]
        rest = tf.concat([span(r, axis, 0, start), span(r, axis, start + size)], axis)
        return [reshape_like(rest, whole), None, reshape_like(span(r, axis, start, size), element), None]

    def route(self, trace: Trace, rs: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        return [part for part, s in zip(self._parts(trace, rs[0]), self.slots, strict=False) if not isinstance(s, str)]

    def lost(self, trace: Trace, rs: Sequence[Tensor | None]) -> Sequence[tuple[Tensor, Tensor]]:
        slot = self.slots[2]
        part = self._parts(trace, rs[0])[2] if isinstance(slot, str) else None
        return [] if part is None else [(trace.parameters[str(slot)], part)]


@dataclass(frozen=True, eq=False, kw_only=True)
class Removed(Held):
    """SequenceErase. Inputs: the sequence, its table, the position unless that is known."""

    rank: int | None
    position: int | None

    @property
    def title(self) -> str:
        return "SequenceErase"

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        x, table = xs[:2]
        return self.held(x, x.dims, table.dims[0] - 1 if table.dims is not None else fresh(None), self.rank)

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        x, table, *rest = xs
        axis, sizes = self.axis or 0, lengths(table)
        at = place(rest[0] if self.position is None else self.position, count_of(sizes))
        sizes = sizes if isinstance(at, int) else tf.convert_to_tensor(sizes)
        start, size = sum_of(sizes[:at]), sizes[at]
        y = tf.concat([span(x, axis, 0, start), span(x, axis, start + size)], axis)
        return Trace(xs, [y, tf.concat([table[:at], table[at + 1 :]], 0)], p, {"start": start, "size": size})

    def route(self, trace: Trace, rs: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        axis, start, size = self.axis or 0, trace.saved["start"], trace.saved["size"]
        gone = tf.zeros_like(span(trace.inputs[0], axis, start, size))
        back = tf.concat([span(rs[0], axis, 0, start), gone, span(rs[0], axis, start)], axis)
        return [back, *[None] * (len(trace.inputs) - 1)]


def like(array: np.ndarray) -> Var:
    """A constant as a Var."""
    return Var("", array.dtype, constant_dims(array), interval=bounds(array))


def hull(xs: Sequence[Var]) -> Var:
    """A tensor that holds the entries of all."""
    low, high = zip(*(x.interval for x in xs), strict=True)
    return Var("", xs[0].dtype, None, interval=(min(low), max(high)), mask=all(x.mask for x in xs))
