"""Reductions: sums and means are affine, a maximum routes to its winner (the first in row-major order), norms share in proportion
to their terms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._lazy import tf
from ..dims import Dim
from ..intervals import Interval, times
from ..layer import Affine, Opaque, Routing, Share, Trace, known
from ..linear import LinearMap
from ..registry import ANY, Var, importer
from .activation import Activation
from .power import Pow
from .reshape import Same

__all__ = ["Extreme", "Shared", "SumOver"]

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
        (x,) = xs
        interval = x.interval if self.mean else times(x.interval, self._count(x))
        return [Var("", x.dtype, _reduced(x, self.axes, self.keepdims), interval=interval)]

    def _count(self, x: Var) -> Interval:
        """How many entries are added up, at least and at most."""
        sizes = [None] if x.dims is None else [x.dims[a].size for a in (range(len(x.dims)) if self.axes is None else self.axes)]
        if None in sizes:
            return 0.0, np.inf
        count = float(np.prod([s for s in sizes if s is not None]))
        return count, count

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
        if xs[0].dtype == tf.bool:
            reduce = tf.reduce_any if self.largest else tf.reduce_all
        else:
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
        flat = tf.reshape(moved, tf.concat([tf.shape(moved)[: len(kept)], [-1]], 0))
        pick = tf.argmax if self.largest else tf.argmin
        winner = tf.one_hot(pick(flat, axis=-1), tf.shape(flat)[-1], dtype=x.dtype)
        return tf.transpose(tf.reshape(winner, tf.shape(moved)), [int(a) for a in np.argsort(kept + over)])


@dataclass(frozen=True, eq=False, kw_only=True)
class Shared(Opaque):
    """A reduction that is a function of one sum: each entry gets its term's share of it (the epsilon rule on the sum).

    L1 Σ|x|, SumSquare Σx², L2 √Σx², LogSum log Σx and LogSumExp log Σeˣ are an activation, a sum, an activation; activations
    pass relevance (Bach et al. 2015, section 2.4), so LogSumExp shares by softmax. Prod has no sum: n factors get 1/n each, as
    two signals get half each.
    """

    op: str
    axes: tuple[int, ...] | None
    keepdims: bool = True

    @property
    def title(self) -> str:
        return f"Reduce{self.op}"

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        (x,) = xs
        return [Var("", x.dtype, _reduced(x, self.axes, self.keepdims), interval=self._interval(x))]

    def _interval(self, x: Var) -> Interval:
        if self.op in ("L1", "L2", "SumSquare"):
            return 0.0, np.inf
        if self.op == "Prod" and x.interval[0] >= 0:
            return 0.0, 1.0 if x.interval[1] <= 1 else np.inf
        if self.op == "Prod" and max(abs(e) for e in x.interval) <= 1:
            return -1.0, 1.0
        return (x.interval[0], np.inf) if self.op == "LogSumExp" else ANY

    def _terms(self, x: Tensor) -> Tensor:
        return tf.abs(x) if self.op == "L1" else x if self.op == "LogSum" else x * x

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        (x,) = xs
        over = {"axis": self.axes, "keepdims": self.keepdims}
        if self.op == "Prod":
            return Trace(xs, [tf.reduce_prod(x, **over)], p)
        if self.op == "LogSumExp":
            return Trace(xs, [tf.reduce_logsumexp(x, **over)], p)
        y = tf.reduce_sum(self._terms(x), **over)
        return Trace(xs, [tf.sqrt(y) if self.op == "L2" else tf.math.log(y) if self.op == "LogSum" else y], p)

    def relevance(self, rule: Any, trace: Trace, rs: Sequence[Tensor | None]) -> Share:
        (x,), (y,), r = trace.inputs, trace.outputs, rs[0]

        def back(v: Tensor) -> Tensor:
            return _expand(v, x, self.axes, self.keepdims)

        if self.op == "Prod":
            count = tf.cast(tf.size(x), x.dtype) / tf.cast(tf.size(y), x.dtype)
            return Share([tf.zeros_like(x) + back(r) / count])
        if self.op == "LogSumExp":  # s · eˣ without eˣ, which may overflow where the sum does
            _, stabilizer = rule.ratio(tf.exp(y), r)
            return Share([tf.exp(x - back(y)) * back(r - stabilizer)], {"stabilizer": stabilizer})
        terms = self._terms(x)
        s, stabilizer = rule.ratio(tf.reduce_sum(terms, self.axes, keepdims=self.keepdims), r)
        return Share([terms * back(s)], {"stabilizer": stabilizer})


def _read(kind: str, data: Any, axes: Any, keepdims: int, noop: int, node: Any) -> Any:
    places = known(axes)  # an axis counted from the rank is as good as a constant one
    if places is None and axes is not None:
        raise node.refuse("axes must be constant")
    listed = None if places is None or not places.size else tuple(int(a) for a in np.atleast_1d(places))
    if listed is None and noop:
        return _untouched(kind, data)
    rank = data.rank if isinstance(data, Var) else np.ndim(data)
    if rank is not None and any(not -rank <= a < rank for a in listed or ()):
        raise node.refuse(f"axes {list(listed or ())} of a tensor of {rank} axes")
    if kind in ("Sum", "Mean"):
        return SumOver(axes=listed, keepdims=bool(keepdims), mean=kind == "Mean"), (data,)
    if kind in ("Max", "Min"):
        return Extreme(axes=listed, keepdims=bool(keepdims), largest=kind == "Max"), (data,)
    return Shared(op=kind, axes=listed, keepdims=bool(keepdims)), (data,)


# what a reduction over no axis still does to every entry
ALONE = {"L1": "Abs", "L2": "Abs", "LogSum": "Log"}


def _untouched(kind: str, data: Any) -> Any:
    if kind == "SumSquare":
        return Pow(parameters={"c1": np.asarray(2.0, np.float32)}, slots=(0, "c1"), signal=0), (data,)
    return (Activation(name=ALONE[kind]) if kind in ALONE else Same()), (data,)


def _register(kind: str, by_input: int) -> None:
    @importer(f"Reduce{kind}")
    def attribute(data: Any, *, axes: Any = None, keepdims: int = 1, node: Any) -> Any:
        return _read(kind, data, axes, keepdims, 0, node)

    @importer(f"Reduce{kind}", since=by_input)
    def input_(data: Any, axes: Any = None, *, keepdims: int = 1, noop_with_empty_axes: int = 0, node: Any) -> Any:
        return _read(kind, data, axes, keepdims, noop_with_empty_axes, node)


for _kind in ("Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "SumSquare", "LogSum", "LogSumExp"):
    _register(_kind, 13 if _kind == "Sum" else 18)
