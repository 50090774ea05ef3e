"""Recurrent layers that get lengths from us: very many lengths run in few padded batches, and nobody can tell from the results."""

from __future__ import annotations

import contextlib
import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_batches import bilstm, runs
from test_ragged import sequences, with_lengths, words

import onnx_lrp
from onnx_lrp import ParityError, explainer, ragged, reordering, targets
from onnx_lrp.lengths import LENGTHS
from onnx_lrp.testing.build import Builder
from onnx_lrp.ways import AGAIN, OFTEN, Habits, Way

LENGTHS_OF_FEW = st.lists(st.integers(1, 9), min_size=2, max_size=9).filter(lambda n: len(set(n)) > 1)
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


@contextlib.contextmanager
def few_are_many():
    """Two lengths are enough, any nearness, any size of a result; so that small examples take the way of large ones."""
    before = explainer.MANY_GROUPS, ragged.FILL, ragged.TOGETHER, reordering.LARGE
    explainer.MANY_GROUPS, ragged.FILL, ragged.TOGETHER, reordering.LARGE = 2, 0.0, 4, 1
    try:
        yield
    finally:
        explainer.MANY_GROUPS, ragged.FILL, ragged.TOGETHER, reordering.LARGE = before


def stacked(op, direction, seed=0):
    """x (T, B, 3) → tanh(x A) → two layers of ``op``, the first one's Y read by the second → last states → two classes."""
    b = Builder(np.random.default_rng(seed), 17)
    d, size, gates = (2 if direction == "bidirectional" else 1), 3, GATES[op]
    x = b.input("x", b.numbers(4, 2, 3), ["T", "B", 3])
    x = b.op("Tanh", b.op("Add", b.op("MatMul", x, b.weight(3, 4)), b.weight(4)))
    for width in (4, d * size):
        weights = [b.weight(d, gates * size, width), b.weight(d, gates * size, size), b.weight(d, 2 * gates * size)]
        y, last = b.ops(op, x, *weights, outputs=2, hidden_size=size, direction=direction)
        x = b.op("Reshape", b.op("Transpose", y, perm=[0, 2, 1, 3]), b.ints(0, 0, -1))
    features = b.op("Reshape", b.op("Transpose", last, perm=[1, 0, 2]), b.ints(0, -1))
    return b.case(b.op("Gemm", features, b.weight(d * size, 2), b.weight(2)))[0]


def embedded():
    """ids (B, T) → embedding → bidirectional GRU → last states → two classes."""
    b = Builder(np.random.default_rng(2), 17)
    ids = b.input("ids", np.asarray([[1, 4, 2], [0, 3, 5]]), ["batch", "time"])
    x = b.op("Transpose", b.op("Gather", b.weight(7, 4), ids), perm=[1, 0, 2])
    _, last = b.ops(
        "GRU", x, b.weight(2, 9, 4), b.weight(2, 9, 3), b.weight(2, 18), outputs=2, hidden_size=3, direction="bidirectional"
    )
    return b.case(b.op("MatMul", b.op("Reshape", b.op("Transpose", last, perm=[1, 0, 2]), b.ints(0, -1)), b.weight(6, 2)))[0]


def same(alone, together, k, steps):
    """Whether sample k is explained as if it came alone; x (T, B, 3)."""
    (array,), (whole,) = alone.relevance.values(), together.relevance.values()
    scale = 1 + np.abs(array).max()
    np.testing.assert_allclose(whole[:steps, k], array[:, 0], rtol=1e-9, atol=1e-13 * scale)
    assert not whole[steps:, k].any()
    assert not together.inputs["x"][steps:, k].any()
    np.testing.assert_array_equal(together.inputs["x"][:steps, k], alone.inputs["x"][:, 0])
    assert together.target[k] == alone.target[0]
    np.testing.assert_allclose(together.seed[k], alone.seed[0], rtol=1e-12)
    np.testing.assert_allclose(together.residual[k], alone.residual[0], atol=1e-12 * scale)
    np.testing.assert_allclose(together.outputs[alone.explained][k], alone.outputs[alone.explained][0], rtol=1e-9)
    for kind, amount in together.absorbed.items():
        np.testing.assert_allclose(amount[k], alone.absorbed.get(kind, [0.0])[0], rtol=1e-9, atol=1e-12 * scale)


