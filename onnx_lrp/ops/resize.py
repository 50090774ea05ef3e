"""Resize and Upsample: nearest neighbours are an index map, linear and cubic interpolation are affine with fixed weights.

What a region has outside of the input is a constant. DepthToSpace and SpaceToDepth, which move channels into space and back, are
index maps, too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._lazy import tf
from ..dims import Dim, fresh
from ..intervals import bounds, hull
from ..layer import Affine, Routing, Trace
from ..linear import LinearMap
from ..registry import ANY, Var, importer
from ..windows import transposed

__all__ = ["Interpolated", "Nearest", "SpaceDepth"]

Tensor = Any


CROP = "tf_crop_and_resize"
MODES = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric", "tf_half_pixel_for_nn", CROP)


@dataclass(frozen=True)
class Axis:
    """One axis that changes its length: by ``scale``, to ``size``, or both, if the length keeps the ratio of another axis.

    ``region``: the part that is resized (mode tf_crop_and_resize), its ends in units of the last index; it may lie outside.
    """

    axis: int
    scale: np.float32 | None
    size: int | None
    region: tuple[np.float32, np.float32] | None = None

    def target(self, n: Any) -> Any:
        """The length it gets from n (int or tensor); onnxruntime counts in float32."""
        if self.size is not None:
            return self.size
        assert self.scale is not None
        if isinstance(n, int):
            return int(np.float32(n) * self.scale)
        return tf.cast(tf.cast(n, tf.float32) * self.scale, tf.int32)

    def ratio(self, n: Any) -> Tensor:
        """The scale, float32."""
        if self.scale is not None:
            return tf.constant(self.scale)
        return tf.cast(self.target(n), tf.float32) / tf.cast(n, tf.float32)

    def coordinates(self, n: Any, mode: str) -> Tensor:
        """Where each entry of the output lies among the n of the input, float32, by coordinate_transformation_mode."""
        out = self.target(n)
        before, after = tf.cast(n, tf.float32), tf.cast(out, tf.float32)
        scale = self.ratio(n)
        k = tf.cast(tf.range(out), tf.float32)
        if mode == CROP:
            assert self.region is not None
            low, high = self.region
            middle = tf.fill(tf.shape(k), 0.5 * (low + high) * (before - 1))
            at = low * (before - 1) + k * (high - low) * (before - 1) / tf.maximum(after - 1, 1)
            return tf.where(after == before, k, tf.where(after > 1, at, middle))  # onnxruntime crops no axis that keeps its length
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

    def beyond(self, n: Any, mode: str) -> Tensor:
        """(out,) bools: which entries of the output lie outside the input, where a value of its own is put."""
        at = self.coordinates(n, mode)
        return (at < 0) | (at > tf.cast(n - 1, tf.float32))


def _sizes(x: Tensor) -> Sequence[Any]:
    return [n if n is not None else tf.shape(x)[i] for i, n in enumerate(x.shape)]


def _along(mask: Tensor, axis: int, rank: int) -> Tensor:
    """(out, …) shaped to meet a tensor that has ``axis``."""
    return tf.reshape(mask, tf.concat([tf.shape(mask), [1] * (rank - 1 - axis)], 0))


def _beyond(x: Tensor, axes: Sequence[Axis], mode: str) -> Tensor | None:
    """Which entries of the output lie outside the input on some axis, broadcastable to it; None: none does."""
    if mode != CROP or not axes:
        return None
    sizes, found = _sizes(x), None
    for a in axes:
        mask = _along(a.beyond(sizes[a.axis], mode), a.axis, x.shape.rank)
        found = mask if found is None else found | mask
    return found


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
    """Each entry of the output is one of the input. ``rounding``: nearest_mode; "simple" is what opsets before 11 did.

    parameters: outside (), what stands where a region has no input.
    """

    axes: tuple[Axis, ...]
    coordinates: str
    rounding: str

    @property
    def title(self) -> str:
        return "Resize"

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        (x,) = xs
        cropped = self.coordinates == CROP
        interval = hull([x.interval, bounds(self.parameters["outside"])]) if cropped else x.interval
        dims = _dims(x, self.axes)
        return [dataclasses.replace(x, dims=dims, value=None, interval=interval, mask=x.mask and not cropped, origin=frozenset())]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        (x,) = xs
        y = self._take(x, _sizes(x))
        beyond = _beyond(x, self.axes, self.coordinates)
        return Trace(xs, [y if beyond is None else tf.where(beyond, tf.cast(p["outside"], x.dtype), y)], p)

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
        r: Tensor = rs[0]
        beyond = _beyond(x, self.axes, self.coordinates)
        r = r if beyond is None else tf.where(beyond, tf.zeros_like(r), r)
        return [transposed(lambda z: self._take(z, _sizes(x)), tf.shape(x), r)]

    def lost(self, trace: Trace, rs: Sequence[Tensor | None]) -> Sequence[tuple[Tensor, Tensor]]:
        beyond = _beyond(trace.inputs[0], self.axes, self.coordinates)
        r: Tensor = rs[0]
        return [] if beyond is None else [(trace.parameters["outside"], tf.where(beyond, r, tf.zeros_like(r)))]


@dataclass(frozen=True, eq=False)
class Taps:
    """What each entry of the output is made of, on one axis: index, weights, used (out, K). Unused ones repeat another's entry."""

    index: Tensor
    weights: Tensor
    used: Tensor

    def mix(self, x: Tensor, axis: int) -> Tensor:
        """The weighted sums."""
        return tf.reduce_sum(tf.gather(x, self.index, axis=axis) * _along(self.weights, axis, x.shape.rank), axis + 1)

    def mapped(self, function: Callable[[Tensor], Tensor]) -> Taps:
        """With a function of the weights."""
        weights = tf.where(self.used, function(self.weights), tf.zeros_like(self.weights))
        return dataclasses.replace(self, weights=weights)


