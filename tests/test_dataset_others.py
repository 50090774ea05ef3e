"""Datasets and other people's engines: what pandas, polars and DuckDB read back, and what Spark and Dask ship to their workers."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from datasets import WORDS, explain, ids_of, parquet, reader, same, shards, table

from onnx_lrp import BatchExplainer

arrow = pytest.importorskip("pyarrow")
LENGTHS = [4, 2, 7, 4, 1, 3, 2, 4, 6, 5]


@pytest.fixture
def model(tmp_path):
    return reader(tmp_path / "reader.onnx")


# read by others


def read_by(name, module, folder):
    """[(row, relevance, label, pieces of a kept column)] of all shards, as another library reads them."""
    if name == "pandas":
        frame = module.read_parquet(folder)
        return list(zip(frame["row"], frame["relevance"], frame["absorbed_bias"], frame["tags"], strict=True))
    if name == "polars":
        frame = module.read_parquet(folder / "*.parquet")
        return list(frame.select("row", "relevance", "absorbed_bias", "tags").iter_rows())
    return module.sql(f"select row, relevance, absorbed_bias, tags from '{folder}/*.parquet' order by row").fetchall()


@pytest.mark.parametrize("name", ["pandas", "polars", "duckdb"])
def test_nested_columns_are_read_back_by(name, tmp_path, model):
    module = pytest.importorskip(name)
    tags = [["a", "b"], [], None, ["c"]]
    file = parquet(tmp_path / "x.parquet", ids_of([2, 4, 3, 2]), tags=tags)
    explain(model, file, tmp_path / "out", shard_rows=2, keep=["tags"])
    expected = shards(tmp_path / "out")
    assert [np.shape(r["relevance"]) for r in expected] == [(2, 4), (4, 4), (3, 4), (2, 4)]
    found = read_by(name, module, tmp_path / "out" / "relevance")
    for (row, relevance, absorbed, own), want in zip(found, expected, strict=True):
        assert row == want["row"]
        got = np.stack([np.asarray(step, np.float32) for step in relevance])
        np.testing.assert_array_equal(got, np.asarray(want["relevance"], np.float32))
        assert absorbed == want["absorbed_bias"]
        assert (None if own is None else list(own)) == tags[row]


def test_duckdb_sums_relevance_within_its_lists(tmp_path, model):
    duckdb = pytest.importorskip("duckdb")
    explain(model, parquet(tmp_path / "x.parquet", ids_of([2, 4, 3])), tmp_path / "out")
    found = duckdb.sql(
        "select row, list_sum(list_transform(relevance, lambda step: list_sum(step))) "
        f"from '{tmp_path}/out/relevance/*.parquet' order by row"
    ).fetchall()
    for (row, total), want in zip(found, shards(tmp_path / "out"), strict=True):
        assert row == want["row"]
        assert total == pytest.approx(np.sum(want["relevance"]), rel=1e-5, abs=1e-6)


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


def test_a_batch_without_a_good_row_has_all_columns(model):
    explainer = BatchExplainer(model, keep=["id"], jit="eager")
    good, bad = explainer(table([[1, 2]])), explainer(table([[WORDS], None]))
    assert BatchExplainer(model, keep=["id"], jit="eager")(table([[WORDS]])).schema == good.schema == bad.schema
    assert bad["relevance"].to_pylist() == [None, None]
    assert all(bad["error"].to_pylist())


def test_dask_maps_its_partitions(tmp_path, model):
    """As the documentation says; the frame's types are told by a batch of no rows."""
    pytest.importorskip("dask.dataframe")
    import dask
    import dask.dataframe as dd
    import pandas as pd

    explainer = BatchExplainer(model, inputs={"ids": "ids"}, keep=["id"], per_step=True, jit="eager")
    explain(model, parquet(tmp_path / "x.parquet", ids_of(LENGTHS)), tmp_path / "out", keep=["id"], per_step=True)

    def explained(part: pd.DataFrame) -> pd.DataFrame:
        made = explainer(pa_table(part))
        return made.to_pandas(types_mapper=pd.ArrowDtype)

    def pa_table(part: pd.DataFrame):
        return arrow.Table.from_pandas(part, table(ids_of([1])).schema, preserve_index=False)

    with dask.config.set({"dataframe.convert-string": False}):
        frame = dd.from_pandas(table(ids_of(LENGTHS)).to_pandas(types_mapper=pd.ArrowDtype), npartitions=3)
        meta = explained(table(ids_of([1])).slice(0, 0).to_pandas(types_mapper=pd.ArrowDtype))
        found = frame.map_partitions(explained, meta=meta).compute(scheduler="synchronous")
    assert found["error"].isna().all()
    expected = shards(tmp_path / "out")
    assert found["id"].tolist() == [row["id"] for row in expected]
    for got, want in zip(found["relevance"], expected, strict=True):
        np.testing.assert_allclose(got, want["relevance"], rtol=2e-4, atol=2e-6)
