"""Statistics that a node takes or returns: of a sample they are followed, of a batch they run forward and stop relevance; and the
places of winners."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

import onnx_lrp
from onnx_lrp import backend, testing
from onnx_lrp.testing.build import Builder

OPTIONS = {"precision": "float64", "jit": "eager", "verify": "never"}
STEPS, WIDTH = 5, 4


def explain(model, feeds, **options):
    explanation = onnx_lrp.load(model, **OPTIONS, **options).explain(feeds)
    np.testing.assert_allclose(explanation.residual, 0, atol=1e-10)
    return explanation


def network(spell, *, batch=3, named=True, seed=0):
    """x (B, C, T) through a tanh, what ``spell`` puts there, and a dense layer."""
    b = Builder(np.random.default_rng(seed), 18)
    x = b.input("x", b.numbers(batch, WIDTH, STEPS), ["batch" if named else batch, WIDTH, STEPS])
    y = spell(b, b.op("Tanh", x))
    return b.case(b.gemm(b.over("ReduceMean", b.op("Relu", y), 2, keepdims=0), WIDTH, 2))


def training(b, y):
    """BatchNormalization by the statistics of the call; its three outputs."""
    before = b.const(np.linspace(-1, 1, WIDTH, dtype=np.float32)), b.const(np.linspace(1, 2, WIDTH, dtype=np.float32))
    return b.ops("BatchNormalization", y, b.weight(WIDTH), b.weight(WIDTH), *before, outputs=3, training_mode=1)


def trained(b, y):
    return training(b, y)[0]


def instance(b, y):
    return b.op("InstanceNormalization", y, b.weight(WIDTH), b.weight(WIDTH))


def over(*axes):
    return lambda b, y: b.op("MeanVarianceNormalization", y, axes=list(axes))


# the mean and the inverse deviation that LayerNormalization may return


def statistic(index, spell=None):
    b = Builder(np.random.default_rng(0), 18)
    y = b.op("Tanh", b.input("x", b.numbers(3, WIDTH, STEPS), ["batch", WIDTH, STEPS]))
    found = spell(b, y) if spell else b.ops("LayerNormalization", y, b.weight(STEPS), outputs=3)[index]
    return b.case(b.op("MatMul", b.op("Squeeze", found, b.ints(2)), b.const(np.linspace(-1, 1, WIDTH, dtype=np.float32)[:, None])))


def test_a_mean_that_is_returned_is_a_mean():
    want = explain(*statistic(1, lambda b, y: b.over("ReduceMean", y, 2)))
    got = explain(*statistic(1))
    np.testing.assert_allclose(got.relevance["x"], want.relevance["x"], atol=1e-12)
    assert np.abs(want.relevance["x"]).max() > 1e-3
    testing.assert_matches_runtime(*statistic(1))


def test_an_inverse_deviation_is_a_constant():
    testing.assert_conserves(*network(lambda b, y: b.op("Mul", y, b.ops("LayerNormalization", y, b.weight(STEPS), outputs=3)[2])))
    with pytest.raises(onnx_lrp.UnsupportedModel, match="on an attribution point"):
        onnx_lrp.load(statistic(2)[0])


# statistics of the batch

BATCHED = {"training": (trained, "inference mode"), "over the batch": (over(0, 2), "samples depend on each other")}


@pytest.mark.parametrize(("spell", "advice"), BATCHED.values(), ids=list(BATCHED))
def test_what_mixes_samples_stops_relevance(spell, advice):
    model, feeds = network(spell)
    with pytest.raises(onnx_lrp.UnsupportedModel, match=advice) as refused:
        onnx_lrp.load(model)
    assert refused.value.cuts
    cut = explain(model, feeds, at=refused.value.cuts[0])
    assert np.abs(cut.relevance[refused.value.cuts[0]]).max() > 0
    (scores,) = backend.run_model(model, feeds)  # and runs
    np.testing.assert_allclose(scores, cut.outputs[model.graph.output[0].name], atol=1e-5)


@pytest.mark.parametrize(("spell", "advice"), BATCHED.values(), ids=list(BATCHED))
def test_what_mixes_samples_may_compute_a_gate(spell, advice):
    model, feeds = network(lambda b, y: b.op("Mul", y, b.op("Sigmoid", spell(b, y))))
    assert "sigmoid" in str(onnx_lrp.load(model).summary()).lower()
    explain(model, feeds)


@pytest.mark.parametrize(
    ("spell", "same"), [(trained, instance), (over(0, 2), over(2))], ids=["instance normalization", "over the other axes"]
)
def test_a_batch_of_one_is_that_sample(spell, same):
    """By the shape in the file the statistics are one sample's."""
    first, second = (explain(*network(s, batch=1, named=False)) for s in (spell, same))
    np.testing.assert_allclose(first.relevance["x"], second.relevance["x"], atol=1e-12)
    assert np.abs(first.relevance["x"]).max() > 1e-3


