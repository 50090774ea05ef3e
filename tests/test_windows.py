"""Convolutions, pooling and resizing: every jit mode with sizes unknown until the run, and equal networks in two spellings."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.reference
import pytest
from onnx import TensorProto, helper

import onnx_lrp
from onnx_lrp import testing
from onnx_lrp.testing.build import Builder


def relevance(model, feeds, **options):
    return onnx_lrp.load(model, **{"precision": "float64", "jit": "eager", "verify": "never", **options}).explain(feeds)


def assert_equal(a, b):
    for point, want in a.relevance.items():
        np.testing.assert_allclose(b.relevance[point], want, atol=1e-9 * np.abs(want).max())


def image(*nodes, channels=2, size=(7, 8)):
    """An image of unknown sizes through ``nodes`` (op, weight shapes, attributes), pooled over space."""
    b = Builder(np.random.default_rng(0), 18)
    y = b.input("x", b.numbers(2, channels, *size), ["batch", channels, *(f"s{i}" for i in range(len(size)))])
    for op, shapes, attributes in nodes:
        y = b.op(op, y, *(b.weight(*s) for s in shapes), **attributes)
    return b.case(b.over("ReduceMean", y, *range(2, 2 + len(size)), keepdims=0))


CHAINS = {
    "conv": [("Conv", [(3, 2, 3, 2), (3,)], {"strides": [2, 2], "pads": [1, 0, 2, 1]}), ("Relu", [], {})],
    "dilated": [("Conv", [(3, 2, 3, 2)], {"dilations": [2, 1], "strides": [1, 2]}), ("Relu", [], {})],
    "same": [("Conv", [(3, 2, 3, 2)], {"auto_pad": "SAME_LOWER", "strides": [2, 3]}), ("Tanh", [], {})],
    "groups": [("Conv", [(4, 1, 3, 2), (4,)], {"group": 2, "strides": [2, 1], "dilations": [1, 2]})],
    "transposed": [("ConvTranspose", [(2, 3, 3, 2), (3,)], {"strides": [2, 3], "output_padding": [1, 0], "pads": [1, 0, 0, 1]})],
    "transposed same": [("ConvTranspose", [(2, 1, 3, 2)], {"strides": [2, 1], "group": 2, "auto_pad": "SAME_UPPER"})],
    "mean": [("AveragePool", [], {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 1, 1, 1], "ceil_mode": 1})],
    "max": [
        ("MaxPool", [], {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 1, 1, 1], "dilations": [1, 2], "ceil_mode": 1})
    ],
    "power": [("LpPool", [], {"kernel_shape": [3, 2], "strides": [2, 1]})],
    "global": [("GlobalMaxPool", [], {})],
    "instance": [("InstanceNormalization", [(2,), (2,)], {}), ("Relu", [], {})],
    "group": [("GroupNormalization", [(2,), (2,)], {"num_groups": 2}), ("Relu", [], {})],
    "channels": [("LRN", [], {"size": 3, "alpha": 0.5})],
}


@pytest.mark.parametrize("jit", ["graph", "xla"])
@pytest.mark.parametrize("chain", CHAINS)
def test_sizes_may_be_unknown(chain, jit):
    model, feeds = image(*CHAINS[chain])
    eager, other = relevance(model, feeds), relevance(model, feeds, jit=jit)
    assert_equal(eager, other)
    np.testing.assert_allclose(other.residual, 0, atol=1e-9)
    testing.assert_matches_runtime(model, feeds, jit=jit)
    testing.assert_conserves(model, feeds, precision="float64", bias_factor=0.5, jit=jit)


CROPPED = {"coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": 0.5}
RESIZES = [
    {"mode": "nearest"},
    {"mode": "linear"},
    {"mode": "cubic", "exclude_outside": 1},
    {"mode": "linear", "antialias": 1, "last": [0.5]},
    {"mode": "nearest", **CROPPED},
    {"mode": "cubic", **CROPPED},
]


@pytest.mark.parametrize("jit", ["eager", "graph", "xla"])
@pytest.mark.parametrize("settings", RESIZES, ids=str)
def test_resize_of_unknown_sizes(settings, jit):
    b = Builder(np.random.default_rng(0), 18)
    x = b.input("x", b.numbers(2, 2, 3, 4), ["batch", 2, "h", "w"])
    settings = dict(settings)
    last = settings.pop("last", [1.5])
    roi = b.const(np.asarray([0, 0, -0.5, 0.25, 1, 1, 0.75, 1], np.float32)) if "extrapolation_value" in settings else ""
    y = b.op("Resize", x, roi, b.const(np.asarray([1, 1, 2, *last], np.float32)), **settings)
    model, feeds = b.case(b.over("ReduceSum", b.op("Mul", b.op("Tanh", y), b.weight(2, 1, 1)), 2, 3, keepdims=0))
    testing.assert_matches_runtime(model, feeds, jit=jit)
    testing.assert_conserves(model, feeds, precision="float64", jit=jit)


@pytest.mark.parametrize("rule", ["epsilon", "gamma", "zplus", "wsquare"])
@pytest.mark.parametrize("scale", [0.3, 0.6, 2.5])
@pytest.mark.parametrize("settings", [*RESIZES[1:4], {"mode": "cubic"}, {"mode": "cubic", "antialias": 1}], ids=str)
def test_interpolation_is_a_weighted_sum(settings, scale, rule):
    """Its weights are those that onnx's own evaluator gives to every entry, those beyond an edge added to the edge's."""
    settings = {k: v for k, v in settings.items() if k != "last"}
    factors = np.asarray([1, 1, scale], np.float32)
    node = helper.make_node("Resize", ["x", "", "scales"], ["y"], **settings)
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("x", "scales", "y")]
    graph = helper.make_graph([node], "g", infos[:2], infos[2:])
    own = onnx.reference.ReferenceEvaluator(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]))
    weights = own.run(None, {"x": np.eye(7, dtype=np.float32)[None], "scales": factors})[0][0]

    def build(spelled):
        b = Builder(np.random.default_rng(0), 18)
        z = b.op("MatMul", b.weight(3, 3), b.input("x", b.numbers(2, 3, 7), ["batch", 3, 7]))
        if spelled:
            terms = b.op("Mul", b.over("Unsqueeze", z, 3), b.const(weights))
            y = b.over("ReduceSum", terms, 2, keepdims=0)
        else:
            y = b.op("Resize", z, "", b.const(factors), **settings)
        return b.case(b.over("ReduceSum", b.op("Mul", b.op("Tanh", y), b.weight(3, 1)), 2, keepdims=0))

    (model, feeds), (spelled, _) = build(False), build(True)
    a, b = (relevance(m, feeds, rule=rule, epsilon=0.1).relevance["x"] for m in (model, spelled))
    np.testing.assert_allclose(a, b, atol=2e-5 * np.abs(b).max())  # its coordinates are counted in float32


def test_a_region_outside_of_the_input_is_a_constant():
    b = Builder(np.random.default_rng(0), 18)
    x = b.input("x", b.numbers(2, 1, 3), ["batch", 1, 3])
    roi = b.const(np.asarray([2, 3], np.float32))
    y = b.op("Resize", x, roi, "", b.ints(4), mode="linear", axes=[2], **CROPPED)
    model, feeds = b.case(b.over("ReduceSum", y, 2, keepdims=0))
    explanation = relevance(model, feeds)
    assert not explanation.relevance["x"].any()
    np.testing.assert_allclose(explanation.absorbed["bias"], [2.0, 2.0], rtol=1e-3)
    np.testing.assert_allclose(explanation.residual, 0, atol=1e-12)


def test_integers_are_interpolated_by_onnxruntime():
    b = Builder(np.random.default_rng(0), 18)
    x = b.input("x", b.rng.integers(0, 255, (2, 1, 4, 4)).astype(np.uint8), ["batch", 1, 4, 4])
    y = b.op("Resize", x, "", b.const(np.asarray([1, 1, 1.5, 1.5], np.float32)), mode="linear")
    y = b.op("Mul", b.op("Cast", y, to=TensorProto.FLOAT), b.const(np.float32(1 / 255)))
    model, feeds = b.case(b.over("ReduceMean", y, 2, 3, keepdims=0))
    testing.assert_matches_runtime(model, feeds)
    testing.assert_conserves(model, feeds)


def test_groups_are_convolutions_side_by_side():
    b = Builder(np.random.default_rng(0), 17)
    x, w, c = b.input("x", b.numbers(2, 4, 6), ["batch", 4, 6]), b.numbers(6, 2, 3), b.numbers(6)
    model, feeds = b.case(b.over("ReduceSum", b.op("Conv", x, b.const(w), b.const(c), group=2), 2, keepdims=0))
    b = Builder(np.random.default_rng(0), 17)
    x = b.input("x", b.numbers(2, 4, 6), ["batch", 4, 6])
    halves = b.ops("Split", x, outputs=2, axis=1)
    parts = [b.op("Conv", h, b.const(w[3 * k : 3 * k + 3]), b.const(c[3 * k : 3 * k + 3])) for k, h in enumerate(halves)]
    apart, _ = b.case(b.over("ReduceSum", b.op("Concat", *parts, axis=1), 2, keepdims=0))
    assert_equal(relevance(model, feeds), relevance(apart, feeds))


def test_a_window_of_one_entry_is_a_dense_layer():
    b = Builder(np.random.default_rng(0), 17)
    x, w, c = b.series(4, 2, 3), b.numbers(5, 3), b.numbers(5)
    y = b.op("Conv", b.op("Transpose", x, perm=[0, 2, 1]), b.const(w[:, :, None]), b.const(c))
    model, feeds = b.case(b.over("ReduceSum", b.op("Relu", y), 2, keepdims=0))
    b = Builder(np.random.default_rng(0), 17)
    y = b.op("Add", b.op("MatMul", b.series(4, 2, 3), b.const(w.T)), b.const(c))
    dense, _ = b.case(b.over("ReduceSum", b.op("Relu", y), 1, keepdims=0))
    assert_equal(relevance(model, feeds), relevance(dense, feeds))


def test_batch_normalization_is_part_of_its_convolution():
    b = Builder(np.random.default_rng(0), 17)
    w, c = b.numbers(5, 3, 2), b.numbers(5)
    scale, shift, mean = (b.numbers(5) for _ in range(3))
    var = b.rng.uniform(0.5, 2, 5).astype(np.float32)

    def build(folded):
        b = Builder(np.random.default_rng(0), 17)
        x = b.op("Transpose", b.series(4, 2, 3), perm=[0, 2, 1])
        if folded:
            factor = scale.astype(np.float64) / np.sqrt(var.astype(np.float64) + np.float32(1e-5))
            new = (w * factor[:, None, None]).astype(np.float32), ((c - mean) * factor + shift).astype(np.float32)
            y = b.op("Conv", x, *(b.const(a) for a in new))
        else:
            y = b.op("Conv", x, b.const(w), b.const(c))
            y = b.op("BatchNormalization", y, *(b.const(a) for a in (scale, shift, mean, var)))
        return b.case(b.over("ReduceSum", b.op("Relu", y), 2, keepdims=0))

    (model, feeds), (folded, _) = build(False), build(True)
    a, b = relevance(model, feeds).relevance["x"], relevance(folded, feeds).relevance["x"]
    np.testing.assert_allclose(b, a, atol=1e-5 * np.abs(a).max())  # the folded weights are rounded to float32


def test_what_is_not_read_is_refused():
    for op, shapes, attributes, why in (
        ("MeanVarianceNormalization", [], {}, "samples depend on each other"),
        ("Conv", [(3, 2, 2, 2)], {"auto_pad": "SOMEHOW"}, "SOMEHOW"),
        ("Resize", [(0,), (4,)], {"mode": "nearest", "antialias": 1}, "antialias=1"),
        ("Resize", [(0,), (4,)], {"mode": "linear", "coordinate_transformation_mode": "tf_crop_and_resize"}, "roi"),
    ):
        model, feeds = image((op, shapes, attributes))
        with pytest.raises(onnx_lrp.UnsupportedModel, match=why):
            relevance(model, feeds)
