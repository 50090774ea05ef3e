"""Fused nodes are the network they were fused from: the same outputs and the same relevance, and onnxruntime agrees."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

import onnx_lrp
from onnx_lrp import testing
from onnx_lrp.testing.build import Builder

MICROSOFT = "com.microsoft"


def builder(opset=17):
    return Builder(np.random.default_rng(0), opset)


def microsoft(case):
    model, feeds = case
    model.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
    return model, feeds


def relevance(model, feeds, **options):
    return onnx_lrp.load(model, **{"precision": "float64", "jit": "eager", "verify": "never", **options}).explain(feeds)


def assert_same(fused, plain):
    """Both are read by onnxruntime as by this package, and relevance is the same."""
    for case in (fused, plain):
        testing.assert_matches_runtime(*case)
        testing.assert_conserves(*case, precision="float64")
    a, b = relevance(*fused), relevance(*plain)
    assert a.relevance.keys() == b.relevance.keys()
    for point, want in b.relevance.items():
        np.testing.assert_allclose(a.relevance[point], want, atol=1e-9 * np.abs(want).max())


@pytest.mark.parametrize(("name", "settings"), [("Relu", {}), ("LeakyRelu", {"alpha": 0.3}), ("Elu", {"alpha": 0.7}), ("Tanh", {})])
def test_fused_gemm(name, settings):
    def build(fused):
        b = builder()
        x, w, c, last = b.rows(3, 4), b.weight(5, 4), b.weight(5), b.weight(5, 2)
        if fused:
            extra = {f"activation_{k}": v for k, v in settings.items()}
            y = b.op("FusedGemm", x, w, c, domain=MICROSOFT, transB=1, activation=name, **extra)
        else:
            y = b.op(name, b.op("Gemm", x, w, c, transB=1), **settings)
        return microsoft(b.case(b.op("MatMul", y, last)))

    assert_same(build(fused=True), build(fused=False))


def test_an_activation_nobody_knows_is_refused():
    b = builder()
    y = b.op("FusedGemm", b.rows(2, 3), b.weight(3, 2), b.weight(2), domain=MICROSOFT, activation="Cheer")
    with pytest.raises(onnx_lrp.UnsupportedModel, match="'Cheer' is not read"):
        relevance(*microsoft(b.case(y)))
