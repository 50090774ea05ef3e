"""Inputs that a model scales first: which tensors hold an input's own features, each scaled and shifted for itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .graph import Graph

__all__ = ["note", "scaled"]

SHIFTS = ("Add", "Sub")
OPS = (*SHIFTS, "Mul", "Div", "Identity", "Cast", "Scaler")  # with constants, entry by entry


def scaled(graph: Graph) -> dict[str, str]:
    """{internal tensor: the graph input whose features it holds, one by one}."""
    return {name: source for name, (source, _) in _walk(graph).items()}


def note(graph: Graph, points: Sequence[str]) -> list[str]:
    """What to know of inputs that are explained and shifted first.

    Args:
        points: attribution points.
    """
    outputs = {v.name for v in graph.outputs}
    last: dict[str, tuple[str, bool]] = {}
    for name, (source, shifted) in _walk(graph).items():
        below, _ = last.get(source, (source, False))
        if graph.readers[below] == [graph.producers[name]] and name not in outputs:  # all that is read of it goes through here
            last[source] = (name, shifted)
    behind = {source: name for source, (name, shifted) in last.items() if shifted}
    return [
        f"{source!r} is scaled and shifted first: its relevance counts the values from zero, and what is shifted is absorbed as "
        f"bias; at={behind[source]!r} explains what the model sees, feature by feature"
        for source in points
        if source in behind
    ]


def _walk(graph: Graph) -> dict[str, tuple[str, bool]]:
    """{tensor behind a graph input: (the input, whether something was added on the way)}, in the graph's order."""
    found = {v.name: (v.name, False) for v in graph.inputs if v.dtype is not None}
    inputs = set(found)
    for node in graph.nodes:
        signals = [n for n in node.inputs if n and n not in graph.constants]
        if node.op not in OPS or len(signals) != 1 or signals[0] not in found or node.graphs:
            continue
        source, shifted = found[signals[0]]
        added = [graph.constants[n] for n in node.inputs if n in graph.constants]
        if node.op == "Scaler":
            added = [np.asarray(node.attributes.get("offset", 0.0))]
        shifted |= node.op in (*SHIFTS, "Scaler") and any(bool(np.any(a)) for a in added)
        found[node.outputs[0]] = (source, shifted)
    return {name: entry for name, entry in found.items() if name not in inputs}
