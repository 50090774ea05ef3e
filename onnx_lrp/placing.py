"""Where a node of a file ends up in the graph read: folded to constants, written in other nodes, or kept as it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import helper

from .errors import InvalidModel
from .fold import RANDOM, evaluate
from .graph import Graph, Node
from .limits import Limits, Meter
from .rewrite import rewrite
from .untangle import renamed

__all__ = ["Draft", "Placer", "Rebuilder", "many"]

# entries of a list of integers whose values onnx's shape inference may hold, one by one, as axes of every tensor behind
LONGEST = 2**10


def many(dims: Any) -> bool:
    """Whether a shape is that of a list too long to be a shape itself."""
    return len(dims) == 1 and float(dims[0]) > LONGEST


@dataclasses.dataclass(frozen=True)
class Draft:
    """A graph in the making.

    Attributes:
        scope: every constant that its nodes may read, those of the graphs around it included.
        constants: those of its own.
        kept: its nodes so far, in order.
    """

    scope: dict[str, np.ndarray]
    constants: dict[str, np.ndarray]
    kept: list[Node] = dataclasses.field(default_factory=list)

    def hold(self, name: str, array: np.ndarray) -> None:
        """A constant of its own."""
        self.constants[name] = self.scope[name] = array

    def make(self, node: Node, op: str, version: int, inputs: tuple[str, ...], name: str, **attributes: Any) -> None:
        """A further node, made for ``node``; its ``name`` is that of what comes out."""
        proto = helper.make_node(op, inputs, [name], name=f"{node.name}/{name}", **attributes)
        self.kept.append(Node(proto.name, op, "", version, inputs, (name,), attributes, proto))


class Placer:
    """Places the nodes of one model, one after the other.

    Attributes:
        loops: how many Loops and Scans are around the node.
        empty: names of sequences without an element.
        tame: whether onnx's shape inference may be given the model, as far as its nodes tell.
    """

    def __init__(self, opsets: Mapping[str, int], limits: Limits) -> None:
        self.opsets = opsets
        self.meter = Meter(limits)
        self.loops = 0
        self.empty: set[str] = set()
        self.tame = True

    def place(self, node: Node, draft: Draft) -> None:
        """Fold a node, put others in its place, or keep it.

        Raises:
            InvalidModel: it is constant and can't be computed.
            ModelError: over a limit.
        """
        domain, attributes, scope = node.domain, node.attributes, draft.scope
        self.meter.node(node.label)
        if node.op == "SequenceEmpty" and not domain:
            self.empty.add(node.outputs[0])
        if node.op == "Constant" and not domain:
            results = [_constant(attributes)]
        elif node.op == "If" and not domain and node.inputs[0] in scope:
            self.inline(node, bool(np.asarray(scope[node.inputs[0]]).reshape(-1)[0]), draft)
            return
        elif node.op == "If" and not domain and self.loops:
            self._both(node, draft)
            return
        elif node.op not in RANDOM and node.reads() and node.reads() <= scope.keys() and _foldable(node):
            versions = {**self.opsets, domain: node.version}  # a node that was made has its own
            results = evaluate(node, [scope[n] if n else None for n in node.inputs], versions, self.meter)
        else:
            made = rewrite(node, scope)
            if made is None:
                draft.kept.append(node)
                return
            nodes, added = made
            draft.constants.update(added)
            scope.update(added)
            for one in nodes:
                self.place(one, draft)
            return
        for name, result in zip(node.outputs, results, strict=False):
            if name:
                draft.hold(name, result)
                shape = result.dtype.kind in "iu" or node.op == "ConstantOfShape"  # taken for one whatever its type
                self.tame &= not (shape and many(result.shape))

    def same(self, node: Node, source: str, name: str, draft: Draft) -> None:
        """A tensor under another name, for ``node``."""
        if source in draft.scope:
            draft.hold(name, draft.scope[source])
        else:
            draft.make(node, "Identity", self.opsets[""], (source,), name)

    def inline(self, node: Node, taken: bool, draft: Draft) -> None:
        """Put one branch of an If in its place."""
        for name, source in zip(node.outputs, self._branch(node, taken, draft), strict=True):
            if name:
                self.same(node, source, name, draft)

    def _both(self, node: Node, draft: Draft) -> None:
        """Inside a loop an If may decide otherwise at each step: both branches run, and a Where takes one's results."""
        sides = [self._branch(node, taken, draft) for taken in (True, False)]
        for name, yes, no in zip(node.outputs, *sides, strict=True):
            if name:
                draft.make(node, "Where", max(self.opsets[""], 9), (node.inputs[0], yes, no), name)

    def _branch(self, node: Node, taken: bool, draft: Draft) -> list[str]:
        """The nodes of a branch, in the graph around it; its results. Inner names get a prefix, as both branches may share them."""
        branch = node.attributes["then_branch" if taken else "else_branch"]
        prefix = f"{next(o for o in node.outputs if o)}/{'then' if taken else 'else'}/"
        own = {name for n in branch.nodes for name in n.outputs if name} | set(branch.constants)
        rename = {name: prefix + name for name in own}
        for name, array in branch.constants.items():
            draft.hold(rename[name], array)
        for inner in branch.nodes:
            self.place(_renamed(inner, rename), draft)
        return [rename.get(v.name, v.name) for v in branch.outputs]


