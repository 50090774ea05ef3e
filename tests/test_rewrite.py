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


def pair(build):
    """(fused, plain): what ``build(b, fused)`` makes, each with a dense layer behind."""
    cases = []
    for fused in (True, False):
        b = builder(22)
        y, width = build(b, fused)
        cases.append(microsoft(b.case(b.op("MatMul", y, b.weight(width, 2)))))
    return cases


@pytest.mark.parametrize("addend", [False, True])
@pytest.mark.parametrize(
    ("name", "values", "settings"),
    [("Relu", [], {}), ("LeakyRelu", [0.3], {"alpha": 0.3}), ("Clip", [-0.2, 0.7], {}), ("", [], {})],
)
def test_fused_conv(name, values, settings, addend):
    def build(b, fused):
        x, w, bias, z = b.series(3, 2, 5), b.weight(4, 3, 3), b.weight(4), b.weight(3, 4)
        z = b.op("Tanh", b.op("MatMul", b.op("Transpose", x, perm=[0, 2, 1]), z))  # (B, 5, 4)
        z = b.op("Transpose", z, perm=[0, 2, 1])
        if fused:
            extra = {"activation": name, "activation_params": values} if name and values else {"activation": name} if name else {}
            y = b.op("FusedConv", x, w, bias, *([z] if addend else []), domain=MICROSOFT, pads=[1, 1], **extra)
        else:
            y = b.op("Conv", x, w, bias, pads=[1, 1])
            y = b.op("Add", y, z) if addend else y
            bounds = [b.const(np.float32(v)) for v in values] if name == "Clip" else []
            y = b.op(name, y, *bounds, **settings) if name else y
        return b.over("ReduceMean", y, 2, keepdims=0), 4

    assert_same(*pair(build))


@pytest.mark.parametrize("op", ["BiasGelu", "Gelu", "FastGelu", "FastGelu with bias", "QuickGelu"])
def test_gelus(op):
    name, _, bias = op.partition(" with ")

    def build(b, fused):
        z, c = b.op("MatMul", b.rows(2, 3), b.weight(3, 4)), b.weight(4)
        biased = name == "BiasGelu" or bias
        if fused:
            return b.op(name, z, *([c] if biased else []), domain=MICROSOFT), 4
        z = b.op("Add", z, c) if biased else z
        if name == "QuickGelu":
            return b.op("Mul", z, b.op("Sigmoid", b.op("Mul", z, b.const(np.float32(1.702))))), 4
        return b.op("Gelu", z, approximate="tanh" if name == "FastGelu" else "none"), 4

    assert_same(*pair(build))


@pytest.mark.parametrize("attention", [False, True])
def test_fused_matmul(attention):
    def build(b, fused):
        x, scale = b.series(3, 2, 4), b.const(np.float32(0.5))
        key = b.op("MatMul", x, b.weight(4, 4))
        w = b.numbers(5, 4)
        if fused and attention:
            scores = b.op("FusedMatMul", x, key, domain=MICROSOFT, transB=1, alpha=0.5)
        elif attention:
            scores = b.op("Mul", b.op("MatMul", x, b.op("Transpose", key, perm=[0, 2, 1])), scale)
        if attention:
            y, width = b.op("MatMul", b.op("Softmax", scores, axis=-1), b.op("Tanh", x)), 4
        elif fused:
            y, width = b.op("FusedMatMul", key, b.const(w), domain=MICROSOFT, transB=1, alpha=0.5), 5
        else:
            y, width = b.op("Mul", b.op("MatMul", key, b.const(w.T)), scale), 5
        return b.over("ReduceMean", y, 1, keepdims=0), width

    assert_same(*pair(build))


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("side", ["A", "B"])
def test_fused_matmul_with_its_batch_moved(side, transposed):
    def build(b, fused):
        x, scale = b.series(3, 2, 4), b.const(np.float32(0.5))  # (B, 3, 4)
        key = b.op("Transpose", b.op("MatMul", x, b.weight(4, 4)), perm=[1, 0, 2])  # time first
        turned = b.op("Tanh", b.op("Transpose", x, perm=[0, 2, 1]))  # (B, 4, 3)
        other = b.op("Tanh", x) if transposed else turned
        moved = b.op("Transpose", key, perm=[1, 2, 0] if transposed else [1, 0, 2])  # (B, 3, 4), or (B, 4, 3)
        flags = {f"transBatch{side}": 1, f"trans{side}": transposed}
        factors = (key, other) if side == "A" else (other, key)
        plain = (moved, other) if side == "A" else (other, moved)
        if fused:
            y = b.op("FusedMatMul", *factors, domain=MICROSOFT, alpha=0.5, **flags)
        else:
            y = b.op("Mul", b.op("MatMul", *plain), scale)
        width = {"A": 4 if transposed else 3, "B": 3 if transposed else 4}[side]
        return b.over("ReduceMean", y, 1, keepdims=0), width

    assert_same(*pair(build))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("simple", [False, True])
