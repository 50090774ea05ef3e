"""Models that contradict themselves or the standard: each has its message, in one line."""

from __future__ import annotations

import apart
import numpy as np
import onnx
import pytest
from bases import dense, looping, scanning
from harm import builder, refused
from onnx import TensorProto, helper, numpy_helper

import onnx_lrp
from onnx_lrp import InvalidModel, ModelError, UnsupportedModel, inference, sanity
from onnx_lrp.testing.build import Builder


def renamed(kind):
    def change(model):
        values = getattr(model.graph, kind)
        values.add().CopyFrom(values[0])

    return change


def lost_output(model):
    model.graph.output[0].name = "nowhere"


def lost_input(model):
    del model.graph.node[0].input[1:]


def wrong_attribute(model):
    model.graph.node[0].attribute.append(helper.make_attribute("alpha", "one"))


def double_attribute(model):
    for value in (1.0, 2.0):
        model.graph.node[0].attribute.append(helper.make_attribute("alpha", value))


def no_type(model):
    model.graph.input[0].type.tensor_type.elem_type = 99


def negative(model):
    model.graph.initializer[0].dims[0] = -3


def two_opsets(model):
    model.opset_import.add(domain="ai.onnx", version=9)


def ints(model):
    old = model.graph.initializer[0]
    old.CopyFrom(numpy_helper.from_array(np.ones((3, 4), np.int64), old.name))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (renamed("input"), "input 'x' is there twice"),
        (renamed("initializer"), "initializer 'const0' is there twice"),
        (renamed("output"), "is there twice"),
        (lost_output, "'nowhere'"),
        (lost_input, "1 inputs, opset 17 expects 2 to 3"),
        (wrong_attribute, "'alpha' is of type STRING, opset 17 expects FLOAT"),
        (double_attribute, "'alpha' is there twice"),
        (no_type, "element type 99"),
        (negative, "negative size"),
        (two_opsets, "versions 17 and 9"),
    ],
    ids=lambda v: getattr(v, "__name__", ""),
)
def test_contradictions_each_have_their_message(change, message):
    model = dense()
    change(model)
    refused(model, message, ModelError)


def test_a_list_declared_to_be_endless():
    """onnx's shape inference takes it for a shape, and makes as many axes as it declares entries."""
    b = builder()
    ends = b.ints(2)
    model = b.case(b.gemm(b.op("Slice", b.rows(2, 3), b.ints(0), ends), 3, 2))[0]
    model.graph.value_info.append(helper.make_tensor_value_info(ends, TensorProto.INT64, [2**63 - 1]))
    refused(model, "elements", ModelError)
    model.graph.value_info[0].type.tensor_type.shape.dim[0].dim_value = 2**25
    refused(model, "list of 33_554_432 entries")


def test_a_negative_size_is_any_size():
    b = builder()
    sliced = b.op("Slice", b.rows(2, 3), b.ints(0), b.ints(2), b.ints(1))
    model, feeds = b.case(b.gemm(sliced, 2, 2))
    for dim in model.graph.input[0].type.tensor_type.shape.dim:
        dim.dim_value = -(2**31)
    model.graph.value_info.append(helper.make_tensor_value_info(sliced, TensorProto.FLOAT, [-1, -7]))
    onnx_lrp.load(model, jit="eager").explain(feeds)
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_value == -(2**31)  # the caller's own is left alone


@pytest.mark.parametrize("model", [looping, scanning], ids=["Loop", "Scan"])
def test_bodies_that_do_not_fit_their_loop(model):
    model = model()
    node = next(n for n in model.graph.node if n.op_type in ("Loop", "Scan"))
    body = next(a.g for a in node.attribute if a.name == "body")
    lacking = onnx.ModelProto()
    lacking.CopyFrom(model)
    del next(a.g for n in lacking.graph.node for a in n.attribute if a.name == "body").output[-1]
    refused(lacking, "its body has")
    if node.op_type == "Scan":
        next(a for a in node.attribute if a.name == "num_scan_inputs").i = 2**62
    else:
        body.input.add().CopyFrom(body.input[-1])
        body.input[-1].name = "more"
    refused(model, "its body has")


