"""Sequences of equal tensors, as one tensor stacked along a new first axis: all of their ops are routing then.

Optionals that hold a tensor are that tensor.
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
from ..layer import Plain, Routing, Trace, constant_dims, fill, known, mixed
from ..registry import Var, importer
from .gather import from_start, read_rows
from .reshape import Same, reshape_like

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
        return [(trace.parameters[slot], part) for slot, part in self._parts(rs[0]) if isinstance(slot, str)]


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
        operands = fill(self.slots, xs, p)
        at = self._at(tf.shape(operands[0])[0], operands)
        y = tf.concat([operands[0][:at], operands[1][None], operands[0][at:]], 0)
        return Trace(xs, [y], p, {"at": at})

    def route(self, trace: Trace, rs: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        r: Tensor = rs[0]
        at = trace.saved["at"]
        parts = [tf.concat([r[:at], r[at + 1 :]], 0), r[at], None]
        return [part for part, s in zip(parts, self.slots, strict=False) if not isinstance(s, str)]

    def lost(self, trace: Trace, rs: Sequence[Tensor | None]) -> Sequence[tuple[Tensor, Tensor]]:
        slot, r = self.slots[1], rs[0]
        return [(trace.parameters[slot], r[trace.saved["at"]])] if isinstance(slot, str) and r is not None else []


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


def _stack(sequence: Any, node: Any) -> Var:
    if not isinstance(sequence, Var) or sequence.dtype == np.dtype(object):
        raise node.refuse("a sequence that is a graph input can't be read: feed its tensors one by one")
    return sequence


def _is_empty(sequence: Var) -> bool:
    return sequence.dims is not None and len(sequence.dims) == 1 and sequence.dims[0].size == 0


@importer("SplitToSequence", since=11)
def split_to_sequence(input: Any, split: Any = None, *, axis: int = 0, keepdims: int = 1, node: Any) -> Any:
    if not isinstance(input, Var):
        raise node.refuse("constant data are not read")
    sizes = known(split)
    if split is not None and sizes is None:
        raise node.refuse("the sizes of the parts must be constant")
    if sizes is None:
        return Parted(axis=axis, keepdims=bool(keepdims)), (input,)
    if sizes.size > 1 and np.any(sizes != sizes.reshape(-1)[0]):
        raise node.refuse(f"parts of unequal sizes {sizes.tolist()} are not read")
    size = int(sizes.reshape(-1)[0])
    total = None if input.dims is None else input.dims[axis].size
    if total is not None and total % size:
        raise node.refuse(f"parts of {size} don't divide an axis of {total}: unequal parts are not read")
    return Parted(axis=axis, size=size), (input,)


@importer("SequenceConstruct", since=11)
def sequence_construct(*inputs: Any, node: Any) -> Any:
    shapes = [i.shape if isinstance(i, Var) else np.shape(i) for i in inputs]
    for shape in shapes[1:]:
        first = shapes[0]
        if first is None or shape is None:
            continue
        if len(first) != len(shape) or any(a != b for a, b in zip(first, shape, strict=True) if None not in (a, b)):
            raise node.refuse(f"elements of different shapes {first} and {shape} are not read")
    slots, parameters, dynamic = mixed(*inputs)
    return Stacked(parameters=parameters, slots=slots), dynamic


@importer("SequenceEmpty", since=11)
def sequence_empty(*, dtype: int = 1) -> Any:
    return Empty(parameters={"none": np.zeros(0, helper.tensor_dtype_to_np_dtype(dtype))}), ()


@importer("SequenceAt", since=11)
def sequence_at(input_sequence: Any, position: Any, *, node: Any) -> Any:
    return read_rows(_stack(input_sequence, node), position, 0)


@importer("SequenceInsert", since=11)
def sequence_insert(input_sequence: Any, tensor: Any, position: Any = None, *, node: Any) -> Any:
    stack = _stack(input_sequence, node)
    if _is_empty(stack):
        slots, parameters, inputs = mixed(tensor)
        return Stacked(parameters=parameters, slots=slots), inputs
    place = known(position)
    computed = position is not None and place is None
    slots, parameters, inputs = mixed(stack, tensor, position if computed else None)
    at = None if place is None else int(place.reshape(-1)[0])
    return Inserted(parameters=parameters, slots=slots, position=at, computed=computed), inputs


@importer("SequenceErase", since=11)
def sequence_erase(input_sequence: Any, position: Any = None, *, node: Any) -> Any:
    stack, place = _stack(input_sequence, node), known(position)
    if position is not None and place is None:
        return Erased(position=None), (stack, position)
    return Erased(position=-1 if place is None else int(place.reshape(-1)[0])), (stack,)


@importer("SequenceLength", since=11)
def sequence_length(input_sequence: Any, *, node: Any) -> Any:
    return Length(), (_stack(input_sequence, node),)


@importer("ConcatFromSequence", since=11)
def concat_from_sequence(input_sequence: Any, *, axis: int, new_axis: int = 0, node: Any) -> Any:
    return Joined(axis=axis, new_axis=bool(new_axis)), (_stack(input_sequence, node),)


@dataclass(frozen=True, eq=False, kw_only=True)
class Truth(Plain):
    """A bool that is known. parameters: value ()."""

    def infer(self, xs: Sequence[Var]) -> Sequence[Var]:
        return [Var("", np.dtype(bool), (), value=self.parameters["value"])]

    def run(self, xs: Sequence[Tensor], p: Mapping[str, Tensor]) -> Trace:
        return Trace(xs, [p["value"]], p)


def _held(input: Any, node: Any) -> Var:
    if not isinstance(input, Var) or input.dtype == np.dtype(object):
        raise node.refuse("only an optional that holds a computed tensor is read")
    return input


@importer("Optional", since=15)
def optional(input: Any = None, *, type: Any = None, node: Any) -> Any:
    return Same(), (_held(input, node),)


@importer("OptionalGetElement", since=15)
def optional_get_element(input: Any, *, node: Any) -> Any:
    return Same(), (_held(input, node),)


@importer("OptionalHasElement", since=15)
def optional_has_element(input: Any = None, *, node: Any) -> Any:
    there = input is not None
    return Truth(parameters={"value": np.asarray(there)}), (_held(input, node),) if there else ()
