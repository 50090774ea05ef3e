"""How a network ends: which scores stand before its probabilities and labels, and two classes that share one score.

Exporters put a softmax or a sigmoid at the end, then tidy up; the explained scores are found by stepping back over all of it.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .graph import Graph, Node
from .registry import Var

__all__ = ["Head", "chooses_lowest", "step_back"]

CLASSICAL = "ai.onnx.ml"
FINAL = ("Softmax", "LogSoftmax", "Sigmoid")
MOVED = ("Identity", "Cast", "CastLike", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Transpose")
# normalizing makes the sigmoids of one-against-the-rest classifiers add up to 1, and has no effect behind a softmax
PASSED = (*MOVED, "ArgMax", "ArgMin", "TopK", "QuantizeLinear", "DequantizeLinear", "LpNormalization")
PASSED_CLASSICAL = ("ZipMap", "Normalizer", "LabelEncoder")
LOOKUPS = {("", "Gather"), (CLASSICAL, "ArrayFeatureExtractor")}  # of labels, where the first input is constant


@dataclass(frozen=True)
class Head:
    """Where relevance starts.

    Attributes:
        explained: the tensor of scores.
        signs: None, or for two classes on one score z the sign with which each starts: (-1, 1) for [1 − p, p] with p = sigmoid z.
        class_axis: axis of length 1 on which z has its classes, where there are ``signs``; None if it has no such axis.
    """

    explained: str
    signs: tuple[int, int] | None = None
    class_axis: int | None = None


def step_back(
    graph: Graph, vars: Mapping[str, Var], name: str, *, cut: Container[str] = (), from_probabilities: bool = False
) -> Head:
    """The head that ends in ``name``; that tensor itself if no softmax or sigmoid is found and it carries relevance."""

    def live(tensor: str) -> bool:
        return tensor in vars and vars[tensor].live

    at = name
    while at not in cut:
        if from_probabilities and live(at):
            return Head(at)
        node = graph.producers.get(at)
        if node is None:
            break
        if not from_probabilities:
            found = _scores(graph, vars, node)
            if found is not None:
                return found
        before = _before(graph, vars, node)
        if before is None:
            break
        if node.op == "QuantizeLinear" and at == name:
            name = before  # scores are read off before they are counted in steps
        at = before
    return Head(name if live(name) else at)


def chooses_lowest(graph: Graph, vars: Mapping[str, Var], name: str) -> bool:
    """Whether the lowest score is the one that the last nodes choose (ArgMin, TopK with largest=0)."""
    lowest = False
    node = graph.producers.get(name)
    while node is not None and (before := _before(graph, vars, node)) is not None:
        lowest |= node.op == "ArgMin" or (node.op == "TopK" and not node.attributes.get("largest", 1))
        node = graph.producers.get(before)
    return lowest


def _scores(graph: Graph, vars: Mapping[str, Var], node: Node) -> Head | None:
    """The scores if ``node`` turns them into probabilities."""
    if node.op in FINAL and not node.domain:
        return Head(node.inputs[0])
    if (score := _log_sigmoid(graph, node)) is not None:
        return Head(score)
    if node.origin is not None and node.origin.domain == CLASSICAL and node.origin.op == "LinearClassifier":
        made = {n.op: n for n in graph.nodes if n.origin is node.origin}
        if "Gemm" not in made:
            return None
        scores, count = made["Gemm"].outputs[0], len(node.origin.attributes.get("intercepts", ()))
        return Head(scores, (-1, 1), 1) if count == 1 else Head(scores)
    if node.op == "Concat" and not node.domain and len(node.inputs) == 2:
        return _pair(graph, vars, node)
    return None


def _log_sigmoid(graph: Graph, node: Node) -> str | None:
    """z if a node is log sigmoid z, as log(sigmoid z) or −softplus(−z)."""
    inner = graph.producers.get(node.inputs[0]) if node.op in ("Log", "Neg") and not node.domain else None
    if inner is None or inner.domain or inner.op != {"Log": "Sigmoid", "Neg": "Softplus"}[node.op]:
        return None
    if inner.op == "Sigmoid":
        return inner.inputs[0]
    minus = graph.producers.get(inner.inputs[0])
    return minus.inputs[0] if minus is not None and minus.op == "Neg" and not minus.domain else None


def _before(graph: Graph, vars: Mapping[str, Var], node: Node) -> str | None:
    """The tensor to go on with behind a node that only tidies up."""
    if node.op == "Div" and not node.domain:
        return node.inputs[0] if _normalizes(graph, vars, *node.inputs) else None
    if node.op == "Add" and not node.domain:  # a mask for samples whose probabilities are all 0
        rest = [n for n in node.inputs if n not in vars or not vars[n].mask]
        return rest[0] if len(rest) == 1 else None
    if (node.domain, node.op) in LOOKUPS and node.inputs[0] in graph.constants:
        return node.inputs[1]
    listed: Sequence[str] = PASSED_CLASSICAL if node.domain == CLASSICAL else PASSED
    return node.inputs[0] if node.op in listed and node.inputs and node.domain in ("", CLASSICAL, "com.microsoft") else None


def _normalizes(graph: Graph, vars: Mapping[str, Var], top: str, bottom: str) -> bool:
    """Whether a tensor is divided by something like its own sum over the last axis."""
    above, below = (vars[n].dims if n in vars else None for n in (top, bottom))
    if not above or not below or len(above) != len(below) or below[-1].size != 1:
        return False
    node = graph.producers.get(top)
    own = {top} | (set(node.inputs) if node is not None and node.op == "Add" else set())
    return bool(own & graph.ancestors([bottom]))


def _moved(graph: Graph, name: str) -> tuple[str, Node | None]:
    """(the tensor behind reshapes and casts, its producer)."""
    while (node := graph.producers.get(name)) is not None and node.op in MOVED and not node.domain:
        name = node.inputs[0]
    return name, node


def _pair(graph: Graph, vars: Mapping[str, Var], node: Node) -> Head | None:
    """[1 − p, p] or [p, 1 − p] with p = sigmoid z."""
    for index in (0, 1):
        p, sigmoid = _moved(graph, node.inputs[index])
        if sigmoid is None or sigmoid.op != "Sigmoid" or sigmoid.domain or _rest(graph, node.inputs[1 - index]) != p:
            continue
        z = sigmoid.inputs[0]
        score, out = vars.get(z), vars.get(node.outputs[0])
        if score is None or out is None or score.rank is None or out.rank is None:
            return None
        axis = int(node.attributes["axis"]) % out.rank
        if score.rank == out.rank and score.dims is not None and score.dims[axis].size == 1:
            at: int | None = axis
        elif score.rank == out.rank - 1:
            at = None
        else:
            return None
        return Head(z, (1, -1) if index == 0 else (-1, 1), at)
    return None


def _rest(graph: Graph, name: str) -> str | None:
    """p if the tensor is 1 − p, in any spelling."""
    name, node = _moved(graph, name)
    if node is None or node.domain or len(node.inputs) != 2:
        return None
    ones = [n in graph.constants and bool(np.all(graph.constants[n] == 1)) for n in node.inputs]
    if node.op == "Sub" and ones[0]:
        return _moved(graph, node.inputs[1])[0]
    if node.op == "Add" and any(ones):
        negated = _moved(graph, node.inputs[1 if ones[0] else 0])[1]
        if negated is not None and negated.op == "Neg":
            return _moved(graph, negated.inputs[0])[0]
    return None
