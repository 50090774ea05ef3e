"""The engine's forward pass as an ONNX backend (``onnx.backend.base``), so that ONNX's own tests and tools can run it.

Every node is run by its layer, none by onnxruntime; relevance plays no part here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.backend.base import Backend, BackendRep

from .composites import Assignment
from .errors import InputError, UnsupportedModel
from .graph import Graph, load_graph
from .nested import Step
from .plan import Plan
from .program import Program
from .reader import Reader
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
        given = {n: _stacked(inputs[n], n) for n in names}
        graph, reader = self._read(given)
        self.steps = tuple(reader.order)
        plan = _forward_plan(graph, reader)
        arrays = [*given.values(), *graph.constants.values()]
        precision = "float64" if any(a.dtype == np.float64 for a in arrays) else "float32"
        program = Program(plan, policy=Policy(), rules=Assignment((), {}), precision=precision, jit=self._jit)
        results = program({n: given[n] for n in plan.feeds}, Target("forward"))["outputs"]
        return tuple(_as(results[v.name], v) for v in self._model.graph.output)

    def _read(self, given: Mapping[str, np.ndarray]) -> tuple[Graph, Reader]:
        """The graph and its layers, graph inputs bound to their values as far as layers need constants."""
        bound: set[str] = set()
        graph = self._graph
        while True:
            reader = Reader(graph, ())
            reader.read()
            unread = {id(node): (node, why) for node, why in reader.unread.values()}
            if not unread:
                return graph, reader
            wanted = {n for node, _ in unread.values() for n in node.inputs[1:] if n in given} - bound
            wanted -= {node.inputs[0] for node, _ in unread.values() if node.inputs}
            wanted |= {node.inputs[0] for node, _ in unread.values() if node.op == "If" and node.inputs[0] in given} - bound
            more = load_graph(_bound(self._model, {n: given[n] for n in bound | wanted})) if wanted else graph
            folded = len(more.nodes) < len(self._graph.nodes) and not any(node.op == "If" for node, _ in unread.values())
            if not wanted or folded:
                raise UnsupportedModel("no layer runs " + "; ".join(f"{node.label}: {why}" for node, why in unread.values()))
            bound |= wanted
            graph = more


def _forward_plan(graph: Graph, reader: Reader) -> Plan:
    """A plan that runs every node and explains nothing."""
    nothing: Any = None
    return Plan(
        graph=graph,
        steps=tuple(reader.order),
        vars=reader.vars,
        path=frozenset(),
        points=(),
        origins={},
        feeds=tuple(v.name for v in graph.inputs),
        prefix=(),
        output="",
        explained="",
        class_axis=None,
        batch=None,
        times=frozenset(),
        scope=nothing,
        outputs=tuple(v.name for v in graph.outputs),
        inputs=tuple(v.name for v in graph.inputs),
    )


def _stacked(value: Any, name: str) -> np.ndarray:
    """An input as an array: the engine holds a sequence of equal tensors stacked along a new first axis."""
    if not isinstance(value, list | tuple):
        return np.asarray(value)
    if len({np.shape(v) for v in value}) != 1:
        raise InputError(f"{name}: only sequences of tensors of one shape are read, got {[np.shape(v) for v in value]}")
    return np.stack(value)


def _as(result: np.ndarray, value: onnx.ValueInfoProto) -> Any:
    """A result in the type that the graph declares."""
    kind = value.type.optional_type.elem_type if value.type.HasField("optional_type") else value.type
    sequence = kind.HasField("sequence_type")
    kind = kind.sequence_type.elem_type if sequence else kind
    if kind.HasField("tensor_type") and kind.tensor_type.elem_type:
        result = np.asarray(result).astype(helper.tensor_dtype_to_np_dtype(kind.tensor_type.elem_type))
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
