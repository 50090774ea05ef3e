"""Rows of a dataset that can't be explained: each is reported, with its number and the reason, and stops nobody."""

from __future__ import annotations

import json

import numpy as np
import pytest
from datasets import WORDS, both, dense, explain, ids_of, jsonl, parquet, reader, same, series, shards
from test_batches import bilstm
from test_dataset import run
from test_ragged import sequences

import onnx_lrp
from onnx_lrp import InputError
from onnx_lrp.dataset.engine import Engine
from onnx_lrp.verifying import Verifier

arrow = pytest.importorskip("pyarrow")


@pytest.fixture
def model(tmp_path):
    return reader(tmp_path / "reader.onnx")


MANY = 10_000
OVERFLOWS = [3e38] * 3
MEMORY = [WORDS - 1] * 9  # ids for which there is no memory


def bad_rows():
    """[(what is wrong with a row, its kind)]; a row that is text is a whole line."""
    return [
        ({"ids": None}, "null"),
        ({"ids": [1, None, 2]}, "null"),
        ({"ids": ...}, "null"),
        ({"ids": [1, WORDS, 2]}, "id"),
        ({"ids": [1, -WORDS - 1]}, "id"),
        ({"ids": []}, "length"),
        ({"ids": [1] * 12}, "length"),
        ({"ids": [[1, 2], [3, 4]]}, "shape"),
        ({"ids": [[1, 2], [3]]}, "shape"),
        ({"x": [1.0, 2.0]}, "shape"),
        ({"ids": [1.5, 2]}, "input"),
        ({"ids": "one two"}, "number"),
        ({"ids": {"a": 1}}, "number"),
        ({"x": [0.0, float("nan"), 0.0]}, "nan"),
        ({"x": [0.0, 0.0, float("-inf")]}, "nan"),
        ({"x": OVERFLOWS}, "model"),
        ({"ids": MEMORY}, "memory"),
        ({"label": 3}, "target"),
        ({"label": -1}, "target"),
        ({"label": None}, "target"),
        ({"label": 0.5}, "target"),
        ({"id": "no number"}, "keep"),
        ("{broken", "line"),
        ("[1, 2]", "line"),
    ]


@pytest.fixture
def no_memory(monkeypatch):
    """No memory for a batch that holds certain ids."""
    real = onnx_lrp.Explainer.explain

    def explain(self, inputs, *arguments, **options):
        if MEMORY in inputs["ids"].tolist():
            raise MemoryError
        return real(self, inputs, *arguments, **options)

    monkeypatch.setattr(onnx_lrp.Explainer, "explain", explain)


