"""Relevance at internal tensors: what passes a cut that separates the graph, and what was absorbed above it, is the seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_laws import FAMILIES, every_family
from test_targets import EAGER, tagger

import onnx_lrp
from onnx_lrp import targets, testing
from onnx_lrp.nested import Nested, sources
from onnx_lrp.propagation import Propagation
from onnx_lrp.recurrence import Recurrent


def names_of(step):
    """The layers that absorb for a step: its own, and those in a loop's body."""
    inner = step.layer.body.steps if isinstance(step.layer, Nested) else ()
    return {step.name}.union(*(names_of(s) for s in inner))


def cuts(plan):
    """(tensor, layers above it, layers below it) of every tensor that all relevance has to pass."""
    made = {o: s for s in plan.steps for o in s.outputs if o in plan.path}

    def below(name):
        return [] if name in plan.points else [n for n in sources(made[name], name, plan.vars) if n in plan.path]

    for cut in sorted(plan.path):
        seen, stack = {cut}, [plan.explained]
        while stack:
            name = stack.pop()
            if name not in seen:
                seen.add(name)
                stack += below(name)
        above = seen - {cut} if cut != plan.explained else set()
        if above & set(plan.points):
            continue
        upper = set().union(*(names_of(made[n]) for n in above))
        lower = set().union(*(names_of(s) for n, s in made.items() if n not in above))
        if not upper & lower:
            yield cut, upper


def assert_cuts_pass_the_seed(model, feeds, bias_factor):
    explainer = onnx_lrp.load(model, bias_factor=bias_factor, **EAGER)
    found = list(cuts(explainer._plan))
    explanation = explainer.explain(feeds, keep=[name for name, _ in found])
    assert explainer._plan.explained in explanation.hidden
    for name, above in found:
        passed = explanation.hidden[name]
        lost = sum(np.sum(a) for layer in above for a in explanation.ledger.get(layer, {}).values())
        moved = np.abs(explanation.seed).sum() + np.abs(passed).sum() + abs(lost)
        assert abs(explanation.seed.sum() - passed.sum() - lost) <= 1e-9 * moved, name


