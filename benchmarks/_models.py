"""The network that the benchmarks explain, its inputs, and onnxruntime's session of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def bilstm(i: int, h: int, c: int, *, lens: bool = False) -> onnx.ModelProto:
    """x (T, B, I) → bidirectional LSTM → last states of both directions → logits (B, C); ``lens``: takes lens (B,), too."""
    rng = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(rng.normal(0, 1 / np.sqrt(h), shape).astype(np.float32), name)

    inputs = ["x", "W", "R", "B", *(["lens"] if lens else [])]
    nodes = [
        helper.make_node("LSTM", inputs, ["", "state"], hidden_size=h, direction="bidirectional"),
        helper.make_node("Transpose", ["state"], ["rows"], perm=[1, 0, 2]),
        helper.make_node("Flatten", ["rows"], ["flat"]),
        helper.make_node("Gemm", ["flat", "V", "b"], ["logits"]),
    ]
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["time", "batch", i])]
    if lens:
        given.append(helper.make_tensor_value_info("lens", TensorProto.INT32, ["batch"]))
    weights = [weight("W", 2, 4 * h, i), weight("R", 2, 4 * h, h), weight("B", 2, 8 * h), weight("V", 2 * h, c), weight("b", c)]
    scores = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", c])]
    graph = helper.make_graph(nodes, "bilstm", given, scores, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def batch(t: int, b: int, i: int) -> np.ndarray:
    """x (T, B, I); drawn in float32, as a copy in float64 would be the peak of a process that is measured."""
    return np.random.default_rng(1).standard_normal((t, b, i), dtype=np.float32)


def session(model: onnx.ModelProto) -> Any:
    """onnxruntime's, on the CPU."""
    import onnxruntime

    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
