"""Conv and ConvTranspose with constant weights: sums over windows, affine like a dense layer.

z_j = Σ_i x_i w_ij + b_j over the window; the pull-back of either is the other one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .._lazy import tf
from ..dims import Dim, fresh
from ..layer import Affine, Trace, fill, mixed
from ..linear import LinearMap
from ..registry import Var, importer
from ..windows import Place, Window, correlate, spatial_sizes, transposed

__all__ = ["Convolution"]

Tensor = Any


@dataclass(frozen=True, eq=False, kw_only=True)
class Convolution(Affine):
    """Slots: x (B, C, *S), weight, optionally bias (M,). Output (B, M, *O).

    weight: (M, C/groups, *K), or (C, M/groups, *K) if ``transpose``. A computed weight carries no relevance.
    """

    slots: tuple[int | str, ...]
    window: Window
    groups: int
    transpose: bool = False
    output_padding: tuple[int, ...] = ()
    output_shape: tuple[int, ...] = field(default=())

    @property
    def title(self) -> str:
        return "ConvTranspose" if self.transpose else "Conv"

    @property
    def operands(self) -> Sequence[int]:
        return (0,)

    def signals(self, xs: Sequence[Var]) -> Sequence[int]:
        return [s for k, s in enumerate(self.slots) if k != 1 and not isinstance(s, str)]

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        x = xs[0]
        weight = self.slots[1]
        shape = self.parameters[weight].shape if isinstance(weight, str) else xs[weight].shape
        channels = shape[0] if shape is not None else None
        if self.transpose:
            channels = shape[1] * self.groups if shape is not None and shape[1] is not None else None
        if x.dims is None:
            return [Var("", x.dtype, None)]
        spatial = self._stretched(x.dims[2:]) if self.transpose else self.window.dims(x.dims[2:])
        return [Var("", x.dtype, (x.dims[0], fresh(channels), *spatial))]

    def _stretched(self, dims: Sequence[Dim]) -> Sequence[Dim]:
        sizes = [None if d.size is None else self._target(i, d.size)[0] for i, d in enumerate(dims)]
        return [d if n is not None and n == d.size else fresh(n) for d, n in zip(dims, sizes, strict=True)]

    def _target(self, axis: int, size: Any) -> tuple[Any, Place]:
        """(output size, where the windows lie in it) of a transposed convolution."""
        window = self.window
        stride, span = window.strides[axis], window.spans[axis]
        full = stride * (size - 1) + self.output_padding[axis] + span
        if self.output_shape or window.auto_pad.startswith("SAME"):
            out = self.output_shape[axis] if self.output_shape else size * stride
            room = full - out
            room = max(room, 0) if isinstance(room, int) else tf.maximum(room, 0)
            before = room // 2 if window.auto_pad == "SAME_UPPER" else room - room // 2
            if not self.output_shape:  # windows with gaps between them end early, as in onnxruntime
                out = full - room
        else:
            before = window.pads[axis]
            out = full - before - window.pads[len(window.kernel) + axis]
        behind = stride * (size - 1) + span - out - before
        return out, Place(before, max(behind, 0) if isinstance(behind, int) else tf.maximum(behind, 0), size)

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        x, w, *bias = fill(self.slots, xs, p)
        z = self._forward(x, w)
        return Trace(xs, [z + _along(bias[0], z) if bias else z], p)

    def _forward(self, x: Tensor, w: Tensor) -> Tensor:
        if not self.transpose:
            return self._correlate(x, w, self.window.places(spatial_sizes(x)))
        targets = [self._target(i, n) for i, n in enumerate(spatial_sizes(x))]
        shape = [tf.shape(x)[0], w.shape[1] * self.groups, *(out for out, _ in targets)]
        return transposed(lambda z: self._correlate(z, w, [place for _, place in targets]), shape, x)

    def _backward(self, s: Tensor, w: Tensor, x: Tensor) -> Tensor:
        if self.transpose:
            return self._correlate(s, w, [self._target(i, n)[1] for i, n in enumerate(spatial_sizes(x))])
        return transposed(lambda z: self._correlate(z, w, self.window.places(spatial_sizes(x))), tf.shape(x), s)

    def _correlate(self, x: Tensor, w: Tensor, places: Sequence[Place]) -> Tensor:
        return correlate(x, w, places, strides=self.window.strides, dilations=self.window.dilations, groups=self.groups)

    def linear(self, trace: Trace) -> LinearMap:
        return self._map(fill(self.slots, trace.inputs, trace.parameters)[1], 1.0, trace.inputs)

    def _map(self, w: Tensor, factor: Any, inputs: Sequence[Tensor]) -> LinearMap:
        addend = self.slots[2] if len(self.slots) > 2 else ""  # a computed bias enters with ``factor``
        computed = not isinstance(addend, str)

        def call(xs: Sequence[Tensor]) -> Tensor:
            z = self._forward(xs[0], w)
            return z + factor * _along(xs[int(addend)], z) if computed else z

        def pull(s: Tensor) -> Sequence[Tensor | None]:
            parts: list[Tensor | None] = [None] * len(inputs)
            parts[0] = self._backward(s, w, inputs[0])
            if computed:
                parts[int(addend)] = factor * tf.reduce_sum(s, [0, *range(2, s.shape.rank)])
            return parts

        return LinearMap(call=call, pull=pull, mapped=lambda f: self._map(f(w), f(tf.cast(factor, w.dtype)), inputs))

    def bias(self, trace: Trace) -> Tensor | None:
        if len(self.slots) < 3 or not isinstance(self.slots[2], str):
            return None
        return _along(trace.parameters[self.slots[2]], trace.outputs[0])


def _along(v: Tensor, z: Tensor) -> Tensor:
    """v (M,) shaped to meet axis 1 of z (B, M, *O)."""
    return tf.reshape(v, [-1] + [1] * (z.shape.rank - 2))


def _operands(X: Any, W: Any, B: Any, node: Any) -> Any:
    if not isinstance(X, Var):
        raise node.refuse("the weights are computed and the data constant")
    if isinstance(W, Var) and (W.live or W.rank is None or None in (W.shape or ())):
        raise node.refuse("computed weights carry relevance or have no fixed shape; only constant weights are read")
    return mixed(X, W, B)


@importer("Conv", since=1)
def conv(
    X: Any,
    W: Any,
    B: Any = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Any = None,
    group: int = 1,
    kernel_shape: Any = None,
    pads: Any = None,
    strides: Any = None,
    node: Any,
) -> Any:
    slots, parameters, inputs = _operands(X, W, B, node)
    kernel = kernel_shape or W.shape[2:]
    window = Window.read(node, kernel, strides=strides, dilations=dilations, pads=pads, auto_pad=auto_pad)
    return Convolution(parameters=parameters, slots=slots, window=window, groups=group), inputs


@importer("ConvTranspose", since=1)
def conv_transpose(
    X: Any,
    W: Any,
    B: Any = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: Any = None,
    group: int = 1,
    kernel_shape: Any = None,
    output_padding: Any = None,
    output_shape: Any = None,
    pads: Any = None,
    strides: Any = None,
    node: Any,
) -> Any:
    slots, parameters, inputs = _operands(X, W, B, node)
    kernel = kernel_shape or W.shape[2:]
    window = Window.read(node, kernel, strides=strides, dilations=dilations, pads=pads, auto_pad=auto_pad)
    layer = Convolution(
        parameters=parameters,
        slots=slots,
        window=window,
        groups=group,
        transpose=True,
        output_padding=tuple(output_padding or [0] * len(window.kernel)),
        output_shape=tuple(output_shape or ())[-len(window.kernel) :],
    )
    return layer, inputs
