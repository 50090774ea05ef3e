"""Other methods with the same call: gradients against finite differences, integrated gradients' order, occlusion by onnxruntime."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from hypothesis import event, given, settings
from onnx import numpy_helper
from test_laws import _sample, fixed_lstm

import onnx_lrp
from onnx_lrp import cli, methods, probe, targets, testing
from onnx_lrp.inputs import prepare_inputs
from onnx_lrp.report import terminal, view
from onnx_lrp.seeds import Target
from onnx_lrp.testing.build import Builder

OTHERS = [m for m in methods.METHODS if m != "lrp"]
ZOO = Path(__file__).resolve().parents[2] / "shared" / "zoo"


def load(model, **options):
    return onnx_lrp.load(model, **{"precision": "float64", "jit": "eager", "verify": "never", **options})


def explain(model, feeds, method="gradient", target=None, *, options=(), **load_options):
    return load(model, **load_options).explain(feeds, target, method=method, **dict(options))


def points(explainer, feeds):
    """{attribution point: value} in the program's precision."""
    plan, program = explainer._plan, explainer._program
    run = program.call("points", lambda tensors, _: {p: program.forward(tensors).env[p] for p in plan.points}, feeds, {})
    return {p: np.asarray(a, np.float64) for p, a in run.items()}


def dense(activation="Tanh", width=3):
    b = Builder(np.random.default_rng(1), 17)
    x = b.rows(4, width)
    h = b.op(activation, b.gemm(x, width, 5)) if activation else b.gemm(x, width, 5)
    return b.case(b.gemm(h, 5, 3))


def words():
    """Ids → embedding → LSTM → two classes."""
    b = Builder(np.random.default_rng(2), 17)
    ids = b.input("ids", np.array([[1, 2, 3, 0], [4, 4, 2, 1]]), ["batch", "time"])
    x = b.op("Transpose", b.op("Gather", b.weight(5, 3), ids), perm=[1, 0, 2])
    _, last = b.ops("LSTM", x, b.weight(1, 16, 3), b.weight(1, 16, 4), b.weight(1, 32), outputs=2, hidden_size=4)
    return b.case(b.gemm(b.op("Squeeze", last, b.ints(0)), 4, 2))


FIXED = {
    "dense": dense,
    "words": words,
    "lstm": fixed_lstm,
    "lstm lens": lambda: fixed_lstm(lengths=True),
    "gru": lambda: _sample(testing.grus()),
    "loop": lambda: _sample(testing.loops()),
    "conv": lambda: _sample(testing.convolutions()),
    "attention": lambda: _sample(testing.attentions()),
}
every_model = pytest.mark.parametrize("name", FIXED)
every_method = pytest.mark.parametrize("method", OTHERS)


def assert_gradient_is_slope(model, feeds, method="gradient"):
    """The derivative along a random direction at every attribution point is the difference quotient; False at a kink."""
    explainer = load(model)
    try:
        explanation = explainer.explain(feeds, method=method)
    except onnx_lrp.RuleError:
        event("no finite derivative")
        return False
    feeds = prepare_inputs(feeds, explainer._plan)
    at, rng = points(explainer, feeds), np.random.default_rng(0)
    way = {p: rng.normal(size=a.shape) for p, a in at.items()}

    def score(h):
        moved = {**feeds, **{p: a + h * way[p] for p, a in at.items()}}
        return explainer._program(moved, Target("index", explanation.target))["seed"].sum()

    wide, close = ((score(h) - score(-h)) / (2 * h) for h in (1e-4, 1e-5))
    slope = sum(float((explanation.relevance[p] * v).sum()) for p, v in way.items())
    sizes = sum(float(np.abs(explanation.relevance[p] * v).sum()) for p, v in way.items())
    scale = max(abs(close), sizes, 1e-3)
    forward, backward = (score(1e-5) - score(0)) / 1e-5, (score(0) - score(-1e-5)) / 1e-5
    if abs(wide - close) > 1e-5 * scale or abs(forward - backward) > 1e-2 * scale:
        event("near a kink")
        return False
    assert abs(slope - close) <= 1e-5 * scale, f"derivative {slope}, differences say {close}"
    return True


@every_model
def test_gradient_is_the_slope(name):
    assert assert_gradient_is_slope(*FIXED[name]())


@settings(max_examples=60)
@given(testing.models())
def test_gradient_is_the_slope_of_drawn_models(case):
    assert_gradient_is_slope(*case)


