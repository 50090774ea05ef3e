"""Idioms of exporters and users, each built by hand, that are easily read wrongly: what a tensor is, which axis is the batch."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

import onnx_lrp
from onnx_lrp.testing import assert_batch_equivariant, assert_conserves, assert_matches_runtime
from onnx_lrp.testing.build import Builder

EAGER = {"jit": "eager", "verify": "never", "precision": "float64"}
B, T, F, H = 3, 5, 4, 6


def builder(seed=0):
    return Builder(np.random.default_rng(seed), 17)


def lstm(b, x, width, hidden=H, **slots):
    """Y of an LSTM over (T, B, width)."""
    return b.ops("LSTM", x, b.weight(1, 4 * hidden, width), b.weight(1, 4 * hidden, hidden), outputs=3, hidden_size=hidden, **slots)


def holds(model, feeds, samples=B):
    """The laws, and one seed a sample."""
    assert_matches_runtime(model, feeds)
    assert_conserves(model, feeds)
    explanation = onnx_lrp.load(model, **EAGER).explain(feeds)
    assert len(explanation.seed) == samples
    return explanation


def equal(one, other):
    for a, b in zip(one.relevance.values(), other.relevance.values(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_weights_are_cut_where_the_size_of_a_state_says():
    def make(computed):
        b = builder()
        x = b.op("Transpose", b.series(T, B, F), perm=[1, 0, 2])
        batch = b.op("Shape", x, start=1, end=2)
        state = b.op("Expand", b.const(np.float32(0)), b.op("Concat", b.ints(1), batch, b.ints(H), axis=0))
        whole, recurrent = b.weight(4 * H, F), b.weight(1, 4 * H, H)
        size = b.op("Shape", state, start=2, end=3) if computed else b.ints(H)
        edges = [b.ints(0), *(b.op("Mul", size, b.ints(k)) for k in (1, 2, 3, 4))]
        gates = [b.op("Slice", whole, edges[k], edges[k + 1], b.ints(0)) for k in (0, 3, 1, 2)]
        w = b.op("Unsqueeze", b.op("Concat", *gates, axis=0), b.ints(0))
        _, h, _ = b.ops("LSTM", x, w, recurrent, "", "", state, state, outputs=3, hidden_size=H)
        return b.case(b.gemm(b.op("Squeeze", h, b.ints(0)), H, 2))

    equal(holds(*make(computed=True)), holds(*make(computed=False)))


def test_a_guarded_softplus_is_one():
    def make(guarded):
        b = builder()
        x = b.rows(B, F)
        pre = b.gemm(x, F, H)
        soft = b.op("Softplus", pre)
        if guarded:
            soft = b.op("Where", b.op("Greater", pre, b.const(np.float32(20))), pre, soft)
        gate = b.op("Exp", b.op("Neg", soft))  # in [0, 1], as softplus is not negative
        return b.case(b.gemm(b.op("Mul", gate, b.op("Tanh", b.gemm(x, F, H))), H, 2))

    equal(holds(*make(guarded=True)), holds(*make(guarded=False)))


@pytest.mark.parametrize("constant", [True, False])
def test_a_zero_state_is_no_signal_behind_a_gate(constant):
    b = builder()
    x = b.rows(B, F)
    pre = b.op("Add", b.op("MatMul", x, b.weight(F, 2 * H)), b.weight(2 * H))
    z, f = b.ops("Split", pre, b.ints(H, H), outputs=2, axis=1)
    f = b.op("Sigmoid", f)
    shape = b.op("Concat", b.op("Shape", x, start=0, end=1), b.ints(H), axis=0)
    state = b.const(np.zeros((B, H), np.float32)) if constant else b.op("ConstantOfShape", shape)
    rest = b.op("Sub", b.const(np.float32(1)), f)
    c = b.op("Add", b.op("Mul", f, state), b.op("Mul", rest, z))
    model, feeds = b.case(b.gemm(b.op("Tanh", c), H, 2))
    explanation = holds(model, feeds)
    # c = (1 − f)·z is one root, z's pre-activation is inside its block: one stabilizer there, one in the head
    made = [k for k, amounts in explanation.ledger.items() if "stabilizer" in amounts]
    assert len(made) == 2


def test_a_loop_may_collect_what_only_constants_make():
    b = builder()
    ids = b.input("ids", np.array([[1, 2], [3, 0], [2, 2]]), [B, 2])
    table = helper.make_tensor("table", TensorProto.FLOAT, [4, H], b.numbers(4, H).ravel())
    nodes = [
        helper.make_node("Gather", ["ids", "k"], ["row"], axis=0),
        helper.make_node("Gather", ["table", "row"], ["rows"], axis=0),
        helper.make_node("ReduceMean", ["rows"], ["bag"], axes=[0], keepdims=0),
        helper.make_node("Identity", ["going"], ["on"]),
    ]
    flag, number = (helper.make_tensor_value_info(n, t, []) for n, t in (("going", TensorProto.BOOL), ("k", TensorProto.INT64)))
    results = [
        helper.make_tensor_value_info("on", TensorProto.BOOL, []),
        helper.make_tensor_value_info("bag", TensorProto.FLOAT, [H]),
    ]
    body = helper.make_graph(nodes, "body", [number, flag], results, [table])
    bags = b.op("Loop", b.const(B, np.int64), b.const(True), body=body)
    model, feeds = b.case(b.gemm(bags, H, 2))
    assert ids in feeds
    assert_matches_runtime(model, feeds)
    assert_conserves(model, feeds)


def letters(b, time_first):
    """An LSTM over the letters of every word, whose last states another reads word by word."""
    shape = (T, B) if time_first else (B, T)
    names = ["time", "batch"] if time_first else ["batch", "time"]
    x = b.input("x", b.numbers(*shape, 7, F), [*names, 7, F])
    words = b.op("Reshape", x, b.ints(-1, 7, F))
    _, h, _ = lstm(b, b.op("Transpose", words, perm=[1, 0, 2]), F)
    words = b.op("Reshape", b.op("Squeeze", h, b.ints(0)), b.op("Concat", b.op("Shape", x, start=0, end=2), b.ints(H), axis=0))
    y, _, _ = lstm(b, words if time_first else b.op("Transpose", words, perm=[1, 0, 2]), H)
    y = b.op("Squeeze", y, b.ints(1))
    y = y if time_first else b.op("Transpose", y, perm=[1, 0, 2])
    return b.op("Add", b.op("MatMul", y, b.weight(H, 2)), b.weight(2))


@pytest.mark.parametrize("time_first", [True, False])
def test_the_batch_is_what_the_samples_of_all_layers_have_in_common(time_first):
    b = builder()
    model, feeds = b.case(letters(b, time_first))
    explanation = holds(model, feeds)
    assert explanation.axes["x"][0] == int(time_first)
    assert_batch_equivariant(model, feeds)
    with pytest.raises(onnx_lrp.InputError, match="2 entries for 3 samples"):
        onnx_lrp.load(model, **EAGER).explain(feeds, [0, 1])


def test_the_batch_may_be_merged_at_an_attribution_point():
    b = builder()
    ids = b.input("ids", b.rng.integers(0, 9, (B, T)), ["batch", "time"])
    rows = b.op("Gather", b.weight(9, F), b.op("Reshape", ids, b.ints(-1)))
    series = b.op("Reshape", rows, b.op("Concat", b.op("Shape", ids), b.ints(F), axis=0))
    _, h, _ = lstm(b, b.op("Transpose", series, perm=[1, 0, 2]), F)
    model, feeds = b.case(b.gemm(b.op("Squeeze", h, b.ints(0)), H, 2))
    assert_matches_runtime(model, feeds)
    explanation = onnx_lrp.load(model, **EAGER).explain(feeds)
    assert explanation.relevance[rows].shape == (B * T, F)
    assert explanation.residual.shape == (B,)
    assert np.abs(explanation.residual).max() < 1e-9


def test_a_fixed_batch_meets_through_the_lengths():
    b = builder()
    x = b.input("x", b.numbers(B, T, F), [B, T, F])
    lengths = b.input("lengths", np.array([5, 3, 2]), [B])
    y, _, _ = lstm(b, b.op("Transpose", x, perm=[1, 0, 2]), F)
    y = b.op("Reshape", b.op("Transpose", b.op("Squeeze", y, b.ints(1)), perm=[1, 0, 2]), b.ints(B * T, H))
    place = b.op("Add", b.op("Sub", lengths, b.const(1, np.int64)), b.ints(0, T, 2 * T))
    model, feeds = b.case(b.gemm(b.op("Gather", y, place), H, 2))
    explanation = holds(model, feeds)
    assert not explanation.relevance["x"][1, 3:].any()


def test_books_close_where_no_axis_is_the_batch():
    b = builder()
    x = b.input("x", b.numbers(B, T, F), [B, T, F])
    _, h, _ = lstm(b, b.op("Transpose", x, perm=[1, 0, 2]), F)
    model, feeds = b.case(b.gemm(b.op("Reshape", h, b.ints(1, B * H)), B * H, 2))
    holds(model, feeds, samples=1)


def test_a_list_is_appended_to_beside_an_if():
    b = builder()
    x = b.series(T, B, F)
    steps = b.op("Gather", b.op("Shape", x), b.const(1, np.int64))
    w = b.weight(F, H)

    def branch(name, op):
        info = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        return helper.make_graph([helper.make_node(op, ["z"], [name])], name, [], [info])

    nodes = [
        helper.make_node("Gather", [x, "k"], ["row"], axis=1),
        helper.make_node("MatMul", ["row", w], ["z"]),
        helper.make_node("Less", ["k", b.const(2, np.int64)], ["early"]),
        helper.make_node("If", ["early"], ["h"], then_branch=branch("a", "Tanh"), else_branch=branch("b", "Relu")),
        helper.make_node("SequenceInsert", ["list", "h"], ["longer"]),
        helper.make_node("Identity", ["going"], ["on"]),
    ]
    flag, number = (helper.make_tensor_value_info(n, t, []) for n, t in (("going", TensorProto.BOOL), ("k", TensorProto.INT64)))
    sequence = [helper.make_tensor_sequence_value_info(n, TensorProto.FLOAT, None) for n in ("list", "longer")]
    on = helper.make_tensor_value_info("on", TensorProto.BOOL, [])
    body = helper.make_graph(nodes, "body", [number, flag, sequence[0]], [on, sequence[1]])
    series = b.op("Loop", steps, b.const(True), b.op("SequenceEmpty"), body=body)
    y = b.op("ConcatFromSequence", series, axis=1, new_axis=1)
    model, feeds = b.case(b.gemm(b.op("ReduceMean", y, axes=[1], keepdims=0), H, 2))
    holds(model, feeds)


def test_a_state_that_grows_an_axis_leaves_one_sample():
    b = builder()
    x = b.series(T, B, F)
    steps = b.op("Gather", b.op("Shape", x), b.const(1, np.int64))
    state = b.op("ConstantOfShape", b.op("Concat", b.op("Shape", x, start=0, end=1), b.ints(H), axis=0))
    nodes = [
        helper.make_node("Slice", [x, "k1", "k2", b.ints(1)], ["row"]),  # (B, 1, F), and so the state becomes (B, B, H)
        helper.make_node("MatMul", ["row", b.weight(F, H)], ["wx"]),
        helper.make_node("MatMul", ["h", b.weight(H, H)], ["uh"]),
        helper.make_node("Add", ["wx", "uh"], ["z"]),
        helper.make_node("Add", ["z", b.weight(H)], ["biased"]),
        helper.make_node("Tanh", ["biased"], ["next"]),
        helper.make_node("Identity", ["going"], ["on"]),
    ]
    edges = [helper.make_node("Reshape", ["k", b.ints(1)], ["k1"]), helper.make_node("Add", ["k1", b.ints(1)], ["k2"])]
    flag, number = (helper.make_tensor_value_info(n, t, []) for n, t in (("going", TensorProto.BOOL), ("k", TensorProto.INT64)))
    states = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("h", "next")]
    on = helper.make_tensor_value_info("on", TensorProto.BOOL, [])
    body = helper.make_graph(edges + nodes, "body", [number, flag, states[0]], [on, states[1]])
    shape = b.op("Concat", b.op("Shape", x, start=0, end=1), b.ints(-1, H), axis=0)
    series = b.op("Reshape", b.op("Loop", steps, b.const(True), state, body=body), shape)
    last = b.op("Gather", series, b.const(-1, np.int64), axis=1)
    model, feeds = b.case(b.gemm(last, H, 2))
    explanation = onnx_lrp.load(model, **EAGER).explain(feeds)
    assert explanation.seed.shape == (1,)
    assert np.abs(explanation.residual).max() < 1e-9


def test_an_axis_is_known_by_its_name_where_a_length_is_baked_in():
    b = builder()
    x = b.input("x", b.numbers(B, T, F), ["batch", "time", F])
    y = b.op("Tanh", b.op("MatMul", x, b.weight(F, H)))
    twice = b.op("Expand", b.op("Unsqueeze", y, b.ints(2)), b.ints(1, 1, 2, 1))
    twice = b.op("Reshape", twice, b.ints(-1, 2 * T, H))  # repeat_interleave, traced with T steps
    model, feeds = b.case(b.gemm(b.op("ReduceMean", twice, axes=[1], keepdims=0), H, 2))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info(b.nodes[-1].output[0], TensorProto.FLOAT, ["batch", 2]))
    holds(model, feeds)


def packed(*, is_sorted, tagger, cell):
    """A packed series: samples sorted by length, run, and put back; or run as they are."""
    b = builder()
    x, lens = b.series(T, B, F), b.input("lengths", np.asarray([3, 5, 2], np.int64), ["batch"])
    back = None
    if is_sorted:
        _, order = b.ops("TopK", lens, b.op("Shape", lens), outputs=2, axis=0)
        places = b.op("Range", b.const(0, np.int64), b.op("Size", lens), b.const(1, np.int64))
        zeros = b.op("ConstantOfShape", b.op("Shape", order), value=helper.make_tensor("", TensorProto.INT64, [1], [0]))
        back = b.op("ScatterElements", zeros, order, places)
        x, lens = b.op("Gather", x, order), b.op("Gather", lens, order)
    steps = b.op("Transpose", x, perm=[1, 0, 2])
    if cell == "LSTM":
        weights = [b.weight(1, 4 * H, F), b.weight(1, 4 * H, H), b.weight(1, 8 * H)]
        y, last = b.ops("LSTM", steps, *weights, b.op("Cast", lens, to=TensorProto.INT32), outputs=2, hidden_size=H)
        series, last = b.op("Squeeze", y, b.ints(1)), b.op("Squeeze", last, b.ints(0))
    else:
        info = helper.make_tensor_value_info
        nodes = [
            helper.make_node("MatMul", ["row", b.weight(F, H)], ["wx"]),
            helper.make_node("Gemm", ["h", b.weight(H, H), b.weight(H)], ["uh"]),
            helper.make_node("Add", ["wx", "uh"], ["z"]),
            helper.make_node("Tanh", ["z"], ["next"]),
            helper.make_node("Identity", ["next"], ["y"]),
        ]
        inputs = [info("h", TensorProto.FLOAT, ["b", H]), info("row", TensorProto.FLOAT, ["b", F])]
        body = helper.make_graph(nodes, "body", inputs, [info(n, TensorProto.FLOAT, None) for n in ("next", "y")])
        rows = b.op("Concat", b.op("Shape", x, start=0, end=1), b.ints(H), axis=0)
        half = b.op("ConstantOfShape", rows, value=helper.make_tensor("", 1, [1], [0.5]))
        last, series = b.ops("Scan", half, steps, outputs=2, body=body, num_scan_inputs=1)
    features = b.op("Transpose", series, perm=[1, 0, 2]) if tagger else last
    if back:
        features = b.op("Gather", features, back)
    return b.case(b.op("Add", b.op("MatMul", features, b.weight(H, 2)), b.weight(2)))


@pytest.mark.parametrize("jit", ["eager", "graph"])
@pytest.mark.parametrize("tagger", [False, True])
@pytest.mark.parametrize("cell", ["LSTM", "Scan"])
def test_samples_that_are_sorted_and_put_back_keep_their_books(cell, tagger, jit):
    model, feeds = packed(is_sorted=True, tagger=tagger, cell=cell)
    holds(model, feeds)
    one, other = (
        onnx_lrp.load(m, **{**EAGER, "jit": jit}).explain(feeds)
        for m in (model, packed(is_sorted=False, tagger=tagger, cell=cell)[0])
    )
    equal(one, other)
    np.testing.assert_allclose(one.seed, other.seed, rtol=1e-9)
    assert one.absorbed.keys() == other.absorbed.keys()
    for kind, amount in one.absorbed.items():
        np.testing.assert_allclose(amount, other.absorbed[kind], rtol=1e-9, atol=1e-12)
