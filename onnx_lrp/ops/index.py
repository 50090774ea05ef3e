"""Entries picked by computed places or conditions: GatherElements, GatherND, Compress, NonZero.

An entry that is picked hands its relevance to the place it came from.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._lazy import tf
from ..dims import Dim, fresh, unify
from ..layer import Plain, Routing, Trace, constant_dims, fill, mixed
from ..registry import Var, importer
from .gather import bounds, from_start, inside, put_back

__all__ = ["Compress", "GatherElements", "GatherND"]

Tensor = Any


def operands(layer: Any, xs: Sequence[Var]) -> list[Var]:
    """The operands of a mixed layer, constants as Vars with dims of their own."""
    out = []
    for slot in layer.slots:
        if isinstance(slot, str):
            array = layer.parameters[slot]
            out.append(Var("", array.dtype, constant_dims(array), interval=bounds(array)))
        else:
            out.append(xs[slot])
    return out


def meet(a: Dim, b: Dim) -> Dim:
    """Two axes that are equal unless their sizes say otherwise."""
    return unify(a, b) if a.size == b.size else b


def places_of_elements(indices: Tensor, axis: int, shape: Tensor) -> Tensor:
    """Row-major place in a tensor of ``shape`` of every index along ``axis``; along the other axes it is the index's own."""
    rank = indices.shape.rank
    axis %= rank
    shape = tf.cast(shape, tf.int64)
    strides = tf.math.cumprod(shape, exclusive=True, reverse=True)
    own = tf.shape(indices, out_type=tf.int64)
    places = from_start(tf.cast(indices, tf.int64), shape[axis]) * strides[axis]
    for a in range(rank):
        if a != axis:
            places += tf.reshape(tf.range(own[a]) * strides[a], [-1 if i == a else 1 for i in range(rank)])
    return places


def width_of(indices: Any, node: Any) -> int:
    """K of index tuples (…, K)."""
    dims = indices.dims if isinstance(indices, Var) else constant_dims(indices)
    if not dims or dims[-1].size is None:
        raise node.refuse("the length of the index tuples, the last axis of indices, is unknown")
    return dims[-1].size


def places_of_tuples(indices: Tensor, width: int, shape: Tensor, batch_dims: int = 0) -> Tensor:
    """Row-major place, in the leading axes of ``shape``, of every index tuple; ``batch_dims`` axes are the tuple's own."""
    lead = tf.cast(shape, tf.int64)[: batch_dims + width]
    strides = tf.math.cumprod(lead, exclusive=True, reverse=True)
    tuples = from_start(tf.cast(indices, tf.int64), lead[batch_dims:])
    places = tf.reduce_sum(tuples * strides[batch_dims:], -1)
    rank = places.shape.rank
    own = tf.shape(places, out_type=tf.int64)
    for a in range(batch_dims):
        places += tf.reshape(tf.range(own[a]) * strides[a], [-1 if i == a else 1 for i in range(rank)])
    return places


