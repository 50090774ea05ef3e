"""Shapes by onnx's inference, kept from what ends the process.

Where a Slice reads an axis of negative size (a convolution larger than its input, pads that cut off more than there is), an
assertion inside the inference of onnx 1.23 ends the process; onnxruntime's is the same code. So Slices are hidden from it at first,
and shown once the shapes of what they read are known.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import onnx

from .errors import InvalidModel
from .printable import short
from .sanity import inner

__all__ = ["hold", "infer"]

HIDDEN = "onnx_lrp.hidden"  # a domain without ops
PASSES = 8  # Slices behind that many others stay hidden
SMALL = 64  # entries; constants up to that size may be shapes, of larger ones their own shape is enough

Types = Mapping[str, onnx.TypeProto]


def infer(model: onnx.ModelProto, *, data_prop: bool) -> onnx.ModelProto:
    """A copy with the shapes that inference finds, large constants left out.

    Args:
        model: its functions written out.
        data_prop: the values of shapes are followed, too.

    Raises:
        InvalidModel: a Slice reads an axis of negative size.
    """
    known = _light(model)
    hidden = list(_slices(known.graph))
    for node in hidden:
        node.domain = HIDDEN
    if hidden:
        known.opset_import.add(domain=HIDDEN, version=1)
    for _ in range(PASSES):
        found: onnx.ModelProto = onnx.shape_inference.infer_shapes(known, data_prop=data_prop)
        shown = 0
        for node, (same, types) in zip(_hidden(known.graph), _typed(found.graph, {}), strict=True):
            shape = types[same.input[0]].tensor_type if same.input and same.input[0] in types else None
            if shape is None or not shape.HasField("shape"):
                continue
            sizes = [d.dim_value if d.HasField("dim_value") else None for d in shape.shape.dim]
            if any(n is not None and n < 0 for n in sizes):
                text = ", ".join("?" if n is None else str(n) for n in sizes)
                raise InvalidModel(
                    f"Slice {short(node.name)!r}: {short(node.input[0])!r} has the shape ({text}), by onnx's inference"
                )
            node.ClearField("domain")
            shown += 1
        if not shown:
            break
    for node in list(_hidden(found.graph)):
        node.ClearField("domain")
    return found


def hold(model: onnx.ModelProto, *, data_prop: bool) -> None:
    """Refuse what onnxruntime can't be given.

    Raises:
        InvalidModel: a Slice reads an axis of negative size.
    """
    if any(_slices(model.graph)):
        try:
            infer(model, data_prop=data_prop)
        except InvalidModel:
            raise
        except Exception:  # inference is a help, and knows no ops but the standard's
            return


def _light(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which large constants are declared, but hold nothing."""
    known = onnx.ModelProto()
    known.CopyFrom(model)
    graphs = [known.graph]
    while graphs:
        graph = graphs.pop()
        graphs += [g for node in graph.node for g in inner(node)]
        declared = {v.name for v in graph.input}
        for k in reversed(range(len(graph.initializer))):
            tensor = graph.initializer[k]
            if math.prod(tensor.dims) <= SMALL:
                continue
            if tensor.name not in declared:
                graph.value_info.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
            del graph.initializer[k]
    return known


def _slices(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        if node.op_type == "Slice" and node.domain in ("", "ai.onnx"):
            yield node
        for body in inner(node):
            yield from _slices(body)


def _hidden(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        if node.domain == HIDDEN:
            yield node
        for body in inner(node):
            yield from _hidden(body)


def _typed(graph: onnx.GraphProto, outer: Types) -> Iterator[tuple[onnx.NodeProto, Types]]:
    """Hidden nodes in the order of :func:`_hidden`, with the types that are known where they stand."""
    types = {**outer, **{v.name: v.type for kind in (graph.value_info, graph.input, graph.output) for v in kind}}
    for tensor in graph.initializer:
        types[tensor.name] = onnx.helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))
    for node in graph.node:
        if node.domain == HIDDEN:
            yield node, types
        for body in inner(node):
            yield from _typed(body, types)
