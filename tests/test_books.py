"""The books as a table, as JSON and as a waterfall: every picture adds up to the seed."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import test_twin
from hypothesis import given
from hypothesis import strategies as st
from test_targets import EAGER, dense, tagger

import onnx_lrp
from onnx_lrp import targets, testing
from onnx_lrp.books import Books


def explained(**options):
    model, feeds, _ = test_twin.network(5, direction="bidirectional", lens=True, states=("h0",), mean=True)
    return onnx_lrp.load(model, **EAGER, **options).explain(feeds)


@pytest.mark.parametrize("layers", [False, True], ids=["kinds", "layers"])
@pytest.mark.parametrize("sample", [None, 0, 2])
def test_a_waterfall_adds_up(sample, layers):
    explanation = explained()
    first, *steps = explanation.waterfall(sample, layers=layers)
    assert first.kind == first.label == "seed"
    assert steps[-1].kind == "residual"
    assert math.fsum(e.value for e in steps) == pytest.approx(first.value, rel=1e-15)
    residual = explanation.residual.sum() if sample is None else explanation.residual[sample]
    assert abs(steps[-1].value - residual) <= 1e-14 * max(abs(e.value) for e in steps)
    kinds = [k for k in ("bias", "stabilizer", "initial_state", "constant") if k in explanation.absorbed]
    assert list(dict.fromkeys(e.kind for e in steps)) == ["input", *kinds, "residual"]
    assert len(kinds) > 2
    assert [e.label for e in steps if e.kind == "input"] == list(explanation.relevance)
    for kind, amount in explanation.absorbed.items():
        want = amount.sum() if sample is None else amount[sample]
        assert math.fsum(e.value for e in steps if e.kind == kind) == pytest.approx(want, abs=1e-12)
    if layers:
        assert len([e for e in steps if e.kind == "bias"]) == len([k for k in explanation.ledger.values() if "bias" in k])


@given(testing.lstms(), st.sampled_from([0.0, 1.0]))
def test_every_waterfall_adds_up(case, bias_factor):
    explanation = onnx_lrp.load(case[0], bias_factor=bias_factor, **EAGER).explain(case[1])
    for sample in (None, *range(len(explanation.seed))):
        first, *steps = explanation.waterfall(sample, layers=True)
        assert abs(math.fsum(e.value for e in steps) - first.value) <= 1e-14 * max(abs(e.value) for e in (first, *steps))


def test_samples_add_up_to_the_sum():
    explanation = explained()
    whole, parts = explanation.books(), [explanation.books(b) for b in range(3)]
    assert whole.seed == pytest.approx(sum(p.seed for p in parts))
    for point, value in whole.points.items():
        assert value == pytest.approx(sum(p.points[point] for p in parts))
    for layer, kinds in whole.ledger.items():
        for kind, value in kinds.items():
            assert value == pytest.approx(sum(p.ledger[layer][kind] for p in parts), abs=1e-14)


def test_as_a_table_and_as_json():
    books = explained().books(1)
    lines = str(books).splitlines()
    assert len(lines) == 1 + len(books.lines())
    for part in ("relevance", "bias", "stabilizer", "absorbed in lstm", "residual", "seed"):
        assert part in str(books)
    again = json.loads(json.dumps(books.to_dict()))
    assert again.pop("absorbed") == pytest.approx(books.absorbed)
    assert Books(**again) == books


def test_a_table_without_kinds_to_tell_apart():
    model, feeds = dense()
    books = onnx_lrp.load(model, epsilon=0.0, **EAGER).explain(feeds).books(0)
    assert books.kinds == ["bias"]
    assert "stabilizer" not in str(books)


@pytest.mark.parametrize("sample", [-1, 3])
def test_no_such_sample(sample):
    with pytest.raises(onnx_lrp.InputError, match="0 to 2"):
        explained().books(sample)


def test_several_classes_have_books_each():
    model, feeds = tagger()
    found = onnx_lrp.load(model, **EAGER).explain(feeds, targets.all_classes())
    with pytest.raises(onnx_lrp.InputError, match="select"):
        found.waterfall(0)
    for k in range(len(found.seed)):
        assert found.select(k).waterfall(0)[0].value == found.seed[k, 0]


def test_the_sum_of_all_samples():
    model, feeds, _ = test_twin.network(1, direction="forward", lens=False, states=(), mean=False)
    explanation = onnx_lrp.load(model, **EAGER).explain(feeds)
    assert explanation.books().points["x"] == pytest.approx(np.sum(explanation.relevance["x"]))
