"""Every law under every rule and every gate rule, on the models of every layer family.

Books close in float64 to 1e-10 of what moved; what a rule does not pass on stands under ``absorbed["rule"]`` and nowhere else.
``HYPOTHESIS_PROFILE=nightly`` asks thousands of models, the default profile a few of each pair.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import onnx_lrp
from onnx_lrp import rules, testing
from onnx_lrp.errors import RuleError
from onnx_lrp.rules import GATE_RULES, NAMES, AlphaBeta, Epsilon, Flat, Gamma, WSquare, ZBox, ZPlus
from onnx_lrp.testing import measures
from onnx_lrp.testing.build import Builder

FAMILIES = testing.families()
RECURRENT = ("grus", "lstms", "rnns")
EPSILONS = st.sampled_from([1e-3, 0.1])
RULES = {
    "epsilon": st.builds(Epsilon, EPSILONS),
    "gamma": st.builds(Gamma, EPSILONS, st.sampled_from([0.25, 3.0])),
    "alpha-beta": st.builds(lambda e, beta: AlphaBeta(e, 1 + beta, beta), EPSILONS, st.sampled_from([1.0, 0.5, 0.0])),
    "zplus": st.builds(ZPlus, EPSILONS),
    "flat": st.builds(Flat, EPSILONS),
    "wsquare": st.builds(WSquare, EPSILONS),
    "zbox": st.builds(ZBox, EPSILONS, st.just(-3.0), st.sampled_from([2.0, 3.0])),
}
every_family = pytest.mark.parametrize("family", list(FAMILIES))
# two is the least that hypothesis does not spend on the smallest model alone
FEW = settings(max_examples=max(2, settings.get_profile(settings.get_current_profile_name()).max_examples // 100))


def draw_case(data, family):
    """A model whose samples may be explained one by one."""
    return data.draw(FAMILIES[family](**({"fixed": False} if family in RECURRENT else {})))


def assert_laws(case, **options):
    """Every law of one model under one rule, with one explainer."""
    model, feeds = case
    explainer = onnx_lrp.load(model, precision="float64", jit="eager", verify="never", **options)
    found = explainer.explain(feeds)
    figures = [*measures.conservation(found, measures.CLOSED["float64"]), measures.finiteness(found)]
    figures.append(measures.determinism(found, explainer.explain(feeds)))
    figures += measures.linearity(explainer, feeds, measures.explained_shape(explainer, found), 1, measures.SAME)
    figures += measures.equivariance(explainer, feeds, found, measures.SAME)
    broken = [str(f) for f in figures if not f.holds]
    assert not broken, "; ".join(broken)
    return found


def test_every_rule_has_its_laws():
    assert list(RULES) == list(NAMES)


@pytest.mark.parametrize("rule", RULES)
@every_family
@FEW
@given(data=st.data())
def test_laws_under_every_rule(family, rule, data):
    case = draw_case(data, family)
    assert_laws(case, rule=data.draw(RULES[rule]), bias_factor=data.draw(st.sampled_from([0.0, 0.5, 1.0])))


@pytest.mark.parametrize("gates", [g for g in GATE_RULES if g != "all"])
@every_family
@FEW
@given(data=st.data())
def test_laws_under_every_gate_rule(family, gates, data):
    case, rule = draw_case(data, family), data.draw(st.one_of(*RULES.values()))
    try:
        assert_laws(case, rule=rule, gates=gates)
    except RuleError as error:  # the one thing that is refused
        if family != "einsums" or "of an Einsum or a vector only 'half' and 'all'" not in str(error):
            raise


def zeros():
    """A dense layer whose sums are exactly 0 and whose activation is not: relevance arrives where nothing can pass it on."""
    b = Builder(np.random.default_rng(0), 17)
    x = b.input("x", np.zeros((2, 3), np.float32), ["batch", 3])
    return b.case(b.gemm(b.op("Sigmoid", b.op("MatMul", x, b.weight(3, 4))), 4, 2))


@pytest.mark.parametrize("rule", NAMES)
def test_books_close_without_a_stabilizer_at_sums_of_zero(rule):
    """As ε → 0 all of it is the stabilizer's share at a sum of 0; with ε = 0 it is booked there too."""
    model, feeds = zeros()
    found = assert_laws((model, feeds), rule=rule, epsilon=0.0)
    limit = onnx_lrp.load(model, rule=rule, epsilon=1e-13, precision="float64", jit="eager").explain(feeds)
    assert found.absorbed.keys() == limit.absorbed.keys()
    for kind, want in limit.absorbed.items():
        np.testing.assert_allclose(found.absorbed[kind], want, atol=1e-9)


@pytest.mark.parametrize("gates", GATE_RULES)
def test_books_of_recurrent_layers_close_without_a_stabilizer(gates):
    b = Builder(np.random.default_rng(0), 17)
    x = b.input("x", np.zeros((3, 2, 2), np.float32), ["time", "batch", 2])
    tail = []
    for op, blocks in (("LSTM", 4), ("GRU", 3), ("RNN", 1)):
        h = b.ops(op, x, b.weight(1, blocks * 3, 2), b.weight(1, blocks * 3, 3), outputs=2, hidden_size=3)[1]
        tail.append(b.op("Reshape", h, b.ints(-1, 3)))
    model, feeds = b.case(b.gemm(b.op("Sigmoid", b.op("Concat", *tail, axis=1)), 9, 2))
    assert_laws((model, feeds), gates=gates, epsilon=0.0)


def test_flat_loses_what_no_input_can_take():
    """A padded position of a convolution without data has no term: the rule itself keeps that, and says so."""
    b = Builder(np.random.default_rng(0), 17)
    x = b.input("x", b.numbers(1, 1, 2), ["batch", 1, 2])
    z = b.op("Conv", x, b.weight(1, 1, 1), b.weight(1), pads=[1, 1])
    model, feeds = b.case(b.op("Flatten", b.op("Tanh", z)))
    assert_laws((model, feeds), rule="flat")
    flat, plain = (onnx_lrp.load(model, rule=rule, jit="eager").explain(feeds, 0) for rule in ("flat", "epsilon"))
    np.testing.assert_array_equal(flat.absorbed["rule"], flat.seed)
    assert np.all(flat.seed != 0)
    assert "rule" not in plain.absorbed


@pytest.mark.parametrize("name", ["Gamma", "AlphaBeta", "ZPlus", "WSquare", "ZBox"])
def test_a_rule_with_open_books_is_noticed(name, monkeypatch):
    """Every rule's stabilizer off by a tenth breaks the law of conservation."""
    rule = {"ZBox": ZBox(0.1, -3.0, 2.0)}.get(name) or getattr(rules, name)(0.1)
    share = type(rule).share

    def wrong(self, *rest):
        shares = share(self, *rest)
        return dataclasses.replace(shares, stabilizer=0.9 * shares.stabilizer)

    model, feeds = zeros()
    feeds["x"][:] = 1
    assert_laws((model, feeds), rule=rule)
    monkeypatch.setattr(type(rule), "share", wrong)
    with pytest.raises(AssertionError, match="books open"):
        assert_laws((model, feeds), rule=rule)
