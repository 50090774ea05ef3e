"""Tests that can fail: every mutant of the engine breaks a law, and the law says so."""

from __future__ import annotations

import dataclasses
import functools

import autodiff
import numpy as np
import pytest
import test_autodiff
import test_twin
from hypothesis import Phase, find, settings

import onnx_lrp.recurrence as recurrence
import onnx_lrp.rules as rules
import onnx_lrp.steps as steps
import onnx_lrp.timeloop as timeloop
from onnx_lrp import testing
from onnx_lrp._lazy import tf
from onnx_lrp.layer import Share
from onnx_lrp.ops import concat, conv, gather, gemm, gru, lstm, normalization, pooling, reduce, select, softmax, transpose
from onnx_lrp.propagation import Propagation
from onnx_lrp.testing.build import Builder

OPTIONS = {"direction": "bidirectional", "lens": True, "states": ("h0", "c0"), "mean": True}


def conserves():
    testing.assert_conserves(*test_twin.network(5, **OPTIONS)[:2], precision="float64")


def matches_runtime():
    testing.assert_matches_runtime(*test_twin.network(5, **OPTIONS)[:2])


def padding():
    testing.assert_padding_neutral(*test_twin.network(5, **OPTIONS)[:2])


def equivariant():
    testing.assert_batch_equivariant(*test_twin.network(5, **OPTIONS)[:2])


def is_linear():
    testing.assert_linear(*test_twin.network(5, **OPTIONS)[:2])


def equals_twin(**options):
    for mean in (True, False):
        model, feeds, weights = test_twin.network(5, **{**OPTIONS, "mean": mean, **options})
        test_twin.compare(model, feeds, weights, mean=mean, precision="float64", epsilon=0.1, delta=0.0)


def equals_twin_without_lengths():
    """Where no sample has padding, the reverse direction is walked from the end instead of being turned."""
    equals_twin(lens=False)


def bidirectional_splits():
    model, feeds, _ = test_twin.network(5, **OPTIONS)
    from test_laws import assert_equal, relevance

    assert_equal(relevance(model, feeds), relevance(testing.split_directions(model), feeds))


@functools.cache
def case(name):
    """A model with the op of the same name in the middle, and inputs."""
    b = Builder(np.random.default_rng(4), 17)
    if name in ("gru", "loop"):
        strategy = testing.grus(plain=True, lengths=False, direction="forward") if name == "gru" else testing.loops()
        quick = settings(phases=[Phase.generate], derandomize=True, database=None, max_examples=500)
        return find(strategy, functools.partial(_is_large, name), settings=quick)
    if name == "embedding":
        ids = b.input("ids", np.asarray([[1, 4, 2], [0, 3, 5]]), ["batch", "time"])
        y = b.op("Gather", b.weight(7, 4), ids)
    elif name in ("conv", "max pooling"):
        x = b.input("x", b.numbers(2, 2, 6, 6), ["batch", 2, 6, 6])
        y = b.op("Conv", x, b.weight(3, 2, 3, 2), b.weight(3), strides=[1, 2])
        y = b.op("MaxPool", y, kernel_shape=[2, 2]) if name == "max pooling" else y
        y = b.op("Reshape", b.op("Relu", y), b.ints(0, 9, -1))
        return b.case(b.gemm(b.over("ReduceMean", y, 2, keepdims=0), 9, 2))
    else:
        y = b.op("MatMul", b.series(3, 2, 4), b.weight(4, 4))
    if name == "layer norm":
        y = b.op("LayerNormalization", y, b.weight(4), b.weight(4))
    if name == "select":
        other = b.op("Tanh", b.op("MatMul", "x", b.weight(4, 4)))
        y = b.op("Where", b.op("Greater", y, b.const(np.float32(0.1))), y, other)
    if name == "attention":
        scores = b.op("MatMul", y, b.op("Transpose", b.op("MatMul", "x", b.weight(4, 4)), perm=[0, 2, 1]))
        y = b.op("MatMul", b.op("Softmax", scores, axis=2), y)
    if name == "routing":
        other = b.op("Tanh", b.op("MatMul", "x", b.weight(4, 4)))
        y = b.op("Concat", b.op("Transpose", b.op("Relu", y), perm=[0, 2, 1]), b.op("Transpose", other, perm=[0, 2, 1]), axis=1)
        y = b.op("Gather", b.op("Transpose", y, perm=[0, 2, 1]), b.ints(2, 0, 1), axis=1)
        return b.case(b.gemm(b.op("Reshape", y, b.ints(0, -1)), 24, 2))
    if name == "gate":
        y = b.op("Mul", y, b.op("Sigmoid", b.op("MatMul", "x", b.weight(4, 4))))
    return b.case(b.gemm(b.over("ReduceMean", b.op("Tanh", y), 1, keepdims=0), 4, 2))


