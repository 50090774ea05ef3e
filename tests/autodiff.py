"""A second implementation for whole graphs: relevance is input × gradient, by TensorFlow's own autodiff, of a copy of the program.

In the copy gates, masks and normalizers are constants (``tf.stop_gradient``), an activation is the multiplication with its secant
φ(z)/z, and a block's output carries the gradient z/(z + ε·sign z). It is written the simplest slow way: ONNX nodes are run one by
one in float64, recurrent ones and loops step by step, into a graph of plain values; then it is decided which of them are the roots
of blocks, and the graph is run again under a tape. Nothing of the engine is used but the reading of files.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf
from onnx import helper

from onnx_lrp.fold import evaluate
from onnx_lrp.graph import Graph, Node, load_graph

ANY = (-math.inf, math.inf)
TINY = 1e-100  # what zero counts as where a secant divides by it: 0 = z·φ(z)/z must not lose the relevance of φ(0) ≠ 0
counter = itertools.count()


class Missing(Exception):
    """The table lacks an op that relevance would have to pass."""


@dataclass(eq=False)
class Value:
    """A tensor of the forward pass.

    Attributes:
        now: its entries, float64 where they are floats.
        kind: "data" (carries no relevance), "point" (relevance ends), "sum" (affine in its sources), "route", "pass" (an
            activation or a part of a product).
        sources, function: what it is computed from, data left out, and how.
        operands: sources that constant weights are applied to.
        summed: affine with more than one term.
        bounds: interval by theory, not by what the entries are.
        state: a constant that is no weight: an initial state.
        root: a carried state or a mixture of a gate, a root wherever it stands.
        factors: (coefficient, signal) of a product; terms: ((value, sign), …) of a plain sum; literal: (base, negated) of a mask
            or gate.
    """

    now: Any
    kind: str = "data"
    sources: tuple[Value, ...] = ()
    function: Callable[..., Any] | None = None
    operands: frozenset[int] = frozenset()
    summed: bool = False
    bounds: tuple[float, float] = ANY
    mask: bool = False
    constant: bool = False
    shaped: bool = False  # depends on the shapes of inputs, not on their values
    filled: bool = False  # repeated by a shape that is computed
    valued: bool = False  # integers made from an integer input's values
    state: bool = False
    root: bool = False
    origin: frozenset[Value] = frozenset()
    factors: tuple[Value, Value] | None = None
    terms: tuple[tuple[Value, float], ...] | None = None
    literal: tuple[Any, bool] | None = None
    parts: frozenset[Value] = frozenset()  # what it is the sum or another norm of
    number: int = field(default_factory=lambda: next(counter))

    @property
    def live(self) -> bool:
        return self.kind != "data"

    @property
    def gate(self) -> bool:
        return self.bounds[0] >= -1e-6 and self.bounds[1] <= 1 + 1e-6

    @property
    def is_float(self) -> bool:
        return np.asarray(self.now).dtype.kind == "f"


def as64(array: Any) -> np.ndarray:
    """The array, in float64 if it holds floats of any width."""
    array = np.asarray(array)
    return array.astype(np.float64) if array.dtype.kind == "f" or array.dtype.name.startswith(("bfloat", "float")) else array


def constant(array: Any) -> Value:
    array = as64(array)
    bounds = (float(array.min()), float(array.max())) if array.dtype.kind == "f" and array.size else ANY
    return Value(array, constant=True, shaped=True, bounds=bounds)


def data(now: Any, args: Sequence[Value], **known: Any) -> Value:
    """A value that carries no relevance; what it depends on follows from its arguments."""
    now = as64(now)
    dtype = now.dtype
    integer = dtype.kind in "iu"
    return Value(
        now,
        constant=all(a.constant for a in args),
        shaped=all(a.shaped for a in args),
        filled=any(a.filled for a in args),
        valued=integer and any(a.valued for a in args),
        state=dtype.kind == "f" and any(a.state for a in args),
        **known,
    )


def build(kind: str, function: Callable[..., Any], args: Sequence[Value], operands: Sequence[int] = (), **known: Any) -> Value:
    """function(*args) as a value of ``kind``; data if no argument carries relevance."""
    sources = tuple(a for a in args if a.live)
    if not sources:
        known.pop("summed", None)
        return data(function(*(a.now for a in args)), args, **known)

    def call(*live: Any) -> Any:
        left = iter(live)
        return function(*(next(left) if a.live else a.now for a in args))

    live = [k for k, a in enumerate(args) if a.live]
    now = np.asarray(call(*(a.now for a in sources)))
    return Value(now, kind, sources, call, frozenset(live.index(k) for k in operands if k in live), **known)


def route(function: Callable[..., Any], *args: Value, **known: Any) -> Value:
    """Entries moved, selected or repeated."""
    floats = [a for a in args if a.is_float]
    known.setdefault("bounds", (min(a.bounds[0] for a in floats), max(a.bounds[1] for a in floats)) if floats else ANY)
    known.setdefault("mask", bool(args) and all(a.mask for a in args))
    return build("route", function, args, **known)


def activation(function: Callable[[Any], Any], x: Value, bounds: tuple[float, float] = ANY, *, elementwise: bool = True) -> Value:
    origin = x.origin | {x} if elementwise else frozenset()
    return build("pass", function, [x], bounds=bounds, origin=origin)


def total(args: Sequence[Value], signs: Sequence[float]) -> Value:
    """Σ sign · arg with broadcasting."""
    if not args[0].is_float:
        return data(sum(s * a.now for a, s in zip(args, (int(s) for s in signs), strict=True)), args)

    def add(*xs: Any) -> Any:
        return sum((s * x for x, s in zip(xs[1:], signs[1:], strict=True)), signs[0] * xs[0])

    ends = [sorted((s * a.bounds[0], s * a.bounds[1])) for a, s in zip(args, signs, strict=True)]
    bounds = (sum(e[0] for e in ends), sum(e[1] for e in ends))
    moving = [a for a in args if not a.constant]
    origin = moving[0].origin | {moving[0]} if len(moving) == 1 else frozenset()
    out = build(
        "sum",
        add,
        args,
        summed=len(args) > 1,
        bounds=ANY if any(math.isnan(b) for b in bounds) else bounds,
        mask=len(moving) == 1 and moving[0].mask,
        origin=origin,
        terms=tuple(zip(args, signs, strict=True)),
    )
    one = len(args) == 2 and args[0].constant and np.all(args[0].now == 1) and list(signs) == [1, -1]
    if one:
        base, negated = literal(args[1])
        out.literal = (base, not negated)
    if mixture(out) == "gate":
        out.root = True
    return out


def scale(coefficient: Value, signal: Value, *, divide: bool = False) -> Value:
    """signal · coefficient, linear in the signal."""
    coefficient_now = 1 / coefficient.now if divide else coefficient.now
    ends = [a * b if a and b else 0.0 for a in signal.bounds for b in coefficient.bounds]
    bounds = ANY if divide or any(math.isnan(e) for e in ends) else (min(ends), max(ends))
    if divide and coefficient.constant and np.all(coefficient_now > 0):
        low, high = float(np.min(coefficient_now)), float(np.max(coefficient_now))
        bounds = (min(b * signal.bounds[0] for b in (low, high)), max(b * signal.bounds[1] for b in (low, high)))
    origin = signal.origin | {signal} if coefficient.constant else frozenset()
    out = build("sum", lambda x: x * coefficient_now, [signal], bounds=bounds, origin=origin)
    out.mask = signal.mask and (coefficient.mask or coefficient.constant)
    out.constant = out.constant and coefficient.constant
    out.shaped = out.shaped and coefficient.shaped
    if not divide:
        out.factors = (coefficient, signal)
    return out


def literal(x: Value) -> tuple[Any, bool]:
    return x.literal or (x, False)


def complement(a: Value, b: Value) -> bool:
    """a + b = 1 by how they were made."""
    (base, flipped), (other, flipped_too) = literal(a), literal(b)
    return base is other and flipped != flipped_too


def mixture(x: Value) -> str | None:
    """Whether a sum is g·a + (1 − g)·b, or a + g·(b − a), with a "gate" or a "mask" g."""
    if x.terms is None or len(x.terms) != 2:
        return None
    (a, sign_a), (b, sign_b) = x.terms
    if sign_a == sign_b == 1 and a.factors and b.factors and complement(a.factors[0], b.factors[0]):
        return "mask" if a.factors[0].mask and b.factors[0].mask else "gate"
    for base, sign_base, product, sign in ((a, sign_a, b, sign_b), (b, sign_b, a, sign_a)):
        if sign_base == 1 and product.factors and product.factors[0].gate and not product.factors[0].constant:
            inner = product.factors[1].terms
            if inner and len(inner) == 2 and sorted(f for _, f in inner) == [-1, 1] and (base, -sign) in inner:
                return "gate"
    return None


def halves(function: Callable[[Any, Any], Any], a: Value, b: Value) -> Value:
    """function(a, b), bilinear: half the gradient through each."""

    def both(x: Any, y: Any) -> Any:
        return (function(x, tf.stop_gradient(y)) + function(tf.stop_gradient(x), y)) / 2

    ends = [p * q if p and q else 0.0 for p in a.bounds for q in b.bounds]
    return build("pass", both, [a, b], bounds=ANY if any(math.isnan(e) for e in ends) else (min(ends), max(ends)))


def product(a: Value, b: Value) -> Value:
    if not a.is_float:
        return data(a.now * b.now, [a, b])
    if (x := of_one(a, b)) is not None:
        return self_gated(x, a.now * b.now)
    if a.live and b.live:
        if not (a.gate or b.gate):
            return halves(lambda x, y: x * y, a, b)
        return scale(a, b) if a.gate else scale(b, a)
    signal, other = (b, a) if b.live else (a, b)
    if signal.live:
        if signal.gate and not other.constant and not other.gate and (other.state or other.filled):
            out = data(signal.now * other.now, [signal, other])  # a gate on an initial state: a constant
            out.factors = (signal, other)
            return out
        return scale(other, signal)
    out = data(a.now * b.now, [a, b], mask=a.mask and b.mask)
    gate, x = (a, b) if a.gate and not a.constant else (b, a)
    out.factors = (gate, x) if gate.gate else None
    out.bounds = (0.0, 1.0) if a.gate and b.gate else ANY
    return out


def of_one(a: Value, b: Value) -> Value | None:
    """The nearest signal that both are elementwise functions of."""
    shared = [x for x in (a.origin | {a}) & (b.origin | {b}) if x.live]
    return max(shared, key=lambda x: x.number, default=None) if a.live or b.live else None


def self_gated(x: Value, now: Any) -> Value:
    """A product or quotient of two functions of x: an activation of x."""
    return build("pass", lambda t: now, [x], origin=x.origin | {x})


# activations

HARD = {"alpha": 0.2, "beta": 0.5}
ACTIVATIONS: dict[str, tuple[Callable[..., Any], dict[str, float], tuple[float, float]]] = {
    "Abs": (lambda x: tf.abs(x), {}, ANY),
    "Acos": (lambda x: tf.acos(x), {}, ANY),
    "Acosh": (lambda x: tf.acosh(x), {}, ANY),
    "Affine": (lambda x, alpha, beta: alpha * x + beta, {"alpha": 1.0, "beta": 0.0}, ANY),
    "Asin": (lambda x: tf.asin(x), {}, ANY),
    "Asinh": (lambda x: tf.asinh(x), {}, ANY),
    "Atan": (lambda x: tf.atan(x), {}, ANY),
    "Atanh": (lambda x: tf.atanh(x), {}, ANY),
    "Celu": (lambda x, alpha: tf.where(x > 0, x, alpha * (tf.exp(tf.minimum(x, 0.0) / alpha) - 1)), {"alpha": 1.0}, ANY),
    "Cos": (lambda x: tf.cos(x), {}, (-1, 1)),
    "Ceil": (lambda x: tf.math.ceil(x), {}, ANY),
    "Cosh": (lambda x: tf.cosh(x), {}, ANY),
    "Elu": (lambda x, alpha: tf.where(x > 0, x, alpha * (tf.exp(tf.minimum(x, 0.0)) - 1)), {"alpha": 1.0}, ANY),
    "Erf": (lambda x: tf.math.erf(x), {}, (-1, 1)),
    "Exp": (lambda x: tf.exp(x), {}, (0, math.inf)),
    "Floor": (lambda x: tf.floor(x), {}, ANY),
    "HardSigmoid": (lambda x, alpha, beta: tf.maximum(0.0, tf.minimum(1.0, alpha * x + beta)), HARD, (0, 1)),
    "HardSwish": (lambda x: x * tf.maximum(0.0, tf.minimum(1.0, x / 6 + 0.5)), {}, ANY),
    "LeakyRelu": (lambda x, alpha: tf.where(x > 0, x, alpha * x), {"alpha": 0.01}, ANY),
    "Log": (lambda x: tf.math.log(x), {}, ANY),
    "Mish": (lambda x: x * tf.tanh(tf.math.log1p(tf.exp(x))), {}, ANY),
    "Relu": (lambda x: tf.maximum(x, 0.0), {}, ANY),
    "Round": (lambda x: tf.round(x), {}, ANY),
    "ScaledTanh": (lambda x, alpha, beta: alpha * tf.tanh(beta * x), {"alpha": 1.0, "beta": 1.0}, ANY),
    "Selu": (
        lambda x, alpha, gamma: gamma * tf.where(x > 0, x, alpha * (tf.exp(tf.minimum(x, 0.0)) - 1)),
        {"alpha": 1.67326319217681884765625, "gamma": 1.05070102214813232421875},
        ANY,
    ),
    "Sigmoid": (lambda x: 1 / (1 + tf.exp(-x)), {}, (0, 1)),
    "Sign": (lambda x: tf.sign(x), {}, (-1, 1)),
    "Sin": (lambda x: tf.sin(x), {}, (-1, 1)),
    "Sinh": (lambda x: tf.sinh(x), {}, ANY),
    "Softplus": (lambda x: tf.maximum(x, 0.0) + tf.math.log1p(tf.exp(-tf.abs(x))), {}, (0, math.inf)),
    "Softsign": (lambda x: x / (1 + tf.abs(x)), {}, (-1, 1)),
    "Sqrt": (lambda x: tf.sqrt(x), {}, (0, math.inf)),
    "Swish": (lambda x, alpha: x / (1 + tf.exp(-alpha * x)), {"alpha": 1.0}, ANY),
    "Tan": (lambda x: tf.tan(x), {}, ANY),
    "Tanh": (lambda x: tf.tanh(x), {}, (-1, 1)),
    "ThresholdedRelu": (lambda x, alpha: tf.where(x > alpha, x, 0.0), {"alpha": 1.0}, ANY),
}


def elementwise(name: str, settings: dict[str, Any]) -> tuple[Callable[[Any], Any], tuple[float, float]]:
    function, defaults, bounds = ACTIVATIONS[name]
    given = {**defaults, **{k: v for k, v in settings.items() if k in defaults}}
    return (lambda x: function(tf.convert_to_tensor(x, tf.float64), **given)), bounds


def gelu(x: Any, approximate: str = "none") -> Any:
    if approximate == "tanh":
        return 0.5 * x * (1 + tf.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + tf.math.erf(x / math.sqrt(2)))


# the program: one method an op


class Program:
    """Runs a graph forward; ``points`` are the places where relevance may end, by name."""

    def __init__(self, graph: Graph, feeds: dict[str, np.ndarray], probe: Program | None = None) -> None:
        self.graph = graph
        self.probe = probe
        self.counts: dict[str, int] = {}
        self.points: dict[str, Value] = {}
        self.lens: list[tuple[np.ndarray, Any]] = []
        env: dict[str, Any] = {}
        for value in graph.inputs:
            now = as64(feeds[value.name])
            if now.dtype.kind == "f":
                env[value.name] = self.points[value.name] = Value(now, "point")
            else:
                env[value.name] = Value(now, valued=now.dtype.kind in "iu")
        self.env = self.run(graph, env)

    def run(self, graph: Graph, env: dict[str, Any]) -> dict[str, Any]:
        env = {**env, **{name: constant(array) for name, array in graph.constants.items()}}
        for node in graph.nodes:
            if any(isinstance(env.get(n), Missing) for n in node.inputs):
                lost = next(env[n] for n in node.inputs if isinstance(env.get(n), Missing))
                outs: Any = [lost] * len(node.outputs)
            else:
                try:
                    outs = self.step(node, env)
                except Missing as error:
                    outs = [error] * len(node.outputs)
            env.update({name: out for name, out in zip(node.outputs, outs, strict=False) if name})
        return env

    def step(self, node: Node, env: dict[str, Any]) -> Sequence[Any]:
        args = [env[n] if n else None for n in node.inputs]
        at = dict(node.attributes)
        if node.graphs:
            return getattr(self, f"op_{node.op.lower()}")(node, args, env)
        values = [a for a in args if isinstance(a, Value)]
        if node.op in ("Shape", "Size"):
            shape = np.asarray(np.shape(args[0].now)[slice(at.get("start", 0), at.get("end"))], np.int64)
            now = np.asarray(np.size(args[0].now)) if node.op == "Size" else shape
            return [Value(now, constant=args[0].constant, shaped=True)]
        method = getattr(self, "op_" + node.op.lower(), None)
        dead = not any(a.live for a in values) and all(isinstance(a, Value) or a is None for a in args)
        if dead and (method is None or node.op not in KEPT):
            return self.dead(node, args, values)
        if node.op in ACTIVATIONS:
            function, bounds = elementwise(node.op, at)
            if node.op in ("Relu", "Abs"):
                low, high = args[0].bounds
                bounds = (max(0, low), max(0, high)) if node.op == "Relu" else (0, max(-low, high))
            return [activation(function, args[0], bounds)]
        if node.op in MOVES and at.get("reduction", "none") == "none" and not node.domain:
            return [self.moved(node, args, MOVES[node.op])]
        if method is None:
            raise Missing(f"{node.domain}:{node.op}" if node.domain else node.op)
        out = method(node, args, **at)
        return out if isinstance(out, list) else [out]

    def dead(self, node: Node, args: Sequence[Any], values: Sequence[Value]) -> list[Value]:
        """What carries no relevance is run by numpy or onnxruntime, in float64 where they can."""
        try:
            results = evaluate(node, [None if a is None else a.now for a in args], self.graph.opsets)
        except Exception as error:
            raise Missing(f"{node.op}: {str(error)[:300]}") from error
        outs = []
        moved = node.op in ROUTES
        for name, result in zip(node.outputs, results, strict=False):
            out = data(result, values)
            if moved and values[0].is_float:
                out.mask, out.bounds = values[0].mask, values[0].bounds
            if node.op in ("Expand", "ConstantOfShape", "Tile") and not out.constant:
                out.filled = True
            if out.is_float and out.shaped and not out.constant and out.filled:
                out.state, out.bounds = True, ANY
            if out.is_float and any(a.valued for a in values) and not out.mask and name:
                out = self.points[name] = Value(out.now, "point")
            outs.append(out)
        return outs

    def single(self, node: Node, count: int) -> bool:
        """Whether a sum has one term, whatever the open sizes are: also in the run where they are others."""
        name = next(o for o in node.outputs if o)
        self.counts[name] = max(count, self.counts.get(name, 1))
        return count == 1 and (self.probe is None or self.probe.counts.get(name, 1) == 1)

    # plumbing

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

    # affine

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

    def op_maxpool(self, node: Node, args: Sequence[Value], *, kernel_shape: Any, **at: Any) -> Value:
        x = args[0]
        places = windows(x.now.shape[2:], kernel_shape, **at)  # (K, outputs)
        out = places.shape[1:]
        flat = x.now.reshape(*x.now.shape[:2], -1)
        candidates = np.where(places.reshape(len(places), -1) >= 0, flat[..., places.reshape(len(places), -1)], -np.inf)
        first = np.argmax(candidates, 2)  # (B, C, outputs)
        winner = np.take_along_axis(places.reshape(1, 1, len(places), -1), first[:, :, None], 2)[:, :, 0]
        lead = x.now.shape[:2]
        return route(lambda t: tf.reshape(tf.gather(tf.reshape(t, [*lead, -1]), winner, axis=2, batch_dims=2), [*lead, *out]), x)

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

    # comparisons and their like read values alone

    def forward_only(self, node: Node, args: Sequence[Any], **at: Any) -> list[Value]:
        values = [a for a in args if a is not None]
        now = evaluate(node, [None if a is None else a.now for a in args], self.graph.opsets)
        moving = [v for v in values if not v.constant]
        origin = moving[0].origin | {moving[0]} if len(moving) == 1 else frozenset()
        return [data(n, values, origin=origin) for n in now]

    op_equal = op_less = op_lessorequal = op_greater = op_greaterorequal = forward_only
    op_isnan = op_isinf = op_argmax = op_argmin = forward_only

    # control flow

    def op_if(self, node: Node, args: Sequence[Value], env: dict[str, Any]) -> list[Any]:
        branch = node.attributes["then_branch" if np.all(args[0].now) else "else_branch"]
        inner = self.run(branch, env)
        return [inner[v.name] for v in branch.outputs]

    def op_loop(self, node: Node, args: Sequence[Any], env: dict[str, Any]) -> list[Any]:
        body: Graph = node.attributes["body"]
        trips = int(args[0].now) if args[0] is not None else 2**31
        going = args[1] is None or bool(args[1].now)
        names = [v.name for v in body.inputs[2:]]
        kept = [comes_from(body, out.name) == name for out, name in zip(body.outputs[1:], names, strict=False)]
        states = [initial(a, fixed=k) for a, k in zip(args[2:], kept, strict=True)]
        scans: list[list[Value]] = [[] for _ in body.outputs[1 + len(states) :]]
        k = 0
        while going and k < trips:
            now = {body.inputs[0].name: constant(np.asarray(k)), body.inputs[1].name: constant(np.asarray(True))}
            inner = self.run(body, {**env, **now, **dict(zip(names, states, strict=True))})
            going = bool(inner[body.outputs[0].name].now)
            new = [inner[v.name] for v in body.outputs[1:]]
            states = [old if f else carried(v) for old, v, f in zip(states, new, kept, strict=False)]
            for scan, value in zip(scans, new[len(states) :], strict=True):
                scan.append(value)
            k += 1
        return [*states, *(stack(s, 0) for s in scans)]

    def op_scan(self, node: Node, args: Sequence[Any], env: dict[str, Any]) -> list[Any]:
        body: Graph = node.attributes["body"]
        at = node.attributes
        count = len(args) - at["num_scan_inputs"]
        names = [v.name for v in body.inputs]
        kept = [comes_from(body, out.name) == name for out, name in zip(body.outputs[:count], names, strict=False)]
        states = [initial(a, fixed=k) for a, k in zip(args[:count], kept, strict=True)]
        axes = at.get("scan_input_axes", [0] * at["num_scan_inputs"])
        backwards = at.get("scan_input_directions", [0] * at["num_scan_inputs"])
        out_axes = at.get("scan_output_axes", [0] * (len(body.outputs) - count))
        out_backwards = at.get("scan_output_directions", [0] * (len(body.outputs) - count))
        steps = args[count].now.shape[axes[0]]
        scans: list[list[Value]] = [[] for _ in out_axes]
        for k in range(steps):
            rows = [slot(x, steps - 1 - k if b else k, a) for x, a, b in zip(args[count:], axes, backwards, strict=True)]
            inner = self.run(body, {**env, **dict(zip(names, [*states, *rows], strict=True))})
            new = [inner[v.name] for v in body.outputs]
            states = [old if f else carried(v) for old, v, f in zip(states, new, kept, strict=False)]
            for scan, value in zip(scans, new[count:], strict=True):
                scan.append(value)
        return [*states, *(stack(s[::-1] if b else s, a) for s, a, b in zip(scans, out_axes, out_backwards, strict=True))]

    # recurrent nodes, step by step

    def op_lstm(self, node: Node, args: Sequence[Any], **at: Any) -> list[Value]:
        return self.recurrent(node, args, ("Sigmoid", "Tanh", "Tanh"), 2, lstm_step, at)

    def op_gru(self, node: Node, args: Sequence[Any], **at: Any) -> list[Value]:
        return self.recurrent(node, args, ("Sigmoid", "Tanh"), 1, gru_step, at)

    def op_rnn(self, node: Node, args: Sequence[Any], **at: Any) -> list[Value]:
        return self.recurrent(node, args, ("Tanh",), 1, rnn_step, at)

    def recurrent(self, node: Node, args: Sequence[Any], defaults: Any, count: int, step: Any, at: dict[str, Any]) -> list[Value]:
        given = [*args, *[None] * (8 - len(args))]
        x, w, r, b, lens = given[:5]
        starts = given[5 : 5 + count]
        first = bool(at.get("layout", 0))
        if first:
            x = route(lambda t: tf.transpose(t, [1, 0, 2]), x)
            starts = [None if s is None else route(lambda t: tf.transpose(t, [1, 0, 2]), s) for s in starts]
        steps, batch = x.now.shape[:2]
        size, direction = r.now.shape[-1], at.get("direction", "forward")
        flags = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}[direction]
        functions = list(settled(at.get("activations") or defaults * len(flags), at))
        lengths = None if lens is None else lens.now.astype(np.int64)
        if lengths is not None:
            self.lens.append((lengths, steps))
        ys, finals = [], []
        for d, backwards in enumerate(flags):
            weights = {
                "w": w.now[d],
                "r": r.now[d],
                "b": np.zeros(w.now.shape[1] * 2) if b is None else b.now[d],
                "p": None if given[7] is None else given[7].now[d],
                "functions": functions[d * len(defaults) : (d + 1) * len(defaults)],
                "at": at,
                "size": size,
            }
            states = [
                data(np.zeros((batch, size)), [])
                if s is None
                else route(lambda t: tf.broadcast_to(t, [batch, size]), slot(s, d, 0))
                for s in starts
            ]
            rows = reverse(x, np.full(batch, steps) if lengths is None else lengths, 0, 1) if backwards else x
            outs = []
            for t in range(steps):
                new = step(slot(rows, t, 0), states, weights)
                if lengths is not None:
                    valid = (t < lengths)[:, None]
                    new = [route(lambda a, c, valid=valid: tf.where(valid, a, c), a, c) for a, c in zip(new, states, strict=True)]
                    outs.append(scale(constant(valid.astype(np.float64)), new[0]))
                else:
                    outs.append(new[0])
                states = new
            y = stack(outs, 0)
            ys.append(reverse(y, np.full(batch, steps) if lengths is None else lengths, 0, 1) if backwards else y)
            finals.append(states)
        y = stack(ys, 1)
        results = [y, *(stack(s, 0) for s in zip(*finals, strict=True))]
        if first:
            results = [route(lambda t: tf.transpose(t, [2, 0, 1, 3]), y), *results[1:]]
            results[1:] = [route(lambda t: tf.transpose(t, [1, 0, 2]), s) for s in results[1:]]
        return results


# ops that may turn data into an attribution point, or know more of data than the evaluator behind
KEPT = {
    "SequenceConstruct",
    "SequenceEmpty",
    "SequenceInsert",
    "SequenceErase",
    "SequenceLength",
    "ConcatFromSequence",
    "Cast",
    "Identity",
    "Not",
    "Mul",
    "Sub",
    "Add",
    "SplitToSequence",
    "SequenceAt",
    "Loop",
    "If",
    "Scan",
}
ROUTES = {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Split", "Slice", "Gather", "Expand", "Tile"}


# ops that only move entries → the inputs whose entries they move
MOVES: dict[str, tuple[int, ...]] = {
    "Compress": (0,),
    "DepthToSpace": (0,),
    "GatherElements": (0,),
    "GatherND": (0,),
    "Pad": (0, 2),
    "Scatter": (0, 2),
    "ScatterElements": (0, 2),
    "ScatterND": (0, 2),
    "SpaceToDepth": (0,),
    "Trilu": (0,),
}


def ints(x: Value) -> list[int]:
    return [int(v) for v in np.reshape(x.now, -1)]


def axes_of(args: Sequence[Any], axes: Any) -> list[int] | None:
    if axes is None and len(args) > 1 and args[1] is not None:
        axes = args[1].now
    return None if axes is None else [int(a) for a in np.reshape(axes, -1)]


def slot(x: Value, k: int, axis: int) -> Value:
    """x at index k of an axis, the axis dropped."""
    return route(lambda t: tf.gather(t, k, axis=axis), x)


def stack(xs: Sequence[Value], axis: int) -> Value:
    return route(lambda *ts: tf.stack(ts, axis), *xs)


def reverse(x: Value, lens: np.ndarray, time: int, batch: int) -> Value:
    """The first lens entries of each sample in reverse, the others where they are."""
    steps, lengths = x.now.shape[time], np.asarray(lens, np.int64)
    k = np.arange(steps)
    source = np.where(k[None] < lengths[:, None], lengths[:, None] - 1 - k[None], k[None])  # (B, T)
    order = [batch, time, *(a for a in range(x.now.ndim) if a not in (batch, time))]
    back = [int(a) for a in np.argsort(order)]
    return route(lambda t: tf.transpose(tf.gather(tf.transpose(t, order), source, axis=1, batch_dims=1), back), x)


def matmul(a: Value, b: Value, alpha: float = 1.0, *, single: bool = False) -> Value:
    """alpha · a @ b; ``single``: each entry is one product, no sum."""

    def times(x: Any, y: Any) -> Any:
        x, y = tf.convert_to_tensor(x), tf.convert_to_tensor(y)
        left, right = (x[None] if len(x.shape) == 1 else x), (y[:, None] if len(y.shape) == 1 else y)
        z = alpha * tf.matmul(left, right)
        z = z[..., 0] if len(y.shape) == 1 else z
        return (z[..., 0, :] if len(y.shape) > 1 else z[..., 0]) if len(x.shape) == 1 else z

    if a.live and b.live:
        if not (a.gate or b.gate):
            return halves(times, a, b) if single else rooted(halves(times, a, b))
        coefficient, signal = (a, b) if a.gate else (b, a)
    elif a.live or b.live:
        coefficient, signal = (a, b) if b.live else (b, a)
    else:
        return data(times(a.now, b.now), [a, b])
    fixed, first = coefficient.now, coefficient is a
    function = (lambda x: times(fixed, x)) if first else (lambda x: times(x, fixed))
    weights = coefficient.constant  # over one entry a gate passes on what it gets; weights make a layer all the same
    return build("sum", function, [signal], [0] if weights else [], summed=weights or not single)


def rooted(x: Value) -> Value:
    """A sum with a stabilizer of its own, whatever reads it."""
    x.kind, x.root, x.summed, x.operands = "sum", True, True, frozenset(range(len(x.sources)))
    return x


def windows(
    sizes: Sequence[int],
    kernel: Sequence[int],
    *,
    strides: Any = None,
    pads: Any = None,
    dilations: Any = None,
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    **_: Any,
) -> np.ndarray:
    """(K, *outputs): which entry, row-major, each place of the kernel sees at each output; -1: padding."""
    n = len(sizes)
    strides, dilations, pads = strides or [1] * n, dilations or [1] * n, list(pads or [0] * 2 * n)
    rows = []
    for axis in range(n):
        reach = (kernel[axis] - 1) * dilations[axis] + 1
        if auto_pad.startswith("SAME"):
            out = -(-sizes[axis] // strides[axis])
            whole = max((out - 1) * strides[axis] + reach - sizes[axis], 0)
            pads[axis] = whole // 2 if auto_pad == "SAME_UPPER" else -(-whole // 2)
            pads[n + axis] = whole - pads[axis]
        room = sizes[axis] + pads[axis] + pads[n + axis] - reach
        out = (-(-room // strides[axis]) if ceil_mode else room // strides[axis]) + 1
        if ceil_mode and (out - 1) * strides[axis] >= sizes[axis] + pads[axis]:
            out -= 1
        at = np.arange(kernel[axis])[:, None] * dilations[axis] + np.arange(out)[None] * strides[axis] - pads[axis]
        rows.append(np.where((at >= 0) & (at < sizes[axis]), at, -1))  # (k, out)
    places = np.zeros((1,) * n * 2, np.int64)
    bad = np.zeros((1,) * n * 2, bool)
    for axis, row in enumerate(rows):
        shape = [1] * 2 * n
        shape[axis], shape[n + axis] = row.shape
        places = places * sizes[axis] + row.reshape(shape)
        bad = bad | (row.reshape(shape) < 0)
    places = np.where(bad, -1, places)
    return places.reshape(-1, *places.shape[n:])


def convolution(x: Value, w: np.ndarray, *, group: int = 1, kernel_shape: Any = None, **at: Any) -> Value:
    places = windows(x.now.shape[2:], w.shape[2:], **at)  # (K, outputs)
    flat, out = places.reshape(-1), places.shape[1:]
    kernel = w.reshape(group, w.shape[0] // group, w.shape[1], -1)  # (G, M/G, C/G, K)
    batch, channels = x.now.shape[:2]

    def call(t: Any) -> Any:
        seen = tf.gather(tf.reshape(t, [batch, channels, -1]), np.maximum(flat, 0), axis=2)
        seen = tf.reshape(tf.where(flat >= 0, seen, tf.zeros([], tf.float64)), [batch, group, channels // group, len(places), -1])
        return tf.reshape(tf.einsum("bgckp,gmck->bgmp", seen, kernel), [batch, w.shape[0], *out])

    return build("sum", call, [x], [0], summed=True)


def comes_from(body: Graph, name: str) -> str:
    """The tensor that a name is another name of."""
    while name in body.producers and body.producers[name].op == "Identity":
        name = body.producers[name].inputs[0]
    return name


def initial(x: Value, *, fixed: bool) -> Value:
    """A loop's initial state: a captured constant if the body returns it unchanged, else a signal without bounds."""
    if fixed or not isinstance(x, Value) or not x.is_float:
        return x
    if x.live:
        return route(lambda t: tf.identity(t), x, bounds=ANY)
    return Value(x.now, state=True)


