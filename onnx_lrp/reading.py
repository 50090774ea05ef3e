""".onnx → :class:`~onnx_lrp.graph.Graph`: loaded safely, functions inlined, nodes sorted, constants folded.

Whatever ops a constant was spelled with, it is an ndarray afterwards; what is refused here is a file, never a way to explain it.
"""

from __future__ import annotations

import dataclasses
import heapq
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
from onnx import helper

from .errors import InvalidModel
from .graph import Graph, Node, Value, needs
from .idioms import read_idioms, unrounded
from .inference import hold
from .inlining import Key, inlined, opaque
from .limits import Limits
from .placing import Draft, Placer, many
from .printable import short
from .sanity import counted, declared, distinct, readable, spelled, unsigned
from .schemas import fits
from .tensors import Tensors, dtype_of
from .untangle import appended, untangled

__all__ = ["contradiction", "load_graph", "value_of"]

NAMELESS = {"", "?", "*", "-1", "None"}  # what some exporters write for any size, one name for all of them
INTEGERS = (onnx.TensorProto.INT32, onnx.TensorProto.INT64)
# a step of a Slice: onnx's shape inference counts in 32 bits, and takes memory without end (or dies) behind larger ones
WIDEST = 2**30


def _lists(model: onnx.ModelProto) -> bool:
    """Whether a list of integers is declared that is too long to be a shape, in any graph."""
    graphs = [model.graph]
    while graphs:
        graph = graphs.pop()
        for value in (*graph.input, *graph.output, *graph.value_info):
            kind = value.type.tensor_type
            if kind.elem_type in INTEGERS and many([d.dim_value for d in kind.shape.dim]):
                return True
        for node in graph.node:
            graphs += [g for a in node.attribute for g in (*([a.g] if a.HasField("g") else []), *a.graphs)]
    return False


def load_graph(model: str | os.PathLike[str] | bytes | onnx.ModelProto, limits: Limits | None = None) -> Graph:
    """Read a model.

    Args:
        model: path to a ``.onnx`` file, its bytes, or a ``ModelProto``.
        limits: what it may ask for.

    Raises:
        InvalidModel: missing, not ONNX, truncated, external data missing, cycles, doubled or undefined names.
        ModelError: over a limit.
    """
    limits = limits or Limits()
    path: Path | None = None
    if isinstance(model, onnx.ModelProto):
        proto = model
    elif isinstance(model, bytes | bytearray | memoryview):
        limits.check("file_bytes", len(model), "the bytes given")
        proto = _parse(bytes(model), "the bytes given")
    else:
        try:
            path = Path(model)
        except TypeError as error:
            raise InvalidModel(
                f"expected the path of an .onnx file, its bytes or a ModelProto, got {type(model).__name__}; a framework's own "
                "model has to be exported first"
            ) from error
        try:
            with path.open("rb") as stream:
                data = stream.read(limits.file_bytes + 1)  # of what has no end, too
                length = max(len(data), os.fstat(stream.fileno()).st_size)
        except (OSError, ValueError) as error:
            raise InvalidModel(f"{path}: can't be read: {getattr(error, 'strerror', None) or error}") from error
        limits.check("file_bytes", length, str(path))
        proto = _parse(data, str(path))
    size = counted(proto, limits)
    readable(proto)
    spelled(proto)
    proto = unsigned(proto)
    proto = inlined(proto)
    opsets: dict[str, int] = {}
    for o in proto.opset_import:
        domain = o.domain if o.domain != "ai.onnx" else ""
        if opsets.setdefault(domain, o.version) != o.version:
            raise InvalidModel(f"opset {domain or 'ai.onnx'!r} is imported in versions {opsets[domain]} and {o.version}")
    opsets.setdefault("", 1)
    reader = _Reader(opsets, path, limits, opaque(proto))
    graph = reader.graph(proto.graph, {})
    return dataclasses.replace(graph, model=proto, path=path, tame=reader.placer.tame and not _lists(proto), size=size)