def test_bad_rows_of_each_kind_among_ten_thousand_are_reported_and_all_others_explained(tmp_path, no_memory):
    """Every kind that a column of numbers can have; those of texts are in the tests of texts."""
    model = both(tmp_path / "both.onnx")
    rng = np.random.default_rng(0)
    rows = [
        {"id": k, "ids": ids, "x": [0.5, k / MANY, -1.0], "label": k % 3} for k, ids in enumerate(ids_of(rng.integers(1, 5, MANY)))
    ]
    lines, kinds = [json.dumps(row) for row in rows], {}
    for at, (wrong, kind) in zip(sorted(rng.choice(MANY, len(bad_rows()), replace=False).tolist()), bad_rows(), strict=True):
        kinds[at] = kind
        row = wrong if isinstance(wrong, str) else {n: v for n, v in (rows[at] | wrong).items() if v is not ...}
        lines[at] = row if isinstance(row, str) else json.dumps(row)
    assert len(set(kinds.values())) == 12
    (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n")
    options = {"keep": ["id"], "target": "label", "max_length": 11, "per_step": True, "shard_rows": 4096}
    found = explain(model, tmp_path / "rows.jsonl", tmp_path / "out", **options)
    errors = shards(tmp_path / "out", "errors")
    assert {e["row"]: e["kind"] for e in errors} == kinds
    assert all(e["row_in_file"] == e["row"] and e["file"].endswith("rows.jsonl") and e["reason"] for e in errors)
    good = shards(tmp_path / "out")
    assert [r["row"] for r in good] == [r["id"] for r in good] == [k for k in range(MANY) if k not in kinds]
    assert (found["rows"], found["explained"], sum(found["errors"].values())) == (MANY, len(good), len(kinds))
    assert found["done"] == [[0, MANY]]
    only = [row for row in rows if row["id"] not in kinds]
    jsonl(tmp_path / "good.jsonl", {n: [row[n] for row in only] for n in ("id", "ids", "x", "label")})
    explain(model, tmp_path / "good.jsonl", tmp_path / "alone", **options)
    same(good, shards(tmp_path / "alone"), but=["row"])


def test_numbers_that_are_not_finite_or_overflow_are_errors_of_their_rows(tmp_path):
    model = series(tmp_path / "series.onnx")
    rows = [r.tolist() for r in sequences([3] * 6)]
    rows[1][0][2], rows[3][2][1] = float("nan"), float("inf")
    rows[4] = [[1.0, 2.0]] * 3
    rows[5] = [[1e300, 0.0, 0.0]] * 3  # no float32
    parquet_file = parquet(tmp_path / "x.parquet", rows)
    explain(model, parquet_file, tmp_path / "out", inputs={"x": "ids"})
    assert {e["row"]: e["kind"] for e in shards(tmp_path / "out", "errors")} == {1: "nan", 3: "nan", 4: "shape", 5: "input"}
    assert [r["row"] for r in shards(tmp_path / "out")] == [0, 2]


def test_an_empty_cell_of_numbers_has_no_value(tmp_path):
    path = dense(tmp_path / "model.onnx")
    (tmp_path / "x.csv").write_text("a,b,c\n1,2,3\n1,,3\n")
    explain(path, tmp_path / "x.csv", tmp_path / "out", inputs={"x": ["a", "b", "c"]})
    assert [(e["row"], e["kind"]) for e in shards(tmp_path / "out", "errors")] == [(1, "null")]


def test_lengths_that_an_array_does_not_have_are_errors_of_their_rows(tmp_path):
    x, path = np.ones((4, 5, 3), np.float32), series(tmp_path / "model.onnx")
    np.savez(tmp_path / "x.npz", x=x, **{"x.lengths": [5, -1, 2, 6]})
    explain(path, tmp_path / "x.npz", tmp_path / "out")
    assert [(e["row"], e["kind"]) for e in shards(tmp_path / "out", "errors")] == [(1, "line"), (3, "line")]
    assert [len(row["relevance"]) for row in shards(tmp_path / "out")] == [5, 2]
    np.savez(tmp_path / "x.npz", x=x, **{"x.lengths": [5.0, 1, 2, 3]})
    with pytest.raises(InputError, match="lengths of float64"):
        explain(path, tmp_path / "x.npz", tmp_path / "other")


def test_a_column_that_stands_twice_in_a_csv_is_refused_where_it_is_read(tmp_path, model):
    (tmp_path / "x.csv").write_text('id,id,ids\n1,2,"[1, 2]"\n')
    explain(model, tmp_path / "x.csv", tmp_path / "out", inputs={"ids": "ids"})
    with pytest.raises(InputError, match="2 columns are called 'id'"):
        explain(model, tmp_path / "x.csv", tmp_path / "other", inputs={"ids": "ids"}, keep=["id"])


def test_a_csv_line_of_another_width_keeps_the_numbers_of_all_others(tmp_path, model):
    (tmp_path / "x.csv").write_text('id,ids\n0,1 2 3\n1\n\n2,"[4, 5]"\n3,6,7\n4,8\n')
    explain(model, tmp_path / "x.csv", tmp_path / "out", keep=["id"])
    assert [(r["row"], r["id"], len(r["relevance"])) for r in shards(tmp_path / "out")] == [(0, 0, 3), (2, 2, 2), (4, 4, 1)]
    assert [(e["row"], e["kind"]) for e in shards(tmp_path / "out", "errors")] == [(1, "line"), (3, "line")]


def test_a_model_that_overflows_on_one_row_blames_that_row_alone(monkeypatch):
    explainer = onnx_lrp.load(bilstm()[0], jit="eager", verify="first")
    given = sequences([4] * 9)
    given[5][0, 0] = 1e30
    real = Verifier.finite

    def finite(self, program, arrays, given, **options):
        if np.abs(given["x"]).max() > 1e29:
            raise onnx_lrp.ParityError("'y' is not finite although the inputs are: the model overflows on them")
        real(self, program, arrays, given, **options)

    monkeypatch.setattr(Verifier, "finite", finite)
    found, problems = run(Engine(explainer), {"x": given})
    assert {k: p.kind for k, p in problems.items()} == {5: "model"}
    assert sorted(np.concatenate([f.rows for f in found]).tolist()) == [0, 1, 2, 3, 4, 6, 7, 8]


def test_a_model_that_is_not_onnxruntimes_stops_the_run(monkeypatch):
    explainer = onnx_lrp.load(bilstm()[0], jit="eager")
    monkeypatch.setattr(
        explainer._runtime, "forward", lambda feeds: {n: np.full((len(feeds["x"][0]), 2), 9.0) for n in explainer._plan.outputs}
    )
    with pytest.raises(onnx_lrp.ParityError, match="differs from onnxruntime's"):
        run(Engine(explainer), {"x": sequences([3, 3])})


def test_too_many_errors_stop_the_run_and_nothing_but_errors_is_told(tmp_path, model):
    rows = ids_of([2] * 30)
    rows[3] = rows[4] = rows[7] = []
    file = parquet(tmp_path / "x.parquet", rows)
    for limit in (2, "0%"):
        with pytest.raises(InputError, match=f"more than {limit}; the first is row 3"):
            explain(model, file, tmp_path / f"out{limit}", max_errors=limit)
    assert explain(model, file, tmp_path / "fine", max_errors=3)["errors"] == {"length": 3}
    with pytest.raises(InputError, match="none of 2 rows could be explained; the first is row 0"):
        explain(model, parquet(tmp_path / "y.parquet", [[WORDS], [WORDS]]), tmp_path / "none")
    with pytest.raises(InputError, match="max_errors"):
        explain(model, file, tmp_path / "out", max_errors="many")
    with pytest.raises(InputError, match="max_errors"):
        explain(model, file, tmp_path / "out", max_errors="nan%")
