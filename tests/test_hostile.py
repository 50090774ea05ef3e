"""Files made or damaged to do harm: nothing crashes, hangs, leaks or lies, and every refusal is one line that says why."""

from __future__ import annotations

import io
import json
import os
import random
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import onnx_lrp
from onnx_lrp import InvalidModel, ModelError, ParityError, cli
from onnx_lrp.registry import Importer, registered
from onnx_lrp.testing.build import Builder

sys.path.insert(0, str(Path(__file__).parent / "fuzz"))

import worker
from bases import ZOO, bases, dense, external_bytes, looping, recurrent, scanning, words
from mutator import mutate

NASTY = "\x1b[31mred\x1b]0;title\x07\u202e\u2028<script>alert(1)</script>&\"'\x00\x9b"


def builder():
    return Builder(np.random.default_rng(0), 17)


def refused(model, match, error=InvalidModel):
    with pytest.raises(error, match=match) as caught:
        onnx_lrp.load(model)
    assert "\n" not in str(caught.value)


# no way out


@pytest.mark.parametrize("kind", ["fifo", "device", "folder", "link", "linked folder"])
def test_external_data_that_are_no_file_of_the_folder(kind, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "away").mkdir()
    (tmp_path / "away" / "weights.bin").write_bytes(external_bytes())
    location = "weights.bin"
    if kind == "fifo":
        os.mkfifo(folder / location)
    elif kind == "device":
        (folder / location).symlink_to("/dev/zero")
    elif kind == "folder":
        (folder / location).mkdir()
    elif kind == "link":
        (folder / location).symlink_to(tmp_path / "away" / "weights.bin")
    else:
        (folder / "sub").symlink_to(tmp_path / "away")
        location = "sub/weights.bin"
    model = dense()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    refused(folder / "model.onnx", "outside the model's folder|no regular file")


@pytest.mark.parametrize("where", ["sparse values", "sparse indices", "sparse attribute", "tensor attribute"])
def test_external_data_are_refused_wherever_a_tensor_may_stand(where, tmp_path):
    b = builder()
    x = b.rows(2, 3)
    values = numpy_helper.from_array(np.asarray([0.7], np.float32), "w")
    places = numpy_helper.from_array(np.asarray([[0, 1]], np.int64), "places")
    plain = numpy_helper.from_array(np.ones((3, 2), np.float32), "w")
    out = {"sparse values": values, "sparse indices": places, "sparse attribute": values, "tensor attribute": plain}[where]
    out.ClearField("raw_data")
    out.data_location = TensorProto.EXTERNAL
    out.external_data.add(key="location", value="/etc/hostname")
    sparse = helper.make_sparse_tensor(values, places, [3, 2])
    if where.endswith("attribute"):
        weight = b.op("Constant", **({"value": plain} if where.startswith("tensor") else {"sparse_value": sparse}))
        model = b.case(b.op("MatMul", x, weight))[0]
    else:
        model = b.case(b.op("MatMul", x, "w"))[0]
        model.graph.sparse_initializer.append(sparse)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    refused(tmp_path / "model.onnx", "outside the model's folder")


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_data_files_are_never_unpickled(suffix, tmp_path, capsys):
    class Bad:
        def __reduce__(self):
            return (open, (str(tmp_path / "opened"), "w"))

    file = tmp_path / f"x{suffix}"
    (np.save if suffix == ".npy" else np.savez)(file, np.array([Bad()], object), allow_pickle=True)
    onnx.save(dense(), tmp_path / "model.onnx")
    assert cli.run(["explain", str(tmp_path / "model.onnx"), str(file)]) == 4
    assert "allow_pickle" in capsys.readouterr().err
    assert not (tmp_path / "opened").exists()


# what is printed


def named(text):
    """A model whose tensors, nodes, axes and ops carry a name."""
    model = recurrent("LSTM", 4)
    tensors = {v.name for v in (*model.graph.input, *model.graph.output)} | {
        n for node in model.graph.node for n in node.output if n
    }
    for node in model.graph.node:
        node.name = text + node.name
        for field in (node.input, node.output):
            field[:] = [text + n if n in tensors else n for n in field]
    for value in (*model.graph.input, *model.graph.output):
        value.name = text + value.name
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = text
    return model


def harmless(text, *, lines=True):
    assert worker.lies(text) == ""
    assert lines or "\n" not in text.rstrip("\n")


