"""Explanations whose right answer is known: trained adders and subtracters, and networks set by hand with their Shapley values."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

FOLDER = Path(__file__).resolve().parents[1] / "examples" / "arithmetic"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="the examples are not here")


def example(name):
    spec = importlib.util.spec_from_file_location(f"example_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def explain():
    return example("explain")


@pytest.fixture(scope="module")
def hand():
    return example("by_hand")


NETWORKS = sorted(p.stem for p in FOLDER.glob("*.onnx"))


def test_there_are_several_networks():
    assert sum(n.startswith("add") for n in NETWORKS) >= 3


@pytest.mark.parametrize("name", NETWORKS)
def test_the_networks_have_learned_their_task(explain, name):
    task = name.split("-")[0]
    session = onnxruntime.InferenceSession(FOLDER / f"{name}.onnx")
    rng = np.random.default_rng(5)
    errors = []
    for steps in range(4, 11):
        x, y, places = explain.training.sequences(400, steps=steps, second=explain.training.TASKS[task], rng=rng)
        assert np.all(x[np.arange(400)[:, None], places, 0] == 0)
        assert np.all((x[:, :, 1] != 0).sum(1) == 2)
        errors.append((session.run(None, {"x": x})[0][:, 0] - y) ** 2)
    assert np.mean(errors) < 1e-4


@pytest.mark.parametrize("name", [n for n in NETWORKS if n.startswith("add")])
def test_relevance_of_a_sum_is_its_numbers(explain, name):
    found = explain.figures("add", *explain.explained(FOLDER / f"{name}.onnx", "lrp", explain.cases("add", 700)))
    assert found["correlation a"] >= 0.999
    assert found["correlation b"] >= 0.999
    assert found["share"] >= 0.99
    assert found["squared error"] <= 1e-4


@pytest.mark.parametrize("gates", ["prop", "abs", "half"])
def test_other_gate_rules_give_the_gates_some_of_it(explain, gates):
    data = explain.cases("add", 350)
    found = explain.figures("add", *explain.explained(FOLDER / "add-0.onnx", "lrp", data, gates=gates))
    assert found["correlation a"] < 0.95
    assert found["squared error"] > 1e-2


def test_the_figures_of_a_perfect_explanation(explain):
    numbers = np.random.default_rng(0).uniform(-1, 1, (50, 2))
    for task, sign in (("add", 1), ("subtract", -1)):
        own = numbers * [1, sign]
        found = explain.figures(task, numbers, own, np.abs(own).sum(1), own.sum(1))
        assert list(found.values()) == pytest.approx([1, 1, 1, 0])


@pytest.mark.parametrize("text", ["abab", "aaaaaa", "b", "rra"])
def test_a_saturated_count_is_shared_as_shapley_does(hand, text):
    model, x = hand.counter(), hand.encode(text, "abr")
    right = hand.shapley(model, x)
    if "r" not in text:
        count = text.count("a")
        assert right == pytest.approx([np.tanh(count) / count if c == "a" else 0 for c in text], abs=1e-6)
    assert hand.steps_of(model, x) == pytest.approx(right, abs=1e-5)


def test_a_reset_gets_nothing_by_gate_rule_all(hand):
    """Known to be wrong, see docs/limits.md: r takes away what came before, by a gate."""
    model, x = hand.counter(), hand.encode("aarab", "abr")
    right = hand.shapley(model, x)
    assert right[2] < -0.2
    assert right[:2] == pytest.approx([right[0]] * 2)
    found = hand.steps_of(model, x)
    assert found == pytest.approx([0, 0, 0, np.tanh(1), 0], abs=1e-5)


@pytest.mark.parametrize(("text", "lost"), [("(()", 0), ("((())", 0), ("()(", 2), ("(())((", 4)])
def test_brackets_that_cancel_exactly_lose_their_relevance(hand, text, lost):
    """Known to be wrong, see docs/limits.md: a prefix whose sum is zero."""
    model, x = hand.brackets(), hand.encode(text, "()")
    right = np.array([1.0 if c == "(" else -1.0 for c in text])
    assert hand.shapley(model, x) == pytest.approx(right, abs=2e-3)
    found = hand.steps_of(model, x)
    assert found[lost:] == pytest.approx(right[lost:], abs=2e-3)
    assert found[:lost] == pytest.approx(np.zeros(lost), abs=1e-4)
    assert found.sum() == pytest.approx(right.sum(), abs=2e-3)
