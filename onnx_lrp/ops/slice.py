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
from ..layer import Routing, Trace, fill, known, mixed
from ..registry import Var, importer
from .gather import put_back

__all__ = ["Slice"]

Tensor = Any


@dataclass(frozen=True, eq=False, kw_only=True)
class Slice(Routing):
    """Slots: data, starts, ends; starts and ends may be computed, axes and steps are constant."""

    slots: tuple[int | str, ...]
    axes: tuple[int, ...]
    steps: tuple[int, ...]

    def signals(self, xs: Sequence[Var]) -> Sequence[int]:
        return (0,) if xs[0].is_float else ()

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        x = xs[0]
        dims = x.dims
        if dims is not None:
            starts, ends = (self.parameters[s] if isinstance(s, str) else xs[s].value for s in self.slots[1:3])
            out = list(dims)
            for k, (axis, step) in enumerate(zip(self.axes, self.steps, strict=True)):
                start = None if starts is None else starts.reshape(-1)[k]
                end = None if ends is None else ends.reshape(-1)[k]
                out[axis] = _part(dims[axis], start, end, step)
            dims = tuple(out)
        return [dataclasses.replace(x, dims=dims, value=None, origin=frozenset())]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        x, *bounds = fill(self.slots, xs, p)[:3]
        starts, ends = (b if b.shape.rank else tf.reshape(b, [1]) for b in bounds)  # one number is taken for a list of one
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


def _part(dim: Dim, start: Any, end: Any, step: int) -> Dim:
    """What is left of an axis; start and end are ints, symbolic sizes, or None where they are unknown."""
    size = dim.size
    whole = isinstance(end, Dim) and end.same(dim)
    if not isinstance(start, Dim) and start is not None:
        start = int(start)
        if step == 1 and start == 0 and (whole or (end is not None and not isinstance(end, Dim) and end >= 2**31 - 1)):
            return dim
        if step == -1 and end is not None and not isinstance(end, Dim) and end < -(2**31) + 2:
            last = -1 if size is None else size - 1
            if start in (-1, last) or start >= 2**31 - 1:
                return dim
    start, end = (v.size if isinstance(v, Dim) else v if v is None else int(v) for v in (start, 2**31 - 1 if whole else end))
    if start is not None and end is not None and size is not None:
        row = slices(1, [start], [end], [0], [step])[0]
        stop = None if step < 0 and end < -size else row.stop
        length = len(range(size)[slice(row.start, stop, row.step)])
        return dim if length == size and abs(step) == 1 else fresh(length)
    if (start == -1 and step == 1 and (end is None or end >= 0)) or (
        start is not None and end is not None and start >= 0 and end - start == 1 and step > 0
    ):
        return Dim()
    past = end is not None and end >= 2**31 - 1
    if step == 1 and start is not None and start >= 0 and end is not None and (past or end < 0):
        return dim - start + (0 if past else end)
    return fresh(None)


def _pack(bounds: Sequence[Any]) -> Tensor:
    if all(isinstance(b, int) for b in bounds):
        return tf.constant(bounds, tf.int32)
    limits = [tf.cast(tf.clip_by_value(tf.cast(b, tf.int64), -(2**31) + 1, 2**31 - 1), tf.int32) for b in bounds]
    return tf.stack(limits)


