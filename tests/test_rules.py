"""Rules and gate rules: each is its slow twin on a dense layer, closes its books, and is the same however a cell is spelled."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

import onnx_lrp
from onnx_lrp import targets, testing
from onnx_lrp.composites import Composite, make_composite
from onnx_lrp.errors import RuleError
from onnx_lrp.rules import ABSOLUTE, PLAIN, AlphaBeta, Epsilon, Flat, Gamma, WSquare, ZBox, ZPlus
from onnx_lrp.testing.build import Builder

RULES = [
    Epsilon(0.01),
    Gamma(0.01, 0.25),
    Gamma(0.001, 3.0),
    AlphaBeta(0.01),
    AlphaBeta(0.001, 1.5, 0.5),
    ZPlus(0.01),
    WSquare(0.01),
    Flat(),
    ZBox(0.01, -3.0, 2.0),
]
GATES = ["half", "prop", "abs"]
FEW = settings(max_examples=max(3, settings.get_profile(settings.get_current_profile_name()).max_examples // 8))
names = [str(r) for r in RULES]


def relevance(model, feeds, **options):
    return onnx_lrp.load(model, **{"precision": "float64", "jit": "eager", "verify": "never", **options}).explain(feeds, 0)


# the slow twins: sums over single terms, as the papers write them


def terms(rule, x, w, b, j):
    """(numerators (I,), the bias's, denominator without stabilizer) of unit j of z = x w + b."""
    p, c = x * w[:, j], b[j]
    z = p.sum() + c
    positive = lambda v: np.maximum(v, 0)  # noqa: E731
    negative = lambda v: np.minimum(v, 0)  # noqa: E731
    match rule:
        case Epsilon():
            return p, c, z
        case Gamma():
            part = positive if z >= 0 else negative
            p, c = p + rule.gamma * part(p), c + rule.gamma * part(c)
            return p, c, p.sum() + c
        case ZPlus():
            return positive(p), positive(c), positive(p).sum() + positive(c)
        case WSquare():
            return w[:, j] ** 2, 0.0, (w[:, j] ** 2).sum()
        case Flat():
            return np.ones(len(x)), 0.0, float(len(x))
        case ZBox():
            p = p - rule.low * positive(w[:, j]) - rule.high * negative(w[:, j])
            return p, 0.0, p.sum()
    raise AssertionError(rule)


def twin(rule, x, w, b, r):
    """(relevance (I,), absorbed) of relevance r (C,) of z = x w + b."""
    out, absorbed = np.zeros(len(x)), 0.0
    for j in range(len(r)):
        if isinstance(rule, AlphaBeta):
            p, c = x * w[:, j], b[j]
            up = sum(max(v, 0) for v in (*p, c)) + rule.epsilon
            down = sum(min(v, 0) for v in (*p, c)) - rule.epsilon
            share = lambda v: (rule.alpha * max(v, 0) / up - rule.beta * min(v, 0) / down) * r[j]  # noqa: B023, E731
            out += [share(v) for v in p]
            absorbed += share(c) + rule.epsilon * (rule.alpha / up + rule.beta / down) * r[j]
            continue
        p, c, total = terms(rule, x, w, b, j)
        stabilizer = 0.0 if isinstance(rule, Flat) else rule.epsilon if total >= 0 else -rule.epsilon
        out += p / (total + stabilizer) * r[j]
        absorbed += (c + stabilizer) / (total + stabilizer) * r[j]
    return out, absorbed


def dense(seed, spelling="Gemm"):
    """(model, x, w, b, v): logits = tanh(x w + b) v, the second layer being a mean so that its relevance is known."""
    b = Builder(np.random.default_rng(seed), 17)
    w, bias = b.numbers(5, 4), b.numbers(4)
    x = b.input("x", b.numbers(3, 5), ["batch", 5])
    if spelling == "Gemm":
        z = b.op("Gemm", x, b.const(w), b.const(bias))
    elif spelling == "scaled":  # a negative factor, a negation and a routing inside the block
        z = b.op("Neg", b.op("MatMul", b.op("Mul", x, b.const(np.float32(1))), b.const(-2 * w)))
        z = b.op("Add", b.op("Mul", z, b.const(np.float32(0.5))), b.const(bias))
    else:
        z = b.op(
            "Transpose", b.op("Conv", b.op("Unsqueeze", x, b.ints(2)), b.const(w.T[:, :, None]), b.const(bias)), perm=[0, 2, 1]
        )
        z = b.op("Squeeze", z, b.ints(1))
    y = b.op("Tanh", z)
    model, feeds = b.case(y)
    return model, feeds["x"].astype(np.float64), w.astype(np.float64), bias.astype(np.float64)


@pytest.mark.parametrize("seed", ["first", "every"])
@pytest.mark.parametrize("spelling", ["Gemm", "scaled", "Conv"])
@pytest.mark.parametrize("rule", RULES, ids=names)
def test_a_rule_is_its_twin(rule, spelling, seed):
    """With relevance of one unit, and of all of them with either sign."""
    model, x, w, b = dense(2, spelling)
    y = np.tanh(x @ w + b)
    seeds = np.where(np.arange(4) == 0, y, 0) if seed == "first" else np.random.default_rng(0).normal(size=y.shape)
    target = 0 if seed == "first" else targets.seed(seeds)
    explainer = onnx_lrp.load(model, rule=rule, precision="float64", jit="eager", verify="never")
    explanation = explainer.explain({"x": x}, target)
    for k in range(len(x)):
        want, absorbed = twin(rule, x[k], w, b, seeds[k])
        np.testing.assert_allclose(explanation.relevance["x"][k], want, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(sum(a[k] for a in explanation.absorbed.values()), absorbed, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("sign", [1, -1])
def test_what_rounding_leaves_of_a_side_takes_nothing(sign):
    """A sum of 1 in float32, one unit of rounding away from its terms' absolute values."""
    z = tf.constant([sign * (1 - 2.0**-23)], tf.float32)
    shares = AlphaBeta(1e-6).share(z, {ABSOLUTE: tf.ones(1)}, tf.ones(1))
    both = shares.cotangents[ABSOLUTE].numpy(), shares.cotangents[PLAIN].numpy()
    other = both[0] - sign * both[1]  # of the terms of the other sign
    np.testing.assert_allclose(other, 0, atol=1e-5)


@pytest.mark.parametrize("epsilon", [1e-3, 1e-6, 0.0])
@pytest.mark.parametrize("rule", [AlphaBeta, ZPlus])
@pytest.mark.parametrize("op", ["MatMul", "LSTM"])
def test_a_side_without_terms_is_no_matter_of_rounding(op, rule, epsilon):
    b = Builder(np.random.default_rng(0), 17)
    x = b.input("x", 3 * np.eye(6, dtype=np.float32)[None], [1, "B", 6])  # of one-hot inputs sums have terms of one sign
    if op == "LSTM":
        x = b.ops("LSTM", x, b.weight(1, 16, 6), b.weight(1, 16, 4), outputs=2, hidden_size=4)[1]
    y = b.op("MatMul", b.op("Squeeze", x, b.ints(0)), b.weight(4 if op == "LSTM" else 6, 2))
    model, feeds = b.case(y)
    exact, found = (relevance(model, feeds, rule=rule(epsilon), precision=p) for p in ("float64", "float32"))
    for k, want in enumerate(exact.relevance["x"][0]):
        bound = 1e-5 * (np.abs(want).sum() + abs(exact.seed[k]))
        np.testing.assert_allclose(found.relevance["x"][0, k], want, rtol=0, atol=bound)
        assert abs(found.residual[k]) < bound


@pytest.mark.parametrize("rule", RULES, ids=names)
@FEW
@given(data=st.data())
def test_books_close_under_every_rule(rule, data):
    model, feeds = data.draw(testing.models())
    testing.assert_conserves(model, feeds, rule=rule, precision="float64")


@pytest.mark.parametrize("rule", RULES, ids=names)
@FEW
@given(data=st.data(), bias_factor=st.sampled_from([0.5, 1.0]))
def test_books_close_with_a_bias_factor(rule, data, bias_factor):
    model, feeds = data.draw(testing.models())
    testing.assert_conserves(model, feeds, rule=rule, bias_factor=bias_factor, precision="float64")


@pytest.mark.parametrize("gates", GATES)
@FEW
@given(data=st.data(), rule=st.sampled_from(RULES))
def test_books_close_under_every_gate_rule(gates, data, rule):
    model, feeds = data.draw(testing.models())
    # where gate + signal is near 0, "prop" moves more than float64 can tell apart
    testing.assert_conserves(model, feeds, rule=rule, gates=gates, precision="float64", target=0)


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("rule", RULES, ids=names)
@FEW
@given(data=st.data())
def test_cell_spellings_are_equal_under_every_rule(op, rule, data):
    """The fused operators' own code against the graph's: two implementations."""
    models, feeds = data.draw(testing.cell_spellings(op=op, plain=True))
    if rule.reaches_zeros:  # an unrolled cell has no zero state that could take a share
        models = [models[0], *models[2:]]
    first, *others = (relevance(m, feeds, rule=rule).relevance["x"] for m in models)
    for other in others:
        assert np.abs(first - other).max() <= 1e-8 * max(np.abs(first).max(), 1e-9)


@pytest.mark.parametrize("op", ["LSTM", "GRU"])
@pytest.mark.parametrize("gates", GATES)
@FEW
@given(data=st.data(), rule=st.sampled_from(RULES))
def test_fused_and_unrolled_cells_are_equal_under_every_gate_rule(op, gates, data, rule):
    models, feeds = data.draw(testing.cell_spellings(op=op, plain=True))
    if rule.reaches_zeros:
        models = [models[0], *models[2:]]
    first, *others = (relevance(m, feeds, rule=rule, gates=gates).relevance["x"] for m in models)
    for other in others:
        assert np.abs(first - other).max() <= 1e-7 * max(np.abs(first).max(), 1e-9)


@FEW
@given(data=st.data(), rule=st.sampled_from(RULES), gates=st.sampled_from(["all", *GATES]))
def test_batch_equivariant_under_rules(data, rule, gates):
    model, feeds = data.draw(testing.lstms(fixed=False))
    testing.assert_batch_equivariant(model, feeds, rule=rule, gates=gates)


@pytest.mark.parametrize("jit", ["graph", "xla"])
@pytest.mark.parametrize("gates", ["all", "abs"])
def test_rules_in_every_mode(jit, gates):
    from hypothesis import Phase, find

    quiet = settings(phases=[Phase.generate], derandomize=True, database=None, max_examples=2000)
    models, feeds = find(testing.cell_spellings(op="LSTM"), lambda case: case[1]["x"].shape[0] > 2, settings=quiet)
    for model in (models[0], models[2]):
        eager = relevance(model, feeds, rule=Gamma(), gates=gates)
        other = relevance(model, feeds, rule=Gamma(), gates=gates, jit=jit)
        np.testing.assert_allclose(other.relevance["x"], eager.relevance["x"], rtol=1e-9, atol=1e-12)


# composites


def two_layers():
    b = Builder(np.random.default_rng(1), 17)
    x = b.input("x", b.numbers(2, 3, 6), ["batch", 3, 6])
    conv = b.op("Relu", b.op("Conv", x, b.weight(4, 3, 2), b.weight(4)))
    flat = b.op("Flatten", conv)
    hidden = b.op("Relu", b.op("Gemm", flat, b.weight(20, 5), b.weight(5)))
    return b.case(b.op("Gemm", hidden, b.weight(5, 2), b.weight(2)))


def test_first_match_wins_and_the_plan_says_so():
    model, feeds = two_layers()
    composite = Composite((("first", Flat()), ("Conv", ZPlus()), ("last", Gamma()), ("Gemm*", Epsilon(0.5))), Epsilon(0.1))
    rules = [rule for _, rule in onnx_lrp.load(model, composite=composite).plan().rows]
    assert rules == [Flat(), Epsilon(0.5), Gamma()]
    assert [block.first for block, _ in onnx_lrp.load(model, composite=composite).plan().rows] == [True, False, False]
    assert "flat" in str(onnx_lrp.load(model, composite=composite).plan())
    testing.assert_conserves(model, feeds, composite=composite, precision="float64")


@pytest.mark.parametrize("preset", ["epsilon", "epsilon-plus", "epsilon-plus-flat", "epsilon-gamma-box", "arras2017"])
def test_presets(preset):
    model, feeds = two_layers()
    testing.assert_conserves(model, feeds, composite=preset, precision="float64")
    first = onnx_lrp.load(model, composite=preset).plan().rows[0][1]
    assert isinstance(first, {"epsilon-plus": ZPlus, "epsilon-plus-flat": Flat, "epsilon-gamma-box": ZBox}.get(preset, Epsilon))


def test_first_is_found_by_the_graph():
    """A block behind a routing and a loop still reads the input; a second layer does not."""
    models, _ = __import__("hypothesis").find(testing.cell_spellings(op="LSTM"), lambda case: case[1]["x"].shape[0] > 1)
    for model in models:
        blocks = [block for block, _ in onnx_lrp.load(model).plan().rows]
        assert any(b.first for b in blocks)
        assert [b.last for b in blocks] == [False] * (len(blocks) - 1) + [True]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rule": "gama"}, "gamma"),
        ({"rule": "gama:1"}, "gamma"),
        ({"rule": "gamma:"}, "expected gamma:gamma, as numbers"),
        ({"rule": "gamma:one"}, "expected gamma:gamma"),
        ({"rule": "alpha-beta:2"}, "expected alpha-beta:alpha,beta"),
        ({"rule": "alpha-beta:2,2"}, "alpha - beta must be 1"),
        ({"rule": "flat:1"}, "flat takes no numbers"),
        ({"rule": "zbox:1,0"}, "low must be below high"),
        ({"rule": Epsilon, "epsilon": 0.1}, "rule"),
        ({"gates": "some"}, "half"),
        ({"composite": "zennit"}, "epsilon-plus"),
        ({"composite": "epsilon", "rule": "gamma"}, "either"),
        ({"composite": [("first",)]}, "match"),
        ({"epsilon": -1.0}, "epsilon"),
        ({"bias_factor": 2.0}, "bias_factor"),
    ],
    ids=str,
)
def test_bad_rules(options, message):
    with pytest.raises(RuleError, match=message):
        onnx_lrp.load(two_layers()[0], **options)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("gamma:0.5", Gamma(0.01, 0.5)),
        ("alpha-beta:3,2", AlphaBeta(0.01, 3.0, 2.0)),
        ("zbox:-1, 2.5", ZBox(0.01, -1.0, 2.5)),
        ("zplus", ZPlus(0.01)),
    ],
)
def test_rules_as_text(text, rule):
    rows = onnx_lrp.load(two_layers()[0], rule=text, epsilon=0.01).plan().rows
    assert [made for _, made in rows] == [rule] * len(rows)


@pytest.mark.parametrize(
    "make", [lambda: Gamma(0.1, -1), lambda: AlphaBeta(0.1, 2, 2), lambda: ZBox(0.1, 1, 1), lambda: Epsilon(float("nan"))]
)
def test_parameters_outside_their_range(make):
    with pytest.raises(RuleError):
        make()


def test_a_composite_is_made_of_pairs():
    assert make_composite([("first", Flat())]).entries == (("first", Flat()),)