def _is_large(name, drawn):
    model, feeds = drawn
    if name == "loop":
        return any(n.op_type == "Loop" for n in model.graph.node) and len(feeds) == 1 and min(next(iter(feeds.values())).shape) > 1
    node = next(n for n in model.graph.node if n.op_type == "GRU")
    return set(feeds) == {"x"} and min(feeds["x"].shape) > 1 and next(a.i for a in node.attribute if a.name == "hidden_size") > 1


NAMES = ("gru", "loop", "embedding", "conv", "max pooling", "layer norm", "select", "attention", "routing", "gate")


def conserves_everywhere():
    for name in NAMES:
        testing.assert_conserves(*case(name), precision="float64")


def matches_runtime_everywhere():
    for name in NAMES:
        testing.assert_matches_runtime(*case(name))


def equals_autodiff():
    """Input × gradient of the modified network, by another implementation (``autodiff.py``)."""
    for name in NAMES:
        model, feeds = case(name)
        test_autodiff.assert_same(test_autodiff.explain(model, feeds).relevance, autodiff.relevance(model, feeds)[0])


def runs_twice_the_same():
    testing.assert_deterministic(*test_twin.network(5, **OPTIONS)[:2])


def is_finite():
    testing.assert_finite(*test_twin.network(5, **OPTIONS)[:2])


LAWS = [conserves, matches_runtime, padding, equivariant, is_linear, equals_twin, equals_twin_without_lengths]
LAWS += [bidirectional_splits]
LAWS += [conserves_everywhere, matches_runtime_everywhere, equals_autodiff, runs_twice_the_same, is_finite]


def swapped_gates(patch):
    original = recurrence.pick
    patch.setattr(lstm, "pick", lambda a, order, size: original(a, (order[1], order[0], *order[2:]), size))


def candidate_swapped_with_output_gate(patch):
    original = recurrence.pick
    patch.setattr(
        lstm, "pick", lambda a, order, size: original(a, (*order[:2], order[3], order[2]) if len(order) == 4 else order, size)
    )


def _around_back(patch, change):
    original = lstm.LSTM.back
    patch.setattr(lstm.LSTM, "back", lambda self, *args: change(*original(self, *args)))


def bias_forgotten_in_the_books(patch):
    _around_back(patch, lambda s, even, left, absorbed: (s, even, left, {k: v for k, v in absorbed.items() if k != "bias"}))


def _rolled(lowers, axis):
    return [(lower, [tf.roll(s, 1, axis) for s in cotangents]) for lower, cotangents in lowers]


def time_shifted_by_one(patch):
    _around_back(patch, lambda lowers, *rest: (_rolled(lowers, 0), *rest))


def states_forgotten(patch):
    _around_back(patch, lambda s, even, left, absorbed: (s, even, [tf.zeros_like(r) for r in left], absorbed))


def samples_mixed(patch):
    _around_back(patch, lambda lowers, *rest: (_rolled(lowers, 1), *rest))


def _around_the_walk(patch, module, change):
    original = timeloop.back
    patch.setattr(module, "back", lambda step, run, *rest, **options: original(*change(step, run), *rest, **options))


def reverse_walked_the_wrong_way(patch):
    _around_the_walk(patch, lstm, lambda step, run: (step, dataclasses.replace(run, down=False)))


def reverse_not_flipped_back(patch):
    original, flip = recurrence.Recurrent.relevance, recurrence.flip

    def relevance(self, *args):
        patch.setattr(recurrence, "flip", lambda x, lens: x)
        try:
            return original(self, *args)
        finally:
            patch.setattr(recurrence, "flip", flip)

    patch.setattr(recurrence.Recurrent, "relevance", relevance)


def epsilon_of_the_wrong_sign(patch):
    original = rules.stabilized
    patch.setattr(rules, "stabilized", lambda z, r, epsilon: original(z, r, -epsilon))


