"""What made this package or a library below take time or memory without end, or end the process: each is read or refused."""

from __future__ import annotations

import io
import itertools
import sys

import apart
import numpy as np
import onnx
import pytest
from bases import dense
from harm import builder, refused
from onnx import helper

import onnx_lrp
from onnx_lrp.reading import load_graph
from onnx_lrp.report.described import MOST_ROWS, describe

SCRIPT = """
import sys, onnx_lrp
try:
    print(len(onnx_lrp.load(sys.argv[1]).summary().rows))
except onnx_lrp.OnnxLrpError as error:
    print(type(error).__name__, error)
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM:")), file=sys.stderr)
"""


def survived(model, tmp_path):
    """What becomes of a model in a process of its own, which has 4 GiB and 30 s of the processor."""
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    done = apart.python(SCRIPT, path, gib=4, seconds=30)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stderr.split()[-1]) < 2**20  # KiB
    return done.stdout.strip()


def sliced(step, how):
    """The shape of an input sliced with a step that is a constant, the product of two, or computed of the shape itself."""
    b = builder()
    x = b.input("x", b.numbers(2, 3), [2, 3])
    shape = b.op("Shape", x)
    if how == "constant":
        steps = b.ints(step)
    elif how == "product":
        steps = b.op("Mul", b.ints(2**16), b.ints(step // 2**16))
    else:
        steps = b.op("Mul", b.op("Gather", shape, b.ints(0)), b.ints(step // 2))
    some = b.op("Slice", shape, b.ints(1), b.ints(2**63 - 1), b.ints(0), steps)
    wide = b.op("ConstantOfShape", some)
    return b.case(b.gemm(b.op("Add", x, wide), 3, 2))[0]


@pytest.mark.skipif(sys.platform != "linux", reason="limits of a process")
@pytest.mark.parametrize("how", ["constant", "product", "of the shape"])
@pytest.mark.parametrize("step", [2**62, 2**32, 2**31 - 1])
def test_steps_of_a_slice_that_overflow_in_shape_inference(step, how, tmp_path):
    found = survived(sliced(step, how), tmp_path)
    assert found.isdigit() or found.startswith(("InvalidModel", "UnsupportedModel"))


def test_ordinary_steps_still_tell_shapes():
    assert onnx_lrp.load(sliced(1, "constant"))._plan.graph.tame
    assert not onnx_lrp.load(sliced(2**31, "constant"))._plan.graph.tame


@pytest.mark.skipif(sys.platform != "linux", reason="limits of a process")
def test_a_split_that_contradicts_itself(tmp_path):
    b = builder()
    b.opset = 20
    parts = [f"part{k}" for k in range(4)]
    x = b.rows(2, 4)
    b.nodes.append(helper.make_node("Split", [x], parts, "split", axis=1, num_outputs=2))
    model = b.case(b.op("Concat", *parts, axis=1))[0]
    model.opset_import[0].version = 20
    assert "num_outputs says 2" in survived(model, tmp_path)


def test_a_shape_of_millions_of_axes():
    b = builder()
    axes = b.op("Expand", b.ints(1), b.ints(10_000_000))
    model = b.case(b.op("Add", b.rows(2, 3), b.op("Expand", b.weight(1), axes)))[0]
    refused(model, "Expand '.*': a shape of 10_000_000 axes")


@pytest.mark.skipif(sys.platform != "linux", reason="limits of a process")
@pytest.mark.parametrize("opset", [7, 17])
def test_a_constant_whose_size_nobody_tells(opset, tmp_path):
    """Resize is not there in opset 7, and in 17 it has one of scales and sizes: the reference evaluator believes either."""
    b = builder()
    scales = b.ints(2**28, 1, 1000) if opset == 7 else b.const([2.0**28, 1, 1000], np.float32)
    b.nodes.append(helper.make_node("Resize", [b.weight(1, 1, 1), "", scales, b.ints(2, 2, 2)], ["big"], "big"))
    model = b.case(b.op("Add", b.rows(2, 3), "big"))[0]
    model.opset_import[0].version = opset
    assert "Resize 'big'" in survived(model, tmp_path)


@pytest.mark.parametrize("where", ["node", "input", "attribute", "in a body"])
def test_names_that_are_no_text(where):
    b = builder()
    model = b.case(b.gemm(b.op("Elu", b.rows(2, 3), alpha=0.5), 3, 2))[0]
    old = {"node": b"Gemm1", "input": b"gemm1_0", "attribute": b"alpha", "in a body": b"inside"}[where]
    if where == "in a body":
        from bases import looping

        model = looping()
        next(a.g for n in model.graph.node for a in n.attribute if a.name == "body").node[0].name = "inside"
    data = model.SerializeToString()
    assert old in data
    refused(data.replace(old, old[:-1] + b"\xff"), "UTF-8")


def test_onnxruntime_is_not_tried_with_thousands_of_nodes_that_functions_hide(monkeypatch):
    """Functions of another opset than the model's are not inlined: it has three nodes, and onnxruntime makes 2,187 of one."""
    b = builder()
    x = b.rows(2, 3)
    b.op("Shape", x)
    model = b.case(b.gemm(x, 3, 2))[0]
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("deep", 1)]
    for level in range(7):
        op, domain = ("Shape", "") if level == 6 else (f"f{level + 1}", "deep")
        calls = [helper.make_node(op, [a], [b], domain=domain) for a, b in itertools.pairwise(["x", "m0", "m1", "y"])]
        model.functions.append(helper.make_function("deep", f"f{level}", ["x"], ["y"], calls, imports))
    model.opset_import.add(domain="deep", version=1)
    model.graph.node[0].op_type, model.graph.node[0].domain = "f0", "deep"
    asked = []
    monkeypatch.setattr("onnx_lrp.runtime.Runtime._session", lambda self, source: asked.append(source))
    explainer = onnx_lrp.load(model)
    assert explainer._graph.size > 2187
    explainer.summary()
    assert not asked


def test_a_long_model_is_printed_in_part():
    model = dense()
    for level in range(8):
        op, domain = ("Tanh", "") if level == 7 else (f"f{level + 1}", "deep")
        calls = [helper.make_node(op, [a], [b], domain=domain) for a, b in itertools.pairwise(["x", "m0", "m1", "y"])]
        model.functions.append(helper.make_function("deep", f"f{level}", ["x"], ["y"], calls, model.opset_import))
    model.opset_import.add(domain="deep", version=1)
    model.graph.node[1].op_type, model.graph.node[1].domain = "f0", "deep"
    summary, out = onnx_lrp.load(model).summary(), io.StringIO()
    describe(summary, file=out)
    more = len(summary.rows) - MOST_ROWS
    assert more > 0
    assert out.getvalue().rstrip().endswith(f"… and {more} more (--json)")
    assert out.getvalue().count("Tanh") < MOST_ROWS + 10
    assert len(summary.to_dict()["rows"]) == len(summary.rows)


@pytest.mark.skipif(sys.platform != "linux", reason="limits of a process")
@pytest.mark.parametrize("how", ["target", "axes"])
def test_a_list_of_integers_that_is_no_shape(how, tmp_path):
    """onnx's shape inference holds the values of such lists one by one: 2,147,483,647 of them took 8 GiB."""
    b = builder()
    x = b.rows(2, 3)
    many = b.op("Cast", b.op("Reshape", b.op("ArgMax", x, axis=1), b.ints(2**31 - 1)), to=onnx.TensorProto.INT32)
    y = b.op("MatMul", b.op("Tanh", x), b.weight(3, 2))
    if how == "axes":
        y = b.op(
            "MatMul",
            b.op(
                "Reshape", b.op("Tanh", x), b.op("Shape", b.op("Expand", b.weight(1), b.op("Expand", b.op("Shape", x), b.ints(2))))
            ),
            b.weight(3, 2),
        )
    model, _ = b.case(y)
    if how != "axes":
        model.graph.output.append(onnx.helper.make_tensor_value_info(many, onnx.TensorProto.INT32, None))
    survived(model, tmp_path)


def test_a_sum_of_itself_again_and_again_is_one_branch(tmp_path):
    """x + x, 300 times: as many paths as 2 to the 300, and one block of 300 layers."""
    b = builder()
    x = b.op("MatMul", b.rows(2, 3), b.weight(3, 3))
    for _ in range(300):
        x = b.op("Mul", b.op("Add", x, x), b.const(np.float32(0.5)))
    model, _ = b.case(b.op("MatMul", b.op("Tanh", x), b.weight(3, 2)))
    assert survived(model, tmp_path) == "603"


def chained(depth, mode):
    """A tree each of whose nodes but the last has a leaf and the next node below it."""
    b = builder()
    count = 2 * depth + 1
    trees = {
        "nodes_treeids": [0] * count,
        "nodes_nodeids": [*range(count)],
        "nodes_featureids": [0] * count,
        "nodes_modes": [mode, "LEAF"] * depth + ["LEAF"],
        "nodes_values": [0.0] * count,
        "nodes_truenodeids": [n for k in range(depth) for n in (2 * k + 1, 0)] + [0],
        "nodes_falsenodeids": [n for k in range(depth) for n in (2 * k + 2, 0)] + [0],
        "target_treeids": [0],
        "target_nodeids": [1],
        "target_ids": [0],
        "target_weights": [1.0],
    }
    y = b.op("TreeEnsembleRegressor", b.rows(2, 3), domain="ai.onnx.ml", n_targets=1, **trees)
    return b.case(b.op("Add", b.gemm("x", 3, 1), y))[0]


def test_trees_that_onnxruntime_does_not_survive(tmp_path):
    assert "more than 2_000 nodes deep" in survived(chained(30_000, "BRANCH_LEQ"), tmp_path)
    refused(chained(2001, "BRANCH_LEQ"), "TreeEnsembleRegressor 'Tree.*: its trees are more than 2_000 nodes deep")
    load_graph(chained(1500, "BRANCH_LEQ"))


@pytest.mark.parametrize("shape", [(4, 2**16, 500), (5,)])
def test_a_shift_of_another_shape_than_its_scale(shape):
    """They are one factor and one shift: (4, 65536, 1000) and (1,) made arrays of gigabytes."""
    b = builder()
    shift = b.op("ConstantOfShape", b.ints(*shape))
    rest = [b.const([1], np.float32) for _ in range(3)]
    y = b.op("BatchNormalization", b.rows(2, 1), rest[0], shift, *rest[1:])
    refused(b.case(b.gemm(y, 1, 2))[0], "one entry a channel", onnx_lrp.UnsupportedModel)


@pytest.mark.parametrize("op", ["Loop", "Scan"])
def test_a_body_with_a_cycle(op):
    """Names are followed before the body is sorted."""
    b = builder()
    x = b.rows(2, 3)
    nodes = [helper.make_node("Identity", ["there"], ["here"]), helper.make_node("Identity", ["here"], ["there"])]
    state = helper.make_tensor_value_info("state", onnx.TensorProto.FLOAT, [2, 3])
    out = helper.make_tensor_value_info("here", onnx.TensorProto.FLOAT, [2, 3])
    number, going = (helper.make_tensor_value_info(n, t, []) for n, t in (("number", 7), ("going", 9)))
    if op == "Loop":
        y = b.op("Loop", b.const(3, np.int64), "", x, body=helper.make_graph(nodes, "body", [number, going, state], [going, out]))
    else:
        y = b.op("Scan", x, body=helper.make_graph(nodes, "body", [state], [out]), num_scan_inputs=0)
    refused(b.case(b.gemm(y, 3, 2))[0], "cycle through Identity")


def test_a_tree_with_a_cycle():
    model = chained(1500, "BRANCH_LEQ")
    node = next(n for n in model.graph.node if n.op_type == "TreeEnsembleRegressor")
    next(a for a in node.attribute if a.name == "nodes_falsenodeids").ints[2998] = 0
    refused(model, "have a cycle")


@pytest.mark.parametrize("batch_dims", [-1, -(2**62), -(2**63)])
def test_a_negative_number_of_batch_axes(batch_dims):
    b = builder()
    y = b.op("GatherND", b.const(b.numbers(2, 3)), b.const([[0], [1]], np.int64), batch_dims=batch_dims)
    refused(b.case(b.op("Add", b.rows(2, 3), y))[0], f"GatherND.* batch_dims is {batch_dims}; expected 0 or more")


@pytest.mark.parametrize(("ratio", "width", "error"), [(40_000, 4, onnx_lrp.InvalidModel), (0, 1e9, onnx_lrp.ModelError)])
def test_regions_of_points_without_number(ratio, width, error):
    b = builder()
    regions = [b.const(b.numbers(1, 1, 4, 4)), b.const([[0, 0, width, width]], np.float32), b.ints(0)]
    y = b.op("RoiAlign", *regions, output_height=1, output_width=1, sampling_ratio=ratio)
    refused(b.case(b.op("Add", b.rows(2, 3), b.op("Squeeze", y)))[0], "RoiAlign.*(sampling_ratio|tensor_elements)", error)


@pytest.mark.parametrize("equation", ["ab,bc,cd,da->", "ab,bc,cd,da"])
def test_a_small_product_of_constants_by_way_of_a_large_one(equation):
    b = builder()
    y = b.op("Einsum", *(b.const(np.ones(s, np.float32)) for s in 2 * [(10**5, 1), (1, 10**5)]), equation=equation)
    refused(b.case(b.op("Add", b.rows(2, 3), y))[0], "a tensor inside Einsum .*tensor_elements", onnx_lrp.ModelError)
