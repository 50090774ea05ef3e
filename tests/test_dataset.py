"""Whole datasets: every row as if it came alone, whatever the format; rows that can't be explained stop nobody."""

from __future__ import annotations

import gzip
import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
from datasets import WORDS, dense, explain, ids_of, jsonl, parquet, reader, same, series, shards, table, text_csv
from hypothesis import given, settings
from hypothesis import strategies as st
from test_batches import bilstm
from test_ragged import sequences, with_lengths, words

import onnx_lrp
from onnx_lrp import BatchExplainer, InputError, targets
from onnx_lrp.dataset.engine import ABSORBED, Engine, Found
from onnx_lrp.dataset.tables import columns, objects

arrow = pytest.importorskip("pyarrow")
LENGTHS = [4, 2, 7, 4, 1, 3, 2, 4, 6, 5]


@pytest.fixture
def model(tmp_path):
    return reader(tmp_path / "reader.onnx")


def run(engine, inputs, **options):
    size = len(next(iter(inputs.values())))
    parts = list(engine.run(inputs, range(size), **options))
    return [p for p in parts if isinstance(p, Found)], dict(p for p in parts if not isinstance(p, Found))


# each row as if it came alone


@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=8), which=st.sampled_from(["x", "ids", "lens"]), summed=st.booleans()
)
def test_every_row_is_explained_as_if_it_came_alone(lengths, which, summed):
    make = {"x": lambda: bilstm()[0], "ids": words, "lens": with_lengths}[which]
    explainer = onnx_lrp.load(make(), jit="eager", precision="float64")
    name = "ids" if which == "ids" else "x"
    given = [np.asarray(row) for row in ids_of(lengths)] if which == "ids" else sequences(lengths)
    given = [row % 7 for row in given] if which == "ids" else given
    found, problems = run(Engine(explainer, per_step=summed), {name: given})
    assert problems == {}
    rows, made = columns(found)
    other = objects(found, len(lengths))
    assert rows.tolist() == list(range(len(lengths)))
    for k, row in enumerate(given):
        feeds = {name: row[None] if which == "ids" else row[:, None]}
        alone = explainer.explain(feeds | ({"lens": [len(row)]} if which == "lens" else {}))
        (relevance,) = alone.relevance.values()
        expected = alone.per_step()[0] if summed else relevance[0] if which == "ids" else relevance[:, 0]
        for got in (np.asarray(made["relevance"][k].as_py()), other["relevance"][k]):
            assert got.shape == expected.shape
            np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-13)
        np.testing.assert_allclose(made["seed"][k].as_py(), alone.seed[0], rtol=1e-12)
        assert abs(made["residual"][k].as_py()) < 1e-12
        np.testing.assert_array_equal(made["target"][k].as_py(), alone.target[0])
        np.testing.assert_array_equal(made["prediction"][k].as_py(), alone.target[0])
        np.testing.assert_allclose(made["output"][k].as_py(), alone.outputs[alone.explained][0], rtol=1e-6)
        for kind in ABSORBED:
            np.testing.assert_allclose(made[f"absorbed_{kind}"][k].as_py(), alone.absorbed.get(kind, [0])[0], atol=1e-12)


def test_a_target_of_each_row_is_its_own_and_the_prediction_is_not_the_target():
    explainer = onnx_lrp.load(bilstm()[0], jit="eager")
    given = sequences([3, 5, 3, 2])
    found, _ = run(Engine(explainer), {"x": given}, targets=[0, 1, 1, 0])
    _, made = columns(found)
    assert made["target"].to_pylist() == [0, 1, 1, 0]
    for k, row in enumerate(given):
        alone = explainer.explain(row[:, None], made["target"][k].as_py())
        np.testing.assert_allclose(made["relevance"][k].as_py(), alone.relevance["x"][:, 0], rtol=1e-4, atol=1e-6)
        assert made["prediction"][k].as_py() == explainer.explain(row[:, None]).target[0]


