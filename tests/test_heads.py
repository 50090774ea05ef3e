"""How models end: labels and probabilities behind the scores, and two classes on one score."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto
from onnxruntime import InferenceSession

import onnx_lrp
from onnx_lrp import testing
from onnx_lrp.testing.build import Builder
from onnx_lrp.testing.features import CLASSICAL

EAGER = {"jit": "eager", "verify": "never", "precision": "float64"}
POSTS = ("NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO")


def classifier(post, rows, *, labels="ints", zipped=False, normalized=False, classes=None):
    """(model, feeds, x, w, b) of one LinearClassifier as skl2onnx writes it."""
    b = Builder(np.random.default_rng(rows), 17)
    w, c = b.numbers(rows, 4), b.numbers(rows)
    x = b.rows(5, 4)
    names = [f"class {k}" for k in range(classes or max(rows, 2))]
    named = {"classlabels_strings": names} if labels == "strings" else {"classlabels_ints": list(range(3, 3 + len(names)))}
    numbers = {"coefficients": w.ravel().tolist(), "intercepts": c.tolist(), "post_transform": post}
    label, scores = b.ops("LinearClassifier", x, outputs=2, **numbers, **named, **CLASSICAL)
    if normalized:
        scores = b.op("Normalizer", scores, norm="L1", **CLASSICAL)
    if zipped:
        key = "classlabels_strings" if labels == "strings" else "classlabels_int64s"
        scores = b.op("ZipMap", scores, **{key: next(iter(named.values()))}, **CLASSICAL)
    model, feeds = b.case(label, scores)
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.STRING if labels == "strings" else TensorProto.INT64
    if zipped:
        model.graph.output[1].ClearField("type")
    return model, feeds, feeds["x"].astype(np.float64), w.astype(np.float64), c.astype(np.float64)


@pytest.mark.parametrize("post", POSTS)
@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("ending", ["plain", "normalized", "zipped", "strings"])
def test_linear_classifiers_are_explained_at_their_scores(post, rows, ending):
    options = {"labels": "strings"} if ending == "strings" else {ending: True} if ending != "plain" else {}
    if ending == "normalized" and (post == "NONE" or rows == 1):
        options = {}
    model, feeds, x, w, c = classifier(post, rows, **options)
    explanation = onnx_lrp.load(model, epsilon=0.0, **EAGER).explain(feeds)
    z = x @ w.T + c
    scores = np.concatenate([-z, z], 1) if rows == 1 else z
    chosen = scores.argmax(1)
    np.testing.assert_array_equal(explanation.target, chosen)
    np.testing.assert_allclose(explanation.seed, scores.max(1), rtol=1e-6)
    signs = np.where(chosen == 0, -1, 1)[:, None] if rows == 1 else 1
    weights = signs * w if rows == 1 else w[chosen]
    np.testing.assert_allclose(explanation.relevance["x"], x * weights, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("post", POSTS)
@pytest.mark.parametrize("rows", [1, 2, 3])
@pytest.mark.parametrize("labels", ["ints", "strings"])
def test_labels_and_scores_are_the_models_own(post, rows, labels):
    model, feeds, *_ = classifier(post, rows, labels=labels)
    names = [o.name for o in model.graph.output]
    want = dict(zip(names, InferenceSession(model.SerializeToString()).run(None, feeds), strict=True))
    got = onnx_lrp.load(model, jit="eager", verify="always").predict(feeds)
    assert got[names[0]].tolist() == want[names[0]].tolist()
    np.testing.assert_allclose(got[names[1]], want[names[1]], rtol=1e-4, atol=1e-6)


def test_the_label_alone_is_explained_at_the_scores():
    model, feeds, *_ = classifier("SOFTMAX", 3, labels="strings")
    label, scores = (o.name for o in model.graph.output)
    by_label, by_score = (onnx_lrp.load(model, output=o, **EAGER).explain(feeds) for o in (label, scores))
    np.testing.assert_array_equal(by_label.relevance["x"], by_score.relevance["x"])


def test_probabilities_can_be_explained_instead():
    model, feeds, *_ = classifier("SOFTMAX", 3, normalized=True)
    explainer = onnx_lrp.load(model, from_probabilities=True, **EAGER)
    explanation = explainer.explain(feeds)
    np.testing.assert_allclose(explanation.seed, explanation.outputs[model.graph.output[1].name].max(1), rtol=1e-6)


def test_zipped_probabilities_stay_an_array():
    model, feeds, *_ = classifier("SOFTMAX", 3, zipped=True, normalized=True)
    name = model.graph.output[1].name
    want = InferenceSession(model.SerializeToString()).run([name], feeds)[0]
    got = onnx_lrp.load(model, jit="eager").predict(feeds)[name]
    np.testing.assert_allclose(got, [list(row.values()) for row in want], rtol=1e-5)


@given(testing.two_class_heads())
def test_two_classes_on_one_score(case):
    """Class k starts from its sign times z; its relevance is that of the other one with the sign turned."""
    (model, feeds), signs = case
    explainer = onnx_lrp.load(model, **EAGER)
    assert explainer._plan.signs == signs
    assert "start from" in explainer.summary().explained
    predicted = explainer.explain(feeds)
    (p,) = predicted.outputs.values()
    np.testing.assert_array_equal(predicted.target, p.argmax(1))
    z = np.log(p[:, 1]) - np.log(p[:, 0])  # of class 1, up to float32
    np.testing.assert_allclose(predicted.seed, np.abs(z), rtol=1e-3, atol=1e-5)
    zero, one = (explainer.explain(feeds, k) for k in (0, 1))
    np.testing.assert_array_equal(zero.relevance["x"], -one.relevance["x"])
    np.testing.assert_array_equal(zero.seed, -one.seed)
    each = explainer.explain(feeds, predicted.target)
    np.testing.assert_array_equal(each.relevance["x"], predicted.relevance["x"])
    with pytest.raises(onnx_lrp.InputError, match="0 to 1"):
        explainer.explain(feeds, 2)


@given(testing.two_class_heads(), st.sampled_from([0.0, 1.0]))
def test_two_classes_conserve(case, bias_factor):
    (model, feeds), _ = case
    testing.assert_conserves(model, feeds, bias_factor=bias_factor)
    testing.assert_conserves(model, feeds, target=0, precision="float64")
    testing.assert_batch_equivariant(model, feeds)
    testing.assert_matches_runtime(model, feeds)


def test_two_classes_at_every_step():
    """A tagger with a score at every position, (B, T): stacked to (B, T, 2)."""
    b = Builder(np.random.default_rng(0), 17)
    z = b.op("Squeeze", b.op("MatMul", b.series(3, 2, 4), b.weight(4, 1)), b.ints(2))
    p = b.op("Unsqueeze", b.op("Sigmoid", z), b.ints(-1))
    model, feeds = b.case(b.op("Concat", b.op("Sub", b.const(np.float32(1)), p), p, axis=-1))
    explainer = onnx_lrp.load(model, **EAGER)
    assert explainer._plan.signs == (-1, 1)
    explanation = explainer.explain(feeds)
    (out,) = explanation.outputs.values()
    np.testing.assert_array_equal(explanation.target, out.argmax(-1))
    np.testing.assert_allclose(explainer.explain(feeds, 0).seed, -explainer.explain(feeds, 1).seed)


def test_a_complement_of_something_else_is_no_pair():
    b = Builder(np.random.default_rng(0), 17)
    x = b.rows(2, 3)
    p, other = b.op("Sigmoid", b.gemm(x, 3, 1)), b.op("Sigmoid", b.gemm(x, 3, 1))
    model, _ = b.case(b.op("Concat", b.op("Sub", b.const(np.float32(1)), other), p, axis=1))
    assert onnx_lrp.load(model)._plan.signs is None


def test_a_quantized_softmax_is_stepped_over():
    b = Builder(np.random.default_rng(0), 17)
    z = b.gemm(b.rows(2, 3), 3, 4)
    scale, zero = b.const(np.float32(1 / 256)), b.const(0, np.uint8)
    y = b.op("DequantizeLinear", b.op("QuantizeLinear", b.op("Softmax", z), scale, zero), scale, zero)
    assert onnx_lrp.load(b.case(y)[0])._plan.explained == z


def test_missing_entries_may_be_fed_where_something_replaces_them():
    model, feeds = next(case for seed in range(99) for case in [imputed(seed)] if np.isnan(case[1]["x"]).any())
    explanation = onnx_lrp.load(model, jit="eager").explain(feeds)
    gone = np.isnan(feeds["x"])
    assert np.isfinite(explanation.relevance["x"]).all()
    assert not explanation.relevance["x"][gone].any()
    b = Builder(np.random.default_rng(0), 17)
    plain, _ = b.case(b.gemm(b.rows(*gone.shape), gone.shape[1], 2))
    with pytest.raises(onnx_lrp.InputError, match="finite"):
        onnx_lrp.load(plain).explain(feeds)


def imputed(seed):
    b = Builder(np.random.default_rng(seed), 17)
    array = np.where(b.rng.random((3, 4)) < 0.3, np.float32(np.nan), b.numbers(3, 4))
    x = b.input("x", array, ["batch", 4])
    z = b.op("Imputer", x, imputed_value_floats=[0.5], replaced_value_float=float("nan"), **CLASSICAL)
    return b.case(b.gemm(z, 4, 2))


def test_strings_end_at_the_tensor_made_of_them():
    """A one-hot row of a category: computed by onnxruntime, explained from there on."""
    b = Builder(np.random.default_rng(0), 17)
    words = np.array([["a"], ["c"], ["b"]], object)
    x = b.input("x", words, ["batch", 1])
    y = b.op("Reshape", b.op("OneHotEncoder", x, cats_strings=["a", "b", "c"], **CLASSICAL), b.ints(-1, 3))
    model, feeds = b.case(b.gemm(y, 3, 2))
    explanation = onnx_lrp.load(model, jit="eager").explain(feeds)
    (relevance,) = explanation.relevance.values()
    assert relevance.reshape(3, 3).astype(bool).sum() == 3
    again = onnx_lrp.load(model, jit="eager").explain({"x": words.astype(str)})
    np.testing.assert_array_equal(next(iter(again.relevance.values())), relevance)


@pytest.mark.parametrize("spelling", ["reciprocal", "divided", "times -1", "opposite"])
def test_a_written_out_sigmoid_is_one(spelling):
    b = Builder(np.random.default_rng(0), 17)
    z = b.gemm(b.rows(3, 4), 4, 3)
    one = b.const(np.float32(1))
    minus = z if spelling == "opposite" else b.op("Mul", z, b.const(np.float32(-1))) if spelling == "times -1" else b.op("Neg", z)
    total = b.op("Add", b.op("Exp", minus), one)
    p = b.op("Reciprocal", total) if spelling == "reciprocal" else b.op("Div", one, total)
    plain = b.op("Sigmoid", b.op("Neg", z) if spelling == "opposite" else z)
    model, feeds = b.case(p, plain)
    testing.assert_matches_runtime(model, feeds)
    first, second = (onnx_lrp.load(model, output=o, from_probabilities=True, **EAGER).explain(feeds) for o in (p, plain))
    np.testing.assert_allclose(first.relevance["x"], second.relevance["x"], rtol=1e-9)


@pytest.mark.parametrize("ending", ["L1", "divided", "never zero"])
def test_normalized_sigmoids_are_explained_at_their_scores(ending):
    """One class against the rest: each has its own score, and the probabilities are made to add up to 1."""
    b = Builder(np.random.default_rng(0), 17)
    z = b.gemm(b.rows(3, 4), 4, 3)
    p = b.op("Sigmoid", z)
    if ending == "L1":
        y = b.op("Normalizer", p, norm="L1", **CLASSICAL)
    else:
        total = b.over("ReduceSum", p, 1, keepdims=1)
        if ending == "never zero":
            gone = b.op("Cast", b.op("Not", b.op("Cast", total, to=TensorProto.BOOL)), to=TensorProto.FLOAT)
            p, total = b.op("Add", p, gone), b.op("Add", total, b.op("Mul", gone, b.const(np.float32(3))))
        y = b.op("Div", p, total)
    model, feeds = b.case(y)
    assert onnx_lrp.load(model)._plan.explained == z
    testing.assert_matches_runtime(model, feeds)


def test_a_normalized_embedding_is_explained_itself():
    b = Builder(np.random.default_rng(0), 17)
    z = b.gemm(b.rows(3, 4), 4, 3)
    y = b.op("Div", z, b.op("ReduceL2", z, axes=[1], keepdims=1))
    assert onnx_lrp.load(b.case(y)[0])._plan.explained == y
