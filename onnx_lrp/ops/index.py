"""Entries picked or overwritten by computed places: GatherElements, GatherND, ScatterElements, ScatterND, Compress.

An entry that is picked hands its relevance to the place it came from; one that is overwritten, or not the largest where the largest
is wanted, gets nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._lazy import tf
from ..dims import Dim, fresh, unify
from ..layer import Affine, Opaque, Plain, Routing, Share, Trace, constant_dims, fill, mixed
from ..linear import LinearMap
from ..registry import ANY, Var, importer
from .gather import bounds, from_start, put_back

__all__ = ["Added", "Chosen", "Compress", "GatherElements", "GatherND", "Multiplied", "Overwritten", "Saturated"]

Tensor = Any


def operands(layer: Any, xs: Sequence[Var]) -> list[Var]:
    """The operands of a mixed layer, constants as Vars with dims of their own."""
    out = []
    for slot in layer.slots:
        if isinstance(slot, str):
            array = layer.parameters[slot]
            out.append(Var("", array.dtype, constant_dims(array), interval=bounds(array)))
        else:
            out.append(xs[slot])
    return out


def _meet(a: Dim, b: Dim) -> Dim:
    """Two axes that are equal unless their sizes say otherwise."""
    return unify(a, b) if a.size == b.size else b


def places_of_elements(indices: Tensor, axis: int, shape: Tensor) -> Tensor:
    """Row-major place in a tensor of ``shape`` of every index along ``axis``; along the other axes it is the index's own."""
    rank = indices.shape.rank
    axis %= rank
    shape = tf.cast(shape, tf.int64)
    strides = tf.math.cumprod(shape, exclusive=True, reverse=True)
    own = tf.shape(indices, out_type=tf.int64)
    places = from_start(tf.cast(indices, tf.int64), shape[axis]) * strides[axis]
    for a in range(rank):
        if a != axis:
            places += tf.reshape(tf.range(own[a]) * strides[a], [-1 if i == a else 1 for i in range(rank)])
    return places


def width_of(indices: Any, node: Any) -> int:
    """K of index tuples (…, K)."""
    dims = indices.dims if isinstance(indices, Var) else constant_dims(indices)
    if not dims or dims[-1].size is None:
        raise node.refuse("the length of the index tuples, the last axis of indices, is unknown")
    return dims[-1].size


def places_of_tuples(indices: Tensor, width: int, shape: Tensor, batch_dims: int = 0) -> Tensor:
    """Row-major place, in the leading axes of ``shape``, of every index tuple; ``batch_dims`` axes are the tuple's own."""
    lead = tf.cast(shape, tf.int64)[: batch_dims + width]
    strides = tf.math.cumprod(lead, exclusive=True, reverse=True)
    tuples = from_start(tf.cast(indices, tf.int64), lead[batch_dims:])
    places = tf.reduce_sum(tuples * strides[batch_dims:], -1)
    rank = places.shape.rank
    own = tf.shape(places, out_type=tf.int64)
    for a in range(batch_dims):
        places += tf.reshape(tf.range(own[a]) * strides[a], [-1 if i == a else 1 for i in range(rank)])
    return places


