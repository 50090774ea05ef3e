"""Shapes by onnx's inference, kept from what ends the process.

Where a Slice reads an axis of negative size (a convolution larger than its input, pads that cut off more than there is), or a
GatherND has one in its indices, an assertion inside the inference of onnx 1.23 ends the process; onnxruntime's is the same code. So
they are hidden from it at first, and shown once the shapes of what they read are known. Other ops, of which nobody can tell what
type they read, it does not survive either.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import onnx

from .errors import InvalidModel
from .printable import short
from .sanity import inner

__all__ = ["hold", "infer"]

HIDDEN = "onnx_lrp.hidden"  # a domain without ops
PASSES = 8  # what is behind that many others stays hidden
WARY = {"EyeLike": 1, "GatherND": 2, "Slice": 1}  # ops, and of how many inputs the shapes have to be known
# ops that are never shown, and their domains: their results' shapes are known without, or of no use here
NEVER = {"RegexFullMatch": "", **dict.fromkeys(("DictVectorizer", "LabelEncoder", "TreeEnsemble"), "ai.onnx.ml")}
# entries of a list; of a longer one, whatever its type, inference would follow every entry as if it were a shape's
LONG = 2**16
SMALL = 64  # entries; constants up to that size may be shapes, of larger ones their own shape is enough

Types = Mapping[str, onnx.TypeProto]


def infer(model: onnx.ModelProto, *, data_prop: bool) -> onnx.ModelProto:
    """A copy with the shapes that inference finds, large constants left out.

    Args:
        model: its functions written out.
        data_prop: the values of shapes are followed, too.

    Raises:
        InvalidModel: a Slice or a GatherND reads an axis of negative size.
    """
    return _inferred(model, data_prop)[0]


def _inferred(model: onnx.ModelProto, data_prop: bool) -> tuple[onnx.ModelProto, set[str]]:
    """The copy, and the ops that stayed hidden."""
    known = _light(model)
    hidden = list(_fragile(known.graph))
    for node in hidden:
        node.domain = HIDDEN
    if hidden:
        known.opset_import.add(domain=HIDDEN, version=1)
    large = data_prop and any(math.prod(d.dim_value or 1 for d in dims) > LONG for dims in _declared(known.graph))
    for _ in range(PASSES):
        follow = data_prop and not (large and _lists(onnx.shape_inference.infer_shapes(known).graph))
        found: onnx.ModelProto = onnx.shape_inference.infer_shapes(known, data_prop=follow)
        shown = 0
        for node, (same, types) in zip(_hidden(known.graph), _typed(found.graph, {}), strict=True):
            shapes = _shapes(same, types)
            if shapes is None:
                continue
            for name, sizes in zip(node.input, shapes, strict=False):
                if any(n is not None and n < 0 for n in sizes):
                    text = ", ".join("?" if n is None else str(n) for n in sizes)
                    what = f"{short(node.op_type)} {short(node.name)!r}"
                    raise InvalidModel(f"{what}: {short(name)!r} has the shape ({text}), by onnx's inference")
            _show(node)
            shown += 1
        if not shown:
            break
    left = list(_hidden(found.graph))
    for node in left:
        _show(node)
    return found, {node.op_type for node in left}


def _show(node: onnx.NodeProto) -> None:
    if domain := NEVER.get(node.op_type):
        node.domain = domain
    else:
        node.ClearField("domain")


def _shapes(node: onnx.NodeProto, types: Types) -> list[list[int | None]] | None:
    """Of what a hidden node reads, as far as it may not be shown without them; None where they are not known, or never enough."""
    count = WARY.get(node.op_type)
    if count is None or len(node.input) < count:
        return None
    shapes = [types[name].tensor_type for name in node.input[:count] if name in types]
    if len(shapes) < count or not all(shape.HasField("shape") for shape in shapes):
        return None
    return [[d.dim_value if d.HasField("dim_value") else None for d in shape.shape.dim] for shape in shapes]


def _declared(graph: onnx.GraphProto) -> Iterator[Any]:
    """The axes of every tensor whose shape is told, bodies included."""
    for value in (*graph.input, *graph.output, *graph.value_info):
        yield value.type.tensor_type.shape.dim
    for node in graph.node:
        for body in inner(node):
            yield from _declared(body)


def _lists(graph: onnx.GraphProto) -> bool:
    """Whether a list is longer than inference may follow."""
    return any(len(dims) == 1 and dims[0].dim_value > LONG for dims in _declared(graph))


def hold(model: onnx.ModelProto, *, data_prop: bool) -> bool:
    """Refuse what onnxruntime can't be given; whether onnx's own inference may be, as it tells types less often.

    Raises:
        InvalidModel: a Slice or a GatherND reads an axis of negative size.
    """
    if not any(True for _ in _fragile(model.graph)):
        return True
    try:
        return _inferred(model, data_prop)[1] <= {"Slice"}  # those behind many others
    except InvalidModel:
        raise
    except Exception:  # inference is a help, and knows no ops but the standard's
        return False


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


def _fragile(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        domain = "" if node.domain == "ai.onnx" else node.domain
        if (not domain and node.op_type in WARY) or NEVER.get(node.op_type) == domain:
            yield node
        for body in inner(node):
            yield from _fragile(body)


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
