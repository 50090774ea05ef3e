"""Tests that can fail: every mutant of the engine breaks a law, and the law says so."""

from __future__ import annotations

import pytest
import test_twin

import onnx_lrp.recurrence as recurrence
import onnx_lrp.rules as rules
from onnx_lrp import testing
from onnx_lrp._lazy import tf
from onnx_lrp.layer import Share
from onnx_lrp.ops import gemm, lstm

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


def equals_twin():
    for mean in (True, False):
        model, feeds, weights = test_twin.network(5, **{**OPTIONS, "mean": mean})
        test_twin.compare(model, feeds, weights, mean=mean, precision="float64", epsilon=0.1, delta=0.0)


def bidirectional_splits():
    model, feeds, _ = test_twin.network(5, **OPTIONS)
    from test_laws import assert_equal, relevance

    assert_equal(relevance(model, feeds), relevance(testing.split_directions(model), feeds))


LAWS = [conserves, matches_runtime, padding, equivariant, is_linear, equals_twin, bidirectional_splits]


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
    original = recurrence.project
    patch.setattr(
        recurrence, "project", lambda x, w, transpose=False: original(x, w, transpose=transpose) * (1.001 if transpose else 1)
    )


def lengths_ignored(patch):
    original = recurrence.Recurrent._operand
    patch.setattr(recurrence.Recurrent, "_operand", lambda self, name, *r: None if name == "lens" else original(self, name, *r))


def mask_ignored_on_the_way_back(patch):
    original = recurrence.Recurrent.walk

    def walk(self, step, trace, *rest, **shares):
        saved = {k: v for k, v in trace.saved.items() if k != "valid"}
        return original(self, step, type(trace)(trace.inputs, trace.outputs, trace.parameters, saved), *rest, **shares)

    patch.setattr(recurrence.Recurrent, "walk", walk)


def recurrent_share_dropped(patch):
    original = lstm.LSTM.back

    def back(self, d, rule, trace, *rest):
        parameters = {k: tf.zeros_like(v) if k == "W_h" else v for k, v in trace.parameters.items()}
        return original(self, d, rule, type(trace)(trace.inputs, trace.outputs, parameters, trace.saved), *rest)

    patch.setattr(lstm.LSTM, "back", back)


def dense_bias_forgotten(patch):
    patch.setattr(gemm.Linear, "bias", lambda self, trace: None)


def one_direction_counted_twice(patch):
    original = recurrence.Recurrent.relevance

    def relevance(self, *args):
        share = original(self, *args)
        return Share([None if r is None else r + (r if len(self.backwards) > 1 else 0) for r in share.inputs], share.absorbed)

    patch.setattr(recurrence.Recurrent, "relevance", relevance)


KILLED_BY = {
    swapped_gates: matches_runtime,
    candidate_swapped_with_output_gate: matches_runtime,
    bias_forgotten_in_the_books: conserves,
    time_shifted_by_one: conserves,
    states_forgotten: conserves,
    samples_mixed: equivariant,
    reverse_not_flipped_back: equals_twin,
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
}


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_the_engine_itself_keeps_the_law(law):
    law()


@pytest.mark.parametrize("mutant", KILLED_BY, ids=lambda mutant: mutant.__name__)
def test_mutant_is_killed(mutant, monkeypatch):
    mutant(monkeypatch)
    with pytest.raises(AssertionError):
        KILLED_BY[mutant]()
