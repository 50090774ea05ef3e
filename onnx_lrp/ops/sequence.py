"""Sequences of equal tensors, as one tensor stacked along a new first axis: all of their ops are routing then.

Where shapes differ, :mod:`onnx_lrp.ops.parts` holds the elements.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import helper

from .._lazy import tf
from ..dims import Dim, fresh, unify
from ..held import plain, table_of
from ..layer import Plain, Routing, Trace, constant_dims, fill, known, mixed
from ..registry import Var, importer
from . import parts
from .gather import from_start, read_rows
from .reshape import Same, reshape_like
from .slice import Slice

__all__ = ["Joined", "Parted", "Stacked"]

Tensor = Any


@dataclass(frozen=True, eq=False, kw_only=True)
class Parted(Routing):
    """SplitToSequence along ``axis``: (…, N·size, …) → (N, …, size, …), without the axis of length 1 if not ``keepdims``."""

    axis: int
    size: int = 1
    keepdims: bool = True

    @property
    def title(self) -> str:
        return "SplitToSequence"

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        x = xs[0]
        dims = x.dims
        if dims is not None:
            axis = self.axis % len(dims)
            total = dims[axis].size
            count = dims[axis] if self.size == 1 else fresh(None if total is None else total // self.size)
            dims = (count, *dims[:axis], *((fresh(self.size),) if self.keepdims else ()), *dims[axis + 1 :])
        return [dataclasses.replace(x, dims=dims, value=None, origin=frozenset())]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        (x,) = xs
        rank = x.shape.rank
        axis = self.axis % rank
        shape = tf.shape(x)
        parts = tf.reshape(x, tf.concat([shape[:axis], [-1, self.size], shape[axis + 1 :]], 0))
        parts = tf.transpose(parts, [axis, *range(axis), *range(axis + 1, rank + 1)])
        return Trace(xs, [parts if self.keepdims else tf.squeeze(parts, axis + 1)], p)

    def route(self, trace: Trace, rs: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        (x,) = trace.inputs
        rank = x.shape.rank
        axis = self.axis % rank
        r = rs[0] if self.keepdims else tf.expand_dims(rs[0], axis + 1)
        return [reshape_like(tf.transpose(r, [*range(1, axis + 1), 0, *range(axis + 1, rank + 1)]), x)]


@dataclass(frozen=True, eq=False, kw_only=True)
class Stacked(Routing):
    """SequenceConstruct: operands of one shape (…) → (N, …)."""

    slots: tuple[int | str, ...]

    @property
    def title(self) -> str:
        return "SequenceConstruct"

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        shapes = [constant_dims(self.parameters[s]) if isinstance(s, str) else xs[s].dims for s in self.slots]
        base = xs[0] if xs else Var("", next(iter(self.parameters.values())).dtype, None)
        if any(s is None for s in shapes):
            return [Var("", base.dtype, None)]
        dims = list(shapes[0] or ())
        for shape in shapes[1:]:
            dims = [unify(a, b) for a, b in zip(dims, shape or (), strict=True)]
        return [Var("", base.dtype, (fresh(len(shapes)), *dims))]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        return Trace(xs, [tf.stack(fill(self.slots, xs, p))], p)

    def _parts(self, r: Tensor) -> list[tuple[int | str, Tensor]]:
        return list(zip(self.slots, tf.unstack(r, len(self.slots)), strict=True))

    def route(self, trace: Trace, rs: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        return [part for slot, part in self._parts(rs[0]) if not isinstance(slot, str)]

    def lost(self, trace: Trace, rs: Sequence[Tensor | None]) -> Sequence[tuple[Tensor, Tensor]]:
        # with the stack's axes, as it is summed over them per sample
        return [(trace.parameters[slot], part[None]) for slot, part in self._parts(rs[0]) if isinstance(slot, str)]


@dataclass(frozen=True, eq=False, kw_only=True)
class Joined(Routing):
    """ConcatFromSequence: (N, …) → its elements joined along ``axis``, an old one or a new one."""

    axis: int
    new_axis: bool

    @property
    def title(self) -> str:
        return "ConcatFromSequence"

    def _order(self, rank: int) -> tuple[int, list[int]]:
        """(axis, the permutation that brings the elements' axis before it) for a stack of ``rank`` axes."""
        axis = self.axis % (rank if self.new_axis else rank - 1)
        return axis, [*range(1, axis + 1), 0, *range(axis + 1, rank)]

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        x = xs[0]
        dims = x.dims
        if dims is not None:
            axis, order = self._order(len(dims))
            dims = tuple(dims[a] for a in order)
            if not self.new_axis:
                dims = (*dims[:axis], Dim(dims[axis].labels + dims[axis + 1].labels), *dims[axis + 2 :])
        return [dataclasses.replace(x, dims=dims, value=None, origin=frozenset())]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        (x,) = xs
        axis, order = self._order(x.shape.rank)
        y = tf.transpose(x, order)
        if not self.new_axis:
            shape = tf.shape(y)
            y = tf.reshape(y, tf.concat([shape[:axis], [shape[axis] * shape[axis + 1]], shape[axis + 2 :]], 0))
        return Trace(xs, [y], p, {"shape": tf.shape(tf.transpose(x, order))})

    def route(self, trace: Trace, rs: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        _, order = self._order(trace.inputs[0].shape.rank)
        return [tf.transpose(tf.reshape(rs[0], trace.saved["shape"]), [int(a) for a in np.argsort(order)])]


@dataclass(frozen=True, eq=False, kw_only=True)
class Inserted(Routing):
    """Slots: stack, element, and a computed ``position`` unless that is an int; None: at the end."""

    slots: tuple[int | str, ...]
    position: int | None
    computed: bool = False

    @property
    def title(self) -> str:
        return "SequenceInsert"

    def signals(self, xs: Sequence[Var]) -> Sequence[int]:
        return [s for s in self.slots[:2] if isinstance(s, int) and xs[s].is_float]

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        stack = xs[0]
        if stack.dims is None:
            return [Var("", stack.dtype, None)]
        slot = self.slots[1]
        rest = constant_dims(self.parameters[slot]) if isinstance(slot, str) else xs[slot].dims
        dims = stack.dims[1:] if rest is None else tuple(unify(a, b) for a, b in zip(stack.dims[1:], rest, strict=True))
        return [Var("", stack.dtype, (stack.dims[0] + 1, *dims))]

    def _at(self, size: Tensor, operands: Sequence[Tensor]) -> Tensor:
        if self.computed:
            return from_start(tf.cast(tf.reshape(operands[2], []), tf.int32), size)
        if self.position is None:
            return size
        return self.position if self.position >= 0 else self.position + size

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        stack, element, *_ = operands = fill(self.slots, xs, p)
        if not stack.shape[0]:  # of a stack of none nothing but the rank is known
            none = tf.concat([[0], tf.shape(element)], 0)
            stack = tf.reshape(stack, tf.where(tf.equal(tf.shape(stack)[0], 0), none, tf.shape(stack)))
        at = self._at(tf.shape(stack)[0], operands)
        return Trace(xs, [tf.concat([stack[:at], element[None], stack[at:]], 0)], p, {"at": at})

    def route(self, trace: Trace, rs: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        r: Tensor = rs[0]
        at = trace.saved["at"]
        stack: Tensor = trace.inputs[0]
        shares = [reshape_like(tf.concat([r[:at], r[at + 1 :]], 0), stack), r[at], None]
        return [part for part, s in zip(shares, self.slots, strict=False) if not isinstance(s, str)]

    def lost(self, trace: Trace, rs: Sequence[Tensor | None]) -> Sequence[tuple[Tensor, Tensor]]:
        slot, r = self.slots[1], rs[0]
        return [(trace.parameters[slot], r[trace.saved["at"]][None])] if isinstance(slot, str) and r is not None else []


@dataclass(frozen=True, eq=False, kw_only=True)
class Erased(Routing):
    """A stack without the element at ``position`` (None: a second, computed input)."""

    position: int | None

    @property
    def title(self) -> str:
        return "SequenceErase"

    def signals(self, xs: Sequence[Var]) -> Sequence[int]:
        return (0,) if xs[0].is_float else ()

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        x = xs[0]
        dims = None if x.dims is None else (x.dims[0] - 1, *x.dims[1:])
        return [dataclasses.replace(x, dims=dims, value=None, origin=frozenset())]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        x = xs[0]
        place = tf.constant(self.position) if self.position is not None else tf.cast(tf.reshape(xs[1], []), tf.int32)
        at = from_start(place, tf.shape(x)[0])
        return Trace(xs, [tf.concat([x[:at], x[at + 1 :]], 0)], p, {"at": at})

    def route(self, trace: Trace, rs: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        r: Tensor = rs[0]
        at = trace.saved["at"]
        back = tf.concat([r[:at], tf.zeros_like(trace.inputs[0][:1]), r[at:]], 0)
        return [back, *[None] * (len(trace.inputs) - 1)]


@dataclass(frozen=True, eq=False, kw_only=True)
class Length(Plain):
    """SequenceLength."""

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        dims = xs[0].dims
        value = None
        if dims is not None:
            value = np.empty((), object)
            value[()] = dims[0] if dims[0].labels else 1
        return [Var("", np.dtype(np.int64), (), value=value)]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        return Trace(xs, [tf.shape(xs[0], out_type=tf.int64)[0]], p)


@dataclass(frozen=True, eq=False, kw_only=True)
class Empty(Plain):
    """A sequence of no tensors: shape (0,), as nothing is known of an element. parameters: none (0,)."""

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        return [Var("", self.parameters["none"].dtype, (fresh(0),))]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        return Trace(xs, [p["none"]], p)


def _held(sequence: Any, node: Any) -> Var:
    if not isinstance(sequence, Var) or sequence.dtype == np.dtype(object):
        raise node.refuse("a sequence that is a graph input can't be read: feed its tensors one by one")
    return sequence


def _with_table(sequence: Var, node: Any) -> tuple[Var, Var]:
    """A sequence of unequal elements, and the table beside it."""
    assert sequence.parts is not None
    return sequence, node.lookup(sequence.parts.table)


def _is_empty(sequence: Var) -> bool:
    return sequence.dims is not None and len(sequence.dims) == 1 and sequence.dims[0].size == 0


def _dims(element: Any) -> tuple[Dim, ...] | None:
    return element.dims if isinstance(element, Var) else constant_dims(element)


def _differing(a: tuple[Dim, ...] | None, b: tuple[Dim, ...] | None, node: Any) -> set[int] | None:
    """The axes in which two elements differ for certain, else the one that a loop may give another length each step; None: all."""
    if a is None or b is None:
        return set()
    if len(a) != len(b):
        return None
    pairs = list(enumerate(zip(a, b, strict=True)))
    certain = {i for i, (x, y) in pairs if None not in (x.size, y.size) and x.size != y.size}
    varying = {i for i, (x, y) in pairs if not x.same(y) and (node.varies(x) or node.varies(y))}
    return certain or (varying if len(varying) == 1 else set())


def _joint(axes: set[int] | None) -> int | None:
    """The axis along which elements are joined that differ in these; None: they are flattened."""
    return axes.pop() if axes is not None and len(axes) == 1 else None


@importer("SplitToSequence", since=11)
def split_to_sequence(input: Any, split: Any = None, *, axis: int = 0, keepdims: int = 1, node: Any) -> Any:
    if not isinstance(input, Var):
        raise node.refuse("constant data are not read")
    if input.parts is not None:  # what a loop has collected as a sequence
        return Same(), (input,)
    sizes = known(split)
    if split is None:
        return Parted(axis=axis, keepdims=bool(keepdims)), (input,)
    total = None if input.dims is None else input.dims[axis].size
    if sizes is not None and sizes.ndim == 0 and total is not None:
        size = int(sizes)
        sizes = np.asarray([min(size, total - at) for at in range(0, total, size)])
    if sizes is not None and (sizes.ndim == 1 or sizes == 1) and np.unique(sizes).size == 1:
        return Parted(axis=axis, size=int(sizes.reshape(-1)[0])), (input,)
    if input.rank is None and axis < 0:
        raise node.refuse("parts of unequal sizes along an axis that is counted from the end, of a tensor of unknown rank")
    own: dict[str, Any] = {"table": table_of(node.node.outputs[0]), "axis": axis if axis >= 0 else axis + (input.rank or 0)}
    if sizes is None:
        return parts.Cut(**own), (input, split)
    if sizes.ndim == 0:
        return parts.Cut(**own, size=int(sizes)), (input,)
    return parts.Cut(**own, known=tuple(int(n) for n in sizes)), (input,)


@importer("SequenceConstruct", since=11)
def sequence_construct(*inputs: Any, node: Any) -> Any:
    slots, parameters, dynamic = mixed(*inputs)
    axes: set[int] | None = set()
    for element in inputs[1:]:
        more = _differing(_dims(inputs[0]), _dims(element), node)
        axes = None if axes is None or more is None else axes | more
    if axes is not None and not axes:
        return Stacked(parameters=parameters, slots=slots), dynamic
    table = table_of(node.node.outputs[0])
    return parts.Chained(parameters=parameters, slots=slots, table=table, axis=_joint(axes)), dynamic


@importer("SequenceEmpty", since=11)
def sequence_empty(*, dtype: int = 1) -> Any:
    return Empty(parameters={"none": np.zeros(0, helper.tensor_dtype_to_np_dtype(dtype))}), ()


def _place(position: Any) -> tuple[int | None, tuple[Var, ...]]:
    """A position that is known, or what it is computed as."""
    place = known(position)
    if place is not None:
        return int(place.reshape(-1)[0]), ()
    return None, () if position is None else (position,)


@importer("SequenceAt", since=11)
def sequence_at(input_sequence: Any, position: Any, *, node: Any) -> Any:
    sequence = _held(input_sequence, node)
    if sequence.parts is None:
        return read_rows(sequence, position, 0)
    at, computed = _place(position)
    form = sequence.parts
    if at is not None and form.axis is not None and form.known is not None:
        ends = np.cumsum(form.known)
        where = {"starts": ends[[at]] - form.known[at], "ends": ends[[at]]}
        return Slice(parameters=where, slots=(0, "starts", "ends"), axes=(form.axis,), steps=(1,)), (plain(sequence),)
    return parts.Taken(axis=form.axis, rank=form.rank, position=at), (*_with_table(sequence, node), *computed)


@importer("SequenceInsert", since=11)
def sequence_insert(input_sequence: Any, tensor: Any, position: Any = None, *, node: Any) -> Any:
    sequence = _held(input_sequence, node)
    if _is_empty(sequence) and sequence.parts is None:
        slots, parameters, inputs = mixed(tensor)
        return Stacked(parameters=parameters, slots=slots), inputs
    at, computed = _place(position)
    table = table_of(node.node.outputs[0])
    if sequence.parts is None:
        axes = _differing(None if sequence.dims is None else sequence.dims[1:], _dims(tensor), node)
        if axes is not None and not axes:
            slots, parameters, inputs = mixed(sequence, tensor, *computed)
            return Inserted(parameters=parameters, slots=slots, position=at, computed=bool(computed)), inputs
        sequence, _ = node.before(parts.Spread(table=f"{table}~before", axis=_joint(axes)), (sequence,), "parts")
    form = sequence.parts
    assert form is not None
    if form.axis is not None:
        axes = _differing(sequence.dims, _dims(tensor), node)
        if axes is None or axes - {form.axis}:
            raise node.refuse(f"the element differs from those before it not only in axis {form.axis}, in which they differ")
    slots, parameters, inputs = mixed(*_with_table(sequence, node), tensor, *computed)
    return parts.Inserted(parameters=parameters, slots=slots, table=table, axis=form.axis, position=at), inputs


@importer("SequenceErase", since=11)
def sequence_erase(input_sequence: Any, position: Any = None, *, node: Any) -> Any:
    sequence = _held(input_sequence, node)
    at, computed = _place(position)
    at = -1 if position is None else at
    if sequence.parts is None:
        return Erased(position=at), (sequence, *computed)
    form, table = sequence.parts, table_of(node.node.outputs[0])
    return parts.Removed(table=table, axis=form.axis, rank=form.rank, position=at), (*_with_table(sequence, node), *computed)


@importer("SequenceLength", since=11)
def sequence_length(input_sequence: Any, *, node: Any) -> Any:
    sequence = _held(input_sequence, node)
    return Length(), (sequence if sequence.parts is None else _with_table(sequence, node)[1],)


@importer("ConcatFromSequence", since=11)
def concat_from_sequence(input_sequence: Any, *, axis: int, new_axis: int = 0, node: Any) -> Any:
    sequence = _held(input_sequence, node)
    if sequence.parts is not None:
        form = sequence.parts
        if form.axis is None:
            raise node.refuse("its elements differ in more than one axis")
        if not new_axis and form.axis == (axis if axis >= 0 or form.rank is None else axis + form.rank):
            return Same(), (plain(sequence),)
        (sequence,) = node.before(parts.Stack(axis=form.axis), _with_table(sequence, node), "stack")
    return Joined(axis=axis, new_axis=bool(new_axis)), (sequence,)