@dataclass(frozen=True)
class Kernel:
    """Weights by distance. ``cubic``: the coefficient a of cubic convolution (Keys 1981), None: linear interpolation.

    ``antialias``: stretched where the axis shrinks. ``exclude_outside``: weights outside count as zero, else as the edge's.
    """

    cubic: float | None = None
    antialias: bool = False
    exclude_outside: bool = False

    @property
    def radius(self) -> int:
        return 1 if self.cubic is None else 2

    def weight(self, distance: Tensor) -> Tensor:
        """Before normalization."""
        d, a = tf.abs(distance), self.cubic
        if a is None:
            return tf.maximum(1 - d, 0)
        near = ((a + 2) * d - (a + 3)) * d * d + 1
        far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
        return tf.where(d <= 1, near, tf.where(d < 2, far, tf.zeros_like(d)))

    def taps(self, axis: Axis, n: Any, mode: str, dtype: Any) -> Taps:
        """Of an axis of n entries."""
        at = axis.coordinates(n, mode)
        if self.antialias:
            stretch = tf.minimum(axis.ratio(n), 1)
            reach = self.radius / stretch
            first, count = tf.floor(at + 1 - reach), 2 * tf.math.ceil(reach) + 1
        else:
            stretch = tf.ones([])
            first, count = tf.floor(at) - (self.radius - 1), 2 * self.radius
        place = first[:, None] + tf.range(count, dtype=tf.float32)
        weights = self.weight((tf.cast(place, dtype) - tf.cast(at, dtype)[:, None]) * tf.cast(stretch, dtype))
        last = tf.cast(n - 1, tf.float32)
        index = tf.clip_by_value(place, 0.0, last)
        if self.exclude_outside:
            used = index == place
        else:
            same = index[:, :, None] == index[:, None, :]
            used = tf.argmax(same, 2, tf.int32) == tf.range(tf.shape(index)[1])  # the first of those that are one entry
            weights = tf.linalg.matvec(tf.cast(same, dtype), weights)
        if mode == CROP:
            used &= ~axis.beyond(n, mode)[:, None]
        weights = tf.where(used, weights, tf.zeros_like(weights))
        if self.antialias or self.exclude_outside:
            weights = tf.math.divide_no_nan(weights, tf.reduce_sum(weights, 1, keepdims=True))
        return Taps(tf.cast(index, tf.int32), weights, used)


