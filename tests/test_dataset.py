"""Whole datasets: every row as if it came alone, whatever the format; rows that can't be explained stop nobody."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys

import numpy as np
import onnx
import pytest
from datasets import EAGER, dense, explain, ids_of, jsonl, parquet, reader, same, series, shards, table, text_csv
from hypothesis import given, settings
from hypothesis import strategies as st
from test_batches import bilstm
from test_ragged import sequences, tagger, with_lengths, words

import onnx_lrp
from onnx_lrp import BatchExplainer, InputError, targets
from onnx_lrp.dataset.engine import ABSORBED, Engine, Found
from onnx_lrp.dataset.tables import columns, objects
from onnx_lrp.runs import Runs
from onnx_lrp.testing.build import Builder

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


def test_one_step_of_a_model_whose_time_comes_first():
    explainer = onnx_lrp.load(tagger(), jit="eager")
    given = sequences([3, 5, 3, 2])
    _, made = columns(run(Engine(explainer, target=targets.step(-1)), {"x": given})[0])
    assert made["target"].to_pylist() == explainer.explain(given, targets.step(-1)).target.tolist()


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


TARGETS = {
    "a contrast": targets.contrast(0, 2),
    "a seed": targets.seed(lambda scores: 2 * scores),
    "the last step": targets.step(-1),
    "a class at the last step": targets.step(-1, 2),
    "two steps": targets.step([0, -1], 1),
}


@pytest.mark.parametrize("target", TARGETS)
def test_targets_beyond_a_class_are_those_of_each_row(tmp_path, target):
    """Also where time stands in front, with as many steps as rows."""
    path, given, target = tmp_path / "tagger.onnx", sequences([3, 5, 3, 3, 2]), TARGETS[target]
    onnx.save(tagger(), path)
    data = jsonl(tmp_path / "x.jsonl", {"x": [row.tolist() for row in given]})
    explain(path, data, tmp_path / "out", target=target)
    found, explainer = shards(tmp_path / "out"), onnx_lrp.load(path, **EAGER)
    assert [row["row"] for row in found] == [*range(5)]
    for row, x in zip(found, given, strict=True):
        alone = explainer.explain(x[:, None], target)
        np.testing.assert_allclose(row["relevance"], alone.relevance["x"][:, 0], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(row["seed"], alone.seed[0], rtol=1e-5)
        assert row["target"] == (str(target) if isinstance(alone.target, targets.Spec) else alone.target[0])


def test_another_output_with_other_axes():
    b = Builder(np.random.default_rng(3), 17)
    x = b.input("x", b.numbers(6, 2, 3), ["T", "B", 3])
    y, last = b.ops("LSTM", x, b.weight(1, 16, 3), b.weight(1, 16, 4), b.weight(1, 32), hidden_size=4, outputs=2)
    classes = b.op("MatMul", b.op("Squeeze", last, b.ints(0)), b.weight(4, 2))
    tags = b.op("MatMul", b.op("Squeeze", y, b.ints(1)), b.weight(4, 3))
    model, given = b.case(classes, tags)[0], sequences([3, 3, 3, 2])
    found, _ = run(Engine(onnx_lrp.load(model, jit="eager"), target=targets.output(tags)), {"x": given})
    _, made = columns(found)
    for k, row in enumerate(given):
        alone = onnx_lrp.load(model, jit="eager", output=tags).explain(row[:, None])
        assert made["target"][k].as_py() == alone.target[:, 0].tolist()
        np.testing.assert_allclose(made["output"][k].as_py(), alone.outputs[tags][:, 0], rtol=1e-4, atol=1e-6)


def test_bunches_hold_no_more_than_the_budget(monkeypatch):
    seen = []
    real = Runs.run
    monkeypatch.setattr(Runs, "run", lambda self, x, *a, **k: seen.append(x["x"].shape[1]) or real(self, x, *a, **k))
    engine = Engine(onnx_lrp.load(bilstm()[0], jit="eager", max_bytes=20_000))
    found, _ = run(engine, {"x": sequences([6] * 40)})
    probe, parts = seen[:3], seen[3:]
    assert probe == [2, 1, 1]  # whether samples see each other
    assert sum(parts) == 40
    assert 1 < len(parts) < 40
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


@pytest.mark.parametrize("given_", ["auto", None])
def test_a_dataset_is_not_compiled_unless_it_is_asked_for(model, given_):
    from onnx_lrp.dataset.worker import make_engine

    options = {} if given_ is None else {"jit": given_}
    how = {"target": None, "method": "lrp", "per_step": False, "max_length": None}
    assert make_engine(model, **how, options=options).explainer._options.jit == "graph"
    assert make_engine(model, **how, options={"jit": "xla"}).explainer._options.jit == "xla"


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
        ({"target": [0, 1]}, "one class for all rows"),
        ({"target": targets.contrast([0, 1], 2)}, "one class for all rows"),
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


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("group", [1, 400])
def test_a_window_is_written_a_row_group_at_a_time(tmp_path, model, monkeypatch, padded, group):
    from pyarrow import parquet as files

    from onnx_lrp.dataset import work

    rows = [row.tolist() for row in sequences(LENGTHS)] if padded else ids_of(LENGTHS)
    rows[3], rows[7] = None, []
    file = parquet(tmp_path / "x.parquet", rows)
    options = {"keep": ["id"], "inputs": {"x" if padded else "ids": "ids"}, "shard_rows": 7}
    asked = with_lengths() if padded else model
    explain(asked, file, tmp_path / "whole", **options)
    monkeypatch.setattr(work, "GROUP", group)
    explain(asked, file, tmp_path / "parts", **options)
    same(shards(tmp_path / "whole"), shards(tmp_path / "parts"))
    assert shards(tmp_path / "whole", "errors") == shards(tmp_path / "parts", "errors")
    groups = [files.ParquetFile(path).num_row_groups for path in sorted((tmp_path / "parts" / "relevance").glob("*"))]
    assert groups == [6, 2] if group == 1 else 2 < sum(groups) < 8
    held = [json.loads((tmp_path / run / "manifest.json").read_text()) for run in ("whole", "parts")]
    assert held[0]["worst_residual"] == held[1]["worst_residual"]


def test_what_can_not_repeat_itself_has_no_dictionary(tmp_path, model):
    from pyarrow import parquet as files

    tags = [{"name": "a", "weight": 0.5, "parts": ["p", "p"]}] * 3
    explain(model, parquet(tmp_path / "x.parquet", ids_of([2, 3, 2]), tags=tags), tmp_path / "out", keep=["tags"])
    held = files.ParquetFile(tmp_path / "out" / "relevance" / "part-00000000.parquet").metadata.row_group(0)
    columns = [held.column(k) for k in range(held.num_columns)]
    found = {c.path_in_schema for c in columns if "RLE_DICTIONARY" in c.encodings}
    assert found == {"row", "prediction", "target", "tags.name", "tags.parts.list.element"}
    assert not next(c for c in columns if c.path_in_schema == "relevance.list.element.list.element").is_stats_set


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