def epsilon_doubled(patch):
    original = rules.stabilized
    patch.setattr(rules, "stabilized", lambda z, r, epsilon: original(z, r, 2 * epsilon))


def stabilizer_forgotten_in_the_books(patch):
    original = rules.stabilized

    def stabilized(z, r, epsilon):
        s, stabilizer = original(z, r, epsilon)
        return s, tf.zeros_like(stabilizer)

    patch.setattr(rules, "stabilized", stabilized)


def stabilizer_with_the_sign_of_relevance(patch):
    def stabilized(z, r, epsilon):
        signed = epsilon * tf.where((z < 0) == (r < 0), tf.ones_like(r), -tf.ones_like(r))
        s = r / (z + signed)
        return s, signed * s

    patch.setattr(rules, "stabilized", stabilized)


def share_scaled_by_a_thousandth(patch):
    original = timeloop.Lower.to_x
    patch.setattr(timeloop.Lower, "to_x", lambda self, *args: original(self, *args) * 1.001)


def lengths_ignored(patch):
    original = recurrence.Recurrent._operand
    patch.setattr(recurrence.Recurrent, "_operand", lambda self, name, *r: None if name == "lens" else original(self, name, *r))


def mask_ignored_on_the_way_back(patch):
    _around_the_walk(patch, lstm, lambda step, run: (step, dataclasses.replace(run, valid=None)))


def recurrent_share_dropped(patch):
    patch.setattr(timeloop.Lower, "to_h", lambda self, cotangents, h, factor=None: tf.zeros_like(h))


def dense_bias_forgotten(patch):
    patch.setattr(gemm.Linear, "bias", lambda self, trace: None)


def one_direction_counted_twice(patch):
    original = recurrence.Recurrent.relevance

    def relevance(self, *args):
        share = original(self, *args)
        return Share([None if r is None else r + (r if len(self.backwards) > 1 else 0) for r in share.inputs], share.absorbed)

    patch.setattr(recurrence.Recurrent, "relevance", relevance)


def reverse_direction_forgotten(patch):
    original = timeloop.forth
    patch.setattr(recurrence, "forth", lambda *args, **options: original(*args, **{**options, "down": False}))


def gru_shares_swapped(patch):
    def swapped(step, run):
        return step, dataclasses.replace(run, kept=[run.kept[1], run.kept[0], *run.kept[2:]])

    _around_the_walk(patch, gru, swapped)


def convolution_pulled_without_turning_the_kernel(patch):
    original = conv.Convolution._backward
    patch.setattr(conv.Convolution, "_backward", lambda self, s, w, x: original(self, s, w[:, :, ::-1], x))


def winner_shifted(patch):
    original = pooling.MaxPool.route

    def route(self, trace, rs):
        winners = trace.saved["winners"]
        size = tf.reduce_prod(tf.shape(trace.inputs[0])[2:])
        return original(self, type(trace)(trace.inputs, trace.outputs, trace.parameters, {"winners": (winners + 1) % size}), rs)

    patch.setattr(pooling.MaxPool, "route", route)


def mean_of_a_layer_norm_not_pulled(patch):
    original = normalization.Normalized._map
    patch.setattr(
        normalization.Normalized,
        "_map",
        lambda self, like, scale, inverse, _: original(self, like, scale, inverse, (1.0, 0.0, None)),
    )


def state_of_a_loop_dropped(patch):
    original = steps._eagerly

    def eagerly(loop, turn, left, rows, zero):
        def forgetful(t, states):
            new, *rest = turn(t, states)
            return [tf.zeros_like(r) for r in new], *rest

        return original(loop, forgetful, left, rows, zero)

    patch.setattr(steps, "_eagerly", eagerly)


def row_of_a_loop_off_by_one(patch):
    original = steps.walk

    def walk(loop, *rest):
        left = original(loop, *rest)
        rows = {row.name: row for row in loop.layer.rows}
        moved = {k: tf.roll(r, 1, rows[k[1]].axis) if k[1] in rows else r for k, r in left.arrived.items()}
        return dataclasses.replace(left, arrived=moved)

    patch.setattr("onnx_lrp.propagation.walk", walk)


def sides_of_a_selection_swapped(patch):
    original = select.Where._parts
    patch.setattr(select.Where, "_parts", lambda self, trace, r: original(self, trace, r)[::-1])


