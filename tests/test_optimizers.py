"""Before = after: what onnxruntime's optimizer, onnxslim and onnxsim make of a model gets the same relevance."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import onnx_lrp
from onnx_lrp import testing

MODELS = testing.models()
CELLS = testing.cell_spellings().flatmap(lambda case: st.sampled_from([(m, case[1]) for m in case[0]]))
# a large stabilizer: optimizers fold constants in float32, and a small one would blow their rounding up
OPTIONS = {"precision": "float64", "jit": "eager", "verify": "never", "epsilon": 0.1}


def draw(data):
    model, feeds = data.draw(st.one_of(MODELS, CELLS))
    # a sum over one entry is no sum: what Compress leaves is known to have length 1 only where its condition is folded
    assume(all(n.op_type != "Compress" for n in model.graph.node))
    return model, feeds


def relevance(model, feeds):
    return onnx_lrp.load(model, **OPTIONS).explain(feeds, 0).relevance


def assert_same(model, other, feeds):
    want, got = relevance(model, feeds), relevance(other, feeds)
    assert set(want) == set(got)
    for point, array in want.items():
        scale = max(np.abs(array).max(), 1e-6)
        error = np.abs(got[point] - array).max()
        assert error <= 1e-5 * scale, f"{point!r}: off by {error:.2e} of {scale:.2e}"


def with_ranks(model, feeds):
    """The model with the rank of every output: onnxsim raises "Field 'shape' of 'type' is required" where a file leaves it out."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    results = onnx_lrp.load(model, **OPTIONS).predict(feeds)
    for output in copy.graph.output:
        kind = output.type.tensor_type
        if not kind.HasField("shape"):
            kind.shape.dim.extend(onnx.TensorShapeProto.Dimension() for _ in range(results[output.name].ndim))
            kind.shape.SetInParent()  # a scalar's shape has no dimension to make it
    return copy


def by_onnxruntime(model, level, folder):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = level
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return onnx.load(folder / "optimized.onnx")


@pytest.mark.parametrize("level", ["BASIC", "EXTENDED"])
@given(data=st.data())
def test_onnxruntime_changes_nothing(level, data, tmp_path_factory):
    import onnxruntime

    model, feeds = draw(data)
    levels = onnxruntime.GraphOptimizationLevel
    other = by_onnxruntime(model, getattr(levels, f"ORT_ENABLE_{level}"), tmp_path_factory.mktemp("optimized"))
    assert_same(model, other, feeds)


@settings(max_examples=settings.get_profile(settings.get_current_profile_name()).max_examples // 2)
@given(data=st.data())
def test_onnxslim_changes_nothing(data):
    onnxslim = pytest.importorskip("onnxslim")
    model, feeds = draw(data)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    other = onnxslim.slim(copy)
    assume(other is not None)
    assert_same(model, other, feeds)


@settings(max_examples=settings.get_profile(settings.get_current_profile_name()).max_examples // 2)
@given(data=st.data())
def test_onnxsim_changes_nothing(data):
    onnxsim = pytest.importorskip("onnxsim")
    model, feeds = draw(data)
    other, fine = onnxsim.simplify(with_ranks(model, feeds))
    assume(fine)
    assert_same(model, other, feeds)