def test_running_statistics_belong_to_no_sample():
    b = Builder(np.random.default_rng(0), 18)
    y, mean, variance = training(b, b.input("x", b.numbers(3, WIDTH, STEPS), ["batch", WIDTH, STEPS]))
    model, feeds = b.case(y, mean, variance)
    x = feeds["x"].astype(np.float64)
    outputs = backend.run_model(model, feeds)
    for got, before, now in zip(outputs[1:], ((-1, 1), (1, 2)), (x.mean((0, 2)), x.var((0, 2))), strict=True):
        np.testing.assert_allclose(got, 0.9 * np.linspace(*before, WIDTH) + 0.1 * now, rtol=1e-5)
    with pytest.raises(onnx_lrp.UnsupportedModel, match="running statistics"):
        onnx_lrp.load(model, output=mean)


def test_what_mixes_samples_is_refused_in_a_loop_too():
    info = helper.make_tensor_value_info
    nodes = [
        helper.make_node("MeanVarianceNormalization", ["h"], ["n"], name="mixing", axes=[0, 1]),
        helper.make_node("Add", ["n", "step"], ["h1"]),
    ]
    body = helper.make_graph(
        nodes,
        "body",
        [info("h", TensorProto.FLOAT, ["batch", 3]), info("step", TensorProto.FLOAT, ["batch", 3])],
        [info("h1", TensorProto.FLOAT, ["batch", 3])],
    )
    b = Builder(np.random.default_rng(0), 17)
    x = b.input("x", b.numbers(2, 4, 3), ["batch", "time", 3])
    first = b.op("Squeeze", b.slice(x, [0], [1], [1]), b.ints(1))
    model, _ = b.case(b.op("Scan", first, x, body=body, num_scan_inputs=1, scan_input_axes=[1]))
    with pytest.raises(onnx_lrp.UnsupportedModel, match=r"'mixing': it normalizes over axis 0"):
        onnx_lrp.load(model)


# the places of winners


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_indices_of_winners_are_those_of_onnxruntime(rank, order):
    """Two samples of three channels, unequal axes, pads and gaps; the engine's way back goes by the same places."""
    rng = np.random.default_rng(rank)
    x = rng.normal(size=(2, 3, 5, 4, 6)[: rank + 2]).astype(np.float32)
    settings = {"kernel_shape": [2] * rank, "pads": [1] * 2 * rank, "strides": [1, 2, 1][:rank], "dilations": [2, 1, 2][:rank]}
    node = helper.make_node("MaxPool", ["x"], ["y", "places"], storage_order=order, **settings)
    info = helper.make_tensor_value_info
    outputs = [info("y", TensorProto.FLOAT, None), info("places", TensorProto.INT64, None)]
    graph = helper.make_graph([node], "g", [info("x", TensorProto.FLOAT, ["batch", *x.shape[1:]])], outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    for got, want in zip(backend.run_model(model, {"x": x}), session.run(None, {"x": x}), strict=True):
        assert got.dtype == want.dtype
        np.testing.assert_array_equal(got, want)
    testing.assert_conserves(model, {"x": x})
