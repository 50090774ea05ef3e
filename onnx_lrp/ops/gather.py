"""Gather and OneHot: as an embedding the place where relevance ends, on data a routing."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._lazy import tf
from ..dims import Dim, fresh
from ..layer import Affine, Routing, Trace, constant_dims, fill, known, mixed
from ..linear import LinearMap
from ..registry import ANY, Var, importer

__all__ = ["Gather", "Lookup", "OneHot", "Picked", "inside"]

Tensor = Any
CODE = "one-hot code of "


def bounds(array: np.ndarray) -> tuple[float, float]:
    """The interval of a constant's entries."""
    return (float(array.min()), float(array.max())) if array.size and array.dtype.kind in "fiub" else ANY


def put_back(r: Tensor, indices: Tensor, axis: int, x: Tensor) -> Tensor:
    """The rows of r added up at the places along ``axis`` of x that ``indices`` took them from (negative indices: nowhere)."""
    rank, width = x.shape.rank, indices.shape.rank
    axis %= rank
    order = [*range(axis, axis + width), *range(axis), *range(axis + width, r.shape.rank)]
    rest = [a for a in range(rank) if a != axis]
    rows = tf.transpose(r, order)
    shape = tf.shape(x)
    rows = tf.reshape(rows, tf.concat([[tf.size(indices)], tf.gather(shape, rest)], 0) if rest else [-1])
    summed = tf.math.unsorted_segment_sum(rows, tf.reshape(indices, [-1]), shape[axis])
    return tf.transpose(summed, [int(a) for a in np.argsort([axis, *rest])])


def inside(indices: Tensor, size: Tensor) -> Tensor:
    """Whether indices lie within axes of ``size``, negative ones counted from the end."""
    size = tf.cast(size, indices.dtype)
    return tf.reduce_all((indices >= -size) & (indices < size))


def from_start(indices: Tensor, size: Tensor) -> Tensor:
    """Indices with the negative ones counted from the end of an axis of ``size``."""
    return tf.where(indices < 0, indices + tf.cast(size, indices.dtype), indices)


