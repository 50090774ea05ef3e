"""Targets beyond a class: each is a seed made by hand, whose relevance is linear in it; the books close for all."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

import onnx_lrp
from onnx_lrp import targets, testing
from onnx_lrp.testing.build import Builder

EAGER = {"jit": "eager", "verify": "never", "precision": "float64"}
CLASSES, LENGTHS = 4, (5, 2, 3)


def tagger(*, time_first=False, lengths=True, probabilities=False, single=False):
    """A bidirectional LSTM with a score for each class at every step, (B, T, C) or (T, B, C)."""
    b = Builder(np.random.default_rng(0), 17)
    time, batch, width, size = 5, 3, 3, 4
    inputs = [b.input("x", b.numbers(time, batch, width), ["T", "B", width])]
    inputs += [b.weight(2, 4 * size, width), b.weight(2, 4 * size, size), b.weight(2, 8 * size)]
    if lengths:
        inputs.append(b.input("lens", np.asarray(LENGTHS, np.int32), ["B"]))
    b.nodes.append(helper.make_node("LSTM", inputs, ["Y"], name="lstm", hidden_size=size, direction="bidirectional"))
    rows = b.op("Transpose", "Y", perm=[0, 2, 1, 3] if time_first else [2, 0, 1, 3])
    y = b.op("Reshape", rows, b.ints(0, 0, -1))
    classes = 1 if single else CLASSES
    z = b.op("Add", b.op("MatMul", y, b.weight(2 * size, classes)), b.weight(classes))
    if single:
        z = b.op("Squeeze", z, b.ints(2))
    return b.case(b.op("Softmax", z, axis=-1) if probabilities else z)


def dense():
    b = Builder(np.random.default_rng(1), 17)
    return b.case(b.gemm(b.op("Tanh", b.gemm(b.rows(3, 5), 5, 6)), 6, CLASSES))


def two_outputs(batch="batch"):
    """Four classes, and one number beside them."""
    b = Builder(np.random.default_rng(2), 17)
    x = b.input("x", b.numbers(3, 5), [batch, 5])
    h = b.op("Tanh", b.gemm(x, 5, 6))
    return b.case(b.gemm(h, 6, CLASSES), b.op("Squeeze", b.gemm(h, 6, 1), b.ints(1)))


def scores_of(explainer, feeds):
    (scores,) = (a for n, a in explainer.predict(feeds).items() if n == explainer._plan.output)
    return scores.astype(np.float64)


def by_hand(explainer, feeds, seed):
    """The explanation from a seed tensor made here."""
    return explainer.explain(feeds, targets.seed(seed))


def assert_same(one, other, tolerance=1e-6):
    """Outputs are given in float32, so a seed made of them by hand differs by its rounding."""
    for point, want in other.relevance.items():
        np.testing.assert_allclose(one.relevance[point], want, rtol=0, atol=tolerance * max(np.abs(want).max(), 1e-3))
    np.testing.assert_allclose(one.seed, other.seed, rtol=0, atol=tolerance * max(np.abs(other.seed).max(), 1e-3))


def assert_closed(explanation):
    moved = np.abs(explanation.seed) + sum(np.abs(a) for a in explanation.absorbed.values())
    moved = moved + sum(np.abs(r).sum() for r in explanation.relevance.values())
    assert np.all(np.abs(explanation.residual) <= 1e-10 * moved)


@pytest.mark.parametrize("model", [dense, tagger], ids=["vector", "tagger"])
@pytest.mark.parametrize(("a", "b"), [(0, 1), (3, 0), ([0, 1, 2], 3), ([1, 1, 0], [0, 2, 2])])
def test_a_contrast_is_the_difference_of_two_classes(model, a, b):
    model, feeds = model()
    explainer = onnx_lrp.load(model, **EAGER)
    found = explainer.explain(feeds, targets.contrast(a, b))
    first, second = (explainer.explain(feeds, k) for k in (a, b))
    for point, relevance in found.relevance.items():
        np.testing.assert_allclose(relevance, first.relevance[point] - second.relevance[point], rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.seed, first.seed - second.seed, atol=1e-12)
    for kind, amount in found.absorbed.items():
        np.testing.assert_allclose(amount, first.absorbed[kind] - second.absorbed[kind], rtol=0, atol=1e-12)
    assert found.target == targets.contrast(a, b)
    assert_closed(found)


@pytest.mark.parametrize("probabilities", [False, True], ids=["scores", "softmax"])
@pytest.mark.parametrize("time_first", [False, True], ids=["BTC", "TBC"])
@pytest.mark.parametrize("lengths", [False, True], ids=["full", "padded"])
@pytest.mark.parametrize("index", [None, 2, [3, 0, 1]])
@pytest.mark.parametrize("t", [0, 2, 4, -1, -2, -5])
def test_a_step_is_its_seed(t, index, lengths, time_first, probabilities):
    model, feeds = tagger(time_first=time_first, lengths=lengths, probabilities=probabilities)
    explainer = onnx_lrp.load(model, **EAGER)
    plain = onnx_lrp.load(tagger(time_first=time_first, lengths=lengths)[0], **EAGER)
    scores = scores_of(plain, feeds)
    if time_first:
        scores = scores.swapaxes(0, 1)
    seed, classes = np.zeros_like(scores), []
    for k, length in enumerate(LENGTHS if lengths else (5, 5, 5)):
        at = t if t >= 0 else length + t
        if not 0 <= at < length:
            classes.append(-1)  # padding: nothing to explain
            continue
        chosen = scores[k, at].argmax() if index is None else np.broadcast_to(index, 3)[k]
        seed[k, at, chosen] = scores[k, at, chosen]
        classes.append(chosen)
    found = explainer.explain(feeds, targets.step(t, index))
    assert_same(found, by_hand(explainer, feeds, seed.swapaxes(0, 1) if time_first else seed))
    assert found.target.tolist() == classes
    assert found.settings["target"].startswith(f"step {t}")
    for k, chosen in enumerate(classes):
        if chosen < 0:
            assert found.seed[k] == 0
            assert not np.any(found.relevance["x"][:, k])
    assert_closed(found)


def test_several_steps_add_up():
    model, feeds = tagger()
    explainer = onnx_lrp.load(model, **EAGER)
    both = explainer.explain(feeds, targets.step([0, -1]))
    first, last = (explainer.explain(feeds, targets.step(t)) for t in (0, -1))
    np.testing.assert_allclose(both.relevance["x"], first.relevance["x"] + last.relevance["x"], atol=1e-12)
    assert both.target == targets.step([0, -1])
    every = explainer.explain(feeds, targets.step(range(5)))
    np.testing.assert_allclose(every.relevance["x"], explainer.explain(feeds).relevance["x"], atol=1e-12)


def test_steps_of_one_score_each():
    """A score at every step and no axis of classes, (B, T): the value with its sign."""
    model, feeds = tagger(single=True)
    explainer = onnx_lrp.load(model, **EAGER)
    found = explainer.explain(feeds, targets.step(-1))
    scores = scores_of(explainer, feeds)
    assert scores.shape == (3, 5)
    np.testing.assert_allclose(found.seed, [scores[k, length - 1] for k, length in enumerate(LENGTHS)], rtol=1e-6)
    assert found.target.tolist() == [0, 0, 0]
    assert_closed(found)


@given(
    data=st.data(),
    case=st.sampled_from(["gemm", "lstm", "two classes", "conv", "loop", "matmul"]),
    bias=st.sampled_from([0.0, 1.0]),
)
def test_all_classes_are_each_class(data, case, bias):
    families = {"gemm": testing.dense, "lstm": testing.lstms, "conv": testing.convolutions, "loop": testing.loops}
    families |= {"matmul": testing.matmuls, "two classes": lambda: testing.two_class_heads().map(lambda drawn: drawn[0])}
    model, feeds = data.draw(families[case]())
    explainer = onnx_lrp.load(model, bias_factor=bias, **EAGER)
    every = explainer.explain(feeds, targets.all_classes())
    count = len(every.seed)
    assert every.target.tolist() == list(range(count))
    assert every.seed.shape == every.residual.shape
    for k in range(count):
        one, alone = every.select(k), explainer.explain(feeds, k)
        for point, want in alone.relevance.items():
            assert one.relevance[point].shape == want.shape
            np.testing.assert_allclose(one.relevance[point], want, rtol=0, atol=1e-9 * max(np.abs(want).max(), 1e-3))
        np.testing.assert_allclose(one.seed, alone.seed, rtol=1e-12)
        for kind, amount in alone.absorbed.items():
            np.testing.assert_allclose(one.absorbed[kind], amount, rtol=0, atol=1e-9 * max(np.abs(alone.seed).max(), 1e-3))
        assert one.ledger.keys() == alone.ledger.keys()
        assert_closed(one)
    with pytest.raises(onnx_lrp.InputError, match=f"0 to {count - 1}"):
        explainer.explain(feeds, count)


@pytest.mark.parametrize("model", [dense, tagger], ids=["vector", "tagger"])
def test_top_classes_are_the_highest(model):
    model, feeds = model()
    explainer = onnx_lrp.load(model, **EAGER)
    found = explainer.explain(feeds, targets.top_k(3))
    scores = scores_of(explainer, feeds)
    order = np.moveaxis(np.argsort(-scores, axis=-1, kind="stable"), -1, 0)[:3]
    np.testing.assert_array_equal(found.target, order)
    for k in range(3):
        one = explainer.explain(feeds, order[k])
        np.testing.assert_allclose(found.select(k).relevance["x"], one.relevance["x"], atol=1e-12)
        np.testing.assert_array_equal(found.select(k).target, one.target)
    predicted = explainer.explain(feeds)
    np.testing.assert_allclose(found.select(0).relevance["x"], predicted.relevance["x"], atol=1e-12)
    assert_closed(found.select(2))


def test_the_lowest_are_the_highest_where_the_model_chooses_them():
    b = Builder(np.random.default_rng(1), 17)
    z = b.gemm(b.rows(3, 5), 5, CLASSES)
    model, feeds = b.case(b.op("ArgMin", z, axis=1), z)
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    explainer = onnx_lrp.load(model, output=model.graph.output[0].name, **EAGER)
    found = explainer.explain(feeds, targets.top_k(2))
    np.testing.assert_array_equal(found.target[0], explainer.explain(feeds).target)
    np.testing.assert_array_equal(found.target, explainer.predict(feeds)[z].argsort(1).T[:2])


@given(testing.two_class_heads())
def test_two_classes_on_one_score(case):
    (model, feeds), _ = case
    explainer = onnx_lrp.load(model, **EAGER)
    zero, one, predicted = (explainer.explain(feeds, k) for k in (0, 1, None))
    contrast = explainer.explain(feeds, targets.contrast(1, 0))
    np.testing.assert_allclose(contrast.relevance["x"], 2 * one.relevance["x"], atol=1e-12)
    every, top = explainer.explain(feeds, targets.all_classes()), explainer.explain(feeds, targets.top_k(2))
    np.testing.assert_allclose(every.relevance["x"], np.stack([zero.relevance["x"], one.relevance["x"]]), atol=1e-12)
    np.testing.assert_array_equal(top.target, np.stack([predicted.target, 1 - predicted.target]))
    with pytest.raises(onnx_lrp.InputError):
        explainer.explain(feeds, targets.contrast(2, 0))


def test_any_seed():
    model, feeds = tagger()
    explainer = onnx_lrp.load(model, **EAGER)
    scores = scores_of(explainer, feeds)
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=scores.shape), rng.normal(size=scores.shape)
    one, two, both = (by_hand(explainer, feeds, s) for s in (a, b, 2 * a - b))
    np.testing.assert_allclose(both.relevance["x"], 2 * one.relevance["x"] - two.relevance["x"], atol=1e-10)
    made = explainer.explain(feeds, targets.seed(lambda s: s - s.mean(-1, keepdims=True)))
    assert_same(made, by_hand(explainer, feeds, scores - scores.mean(-1, keepdims=True)))
    assert isinstance(made.target.value, np.ndarray)
    assert_closed(both)
    for k, length in enumerate(LENGTHS):  # padded positions seed zero, whatever was given
        np.testing.assert_allclose(one.seed[k], a[k, :length].sum())


def test_another_output():
    model, feeds = two_outputs()
    classes, number = (o.name for o in model.graph.output)
    explainer = onnx_lrp.load(model, **EAGER)
    found = explainer.explain(feeds, targets.output(number))
    alone = onnx_lrp.load(model, output=number, **EAGER).explain(feeds)
    np.testing.assert_array_equal(found.relevance["x"], alone.relevance["x"])
    np.testing.assert_allclose(found.seed, found.outputs[number], rtol=1e-6)  # a regression: the value with its sign
    assert found.explained == number
    assert explainer._at_output(number) is explainer._at_output(number)
    back = explainer.explain(feeds, targets.output(classes, targets.contrast(0, 1)))
    np.testing.assert_array_equal(back.relevance["x"], explainer.explain(feeds, targets.contrast(0, 1)).relevance["x"])
    with pytest.raises(onnx_lrp.InputError, match=number):
        explainer.explain(feeds, targets.output("nowhere"))
    with pytest.raises(onnx_lrp.InputError):
        explainer.explain(feeds, targets.output(number, 1))
    assert explainer.explain(feeds, targets.output(number, targets.all_classes())).seed.shape == (1, 3)


@pytest.mark.parametrize(
    "spec", [targets.contrast([0, 1, 2], 3), targets.all_classes(), targets.top_k(2), targets.seed(lambda s: s * s)]
)
def test_a_model_for_one_sample_takes_them_too(spec):
    (many, feeds), (single, _) = two_outputs(), two_outputs(batch=1)
    want, got = (onnx_lrp.load(m, **EAGER).explain(feeds, spec) for m in (many, single))
    np.testing.assert_allclose(got.relevance["x"], want.relevance["x"], atol=1e-9)
    np.testing.assert_allclose(got.seed, want.seed, rtol=1e-9)
    np.testing.assert_allclose(got.residual, want.residual, atol=1e-12)
    if isinstance(want.target, np.ndarray):
        np.testing.assert_array_equal(got.target, want.target)


def test_a_tagger_for_one_sample_with_as_many_steps_as_samples():
    """Sizes don't tell the axes apart."""

    def model(batch):
        b = Builder(np.random.default_rng(3), 17)
        x = b.input("x", b.numbers(3, 3, 2), ["T", batch, 2])
        b.nodes.append(helper.make_node("GRU", [x, b.weight(1, 12, 2), b.weight(1, 12, 4)], ["Y"], name="gru", hidden_size=4))
        return b.case(b.op("MatMul", b.op("Squeeze", "Y", b.ints(1)), b.weight(4, 3)))

    (many, feeds), (single, _) = model("B"), model(1)
    rng = np.random.default_rng(0)
    for target in (rng.integers(0, 3, (3, 3)), targets.seed(rng.normal(size=(3, 3, 3))), [0, 2, 1], targets.step(-1, [2, 1, 0])):
        want, got = (onnx_lrp.load(m, **EAGER).explain(feeds, target, keep="gru") for m in (many, single))
        np.testing.assert_allclose(got.relevance["x"], want.relevance["x"], atol=1e-12)
        for name, array in want.hidden.items():
            np.testing.assert_allclose(got.hidden[name], array, atol=1e-12)


