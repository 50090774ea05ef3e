"""What files may look like: folding, inlining, external data, order, and everything that makes a file invalid."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnx_lrp
from onnx_lrp.reading import load_graph
from onnx_lrp.testing import assert_conserves, assert_matches_runtime
from onnx_lrp.testing.build import Builder


def builder():
    return Builder(np.random.default_rng(0), 17)


def dense():
    b = builder()
    return b.case(b.gemm(b.op("Tanh", b.gemm(b.rows(2, 3), 3, 4)), 4, 2))


def same(model, feeds, other):
    """Two models are the same network: equal relevance; the first is onnxruntime's too."""
    assert_matches_runtime(model, feeds)
    assert_conserves(model, feeds)
    a, b = (onnx_lrp.load(m, jit="eager", verify="never", precision="float64").explain(feeds) for m in (model, other))
    for point, relevance in b.relevance.items():
        np.testing.assert_allclose(a.relevance[point], relevance, rtol=1e-9, atol=1e-12)


def test_path_bytes_and_proto_are_the_same(tmp_path):
    model, feeds = dense()
    onnx.save(model, tmp_path / "model.onnx")
    path, data = tmp_path / "model.onnx", model.SerializeToString()
    for other in (path, str(path), data, memoryview(data)):
        same(model, feeds, other)


@pytest.mark.parametrize("taken", [True, False])
def test_if_on_a_constant_is_inlined(taken):
    b = builder()
    x = b.rows(2, 3)
    branches = {}
    for name, op in (("then_branch", "Tanh"), ("else_branch", "Relu")):
        weight = numpy_helper.from_array(b.numbers(3, 4), "w")  # both branches name it alike, and the head may too
        nodes = [helper.make_node("MatMul", [x, "w"], ["z"]), helper.make_node(op, ["z"], ["y"])]
        infos = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
        branches[name] = helper.make_graph(nodes, name, [], infos, [weight])
    z = b.op("If", b.const(taken), **branches)
    model, feeds = b.case(b.gemm(z, 4, 2))
    ops = [n.op for n in load_graph(model).nodes]
    assert "If" not in ops
    assert ("Tanh" in ops, "Relu" in ops) == (taken, not taken)
    assert_matches_runtime(model, feeds)
    assert_conserves(model, feeds)


def test_if_on_a_folded_shape_condition():
    b = builder()
    x = b.rows(2, 3)
    w = b.weight(3, 4)
    width = b.op("Gather", b.op("Shape", w), b.const(0, np.int64))
    yes = b.op("Equal", width, b.const(3, np.int64))
    infos = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    good = helper.make_graph([helper.make_node("MatMul", [x, w], ["y"])], "then", [], infos)
    bad = helper.make_graph([helper.make_node("Mystery", [x], ["y"], domain="com.example")], "else", [], infos)
    model, feeds = b.case(b.gemm(b.op("If", yes, then_branch=good, else_branch=bad), 4, 2))
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    assert_conserves(model, feeds)


def external(tmp_path, **changes):
    """A model with its weights in a file beside it, and the path; ``changes`` to the external_data entries."""
    model, feeds = dense()
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, all_tensors_to_one_file=True, location="weights.bin", size_threshold=0)
    if changes:
        proto = onnx.load(path, load_external_data=False)
        for tensor in proto.graph.initializer:
            for entry in tensor.external_data:
                entry.value = str(changes.get(entry.key, entry.value))
        path.write_bytes(proto.SerializeToString())
    return path, dense()[0], feeds


def test_external_data(tmp_path):
    path, model, feeds = external(tmp_path)
    same(model, feeds, path)


def test_external_data_missing(tmp_path):
    path, _, _ = external(tmp_path)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(onnx_lrp.InvalidModel, match=r"weights\.bin.*missing"):
        onnx_lrp.load(path)


