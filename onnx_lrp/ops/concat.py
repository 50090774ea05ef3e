"""Concat and Split: each part keeps its relevance."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._lazy import tf
from ..dims import Dim, fresh, unify
from ..layer import Routing, Trace, constant_dims, fill, known, mixed
from ..registry import Var, importer

__all__ = ["Concat", "Split"]

Tensor = Any


@dataclass(frozen=True, eq=False, kw_only=True)
class Concat(Routing):
    """Operands (inputs or constants) joined along ``axis``."""

    slots: tuple[int | str, ...]
    axis: int

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        shapes = [constant_dims(self.parameters[s]) if isinstance(s, str) else xs[s].dims for s in self.slots]
        read = [s for s in shapes if s is not None]
        lows = [xs[s].interval[0] if isinstance(s, int) else float(np.min(self.parameters[s], initial=0)) for s in self.slots]
        highs = [xs[s].interval[1] if isinstance(s, int) else float(np.max(self.parameters[s], initial=0)) for s in self.slots]
        interval = (min(lows), max(highs))
        if not read:
            return [Var("", xs[0].dtype, None, interval=interval)]
        dims = list(read[0])
        axis = self.axis % len(dims)
        for shape in read[1:]:
            dims = [unify(a, b) if i != axis else a for i, (a, b) in enumerate(zip(dims, shape, strict=True))]
        joined = [s[axis] for s in read if s[axis].size != 0]
        sizes = [d.size for d in joined]
        if len(joined) == 1 and len(read) == len(shapes):
            dims[axis] = joined[0]
        elif len(shapes) > 1:
            unknown = [d for d in joined if d.size is None]
            total = sum(s for s in sizes if s is not None)
            if len(read) < len(shapes) or len(unknown) > 1:
                dims[axis] = fresh(None)
            else:
                dims[axis] = unknown[0] + total if unknown else fresh(total)
        masks = all(x.mask for x in xs) and not self.parameters
        return [Var("", xs[0].dtype, tuple(dims) if dims else (Dim(),), interval=interval, mask=masks)]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        return Trace(xs, [tf.concat(fill(self.slots, xs, p), self.axis)], p)

    def route(self, trace: Trace, rs: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        return [part for part, s in zip(self._parts(trace, rs[0]), self.slots, strict=True) if not isinstance(s, str)]

    def lost(self, trace: Trace, rs: Sequence[Tensor | None]) -> Sequence[tuple[Tensor, Tensor]]:
        parts = self._parts(trace, rs[0])
        return [(trace.parameters[s], part) for part, s in zip(parts, self.slots, strict=True) if isinstance(s, str)]

    def _parts(self, trace: Trace, r: Tensor) -> Sequence[Tensor]:
        operands = fill(self.slots, trace.inputs, trace.parameters)
        sizes = [x.shape[self.axis] for x in operands]
        if None in sizes:
            sizes = tf.stack([tf.shape(x)[self.axis] for x in operands])
        return tf.split(r, sizes, axis=self.axis, num=len(operands))


@importer("Concat", since=4)
def concat(*inputs: Any, axis: int) -> Any:
    slots, parameters, dynamic = mixed(*inputs)
    return Concat(parameters=parameters, slots=slots, axis=axis), dynamic


@dataclass(frozen=True, eq=False, kw_only=True)
class Split(Routing):
    """Cut along ``axis`` into ``count`` parts: of ``sizes`` or of a second input's, else equal but for a smaller last one."""

    axis: int
    count: int
    sizes: tuple[int, ...] | None = None

    def signals(self, xs: Sequence[Var]) -> Sequence[int]:
        return (0,) if xs[0].is_float else ()

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        x = xs[0]
        outs = []
        sizes: Sequence[Any] | None = self.sizes
        if len(xs) > 1:
            sizes = None if xs[1].value is None else list(xs[1].value)
        elif sizes is None and x.dims is not None:
            total = x.dims[self.axis].size
            sizes = None if total is None else self._even(total)
        for k in range(self.count):
            dims = x.dims
            if dims is not None and self.count > 1:
                part = list(dims)
                size = None if sizes is None else sizes[k]
                part[self.axis] = size if isinstance(size, Dim) else fresh(size)
                dims = tuple(part)
            outs.append(dataclasses.replace(x, dims=dims, value=None, origin=frozenset()))
        return outs

    def _even(self, total: int) -> tuple[int, ...]:
        size = -(-total // self.count)
        return (*[size] * (self.count - 1), total - size * (self.count - 1))

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        x = xs[0]
        total = x.shape[self.axis]
        if len(xs) > 1:
            sizes: Any = tf.cast(xs[1], tf.int32)
        elif self.sizes is not None:
            sizes = self.sizes
        elif total is not None:
            sizes = self._even(total)
        else:
            size = -(-tf.shape(x)[self.axis] // self.count)
            sizes = tf.stack([size] * (self.count - 1) + [tf.shape(x)[self.axis] - size * (self.count - 1)])
        return Trace(xs, tf.split(x, sizes, axis=self.axis, num=self.count), p)

    def route(self, trace: Trace, rs: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        parts = [tf.zeros_like(y) if r is None else r for r, y in zip(rs, trace.outputs, strict=True)]
        return [tf.concat(parts, self.axis), *[None] * (len(trace.inputs) - 1)]


@importer("Split", since=2)
def split_attribute(input: Any, *, axis: int = 0, split: Any = None, node: Any) -> Any:
    return Split(axis=axis, count=len(node.outputs), sizes=None if split is None else tuple(split)), (input,)


@importer("Split", since=13)
def split_(input: Any, split: Any = None, *, axis: int = 0, num_outputs: int | None = None, node: Any) -> Any:
    sizes, count = known(split), len(node.outputs)
    if isinstance(split, Var) and sizes is None:
        return Split(axis=axis, count=count), (input, split)
    return Split(axis=axis, count=count, sizes=None if sizes is None else tuple(int(s) for s in sizes)), (input,)
