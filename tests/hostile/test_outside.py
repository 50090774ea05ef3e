"""No way out of the model's folder, and no code from files."""

from __future__ import annotations

import os

import numpy as np
import onnx
import pytest
from bases import dense, external_bytes
from harm import builder, refused
from onnx import TensorProto, helper, numpy_helper

from onnx_lrp import cli


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


def test_an_external_file_whose_name_is_no_text(tmp_path):
    (tmp_path / "weights.bin").write_bytes(external_bytes())
    model = dense()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    data = model.SerializeToString()
    assert data.count(b"weights.bin") == 1
    (tmp_path / "model.onnx").write_bytes(data.replace(b"weights.bin", b"wei\xa6hts.bin"))
    refused(tmp_path / "model.onnx", "no UTF-8 text")


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
