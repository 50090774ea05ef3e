"""Sequences of tensors of unequal shapes: the same relevance as with Slice and Concat, in every form that they are held in."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from onnx import TensorProto, helper

import onnx_lrp
from onnx_lrp import InputError, backend, testing
from onnx_lrp.testing.build import Builder

SOME = settings(max_examples=max(10, settings.get_profile(settings.get_current_profile_name()).max_examples // 5))


def explained(model, feeds, **options):
    own = {v.name for v in model.graph.input}
    options = {"precision": "float64", "jit": "eager", **options}
    return onnx_lrp.load(model, **options).explain({n: a for n, a in feeds.items() if n in own})


def assert_same(a, b):
    np.testing.assert_allclose(a.relevance["x"], b.relevance["x"], rtol=1e-9, atol=1e-13)
    np.testing.assert_allclose(a.residual, 0, atol=1e-12)
    # a constant that a loop maps is one of its own, that of a Concat is a bias of its block
    for kinds in (("constant", "bias"), ("stabilizer",), ("initial_state",)):
        one, other = (sum(e.absorbed.get(kind, 0) for kind in kinds) for e in (a, b))
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


@SOME
@given(case=testing.part_spellings())
def test_sequences_are_a_spelling_of_slices(case):
    (listed, plain), feeds = case
    assert_same(explained(listed, feeds), explained(plain, feeds))


def series(time="time"):
    b = Builder(np.random.default_rng(3), 18)
    x = b.input("x", b.numbers(2, 5, 4), ["batch", time, 4])
    return b, b.op("Tanh", b.op("MatMul", x, b.weight(4, 3)))


def finished(b, y):
    return b.case(b.gemm(b.over("ReduceSum", b.op("Tanh", y), 1, keepdims=0), 3, 2))


def grown(*, change=()):
    """A list of z[:, :2], z[:, :3], … made by a Loop, joined; ``change``: nodes between the loop's slice and its end."""
    b, z = series()
    info = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Add", ["k", b.const(2, np.int64)], ["next"]),
        helper.make_node("Reshape", ["next", b.ints(1)], ["end"]),
        helper.make_node("Slice", [z, b.ints(0), "end", b.ints(1)], ["piece"]),
        *(change or [helper.make_node("SequenceInsert", ["many", "piece"], ["more"])]),
        helper.make_node("Identity", ["going"], ["on"]),
    ]
    lists = [helper.make_tensor_sequence_value_info(n, TensorProto.FLOAT, None) for n in ("many", "more")]
    inputs = [info("k", TensorProto.INT64, []), info("going", TensorProto.BOOL, []), lists[0]]
    body = helper.make_graph(nodes, "body", inputs, [info("on", TensorProto.BOOL, []), lists[1]])
    many = b.op("Loop", b.const(3, np.int64), b.const(True), b.op("SequenceEmpty"), body=body)
    return b, z, many


def twice(first, second):
    """Two elements are appended a step."""
    return [
        helper.make_node("SequenceInsert", ["many", first], ["half"]),
        helper.make_node("SequenceInsert", ["half", second], ["more"]),
    ]


@pytest.mark.parametrize("jit", ["eager", "graph"])
@pytest.mark.parametrize("kind", ["collected", "carried", "stacked"])
def test_lists_of_loops_in_every_mode(kind, jit):
    """Collected in a loop, carried by it from the list of none, and carried as a stack of equal elements."""
    if kind == "stacked":
        change = [helper.make_node("ReduceSum", ["piece", "axis"], ["total"], keepdims=1), *twice("total", "total")]
    else:
        change = twice("piece", "piece") if kind == "carried" else ()
    b, z, many = grown(change=change)
    b.constants.append(onnx.numpy_helper.from_array(np.asarray([1]), "axis"))
    model, feeds = finished(b, b.op("ConcatFromSequence", many, axis=1))
    b, z = series()
    slices = [b.slice(z, [0], [k + 2], [1]) for k in range(3) for _ in range(1 if kind == "collected" else 2)]
    if kind == "stacked":
        slices = [b.over("ReduceSum", s, 1, keepdims=1) for s in slices]
    plain, _ = finished(b, b.op("Concat", *slices, axis=1))
    assert_same(explained(model, feeds, jit=jit), explained(plain, feeds))


