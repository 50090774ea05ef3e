"""Running a graph: nodes in order, what carries no relevance by numpy or onnxruntime."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from onnx_lrp.fold import evaluate
from onnx_lrp.graph import Graph, Node

from .activations import ACTIVATIONS, elementwise
from .values import ANY, Missing, Value, activation, as64, constant, data

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


class Base:
    """Runs a graph forward, one method ``op_…`` a node; ``points`` are the places where relevance may end, by name."""

    def __init__(self, graph: Graph, feeds: dict[str, np.ndarray], probe: Base | None = None) -> None:
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
            if node.op == "Exp":
                bounds = tuple(float(np.exp(min(b, 700.0))) if b < math.inf else math.inf for b in args[0].bounds)
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

    # comparisons and their like read values alone

    def forward_only(self, node: Node, args: Sequence[Any], **at: Any) -> list[Value]:
        values = [a for a in args if a is not None]
        now = evaluate(node, [None if a is None else a.now for a in args], self.graph.opsets)
        moving = [v for v in values if not v.constant]
        origin = moving[0].origin | {moving[0]} if len(moving) == 1 else frozenset()
        return [data(n, values, origin=origin) for n in now]

    op_equal = op_less = op_lessorequal = op_greater = op_greaterorequal = forward_only
    op_isnan = op_isinf = op_argmax = op_argmin = forward_only
