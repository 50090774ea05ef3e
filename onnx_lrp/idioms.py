"""What some exporters write out node by node and others as one op: read as that op, so that spelling does not matter."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from .exponentials import softmaxes, tanhs
from .graph import Node
from .rewrite import Rewriting

__all__ = ["listed", "read_idioms", "sigmoids", "softpluses", "unrounded"]

LARGE = 15.0  # where x and softplus x are the same number, to 3e-7


def read_idioms(nodes: Sequence[Node], constants: Mapping[str, np.ndarray], outputs: Sequence[str] = ()) -> list[Node]:
    """Nodes with every idiom that is known here as the op that it stands for. ``outputs``: of their graph."""
    nodes = listed(nodes, constants, outputs)
    for read in (sigmoids, tanhs, softpluses, softmaxes):  # a tanh may be spelled with a sigmoid that is spelled out
        nodes = read(nodes, constants)
    return list(nodes)


def listed(nodes: Sequence[Node], constants: Mapping[str, np.ndarray], outputs: Sequence[str]) -> list[Node]:
    """Nodes with lists whose elements have sizes of their own, as far as they are read by number or joined, as these elements.

    A sequence is held as a stack of equal tensors otherwise. Exporters write the parts of torch.split(x, [2, 3]) so.
    """
    elements: dict[str, tuple[str, ...]] = {}
    makers: dict[str, Node] = {}
    out: list[Node] = []
    for node in nodes:
        graph = Rewriting(node, constants)
        many = elements.get(node.inputs[0]) if node.inputs and not node.domain else None
        if node.domain or not node.outputs:
            out.append(node)
        elif node.op == "SequenceConstruct":
            elements[node.outputs[0]] = node.inputs
            makers[node.outputs[0]] = node
            out.append(node)
        elif node.op == "SplitToSequence" and (sizes := _unequal(node, constants)) is not None:
            parts = tuple(graph.fresh(f"part{k}") for k in range(sizes.size))
            split = graph.make("Split", *node.inputs, to=parts, axis=node.attributes.get("axis", 0))
            elements[node.outputs[0]] = parts
            makers[node.outputs[0]] = node
            out += [dataclasses.replace(split, origin=None), node]
        elif many is not None and node.op == "SequenceAt" and (at := _number(node.inputs[1], constants)) is not None:
            one = graph.make("Identity", many[int(at)], to=node.outputs[0])
            out.append(dataclasses.replace(one, name=node.name, origin=None))
        elif many is not None and node.op == "ConcatFromSequence" and _along(node):
            whole = graph.make("Concat", *many, to=node.outputs[0], axis=node.attributes["axis"])
            out.append(dataclasses.replace(whole, name=node.name, origin=None))
        else:
            out.append(node)
    read = {*outputs, *(name for node in out for name in node.reads())}
    return [node for node in out if all(makers.get(name) is not node or name in read for name in node.outputs)]


def _along(node: Node) -> bool:
    """Whether the parts are joined along an axis that they have; a node without one is refused later, by its schema."""
    return "axis" in node.attributes and not node.attributes.get("new_axis", 0)


def _unequal(node: Node, constants: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """The sizes of a SplitToSequence's parts if they are known and differ."""
    sizes = constants.get(node.inputs[1]) if len(node.inputs) > 1 else None
    return sizes if sizes is not None and sizes.ndim == 1 and np.unique(sizes).size > 1 else None