def test_a_wrong_gradient_is_noticed():
    with pytest.raises(AssertionError, match="differences say"):
        assert_gradient_is_slope(*dense(), method="gradient_x_input")


def test_gradient_of_an_lstm_written_in_tensorflow():
    import tensorflow as tf

    b = Builder(np.random.default_rng(5), 17)
    x = b.input("x", b.numbers(4, 2, 3), ["time", "batch", 3])
    names = [b.weight(1, 20, 3), b.weight(1, 20, 5), b.weight(1, 40)]
    _, last = b.ops("LSTM", x, *names, outputs=2, hidden_size=5)
    model, feeds = b.case(b.op("MatMul", b.op("Squeeze", last, b.ints(0)), b.weight(5, 3)))
    constants = {t.name: numpy_helper.to_array(t).astype(np.float64) for t in model.graph.initializer}
    w, r, bias = (constants[n][0] for n in names)
    head = next(a for a in constants.values() if a.shape == (5, 3))
    given = tf.constant(feeds["x"], tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(given)
        h = c = tf.zeros([2, 5], tf.float64)
        for t in range(4):
            z = given[t] @ w.T + h @ r.T + bias[:20] + bias[20:]
            i, o, f, g = (z[:, 5 * k : 5 * k + 5] for k in range(4))  # ONNX's order
            c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
            h = tf.sigmoid(o) * tf.tanh(c)
        score = tf.reduce_max(h @ head, 1)
    want = tape.gradient(score, given).numpy()
    explanation = explain(model, feeds, "gradient_x_input")
    np.testing.assert_allclose(explanation.seed, score.numpy(), rtol=1e-12)
    np.testing.assert_allclose(explanation.relevance["x"], want * feeds["x"], rtol=1e-9, atol=1e-14)
    np.testing.assert_allclose(explain(model, feeds, "sensitivity").relevance["x"], want**2, rtol=1e-9, atol=1e-14)


@every_model
@every_method
def test_a_method_explains_what_lrp_explains(name, method):
    model, feeds = FIXED[name]()
    explainer = load(model)
    lrp, other = explainer.explain(feeds), explainer.explain(feeds, method=method)
    np.testing.assert_allclose(other.seed, lrp.seed, rtol=1e-12)
    np.testing.assert_array_equal(other.target, lrp.target)
    assert (other.axes, other.origins, other.explained) == (lrp.axes, lrp.origins, lrp.explained)
    assert set(other.outputs) == set(lrp.outputs)
    for point, relevance in lrp.relevance.items():
        assert other.relevance[point].shape == relevance.shape
        assert other.relevance[point].dtype == relevance.dtype
    assert (dict(other.absorbed), dict(other.ledger)) == ({}, {})
    assert other.residual.shape == lrp.residual.shape
    assert np.all(np.isnan(other.residual) == (method != "integrated_gradients"))
    if method == "sensitivity":
        gradient = explainer.explain(feeds, method="gradient").relevance
        for point, relevance in other.relevance.items():
            np.testing.assert_array_equal(relevance, gradient[point] ** 2)


@every_model
@every_method
def test_every_sample_for_itself(name, method):
    model, feeds = FIXED[name]()
    explainer = load(model)
    axes = {n: explainer._plan.batch_axis(n) for n in feeds}
    whole = explainer.explain(feeds, method=method)
    for k in range(len(whole.seed)):
        part = {n: a if axes[n] is None else np.take(a, [k], axes[n]) for n, a in feeds.items()}
        alone = explainer.explain(part, method=method)
        for point, relevance in whole.relevance.items():
            axis = whole.axes[point][0]
            want = relevance if axis is None else np.take(relevance, [k], axis)
            np.testing.assert_allclose(alone.relevance[point], want, rtol=1e-9, atol=1e-12)


def test_other_classes_positions_and_signs():
    model, feeds = dense()
    scores = load(model).predict(feeds)
    name = next(iter(scores))
    for target in (1, [0, 2, 1, 1]):
        got = explain(model, feeds, "integrated_gradients", target)
        np.testing.assert_allclose(
            got.seed, np.take_along_axis(scores[name], np.reshape(target, (-1, 1)) + np.zeros((4, 1), int), 1)[:, 0]
        )
    b = Builder(np.random.default_rng(1), 17)
    p = b.op("Sigmoid", b.gemm(b.rows(4, 3), 3, 1))
    model, feeds = b.case(b.op("Concat", b.op("Sub", b.const(1.0, np.float32), p), p, axis=1))
    first, second = (explain(model, feeds, "gradient", k).relevance["x"] for k in (0, 1))
    np.testing.assert_array_equal(first, -second)


@every_method
def test_targets_beyond_a_class(method):
    model, feeds = dense()
    explainer = load(model)
    each = [explainer.explain(feeds, k, method=method) for k in range(3)]
    together = explainer.explain(feeds, targets.all_classes(), method=method)
    assert together.relevance["x"].shape == (3, 4, 3)
    for k, alone in enumerate(each):
        for part in (together.relevance["x"][k], together.select(k).relevance["x"]):
            np.testing.assert_array_equal(part, alone.relevance["x"])
        np.testing.assert_array_equal(together.seed[k], alone.seed)
        np.testing.assert_array_equal(together.residual[k], alone.residual)
    top = explainer.explain(feeds, targets.top_k(1), method=method)
    np.testing.assert_array_equal(top.relevance["x"][0], explainer.explain(feeds, method=method).relevance["x"])
    contrast = explainer.explain(feeds, targets.contrast(0, 2), method=method)
    np.testing.assert_allclose(contrast.seed, each[0].seed - each[2].seed, rtol=1e-12)
    if method != "sensitivity":
        np.testing.assert_allclose(contrast.relevance["x"], each[0].relevance["x"] - each[2].relevance["x"], atol=1e-12)
    with pytest.raises(onnx_lrp.RuleError, match="keep="):
        explainer.explain(feeds, method=method, keep="x")


@every_method
def test_one_time_step(method):
    b = Builder(np.random.default_rng(4), 17)
    x = b.input("x", b.numbers(5, 2, 3), ["time", "batch", 3])
    y = b.op("Squeeze", b.ops("RNN", x, b.weight(1, 4, 3), b.weight(1, 4, 4), outputs=1, hidden_size=4)[0], b.ints(1))
    model, feeds = b.case(b.op("MatMul", y, b.weight(4, 3)))
    explainer = load(model)
    lrp, other = (explainer.explain(feeds, targets.step(2), method=m) for m in ("lrp", method))
    np.testing.assert_array_equal(other.target, lrp.target)
    np.testing.assert_allclose(other.seed, lrp.seed, rtol=1e-12)
    assert not np.any(other.relevance["x"][3:])
    assert np.all(np.any(other.relevance["x"][:3], axis=(1, 2)))


def test_padded_steps_have_no_influence():
    model, feeds = fixed_lstm(lengths=True)
    feeds = {**feeds, "lens": np.minimum(feeds["lens"], 1)}
    for method in OTHERS:
        assert not np.any(explain(model, feeds, method).relevance["x"][1:]), method


# integrated gradients


def test_integrated_gradients_of_a_linear_model():
    model, feeds = dense(activation=None)
    got = explain(model, feeds, "integrated_gradients", options={"steps": 1})
    np.testing.assert_allclose(got.residual, 0, atol=1e-14)
    product = explain(model, feeds, "gradient_x_input").relevance["x"]
    np.testing.assert_allclose(got.relevance["x"], product, rtol=1e-12, atol=1e-14)


def test_integrated_gradients_are_exact_for_polynomials():
    """n points of the Gauss-Legendre rule integrate polynomials up to degree 2n − 1 exactly: here of degree 4."""
    b = Builder(np.random.default_rng(1), 17)
    z = b.op("MatMul", b.rows(3, 2), b.weight(2, 2))
    model, feeds = b.case(b.op("Pow", z, b.const(5.0, np.float32)))
    gap = {n: np.abs(explain(model, feeds, "integrated_gradients", options={"steps": n}).residual).max() for n in (2, 3, 4)}
    assert gap[2] > 1e-6
    assert max(gap[3], gap[4]) < 1e-13


@pytest.mark.parametrize("make", [lambda: fixed_lstm(plain=True), words], ids=["lstm", "words"])
def test_integrated_gradients_converge(make):
    model, feeds = make()
    explainer = load(model)
    gaps = [np.abs(explainer.explain(feeds, method="integrated_gradients", steps=n).residual).max() for n in (1, 4, 16)]
    assert gaps[1] < gaps[0] / 30
    assert gaps[2] < 1e-7


def test_integrated_gradients_converge_over_kinks():
    model, feeds = dense("Relu")
    explainer = load(model)
    gaps = [np.abs(explainer.explain(feeds, method="integrated_gradients", steps=n).residual).max() for n in (2, 2000)]
    assert gaps[0] > 1e-3
    assert gaps[1] < gaps[0] / 100


def test_completeness_from_any_baseline():
    model, feeds = words()
    explainer = load(model)
    (point,) = explainer._plan.points
    rng = np.random.default_rng(0)
    for shape in ((), (3,), (4, 3), (2, 1, 1), explainer.explain(feeds).relevance[point].shape):
        baseline = rng.normal(size=shape)
        for given_as in (baseline, {point: baseline}, {"ids": baseline}):
            got = explainer.explain(feeds, 0, method="integrated_gradients", baseline=given_as, steps=30)
            np.testing.assert_allclose(got.residual, 0, atol=1e-12)
            at = points(explainer, prepare_inputs(feeds, explainer._plan))
            moved = {**feeds, point: np.broadcast_to(baseline, at[point].shape)}
            before = explainer._program(moved, Target("index", np.zeros((), np.int64)))["seed"]
            total = got.relevance[point].reshape(2, -1).sum(1)
            np.testing.assert_allclose(total, got.seed - before, atol=1e-12)


# occlusion


def by_runtime(model, feeds, part, width=1, value=0.0):
    """The drop of the predicted class's score, by onnxruntime, when ``part`` of x is set to a value."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    before = session.run(None, feeds)[0]
    x = feeds["x"].copy()
    x[part] = value
    after = session.run(None, {**feeds, "x": x})[0]
    best = before.argmax(1)[:, None]
    return np.take_along_axis(before - after, best, 1)[:, 0] / width


@pytest.mark.parametrize("value", [0.0, 0.7])
def test_occlusion_of_steps(value):
    b = Builder(np.random.default_rng(4), 17)
    x = b.input("x", b.numbers(5, 2, 3), ["time", "batch", 3])
    _, last = b.ops("GRU", x, b.weight(1, 12, 3), b.weight(1, 12, 4), outputs=2, hidden_size=4)
    model, feeds = b.case(b.gemm(b.op("Squeeze", last, b.ints(0)), 4, 3))
    explainer = load(model)
    got = explainer.explain(feeds, method="occlusion", baseline=value)
    assert got.settings["baseline"] == value
    single = explainer.explain(feeds, method="occlusion", baseline=value, by="feature").relevance["x"]
    for t in range(5):
        np.testing.assert_allclose(got.per_step()[:, t], by_runtime(model, feeds, t, value=value), atol=1e-5)
        assert np.ptp(got.relevance["x"][t], axis=1).max() == 0
        for k in range(3):
            np.testing.assert_allclose(single[t, :, k], by_runtime(model, feeds, np.s_[t, :, k], value=value), atol=1e-5)


def test_occlusion_of_features():
    model, feeds = dense(width=300)  # more than run side by side at once
    got = explain(model, feeds, "occlusion").relevance["x"]
    for k in range(0, 300, 7):
        np.testing.assert_allclose(got[:, k], by_runtime(model, feeds, np.s_[:, k]), atol=1e-5)


def test_occlusion_of_an_image():
    b = Builder(np.random.default_rng(4), 17)
    x = b.input("x", b.numbers(2, 2, 4, 4), ["batch", 2, 4, 4])
    h = b.op("Relu", b.op("Conv", x, b.weight(3, 2, 3, 3)))
    model, feeds = b.case(b.gemm(b.op("Flatten", b.op("GlobalAveragePool", h)), 3, 3))
    got = explain(model, feeds, "occlusion").relevance["x"]
    for c, i, j in np.ndindex(2, 4, 4):
        np.testing.assert_allclose(got[:, c, i, j], by_runtime(model, feeds, np.s_[:, c, i, j]), atol=1e-5)


# how copies of a batch run


def test_a_batch_of_one_is_run_sample_by_sample():
    b = Builder(np.random.default_rng(1), 17)
    x = b.input("x", b.numbers(3, 4), [1, 4])
    model, feeds = b.case(b.gemm(b.op("Tanh", b.gemm(x, 4, 5)), 5, 3))
    b = Builder(np.random.default_rng(1), 17)
    x = b.input("x", b.numbers(3, 4), ["batch", 4])
    opened, _ = b.case(b.gemm(b.op("Tanh", b.gemm(x, 4, 5)), 5, 3))
    baseline = np.random.default_rng(0).normal(size=(3, 4))
    for method, options in (("integrated_gradients", {"baseline": baseline}), ("occlusion", {"baseline": {"x": baseline}})):
        one, many = (explain(m, feeds, method, options=options) for m in (model, opened))
        np.testing.assert_allclose(one.relevance["x"], many.relevance["x"], rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(one.residual, many.residual, atol=1e-12)


@pytest.mark.parametrize("method", ["integrated_gradients", "occlusion"])
def test_samples_that_change_each_other_are_not_run_side_by_side(method, monkeypatch):
    """A gate that is made of the whole batch: copies of the batch must not be added to it."""
    b = Builder(np.random.default_rng(1), 17)
    x = b.rows(3, 4)
    gate = b.op("Sigmoid", b.op("ReduceMean", x, axes=[0], keepdims=1))
    model, feeds = b.case(b.gemm(b.op("Mul", gate, b.op("Tanh", x)), 4, 2))
    got = explain(model, feeds, method).relevance["x"]
    original = probe.Probe.__init__

    def alone(self, *given):
        original(self, *given)
        self.folds = False

    monkeypatch.setattr(probe.Probe, "__init__", alone)
    np.testing.assert_allclose(got, explain(model, feeds, method).relevance["x"], rtol=1e-9, atol=1e-12)


def test_one_sample_without_a_batch_axis():
    b = Builder(np.random.default_rng(1), 17)
    x = b.input("x", b.numbers(4), [4])
    model, feeds = b.case(b.op("MatMul", b.op("Tanh", b.op("MatMul", x, b.weight(4, 5))), b.weight(5, 3)))
    for method in OTHERS:
        got = explain(model, feeds, method)
        assert got.relevance["x"].shape == (4,)
        assert got.seed.shape == got.residual.shape == (1,)


@pytest.mark.parametrize("jit", ["graph", "xla"])
@pytest.mark.parametrize("name", ["dense", "words", "lstm lens", "loop"])
def test_every_jit_mode_agrees(name, jit):
    model, feeds = FIXED[name]()
    eager, other = load(model), load(model, jit=jit)
    for method in ("gradient", "integrated_gradients", "occlusion"):
        options = {"steps": 3} if method == "integrated_gradients" else {}
        want, got = (e.explain(feeds, method=method, **options) for e in (eager, other))
        for point, relevance in want.relevance.items():
            np.testing.assert_allclose(got.relevance[point], relevance, rtol=1e-8, atol=1e-12)


def test_an_internal_tensor_is_a_point_too():
    model, feeds = words()
    explainer = load(model)
    (point,) = explainer._plan.points
    cut = next(n.output[0] for n in model.graph.node if n.op_type == "Transpose")
    for method in OTHERS:
        want = explainer.explain(feeds, method=method).relevance[point]
        got = explain(model, feeds, method, at=cut).relevance[cut]
        np.testing.assert_allclose(got, want.transpose(1, 0, 2), rtol=1e-6, atol=1e-9)


def test_what_onnxruntime_computes_has_no_derivative():
    b = Builder(np.random.default_rng(1), 17)
    x = b.rows(2, 3)
    square = b.op("Reshape", b.op("MatMul", x, b.weight(3, 4)), b.ints(-1, 2, 2))
    gate = b.op("Unsqueeze", b.op("Sigmoid", b.op("Det", square)), b.ints(1))
    model, feeds = b.case(b.op("Mul", gate, b.gemm(x, 3, 2)))
    explainer = load(model)
    explainer.explain(feeds)
    for method in OTHERS:
        with pytest.raises(onnx_lrp.UnsupportedModel, match="det"):
            explainer.explain(feeds, method=method)


def test_no_finite_derivative_is_said():
    b = Builder(np.random.default_rng(1), 17)
    x = b.input("x", np.zeros((2, 3), np.float32), ["batch", 3])
    model, feeds = b.case(b.op("MatMul", b.op("Sqrt", x), b.weight(3, 2)))
    with pytest.raises(onnx_lrp.RuleError, match=r"'gradient'.*'x'.*no finite derivative"):
        explain(model, feeds)
    explain(model, feeds, "occlusion")


# the call


def test_other_options_are_refused():
    model, feeds = dense()
    explainer = load(model)
    for method, options, message in (
        ("magic", {}, r"magic.*there is: lrp, .*occlusion"),
        ("gradient", {"steps": 3}, r"no option 'steps'.*integrated_gradients does"),
        ("lrp", {"baseline": 0}, "no option 'baseline'"),
        ("occlusion", {"color": 0}, r"no option 'color' \(it takes baseline, by\)"),
        ("integrated_gradients", {"steps": 0}, "steps"),
        ("integrated_gradients", {"steps": 1.5}, "steps"),
        ("occlusion", {"by": "word"}, "by='word'"),
    ):
        with pytest.raises(onnx_lrp.RuleError, match=message):
            explainer.explain(feeds, method=method, **options)
    for options in (
        {"by": "step"},
        {"baseline": np.zeros(7)},
        {"baseline": {"z": 0}},
        {"baseline": np.nan},
        {"baseline": "none"},
    ):
        with pytest.raises(onnx_lrp.InputError):
            explainer.explain(feeds, method="occlusion", **options)
    with pytest.raises(onnx_lrp.InputError, match="finite in float32"):
        load(model, precision="float32").explain(feeds, method="occlusion", baseline=1e39)


def test_one_call():
    model, feeds = dense()
    got = onnx_lrp.explain(model, feeds, method="integrated_gradients", steps=7, baseline=0.5, precision="float64", jit="eager")
    assert got.method == got.settings["method"] == "integrated_gradients"
    assert (got.settings["steps"], got.settings["baseline"], got.settings["precision"]) == (7, 0.5, "float64")
    assert "epsilon" not in got.settings
    assert onnx_lrp.explain(model, feeds, jit="eager").method == "lrp"


@pytest.mark.parametrize("suffix", [".npz", ".json"])
@every_method
def test_saved_and_shown(method, suffix, tmp_path, capsys):
    model, feeds = words()
    options = {"baseline": np.zeros(3)} if "baseline" in methods.METHODS[method] else {}
    before = explain(model, feeds, method, options=options)
    before.save(tmp_path / f"saved{suffix}")
    after = onnx_lrp.Explanation.load(tmp_path / f"saved{suffix}")
    assert after.settings == before.settings
    assert after.method == method
    np.testing.assert_array_equal(after.residual, before.residual)
    if suffix == ".json":
        json.loads((tmp_path / "saved.json").read_text(), parse_constant=pytest.fail)
    page = after.to_html(tokens=[list("abcd")] * 2)
    assert "Where the relevance went" not in page
    assert method.replace("_", " ") in page
    terminal.show(view.samples(after))
    shown = " ".join(capsys.readouterr().out.split())
    assert method.replace("_", " ") in shown
    assert "nan" not in shown
    assert ("completeness" in shown) == (method == "integrated_gradients")


def test_on_the_command_line(tmp_path, capsys):
    model, feeds = dense()
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    np.save(tmp_path / "x.npy", feeds["x"])
    common = ["explain", str(tmp_path / "m.onnx"), str(tmp_path / "x.npy"), "--jit", "eager"]
    assert cli.run([*common, "--method", "integrated_gradients", "--steps", "9", "--baseline", "0.5", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {k: found["settings"][k] for k in ("method", "steps", "baseline")} == {
        "method": "integrated_gradients",
        "steps": 9,
        "baseline": 0.5,
    }
    assert cli.run([*common, "--method", "occlusion", "--by", "feature", "--html", str(tmp_path / "x.html")]) == 0
    assert "keep no books" in capsys.readouterr().out or "no books" in (tmp_path / "x.html").read_text()
    assert cli.run([*common, "--method", "gradient", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["residual"] == [None] * 4
    for wrong in (["--method", "magic"], ["--steps", "3"], ["--method", "gradient", "--baseline", "1"]):
        assert cli.run([*common, *wrong]) == 2
        assert capsys.readouterr().err.startswith("onnx-lrp: ")


# real files


def zoo():
    if not (ZOO / "INDEX.tsv").is_file():
        return []
    with (ZOO / "INDEX.tsv").open() as stream:
        return [r["name"] for r in csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)][::17]


@pytest.mark.skipif(not zoo(), reason="no zoo beside this checkout")
@pytest.mark.parametrize("name", zoo())
def test_model_of_the_zoo(name):
    with np.load(ZOO / f"{name}.npz") as archive:
        feeds = {k: archive[k] for k in archive.files if not k.startswith("out__")}
    explainers = {jit: load(ZOO / f"{name}.onnx", jit=jit) for jit in ("eager", "graph")}
    lrp = explainers["eager"].explain(feeds)
    for method in ("gradient", "integrated_gradients", "occlusion"):
        options = {"steps": 3} if method == "integrated_gradients" else {}
        found = {jit: e.explain(feeds, method=method, **options) for jit, e in explainers.items()}
        for point, relevance in found["eager"].relevance.items():
            assert relevance.shape == lrp.relevance[point].shape
            np.testing.assert_allclose(found["graph"].relevance[point], relevance, rtol=1e-7, atol=1e-9)
