"""What callers get wrong: the right error class, one line, with what was expected."""

from __future__ import annotations

import re

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnx_lrp
from onnx_lrp.testing.build import Builder


def dense(dims=("batch", 3)):
    b = Builder(np.random.default_rng(0), 17)
    b.input("x", b.numbers(2, 3), dims)
    return b.case(b.gemm("x", 3, 2))[0]


def recurrent(*, batch="batch", time="time"):
    b = Builder(np.random.default_rng(0), 17)
    x = b.input("x", b.numbers(4, 2, 3), [time, batch, 3])
    b.nodes.append(helper.make_node("LSTM", [x, b.weight(1, 8, 3), b.weight(1, 8, 2)], ["", "h"], name="lstm", hidden_size=2))
    return b.case(b.gemm(b.over("Squeeze", "h", 0), 2, 2))[0]


def tokens(dtype=np.int32):
    b = Builder(np.random.default_rng(0), 17)
    b.input("ids", b.rng.integers(0, 5, (2, 3)).astype(dtype), ["batch", "time"])
    y = b.op("Gather", b.weight(5, 4), "ids")
    return b.case(b.gemm(b.over("ReduceMean", y, 1, keepdims=0), 4, 2))[0]


def two_inputs():
    b = Builder(np.random.default_rng(0), 17)
    return b.case(b.op("Add", b.gemm(b.rows(2, 3), 3, 2), b.gemm(b.rows(2, 3, "y"), 3, 2)))[0]


GOOD = np.ones((2, 3), np.float32)
SERIES = np.ones((4, 2, 3), np.float32)
NAN = np.where(np.eye(2, 3) > 0, np.nan, 1).astype(np.float32)

BAD = {
    "wrong rank": (dense, np.ones((2, 3, 1)), None, ["'x'", "(2, 3, 1)", "2 axes"]),
    "scalar": (dense, 1.0, None, ["'x'", "2 axes"]),
    "wrong feature size": (dense, np.ones((2, 4)), None, ["'x'", "4", "expected 3"]),
    "words": (dense, np.asarray([["a", "b", "c"]]), None, ["'x'", "float32"]),
    "objects": (dense, np.asarray([[None, {}, 1]], object), None, ["'x'", "float32"]),
    "ragged": (dense, [[1.0, 2.0, 3.0], [1.0]], None, ["'x'"]),
    "fractions for ints": (tokens, np.asarray([[0.5, 1, 2]]), None, ["'ids'", "int32", "fractions"]),
    "int out of range": (tokens, np.asarray([[2**40, 1, 2]]), None, ["'ids'", "int32", str(2**40)]),
    "id outside the embedding": (tokens, np.asarray([[0, 1, 7]]), None, ["'ids'", "7", "5 rows"]),
    "NaN": (dense, NAN, None, ["'x'", "nan", "finite"]),
    "masked": (dense, np.ma.masked_equal(np.asarray([[1, 2, 3]]), 2), None, ["'x'", "masked"]),
    "infinity": (dense, GOOD * np.inf, None, ["'x'", "inf", "finite"]),
    "overflow": (dense, GOOD.astype(np.float64) * 1e300, None, ["'x'", "overflow", "float32"]),
    "other batch": (lambda: recurrent(batch=2), np.ones((4, 3, 3)), None, ["'x'", "batch", "3", "2", "dynamic"]),
    "other length": (lambda: recurrent(time=4), np.ones((5, 2, 3)), None, ["'x'", "length 5", "expected 4"]),
    "empty batch": (dense, np.ones((0, 3)), None, ["'x'", "empty"]),
    "no steps": (recurrent, np.ones((0, 2, 3)), None, ["'x'", "empty"]),
    "target out of range": (dense, GOOD, 2, ["target 2", "0 to 1"]),
    "target negative": (dense, GOOD, -1, ["target -1", "0 to 1"]),
    "target a fraction": (dense, GOOD, 0.5, ["target", "0.5"]),
    "target a word": (dense, GOOD, "cat", ["target", "cat"]),
    "target of another batch": (dense, GOOD, [0, 1, 0], ["target", "3", "2"]),
    "texts for ids": (tokens, ["a fine film"], None, ["int32", "Tokenizer"]),
    "texts for numbers": (dense, [["a", "b"]], None, ["float32 of <U1 data"]),
    "unknown input": (dense, {"z": GOOD}, None, ["'z'", "x"]),
    "missing input": (two_inputs, {"x": GOOD}, None, ["'y'", "missing"]),
    "bare array for two inputs": (two_inputs, GOOD, None, ["2 inputs", "x, y"]),
    "two batches": (two_inputs, {"x": GOOD, "y": GOOD[:1]}, None, ["'y'", "'x'", "1", "2"]),
}