@dataclass(frozen=True, eq=False, kw_only=True)
class OpenSlice(Routing):
    """Slots: data, starts, ends, and axes and steps where they are listed; all of them known at run time only."""

    slots: tuple[int | str, ...]
    listed: tuple[bool, bool]  # whether axes and steps are given

    def signals(self, xs: Sequence[Var]) -> Sequence[int]:
        return (0,) if isinstance(self.slots[0], int) and xs[0].is_float else ()

    @property
    def title(self) -> str:
        return "Slice"

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        first = self.slots[0]
        if isinstance(first, str):
            data = self.parameters[first]
            return [Var("", data.dtype, tuple(fresh(None) for _ in data.shape))]
        x = xs[first]
        dims = x.dims
        if dims is not None:
            slot = self.slots[3] if self.listed[0] else None
            cut = range(len(dims)) if not isinstance(slot, str) else {int(a) % len(dims) for a in self.parameters[slot]}
            dims = tuple(fresh(None) if i in cut else d for i, d in enumerate(dims))
        return [dataclasses.replace(x, dims=dims, value=None, origin=frozenset())]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        x, *given = fill(self.slots, xs, p)
        rank = x.shape.rank
        # lists; TensorFlow's scatter ends the process where one of them has another rank than the rest
        starts, ends, *more = (tf.ensure_shape(tf.cast(t, tf.int64), [None]) for t in given)
        axes = more.pop(0) if self.listed[0] else tf.range(tf.size(starts, out_type=tf.int64))
        steps = more.pop(0) if self.listed[1] else tf.ones_like(starts)
        axes = tf.where(axes < 0, axes + rank, axes)[:, None]
        shape = tf.shape(x, out_type=tf.int64)
        size = tf.gather(shape, axes[:, 0])
        back = tf.cast(steps < 0, tf.int64)  # stepping back an index runs from size − 1 to −1, else from 0 to size
        starts = tf.clip_by_value(tf.where(starts < 0, starts + size, starts), 0, size - back)
        ends = tf.clip_by_value(tf.where(ends < 0, ends + size, ends), -back, size - back)
        begin = tf.tensor_scatter_nd_update(tf.zeros_like(shape), axes, starts)
        end = tf.tensor_scatter_nd_update(shape, axes, ends)
        stride = tf.tensor_scatter_nd_update(tf.ones_like(shape), axes, steps)
        y, saved = x, {}
        for axis in range(rank):
            saved[f"rows{axis}"] = tf.range(begin[axis], end[axis], stride[axis])
            saved[f"x{axis}"] = y
            y = tf.gather(y, saved[f"rows{axis}"], axis=axis)
        return Trace(xs, [y], p, saved)

    def route(self, trace: Trace, rs: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        r = rs[0]
        for axis in reversed(range(trace.inputs[0].shape.rank)):
            r = put_back(r, trace.saved[f"rows{axis}"], axis, trace.saved[f"x{axis}"])
        return [r, *[None] * (len(trace.inputs) - 1)]


def _read(data: Any, starts: Any, ends: Any, axes: Any, steps: Any) -> Any:
    places, strides = known(axes), known(steps)
    counts = [v.shape[0] if v.shape else None for v in (starts, ends, axes) if v is not None]
    count = next((n for n in counts if n is not None), None)
    unknown = (axes is not None and places is None) or (steps is not None and strides is None)
    backwards = strides is not None and np.any(strides < 0) and known(ends) is None  # the sign of an end decides what it means
    if unknown or backwards or (count is None and (places is None or strides is None)) or not isinstance(data, Var):
        slots, parameters, inputs = mixed(data, starts, ends, axes, steps)
        return OpenSlice(parameters=parameters, slots=slots, listed=(axes is not None, steps is not None)), inputs
    fixed = [v if known(v) is None else known(v) for v in (starts, ends)]
    slots, parameters, inputs = mixed(data, *fixed)
    listed = tuple(range(count or 0)) if places is None else tuple(int(a) for a in np.atleast_1d(places))
    steps_ = (1,) * len(listed) if strides is None else tuple(int(s) for s in np.atleast_1d(strides))
    return Slice(parameters=parameters, slots=slots, axes=listed, steps=steps_), inputs


@importer("Slice")
def slice_attribute(data: Any, *, starts: Any, ends: Any, axes: Any = None) -> Any:
    return _read(data, np.asarray(starts), np.asarray(ends), None if axes is None else np.asarray(axes), None)


@importer("Slice", since=10)
def slice_(data: Any, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> Any:
    return _read(data, starts, ends, axes, steps)