def test_skip_layer_norm(simple, bias):
    def build(b, fused):
        x, scale, shift, c = b.series(3, 2, 4), b.weight(4), b.weight(4), b.weight(4)
        other = b.op("Tanh", b.op("MatMul", x, b.weight(4, 4)))
        parameters = [scale] if simple else [scale, shift]
        if fused:
            op = "SkipSimplifiedLayerNormalization" if simple else "SkipLayerNormalization"
            extra = [c] if bias else []
            y, _, _, total = b.ops(op, x, other, *parameters, *extra, outputs=4, domain=MICROSOFT, epsilon=1e-5)
        else:
            total = b.op("Add", x, other)
            total = b.op("Add", total, c) if bias else total
            op = "SimplifiedLayerNormalization" if simple else "LayerNormalization"
            y = b.op(op, total, *parameters, axis=-1, epsilon=1e-5)
        return b.over("ReduceMean", b.op("Add", total, b.op("Relu", y)), 1, keepdims=0), 4

    assert_same(*pair(build))


@pytest.mark.parametrize("segments", [False, True])
def test_embed_layer_norm(segments):
    def build(b, fused):
        rng = np.random.default_rng(1)
        ids = b.input("ids", rng.integers(0, 5, (2, 3)).astype(np.int32), ["batch", "time"])
        kinds = b.input("kinds", rng.integers(0, 2, (2, 3)).astype(np.int32), ["batch", "time"]) if segments else ""
        words, places, types = b.weight(5, 4), b.numbers(6, 4), b.weight(2, 4)
        scale, shift = b.weight(4), b.weight(4)
        if fused:
            tables = [words, b.const(places), types if segments else ""]
            y = b.ops("EmbedLayerNormalization", ids, kinds, *tables, scale, shift, outputs=2, domain=MICROSOFT, epsilon=1e-5)[0]
        else:
            total = b.op("Add", b.op("Gather", words, ids), b.const(places[:3]))
            total = b.op("Add", total, b.op("Gather", types, kinds)) if segments else total
            y = b.op("LayerNormalization", total, scale, shift, epsilon=1e-5)
        return b.over("ReduceMean", b.op("Tanh", y), 1, keepdims=0), 4

    fused, plain = pair(build)
    for case in (fused, plain):
        testing.assert_matches_runtime(*case)
        testing.assert_conserves(*case, precision="float64")
    a, b = (list(relevance(*case).relevance.values()) for case in (fused, plain))
    assert len(a) == len(b) == 1 + segments
    for got, want in zip(a, b, strict=True):  # under other names
        np.testing.assert_allclose(got, want, atol=1e-9 * np.abs(want).max())


def test_what_is_rewritten_runs_before_a_cut_too():
    """The prefix is run as the file has it; what only the rewriting made is asked for by its own nodes."""
    b = builder()
    y = b.op("FusedGemm", b.rows(2, 3), b.weight(3, 4), b.weight(4), domain=MICROSOFT, activation="Relu")
    model, feeds = microsoft(b.case(b.gemm(y, 4, 2)))
    cut = relevance(model, feeds, at=y)
    inner = relevance(model, feeds, at=f"{y}~Gemm")
    np.testing.assert_allclose(cut.relevance[y], inner.relevance[f"{y}~Gemm"])
    testing.assert_conserves(model, feeds, precision="float64", at=y)


def test_an_activation_nobody_knows_is_refused():
    b = builder()
    y = b.op("FusedGemm", b.rows(2, 3), b.weight(3, 2), b.weight(2), domain=MICROSOFT, activation="Cheer")
    with pytest.raises(onnx_lrp.UnsupportedModel, match="'Cheer' is not read"):
        relevance(*microsoft(b.case(y)))


def test_channels_in_blocks_are_refused():
    b = builder()
    domain = "com.microsoft.nchwc"
    y = b.op("Conv", b.op("ReorderInput", b.series(3, 2, 5), domain=domain), b.weight(8, 8, 3), domain=domain)
    y = b.op("ReorderOutput", y, domain=domain, channels=8)
    with pytest.raises(onnx_lrp.UnsupportedModel, match="ORT_ENABLE_EXTENDED"):
        relevance(*microsoft(b.case(y)))
