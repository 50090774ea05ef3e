"""How the program runs a loop (:class:`~onnx_lrp.nested.Nested`): forward step by step, backward from the last step to the first.

Forward keeps the states before each step, nothing else; the way back runs each step again, so memory is linear in T · state.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ._lazy import tf
from .affine import Scope
from .errors import InputError
from .held import line, span
from .limits import over
from .nested import Nested, Row, Step
from .registry import Var, is_float

__all__ = ["Left", "Loop", "checked", "forward", "walk", "within"]

Tensor = Any
Kinds = tuple[Any, str]  # "r", "q" or a channel, and the tensor of the body where it arrived


@dataclass(frozen=True, eq=False)
class Loop:
    """A Nested layer that has run: what its way back needs.

    Attributes:
        count: number of steps that ran.
        kept: the states before each step, a TensorArray a state.
        final: the states after the last step.
        tables: (steps, 1) sizes of the elements of each list.
        outside: leaf of the body → the tensor outside that it is, or is a row of.
        body: makes the run of one step: (step number, states) → a run of the body.
        inside: whether all computed indices existed, at every step.
    """

    layer: Nested
    count: Tensor
    kept: Sequence[Any]
    final: Sequence[Tensor]
    tables: Sequence[Tensor]
    outside: Mapping[str, Tensor]
    body: Callable[[Tensor, Sequence[Tensor]], Any]
    inside: Tensor

    def length(self, row: Row) -> Tensor:
        """Number of rows there are."""
        data = self.outside[row.name]
        known = data.shape[row.axis]
        return tf.shape(data)[row.axis] if known is None else known

    def place(self, row: Row, run: Any, t: Tensor) -> Tensor:
        """Which row a step has read."""
        if row.index is None:
            return self.length(row) - 1 - t if row.backwards else t
        index = tf.cast(tf.reshape(run.env[row.index], []), tf.int32)
        return tf.where(index < 0, index + self.length(row), index)

    def row(self, row: Row, run: Any, t: Tensor, tensor: Tensor) -> Tensor:
        """The row of a tensor outside that a step has read, in the shape it has in the body."""
        place = self.place(row, run, t)
        kept = row.index is not None and run.env[row.index].shape.rank == 1
        return tf.gather(tensor, tf.reshape(place, [1]) if kept else place, axis=row.axis)


def forward(
    step: Step,
    xs: Sequence[Tensor],
    own: Mapping[str, Tensor],
    dtype: Any,
    make: Callable[[Mapping[str, Tensor]], Any],
    *,
    trips: int = 2**31 - 2,
) -> Any:
    """(outputs of the layer, the :class:`Loop`). ``make``: tensors of the body that are given → a run of the body.

    ``dtype``: the precision of floating point tensors. ``trips``: the limit of steps.

    Raises:
        InputError: more steps; as an assertion of TensorFlow's where only the run tells.
    """
    layer: Any = step.layer

    def operand(slot: int | str) -> Tensor:
        return own[slot] if isinstance(slot, str) else xs[slot]

    bound = _bound(layer, operand)
    if isinstance(bound, int) and bound > trips and layer.condition is None and layer.start is None:
        raise over("trips", trips, bound, step.node.label, error=InputError)

    def body(k: Tensor, states: Sequence[Tensor]) -> Any:
        given = {name: xs[i] for name, i in layer.captured}
        given |= {name: s for (name, _, _), s in zip(layer.states, states, strict=True)}
        for row in layer.rows:
            if row.index is None:
                data = operand(row.data)
                at = tf.shape(data)[row.axis] - 1 - k if row.backwards else k
                given[row.name] = tf.gather(data, at, axis=row.axis)
        if layer.counter:
            given[layer.counter] = tf.cast(k, tf.int64)
        if layer.going:
            given[layer.going] = tf.constant(True)
        return make(given)

    start = [operand(slot) for _, _, slot in layer.states]
    shapes = [
        _shape(s, layer.body.vars[name], layer.growing.get(name, ())) for s, (name, _, _) in zip(start, layer.states, strict=True)
    ]
    # where a condition may end it early, only the steps that ran are collected
    size, grows = (0, True) if bound is None or layer.condition is not None or layer.start is not None else (bound, False)

    def empty(dtype: Any, shape: Any) -> Any:
        return tf.TensorArray(dtype, size=size, dynamic_size=grows, element_shape=shape, infer_shape=False, clear_after_read=False)

    kept = [empty(s.dtype, shape) for s, shape in zip(start, shapes, strict=True)]
    results = [_element(layer, name) for name, _, _ in layer.collected]
    outs = [empty(_dtype(layer, name, dtype), shape) for (name, _, _), shape in zip(layer.collected, results, strict=True)]
    outs += [empty(_dtype(layer, one.name, dtype), None) for one in layer.lists]
    outs += [empty(tf.int64, [1]) for _ in layer.lists]
    going = tf.constant(True) if layer.start is None else tf.reshape(operand(layer.start), [])

    def turn(k: Tensor, going: Tensor, inside: Tensor, states: Any, kept: Any, outs: Any) -> Any:
        run = body(k, states)
        kept = [a.write(k, s) for a, s in zip(kept, states, strict=True)]
        new = [run.env[out] for _, out, _ in layer.states]
        for tensor, shape in zip(new, shapes, strict=True):
            tensor.set_shape(shape)
        made = [run.env[name] for name, _, _ in layer.collected]
        made += [_move(run.env[one.name], one.parts.axis, 0) for one in layer.lists]
        made += [line(run.env[one.name], one.parts.axis)[0] for one in layer.lists]
        outs = [a.write(k, tensor) for a, tensor in zip(outs, made, strict=True)]
        if layer.condition is not None:
            going = tf.reshape(run.env[layer.condition], [])
        found = within(run)
        return k + 1, going, inside if found is None else tf.logical_and(inside, found), new, kept, outs

    def more(k: Tensor, going: Tensor, *_: Any) -> Tensor:
        left = None if bound is None else k < bound
        if layer.condition is None and layer.start is None:
            return left
        going = tf.logical_and(going, k <= trips)
        return going if left is None else tf.logical_and(left, going)

    if layer.condition is None and layer.start is None and not isinstance(bound, int):
        _bounded(step, bound, trips)
    first = (tf.constant(0), going, tf.constant(True), start, kept, outs)
    invariants = (tf.TensorShape([]), tf.TensorShape([]), tf.TensorShape([]), shapes, [None for _ in kept], [None for _ in outs])
    count, _, inside, final, kept, outs = _while(more, turn, first, invariants)
    if tf.executing_eagerly():
        for array in (*kept, *outs):
            getattr(array, "mark_used", lambda: None)()  # a forward pass alone never reads them, nor does one with too many steps
    if layer.condition is not None or layer.start is not None:
        _bounded(step, count, trips)
    stacked = []
    for collected, (_, axis, flipped) in zip(outs[: len(layer.collected)], layer.collected, strict=True):
        y = collected.stack()
        y = tf.reverse(y, [0]) if flipped else y
        stacked.append(_move(y, 0, axis % y.shape.rank))
    lists, tables = outs[len(layer.collected) :][: len(layer.lists)], [a.stack() for a in outs[len(outs) - len(layer.lists) :]]
    for collected, one in zip(lists, layer.lists, strict=True):
        y = _ranked(collected.concat(), layer.body.vars[one.name])
        stacked.append(_move(y, 0, one.parts.axis or 0))
    outside = {name: xs[i] for name, i in layer.captured} | {r.name: operand(r.data) for r in layer.rows}
    return [*final, *stacked, *tables], Loop(layer, count, kept, final, tables, outside, body, inside)


def checked(step: Step, trace: Any) -> Tensor | None:
    """Whether all indices and lengths that a step has read by exist, a bool tensor; None: it reads by none."""
    return trace.inside if isinstance(step.layer, Nested) else step.layer.within(trace)


def within(run: Any) -> Tensor | None:
    """The same of all steps of a run."""
    found = [checked(step, trace) for step, trace in zip(run.steps, run.traces, strict=True)]
    known = [f for f in found if f is not None]
    return tf.reduce_all(known) if known else None


def _bounded(step: Step, count: Tensor, trips: int) -> None:
    tf.debugging.assert_less_equal(count, trips, str(over("trips", trips, math.inf, step.node.label)), summarize=1)


def _while(more: Any, turn: Any, first: Any, invariants: Any) -> Any:
    if tf.executing_eagerly():
        state = first
        while bool(more(*state)):
            state = turn(*state)
        return state
    return tf.while_loop(more, turn, first, shape_invariants=invariants)


def _bound(layer: Nested, operand: Callable[[int | str], Tensor]) -> Tensor | None:
    """The greatest number of steps; static where it can be."""
    scanned = [row for row in layer.rows if row.index is None]
    if scanned:
        data = operand(scanned[0].data)
        known = data.shape[scanned[0].axis]
        return tf.shape(data)[scanned[0].axis] if known is None else known
    if layer.trips is None:
        return None
    trips = tf.cast(tf.minimum(tf.cast(tf.reshape(operand(layer.trips), []), tf.int64), 2**31 - 1), tf.int32)
    known = tf.get_static_value(trips)
    return trips if known is None else int(known)


def _shape(start: Tensor, var: Var, growing: Sequence[int]) -> Any:
    """Shape of a state at every step: an axis of length 1 at first may grow where nothing says that it stays."""
    if var.dims is None:
        return tf.TensorShape(None)
    sizes = [n if n != 1 or d.size == 1 else None for n, d in zip(start.shape, var.dims, strict=True)]
    changing = [n if d.size in (n, None) else None for n, d in zip(sizes, var.dims, strict=True)]
    changing = [None if axis in growing else n for axis, n in enumerate(changing)]
    return tf.TensorShape(changing)


def _element(layer: Nested, name: str) -> Any:
    var = layer.body.vars.get(name)
    if var is None:
        return tf.TensorShape(layer.body.constants[name].shape)
    return tf.TensorShape(None) if var.dims is None else tf.TensorShape([d.size for d in var.dims])


def _dtype(layer: Nested, name: str, floating: Any) -> Any:
    var = layer.body.vars.get(name)
    dtype = layer.body.constants[name].dtype if var is None else var.dtype
    return floating if is_float(dtype) else tf.as_dtype(dtype)


def _move(x: Tensor, source: int, target: int) -> Tensor:
    """x with one axis moved to another place."""
    if source == target:
        return x
    order = [a for a in range(x.shape.rank) if a != source]
    order.insert(target, source)
    return tf.transpose(x, order)


@dataclass(frozen=True, eq=False)
class Left:
    """Where relevance went in a loop.

    Attributes:
        states: what is left at each carried state before the first step, by its name in the body.
        arrived: (kind, leaf) → what arrived there; rows are stacked to the tensor that they are rows of.
        absorbed: key → (B,).
        seen: what the run of a step kept of its tensors, one entry a step along a leading axis.
    """

    states: Mapping[str, Tensor]
    arrived: Mapping[Kinds, Tensor]
    absorbed: Mapping[str, Tensor]
    seen: Mapping[str, Tensor]


def walk(
    loop: Loop, scope: Scope, rs: Sequence[Tensor | None], zero: Tensor, back: Callable[[Any, Mapping[str, Tensor], Tensor], None]
) -> Left:
    """The way back through a loop.

    Args:
        rs: relevance of the layer's outputs, None where there is none.
        zero: zeros of shape (B,), from which absorbed amounts add up.
        back: takes a run of the body backward, given the relevance of its results and the step's number.
    """
    layer = loop.layer
    # a state that nothing but a gate reads sends no relevance to the step before, and yet the last one may have some
    carried = [(k, name, out) for k, (name, out, _) in enumerate(layer.states) if name in scope.ends or rs[k] is not None]
    collected = [
        (name, tf.reverse(r, [axis % r.shape.rank]) if flipped else r, axis)
        for r, (name, axis, flipped) in zip(rs[len(layer.states) :], layer.collected, strict=False)
        if r is not None
    ]
    arrays = zip(rs[len(layer.states) + len(layer.collected) :], layer.lists, loop.tables, strict=False)
    lists = [(one, r, tf.cast(table[:, 0], tf.int32)) for r, one, table in arrays if r is not None]
    rows = {row.name: row for row in layer.rows if row.name in scope.leaves}

    def turn(t: Tensor, left: Sequence[Tensor]) -> Any:
        before = [_ranked(a.read(t), layer.body.vars[name]) for a, (name, _, _) in zip(loop.kept, layer.states, strict=True)]
        run = loop.body(t, before)
        arriving: dict[str, Tensor] = {}
        for (_, _, out), r in zip(carried, left, strict=True):
            arriving[out] = arriving[out] + r if out in arriving else r
        for name, r, axis in collected:
            part = tf.gather(r, t, axis=axis)
            arriving[name] = arriving[name] + part if name in arriving else part
        for one, r, sizes in lists:
            part = span(r, one.parts.axis or 0, tf.reduce_sum(sizes[:t]), sizes[t])
            arriving[one.name] = arriving[one.name] + part if one.name in arriving else part
        back(run, arriving, t)
        new = [run.r.get(name, tf.zeros_like(run.env[name])) for _, name, _ in carried]
        arrived = {(kind, n): part[n] for kind, part in run.parts() for n in scope.leaves if n in part}
        whole = {key: tensor for key, tensor in arrived.items() if key[1] not in rows}
        single = {key: _single(rows[key[1]], run, tensor) for key, tensor in arrived.items() if key[1] in rows}
        places = {key: loop.place(rows[key[1]], run, t) for key in single}
        return new, whole, single, places, dict(run.absorbed.amounts), dict(run.seen)

    start = [tf.zeros_like(loop.final[k]) if rs[k] is None else rs[k] for k, _, _ in carried]
    left, whole, single, absorbed, seen = (_eagerly if tf.executing_eagerly() else _in_graph)(loop, turn, start, rows, zero)
    arrived = dict(whole)
    for key, array in single.items():
        arrived[key] = _move(array.stack(), 0, rows[key[1]].axis)
    states = {name: r for (_, name, _), r in zip(carried, left, strict=True) if name in scope.ends}
    return Left(states, arrived, absorbed, seen)


def _ranked(x: Tensor, var: Var) -> Tensor:
    if x.shape.rank is None and var.rank is not None:
        x.set_shape([None] * var.rank)
    return x


def _single(row: Row, run: Any, r: Tensor) -> Tensor:
    """A row without the axis that an index of shape (1,) leaves."""
    return tf.squeeze(r, [row.axis]) if row.index is not None and run.env[row.index].shape.rank == 1 else r


def _array(loop: Loop, row: Row, like: Tensor) -> Any:
    """Rows of a tensor outside, to be written in any order; what is never written stays zero."""
    return tf.TensorArray(like.dtype, size=loop.length(row), element_shape=like.shape, infer_shape=False, clear_after_read=False)


def _per_step(loop: Loop, like: Tensor) -> Any:
    """One entry a step that ran."""
    size = loop.kept[0].size() if loop.kept else loop.count
    return tf.TensorArray(like.dtype, size=size, element_shape=like.shape, infer_shape=False, clear_after_read=False)


def _eagerly(loop: Loop, turn: Any, left: Any, rows: Mapping[str, Row], zero: Tensor) -> Any:
    whole: dict[Kinds, Tensor] = {}
    arrays: dict[Kinds, Any] = {}
    absorbed: dict[str, Tensor] = {}
    seen: dict[str, list[Tensor]] = {}
    for t in range(int(loop.count) - 1, -1, -1):
        left, more, single, places, lost, kept = turn(tf.constant(t), left)
        for name, part in kept.items():
            seen.setdefault(name, []).insert(0, part)
        for key, part in more.items():
            whole[key] = whole[key] + part if key in whole else part
        for key, part in single.items():
            if key not in arrays:
                arrays[key] = _array(loop, rows[key[1]], part)
            arrays[key] = arrays[key].write(places[key], part)
        for name, part in lost.items():
            absorbed[name] = absorbed.get(name, zero) + part
    return left, whole, arrays, absorbed, {name: tf.stack(parts) for name, parts in seen.items()}


def _in_graph(loop: Loop, turn: Any, left: Any, rows: Mapping[str, Row], zero: Tensor) -> Any:
    # what arrives where is the same at every step: one step, traced apart, tells the structure that the loop will carry; in lists,
    # as TensorFlow sorts the keys of a dict, and kinds of relevance have no order
    told: list[Any] = []
    specs = [tf.TensorSpec(r.shape, r.dtype) for r in left]
    probe = tf.function(lambda t, *rs: told.append(turn(t, list(rs))), autograph=False)
    probe.get_concrete_function(tf.TensorSpec([], tf.int32), *specs)
    _, whole, single, _, lost, kept = told[-1]
    data = loop.outside
    start = {
        "whole": [tf.zeros_like(data[name]) for _, name in whole],
        "rows": [_array(loop, rows[name], part) for (_, name), part in single.items()],
        "absorbed": dict.fromkeys(lost, zero),
        "seen": {name: _per_step(loop, part) for name, part in kept.items()},
    }

    def body(k: Tensor, left: Any, carry: Any) -> Any:
        t = loop.count - 1 - k
        new, more, rest, places, lost, kept = turn(t, left)
        for r, before in zip(new, left, strict=True):
            r.set_shape(before.shape)
        sums = {
            "whole": [part + more[key] for key, part in zip(whole, carry["whole"], strict=True)],
            "rows": [array.write(places[key], rest[key]) for key, array in zip(single, carry["rows"], strict=True)],
            "absorbed": {key: part + lost[key] for key, part in carry["absorbed"].items()},
            "seen": {name: array.write(t, kept[name]) for name, array in carry["seen"].items()},
        }
        for group in ("whole", "absorbed"):
            for part, before in zip(tf.nest.flatten(sums[group]), tf.nest.flatten(carry[group]), strict=True):
                part.set_shape(before.shape)
        return k + 1, new, sums

    _, left, sums = tf.while_loop(lambda k, *_: k < loop.count, body, (tf.constant(0), left, start))
    arrived = dict(zip(whole, sums["whole"], strict=True)), dict(zip(single, sums["rows"], strict=True))
    return left, *arrived, sums["absorbed"], {name: array.stack() for name, array in sums["seen"].items()}
