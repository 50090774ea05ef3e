"""Functions of a model: written out where that changes nothing, else run as they are, or refused in relevance's way."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

import onnx_lrp
from onnx_lrp.reading import load_graph
from onnx_lrp.schemas import alike
from onnx_lrp.testing import assert_conserves, assert_matches_runtime
from onnx_lrp.testing.build import Builder

DOMAIN = "com.example"


def with_function(nodes, opset, *, before=False, constant=False):
    """(model of opset 17, feeds): Gemm(Layer(x)); ``before``: of Gemm(x); ``constant``: Gemm(Gemm(x) · Layer(weight))."""
    b = Builder(np.random.default_rng(0), 17)
    x = b.rows(2, 3)
    if constant:
        y = b.op("Mul", b.gemm(x, 3, 3), b.op("Layer", b.weight(2, 3), domain=DOMAIN))
    else:
        y = b.op("Layer", b.gemm(x, 3, 3) if before else x, domain=DOMAIN)
    model, feeds = b.case(b.gemm(y, 3, 2))
    model.functions.append(helper.make_function(DOMAIN, "Layer", ["a"], ["y"], nodes, [helper.make_opsetid("", opset)]))
    return model, feeds


def tanh_of_a_cast():
    """Cast and Reshape have got attributes since opset 13, Tanh and Identity types."""
    shape = helper.make_node("Constant", [], ["s"], value_ints=[0, -1])
    cast = helper.make_node("Cast", ["a"], ["c"], to=onnx.TensorProto.FLOAT)
    reshaped = helper.make_node("Reshape", ["c", "s"], ["r"])
    return [shape, cast, reshaped, helper.make_node("Tanh", ["r"], ["t"]), helper.make_node("Identity", ["t"], ["y"])]


def softmax():
    return [helper.make_node("Softmax", ["a"], ["y"])]


@pytest.mark.parametrize("opset", [13, 17, 22])
def test_functions_of_another_opset_that_changes_nothing_are_written_out(opset):
    model, feeds = with_function(tanh_of_a_cast(), opset)
    before = model.SerializeToString()
    assert [n.op for n in load_graph(model).nodes] == ["Cast", "Reshape", "Tanh", "Identity", "Gemm"]
    assert model.SerializeToString() == before  # the caller's own
    assert_matches_runtime(model, feeds)
    assert_conserves(model, feeds)


def test_attributes_that_a_call_leaves_out_have_the_defaults_of_the_function():
    """In a call of the graph, of a function, and of a branch; onnx's inliner takes the op's own instead."""
    leaky = helper.make_node("LeakyRelu", ["a"], ["y"])
    leaky.attribute.append(onnx.AttributeProto(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT))
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(DOMAIN, 1)]
    default = helper.make_attribute("slope", 0.5)
    inner = helper.make_function(DOMAIN, "Leaky", ["a"], ["y"], [leaky], opsets, [], [default])
    calls = [
        helper.make_node("Leaky", ["a"], ["b"], domain=DOMAIN, slope=0.25),
        helper.make_node("Leaky", ["b"], ["y"], domain=DOMAIN),
    ]
    b = Builder(np.random.default_rng(0), 17)
    x = b.gemm(b.rows(2, 3), 3, 3)
    branch = [helper.make_node("Layer", [x], ["c"], domain=DOMAIN), helper.make_node("Leaky", ["c"], ["d"], domain=DOMAIN)]
    graph = helper.make_graph(branch, "branch", [], [helper.make_tensor_value_info("d", 1, None)])
    y = b.op("If", b.const(True, bool), then_branch=graph, else_branch=graph)
    model, feeds = b.case(b.gemm(b.op("Leaky", y, domain=DOMAIN), 3, 2))
    model.functions.extend([inner, helper.make_function(DOMAIN, "Layer", ["a"], ["y"], calls, opsets)])
    slopes = [n.attributes["alpha"] for n in load_graph(model).nodes if n.op == "LeakyRelu"]
    assert slopes == [0.25, 0.5, 0.5, 0.5]
    assert_matches_runtime(model, feeds)


def test_bodies_inside_functions_count():
    body = [helper.make_node("Softmax", ["a"], ["b"])]
    branch = helper.make_graph(body, "branch", [], [helper.make_tensor_value_info("b", 1, None)])
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    condition = helper.make_node("Constant", [], ["c"], value=helper.make_tensor("", onnx.TensorProto.BOOL, [], [True]))
    assert [n.op for n in load_graph(with_function([condition, node], 12)[0]).nodes] == ["Layer", "Gemm"]


def test_a_function_that_cannot_be_written_out_says_why():
    with pytest.raises(onnx_lrp.UnsupportedModel) as caught:
        onnx_lrp.load(with_function(softmax(), 11)[0])
    assert "com.example:Layer" in str(caught.value)
    assert "defines in opset 11, where Softmax may differ from the model's 17; export both in one opset" in str(caught.value)


def test_a_function_off_the_relevance_path_is_run_as_it_is():
    """Softmax of opset 11 is along all axes from the second on; onnxruntime computes it with the function of the file."""
    model, feeds = with_function(softmax(), 11, before=True)
    cut = load_graph(model).nodes[1].outputs[0]
    found = onnx_lrp.load(model, at=cut).explain(feeds)
    import onnxruntime

    expected = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds)[0]
    np.testing.assert_allclose(next(iter(found.outputs.values())), expected, atol=1e-6)


def test_a_function_of_constants_is_run_as_it_is():
    model, feeds = with_function(softmax(), 11, constant=True)
    assert_matches_runtime(model, feeds)


def node(op, domain="", **attributes):
    return helper.make_node(op, ["a"], ["y"], domain=domain, **attributes)


@pytest.mark.parametrize(
    ("it", "version", "other", "expected"),
    [
        (node("Relu"), 13, 14, True),
        (node("Relu"), 6, 14, False),  # PRelu's kin changed what broadcasts without a trace
        (node("Softmax", axis=1), 11, 13, False),
        (node("ReduceSum"), 11, 13, False),
        (node("ReduceMean", axes=[1]), 13, 18, False),
        (node("RoiAlign"), 10, 16, False),  # its new attribute's default is not what it did before
        (node("GroupNormalization", num_groups=1), 18, 21, False),
        (node("GridSample"), 16, 20, False),
        (node("Split"), 13, 18, False),
        (node("Cast", to=1), 13, 19, True),
        (node("Cast", to=1, saturate=0), 19, 13, False),
        (node("Shape", start=1), 15, 13, False),
        (node("NoSuchOp"), 13, 14, False),
        (node("Scaler", "ai.onnx.ml"), 1, 3, True),
        (node("TreeEnsembleRegressor", "ai.onnx.ml"), 3, 5, False),
    ],
)
def test_ops_that_mean_the_same_in_two_opsets(it, version, other, expected):
    assert alike(it, version, other) is alike(it, other, version) is expected
