"""Damaged data files: an exit code of the contract and one line that says why."""

from __future__ import annotations

import io
import json
import sys
import zipfile

import numpy as np
import onnx
import pytest
from bases import dense, words
from harm import harmless
from hypothesis import given
from hypothesis import strategies as st

import onnx_lrp
from onnx_lrp import cli

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
