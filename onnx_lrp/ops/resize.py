"""Resize and Upsample: nearest neighbours are an index map, linear interpolation is affine with fixed weights.

DepthToSpace and SpaceToDepth, which move channels into space and back, are index maps too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._lazy import tf
from ..dims import Dim, fresh
from ..layer import Affine, Routing, Trace
from ..linear import LinearMap
from ..registry import Var, importer
from ..windows import transposed

__all__ = ["Interpolated", "Nearest", "SpaceDepth"]

Tensor = Any


@dataclass(frozen=True)
class Axis:
    """One axis that changes its length: by ``scale``, to ``size``, or both, if the length keeps the ratio of another axis."""

    axis: int
    scale: np.float32 | None
    size: int | None

    def target(self, n: Any) -> Any:
        """The length it gets from n (int or tensor); onnxruntime counts in float32."""
        if self.size is not None:
            return self.size
        assert self.scale is not None
        if isinstance(n, int):
            return int(np.float32(n) * self.scale)
        return tf.cast(tf.cast(n, tf.float32) * self.scale, tf.int32)

    def coordinates(self, n: Any, mode: str) -> Tensor:
        """Where each entry of the output lies among the n of the input, float32, by coordinate_transformation_mode."""
        out = self.target(n)
        before, after = tf.cast(n, tf.float32), tf.cast(out, tf.float32)
        scale = self.scale if self.scale is not None else after / before
        k = tf.cast(tf.range(out), tf.float32)
        if mode == "asymmetric":
            return k / scale
        if mode == "align_corners":
            return k * (before - 1) / tf.maximum(after - 1, 1)
        if mode == "tf_half_pixel_for_nn":
            return (k + 0.5) / scale
        half = (k + 0.5) / scale - 0.5
        if mode == "half_pixel_symmetric":
            return half + before / 2 * (1 - after / (scale * before))
        return tf.where(after > 1, half, tf.zeros_like(half)) if mode == "pytorch_half_pixel" else half


MODES = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric", "tf_half_pixel_for_nn")


def _sizes(x: Tensor) -> Sequence[Any]:
    return [n if n is not None else tf.shape(x)[i] for i, n in enumerate(x.shape)]


def _dims(x: Var, axes: Sequence[Axis]) -> tuple[Dim, ...] | None:
    if x.dims is None:
        return None
    dims = list(x.dims)
    for a in axes:
        n = dims[a.axis].size
        size = a.size if a.size is not None else None if n is None else int(a.target(n))
        if size is None or size != n:
            dims[a.axis] = fresh(size)
    return tuple(dims)


@dataclass(frozen=True, eq=False, kw_only=True)
class Nearest(Routing):
    """Each entry of the output is one of the input. ``rounding``: nearest_mode; "simple" is what opsets before 11 did."""

    axes: tuple[Axis, ...]
    coordinates: str
    rounding: str

    @property
    def title(self) -> str:
        return "Resize"

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        return [dataclasses.replace(xs[0], dims=_dims(xs[0], self.axes), value=None, origin=frozenset())]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        return Trace(xs, [self._take(xs[0], _sizes(xs[0]))], p)

    def _take(self, x: Tensor, sizes: Sequence[Any]) -> Tensor:
        for a in self.axes:
            at = a.coordinates(sizes[a.axis], self.coordinates)
            index = tf.cast(self._rounded(at, a, sizes[a.axis]), tf.int32)
            x = tf.gather(x, tf.clip_by_value(index, 0, sizes[a.axis] - 1), axis=a.axis)
        return x

    def _rounded(self, at: Tensor, a: Axis, n: Any) -> Tensor:
        if self.rounding == "simple":
            shrinks = a.scale is not None and a.scale < 1
            return tf.math.ceil(at) if shrinks else tf.floor(at)
        if self.rounding == "floor":
            return tf.floor(at)
        if self.rounding == "ceil":
            return tf.math.ceil(at)
        return tf.math.ceil(at - 0.5) if self.rounding == "round_prefer_floor" else tf.floor(at + 0.5)

    def route(self, trace: Trace, rs: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        (x,) = trace.inputs
        return [transposed(lambda z: self._take(z, _sizes(x)), tf.shape(x), rs[0])]


@dataclass(frozen=True, eq=False, kw_only=True)
class Interpolated(Affine):
    """Linear interpolation, one axis after the other: each entry is a mean of two neighbours with fixed weights."""

    axes: tuple[Axis, ...]
    coordinates: str

    @property
    def title(self) -> str:
        return "Resize"

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        return [Var("", xs[0].dtype, _dims(xs[0], self.axes), interval=xs[0].interval)]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        return Trace(xs, [self._mix(xs[0], self._neighbours(xs[0]))], p)

    def _neighbours(self, x: Tensor) -> Sequence[tuple[Tensor, Tensor, Tensor, Tensor]]:
        """For every axis: the entries before and behind each coordinate, and their weights, shaped to meet x."""
        sizes, found = _sizes(x), []
        for a in self.axes:
            n = sizes[a.axis]
            last = tf.cast(n - 1, tf.float32)
            at = tf.clip_by_value(a.coordinates(n, self.coordinates), 0.0, last)
            first = tf.floor(at)
            weight = tf.reshape(tf.cast(at - first, x.dtype), [-1] + [1] * (x.shape.rank - 1 - a.axis % x.shape.rank))
            second = tf.cast(tf.minimum(first + 1, last), tf.int32)
            found.append((tf.cast(first, tf.int32), second, 1 - weight, weight))
        return found

    def _mix(self, x: Tensor, neighbours: Sequence[tuple[Tensor, Tensor, Tensor, Tensor]]) -> Tensor:
        for a, (first, second, own, other) in zip(self.axes, neighbours, strict=True):
            x = tf.gather(x, first, axis=a.axis) * own + tf.gather(x, second, axis=a.axis) * other
        return x

    def linear(self, trace: Trace) -> LinearMap:
        (x,) = trace.inputs
        return self._map(x, self._neighbours(x))

    def _map(self, x: Tensor, neighbours: Sequence[tuple[Tensor, Tensor, Tensor, Tensor]]) -> LinearMap:
        return LinearMap(
            call=lambda xs: self._mix(xs[0], neighbours),
            pull=lambda s: [transposed(lambda z: self._mix(z, neighbours), tf.shape(x), s)],
            mapped=lambda f: self._map(x, [(i, j, f(own), f(other)) for i, j, own, other in neighbours]),
        )


@dataclass(frozen=True, eq=False, kw_only=True)
class SpaceDepth(Routing):
    """Blocks of ``block`` × ``block`` pixels to channels and back. x (B, C, H, W)."""

    block: int
    to_space: bool
    columns_first: bool = False  # mode CRD: channels lie outside the blocks

    @property
    def title(self) -> str:
        return "DepthToSpace" if self.to_space else "SpaceToDepth"

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        (x,) = xs
        if x.dims is None:
            return [dataclasses.replace(x, value=None, origin=frozenset())]
        n = self.block
        sizes = [d.size for d in x.dims]
        factors = (1, n * n, n, n)
        if self.to_space:
            changed = [s and (s // f if i == 1 else s * f) for i, (s, f) in enumerate(zip(sizes, factors, strict=True))]
        else:
            changed = [s and (s * f if i == 1 else s // f) for i, (s, f) in enumerate(zip(sizes, factors, strict=True))]
        dims = (x.dims[0], *(x.dims[i] if n == 1 else fresh(changed[i]) for i in range(1, 4)))
        return [dataclasses.replace(x, dims=dims, value=None, origin=frozenset())]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        return Trace(xs, [self._move(xs[0])], p)

    def _move(self, x: Tensor) -> Tensor:
        n = self.block
        batch, channels, height, width = _sizes(x)
        if self.to_space:
            inside = [channels // (n * n), n, n] if self.columns_first else [n, n, channels // (n * n)]
            order = [0, 1, 4, 2, 5, 3] if self.columns_first else [0, 3, 4, 1, 5, 2]
            x = tf.transpose(tf.reshape(x, [batch, *inside, height, width]), order)
            return tf.reshape(x, [batch, channels // (n * n), height * n, width * n])
        order = [0, 1, 3, 5, 2, 4] if self.columns_first else [0, 3, 5, 1, 2, 4]
        x = tf.transpose(tf.reshape(x, [batch, channels, height // n, n, width // n, n]), order)
        return tf.reshape(x, [batch, channels * n * n, height // n, width // n])

    def route(self, trace: Trace, rs: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        return [transposed(self._move, tf.shape(trace.inputs[0]), rs[0])]


def _value(operand: Any) -> Any:
    """A constant, or the entries of a small integer tensor made of shapes."""
    return operand.value if isinstance(operand, Var) else operand


def _by_scales(X: Var, scales: Any, axes: Sequence[int]) -> tuple[Axis, ...]:
    return tuple(Axis(a, np.float32(s), None) for a, s in zip(axes, np.reshape(scales, -1), strict=True) if s != 1)


def _by_sizes(X: Var, sizes: Any, axes: Sequence[int], policy: str, node: Any) -> tuple[Axis, ...]:
    wanted: list[Any] = list(np.reshape(_value(sizes), -1))
    known = [X.dims[a].size if X.dims is not None else None for a in axes]
    if policy != "stretch":
        ratios = [np.float32(w) / np.float32(n) for w, n in zip(wanted, known, strict=True) if n and not isinstance(w, Dim)]
        if len(ratios) < len(axes):
            raise node.refuse(f"keep_aspect_ratio_policy={policy!r} needs sizes that the file fixes")
        scale = min(ratios) if policy == "not_larger" else max(ratios)
        return tuple(Axis(a, scale, int(scale * n + 0.5)) for a, n in zip(axes, known, strict=True) if n is not None)
    out = []
    for a, want, n in zip(axes, wanted, known, strict=True):
        if isinstance(want, Dim):
            if X.dims is None or not want.same(X.dims[a]):
                raise node.refuse("sizes must be constant")
        elif n is None or int(want) != n:
            out.append(Axis(a, None, int(want)))
    return tuple(out)


def _read(X: Any, axes: tuple[Axis, ...], mode: str, coordinates: str, rounding: str, node: Any) -> Any:
    if coordinates not in MODES:
        raise node.refuse(f"coordinate_transformation_mode={coordinates!r} is not read")
    if mode == "nearest":
        return Nearest(axes=axes, coordinates=coordinates, rounding=rounding), (X,)
    if mode in ("linear", "bilinear"):
        return Interpolated(axes=axes, coordinates=coordinates), (X,)
    raise node.refuse(f"mode={mode!r} is not read")


def _all(X: Any, scales: Any, mode: str, node: Any) -> Any:
    """Before opset 11: scales for all axes, corners at zero."""
    if isinstance(scales, Var):
        raise node.refuse("scales must be constant")
    return _read(X, _by_scales(X, scales, range(np.size(scales))), mode, "asymmetric", "simple", node)


@importer("Upsample", since=7)
def upsample_attributes(X: Any, *, mode: str = "nearest", scales: Any, node: Any) -> Any:
    return _all(X, scales, mode, node)


@importer("Upsample", since=9)
def upsample(X: Any, scales: Any, *, mode: str = "nearest", node: Any) -> Any:
    return _all(X, scales, mode, node)


@importer("Resize", since=10)
def resize_10(X: Any, scales: Any, *, mode: str = "nearest", node: Any) -> Any:
    return _all(X, scales, mode, node)


@importer("Resize", since=11)
def resize(
    X: Any,
    roi: Any = None,
    scales: Any = None,
    sizes: Any = None,
    *,
    antialias: int = 0,
    axes: Any = None,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
    node: Any,
) -> Any:
    # cubic_coeff_a, exclude_outside, extrapolation_value and roi belong to modes that are refused
    if antialias and mode != "nearest":
        raise node.refuse("antialias=1 is not read")
    if axes is not None and X.rank is None:
        raise node.refuse("the number of axes is unknown")
    given = sizes if scales is None or np.size(scales) == 0 else scales
    if isinstance(given, Var) and given.value is None:
        raise node.refuse("scales or sizes must be constant")
    count = np.size(_value(given))
    over = tuple(range(count)) if axes is None else tuple(int(a) % X.rank for a in axes)
    found = _by_sizes(X, sizes, over, keep_aspect_ratio_policy, node) if given is sizes else _by_scales(X, scales, over)
    return _read(X, found, mode, coordinate_transformation_mode, nearest_mode, node)


@importer("DepthToSpace", since=1)
def depth_to_space(input: Any, *, blocksize: int, mode: str = "DCR", node: Any) -> Any:
    if mode not in ("DCR", "CRD"):
        raise node.refuse(f"mode={mode!r} is not read")
    return SpaceDepth(block=blocksize, to_space=True, columns_first=mode == "CRD"), (input,)


@importer("SpaceToDepth", since=1)
def space_to_depth(input: Any, *, blocksize: int, mode: str = "DCR", node: Any) -> Any:
    if mode not in ("DCR", "CRD"):
        raise node.refuse(f"mode={mode!r} is not read")
    return SpaceDepth(block=blocksize, to_space=False, columns_first=mode == "CRD"), (input,)
