"""Lengths of sequences: which input tells them, whether padding can reach a result, an input for them where the file has none."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

import numpy as np

from .dims import Label
from .graph import Graph, Value
from .layer import Elementwise
from .nested import Step
from .plan import Plan
from .recurrence import Recurrent
from .registry import Var

__all__ = ["LENGTHS", "lengthened", "lens", "mixes_no_steps"]

LENGTHS = "lengths of the sequences"  # no exporter's name
SLOT = 4  # of the recurrent ops of the standard: their sequence_lens
BY_STEP = ("Cast", "Embedding", "Identity", "Squeeze", "Transpose", "Unsqueeze")  # titles of layers that mix no steps
ALIGNED = ("Add", "Mul")  # nor do these, where operands have time at the same place


def lens(plan: Plan) -> str | None:
    """The graph input that tells every recurrent layer its lengths; None if there is none."""
    cast = {s.outputs[0]: s.inputs[0] for s in plan.steps if s.layer.title == "Cast" and s.inputs}
    layers = [step for step in plan.steps if isinstance(step.layer, Recurrent)]
    found = {cast.get(name, name) for step in layers for name in [_lengths_of(step)] if name}
    names = {v.name for v in plan.graph.inputs}
    return next(iter(found)) if len(found) == 1 and found <= names else None


def _lengths_of(step: Step) -> str | None:
    """The tensor that a recurrent layer reads its lengths from."""
    slot = step.layer.slots[1]  # type: ignore[attr-defined]
    return step.inputs[slot] if isinstance(slot, int) else None


def mixes_no_steps(plan: Plan) -> bool:
    """Whether padding can reach no result: along time nothing reads but recurrent layers with lengths, and no output has time."""

    def apart(name: str) -> bool:
        """Whether time is an axis of its own."""
        axis = plan.time_axis(name)
        return axis is not None and len((plan.vars[name].dims or ())[axis].labels) == 1

    def rank(name: str) -> int:
        return len(plan.vars[name].dims or ())

    def places(name: str) -> tuple[int | None, int | None]:
        return plan.time_axis(name), plan.batch_axis(name)

    def behind(name: str) -> int:
        """How many axes stand behind time, by which operands are aligned."""
        return rank(name) - (plan.time_axis(name) or 0)

    def alone(step: Step) -> bool:
        if isinstance(step.layer, Recurrent):
            return _lengths_of(step) is not None
        if step.layer.title in ("Softmax", "LogSoftmax"):
            layer: Any = step.layer
            return not layer.flattened and layer.axis % rank(step.inputs[0]) not in places(step.inputs[0])
        if isinstance(step.layer, Elementwise) or step.layer.title in BY_STEP:
            return True
        x = step.inputs[0]
        if step.layer.title in ALIGNED:
            return len({behind(n) for n in (*step.inputs, *step.outputs) if plan.time_axis(n) is not None}) == 1
        if step.layer.title == "Reshape":  # (T, B, D, H) to (T, B, D · H), as between stacked layers
            return len(step.inputs) == 1 and apart(x) and apart(step.outputs[0])
        return step.layer.title == "Linear" and plan.time_axis(x) not in (None, rank(x) - 1)

    if any(plan.vars[o].dims is None for s in plan.steps for o in s.outputs if o in plan.vars):
        return False  # nobody knows where time is
    timed = [s for s in plan.steps if any(n in plan.vars and plan.time_axis(n) is not None for n in s.inputs)]
    return all(alone(step) for step in timed) and all(plan.time_axis(n) is None for n in plan.outputs if n in plan.vars)


def _label(x: Var, axis: int | None) -> Label | None:
    """The one label of an axis; None: it has several, or none."""
    dim = None if x.dims is None or axis is None else x.dims[axis]
    return next(iter(dim.roots)) if dim is not None and len(dim.roots) == 1 else None


def lengthened(graph: Graph, plan: Plan, timed: Collection[str]) -> Graph | None:
    """The graph with one more input, :data:`LENGTHS` (B,), that every recurrent layer reads: what such a layer says of a padded
    sequence is then what it says of the sequence alone (ONNX, operator LSTM: ``sequence_lens``).

    None where a recurrent layer takes lengths already, is no operator of the standard, runs along another time than that of the
    inputs ``timed``, whose lengths these are, or over more than the samples; and where onnxruntime computes a part.
    """
    times = [_label(plan.vars[name], plan.time_axis(name)) for name in timed]
    for step in plan.steps:
        if isinstance(step.layer, Recurrent):
            x, time = plan.vars[step.inputs[0]], int(step.layer.batch_first)
            times.append(_label(x, time))
            if plan.batch is None or _label(x, 1 - time) is not plan.batch.root:
                return None
    if None in times or len({*times}) != 1:
        return None
    inside = {id(step.node) for step in plan.steps if isinstance(step.layer, Recurrent)}
    nodes = []
    for node in graph.nodes:
        if id(node) in inside and node.op in ("GRU", "LSTM", "RNN") and not node.domain and not any(node.inputs[SLOT:][:1]):
            inside.remove(id(node))
            inputs = [*node.inputs, *[""] * (SLOT + 1 - len(node.inputs))]
            inputs[SLOT] = LENGTHS
            nodes.append(dataclasses.replace(node, inputs=tuple(inputs)))
        else:
            nodes.append(node)
    if inside or plan.prefix or not any(isinstance(step.layer, Recurrent) for step in plan.steps):
        return None
    value = Value(LENGTHS, np.dtype(np.int32), (None,))
    return dataclasses.replace(graph, nodes=tuple(nodes), inputs=(*graph.inputs, value))
