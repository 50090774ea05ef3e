"""Series in: tables with names, units, times and several series, which all mean the same as the arrays they hold."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_cli import fails, lstm_model, passes

import onnx_lrp
from onnx_lrp import Explanation, InputError
from onnx_lrp.report.view import samples
from onnx_lrp.series import read_series

HEADER = ["engine", "time [s]", "pressure [bar]", "note", "speed"]
ENGINES = {"E1": [[1.0, 2.0], [-3.0, 0.5], [0.0, 1.5]], "E2": [[0.5, 0.25], [2.0, -1.0]]}


def write(path: Path, rows: list[list[object]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(rows)
    return path


def engines() -> list[list[object]]:
    """Both engines, their lines taking turns."""
    rows = [[n, f"{t / 2}", x, "ok", y] for n, series in ENGINES.items() for t, (x, y) in enumerate(series)]
    return [HEADER, rows[0], rows[3], rows[1], rows[4], rows[2]]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return write(tmp_path / "engines.csv", engines())


@pytest.fixture(scope="module")
def lstm(tmp_path_factory: pytest.TempPathFactory) -> str:
    return lstm_model(tmp_path_factory.mktemp("model") / "lstm.onnx")


EAGER = ("--jit", "eager", "--verify", "never")
COLUMNS = ("--time", "time", "--id", "engine", "--features", "pressure,speed")


# laws


@given(
    values=st.lists(st.tuples(*[st.floats(-9, 9, width=32)] * 2), min_size=1, max_size=5),
    names=st.none() | st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=4), min_size=2, max_size=2, unique=True),
)
def test_a_table_says_what_its_array_says(values, names, lstm, tmp_path_factory):
    """.csv with or without a header and .parquet: the same explanation as .npy, to the last bit."""
    folder = tmp_path_factory.mktemp("series")
    array = np.asarray(values, np.float64)
    headed = None if names is None else [f"x{name}" for name in names]  # no number
    files = [write(folder / "x.csv", [*([headed] if headed else []), *map(list, values)])]
    try:
        import pyarrow
        from pyarrow import parquet

        columns = dict(zip(headed or ["a", "b"], array.T, strict=True))
        parquet.write_table(pyarrow.table(columns), folder / "x.parquet")
        files.append(folder / "x.parquet")
    except ImportError:
        pass
    explainer = onnx_lrp.load(lstm, jit="eager", verify="never", precision="float64")
    expected = explainer.explain(array[:, None])
    for file in files:
        read = read_series(file)
        np.testing.assert_array_equal(read.arrays[0], array)
        found = explainer.explain(read)
        np.testing.assert_array_equal(found.relevance["x"], expected.relevance["x"])
        np.testing.assert_array_equal(found.outputs["y"], expected.outputs["y"])
        assert found.lengths is None


@given(order=st.permutations(range(7)), lengths=st.sampled_from([(7,), (3, 4), (1, 6), (2, 2, 3)]))
def test_lines_of_several_series_may_take_turns(order, lengths, tmp_path_factory):
    """Each series keeps its lines in their order, whatever stands between them; they come as they begin."""
    owner = np.repeat(np.arange(len(lengths)), lengths)[list(order)]
    rows = [["id", "x"], *([f"n{o}", k] for k, o in enumerate(owner))]
    found = read_series(write(tmp_path_factory.mktemp("series") / "x.csv", rows), id="id")
    assert list(found.labels.samples) == [f"n{o}" for o in dict.fromkeys(owner)]
    for name, array in zip(found.labels.samples, found.arrays, strict=True):
        assert array[:, 0].tolist() == [k for k, o in enumerate(owner) if f"n{o}" == name]


# names


def test_names_units_times_and_series(table):
    found = read_series(table, time="time", features=["speed", "pressure [bar]"], id="engine")
    assert found.labels.samples == ("E1", "E2")
    assert found.labels.features == ("speed", "pressure")
    assert found.labels.units == ("", "bar")
    assert found.labels.columns == ("speed", "pressure [bar]")
    assert found.labels.time == "time [s]"
    assert found.labels.steps == (("0.0", "0.5", "1.0"), ("0.0", "0.5"))
    for array, rows in zip(found.arrays, ENGINES.values(), strict=True):
        np.testing.assert_array_equal(array, np.asarray(rows)[:, ::-1])


def test_parquet_has_the_same_names(table, tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    header, *rows = engines()
    columns = [list(c) for c in zip(*rows, strict=True)]
    parquet.write_table(pyarrow.table(dict(zip(header, columns, strict=True))), tmp_path / "x.parquet")
    options = {"time": "time", "features": ["pressure", "speed"], "id": "engine"}
    one, two = read_series(table, **options), read_series(tmp_path / "x.parquet", **options)
    assert one.labels == two.labels
    for a, b in zip(one.arrays, two.arrays, strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(InputError, match="column 'engine' holds object, not numbers"):
        read_series(tmp_path / "x.parquet")
    gap = pyarrow.table({"a": [1.0, None, 3.0], "b": [1, 2, 3]})
    parquet.write_table(gap, tmp_path / "gap.parquet")
    with pytest.raises(InputError, match="row 2, column 'a': missing"):
        read_series(tmp_path / "gap.parquet")
    assert np.isnan(read_series(tmp_path / "gap.parquet", missing=True).arrays[0][1, 0])


def test_names_reach_the_explanation_and_its_files(table, lstm, tmp_path):
    read = read_series(table, time="time", features=["pressure", "speed"], id="engine")
    found = onnx_lrp.load(lstm, jit="eager").explain(read)
    assert found.labels == read.labels
    assert found.lengths.tolist() == [3, 2]
    suffixes = [".npz", ".json"]
    for suffix in suffixes:
        found.save(tmp_path / f"x{suffix}")
        assert Explanation.load(tmp_path / f"x{suffix}").labels == read.labels
    one, two = samples(found)
    assert one.title == "E1 (sample 1 of 2)"
    assert one.points[0].labels == ("0.0", "0.5", "1.0")
    assert two.points[0].labels == ("0.0", "0.5")
    assert one.points[0].columns == ("pressure [bar]", "speed")
    assert one.points[0].heading == "time [s]"
    assert one.points[0].unit == "step"
    page = found.to_html()
    for text in ("E2 (sample 2 of 2)", "pressure [bar]", "speed", "time [s]"):
        assert text in page
    inside = onnx_lrp.load(lstm, jit="eager", at="s").explain(read)  # whose features are others
    assert samples(inside)[0].points[0].columns == ()


def test_features_that_do_not_fit_have_no_names(table, lstm):
    read = read_series(table, time="time", features=["pressure", "speed"], id="engine")
    few = dataclasses.replace(read, names=dataclasses.replace(read.names, features=("one",), units=("",)))
    assert samples(onnx_lrp.load(lstm, jit="eager").explain(few))[0].points[0].columns == ()


def test_cells_in_quotes_keep_lines_countable(tmp_path):
    file = write(tmp_path / "x.csv", [["a", "b"], ['two\nlines, "quoted"', 1], ["x", "oops"]])
    with pytest.raises(InputError, match="line 4, column 'b': 'oops' is no number"):
        read_series(file, features=["b"])
    (tmp_path / "y.csv").write_text("a,b\n\n\n1,2\n3,x\n")
    with pytest.raises(InputError, match="line 5, column 'b'"):
        read_series(tmp_path / "y.csv")


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        ([["a"], [1]], {"features": ["b"]}, r"no column 'b' \(--features\); columns are a"),
        ([["a"], [1]], {"time": "t"}, r"no column 't' \(--time\)"),
        ([["a"], [1]], {"id": "t"}, r"no column 't' \(--id\)"),
        ([["a [m]", "a [s]"], [1, 2]], {"features": ["a"]}, r"2 columns are called 'a' .*a \[m\], a \[s\]"),
        ([["a", "b"], [1, 2]], {"features": ["a", "a"]}, "asked for twice"),
        ([["a", "t"], [1, 2]], {"time": "t", "id": "a"}, "no column of features"),
        ([["a", "b"], [1, 2], [1, "x"]], {}, "line 3, column 'b': 'x' is no number"),
        ([["a", "b"], [1, 2], [1, ""]], {}, "line 3, column 'b': missing"),
        ([["a", "b"], [1, 2], [1, "inf"]], {}, "line 3, column 'b': inf"),
        ([["a", "b"], [1, 2], [1]], {}, "line 3: 1 columns, expected 2$"),
        ([["a;b"], ["1", "5;2", "5"]], {}, "line 2: 3 columns, expected 1; only a comma parts"),
        ([[1, 2], [1, "x"]], {}, "line 2, column 2: 'x' is no number"),
        ([[1, 2], [1, "x"]], {"features": ["3"]}, "no column '3'"),
        ([["a"]], {}, "no rows"),
    ],
)
def test_errors_name_column_and_line(rows, options, message, tmp_path):
    with pytest.raises(InputError, match=message):
        read_series(write(tmp_path / "x.csv", rows), **options)


def test_missing_entries_where_the_model_takes_them(tmp_path):
    file = write(tmp_path / "x.csv", [["a", "b"], [1, ""], ["nan", 2]])
    np.testing.assert_array_equal(read_series(file, missing=True).arrays[0], [[1, np.nan], [np.nan, 2]])


# the command line


def test_series_on_the_command_line(capsys, table, lstm, tmp_path):
    html = tmp_path / "x.html"
    shown = passes(capsys, "explain", lstm, table, *COLUMNS, *EAGER, "--html", html)
    assert "E1 (sample 1 of 2)" in shown
    assert "time [s]  relevance" in shown
    assert "pressure [bar]" in shown
    assert "pressure [bar]" in html.read_text()
    found = json.loads(passes(capsys, "explain", lstm, table, *COLUMNS, *EAGER, "--json"))
    assert found["labels"] == {
        "samples": ["E1", "E2"],
        "steps": [["0.0", "0.5", "1.0"], ["0.0", "0.5"]],
        "time": "time [s]",
        "features": ["pressure", "speed"],
        "units": ["bar", ""],
    }
    ragged = tmp_path / "x.json"
    ragged.write_text(json.dumps(list(ENGINES.values())))
    assert json.loads(passes(capsys, "explain", lstm, ragged, *EAGER, "--json"))["relevance"] == found["relevance"]


def test_every_sum_stands_beside_its_feature(capsys, table, lstm):
    from onnx_lrp.report.wording import number

    shown = passes(capsys, "explain", lstm, table, *COLUMNS, *EAGER)
    found = onnx_lrp.load(lstm, jit="eager").explain(read_series(table, features=["pressure", "speed"], id="engine"))
    for b, block in enumerate(shown.split("E2 (sample")):
        sums = found.relevance["x"][:, b].astype(np.float64).sum(0)
        for name, value in zip(("pressure [bar]", "speed"), sums, strict=True):
            [line] = [line for line in block.splitlines() if line.startswith(name)]
            assert line.split()[-1] == number(float(value))


def test_bad_series_on_the_command_line(capsys, table, lstm, tmp_path):
    np.save(tmp_path / "x.npy", np.ones((3, 1, 2), np.float32))
    for option in ("--time", "--id", "--features"):
        assert option in fails(2, capsys, "explain", lstm, tmp_path / "x.npy", option, "a")
    assert "column 'engine'" in fails(4, capsys, "explain", lstm, table)
    assert "no column 'x'" in fails(4, capsys, "explain", lstm, table, "--id", "x")
    wide = fails(4, capsys, "explain", lstm, table, "--features", "pressure")
    assert "expected 2" in wide


def test_parquet_on_the_command_line(table, lstm, tmp_path, capsys):
    """With --time, --id and --features: the same document as of the .csv."""
    parquet, pyarrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    header, *rows = engines()
    parquet.write_table(pyarrow.table(dict(zip(header, zip(*rows, strict=True), strict=True))), tmp_path / "x.parquet")
    documents = []
    for file in (table, tmp_path / "x.parquet"):
        documents.append(json.loads(passes(capsys, "explain", lstm, file, *COLUMNS, *EAGER, "--json")))
    assert documents[0] == documents[1]
    assert documents[1]["labels"]["samples"] == ["E1", "E2"]
    assert documents[1]["labels"]["units"] == ["bar", ""]
    assert documents[1]["labels"]["time"] == "time [s]"


def test_an_id_that_is_read_as_a_number_names_the_options(table, lstm, capsys):
    said = fails(4, capsys, "explain", lstm, table, "--time", "time")
    assert "'E1' is no number" in said
    assert "--id or --time" in said


def test_classes_are_named(table, lstm, capsys, tmp_path):
    out = passes(capsys, "explain", lstm, table, *COLUMNS, *EAGER, "--classes", "normal, fault", "--html", tmp_path / "x.html")
    assert "predicted   normal  (normal" in out or "predicted   fault  (normal" in out
    page = (tmp_path / "x.html").read_text()
    assert "<option>normal</option>" in page or "fault" in page
    assert "class 0" not in page
