"""Constants are folded as onnxruntime computes them, odd but legal spellings included."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import onnx_lrp
from onnx_lrp.reading import load_graph


def folding(op, *inputs, opset=17, outputs=1, **attributes):
    """A model whose first outputs are an op on constants."""
    names = [f"c{k}" for k in range(len(inputs))]
    constants = [numpy_helper.from_array(np.asarray(v), n) for v, n in zip(inputs, names, strict=True)]
    results = [f"y{k}" for k in range(outputs)]
    nodes = [helper.make_node(op, names, results, **attributes), helper.make_node("Identity", ["x"], ["z"])]
    given = [helper.make_tensor_value_info("x", 1, [2])]
    made = [*(onnx.ValueInfoProto(name=n) for n in results), helper.make_tensor_value_info("z", 1, [2])]
    graph = helper.make_graph(nodes, "folding", given, made, constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def ints(*values):
    return np.asarray(values, np.int64)


FIVE = np.arange(1, 6, dtype=np.float32)
CUBE = np.arange(1, 25, dtype=np.float32).reshape(2, 3, 4)
TEXTS = np.asarray(["1.5", "2"], object)


@pytest.mark.parametrize(
    ("op", "inputs", "options"),
    [
        ("ReduceProd", [1 + CUBE % 2, ints()], {"opset": 18}),
        ("ReduceProd", [CUBE % 3], {"opset": 18, "noop_with_empty_axes": 1}),
        ("ReduceProd", [CUBE % 3, ints(-1, 0)], {"opset": 18, "keepdims": 0}),
        ("ReduceProd", [np.asarray([3, 4], np.int32)], {}),
        ("Slice", [FIVE, ints(-100), ints(-200), ints(0), ints(-1)], {}),
        ("Slice", [FIVE, ints(100), ints(-200), ints(0), ints(-2)], {}),
        ("Slice", [FIVE, ints(-2), ints(-5), ints(0), ints(-1)], {}),
        ("Squeeze", [FIVE.reshape(1, 5, 1), ints()], {}),
        ("Split", [CUBE, ints(1, 2)], {"outputs": 2, "axis": -2}),
        ("Split", [FIVE], {"outputs": 2, "num_outputs": 2, "opset": 18}),
        ("Cast", [TEXTS], {"to": onnx.TensorProto.FLOAT}),
        ("Cast", [FIVE], {"to": onnx.TensorProto.STRING}),
        ("Equal", [TEXTS, np.asarray(["1.50", "2"], object)], {"opset": 19}),
        ("Equal", [np.asarray(["1"], object), np.asarray(["01"], object)], {"opset": 19}),
    ],
)
def test_as_onnxruntime(op, inputs, options):
    onnxruntime = pytest.importorskip("onnxruntime")
    model = folding(op, *inputs, **options)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    expected = session.run([v.name for v in model.graph.output[:-1]], {"x": np.zeros(2, np.float32)})
    constants = load_graph(model).constants
    for value, want in zip([constants[v.name] for v in model.graph.output[:-1]], expected, strict=True):
        assert value.dtype == want.dtype
        np.testing.assert_array_equal(value, want)


def test_casts_to_eight_bits_saturate():
    constants = load_graph(folding("Cast", [1000.0, -np.inf, np.nan], opset=19, to=onnx.TensorProto.FLOAT8E4M3FN)).constants
    np.testing.assert_array_equal(constants["y0"].astype(np.float32), [448, -448, np.nan])


@pytest.mark.parametrize(
    ("op", "inputs", "options"),
    [
        ("Split", [FIVE, ints(2, 2)], {"outputs": 2}),
        ("Split", [FIVE], {"outputs": 2}),
    ],
)
def test_parts_that_are_not_the_whole_are_refused(op, inputs, options):
    with pytest.raises(onnx_lrp.InvalidModel, match="Split 'y0': constants can't be folded"):
        load_graph(folding(op, *inputs, **options))
