"""Quantized models: those of onnxruntime's tools, ops whose rounding can't be avoided, and what quantizing may not change."""

from __future__ import annotations

import logging

import numpy as np
import onnx
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from onnxruntime import InferenceSession, quantization

import onnx_lrp
from onnx_lrp import testing
from onnx_lrp.registry import registered
from onnx_lrp.testing import qlinear, quantize
from onnx_lrp.testing.build import Builder
from onnx_lrp.testing.quantize import MICROSOFT, Grid

DRAWN = st.one_of(testing.dense(), testing.lstms(), testing.grus(), testing.concats(), testing.gathers(), testing.softmaxes())
EAGER = {"jit": "eager", "verify": "never", "precision": "float64"}


class Batches(quantization.CalibrationDataReader):
    """What the ranges of activations are taken from: the very inputs that are explained, and some around them."""

    def __init__(self, feeds):
        scaled = [{k: v if v.dtype.kind != "f" else (v * f).astype(v.dtype) for k, v in feeds.items()} for f in (1, 1.2, 0.8)]
        self.batches = iter(scaled)

    def get_next(self):
        return next(self.batches, None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    logging.disable(logging.WARNING)
    yield tmp_path_factory.mktemp("quantized")
    logging.disable(logging.NOTSET)


def quantized(folder, model, feeds, how, dtype):
    before, after = folder / "before.onnx", folder / "after.onnx"
    onnx.save(model, before)
    if how == "dynamic":
        quantization.quantize_dynamic(before, after, weight_type=quantization.QuantType.QInt8)
    else:
        form = quantization.QuantFormat.QDQ if how == "qdq" else quantization.QuantFormat.QOperator
        kinds = {"activation_type": dtype, "weight_type": quantization.QuantType.QInt8}
        quantization.quantize_static(before, after, Batches(feeds), quant_format=form, **kinds)
    return onnx.load(after)


@pytest.mark.parametrize("how", ["dynamic", "qdq", "operators"])
@given(data=st.data())
def test_models_of_the_quantization_tool(folder, how, data):
    model, feeds = data.draw(DRAWN.filter(lambda case: case[0].opset_import[0].version >= 13))
    dtype = data.draw(st.sampled_from([quantization.QuantType.QUInt8, quantization.QuantType.QInt8]))
    after = quantized(folder, model, feeds, how, dtype)
    assume(any("uantize" in n.op_type for n in after.graph.node))
    onnx_lrp.load(after, jit="eager", verify="always").explain(feeds)  # outputs within the quantization step
    testing.assert_conserves(after, feeds)
    testing.assert_conserves(after, feeds, precision="float64")


def test_the_tolerance_is_said(folder):
    b = Builder(np.random.default_rng(0), 17)
    model, feeds = b.case(b.gemm(b.rows(2, 3), 3, 2))
    after = quantized(folder, model, feeds, "qdq", quantization.QuantType.QUInt8)
    explainer = onnx_lrp.load(after, jit="eager")
    assert "quantized" in " ".join(explainer.summary().notes)
    assert not any("quantized" in n for n in onnx_lrp.load(model).summary().notes)


def test_another_function_is_noticed(folder):
    """The comparison with onnxruntime still tells a wrong scale from rounding."""
    b = Grid(np.random.default_rng(0), 17)
    q = b.op("QuantizeLinear", b.points(3, 4), *b.scaled(1 / 16, 0, np.int8))
    model, feeds = b.case(b.gemm(b.op("DequantizeLinear", q, *b.scaled(1 / 16, 0, np.int8)), 4, 2))
    explainer = onnx_lrp.load(model, jit="eager", verify="always")
    explainer.explain(feeds)
    layers = {s.node.op: s.layer for s in explainer._plan.steps}
    layers["DequantizeLinear"].parameters["scale"] = np.float32(1 / 10)
    with pytest.raises(onnx_lrp.ParityError):
        explainer.__class__(explainer._graph, explainer._plan, choose=explainer._choose, options=explainer._options).explain(feeds)


@given(data=st.data())
def test_weights_that_quantize_exactly_change_nothing(data):
    """DequantizeLinear of constants, also of one scale a column: the plain model to the last digit."""
    b = Grid(data.draw(testing.build.generators()), 17)
    batch, width, out = (data.draw(st.integers(1, 3)) for _ in range(3))
    steps, scales = b.grid(width, out), np.full(out, 0.25, np.float32) / 2.0 ** b.rng.integers(0, 3, out)
    x = b.rows(batch, width)
    plain = b.op("MatMul", x, b.const(steps * scales, np.float32))
    w = b.op("DequantizeLinear", b.const(steps + 1, np.int8), *b.scaled(scales, np.ones(out), np.int8), axis=1)
    q = b.op("MatMul", x, w)
    c = b.weight(out)
    outputs = [b.op("Tanh", b.op("Add", z, c)) for z in (plain, q)]
    model, feeds = b.case(*outputs)
    first, second = (onnx_lrp.load(model, output=o, **EAGER).explain(feeds) for o in outputs)
    np.testing.assert_allclose(first.relevance["x"], second.relevance["x"], rtol=1e-9, atol=1e-12)


@given(data=st.data(), bias_factor=st.sampled_from([0.0, 1.0]))
def test_dynamic_quantization_is_the_dequantized_layer(data, bias_factor):
    """MatMulInteger, Cast, Mul by both scales and Add are one block: MatMul with the dequantized weights, and Add."""
    b = Grid(data.draw(testing.build.generators()), 17)
    batch, width, out = (data.draw(st.integers(1, 3)) for _ in range(3))
    steps, c = b.grid(width, out), b.weight(out)
    x = b.op("Tanh", b.rows(batch, width))
    q, scale, zero = b.ops("DynamicQuantizeLinear", x, outputs=3)
    z = b.op("Cast", b.op("MatMulInteger", q, b.const(steps, np.int8), zero), to=1)
    z = b.op("Add", b.op("Mul", z, b.op("Mul", scale, b.const(np.float32(0.125)))), c)
    plain = b.op("Add", b.op("MatMul", x, b.const(steps / 8, np.float32)), c)
    outputs = [b.op("Identity", plain), b.op("Identity", z)]
    model, feeds = b.case(*outputs)
    options = {**EAGER, "bias_factor": bias_factor}
    first, second = (onnx_lrp.load(model, output=o, **options).explain(feeds) for o in outputs)
    np.testing.assert_allclose(first.relevance["x"], second.relevance["x"], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", [*quantize.KINDS, *qlinear.KINDS])
@settings(max_examples=8)
@given(data=st.data())
def test_every_kind_is_onnxruntime(kind, data):
    """On the grid there is nothing to round; saturation counts."""
    family = testing.quantizations if kind in quantize.KINDS else testing.qlinears
    testing.assert_matches_runtime(*data.draw(family(kind=kind)))


def roughly(model, feeds, steps):
    """Outputs within an absolute amount of onnxruntime's; the books close."""
    session = InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    got = onnx_lrp.load(model, **EAGER).predict(feeds)
    for value, want in zip(session.get_outputs(), session.run(None, feeds), strict=True):
        assert np.abs(got[value.name] - want).max() <= steps
    testing.assert_conserves(model, feeds, precision="float64")


@pytest.mark.parametrize("dtype", [np.uint8, np.int8], ids=["uint8", "int8"])
@pytest.mark.parametrize("op", ["QLinearSigmoid", "QLinearSoftmax"])
def test_functions_between_quantized_tensors(op, dtype):
    b = Grid(np.random.default_rng(1), 17)
    x = b.op("QuantizeLinear", b.points(3, 4), *b.scaled(1 / 16, 0, dtype))
    after = b.scaled(1 / 256, 0 if dtype == np.uint8 else -128, dtype)
    more = {"axis": -1, "opset": 17} if op == "QLinearSoftmax" else {}
    y = b.op("DequantizeLinear", b.op(op, x, *b.scaled(1 / 16, 0, dtype), *after, **more, **MICROSOFT), *after)
    roughly(*b.case(b.op("Mul", y, b.weight(4))), steps=2 / 256)


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("per_column", [False, True])
def test_dynamic_quantize_lstm(direction, per_column):
    b = Grid(np.random.default_rng(2), 17)
    count, size, width = 1 + (direction == "bidirectional"), 3, 4
    x = b.input("x", b.numbers(5, 2, width), ["time", "batch", width])
    shape = (count, 4 * size) if per_column else (count,)

    def weights(rows):
        zero = b.const(np.zeros(shape) if per_column else np.arange(count), np.int8)
        return (
            b.const(b.grid(count, rows, 4 * size, reach=100), np.int8),
            b.const(0.005 + 0.005 * b.rng.random(shape), np.float32),
            zero,
        )

    w, r = weights(width), weights(size)
    bias = b.weight(count, 8 * size)
    attributes = {"hidden_size": size, "direction": direction}
    y = b.ops("DynamicQuantizeLSTM", x, w[0], r[0], bias, "", "", "", "", *w[1:], *r[1:], outputs=3, **attributes, **MICROSOFT)
    model, feeds = b.case(b.op("Squeeze", y[1], b.ints(0)) if count == 1 else b.op("Transpose", y[1], perm=[1, 0, 2]))
    roughly(model, feeds, steps=0.05)
    # the same cell in floating point
    stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    node = plain.graph.node[0]
    node.op_type, node.domain = "LSTM", ""
    del node.input[8:]
    for name, (q, scale, zero) in (("W", w), ("R", r)):
        s, z = (np.reshape(stored[k], (count, 1, -1)) for k in (scale, zero))
        floats = ((stored[q].astype(np.float32) - z) * s).swapaxes(1, 2)
        plain.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(floats), name))
    node.input[1], node.input[2] = "W", "R"
    first, second = (onnx_lrp.load(m, **EAGER).explain(feeds) for m in (model, plain))
    np.testing.assert_allclose(first.relevance["x"], second.relevance["x"], rtol=1e-6, atol=1e-9)


