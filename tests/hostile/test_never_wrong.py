"""A result that is wrong is an error that names the layer, never a result."""

from __future__ import annotations

import numpy as np
import pytest
from bases import dense, recurrent
from harm import builder, refused
from onnx import TensorProto, numpy_helper

import onnx_lrp
from onnx_lrp import ParityError
from onnx_lrp.registry import Importer, registered


@pytest.mark.parametrize(("op", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1), ("Gemm", 0)])
@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_weights_that_are_no_numbers(op, gates, wrong):
    model = recurrent(op, gates) if gates else dense()
    tensor = next(t for t in model.graph.initializer if len(t.dims) > 1)
    array = np.array(numpy_helper.to_array(tensor))
    array[..., -1, 1] = wrong
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    refused(model, rf"{op} .*(nan|inf) at \(.*must be finite")


def test_an_infinite_mask_is_no_weight():
    b = builder()
    masked = b.op("Softmax", b.op("Add", b.gemm(b.rows(2, 3), 3, 4), b.const([0, -np.inf, 0, 0], np.float32)), axis=-1)
    onnx_lrp.load(b.case(b.gemm(masked, 4, 2))[0])


def overflowing():
    """The second layer's result is too large for float32."""
    b = builder()
    h = b.op("MatMul", b.rows(2, 3), b.const(np.full((3, 4), 1e20), np.float32))
    y = b.op("MatMul", h, b.const(np.full((4, 4), 1e20), np.float32))
    return b.case(b.op("Tanh", b.op("MatMul", b.op("Add", y, b.weight(4)), b.weight(4, 2))))[0]


@pytest.mark.parametrize("verify", ["first", "never"])
def test_the_first_layer_that_overflows_is_named(verify):
    b = overflowing()
    second = b.graph.node[1].name
    with pytest.raises(ParityError, match=rf"'{second}' is the first layer .*inf at \(0, 0\)"):
        onnx_lrp.load(b, jit="eager", verify=verify).explain(np.ones((2, 3), np.float32))


@pytest.mark.parametrize("verify", ["first", "never"])
def test_float16_overflow_is_named(verify):
    b = builder()
    x = b.input("x", np.ones((2, 3), np.float16), ["batch", 3])
    h = b.op("MatMul", x, b.const(np.full((3, 4), 300), np.float16))
    y = b.op("MatMul", h, b.const(np.full((4, 2), 300), np.float16))
    model, feeds = b.case(y)
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    with pytest.raises(ParityError, match="float16") as caught:
        onnx_lrp.load(model, jit="eager", verify=verify).explain(feeds)
    assert model.graph.node[1].name in str(caught.value) or verify == "never"


def test_a_broken_importer_is_caught_and_its_layer_named(monkeypatch):
    """Tanh read as Softsign: the forward pass is off from there on, and the first layer that is off is the one to blame."""
    pytest.importorskip("onnxruntime")
    entry, other = registered()["", "Tanh"][-1], registered()["", "Softsign"][-1]
    wrong = Importer(other.function, "Tanh", "", entry.since, other.inputs, other.variadic, other.attributes, other.wants_node)
    b = builder()
    h = b.op("Tanh", b.gemm(b.op("Relu", b.gemm(b.rows(2, 3), 3, 5)), 5, 4))
    model, feeds = b.case(b.gemm(h, 4, 2))
    onnx_lrp.load(model, jit="eager").explain(feeds)
    monkeypatch.setitem(registered(), ("", "Tanh"), [wrong])
    with pytest.raises(ParityError, match=rf"Tanh '{model.graph.node[3].name}' is the first layer that differs"):
        onnx_lrp.load(model, jit="eager").explain(feeds)


def test_a_model_that_onnxruntime_cannot_load_says_that_nothing_is_verified():
    pytest.importorskip("onnxruntime")
    b = builder()
    x = b.input("x", b.numbers(2, 3, 3), ["batch", "time", 3])  # layout=1 is legal, and onnxruntime has no kernel for it
    _, h = b.ops("LSTM", x, b.weight(1, 16, 3), b.weight(1, 16, 4), outputs=2, hidden_size=4, layout=1)
    model, feeds = b.case(b.gemm(b.over("Squeeze", h, 1), 4, 2))
    assert "nothing is held against it" in str(onnx_lrp.load(model).summary())
    assert "nothing is held" not in str(onnx_lrp.load(dense()).summary())
    onnx_lrp.load(model, jit="eager").explain(feeds)


@pytest.mark.parametrize("jit", ["eager", "graph"])
def test_books_that_overflow(jit):
    """The sum of what a layer absorbed; what comes out at the inputs is small."""
    b = builder()
    y = b.op("MatMul", b.op("Mul", b.rows(2, 3), b.const(np.float32(1e-38))), b.const(np.ones((3, 2), np.float32)))
    model, feeds = b.case(b.op("Add", y, b.const(np.asarray([3e38, 3e38], np.float32))))
    explainer = onnx_lrp.load(model, jit=jit)
    assert np.isfinite(explainer.explain(feeds, onnx_lrp.targets.seed(np.full((2, 2), 1e30))).absorbed["bias"]).all()
    with pytest.raises(ParityError, match=r"absorbed in 'Add2 as bias' is not finite \(inf at"):
        explainer.explain(feeds, onnx_lrp.targets.seed(np.full((2, 2), 3e38)))


def test_what_onnxruntime_optimizes_away_does_not_make_a_bug():
    """A Reshape to the length of a shape: it takes it for one to the shape, and runs what can't be run as it is written."""
    b = builder()
    x = b.input("x", b.numbers(2, 1, 1), ["batch", 1, 1])
    shape = b.op("Shape", x, start=1, end=2)
    target = b.op("Concat", b.op("Shape", shape, start=0, end=1), shape, b.ints(2), axis=0)
    y = b.op("Reshape", b.op("MatMul", x, b.weight(1, 2)), target)
    model, feeds = b.case(b.gemm(b.op("ReduceSum", y, b.ints(1), keepdims=0), 2, 1))
    with pytest.raises(onnx_lrp.InputError, match=r"doesn't run on these inputs.*Reshape"):
        onnx_lrp.load(model, jit="eager").explain(feeds)
