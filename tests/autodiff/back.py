"""Where relevance starts, which values are roots of blocks, and input × gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from onnx_lrp.graph import Graph
from onnx_lrp.reading import load_graph

from .computing import Computing
from .moving import Moving
from .stepping import Stepping
from .values import Missing, Value, complement, mixture

TINY = 1e-100  # what zero counts as where a secant divides by it: 0 = z·φ(z)/z must not lose the relevance of φ(0) ≠ 0


class Program(Moving, Computing, Stepping):
    """A whole graph, run forward."""


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
            inner = graph.producers.get(node.inputs[0])
            if node.op == "Log" and inner is not None and inner.op == "Sigmoid":
                at = inner.inputs[0]
                break
            minus = None if inner is None or not inner.inputs else graph.producers.get(inner.inputs[0])
            if node.op == "Neg" and inner is not None and inner.op == "Softplus" and minus is not None and minus.op == "Neg":
                at = minus.inputs[0]
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
    """A run with more entries along every short open axis, which tells sizes that are always 1 from those that are 1 today.

    Where such a run fails (weights for one batch size), axis by axis.
    """
    short: dict[Any, list[tuple[str, int]]] = {}
    for value in graph.inputs:
        for axis, size in enumerate(value.shape or ()):
            if not isinstance(size, int) and np.shape(feeds[value.name])[axis] <= 4:
                short.setdefault(size or (value.name, axis), []).append((value.name, axis))
    every = [place for places in short.values() for place in places]
    found: Program | None = None
    for group in (every, *short.values()):
        more = dict(feeds)
        for name, axis in group:
            more[name] = np.repeat(more[name], 5, axis)
        try:
            run = Program(graph, more)
        except Exception:
            continue
        if found is None:
            found = run
        found.counts = {name: max(count, run.counts.get(name, 1)) for name, count in found.counts.items()}
        if group is every:
            break
    return found