def rows_of_an_embedding_shifted(patch):
    original = gather.from_start
    patch.setattr(gather, "from_start", lambda indices, size: (original(indices, size) + 1) % tf.cast(size, indices.dtype))


def softmax_is_no_gate(patch):
    original = softmax.Softmax.infer
    wide = (-np.inf, np.inf)
    patch.setattr(softmax.Softmax, "infer", lambda self, xs: [dataclasses.replace(v, interval=wide) for v in original(self, xs)])


def rows_put_back_one_further(patch):
    original = gather.put_back
    patch.setattr(gather, "put_back", lambda r, indices, axis, x: tf.roll(original(r, indices, axis, x), 1, axis))


def parts_of_a_concat_swapped(patch):
    original = concat.Concat.route

    def route(self, trace, rs):
        return original(self, trace, rs)[::-1]

    patch.setattr(concat.Concat, "route", route)


def axes_not_turned_back(patch):
    def route(self, trace, rs):
        return [tf.reshape(rs[0], tf.shape(trace.inputs[0]))]

    patch.setattr(transpose.Transpose, "route", route)


def relevance_scaled_on_its_way(patch):
    original = Propagation.passed

    def passed(self, step, r):
        share = original(self, step, r)
        return Share([None if p is None else 1.001 * p for p in share.inputs], share.absorbed)

    patch.setattr(Propagation, "passed", passed)


def mean_pulled_as_a_sum(patch):
    original = reduce.SumOver._map
    patch.setattr(reduce.SumOver, "_map", lambda self, factor, x: original(self, 1.0, x))


def result_that_comes_and_goes(patch):
    original, count = rules.stabilized, iter(range(10**9))
    patch.setattr(rules, "stabilized", lambda z, r, epsilon: original(z, r * (1 + 1e-6 * next(count)), epsilon))


def division_by_nothing(patch):
    patch.setattr(rules, "stabilized", lambda z, r, epsilon: (r / tf.zeros_like(z), tf.zeros_like(z)))


KILLED_BY = {
    swapped_gates: matches_runtime,
    candidate_swapped_with_output_gate: matches_runtime,
    bias_forgotten_in_the_books: conserves,
    time_shifted_by_one: conserves,
    states_forgotten: conserves,
    samples_mixed: equivariant,
    reverse_not_flipped_back: equals_twin,
    reverse_walked_the_wrong_way: equals_twin_without_lengths,
    epsilon_of_the_wrong_sign: equals_twin,
    epsilon_doubled: equals_twin,
    stabilizer_forgotten_in_the_books: conserves,
    stabilizer_with_the_sign_of_relevance: is_linear,
    share_scaled_by_a_thousandth: conserves,
    lengths_ignored: matches_runtime,
    mask_ignored_on_the_way_back: equals_twin,
    recurrent_share_dropped: conserves,
    dense_bias_forgotten: conserves,
    one_direction_counted_twice: bidirectional_splits,
    reverse_direction_forgotten: equals_twin_without_lengths,
    gru_shares_swapped: equals_autodiff,
    convolution_pulled_without_turning_the_kernel: conserves_everywhere,
    winner_shifted: equals_autodiff,
    mean_of_a_layer_norm_not_pulled: equals_autodiff,
    state_of_a_loop_dropped: conserves_everywhere,
    row_of_a_loop_off_by_one: equals_autodiff,
    sides_of_a_selection_swapped: equals_autodiff,
    rows_of_an_embedding_shifted: matches_runtime_everywhere,
    softmax_is_no_gate: equals_autodiff,
    rows_put_back_one_further: equals_autodiff,
    parts_of_a_concat_swapped: equals_autodiff,
    axes_not_turned_back: equals_autodiff,
    relevance_scaled_on_its_way: conserves_everywhere,
    mean_pulled_as_a_sum: conserves_everywhere,
    result_that_comes_and_goes: runs_twice_the_same,
    division_by_nothing: is_finite,
}


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_the_engine_itself_keeps_the_law(law):
    law()


@pytest.mark.parametrize("mutant", KILLED_BY, ids=lambda mutant: mutant.__name__)
def test_mutant_is_killed(mutant, monkeypatch):
    mutant(monkeypatch)
    with pytest.raises(AssertionError):
        KILLED_BY[mutant]()