def ends_in_integers():
    b = Grid(np.random.default_rng(3), 17)
    z = b.gemm(b.points(3, 4), 4, 2)
    q = b.op("QuantizeLinear", z, *b.scaled(1 / 32, 3, np.int8))
    model, feeds = b.case(q)
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.INT8
    return model, feeds, z


def test_quantized_outputs_are_integers_again():
    """Outputs have the model's dtypes; the scores explained are those before they are counted in steps."""
    model, feeds, z = ends_in_integers()
    want = InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, feeds)[0]
    explainer = onnx_lrp.load(model, jit="eager", precision="float64")
    explanation = explainer.explain(feeds)
    (got,) = explanation.outputs.values()
    assert got.dtype == np.int8
    assert np.abs(got.astype(int) - want).max() <= 1
    assert explainer._plan.explained == z
    testing.assert_conserves(model, feeds)


def test_a_cut_at_a_quantized_tensor():
    """Its integers are computed by onnxruntime and fed as numbers."""
    b = Grid(np.random.default_rng(4), 17)
    q = b.op("QuantizeLinear", b.points(3, 4), *b.scaled(1 / 16, 3, np.int8))
    model, feeds = b.case(b.gemm(b.op("DequantizeLinear", q, *b.scaled(1 / 16, 3, np.int8)), 4, 2))
    explanation = onnx_lrp.load(model, at=q, jit="eager").explain(feeds)
    whole = onnx_lrp.load(model, jit="eager").explain(feeds)
    np.testing.assert_allclose(explanation.relevance[q], whole.relevance["x"], rtol=1e-4, atol=1e-6)


