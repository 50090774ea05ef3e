"""The engine's forward pass as an ONNX backend (``onnx.backend.base``), so that ONNX's own tests and tools can run it.

Every node is run by its layer, none by onnxruntime; relevance plays no part here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.backend.base import Backend, BackendRep

from .composites import Assignment
from .dims import fresh
from .errors import InputError, UnsupportedModel
from .graph import Graph
from .held import MOST_AXES, table_of
from .nested import Step
from .plan import Plan
from .program import Program
from .reader import Reader
from .reading import load_graph
from .registry import Parts, Var
from .rules import Policy
from .seeds import Target

__all__ = ["Engine", "Prepared", "is_compatible", "prepare", "run_model", "run_node", "supports_device"]


class Prepared(BackendRep):
    """A model made ready to run forward. Models with float64 tensors run in float64, all others in float32.

    A graph input that a layer needs as a constant (in tests of single nodes the weights are graph inputs) is bound to its value
    when the model is run, unless a node would be folded away by that.

    Attributes:
        steps: the layers of the last run, in order.
    """

    def __init__(self, model: onnx.ModelProto, jit: str) -> None:
        self.steps: Sequence[Step] = ()
        self._model = model
        self._jit = jit
        self._graph = load_graph(model)

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Outputs in the model's order and dtypes; a sequence is a list.

        Args:
            inputs: arrays in the order of the graph inputs, or by name.

        Raises:
            InputError: too many inputs, or one is missing.
            UnsupportedModel: nodes that no layer runs.
        """
        names = [v.name for v in self._graph.inputs]
        if isinstance(inputs, np.ndarray):
            inputs = [inputs]
        if not isinstance(inputs, Mapping):
            if len(inputs) > len(names):
                raise InputError(f"{len(inputs)} inputs, the model takes {', '.join(names)}")
            inputs = dict(zip(names, inputs, strict=False))
        missing = [n for n in names if n not in inputs]
        if missing:
            raise InputError(f"inputs missing: {', '.join(missing)}")
        model = _without({n for n in names if inputs[n] is None or _is_none(inputs[n])}, self._model)
        original = self._graph if model is self._model else load_graph(model)
        given, vars = _fed({v.name: inputs[v.name] for v in original.inputs}, {v.name for v in original.inputs if v.dtype is None})
        graph, reader = self._read(model, original, given, vars)
        self.steps = tuple(reader.order)
        plan = _forward_plan(graph, reader)
        arrays = [*given.values(), *graph.constants.values()]
        precision = "float64" if any(a.dtype == np.float64 for a in arrays) else "float32"
        program = Program(plan, policy=Policy(), rules=Assignment((), {}), precision=precision, jit=self._jit)
        results = program({n: given[n] for n in plan.feeds}, Target("forward"))["outputs"]
        return tuple(_as(_elements(v.name, results, plan), v) for v in self._model.graph.output)

    def _read(
        self, model: onnx.ModelProto, original: Graph, given: Mapping[str, np.ndarray], vars: Mapping[str, Var]
    ) -> tuple[Graph, Reader]:
        """The graph and its layers, graph inputs bound to their values as far as layers need constants."""
        bound: set[str] = set()
        graph = original
        while True:
            reader = Reader(graph, (), given=vars)
            reader.read()
            unread = {id(node): (node, why) for node, why in reader.unread.values()}
            if not unread:
                return graph, reader
            wanted = {n for node, _ in unread.values() for n in node.inputs[1:] if n in given and n not in vars} - bound
            wanted -= {node.inputs[0] for node, _ in unread.values() if node.inputs}
            wanted |= {node.inputs[0] for node, _ in unread.values() if node.op == "If" and node.inputs[0] in given} - bound
            more = load_graph(_bound(model, {n: given[n] for n in bound | wanted})) if wanted else graph
            folded = len(more.nodes) < len(original.nodes) and not any(node.op == "If" for node, _ in unread.values())
            if not wanted or folded:
                raise UnsupportedModel("no layer runs " + "; ".join(f"{node.label}: {why}" for node, why in unread.values()))
            bound |= wanted
            graph = more


def _forward_plan(graph: Graph, reader: Reader) -> Plan:
    """A plan that runs every node and explains nothing."""
    nothing: Any = None
    beside = [p.table for v in graph.outputs if v.name in reader.vars and (p := reader.vars[v.name].parts) is not None]
    return Plan(
        graph=graph,
        steps=tuple(reader.order),
        vars=reader.vars,
        path=frozenset(),
        points=(),
        origins={},
        feeds=tuple(dict.fromkeys([*(v.name for v in graph.inputs), *reader.given])),
        prefix=(),
        output="",
        explained="",
        class_axis=None,
        batch=None,
        times=frozenset(),
        scope=nothing,
        outputs=(*(v.name for v in graph.outputs), *beside),
        inputs=tuple(v.name for v in graph.inputs),
    )


def _is_none(value: Any) -> bool:
    """Whether an input is a sequence without an element."""
    return isinstance(value, list | tuple) and not value


