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

from ._lazy import tf
from .errors import InputError, UnsupportedModel
from .graph import load_graph
from .plan import Step, _Reader
from .registry import is_float

__all__ = ["Engine", "Prepared", "is_compatible", "prepare", "run_model", "run_node", "supports_device"]


class Prepared(BackendRep):
    """A model made ready to run forward, eagerly. float64 models run in float64, all others in float32.

    A graph input that a layer needs as a constant (weights: in tests of single nodes they are graph inputs) is bound to its value
    when the model is run; no node is folded away by that.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = load_graph(model)
        self._model = model
        self._inputs = [v.name for v in graph.inputs]
        self._nodes = len(graph.nodes)
        self._read: dict[frozenset[str], Sequence[Step]] = {}
        self._graph = graph

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Outputs in the model's order and dtypes.

        Args:
            inputs: arrays in the order of the graph inputs, or by name.

        Raises:
            InputError: too many inputs, or one is missing.
            UnsupportedModel: nodes that no layer runs.
        """
        if isinstance(inputs, np.ndarray):
            inputs = [inputs]
        if not isinstance(inputs, Mapping):
            if len(inputs) > len(self._inputs):
                raise InputError(f"{len(inputs)} inputs for {', '.join(self._inputs)}")
            inputs = dict(zip(self._inputs, inputs, strict=False))
        missing = [n for n in self._inputs if n not in inputs]
        if missing:
            raise InputError(f"inputs missing: {', '.join(missing)}")
        graph, steps = self._steps(inputs)
        wide = any(np.asarray(v).dtype == np.float64 for v in [*inputs.values(), *graph.constants.values()] if not _nested(v))
        dtype = np.float64 if wide else np.float32
        env = {n: _tensor(v, dtype) for n, v in {**graph.constants, **inputs}.items() if not _text(v)}
        for step in steps:
            parameters = {n: _tensor(v, dtype) for n, v in step.layer.parameters.items()}
            trace = step.layer.run([env[n] for n in step.inputs], parameters)
            env.update({n: t for n, t in zip(step.outputs, trace.outputs, strict=False) if n})
        return tuple(_array(env[v.name], v.dtype) for v in graph.outputs)

    def _steps(self, inputs: Mapping[str, Any]) -> tuple[Any, Sequence[Step]]:
        """The graph and its layers, inputs bound to their values as far as layers need constants."""
        bound: set[str] = set()
        graph = self._graph
        while True:
            reader = _Reader(graph, ())
            reader.read()
            if not reader.unread:
                return graph, reader.order
            nodes = {id(node): (node, why) for node, why in reader.unread.values()}
            wanted = {n for node, _ in nodes.values() for n in node.inputs[1:] if n in inputs} - bound
            wanted -= {node.inputs[0] for node, _ in nodes.values() if node.inputs}
            if not wanted:
                raise UnsupportedModel("no layer runs " + "; ".join(f"{node.label}: {why}" for node, why in nodes.values()))
            bound |= wanted
            graph = load_graph(_bound(self._model, {n: inputs[n] for n in bound}))
            if len(graph.nodes) < self._nodes:
                raise UnsupportedModel(f"nodes of {', '.join(sorted(bound))} alone would be folded, not run")


def _nested(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _text(value: Any) -> bool:
    return not _nested(value) and np.asarray(value).dtype.kind in "OUS"


def _tensor(value: Any, dtype: Any) -> Any:
    if _nested(value):
        return [_tensor(v, dtype) for v in value]
    array = np.asarray(value)
    return tf.constant(array.astype(dtype) if is_float(array.dtype) else array)


def _array(value: Any, dtype: Any) -> Any:
    if _nested(value):
        return [_array(v, dtype) for v in value]
    array = np.asarray(value)
    return array if dtype is None or array.dtype == dtype else array.astype(dtype)


def _bound(model: onnx.ModelProto, values: Mapping[str, Any]) -> onnx.ModelProto:
    """The model with graph inputs as initializers."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), n) for n, v in values.items())
    return copy


class Engine(Backend):
    """The ``onnx.backend.base.Backend`` of this package; CPU and, where TensorFlow sees one, GPU."""

    @classmethod
    def is_compatible(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> bool:
        """Whether every node is read without knowing any input."""
        reader = _Reader(load_graph(model), ())
        reader.read()
        return not reader.unread

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> Prepared:
        """Read a model.

        Raises:
            ModelError: it can't be read.
        """
        return Prepared(model)

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
        infos = [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(np.asarray(a).dtype), None) for n, a in arrays.items()]
        outputs = [onnx.ValueInfoProto(name=n) for n in node.output if n]
        for k, (dtype, shape) in enumerate(outputs_info or ()):
            outputs[k].CopyFrom(helper.make_tensor_value_info(outputs[k].name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape))
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
