"""Relevance on its way down the graph: how much went along every edge, told by conservation from what the books say.

At a layer, what arrives at its outputs = what it hands to its inputs + what it absorbs; at a tensor, what arrives is the sum of
what its readers hand it. These equations are solved one unknown at a time; tensors that ``keep=`` measured fill in where branches
leave it open.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ..books import Books

if TYPE_CHECKING:
    from ..explainer import Explainer
    from ..explanation import Explanation
    from ..summary import Row, Summary

__all__ = ["Edge", "Flow", "Node", "branching", "flow", "levels", "open_tensors", "without"]

SCORE = "score"
Key = tuple[str, str]  # (reader's key, tensor)


@dataclass(frozen=True)
class Node:
    """A layer, the score at the top, or an input at the bottom.

    Attributes:
        key: unique.
        title: what it does.
        lines: what else there is to say: node, shape, rule.
        amount: relevance that arrived, None: unknown.
        absorbed: {kind: what ended here}.
    """

    key: str
    title: str
    lines: tuple[str, ...]
    amount: float | None
    absorbed: Mapping[str, float] = field(default_factory=dict)
    kind: str = "layer"


@dataclass(frozen=True)
class Edge:
    """Relevance from a node down to another; None: branches that conservation can't tell apart."""

    upper: str
    lower: str
    amount: float | None
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Flow:
    """Nodes from the score down to the inputs, and the edges between them."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]


@dataclass
class _Layer:
    """A layer with what it makes and takes, loops with all that is inside them."""

    rows: list[Row]
    names: list[str]
    outputs: list[str]
    inputs: list[str]

    @property
    def key(self) -> str:
        return self.outputs[0]


def _layers(summary: Summary) -> list[_Layer]:
    """In the order of the program. Rows of a loop's body follow the loop's own, indented."""
    layers: list[_Layer] = []
    for row in summary.rows:
        if row.name.startswith("  ") and layers:
            layers[-1].names.append(row.name.strip())
            continue
        if layers and layers[-1].rows[0].name == row.name and layers[-1].rows[0].layer == row.layer and not layers[-1].names[1:]:
            last = layers[-1]
            last.rows.append(row)
            last.outputs.append(row.output)
            last.inputs += [n for n in row.inputs if n not in last.inputs]
        else:
            layers.append(_Layer([row], [row.name], [row.output], list(dict.fromkeys(row.inputs))))
    return layers


@dataclass
class _Books:
    """What is known of tensors, edges and layers, in raw names."""

    tensors: dict[str, float]
    edges: dict[Key, float]
    absorbed: dict[str, float]


def _solve(layers: Sequence[_Layer], known: _Books) -> None:
    """Fill in what follows from what is known."""
    readers: dict[str, list[str]] = {}
    for layer in layers:
        for name in layer.inputs:
            readers.setdefault(name, []).append(layer.key)
    changed = True
    while changed:
        changed = False
        for name, keys in readers.items():  # a tensor is the sum of its readers' edges
            edges = [(key, name) for key in keys]
            missing = [e for e in edges if e not in known.edges]
            total = math.fsum(known.edges[e] for e in edges if e in known.edges)
            if not missing and name not in known.tensors:
                known.tensors[name] = total
                changed = True
            elif len(missing) == 1 and name in known.tensors:
                known.edges[missing[0]] = known.tensors[name] - total
                changed = True
        for layer in layers:  # what arrives leaves again, or is absorbed
            edges = [(layer.key, n) for n in layer.inputs]
            missing = [e for e in edges if e not in known.edges]
            unknown = [o for o in layer.outputs if o not in known.tensors]
            arrived = math.fsum(known.tensors[o] for o in layer.outputs if o in known.tensors)
            left = math.fsum(known.edges[e] for e in edges if e in known.edges) + known.absorbed.get(layer.key, 0.0)
            if len(missing) == 1 and not unknown:
                known.edges[missing[0]] = arrived - left
                changed = True
            elif not missing and len(unknown) == 1 and edges:
                known.tensors[unknown[0]] = left - arrived
                changed = True


def _root(layers: Sequence[_Layer]) -> str | None:
    """The explained tensor: the one that nothing reads."""
    read = {n for layer in layers for n in layer.inputs}
    ends = [o for layer in layers for o in layer.outputs if o not in read]
    return ends[0] if len(ends) == 1 else None


def _points(layers: Sequence[_Layer]) -> set[str]:
    """Where relevance ends: what is made as an attribution point, and what is read but not made."""
    made = {o for layer in layers for o in layer.outputs}
    ends = {r.output for layer in layers for r in layer.rows if r.role == "attribution point"}
    return ends | {n for layer in layers for n in layer.inputs if n not in made}


def open_tensors(summary: Summary) -> list[str]:
    """The tensors to ``keep=`` for a flow without gaps: those where branches part that the books can't tell apart."""
    layers = _layers(summary)
    root = _root(layers)
    if root is None:
        return []
    asked: list[str] = []
    known = _Books({root: 0.0, **dict.fromkeys(_points(layers), 0.0)}, {}, {})
    _solve(layers, known)
    for layer in reversed(layers):
        for name in layer.outputs:
            if name not in known.tensors:
                asked.append(name)
                known.tensors[name] = 0.0
                _solve(layers, known)
    return asked


