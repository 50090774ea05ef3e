"""Models that scale their inputs themselves: it is noted, and behind the scaling features keep their names."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnx_lrp
from onnx_lrp.labels import Labels
from onnx_lrp.report import view
from onnx_lrp.scaling import scaled
from onnx_lrp.series import Series


def model(*front, head="z"):
    """x (B, T, 2) → front → ReduceSum over time → Gemm → y (B, 2)."""
    constants = {
        "mean": np.array([60.0, 4.0], np.float32),
        "std": np.array([2.0, 0.5], np.float32),
        "none": np.zeros(2, np.float32),
        "time": np.array([1]),
        "w": np.array([[1.0, -1], [0.5, 2]], np.float32),
    }
    nodes = [
        *(helper.make_node(op, list(ins), [out], name=out) for op, *ins, out in front),
        helper.make_node("ReduceSum", [head, "time"], ["sums"], name="sums", keepdims=0),
        helper.make_node("Gemm", ["sums", "w"], ["y"], name="dense"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["B", "T", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["B", 2])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


SHIFTED = (("Sub", "x", "mean", "d"), ("Div", "d", "std", "z"))
SERIES = Series((np.array([[61.0, 4], [60, 3]]),), Labels(features=("temperature", "pressure"), units=("°C", "bar")))


def noted(proto: onnx.ModelProto, **options) -> list[str]:
    return [n for n in onnx_lrp.load(proto, **options).summary().notes if "scaled" in n]


def test_a_shift_is_noted_with_the_tensor_behind_it():
    [note] = noted(model(*SHIFTED))
    assert "'x' is scaled and shifted first" in note
    assert "at='z'" in note
    assert noted(model(*SHIFTED), at="z") == []


@pytest.mark.parametrize(
    "front",
    [
        (("Div", "x", "std", "z"),),  # no shift
        (("Sub", "x", "none", "z"),),
        (("Sub", "x", "mean", "d"), ("Mul", "d", "x", "z")),  # no constant
        (("Sub", "x", "mean", "d"), ("Add", "x", "d", "z")),  # x is read beside it
    ],
)
def test_what_is_no_shift_of_everything_is_not_noted(front):
    assert noted(model(*front)) == []


def test_names_hold_behind_the_scaling_and_nowhere_else():
    proto = model(*SHIFTED)
    assert scaled(onnx_lrp.load(proto)._graph) == {"d": "x", "z": "x"}
    names = ("temperature [°C]", "pressure [bar]")
    for at, columns in ((None, names), ("z", names), ("sums", ())):
        explanation = onnx_lrp.load(proto, at=at, jit="eager").explain(SERIES)
        [point] = view.samples(explanation)[0].points
        assert (point.labels if at == "sums" else point.columns) == (columns or ("0", "1"))
    assert explanation.labels.also == ()


def test_names_survive_saving(tmp_path):
    explanation = onnx_lrp.load(model(*SHIFTED), at="z", jit="eager").explain(SERIES)
    for suffix in (".npz", ".json"):
        explanation.save(tmp_path / f"e{suffix}")
        assert onnx_lrp.Explanation.load(tmp_path / f"e{suffix}").labels == explanation.labels


def test_relevance_behind_the_scaling_is_that_of_deviations():
    """By hand: of a sum, z·w; the raw values share the mean with the bias."""
    proto = model(*SHIFTED)
    found = onnx_lrp.load(proto, at="z", epsilon=0.0, jit="eager", precision="float64").explain(SERIES, 1)
    deviations = (SERIES.arrays[0] - [60, 4]) / [2, 0.5]
    np.testing.assert_allclose(found.relevance["z"][0], deviations * [-1, 2], atol=1e-12)