def test_names_that_are_no_text():
    data = dense().SerializeToString()
    assert data.count(b"Tanh1") == 1
    refused(data.replace(b"Tanh1", b"Tanh\xff"), "UTF-8")


def einsum(equation):
    """x (3, 3) → an Einsum of its name → a sum."""
    b = builder()
    x = b.rows(3, 3)
    model, _ = b.case(b.over("ReduceSum", b.op("Einsum", x, equation="ij->ij"), 1, keepdims=0))
    node = next(n for n in model.graph.node if n.op_type == "Einsum")
    node.attribute[0].s = equation
    return model


WRONG = [
    b"\xc3\xa4\xc3\xa4",
    b"i1",
    b"i.",
    b"..i",
    b"-",
    b"ij>i",
    b"i\nj",
    b"\0\0",
    b"ij->i->i",
    b"ij->i,j",
    b"......",
    b"\xff",
    b"i....j",
]


@pytest.mark.parametrize("equation", WRONG)
def test_equations_that_nothing_reads(equation):
    """From some of them shape inference never returns, neither onnx's nor onnxruntime's."""
    model = einsum(equation)
    with pytest.raises(InvalidModel, match="is no equation"):
        sanity.spelled(model)
    body = onnx.ModelProto()
    body.graph.node.append(helper.make_node("If", ["c"], ["y"], then_branch=model.graph))
    with pytest.raises(InvalidModel, match="is no equation"):
        sanity.spelled(body)
    refused(model, "is no equation")


@pytest.mark.parametrize("equation", ["ij", "ij->ji", " i j -> j i ", "...j->j...", "iJ->", "...", ""])
def test_equations_that_are_read(equation):
    sanity.spelled(einsum(equation.encode()))


@pytest.mark.parametrize("told", ["by the call", "by the function"])
def test_equations_of_functions(told):
    model = einsum(b"ij->ij")
    node = next(n for n in model.graph.node if n.op_type == "Einsum")
    inside = helper.make_node("Einsum", ["a"], ["b"])
    if told == "by the call":
        inside.attribute.add(name="equation", ref_attr_name="equation", type=onnx.AttributeProto.STRING)
    else:
        inside.attribute.append(helper.make_attribute("equation", "i1"))
    names = ["equation"] if told == "by the call" else []
    model.functions.append(helper.make_function("own", "Sums", ["a"], ["b"], [inside], model.opset_import, names))
    model.opset_import.add(domain="own", version=1)
    node.op_type, node.domain = "Sums", "own"
    if told == "by the call":
        onnx_lrp.load(model, verify="never")  # sound
        node.attribute[0].s = b"i1"
    else:
        del node.attribute[:]
    refused(model, "is no equation")


def test_a_reshape_that_makes_other_samples():
    """It fits one length; at another, samples and steps are mixed and onnxruntime runs all the same."""
    b = builder()
    x = b.input("x", b.numbers(6, 2, 3), ["T", "B", 3])
    y = b.op("LSTM", x, b.weight(1, 16, 3), b.weight(1, 16, 4), hidden_size=4)
    last = b.op("Gather", b.op("Reshape", b.op("Transpose", y, perm=[0, 2, 1, 3]), b.ints(6, -1, 4)), b.const(5, np.int64), axis=0)
    model, feeds = b.case(b.gemm(last, 4, 2))
    explainer = onnx_lrp.load(model, jit="eager")
    assert explainer.explain(feeds).seed.shape == (2,)
    with pytest.raises(onnx_lrp.InputError, match="3 samples were given and 1 came out"):
        explainer.explain(np.ones((2, 3, 3), np.float32))


def below_zero(b, x, kind):
    """Axis 2 or 0 of the result has a negative size."""
    if kind == "conv":
        return b.op("Conv", x, b.weight(1, 1, 7, 7)), 2
    if kind == "pad":
        return b.op("Pad", x, b.ints(0, 0, -5, 0, 0, 0, 0, 0)), 2
    if kind == "expand":
        return b.op("Expand", x, b.ints(-3, 1, 3, 3)), 0
    return b.op("Expand", x, b.op("Sub", b.op("Shape", x), b.ints(9, 0, 0, 0))), 0


