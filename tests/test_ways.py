"""A compiled program, parts side by side, directions apart: how a call is run changes how long it takes, never what comes out."""

from __future__ import annotations

import numpy as np
import pytest
import test_twin
from hypothesis import given, settings
from hypothesis import strategies as st
from test_batches import bilstm
from test_laws import assert_equal, every_recurrence
from test_ragged import by_steps

import onnx_lrp
from onnx_lrp import program, targets, ways
from onnx_lrp.runs import Runs
from onnx_lrp.testing.build import Builder
from onnx_lrp.ways import OFTEN, Way

COMPILED = (Way.WHOLE, Way.PARTS, Way.DIRECTIONS)
FEW = max(3, settings.get_profile(settings.get_current_profile_name()).max_examples // 8)  # each is traced and compiled


def by(monkeypatch, way, explainer, *call, fewest=1, **options):
    """The explanation of a call that is run a given way, and of the same call by the graph; ``fewest``: samples in a part."""

    def choose(plan, feeds, cores):
        return Way.GRAPH if way is Way.PARTS and not ways.divisible(plan) else way

    monkeypatch.setattr(program, "choose", choose)
    monkeypatch.setattr(ways, "FEWEST", fewest)
    monkeypatch.setattr(program, "cores", lambda: 2)
    found = [explainer.explain(*call, **options) for _ in range(OFTEN)]
    return found[0], found[-1]


def same(graph, compiled, tolerance=1e-9):
    assert_equal(graph, compiled, tolerance)
    np.testing.assert_array_equal(graph.target, compiled.target)
    for kind in ("outputs", "hidden", "absorbed", "arrived", "passed"):
        want, got = getattr(graph, kind), getattr(compiled, kind)
        assert want.keys() == got.keys()
        for name, array in want.items():
            np.testing.assert_allclose(got[name], array, rtol=1e-7, atol=1e-9, err_msg=f"{kind} {name}")


@pytest.mark.parametrize("way", COMPILED)
@every_recurrence
def test_every_way_says_the_same(family, way):
    @settings(max_examples=FEW)
    @given(data=st.data())
    def law(data):
        model, feeds = data.draw(family())
        with pytest.MonkeyPatch.context() as patch:
            explainer = onnx_lrp.load(model, precision="float64", verify="never")
            graph, compiled = by(patch, way, explainer, feeds)
        assert_equal(graph, compiled, 1e-9)
        for kind, amount in graph.absorbed.items():
            np.testing.assert_allclose(compiled.absorbed[kind], amount, rtol=1e-9, atol=1e-12)

    law()


TARGETS = {
    "predicted": None,
    "one": 1,
    "each": np.array([1, 0, 1, 1, 0]),
    "contrast": targets.contrast(0, 1),
    "all": targets.all_classes(),
    "top": targets.top_k(2),
    "seed": targets.seed(np.arange(10.0).reshape(5, 2)),
    "function": targets.seed(np.sign),
}


@pytest.mark.parametrize("way", COMPILED)
@pytest.mark.parametrize("target", TARGETS)
def test_targets_go_with_their_samples(monkeypatch, way, target):
    """Five samples: two parts are not equally long."""
    model, feeds = bilstm(batch=5)
    explainer = onnx_lrp.load(model, precision="float64")
    keep = [name for layer in explainer.weights() for name in (f"{layer}:h", f"{layer}:c") if "lstm" in layer.lower()]
    graph, compiled = by(monkeypatch, way, explainer, feeds, TARGETS[target], keep=keep)
    same(graph, compiled)
    assert {*explainer._program.habits._ways.values()} == {way}
    assert explainer._program._static


def tagger(*, batch=5, time=4):
    """x (T, B, I) → bidirectional GRU → two classes at every step, (T, B, 2)."""
    b = Builder(np.random.default_rng(3), 17)
    x = b.input("x", b.numbers(time, batch, 3), ["T", "B", 3])
    weights = [b.weight(2, 12, 3), b.weight(2, 12, 4), b.weight(2, 24)]
    y = b.op("GRU", x, *weights, hidden_size=4, direction="bidirectional")
    rows = b.op("Reshape", b.op("Transpose", y, perm=[0, 2, 1, 3]), b.ints(0, 0, -1))
    return b.case(b.op("Add", b.op("MatMul", rows, b.weight(8, 2)), b.weight(2)))


@pytest.mark.parametrize("way", COMPILED)
@pytest.mark.parametrize(
    "target", [None, targets.step(-1), targets.step([0, 2]), targets.step(1, 0)], ids=["every", "last", "two", "one of"]
)
def test_scores_of_every_step_go_with_their_samples(monkeypatch, way, target):
    model, feeds = tagger()
    graph, compiled = by(monkeypatch, way, onnx_lrp.load(model, precision="float64"), feeds, target)
    same(graph, compiled)


@pytest.mark.parametrize("target", [None, targets.step(-1), targets.step([0, 2])], ids=["every", "last", "two"])
def test_explained_classes_of_micro_batches_are_joined_along_the_samples(target):
    model, feeds = tagger()
    whole = onnx_lrp.explain(model, feeds, target, precision="float64", jit="eager")
    parts = onnx_lrp.explain(model, feeds, target, precision="float64", jit="eager", max_bytes=1500)
    np.testing.assert_array_equal(whole.target, parts.target)
    assert_equal(whole, parts)


@pytest.mark.parametrize("way", COMPILED)
def test_every_way_is_the_twin(monkeypatch, way):
    """With lengths, initial states and scores of every step; the twin is slow and obvious."""
    monkeypatch.setattr(program, "choose", lambda *_: way)
    monkeypatch.setattr(ways, "FEWEST", 1)
    monkeypatch.setattr(program, "cores", lambda: 2)
    monkeypatch.setattr(ways, "OFTEN", 1)
    for direction, states in (("bidirectional", ("h0", "c0")), ("forward", ())):
        model, feeds, weights = test_twin.network(5, direction=direction, lens=True, states=states, mean=True)
        test_twin.compare(model, feeds, weights, mean=True, precision="float64", epsilon=0.1, delta=0.5, jit="auto")


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("samples", [1, 3])
def test_products_ahead_of_a_loop_change_nothing(monkeypatch, op, samples):
    """With and without W_h held alone, which only small layers do."""
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[op]
    b = Builder(np.random.default_rng(2), 17)
    x = b.input("x", b.numbers(5, samples, 3), ["T", "B", 3])
    weights = [b.weight(2, gates * 4, 3), b.weight(2, gates * 4, 4), b.weight(2, 2 * gates * 4)]
    y = b.op(op, x, *weights, hidden_size=4, direction="bidirectional")
    rows = b.op("Reshape", b.op("Transpose", y, perm=[0, 2, 1, 3]), b.ints(0, 0, -1))
    model, feeds = b.case(b.op("MatMul", rows, b.weight(8, 2)))
    for small in (0, 1e9):
        monkeypatch.setattr("onnx_lrp.recurrence.SMALL", small)
        for ahead in (0, 9):
            monkeypatch.setattr("onnx_lrp.recurrence.AHEAD", ahead)
            explainer = onnx_lrp.load(model, precision="float64")
            assert any("W_h" in p for p in explainer._program.parameters) is bool(small)
            same(*by(monkeypatch, Way.DIRECTIONS, explainer, feeds))


def mixing(*, share=1.0, labels=False, op="ReduceMean"):
    """Every sample's scores hold ``share`` of a mean or maximum over the batch."""
    b = Builder(np.random.default_rng(5), 17)
    x = b.input("x", b.numbers(6, 3), ["B", 3])
    mean = b.op("Mul", b.over(op, x, 0, keepdims=1), b.const(np.float32(share)))
    scores = b.op("MatMul", b.op("Add", x, mean), b.weight(3, 2))
    return b.case(b.op("ArgMax", scores, axis=1, keepdims=0) if labels else scores)


@pytest.mark.parametrize("options", [{}, {"share": 1e-5}, {"labels": True, "share": 0.1}, {"op": "ReduceMax"}], ids=str)
def test_samples_that_see_each_other_stay_together(monkeypatch, options):
    """Also where they change little, and where no output but the class chosen tells of it."""
    model, feeds = mixing(**options)
    explainer = onnx_lrp.load(model, precision="float64", verify="never")
    graph, last = by(monkeypatch, Way.PARTS, explainer, feeds)
    np.testing.assert_array_equal(graph.relevance["x"], last.relevance["x"])
    assert [*explainer._program.habits._ways.values()] == [Way.GRAPH]
    np.testing.assert_array_equal(graph.relevance["x"], explainer.explain(feeds).relevance["x"])


@pytest.mark.parametrize("options", [{}, {"share": 1e-3}, {"op": "ReduceMax"}], ids=str)
def test_samples_that_see_each_other_are_no_micro_batches(monkeypatch, options):
    """Parts would have another mean: the whole is run, or refused where it may not be."""
    model, _ = mixing(**options)
    x = np.random.default_rng(6).normal(size=(40, 3)).astype(np.float32)
    want = onnx_lrp.explain(model, x, precision="float64")
    with pytest.raises(onnx_lrp.InputError, match="see each other"):
        onnx_lrp.explain(model, x, max_bytes=400, precision="float64")
    for name in ("BUDGET", "SMALL"):
        monkeypatch.setattr(f"onnx_lrp.batches.{name}", 400)
    same(want, onnx_lrp.explain(model, x, precision="float64"))
    run = Runs.run

    def little(self, feeds, *arguments, **options):
        if len(feeds["x"]) > 30:
            raise MemoryError
        return run(self, feeds, *arguments, **options)

    monkeypatch.setattr(Runs, "run", little)
    with pytest.raises(onnx_lrp.InputError, match=r"see each other.* not enough memory"):
        onnx_lrp.explain(model, x)


def test_equal_samples_prove_nothing(monkeypatch):
    """The mean of equal samples is that of every part: a first call with zeros says nothing of the next."""
    model, feeds = mixing()
    want = onnx_lrp.explain(model, feeds, precision="float64")
    explainer = onnx_lrp.load(model, precision="float64")
    by(monkeypatch, Way.PARTS, explainer, {"x": np.zeros((6, 3), np.float32)})
    same(want, explainer.explain(feeds))


def cut_to_longest():
    """Y (T, 1, B, H) of sequences with lengths, cut to the longest of them as PyTorch's ``pad_packed_sequence`` does."""
    b = Builder(np.random.default_rng(0), 17)
    x = b.input("x", b.numbers(6, 5, 3), ["T", "B", 3])
    lens = b.input("lens", np.array([6, 5, 4, 3, 2], np.int32), ["B"])
    y, _ = b.ops("LSTM", x, b.weight(1, 16, 3), b.weight(1, 16, 4), b.weight(1, 32), lens, outputs=2, hidden_size=4)
    longest = b.op("Cast", b.over("ReduceMax", lens, 0, keepdims=1), to=7)
    rows = b.op("Squeeze", b.op("Slice", y, b.ints(0), longest, b.ints(0)), b.ints(1))
    return b.case(b.op("MatMul", rows, b.weight(4, 2)))


@pytest.mark.parametrize("way", COMPILED)
def test_sizes_that_depend_on_values_stay_with_the_graph(monkeypatch, way):
    """XLA would compile one program for every value, and parts would come out in different sizes."""
    model, feeds = cut_to_longest()
    explainer = onnx_lrp.load(model, precision="float64", verify="never")
    same(*by(monkeypatch, way, explainer, feeds))
    assert not explainer._program._static


def by_computed_index(kind):
    """x (T, B, I) → LSTM → two classes, with an index that is computed; and feeds in which it does not exist."""
    b = Builder(np.random.default_rng(0), 17)
    weights = [b.weight(1, 16, 3), b.weight(1, 16, 4), b.weight(1, 32)]
    if kind == "Gather":
        ids = b.input("ids", np.arange(30).reshape(6, 5) % 9, ["T", "B"])
        x = b.op("Gather", b.weight(10, 3), b.op("Add", ids, b.const(np.array(1, np.int64))))
    else:
        x = b.input("x", b.numbers(6, 5, 3), ["T", "B", 3])
        dtype = np.int32 if kind == "LSTM" else np.int64
        lens = b.input("lens", np.array([6, 5, 4, 3, 2], dtype), ["B"])
    if kind == "ReverseSequence":
        x = b.op(kind, x, lens, time_axis=0, batch_axis=1)
    options = {"hidden_size": 4, "direction": "reverse" if kind == "LSTM" else "forward"}
    y, last = b.ops("LSTM", x, *weights, *([lens] if kind == "LSTM" else []), outputs=2, **options)
    rows = b.op("Squeeze", last, b.ints(0))
    if kind in ("GatherElements", "GatherND"):
        steps = b.op("Sub", lens, b.const(np.array(1, np.int64)))
        y = b.op("Transpose", b.op("Squeeze", y, b.ints(1)), perm=[1, 0, 2])
        if kind == "GatherND":
            rows = b.op(kind, y, b.op("Unsqueeze", steps, b.ints(1)), batch_dims=1)
        else:
            at = b.op("Expand", b.op("Unsqueeze", steps, b.ints(1, 2)), b.ints(1, 1, 4))
            rows = b.op("Squeeze", b.op(kind, y, at, axis=1), b.ints(1))
    model, feeds = b.case(b.op("MatMul", rows, b.weight(4, 2)))
    return model, feeds, {"ids": np.full((6, 5), 9)} if kind == "Gather" else {**feeds, "lens": np.array([6, 5, 4, 3, 9])}


@pytest.mark.parametrize("way", COMPILED)
@pytest.mark.parametrize("kind", ["Gather", "GatherElements", "GatherND", "LSTM", "ReverseSequence"])
def test_an_index_that_does_not_exist_is_refused_in_every_way(monkeypatch, way, kind):
    """XLA reads the nearest entry instead; and what is wrong with the inputs does not end compiling for the next ones."""
    model, feeds, wrong = by_computed_index(kind)
    explainer = onnx_lrp.load(model, precision="float64", verify="never")
    graph, compiled = by(monkeypatch, way, explainer, feeds)
    same(graph, compiled)
    with pytest.raises(onnx_lrp.InputError):
        explainer.explain(wrong)
    assert explainer._program._static
    same(graph, explainer.explain(feeds))


def measured(features, hidden, time, samples, *, directions=2, cores=2):
    """The way of a network of the benchmarks."""
    b = Builder(np.random.default_rng(0), 17)
    x = b.input("x", np.zeros((time, samples, features), np.float32), ["T", "B", features])
    weights = [b.weight(directions, 4 * hidden, features), b.weight(directions, 4 * hidden, hidden)]
    direction = "bidirectional" if directions == 2 else "forward"
    _, last = b.ops("LSTM", x, *weights, outputs=2, hidden_size=hidden, direction=direction)
    features_ = b.op("Reshape", b.op("Transpose", last, perm=[1, 0, 2]), b.ints(0, -1))
    model, feeds = b.case(b.op("MatMul", features_, b.weight(directions * hidden, 2)))
    return ways.choose(onnx_lrp.load(model, verify="never")._plan, feeds, cores)


@pytest.mark.parametrize(
    ("shape", "way"),
    [
        ((60, 60, 20, 64), Way.PARTS),
        ((128, 256, 100, 1), Way.DIRECTIONS),
        ((128, 256, 100, 8), Way.DIRECTIONS),
        ((200, 300, 25, 10), Way.PARTS),
        ((200, 300, 25, 100), Way.PARTS),
        ((128, 256, 100, 64), Way.PARTS),
        ((256, 400, 50, 32), Way.DIRECTIONS),  # weights too many for every core to read all of them
        ((60, 60, 20, 1), Way.WHOLE),  # too brief to be shared
        ((128, 256, 100, 1000), Way.GRAPH),
        ((128, 256, 100, 400), Way.GRAPH),
    ],
)
def test_what_is_fastest_is_chosen(shape, way):
    """As measured; docs/performance.md has the figures."""
    assert measured(*shape) is way


def test_one_core_shares_nothing():
    assert measured(60, 60, 20, 64, cores=1) is Way.WHOLE
    assert measured(128, 256, 100, 8, cores=1) is Way.GRAPH


def test_one_direction_is_not_taken_apart():
    assert measured(128, 256, 100, 1, directions=1) is Way.WHOLE
    assert measured(128, 256, 100, 8, directions=1) is Way.GRAPH
    assert measured(128, 256, 100, 32, directions=1) is Way.PARTS


def test_networks_without_a_loop_stay_with_the_graph():
    b = Builder(np.random.default_rng(0), 17)
    x = b.input("x", b.numbers(64, 3), ["B", 3])
    model, feeds = b.case(b.op("MatMul", x, b.weight(3, 2)))
    assert ways.choose(onnx_lrp.load(model, verify="never")._plan, feeds, 2) is Way.GRAPH


def test_parts_cover_the_samples():
    for batch in range(1, 40):
        for cores in (1, 2, 3, 16):
            parts = ways.shares(batch, cores)
            assert [k for rows in parts for k in rows] == list(range(batch))
            assert 1 <= len(parts) <= max(1, min(cores, ways.MOST, batch // ways.FEWEST))
            assert len({len(rows) for rows in parts}) <= 2


def test_a_batch_that_the_file_fixes_is_not_parted(monkeypatch):
    monkeypatch.setattr(ways, "BRIEF", 0)
    b = Builder(np.random.default_rng(0), 17)
    x = b.input("x", b.numbers(4, 12, 3), ["T", 12, 3])
    _, last = b.ops("LSTM", x, b.weight(1, 16, 3), b.weight(1, 16, 4), outputs=2, hidden_size=4)
    model, feeds = b.case(b.op("MatMul", b.op("Reshape", last, b.ints(12, 4)), b.weight(4, 2)))
    assert ways.choose(onnx_lrp.load(model, verify="never")._plan, feeds, 2) is Way.WHOLE


@pytest.mark.parametrize("options", [{}, {"max_bytes": 1500, "jit": "eager"}], ids=["side by side", "micro-batches"])
def test_what_shares_its_axis_with_the_samples_is_joined_along_them(monkeypatch, options):
    """All steps of all samples one below the other, (T · B, 4): those of a part are not one below the other there."""
    model, dense = by_steps()
    x = np.random.default_rng(5).normal(size=(4, 12, 3)).astype(np.float32)
    whole = onnx_lrp.explain(model, x, precision="float64", jit="eager", keep=dense)
    _, parts = by(monkeypatch, Way.PARTS, onnx_lrp.load(model, precision="float64", **options), x, keep=dense)
    same(whole, parts)
