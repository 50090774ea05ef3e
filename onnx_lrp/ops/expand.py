"""Expand and Tile: repeated entries collect the relevance of all their copies."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._lazy import tf
from ..dims import Dim, broadcast, fresh
from ..layer import Routing, Trace, constant_dims, fill, mixed, unbroadcast
from ..registry import Var, importer
from .gather import bounds

__all__ = ["Expand", "Tile"]

Tensor = Any


def _entries(value: Any) -> tuple[Dim, ...]:
    return tuple(v if isinstance(v, Dim) else fresh(int(v)) for v in value)


@dataclass(frozen=True, eq=False, kw_only=True)
class Expand(Routing):
    """Slots: data, shape (broadcast both ways)."""

    slots: tuple[int | str, ...]

    def signals(self, xs: Sequence[Var]) -> Sequence[int]:
        return (0,) if isinstance(self.slots[0], int) and xs[0].is_float else ()

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        first, second = self.slots
        data = self.parameters[first] if isinstance(first, str) else xs[first]
        dims = constant_dims(data) if isinstance(data, np.ndarray) else data.dims
        value = self.parameters[second] if isinstance(second, str) else xs[second].value
        interval = bounds(data) if isinstance(data, np.ndarray) else data.interval
        out = None
        if dims is not None and value is not None:
            out = broadcast([dims, _entries(value)])
        elif dims is not None and isinstance(second, int) and xs[second].shape == (len(dims),):
            out = tuple(d if d.labels and d.size != 1 else fresh(None) for d in dims)
        return [Var("", data.dtype, out, interval=interval, mask=getattr(data, "mask", False))]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        x, shape = fill(self.slots, xs, p)
        full = tf.broadcast_dynamic_shape(tf.shape(x), tf.cast(shape, tf.int32))
        return Trace(xs, [tf.broadcast_to(x, full)], p)

    def route(self, trace: Trace, rs: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        return [unbroadcast(rs[0], trace.inputs[0]), *[None] * (len(trace.inputs) - 1)]


@importer("Expand", since=8)
def expand(input: Any, shape: Any) -> Any:
    slots, parameters, inputs = mixed(input, shape)
    return Expand(parameters=parameters, slots=slots), inputs


@dataclass(frozen=True, eq=False, kw_only=True)
class Tile(Routing):
    """Slots: data, repeats."""

    slots: tuple[int | str, ...]

    def signals(self, xs: Sequence[Var]) -> Sequence[int]:
        return (0,) if isinstance(self.slots[0], int) and xs[0].is_float else ()

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        first, second = self.slots
        data = self.parameters[first] if isinstance(first, str) else xs[first]
        dims = constant_dims(data) if isinstance(data, np.ndarray) else data.dims
        value = self.parameters[second] if isinstance(second, str) else xs[second].value
        base = Var("", data.dtype, None, interval=bounds(data)) if isinstance(data, np.ndarray) else data
        base = Var("", base.dtype, None, interval=base.interval, mask=base.mask)
        if dims is None:
            return [base]
        if value is None:
            return [dataclasses.replace(base, dims=tuple(fresh(None) * d for d in dims))]
        out = []
        for dim, times in zip(dims, value, strict=True):
            n = times.size if isinstance(times, Dim) else int(times)
            if n == 1:
                out.append(dim)
            elif not dim.labels:
                out.append(times if isinstance(times, Dim) else fresh(n))
            else:
                out.append((times if isinstance(times, Dim) else fresh(n)) * dim)
        return [dataclasses.replace(base, dims=tuple(out))]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        x, times = fill(self.slots, xs, p)
        return Trace(xs, [tf.tile(x, times)], p, {"times": tf.cast(times, tf.int32)})

    def route(self, trace: Trace, rs: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        x, times = trace.inputs[0], trace.saved["times"]
        rank = x.shape.rank
        shape = tf.reshape(tf.stack([times, tf.shape(x)], 1), [-1])
        folded = tf.reduce_sum(tf.reshape(rs[0], shape), list(range(0, 2 * rank, 2)))
        return [folded, *[None] * (len(trace.inputs) - 1)]


@importer("Tile", since=6)
def tile(input: Any, repeats: Any) -> Any:
    slots, parameters, inputs = mixed(input, repeats)
    return Tile(parameters=parameters, slots=slots), inputs
