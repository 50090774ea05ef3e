"""Shape arithmetic as exporters write it: the batch and the time axis are found behind it, for any sizes."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnx_lrp
from onnx_lrp.registry import find
from onnx_lrp.testing.build import Builder

END = 2**63 - 1
WIDTH = 4


def scalar(b, number):
    return b.const(number, np.int64)


def size(b, x, axis):
    """PyTorch's legacy exporter: x.size(axis) as a scalar."""
    return b.op("Gather", b.op("Shape", x), scalar(b, axis), axis=0)


def joined(b, *parts):
    """Scalars and numbers as one shape."""
    return b.op("Concat", *(b.ints(p) if isinstance(p, int) else b.over("Unsqueeze", p, 0) for p in parts), axis=0)


def legacy_view(b, x):
    """x.view(x.size(0), x.size(1), 2, -1)"""
    return b.op("Reshape", x, joined(b, size(b, x, 0), size(b, x, 1), 2, -1)), "B T 2 2"


def legacy_merge(b, x):
    """x.view(x.size(0) * x.size(1), -1)"""
    rows = b.op("Mul", size(b, x, 0), size(b, x, 1))
    return b.op("Reshape", x, joined(b, rows, -1)), "B*T 4"


def legacy_split_again(b, x):
    """A product of sizes divided by one of them."""
    batch = size(b, x, 0)
    rows = b.op("Mul", batch, size(b, x, 1))
    merged = b.op("Reshape", x, joined(b, rows, WIDTH))
    return b.op("Reshape", merged, joined(b, batch, b.op("Div", rows, batch), WIDTH)), "B T 4"


def legacy_cast(b, x):
    """Casts between the sizes."""
    batch = b.op("Cast", b.op("Cast", size(b, x, 0), to=TensorProto.INT32), to=TensorProto.INT64)
    return b.op("Reshape", x, joined(b, batch, -1, 2, 2)), "B T 2 2"


def legacy_truth(b, x):
    """Whether there are features, as a number: 1, however many there are."""
    some = b.op("Cast", b.op("Cast", size(b, x, 2), to=TensorProto.BOOL), to=TensorProto.INT64)
    return b.op("Slice", x, b.ints(0), b.over("Unsqueeze", some, 0), b.ints(2)), "B T 1"


def legacy_expand(b, x):
    """x[:, :1].expand(-1, x.size(1), -1): -1 is resolved by ConstantOfShape, Mul, Equal and Where."""
    one = b.op("Slice", x, b.ints(0), b.ints(1), b.ints(1))
    wanted = joined(b, size(b, x, 0), size(b, x, 1), -1)
    ones = b.op("ConstantOfShape", b.ints(3), value=numpy_helper.from_array(np.ones(1, np.int64)))
    shape = b.op("Where", b.op("Equal", wanted, b.op("Mul", ones, scalar(b, -1))), ones, wanted)
    return b.op("Expand", one, shape), "B T 4"


def legacy_split_heads(b, x):
    """(B, T, F) → (B·2, T, F/2), as attention written out does."""
    batch, time = size(b, x, 0), size(b, x, 1)
    y = b.op("Reshape", x, joined(b, batch, time, 2, 2))
    y = b.op("Transpose", y, perm=[0, 2, 1, 3])
    return b.op("Reshape", y, joined(b, b.op("Mul", batch, scalar(b, 2)), time, 2)), "B*2 T 2"


def dynamo_shape(b, x):
    """Shape(start, end) → Concat → Reshape"""
    batch, time = b.op("Shape", x, start=0, end=1), b.op("Shape", x, start=1, end=2)
    return b.op("Reshape", x, b.op("Concat", batch, time, b.ints(2, 2), axis=0), allowzero=1), "B T 2 2"


def dynamo_flatten(b, x):
    batch, time = b.op("Shape", x, start=0, end=1), b.op("Shape", x, start=1, end=2)
    rows = b.op("Mul", b.over("Squeeze", batch, 0), b.over("Squeeze", time, 0))
    shape = b.op("Concat", b.op("Reshape", rows, b.ints(-1)), b.ints(WIDTH), axis=0)
    return b.op("Reshape", x, shape, allowzero=1), "B*T 4"


def dynamo_clamped(b, x):
    """A slice to min(max(n, 0), size), as indexing is decomposed."""
    time = b.over("Squeeze", b.op("Shape", x, start=1, end=2), 0)
    end = b.op("Min", b.op("Max", time, scalar(b, 0)), scalar(b, END))
    return b.op("Slice", x, b.ints(0), b.op("Reshape", end, b.ints(1)), b.ints(1), b.ints(1)), "B T 4"