def _without(names: Collection[str], model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without inputs of which there is nothing: an optional that is not given is omitted, a list of none is made."""
    if not names:
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    kept = [v for v in graph.input if v.name not in names]
    gone = [v for v in model.graph.input if v.name in names]
    del graph.input[:]
    graph.input.extend(kept)
    for value in gone:
        kind = value.type.optional_type.elem_type if value.type.HasField("optional_type") else value.type
        if kind.HasField("sequence_type"):
            element = kind.sequence_type.elem_type.tensor_type.elem_type
            graph.node.insert(0, helper.make_node("SequenceEmpty", [], [value.name], name=value.name, dtype=element))
            continue
        for node in graph.node:
            node.input[:] = ["" if name == value.name else name for name in node.input]
    return copy


def _fed(inputs: Mapping[str, Any], untyped: Collection[str]) -> tuple[dict[str, np.ndarray], dict[str, Var]]:
    """(arrays by name as the engine holds them, what they are where the file does not say it: sequences and optionals)."""
    arrays: dict[str, np.ndarray] = {}
    vars: dict[str, Var] = {}
    for name, value in inputs.items():
        if not isinstance(value, list | tuple):
            arrays[name] = np.asarray(value)
            if name in untyped:
                vars[name] = _var(name, arrays[name])
            continue
        elements = [np.asarray(v) for v in value]
        if len({e.shape for e in elements}) == 1:
            arrays[name] = np.stack(elements)
            vars[name] = _var(name, arrays[name])
            continue
        ranks = {e.ndim for e in elements}
        axes = [a for a in range(max(ranks)) if len(ranks) > 1 or len({e.shape[a] for e in elements}) > 1]
        axis = axes[0] if len(axes) == len(ranks) == 1 else None
        parts = Parts(table_of(name), axis, ranks.pop() if len(ranks) == 1 else None)
        shapes = [(*e.shape, *[-1] * (MOST_AXES - e.ndim)) for e in elements]
        arrays[name] = np.concatenate([e.reshape(-1) if axis is None else e for e in elements], axis or 0)
        arrays[parts.table] = np.asarray([s if axis is None else [s[axis]] for s in shapes], np.int64)
        vars[name] = dataclasses.replace(_var(name, arrays[name]), parts=parts)
        vars[parts.table] = _var(parts.table, arrays[parts.table])
    return arrays, vars


def _var(name: str, array: np.ndarray) -> Var:
    return Var(name, array.dtype, tuple(fresh(n) for n in array.shape))


def _elements(name: str, results: Mapping[str, np.ndarray], plan: Plan) -> Any:
    """A result; of a sequence of unequal elements the list of these."""
    parts = plan.vars[name].parts if name in plan.vars else None
    if parts is None:
        return results[name]
    whole, table = results[name], results[parts.table]
    ends = np.cumsum(np.prod(np.where(table < 0, 1, table), 1))
    pieces = np.split(whole, ends[:-1], parts.axis or 0)
    if parts.axis is not None:
        return pieces
    return [piece.reshape([n for n in shape if n >= 0]) for piece, shape in zip(pieces, table, strict=True)]


def _as(result: np.ndarray, value: onnx.ValueInfoProto) -> Any:
    """A result in the type that the graph declares."""
    kind = value.type.optional_type.elem_type if value.type.HasField("optional_type") else value.type
    sequence = kind.HasField("sequence_type")
    kind = kind.sequence_type.elem_type if sequence else kind
    if kind.HasField("tensor_type") and kind.tensor_type.elem_type:
        dtype = helper.tensor_dtype_to_np_dtype(kind.tensor_type.elem_type)
        result = [e.astype(dtype) for e in result] if isinstance(result, list) else np.asarray(result).astype(dtype)
    return list(result) if sequence else result


def _bound(model: onnx.ModelProto, values: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """The model with graph inputs as initializers."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.initializer.extend(numpy_helper.from_array(v, n) for n, v in values.items())
    return copy


class Engine(Backend):
    """The ``onnx.backend.base.Backend`` of this package; CPU and, where TensorFlow sees one, GPU."""

    @classmethod
    def is_compatible(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> bool:
        """Whether every node is read without knowing any input."""
        reader = Reader(load_graph(model), ())
        reader.read()
        return not reader.unread

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> Prepared:
        """Read a model. ``jit``: "eager" (default), "graph" or "xla".

        Raises:
            ModelError: it can't be read.
        """
        return Prepared(model, kwargs.get("jit", "eager"))

    @classmethod
    def run_model(cls, model: onnx.ModelProto, inputs: Any, device: str = "CPU", **kwargs: Any) -> tuple[Any, ...]:
        """:meth:`prepare` and ``run`` in one call."""
        return cls.prepare(model, device, **kwargs).run(inputs)

    @classmethod
    def run_node(
        cls, node: onnx.NodeProto, inputs: Any, device: str = "CPU", outputs_info: Any = None, **kwargs: Any
    ) -> tuple[Any, ...]:
        """Run one node on arrays, as of opset ``opset_version`` (default: the newest that onnx knows).

        Args:
            node: the node.
            inputs: its inputs in order, those it leaves out left out.
            device: "CPU".
            outputs_info: (dtype, shape) of every output; dtypes default to the engine's own.
        """
        version = int(kwargs.get("opset_version", onnx.defs.onnx_opset_version()))
        names = [n for n in node.input if n]
        arrays = dict(zip(names, inputs, strict=True))
        infos = [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(np.asarray(a).dtype), None) for n, a in arrays.items()
        ]
        outputs = [onnx.ValueInfoProto(name=n) for n in node.output if n]
        for k, (dtype, shape) in enumerate(outputs_info or ()):
            outputs[k].CopyFrom(
                helper.make_tensor_value_info(outputs[k].name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape)
            )
        graph = helper.make_graph([node], "node", infos, outputs)
        imports = [helper.make_opsetid(node.domain, version if not node.domain else 1)]
        if node.domain:
            imports.append(helper.make_opsetid("", onnx.defs.onnx_opset_version()))
        return cls.run_model(helper.make_model(graph, opset_imports=imports), arrays, device)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """CPU always."""
        return device == "CPU"


is_compatible = Engine.is_compatible
prepare = Engine.prepare
run_model = Engine.run_model
run_node = Engine.run_node
supports_device = Engine.supports_device