def test_external_data_truncated(tmp_path):
    path, _, _ = external(tmp_path)
    (tmp_path / "weights.bin").write_bytes((tmp_path / "weights.bin").read_bytes()[:20])
    with pytest.raises(onnx_lrp.InvalidModel, match="truncated"):
        onnx_lrp.load(path)


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/hostname", "sub/../../secret.bin", ""])
def test_external_data_outside_the_folder(location, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(b"\0" * 4096)
    path, _, _ = external(folder, location=location)
    with pytest.raises(onnx_lrp.InvalidModel, match="outside"):
        onnx_lrp.load(path)


def test_external_data_through_a_link(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    path, _, _ = external(folder)
    (folder / "weights.bin").rename(tmp_path / "secret.bin")
    (folder / "weights.bin").symlink_to(tmp_path / "secret.bin")
    with pytest.raises(onnx_lrp.InvalidModel, match="outside"):
        onnx_lrp.load(path)


@pytest.mark.parametrize("changes", [{"offset": -4}, {"length": -1}, {"offset": 10**9}, {"length": 10**12}], ids=str)
def test_external_data_beyond_the_file(changes, tmp_path):
    path, _, _ = external(tmp_path, **changes)
    with pytest.raises(onnx_lrp.InvalidModel):
        onnx_lrp.load(path)


@pytest.mark.parametrize("changes", [{"offset": "four"}, {"length": "1e3"}], ids=str)
def test_external_data_entries_that_are_no_numbers(changes, tmp_path):
    path, _, _ = external(tmp_path, **changes)
    with pytest.raises(onnx_lrp.InvalidModel):
        onnx_lrp.load(path)


def test_external_data_without_a_path(tmp_path):
    path, _, _ = external(tmp_path)
    with pytest.raises(onnx_lrp.InvalidModel, match="by its path"):
        onnx_lrp.load(path.read_bytes())


def test_nodes_in_any_order():
    model, feeds = dense()
    shuffled = onnx.ModelProto()
    shuffled.CopyFrom(model)
    nodes = list(shuffled.graph.node)[::-1]
    del shuffled.graph.node[:]
    shuffled.graph.node.extend(nodes)
    same(model, feeds, shuffled)


def broken(change):
    model, _ = dense()
    change(model.graph)
    return model


def cycle(graph):
    graph.node[0].input[0] = graph.node[2].output[0]


def twice(graph):
    graph.node.append(helper.make_node("Relu", ["x"], [graph.node[0].output[0]], name="again"))


def shadows_input(graph):
    graph.node.append(helper.make_node("Relu", [graph.node[0].output[0]], ["x"], name="again"))


def shadows_weight(graph):
    graph.node.append(helper.make_node("Relu", ["x"], [graph.initializer[0].name], name="again"))


def undefined(graph):
    graph.node[0].input[0] = "nowhere"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (cycle, "cycle"),
        (twice, "produced twice"),
        (shadows_input, "produced twice"),
        (shadows_weight, "produced twice"),
        (undefined, "nowhere"),
    ],
)
def test_contradicting_graphs(change, message):
    with pytest.raises(onnx_lrp.InvalidModel, match=message) as caught:
        onnx_lrp.load(broken(change))
    assert "\n" not in str(caught.value)


def test_weights_whose_data_do_not_fit():
    model, _ = dense()
    model.graph.initializer[0].raw_data = model.graph.initializer[0].raw_data[:-4]
    with pytest.raises(onnx_lrp.InvalidModel, match="const0"):
        onnx_lrp.load(model)


def test_local_functions_are_inlined():
    b = builder()
    x = b.rows(2, 3)
    body = [helper.make_node("MatMul", ["a", "w"], ["z"]), helper.make_node("Tanh", ["z"], ["y"])]
    function = helper.make_function("com.example", "Layer", ["a", "w"], ["y"], body, [helper.make_opsetid("", 17)])
    first = b.op("Layer", x, b.weight(3, 3), domain="com.example")
    model, feeds = b.case(b.gemm(b.op("Layer", first, b.weight(3, 3), domain="com.example"), 3, 2))
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    assert [n.op for n in load_graph(model).nodes] == ["MatMul", "Tanh", "MatMul", "Tanh", "Gemm"]
    assert_matches_runtime(model, feeds)
    assert_conserves(model, feeds)


def test_constants_are_folded_through_chains():
    """Weights through Transpose, Concat, Slice, Reshape to the Shape of a weight, Mul by a cast constant, and Constant nodes."""
    b = builder()
    w = b.numbers(4, 3)
    halves = b.op("Concat", b.const(w[:2]), b.const(w[2:]), axis=0)
    weight = b.op("Transpose", b.op("Reshape", halves, b.op("Shape", b.const(w))), perm=[1, 0])
    scale = b.op("Cast", b.const(2, np.int64), to=TensorProto.FLOAT)
    weight = b.op("Div", b.op("Mul", weight, scale), scale)
    long = b.op("Constant", value=numpy_helper.from_array(np.asarray([1, 2, 3, 4, 5], np.float32)))
    bias = b.slice(b.op("Identity", long), [1], [5], [0])
    chained = b.case(b.op("Gemm", b.rows(2, 3), weight, bias))
    direct = builder()
    name = direct.input("x", chained[1]["x"], ["batch", 3])
    plain, _ = direct.case(direct.op("Gemm", name, direct.const(w.T), direct.const([2, 3, 4, 5], np.float32)))
    assert len(load_graph(chained[0]).nodes) == 1
    same(*chained, plain)


def test_random_ops_are_not_folded():
    b = builder()
    noise = b.op("RandomNormal", shape=[2], scale=0.0)
    assert "RandomNormal" in [n.op for n in load_graph(b.case(b.op("Add", b.gemm(b.rows(2, 3), 3, 2), noise))[0]).nodes]


@pytest.mark.parametrize("flat", [True, False])
def test_sparse_initializers(flat):
    b = builder()
    w = np.zeros((3, 2), np.float32)
    w[0, 1], w[2, 0] = 0.7, -1.2
    places = np.asarray([1, 4] if flat else [[0, 1], [2, 0]], np.int64)
    values = numpy_helper.from_array(np.asarray([0.7, -1.2], np.float32), "w")
    sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(places, "places"), [3, 2])
    model, feeds = b.case(b.op("MatMul", b.rows(2, 3), "w"))
    model.graph.sparse_initializer.append(sparse)
    c = builder()
    plain, _ = c.case(c.op("MatMul", c.input("x", feeds["x"], ["batch", 3]), c.const(w)))
    same(plain, feeds, model)


def test_initializers_listed_as_inputs():
    """Before opset 9 every weight is a graph input too; they are constants, and nothing has to be passed for them."""
    model, feeds = dense()
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    for tensor in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    assert [v.name for v in onnx_lrp.load(model).inputs] == ["x"]
    same(plain, feeds, model)