SPECS = [
    targets.step(-1),
    targets.step([0, -2], 1),
    targets.contrast([0, 1, 2], 3),
    targets.all_classes(),
    targets.top_k(2),
    targets.seed(np.ones((3, 5, CLASSES))),
]


@pytest.mark.parametrize("jit", ["graph", "xla"])
def test_every_jit_mode_agrees(jit):
    model, feeds = tagger()
    eager, other = onnx_lrp.load(model, **EAGER), onnx_lrp.load(model, **{**EAGER, "jit": jit})
    for spec in SPECS[:1] + SPECS[2:4] if jit == "xla" else SPECS:
        want, got = eager.explain(feeds, spec), other.explain(feeds, spec)
        np.testing.assert_allclose(got.relevance["x"], want.relevance["x"], atol=1e-12)
        np.testing.assert_allclose(got.residual, 0, atol=1e-12)


@pytest.mark.parametrize("suffix", [".npz", ".json"])
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_saved_and_read_back(spec, suffix, tmp_path):
    model, feeds = tagger()
    before = onnx_lrp.load(model, **EAGER).explain(feeds, spec)
    before.save(tmp_path / f"saved{suffix}")
    after = onnx_lrp.Explanation.load(tmp_path / f"saved{suffix}")
    np.testing.assert_array_equal(after.relevance["x"], before.relevance["x"])
    np.testing.assert_array_equal(after.seed, before.seed)
    np.testing.assert_array_equal(after.per_step("x"), before.per_step("x"))
    assert after.several == before.several
    if isinstance(before.target, targets.Spec):
        assert after.target == before.target
        assert str(after.target) == str(before.target) == after.settings["target"]
    else:
        np.testing.assert_array_equal(after.target, before.target)
    assert after.to_html()


