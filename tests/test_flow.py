"""The flow through the layers: what conservation tells of every edge is what the program measures there."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from test_laws import FAMILIES, _sample
from test_targets import EAGER

import onnx_lrp
from onnx_lrp.books import Books
from onnx_lrp.report import drawing
from onnx_lrp.report.flow import Flow, flow, levels, open_tensors
from onnx_lrp.summary import Row, Summary
from onnx_lrp.testing.build import Builder


def branching():
    """y = Linear(Tanh(x·V)) + Linear(Sigmoid(x·V)): what goes along either branch the books alone don't tell."""
    b = Builder(np.random.default_rng(0), 17)
    x = b.gemm(b.rows(2, 3), 3, 4)
    a, c = b.gemm(b.op("Tanh", x), 4, 4), b.gemm(b.op("Relu", x), 4, 4)
    return b.case(b.gemm(b.op("Relu", b.op("Concat", b.op("Tanh", a), b.op("Tanh", c), axis=1)), 8, 2))


def explained(case, **options):
    model, feeds = case
    explainer = onnx_lrp.load(model, **EAGER, **options)
    summary = explainer.summary()
    keep = open_tensors(summary)
    explanation = explainer.explain(feeds, keep=keep)
    passed = {n: float(np.ravel(a)[0]) for n, a in explanation.passed.items()}
    return explainer, summary, explanation, passed, keep


def assert_balanced(found: Flow, moved: float):
    """At every layer, what comes in is what goes out and what is absorbed."""
    for node in found.nodes:
        arrived = [e.amount for e in found.edges if e.lower == node.key]
        left = [e.amount for e in found.edges if e.upper == node.key] + list(node.absorbed.values())
        if node.kind == "score":
            arrived = [node.amount]
        assert node.amount == pytest.approx(sum(arrived), abs=1e-9 * moved)
        if node.kind != "input":
            assert sum(arrived) == pytest.approx(sum(left), abs=1e-9 * moved)


@pytest.mark.parametrize("family", list(FAMILIES))
@pytest.mark.parametrize("bias_factor", [0.0, 0.5])
def test_the_flow_is_what_is_measured(family, bias_factor):
    case = _sample(FAMILIES[family]())
    explainer, summary, explanation, passed, _ = explained(case, bias_factor=bias_factor)
    found = flow(summary, explanation.books(0), passed)
    assert all(e.amount is not None for e in found.edges)
    moved = 1 + sum(abs(e.amount) for e in found.edges)
    assert_balanced(found, moved)
    outer = [r.output for r in summary.rows if not r.name.startswith(" ")]
    measured = explainer.explain(case[1], keep=[n for n in outer if n in explainer._plan.path]).passed
    for node in found.nodes:
        if node.key in measured and np.size(measured[node.key]) == len(explanation.seed):
            outputs = [line.split(" ")[0] for line in node.lines if line.split(" ")[0] in measured]
            want = sum(float(np.ravel(measured[o])[0]) for o in dict.fromkeys([node.key, *outputs]))
            assert node.amount == pytest.approx(want, abs=1e-9 * moved), node


def test_what_the_books_leave_open_is_asked_for():
    _, summary, explanation, passed, keep = explained(branching())
    assert len(keep) == 1
    books = explanation.books(0)
    whole, gaps = flow(summary, books, passed), flow(summary, books, {})
    assert [e.amount for e in whole.edges].count(None) == 0
    assert [e.amount for e in gaps.edges].count(None) == 4
    assert drawing.draw(gaps).gaps == 4
    assert {b.sign for b in drawing.draw(gaps).bands} >= {"open"}


def test_layers_that_hand_all_on_are_named_on_the_edge():
    _, summary, explanation, passed, _ = explained(branching())
    found = flow(summary, explanation.books(0), passed)
    assert "Tanh" not in {n.title for n in found.nodes}
    assert any("through Tanh" in line for e in found.edges for line in e.lines)


def test_a_summary_of_something_else_draws_nothing():
    _, summary, explanation, passed, _ = explained(branching())
    books = explanation.books(0)
    assert flow(summary, dataclasses.replace(books, points={"other": 1.0}), passed) is None
    assert flow(summary, dataclasses.replace(books, ledger={"other": {"bias": 1.0}}), passed) is None


def chain(count: int) -> Summary:
    rows = [
        Row(f"n{k}", "Gemm", "Linear", f"t{k}", "(B, 2)", "affine block", "", "", (f"t{k - 1}" if k else "x",))
        for k in range(count)
    ]
    return Summary((), (), "", (), {}, tuple(rows), "", (), ())


def test_a_drawing_stands_in_order_and_inside_its_frame():
    found = flow(chain(3), Books(1.0, {"x": -2.0}, {f"n{k}": {"bias": 1.0} for k in range(3)}, 0.0), {})
    assert [e.amount for e in found.edges] == [1.0, 0.0, -1.0, -2.0]
    assert [[n.title for n in row] for row in levels(found)] == [["score"], ["Linear"], ["Linear"], ["Linear"], ["input"]]
    made = drawing.draw(found)
    width, height = made.box
    assert [b.y for b in made.boxes] == sorted(b.y for b in made.boxes)
    assert all(b.x >= 0 and b.x + width <= made.width and b.y + height <= made.height for b in made.boxes)
    assert [b.sign for b in made.bands] == ["up", "up", "down", "down"]
    widths = [float(b.width) for b in made.bands]
    assert widths[3] == 2 * widths[0] == drawing.WIDEST
    assert widths[1] == drawing.THINNEST


def test_too_many_layers_are_no_picture():
    books = Books(1.0, {"x": 0.0}, {f"n{k}": {"bias": 0.01} for k in range(drawing.BOXES)}, 0.0)
    assert drawing.draw(flow(chain(drawing.BOXES), books, {})) is None