def test_bunches_hold_no_more_than_the_budget(monkeypatch):
    seen = []
    real = onnx_lrp.Explainer._run
    monkeypatch.setattr(onnx_lrp.Explainer, "_run", lambda self, x, *a, **k: seen.append(x["x"].shape[1]) or real(self, x, *a, **k))
    engine = Engine(onnx_lrp.load(bilstm()[0], jit="eager", max_bytes=20_000))
    found, _ = run(engine, {"x": sequences([6] * 40)})
    assert sum(seen) == 40
    assert 1 < len(seen) < 40
    assert sorted(np.concatenate([f.rows for f in found]).tolist()) == list(range(40))


# formats


def test_every_format_gives_the_same_rows(tmp_path, model):
    import pyarrow.feather

    rows = ids_of(LENGTHS)
    held = {"id": list(range(len(rows))), "ids": rows}
    parquet(tmp_path / "a.parquet", rows, row_group_size=3)
    pyarrow.feather.write_feather(table(rows), str(tmp_path / "a.feather"))
    with arrow.OSFile(str(tmp_path / "a.arrow"), "wb") as stream, arrow.ipc.new_stream(stream, table(rows).schema) as writer:
        writer.write_table(table(rows), max_chunksize=4)
    text_csv(tmp_path / "a.csv", held)
    jsonl(tmp_path / "a.jsonl", held)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress((tmp_path / "a.jsonl").read_bytes()))
    padded = np.zeros((len(rows), max(LENGTHS)), np.int64)
    for k, row in enumerate(rows):
        padded[k, : len(row)] = row
    np.savez(tmp_path / "a.npz", id=np.arange(len(rows)), ids=padded, **{"ids.lengths": np.asarray(LENGTHS)})
    runs = {}
    for path in sorted(tmp_path.glob("[ab].*")):
        explain(model, path, tmp_path / "out" / path.name, keep=["id"])
        runs[path.name] = shards(tmp_path / "out" / path.name)
    assert len(runs) == 7
    first = runs["a.parquet"]
    assert [r["id"] for r in first] == [r["row"] for r in first] == list(range(len(rows)))
    assert [len(r["relevance"]) for r in first] == LENGTHS
    for found in runs.values():
        same(first, found)


def test_npy_and_columns_side_by_side(tmp_path):
    model = dense(tmp_path / "dense.onnx")
    x = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    text_csv(tmp_path / "x.csv", {"label": list("abcdef"), **{f"f{k}": x[:, k].tolist() for k in range(3)}})
    explain(model, tmp_path / "x.npy", tmp_path / "a")
    explain(model, tmp_path / "x.csv", tmp_path / "b", inputs={"x": "f*"}, keep=["label"])
    explain(model, tmp_path / "x.csv", tmp_path / "c", inputs={"x": "f0,f1,f2"})
    expected = onnx_lrp.load(model, jit="eager").explain(x)
    found = shards(tmp_path / "a")
    np.testing.assert_allclose([r["relevance"] for r in found], expected.relevance["x"], rtol=1e-5, atol=1e-7)
    kept = shards(tmp_path / "b")
    assert [r.pop("label") for r in kept] == list("abcdef")
    same(found, kept)
    same(found, shards(tmp_path / "c"))


