"""Ifs: which branch a call takes is found before anything is planned, so that what is explained is one graph without branches.

The conditions carry no relevance (they are bools), so onnxruntime computes them from the inputs of the call.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from .graph import Graph, Node
from .placing import Rebuilder
from .reader import Reader
from .runtime import Runtime

__all__ = ["Branches", "guesses", "is_open"]

Choices = tuple[tuple[str, bool], ...]
MOST_GUESSES = 16


def _key(node: Node) -> str:
    return next(o for o in node.outputs if o)


def _ifs(graph: Graph) -> list[Node]:
    """The Ifs that the outputs need, outermost first."""
    needed = graph.ancestors(v.name for v in graph.outputs)
    return [n for n in graph.nodes if n.op == "If" and not n.domain and any(o in needed for o in n.outputs)]


def is_open(graph: Graph) -> bool:
    """Whether which nodes run depends on the call."""
    return bool(_ifs(graph))


def resolved(graph: Graph, choices: Mapping[str, bool]) -> Graph:
    """The graph with the chosen branches in the place of their Ifs, folded again."""
    rebuilder = Rebuilder(graph)
    for node in graph.nodes:
        taken = choices.get(_key(node)) if node.op == "If" and not node.domain else None
        if taken is None:
            rebuilder.place(node)
        else:
            rebuilder.inline(node, taken)
    return rebuilder.graph()


def guesses(graph: Graph) -> Iterator[tuple[Graph, int]]:
    """Graphs without branches to plan with before the first call, and how many Ifs were decided without knowing their condition.

    Conditions on shapes that are known are followed; the others are first taken to be true.
    """
    pending: list[tuple[Graph, int]] = [(graph, 0)]
    for _ in range(MOST_GUESSES):
        if not pending:
            return
        now, unknown = pending.pop(0)
        while nodes := _ifs(now):
            reader = Reader(now, ())
            reader.read()
            known: dict[str, bool] = {}
            free: list[str] = []
            for node in nodes:
                value = reader.vars[node.inputs[0]].value if node.inputs[0] in reader.vars else None
                if value is not None and not isinstance(value.reshape(-1)[0], (type(None),)):
                    known[_key(node)] = bool(value.reshape(-1)[0])
                else:
                    free.append(_key(node))
            for flips in itertools.product([True, False], repeat=min(len(free), 4)):
                if all(flips):
                    continue
                picked = {key: flips[k] if k < len(flips) else True for k, key in enumerate(free)}
                pending.append((resolved(now, {**known, **picked}), unknown + len(free)))
            now, unknown = resolved(now, {**known, **dict.fromkeys(free, True)}), unknown + len(free)
        yield now, unknown


@dataclasses.dataclass(eq=False)
class Branches:
    """What each call takes; sessions and graphs are kept."""

    graph: Graph
    _graphs: dict[Choices, tuple[Graph, Runtime]] = dataclasses.field(default_factory=dict)

    def take(self, feeds: Mapping[str, np.ndarray]) -> tuple[Choices, Graph]:
        """The choices of a call, and the graph that they leave.

        Raises:
            UnsupportedModel: onnxruntime can't compute a condition.
        """
        choices: Choices = ()
        graph, runtime = self._kept(choices, lambda: self.graph)
        while nodes := _ifs(graph):
            names = sorted({n.inputs[0] for n in nodes})
            values = runtime.prefix(names, feeds)
            picked: dict[str, bool] = {_key(n): bool(np.reshape(values[n.inputs[0]], -1)[0]) for n in nodes}
            before = graph
            choices = (*choices, *sorted(picked.items()))
            graph, runtime = self._kept(choices, lambda before=before, picked=picked: resolved(before, picked))
        return choices, graph

    def _kept(self, choices: Choices, make: Any) -> tuple[Graph, Runtime]:
        if choices not in self._graphs:
            graph = make()
            self._graphs[choices] = (graph, Runtime(graph))
        return self._graphs[choices]