@pytest.mark.parametrize("kind", ["conv", "pad", "expand", "told by a shape"])
@pytest.mark.parametrize("task", ["inspect", "explain", "an op that nothing reads"])
def test_a_slice_of_a_negative_size(kind, task, tmp_path):
    """An assertion in the shape inference of onnx, and of onnxruntime, ends the process: this is asked in one of its own."""
    b = builder()
    x = b.input("x", b.numbers(1, 1, 3, 3), [1, 1, 3, 3])
    if task == "an op that nothing reads":
        x = b.op("Mystery", x, domain="odd")
    y, axis = below_zero(b, x, kind)
    sliced = b.op("Slice", b.op("Tanh", y), b.ints(0), b.ints(1), b.ints(axis))
    model, _ = b.case(b.op("Slice", sliced, b.ints(0), b.ints(1), b.ints(axis)))
    if task == "an op that nothing reads":
        model.graph.value_info.append(helper.make_tensor_value_info(x, TensorProto.FLOAT, [1, 1, 3, 3]))
    onnx.save(model, tmp_path / "model.onnx")
    script = (
        "import sys, numpy as np, onnx_lrp\n"
        "try:\n"
        "    e = onnx_lrp.load(sys.argv[1], jit='eager')\n"
        f"    {'e.summary()' if task == 'inspect' else 'e.explain(np.ones((1, 1, 3, 3), np.float32))'}\n"
        "except onnx_lrp.OnnxLrpError as error:\n"
        "    print(error)\n"
    )
    done = apart.python(script, tmp_path / "model.onnx")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Slice" in done.stdout or task != "inspect"


def test_a_slice_of_a_negative_size_beside_a_sequence_map(tmp_path):
    """It is written out by onnx's inliner, which infers shapes."""
    body = helper.make_graph(
        [helper.make_node("Tanh", ["a"], ["b"])],
        "body",
        [helper.make_tensor_value_info("a", TensorProto.FLOAT, [1, 1, 3, 3])],
        [helper.make_tensor_value_info("b", TensorProto.FLOAT, None)],
    )
    b = builder()
    x = b.input("x", b.numbers(1, 1, 3, 3), [1, 1, 3, 3])
    y, axis = below_zero(b, x, "conv")
    b.op("Slice", y, b.ints(0), b.ints(1), b.ints(axis))
    mapped = b.op("SequenceMap", b.op("SequenceConstruct", x), body=body)
    model, _ = b.case(b.op("ReduceSum", b.op("ConcatFromSequence", mapped, axis=0), keepdims=0))
    onnx.save(model, tmp_path / "model.onnx")
    script = "import sys, onnx_lrp\ntry:\n    onnx_lrp.load(sys.argv[1])\nexcept onnx_lrp.InvalidModel as error:\n    print(error)"
    done = apart.python(script, tmp_path / "model.onnx")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "(1, 1, -3, -3)" in done.stdout


ONE, TENSOR = [1], numpy_helper.from_array(np.ones(1, np.float32))
TREE = {
    **dict.fromkeys(("tree_roots", "leaf_targetids", "nodes_falsenodeids", "nodes_truenodeids", "nodes_featureids"), ONE),
    **dict.fromkeys(("nodes_trueleafs", "nodes_falseleafs"), ONE),
    **dict.fromkeys(("nodes_modes", "leaf_weights", "nodes_splits"), TENSOR),
}
FATAL = {
    "RegexFullMatch": ("", 20, {"pattern": "a"}),
    "EyeLike": ("", 22, {"dtype": 1}),
    "GatherND": ("", 13, {}),
    "LabelEncoder": ("ai.onnx.ml", 1, {}),
    "TreeEnsemble": ("ai.onnx.ml", 5, TREE),
    "DictVectorizer": ("ai.onnx.ml", 1, {}),
}