@pytest.mark.parametrize("bias_factor", [0.0, 0.5])
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_conserves(spec, bias_factor):
    for time_first in (False, True):
        model, feeds = tagger(time_first=time_first)
        if time_first and isinstance(spec, targets.Seed):
            continue
        testing.assert_conserves(model, feeds, target=spec, bias_factor=bias_factor)
        testing.assert_conserves(model, feeds, target=spec, bias_factor=bias_factor, precision="float64")


def test_per_step_of_several_classes():
    model, feeds = tagger()
    found = onnx_lrp.load(model, **EAGER).explain(feeds, targets.all_classes())
    assert found.per_step("x").shape == (CLASSES, 3, 5)
    np.testing.assert_array_equal(found.per_step("x")[1], found.select(1).per_step("x"))
    assert f"{CLASSES} classes" in repr(found)
    with pytest.raises(onnx_lrp.InputError, match="0 to 3"):
        found.select(CLASSES)
    with pytest.raises(onnx_lrp.InputError, match="one class"):
        found.select(0).select(0)


BAD = {
    "step too late": (tagger, lambda: targets.step(5), ["step 5", "5 steps"]),
    "step too early": (tagger, lambda: targets.step([0, -6]), ["step -6", "5 steps"]),
    "class at a step": (tagger, lambda: targets.step(0, 4), ["target 4", "0 to 3"]),
    "no steps": (dense, lambda: targets.step(0), ["no axis of steps"]),
    "half a step": (tagger, lambda: targets.step(0.5), ["0.5"]),
    "contrast out of range": (dense, lambda: targets.contrast(0, 4), ["target 4", "0 to 3"]),
    "contrast negative": (dense, lambda: targets.contrast(-1, 0), ["target -1"]),
    "contrast of words": (dense, lambda: targets.contrast("a", "b"), ["'a'"]),
    "contrast of another batch": (dense, lambda: targets.contrast([0, 1], 2), ["2", "3 samples"]),
    "contrast of uneven lists": (dense, lambda: targets.contrast([[0], [1, 2]], 2), ["no array"]),
    "uneven lists": (dense, lambda: [[0], [1, 2]], ["not an array"]),
    "another number of steps": (tagger, lambda: np.zeros((1, 4), int), ["(1, 4)", "explained positions"]),
    "top too many": (dense, lambda: targets.top_k(5), ["top_k(5)", "4 class"]),
    "top none": (dense, lambda: targets.top_k(0), ["positive"]),
    "seed of another shape": (dense, lambda: targets.seed(np.ones((3, 5))), ["(3, 5)", "(3, 4)"]),
    "seed of another batch": (dense, lambda: targets.seed(np.ones((2, 4))), ["(2, 4)", "(3, 4)"]),
    "seed of a function": (dense, lambda: targets.seed(lambda s: s[0]), ["(4,)", "(3, 4)"]),
    "seed not finite": (dense, lambda: targets.seed([np.nan]), ["finite"]),
    "output in output": (dense, lambda: targets.output("y", targets.output("y")), ["another output"]),
}


