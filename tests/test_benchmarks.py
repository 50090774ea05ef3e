"""The benchmarks run and measure what they say: tiny shapes, no times."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnx_lrp

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
TINY = (3, 4, 2, 5, 3)  # I, H, C, T, B
QUICK = {"pairs": 2, "settle": 0.0, "jit": "graph"}
# PyTorch's and Captum's own
theirs = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")


@pytest.fixture(autouse=True)
def beside(monkeypatch):
    """Benchmarks import each other as scripts do."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def module(name):
    return importlib.import_module(name)


def run(script, *arguments):
    command = [sys.executable, str(BENCHMARKS / script), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(BENCHMARKS.parent)}  # this checkout's package
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_row_of_its_own_process():
    lines = run("recurrent.py", "--shapes", "3,4,2,5,3", "--pairs", 2, "--settle", 0, "--jit", "graph", "--no-torch")
    titles, rule, row = lines[:3]
    assert titles.count("|") == rule.count("|") == row.count("|")
    assert row.startswith("| 3, 4, 2, 5, 3 | ")
    assert lines[-1] == "No comparison with PyTorch and Captum: not asked for." or "not installed" in lines[-1]


def test_turns_are_taken_in_turn():
    measure, seen = module("_measure"), []
    functions = {name: lambda name=name: seen.append(name) for name in "ab"}
    seconds = measure.turns(functions, 3, settle=0, warm=1)
    assert "".join(seen) == "ab" + "aabb" * 3
    assert {name: len(s) for name, s in seconds.items()} == dict.fromkeys(("a", "a again", "b", "b again"), 3)
    assert measure.ratio({"a": [2, 9, 4], "b": [1, 1, 4]}, "a", "b") == 2


def test_a_process_knows_its_peak():
    measure = module("_measure")
    assert 0 < measure.memory("VmRSS") <= measure.memory("VmHWM")


@theirs
def test_the_twin_is_the_same_network():
    torch = pytest.importorskip("torch")
    models, other = module("_models"), module("_twin")
    i, h, c, t, b = TINY
    model, x = models.bilstm(i, h, c), models.batch(t, b, i)
    (logits,) = models.session(model).run(None, {"x": x})
    with torch.inference_mode():
        again = other.twin(model)(torch.from_numpy(x.swapaxes(0, 1).copy())).numpy()
    np.testing.assert_allclose(again, logits, atol=1e-5)


@theirs
def test_captum_explains_the_same_score(one_thread):
    pytest.importorskip("captum")
    models, other = module("_models"), module("_twin")
    i, h, c, t, b = TINY
    model, x = models.bilstm(i, h, c), models.batch(t, b, i)
    (logits,) = models.session(model).run(None, {"x": x})
    found = other.others(model, x, logits)
    for method in ("gradient_x_input", "integrated_gradients"):
        ours = onnx_lrp.load(model, jit="graph").explain(x, method=method).relevance["x"]
        np.testing.assert_allclose(found[method]().detach().numpy().swapaxes(0, 1), ours, atol=1e-5)
    with pytest.raises(AssertionError, match="differ from onnxruntime's"):
        other.others(model, x, logits + 1)


@pytest.fixture
def one_thread():
    """PyTorch's threads and TensorFlow's wait for each other where they call without a rest."""
    torch = pytest.importorskip("torch")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def check_row(torch):
    recurrent = module("recurrent")
    row = recurrent.measure(TINY, **QUICK, torch=torch)
    assert len(recurrent.cells(row)) == len(recurrent.titles(torch=torch))
    names = recurrent.COLUMNS if torch else ["forward"]
    assert {key for key in row if key.startswith("over_")} == {f"over_{name}{which}" for name in names for which in ("", "_again")}
    assert row["peak_mib"] > 0
    json.dumps(row, allow_nan=False)


def test_a_row_has_every_column():
    check_row(torch=False)


@theirs
def test_a_row_has_every_column_of_a_comparison(one_thread):
    pytest.importorskip("captum")
    check_row(torch=True)


def test_the_slope_of_a_power_law():
    growth = module("growth")
    assert growth.slope({size: 0.1 * size**2 for size in (1, 10, 100, 1000)}) == pytest.approx(2)
    assert growth.slope({1: 6.0, 2: 6.0, 4: 12.0}, least=5) == pytest.approx(0.5)
    assert growth.slope({1: 3.0, 2: 6.0}) is None


@pytest.mark.parametrize("axis", ["T", "B", "H"])
def test_growth_has_every_size(axis, monkeypatch):
    growth = module("growth")
    monkeypatch.setattr(growth, "BASE", {"T": 2, "B": 2, "H": 3})
    times = growth.grow(axis, [1, 2], **QUICK)
    assert list(times) == [1, 2]
    assert len(growth.cells(axis, times)) == 4


def test_memory_of_a_fresh_process():
    (row,) = json.loads("".join(run("memory.py", "--steps", 20, "--json")))
    parts = row["before_mib"] + row["inputs_mib"] + row["result_mib"]
    assert row["taken_mib"] == pytest.approx(row["peak_mib"] - parts)
    assert row["residual"] < 1e-4


@pytest.mark.parametrize("lens", [False, True])
def test_sequences_in_their_order(lens, monkeypatch):
    ragged = module("ragged")
    for name, value in {"FEATURES": 3, "HIDDEN": 4, "SHORTEST": 2, "LONGEST": 5, "SIZES": (2, 3)}.items():
        monkeypatch.setattr(ragged, name, value)
    given = ragged.sequences(9)
    row = ragged.measure(given, lens=lens, **QUICK)
    assert row["wrong"] == 0
    assert row["sequences"] == 9
    assert row["traces"] >= 1
    assert ragged.cells(row)[-1] == "kept"
    explainer = onnx_lrp.load(ragged.bilstm(3, 4, 2, lens=lens), precision="float64")
    made = explainer.explain(given)
    (relevance,) = made.relevance.values()
    relevance[:, [0, 8]] = relevance[:, [8, 0]]  # seen to fail once
    assert ragged.wrong(explainer, given, made, lens=lens) == 2


def test_datasets_are_measured_over_the_raw_engine_on_their_own_batches():
    pytest.importorskip("pyarrow")
    row = module("dataset").speed(30, full=False, pairs=1, settle=0.0, jit="graph")
    assert row["rows"] == 30
    assert 1 < row["batches"] <= 30
    assert row["bytes_in"] > 0
    assert row["bytes_out"] > 0


def test_the_greedy_order_of_a_sum_is_the_best():
    from test_evaluation import additive, bench_of

    model, feeds = additive()
    bench = bench_of((model, feeds))
    targets = bench.scores(range(len(bench))).argmax(1)
    weight = next(onnx.numpy_helper.to_array(t) for t in model.graph.initializer if list(t.dims) == [3, 2])
    effects = np.stack([(x @ weight)[:, target] for x, target in zip(feeds["x"], targets, strict=True)])
    right = [[own.sum() - np.sort(own)[::-1][:k].sum() for k in range(6)] for own in effects]
    assert module("ceiling").greedy(bench, targets, 5) == pytest.approx(np.asarray(right), abs=1e-5)


def test_methods_are_timed_by_batch():
    head, row = run("methods.py", "--batches", "2", "--runs", "1")
    assert "integrated gradients" in head
    assert row.split()[0] == "2"