@pytest.mark.parametrize("op", FATAL)
def test_what_inference_does_not_survive(op, tmp_path):
    """An input whose type nobody tells, indices of shape (0, -1), no vocabulary: reads beyond memory, which ended the process."""
    domain, version, attributes = FATAL[op]
    inputs = ["indices", "indices"] if op == "GatherND" else ["lost"]
    nodes = [
        helper.make_node("Mystery", ["x"], ["lost"], domain="odd"),
        helper.make_node(op, inputs, ["y"], domain=domain, **attributes),
    ]
    given = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [2]),
        helper.make_tensor_value_info("indices", TensorProto.INT64, [0, -1]),
    ]
    graph = helper.make_graph(nodes, "fatal", given, [onnx.ValueInfoProto(name="y")])
    versions = {"": version, "odd": 1} if not domain else {"": 20, "odd": 1, domain: version}
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid(*pair) for pair in versions.items()]), tmp_path / "m.onnx"
    )
    script = (
        "import sys, onnx\nfrom onnx_lrp import inference, reading\nprint(reading.contradiction(sys.argv[1]))\n"
        "try:\n    inference.infer(onnx.load(sys.argv[1]), data_prop=True)\nexcept Exception as error:\n    print(error)\n"
    )
    done = apart.python(script, tmp_path / "m.onnx")
    assert done.returncode == 0, (done.returncode, done.stderr[-3000:])


@pytest.mark.parametrize("jit", ["eager", "graph"])
def test_a_bound_of_a_slice_that_is_no_list(jit):
    """onnxruntime refuses it; it is one entry wherever the values are read."""
    b, found = builder(), []
    x = b.rows(2, 4)
    for bounds in ([b.const(1, np.int64), b.const(3, np.int64)], [b.ints(1), b.ints(3)]):
        y = b.op("Slice", x, *bounds, b.ints(1))
        found.append(b.op("ReduceSum", y, b.ints(1)))
    model, feeds = b.case(b.op("Concat", *found, axis=1))
    one, other = (onnx_lrp.load(model, jit=jit, verify="never").explain(feeds, k).relevance["x"] for k in (0, 1))
    np.testing.assert_array_equal(one, other)


def test_a_list_that_inference_would_follow(tmp_path):
    """Every entry as if it were a size, whatever its type: 2³¹ of them took ten gigabytes."""
    b = builder()
    x = b.input("x", b.numbers(2, 2), [2**31, 2])
    total = b.op("ReduceSum", b.op("Tanh", x), b.ints(1), keepdims=0)
    model, _ = b.case(b.op("MatMul", b.op("Unsqueeze", total, b.ints(1)), b.weight(1, 2)))
    onnx.save(model, tmp_path / "model.onnx")
    script = "import sys, onnx\nfrom onnx_lrp import inference\nprint(inference.infer(onnx.load(sys.argv[1]), data_prop=True))"
    done = apart.python(script, tmp_path / "model.onnx", gib=4)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "value_info" in done.stdout


PLACED = {
    "ArgMax": lambda b, x, axis: b.op("Mul", x, b.op("Cast", b.op("ArgMax", x, axis=axis, keepdims=1), to=1)),
    "Concat": lambda b, x, axis: b.op("Concat", x, x, axis=axis),
    "CumSum": lambda b, x, axis: b.op("CumSum", x, b.ints(axis)),
    "Embedding": lambda b, x, axis: b.op("Gather", b.weight(3, 4, 5), b.input("ids", np.asarray([0, 1]), [2]), axis=axis),
    "Gather": lambda b, x, axis: b.op("Gather", x, b.ints(0, 1), axis=axis),
    "GatherElements": lambda b, x, axis: b.op("GatherElements", x, b.const(np.zeros((2, 3, 4), np.int64)), axis=axis),
    "Hardmax": lambda b, x, axis: b.op("Mul", x, b.op("Hardmax", x, axis=axis)),
    "LayerNormalization": lambda b, x, axis: b.op("LayerNormalization", x, b.weight(*(2, 3, 4)[axis:]), axis=axis),
    "LpNormalization": lambda b, x, axis: b.op("LpNormalization", x, axis=axis),
    "Pad": lambda b, x, axis: b.op("Pad", x, b.ints(1, 1), "", b.ints(axis)),
    "ReduceMean": lambda b, x, axis: b.op("ReduceMean", x, b.ints(axis)),
    "Slice": lambda b, x, axis: b.op("Slice", x, b.ints(0), b.ints(1), b.ints(axis)),
    "Softmax": lambda b, x, axis: b.op("Softmax", x, axis=axis),
    "Split": lambda b, x, axis: b.ops("Split", x, axis=axis, num_outputs=2, outputs=2)[1],
    "Squeeze": lambda b, x, axis: b.op("Squeeze", b.op("ReduceSum", x, b.ints(*range(3)), keepdims=1), b.ints(axis)),
    "TopK": lambda b, x, axis: b.ops("TopK", x, b.ints(2), axis=axis, outputs=2)[0],
    "Transpose": lambda b, x, axis: b.op("Transpose", x, perm=[0, 1, axis]),
}
REACH = dict.fromkeys(PLACED, (-3, 2)) | {"Transpose": (2, 2)}


