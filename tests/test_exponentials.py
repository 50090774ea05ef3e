"""Softmax, its logarithm, tanh and log sigmoid written out are what they spell: the same scores, weights and relevance."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

import onnx_lrp
from onnx_lrp import testing
from onnx_lrp.testing.build import Builder

EAGER = {"jit": "eager", "verify": "never", "precision": "float64"}
B, T, F, C = 3, 5, 4, 3


def stays(b, op, x, axis):
    """A reduction that keeps its axis, in one of the ways that exporters write it."""
    return b.over(op, x, axis, keepdims=1)


def comes_back(b, op, x, axis):
    return b.over("Unsqueeze", b.over(op, x, axis, keepdims=0), axis)


def reshaped(b, op, x, axis):
    shape = [B, 1] if axis == 1 and b.rank == 2 else [B, 1, 1]
    return b.op("Reshape", b.over(op, x, axis, keepdims=0), b.ints(*shape))


def repeated(b, op, x, axis):
    return b.op("Expand", stays(b, op, x, axis), b.op("Shape", x))


WAYS = [stays, comes_back, reshaped, repeated]


def plain(b, x, axis, reduce):
    e = b.op("Exp", x)
    return b.op("Div", e, reduce(b, "ReduceSum", e, axis))


def shifted(b, x, axis, reduce):
    return plain(b, b.op("Sub", x, b.op("Identity", reduce(b, "ReduceMax", x, axis))), axis, reduce)


def bounded(b, x, axis, reduce):
    largest = b.op("Max", b.const(-np.inf, np.float32), reduce(b, "ReduceMax", x, axis))
    return plain(b, b.op("Sub", x, largest), axis, reduce)


def twice(b, x, axis, reduce):
    return b.op("Div", b.op("Exp", x), reduce(b, "ReduceSum", b.op("Exp", x), axis))


def inverse(b, x, axis, reduce):
    e = b.op("Exp", x)
    return b.op("Mul", b.op("Reciprocal", reduce(b, "ReduceSum", e, axis)), e)


def log_of_it(b, x, axis, reduce):
    return b.op("Log", shifted(b, x, axis, reduce))


def log_sum(b, x, axis, reduce):
    return b.op("Sub", x, b.op("Log", reduce(b, "ReduceSum", b.op("Exp", x), axis)))


def log_sum_shifted(b, x, axis, reduce):
    return log_sum(b, b.op("Sub", x, reduce(b, "ReduceMax", x, axis)), axis, reduce)


def log_sum_of_both(b, x, axis, reduce):
    largest = reduce(b, "ReduceMax", x, axis)
    total = b.op("Log", reduce(b, "ReduceSum", b.op("Exp", b.op("Sub", x, largest)), axis))
    return b.op("Sub", x, b.op("Add", total, largest))


def log_sum_exp(b, x, axis, reduce):
    return b.op("Sub", x, reduce(b, "ReduceLogSumExp", x, axis))


SOFTMAX = [plain, shifted, bounded, twice, inverse]
LOGARITHM = [log_of_it, log_sum, log_sum_shifted, log_sum_of_both, log_sum_exp]


def builder(rank):
    b = Builder(np.random.default_rng(0), 17)
    b.rank = rank
    return b


def assert_same(written, fused):
    testing.assert_matches_runtime(*written)
    testing.assert_conserves(*written, precision="float64")
    a, b = (onnx_lrp.load(model, **EAGER).explain(feeds) for model, feeds in (written, fused))
    np.testing.assert_allclose(a.relevance["x"], b.relevance["x"], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(a.seed, b.seed, rtol=1e-9)
    assert a.absorbed.keys() == b.absorbed.keys()
    return a


def head(spell):
    b = builder(2)
    return b.case(spell(b, b.gemm(b.op("Tanh", b.gemm(b.rows(B, F), F, F)), F, C)))


@pytest.mark.parametrize("reduce", WAYS)
@pytest.mark.parametrize("spell", SOFTMAX + LOGARITHM)
def test_a_head_is_stepped_over(spell, reduce):
    fused = "Softmax" if spell in SOFTMAX else "LogSoftmax"
    written = head(lambda b, x: spell(b, x, 1, reduce))
    assert_same(written, head(lambda b, x: b.op(fused, x, axis=1)))
    assert onnx_lrp.load(written[0])._plan.explained == written[0].graph.node[2].output[0]


@pytest.mark.parametrize("reduce", WAYS)
@pytest.mark.parametrize("spell", SOFTMAX)
def test_attention_weights_are_a_gate(spell, reduce):
    def attending(softmax):
        b = builder(3)
        x = b.series(T, B, F)
        h = b.op("Tanh", b.op("MatMul", x, b.weight(F, F)))
        weights = softmax(b, b.op("MatMul", h, b.weight(F, 1)))
        return b.case(b.gemm(b.over("ReduceSum", b.op("Mul", weights, h), 1, keepdims=0), F, C))

    written = attending(lambda b, x: spell(b, x, 1, reduce))
    explanation = assert_same(written, attending(lambda b, x: b.op("Softmax", x, axis=1)))
    assert np.abs(explanation.relevance["x"]).max() > 0


@pytest.mark.parametrize("other", ["axis", "tensor", "mean", "shift"])
def test_what_only_looks_like_a_softmax_is_none(other):
    def spell(b, x):
        e = b.op("Exp", x)
        if other == "axis":
            return b.op("Div", e, stays(b, "ReduceSum", e, 0))
        if other == "tensor":
            return b.op("Div", e, stays(b, "ReduceSum", b.op("Exp", b.op("Neg", x)), 1))
        if other == "mean":
            return b.op("Div", e, stays(b, "ReduceMean", e, 1))
        return b.op("Sub", x, b.op("Log", stays(b, "ReduceSum", b.op("Exp", b.op("Sub", x, stays(b, "ReduceMax", x, 1))), 1)))

    model, feeds = head(spell)
    fused = [n.op for n in onnx_lrp.reading.load_graph(model).nodes if n.op.endswith("Softmax")]
    assert fused == (["Softmax"] if other == "axis" else [])
    testing.assert_matches_runtime(model, feeds)


@pytest.mark.parametrize("spell", ["sigmoid", "written out sigmoid", "quotient", "minus times"])
def test_tanh_in_its_other_forms(spell):
    def build(b, x):
        if spell == "tanh":
            return b.op("Tanh", x)
        if spell.endswith("sigmoid"):
            two, one = b.const(np.float32(2)), b.const(np.float32(1))
            z = b.op("Mul", x, two)
            p = b.op("Sigmoid", z) if spell == "sigmoid" else b.op("Div", one, b.op("Add", one, b.op("Exp", b.op("Neg", z))))
            return b.op("Sub", b.op("Mul", two, p), one)
        minus = b.op("Neg", x) if spell == "quotient" else b.op("Mul", x, b.const(np.float32(-1)))
        up, down = b.op("Exp", x), b.op("Exp", minus)
        return b.op("Div", b.op("Sub", up, down), b.op("Add", up, down))

    def network(build):
        b = builder(2)
        return b.case(b.gemm(build(b, b.gemm(b.rows(B, F), F, F)), F, C))

    assert_same(network(build), network(lambda b, x: b.op("Tanh", x)))


@pytest.mark.parametrize("spell", ["log", "softplus"])
def test_a_log_sigmoid_is_a_head(spell):
    def log_sigmoid(b, z):
        if spell == "log":
            return b.op("Log", b.op("Sigmoid", z))
        return b.op("Neg", b.op("Softplus", b.op("Neg", z)))

    assert_same(head(log_sigmoid), head(lambda b, z: b.op("Sigmoid", z)))


def test_a_softmax_in_the_body_of_a_loop():
    def scan(b, build):
        x = b.op("Transpose", b.series(T, B, F), perm=[1, 0, 2])
        inner = builder(2)
        inner.constants = b.constants
        h = inner.op("Add", inner.op("MatMul", "row", inner.weight(F, F)), "h")
        weights = build(inner, h)
        inner.nodes.append(helper.make_node("Mul", [weights, "row"], ["next"]))
        info = [helper.make_tensor_value_info(n, 1, ["b", F]) for n in ("h", "row", "next")]
        body = helper.make_graph(inner.nodes, "body", info[:2], info[2:])
        rows = b.op("ConstantOfShape", b.op("Concat", b.op("Shape", x, start=1, end=2), b.ints(F), axis=0))
        return b.gemm(b.op("Scan", rows, x, body=body, num_scan_inputs=1), F, C)

    cases = []
    for build in (lambda b, x: shifted(b, x, 1, stays), lambda b, x: b.op("Softmax", x, axis=1)):
        b = builder(3)
        cases.append(b.case(scan(b, build)))
    assert_same(*cases)
