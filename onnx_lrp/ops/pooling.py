"""Pooling: means are affine, a maximum routes to its winner, a power mean shares its sum of powers by the epsilon rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._lazy import tf
from ..layer import Affine, Opaque, Routing, Share, Trace
from ..linear import LinearMap
from ..registry import Var, importer
from ..windows import Place, Window, correlate, spatial_sizes, transposed
from .reduce import Extreme, SumOver

__all__ = ["MaxPool", "MeanPool", "PowerPool"]

Tensor = Any


def _dims(x: Var, window: Window) -> Any:
    return None if x.dims is None else (*x.dims[:2], *window.dims(x.dims[2:]))


def _summed(x: Tensor, window: Window, places: Sequence[Place]) -> Tensor:
    """x (B, C, *S) summed over windows: a convolution with ones, every channel on its own."""
    ones = tf.ones([1, 1, *window.kernel], x.dtype)
    shape = tf.shape(x)
    z = correlate(
        tf.reshape(x, tf.concat([[-1, 1], shape[2:]], 0)), ones, places, strides=window.strides, dilations=window.dilations
    )
    return tf.reshape(z, tf.concat([shape[:2], tf.shape(z)[2:]], 0))


def _spread(s: Tensor, x: Tensor, window: Window, places: Sequence[Place]) -> Tensor:
    """The transpose of the sum over windows."""
    return transposed(lambda z: _summed(z, window, places), tf.shape(x), s)


@dataclass(frozen=True, eq=False, kw_only=True)
class MeanPool(Affine):
    """Mean over windows of x (B, C, *S); ``padded``: pads count as zeros."""

    window: Window
    padded: bool

    @property
    def title(self) -> str:
        return "AveragePool"

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        low, high = xs[0].interval
        interval = (min(low, 0.0), max(high, 0.0)) if self.padded else (low, high)
        return [Var("", xs[0].dtype, _dims(xs[0], self.window), interval=interval)]

    def sums(self, xs: Sequence[Var]) -> bool:
        return any(k > 1 for k in self.window.kernel)

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        (x,) = xs
        places = self.window.places(spatial_sizes(x))
        return Trace(xs, [self._share(x, places) * _summed(x, self.window, places)], p)

    def _share(self, x: Tensor, places: Sequence[Place]) -> Tensor:
        """1 / the entries a window holds, (1, 1, *O)."""
        sizes = spatial_sizes(x)
        if self.padded:  # the pads of the node, not what ceil_mode adds behind them
            pads = [(q.before, q.behind) for q in self._asked(sizes)]
            sizes = [n + before + behind for n, (before, behind) in zip(sizes, pads, strict=True)]
            places = [Place(0, _rest(q, before + behind), q.count) for q, (before, behind) in zip(places, pads, strict=True)]
        return 1 / _summed(tf.ones([1, 1, *sizes], x.dtype), self.window, places)

    def _asked(self, sizes: Sequence[Any]) -> Sequence[Place]:
        window = self.window
        if window.auto_pad != "NOTSET":
            return window.places(sizes)
        rank = len(window.kernel)
        return [Place(window.pads[i], window.pads[rank + i], 0) for i in range(rank)]

    def linear(self, trace: Trace) -> LinearMap:
        (x,) = trace.inputs
        places = self.window.places(spatial_sizes(x))
        return self._map(self._share(x, places), x, places)

    def _map(self, share: Tensor, x: Tensor, places: Sequence[Place]) -> LinearMap:
        return LinearMap(
            call=lambda xs: share * _summed(xs[0], self.window, places),
            pull=lambda s: [_spread(share * s, x, self.window, places)],
            mapped=lambda f: self._map(f(share), x, places),
        )


def _rest(place: Place, pads: Any) -> Any:
    """Pads behind the node's own, which only ceil_mode needs."""
    left = place.before + place.behind - pads
    return max(left, 0) if isinstance(left, int) else tf.maximum(left, 0)