@functools.cache
def loaded(op, direction, bias_factor):
    """Traced once for all lengths."""
    return onnx_lrp.load(stacked(op, direction), jit="graph", precision="float64", bias_factor=bias_factor)


@pytest.mark.parametrize(
    ("op", "direction", "bias_factor"),
    [
        ("LSTM", "bidirectional", 0.0),
        ("LSTM", "reverse", 1.0),
        ("GRU", "bidirectional", 0.0),
        ("GRU", "forward", 1.0),
        ("RNN", "reverse", 0.0),
    ],
)
@given(lengths=LENGTHS_OF_FEW)
def test_each_is_explained_as_if_it_came_alone(op, direction, bias_factor, lengths):
    given_, made = sequences(lengths), loaded(op, direction, bias_factor)
    with few_are_many():
        together = made.explain(given_)
    assert "lengths" in made._variants
    assert together.lengths.tolist() == lengths
    assert together.relevance["x"].shape == together.inputs["x"].shape == (max(lengths), len(lengths), 3)
    assert [*together.inputs] == ["x"]
    assert together.relevance["x"].flags.writeable
    for k, sequence in enumerate(given_):
        same(made.explain(sequence[:, None]), together, k, len(sequence))


def test_they_run_in_few_batches(monkeypatch):
    """Sixty lengths in one batch of each of a few sizes; compared with onnxruntime before, by one sequence."""
    lengths = np.random.default_rng(0).permutation(np.arange(1, 61)).tolist()
    monkeypatch.setattr(ragged, "TOGETHER", 16)
    made, seen = onnx_lrp.load(bilstm()[0]), runs(monkeypatch)
    together = made.explain(sequences(lengths))
    assert [shape[1] for shape in seen[:4]] == [2, 1, 1, 1]  # whether samples see each other; the shortest, verified
    assert seen[3][0] == 1
    assert made._runs.verified
    assert len(seen) < 24
    assert {shape[0] for shape in seen[4:]} <= {1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64}
    assert together.relevance["x"].shape == (60, 60, 3)
    exact = onnx_lrp.load(bilstm()[0], verify="always").explain(sequences(lengths))
    assert len(seen) > 60
    np.testing.assert_allclose(together.relevance["x"], exact.relevance["x"], rtol=1e-3, atol=1e-5)
    again = made.explain(sequences(lengths))
    np.testing.assert_array_equal(again.relevance["x"], together.relevance["x"])
    assert LENGTHS not in str(together) + str(made.summary()) + str([v.name for v in made.inputs])


def test_words_targets_and_what_is_kept():
    made, given_ = onnx_lrp.load(embedded(), jit="eager", precision="float64"), [[1, 4], [2, 0, 6, 3], [5], [3, 3, 1, 1, 2]]
    name = next(step.name for step in made._plan.steps if step.node.op == "GRU")
    keep = (f"{name}:h", next(iter(made._plan.points)))
    exact, classes = made.explain(given_, targets.all_classes(), keep=keep), np.asarray([1, 0, 0, 1])
    own = made.explain(given_, classes)
    with few_are_many():
        together = made.explain(given_, targets.all_classes(), keep=keep)
        picked = made.explain(given_, classes)
        assert "lengths" in made._variants
        assert_close(made.predict(given_), own.outputs)
        other = made.explain(given_, 1, method="gradient_x_input")
    for field in ("relevance", "hidden", "outputs", "absorbed", "arrived", "passed", "inputs"):
        assert_close(getattr(together, field), getattr(exact, field))
        assert_close(getattr(picked, field), getattr(own, field))
    assert together.hidden[keep[0]].shape[:4] == (2, 5, 2, 4)
    assert_close(other.relevance, made.explain(given_, 1, method="gradient_x_input").relevance)


def assert_close(found, expected):
    assert {*found} >= {*expected}
    for name, array in found.items():
        np.testing.assert_allclose(array, expected.get(name, np.zeros_like(array)), rtol=1e-9, atol=1e-12)