@every_family
@settings(max_examples=settings.get_profile(settings.get_current_profile_name()).max_examples // 2)
@given(data=st.data(), bias_factor=st.sampled_from([0.0, 0.5, 1.0]))
def test_what_passes_a_cut_is_the_seed(family, data, bias_factor):
    assert_cuts_pass_the_seed(*data.draw(family()), bias_factor)


@pytest.mark.parametrize("part", ["s", "q"])
def test_a_forgotten_part_is_noticed(part, monkeypatch):
    """Without the cotangents, or the shares on their way, the law no longer holds inside a block."""
    original = Propagation.look

    def look(self, names):
        kept = getattr(self, part)
        setattr(self, part, {})
        original(self, names)
        setattr(self, part, kept)

    case = tagger()
    assert_cuts_pass_the_seed(*case, 0.5)
    monkeypatch.setattr(Propagation, "look", look)
    with pytest.raises(AssertionError):
        assert_cuts_pass_the_seed(*case, 0.5)


@pytest.mark.parametrize("family", ["dense", "lstms", "convolutions", "loops", "attentions"])
def test_cuts_are_found_inside_blocks_too(family):
    """The law is not empty: some cut is neither the scores nor an attribution point."""
    from test_laws import _sample

    model, _ = _sample(FAMILIES[family]())
    plan = onnx_lrp.load(model, **EAGER)._plan
    assert {name for name, _ in cuts(plan)} - {plan.explained, *plan.points}


def test_relevance_inside_is_that_of_a_cut_there():
    """``at=`` stops where ``keep=`` looks; inside a block, too."""
    model, feeds = tagger()
    explainer = onnx_lrp.load(model, **EAGER)
    names = [n for n in explainer._plan.path if n not in explainer._plan.points and n != explainer._plan.explained]
    explanation = explainer.explain(feeds, keep=names)
    assert set(explanation.hidden) == set(names)
    for name in names:
        there = onnx_lrp.load(model, at=name, **EAGER).explain(feeds)
        # the cut enters in float32, as the file has it
        np.testing.assert_allclose(explanation.hidden[name], there.relevance[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("bias_factor", [0.0, 1.0])
@pytest.mark.parametrize("op", [testing.lstms, testing.grus, testing.rnns], ids=["lstm", "gru", "rnn"])
def test_states_are_asked_for_by_layer(op, bias_factor):
    from test_laws import _sample

    model, feeds = _sample(op(direction="bidirectional", lengths=True))
    explainer = onnx_lrp.load(model, bias_factor=bias_factor, **EAGER)
    (layer,) = (s for s in explainer._plan.steps if isinstance(s.layer, Recurrent))
    found = explainer.explain(feeds, keep=layer.name).hidden
    states = [layer.name, *(f"{layer.name}:{s[0]}" for s in layer.layer.states)]
    assert set(found) == set(states)
    time, batch, _ = feeds["x"].shape
    for state in states[1:]:
        assert found[state].shape == (time, 2, batch, layer.layer.hidden)
        past = np.arange(time)[:, None] >= feeds["lens"][None]
        assert not np.any(found[state].transpose(0, 2, 1, 3)[past])
        np.testing.assert_array_equal(found[state], explainer.explain(feeds, keep=[state]).hidden[state])


def test_states_of_a_loop_are_kept_at_every_step():
    """Fused or in a Loop: relevance of h_t is the same; a loop's state holds it before each step, its result after."""
    from test_laws import _sample

    models, feeds = _sample(testing.cell_spellings(op="LSTM"))
    fused, *others = (onnx_lrp.load(m, **EAGER) for m in models)
    checked = 0
    (layer,) = (s for s in fused._plan.steps if isinstance(s.layer, Recurrent))
    want = fused.explain(feeds, keep=[f"{layer.name}:h"]).hidden[f"{layer.name}:h"][:, 0]
    for other in others:
        for key, scope in other._plan.scope.inner.items():
            (step,) = (s for s in other._plan.steps if s.key == key)
            results = [out for name, out, _ in step.layer.states if name in scope.ends]
            found = other.explain(feeds, keep=[*results, *scope.ends]).hidden
            assert any(a.shape == want.shape and np.allclose(a, want, atol=1e-9) for a in found.values())
            for name, out, _ in step.layer.states:
                if name in scope.ends:
                    assert found[name].shape == found[out].shape
            checked += 1
    assert checked


@pytest.mark.parametrize("jit", ["graph", "xla"])
@pytest.mark.parametrize("family", ["lstm", "loop"])
def test_every_jit_mode_agrees(family, jit):
    from test_laws import _sample

    model, feeds = tagger() if family == "lstm" else _sample(testing.loops())
    eager, other = onnx_lrp.load(model, **EAGER), onnx_lrp.load(model, **{**EAGER, "jit": jit})
    plan = eager._plan
    names = [*plan.path, *(n for scope in plan.scope.inner.values() for n in scope.path if n not in plan.path)]
    names += ["lstm:h", "lstm:c"] if family == "lstm" else []
    for target in (None, targets.all_classes()):
        want, got = (e.explain(feeds, target, keep=names).hidden for e in (eager, other))
        assert set(want) == set(got) == set(names)
        for name in names:
            np.testing.assert_allclose(got[name], want[name], rtol=0, atol=1e-9 * max(np.abs(want[name]).max(), 1e-3))


def test_all_classes_keep_theirs():
    model, feeds = tagger()
    explainer = onnx_lrp.load(model, **EAGER)
    every = explainer.explain(feeds, targets.all_classes(), keep=["lstm"])
    one = explainer.explain(feeds, 2, keep=["lstm"])
    for name, want in one.hidden.items():
        np.testing.assert_allclose(every.hidden[name][2], want, atol=1e-12)
        np.testing.assert_array_equal(every.select(2).hidden[name], every.hidden[name][2])


def test_asking_changes_nothing_else():
    model, feeds = tagger()
    explainer = onnx_lrp.load(model, **EAGER)
    plain, kept = explainer.explain(feeds), explainer.explain(feeds, keep=["lstm", "Y"])
    np.testing.assert_array_equal(plain.relevance["x"], kept.relevance["x"])
    assert plain.hidden == {}


@pytest.mark.parametrize("suffix", [".npz", ".json", ".parquet"])
def test_saved_with_the_explanation(suffix, tmp_path):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    model, feeds = tagger()
    before = onnx_lrp.load(model, jit="eager").explain(feeds, keep=["lstm"])
    before.save(tmp_path / f"saved{suffix}")
    after = onnx_lrp.Explanation.load(tmp_path / f"saved{suffix}")
    assert list(after.hidden) == list(before.hidden)
    assert list(after.passed) == list(before.passed)
    for name, sums in before.passed.items():
        np.testing.assert_array_equal(after.passed[name], sums)
    for name, array in before.hidden.items():
        assert after.hidden[name].dtype == array.dtype
        np.testing.assert_array_equal(after.hidden[name], array)


@pytest.mark.parametrize(
    ("name", "parts"),
    [("lsmt", ["does not exist", "'lstm'"]), ("lstm:cc", ["'lstm:c'"]), ("lens", ["off the relevance path"]), ("const0", ["off"])],
)
def test_refused_by_name(name, parts):
    model, feeds = tagger()
    with pytest.raises(onnx_lrp.InputError) as caught:
        onnx_lrp.load(model, **EAGER).explain(feeds, keep=[name])
    for part in (repr(name), *parts):
        assert part in str(caught.value)


def test_sums_by_sample():
    """What passed, sample by sample; (1,) where a tensor is the same for all."""
    model, feeds = tagger()
    explainer = onnx_lrp.load(model, **EAGER)
    names = ["lstm:h", "lstm:c", "Y", explainer._plan.explained]
    found = explainer.explain(feeds, keep=names)
    assert list(found.passed) == names
    np.testing.assert_allclose(found.passed["lstm:h"], found.hidden["lstm:h"].sum((0, 1, 3)))
    np.testing.assert_allclose(found.passed["Y"], found.hidden["Y"].sum((0, 1, 3)))
    np.testing.assert_allclose(found.passed[explainer._plan.explained], found.seed)
    every = explainer.explain(feeds, targets.all_classes(), keep=names)
    for k in range(len(every.seed)):
        for name in names:
            np.testing.assert_allclose(every.passed[name][k], explainer.explain(feeds, k, keep=names).passed[name], atol=1e-12)
            np.testing.assert_array_equal(every.select(k).passed[name], every.passed[name][k])


def test_sums_of_a_tensor_in_a_loop():
    from test_laws import _sample

    models, feeds = _sample(testing.cell_spellings(op="LSTM"))
    for model in models[1:]:
        explainer = onnx_lrp.load(model, **EAGER)
        names = [n for scope in explainer._plan.scope.inner.values() for n in scope.ends]
        found = explainer.explain(feeds, keep=names)
        for name in names:
            assert found.passed[name].shape == found.seed.shape
            np.testing.assert_allclose(found.passed[name].sum(), found.hidden[name].sum(), atol=1e-12)