def tf2onnx_reshape(b, x):
    """Shape → Cast → Slice → Concat → Cast → Reshape"""
    shape = b.op("Cast", b.op("Shape", x), to=TensorProto.INT32)
    batch = b.op("Squeeze", b.op("Slice", shape, b.ints(0), b.ints(1), b.ints(0)), b.ints(0))
    batch = b.over("Unsqueeze", batch, 0)
    wanted = b.op("Concat", batch, b.const([-1, 2, 2], np.int32), axis=0)
    return b.op("Reshape", x, b.op("Cast", wanted, to=TensorProto.INT64)), "B T 2 2"


def tf2onnx_expand(b, x):
    one = b.op("Slice", x, b.ints(0), b.ints(1), b.ints(1))
    shape = b.op("Shape", x)
    batch, time = (b.op("Slice", shape, b.ints(k), b.ints(k + 1), b.ints(0)) for k in (0, 1))
    return b.op("Expand", one, b.op("Concat", batch, time, b.ints(1), axis=0)), "B T 4"


def tf2onnx_fill(b, x):
    """A state of zeros, added: ConstantOfShape of (batch, units)."""
    batch = b.op("Slice", b.op("Shape", x), b.ints(0), b.ints(1), b.ints(0))
    zeros = b.op("ConstantOfShape", b.op("Concat", batch, b.ints(WIDTH), axis=0))
    return b.op("Add", x, b.over("Unsqueeze", zeros, 1)), "B T 4"


def split_shape(b, x):
    """The sizes by one Split of the shape."""
    batch, time, _ = b.ops("Split", b.op("Shape", x), b.ints(1, 1, 1), outputs=3, axis=0)
    return b.op("Reshape", x, b.op("Concat", time, batch, b.ints(-1), axis=0)), None


def product_of_sizes(b, x):
    """ReduceProd of the leading sizes."""
    lead = b.op("Slice", b.op("Shape", x), b.ints(0), b.ints(-1), b.ints(0))
    rows = b.op("ReduceProd", lead, b.ints(0), keepdims=1)
    return b.op("Reshape", x, b.op("Concat", rows, b.ints(WIDTH), axis=0)), "B*T 4"


def size_of_all(b, x):
    """Size divided by the last axis."""
    rows = b.op("Div", b.op("Size", x), scalar(b, WIDTH))
    return b.op("Reshape", x, joined(b, rows, WIDTH)), "B*T 4"


def positions(b, x):
    """Range over the time axis, as a mask or position table is built."""
    places = b.op("Range", scalar(b, 0), size(b, x, 1), scalar(b, 1))
    table = b.op("Gather", b.weight(9, WIDTH), places)
    return b.op("Add", x, table), "B T 4"


def tiled(b, x):
    batch = b.op("Slice", b.op("Shape", x), b.ints(0), b.ints(1), b.ints(0))
    rows = b.op("Tile", b.weight(1, WIDTH), b.op("Concat", batch, b.ints(1), axis=0))
    return b.op("Add", x, b.over("Unsqueeze", rows, 1)), "B T 4"


def padded_to_itself(b, x):
    """Pads computed from sizes that cancel."""
    time = b.op("Slice", b.op("Shape", x), b.ints(1), b.ints(2), b.ints(0))
    nothing = b.op("Sub", time, time)
    return b.op("Pad", x, b.op("Concat", b.ints(0), nothing, b.ints(0, 0), nothing, b.ints(0), axis=0)), "B T 4"


def scattered_zeros(b, x):
    """An empty tensor of the input's shape, filled step by step."""
    zeros = b.op("ConstantOfShape", b.op("Shape", x))
    places = b.op("Expand", b.ints(0), b.op("Shape", x))
    return b.op("ScatterElements", zeros, places, x, axis=2, reduction="add"), "B T 4"


def last_valid(b, x):
    """GatherND of (sample, last step)."""
    batch = size(b, x, 0)
    rows = b.op("Range", scalar(b, 0), batch, scalar(b, 1))
    last = b.op("Expand", b.op("Sub", size(b, x, 1), scalar(b, 1)), b.op("Shape", rows))
    pairs = b.op("Concat", b.over("Unsqueeze", rows, 1), b.over("Unsqueeze", last, 1), axis=1)
    return b.op("GatherND", x, pairs), "B 4"


def as_sequence(b, x):
    steps = b.op("SplitToSequence", x, axis=1, keepdims=0)
    return b.op("ConcatFromSequence", steps, axis=1, new_axis=1), "B T 4"


def compared(b, x):
    """A choice that sizes decide: at least one step, always."""
    time = size(b, x, 1)
    more = b.op("Where", b.op("Greater", time, scalar(b, 0)), time, scalar(b, 7))
    return b.op("Reshape", x, joined(b, -1, more, WIDTH)), "B T 4"


