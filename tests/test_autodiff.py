"""The engine is input × gradient of the modified program (``autodiff``), for whole graphs, and both are what the zoo stores."""

from __future__ import annotations

import csv
from pathlib import Path

import autodiff
import autodiff.back
import numpy as np
import pytest
from hypothesis import event, given
from hypothesis import strategies as st

import onnx_lrp
from onnx_lrp import testing

SHARED = Path(__file__).resolve().parents[2] / "shared"
# quantized: their relevance is that of the dequantized network, only as exact as a quantization step, and the zoo stores none
LEFT_OUT = ("quant",)


def names():
    index = SHARED / "zoo" / "INDEX.tsv"
    if not index.is_file():
        return []
    with index.open() as stream:
        rows = csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [r["name"] for r in rows if not any(part in r["name"] for part in LEFT_OUT)]


NAMES = names()
REAL = sorted(p.stem for p in (SHARED / "real").glob("*.onnx"))


def inputs(path):
    with np.load(path.with_suffix(".npz")) as archive:
        return {k: archive[k] for k in archive.files if not k.startswith("out__")}


def assert_same(got, want, tolerance=1e-6):
    """Relevance at the same points, equal relative to the largest of all."""
    assert set(got) == set(want)
    scale = max(max(float(np.abs(r).max(initial=0)) for r in want.values()), 1e-9)
    for point, relevance in want.items():
        error = float(np.abs(got[point] - relevance).max(initial=0))
        assert error <= tolerance * scale, f"relevance at {point!r}: off by {error:.2e} of {scale:.2e}"


def explain(model, feeds, **options):
    return onnx_lrp.load(model, **{"precision": "float64", "jit": "eager", "verify": "never", **options}).explain(feeds)


@pytest.mark.skipif(not NAMES, reason="no zoo beside this checkout")
@pytest.mark.parametrize("name", NAMES)
def test_model_of_the_zoo(name):
    path = SHARED / "zoo" / f"{name}.onnx"
    feeds = inputs(path)
    relevance, seed = autodiff.relevance(path, feeds)
    reference = path.parent / "relevance" / f"{name}.npz"
    if reference.is_file():
        with np.load(reference) as archive:
            assert_same(relevance, {k[3:]: archive[k] for k in archive.files if k.startswith("R__")})
            np.testing.assert_allclose(seed, archive["seed"], rtol=1e-6, atol=1e-9)
    explanation = explain(path, feeds)
    assert_same(explanation.relevance, relevance)
    np.testing.assert_allclose(explanation.seed.sum(), seed.sum(), rtol=1e-6)


@pytest.mark.skipif(not REAL, reason="no trained models beside this checkout")
@pytest.mark.parametrize("name", REAL)
def test_trained_model(name):
    path = SHARED / "real" / f"{name}.onnx"
    feeds = inputs(path)
    relevance, seed = autodiff.relevance(path, feeds)
    explanation = explain(path, feeds, jit="graph")
    assert_same(explanation.relevance, relevance)
    np.testing.assert_allclose(explanation.seed.sum(), seed.sum(), rtol=1e-6)


@given(testing.models(), st.sampled_from([0.001, 0.1]))
def test_drawn_model(case, epsilon):
    model, feeds = case
    try:
        relevance, _ = autodiff.relevance(model, feeds, epsilon)
    except autodiff.Missing as error:
        event(f"no TensorFlow function for {error}")
        return
    assert_same(explain(model, feeds, epsilon=epsilon).relevance, relevance)


def _rnn():
    from onnx_lrp.testing.build import Builder

    b = Builder(np.random.default_rng(0), 17)
    x = b.input("x", b.numbers(3, 2, 2), ["time", "batch", 2])
    y = b.op("RNN", x, b.weight(1, 3, 2), b.weight(1, 3, 3), hidden_size=3)
    return b.case(b.gemm(b.op("Reshape", y, b.ints(3, -1, 3)), 3, 2))


@pytest.mark.parametrize("part", ["secant", "stabilizer"])
def test_a_wrong_gradient_is_noticed(part, monkeypatch):
    """Plain derivatives instead of secants, or blocks without their stabilizer, are another relevance."""
    model, feeds = _rnn()
    want = explain(model, feeds).relevance
    assert_same(autodiff.relevance(model, feeds)[0], want)
    original = autodiff.back.modified

    def wrong(x, sources, epsilon):
        if part == "secant" and x.kind == "pass":
            return x.function(*sources)
        return original(x, sources, None if part == "stabilizer" else epsilon)

    monkeypatch.setattr(autodiff.back, "modified", wrong)
    with pytest.raises(AssertionError, match="off by"):
        assert_same(autodiff.relevance(model, feeds)[0], want)
