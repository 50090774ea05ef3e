"""ONNX's own node tests, run by the engine's layers alone, with every exclusion reasoned and none of them stale."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import unittest
from collections import Counter
from pathlib import Path

import node_tests
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import onnx_lrp
from onnx_lrp import backend

DOCS = Path(__file__).resolve().parents[1] / "docs"
RECORD = json.loads((DOCS / "ops.json").read_text())

# pattern of the tests' names → why the engine does not run them
PLAIN = r"(?!.*_expanded)"  # the same test with the op written out in others passes
EXCLUDED: dict[str, str] = {
    # nothing in a network that is explained
    r"^test_(adagrad|adam|(nesterov_)?momentum)": "training: optimizers",
    rf"^test_nllloss_{PLAIN}|^test_sce_": "training: losses",
    r"^test_bernoulli": "random numbers",
    # the standard names no generator: these expect numpy's, onnxruntime has another, and what random zeros leave is no
    # explanation of a network
    r"^test_training_dropout(_default|_mask|_default_mask)?$": "random numbers of a generator that the file does not name",
    r"^test_(string_|strnormalizer|regex_full_match|tfidfvectorizer|ai_onnx_ml_label_encoder)": "text, before the first float",
    r"^test_image_decoder": "image files, before the first float",
    rf"^test_(blackman|hamming|hann)window{PLAIN}|^test_melweightmatrix|^test_(dft|stft)": "signal processing: no importer",
    r"^test_(nonmaxsuppression|roialign|det_|unique_|col2im|affine_grid|gridsample)": "detection and geometry: no importer",
    r"^test_(basic_)?deform_conv|^test_maxunpool": "positions that depend on the signal: no importer",
    r"^test_ai_onnx_ml_tree_ensemble": "trees: no rule for them",
    rf"^test_(flexattention|linear_attention|swiglu|center_crop_pad){PLAIN}": "functions: no importer, and no exporter writes them",
    r"^test_(causal_conv_with_state|cumprod|tensorscatter|bitcast)": "opsets 24 to 28: no importer, and no exporter writes them",
    # another number on purpose
    r"^test_cast(like)?_(e8m0_)?FLOAT(16)?_to_(FLOAT8|U?INT[24])": "narrow types are held in floating point, not saturated",
    r"^test_cast(like)?_U?INT[24]_to_(?!U?INT8)|^test_cast(like)?_U?INT2_": "integers of 2 and 4 bits that are graph inputs",
    r"^test_quantizelinear(_int16|_u?int[24])?$": "quantized signals are held unrounded: off by a step",
    r"^test_qlinear(conv|matmul)": "quantized signals are held unrounded: off by a step",
    r"^test_dynamicquantizelinear": "its scale depends on the batch, so its signal is not quantized at all",
    # legal, and refused by name
    r"^test_(de)?quantizelinear_blocked": "blocks of computed tensors",
    r"^test_dequantizelinear_u?int[24]": "integers of 2 and 4 bits that are graph inputs",
    r"^test_(if|constant)$": "nothing but constants, which are folded",
    # where the standard's text and onnxruntime agree against the expected values
    # 4 · 0.6 = 2.4 gives 2 entries, and `length_resized` is "the length of the resized tensor": 2, so the corners are aligned.
    # The expected values divide by 2.4 − 1 (kept on purpose, github.com/onnx/onnx/issues/2462) and align no corner.
    r"^test_resize_downsample_scales_(linear|cubic)_align_corners$": "corners that are not aligned",
}


def excluded(name: str) -> str | None:
    return next((reason for pattern, reason in EXCLUDED.items() if re.search(pattern, name)), None)


@pytest.fixture(scope="module")
def outcomes():
    if onnx.__version__ != RECORD["onnx"]:
        pytest.skip(f"the exclusions are those of onnx {RECORD['onnx']}, this is {onnx.__version__}")
    return list(node_tests.outcomes())


def test_what_is_not_excluded_passes(outcomes):
    failed = {o.name: o.error for o in outcomes if o.error and not excluded(o.name)}
    assert not failed, f"{len(failed)} fail:\n" + "\n".join(f"{n}: {e.splitlines()[0][:200]}" for n, e in failed.items())


def test_no_exclusion_is_stale(outcomes):
    passed = [o.name for o in outcomes if not o.error and excluded(o.name)]
    assert not passed, f"excluded, but {len(passed)} pass: {passed}"
    unused = [p for p in EXCLUDED if not any(re.search(p, o.name) for o in outcomes)]
    assert not unused, "patterns that match no test"
    # a pattern that only repeats another one's tests says nothing
    first = Counter(next((p for p in EXCLUDED if re.search(p, o.name)), None) for o in outcomes)
    assert [p for p in EXCLUDED if not first[p]] == []


def test_enough_passes(outcomes):
    assert sum(not o.error for o in outcomes) >= 500


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN", "Gemm", "MatMul"])
def test_all_of_the_dense_and_recurrent_ones_pass(op, outcomes):
    own = [o for o in outcomes if o.op == ("", op)]
    assert len(own) >= 6
    assert [o.name for o in own if o.error] == []


def test_the_record_of_passed_tests_is_current(outcomes):
    passed, total = Counter(), Counter()
    for o in outcomes:
        total[":".join(o.op)] += 1
        passed[":".join(o.op)] += not o.error
    stale = {
        op: (passed[op], own["passed"])
        for op, own in RECORD["ops"].items()
        if (own["passed"], own["total"]) != (passed[op], total[op])
    }
    assert not stale, f"docs/ops.json is stale, run python docs/make_ops.py --measure: {stale}"
    assert RECORD["passed"] == sum(passed.values())


def test_the_table_of_ops_is_current():
    done = subprocess.run([sys.executable, DOCS / "make_ops.py", "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_stale_table_is_noticed(tmp_path):
    for name in ("make_ops.py", "ops.json", "ops.md"):
        (tmp_path / name).write_text((DOCS / name).read_text())
    page = tmp_path / "ops.md"
    page.write_text(page.read_text().replace("| Gemm |", "| Gemn |"))
    record = tmp_path / "ops.json"
    record.write_text(record.read_text().replace(RECORD["onnx"], onnx.__version__))
    done = subprocess.run([sys.executable, tmp_path / "make_ops.py", "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "stale" in done.stdout


def test_the_backend_is_one_of_onnx():
    """Its runner takes it as any other."""
    from onnx.backend.test import BackendTest

    node_tests.cases()  # loads the data with its warnings silenced
    runner = BackendTest(backend.Engine, __name__).include(r"^test_(lstm|gru|simple_rnn)_.*_cpu$")
    result = unittest.TestResult()
    runner.test_suite.run(result)
    assert result.wasSuccessful(), (result.errors + result.failures)[:3]
    assert result.testsRun - len(result.skipped) >= 15


# the backend itself


def softplus_of_sum():
    nodes = [helper.make_node("Add", ["a", "b"], ["c"]), helper.make_node("Softplus", ["c"], ["d"])]
    infos = [helper.make_tensor_value_info(n, TensorProto.DOUBLE, [2]) for n in "ab"]
    graph = helper.make_graph(nodes, "g", infos, [helper.make_tensor_value_info("d", TensorProto.DOUBLE, [2])])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


@pytest.mark.parametrize("jit", ["eager", "graph"])
def test_run_model(jit):
    a, b = np.asarray([0.5, -1.0]), np.asarray([1.0, 2.0])
    model = softplus_of_sum()
    assert backend.is_compatible(model)
    for inputs in ([a, b], {"a": a, "b": b}):
        (d,) = backend.run_model(model, inputs, jit=jit)
        assert d.dtype == np.float64
        np.testing.assert_allclose(d, np.log1p(np.exp(a + b)), rtol=1e-12)


def test_run_node():
    x = np.asarray([[-1, 2]], np.float16)
    (y,) = backend.run_node(helper.make_node("Relu", ["x"], ["y"]), [x], outputs_info=[(np.float16, (1, 2))])
    assert y.dtype == np.float16
    assert y.tolist() == [[0, 2]]
    (z,) = backend.run_node(helper.make_node("Squeeze", ["x"], ["z"], axes=[0]), [x], opset_version=11)
    assert z.shape == (2,)


def test_missing_and_surplus_inputs():
    prepared = backend.prepare(softplus_of_sum())
    with pytest.raises(onnx_lrp.InputError, match="inputs missing: b"):
        prepared.run([np.zeros(2)])
    with pytest.raises(onnx_lrp.InputError, match="3 inputs"):
        prepared.run([np.zeros(2)] * 3)


def test_what_no_layer_runs_is_named():
    node = helper.make_node("Det", ["x"], ["y"], name="determinant")
    with pytest.raises(onnx_lrp.UnsupportedModel, match="Det 'determinant'"):
        backend.run_node(node, [np.eye(2, dtype=np.float32)])


def test_devices():
    assert backend.supports_device("CPU")
    assert not backend.supports_device("TPU")
