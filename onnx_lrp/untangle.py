"""Loops as exporters write them, brought to what they mean.

States that a body returns unchanged are captured tensors (weights are carried so); lists that it appends to are collected results.
"""

from __future__ import annotations

from collections.abc import Container, Mapping

import onnx

from .errors import InvalidModel
from .printable import short

__all__ = ["appended", "renamed", "untangled"]


def untangled(proto: onnx.NodeProto, version: int) -> tuple[onnx.NodeProto, list[tuple[str, str]]]:
    """A Loop or Scan without the states that its body returns unchanged: these are captured tensors (exporters carry weights so).

    Returns the node, and (output, initial value) of the states left out.
    """
    loop = proto.op_type == "Loop"
    if not loop and version < 9:
        return proto, []
    attributes = {a.name: a for a in proto.attribute}
    body = attributes["body"].g
    scanned = 0 if loop else int(attributes["num_scan_inputs"].i)
    count = len(body.input) - 2 if loop else len(body.input) - scanned
    least = count + loop
    if count < 0 or scanned < 0 or len(body.output) < least or len(proto.input) < count + (2 if loop else scanned):
        sizes = f"{len(body.input)} inputs and {len(body.output)} outputs"
        own = f"{len(proto.input)} inputs" + ("" if loop else f" and num_scan_inputs {scanned}")
        raise InvalidModel(f"{proto.op_type} {short(proto.name)!r}: its body has {sizes}, which don't fit the node's {own}")
    first_in, first_out, first_given = (2, 1, 2) if loop else (0, 0, 0)
    same: dict[int, str] = {}  # state → tensor outside
    made = {o: n for n in body.node for o in n.output}
    for k in range(count):
        name, out = body.input[first_in + k].name, body.output[first_out + k].name
        if _behind(out, made) == name:
            same[k] = proto.input[first_given + k]
    if not same:
        return proto, []
    copy = onnx.NodeProto()
    copy.CopyFrom(proto)
    inner = next(a for a in copy.attribute if a.name == "body").g
    taken = {v.name for v in inner.input} | {t.name for t in inner.initializer} | {o for n in inner.node for o in n.output}
    rename = {name: f"{name}/inner" for name in taken & set(same.values())}
    rename |= {body.input[first_in + k].name: outer for k, outer in same.items()}
    renamed(inner, rename)
    left_out = [(copy.output[k], outer) for k, outer in same.items() if k < len(copy.output) and copy.output[k]]
    for k in sorted(same, reverse=True):
        del inner.input[first_in + k], inner.output[first_out + k], copy.input[first_given + k]
        if k < len(copy.output):
            del copy.output[k]
    return copy, left_out


def renamed(graph: onnx.GraphProto, rename: Mapping[str, str]) -> None:
    """Other names for tensors, in place, nested graphs included (ONNX names are unique across them)."""
    for value in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        value.name = rename.get(value.name, value.name)
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [rename.get(n, n) for n in names]
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                renamed(attribute.g, rename)


def _uses(graph: onnx.GraphProto, name: str) -> int:
    """How often a tensor is read in a graph and those inside it."""
    count = sum(v.name == name for v in graph.output)
    for node in graph.node:
        count += list(node.input).count(name)
        count += sum(_uses(a.g, name) for a in node.attribute if a.type == onnx.AttributeProto.GRAPH)
    return count


def appended(proto: onnx.NodeProto, empty: Container[str]) -> tuple[onnx.NodeProto, list[tuple[str, str]]]:
    """A Loop whose lists, empty at first and appended to once a step, are collected results instead (scripts write so).

    ``empty``: names of empty sequences outside. Returns the node, and (output that is the sequence, tensor that is it stacked).
    """
    if proto.op_type != "Loop":
        return proto, []
    body = next(a.g for a in proto.attribute if a.name == "body")
    made = {o: n for n in body.node for o in n.output}
    lists: dict[int, str] = {}  # state → what is appended
    for k in range(len(body.input) - 2):
        name, out = body.input[2 + k].name, _behind(body.output[1 + k].name, made)
        node = made.get(out)
        if node is None or node.op_type != "SequenceInsert" or len(node.input) != 2 or proto.input[2 + k] not in empty:
            continue
        if _behind(node.input[0], made) == name and _uses(body, name) == 1:
            lists[k] = node.input[1]
    if not lists:
        return proto, []
    copy = onnx.NodeProto()
    copy.CopyFrom(proto)
    inner = next(a for a in copy.attribute if a.name == "body").g
    gone = [made[_behind(body.output[1 + k].name, made)] for k in lists]
    kept = [n for n in inner.node if n not in gone]
    del inner.node[:]
    inner.node.extend(kept)
    outputs = list(copy.output) + [""] * (len(body.output) - 1 - len(copy.output))
    stacks = [(outputs[k], f"{outputs[k] or proto.name}/stack{k}") for k in lists]
    results = [o for k, o in enumerate(outputs) if k not in lists] + [stack for _, stack in stacks]
    del copy.output[:]
    copy.output.extend(results)
    for k in sorted(lists, reverse=True):
        del inner.input[2 + k], inner.output[1 + k], copy.input[2 + k]
    inner.output.extend(onnx.ValueInfoProto(name=name) for name in lists.values())
    return copy, [(name, stack) for name, stack in stacks if name]


def _behind(name: str, made: Mapping[str, onnx.NodeProto]) -> str:
    """The tensor that this one is under another name. The body is not sorted yet, so there may be a cycle, which is found later."""
    left = len(made)
    while left and name in made and made[name].op_type == "Identity" and not made[name].domain and made[name].input:
        name, left = made[name].input[0], left - 1
    return name
