"""Reductions: sums and means are affine, a maximum routes to its winner (the first in row-major order)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._lazy import tf
from ..dims import Dim
from ..layer import Affine, Plain, Routing, Trace
from ..linear import LinearMap
from ..registry import Var, importer

__all__ = ["Extreme", "SumOver"]

Tensor = Any


def _reduced(x: Var, axes: Sequence[int] | None, keepdims: bool) -> tuple[Dim, ...] | None:
    if x.dims is None:
        return None if axes is not None or keepdims else ()
    over = set(range(len(x.dims))) if axes is None else {a % len(x.dims) for a in axes}
    if keepdims:
        return tuple(Dim() if i in over else d for i, d in enumerate(x.dims))
    return tuple(d for i, d in enumerate(x.dims) if i not in over)


def _expand(r: Tensor, x: Tensor, axes: Sequence[int] | None, keepdims: bool) -> Tensor:
    """r, with the reduced axes put back as length 1."""
    rank = x.shape.rank
    over = sorted(range(rank) if axes is None else {a % rank for a in axes})
    if keepdims:
        return r
    for axis in over:
        r = tf.expand_dims(r, axis)
    return r


@dataclass(frozen=True, eq=False, kw_only=True)
class SumOver(Affine):
    """Sum or mean over ``axes`` (None: all)."""

    axes: tuple[int, ...] | None
    keepdims: bool = True
    mean: bool = False

    @property
    def title(self) -> str:
        return "ReduceMean" if self.mean else "ReduceSum"

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        interval = xs[0].interval if self.mean else (-np.inf, np.inf)
        return [Var("", xs[0].dtype, _reduced(xs[0], self.axes, self.keepdims), interval=interval)]

    def sums(self, xs: Sequence[Var]) -> bool:
        dims = xs[0].dims
        if dims is None:
            return True
        over = range(len(dims)) if self.axes is None else self.axes
        return any(dims[a].size != 1 for a in over)

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        reduce = tf.reduce_mean if self.mean else tf.reduce_sum
        return Trace(xs, [reduce(xs[0], self.axes, keepdims=self.keepdims)], p)

    def linear(self, trace: Trace) -> LinearMap:
        (x,) = trace.inputs
        factor: Any = 1.0
        if self.mean:
            factor = tf.cast(tf.size(trace.outputs[0]), x.dtype) / tf.cast(tf.size(x), x.dtype)
        return self._map(factor, x)

    def _map(self, factor: Tensor, x: Tensor) -> LinearMap:
        def pull(s: Tensor) -> list[Tensor]:
            return [tf.broadcast_to(_expand(factor * s, x, self.axes, self.keepdims), tf.shape(x))]

        return LinearMap(
            call=lambda xs: factor * tf.reduce_sum(xs[0], self.axes, keepdims=self.keepdims),
            pull=pull,
            mapped=lambda f: self._map(f(tf.cast(factor, x.dtype)), x),
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class Extreme(Routing):
    """Maximum (or minimum) over ``axes``: the first winner takes all."""

    axes: tuple[int, ...] | None
    keepdims: bool = True
    largest: bool = True

    @property
    def title(self) -> str:
        return "ReduceMax" if self.largest else "ReduceMin"

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        return [Var("", xs[0].dtype, _reduced(xs[0], self.axes, self.keepdims), interval=xs[0].interval)]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        reduce = tf.reduce_max if self.largest else tf.reduce_min
        return Trace(xs, [reduce(xs[0], self.axes, keepdims=self.keepdims)], p)

    def route(self, trace: Trace, rs: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        (x,) = trace.inputs
        return [self._winners(x) * _expand(rs[0], x, self.axes, self.keepdims)]

    def move(self, trace: Trace, xs: Sequence[Tensor], *, constants: bool) -> Sequence[Tensor]:
        return [tf.reduce_sum(self._winners(trace.inputs[0]) * xs[0], self.axes, keepdims=self.keepdims)]

    def _winners(self, x: Tensor) -> Tensor:
        """1 where an entry is the first extreme of its group, else 0."""
        rank = x.shape.rank
        over = sorted(range(rank) if self.axes is None else {a % rank for a in self.axes})
        kept = [a for a in range(rank) if a not in over]
        moved = tf.transpose(x, kept + over)
        flat = tf.reshape(moved, tf.concat([tf.gather(tf.shape(x), kept), [-1]], 0))
        pick = tf.argmax if self.largest else tf.argmin
        winner = tf.one_hot(pick(flat, axis=-1), tf.shape(flat)[-1], dtype=x.dtype)
        return tf.transpose(tf.reshape(winner, tf.shape(moved)), [int(a) for a in np.argsort(kept + over)])


def _read(kind: str, data: Any, axes: Any, keepdims: int, noop: int, node: Any) -> Any:
    if isinstance(axes, Var):
        raise node.refuse("axes must be constant")
    listed = None if axes is None or np.size(axes) == 0 else tuple(int(a) for a in np.atleast_1d(axes))
    if listed is None and noop:
        listed = ()
    if kind in ("Sum", "Mean"):
        return SumOver(axes=listed, keepdims=bool(keepdims), mean=kind == "Mean"), (data,)
    if kind in ("Max", "Min"):
        return Extreme(axes=listed, keepdims=bool(keepdims), largest=kind == "Max"), (data,)
    return Reduced(op=kind, axes=listed, keepdims=bool(keepdims)), (data,)


@dataclass(frozen=True, eq=False, kw_only=True)
class Reduced(Plain):
    """A reduction that no relevance passes: products (of shapes), norms (normalizers)."""

    op: str
    axes: tuple[int, ...] | None
    keepdims: bool = True

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        return [Var("", xs[0].dtype, _reduced(xs[0], self.axes, self.keepdims))]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        x, over = xs[0], {"axis": self.axes, "keepdims": self.keepdims}
        if self.op == "Prod":
            return Trace(xs, [tf.reduce_prod(x, **over)], p)
        if self.op == "L1":
            return Trace(xs, [tf.reduce_sum(tf.abs(x), **over)], p)
        total = tf.reduce_sum(x * x, **over)
        return Trace(xs, [tf.sqrt(total) if self.op == "L2" else total], p)


def _register(kind: str, by_input: int) -> None:
    @importer(f"Reduce{kind}")
    def attribute(data: Any, *, axes: Any = None, keepdims: int = 1, node: Any) -> Any:
        return _read(kind, data, axes, keepdims, 0, node)

    @importer(f"Reduce{kind}", since=by_input)
    def input_(data: Any, axes: Any = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0, node: Any) -> Any:
        return _read(kind, data, axes, keepdims, noop_with_empty_axes, node)


for _kind, _since in (("Sum", 13), ("Mean", 18), ("Max", 18), ("Min", 18), ("Prod", 18), ("L1", 18), ("L2", 18), ("SumSquare", 18)):
    _register(_kind, _since)
