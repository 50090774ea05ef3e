"""Slice, with any step: relevance goes back to the entries that were taken."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._lazy import tf
from ..dims import Dim, fresh
from ..fold import slices
from ..layer import Routing, Trace, fill, mixed
from ..registry import Var, importer

__all__ = ["Slice"]

Tensor = Any


@dataclass(frozen=True, eq=False, kw_only=True)
class Slice(Routing):
    """Slots: data, starts, ends, axes, steps; starts and ends may be computed, axes and steps are constant."""

    slots: tuple[int | str, ...]
    axes: tuple[int, ...]
    steps: tuple[int, ...]

    def signals(self, xs: Sequence[Var]) -> Sequence[int]:
        return (0,) if xs[0].is_float else ()

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        x = xs[0]
        dims = x.dims
        if dims is not None:
            starts, ends = ([self.parameters[s]] if isinstance(s, str) else [None] for s in self.slots[1:3])
            out = list(dims)
            for k, (axis, step) in enumerate(zip(self.axes, self.steps, strict=True)):
                size = dims[axis].size
                start = None if starts[0] is None else int(starts[0][k])
                end = None if ends[0] is None else int(ends[0][k])
                if start is not None and end is not None and _is_whole(start, end, step):
                    continue
                if start is not None and end is not None and size is not None:
                    row = slices(1, [start], [end], [0], [step])[0]
                    stop = None if step < 0 and end < -size else row.stop
                    out[axis] = fresh(len(range(size)[slice(row.start, stop, row.step)]))
                elif (start == -1 and step == 1) or (
                    start is not None and end is not None and 0 <= start < end and end - start == 1
                ):
                    out[axis] = Dim()
                else:
                    out[axis] = fresh(None)
            dims = tuple(out)
        return [dataclasses.replace(x, dims=dims, value=None, origin=frozenset())]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        x, starts, ends = fill(self.slots, xs, p)[:3]
        rank = x.shape.rank
        begin: list[Any] = [0] * rank
        end: list[Any] = [0] * rank
        stride = [1] * rank
        begin_mask = end_mask = (1 << rank) - 1
        for k, (axis, step) in enumerate(zip(self.axes, self.steps, strict=True)):
            axis %= rank
            begin[axis], end[axis], stride[axis] = starts[k], ends[k], step
            begin_mask &= ~(1 << axis)
            end_mask &= ~(1 << axis)
            limit = tf.get_static_value(ends[k])
            if limit is not None:
                size = x.shape[axis]
                before = -(2**31) + 1 if size is None else -size
                if step < 0 and limit < before:
                    end_mask |= 1 << axis
                end[axis] = int(min(max(int(limit), -(2**31) + 1), 2**31 - 1))
            first = tf.get_static_value(starts[k])
            if first is not None:
                begin[axis] = int(min(max(int(first), -(2**31) + 1), 2**31 - 1))
        where = {
            "begin": _pack(begin),
            "end": _pack(end),
            "strides": tf.constant(stride, tf.int32),
            "begin_mask": begin_mask,
            "end_mask": end_mask,
        }
        y = tf.raw_ops.StridedSlice(input=x, **where)
        return Trace(xs, [y], p, where)

    def route(self, trace: Trace, rs: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        back = tf.raw_ops.StridedSliceGrad(shape=tf.shape(trace.inputs[0]), dy=rs[0], **trace.saved)
        return [back, *[None] * (len(trace.inputs) - 1)]


def _is_whole(start: int, end: int, step: int) -> bool:
    """All entries, possibly in reverse."""
    if step == 1:
        return start == 0 and end >= 2**31 - 1
    return step == -1 and end < -(2**31) + 2 and (start == -1 or start >= 2**31 - 1)


def _pack(bounds: Sequence[Any]) -> Tensor:
    if all(isinstance(b, int) for b in bounds):
        return tf.constant(bounds, tf.int32)
    limits = [tf.cast(tf.clip_by_value(tf.cast(b, tf.int64), -(2**31) + 1, 2**31 - 1), tf.int32) for b in bounds]
    return tf.stack(limits)


def _read(data: Any, starts: Any, ends: Any, axes: Any, steps: Any, node: Any) -> Any:
    if isinstance(axes, Var) or isinstance(steps, Var):
        raise node.refuse("axes and steps must be constant")
    count = next((np.size(v) for v in (starts, ends, axes) if v is not None and not isinstance(v, Var)), None)
    if count is None:
        count = starts.shape[0] if starts.shape else 1
    slots, parameters, inputs = mixed(data, starts, ends)
    listed = tuple(range(count)) if axes is None else tuple(int(a) for a in np.atleast_1d(axes))
    strides = (1,) * count if steps is None else tuple(int(s) for s in np.atleast_1d(steps))
    return Slice(parameters=parameters, slots=slots, axes=listed, steps=strides), inputs


@importer("Slice")
def slice_attribute(data: Any, *, starts: Any, ends: Any, axes: Any = None, node: Any) -> Any:
    return _read(data, np.asarray(starts), np.asarray(ends), axes, None, node)


@importer("Slice", since=10)
def slice_(data: Any, starts: Any, ends: Any, axes: Any = None, steps: Any = None, *, node: Any) -> Any:
    return _read(data, starts, ends, axes, steps, node)
