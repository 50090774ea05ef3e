"""Datasets on a Ray cluster of two nodes: the same rows in the same files as on one machine, whoever dies."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import warnings

import numpy as np
import pytest
from datasets import WORDS, explain, ids_of, jsonl, parquet, reader, same, shards

import onnx_lrp
from onnx_lrp import BatchExplainer, InputError, cli
from onnx_lrp.dataset import cluster as ray_module

arrow = pytest.importorskip("pyarrow")
ray = pytest.importorskip("ray")
pytestmark = [
    # Ray's own: sockets and processes that it leaves to the interpreter's end, and notices of what will change
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
ROWS = 60


@pytest.fixture(scope="module")
def address():
    """Two nodes of one core, with as little shared memory as Ray takes."""
    from ray.cluster_utils import Cluster

    here = os.path.dirname(__file__)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setenv("PYTHONPATH", os.pathsep.join([here, os.environ.get("PYTHONPATH", "")]))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        cluster = Cluster()
        for _ in range(2):
            cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20, include_dashboard=False)
        ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
        yield cluster.address
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """(model, Parquet file with bad rows, the folder of a local run)."""
    folder = tmp_path_factory.mktemp("case")
    model = reader(folder / "reader.onnx")
    rows = ids_of([3, 2, 5, 1, 4, 2] * 10)
    rows[4], rows[17], rows[18] = None, [1, WORDS], []
    rows[20:24] = [None] * 4  # a whole shard
    file = parquet(folder / "x.parquet", rows, row_group_size=7, label=[k % 3 for k in range(ROWS)])
    explain(model, file, folder / "whole", shard_rows=4, keep=["id"], target="label")
    return model, file, folder / "whole"


def schemas(out, kind):
    from pyarrow import parquet as files

    return [(p.name, files.read_schema(p).remove_metadata()) for p in sorted((out / kind).glob("*.parquet"))]


def alike(out, whole):
    """The same files, of the same schema, with the same rows; and nothing else."""
    same(shards(whole), shards(out))
    assert shards(whole, "errors") == shards(out, "errors")
    for kind in ("relevance", "errors"):
        assert schemas(whole, kind) == schemas(out, kind)
    ours, theirs = (json.loads((folder / "manifest.json").read_text()) for folder in (out, whole))
    for name in ("status", "asked", "done", "rows", "explained", "errors"):
        assert ours[name] == theirs[name], name
    assert ours["worst_residual"]["value"] == pytest.approx(theirs["worst_residual"]["value"], abs=1e-5)
    assert list(out.rglob(".*")) == []


def on_ray(model, file, out, **options):
    given = {"shard_rows": 4, "keep": ["id"], "target": "label", "engine": "ray", "workers": 2}
    return explain(model, file, out, **{**given, **options})


def test_every_row_is_that_of_a_local_run(case, tmp_path, address):
    model, file, whole = case
    told = []
    on_ray(model, file, tmp_path / "out", progress=told.append)
    alike(tmp_path / "out", whole)
    assert [p.rows for p in told] == sorted(p.rows for p in told)
    assert (told[-1].rows, told[-1].total, told[-1].errors) == (ROWS, ROWS, 7)


def test_files_of_unknown_length_are_divided_too(case, tmp_path, address):
    model, _, _ = case
    rows = ids_of([3, 2, 5] * 9)
    file = jsonl(tmp_path / "x.jsonl", {"id": list(range(27)), "ids": rows, "label": [0] * 27})
    explain(model, file, tmp_path / "whole", shard_rows=4, keep=["id"], target="label")
    found = on_ray(model, file, tmp_path / "out")
    assert found["done"] == [[0, 27]]
    same(shards(tmp_path / "whole"), shards(tmp_path / "out"))


def test_a_worker_killed_in_the_midst_loses_nothing(case, tmp_path, address, monkeypatch):
    """Killed as the system kills a process, while it has a shard half done."""
    model, file, whole = case
    killed = []
    lock = threading.Lock()

    def kill(now):
        with lock:
            if killed or now.rows < 8:
                return
            pool = seen[-1]
            worker, _ = next(iter(pool._busy.values()))
            pid = pids[worker]
            killed.append(pid)
            os.kill(pid, signal.SIGKILL)

    seen, pids = [], {}
    real = ray_module._Pool._heard

    def heard(self, which, left):
        if self not in seen:
            seen.append(self)
        if which in self._starting:
            pids[self._starting[which]] = ray.get(which)
        yield from real(self, which, left)

    monkeypatch.setattr(ray_module._Pool, "_heard", heard)
    on_ray(model, file, tmp_path / "out", progress=kill)
    assert len(killed) == 1
    alike(tmp_path / "out", whole)


def test_stopped_it_goes_on_locally_and_a_local_run_on_ray(case, tmp_path, address):
    model, file, whole = case

    def stop(now):
        if now.rows >= 12:
            raise KeyboardInterrupt

    for first, then in (("ray", "local"), ("local", "ray")):
        out = tmp_path / first
        options = {"workers": None} if first == "local" else {}
        with pytest.raises(KeyboardInterrupt):
            on_ray(model, file, out, progress=stop, engine=first, **options)
        done = set((out / "relevance").glob("part-*"))
        assert 0 < len(done) < 14
        kept = {p: p.stat().st_mtime_ns for p in done}
        with pytest.raises(InputError, match="holds a run already"):
            on_ray(model, file, out)
        options = {"workers": None} if then == "local" else {}
        on_ray(model, file, out, engine=then, resume=True, **options)
        alike(out, whole)
        assert {p: p.stat().st_mtime_ns for p in done} == kept


def deadly(text):
    """A tokenizer that takes its process along."""
    if "die" in text:
        os._exit(9)
    return [1, 2]


def test_workers_that_always_die_end_the_run(case, tmp_path, address):
    model, _, _ = case
    file = jsonl(tmp_path / "x.jsonl", {"ids": ["fine"] * 4 + ["die"] + ["fine"] * 7})
    start = time.monotonic()
    with pytest.raises(InputError, match="3 workers died one after the other"):
        explain(model, file, tmp_path / "out", shard_rows=4, engine="ray", workers=1, encode=deadly)
    assert time.monotonic() - start < 120
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["status"] == "stopped"


def test_what_a_worker_raises_is_raised_here(case, tmp_path, address, monkeypatch):
    model, file, _ = case
    with pytest.raises(InputError, match="more than 2; the first is row"):
        on_ray(model, file, tmp_path / "out", max_errors=2)
    monkeypatch.setattr(ray_module.Worker, "ready", lambda self: (_ for _ in ()).throw(onnx_lrp.RuleError("no such rule")))
    with pytest.raises(onnx_lrp.RuleError, match="no such rule"):
        on_ray(model, file, tmp_path / "raised")


def test_the_command_line(case, tmp_path, address, capsys):
    model, file, whole = case
    asked = ["batch", model, file, "--out", str(tmp_path / "out"), "--keep", "id", "--target", "label", "--shard-rows", "4"]
    asked += ["--jit", "eager", "--verify", "never", "--engine", "ray", "--workers", "2", "--address", address]
    assert cli.run(asked) == 0
    assert capsys.readouterr().out.startswith(f"{ROWS} rows: {ROWS - 7} explained, 7 errors; ")
    same(shards(whole), shards(tmp_path / "out"))


def test_the_recipe_for_ray_data(case, address):
    """``BatchExplainer`` as the class of an actor, as the documentation says."""
    model, file, whole = case
    data = ray.data.read_parquet(file).map_batches(
        BatchExplainer,
        fn_constructor_args=[model],
        fn_constructor_kwargs={"inputs": {"ids": "ids"}, "keep": ["id"], "target": "label", "jit": "eager", "verify": "never"},
        batch_format="pyarrow",
        batch_size=16,
        concurrency=1,
    )
    found = {row["id"]: row for row in data.take_all()}
    assert len(found) == ROWS
    expected = {row["id"]: row for row in shards(whole)}
    assert {k for k, row in found.items() if row["error"] is None} == set(expected)
    for k, row in expected.items():
        np.testing.assert_allclose(np.stack(found[k]["relevance"]), row["relevance"], rtol=2e-4, atol=2e-6)
        assert found[k]["target"] == row["target"]