def flow(summary: Summary, books: Books, passed: Mapping[str, float]) -> Flow | None:
    """The flow of one sample; None where the summary is not of what was explained, or has nothing between score and inputs.

    Args:
        books: with the names of the model.
        passed: {tensor: relevance that passed}, of those that were kept.
    """
    layers = _layers(summary)
    root = _root(layers)
    points = list(books.points)
    names = [name for layer in layers for name in layer.names]
    doubled = {n for n in (layer.names[0] for layer in layers) if names.count(n) > 1} & set(books.ledger)
    if root is None or root in points or set(points) != _points(layers) or set(books.ledger) - set(names) or doubled:
        return None
    absorbed: dict[str, dict[str, float]] = {}
    for layer in layers:
        for name in dict.fromkeys(layer.names):
            for kind, lost in books.ledger.get(name, {}).items():
                kinds = absorbed.setdefault(layer.key, {})
                kinds[kind] = kinds.get(kind, 0.0) + lost
    known = _Books(
        {**passed, **books.points, root: books.seed},
        {},
        {key: math.fsum(kinds.values()) for key, kinds in absorbed.items()},
    )
    _solve(layers, known)
    made = {o: layer for layer in layers for o in layer.outputs}
    nodes = [Node(SCORE, "score", (f"{root}",), books.seed, kind=SCORE)]
    for layer in reversed(layers):
        arrived = [known.tensors.get(o) for o in layer.outputs]
        amount = None if any(a is None for a in arrived) else math.fsum(a for a in arrived if a is not None)
        row = layer.rows[0]
        lines = (row.name, *(f"{r.output} {r.shape}" for r in layer.rows), *([f"rule: {row.rule}"] if row.rule else ()))
        kind = "input" if layer.outputs[0] in points else "layer"
        kept = {k: v for k, v in absorbed.get(layer.key, {}).items() if v}
        nodes.append(Node(layer.key, row.layer.strip(), lines, amount, kept, kind))
    nodes += [Node(p, "input", (p,), books.points[p], kind="input") for p in points if p not in made]
    edges = [Edge(SCORE, made[root].key, books.seed, (root,))]
    for layer in reversed(layers):
        for name in layer.inputs:
            lower = made[name].key if name in made else name
            edges.append(Edge(layer.key, lower, known.edges.get((layer.key, name)), (name,)))
    reached = {e.lower for e in edges} | {SCORE}
    kept_nodes = [n for n in nodes if n.key in reached]
    return _short(Flow(tuple(kept_nodes), tuple(e for e in edges if e.upper in reached)))


def _short(whole: Flow) -> Flow:
    """Without the layers that hand all on to one input unchanged: they are named on the edge instead."""
    edges = list(whole.edges)
    nodes = []
    for node in whole.nodes:
        above = [e for e in edges if e.lower == node.key]
        below = [e for e in edges if e.upper == node.key]
        if node.kind != "layer" or node.absorbed or len(above) != 1 or len(below) != 1 or above[0].upper == SCORE:
            nodes.append(node)
            continue
        upper, lower = above[0], below[0]
        amount = lower.amount if upper.amount is None else upper.amount
        through = f"through {node.title} {node.lines[0]}"
        lines = (*upper.lines, through, *lower.lines)
        at = edges.index(upper)
        edges[at] = Edge(upper.upper, lower.lower, amount, lines)
        edges.remove(lower)
    return Flow(tuple(nodes), tuple(edges))


def levels(whole: Flow) -> Iterator[list[Node]]:
    """The nodes by their longest way from the score, from the top; inputs stand at the bottom."""
    depth = {n.key: 0 for n in whole.nodes}
    for _ in whole.nodes:  # a graph without circles settles in as many rounds as it has nodes
        moved = False
        for edge in whole.edges:
            if depth[edge.lower] <= depth[edge.upper]:
                depth[edge.lower] = depth[edge.upper] + 1
                moved = True
        if not moved:
            break
    bottom = max(depth.values())
    for node in whole.nodes:
        if node.kind == "input" and not any(e.upper == node.key for e in whole.edges):
            depth[node.key] = bottom
    for k in range(bottom + 1):
        yield [n for n in whole.nodes if depth[n.key] == k]


def branching(explainer: Explainer, summary: Summary, keep: Sequence[str] = ()) -> list[str]:
    """What the flow needs beyond what is kept already; nothing of a model whose branches the inputs choose."""
    from ..hidden import resolve

    if explainer._branches is not None:
        return []
    kept = {k.key for k in resolve(explainer._plan, keep)}
    return [name for name in open_tensors(summary) if name not in kept]


def without(explanation: Explanation, names: Sequence[str]) -> Explanation:
    """Without what was kept for the flow alone."""
    hidden = {k: v for k, v in explanation.hidden.items() if k not in names}
    return replace(explanation, hidden=hidden, passed={k: v for k, v in explanation.passed.items() if k in hidden})
