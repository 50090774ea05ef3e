"""Functions of a model, written out where they are called."""

from __future__ import annotations

import contextlib

import onnx

from .errors import InvalidModel
from .sanity import spelled

__all__ = ["inlined"]


def inlined(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its own functions, and the standard's whose body is a loop over their sub-graph, written out."""
    maps = _has(proto.graph, "SequenceMap") or any(n.op_type == "SequenceMap" for f in proto.functions for n in f.node)
    if not proto.functions and not maps:
        return proto
    from onnx import inliner

    try:
        proto = inliner.inline_local_functions(proto) if proto.functions else proto
    except Exception as error:
        raise InvalidModel(f"local functions can't be inlined: {error}") from error
    spelled(proto)  # a call may have told an equation
    with contextlib.suppress(Exception):  # it needs the types of what is mapped; without them the node stays, which nothing reads
        proto = inliner.inline_selected_functions(proto, [("", "SequenceMap")], inline_schema_functions=True) if maps else proto
    return proto


def _has(graph: onnx.GraphProto, op: str) -> bool:
    """Whether a graph or one inside it has such a node."""
    inner = (a.g for n in graph.node for a in n.attribute if a.type == onnx.AttributeProto.GRAPH)
    return any(n.op_type == op for n in graph.node) or any(_has(g, op) for g in inner)