@dataclass(frozen=True, eq=False, kw_only=True)
class GatherElements(Routing):
    """Slots: data, indices (of the output's shape)."""

    slots: tuple[int | str, ...]
    axis: int

    def signals(self, xs: Sequence[Var]) -> Sequence[int]:
        return (0,) if isinstance(self.slots[0], int) and xs[0].is_float else ()

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        data, indices = operands(self, xs)
        dims = indices.dims
        if dims is not None and data.dims is not None:
            axis = self.axis % len(dims)
            dims = tuple(i if a == axis else _meet(i, d) for a, (i, d) in enumerate(zip(dims, data.dims, strict=True)))
        return [Var("", data.dtype, dims, interval=data.interval, mask=data.mask)]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        data, indices = fill(self.slots, xs, p)
        places = places_of_elements(indices, self.axis, tf.shape(data))
        return Trace(xs, [tf.gather(tf.reshape(data, [-1]), places)], p, {"places": places})

    def route(self, trace: Trace, rs: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        x: Tensor = trace.inputs[0]
        flat = tf.math.unsorted_segment_sum(rs[0], trace.saved["places"], tf.size(x))
        return [tf.reshape(flat, tf.shape(x)), *[None] * (len(trace.inputs) - 1)]


@importer("GatherElements", since=11)
def gather_elements(data: Any, indices: Any, *, axis: int = 0) -> Any:
    slots, parameters, inputs = mixed(data, indices)
    return GatherElements(parameters=parameters, slots=slots, axis=axis), inputs


@dataclass(frozen=True, eq=False, kw_only=True)
class GatherND(Routing):
    """Slots: data, indices (…, K): slices of the data at the index tuples; the first ``batch_dims`` axes are shared."""

    slots: tuple[int | str, ...]
    width: int
    batch_dims: int

    def signals(self, xs: Sequence[Var]) -> Sequence[int]:
        return (0,) if isinstance(self.slots[0], int) and xs[0].is_float else ()

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        data, indices = operands(self, xs)
        dims = None
        if data.dims is not None and indices.dims is not None:
            b = self.batch_dims
            shared = [unify(i, d) for i, d in zip(indices.dims[:b], data.dims[:b], strict=True)]
            dims = (*shared, *indices.dims[b:-1], *data.dims[b + self.width :])
        return [Var("", data.dtype, dims, interval=data.interval, mask=data.mask)]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        data, indices = fill(self.slots, xs, p)
        shape = tf.shape(data)
        lead = self.batch_dims + self.width
        places = places_of_tuples(indices, self.width, shape, self.batch_dims)
        rows = tf.reshape(data, tf.concat([[tf.reduce_prod(shape[:lead])], shape[lead:]], 0))
        return Trace(xs, [tf.gather(rows, places)], p, {"places": places, "rows": tf.shape(rows)[0]})

    def route(self, trace: Trace, rs: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        x: Tensor = trace.inputs[0]
        rows = tf.math.unsorted_segment_sum(rs[0], trace.saved["places"], trace.saved["rows"])
        return [tf.reshape(rows, tf.shape(x)), *[None] * (len(trace.inputs) - 1)]


@importer("GatherND", since=11)
def gather_nd(data: Any, indices: Any, *, batch_dims: int = 0, node: Any) -> Any:
    slots, parameters, inputs = mixed(data, indices)
    return GatherND(parameters=parameters, slots=slots, width=width_of(indices, node), batch_dims=batch_dims), inputs


def _rows(width: int | None, axis: int, data: Tensor, indices: Tensor, updates: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Data as rows (N, M), the place of every update (m,), updates as rows (m, M)."""
    shape = tf.shape(data)
    if width is None:
        places = places_of_elements(indices, axis, shape)
        return tf.reshape(data, [-1, 1]), tf.reshape(places, [-1]), tf.reshape(updates, [-1, 1])
    places = tf.reshape(places_of_tuples(indices, width, shape), [-1])
    size = tf.reduce_prod(shape[width:])
    rows = tf.reshape(data, tf.stack([tf.reduce_prod(shape[:width]), size]))
    return rows, places, tf.reshape(updates, tf.stack([tf.size(places), size]))


def _scatter_title(layer: Any) -> str:
    return "ScatterElements" if layer.width is None else "ScatterND"


def _scatter_infer(layer: Any, xs: Sequence[Var]) -> tuple[Var, Var]:
    """(the output with the data's dims, updates); what lies behind the index tuples is the data's own axis."""
    data, indices, updates = operands(layer, xs)
    dims = data.dims
    if dims is not None and updates.dims is not None:
        if layer.width is None:
            axis = layer.axis % len(dims)
            dims = tuple(d if a == axis else _meet(u, d) for a, (d, u) in enumerate(zip(dims, updates.dims, strict=True)))
        elif indices.dims is not None:
            lead = layer.width
            dims = (*dims[:lead], *(unify(d, u) for d, u in zip(dims[lead:], updates.dims[len(indices.dims) - 1 :], strict=True)))
    return dataclasses.replace(data, name="", dims=dims, value=None, origin=frozenset()), updates


@dataclass(frozen=True, eq=False, kw_only=True)
class Overwritten(Routing):
    """Slots: data, indices, updates. Updates take the places the indices name, the last of several wins.

    ``width``: length of the index tuples (ScatterND); None: indices along ``axis``.
    """

    slots: tuple[int | str, ...]
    width: int | None
    axis: int = 0

    @property
    def title(self) -> str:
        return _scatter_title(self)

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        out, updates = _scatter_infer(self, xs)
        low, high = zip(out.interval, updates.interval, strict=True)
        return [dataclasses.replace(out, interval=(min(low), max(high)), mask=out.mask and updates.mask)]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        data, indices, updates = fill(self.slots, xs, p)
        rows, places, new = _rows(self.width, self.axis, data, indices, updates)
        count = tf.shape(places)[0]
        last = tf.math.unsorted_segment_max(tf.range(count), places, tf.shape(rows)[0])  # lowest number where nothing is written
        taken = (last >= 0)[:, None]
        picked = tf.gather(tf.concat([new, tf.zeros_like(rows[:1])], 0), tf.where(last >= 0, last, count))
        y = tf.reshape(tf.where(taken, picked, rows), tf.shape(data))
        wins = (tf.gather(last, places) == tf.range(count))[:, None]
        return Trace(xs, [y], p, {"taken": taken, "places": places, "wins": wins, "rows": tf.shape(rows)})

    def _parts(self, trace: Trace, r: Tensor) -> list[Tensor | None]:
        data, _, updates = fill(self.slots, trace.inputs, trace.parameters)
        saved = trace.saved
        rows = tf.reshape(r, saved["rows"])
        zero = tf.zeros([], r.dtype)
        kept = tf.reshape(tf.where(saved["taken"], zero, rows), tf.shape(data))
        new = tf.where(saved["wins"], tf.gather(rows, saved["places"]), zero)
        return [kept, None, tf.reshape(new, tf.shape(updates))]

    def route(self, trace: Trace, rs: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        return [part for part, s in zip(self._parts(trace, rs[0]), self.slots, strict=True) if not isinstance(s, str)]

    def lost(self, trace: Trace, rs: Sequence[Tensor | None]) -> Sequence[tuple[Tensor, Tensor]]:
        parts = zip(self._parts(trace, rs[0]), self.slots, strict=True)
        return [(trace.parameters[s], part) for part, s in parts if isinstance(s, str) and part is not None]


@dataclass(frozen=True, eq=False, kw_only=True)
class Added(Affine):
    """Slots: data, indices, updates. Updates are added at the places the indices name (see :class:`Overwritten`)."""

    slots: tuple[int | str, ...]
    width: int | None
    axis: int = 0

    @property
    def title(self) -> str:
        return _scatter_title(self)

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        return [dataclasses.replace(_scatter_infer(self, xs)[0], interval=ANY, mask=False)]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        data, indices, updates = fill(self.slots, xs, p)
        rows, places, new = _rows(self.width, self.axis, data, indices, updates)
        total = rows + tf.math.unsorted_segment_sum(new, places, tf.shape(rows)[0])
        return Trace(xs, [tf.reshape(total, tf.shape(data))], p, {"places": places, "rows": tf.shape(rows)})

    def _spread(self, trace: Trace, updates: Tensor) -> Tensor:
        rows = trace.saved["rows"]
        new = tf.reshape(updates, tf.stack([-1, rows[1]]))
        return tf.reshape(tf.math.unsorted_segment_sum(new, trace.saved["places"], rows[0]), tf.shape(trace.outputs[0]))

    def linear(self, trace: Trace) -> LinearMap:
        return self._map(trace, tf.ones([], trace.outputs[0].dtype))

    def _map(self, trace: Trace, factor: Tensor) -> LinearMap:
        def call(xs: Sequence[Tensor]) -> Tensor:
            total = tf.zeros_like(trace.outputs[0])
            if isinstance(self.slots[0], int):
                total += factor * xs[self.slots[0]]
            if isinstance(self.slots[2], int):
                total += factor * self._spread(trace, xs[self.slots[2]])
            return total

        def pull(s: Tensor) -> list[Tensor | None]:
            parts: list[Tensor | None] = [None] * len(trace.inputs)
            if isinstance(self.slots[0], int):
                parts[self.slots[0]] = factor * s
            if isinstance(self.slots[2], int):
                rows = tf.gather(tf.reshape(s, trace.saved["rows"]), trace.saved["places"])
                parts[self.slots[2]] = factor * tf.reshape(rows, tf.shape(trace.inputs[self.slots[2]]))
            return parts

        return LinearMap(call=call, pull=pull, mapped=lambda f: self._map(trace, f(factor)))

    def bias(self, trace: Trace) -> Tensor | None:
        data, _, updates = self.slots
        constant = None
        if isinstance(data, str):
            constant = trace.parameters[data]
        if isinstance(updates, str):
            spread = self._spread(trace, trace.parameters[updates])
            constant = spread if constant is None else constant + spread
        return constant


class _Extreme:
    """The largest (or smallest) of the data and all updates at each place, and who it is."""

    def __init__(self, largest: bool) -> None:
        self.pick = tf.maximum if largest else tf.minimum
        self.of_segments = tf.math.unsorted_segment_max if largest else tf.math.unsorted_segment_min

    def first(self, new: Tensor, places: Tensor, best: Tensor) -> Tensor:
        """(m, M) bools: which updates are the first at their place that are as good as the ``best`` (N, M)."""
        count = tf.shape(places)[0]
        order = tf.where(new == tf.gather(best, places), tf.range(count)[:, None], count)
        winner = tf.math.unsorted_segment_min(order, places, tf.shape(best)[0])
        return (tf.gather(winner, places) == tf.range(count)[:, None]) & (order < count)


def _chosen_var(largest: bool, out: Var, updates: Var) -> Var:
    """Entries without an update are the data's own; any other is beyond both."""
    (low, high), (least, most) = out.interval, updates.interval
    interval = (low, max(high, most)) if largest else (min(low, least), high)
    return dataclasses.replace(out, interval=interval, mask=out.mask and updates.mask)


@dataclass(frozen=True, eq=False, kw_only=True)
class Chosen(Routing):
    """Slots: data, indices, updates. The largest (or smallest) signal at a place takes all: the data, else the first update."""

    slots: tuple[int | str, ...]
    width: int | None
    axis: int = 0
    largest: bool = True

    @property
    def title(self) -> str:
        return _scatter_title(self)

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        return [_chosen_var(self.largest, *_scatter_infer(self, xs))]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        data, indices, updates = fill(self.slots, xs, p)
        rows, places, new = _rows(self.width, self.axis, data, indices, updates)
        extreme = _Extreme(self.largest)
        best = extreme.pick(rows, extreme.of_segments(new, places, tf.shape(rows)[0]))
        kept = rows == best
        wins = extreme.first(new, places, best) & ~tf.gather(kept, places)
        return Trace(xs, [tf.reshape(best, tf.shape(data))], p, {"kept": kept, "wins": wins, "places": places})

    def route(self, trace: Trace, rs: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        saved = trace.saved
        data, _, updates = fill(self.slots, trace.inputs, trace.parameters)
        rows = tf.reshape(rs[0], tf.shape(saved["kept"]))
        zero = tf.zeros([], rows.dtype)
        new = tf.where(saved["wins"], tf.gather(rows, saved["places"]), zero)
        parts = [tf.reshape(tf.where(saved["kept"], rows, zero), tf.shape(data)), None, tf.reshape(new, tf.shape(updates))]
        return [part for part, s in zip(parts, self.slots, strict=True) if not isinstance(s, str)]

    def move(self, trace: Trace, xs: Sequence[Tensor], *, constants: bool) -> Sequence[Tensor]:
        saved = trace.saved
        data, _, updates = fill(self.slots, xs, trace.parameters)
        rows, new = tf.reshape(data, tf.shape(saved["kept"])), tf.reshape(updates, tf.shape(saved["wins"]))
        taken = tf.where(saved["wins"], new, tf.zeros_like(new))
        moved = tf.math.unsorted_segment_sum(taken, saved["places"], tf.shape(rows)[0])
        return [tf.reshape(tf.where(saved["kept"], rows, moved), tf.shape(data))]


@dataclass(frozen=True, eq=False, kw_only=True)
class Saturated(Opaque):
    """As :class:`Chosen`, but the data or the updates are limits, which only saturate the others as in Max (the ``signal``'s slot).

    Relevance passes to the data, or to the first of the best updates at the place; where there is none, the data take it.
    """

    slots: tuple[int | str, ...]
    width: int | None
    axis: int = 0
    largest: bool = True
    signal: int = 0

    @property
    def title(self) -> str:
        return _scatter_title(self)

    def signals(self, xs: Sequence[Var]) -> Sequence[int]:
        slot = self.slots[self.signal]
        return [slot] if isinstance(slot, int) and xs[slot].is_float else []

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        return [_chosen_var(self.largest, *_scatter_infer(self, xs))]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        data, indices, updates = fill(self.slots, xs, p)
        rows, places, new = _rows(self.width, self.axis, data, indices, updates)
        extreme = _Extreme(self.largest)
        best = extreme.of_segments(new, places, tf.shape(rows)[0])
        wins = extreme.first(new, places, best)
        y = tf.reshape(extreme.pick(rows, best), tf.shape(data))
        return Trace(xs, [y], p, {"wins": wins, "places": places, "rows": tf.shape(rows)})

    def relevance(self, rule: Any, trace: Trace, rs: Sequence[Tensor | None]) -> Share:
        saved, slot = trace.saved, int(self.slots[self.signal])
        r: Tensor = rs[0]
        shares: list[Tensor | None] = [None] * len(trace.inputs)
        if self.signal == 0:
            shares[slot] = r
            return Share(shares)
        rows = tf.reshape(r, saved["rows"])
        zero = tf.zeros([], r.dtype)
        new = tf.where(saved["wins"], tf.gather(rows, saved["places"]), zero)
        shares[slot] = tf.reshape(new, tf.shape(trace.inputs[slot]))
        met = tf.math.unsorted_segment_max(tf.ones_like(saved["places"]), saved["places"], saved["rows"][0]) > 0
        return Share(shares, {"constant": tf.reshape(tf.where(met[:, None], zero, rows), tf.shape(r))})


@dataclass(frozen=True, eq=False, kw_only=True)
class Multiplied(Affine):
    """Slots: data, indices, updates. Data times the updates at each place, which carry no relevance: a constant factor an entry."""

    slots: tuple[int | str, ...]
    width: int | None
    axis: int = 0

    @property
    def title(self) -> str:
        return _scatter_title(self)

    def signals(self, xs: Sequence[Var]) -> Sequence[int]:
        slot = self.slots[0]
        return [slot] if isinstance(slot, int) and xs[slot].is_float else []

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        out, updates = _scatter_infer(self, xs)
        return [dataclasses.replace(out, interval=ANY, mask=out.mask and updates.mask)]

    def sums(self, xs: Sequence[Var]) -> bool:
        return False

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        data, indices, updates = fill(self.slots, xs, p)
        rows, places, new = _rows(self.width, self.axis, data, indices, updates)
        factor = tf.reshape(tf.math.unsorted_segment_prod(new, places, tf.shape(rows)[0]), tf.shape(data))
        return Trace(xs, [data * factor], p, {"factor": factor})

    def linear(self, trace: Trace) -> LinearMap:
        return self._map(trace.saved["factor"], len(trace.inputs))

    def _map(self, factor: Tensor, count: int) -> LinearMap:
        return LinearMap(
            call=lambda xs: xs[0] * factor,
            pull=lambda s: [s * factor, *[None] * (count - 1)],
            mapped=lambda f: self._map(f(factor), count),
        )


def _scatter(data: Any, indices: Any, updates: Any, *, tuples: bool, reduction: str, node: Any, axis: int = 0) -> Any:
    slots, parameters, inputs = mixed(data, indices, updates)
    live = [isinstance(x, Var) and x.live for x in (data, updates)]
    own: dict[str, Any] = {
        "parameters": parameters,
        "slots": slots,
        "width": width_of(indices, node) if tuples else None,
        "axis": axis,
    }
    if reduction in ("none", "add"):
        return (Overwritten if reduction == "none" else Added)(**own), inputs
    if reduction in ("max", "min"):
        own["largest"] = reduction == "max"
        return (Chosen(**own) if all(live) else Saturated(**own, signal=2 if live[1] else 0)), inputs
    if reduction != "mul":
        raise node.refuse(f"reduction={reduction!r} is not read")
    if live[1]:
        raise node.refuse("reduction='mul' with updates that carry relevance is not read: only what they are multiplied with may")
    return Multiplied(**own), inputs


@importer("Scatter", since=9)
def scatter(data: Any, indices: Any, updates: Any, *, axis: int = 0, node: Any) -> Any:
    return _scatter(data, indices, updates, tuples=False, axis=axis, reduction="none", node=node)


@importer("ScatterElements", since=11)
def scatter_elements(data: Any, indices: Any, updates: Any, *, axis: int = 0, reduction: str = "none", node: Any) -> Any:
    return _scatter(data, indices, updates, tuples=False, axis=axis, reduction=reduction, node=node)


@importer("ScatterND", since=11)
def scatter_nd(data: Any, indices: Any, updates: Any, *, reduction: str = "none", node: Any) -> Any:
    return _scatter(data, indices, updates, tuples=True, reduction=reduction, node=node)


@dataclass(frozen=True, eq=False, kw_only=True)
class Compress(Routing):
    """Slots: input, condition (bools): the entries along ``axis`` (None: of the flattened input) where it holds."""

    slots: tuple[int | str, ...]
    axis: int | None

    def signals(self, xs: Sequence[Var]) -> Sequence[int]:
        return (0,) if isinstance(self.slots[0], int) and xs[0].is_float else ()

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        x, _ = operands(self, xs)
        slot = self.slots[1]
        kept = fresh(int(np.count_nonzero(self.parameters[slot])) if isinstance(slot, str) else None)
        dims = x.dims
        if self.axis is None:
            dims = (kept,)
        elif dims is not None:
            axis = self.axis % len(dims)
            dims = (*dims[:axis], kept, *dims[axis + 1 :])
        return [dataclasses.replace(x, name="", dims=dims, value=None, origin=frozenset())]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        x, condition = fill(self.slots, xs, p)
        indices = tf.reshape(tf.where(condition), [-1])
        flat = tf.reshape(x, [-1]) if self.axis is None else x
        return Trace(xs, [tf.gather(flat, indices, axis=self.axis or 0)], p, {"indices": indices, "flat": flat})

    def route(self, trace: Trace, rs: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        back = put_back(rs[0], trace.saved["indices"], self.axis or 0, trace.saved["flat"])
        return [tf.reshape(back, tf.shape(trace.inputs[0])), *[None] * (len(trace.inputs) - 1)]


@importer("Compress", since=9)
def compress(input: Any, condition: Any, *, axis: int | None = None) -> Any:
    slots, parameters, inputs = mixed(input, condition)
    return Compress(parameters=parameters, slots=slots, axis=axis), inputs


@dataclass(frozen=True, eq=False, kw_only=True)
class NonZero(Plain):
    """Indices (rank, N) of the entries that are not zero."""

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        return [Var("", np.dtype(np.int64), (fresh(xs[0].rank), fresh(None)))]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        x = xs[0]
        return Trace(xs, [tf.transpose(tf.where(x if x.dtype == tf.bool else tf.not_equal(x, tf.zeros_like(x))))], p)


@importer("NonZero", since=9)
def nonzero(X: Any) -> Any:
    return NonZero(), (X,)
