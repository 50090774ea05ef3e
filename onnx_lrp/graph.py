"""What was read of a .onnx file: a :class:`Graph` of sorted nodes, in which everything that is constant is an ndarray.

Nothing here knows about relevance, nor how the file spelled it; :mod:`onnx_lrp.reading` makes it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from .limits import Limits
from .printable import short, visible

__all__ = ["Graph", "Node", "Value", "needs"]


@dataclasses.dataclass(frozen=True, eq=False)
class Value:
    """A declared graph input or output: name, numpy dtype (None: not a tensor) and shape (names for symbolic sizes)."""

    name: str
    dtype: np.dtype[Any] | None
    shape: tuple[int | str | None, ...] | None

    def __str__(self) -> str:
        shape = "(?)" if self.shape is None else "(" + ", ".join("?" if s is None else str(s) for s in self.shape) + ")"
        return f"{self.name} {self.dtype if self.dtype is not None else 'no tensor'} {shape}"


@dataclasses.dataclass(frozen=True, eq=False)
class Node:
    """One ONNX node; attributes are Python values, ndarrays or :class:`Graph`; ``version`` is its domain's opset.

    ``origin``: the file's node that this one was made of by :mod:`onnx_lrp.rewrite`. ``refused``: why what it stands for can't be
    told: it could not be rewritten, or is a function that was not inlined.
    """

    name: str
    op: str
    domain: str
    version: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    proto: onnx.NodeProto
    origin: Node | None = None
    refused: str = ""

    @property
    def label(self) -> str:
        """How messages name it: op, domain unless standard, and name."""
        op = visible(short(f"{self.domain}:{self.op}" if self.domain else self.op))
        return f"{op} {short(self.name)!r}"

    @property
    def graphs(self) -> list[Graph]:
        return [a for a in self.attributes.values() if isinstance(a, Graph)]

    def reads(self) -> set[str]:
        """Names of all tensors it needs from outside, those its sub-graphs capture included."""
        names = {name for name in self.inputs if name}
        for graph in self.graphs:
            names |= graph.captured()
        return names

    def reads_as_filed(self) -> set[str]:
        """The same, constants included that folding has put into its sub-graphs."""
        return needs(self.proto)


@dataclasses.dataclass(frozen=True, eq=False)
class Graph:
    """A graph in topological order. ``constants`` holds every tensor that depends on nothing but the file."""

    nodes: tuple[Node, ...]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    constants: Mapping[str, np.ndarray]
    opsets: Mapping[str, int]
    model: onnx.ModelProto | None = None
    path: Path | None = None
    defaults: frozenset[str] = frozenset()
    value_info: Mapping[str, Value] = dataclasses.field(default_factory=dict)
    limits: Limits = Limits()  # noqa: RUF009  (frozen)
    size: int = 0  # nodes of the file, functions as often as they are called
    custom_ops: tuple[str, ...] = ()  # the user's libraries for onnxruntime
    tame: bool = True  # whether onnx's shape inference can be trusted with the numbers in it: all steps of Slices are known

    @functools.cached_property
    def producers(self) -> dict[str, Node]:
        return {name: node for node in self.nodes for name in node.outputs if name}

    @functools.cached_property
    def readers(self) -> dict[str, list[Node]]:
        readers: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in node.reads():
                readers.setdefault(name, []).append(node)
        return readers

    def captured(self) -> set[str]:
        """Tensors that this (sub-)graph reads from the graphs around it."""
        own = {v.name for v in self.inputs} | set(self.constants)
        needed: set[str] = set()
        for node in self.nodes:
            needed |= node.reads() - own
            own |= set(node.outputs)
        return needed | ({v.name for v in self.outputs} - own)

    def ancestors(self, names: Iterable[str]) -> set[str]:
        """All tensors that the named ones depend on, themselves included."""
        seen: set[str] = set()
        stack = list(names)
        while stack:
            name = stack.pop()
            if name in seen:
                continue
            seen.add(name)
            node = self.producers.get(name)
            if node is not None:
                stack.extend(node.reads())
        return seen


def needs(proto: onnx.NodeProto) -> set[str]:
    """Names of all tensors that a node reads from the graph around it, those its sub-graphs capture included."""
    names = {n for n in proto.input if n}
    for attribute in proto.attribute:
        if attribute.type != onnx.AttributeProto.GRAPH:
            continue
        graph = attribute.g
        own = {v.name for v in graph.input} | {t.name for t in graph.initializer} | {o for n in graph.node for o in n.output}
        names |= {v.name for v in graph.output}.union(*(needs(n) for n in graph.node)) - own
    return names