@dataclass(frozen=True, eq=False, kw_only=True)
class Interpolated(Affine):
    """Interpolation, one axis after the other: each entry is a sum of neighbours with fixed weights.

    parameters: outside (), what stands where a region has no input.
    """

    axes: tuple[Axis, ...]
    coordinates: str
    kernel: Kernel = Kernel()

    @property
    def title(self) -> str:
        return "Resize"

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        (x,) = xs
        interval = x.interval if self.kernel.cubic is None else ANY  # a cubic one overshoots
        if self.coordinates == CROP:
            interval = hull([interval, bounds(self.parameters["outside"])])
        return [Var("", x.dtype, _dims(x, self.axes), interval=interval)]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        (x,) = xs
        y, constant = self._mix(x, self._taps(x)), self._constant(x, p)
        return Trace(xs, [y if constant is None else y + constant], p)

    def _taps(self, x: Tensor) -> Sequence[Taps]:
        sizes = _sizes(x)
        return [self.kernel.taps(a, sizes[a.axis], self.coordinates, x.dtype) for a in self.axes]

    def _mix(self, x: Tensor, taps: Sequence[Taps]) -> Tensor:
        for a, own in zip(self.axes, taps, strict=True):
            x = own.mix(x, a.axis)
        return x

    def _constant(self, x: Tensor, p: Mapping[str, Tensor]) -> Tensor | None:
        beyond = _beyond(x, self.axes, self.coordinates)
        return None if beyond is None else tf.where(beyond, p["outside"], tf.zeros_like(p["outside"]))

    def linear(self, trace: Trace) -> LinearMap:
        (x,) = trace.inputs
        return self._map(x, self._taps(x))

    def _map(self, x: Tensor, taps: Sequence[Taps]) -> LinearMap:
        return LinearMap(
            call=lambda xs: self._mix(xs[0], taps),
            pull=lambda s: [transposed(lambda z: self._mix(z, taps), tf.shape(x), s)],
            mapped=lambda f: self._map(x, [own.mapped(f) for own in taps]),
        )

    def bias(self, trace: Trace) -> Tensor | None:
        return self._constant(trace.inputs[0], trace.parameters)


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


def _cropped(found: Sequence[Axis], roi: Any, axes: Sequence[int], node: Any) -> tuple[Axis, ...]:
    """Axes with their regions; ``roi``: all begins, then all ends."""
    region = None if isinstance(roi, Var) else roi
    if region is None or np.size(region) != 2 * len(axes):
        raise node.refuse(f"roi must be constant, with a begin and an end for each of {len(axes)} axes")
    begins, ends = np.reshape(region, (2, -1)).astype(np.float32)
    regions = dict(zip(axes, zip(begins, ends, strict=True), strict=True))
    return tuple(dataclasses.replace(a, region=regions[a.axis]) for a in found)


def _read(X: Any, axes: tuple[Axis, ...], mode: str, coordinates: str, node: Any, *, rounding: str = "simple", **more: Any) -> Any:
    """``more``: the kernel, if it is not plain linear interpolation, and what stands outside of a region."""
    if coordinates not in MODES:
        raise node.refuse(f"coordinate_transformation_mode={coordinates!r} is not read")
    parameters = {"outside": np.asarray(more["outside"], np.float32)} if coordinates == CROP else {}
    if mode == "nearest":
        return Nearest(parameters=parameters, axes=axes, coordinates=coordinates, rounding=rounding), (X,)
    if mode not in ("linear", "bilinear", "cubic"):
        raise node.refuse(f"mode={mode!r} is not read")
    if not X.is_float:
        raise node.refuse(f"{X.dtype} is not interpolated: how its sums are rounded is onnxruntime's own")
    return Interpolated(parameters=parameters, axes=axes, coordinates=coordinates, kernel=more.get("kernel", Kernel())), (X,)


def _all(X: Any, scales: Any, mode: str, node: Any) -> Any:
    """Before opset 11: scales for all axes, corners at zero."""
    if isinstance(scales, Var):
        raise node.refuse("scales must be constant")
    return _read(X, _by_scales(X, scales, range(np.size(scales))), mode, "asymmetric", node)


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
    if antialias and mode == "nearest":
        raise node.refuse("antialias=1 with mode='nearest' is not defined")
    if axes is not None and X.rank is None:
        raise node.refuse("the number of axes is unknown")
    given = sizes if scales is None or np.size(scales) == 0 else scales
    if isinstance(given, Var) and given.value is None:
        raise node.refuse("scales or sizes must be constant")
    count = np.size(_value(given))
    over = tuple(range(count)) if axes is None else tuple(int(a) % X.rank for a in axes)
    found = _by_sizes(X, sizes, over, keep_aspect_ratio_policy, node) if given is sizes else _by_scales(X, scales, over)
    kernel = Kernel(cubic_coeff_a if mode == "cubic" else None, bool(antialias), bool(exclude_outside))
    mode_, settings = coordinate_transformation_mode, {"kernel": kernel, "outside": extrapolation_value}
    if mode_ == CROP:
        found = _cropped(found, roi, over, node)
    return _read(X, found, mode, mode_, node, rounding=nearest_mode, **settings)


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
