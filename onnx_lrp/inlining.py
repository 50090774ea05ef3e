"""Functions of a model, written out where they are called, so that a call hides no layer.

onnx's inliner leaves the functions of another opset than the model's in place. Where every op of a function means the same in both
opsets, it is written out too; onnx's conversion of versions is not asked, since it needs all types and is wrong about some ops.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping

import onnx

from .errors import InvalidModel
from .inference import hold
from .printable import short
from .sanity import inner, spelled
from .schemas import alike

__all__ = ["Key", "inlined", "opaque"]

Key = tuple[str, str, str]  # domain, name and overload of a function


def inlined(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its own functions, and the standard's whose body is a loop over their sub-graph, written out.

    Raises:
        InvalidModel: onnx can't, or its inference would end the process.
    """
    maps = _has(proto.graph, "SequenceMap") or any(n.op_type == "SequenceMap" for f in proto.functions for n in f.node)
    if not proto.functions and not maps:
        return proto
    from onnx import inliner

    try:
        proto = inliner.inline_local_functions(_aligned(proto)) if proto.functions else proto
    except Exception as error:
        raise InvalidModel(f"local functions can't be inlined: {error}") from error
    spelled(proto)  # a call may have told an equation
    if maps:
        maps = hold(proto, data_prop=True)  # inlining by schemas infers shapes
    with contextlib.suppress(Exception):  # it needs the types of what is mapped; without them the node stays, which nothing reads
        proto = inliner.inline_selected_functions(proto, [("", "SequenceMap")], inline_schema_functions=True) if maps else proto
    return proto


def opaque(proto: onnx.ModelProto) -> dict[Key, str]:
    """Function that is left in an inlined model → why what is in it can't be read."""
    versions, functions = _versions(proto.opset_import), {_key(f) for f in proto.functions}
    found = {}
    for function in proto.functions:
        own, others = _versions(function.opset_import), []
        for domain, ops in _differing(function, versions, functions).items():
            named = ", ".join(short(op) for op in sorted(ops)[:4]) + (", …" if len(ops) > 4 else "")
            opset = f" in opset {own[domain]}{f' of {short(domain)}' if domain else ''}"
            others.append(f"{opset}, where {named} may differ from the model's {versions[domain]}")
        found[_key(function)] = f"a function that the model defines{' and'.join(others)}; export both in one opset"
    return found


def _aligned(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with the model's opsets in its functions, wherever this changes no op's meaning, and with every default told."""
    versions, functions = _versions(proto.opset_import), {_key(f) for f in proto.functions}
    aligned = onnx.ModelProto()
    aligned.CopyFrom(proto)
    for function in aligned.functions:
        kept = _differing(function, versions, functions)
        for own in function.opset_import:
            domain = _standard(own.domain)
            if domain not in kept:
                own.version = versions.get(domain, own.version)
    _tell(aligned)
    return aligned


def _tell(model: onnx.ModelProto) -> None:
    """Give every call the defaults of the attributes that it leaves out, in place: onnx's inliner forgets them."""
    defaults = {_key(f): f.attribute_proto for f in model.functions}
    stack = [*model.graph.node, *(n for f in model.functions for n in f.node)]
    while stack:
        node = stack.pop()
        stack += [n for graph in inner(node) for n in graph.node]
        given = {a.name for a in node.attribute}
        node.attribute.extend(a for a in defaults.get((node.domain, node.op_type, node.overload), ()) if a.name not in given)


def _differing(function: onnx.FunctionProto, versions: Mapping[str, int], functions: Collection[Key]) -> dict[str, set[str]]:
    """Domain → the ops of it in a function, sub-graphs included, which may mean something else in these versions."""
    own = _versions(function.opset_import)
    found: dict[str, set[str]] = {}
    stack = list(function.node)
    while stack:
        node = stack.pop()
        stack += [n for graph in inner(node) for n in graph.node]
        domain = _standard(node.domain)
        version, other = own.get(domain), versions.get(domain)
        if None in (version, other) or version == other or (node.domain, node.op_type, node.overload) in functions:
            continue
        if not alike(node, own[domain], versions[domain]):
            found.setdefault(domain, set()).add(node.op_type)
    return found


def _key(function: onnx.FunctionProto) -> Key:
    return function.domain, function.name, function.overload


def _standard(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain


def _versions(imports: Collection[onnx.OperatorSetIdProto]) -> dict[str, int]:
    return {_standard(o.domain): o.version for o in imports}


def _has(graph: onnx.GraphProto, op: str) -> bool:
    """Whether a graph or one inside it has such a node."""
    return any(n.op_type == op or any(_has(g, op) for g in inner(n)) for n in graph.node)