def shifted(b, x):
    """Every step moved to the next one, as a decoder reads its own past."""
    batch = b.op("Slice", b.op("Shape", x), b.ints(0), b.ints(1), b.ints(0))
    first = b.op("ConstantOfShape", b.op("Concat", batch, b.ints(1, WIDTH), axis=0))
    return b.op("Concat", first, b.op("Slice", x, b.ints(0), b.ints(-1), b.ints(1)), axis=1), "B T 4"


def shifted_by_pad(b, x):
    return b.op("Pad", b.op("Slice", x, b.ints(0), b.ints(-1), b.ints(1)), b.ints(0, 1, 0, 0, 0, 0)), "B T 4"


def turned_around(b, x):
    """Gather of a range that counts down."""
    last = b.op("Sub", size(b, x, 1), scalar(b, 1))
    return b.op("Gather", x, b.op("Range", last, scalar(b, -1), scalar(b, -1)), axis=1), "B T 4"


IDIOMS = [
    legacy_view,
    legacy_merge,
    legacy_split_again,
    legacy_cast,
    legacy_truth,
    legacy_expand,
    legacy_split_heads,
    dynamo_shape,
    dynamo_flatten,
    dynamo_clamped,
    tf2onnx_reshape,
    tf2onnx_expand,
    tf2onnx_fill,
    split_shape,
    product_of_sizes,
    size_of_all,
    positions,
    tiled,
    padded_to_itself,
    scattered_zeros,
    last_valid,
    as_sequence,
    compared,
    shifted,
    shifted_by_pad,
    turned_around,
]


def named(dim, names):
    """A dim as B, T and numbers."""
    return "*".join(names.get(r) or str(r.size) for r in dim.roots if r in names or r.size != 1) or "1"


@pytest.mark.parametrize("idiom", IDIOMS, ids=lambda f: f.__name__)
def test_axes_are_found_behind(idiom):
    b = Builder(np.random.default_rng(0), 18)
    x = b.input("x", b.numbers(3, 5, WIDTH), ["batch", "time", WIDTH])
    y, want = idiom(b, b.op("Tanh", x))
    if any(find(n.op_type, "", 18) is None for n in b.nodes):
        pytest.skip("no importer for one of its ops")
    score = b.over("ReduceSum", b.op("MatMul", b.op("Tanh", x), b.weight(WIDTH, 2)), 1, keepdims=0)
    out = helper.make_tensor_value_info(score, TensorProto.FLOAT, None)
    middle = helper.make_tensor_value_info(y, TensorProto.FLOAT, None)
    graph = helper.make_graph(b.nodes, "idiom", b.inputs, [out, middle], b.constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    explainer = onnx_lrp.load(model, output=score, jit="graph", verify="never")
    plan = explainer._plan
    assert not plan.prefix, "shape arithmetic runs inside the program"
    if want is not None:
        batch, time = (d.labels[0].root for d in plan.vars["x"].dims[:2])
        names = {batch: "B", time: "T"}
        assert " ".join(named(d, names) for d in plan.vars[y].dims) == want
    plain = onnxruntime.SessionOptions()  # its optimizer makes a Range that counts down from a computed size empty
    plain.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), plain, providers=["CPUExecutionProvider"])
    for shape in ((3, 5, WIDTH), (1, 1, WIDTH), (2, 7, WIDTH)):
        feeds = {"x": b.numbers(*shape)}
        for name, array in zip([score, y], session.run([score, y], feeds), strict=True):
            np.testing.assert_allclose(explainer.predict(feeds)[name], array, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("jit", ["eager", "graph"])
def test_the_books_close_where_the_file_tells_no_rank(jit):
    """Then all samples are one, whose absorbed relevance is that of all, in recurrent layers too."""
    rng = np.random.default_rng(0)
    b = Builder(rng, 17)
    ids = b.input("ids", rng.integers(0, 20, (3, 5)), ["batch", "time"])
    x = b.op("Transpose", b.op("Gather", b.weight(20, 6), ids), perm=[1, 0, 2])
    weights = [b.const(rng.normal(size=shape).astype(np.float32)) for shape in ((1, 32, 6), (1, 32, 8), (1, 64))]
    last = b.op("Squeeze", b.ops("LSTM", x, *weights, outputs=2, hidden_size=8)[1], b.const([0], np.int64))
    model, feeds = b.case(b.gemm(last, 8, 3))
    model.graph.input[0].type.tensor_type.ClearField("shape")
    explanation = onnx_lrp.load(model, precision="float64", jit=jit, verify="never").explain(feeds)
    assert {len(a) for a in explanation.absorbed.values()} == {1}
    assert np.abs(explanation.absorbed["bias"]).sum() > 0
    np.testing.assert_allclose(explanation.residual, 0, atol=1e-10)