class Rebuilder:
    """The nodes of a graph once more, one after the other, folded again where they are constant by now."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._placer = Placer(graph.opsets, graph.limits)
        constants = dict(graph.constants)
        self._draft = Draft(constants, constants)

    def place(self, node: Node) -> None:
        """The next node, as it is."""
        self._placer.place(node, self._draft)

    def inline(self, node: Node, taken: bool) -> None:
        """The next node is an If: one of its branches."""
        self._placer.inline(node, taken, self._draft)

    def graph(self) -> Graph:
        """What has been placed."""
        return dataclasses.replace(self._graph, nodes=tuple(self._draft.kept), constants=self._draft.constants)


def _foldable(node: Node) -> bool:
    # Sub-graphs may capture constants that a one-node model would lack; sequences and optionals are no arrays.
    # What was refused is known to the file alone; ops of this package's own, in which others are written out, to no runtime.
    return (
        not node.graphs
        and node.domain != "onnx_lrp"
        and not node.refused
        and node.op not in {"SequenceConstruct", "SequenceEmpty", "SplitToSequence", "Optional"}
    )


def _renamed(node: Node, rename: Mapping[str, str]) -> Node:
    proto = onnx.NodeProto()
    proto.CopyFrom(node.proto)
    inputs = tuple(rename.get(n, n) for n in node.inputs)
    outputs = tuple(rename.get(n, n) for n in node.outputs)
    del proto.input[:], proto.output[:]
    proto.input.extend(inputs)
    proto.output.extend(outputs)
    for attribute in proto.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            renamed(attribute.g, rename)
    attributes = {k: _renamed_graph(v, rename) if isinstance(v, Graph) else v for k, v in node.attributes.items()}
    return dataclasses.replace(node, inputs=inputs, outputs=outputs, proto=proto, attributes=attributes, origin=None)


def _renamed_graph(graph: Graph, rename: Mapping[str, str]) -> Graph:
    outputs = tuple(dataclasses.replace(v, name=rename.get(v.name, v.name)) for v in graph.outputs)
    return dataclasses.replace(graph, nodes=tuple(_renamed(n, rename) for n in graph.nodes), outputs=outputs)


def _constant(attributes: Mapping[str, Any]) -> np.ndarray:
    for key, dtype in (
        ("value", None),
        ("sparse_value", None),
        ("value_float", np.float32),
        ("value_floats", np.float32),
        ("value_int", np.int64),
        ("value_ints", np.int64),
        ("value_string", object),
        ("value_strings", object),
    ):
        if key in attributes:
            return np.asarray(attributes[key], dtype)
    raise InvalidModel(f"a Constant node has none of the value attributes, only {sorted(attributes)}")
