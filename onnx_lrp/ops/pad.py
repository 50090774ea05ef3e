"""Pad: a constant around the data (absorbed), or its own entries again (they collect the relevance of all their copies)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._lazy import tf
from ..dims import Dim, fresh
from ..layer import Routing, Trace, constant_dims, fill, known, mixed
from ..registry import Var, importer
from .gather import bounds, put_back

__all__ = ["Pad", "Repeated"]

Tensor = Any


def _dims(dims: Sequence[Dim] | None, axes: Sequence[int] | None, pads: np.ndarray | None) -> tuple[Dim, ...] | None:
    """Padded dims; ``pads``: entries begin…, end… of the ``axes`` (None: all), symbolic where unknown."""
    if dims is None:
        return None
    listed = range(len(dims)) if axes is None else [a % len(dims) for a in axes]
    out = list(dims)
    for k, axis in enumerate(listed):
        ends: list[Any] = [None, None] if pads is None else [pads[k], pads[k + len(listed)]]
        before, after = (e.size if isinstance(e, Dim) else e for e in ends)
        if before is None or after is None:
            out[axis] = fresh(None)
        elif before or after:
            out[axis] = dims[axis] + (int(before) + int(after))
    return tuple(out)


def _full(pads: Tensor, axes: Tensor | None, rank: int) -> Tensor:
    """(rank, 2) amounts to add before and after every axis."""
    pads = tf.transpose(tf.reshape(tf.cast(pads, tf.int32), [2, -1]))
    if axes is None:
        return tf.ensure_shape(pads, [rank, 2])
    axes = tf.cast(axes, tf.int32)
    axes = tf.where(axes < 0, axes + rank, axes)
    return tf.tensor_scatter_nd_update(tf.zeros([rank, 2], tf.int32), axes[:, None], pads)


@dataclass(frozen=True, eq=False, kw_only=True)
class _Padding(Routing):
    """Slots: data, pads, and value and axes where they are given."""

    slots: tuple[int | str, ...]
    has_value: bool
    has_axes: bool

    def _operands(self, xs: Sequence[Any], p: Mapping[str, Any]) -> tuple[Any, Any, Any, Any]:
        data, pads, *more = fill(self.slots, xs, p)
        value = more.pop(0) if self.has_value else None
        return data, pads, value, more.pop(0) if self.has_axes else None

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        data, pads, value, axes = self._operands(xs, self.parameters)
        dims = data.dims if isinstance(data, Var) else constant_dims(data)
        amounts = pads.value if isinstance(pads, Var) else pads
        listed = known(axes)
        if axes is not None and listed is None:
            dims = None if dims is None else tuple(fresh(None) for _ in dims)
        else:
            dims = _dims(dims, None if listed is None else [int(a) for a in listed], amounts)
        low, high = data.interval if isinstance(data, Var) else bounds(data)
        mask = isinstance(data, Var) and data.mask
        if not isinstance(self, Repeated):
            fill_low, fill_high = (0.0, 0.0) if value is None else value.interval if isinstance(value, Var) else bounds(value)
            low, high = min(low, fill_low), max(high, fill_high)
            mask = mask and not isinstance(value, Var) and (value is None or float(np.reshape(value, -1)[0]) in (0.0, 1.0))
        return [Var("", data.dtype, dims, interval=(low, high), mask=mask)]

    @property
    def title(self) -> str:
        return "Pad"


def _resized(x: Tensor, amounts: Tensor, value: Tensor | None = None) -> Tensor:
    """x cut where an amount (rank, 2) is negative, ``value`` (None: 0) around it where it is positive."""
    static = tf.get_static_value(amounts)
    if static is None or np.any(static < 0):
        cut = tf.maximum(-amounts, 0)
        x = tf.slice(x, cut[:, 0], tf.shape(x) - cut[:, 0] - cut[:, 1])
    if static is not None and not np.any(static > 0):
        return x
    return tf.pad(x, tf.maximum(amounts, 0), constant_values=0 if value is None else value)


@dataclass(frozen=True, eq=False, kw_only=True)
class Pad(_Padding):
    """With one value all around, which may be computed."""

    def signals(self, xs: Sequence[Var]) -> Sequence[int]:
        slots = (self.slots[0], *(self.slots[2:3] if self.has_value else ()))
        return [s for s in slots if isinstance(s, int) and xs[s].is_float]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        data, pads, value, axes = self._operands(xs, p)
        amounts = _full(pads, axes, data.shape.rank)
        value = None if value is None else tf.cast(tf.reshape(value, []), data.dtype)
        return Trace(xs, [_resized(data, amounts, value)], p, {"amounts": amounts})

    def _around(self, trace: Trace, r: Tensor) -> Tensor:
        """r where the value stands, 0 where the data do."""
        data = self._operands(trace.inputs, trace.parameters)[0]
        return r * (1 - _resized(tf.ones_like(data, r.dtype), trace.saved["amounts"]))

    def route(self, trace: Trace, rs: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        parts: list[Tensor | None] = [None] * len(trace.inputs)
        if isinstance(self.slots[0], int):
            parts[self.slots[0]] = _resized(rs[0], -trace.saved["amounts"])
        slot = self.slots[2] if self.has_value else None
        if isinstance(slot, int):
            parts[slot] = tf.reshape(tf.reduce_sum(self._around(trace, rs[0])), tf.shape(trace.inputs[slot]))
        return parts

    def lost(self, trace: Trace, rs: Sequence[Tensor | None]) -> Sequence[tuple[Tensor, Tensor]]:
        data, _, value, _ = self._operands(trace.inputs, trace.parameters)
        gone = []
        if isinstance(self.slots[0], str):
            gone.append((data, _resized(rs[0], -trace.saved["amounts"])))
        if not self.has_value or isinstance(self.slots[2], str):
            constant = tf.zeros([], data.dtype) if value is None else tf.reshape(value, [])
            gone.append((constant, self._around(trace, rs[0])))
        return gone


@dataclass(frozen=True, eq=False, kw_only=True)
class Repeated(_Padding):
    """With the data's own entries: mirrored without the edge (reflect), the edge again (edge), from the other end (wrap)."""

    mode: str

    def signals(self, xs: Sequence[Var]) -> Sequence[int]:
        return (0,) if isinstance(self.slots[0], int) and xs[0].is_float else ()

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        data, pads, _, axes = self._operands(xs, p)
        rank = data.shape.rank
        amounts = _full(pads, axes, rank)
        fixed = tf.get_static_value(amounts)
        y, saved = data, {}
        for axis in range(rank):
            if fixed is not None and not fixed[axis].any():
                continue
            saved[f"rows{axis}"] = self._sources(amounts[axis], tf.shape(data)[axis])
            saved[f"x{axis}"] = y
            y = tf.gather(y, saved[f"rows{axis}"], axis=axis)
        return Trace(xs, [y], p, saved)

    def _sources(self, amounts: Tensor, size: Tensor) -> Tensor:
        """The entry of an axis that every entry of the padded axis repeats; negative amounts cut first."""
        before, after = amounts[0], amounts[1]
        cut = tf.maximum(-before, 0)
        left = size - cut - tf.maximum(-after, 0)
        places = tf.range(-tf.maximum(before, 0), left + tf.maximum(after, 0))
        if self.mode == "edge":
            places = tf.clip_by_value(places, 0, left - 1)
        elif self.mode == "wrap":
            places = tf.math.floormod(places, left)
        else:
            period = tf.maximum(2 * (left - 1), 1)
            places = tf.math.floormod(places, period)
            places = tf.where(left > 1, tf.minimum(places, period - places), tf.zeros_like(places))
        return places + cut

    def route(self, trace: Trace, rs: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        r = rs[0]
        for axis in reversed(range(self._operands(trace.inputs, trace.parameters)[0].shape.rank)):
            if f"rows{axis}" in trace.saved:
                r = put_back(r, trace.saved[f"rows{axis}"], axis, trace.saved[f"x{axis}"])
        return [r, *[None] * (len(trace.inputs) - 1)]


def _read(data: Any, pads: Any, value: Any, axes: Any, mode: str, node: Any) -> Any:
    slots, parameters, inputs = mixed(data, pads, value, axes)
    given = {"has_value": value is not None, "has_axes": axes is not None}
    common: dict[str, Any] = {"parameters": parameters, "slots": slots, **given}
    if mode == "constant":
        return Pad(**common), inputs
    if mode not in ("reflect", "edge", "wrap"):
        raise node.refuse(f"mode {mode!r} is not read")
    return Repeated(mode=mode, **common), inputs


@importer("Pad", since=2)
def pad_attribute(data: Any, *, pads: Any, mode: str = "constant", value: float = 0.0, node: Any) -> Any:
    return _read(data, np.asarray(pads, np.int64), np.asarray(value, np.float32), None, mode, node)


@importer("Pad", since=11)
def pad(data: Any, pads: Any, constant_value: Any = None, axes: Any = None, *, mode: str = "constant", node: Any) -> Any:
    return _read(data, pads, constant_value, axes, mode, node)