@pytest.mark.parametrize("jit", ["eager", "graph", "xla"])
def test_parts_in_every_mode(jit):
    """torch.split(x, 2, 1) of an unknown length, its parts read by a computed number, changed and joined."""
    b, z = series()
    many = b.op("SplitToSequence", z, b.const(2, np.int64), axis=1)
    last = b.op("SequenceAt", many, b.op("Sub", b.op("SequenceLength", many), b.const(1, np.int64)))
    many = b.op("SequenceInsert", b.op("SequenceErase", many, b.const(-1, np.int64)), last, b.const(1, np.int64))
    model, feeds = finished(b, b.op("ConcatFromSequence", many, axis=-2))
    b, z = series()
    order = [b.slice(z, [a], [e], [1]) for a, e in ((0, 2), (4, 5), (2, 4))]
    plain, _ = finished(b, b.op("Concat", *order, axis=1))
    assert_same(explained(model, feeds, jit=jit), explained(plain, feeds))


@pytest.mark.parametrize("sizes", [3, [1, 2, 2]])
def test_unequal_parts_that_are_stacked_fail(sizes):
    b, z = series()
    many = b.op("SplitToSequence", z, b.input("sizes", np.asarray(sizes), [] if isinstance(sizes, int) else [3]), axis=1)
    y = b.op("ReduceSum", b.op("ConcatFromSequence", many, axis=1, new_axis=1), b.ints(1), keepdims=0)
    model, feeds = finished(b, y)
    with pytest.raises(InputError, match="ConcatFromSequence"):  # onnxruntime's words: the engine fails in a reshape
        explained(model, feeds, verify="never")


def test_equal_parts_are_stacked():
    """Of sizes that only the call knows, which turn out to be equal."""
    b, z = series(6)
    feeds = {"x": np.random.default_rng(9).normal(size=(2, 6, 4)).astype(np.float32)}
    many = b.op("SplitToSequence", z, b.input("size", np.asarray(2), []), axis=1)
    y = b.op("ReduceMean", b.op("ConcatFromSequence", many, axis=1, new_axis=1), b.ints(1), keepdims=0)
    model, more = finished(b, y)
    b, z = series(6)
    y = b.op("ReduceMean", b.op("Reshape", z, b.ints(0, 3, 2, 3)), b.ints(1), keepdims=0)
    plain, _ = finished(b, y)
    assert_same(explained(model, {**more, **feeds}), explained(plain, feeds))


def test_elements_that_differ_in_more_than_one_axis_carry_no_relevance():
    b, z = series(5)
    other = b.slice(b.slice(z, [0], [2], [1]), [0], [2], [2])
    y = b.op("SequenceAt", b.op("SequenceConstruct", z, other), b.input("number", np.asarray(0), []))
    model, _ = finished(b, y)
    with pytest.raises(onnx_lrp.UnsupportedModel, match="elements that differ in more than one axis"):
        onnx_lrp.load(model, verify="never")
    info = helper.make_tensor_value_info
    taken = helper.make_node("SequenceAt", ["many", "number"], ["y"])
    inputs = [helper.make_tensor_sequence_value_info("many", TensorProto.FLOAT, None), info("number", TensorProto.INT64, [])]
    graph = helper.make_graph([taken], "taken", inputs, [info("y", TensorProto.FLOAT, None)])
    given = [np.zeros((2, 3), np.float32), np.ones((1, 2), np.float32), np.ones(4, np.float32)]
    for k, element in enumerate(given):
        (y,) = backend.run_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]), [given, np.asarray(k)])
        np.testing.assert_array_equal(y, element)


def test_a_constant_among_equal_elements_is_absorbed_by_sample():
    """A file for one sample: the constant has its axis, and stands in a stack, whose axes are one more."""
    b = Builder(np.random.default_rng(0), 18)
    x = b.input("x", b.numbers(1, 2, 3), [1, 2, 3])
    many = b.op("SequenceConstruct", b.op("Tanh", x), b.weight(1, 2, 3))
    many = b.op("SequenceInsert", many, b.weight(1, 2, 3), b.const(1, np.int64))
    y = b.op("ReduceSum", b.op("ConcatFromSequence", many, axis=1, new_axis=1), b.ints(1, 2), keepdims=0)
    explanation = explained(*b.case(b.gemm(b.op("Tanh", y), 3, 2)), batch_axis=0)
    assert all(a.shape == (1,) for a in explanation.absorbed.values())
    np.testing.assert_allclose(explanation.residual, 0, atol=1e-12)


def test_an_output_of_unequal_parts_has_its_sizes_beside():
    b, z = series()
    many = b.op("SplitToSequence", z, b.const(2, np.int64), axis=1)
    y = b.gemm(b.over("ReduceSum", b.op("ConcatFromSequence", many, axis=1), 1, keepdims=0), 3, 2)
    model, feeds = b.case(y)
    model.graph.output.append(helper.make_tensor_sequence_value_info(many, TensorProto.FLOAT, None))
    outputs = onnx_lrp.load(model).predict(feeds)
    assert outputs[many].shape == (2, 5, 3)
    assert outputs[f"{many}~sizes"].ravel().tolist() == [2, 2, 1]
