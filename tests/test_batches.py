"""Micro-batches, segments and compiled loops change how a batch is run, never what comes out."""

from __future__ import annotations

import numpy as np
import pytest
import test_twin
from hypothesis import given, settings
from hypothesis import strategies as st
from test_laws import BIASES, assert_equal, every_recurrence, relevance

import onnx_lrp
from onnx_lrp import targets, testing, timeloop
from onnx_lrp.program import Program
from onnx_lrp.rules import GATE_RULES
from onnx_lrp.testing.build import Builder
from onnx_lrp.ways import OFTEN, PROGRAMS, Habits, Way, programs

HALF = settings.get_profile(settings.get_current_profile_name()).max_examples // 2


def bilstm(*, batch=5, time=6, width=3, size=4, y=False, seed=0):
    """x (T, B, I) → bidirectional LSTM → last states, or the mean of Y over time → two classes."""
    b = Builder(np.random.default_rng(seed), 17)
    x = b.input("x", b.numbers(time, batch, width), ["T", "B", width])
    weights = [b.weight(2, 4 * size, width), b.weight(2, 4 * size, size), b.weight(2, 8 * size)]
    whole, last = b.ops("LSTM", x, *weights, outputs=2, hidden_size=size, direction="bidirectional")
    if y:
        features = b.over(
            "ReduceMean", b.op("Reshape", b.op("Transpose", whole, perm=[0, 2, 1, 3]), b.ints(0, 0, -1)), 0, keepdims=0
        )
    else:
        features = b.op("Reshape", b.op("Transpose", last, perm=[1, 0, 2]), b.ints(0, -1))
    return b.case(b.op("Gemm", features, b.weight(2 * size, 2), b.weight(2)))


def runs(monkeypatch):
    """Shapes of the first input of every run of a program."""
    seen, original = [], Program.__call__

    def counted(self, feeds, *rest):
        seen.append(next(iter(feeds.values())).shape)
        return original(self, feeds, *rest)

    monkeypatch.setattr(Program, "__call__", counted)
    return seen