@dataclass(frozen=True, eq=False, kw_only=True)
class Gather(Routing):
    """Slots: data, indices; negative indices count from the end."""

    slots: tuple[int | str, ...]
    axis: int

    def signals(self, xs: Sequence[Var]) -> Sequence[int]:
        return (0,) if isinstance(self.slots[0], int) and xs[0].is_float else ()

    @property
    def title(self) -> str:
        return "Embedding" if isinstance(self.slots[0], str) else "Gather"

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        first, second = self.slots
        data, indices = (constant_dims(self.parameters[s]) if isinstance(s, str) else xs[s].dims for s in self.slots)
        if isinstance(first, str):
            coded = isinstance(second, int) and xs[second].valued  # an embedding is a signal, whatever its bounds
            base = Var("", self.parameters[first].dtype, None, interval=ANY if coded else bounds(self.parameters[first]))
        else:
            base = Var("", xs[first].dtype, None, interval=xs[first].interval, mask=xs[first].mask)
        if data is None or indices is None:
            return [base]
        axis = self.axis % len(data)
        return [dataclasses.replace(base, dims=(*data[:axis], *indices, *data[axis + 1 :]))]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        data, indices = fill(self.slots, xs, p)
        indices = from_start(indices, tf.shape(data)[self.axis])
        return Trace(xs, [tf.gather(data, indices, axis=self.axis)], p, {"indices": indices})

    def within(self, trace: Trace) -> Tensor | None:
        data, indices = fill(self.slots, trace.inputs, trace.parameters)
        return inside(indices, tf.shape(data)[self.axis])

    def route(self, trace: Trace, rs: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        back = put_back(rs[0], trace.saved["indices"], self.axis, trace.inputs[0])
        return [back, *[None] * (len(trace.inputs) - 1)]


@dataclass(frozen=True, eq=False, kw_only=True)
class Picked(Routing):
    """``count`` entries along ``axis`` from ``start`` on (negative: from the end); None: one, without the axis.

    What a Gather with constant indices mostly is (the last time step, a reversed series): cut out and put back as one block.
    """

    axis: int
    start: int
    step: int = 1
    count: int | None = None

    @property
    def title(self) -> str:
        return "Gather"

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        (x,) = xs
        dims = x.dims
        if dims is not None:
            axis = self.axis % len(dims)
            middle: tuple[Dim, ...] = () if self.count is None else (fresh(self.count),)
            if self.count is not None and dims[axis].size == self.count and abs(self.step) == 1:
                middle = (dims[axis],)  # every entry, maybe in reverse
            dims = (*dims[:axis], *middle, *dims[axis + 1 :])
        return [dataclasses.replace(x, dims=dims, value=None, origin=frozenset())]

    def within(self, trace: Trace) -> Tensor | None:
        x = trace.inputs[0]
        last = self.start + self.step * ((self.count or 1) - 1)
        return inside(tf.constant([self.start, last]), tf.shape(x)[self.axis])

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        rank = xs[0].shape.rank
        axis = self.axis % rank
        count = 1 if self.count is None else self.count
        stop = self.start + self.step * count
        begin, end, stride = [0] * rank, [0] * rank, [1] * rank
        begin[axis], end[axis], stride[axis] = self.start, stop, self.step
        others = (1 << rank) - 1 - (1 << axis)
        open_end = (stop < 0 <= self.start) or (stop >= 0 > self.start)  # past an end, where the sign would change its meaning
        where = {
            "begin": tf.constant(begin, tf.int32),
            "end": tf.constant(end, tf.int32),
            "strides": tf.constant(stride, tf.int32),
            "begin_mask": others,
            "end_mask": others | (1 << axis if open_end else 0),
            "shrink_axis_mask": 1 << axis if self.count is None else 0,
        }
        return Trace(xs, [tf.raw_ops.StridedSlice(input=xs[0], **where)], p, where)

    def route(self, trace: Trace, rs: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        return [tf.raw_ops.StridedSliceGrad(shape=tf.shape(trace.inputs[0]), dy=rs[0], **trace.saved)]


def read_rows(data: Any, indices: Any, axis: int) -> Any:
    """Entries of ``data`` along ``axis`` as a layer: a block where the indices are constant and evenly spaced."""
    places = known(indices)
    if isinstance(data, Var) and places is not None and places.ndim < 2 and places.size:
        steps = set(np.diff(places.reshape(-1)).tolist()) or {1}
        signs = {bool(i < 0) for i in places.reshape(-1)}
        if len(steps) == len(signs) == 1 and 0 not in steps:
            start, step = int(places.reshape(-1)[0]), int(steps.pop())
            return Picked(axis=axis, start=start, step=step, count=len(places) if places.ndim else None), (data,)
    slots, parameters, inputs = mixed(data, indices)
    return Gather(parameters=parameters, slots=slots, axis=axis), inputs


@importer("Gather")
def gather(data: Any, indices: Any, *, axis: int = 0) -> Any:
    return read_rows(data, indices, axis)


def is_code(x: Any) -> bool:
    """Whether every row of a tensor along its last axis is a one-hot code: all 0 but for a single 1, or all 0."""
    return isinstance(x, Var) and len(x.origin) == 1 and next(iter(x.origin)).startswith(CODE)


def code_after(x: Var, dims: Sequence[Dim] | None) -> frozenset[str]:
    """The origin of x in another shape: its rows are one-hot codes still if they are its last axis still."""
    return x.origin if is_code(x) and dims and x.dims and dims[-1].same(x.dims[-1]) else frozenset()


@dataclass(frozen=True, eq=False, kw_only=True)
class OneHot(Routing):
    """Slots: indices, depth, values (off, on). Relevance ends at the rows, as behind an embedding."""

    slots: tuple[int | str, ...]
    axis: int
    depth: int | None = None

    def signals(self, xs: Sequence[Var]) -> Sequence[int]:
        return ()

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        ids, depth, values = (self.parameters[s] if isinstance(s, str) else xs[s] for s in self.slots)
        dims = ids.dims if isinstance(ids, Var) else constant_dims(ids)
        interval, code = ANY, False
        if not isinstance(values, Var):
            interval = bounds(values)
            code = tuple(values.tolist()) == (0, 1) and self.axis in (-1, len(dims) if dims is not None else None)
        origin = frozenset({f"{CODE}{ids.name}"}) if code and isinstance(ids, Var) else frozenset[str]()
        if dims is not None:
            at = self.axis % (len(dims) + 1)
            value = depth.value if isinstance(depth, Var) else None
            wide = value.reshape(-1)[0] if value is not None and isinstance(value.reshape(-1)[0], Dim) else fresh(self.depth)
            dims = (*dims[:at], wide, *dims[at:])
        return [Var("", values.dtype, dims, interval=interval, origin=origin)]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        ids, depth, values = fill(self.slots, xs, p)
        size: Any = self.depth if self.depth is not None else tf.cast(tf.reshape(depth, []), tf.int32)
        ids = from_start(tf.cast(ids, tf.int64), size)
        axis = self.axis % (ids.shape.rank + 1)
        hot = tf.one_hot(ids, size, on_value=values[1], off_value=values[0], axis=axis, dtype=values.dtype)
        return Trace(xs, [hot], p)

    def route(self, trace: Trace, rs: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        return [None] * len(trace.inputs)


@importer("OneHot", since=9)
def one_hot(indices: Any, depth: Any, values: Any, *, axis: int = -1) -> Any:
    count = known(depth)
    slots, parameters, inputs = mixed(indices, depth, values)
    return OneHot(parameters=parameters, slots=slots, depth=None if count is None else int(count.reshape(-1)[0]), axis=axis), inputs


@dataclass(frozen=True, eq=False, kw_only=True)
class Compared(Routing):
    """Integer values (…, 1) == distinct constants (I,): one-hot rows as bools, the first half of an embedding."""

    coded = True

    def signals(self, xs: Sequence[Var]) -> Sequence[int]:
        return ()

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        (ids,) = xs
        width = fresh(self.parameters["numbers"].size)
        dims = None if ids.dims is None else (*ids.dims[:-1], width)
        return [Var("", np.dtype(bool), dims, interval=(0.0, 1.0), origin=frozenset({f"{CODE}{ids.name}"}))]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        return Trace(xs, [tf.equal(xs[0], p["numbers"])], p)

    def route(self, trace: Trace, rs: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        return [None]


def read_code(A: Any, B: Any) -> Any:
    """An Equal that makes one-hot rows as a layer, None if it is any other comparison."""
    for ids, numbers in ((A, B), (B, A)):
        if not isinstance(ids, Var) or isinstance(numbers, Var) or not ids.valued or numbers.dtype.kind not in "iu":
            continue
        row = numbers.reshape(-1)
        narrow = ids.dims is not None and len(ids.dims) >= numbers.ndim > 0 and ids.dims[-1].size == 1
        if narrow and row.size == numbers.shape[-1] > 1 and len(set(row.tolist())) == row.size:
            return Compared(parameters={"numbers": row}), (ids,)
    return None


@dataclass(frozen=True, eq=False, kw_only=True)
class Lookup(Affine):
    """One-hot rows (…, I) times weight (I, C), maybe plus bias (C,): an embedding spelled as a product.

    No sum, since one term a row is left: the row that is picked takes the relevance of its whole embedding.
    """

    @property
    def title(self) -> str:
        return "Embedding"

    @property
    def operands(self) -> Sequence[int]:
        return (0,)

    def sums(self, xs: Sequence[Var]) -> bool:
        return "bias" in self.parameters

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        (x,) = xs
        dims = None if x.dims is None else (*x.dims[:-1], fresh(self.parameters["weight"].shape[1]))
        return [Var("", x.dtype, dims)]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        z = tf.linalg.matmul(xs[0], p["weight"]) if xs[0].shape.rank > 1 else tf.linalg.matvec(p["weight"], xs[0], transpose_a=True)
        return Trace(xs, [z + p["bias"] if "bias" in p else z], p)

    def linear(self, trace: Trace) -> LinearMap:
        return self._map(trace.parameters["weight"], trace.inputs[0])

    def _map(self, w: Tensor, hot: Tensor) -> LinearMap:
        def call(xs: Sequence[Tensor]) -> Tensor:
            return tf.tensordot(hot * xs[0], w, 1)

        return LinearMap(
            call=call,
            pull=lambda s: [hot * tf.tensordot(s, w, [[-1], [1]])],
            mapped=lambda f: self._map(f(w), hot),
        )

    def bias(self, trace: Trace) -> Tensor | None:
        return trace.parameters.get("bias")
