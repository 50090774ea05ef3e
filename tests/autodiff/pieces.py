"""Matrix products, convolutions, reversals: what several ops are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from .values import Value, build, data, halves, route


def ints(x: Value) -> list[int]:
    return [int(v) for v in np.reshape(x.now, -1)]


def axes_of(args: Sequence[Any], axes: Any) -> list[int] | None:
    if axes is None and len(args) > 1 and args[1] is not None:
        axes = args[1].now
    return None if axes is None else [int(a) for a in np.reshape(axes, -1)]


def slot(x: Value, k: int, axis: int) -> Value:
    """x at index k of an axis, the axis dropped."""
    return route(lambda t: tf.gather(t, k, axis=axis), x)


def stack(xs: Sequence[Value], axis: int) -> Value:
    return route(lambda *ts: tf.stack(ts, axis), *xs)


def reverse(x: Value, lens: np.ndarray, time: int, batch: int) -> Value:
    """The first lens entries of each sample in reverse, the others where they are."""
    steps, lengths = x.now.shape[time], np.asarray(lens, np.int64)
    k = np.arange(steps)
    source = np.where(k[None] < lengths[:, None], lengths[:, None] - 1 - k[None], k[None])  # (B, T)
    order = [batch, time, *(a for a in range(x.now.ndim) if a not in (batch, time))]
    back = [int(a) for a in np.argsort(order)]
    return route(lambda t: tf.transpose(tf.gather(tf.transpose(t, order), source, axis=1, batch_dims=1), back), x)


def matmul(a: Value, b: Value, alpha: float = 1.0, *, single: bool = False) -> Value:
    """alpha · a @ b; ``single``: each entry is one product, no sum."""

    def times(x: Any, y: Any) -> Any:
        x, y = tf.convert_to_tensor(x), tf.convert_to_tensor(y)
        left, right = (x[None] if len(x.shape) == 1 else x), (y[:, None] if len(y.shape) == 1 else y)
        z = alpha * tf.matmul(left, right)
        z = z[..., 0] if len(y.shape) == 1 else z
        return (z[..., 0, :] if len(y.shape) > 1 else z[..., 0]) if len(x.shape) == 1 else z

    if a.live and b.live:
        if not (a.gate or b.gate):
            return halves(times, a, b) if single else rooted(halves(times, a, b))
        coefficient, signal = (a, b) if a.gate else (b, a)
    elif a.live or b.live:
        coefficient, signal = (a, b) if b.live else (b, a)
    else:
        return data(times(a.now, b.now), [a, b])
    fixed, first = coefficient.now, coefficient is a
    function = (lambda x: times(fixed, x)) if first else (lambda x: times(x, fixed))
    weights = coefficient.constant  # over one entry a gate passes on what it gets; weights make a layer all the same
    return build("sum", function, [signal], [0] if weights else [], summed=weights or not single)


def rooted(x: Value) -> Value:
    """A sum with a stabilizer of its own, whatever reads it."""
    x.kind, x.root, x.summed, x.operands = "sum", True, True, frozenset(range(len(x.sources)))
    return x


def windows(
    sizes: Sequence[int],
    kernel: Sequence[int],
    *,
    strides: Any = None,
    pads: Any = None,
    dilations: Any = None,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    **_: Any,
) -> np.ndarray:
    """(K, *outputs): which entry, row-major, each place of the kernel sees at each output; -1: padding."""
    n = len(sizes)
    strides, dilations, pads = strides or [1] * n, dilations or [1] * n, list(pads or [0] * 2 * n)
    rows = []
    for axis in range(n):
        reach = (kernel[axis] - 1) * dilations[axis] + 1
        if auto_pad.startswith("SAME"):
            out = -(-sizes[axis] // strides[axis])
            whole = max((out - 1) * strides[axis] + reach - sizes[axis], 0)
            pads[axis] = whole // 2 if auto_pad == "SAME_UPPER" else -(-whole // 2)
            pads[n + axis] = whole - pads[axis]
        room = sizes[axis] + pads[axis] + pads[n + axis] - reach
        out = (-(-room // strides[axis]) if ceil_mode else room // strides[axis]) + 1
        if ceil_mode and (out - 1) * strides[axis] >= sizes[axis] + pads[axis]:
            out -= 1
        at = np.arange(kernel[axis])[:, None] * dilations[axis] + np.arange(out)[None] * strides[axis] - pads[axis]
        rows.append(np.where((at >= 0) & (at < sizes[axis]), at, -1))  # (k, out)
    places = np.zeros((1,) * n * 2, np.int64)
    bad = np.zeros((1,) * n * 2, bool)
    for axis, row in enumerate(rows):
        shape = [1] * 2 * n
        shape[axis], shape[n + axis] = row.shape
        places = places * sizes[axis] + row.reshape(shape)
        bad = bad | (row.reshape(shape) < 0)
    places = np.where(bad, -1, places)
    return places.reshape(-1, *places.shape[n:])


def convolution(x: Value, w: np.ndarray, *, group: int = 1, kernel_shape: Any = None, **at: Any) -> Value:
    places = windows(x.now.shape[2:], w.shape[2:], **at)  # (K, outputs)
    flat, out = places.reshape(-1), places.shape[1:]
    kernel = w.reshape(group, w.shape[0] // group, w.shape[1], -1)  # (G, M/G, C/G, K)
    batch, channels = x.now.shape[:2]

    def call(t: Any) -> Any:
        seen = tf.gather(tf.reshape(t, [batch, channels, -1]), np.maximum(flat, 0), axis=2)
        seen = tf.reshape(tf.where(flat >= 0, seen, tf.zeros([], tf.float64)), [batch, group, channels // group, len(places), -1])
        return tf.reshape(tf.einsum("bgckp,gmck->bgmp", seen, kernel), [batch, w.shape[0], *out])

    return build("sum", call, [x], [0], summed=True)