def contradiction(model: str | os.PathLike[str] | bytes | onnx.ModelProto) -> str:
    """What onnx's own checker finds wrong with a model, in one line; empty if nothing."""
    try:
        if not isinstance(model, onnx.ModelProto):
            data = bytes(model) if isinstance(model, bytes | bytearray | memoryview) else Path(model).read_bytes()
            model = onnx.load_model_from_string(data)
        try:
            onnx.checker.check_model(model)
        except onnx.checker.ValidationError as error:
            if "'shape' of 'type' is required" not in str(error):  # exporters leave the shapes of outputs out
                raise
        if hold(model, data_prop=False):  # else strict inference might end the process
            onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    except Exception as error:
        return short(" ".join(str(error).split()) or type(error).__name__)
    return ""


def _parse(data: bytes, where: str) -> onnx.ModelProto:
    try:
        proto = onnx.load_model_from_string(data)
    except Exception as error:
        raise InvalidModel(f"{where}: not an ONNX model, or a damaged one ({len(data)} bytes can't be parsed)") from error
    if not proto.ir_version or not proto.HasField("graph") or not (proto.graph.node or proto.graph.output):
        raise InvalidModel(f"{where}: not an ONNX model ({len(data)} bytes without a graph)")
    return proto


def value_of(proto: onnx.ValueInfoProto) -> Value:
    """A declared input or output.

    Raises:
        InvalidModel: its element type does not exist, or the name of an axis is no text.
    """
    if not proto.type.HasField("tensor_type"):
        return Value(proto.name, None, None)
    tensor = proto.type.tensor_type
    dtype = dtype_of(tensor.elem_type, f"tensor {proto.name!r}") if tensor.elem_type else None
    if any(not isinstance(d.dim_param, str) for d in tensor.shape.dim):
        raise InvalidModel(f"tensor {proto.name!r}: the name of an axis is no UTF-8 text")
    if not tensor.HasField("shape"):
        return Value(proto.name, dtype, None)
    shape = tuple(
        d.dim_value if d.HasField("dim_value") and d.dim_value >= 0 else (None if d.dim_param in NAMELESS else d.dim_param)
        for d in tensor.shape.dim
    )
    return Value(proto.name, dtype, shape)