def carried(x: Value) -> Value:
    if not isinstance(x, Value) or not x.live:
        return Value(x.now, state=True) if x.is_float else x
    x.root = True
    return route(lambda t: tf.identity(t), x, bounds=ANY)


def settled(names: Sequence[str], at: dict[str, Any]) -> Any:
    """Activation functions; alpha and beta are consumed in order by those that take them."""
    alphas, betas = list(at.get("activation_alpha") or ()), list(at.get("activation_beta") or ())
    known = {n.lower(): n for n in ACTIVATIONS}
    for given in names:
        name = known[given.lower()]
        takes = ACTIVATIONS[name][1]
        settings = {k: pool.pop(0) for k, pool in (("alpha", alphas), ("beta", betas)) if k in takes and pool}
        yield elementwise(name, settings)[0]


def clamped(z: Any, weights: dict[str, Any]) -> Any:
    clip = weights["at"].get("clip")
    return tf.clip_by_value(z, -clip, clip) if clip else z


def pre(x: Value, h: Value, weights: dict[str, Any], k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Weights of gate k: of x, of h, and both biases."""
    size, rows = weights["size"], weights["w"].shape[0]
    own = slice(k * size, (k + 1) * size)
    b = weights["b"]
    return weights["w"][own].T, weights["r"][own].T, b[:rows][own], b[rows:][own]


def dense(x: Value, h: Value, weights: dict[str, Any], k: int) -> Value:
    """The pre-activation of gate k over x and h."""
    w, r, b, c = pre(x, h, weights, k)
    return build("sum", lambda x, h: tf.matmul(x, w) + tf.matmul(h, r) + b + c, [x, h], [0, 1], summed=True)


def gate(z: Any, weights: dict[str, Any]) -> Value:
    return Value(np.asarray(weights["functions"][0](clamped(z, weights))), bounds=(0, 1))


def through(z: Value, weights: dict[str, Any], which: int) -> Value:
    return activation(lambda t: weights["functions"][which](clamped(t, weights)), z)


def lstm_step(x: Value, states: Sequence[Value], weights: dict[str, Any]) -> list[Value]:
    h, c = states
    p, size = weights["p"], weights["size"]
    i, o, f = (dense(x, h, weights, k).now for k in (0, 1, 2))
    g = through(dense(x, h, weights, 3), weights, 1)
    i = gate(i if p is None else i + p[:size] * c.now, weights)
    f = gate(f if p is None else f + p[2 * size :] * c.now, weights)
    if weights["at"].get("input_forget"):
        f = Value(1 - i.now)
    new = total([scale(f, c), scale(i, g)], [1.0, 1.0])
    new.root = True
    o = gate(o if p is None else o + p[size : 2 * size] * new.now, weights)
    return [scale(o, activation(weights["functions"][2], new)), new]


def gru_step(x: Value, states: Sequence[Value], weights: dict[str, Any]) -> list[Value]:
    (h,) = states
    z, r = (gate(dense(x, h, weights, k).now, weights) for k in (0, 1))
    w, u, b, c = pre(x, h, weights, 2)
    if weights["at"].get("linear_before_reset"):
        n = build("sum", lambda x, h: tf.matmul(x, w) + b + r.now * (tf.matmul(h, u) + c), [x, h], [0, 1], summed=True)
    else:
        n = dense(x, scale(r, h), weights, 2)
    new = total([scale(Value(1 - z.now), through(n, weights, 1)), scale(z, h)], [1.0, 1.0])
    new.root = True
    return [new]


def rnn_step(x: Value, states: Sequence[Value], weights: dict[str, Any]) -> list[Value]:
    return [through(dense(x, states[0], weights, 0), weights, 0)]


# where relevance starts

FINAL = ("Softmax", "LogSoftmax", "Sigmoid")
STEPPED = (
    "Identity",
    "Cast",
    "Reshape",
    "Squeeze",
    "Unsqueeze",
    "Flatten",
    "Transpose",
    "Slice",
    "Gather",
    "ArgMax",
    "ArgMin",
    "TopK",
    "ZipMap",
)


def alive(x: Any) -> bool:
    return isinstance(x, Value) and x.live


def explained(program: Program) -> tuple[str, int | None, bool, bool]:
    """(tensor, class axis if a last node names one, whether it is the logit of a [1 − p, p] head, whether the least is chosen)."""
    graph, env = program.graph, program.env
    names = [v.name for v in graph.outputs]
    for name in [n for n in names if alive(env.get(n))] + [n for n in names if not alive(env.get(n))]:
        at, axis, two, least = name, None, False, False
        while at in graph.producers:
            node = graph.producers[at]
            if node.op in FINAL:
                at = node.inputs[0]
                if node.op != "Sigmoid":
                    axis = node.attributes.get("axis", 1 if node.version < 13 else -1)
                break
            if node.op == "Concat" and len(node.inputs) == 2 and env[node.inputs[0]].live:
                p, q = env[node.inputs[1]], env[node.inputs[0]]
                if q.terms and complement(p, q):
                    at, two = node.inputs[1], True
                    continue
                at = name
                break
            if node.op == "ArrayFeatureExtractor":
                at = node.inputs[1]
            elif node.op in STEPPED:
                least |= node.op == "ArgMin" or (node.op == "TopK" and not node.attributes.get("largest", 1))
                if node.op in ("ArgMax", "ArgMin", "TopK"):
                    axis = node.attributes.get("axis", -1 if node.op == "TopK" else 0)
                at = node.inputs[0]
            else:
                if alive(env.get(name)):
                    at = name
                break
        if alive(env.get(at)):
            return at, axis, two, least
    lost = [v for v in env.values() if isinstance(v, Missing)]
    raise lost[0] if lost else Missing("a path that begins behind a comparison")


def chosen(program: Program) -> tuple[Value, np.ndarray]:
    """(explained value, gradient of the score): 1 at the predicted class of every position, 0 elsewhere."""
    name, axis, two, least = explained(program)
    z = program.env[name]
    now = z.now
    if two:
        return z, np.where(now > 0, 1.0, -1.0)
    if now.ndim < 2:
        return z, np.ones(now.shape)
    axis = now.ndim - 1 if axis is None else axis % now.ndim
    pick = np.zeros(now.shape)
    np.put_along_axis(pick, np.expand_dims((np.argmin if least else np.argmax)(now, axis), axis), 1.0, axis)
    for lengths, steps in program.lens:
        if now.ndim == 3 and now.shape[1] == steps and now.shape[0] == len(lengths):
            pick *= (np.arange(steps)[None] < lengths[:, None])[:, :, None]
        elif now.ndim == 3 and now.shape[0] == steps and now.shape[1] == len(lengths):
            pick *= (np.arange(steps)[:, None] < lengths[None])[:, :, None]
    return z, pick


# which values are roots, and the way back


def tiny(x: Any) -> Any:
    return tf.where(x == 0, tf.constant(TINY, tf.float64), x)


def back(z: Value, gradient: np.ndarray, points: dict[str, Value], epsilon: float) -> dict[str, np.ndarray]:
    """Relevance at every point that z depends on."""
    order: list[Value] = []
    seen: set[Value] = set()
    stacked = [z]
    while stacked:
        x = stacked.pop()
        if x not in seen:
            seen.add(x)
            order.append(x)
            stacked.extend(x.sources)
    order.sort(key=lambda x: x.number)
    roots = roots_of(z, order)
    leaves = {x: tf.Variable(x.now, dtype=tf.float64) for x in order if x.kind == "point"}
    tensors: dict[Value, Any] = {}
    with tf.GradientTape() as tape:
        for x in order:
            if x.kind == "point":
                tensors[x] = tf.identity(leaves[x])
                continue
            tensors[x] = modified(x, [tensors[s] for s in x.sources], epsilon if x in roots else None)
        score = tf.reduce_sum(tensors[z] * gradient)
    names = {x: n for n, x in points.items()}
    slopes = tape.gradient(score, list(leaves.values()))
    return {names[x]: (tiny(leaf) * slope).numpy() for (x, leaf), slope in zip(leaves.items(), slopes, strict=True)}


def roots_of(z: Value, order: Sequence[Value]) -> set[Value]:
    """Values where a block with a sum ends; ``order``: all that z depends on, sources first."""
    taken = {z}  # read as something else than an affine term
    selects = set()
    for x in reversed(order):
        taken.update(x.sources[k] for k in x.operands)
        if x.root:
            taken.add(x)
        if x in taken and mixture(x) == "mask":
            selects.add(x)
        if x.kind == "pass" or (x in taken and (x.kind == "route" or x in selects)):
            taken.update(x.sources)
    roots: set[Value] = set()
    sums: set[Value] = set()  # values inside a block that hold a sum
    for x in order:
        inner = any(s in sums for k, s in enumerate(x.sources) if k not in x.operands)
        if x.kind in ("sum", "route") and (x.summed or inner) and x not in selects:
            if x not in taken:
                sums.add(x)
            elif x.kind == "sum":
                roots.add(x)
    return roots


def modified(x: Value, sources: Sequence[Any], epsilon: float | None) -> Any:
    """The value under the tape; ``epsilon``: it is a block's root and has a stabilizer."""
    if x.kind == "pass" and len(sources) == 1:
        (source,) = sources
        secant = tf.stop_gradient(tiny(tf.convert_to_tensor(x.now)) / tiny(source))
        return x.now + secant * (source - tf.stop_gradient(source))
    assert x.function is not None
    y = x.function(*sources)
    if epsilon is None:
        return y
    value = tf.stop_gradient(y)
    stabilizer = tf.where(value >= 0, tf.constant(epsilon, tf.float64), -epsilon)
    return value + tf.stop_gradient(tiny(value) / (value + stabilizer)) * (y - value)


def relevance(model: Any, feeds: dict[str, np.ndarray], epsilon: float = 1e-3) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """({attribution point: relevance}, seed of the explained tensor's shape) for the predicted class."""
    graph = load_graph(model)
    if any(n.origin is not None and n.origin.op == "LinearClassifier" for n in graph.nodes):
        raise Missing("the head of a LinearClassifier")
    program = Program(graph, feeds)
    if 1 in program.counts.values():
        program = Program(graph, feeds, probe(graph, feeds))
    z, gradient = chosen(program)
    return back(z, gradient, program.points, epsilon), z.now * gradient


def probe(graph: Graph, feeds: dict[str, np.ndarray]) -> Program | None:
    """A run with more entries along every short open axis, which tells sizes that are always 1 from those that are 1 today."""
    more = dict(feeds)
    for value in graph.inputs:
        for axis, size in enumerate(value.shape or ()):
            if not isinstance(size, int) and np.shape(feeds[value.name])[axis] <= 4:
                more[value.name] = np.repeat(more[value.name], 5, axis)
    try:
        return Program(graph, more)
    except Exception:  # weights for one batch size
        return None
