"""The sound models that mutants are made of: small ones that this file builds, drawn ones of every op family, and the zoo's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from onnx_lrp import testing
from onnx_lrp.testing.build import Builder

ZOO = Path(__file__).resolve().parents[3] / "shared" / "zoo"
LARGEST = 2**17  # bytes; a mutant of a larger model says nothing more and takes longer
LOCATION = "weights.bin"


def builder(opset: int = 17) -> Builder:
    return Builder(np.random.default_rng(3), opset)


def floats(name: str, shape: Any = None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def dense() -> onnx.ModelProto:
    b = builder()
    return b.case(b.gemm(b.op("Tanh", b.gemm(b.rows(2, 3), 3, 4)), 4, 2))[0]


def recurrent(op: str, gates: int) -> onnx.ModelProto:
    b = builder()
    x = b.input("x", b.numbers(3, 2, 3), ["time", "batch", 3])
    _, h = b.ops(op, x, b.weight(1, gates * 4, 3), b.weight(1, gates * 4, 4), outputs=2, hidden_size=4)
    return b.case(b.gemm(b.over("Squeeze", h, 0), 4, 2))[0]


def words() -> onnx.ModelProto:
    """Ids of any length through an embedding, folded constants on the way."""
    b = builder()
    ids = b.input("ids", np.zeros((2, 3), np.int64), ["batch", "time"])
    table = b.op("Transpose", b.op("Concat", b.weight(4, 3), b.weight(4, 5), axis=1), perm=[1, 0])
    x = b.op("Transpose", b.op("Gather", table, ids), perm=[1, 0, 2])
    _, h = b.ops("LSTM", x, b.weight(1, 16, 4), b.weight(1, 16, 4), outputs=2, hidden_size=4)
    return b.case(b.op("Softmax", b.gemm(b.over("Squeeze", h, 0), 4, 2), axis=-1))[0]


def folded() -> onnx.ModelProto:
    """Constants of every op that makes large tensors of small ones."""
    b = builder()
    x = b.rows(2, 4)
    zeros = b.op("ConstantOfShape", b.ints(4, 4))
    wide = b.op("Expand", b.weight(1, 4), b.ints(4, 4))
    tiled = b.op("Tile", b.weight(4, 1), b.ints(1, 4))
    padded = b.op("Pad", b.weight(2, 2), b.ints(1, 1, 1, 1))
    steps = b.op("Cast", b.op("Range", b.const(0, np.int64), b.const(4, np.int64), b.const(1, np.int64)), to=TensorProto.FLOAT)
    hot = b.op("OneHot", b.ints(0, 1, 2, 3), b.const(4, np.int64), b.const([0, 1], np.float32))
    weight = b.op("Sum", zeros, wide, tiled, padded, hot, b.op("MatMul", b.weight(4, 4), b.weight(4, 4)))
    return b.case(b.op("Add", b.op("MatMul", x, weight), steps))[0]


def branching() -> onnx.ModelProto:
    b = builder()
    x = b.rows(2, 3)
    flag = b.input("flag", np.asarray(True), [])
    sides = {}
    for name, op in (("then_branch", "Tanh"), ("else_branch", "Relu")):
        weight = numpy_helper.from_array(b.numbers(3, 4), "w")
        nodes = [helper.make_node("MatMul", [x, "w"], ["z"]), helper.make_node(op, ["z"], ["y"])]
        sides[name] = helper.make_graph(nodes, name, [], [floats("y")], [weight])
    return b.case(b.gemm(b.op("If", flag, **sides), 4, 2))[0]


def looping() -> onnx.ModelProto:
    b = builder()
    x = b.input("x", b.numbers(3, 2, 4), ["time", "batch", 4])
    w, start = b.weight(4, 4), b.op("ReduceSum", x, b.ints(0), keepdims=0)
    nodes = [
        helper.make_node("Identity", ["go"], ["on"]),
        helper.make_node("Gather", [x, "k"], ["row"], axis=0),
        helper.make_node("MatMul", ["h", w], ["hw"]),
        helper.make_node("Add", ["row", "hw"], ["z"]),
        helper.make_node("Tanh", ["z"], ["new"]),
    ]
    scalars = [helper.make_tensor_value_info("k", TensorProto.INT64, []), helper.make_tensor_value_info("go", TensorProto.BOOL, [])]
    on = helper.make_tensor_value_info("on", TensorProto.BOOL, [])
    body = helper.make_graph(nodes, "body", [*scalars, floats("h")], [on, floats("new")])
    return b.case(b.gemm(b.op("Loop", b.const(3, np.int64), b.const(True), start, body=body), 4, 2))[0]


def scanning() -> onnx.ModelProto:
    b = builder()
    x = b.input("x", b.numbers(3, 2, 4), ["time", "batch", 4])
    nodes = [helper.make_node("Add", ["row", "h"], ["z"]), helper.make_node("Tanh", ["z"], ["new"])]
    body = helper.make_graph(nodes, "body", [floats("h"), floats("row")], [floats("new")])
    start = b.op("ReduceSum", x, b.ints(0), keepdims=0)
    return b.case(b.gemm(b.op("Scan", start, x, body=body, num_scan_inputs=1), 4, 2))[0]


def with_functions() -> onnx.ModelProto:
    b = builder()
    x = b.rows(2, 3)
    body = [helper.make_node("MatMul", ["a", "w"], ["z"]), helper.make_node("Tanh", ["z"], ["y"])]
    inner = helper.make_function("local", "Layer", ["a", "w"], ["y"], body, [helper.make_opsetid("", 17)])
    calls = [
        helper.make_node("Layer", ["a", "w"], ["m"], domain="local"),
        helper.make_node("Layer", ["m", "w"], ["y"], domain="local"),
    ]
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    outer = helper.make_function("local", "Two", ["a", "w"], ["y"], calls, imports)
    model = b.case(b.gemm(b.op("Two", x, b.weight(3, 3), domain="local"), 3, 2))[0]
    model.functions.extend([inner, outer])
    return model


def convolution() -> onnx.ModelProto:
    b = builder()
    x = b.input("x", b.numbers(2, 2, 8), ["batch", 2, 8])
    y = b.op("Relu", b.op("Conv", x, b.weight(3, 2, 3), b.weight(3), pads=[1, 1], strides=[2]))
    y = b.op("MaxPool", y, kernel_shape=[2], strides=[2])
    return b.case(b.gemm(b.op("Reshape", y, b.ints(0, -1)), 6, 2))[0]


def sparse() -> onnx.ModelProto:
    b = builder()
    values = numpy_helper.from_array(np.asarray([0.7, -1.2], np.float32), "w")
    places = numpy_helper.from_array(np.asarray([[0, 1], [2, 0]], np.int64), "places")
    model = b.case(b.op("MatMul", b.rows(2, 3), "w"))[0]
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [3, 2]))
    return model


def listing() -> onnx.ModelProto:
    """A sequence, and quantized weights."""
    b = builder()
    x = b.rows(2, 4)
    pair = b.op("SequenceConstruct", b.op("Tanh", x), b.op("Relu", x))
    y = b.op("ConcatFromSequence", pair, axis=1)
    weight = b.op(
        "DequantizeLinear", b.const(np.arange(16).reshape(8, 2), np.uint8), b.const(0.1, np.float32), b.const(7, np.uint8)
    )
    return b.case(b.op("MatMul", y, weight))[0]


def external() -> onnx.ModelProto:
    """Weights in a file beside the model; :func:`external_bytes` is what belongs there."""
    model, at = dense(), 0
    for tensor in model.graph.initializer:
        size = len(tensor.raw_data)
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", LOCATION), ("offset", at), ("length", size)):
            tensor.external_data.add(key=key, value=str(value))
        at += size
    return model


def external_bytes() -> bytes:
    return b"".join(t.raw_data for t in dense().graph.initializer)


BUILT = (
    dense,
    lambda: recurrent("LSTM", 4),
    lambda: recurrent("GRU", 3),
    lambda: recurrent("RNN", 1),
    words,
    folded,
    branching,
    looping,
    scanning,
    with_functions,
    convolution,
    sparse,
    listing,
    external,
)


def drawn(count: int) -> Iterator[onnx.ModelProto]:
    """Some models of every op family, the same ones every time."""
    from hypothesis import HealthCheck, Phase, given, settings

    quick = settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    found: list[onnx.ModelProto] = []
    for family in testing.families().values():

        @quick
        @given(family())
        def collect(case: Any) -> None:
            found.append(case[0])

        collect()
    yield from found


def bases(*, draw: int = 2, zoo: bool = True) -> list[bytes]:
    """All of them, serialized, in an order that stays. ``draw``: how many of each family."""
    models = [make().SerializeToString() for make in BUILT]
    if draw:
        models += [m.SerializeToString() for m in drawn(draw)]
    if zoo and ZOO.is_dir():
        for path in sorted(ZOO.glob("*.onnx")):
            if path.stat().st_size <= LARGEST and not list(ZOO.glob(f"{path.name}.data")) and "external" not in path.name:
                models.append(path.read_bytes())
    return models