def test_quantized_input():
    """A graph input of integers is a tensor of values: relevance ends where they become floating point."""
    b = Grid(np.random.default_rng(5), 17)
    x = b.input("x", b.grid(3, 4, reach=100).astype(np.int8), ["batch", 4])
    y = b.op("DequantizeLinear", x, *b.scaled(1 / 16, 3, np.int8))
    model, feeds = b.case(b.gemm(y, 4, 2))
    explanation = onnx_lrp.load(model, jit="eager").explain(feeds)
    assert list(explanation.relevance) == [y]
    testing.assert_conserves(model, feeds)
    testing.assert_matches_runtime(model, feeds)


def test_a_calibrated_range_makes_no_gate():
    """Relu outputs quantized over [0, 1] stay signals: their product is shared."""
    b = Grid(np.random.default_rng(6), 17)
    x = b.points(3, 4)
    factors = []
    for _ in range(2):
        q = b.op("QuantizeLinear", b.op("Relu", b.gemm(x, 4, 3)), *b.scaled(1 / 255, 0, np.uint8))
        factors.append(b.op("DequantizeLinear", q, *b.scaled(1 / 255, 0, np.uint8)))
    model, _ = b.case(b.op("Mul", *factors))
    steps = onnx_lrp.load(model)._plan.steps
    assert [type(s.layer).__name__ for s in steps if s.node.op == "Mul"] == ["Product"]