def test_names_are_harmless_wherever_they_are_printed(tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    path = tmp_path / "model.onnx"
    onnx.save(named(NASTY), path)
    explainer = onnx_lrp.load(path)
    harmless(str(explainer.summary()))
    harmless(str(explainer.plan()))
    assert "<script>" not in explainer.summary()._repr_html_()
    x = np.ones((2, 1, 3), np.float32)
    tokens = [NASTY.replace("\x00", ""), "b"]
    explanation = explainer.explain(x)
    page = explanation.to_html(tokens=tokens)
    assert "<script>alert" not in page
    harmless(page)
    np.save(tmp_path / "x.npy", x)
    (tmp_path / "tokens.json").write_text(json.dumps(tokens))
    html, saved = tmp_path / "page.html", tmp_path / "saved.json"
    for command in (
        ["inspect", path],
        ["explain", path, tmp_path / "x.npy", "--tokens", tmp_path / "tokens.json", "--html", html, "--save", saved],
        ["explain", path, tmp_path / "x.npy", "--keep", NASTY.replace("\x00", "") + "nothing"],
        ["explain", path, tmp_path / "x.npy", "--output", NASTY.replace("\x00", "")],
        ["check", path, "--max-examples", "1", "--at", NASTY],
        ["weights", path, tmp_path / "w.npz"],
    ):
        cli.run([str(a) for a in command])
        out, err = capsys.readouterr()
        harmless(out)
        harmless(err, lines=False)
    for command in (["inspect", path, "--json"], ["explain", path, tmp_path / "x.npy", "--json"]):
        assert cli.run([str(a) for a in command]) == 0
        out = capsys.readouterr().out
        harmless(out)
        json.loads(out)
    assert "<script>alert" not in html.read_text()
    json.loads(saved.read_text())


@pytest.mark.parametrize("text", [NASTY, "n" * 100_000])
def test_errors_about_nodes_are_one_harmless_line(text, tmp_path, capsys):
    model = named(text)
    model.graph.node[0].op_type, model.graph.node[0].domain = text, "odd"
    del model.graph.node[0].attribute[:]
    model.opset_import.add(domain="odd", version=1)
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    assert cli.run(["inspect", str(path)]) == 3
    out, err = capsys.readouterr()
    harmless(out)
    harmless(err, lines=False)
    assert len(err) < 5000


# never silently wrong


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


# one bit of a weight


def flipped(model, rng):
    """The model with one bit of one float weight flipped."""
    tensors = [t for t in model.graph.initializer if t.raw_data and t.data_type == TensorProto.FLOAT]
    if not tensors:
        return None
    tensor = rng.choice(tensors)
    data = bytearray(tensor.raw_data)
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    tensor.raw_data = bytes(data)
    return model


BITS = sorted(ZOO.glob("*.onnx")) if ZOO.is_dir() else []
SOME = [p for k, p in enumerate(BITS) if os.environ.get("HYPOTHESIS_PROFILE") == "nightly" or k % 25 == 3]


@pytest.mark.skipif(not SOME, reason="no zoo beside this checkout")
@pytest.mark.parametrize("path", SOME, ids=lambda p: p.stem)
def test_a_flipped_bit_is_explained_or_refused(path, tmp_path):
    model = flipped(onnx.load(path), random.Random(path.stem))
    if model is None or not path.with_suffix(".npz").is_file():
        pytest.skip("no float weights inside the file")
    with np.load(path.with_suffix(".npz")) as archive:
        feeds = {k: archive[k] for k in archive.files if not k.startswith("out__")}
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    try:
        explanation = onnx_lrp.load(tmp_path / "model.onnx", jit="eager").explain(feeds)  # held against onnxruntime's
    except ModelError:
        return
    assert np.all(np.isfinite(explanation.seed))


# data files


CELLS = st.sampled_from(
    ["1", "-2.5", "1e999", "nan", "inf", "", " ", "x", '"', "'", "\x00", "1" * 400, "9" * 200_000, ";", "é", "1,2"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["x", "y", ""]), inner, max_size=2),
    max_leaves=8,
)
ARRAYS = st.tuples(
    st.sampled_from(["<f4", "<f8", "<i8", "|b1", "<U3", "|S2", "<c8", "<M8[s]", "|V4", "<f2", "O", "|u1"]),
    st.lists(st.sampled_from([0, 1, 2, 3, 2**31, 2**62]), max_size=5),
)