def test_not_where_something_else_reads_along_time(monkeypatch):
    """A mean over time, every step's class, a loop's own last step: padding would be read."""
    seen = runs(monkeypatch)
    with few_are_many():
        onnx_lrp.load(bilstm(y=True)[0], jit="eager").explain(sequences([2, 3, 4]))
        assert sorted(shape[0] for shape in seen) == [2, 3, 4]
        seen.clear()
        onnx_lrp.load(words(), jit="eager").explain([[1], [2, 3], [4, 5, 6]])
        assert sorted(shape[1] for shape in seen) == [1, 2, 3]
        seen.clear()
        b = Builder(np.random.default_rng(1), 17)
        x = b.input("x", b.numbers(4, 2, 3), ["T", "B", 3])
        y, last = b.ops("LSTM", x, b.weight(1, 8, 3), b.weight(1, 8, 2), outputs=2, hidden_size=2)
        end = b.op("Gather", b.op("Squeeze", y, b.ints(1)), b.const(-1, np.int64), axis=0)
        model = b.case(b.op("MatMul", b.op("Add", end, b.op("Squeeze", last, b.ints(0))), b.weight(2, 2)))[0]
        onnx_lrp.load(model, jit="eager").explain(sequences([2, 3, 4]))
        assert sorted(shape[0] for shape in seen) == [2, 3, 4]


def two_times():
    """x (T, B, 3) and y (S, B, 3), each through an LSTM of its own → two classes."""
    b = Builder(np.random.default_rng(5), 17)
    ends = []
    for name, time in (("x", "T"), ("y", "S")):
        x = b.input(name, b.numbers(4, 2, 3), [time, "B", 3])
        ends.append(b.op("Squeeze", b.ops("LSTM", x, b.weight(1, 8, 3), b.weight(1, 8, 2), outputs=2, hidden_size=2)[1], b.ints(0)))
    return b.case(b.op("MatMul", b.op("Concat", *ends, axis=1), b.weight(4, 2)))[0]


def decoder():
    """x (T, B, 3) → LSTM → its last state three times → LSTM → two classes."""
    b = Builder(np.random.default_rng(6), 17)
    x = b.input("x", b.numbers(4, 2, 3), ["T", "B", 3])
    last = b.ops("LSTM", x, b.weight(1, 8, 3), b.weight(1, 8, 2), outputs=2, hidden_size=2)[1]
    again = b.op("Concat", last, last, last, axis=0)
    last = b.ops("LSTM", again, b.weight(1, 8, 2), b.weight(1, 8, 2), outputs=2, hidden_size=2)[1]
    return b.case(b.op("MatMul", b.op("Squeeze", last, b.ints(0)), b.weight(2, 2)))[0]


def test_not_along_another_time():
    """Lengths of one input are not those of another, nor of what a decoder makes."""
    x, y = sequences([2, 3, 4, 5]), sequences([3, 3, 3, 3], seed=2)
    for model, given_ in ((two_times(), {"x": x, "y": y}), (two_times(), {"x": y, "y": x}), (decoder(), {"x": x})):
        made = onnx_lrp.load(model, jit="eager", precision="float64")
        with few_are_many():
            together = made.explain(given_)
        for k in range(4):
            alone = made.explain({name: rows[k][:, None] for name, rows in given_.items()})
            for name, array in alone.relevance.items():
                np.testing.assert_allclose(together.relevance[name][: len(array), k], array[:, 0], rtol=1e-9, atol=1e-13)
    both = sequences([2, 3, 4, 5], seed=3)
    with few_are_many():
        together = (made := onnx_lrp.load(two_times(), jit="eager", precision="float64")).explain({"x": x, "y": both})
    for k in range(4):
        alone = made.explain({"x": x[k][:, None], "y": both[k][:, None]})
        np.testing.assert_allclose(together.relevance["y"][: k + 2, k], alone.relevance["y"][:, 0], rtol=1e-9, atol=1e-13)


def recurrent(before=None, after=None, *, width=3):
    """x (T, B, 3) → ``before`` → LSTM → last state (B, 2) → ``after`` → two classes."""
    b = Builder(np.random.default_rng(7), 17)
    x = b.input("x", b.numbers(4, 2, 3), ["T", "B", 3])
    x = x if before is None else before(b, x)
    last = b.ops("LSTM", x, b.weight(1, 8, width), b.weight(1, 8, 2), outputs=2, hidden_size=2)[1]
    if after is None:
        return b.case(b.op("MatMul", b.op("Squeeze", last, b.ints(0)), b.weight(2, 2)))[0]
    return b.case(after(b, last))[0]


def weighted(b, x):
    """x times its attention over all steps."""
    return b.op("Mul", x, b.op("Softmax", b.op("MatMul", x, b.weight(3, 1)), axis=0))