@dataclass(frozen=True, eq=False, kw_only=True)
class GatherElements(Routing):
    """Slots: data, indices (of the output's shape)."""

    slots: tuple[int | str, ...]
    axis: int

    def signals(self, xs: Sequence[Var]) -> Sequence[int]:
        return (0,) if isinstance(self.slots[0], int) and xs[0].is_float else ()

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        data, indices = operands(self, xs)
        dims = indices.dims
        if dims is not None and data.dims is not None:
            axis = self.axis % len(dims)
            dims = tuple(i if a == axis else meet(d, i) for a, (i, d) in enumerate(zip(dims, data.dims, strict=True)))
        return [Var("", data.dtype, dims, interval=data.interval, mask=data.mask)]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        data, indices = fill(self.slots, xs, p)
        places = places_of_elements(indices, self.axis, tf.shape(data))
        return Trace(xs, [tf.gather(tf.reshape(data, [-1]), places)], p, {"places": places})

    def within(self, trace: Trace) -> Tensor | None:
        data, indices = fill(self.slots, trace.inputs, trace.parameters)
        return inside(indices, tf.shape(data)[self.axis])

    def route(self, trace: Trace, rs: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        x: Tensor = trace.inputs[0]
        flat = tf.math.unsorted_segment_sum(rs[0], trace.saved["places"], tf.size(x))
        return [tf.reshape(flat, tf.shape(x)), *[None] * (len(trace.inputs) - 1)]


@importer("GatherElements", since=11)
def gather_elements(data: Any, indices: Any, *, axis: int = 0) -> Any:
    slots, parameters, inputs = mixed(data, indices)
    return GatherElements(parameters=parameters, slots=slots, axis=axis), inputs


@dataclass(frozen=True, eq=False, kw_only=True)
class GatherND(Routing):
    """Slots: data, indices (…, K): slices of the data at the index tuples; the first ``batch_dims`` axes are shared."""

    slots: tuple[int | str, ...]
    width: int
    batch_dims: int

    def signals(self, xs: Sequence[Var]) -> Sequence[int]:
        return (0,) if isinstance(self.slots[0], int) and xs[0].is_float else ()

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        data, indices = operands(self, xs)
        dims = None
        if data.dims is not None and indices.dims is not None:
            b = self.batch_dims
            shared = [unify(i, d) for i, d in zip(indices.dims[:b], data.dims[:b], strict=True)]
            dims = (*shared, *indices.dims[b:-1], *data.dims[b + self.width :])
        return [Var("", data.dtype, dims, interval=data.interval, mask=data.mask)]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        data, indices = fill(self.slots, xs, p)
        shape = tf.shape(data)
        lead = self.batch_dims + self.width
        places = places_of_tuples(indices, self.width, shape, self.batch_dims)
        rows = tf.reshape(data, tf.concat([[tf.reduce_prod(shape[:lead])], shape[lead:]], 0))
        return Trace(xs, [tf.gather(rows, places)], p, {"places": places, "rows": tf.shape(rows)[0]})

    def within(self, trace: Trace) -> Tensor | None:
        data, indices = fill(self.slots, trace.inputs, trace.parameters)
        sizes = tf.shape(data)[self.batch_dims : self.batch_dims + self.width]
        return inside(indices, sizes)

    def route(self, trace: Trace, rs: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        x: Tensor = trace.inputs[0]
        rows = tf.math.unsorted_segment_sum(rs[0], trace.saved["places"], trace.saved["rows"])
        return [tf.reshape(rows, tf.shape(x)), *[None] * (len(trace.inputs) - 1)]


@importer("GatherND", since=11)
def gather_nd(data: Any, indices: Any, *, batch_dims: int = 0, node: Any) -> Any:
    slots, parameters, inputs = mixed(data, indices)
    return GatherND(parameters=parameters, slots=slots, width=width_of(indices, node), batch_dims=batch_dims), inputs


@dataclass(frozen=True, eq=False, kw_only=True)
class Compress(Routing):
    """Slots: input, condition (bools): the entries along ``axis`` (None: of the flattened input) where it holds."""

    slots: tuple[int | str, ...]
    axis: int | None

    def signals(self, xs: Sequence[Var]) -> Sequence[int]:
        return (0,) if isinstance(self.slots[0], int) and xs[0].is_float else ()

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        x, _ = operands(self, xs)
        slot = self.slots[1]
        kept = fresh(int(np.count_nonzero(self.parameters[slot])) if isinstance(slot, str) else None)
        dims = x.dims
        if self.axis is None:
            dims = (kept,)
        elif dims is not None:
            axis = self.axis % len(dims)
            dims = (*dims[:axis], kept, *dims[axis + 1 :])
        return [dataclasses.replace(x, name="", dims=dims, value=None, origin=frozenset())]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        x, condition = fill(self.slots, xs, p)
        indices = tf.reshape(tf.where(condition), [-1])
        flat = tf.reshape(x, [-1]) if self.axis is None else x
        return Trace(xs, [tf.gather(flat, indices, axis=self.axis or 0)], p, {"indices": indices, "flat": flat})

    def route(self, trace: Trace, rs: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        back = put_back(rs[0], trace.saved["indices"], self.axis or 0, trace.saved["flat"])
        return [tf.reshape(back, tf.shape(trace.inputs[0])), *[None] * (len(trace.inputs) - 1)]


@importer("Compress", since=9)
def compress(input: Any, condition: Any, *, axis: int | None = None) -> Any:
    slots, parameters, inputs = mixed(input, condition)
    return Compress(parameters=parameters, slots=slots, axis=axis), inputs


@dataclass(frozen=True, eq=False, kw_only=True)
class NonZero(Plain):
    """Indices (rank, N) of the entries that are not zero."""

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        return [Var("", np.dtype(np.int64), (fresh(xs[0].rank), fresh(None)))]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        x = xs[0]
        return Trace(xs, [tf.transpose(tf.where(x if x.dtype == tf.bool else tf.not_equal(x, tf.zeros_like(x))))], p)


@importer("NonZero", since=9)
def nonzero(X: Any) -> Any:
    return NonZero(), (X,)
