"""Evaluation: an oracle gets the best figures, formulas have slow twins, what is taken away is gone, and random stays random."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

import onnx_lrp
from onnx_lrp.evaluation import metrics
from onnx_lrp.evaluation.bench import make_bench
from onnx_lrp.evaluation.bootstrap import intervals
from onnx_lrp.evaluation.curves import Grid, aopc, masks, order
from onnx_lrp.evaluation.erasing import Task, erase
from onnx_lrp.evaluation.methods import specs
from onnx_lrp.evaluation.randomise import layers, randomised, stages
from onnx_lrp.evaluation.samples import read_samples
from onnx_lrp.testing.build import Builder

ALL = frozenset({"curves", "labels", "erasure"})
relevances = st.integers(0, 2**16).flatmap(
    lambda seed: st.integers(1, 7).map(lambda n: np.random.default_rng(seed).normal(size=n).round(2))
)


def additive(time=5, width=3, classes=2):
    """Scores that are sums over the steps: Σ_t x_t W. (B, T, I) → (B, C)."""
    b = Builder(np.random.default_rng(0), 17)
    x = b.input("x", b.numbers(6, time, width), ["batch", "time", width])
    return b.case(b.op("MatMul", b.over("ReduceSum", x, 1, keepdims=0), b.weight(width, classes)))


def lstm(batch=5, time=4):
    b = Builder(np.random.default_rng(1), 17)
    x = b.input("x", b.numbers(batch, time, 3), ["batch", "time", 3])
    turned = b.op("Transpose", x, perm=[1, 0, 2])
    _, last = b.ops("LSTM", turned, b.weight(1, 16, 3), b.weight(1, 16, 4), b.weight(1, 32), outputs=2, hidden_size=4)
    return b.case(b.gemm(b.op("Squeeze", last, b.ints(0)), 4, 2))


def words():
    """Ids → embedding → LSTM → two classes."""
    b = Builder(np.random.default_rng(2), 17)
    ids = b.input("ids", np.array([[1, 2, 3, 0], [4, 4, 2, 1]]), ["batch", "time"])
    x = b.op("Transpose", b.op("Gather", b.weight(5, 3), ids), perm=[1, 0, 2])
    _, last = b.ops("LSTM", x, b.weight(1, 16, 3), b.weight(1, 16, 4), b.weight(1, 32), outputs=2, hidden_size=4)
    return b.case(b.gemm(b.op("Squeeze", last, b.ints(0)), 4, 2))


def bench_of(case, feeds=None, replace="zero", **options):
    model, own = case
    explainer = onnx_lrp.load(model, jit="eager", **options)
    samples = read_samples(explainer, own if feeds is None else feeds)
    return make_bench(explainer, model, samples, replace=replace, step=None, options={"jit": "eager", **options})


def predicted(case, feeds):
    return next(iter(onnx_lrp.load(case[0], jit="eager").predict(feeds).values()))


# curves


@given(relevances, st.data())
def test_an_oracle_of_a_sum_gets_the_best_area_of_all_orders(effects, data):
    grid = Grid(data.draw(st.integers(1, 8)), data.draw(st.sampled_from(["count", "share"])))
    counts = grid.counts(len(effects))

    def area(ranked):
        return aopc(np.asarray([[effects[~m].sum() for m in masks(np.asarray(ranked), counts)]]))[0]

    areas = [area(p) for p in itertools.islice(itertools.permutations(range(len(effects))), 300)]
    assert area(order(effects)) >= max(areas) - 1e-9
    assert area(order(effects, rising=True)) <= min(areas) + 1e-9


@given(st.integers(1, 30), st.integers(1, 12), st.sampled_from(["count", "share"]))
def test_curves_start_at_nothing_and_never_put_back(units, points, by):
    counts = Grid(points, by).counts(units)
    assert len(counts) == points + 1
    assert counts[0] == 0
    assert np.all(np.diff(counts) >= 0)
    assert counts[-1] == (min(points, units) if by == "count" else units)
    ranked = np.random.default_rng(units).permutation(units)
    for gone, count in zip(masks(ranked, counts), counts, strict=True):
        assert sorted(np.flatnonzero(gone)) == sorted(ranked[:count])


@given(relevances, st.floats(0.1, 50))
def test_only_the_order_counts(relevance, scale):
    assert np.array_equal(order(relevance), order(relevance * scale + 3))
    assert np.array_equal(order(relevance), order(-relevance, rising=True))


def test_area_by_its_definition():
    curves = np.random.default_rng(0).normal(size=(4, 6))
    slow = [sum(curve[0] - curve[k] for k in range(6)) / 6 for curve in curves]
    assert np.allclose(aopc(curves), slow)


# formulas against slow twins


@given(relevances)
def test_sparsity_is_the_area_under_the_mass_around_zero(relevance):
    largest = np.abs(relevance).max()
    scaled = relevance / largest if largest else relevance
    radii = (np.arange(20_000) + 0.5) / 20_000
    slow = np.mean([np.mean(np.abs(scaled) <= r) for r in radii])
    assert metrics.sparsity(relevance) == pytest.approx(slow, abs=1e-4)
    assert metrics.sparsity(-7 * relevance[::-1]) == pytest.approx(metrics.sparsity(relevance))


@given(st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=3, max_size=12))
def test_rank_correlation_by_its_definition(pairs):
    a, b = np.array(pairs, float).T
    found = metrics.rank_correlation(a, b)
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        assert np.isnan(found)
        return

    def ranks(values):
        return np.array([sum(v < w for v in values) + (sum(v == w for v in values) + 1) / 2 for w in values])

    x, y = ranks(a) - (len(a) + 1) / 2, ranks(b) - (len(b) + 1) / 2
    assert found == pytest.approx(float((x * y).sum() / np.sqrt((x**2).sum() * (y**2).sum())))
    assert metrics.rank_correlation(np.exp(a), b) == pytest.approx(found)


def test_erasure_by_its_definition():
    before, after = np.array([0.9, 0.5]), np.array([[0.8, 0.1, 0.3], [0.5, 0.6, 0.2]])
    slow = [sum([0, *(b - a for a in row)]) / 4 for b, row in zip(before, after, strict=True)]
    assert np.allclose(metrics.erased(before, after), slow)
    assert metrics.bin_counts(20) == [1, 1, 2, 4, 10]
    assert metrics.bin_counts(3) == [1, 1, 1, 1, 2]


def test_probabilities():
    scores = np.random.default_rng(0).normal(size=(5, 3))
    slow = np.array([[np.exp(s) / sum(np.exp(t) for t in row) for s in row] for row in scores])
    assert np.allclose(metrics.probabilities(scores), slow)
    assert metrics.probabilities(slow) is slow, "probabilities stay"
    one = metrics.probabilities(np.array([[-2.0, 2.0]]), signs=True)
    assert np.allclose(one, [[1 / (1 + np.exp(2)), 1 / (1 + np.exp(-2))]])


# intervals


def test_intervals_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(0)
    held = 0
    for draw in range(200):
        found = intervals({"x": rng.normal(3, 2, size=60)}, resamples=300, seed=draw)["x"]
        held += found.low <= 3 <= found.high
    assert 0.88 <= held / 200 <= 0.99


def test_intervals_leave_out_samples_without_a_figure():
    values = np.array([1.0, np.nan, 3.0, np.nan, 2.0])
    found = intervals({"x": values, "all": np.ones(5), "none": np.full(5, np.nan)}, resamples=200)
    assert found["x"].mean == pytest.approx(2)
    assert found["x"].count == 3
    assert 1 <= found["x"].low <= 2 <= found["x"].high <= 3
    assert (found["all"].low, found["all"].high) == (1, 1)
    assert found["none"].count == 0
    assert np.isnan(found["none"].mean)


# taking away


def test_nothing_taken_away_is_the_model_itself():
    case = lstm()
    bench = bench_of(case)
    assert np.allclose(bench.scores(range(5)), predicted(case, case[1]), atol=1e-6)
    none = [np.zeros(4, bool)] * 5
    assert np.allclose(bench.scores(range(5), none), predicted(case, case[1]), atol=1e-6)


@settings(max_examples=10)
@given(st.integers(0, 1000))
def test_what_is_taken_away_is_zero_mean_or_left_out(seed):
    case = lstm()
    x = case[1]["x"]
    gone = np.random.default_rng(seed).random((5, 4)) < 0.5
    zeroed = np.where(gone[:, :, None], 0, x)
    assert np.allclose(bench_of(case).scores(range(5), list(gone)), predicted(case, zeroed), atol=1e-6)
    mean = np.where(gone[:, :, None], x.mean((0, 1)), x).astype(np.float32)
    assert np.allclose(bench_of(case, replace="mean").scores(range(5), list(gone)), predicted(case, mean), atol=1e-5)
    shorter = [row[~g] if not g.all() else np.zeros((1, 3), np.float32) for row, g in zip(x, gone, strict=True)]
    slow = np.concatenate([predicted(case, row[None]) for row in shorter])
    assert np.allclose(bench_of(case, replace="remove").scores(range(5), list(gone)), slow, atol=1e-6)


def test_ids_are_replaced_behind_their_embedding():
    case = words()
    ids = case[1]["ids"]
    gone = np.array([[1, 0, 0, 1], [0, 1, 1, 0]], bool)
    found = bench_of(case, replace=4).scores([0, 1], list(gone))
    assert np.allclose(found, predicted(case, np.where(gone, 4, ids)), atol=1e-6)
    left = [row[~g] for row, g in zip(ids, gone, strict=True)]
    slow = np.concatenate([predicted(case, row[None]) for row in left])
    assert np.allclose(bench_of(case, replace="remove").scores([0, 1], list(gone)), slow, atol=1e-6)


def test_sequences_of_different_lengths_each_by_themselves():
    case = words()
    rows = [np.array([1, 2, 3]), np.array([4]), np.array([0, 2, 2, 1, 3])]
    bench = bench_of(case, rows)
    assert bench.units == [3, 1, 5]
    slow = np.concatenate([predicted(case, row[None]) for row in rows])
    assert np.allclose(bench.scores([2, 0, 1, 0]), slow[[2, 0, 1, 0]], atol=1e-6)
    explained = bench.explain([2, 0, 1], np.array([0, 1, 1]))
    explainer = onnx_lrp.load(case[0], jit="eager")
    for row, target, found in zip([rows[2], rows[0], rows[1]], [0, 1, 1], explained.relevance, strict=True):
        assert np.allclose(found, explainer.explain(row[None], target).per_step()[0], atol=1e-6)


@pytest.mark.parametrize(("replace", "says"), [("noise", "'zero'"), (9, "ids 0 to 4"), (-1, "ids 0 to 4")])
def test_a_replacement_that_does_not_fit_is_refused(replace, says):
    with pytest.raises(onnx_lrp.InputError, match=says):
        bench_of(words(), replace=replace)


def test_units_are_entries_where_there_is_no_time():
    b = Builder(np.random.default_rng(3), 17)
    case = b.case(b.gemm(b.op("Tanh", b.gemm(b.rows(4, 3), 3, 5)), 5, 2))
    gone = np.random.default_rng(0).random((4, 3)) < 0.5
    bench = bench_of(case)
    assert bench.units == [3] * 4
    assert not bench.of_steps
    assert np.allclose(bench.scores(range(4), list(gone)), predicted(case, np.where(gone, 0, case[1]["x"])), atol=1e-6)
    with pytest.raises(onnx_lrp.InputError, match="time axis"):
        bench_of(case, replace="remove")


# figures of relevances


def task_of(case, labels=None, points=5):
    bench = bench_of(case)
    scores = bench.scores(range(len(bench)))
    return Task(bench, scores.argmax(1), scores, labels, Grid(points))


def test_the_true_effects_get_the_best_figures():
    case = additive()
    task = task_of(case)
    weight = numpy_helper.to_array(next(t for t in case[0].graph.initializer if t.dims == [3, 2]))
    effects = [(row @ weight)[:, target] for row, target in zip(case[1]["x"], task.targets, strict=True)]
    best = erase(task, effects, parts=ALL).figures
    for seed in range(10):
        rng = np.random.default_rng(seed)
        other = erase(task, [rng.normal(size=5) for _ in effects], parts=ALL).figures
        for name, sign in (("deletion", 1), ("insertion", 1), ("deletion_least", -1)):
            assert np.all(sign * best[name] >= sign * other[name] - 1e-5), name
    exact = np.asarray([np.mean([np.sort(e)[::-1][:k].sum() for k in range(6)]) for e in effects])
    assert np.allclose(best["deletion"], exact, atol=1e-5)
    assert np.allclose(best["insertion"], exact, atol=1e-5)


def test_right_and_wrong_samples_are_told_apart():
    case = additive()
    task = task_of(case)
    labels = task.targets.copy()
    labels[:2] = 1 - labels[:2]
    task = task_of(case, labels)
    assert task.wrong.tolist() == [0, 1]
    rng = np.random.default_rng(0)
    relevance = [rng.normal(size=5) for _ in range(6)]
    found = erase(task, relevance, relevance[:2], parts=ALL)
    x = case[1]["x"]
    for i, k in itertools.product(range(6), range(6)):
        ranked = np.argsort(relevance[i] if i < 2 else -relevance[i])
        changed = x[i].copy()
        changed[ranked[:k]] = 0
        hit = predicted(case, changed[None]).argmax() == labels[i]
        assert found.curves["accuracy_wrong" if i < 2 else "accuracy_right"][i, k] == hit
    assert np.isnan(found.figures["accuracy_fall"][:2]).all()
    assert np.isnan(found.figures["accuracy_rise"][2:]).all()


# random weights


def test_layers_go_from_the_output_down_and_only_they_change():
    model, _ = words()
    found = layers(model)
    assert [name.rstrip("0123456789") for name, _ in found] == ["Gemm", "LSTM", "Gather"]
    below = layers(model, ["gather0_0"])
    assert [name.rstrip("0123456789") for name, _ in below] == ["Gemm", "LSTM"]
    for _, names in stages(found):
        changed = randomised(model, names, np.random.default_rng(0))
        for old, new in zip(model.graph.initializer, changed.graph.initializer, strict=True):
            same = np.array_equal(numpy_helper.to_array(old), numpy_helper.to_array(new))
            assert same == (old.name not in names), old.name


def test_many_layers_are_joined():
    found = [(f"n{k}", (f"w{k}",)) for k in range(20)]
    joined = stages(found, most=8)
    assert len(joined) == 8
    assert [n for _, names in joined for n in names] == [f"w{k}" for k in range(20)]


# methods


def test_methods_with_settings():
    one, two = specs("lrp:gates=half:epsilon=0.01,occlusion:by=feature,random")
    assert (one.method, dict(one.loading)) == ("lrp", {"gates": "half", "epsilon": 0.01})
    assert (two.method, dict(two.options)) == ("occlusion", {"by": "feature"})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("lpr", "does not exist"),
        ("lrp,lrp", "twice"),
        ("random", "beside 'random'"),
        ("lrp:half", "no setting such as gates=half"),
        ("lrp:steps=3", "no setting 'steps'"),
        ("occlusion:steps=3", "takes no option"),
    ],
)
def test_methods_that_do_not_exist_are_refused(text, says):
    with pytest.raises(onnx_lrp.RuleError, match=says):
        specs(text)