def centred(b, last):
    rows = b.op("Squeeze", last, b.ints(0))
    return b.op("MatMul", b.op("Tanh", b.op("Sub", rows, b.over("ReduceMean", rows, 0, keepdims=1))), b.weight(2, 2))


OTHERS = {
    "attention over time": recurrent(weighted),
    "softmax over the samples": recurrent(lambda b, x: b.op("Softmax", x, axis=1)),
    "samples that see each other": recurrent(after=centred),
    "one LSTM for every channel": recurrent(
        lambda b, x: b.op("Reshape", x, b.ints(0, -1, 1)),
        lambda b, last: b.op("MatMul", b.op("Reshape", last, b.ints(-1, 6)), b.weight(6, 2)),
        width=1,
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_padding_or_other_samples_would_change(name):
    """Lengths that differ run alone, as ever."""
    given_, made = sequences([2, 5, 3, 4]), onnx_lrp.load(OTHERS[name], jit="eager", precision="float64")
    with few_are_many():
        together = made.explain(given_)
    assert "lengths" not in made._variants
    for k, sequence in enumerate(given_):
        same(made.explain(sequence[:, None]), together, k, len(sequence))


def test_a_softmax_over_features_is_by_step():
    made = onnx_lrp.load(recurrent(lambda b, x: b.op("Softmax", x, axis=2)), jit="eager", precision="float64")
    with few_are_many():
        made.explain(sequences([2, 5, 3, 4]))
    assert "lengths" in made._variants


def test_an_array_for_all_samples():
    b = Builder(np.random.default_rng(8), 17)
    x, f = b.input("x", b.numbers(4, 2, 3), ["T", "B", 3]), b.input("f", b.numbers(2, 2), ["B", 2])
    last = b.op("Squeeze", b.ops("LSTM", x, b.weight(1, 8, 3), b.weight(1, 8, 2), outputs=2, hidden_size=2)[1], b.ints(0))
    model = b.case(b.op("MatMul", b.op("Add", last, f), b.weight(2, 2)))[0]
    given_, made = {"x": sequences([2, 5, 3, 4]), "f": np.ones((1, 2), np.float32)}, onnx_lrp.load(model, jit="eager")
    exact = made.explain(given_)
    with few_are_many():
        assert_close(made.explain(given_).relevance, exact.relevance)


def test_a_time_that_the_file_fixes_is_not_padded(monkeypatch):
    b = Builder(np.random.default_rng(9), 17)
    x, lens = b.input("x", b.numbers(5, 2, 3), [5, "B", 3]), b.input("lens", np.asarray([5, 4], np.int32), ["B"])
    last = b.ops("LSTM", x, b.weight(1, 8, 3), b.weight(1, 8, 2), b.weight(1, 16), lens, outputs=2, hidden_size=2)[1]
    made = onnx_lrp.load(b.case(b.op("MatMul", b.op("Squeeze", last, b.ints(0)), b.weight(2, 2)))[0], jit="eager")
    monkeypatch.setattr(explainer, "ROUNDED", 1)
    assert made.explain(sequences([5, 5, 5])).relevance["x"].shape == (5, 3, 3)


def test_runs_of_one_call_count_as_one_but_many():
    habits = Habits()
    with habits.one_call():
        ways = [habits.way("shape", lambda: (Way.WHOLE, 1)) for _ in range(int((OFTEN - 1) / AGAIN) + 1)]
    assert {*ways[:-1]} == {Way.GRAPH}
    assert ways[-1] is Way.WHOLE  # a call of very many runs is worth it, too
    for _ in range(OFTEN - 1):
        with habits.one_call():
            assert habits.way("other", lambda: (Way.WHOLE, 1)) is Way.GRAPH
            assert habits.way("other", lambda: (Way.WHOLE, 1)) is Way.GRAPH
    assert habits.way("other", lambda: (Way.WHOLE, 1)) is Way.WHOLE


def test_not_where_every_run_is_verified():
    made = onnx_lrp.load(bilstm()[0], verify="always", jit="eager")
    with few_are_many():
        made.explain(sequences([2, 3, 4]))
    assert not made._variants


def test_a_wrong_importer_is_found_before(monkeypatch):
    from onnx_lrp.ops.lstm import LSTM

    original = LSTM.cell
    monkeypatch.setattr(LSTM, "cell", lambda self, d, x, p: original(self, d, x, {**p, "W": [-w for w in p["W"]]}))
    with few_are_many(), pytest.raises(ParityError, match="LSTM"):
        onnx_lrp.load(bilstm()[0], jit="eager").explain(sequences([2, 3, 4]))


@pytest.mark.parametrize(("jit", "checkpoint"), [("eager", "never"), ("graph", "never"), ("graph", 2), ("xla", 2)])
def test_steps_that_are_padding_for_all_are_not_run(jit, checkpoint):
    """As if the array ended with the longest; a batch of nothing but padding keeps its initial state."""
    rows = np.random.default_rng(3).normal(size=(9, 3, 3)).astype(np.float32)
    made = onnx_lrp.load(with_lengths(), jit=jit, precision="float64", checkpoint=checkpoint)
    for lens in ([4, 2, 3], [1, 1, 0], [0, 0, 0], [9, 1, 9]):
        lens = np.asarray(lens, np.int32)
        longest = max(int(lens.max()), 1)
        padded = made.explain({"x": rows, "lens": lens}, 0)
        cut = made.explain({"x": rows[:longest], "lens": lens}, 0)
        np.testing.assert_allclose(padded.relevance["x"][:longest], cut.relevance["x"], rtol=1e-12, atol=1e-15)
        assert not padded.relevance["x"][longest:].any()
        assert_close(padded.outputs, cut.outputs)
        assert_close(padded.absorbed, cut.absorbed)


def test_what_is_padded_is_a_value_that_the_model_knows():
    """Zeros may be none: log 0 times nothing is no number."""
    b = Builder(np.random.default_rng(4), 17)
    x = b.input("x", np.abs(b.numbers(4, 2, 3)) + 1, ["T", "B", 3])
    _, last = b.ops("LSTM", b.op("Log", x), b.weight(1, 8, 3), b.weight(1, 8, 2), outputs=2, hidden_size=2)
    made = onnx_lrp.load(b.case(b.op("MatMul", b.op("Squeeze", last, b.ints(0)), b.weight(2, 2)))[0], jit="eager")
    given_ = [np.abs(s) + 1 for s in sequences([2, 3, 4])]
    with few_are_many():
        together = made.explain(given_)
    assert "lengths" in made._variants
    assert np.isfinite(together.relevance["x"]).all()


@given(length=st.integers(1, 10_000))
def test_few_lengths_hold_all(length):
    assert length <= ragged._few(length) <= max(2, 1.5 * length)
    assert len({ragged._few(n) for n in range(1, 257)}) <= 16
    assert ragged._few(ragged._few(length)) == ragged._few(length)


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
@pytest.mark.parametrize("op", GATES)
def test_a_sequence_without_a_step_ends_at_zero_wherever_it_starts(op, direction):
    """As in onnxruntime, which the forward pass is held against; relevance at such an end stays there."""
    b = Builder(np.random.default_rng(1), 17)
    d, size = (2 if direction == "bidirectional" else 1), 3
    gates = GATES[op]
    x = b.input("x", b.numbers(4, 3, 2), ["T", "B", 2])
    lens = b.input("lens", np.array([4, 0, 2], np.int32), ["B"])
    start = b.input("start", b.numbers(d, 3, size), [d, "B", size])
    weights = [b.weight(d, gates * size, 2), b.weight(d, gates * size, size), b.weight(d, 2 * gates * size)]
    states = [start] * (2 if op == "LSTM" else 1)
    _, *ends = b.ops(op, x, *weights, lens, *states, outputs=1 + len(states), hidden_size=size, direction=direction)
    flat = [b.op("Reshape", b.op("Transpose", end, perm=[1, 0, 2]), b.ints(-1, d * size)) for end in ends]
    model, feeds = b.case(b.gemm(b.op("Concat", *flat, axis=1), len(flat) * d * size, 2))
    explanation = onnx_lrp.load(model, precision="float64", jit="eager", bias_factor=1.0).explain(feeds)
    np.testing.assert_allclose(explanation.residual, 0, atol=1e-12)
    assert not explanation.relevance["start"][:, 1].any()
    assert not explanation.relevance["x"][:, 1].any()
    assert explanation.absorbed["constant"][1] != 0 == explanation.absorbed["constant"][0]