@pytest.mark.parametrize("op", PLACED)
def test_an_axis_that_there_is_not(op):
    """Layers count axes modulo the rank: it would be another one, where onnxruntime refuses the model and nothing is compared."""
    low, high = REACH[op]
    for axis in (low, high, low - 1, high + 1):
        b = Builder(np.random.default_rng(0), 20)
        y = PLACED[op](b, b.input("x", b.numbers(2, 3, 4), [2, 3, 4]), axis)
        model, feeds = b.case(b.op("ReduceSum", b.op("Tanh", y), keepdims=1))
        if low <= axis <= high:
            found = onnx_lrp.load(model, jit="eager", batch_axis=None).explain(feeds)
            assert "onnxruntime can't" not in str(found)
        else:
            with pytest.raises(ModelError, match=f"{axis}]? of a tensor of 3 axes"):
                onnx_lrp.load(model)


@pytest.mark.parametrize(("op", "low", "high"), [("Flatten", -3, 3), ("OneHot", -3, 2), ("Unsqueeze", -4, 3)])
def test_an_axis_behind_the_last(op, low, high):
    for axis in (low, high, low - 1, high + 1):
        b = Builder(np.random.default_rng(0), 20)
        if op == "OneHot":
            ids = b.input("ids", np.zeros((2, 3), np.int64), [2, 3])
            y = b.op("OneHot", ids, b.ints(4), b.const(np.asarray([0, 1], np.float32)), axis=axis)
        else:
            x = b.input("x", b.numbers(2, 3, 4), [2, 3, 4])
            y = b.op("Flatten", x, axis=axis) if op == "Flatten" else b.op("Unsqueeze", x, b.ints(axis))
        model, feeds = b.case(b.op("ReduceSum", b.op("Tanh", y), keepdims=1))
        if low <= axis <= high:
            onnx_lrp.load(model, jit="eager", batch_axis=None).explain(feeds)
        else:
            refused(model, f"{op} .*: axis {axis} of a tensor of")


def test_a_thousand_axes_are_counted_and_not_listed():
    b = builder()
    y = b.op("Squeeze", b.rows(2, 3), b.ints(*range(1000)))
    refused(b.case(b.op("ReduceSum", b.op("Tanh", y), keepdims=1))[0], "Squeeze .*: 1_000 axes of a tensor of 2 axes$")


OF_CONSTANTS = {
    "ReduceProd": lambda b, x, axis: b.op("ReduceProd", x, axes=[axis], keepdims=1),
    "Slice": lambda b, x, axis: b.op("Slice", x, b.ints(0), b.ints(1), b.ints(axis)),
    "Squeeze": lambda b, x, axis: b.op("Squeeze", x, b.ints(axis)),
}


@pytest.mark.parametrize("op", OF_CONSTANTS)
def test_an_axis_that_a_constant_has_not(op):
    for axis in (0, -1, 3, -4):
        b = builder()
        y = OF_CONSTANTS[op](b, b.const(np.ones((1, 1, 1), np.float32)), axis)
        model, _ = b.case(b.op("Add", b.gemm(b.rows(2, 3), 3, 1), b.op("ReduceSum", y, keepdims=1)))
        if axis in (0, -1):
            onnx_lrp.load(model)
        else:
            refused(model, f"{op} .*: constants can't be folded")


