"""The sentence above the pictures, and what is said of scores: how sure the model is, and where relevance cancels."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from test_html import Page
from test_report import explanation, printed

from onnx_lrp import targets
from onnx_lrp.labels import Labels
from onnx_lrp.report import html, view
from onnx_lrp.report.lead import LEAST, NAMES, lead
from onnx_lrp.report.sample import Sample
from onnx_lrp.report.wording import number, percent

NAMED = Labels(features=("pressure", "vibration", "flow"), units=("bar", "mm/s", ""), steps=(("a", "b", "c", "d"),))


def of(relevance, **changes) -> Sample:
    made = explanation(4, 3, 1)
    made = dataclasses.replace(made, relevance={"x": np.asarray(relevance, float)[None]}, labels=NAMED)
    return view.samples(dataclasses.replace(made, **changes))[0]


def test_the_sensor_and_the_time_are_named():
    relevance = np.zeros((4, 3))
    relevance[2, 1], relevance[1, 1], relevance[0, 0], relevance[3, 2] = 4.0, 1.0, -2.0, 0.4
    want = "Raises the score most: vibration [mm/s] +5.000 (most at c). Lowers it most: pressure [bar] -2.000 (most at a)."
    assert lead(of(relevance)) == want
    assert (
        want in Page(html.to_html(dataclasses.replace(explanation(4, 3, 1), relevance={"x": relevance[None]}, labels=NAMED))).text
    )


@given(arrays.arrays(np.float64, (4, 3), elements=st.floats(-9, 9)))
def test_those_with_the_largest_sums_are_named_and_no_others(relevance):
    said = lead(of(relevance))
    sums = relevance.sum(0)
    largest = np.abs(sums).max()
    for name, value in zip(("pressure [bar]", "vibration [mm/s]", "flow"), sums, strict=True):
        if not np.isclose(abs(value), LEAST * largest):
            assert (f"{name} {number(value)}" in said) == (abs(value) > LEAST * largest)
    assert (said == "") == (largest == 0)


def test_words_and_unnamed_steps_are_named():
    sample = view.samples(explanation(5, 3, 1), tokens=list("vwxyz"))[0]
    values = sample.points[0].relevance
    strongest = int(np.argmax(values))
    assert f"{'vwxyz'[strongest]} {number(values[strongest])}" in lead(sample)
    assert "step " in lead(view.samples(explanation(5, 3, 1))[0])
    assert lead(view.samples(explanation(9, 0, 1), tokens=["good"] * 9)[0]).count("good") <= 2 * NAMES


def test_squared_derivatives_neither_raise_nor_lower():
    made = dataclasses.replace(explanation(samples=1), settings={"method": "sensitivity"})
    assert lead(view.samples(made)[0]) == ""


@pytest.mark.parametrize(
    ("value", "text"), [(0.583, "58.3 %"), (1.0, "100.0 %"), (0.0, "0.0 %"), (0.99999, "> 99.9 %"), (1e-7, "< 0.1 %")]
)
def test_percent(value, text):
    assert percent(value) == text


def test_probabilities_say_how_sure_the_model_is(monkeypatch):
    relevance = np.ones((4, 3))
    sample = of(relevance, outputs={"y": np.array([[0.417, 0.583]])}, seed=np.array([0.056]))
    text = " ".join(printed([sample], monkeypatch).split())
    assert "class 0 41.7 %, class 1 58.3 %" in text
    assert "score +0.056, before the probabilities" in text
    scores = of(relevance, outputs={"y": np.array([[0.5, 1.5]])})
    assert (scores.likely, scores.before) == (False, False)
    same = of(relevance, outputs={"y": np.array([[0.417, 0.583]])}, seed=np.array([0.417]))
    assert (same.likely, same.before) == (True, False)  # explained as they are


def test_what_lies_before_probabilities_is_told_from_what_is_said_of_them():
    def before(scores, seed, **changes):
        return of(np.ones((4, 3)), outputs={"y": np.array([scores])}, seed=np.array([seed]), **changes).before

    assert before([0.993, 0.81], 4.919)  # sigmoids
    assert not before([0.993, 0.81], 0.993)
    assert before(np.log([0.4, 0.6]), 0.056)
    assert not before(np.log([0.4, 0.6]), np.log(0.4))
    assert before([0.4, 0.6], -0.4, target=targets.Contrast(0, 1))
    assert not before([0.4, 0.6], -0.2, target=targets.Contrast(0, 1))
    assert not before([0.4, 0.6], 0.1, settings={"from_probabilities": True})
    assert not before([0.4, 0.6], 0.1, target=targets.Seed(np.ones(2)))


def test_a_name_from_right_to_left_keeps_its_number_behind_it(monkeypatch):
    made = dataclasses.replace(explanation(2, 0, 1), relevance={"x": np.array([[2.0, 1.0]])})
    words, mark = ["\u05d0\u05d1", "film"], "\u200e"
    sample = view.samples(made, tokens=words, classes=[words[0]])[0]
    assert f"{words[0]}{mark} +2.000, film +1.000" in lead(sample)
    text = printed([sample], monkeypatch)
    assert f"({words[0]}{mark} " in text
    assert f"{words[0]}{mark} +2.000" in text
    assert f"<bdi>{words[0]}</bdi> {number(sample.scores[0][1])}" in html.page([sample])


def test_what_cancels_is_said(monkeypatch):
    bias = np.array([-20.0])
    made = of(np.ones((4, 3)), seed=np.array([0.1]), absorbed={"bias": bias}, ledger={"scale": {"bias": bias}})
    assert "scale absorbed -20.000" in made.cancels
    assert "scale absorbed -20.000" in " ".join(printed([made], monkeypatch).split())
    small = of(np.ones((4, 3)), seed=np.array([12.0]), absorbed={"bias": bias}, ledger={"scale": {"bias": bias}})
    assert small.cancels == ""
    assert dataclasses.replace(made, method="occlusion").cancels == ""
