"""Entries overwritten, added to, chosen or multiplied at computed places: Scatter, ScatterElements, ScatterND.

What is overwritten, or not the largest where the largest is wanted, gets no relevance.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .._lazy import tf
from ..dims import unify
from ..layer import Affine, Layer, Opaque, Routing, Share, Trace, fill, mixed
from ..linear import LinearMap
from ..registry import ANY, Var, importer
from .gather import inside
from .index import meet, operands, places_of_elements, places_of_tuples, width_of

__all__ = ["Added", "Chosen", "Multiplied", "Overwritten", "Saturated", "Scatter"]

Tensor = Any


@dataclass(frozen=True, eq=False, kw_only=True)
class Scatter(Layer):
    """Slots: data, indices, updates; the output has the data's shape.

    ``width``: length of the index tuples (ScatterND); None: indices along ``axis``.
    """

    slots: tuple[int | str, ...]
    width: int | None
    axis: int = 0

    @property
    def title(self) -> str:
        return "ScatterElements" if self.width is None else "ScatterND"

    def written(self, xs: Sequence[Var]) -> tuple[Var, Var]:
        """(the output with the data's dims, updates); what lies behind the index tuples is the data's own axis."""
        data, indices, updates = operands(self, xs)
        dims = data.dims
        if dims is not None and updates.dims is not None:
            if self.width is None:
                axis = self.axis % len(dims)
                dims = tuple(d if a == axis else meet(u, d) for a, (d, u) in enumerate(zip(dims, updates.dims, strict=True)))
            elif indices.dims is not None:
                lead = self.width
                dims = (
                    *dims[:lead],
                    *(unify(d, u) for d, u in zip(dims[lead:], updates.dims[len(indices.dims) - 1 :], strict=True)),
                )
        return dataclasses.replace(data, name="", dims=dims, value=None, origin=frozenset()), updates

    def within(self, trace: Trace) -> Tensor | None:
        data, indices, _ = fill(self.slots, trace.inputs, trace.parameters)
        shape = tf.shape(data)
        return inside(indices, shape[self.axis] if self.width is None else shape[: self.width])

    def rows(self, data: Tensor, indices: Tensor, updates: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Data as rows (N, M), the place of every update (m,), updates as rows (m, M)."""
        shape = tf.shape(data)
        if self.width is None:
            places = places_of_elements(indices, self.axis, shape)
            return tf.reshape(data, [-1, 1]), tf.reshape(places, [-1]), tf.reshape(updates, [-1, 1])
        places = tf.reshape(places_of_tuples(indices, self.width, shape), [-1])
        size = tf.reduce_prod(shape[self.width :])
        rows = tf.reshape(data, tf.stack([tf.reduce_prod(shape[: self.width]), size]))
        return rows, places, tf.reshape(updates, tf.stack([tf.size(places), size]))


@dataclass(frozen=True, eq=False, kw_only=True)
class Overwritten(Scatter, Routing):
    """Updates take the places the indices name, the last of several wins."""

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        out, updates = self.written(xs)
        low, high = zip(out.interval, updates.interval, strict=True)
        return [dataclasses.replace(out, interval=(min(low), max(high)), mask=out.mask and updates.mask)]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        data, indices, updates = fill(self.slots, xs, p)
        rows, places, new = self.rows(data, indices, updates)
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
        r: Tensor = rs[0]
        gone = []
        if isinstance(self.slots[0], str):
            gone.append((trace.parameters[self.slots[0]], self._parts(trace, r)[0]))
        if isinstance(self.slots[2], str):  # where they have been written: their own axes don't tell samples apart
            there = tf.where(trace.saved["taken"], tf.reshape(r, trace.saved["rows"]), tf.zeros([], r.dtype))
            gone.append((trace.outputs[0], tf.reshape(there, tf.shape(r))))
        return gone


@dataclass(frozen=True, eq=False, kw_only=True)
class Added(Scatter, Affine):
    """Updates are added at the places the indices name."""

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        return [dataclasses.replace(self.written(xs)[0], interval=ANY, mask=False)]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        data, indices, updates = fill(self.slots, xs, p)
        rows, places, new = self.rows(data, indices, updates)
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


@dataclass(frozen=True, eq=False, kw_only=True)
class Extreme(Scatter):
    """The largest (or smallest) of the data and all updates at each place."""

    largest: bool = True

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        """Entries without an update are the data's own; any other is beyond both."""
        out, updates = self.written(xs)
        (low, high), (least, most) = out.interval, updates.interval
        interval = (low, max(high, most)) if self.largest else (min(low, least), high)
        return [dataclasses.replace(out, interval=interval, mask=out.mask and updates.mask)]

    def pick(self, a: Tensor, b: Tensor) -> Tensor:
        """The better of two, entry by entry."""
        return tf.maximum(a, b) if self.largest else tf.minimum(a, b)

    def of_places(self, new: Tensor, places: Tensor, count: Tensor) -> Tensor:
        """(N, M): the best of the updates (m, M) at each place."""
        pick = tf.math.unsorted_segment_max if self.largest else tf.math.unsorted_segment_min
        return pick(new, places, count)

    @staticmethod
    def first(new: Tensor, places: Tensor, best: Tensor) -> Tensor:
        """(m, M) bools: which updates are the first at their place that are as good as the ``best`` (N, M)."""
        count = tf.shape(places)[0]
        order = tf.where(new == tf.gather(best, places), tf.range(count)[:, None], count)
        winner = tf.math.unsorted_segment_min(order, places, tf.shape(best)[0])
        return (tf.gather(winner, places) == tf.range(count)[:, None]) & (order < count)


@dataclass(frozen=True, eq=False, kw_only=True)
class Chosen(Extreme, Routing):
    """The largest (or smallest) signal at a place takes all: the data, else the first update."""

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        data, indices, updates = fill(self.slots, xs, p)
        rows, places, new = self.rows(data, indices, updates)
        best = self.pick(rows, self.of_places(new, places, tf.shape(rows)[0]))
        kept = rows == best
        wins = self.first(new, places, best) & ~tf.gather(kept, places)
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
class Saturated(Extreme, Opaque):
    """As :class:`Chosen`, but the data or the updates are limits, which only saturate the others as in Max (the ``signal``'s slot).

    Relevance passes to the data, or to the first of the best updates at the place; where there is none, the data take it.
    """

    signal: int = 0

    def signals(self, xs: Sequence[Var]) -> Sequence[int]:
        slot = self.slots[self.signal]
        return [slot] if isinstance(slot, int) and xs[slot].is_float else []

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        data, indices, updates = fill(self.slots, xs, p)
        rows, places, new = self.rows(data, indices, updates)
        best = self.of_places(new, places, tf.shape(rows)[0])
        wins = self.first(new, places, best)
        y = tf.reshape(self.pick(rows, best), tf.shape(data))
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
class Multiplied(Scatter, Affine):
    """Data times the updates at each place, which carry no relevance: a constant factor an entry."""

    def signals(self, xs: Sequence[Var]) -> Sequence[int]:
        slot = self.slots[0]
        return [slot] if isinstance(slot, int) and xs[slot].is_float else []

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        out, updates = self.written(xs)
        return [dataclasses.replace(out, interval=ANY, mask=out.mask and updates.mask)]

    def sums(self, xs: Sequence[Var]) -> bool:
        return False

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        data, indices, updates = fill(self.slots, xs, p)
        rows, places, new = self.rows(data, indices, updates)
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