def header(dtype, shape, data=b"\0" * 24):
    """A .npy file whose header says anything."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": dtype, "fortran_order": False, "shape": tuple(shape)})
    return stream.getvalue() + data


def zipped(name, data, how=zipfile.ZIP_DEFLATED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", how) as archive:
        archive.writestr(name, data)
    return stream.getvalue()


def damaged(files):
    """Files as they are, cut off, or with a byte changed."""
    cut = st.builds(lambda d, k: d[: k % (len(d) + 1)], files, st.integers(0, 10**6))
    byte = st.builds(
        lambda d, k, v: d[: k % len(d)] + bytes([v]) + d[k % len(d) + 1 :] if d else d,
        files,
        st.integers(0, 10**6),
        st.integers(0, 255),
    )
    return files | cut | byte


NPY = ARRAYS.map(lambda a: header(*a))
FILES = {
    ".csv": damaged(st.lists(st.lists(CELLS, max_size=4).map(",".join), max_size=4).map(lambda rows: "\n".join(rows).encode())),
    ".json": damaged(VALUES.map(lambda v: json.dumps(v).encode()) | st.just(b"[" * 100_000) | st.just(b"9" * 10_000)),
    ".npy": damaged(NPY),
    ".npz": damaged(st.builds(zipped, st.sampled_from(["x.npy", "arr_0.npy", "../x.npy", "x", "y.npy"]), NPY)),
}


def one_line(path, file):
    """The command line on a file: an exit code of the contract and one line, or an explanation."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        code = cli.run(["explain", str(path), str(file), "--jit", "eager", "--verify", "never", "--json"])
    assert code in (0, 3, 4), err.getvalue()
    if code:
        assert out.getvalue() == ""
        assert err.getvalue().startswith("onnx-lrp: ")
        assert err.getvalue().count("\n") == 1
        assert len(err.getvalue()) < 2000
        harmless(err.getvalue())


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for name, make in (("dense", dense), ("words", words)):
        onnx.save(make(), folder / f"{name}.onnx")
    return folder


@pytest.mark.parametrize("suffix", FILES)
@given(data=st.data())
def test_damaged_data_files(suffix, models, data):
    content = data.draw(FILES[suffix])
    file = models / f"x{suffix}"
    file.write_bytes(content)
    one_line(models / data.draw(st.sampled_from(["dense.onnx", "words.onnx"])), file)


@given(data=st.data())
def test_damaged_parquet(models, data):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = data.draw(
        st.lists(
            st.sampled_from(
                [[1.0, 2.0], [1, None], ["a", "b"], [[1], [2]], [None, None], [True, False], [{"a": 1}, {"a": 2}], [b"x", b"y"]]
            ),
            max_size=3,
        )
    )
    stream = io.BytesIO()
    parquet.write_table(arrow.Table.from_arrays([arrow.array(c) for c in columns], [f"c{k}" for k in range(len(columns))]), stream)
    file = models / "x.parquet"
    file.write_bytes(data.draw(damaged(st.just(stream.getvalue()))))
    one_line(models / "dense.onnx", file)


def test_a_header_that_python_cannot_read(models):
    file = models / "header.npy"
    file.write_bytes(header("<f4", []).replace(b"}", b" "))
    one_line(models / "dense.onnx", file)


def test_tokens_from_json(models, tmp_path, capsys):
    np.save(tmp_path / "ids.npy", np.asarray([[1, 2, 3]]))
    (tmp_path / "tokens.json").write_text(json.dumps(["one", "two", "three"]))
    code = cli.run(["explain", str(models / "words.onnx"), str(tmp_path / "ids.npy"), "--tokens", str(tmp_path / "tokens.json")])
    assert (code, "three" in capsys.readouterr().out) == (0, True)


def test_a_zip_bomb_is_measured_before_it_is_read(models):
    file = models / "bomb.npz"
    file.write_bytes(zipped("x.npy", header("<f4", [2**40], b"\0" * 10_000_000)))
    with pytest.raises(onnx_lrp.InputError, match="declares an array"):
        onnx_lrp.report.read.read_inputs(str(file), stdin=None, series=lambda table: table)
    file.write_bytes(zipped("x.npy", header("<f4", [2_500_000], b"\0" * 10_000_000)))
    with pytest.raises(onnx_lrp.InputError, match="over the limit file_bytes"):
        onnx_lrp.report.read.read_inputs(str(file), stdin=None, series=lambda table: table, most=100_000)


# mutants: a slice of what ``python tests/fuzz`` runs by the hundred thousand


@pytest.fixture(scope="module")
def originals():
    return bases(draw=0, zoo=False)


@pytest.mark.parametrize("part", range(5))
def test_mutants(part, originals, tmp_path):
    (tmp_path / "weights.bin").write_bytes(external_bytes())
    path = tmp_path / "model.onnx"
    for index in range(part * 60, part * 60 + 60):
        rng = random.Random(f"slice/{index}")
        data, done = mutate(originals[rng.randrange(len(originals))], rng)
        path.write_bytes(data)
        verdict = worker.judge(path, worker.inspect)
        assert not verdict.startswith("bug"), (index, done, verdict)


def test_the_mutants_are_of_every_kind(originals, tmp_path):
    """The judge sees a bug, and the slice has models that are read as well as such that are refused."""
    path, verdicts = tmp_path / "model.onnx", set()
    for index in range(40):
        rng = random.Random(f"slice/{index}")
        path.write_bytes(mutate(originals[rng.randrange(len(originals))], rng)[0])
        verdicts.add(worker.judge(path, worker.inspect).split(":")[0])
    assert verdicts >= {"read", "refused"}
    assert worker.judge(path, lambda p: 1 // 0).startswith("bug: ZeroDivisionError")
