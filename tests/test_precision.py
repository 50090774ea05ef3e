"""Reduced precision: what is rounded, by how much results move, and TensorFlow's switch for TF32."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given

import onnx_lrp
from onnx_lrp import demo, precision
from onnx_lrp.errors import InputError
from onnx_lrp.testing import dense, grus, lstms

FRACTION = 2.0**-8  # of bfloat16: rounding to nearest keeps 8 bits, the leading one included


def of(model, inputs, **options):
    return onnx_lrp.load(model, verify="never", jit="eager", epsilon=0.1, **options).explain(inputs)


@pytest.mark.parametrize("transpose", [False, True])
def test_a_product_rounds_its_factors_and_its_result_only(transpose):
    rng = np.random.default_rng(0)
    a, w = rng.normal(size=(5, 40)).astype("f"), rng.normal(size=(7, 40) if transpose else (40, 7)).astype("f")
    got = precision.product(tf.constant(a), tf.cast(w, "bfloat16"), transpose=transpose)
    assert got.dtype == tf.float32
    exact = a @ (w.T if transpose else w)
    sizes = np.abs(a) @ np.abs(w.T if transpose else w)
    assert np.all(np.abs(got - exact) <= 3 * FRACTION * sizes)
    assert np.abs(got - exact).max() > 1e-5  # it does round
    same = precision.product(tf.constant(a), tf.constant(w), transpose=transpose)
    np.testing.assert_array_equal(same, tf.matmul(a, w, transpose_b=transpose))


@given(lstms() | grus() | dense())
def test_bfloat16_moves_relevance_by_its_rounding(drawn):
    model, inputs = drawn
    fine = of(model, inputs)
    # the same class in both, which two nearly equal scores would change
    index = fine.target if isinstance(fine.target, np.ndarray) else None
    coarse = onnx_lrp.load(model, verify="never", jit="eager", epsilon=0.1, precision="bfloat16").explain(inputs, index)
    for name, r in fine.relevance.items():
        assert coarse.relevance[name].dtype == np.float32
        moved = sum(np.abs(v).sum() for v in fine.relevance.values()) + sum(np.abs(v).sum() for v in fine.absorbed.values())
        assert np.abs(coarse.relevance[name] - r).max(initial=0) <= 0.2 * max(moved, np.abs(fine.seed).max(initial=0), 1e-2)


def test_what_bfloat16_can_hold_is_not_changed():
    from onnx import TensorProto, helper, numpy_helper

    w = np.array([[1, -2], [0.5, 4], [-8, 0.25]], np.float32)
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"])
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["B", k]) for n, k in (("x", 3), ("y", 2))]
    constants = [numpy_helper.from_array(w, "w"), numpy_helper.from_array(np.array([1, 2], np.float32), "b")]
    graph = helper.make_graph([node], "g", values[:1], values[1:], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    x = np.array([[1, 2, -4], [0.5, 0, 2]], np.float32)
    fine, coarse = of(model.SerializeToString(), x), of(model.SerializeToString(), x, precision="bfloat16")
    np.testing.assert_array_equal(coarse.outputs["y"], fine.outputs["y"])
    np.testing.assert_allclose(coarse.relevance["x"], fine.relevance["x"], rtol=2 * FRACTION)


def test_a_forward_pass_that_rounds_is_still_held_against_onnxruntime():
    pytest.importorskip("onnxruntime")
    ids = np.array([[3, 14, 159, 26]])
    for word in ("tf32", "bfloat16"):
        onnx_lrp.load(Path(demo.__file__).with_name("sentiment.onnx"), precision=word, verify="always").explain(ids)


def test_precisions_are_named():
    with pytest.raises(InputError, match="float32, float64, tf32, bfloat16"):
        onnx_lrp.load("any.onnx", precision="int8")


@pytest.fixture
def gpu(monkeypatch):
    """A machine that says it has a GPU."""
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda *_: ["/GPU:0"])
    config = tf.config.experimental
    before = config.tensor_float_32_execution_enabled()
    config.enable_tensor_float_32_execution(True)
    yield config.tensor_float_32_execution_enabled
    config.enable_tensor_float_32_execution(before)


def test_float32_is_no_tf32_on_a_gpu(gpu):
    with precision.tensor_float_32(False):
        assert not gpu()
        with precision.tensor_float_32(False):
            assert not gpu()
        assert not gpu()
    assert gpu()
    with precision.tensor_float_32(True):
        assert gpu()


def test_calls_that_want_the_switch_otherwise_wait(gpu):
    inside, leave, order = threading.Event(), threading.Event(), []

    def exact():
        with precision.tensor_float_32(False):
            inside.set()
            leave.wait(10)
            order.append(("exact", gpu()))

    def coarse():
        inside.wait(10)
        with precision.tensor_float_32(True):
            order.append(("coarse", gpu()))

    threads = [threading.Thread(target=t) for t in (exact, coarse)]
    for thread in threads:
        thread.start()
    inside.wait(10)
    leave.set()
    for thread in threads:
        thread.join(10)
    assert order == [("exact", False), ("coarse", True)]
    assert gpu()


def test_without_a_gpu_nothing_is_switched():
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    with precision.tensor_float_32(not before):
        assert tf.config.experimental.tensor_float_32_execution_enabled() == before
