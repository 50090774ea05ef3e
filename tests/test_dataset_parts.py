"""How a run is divided among workers: every shard is done once, whatever the numbers; and what is refused without any cluster."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest
from datasets import explain, ids_of, parquet, reader
from hypothesis import given
from hypothesis import strategies as st

from onnx_lrp import InputError, MissingExtra
from onnx_lrp.dataset.cluster import Cluster, divided
from onnx_lrp.dataset.work import Some

pytest.importorskip("pyarrow")


@given(
    shards=st.integers(0, 60),
    known=st.booleans(),
    workers=st.integers(1, 9),
    machine=st.integers(1, 4),
    data=st.data(),
)
def test_every_shard_that_is_left_is_given_to_one_worker(shards, known, workers, machine, data):
    start = data.draw(st.integers(0, machine - 1))
    done = data.draw(st.frozensets(st.integers(0, 60)))
    mine = Some(None, start, machine, done)
    parts = divided(mine, shards if known else None, workers)
    given_to = [sum(part(shard) for part in parts) for shard in range(shards)]
    assert given_to == [int(shard % machine == start and shard not in done) for shard in range(shards)]
    assert all(part.stop is None or not any(part(shard) for shard in range(part.stop, 100)) for part in parts)
    if not known:
        assert len(parts) == workers


def test_errors_can_be_sent_to_another_process():
    error = MissingExtra("ray", extra="ray", purpose="this")
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (MissingExtra, str(error))


def test_without_ray_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    model, file = reader(tmp_path / "m.onnx"), parquet(tmp_path / "x.parquet", ids_of([2]))
    with pytest.raises(MissingExtra, match=r'needs ray: pip install "onnx-lrp\[ray\]"'):
        explain(model, file, tmp_path / "out", engine="ray")
    assert not (tmp_path / "out").exists()


def test_a_local_run_imports_no_ray(tmp_path):
    model, file = reader(tmp_path / "m.onnx"), parquet(tmp_path / "x.parquet", ids_of([2]))
    script = "import sys, onnx_lrp\n"
    script += f"onnx_lrp.explain_dataset({model!r}, {file!r}, {str(tmp_path / 'out')!r}, jit='eager', verify='never')\n"
    script += "print('ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "spark"}, "engine='spark' does not exist; one of local, ray"),
        ({"workers": 2}, "workers=2: of engine='ray' alone"),
        ({"address": "auto"}, "address='auto': of engine='ray' alone"),
        ({"gpus_per_worker": 0.5}, "gpus_per_worker=0.5: of engine='ray' alone"),
    ],
)
def test_options_that_fit_no_engine_are_refused(tmp_path, options, message):
    model, file = reader(tmp_path / "m.onnx"), parquet(tmp_path / "x.parquet", ids_of([2]))
    with pytest.raises(InputError, match=message):
        explain(model, file, tmp_path / "out", **options)


@pytest.mark.parametrize(
    ("workers", "gpus"), [(0, 0.0), (-1, 0.0), (1.5, 0.0), (True, 0.0), (1, -1.0), (1, 1.5), (1, float("nan"))]
)
def test_workers_that_can_not_be(workers, gpus):
    with pytest.raises(InputError, match=r"workers must be|gpus_per_worker="):
        Cluster(None, workers, gpus)


@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:9", "127.0.0.1:99999"])
def test_a_cluster_that_is_not_there_is_said_before_anything_is_made(tmp_path, address, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", sys)  # whatever it is, it is not asked
    model, file = reader(tmp_path / "m.onnx"), parquet(tmp_path / "x.parquet", ids_of([2]))
    with pytest.raises(InputError, match=f"no Ray cluster at {address}: .*; `ray start --head` starts one"):
        explain(model, file, tmp_path / "out", engine="ray", address=address)
    assert not (tmp_path / "out").exists()
