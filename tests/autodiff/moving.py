"""Ops that move, select, repeat or join entries, sequences included."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from onnx import helper

from onnx_lrp.fold import evaluate
from onnx_lrp.graph import Node

from .base import Base
from .pieces import axes_of, ints, reverse, stack
from .values import Missing, Value, activation, constant, data, literal, route


class Moving(Base):
    """Plumbing."""

    def op_identity(self, node: Node, args: Sequence[Value]) -> Value:
        return args[0]

    def op_dropout(self, node: Node, args: Sequence[Value], **at: Any) -> list[Value]:
        return [args[0], constant(np.ones(np.shape(args[0].now), bool))][: len(node.outputs)]

    def op_cast(self, node: Node, args: Sequence[Value], *, to: int, saturate: int = 1, round_mode: str = "up") -> Value:
        x = args[0]
        dtype = helper.tensor_dtype_to_np_dtype(to)
        floating = dtype.kind == "f" or dtype.name.startswith(("bfloat", "float"))
        if floating and x.is_float:
            return x
        out = data(x.now.astype(np.float64 if floating else dtype), [x])
        out.literal = x.literal or (x, False)
        if x.now.dtype == bool:
            out.mask, out.bounds, out.valued = True, (0.0, 1.0), False
        elif floating and x.valued:
            out = self.points[node.outputs[0]] = Value(out.now, "point")
        elif dtype.kind == "b":
            out.valued = False
        return out

    def op_castlike(self, node: Node, args: Sequence[Value], *, saturate: int = 1, round_mode: str = "up") -> Value:
        kind = 1 if args[1].is_float else helper.np_dtype_to_tensor_dtype(args[1].now.dtype)
        return self.op_cast(node, args[:1], to=kind)

    def op_not(self, node: Node, args: Sequence[Value]) -> Value:
        base, negated = literal(args[0])
        return data(np.logical_not(args[0].now), args, literal=(base, not negated), origin=args[0].origin)

    def op_reshape(self, node: Node, args: Sequence[Any], *, shape: Any = None, allowzero: int = 0) -> Value:
        x = args[0]
        wanted = ints(args[1]) if shape is None else list(shape)
        if not allowzero:
            wanted = [x.now.shape[i] if s == 0 else s for i, s in enumerate(wanted)]
        return self.reshaped(x, wanted)

    def reshaped(self, x: Value, shape: Sequence[int]) -> Value:
        return route(lambda t: tf.reshape(t, shape), x)

    def op_flatten(self, node: Node, args: Sequence[Value], *, axis: int = 1) -> Value:
        shape = args[0].now.shape
        axis = axis + len(shape) if axis < 0 else axis
        return self.reshaped(args[0], [math.prod(shape[:axis]), math.prod(shape[axis:])])

    def op_squeeze(self, node: Node, args: Sequence[Value], *, axes: Any = None) -> Value:
        wanted = axes_of(args, axes)
        shape = args[0].now.shape
        gone = {a % len(shape) for a in wanted} if wanted is not None else {i for i, n in enumerate(shape) if n == 1}
        return self.reshaped(args[0], [n for i, n in enumerate(shape) if i not in gone])

    def op_unsqueeze(self, node: Node, args: Sequence[Value], *, axes: Any = None) -> Value:
        wanted = axes_of(args, axes)
        shape = list(args[0].now.shape)
        for axis in sorted(a % (len(shape) + len(wanted)) for a in wanted):
            shape.insert(axis, 1)
        return self.reshaped(args[0], shape)

    def op_transpose(self, node: Node, args: Sequence[Value], *, perm: Any = None) -> Value:
        return route(lambda t: tf.transpose(t, perm), args[0])

    def op_concat(self, node: Node, args: Sequence[Value], *, axis: int = 1) -> Value:
        return route(lambda *ts: tf.concat(ts, axis), *args)

    def op_split(self, node: Node, args: Sequence[Any], *, axis: int = 0, split: Any = None, num_outputs: int = 0) -> list[Value]:
        size = args[0].now.shape[axis]
        if split is None and len(args) > 1 and args[1] is not None:
            split = ints(args[1])
        if split is None:
            count = num_outputs or len(node.outputs)
            each = -(-size // count)
            split = [min(each, size - each * k) for k in range(count)]
        starts = np.cumsum([0, *split])
        return [self.part(args[0], range(a, b), axis) for a, b in itertools.pairwise(int(s) for s in starts)]

    def part(self, x: Value, rows: Any, axis: int) -> Value:
        indices = np.asarray(rows, np.int64)
        axis = axis % len(x.now.shape)
        return route(lambda t: tf.gather(t, indices, axis=axis), x)

    def op_slice(self, node: Node, args: Sequence[Any], **at: Any) -> Value:
        x = args[0]
        starts, ends, axes, steps = (
            at[k] if k in at else ints(args[i]) if len(args) > i and args[i] is not None else None
            for i, k in enumerate(("starts", "ends", "axes", "steps"), 1)
        )
        axes = range(len(starts)) if axes is None else axes
        for axis, start, end, step in zip(axes, starts, ends, steps or [1] * len(starts), strict=True):
            size = x.now.shape[axis]
            # the standard clamps: forwards to [0, size], backwards to [-1, size - 1]
            low, high = (0, size) if step > 0 else (-1, size - 1)
            start, end = (v + size if v < 0 else v for v in (start, end))
            start, end = min(max(start, 0 if step < 0 else low), high), min(max(end, low), high)
            x = self.part(x, range(start, end, step), axis)
        return x

    def op_gather(self, node: Node, args: Sequence[Value], *, axis: int = 0) -> Value:
        x, indices = args
        size = x.now.shape[axis]
        where = np.where(indices.now < 0, indices.now + size, indices.now)
        return route(lambda t: tf.gather(t, where, axis=axis % len(x.now.shape)), x)

    def op_expand(self, node: Node, args: Sequence[Value]) -> Value:
        shape = np.broadcast_shapes(args[0].now.shape, tuple(ints(args[1])))
        return route(lambda t: tf.broadcast_to(t, shape), args[0])

    def op_tile(self, node: Node, args: Sequence[Value]) -> Value:
        times = ints(args[1])
        return route(lambda t: tf.tile(t, times), args[0])

    def op_where(self, node: Node, args: Sequence[Value]) -> Value:
        chosen = args[0].now
        for x, other in (args[1:], args[:0:-1]):
            if x.live and x in args[0].origin and (other.constant or x in other.origin):
                return activation(self.choice(chosen, other.now, first=x is args[1]), x)
        return route(lambda a, b: tf.where(chosen, a, b), args[1], args[2])

    @staticmethod
    def choice(chosen: Any, other: Any, *, first: bool) -> Callable[[Any], Any]:
        """x where it chooses itself, else a function of it: an activation."""
        return lambda x: tf.where(chosen, x, other) if first else tf.where(chosen, other, x)

    def op_reversesequence(self, node: Node, args: Sequence[Value], *, batch_axis: int = 1, time_axis: int = 0) -> Value:
        return reverse(args[0], args[1].now, time_axis, batch_axis)

    def op_splittosequence(self, node: Node, args: Sequence[Any], *, axis: int = 0, keepdims: int = 1) -> list[Any]:
        x = args[0]
        size = x.now.shape[axis]
        if len(args) < 2:
            parts = [self.part(x, [k], axis) for k in range(size)]
            return [parts if keepdims else [self.reshaped(p, np.delete(p.now.shape, axis)) for p in parts]]
        split = ints(args[1])
        split = split if args[1].now.ndim else [split[0]] * (size // split[0])
        starts = [int(s) for s in np.cumsum([0, *split])]
        return [[self.part(x, range(a, b), axis) for a, b in itertools.pairwise(starts)]]

    def op_sequenceat(self, node: Node, args: Sequence[Any]) -> Value:
        return args[0][int(args[1].now)]

    def moved(self, node: Node, args: Sequence[Any], movable: Sequence[int]) -> Value:
        """Any op that only moves entries: run on numbers that name them, 0 being a zero of its own."""
        carriers = [args[i] for i in movable if i < len(args) and args[i] is not None]
        values = [None if a is None else a.now for a in args]
        count = 1
        for i in movable:
            if i < len(args) and args[i] is not None:
                values[i] = np.arange(count, count + args[i].now.size, dtype=np.float64).reshape(args[i].now.shape)
                count += args[i].now.size
        try:
            places = evaluate(node, values, self.graph.opsets)[0].astype(np.int64)
        except Exception as error:
            raise Missing(f"{node.op}: {str(error)[:200]}") from error

        zero = float(node.attributes.get("value", 0.0))  # what Pad fills with, in old opsets

        def pick(*ts: Any) -> Any:
            flat = tf.concat([tf.constant([zero], tf.float64), *(tf.reshape(t, [-1]) for t in ts)], 0)
            return tf.gather(flat, places)

        low, high = min(zero, *(c.bounds[0] for c in carriers)), max(zero, *(c.bounds[1] for c in carriers))
        return route(pick, *carriers, bounds=(low, high))

    def op_topk(self, node: Node, args: Sequence[Any], *, axis: int = -1, **at: Any) -> list[Value]:
        x = args[0]
        _, places = evaluate(node, [a.now for a in args], self.graph.opsets)
        axis = axis % x.now.ndim
        order = [*(a for a in range(x.now.ndim) if a != axis), axis]
        back, last = [int(a) for a in np.argsort(order)], np.transpose(places, order)

        def pick(t: Any) -> Any:
            return tf.transpose(tf.gather(tf.transpose(t, order), last, axis=-1, batch_dims=x.now.ndim - 1), back)

        return [route(pick, x), data(places, [x])]

    def op_sequenceconstruct(self, node: Node, args: Sequence[Any]) -> list[Any]:
        return [list(args)]

    def op_sequenceempty(self, node: Node, args: Sequence[Any], *, dtype: int = 1) -> list[Any]:
        return [[]]

    def op_sequenceinsert(self, node: Node, args: Sequence[Any]) -> list[Any]:
        at = int(args[2].now) if len(args) > 2 else len(args[0])
        at = at + len(args[0]) if at < 0 else at
        return [[*args[0][:at], args[1], *args[0][at:]]]

    def op_sequenceerase(self, node: Node, args: Sequence[Any]) -> list[Any]:
        at = range(len(args[0]))[int(args[1].now) if len(args) > 1 else -1]
        return [[x for k, x in enumerate(args[0]) if k != at]]

    def op_sequencelength(self, node: Node, args: Sequence[Any]) -> Value:
        return Value(np.asarray(len(args[0]), np.int64), constant=True, shaped=True)

    def op_concatfromsequence(self, node: Node, args: Sequence[Any], *, axis: int, new_axis: int = 0) -> Value:
        return stack(args[0], axis) if new_axis else route(lambda *ts: tf.concat(ts, axis), *args[0])
