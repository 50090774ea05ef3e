"""Ops that compute: sums, products, layers with weights, reductions, activations of more than one argument."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from onnx_lrp.graph import Node

from .activations import elementwise, gelu
from .base import Base
from .pieces import axes_of, convolution, matmul, rooted, windows
from .values import ANY, Missing, Value, activation, build, constant, data, of_one, product, route, scale, self_gated, total


class Computing(Base):
    """Affine ops, products, reductions and extremes."""

    def op_cumsum(self, node: Node, args: Sequence[Value], *, exclusive: int = 0, reverse: int = 0) -> Value:
        x, axis = args[0], int(args[1].now.reshape(-1)[0])
        alone = self.single(node, x.now.shape[axis])
        return build("sum", lambda t: tf.cumsum(t, axis, bool(exclusive), bool(reverse)), [x], summed=not alone)

    def op_add(self, node: Node, args: Sequence[Value]) -> Value:
        return total(args, [1.0, 1.0])

    def op_sub(self, node: Node, args: Sequence[Value]) -> Value:
        return total(args, [1.0, -1.0])

    def op_neg(self, node: Node, args: Sequence[Value]) -> Value:
        return total(args, [-1.0])

    def op_sum(self, node: Node, args: Sequence[Value]) -> Value:
        return total(args, [1.0] * len(args))

    def op_mean(self, node: Node, args: Sequence[Value]) -> Value:
        return total(args, [1.0 / len(args)] * len(args))

    def op_mul(self, node: Node, args: Sequence[Value]) -> Value:
        return product(*args)

    def op_div(self, node: Node, args: Sequence[Value]) -> Value:
        a, b = args
        if not a.live:
            return data(a.now / b.now, args, origin=b.origin | {b} if a.constant else frozenset())
        if (x := of_one(a, b)) is not None:
            return self_gated(x, a.now / b.now)
        out = scale(b, a, divide=True)
        if a.bounds[0] >= 0 and a in b.parts:
            out.bounds = (0.0, 1.0)  # a softmax written out
        return out

    def op_reciprocal(self, node: Node, args: Sequence[Value]) -> Value:
        return data(1 / args[0].now, args, origin=args[0].origin | {args[0]})

    def op_pow(self, node: Node, args: Sequence[Value]) -> Value:
        x, power = args
        if not x.live:
            return activation(lambda t: tf.pow(x.now, t), power)
        if np.all(power.now < 0):
            return data(x.now**power.now, args, origin=x.origin | {x} if power.constant else frozenset())
        return activation(lambda t: tf.pow(t, power.now.astype(np.float64)), x)

    def op_matmul(self, node: Node, args: Sequence[Value]) -> Value:
        return matmul(*args, single=self.single(node, args[0].now.shape[-1]))

    def op_gemm(self, node: Node, args: Sequence[Any], **at: Any) -> Value:
        a, b = (route(tf.transpose, x) if at.get(k) else x for x, k in zip(args, ("transA", "transB"), strict=False))
        alpha, beta = at.get("alpha", 1.0), at.get("beta", 1.0)
        if all(x is not None and x.live for x in (*args, None)[:3]):
            # MatMul and Add would make C a term of the block; the engine's layer of two signals makes it a root
            raise Missing("Gemm of three signals")
        z = matmul(a, b, alpha, single=self.single(node, a.now.shape[-1]))
        if len(args) > 2 and args[2] is not None and beta:
            c = args[2] if beta == 1 else scale(constant(beta), args[2])
            z = total([z, c], [1.0, 1.0])
        act = at.get("activation")
        return z if act is None else self.fused(z, act, at)

    op_fusedgemm = op_gemm

    def fused(self, z: Value, name: str, at: dict[str, Any]) -> Value:
        settings = {k.removeprefix("activation_"): v for k, v in at.items() if k.startswith("activation_")}
        function, bounds = elementwise(name, settings)
        return activation(function, z, bounds)

    def op_conv(self, node: Node, args: Sequence[Any], **at: Any) -> Value:
        x, w = args[:2]
        z = convolution(x, w.now, **at)
        if len(args) > 2:
            bias = args[2].now.reshape(-1, *[1] * (z.now.ndim - 2))
            z = total([z, constant(bias)], [1.0, 1.0])
        return z

    def op_fusedconv(self, node: Node, args: Sequence[Any], **at: Any) -> Value:
        name = at.pop("activation")
        settings = {k: at.pop(k) for k in list(at) if k.startswith("activation_")}
        return self.fused(self.op_conv(node, args, **at), name, settings)

    def op_batchnormalization(self, node: Node, args: Sequence[Value], *, epsilon: float = 1e-5, **at: Any) -> Value:
        x = args[0]
        s, shift, mean, var = (a.now.reshape(-1, *[1] * (x.now.ndim - 2)) for a in args[1:])
        factor = s / np.sqrt(var + epsilon)
        return total([scale(constant(factor), x), constant(shift - factor * mean)], [1.0, 1.0])

    def op_layernormalization(self, node: Node, args: Sequence[Any], *, axis: int = -1, epsilon: float = 1e-5, **at: Any) -> Value:
        x = args[0]
        axes = tuple(range(axis % x.now.ndim, x.now.ndim))
        mean = build("sum", lambda t: tf.reduce_mean(t, axes, keepdims=True), [x], summed=True)
        centred = total([x, mean], [1.0, -1.0])
        deviation = np.sqrt(np.mean(centred.now**2, axes, keepdims=True) + epsilon)
        y = scale(args[1], scale(Value(deviation), centred, divide=True))
        return total([y, args[2]], [1.0, 1.0]) if len(args) > 2 and args[2] is not None else y

    def op_simplifiedlayernormalization(
        self, node: Node, args: Sequence[Any], *, axis: int = -1, epsilon: float = 1e-5, **at: Any
    ) -> Value:
        x = args[0]
        axes = tuple(range(axis % x.now.ndim, x.now.ndim))
        root = np.sqrt(np.mean(x.now**2, axes, keepdims=True) + epsilon)
        return scale(args[1], scale(Value(root), x, divide=True))

    op_rmsnormalization = op_simplifiedlayernormalization

    def op_scaler(self, node: Node, args: Sequence[Value], *, offset: Any, scale: Any) -> Value:
        offset, factor = np.asarray(offset, np.float64), np.asarray(scale, np.float64)
        return self.op_mul(node, [total([args[0], constant(offset)], [1.0, -1.0]), constant(factor)])

    # reductions and pooling

    def over(self, node: Node, args: Sequence[Any], axes: Any, noop: int) -> tuple[int, ...]:
        wanted = axes_of(args, axes)
        if not wanted:
            return () if noop else tuple(range(args[0].now.ndim))
        return tuple(a % args[0].now.ndim for a in wanted)

    def reduce(self, node: Node, args: Sequence[Any], kind: str, axes: Any, keepdims: int, noop: int) -> Value:
        x, over = args[0], self.over(node, args, axes, noop)
        alone = self.single(node, math.prod(x.now.shape[a] for a in over))  # over one entry it is routing
        function = tf.reduce_mean if kind == "mean" else tf.reduce_sum
        bounds = x.bounds if kind == "mean" else ANY
        out = build("sum", lambda t: function(t, over, keepdims=bool(keepdims)), [x], summed=not alone, bounds=bounds)
        out.parts = frozenset({x}) if kind == "sum" else frozenset()
        return out

    def op_reducesum(self, node: Node, args: Any, *, axes: Any = None, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Value:
        return self.reduce(node, args, "sum", axes, keepdims, noop_with_empty_axes)

    def op_reducemean(self, node: Node, args: Any, *, axes: Any = None, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Value:
        return self.reduce(node, args, "mean", axes, keepdims, noop_with_empty_axes)

    def norm(self, node: Node, args: Any, kind: str, axes: Any, keepdims: int, noop: int) -> Value:
        """An activation, a sum, an activation."""
        x, over = args[0], self.over(node, args, axes, noop)
        before = {"L1": tf.abs, "LogSum": lambda t: t, "LogSumExp": tf.exp}.get(kind, lambda t: t * t)
        after = {"L2": tf.sqrt, "LogSum": tf.math.log, "LogSumExp": tf.math.log}.get(kind)
        terms = activation(before, x)
        if not over:
            return terms
        y = rooted(build("sum", lambda t: tf.reduce_sum(t, over, keepdims=bool(keepdims)), [terms]))
        return y if after is None else activation(after, y)

    def op_reducel1(self, node: Node, args: Any, *, axes: Any = None, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Value:
        return self.norm(node, args, node.op.removeprefix("Reduce"), axes, keepdims, noop_with_empty_axes)

    op_reducel2 = op_reducesumsquare = op_reducelogsum = op_reducelogsumexp = op_reducel1

    def op_globalaveragepool(self, node: Node, args: Sequence[Value]) -> Value:
        return self.reduce(node, args, "mean", list(range(2, args[0].now.ndim)), 1, 0)

    def extreme(self, node: Node, args: Sequence[Any], sign: int, axes: Any, keepdims: int, noop: int) -> Value:
        x, over = args[0], self.over(node, args, axes, noop)
        kept = [a for a in range(x.now.ndim) if a not in over]
        order = [*kept, *over]
        sizes = [x.now.shape[a] for a in kept]
        flat = np.transpose(x.now, order).reshape([*sizes, -1])
        winner = np.argmax(sign * flat, -1)  # numpy's is the first
        shape = [1 if a in over else n for a, n in enumerate(x.now.shape)] if keepdims else sizes

        def pick(t: Any) -> Any:
            rows = tf.reshape(tf.transpose(t, order), [*sizes, -1])
            return tf.reshape(tf.gather(rows, winner, axis=-1, batch_dims=len(sizes)), shape)

        return route(pick, x)

    def op_reducemax(self, node: Node, args: Any, *, axes: Any = None, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Value:
        return self.extreme(node, args, 1, axes, keepdims, noop_with_empty_axes)

    def op_reducemin(self, node: Node, args: Any, *, axes: Any = None, keepdims: int = 1, noop_with_empty_axes: int = 0) -> Value:
        return self.extreme(node, args, -1, axes, keepdims, noop_with_empty_axes)

    def op_globalmaxpool(self, node: Node, args: Sequence[Value]) -> Value:
        return self.extreme(node, args, 1, list(range(2, args[0].now.ndim)), 1, 0)

    def op_maxpool(self, node: Node, args: Sequence[Value], *, kernel_shape: Any, storage_order: int = 0, **at: Any) -> list[Value]:
        x = args[0]
        places = windows(x.now.shape[2:], kernel_shape, **at)  # (K, outputs)
        out = places.shape[1:]
        flat = x.now.reshape(*x.now.shape[:2], -1)
        candidates = np.where(places.reshape(len(places), -1) >= 0, flat[..., places.reshape(len(places), -1)], -np.inf)
        first = np.argmax(candidates, 2)  # (B, C, outputs)
        winner = np.take_along_axis(places.reshape(1, 1, len(places), -1), first[:, :, None], 2)[:, :, 0]
        lead = x.now.shape[:2]
        y = route(lambda t: tf.reshape(tf.gather(tf.reshape(t, [*lead, -1]), winner, axis=2, batch_dims=2), [*lead, *out]), x)
        if storage_order:  # the first spatial axis innermost
            size = x.now.shape[2:]
            winner = np.ravel_multi_index(np.unravel_index(winner, size), size, order="F")
        rows = flat.shape[2] * np.arange(math.prod(lead)).reshape(*lead, 1)
        return [y, data((winner + rows).reshape(*lead, *out), [x])][: len(node.outputs)]

    # elementwise with more than one argument

    def op_max(self, node: Node, args: Sequence[Value]) -> Value:
        return self.largest(args, 1)

    def op_min(self, node: Node, args: Sequence[Value]) -> Value:
        return self.largest(args, -1)

    def largest(self, args: Sequence[Value], sign: int) -> Value:
        live = [a for a in args if a.live]
        if 1 < len(live) < len(args):  # what carries no relevance only limits
            first = self.largest(live, sign)
            return self.largest([first, *(a for a in args if not a.live)], sign)
        if len(live) == 1:
            others = [a.now for a in args if not a.live]
            pick = tf.maximum if sign > 0 else tf.minimum

            def clamp(t: Any) -> Any:
                for other in others:
                    t = pick(t, other)
                return t

            choose = max if sign > 0 else min
            ends = [a.bounds for a in args]
            return activation(clamp, live[0], (choose(e[0] for e in ends), choose(e[1] for e in ends)))
        shape = np.broadcast_shapes(*(a.now.shape for a in args))
        winner = np.argmax(np.stack([np.broadcast_to(sign * a.now, shape) for a in args]), 0)
        return route(
            lambda *ts: sum(tf.where(winner == k, t, tf.zeros([], tf.float64)) for k, t in enumerate(ts)),
            *args,
            bounds=ANY,
        )

    def op_clip(self, node: Node, args: Sequence[Any], *, min: float = -math.inf, max: float = math.inf) -> Value:
        x = args[0]
        low = float(args[1].now) if len(args) > 1 and args[1] is not None else min
        high = float(args[2].now) if len(args) > 2 and args[2] is not None else max

        def clamp(v: Any, larger: Any, smaller: Any) -> Any:
            return smaller(larger(v, low), high)

        bounds = tuple(clamp(b, lambda *v: sorted(v)[1], lambda *v: sorted(v)[0]) for b in x.bounds)
        return activation(lambda t: clamp(t, tf.maximum, tf.minimum), x, bounds)

    def op_gelu(self, node: Node, args: Sequence[Value], *, approximate: str = "none") -> Value:
        return activation(lambda t: gelu(t, approximate), args[0])

    def op_softmax(self, node: Node, args: Sequence[Value], *, axis: int | None = None, log: bool = False) -> Value:
        x = args[0]
        flat = node.version < 13
        axis = (1 if flat else -1) if axis is None else axis
        function = tf.nn.log_softmax if log else tf.nn.softmax
        shape = x.now.shape
        axis %= len(shape)

        def apply(t: Any) -> Any:
            if not flat:
                return function(t, axis=axis)
            return tf.reshape(function(tf.reshape(t, [*shape[:axis], -1])), shape)

        return activation(apply, x, (-math.inf, 0) if log else (0, 1), elementwise=False)

    def op_logsoftmax(self, node: Node, args: Sequence[Value], *, axis: int | None = None) -> Value:
        return self.op_softmax(node, args, axis=axis, log=True)