def test_axes_of_a_reversal():
    for axes, right in (((0, 1), True), ((1, 0), True), ((2, 1), False), ((0, -1), False)):
        b = builder()
        x = b.input("x", b.numbers(2, 2, 4), [2, 2, 4])
        y = b.op("ReverseSequence", x, b.ints(2, 1), batch_axis=axes[0], time_axis=axes[1])
        model, feeds = b.case(b.op("ReduceSum", b.op("Tanh", y), keepdims=1))
        if right:
            onnx_lrp.load(model, jit="eager", batch_axis=None).explain(feeds)
        else:
            with pytest.raises(UnsupportedModel, match=f"batch_axis {axes[0]} and time_axis {axes[1]}"):
                onnx_lrp.load(model)


def test_hidden_slices_change_no_shape():
    """What inference finds with Slices hidden at first is what it finds at once, inside bodies too."""
    b = builder()
    x = b.input("x", b.numbers(2, 6, 4), ["B", 6, 4])
    y = b.op("Slice", x, b.ints(0), b.ints(5), b.ints(1))
    y = b.op("Slice", b.op("Tanh", y), b.ints(1), b.ints(9), b.ints(1))
    shape = b.op("Concat", b.op("Slice", b.op("Shape", y), b.ints(0), b.ints(1), b.ints(0)), b.ints(-1), axis=0)
    model, _ = b.case(b.gemm(b.op("Reshape", y, shape), 16, 2))
    for one in (model, looping(), scanning()):
        want, got = onnx.shape_inference.infer_shapes(one, data_prop=True), inference.infer(one, data_prop=True)
        types = [{v.name: v.type for kind in (m.graph.value_info, m.graph.output) for v in kind} for m in (want, got)]
        assert types[0] == {name: types[1][name] for name in types[0]}
        assert [n.SerializeToString() for n in want.graph.node] == [n.SerializeToString() for n in got.graph.node]


def test_many_nodes_in_the_way_are_listed_quickly():
    b = builder()
    x = b.rows(2, 3)
    for _ in range(3000):
        x = b.op("Mystery", x, domain="odd")
    model = b.case(b.gemm(x, 3, 2))[0]
    with pytest.raises(onnx_lrp.UnsupportedModel, match=r"3000 node.*and 2900 more") as caught:
        onnx_lrp.load(model)
    assert len(caught.value.nodes) == 3000
    assert caught.value.cuts[0] == model.graph.node[2999].output[0]


def test_long_chains_of_functions_are_read_in_linear_memory():
    b = builder()
    x = b.rows(2, 3)
    for _ in range(3000):
        x = b.op("Tanh", x)
    model = b.case(b.gemm(x, 3, 2))[0]
    plan = onnx_lrp.load(model)._plan
    assert max(len(v.origin) for v in plan.vars.values()) <= 256


def test_types_that_do_not_fit():
    model = dense()
    ints(model)
    with pytest.raises(InvalidModel, match=r"int64"):
        onnx_lrp.load(model, jit="eager").explain(np.ones((2, 3), np.float32))


def test_a_sub_graph_that_reads_what_nothing_makes():
    model = looping()
    body = model.graph.node[1].attribute[0].g
    body.node[2].input[0] = "nowhere"
    refused(model, "nowhere", ModelError)


def test_a_bug_in_onnx_lrp_is_not_blamed_on_a_sound_model(monkeypatch):
    def broken(*arguments, **options):
        raise TypeError("a bug")

    monkeypatch.setattr("onnx_lrp.explainer.make_plan", broken)
    with pytest.raises(TypeError, match="a bug"):
        onnx_lrp.load(dense())
    model = dense()
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.ones((5, 4), np.float32), "const0"))  # of rows of 3
    with pytest.raises(InvalidModel, match="contradicts the ONNX standard"):
        onnx_lrp.load(model)