def unrounded(nodes: Sequence[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Nodes with every bias that is rounded to steps of a dynamic scale, Cast(Floor(b / (scale · weights' scale))), left as it is.

    The first quantizers wrote it before they added it to the integers of a ConvInteger. As that scale is a batch's, not the
    network's, the dequantized network has the bias in floating point.
    """
    made = {name: node for node in nodes for name in node.output}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in nodes:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    changed: dict[int, onnx.NodeProto] = {}
    for node in nodes:
        quotient = made.get(node.input[0]) if node.op_type in ("Floor", "Round") else None
        scale = made.get(quotient.input[1]) if quotient is not None and quotient.op_type == "Div" else None
        if scale is None or scale.op_type != "Mul" or not any(_is_dynamic_scale(made.get(n), n) for n in scale.input):
            continue
        casts = readers.get(node.output[0], [])
        if casts and all(n.op_type == "Cast" for n in casts):
            changed[id(node)] = onnx.helper.make_node("Identity", list(node.input), list(node.output), name=node.name)
            for cast in casts:
                whole = onnx.helper.make_node(
                    "Cast", list(cast.input), list(cast.output), name=cast.name, to=onnx.TensorProto.FLOAT
                )
                changed[id(cast)] = whole
    return [changed.get(id(node), node) for node in nodes]


def _is_dynamic_scale(node: onnx.NodeProto | None, name: str) -> bool:
    return node is not None and node.op_type == "DynamicQuantizeLinear" and node.output[1] == name


def softpluses(nodes: Sequence[Node], constants: Mapping[str, np.ndarray]) -> list[Node]:
    """Nodes with every Where(x > 20, x, Softplus(x)) as a Softplus, whose lower bound is known."""
    made = {name: node for node in nodes if not node.domain for name in node.outputs}
    out: list[Node] = []
    for node in nodes:
        x = _guarded(node, made, constants)
        if x is None:
            out.append(node)
            continue
        softplus = Rewriting(node, constants).make("Softplus", x, to=node.outputs[0])
        out.append(dataclasses.replace(softplus, name=node.name, origin=None))
    return out


def _guarded(node: Node, made: Mapping[str, Node], constants: Mapping[str, np.ndarray]) -> str | None:
    """x if a node is softplus x, with x itself where that is large."""
    if node.domain or node.op != "Where":
        return None
    condition, small = made.get(node.inputs[0]), made.get(node.inputs[2])
    x = node.inputs[1]
    if condition is None or condition.op != "Greater" or small is None or small.op != "Softplus":
        return None
    bound = _number(condition.inputs[1], constants)
    same = condition.inputs[0] == x == small.inputs[0]
    return x if same and bound is not None and bound >= LARGE else None


def sigmoids(nodes: Sequence[Node], constants: Mapping[str, np.ndarray]) -> list[Node]:
    """Nodes with every 1 / (1 + exp(−z)) as a Sigmoid. By itself a reciprocal is a normalizer, which carries no relevance."""
    made = {name: node for node in nodes if not node.domain for name in node.outputs}
    out: list[Node] = []
    for node in nodes:
        power = _power(node, made, constants)
        if power is None:
            out.append(node)
            continue
        graph = Rewriting(node, constants)
        z = _negated(made.get(power), constants)
        if z is None:
            opposite = graph.make("Neg", power)
            out.append(dataclasses.replace(opposite, origin=None))
            z = opposite.outputs[0]
        out.append(dataclasses.replace(graph.make("Sigmoid", z, to=node.outputs[0]), name=node.name, origin=None))
    return out


def _number(name: str, constants: Mapping[str, np.ndarray]) -> float | None:
    """The value of a constant that holds one number."""
    array = constants.get(name)
    return float(array.reshape(-1)[0]) if array is not None and array.dtype.kind in "fiu" and array.shape in ((), (1,)) else None


def _power(node: Node, made: Mapping[str, Node], constants: Mapping[str, np.ndarray]) -> str | None:
    """The exponent if a node is 1 / (1 + exp(it))."""
    if node.domain or not (node.op == "Reciprocal" or (node.op == "Div" and _number(node.inputs[0], constants) == 1)):
        return None
    total = made.get(node.inputs[-1])
    if total is None or total.op != "Add":
        return None
    rest = [n for n in total.inputs if _number(n, constants) != 1]
    exponential = made.get(rest[0]) if len(rest) == 1 else None
    return exponential.inputs[0] if exponential is not None and exponential.op == "Exp" else None


def _negated(node: Node | None, constants: Mapping[str, np.ndarray]) -> str | None:
    """z if a node is −z."""
    if node is None or node.op not in ("Neg", "Mul"):
        return None
    rest = [n for n in node.inputs if node.op == "Neg" or _number(n, constants) != -1]
    return rest[0] if len(rest) == 1 else None