@pytest.mark.parametrize("case", BAD)
def test_refused_by_name(case):
    model, make, parts = BAD[case]
    model, feeds = model()
    with pytest.raises(onnx_lrp.InputError) as caught:
        onnx_lrp.load(model, **EAGER).explain(feeds, make())
    for part in parts:
        assert part in str(caught.value)


def test_what_the_file_leaves_open_is_checked_after_the_run():
    b = Builder(np.random.default_rng(0), 17)
    b.input("k", np.asarray([2], np.int64), [1])
    z = b.slice(b.gemm(b.rows(3, 5), 5, CLASSES), [0], [3], [1])
    axis = b.op("Slice", z, b.ints(0), "k", b.ints(1))
    model, feeds = b.case(axis)
    explainer = onnx_lrp.load(model, **EAGER)
    for spec in (2, targets.contrast(0, 2), targets.top_k(3)):
        with pytest.raises(onnx_lrp.InputError, match=r"0 to 1|2 class"):
            explainer.explain(feeds, spec)
    assert explainer.explain(feeds, targets.all_classes()).seed.shape == (2, 3)


def test_public_functions_are_told_apart():
    assert targets.step(1) == targets.step([1])
    assert targets.step(1) != targets.step(1, 0)
    assert targets.contrast(0, 1) != targets.contrast(1, 0)
    assert targets.all_classes() != targets.top_k(1)
    assert str(targets.step(-1, 2)) == "step -1, class 2"
