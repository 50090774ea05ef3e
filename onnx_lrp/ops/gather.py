"""Gather and OneHot: as an embedding the place where relevance ends, on data a routing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._lazy import tf
from ..dims import fresh
from ..layer import Plain, Routing, Trace, constant_dims, fill, mixed
from ..registry import Var, importer

__all__ = ["Gather", "OneHot"]

Tensor = Any


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
        data, indices = (constant_dims(self.parameters[s]) if isinstance(s, str) else xs[s].dims for s in self.slots)
        first = self.slots[0]
        dtype = self.parameters[first].dtype if isinstance(first, str) else xs[first].dtype
        interval = (-np.inf, np.inf) if isinstance(first, str) else xs[first].interval
        if data is None or indices is None:
            return [Var("", dtype, None, interval=interval)]
        axis = self.axis % len(data)
        return [Var("", dtype, (*data[:axis], *indices, *data[axis + 1 :]), interval=interval)]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        data, indices = fill(self.slots, xs, p)
        size = tf.cast(tf.shape(data)[self.axis], indices.dtype)
        indices = tf.where(indices < 0, indices + size, indices)
        return Trace(xs, [tf.gather(data, indices, axis=self.axis)], p, {"indices": indices})

    def route(self, trace: Trace, rs: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        x, indices = trace.inputs[0], trace.saved["indices"]
        r: Tensor = rs[0]
        rank, width = x.shape.rank, indices.shape.rank
        axis = self.axis % rank
        order = [*range(axis, axis + width), *range(axis), *range(axis + width, r.shape.rank)]
        rest = [a for a in range(rank) if a != axis]
        rows = tf.transpose(r, order)
        shape = tf.shape(x)
        rows = tf.reshape(rows, tf.concat([[-1], tf.gather(shape, rest)], 0) if rest else [-1])
        summed = tf.math.unsorted_segment_sum(rows, tf.reshape(indices, [-1]), shape[axis])
        back = tf.transpose(summed, [int(a) for a in np.argsort([axis, *rest])])
        return [back, *[None] * (len(trace.inputs) - 1)]


@importer("Gather")
def gather(data: Any, indices: Any, *, axis: int = 0) -> Any:
    slots, parameters, inputs = mixed(data, indices)
    return Gather(parameters=parameters, slots=slots, axis=axis), inputs


@dataclass(frozen=True, eq=False, kw_only=True)
class OneHot(Plain):
    """Rows of a one-hot matrix: relevance ends here, as behind an embedding. parameters: values (off, on)."""

    depth: int
    axis: int

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        dims = xs[0].dims
        dtype = self.parameters["values"].dtype
        if dims is None:
            return [Var("", dtype, None)]
        at = self.axis % (len(dims) + 1)
        return [Var("", dtype, (*dims[:at], fresh(self.depth), *dims[at:]))]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        (x,) = xs
        ids = tf.cast(x, tf.int64)
        ids = tf.where(ids < 0, ids + self.depth, ids)
        off, on = p["values"][0], p["values"][1]
        return Trace(xs, [tf.one_hot(ids, self.depth, on_value=on, off_value=off, axis=self.axis, dtype=off.dtype)], p)


@importer("OneHot", since=9)
def one_hot(indices: Any, depth: Any, values: Any, *, axis: int = -1, node: Any) -> Any:
    if isinstance(depth, Var) or isinstance(values, Var):
        raise node.refuse("depth and values must be constant")
    return OneHot(parameters={"values": values}, depth=int(np.reshape(depth, -1)[0]), axis=axis), (indices,)