@pytest.mark.parametrize("why", ["blocks", "scale"])
def test_refusals_name_the_reason(why):
    b = Grid(np.random.default_rng(7), 21)
    x = b.points(2, 4)
    scale, more = b.const(np.float32(0.1)), {}
    if why == "blocks":
        scale, more = b.const(np.full((1, 4), 0.1, np.float32)), {"block_size": 2, "axis": 0}
    else:
        scale = b.op("ReduceMax", b.op("Abs", x), b.ints(0, 1), keepdims=0)
    q = b.op("QuantizeLinear", x, scale, output_dtype=onnx.TensorProto.INT8, **more)
    model, _ = b.case(b.op("DequantizeLinear", q, scale, **more))
    with pytest.raises(onnx_lrp.UnsupportedModel, match="blocks" if why == "blocks" else "must be constant"):
        onnx_lrp.load(model)


CONVOLUTIONS = ("QLinearConv", "channels last", "ConvInteger", "average", "average last", "global", "maximum")


@pytest.mark.skipif(("", "Conv") not in registered(), reason="needs convolution and pooling")
@pytest.mark.parametrize(("dtype", "zero"), [(np.uint8, 120), (np.int8, -7)], ids=["uint8", "int8"])
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_convolutions_between_quantized_tensors(kind, dtype, zero):
    b = Grid(np.random.default_rng(8), 17)
    shape = (6, 5, 3) if "last" in kind else (3, 6, 5)
    x = b.input("x", (b.grid(2, *shape, reach=8) / 16).astype(np.float32), ["batch", *shape])
    here, step = b.scaled(1 / 16, zero, dtype), 1 / 64
    q, after = b.op("QuantizeLinear", x, *here), b.scaled(step, zero, dtype)
    last = {"channels_last": int("last" in kind), **MICROSOFT}
    if kind in ("QLinearConv", "channels last"):
        scales = np.full(3, 0.125) / 2.0 ** b.rng.integers(0, 3, 3)
        group = 3 if kind == "QLinearConv" else 1
        w = (b.const(b.grid(3, 3 // group, 2, 3), np.int8), *b.scaled(scales, np.zeros(3), np.int8))
        bias, where = b.const(b.grid(3, reach=9), np.int32), {} if kind == "QLinearConv" else last
        y = b.op("QLinearConv", q, *here, *w, *after, bias, pads=[0, 1, 0, 1], strides=[2, 1], group=group, **where)
    elif kind == "ConvInteger":
        z = b.op("ConvInteger", q, b.const(b.grid(2, 3, 2, 3) + 2, np.uint8), here[1], b.const(2, np.uint8), pads=[0, 1, 0, 1])
        y, after = b.op("Cast", z, to=1), None
    elif kind == "maximum":
        y, after = b.op("MaxPool", q, kernel_shape=[2, 2], pads=[1, 1, 0, 0]), here
    elif kind == "global":
        y = b.op("QLinearGlobalAveragePool", q, *here, *after, **last)
    else:
        y = b.op("QLinearAveragePool", q, *here, *after, kernel_shape=[2, 2], **last)
    y = b.op("DequantizeLinear", y, *after) if after else y
    roughly(*b.case(b.op("Tanh", y)), steps=step)


def test_a_bias_in_steps_of_a_dynamic_scale():
    """Early quantizers round it to integers that a batch's scale decides; the dequantized network has the bias itself."""
    models = []
    for quantized in (True, False):
        b = Grid(np.random.default_rng(4), 17)
        x = b.input("x", b.numbers(2, 3, 6), ["batch", 3, 6])
        w, step, bias = b.grid(2, 3, 2), np.float32(0.02), b.numbers(2)
        if quantized:
            q = b.op("DynamicQuantizeLinear", x)
            b.nodes[-1].output.extend(["scale", "zero"])
            scale = b.op("Mul", "scale", b.const(step))
            whole = b.op("Cast", b.op("Floor", b.op("Div", b.const(bias), scale)), to=onnx.TensorProto.INT32)
            y = b.op("ConvInteger", q, b.const(w, np.int8), "zero", b.const(0, np.int8))
            y = b.op("Cast", b.op("Add", y, b.op("Reshape", whole, b.ints(1, -1, 1))), to=onnx.TensorProto.FLOAT)
            y = b.op("Mul", y, scale)
        else:
            y = b.op("Conv", x, b.const((w * step).astype(np.float32)), b.const(bias))
        models.append(b.case(b.op("Tanh", b.op("Flatten", b.op("Tanh", y)))))
    (quantized, feeds), (plain, _) = models
    got, want = (onnx_lrp.load(m, **EAGER).explain(feeds, 0) for m in (quantized, plain))
    np.testing.assert_allclose(got.relevance["x"], want.relevance["x"], rtol=1e-6, atol=1e-9)
    onnx_lrp.load(quantized, verify="always").explain(feeds, 0)
