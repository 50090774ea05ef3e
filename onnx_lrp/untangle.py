"""States that a Loop's or Scan's body returns unchanged are captured tensors: exporters carry weights so."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

__all__ = ["renamed", "untangled"]


def untangled(proto: onnx.NodeProto, version: int) -> tuple[onnx.NodeProto, list[tuple[str, str]]]:
    """A Loop or Scan without the states that its body returns unchanged: these are captured tensors (exporters carry weights so).

    Returns the node, and (output, initial value) of the states left out.
    """
    loop = proto.op_type == "Loop"
    if not loop and version < 9:
        return proto, []
    attributes = {a.name: a for a in proto.attribute}
    body = attributes["body"].g
    count = len(body.input) - 2 if loop else len(body.input) - int(attributes["num_scan_inputs"].i)
    first_in, first_out, first_given = (2, 1, 2) if loop else (0, 0, 0)
    same: dict[int, str] = {}  # state → tensor outside
    made = {o: n for n in body.node for o in n.output}
    for k in range(count):
        name, out = body.input[first_in + k].name, body.output[first_out + k].name
        while out in made and made[out].op_type == "Identity" and not made[out].domain:
            out = made[out].input[0]
        if out == name:
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