class _Reader:
    """Turns GraphProtos into Graphs; one per model."""

    def __init__(
        self, opsets: Mapping[str, int], path: Path | None, limits: Limits, opaque: Mapping[Key, str] = MappingProxyType({})
    ) -> None:
        self.opsets = opsets
        self.limits = limits
        self.opaque = opaque  # functions that were not written out
        self.placer = Placer(opsets, limits)
        self.tensors = Tensors(path, self.placer.meter)

    def attribute(self, proto: onnx.AttributeProto, constants: Mapping[str, np.ndarray]) -> Any:
        kind = onnx.AttributeProto
        if proto.type == kind.TENSOR:
            return self.tensors.dense(proto.t)
        if proto.type == kind.GRAPH:
            return self.graph(proto.g, constants, nested=True)
        if proto.type == kind.SPARSE_TENSOR:
            return self.tensors.sparse(proto.sparse_tensor)
        value = helper.get_attribute_value(proto)
        if isinstance(value, bytes):
            return value.decode("utf-8", "replace")
        if proto.type == kind.STRINGS:
            return [v.decode("utf-8", "replace") for v in value]
        if proto.type in (kind.INTS, kind.FLOATS):
            return list(value)
        return value

    def graph(self, proto: onnx.GraphProto, outer: Mapping[str, np.ndarray], *, nested: bool = False) -> Graph:
        distinct(proto, nested=nested)
        for value in (*proto.input, *proto.output, *proto.value_info):
            declared(value, self.limits)
        constants: dict[str, np.ndarray] = {}
        for tensor in proto.initializer:
            constants[tensor.name] = self.tensors.dense(tensor)
        for sparse in proto.sparse_initializer:
            constants[sparse.values.name] = self.tensors.sparse(sparse)
        defaults = frozenset(v.name for v in proto.input if v.name in constants)
        inputs = tuple(value_of(v) for v in proto.input if v.name not in constants)
        nodes = _sorted(proto, {v.name for v in inputs} | set(constants), nested=nested)
        own = {v.name for v in inputs}
        scope = {**{name: array for name, array in outer.items() if name not in own}, **constants}
        draft = Draft(scope, constants)
        for index, node in enumerate(unrounded(nodes)):
            self._node(node, index, draft)
        return Graph(
            nodes=tuple(read_idioms(draft.kept, scope, [v.name for v in proto.output])),
            inputs=inputs,
            outputs=tuple(value_of(v) for v in proto.output),
            constants=constants,
            opsets=self.opsets,
            defaults=defaults,
            value_info={v.name: value_of(v) for v in proto.value_info},
            limits=self.limits,
        )

    def _node(self, proto: onnx.NodeProto, index: int, draft: Draft) -> None:
        domain, scope, placer = "" if proto.domain == "ai.onnx" else proto.domain, draft.scope, self.placer
        fits(proto, self.opsets.get(domain, 1))
        same: list[tuple[str, str]] = []
        lists: list[tuple[str, str]] = []
        inside = proto.op_type in ("Loop", "Scan")
        if inside and not domain:
            proto, same = untangled(proto, self.opsets.get("", 1))
            proto, lists = appended(proto, placer.empty)
        if proto.op_type == "Slice" and not domain and len(proto.input) > 4 and proto.input[4]:
            steps = scope.get(proto.input[4])
            placer.tame &= steps is not None and steps.dtype.kind == "i" and bool(np.all(np.abs(steps.astype(float)) < WIDEST))
        if proto.op_type == "Reshape" and not domain and len(proto.input) > 1 and (target := scope.get(proto.input[1])) is not None:
            placer.tame &= not many(target.reshape(-1))
        placer.loops += inside
        attributes = {a.name: self.attribute(a, scope) for a in proto.attribute}
        placer.loops -= inside
        node = Node(
            name=proto.name or next((o for o in proto.output if o), f"{proto.op_type}_{index}"),
            op=proto.op_type,
            domain=domain,
            version=self.opsets.get(domain, 1),
            inputs=tuple(proto.input),
            outputs=tuple(proto.output),
            attributes=attributes,
            proto=proto,
            refused=self.opaque.get((proto.domain, proto.op_type, proto.overload), ""),
        )
        placer.place(node, draft)
        for name, stack in lists:
            draft.make(node, "SplitToSequence", max(self.opsets[""], 11), (stack,), name, axis=0, keepdims=0)
        for name, source in same:
            placer.same(node, source, name, draft)


def _sorted(proto: onnx.GraphProto, given: set[str], *, nested: bool) -> Sequence[onnx.NodeProto]:
    """Topological order; files need not be sorted, but each name has one producer and no cycle."""
    made: dict[str, int] = {}
    for index, node in enumerate(proto.node):
        for name in node.output:
            if not name:
                continue
            if name in made or name in given:
                raise InvalidModel(f"tensor {name!r} is produced twice, again by {node.op_type} {node.name!r}")
            made[name] = index
    waiting = [{made[n] for n in needs(node) if n in made} for node in proto.node]
    readers: dict[int, list[int]] = {}
    for index, names in enumerate(waiting):
        for need in names:
            readers.setdefault(need, []).append(index)
    if not nested:
        for value in proto.output:
            if value.name not in made and value.name not in given:
                raise InvalidModel(f"output {short(value.name)!r} of the graph is produced by no node")
        for node in proto.node:
            lost = sorted(n for n in needs(node) if n not in made and n not in given)
            if lost:
                raise InvalidModel(f"{node.op_type} {node.name!r} reads {lost[0]!r}, which nothing produces")
    ready = [i for i, names in enumerate(waiting) if not names]
    heapq.heapify(ready)
    order: list[int] = []
    left = [len(names) for names in waiting]
    while ready:
        index = heapq.heappop(ready)
        order.append(index)
        for reader in readers.get(index, ()):
            left[reader] -= 1
            if not left[reader]:
                heapq.heappush(ready, reader)
    if len(order) < len(proto.node):
        stuck = next(proto.node[i] for i in range(len(proto.node)) if left[i])
        raise InvalidModel(f"the graph has a cycle through {stuck.op_type} {stuck.name!r}")
    return [proto.node[i] for i in order]