@pytest.mark.parametrize("case", BAD, ids=list(BAD))
def test_bad_input_is_refused(case):
    model, inputs, target, parts = BAD[case]
    explainer = onnx_lrp.load(model(), jit="eager", verify="never")
    with pytest.raises(onnx_lrp.InputError) as caught:
        explainer.explain(inputs, target)
    message = str(caught.value)
    assert "\n" not in message
    for part in parts:
        assert part in message, message


@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        (dense, GOOD),
        (dense, GOOD.astype(np.float64)),
        (dense, GOOD.astype(int)),
        (dense, GOOD.astype(bool)),
        (dense, GOOD.tolist()),
        (dense, {"x": GOOD}),
        (recurrent, SERIES),
        (lambda: recurrent(batch=1), SERIES),
        (tokens, [[0.0, 1.0, 4.0]]),
        (lambda: tokens(np.int64), np.asarray([[0, 1, 4]], np.uint8)),
    ],
)
def test_good_input_is_taken(model, inputs):
    explanation = onnx_lrp.load(model(), jit="eager").explain(inputs)
    assert all(np.isfinite(r).all() for r in explanation.relevance.values())
    np.testing.assert_allclose(explanation.residual, 0, atol=1e-4)


FILES = {"empty": b"", "text": b"hello, this is no model", "zeros": b"\0" * 64, "zip": b"PK\x03\x04"}


@pytest.mark.parametrize("data", FILES.values(), ids=list(FILES))
def test_not_onnx(data, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    for model in (data, path, str(path)):
        with pytest.raises(onnx_lrp.InvalidModel, match="not an ONNX model") as caught:
            onnx_lrp.load(model)
        assert "\n" not in str(caught.value)


def test_truncated_file(tmp_path):
    path = tmp_path / "model.onnx"
    data = dense().SerializeToString()
    path.write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(onnx_lrp.InvalidModel, match="damaged"):
        onnx_lrp.load(path)


@pytest.mark.parametrize("where", ["nowhere.onnx", "."])
def test_missing_file(where, tmp_path):
    with pytest.raises(onnx_lrp.InvalidModel, match="can't be read"):
        onnx_lrp.load(tmp_path / where)


def test_what_is_no_file_is_named():
    with pytest.raises(onnx_lrp.InvalidModel, match="a ModelProto, got Sequential; a framework's own model has to be exported"):
        onnx_lrp.load(type("Sequential", (), {})())


def unreadable():
    """Two nodes of an op that nobody knows, then a dense layer."""
    b = Builder(np.random.default_rng(0), 17)
    x = b.rows(2, 3)
    for name in ("first", "second"):
        b.nodes.append(helper.make_node("Mystery", [x], [name], name=f"mystery {name}", domain="com.example"))
        x = name
    model, feeds = b.case(b.gemm(b.op("Det", b.gemm(b.op("Tanh", x), 3, 4)), 4, 2))
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    return model, feeds


def test_unknown_ops_are_all_named():
    with pytest.raises(onnx_lrp.UnsupportedModel) as caught:
        onnx_lrp.load(unreadable()[0])
    message = str(caught.value)
    for part in ("mystery first", "mystery second", "Mystery", "Det", "3 node(s)", "\n"):
        assert (part in message) == (part != "\n"), message


def test_the_suggested_cut_works():
    b = Builder(np.random.default_rng(0), 17)
    x = b.rows(2, 3)
    z = x
    for _ in range(2):  # three operands are refused, but onnxruntime runs them
        z = b.op("Einsum", z, z, z, equation="bi,bi,bi->bi")
    model, feeds = b.case(b.gemm(b.op("Tanh", b.gemm(z, 3, 4)), 4, 2))
    with pytest.raises(onnx_lrp.UnsupportedModel) as caught:
        onnx_lrp.load(model)
    cut = re.search(r"at='([^']+)'", str(caught.value)).group(1)
    explanation = onnx_lrp.load(model, at=cut, jit="eager", verify="always").explain(feeds)
    assert explanation.relevance[cut].shape == (2, 3)
    np.testing.assert_allclose(explanation.residual, 0, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "error", "parts"),
    [
        ({"rule": "gradient"}, onnx_lrp.RuleError, ["gradient", "epsilon"]),
        ({"gates": "none"}, onnx_lrp.RuleError, ["none", "all"]),
        ({"epsilon": -1}, onnx_lrp.RuleError, ["epsilon", "-1"]),
        ({"epsilon": float("nan")}, onnx_lrp.RuleError, ["epsilon", "nan"]),
        ({"epsilon": 1e39}, onnx_lrp.RuleError, ["epsilon", "1e+39"]),
        ({"bias_factor": 2}, onnx_lrp.RuleError, ["bias_factor", "2"]),
        ({"at": "nowhere"}, onnx_lrp.InputError, ["nowhere"]),
        ({"output": "nowhere"}, onnx_lrp.InputError, ["nowhere"]),
        ({"precision": "float16"}, onnx_lrp.InputError, ["float16", "float32"]),
        ({"jit": "maybe"}, onnx_lrp.InputError, ["maybe", "eager"]),
        ({"verify": "maybe"}, onnx_lrp.InputError, ["maybe", "never"]),
        ({"batch_axis": 7}, onnx_lrp.InputError, ["batch_axis=7", "'x'"]),
    ],
    ids=str,
)
def test_bad_options_are_refused(options, error, parts):
    with pytest.raises(error) as caught:
        onnx_lrp.load(dense(), **options)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize("jit", ["eager", "graph"])
