"""Indices and lengths that don't exist are refused in every way a call is run, also long after its first batch was verified.

TensorFlow reads another entry instead: a compiled program the nearest one, and where places are counted through a whole tensor,
as for GatherElements, every program one of the next row.
"""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnx_lrp
from onnx_lrp.testing.build import Builder

JITS = ("eager", "graph", "xla", "auto")
KINDS = ("Gather", "GatherElements", "GatherND", "ScatterElements", "ScatterND", "ScatterND-add", "ArrayFeatureExtractor")


def by_index(kind):
    """x (4, B), at (3,) or so → entries of x, taken or overwritten → two scores a sample."""
    b = Builder(np.random.default_rng(0), 18)
    x = b.input("x", b.numbers(4, 5), [4, "B"])
    op, _, reduction = kind.partition("-")
    if op == "Gather":
        at = np.array([3, 0, 2])
        y = b.op(op, x, b.input("at", at, ["K"]), axis=0)
    elif op == "GatherElements":
        at = np.array([[3, 0, 1, 2, 0], [0, 0, 3, 1, 2]])
        y = b.op(op, x, b.input("at", at, ["K", "B"]), axis=0)
    elif op == "GatherND":
        at = np.array([[3], [0], [2]])
        y = b.op(op, x, b.input("at", at, ["K", 1]))
    elif op == "ScatterElements":
        at = np.array([[3, 0, 1, 2, 0], [0, 1, 3, 1, 2]])
        y = b.op(op, x, b.input("at", at, ["K", "B"]), b.op("Slice", x, b.ints(0), b.ints(2)), axis=0)
    elif op == "ScatterND":
        at = np.array([[3], [1]])
        y = b.op(op, x, b.input("at", at, ["K", 1]), b.op("Slice", x, b.ints(0), b.ints(2)), reduction=reduction or "none")
    else:
        at = np.array([1, 0, 3])
        y = b.op(
            "Transpose", b.op(op, b.op("Transpose", x, perm=[1, 0]), b.input("at", at, ["K"]), domain="ai.onnx.ml"), perm=[1, 0]
        )
    y = b.op("Transpose", b.over("ReduceSum", b.op("Tanh", y), 0, keepdims=1), perm=[1, 0])
    return b.case(b.op("MatMul", y, b.weight(1, 2)))