@every_recurrence
@settings(max_examples=HALF)
@given(data=st.data(), bias_factor=BIASES, size=st.integers(1, 7))
def test_segments_change_nothing(family, data, bias_factor, size):
    model, feeds = data.draw(family())
    whole = relevance(model, feeds, bias_factor=bias_factor, checkpoint="never")
    parts = relevance(model, feeds, bias_factor=bias_factor, checkpoint=size)
    assert_equal(whole, parts, 1e-12)
    assert whole.absorbed.keys() == parts.absorbed.keys()
    for kind, amount in whole.absorbed.items():
        np.testing.assert_allclose(parts.absorbed[kind], amount, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("gates", GATE_RULES)
@pytest.mark.parametrize("y", [False, True])
def test_segments_in_a_graph(gates, y):
    model, feeds = bilstm(y=y, time=7)
    whole = relevance(model, feeds, gates=gates)
    for size in (1, 3, 7, 100):
        assert_equal(whole, relevance(model, feeds, gates=gates, jit="graph", checkpoint=size), 1e-12)


def test_a_state_that_is_kept_is_kept_with_segments_too():
    model, feeds = bilstm()
    name = next(iter(onnx_lrp.load(model).weights()))
    want, got = (
        onnx_lrp.explain(model, feeds, keep=name, precision="float64", jit="eager", checkpoint=c).hidden for c in ("never", 2)
    )
    for key, array in want.items():
        np.testing.assert_allclose(got[key], array, rtol=1e-9)


def test_long_sequences_are_segmented_of_themselves(monkeypatch):
    model, feeds = bilstm(time=1200, batch=2)
    seen = []
    monkeypatch.setattr(Program, "_segmented", lambda self, step, segment: seen.append(segment) or step)
    explainer = onnx_lrp.load(model, max_bytes=100_000)
    explainer.explain(feeds)
    assert set(seen) == {256}
    seen.clear()
    onnx_lrp.load(model).explain(feeds)
    onnx_lrp.load(model, max_bytes=100_000, checkpoint="never").explain(feeds)
    assert seen == []


@given(data=st.data(), limit=st.integers(1, 40_000))
@settings(max_examples=HALF)
def test_micro_batches_change_nothing(data, limit):
    model, feeds = data.draw(testing.lstms(fixed=False))
    whole = relevance(model, feeds)
    assert_equal(whole, relevance(model, feeds, max_bytes=limit), 1e-12)


def test_a_large_batch_is_split(monkeypatch):
    model, feeds = bilstm(batch=40)
    whole = onnx_lrp.explain(model, feeds, np.arange(40) % 2)
    seen = runs(monkeypatch)
    explainer = onnx_lrp.load(model, max_bytes=12 * 6 * 2 * 4 * 6 * 4)
    parts = explainer.explain(feeds, np.arange(40) % 2)
    sizes = [shape[1] for shape in seen]
    assert sizes[:3] == [2, 1, 1]  # whether two say the same together and alone
    sizes = sizes[3:]
    assert sum(sizes) == 40
    assert 1 < len(sizes) < 10
    assert max(sizes) - min(sizes) <= len(sizes)  # equal parts: the last one is no crumb
    assert_equal(whole, parts, 1e-5)
    np.testing.assert_array_equal(parts.target, np.arange(40) % 2)
    for spec in (targets.all_classes(), targets.contrast(0, np.arange(40) % 2)):
        assert_equal(onnx_lrp.explain(model, feeds, spec), explainer.explain(feeds, spec), 1e-5)


def test_a_batch_that_the_file_fixes_is_not_split():
    b = Builder(np.random.default_rng(0), 17)
    x = b.input("x", b.numbers(5, 4, 2), [5, 4, 2])
    _, last = b.ops("RNN", x, b.weight(1, 3, 2), b.weight(1, 3, 3), outputs=2, hidden_size=3)
    model, feeds = b.case(b.op("MatMul", b.op("Reshape", last, b.ints(4, 3)), b.weight(3, 2)))
    assert_equal(onnx_lrp.explain(model, feeds), onnx_lrp.explain(model, feeds, max_bytes=1), 1e-6)


def test_other_methods_are_split_alike():
    model, feeds = bilstm(batch=12)
    baseline = np.random.default_rng(0).normal(size=feeds["x"].shape)
    options = {"method": "integrated_gradients", "steps": 3, "baseline": baseline, "precision": "float64"}
    whole, parts = onnx_lrp.explain(model, feeds, **options), onnx_lrp.explain(model, feeds, max_bytes=4000, **options)
    assert_equal(whole, parts)


@pytest.mark.parametrize(
    ("option", "value"), [("max_bytes", 0), ("max_bytes", 1.5), ("checkpoint", "often"), ("checkpoint", 0), ("checkpoint", True)]
)
def test_what_is_no_budget_is_refused(option, value):
    with pytest.raises(onnx_lrp.InputError, match=option):
        onnx_lrp.load(bilstm()[0], **{option: value})


def test_few_samples_are_compiled_at_the_third_call():
    model, feeds = bilstm(batch=2)
    explainer = onnx_lrp.load(model)
    first = explainer.explain(feeds)
    for _ in range(OFTEN):
        last = explainer.explain(feeds)
    assert explainer._program.habits.programs == 1
    assert_equal(first, last, 1e-5)
    again = explainer.explain(feeds)
    np.testing.assert_array_equal(again.relevance["x"], last.relevance["x"])


def test_many_shapes_stay_with_the_graph():
    habits = Habits()
    for length in range(1, PROGRAMS + 4):
        for _ in range(OFTEN):
            habits.way(length, lambda: (Way.WHOLE, 1))
    assert habits.programs == PROGRAMS
    assert habits.way(PROGRAMS, lambda: (Way.GRAPH, 1)) is Way.WHOLE
    assert habits.way(PROGRAMS + 1, lambda: (Way.WHOLE, 1)) is Way.GRAPH


def test_parts_of_two_sizes_are_two_programs():
    habits = Habits()
    for length in range(PROGRAMS):
        for _ in range(OFTEN):
            habits.way(length, lambda: (Way.PARTS, 2))
    assert habits.programs == PROGRAMS - PROGRAMS % 2
    assert (programs(Way.PARTS, 51, 2), programs(Way.PARTS, 52, 2), programs(Way.DIRECTIONS, 51, 2)) == (2, 1, 1)


def test_many_compiled_shapes_warn_of_nothing(caplog):
    """TensorFlow warns of a function that is traced again and again; here each shape is meant to have its program."""
    b = Builder(np.random.default_rng(0), 17)
    x = b.input("x", b.numbers(2, 3), ["B", 3])
    explainer = onnx_lrp.load(b.case(b.op("MatMul", x, b.weight(3, 2)))[0], jit="xla", verify="never")
    for batch in range(1, 9):
        explainer.explain(np.ones((batch, 3), np.float32))
    assert not caplog.records


def test_what_can_not_be_compiled_stays_a_graph(monkeypatch):
    import tensorflow as tf

    model, feeds = bilstm(batch=2)
    explainer = onnx_lrp.load(model)
    original = Program._function

    def refused(self, *args):
        if args[-1] is not Way.GRAPH:
            raise tf.errors.UnimplementedError(None, None, "no such kernel")
        return original(self, *args)

    monkeypatch.setattr(Program, "_function", refused)
    results = [explainer.explain(feeds).relevance["x"] for _ in range(OFTEN + 1)]
    np.testing.assert_array_equal(results[0], results[-1])
    assert not explainer._program._static


def test_every_mode_of_the_twin():
    """The program compiled for few samples, with hoisted products, is held against the slow twin, too."""
    model, feeds, weights = test_twin.network(5, direction="bidirectional", lens=True, states=("h0", "c0"), mean=True)
    for jit in ("xla", "graph"):
        test_twin.compare(model, feeds, weights, mean=True, precision="float64", epsilon=0.1, delta=0.0, jit=jit)


@pytest.mark.parametrize(
    ("op", "gates", "options"), [("LSTM", 4, {}), ("GRU", 3, {}), ("GRU", 3, {"linear_before_reset": 1}), ("RNN", 1, {})]
)
def test_how_a_product_is_cut_changes_nothing(monkeypatch, op, gates, options):
    """All gates at once, gate by gate, or each in two pieces: which of them depends on the size of the weights alone."""
    b = Builder(np.random.default_rng(4), 17)
    x = b.input("x", b.numbers(5, 3, 3), ["T", "B", 3])
    weights = [b.weight(2, gates * 4, 3), b.weight(2, gates * 4, 4), b.weight(2, 2 * gates * 4)]
    y = b.op(op, x, *weights, hidden_size=4, direction="bidirectional", **options)
    model, feeds = b.case(
        b.op("MatMul", b.op("Reshape", b.op("Transpose", y, perm=[0, 2, 1, 3]), b.ints(0, 0, -1)), b.weight(8, 2))
    )
    for rule in ({}, {"gates": "half"} if op != "RNN" else {"rule": "gamma"}):
        want = relevance(model, feeds, **rule)  # eager: all at once
        for cache, pieces in ((0, 0), (4 * 7 * 4, 1), (4 * 7 * 2, 2)):
            monkeypatch.setattr(timeloop, "CACHE", cache)
            explainer = onnx_lrp.load(model, jit="graph", precision="float64", **rule)
            blocks = [p["blocks"] for p in explainer._program.parameters if "blocks" in p]
            assert [[len(d) for d in w] for w in blocks] == ([2 * [gates * pieces]] if pieces else [])
            assert_equal(want, explainer.explain(feeds), 1e-9)


@pytest.mark.parametrize(("verify", "times"), [("first", 1), ("always", 3), ("never", 0)])
def test_how_often_a_forward_pass_is_held_against_onnxruntimes(monkeypatch, verify, times):
    calls = []
    monkeypatch.setattr("onnx_lrp.verifying.Verifier.check", lambda self, *given: calls.append(given))
    b = Builder(np.random.default_rng(0), 17)
    model, feeds = b.case(b.gemm(b.rows(2, 3), 3, 2))
    explainer = onnx_lrp.load(model, jit="eager", verify=verify)
    for _ in range(3):
        explainer.explain(feeds)
    assert len(calls) == times
