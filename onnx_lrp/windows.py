"""Sliding windows over spatial axes: where they lie, and the convolution with its transpose that works for every setting.

TensorFlow's kernels leave gaps on a CPU (groups, dilated gradients); what they can't do is a sum over the kernel's entries.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ._lazy import tf
from .dims import Dim, fresh

__all__ = ["Place", "Window", "correlate", "spatial_sizes", "transposed"]

Tensor = Any


@dataclass(frozen=True)
class Place:
    """Windows on one axis: pads before and behind, enough for all of them, and how many there are (ints or tensors)."""

    before: Any
    behind: Any
    count: Any


def _at_least_zero(n: Any) -> Any:
    return max(n, 0) if isinstance(n, int) else tf.maximum(n, 0)


@dataclass(frozen=True)
class Window:
    """A kernel's extent on every spatial axis, as ONNX's attributes say it; ``pads``: all begins, then all ends."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    auto_pad: str = "NOTSET"
    ceil: bool = False

    @classmethod
    def read(
        cls, node: Any, kernel: Sequence[int], *, strides: Any, dilations: Any, pads: Any, auto_pad: str, ceil: int = 0
    ) -> Window:
        """From a node's attributes, None where it has none."""
        rank = len(kernel)
        if auto_pad not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
            raise node.refuse(f"auto_pad={auto_pad!r} is not read")
        window = cls(
            kernel=tuple(int(k) for k in kernel),
            strides=tuple(strides or [1] * rank),
            dilations=tuple(dilations or [1] * rank),
            pads=tuple(pads or [0] * 2 * rank) if auto_pad == "NOTSET" else (0,) * 2 * rank,
            auto_pad=auto_pad,
            ceil=bool(ceil),
        )
        if not 1 <= rank <= 3:
            raise node.refuse(f"{rank} spatial axes; one to three are read")
        if len(window.strides) != rank or len(window.dilations) != rank or len(window.pads) != 2 * rank:
            raise node.refuse(f"strides, dilations or pads don't fit a kernel of {rank} axes")
        if min(window.pads) < 0:
            raise node.refuse("negative pads are not read")
        return window

    @property
    def spans(self) -> Sequence[int]:
        """What a window covers on each axis, gaps included."""
        return [(k - 1) * d + 1 for k, d in zip(self.kernel, self.dilations, strict=True)]

    def places(self, sizes: Sequence[Any]) -> Sequence[Place]:
        """Where the windows lie on axes of these sizes (ints or tensors)."""
        return [self._place(i, n) for i, n in enumerate(sizes)]

    def _place(self, axis: int, size: Any) -> Place:
        stride, span = self.strides[axis], self.spans[axis]
        if self.auto_pad.startswith("SAME"):
            count = -(-size // stride)
            total = _at_least_zero((count - 1) * stride + span - size)
            before = total // 2 if self.auto_pad == "SAME_UPPER" else total - total // 2
            return Place(before, total - before, count)
        before, behind = self.pads[axis], self.pads[len(self.kernel) + axis]
        room = size + before + behind - span
        if not self.ceil:
            return Place(before, behind, room // stride + 1)
        count = -(-room // stride) + 1
        past = (count - 1) * stride >= size + before  # a window that begins behind the last entry doesn't count
        count = count - past if isinstance(size, int) else count - tf.cast(past, tf.int32)
        more = (count - 1) * stride + span - size - before
        return Place(before, max(behind, more) if isinstance(size, int) else tf.maximum(behind, more), count)

    def dims(self, dims: Sequence[Dim]) -> tuple[Dim, ...]:
        """Spatial dims of the output; an axis that keeps its length is the same axis."""
        out = []
        for axis, dim in enumerate(dims):
            same = self.strides[axis] == 1 and (
                self.auto_pad.startswith("SAME") or self.pads[axis] + self.pads[len(dims) + axis] == self.spans[axis] - 1
            )
            if same:
                out.append(dim)
            else:
                out.append(fresh(None if dim.size is None else int(self._place(axis, dim.size).count)))
        return tuple(out)


def spatial_sizes(x: Tensor) -> Sequence[Any]:
    """Sizes behind (batch, channels): ints where they are known, else tensors."""
    return [n if n is not None else tf.shape(x)[2 + i] for i, n in enumerate(x.shape[2:])]


def correlate(
    x: Tensor, w: Tensor, places: Sequence[Place], *, strides: Sequence[int], dilations: Sequence[int], groups: int = 1
) -> Tensor:
    """What ONNX calls a convolution: x (B, C, *S), w (M, C/groups, *K) → (B, M, *counts)."""
    rank = len(places)
    pads = [(0, 0), *((p.before, p.behind) for p in places), (0, 0)]
    x = tf.transpose(x, [0, *range(2, rank + 2), 1])
    if any(not isinstance(n, int) or n for pair in pads for n in pair):
        x = tf.pad(x, pads)
    x = tf.ensure_shape(x, [*x.shape[:-1], w.shape[1] * groups])
    counts = [p.count for p in places]
    if groups == 1 and rank < 3:  # TensorFlow can't transpose a 3-d one eagerly
        y = _dense(x, w, strides, dilations)
        y = y[(slice(None), *(slice(n) for n in counts))]  # pads may leave room for more
    else:
        y = _grouped(x, w, counts, strides, dilations, groups)
    return tf.transpose(y, [0, rank + 1, *range(1, rank + 1)])


def _dense(x: Tensor, w: Tensor, strides: Sequence[int], dilations: Sequence[int]) -> Tensor:
    rank = len(strides)
    kernel = tf.transpose(w, [*range(2, rank + 2), 1, 0])
    gaps = any(d > 1 for d in dilations) and any(n > 1 for n in strides)  # TensorFlow refuses the two together
    if gaps or len(set(strides)) > 1:  # oneDNN returns wrong numbers for unequal strides of one channel
        y = tf.nn.convolution(x, kernel, 1, "VALID", dilations=list(dilations))
        return y[(slice(None), *(slice(None, None, n) for n in strides))]
    return tf.nn.convolution(x, kernel, list(strides), "VALID", dilations=list(dilations))


def _grouped(x: Tensor, w: Tensor, counts: Sequence[Any], strides: Sequence[int], dilations: Sequence[int], groups: int) -> Tensor:
    """One product an entry of the kernel, for all groups and positions at once."""
    kernel = w.shape[2:]
    weights = tf.reshape(w, [groups, w.shape[0] // groups, w.shape[1], *kernel])
    total: Any = None
    for offset in np.ndindex(*kernel):
        rows = [slice(o * d, o * d + (n - 1) * s + 1, s) for o, d, n, s in zip(offset, dilations, counts, strides, strict=True)]
        part = x[(slice(None), *rows)]  # (B, *counts, C)
        lead = tf.shape(part)[:-1]
        part = tf.reshape(part, tf.concat([[-1], [groups, w.shape[1]]], 0))
        entry = weights[(Ellipsis, *offset)]  # (groups, M/groups, C/groups)
        one = part * entry[..., 0] if w.shape[1] == 1 else tf.einsum("ngi,goi->ngo", part, entry)
        one = tf.reshape(one, tf.concat([lead, [w.shape[0]]], 0))
        total = one if total is None else total + one
    return total


def transposed(function: Callable[[Tensor], Tensor], shape: Any, s: Tensor) -> Tensor:
    """The transpose of a linear ``function`` of a tensor of ``shape``, applied to ``s``."""
    with tf.GradientTape() as tape:
        zero = tf.zeros(shape, s.dtype)
        tape.watch(zero)
        y = function(zero)
    back = tape.gradient(y, zero, output_gradients=s, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    return tf.convert_to_tensor(back)  # that of a gather along axis 0 is sparse