@pytest.mark.parametrize("jit", JITS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_place_that_does_not_exist(kind, jit):
    model, feeds = by_index(kind)
    explainer = onnx_lrp.load(model, jit=jit)
    explainer.explain(feeds)  # verified: from here on onnxruntime is not asked
    for wrong in (4, -5, 400):
        at = feeds["at"].copy()
        at.reshape(-1)[-1] = wrong
        with pytest.raises(onnx_lrp.InputError):
            explainer.explain({**feeds, "at": at})
    explainer.explain(feeds)


def in_a_row(*at):
    """x (T, B, 3) → the sum of some fixed steps → two scores a sample."""
    b = Builder(np.random.default_rng(1), 17)
    x = b.input("x", b.numbers(5, 2, 3), ["T", "B", 3])
    rows = b.over("ReduceSum", b.op("Gather", b.op("Tanh", x), b.ints(*at), axis=0), 0, keepdims=0)
    return b.case(b.op("MatMul", rows, b.weight(3, 2)))


def test_it_is_said_where_onnxruntime_can_say_nothing(monkeypatch):
    """Steps in a row are cut out, at which TensorFlow says nothing of itself."""
    from onnx_lrp import runs

    monkeypatch.setattr(runs, "refusal", lambda *given: None)
    model, feeds = in_a_row(0, 1, 2, 3)
    with pytest.raises(onnx_lrp.InputError, match=r"^Gather '.*' is led to a place that does not exist: .* what it reads$"):
        onnx_lrp.load(model, verify="never").explain(feeds["x"][:3])


@pytest.mark.parametrize("jit", JITS)
def test_a_fixed_step_that_a_short_sequence_does_not_have(jit):
    b = Builder(np.random.default_rng(1), 17)
    x = b.input("x", b.numbers(5, 2, 3), ["T", "B", 3])
    y = b.ops("LSTM", x, b.weight(1, 8, 3), b.weight(1, 8, 2), outputs=2, hidden_size=2)[0]
    rows = b.op("Gather", b.op("Squeeze", y, b.ints(1)), b.const(4, np.int64), axis=0)
    model, feeds = b.case(b.op("MatMul", rows, b.weight(2, 2)))
    explainer = onnx_lrp.load(model, jit=jit)
    explainer.explain(feeds)
    for _ in range(4):  # the third call of a shape is compiled
        with pytest.raises(onnx_lrp.InputError):
            explainer.explain(feeds["x"][:3])


@pytest.mark.parametrize("jit", JITS)
@pytest.mark.parametrize("at", [[0, 1, 2, 3], [3, 2, 1, 0], [-4, -3, -2, -1], [1, 3]], ids=str)
def test_fixed_steps_in_a_row(jit, at):
    model, feeds = in_a_row(*at)
    explainer = onnx_lrp.load(model, jit=jit)
    explainer.explain(feeds)
    with pytest.raises(onnx_lrp.InputError):
        explainer.explain(feeds["x"][:3])


@pytest.mark.parametrize("method", ["gradient", "integrated_gradients", "occlusion"])
@pytest.mark.parametrize("jit", ["graph", "xla"])
def test_other_methods(method, jit):
    model, feeds = by_index("GatherElements")
    explainer = onnx_lrp.load(model, jit=jit)
    explainer.explain(feeds, method=method)
    with pytest.raises(onnx_lrp.InputError):
        explainer.explain({**feeds, "at": feeds["at"] + 1}, method=method)


def looping():
    """h (B, 3), off () → three turns of a Loop: h = tanh(h A + b[2 − turn + off]) → two scores."""
    rng = np.random.default_rng(2)
    body = helper.make_graph(
        [
            helper.make_node("Sub", ["two", "turn"], ["down"]),
            helper.make_node("Add", ["down", "off"], ["at"]),
            helper.make_node("Gather", ["rows", "at"], ["b"], axis=0),
            helper.make_node("MatMul", ["h", "A"], ["z"]),
            helper.make_node("Add", ["z", "b"], ["s"]),
            helper.make_node("Tanh", ["s"], ["new"]),
            helper.make_node("Constant", [], ["on"], value=numpy_helper.from_array(np.array(True))),
        ],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("h", TensorProto.FLOAT, ["B", 3]),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("new", TensorProto.FLOAT, ["B", 3]),
        ],
    )
    weights = {"A": (3, 3), "C": (3, 2)}
    constants = [numpy_helper.from_array(rng.normal(size=s).astype(np.float32), n) for n, s in weights.items()]
    constants += [numpy_helper.from_array(np.array(2), "two"), numpy_helper.from_array(np.array(3), "turns")]
    nodes = [
        helper.make_node("MatMul", ["x", "A"], ["rows_"]),
        helper.make_node("Unsqueeze", ["rows_", "one"], ["rows"]),
        helper.make_node("Loop", ["turns", "", "x0"], ["last"], body=body),
        helper.make_node("MatMul", ["last", "C"], ["y"]),
    ]
    constants.append(numpy_helper.from_array(np.array([1]), "one"))
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [3, 3]),
        helper.make_tensor_value_info("x0", TensorProto.FLOAT, ["B", 3]),
        helper.make_tensor_value_info("off", TensorProto.INT64, []),
    ]
    graph = helper.make_graph(nodes, "g", inputs, [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["B", 2])], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    feeds = {"x": rng.normal(size=(3, 3)).astype(np.float32), "x0": rng.normal(size=(2, 3)).astype(np.float32), "off": np.array(0)}
    return model, feeds


@pytest.mark.parametrize("jit", JITS)
def test_in_the_body_of_a_loop(jit):
    model, feeds = looping()
    explainer = onnx_lrp.load(model, jit=jit)
    assert explainer._program.static  # XLA does compile it
    graph = onnx_lrp.load(model, jit="graph").explain(feeds)
    for _ in range(4):
        made = explainer.explain(feeds)
        for name, array in graph.relevance.items():
            np.testing.assert_allclose(made.relevance[name], array, rtol=1e-4, atol=1e-6)
        for off in (1, -6):
            with pytest.raises(onnx_lrp.InputError):
                explainer.explain({**feeds, "off": np.array(off)})