@dataclass(frozen=True, eq=False, kw_only=True)
class MaxPool(Routing):
    """Maximum over windows of x (B, C, *S): the first winner in row-major order takes all, padding never wins.

    ``indices``: the winners' places in the flattened x are a second output; "F" counts each channel's with its first axis
    innermost, None: nothing reads them.
    """

    window: Window
    indices: str | None = None  # None, "C" or "F"

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        dims = _dims(xs[0], self.window)
        largest = Var("", xs[0].dtype, dims, interval=xs[0].interval, mask=xs[0].mask)
        return [largest] if self.indices is None else [largest, Var("", np.dtype(np.int64), dims)]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        (x,) = xs
        entries, inside = self._entries(x)
        rows = tf.reshape(x, [-1, tf.reduce_prod(tf.shape(x)[2:])])  # (B·C, S)
        values = tf.where(inside, tf.gather(rows, entries, axis=1), x.dtype.min)  # (B·C, O, K)
        first = tf.argmax(values, -1, output_type=tf.int32)
        count = tf.shape(entries)[1]
        winners = tf.gather(tf.reshape(entries, [-1]), first + count * tf.range(tf.shape(entries)[0]))  # (B·C, O)
        places = self.window.places(spatial_sizes(x))
        shape = tf.concat([tf.shape(x)[:2], tf.stack([q.count for q in places])], 0)
        outputs = [tf.reshape(tf.reduce_max(values, -1), shape)]
        if self.indices is not None:
            outputs.append(tf.reshape(self._places(x, winners), shape))
        return Trace(xs, outputs, p, {"winners": winners})

    def _places(self, x: Tensor, winners: Tensor) -> Tensor:
        """Of winners (B·C, O), places in the flattened spatial axes: those in the flattened x, as int64."""
        within = winners
        if self.indices == "F":
            within, left, step = tf.zeros_like(winners), winners, 1
            for size, inner in _strides(spatial_sizes(x)):
                within += left // inner * step
                left, step = left % inner, step * size
        size = tf.reduce_prod(tf.shape(x, out_type=tf.int64)[2:])
        return tf.cast(within, tf.int64) + size * tf.range(tf.shape(winners, out_type=tf.int64)[0])[:, None]

    def _entries(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(place in the flattened spatial axes, whether it is no padding) of every entry of every window, (O, K)."""
        window, sizes = self.window, spatial_sizes(x)
        flat: Any = tf.zeros([1, 1], tf.int32)
        inside: Any = tf.ones([1, 1], tf.bool)
        for axis, (size, place) in enumerate(zip(sizes, window.places(sizes), strict=True)):
            steps = tf.range(window.kernel[axis]) * window.dilations[axis]
            at = tf.range(place.count)[:, None] * window.strides[axis] - place.before + steps
            shape = [tf.shape(flat)[0] * tf.shape(at)[0], tf.shape(flat)[1] * window.kernel[axis]]
            held = tf.clip_by_value(at, 0, size - 1)
            flat = tf.reshape(flat[:, None, :, None] * size + held[None, :, None, :], shape)
            inside = tf.reshape(inside[:, None, :, None] & ((at >= 0) & (at < size))[None, :, None, :], shape)
        return flat, inside

    def route(self, trace: Trace, rs: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        (x,) = trace.inputs
        winners, shape = trace.saved["winners"], tf.shape(x)
        rows, size = shape[0] * shape[1], tf.reduce_prod(shape[2:])
        entries = winners + size * tf.range(rows)[:, None]
        return [tf.reshape(tf.math.unsorted_segment_sum(tf.reshape(rs[0], [-1]), tf.reshape(entries, [-1]), rows * size), shape)]

    def move(self, trace: Trace, xs: Sequence[Tensor], *, constants: bool) -> Sequence[Tensor]:
        rows = tf.reshape(xs[0], [-1, tf.reduce_prod(tf.shape(xs[0])[2:])])
        largest = tf.reshape(tf.gather(rows, trace.saved["winners"], batch_dims=1), tf.shape(trace.outputs[0]))
        return [largest, *trace.outputs[1:]]


def _strides(sizes: Sequence[Any]) -> list[tuple[Any, Any]]:
    """(size, entries between neighbours along it) of every axis of a row-major tensor."""
    found, inner = [], 1
    for size in reversed(sizes):
        found.append((size, inner))
        inner = inner * size
    return found[::-1]


@dataclass(frozen=True, eq=False, kw_only=True)
class PowerPool(Opaque):
    """(Σ |x|^p)^(1/p) over windows (None: over all of S): powers and root are activations, their sum splits by the epsilon rule.

    R_i = |x_i|^p Σ_j R_j / (Σ_k |x_k|^p + ε): eq. 58 of Bach et al. 2015 for the terms of the sum, as if each step were a node.
    """

    window: Window | None
    p: float

    @property
    def title(self) -> str:
        return "LpPool"

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        from ..dims import Dim

        (x,) = xs
        dims = None if x.dims is None else (*x.dims[:2], *(Dim() for _ in x.dims[2:]))
        return [Var("", x.dtype, dims if self.window is None else _dims(x, self.window), interval=(0.0, np.inf))]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        (x,) = xs
        total = self._sum(self._powers(x))
        return Trace(xs, [total if self.p == 1 else tf.pow(total, 1 / self.p)], p, {"total": total})

    def _powers(self, x: Tensor) -> Tensor:
        return tf.abs(x) if self.p == 1 else x * x if self.p == 2 else tf.pow(tf.abs(x), self.p)

    def _sum(self, x: Tensor) -> Tensor:
        if self.window is None:
            return tf.reduce_sum(x, list(range(2, x.shape.rank)), keepdims=True)
        return _summed(x, self.window, self.window.places(spatial_sizes(x)))

    def relevance(self, rule: Any, trace: Trace, rs: Sequence[Tensor | None]) -> Share:
        (x,) = trace.inputs
        s, stabilizer = rule.ratio(trace.saved["total"], rs[0])
        back = s if self.window is None else _spread(s, x, self.window, self.window.places(spatial_sizes(x)))
        return Share([self._powers(x) * back], {"stabilizer": stabilizer})


@importer("AveragePool", since=1)
def average_pool(
    X: Any,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: Any = None,
    kernel_shape: Any,
    pads: Any = None,
    strides: Any = None,
    node: Any,
) -> Any:
    window = Window.read(node, kernel_shape, strides=strides, dilations=dilations, pads=pads, auto_pad=auto_pad, ceil=ceil_mode)
    return MeanPool(window=window, padded=bool(count_include_pad)), (X,)


@importer("MaxPool", since=1)
def max_pool(
    X: Any,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Any = None,
    kernel_shape: Any,
    pads: Any = None,
    storage_order: int = 0,
    strides: Any = None,
    node: Any,
) -> Any:
    window = Window.read(node, kernel_shape, strides=strides, dilations=dilations, pads=pads, auto_pad=auto_pad, ceil=ceil_mode)
    indices = None if not any(node.outputs[1:]) else "F" if storage_order else "C"
    return MaxPool(window=window, indices=indices), (X,)


@importer("LpPool", since=2)
def lp_pool(
    X: Any,
    *,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: Any = None,
    kernel_shape: Any,
    p: int = 2,
    pads: Any = None,
    strides: Any = None,
    node: Any,
) -> Any:
    window = Window.read(node, kernel_shape, strides=strides, dilations=dilations, pads=pads, auto_pad=auto_pad, ceil=ceil_mode)
    return PowerPool(window=window, p=p), (X,)


@importer("GlobalLpPool", since=2)
def global_lp_pool(X: Any, *, p: int = 2) -> Any:
    return PowerPool(window=None, p=p), (X,)


def _spatial(X: Any, node: Any) -> tuple[int, ...]:
    if X.rank is None:
        raise node.refuse("the number of spatial axes is unknown")
    return tuple(range(2, X.rank))


@importer("GlobalAveragePool")
def global_average_pool(X: Any, *, node: Any) -> Any:
    return SumOver(axes=_spatial(X, node), mean=True), (X,)


@importer("GlobalMaxPool")
def global_max_pool(X: Any, *, node: Any) -> Any:
    return Extreme(axes=_spatial(X, node)), (X,)