def test_series_are_lists_of_lists_also_of_fixed_width_and_in_slices(tmp_path):
    model = series(tmp_path / "series.onnx")
    rows = [r.tolist() for r in sequences([3, 1, 3, 5])]
    fixed = arrow.array(rows, arrow.large_list(arrow.list_(arrow.float32(), 3)))
    held = {"list": arrow.array(rows), "fixed": fixed, "cut": arrow.concat_arrays([fixed[:1], fixed]).slice(1)}
    runs = {}
    for name, column in held.items():
        batch = arrow.record_batch({"x": column})
        runs[name] = BatchExplainer(model, jit="eager")(batch).to_pylist()
        assert [len(r["relevance"]) for r in runs[name]] == [3, 1, 3, 5]
    runs["numpy"] = BatchExplainer(model, jit="eager")({"x": np.asarray([np.asarray(r) for r in rows], object)})
    for k, row in enumerate(runs["list"]):
        for other in ("fixed", "cut"):
            np.testing.assert_allclose(row["relevance"], runs[other][k]["relevance"], rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(row["relevance"], runs["numpy"]["relevance"][k], rtol=1e-5, atol=1e-7)


def test_a_folder_is_its_files_in_order_and_an_address_is_read_by_fsspec(tmp_path, model):
    fsspec = pytest.importorskip("fsspec")
    rows = ids_of(LENGTHS)
    folder = tmp_path / "data"
    (folder / "_hidden").mkdir(parents=True)
    parquet(folder / "b.parquet", rows[6:])
    parquet(folder / "a.parquet", rows[:6])
    parquet(folder / "_hidden" / "c.parquet", rows)
    parquet(tmp_path / "whole.parquet", rows)
    memory = fsspec.filesystem("memory")
    for name in "ab":
        memory.pipe(f"/lrp/{name}.parquet", (folder / f"{name}.parquet").read_bytes())
    (folder / "notes.txt").write_text("nothing to read")
    explain(model, tmp_path / "whole.parquet", tmp_path / "w")
    for k, dataset in enumerate([folder, f"{folder}/*.parquet", "memory://lrp", "memory://lrp/*.parquet"]):
        explain(model, dataset, tmp_path / f"out{k}", shard_rows=4)
        same(shards(tmp_path / "w"), shards(tmp_path / f"out{k}"))
    memory.rm("/lrp", recursive=True)


# rows that can't be explained


def bad_rows():
    """(rows by column, {row: kind expected})."""
    good = [{"id": k, "ids": row, "label": k % 3} for k, row in enumerate(ids_of([3, 2, 5, 3]))]
    bad = [
        ({"ids": None}, "null"),
        ({"ids": [1, None, 2]}, "null"),
        ({}, "null"),
        ({"ids": [1, WORDS, 2]}, "id"),
        ({"ids": [1, -WORDS - 1]}, "id"),
        ({"ids": []}, "length"),
        ({"ids": [1] * 12}, "length"),
        ({"ids": [[1, 2], [3, 4]]}, "shape"),
        ({"ids": [[1, 2], [3]]}, "shape"),
        ({"ids": [1.5, 2]}, "input"),
        ({"ids": "one two"}, "number"),
        ({"ids": {"a": 1}}, "number"),
        ({"ids": [1], "label": 3}, "target"),
        ({"ids": [1], "label": -1}, "target"),
        ({"ids": [1], "label": None}, "target"),
        ({"ids": [1], "label": 0.5}, "target"),
        ({"ids": [1], "id": "no number"}, "keep"),
        ("{broken", "line"),
        ("[1, 2]", "line"),
    ]
    lines, kinds = [], {}
    for k, (row, kind) in enumerate(bad):
        lines.append(json.dumps(good[k % 4] | {"id": 4 + len(lines)}))
        kinds[len(lines)] = kind
        lines.append(row if isinstance(row, str) else json.dumps({"id": 99, "label": 0} | row))
    return lines, kinds


def test_bad_rows_of_each_kind_are_reported_and_all_others_explained(tmp_path, model):
    lines, kinds = bad_rows()
    (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n")
    found = explain(model, tmp_path / "rows.jsonl", tmp_path / "out", keep=["id"], target="label", max_length=11, shard_rows=7)
    errors = shards(tmp_path / "out", "errors")
    assert {e["row"]: e["kind"] for e in errors} == kinds
    assert all(e["row_in_file"] == e["row"] and e["file"].endswith("rows.jsonl") and e["reason"] for e in errors)
    good = shards(tmp_path / "out")
    assert sorted([r["row"] for r in good] + list(kinds)) == list(range(len(lines)))
    assert (found["rows"], found["explained"], sum(found["errors"].values())) == (len(lines), len(good), len(kinds))
    assert found["done"] == [[0, len(lines)]]
    only = [json.loads(lines[r["row"]]) for r in good]
    jsonl(tmp_path / "good.jsonl", {n: [o[n] for o in only] for n in ("id", "ids", "label")})
    explain(model, tmp_path / "good.jsonl", tmp_path / "alone", keep=["id"], target="label")
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


def test_a_csv_line_of_another_width_keeps_the_numbers_of_all_others(tmp_path, model):
    (tmp_path / "x.csv").write_text('id,ids\n0,1 2 3\n1\n\n2,"[4, 5]"\n3,6,7\n4,8\n')
    explain(model, tmp_path / "x.csv", tmp_path / "out", keep=["id"])
    assert [(r["row"], r["id"], len(r["relevance"])) for r in shards(tmp_path / "out")] == [(0, 0, 3), (2, 2, 2), (4, 4, 1)]
    assert [(e["row"], e["kind"]) for e in shards(tmp_path / "out", "errors")] == [(1, "line"), (3, "line")]


def test_a_model_that_overflows_on_one_row_blames_that_row_alone(monkeypatch):
    explainer = onnx_lrp.load(bilstm()[0], jit="eager", verify="first")
    given = sequences([4] * 9)
    given[5][0, 0] = 1e30
    real = type(explainer)._finite

    def finite(self, arrays, given):
        if any(np.abs(a).max() > 1e29 for a in [self.last]):
            raise onnx_lrp.ParityError("'y' is not finite although the inputs are: the model overflows on them")
        real(self, arrays, given)

    def run_(self, feeds, *args, **options):
        self.last = feeds["x"]
        return original(self, feeds, *args, **options)

    original = type(explainer)._run
    monkeypatch.setattr(type(explainer), "_run", run_)
    monkeypatch.setattr(type(explainer), "_finite", finite)
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


# text


def test_text_becomes_ids_by_one_function(tmp_path, model):
    vocabulary = {"good": 1, "bad": 2, "film": 3}

    def encode(text):
        if not text.strip():
            raise InputError("no word in it")
        return [vocabulary.get(word, 0) for word in text.split()]

    jsonl(tmp_path / "t.jsonl", {"text": ["good film", " ", "a bad film"]})
    explain(model, tmp_path / "t.jsonl", tmp_path / "text", encode=encode)
    jsonl(tmp_path / "i.jsonl", {"ids": [[1, 3], [0, 2, 3]]})
    explain(model, tmp_path / "i.jsonl", tmp_path / "ids")
    same(shards(tmp_path / "text"), shards(tmp_path / "ids"), but=["row"])
    assert [e["row"] for e in shards(tmp_path / "text", "errors")] == [1]
    with pytest.raises(InputError, match="no tokenizer was given"):
        explain(model, tmp_path / "t.jsonl", tmp_path / "without")


# other people's engines


def test_batch_explainer_is_pickled_without_its_model_and_gives_the_rows_of_the_run(tmp_path, model):
    rows = [*ids_of(LENGTHS), [WORDS]]
    callable_ = BatchExplainer(model, keep=["id"], per_step=True, jit="eager")
    batch = {"id": np.arange(len(rows)), "ids": np.asarray([np.asarray(r) for r in rows], object)}
    callable_(batch)
    again = pickle.loads(pickle.dumps(callable_))
    assert again._engine is None
    made = again(batch)
    assert [name for name in made if made[name].shape != (len(rows),)] == []
    assert made["error"][:-1].tolist() == [None] * len(LENGTHS)
    assert "outside the embedding" in made["error"][-1]
    explain(model, parquet(tmp_path / "x.parquet", rows), tmp_path / "out", keep=["id"], per_step=True)
    for record in next(again.stream([table(rows).to_batches()[0]])).to_pylist()[:-1]:
        row = shards(tmp_path / "out")[record["id"]]
        assert record.pop("error") is None
        same([record], [{k: v for k, v in row.items() if k != "row"}])
        np.testing.assert_allclose(made["relevance"][record["id"]], row["relevance"], rtol=1e-5, atol=1e-7)


def test_arrow_batches_in_are_arrow_batches_out_of_one_schema(model):
    """As Spark's ``mapInArrow`` asks for: an iterator of record batches to one, whatever the batches hold."""
    whole = table([[1, 2], [WORDS], None, [3], [4, 5, 6]])
    batches = [*whole.to_batches(max_chunksize=2), whole.slice(0, 0).to_batches()[0] if whole.slice(0, 0).to_batches() else None]
    empty = arrow.RecordBatch.from_pylist([], schema=whole.schema)
    given_ = [b for b in (*batches, empty, whole.slice(1, 2).combine_chunks().to_batches()[0]) if b is not None]
    made = BatchExplainer(model, keep=["id"], jit="eager").stream(iter(given_))
    assert not isinstance(made, list)
    found = list(made)
    assert all(isinstance(batch, arrow.RecordBatch) for batch in found)
    assert [b.num_rows for b in found] == [b.num_rows for b in given_]
    assert len({b.schema.to_string() for b in found}) == 1
    assert [e is None for b in found for e in b["error"].to_pylist()] == [True, False, False, True, True, False, False]


@pytest.mark.parametrize("given_", ["auto", None])
def test_a_dataset_is_not_compiled_unless_it_is_asked_for(model, given_):
    from onnx_lrp.dataset.worker import make_engine

    options = {} if given_ is None else {"jit": given_}
    how = {"target": None, "method": "lrp", "per_step": False, "max_length": None}
    assert make_engine(model, **how, options=options).explainer._jit == "graph"
    assert make_engine(model, **how, options={"jit": "xla"}).explainer._jit == "xla"


def test_a_batch_without_a_good_row_has_all_columns(model):
    explainer = BatchExplainer(model, keep=["id"], jit="eager")
    good, bad = explainer(table([[1, 2]])), explainer(table([[WORDS], None]))
    assert BatchExplainer(model, keep=["id"], jit="eager")(table([[WORDS]])).schema == good.schema == bad.schema
    assert bad["relevance"].to_pylist() == [None, None]
    assert all(bad["error"].to_pylist())


def test_workers_share_the_rows(tmp_path, model):
    file = parquet(tmp_path / "x.parquet", ids_of(LENGTHS * 3), row_group_size=7)
    explain(model, file, tmp_path / "one", shard_rows=4)
    for i in range(3):
        explain(model, file, tmp_path / "three", shard_rows=4, shard=(i, 3))
    same(shards(tmp_path / "one"), shards(tmp_path / "three"))
    counts = [json.loads((tmp_path / "three" / f"manifest-{i}-of-3.json").read_text())["rows"] for i in range(3)]
    assert sum(counts) == 30
    assert max(counts) - min(counts) <= 4


# what is refused before anything is done


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": ["no"]}, "no column 'no' in the dataset; there are: id, ids"),
        ({"target": "label"}, "no column 'label'"),
        ({"inputs": {"x": "ids"}}, "no input 'x' to feed; this model takes ids"),
        ({"inputs": {"ids": "text"}}, "no column 'text'"),
        ({"target": targets.all_classes()}, "one class a row"),
        ({"shard": (3, 3)}, "0 <= i < n"),
        ({"shard_rows": 0}, "positive number of rows"),
        ({"rule": "gama"}, "gama"),
        ({"method": "magic"}, "magic"),
        ({"steps": 3}, "takes no option 'steps'"),
    ],
)
def test_nonsense_is_refused_before_the_first_row(tmp_path, model, options, message):
    file = parquet(tmp_path / "x.parquet", ids_of([2, 3]))
    with pytest.raises((InputError, onnx_lrp.RuleError), match=message.replace("(", "\\(")):
        explain(model, file, tmp_path / "out", **options)
    assert not (tmp_path / "out" / "relevance").exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.parquet", b"no parquet", "x.parquet: can't be read as .parquet"),
        ("x.npz", b"no zip", "can't be read as .npz"),
        ("x.csv", b"", "empty; expected a first line"),
        ("x.csv", b"1,2\n3,4\n", "expected the names of the columns"),
        ("x.jsonl", b"\n\n", "no rows in it"),
        ("x.txt", b"", "not from .txt"),
    ],
)
def test_files_that_are_none_are_named(tmp_path, model, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        explain(model, tmp_path / name, tmp_path / "out")
    with pytest.raises(InputError, match="no such file or folder"):
        explain(model, tmp_path / "missing.csv", tmp_path / "out")


def test_importing_it_imports_neither_tensorflow_nor_pyarrow_nor_ray():
    script = "import sys, onnx_lrp; onnx_lrp.explain_dataset, onnx_lrp.BatchExplainer\n"
    script += "print([m for m in ('tensorflow', 'pyarrow', 'ray', 'fsspec', 'pandas') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# read by others


def test_pandas_polars_and_duckdb_read_nested_columns(tmp_path, model):
    rows = ids_of([2, 4, 3])
    explain(model, parquet(tmp_path / "x.parquet", rows), tmp_path / "out", shard_rows=2)
    expected = [np.asarray(r["relevance"]) for r in shards(tmp_path / "out")]
    assert [e.shape for e in expected] == [(2, 4), (4, 4), (3, 4)]
    readers = {
        "pandas": lambda m: m.read_parquet(tmp_path / "out" / "relevance")["relevance"].tolist(),
        "polars": lambda m: m.read_parquet(tmp_path / "out" / "relevance" / "*.parquet")["relevance"].to_list(),
        "duckdb": lambda m: [
            r[0] for r in m.sql(f"select relevance from '{tmp_path}/out/relevance/*.parquet' order by row").fetchall()
        ],
    }
    read = 0
    for name, read_back in readers.items():
        try:
            module = __import__(name)
        except ImportError:
            continue
        read += 1
        for got, want in zip(read_back(module), expected, strict=True):
            np.testing.assert_array_equal(np.stack([np.asarray(step, np.float32) for step in got]), want.astype(np.float32))
    assert read


@settings(max_examples=10)
@given(cut=st.integers(1, 30), budget=st.integers(1, 2000), groups=st.integers(1, 12))
def test_windows_hold_every_row_once_in_order_and_none_of_two_shards(tmp_path_factory, cut, budget, groups):
    from onnx_lrp.dataset.decoding import Decoder
    from onnx_lrp.dataset.reading import Dataset
    from onnx_lrp.dataset.windows import Windows

    folder = tmp_path_factory.mktemp("w")
    rows = ids_of(LENGTHS * 2)
    parquet(folder / "a.parquet", rows[:13], row_group_size=groups)
    parquet(folder / "b.parquet", rows[13:], row_group_size=groups)
    engine = Engine(onnx_lrp.load(reader(folder / "m.onnx"), jit="eager"))
    data = Dataset.open(folder / "*.parquet")
    seen, ended = [], []
    for window in Windows(
        data, Decoder(engine, {"ids": ("ids",)}), {"id": arrow.int64()}, cut, budget, lambda shard: shard % 3 != 1
    ):
        assert window.first // cut == window.shard
        assert len(window) == 0 or (window.last - 1) // cut == window.shard
        seen += [(window.first + k, row.tolist(), window.place(k)[1]) for k, row in enumerate(window.inputs.get("ids", []))]
        ended += [window.shard] * window.ends
    wanted = [k for k in range(20) if k // cut % 3 != 1]
    assert seen == [(k, rows[k], k if k < 13 else k - 13) for k in wanted]
    assert ended == sorted({k // cut for k in wanted})