def test_an_infinite_score_is_told_whether_it_is_meant_or_not(jit):
    def model(grow: bool) -> bytes:
        b = Builder(np.random.default_rng(0), 17)
        y = b.gemm(b.rows(2, 3), 3, 2)
        if grow:
            return b.case(b.op("Exp", b.op("Exp", b.op("Abs", b.op("Mul", y, b.const(np.float32(1e3)))))))[0]
        return b.case(b.op("Add", y, b.const(np.asarray([[0, -np.inf]], np.float32))))[0]

    for grow, op in ((True, "Exp"), (False, "Add")):
        with pytest.raises(onnx_lrp.ParityError) as caught:
            onnx_lrp.load(model(grow), jit=jit).explain(GOOD)
        said = str(caught.value)
        assert re.match(
            r"output '\w+' is not finite although the inputs are: the model overflows on them, or .* a mask of -inf", said
        )
        assert f"{op} '{op}" in said


def test_nothing_to_explain():
    b = Builder(np.random.default_rng(0), 17)
    x = b.input("x", b.numbers(2, 3), ["batch", 3])
    y = b.op("Cast", b.op("Shape", x), to=TensorProto.FLOAT)
    with pytest.raises(onnx_lrp.UnsupportedModel, match="float path"):
        onnx_lrp.load(b.case(y)[0])


def test_a_cut_behind_an_op_nobody_can_run_is_entered_directly():
    nodes = [
        helper.make_node("Foo", ["x"], ["y"], domain="acme", name="front"),
        helper.make_node("Tanh", ["y"], ["t"]),
        helper.make_node("MatMul", ["t", "w"], ["z"]),
    ]
    weight = numpy_helper.from_array(np.asarray([[1, -1], [2, 0.5], [0.5, 1]], np.float32), "w")
    x, z = helper.make_tensor_value_info("x", 1, ["b", 3]), helper.make_tensor_value_info("z", 1, ["b", 2])
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid("acme", 1)]
    model = helper.make_model(helper.make_graph(nodes, "g", [x], [z], [weight]), opset_imports=opsets, ir_version=8)
    with pytest.raises(onnx_lrp.UnsupportedModel, match=r"acme:Foo 'front'.*at='y'"):
        onnx_lrp.load(model)
    explainer = onnx_lrp.load(model, at="y", jit="eager")
    values = np.asarray([[0.1, 0.2, 0.3], [1, -1, 0.5]], np.float32)
    with pytest.raises(onnx_lrp.UnsupportedModel, match="pass the array"):
        explainer.explain(values)
    explanation = explainer.explain({"y": values})
    assert explanation.relevance["y"].shape == values.shape
    np.testing.assert_allclose(explanation.outputs["z"], np.tanh(values) @ numpy_helper.to_array(weight), rtol=1e-5)
    assert np.all(np.abs(explanation.residual) < 1e-5)
    with pytest.raises(onnx_lrp.InputError, match="don't fit"):
        explainer.explain({"y": values[0]})


@pytest.mark.parametrize("name", ["?", "*", "-1"])
def test_any_size_is_no_name(name):
    """Some exporters write one placeholder for every size they don't know: these sizes need not be equal."""
    b = Builder(np.random.default_rng(0), 17)
    x = b.input("x", b.numbers(2, 4, 3), [name, name, 3])
    model, feeds = b.case(b.gemm(b.over("ReduceMean", b.op("Tanh", x), 1, keepdims=0), 3, 2))
    assert onnx_lrp.load(model).explain(feeds).relevance["x"].shape == (2, 4, 3)
