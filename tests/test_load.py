"""Under load: threads that share an explainer, pools of processes, thousands of explanations in a row, and an interrupted run."""

from __future__ import annotations

import concurrent.futures
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import apart
import numpy as np
import onnx
import pytest

import onnx_lrp
from onnx_lrp.program import Program

sys.path.insert(0, str(Path(__file__).parent / "fuzz"))

from bases import branching, dense, recurrent, words

THREADS = 8
NIGHTLY = os.environ.get("HYPOTHESIS_PROFILE") == "nightly"
SECONDS = 300.0 if NIGHTLY else 3.0  # that threads load and explain
IN_A_ROW = 10_000 if NIGHTLY else 500  # explanations by one process


def equal(a, b):
    for point, relevance in b.relevance.items():
        np.testing.assert_allclose(a.relevance[point], relevance, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(a.seed, b.seed, rtol=1e-5, atol=1e-6)


def together(tasks):
    """Results of functions that start at the same moment, each in its thread."""
    barrier = threading.Barrier(len(tasks))

    def run(task):
        barrier.wait()
        return task()

    with concurrent.futures.ThreadPoolExecutor(len(tasks)) as pool:
        return [f.result() for f in [pool.submit(run, task) for task in tasks]]


@pytest.mark.parametrize("jit", ["auto", "graph", "eager"])
def test_threads_that_share_an_explainer(jit):
    """The first calls of all, of three shapes: what is traced, verified and counted first is the same for everybody."""
    rng = np.random.default_rng(0)
    inputs = [rng.normal(size=(2 + k % 3, 2, 3)).astype(np.float32) for k in range(THREADS)]
    model = recurrent("LSTM", 4)
    serial = onnx_lrp.load(model, jit="eager")
    shared = onnx_lrp.load(model, jit=jit)
    for _ in range(2):
        for x, found in zip(inputs, together([lambda x=x: shared.explain(x) for x in inputs]), strict=True):
            equal(found, serial.explain(x))


def test_threads_trace_a_program_once(monkeypatch):
    traced, program = [], Program.forward

    def counted(self, *arguments, **options):
        traced.append(threading.get_ident())
        return program(self, *arguments, **options)

    monkeypatch.setattr(Program, "forward", counted)
    shared = onnx_lrp.load(dense(), jit="graph", verify="never")
    x = np.ones((2, 3), np.float32)
    together([lambda: shared.explain(x)] * THREADS)
    assert len(traced) == 1


def test_threads_that_take_other_branches():
    shared, serial = onnx_lrp.load(branching(), jit="eager"), onnx_lrp.load(branching(), jit="eager")
    x = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    feeds = [{"x": x, "flag": np.asarray(k % 2 == 0)} for k in range(THREADS)]
    for own, found in zip(feeds, together([lambda own=own: shared.explain(own) for own in feeds]), strict=True):
        equal(found, serial.explain(own))


def test_threads_that_load_and_explain_for_a_while(capsys):
    """Models of four kinds, each time another batch, by an explainer of their own or by one that all share."""
    rng = np.random.default_rng(0)
    models = [dense(), recurrent("LSTM", 4), recurrent("GRU", 3), words()]
    inputs = [
        [rng.normal(size=(k + 1, 3)).astype(np.float32) for k in range(3)],
        *[[rng.normal(size=(k + 2, 2, 3)).astype(np.float32) for k in range(3)] for _ in range(2)],
        [rng.integers(0, 5, (2, k + 1)) for k in range(3)],
    ]
    expected = [[onnx_lrp.load(m, jit="eager").explain(x) for x in xs] for m, xs in zip(models, inputs, strict=True)]
    shared = [onnx_lrp.load(m, jit="graph") for m in models]
    end = time.monotonic() + SECONDS

    def run(seed):
        own, count = np.random.default_rng(seed), 0
        while time.monotonic() < end or not count:
            k, n, fresh = own.integers(len(models)), own.integers(3), own.random() < 0.5
            explainer = onnx_lrp.load(models[k], jit="eager") if fresh else shared[k]
            equal(explainer.explain(inputs[k][n]), expected[k][n])
            count += 1
        return count

    counts = together([lambda seed=seed: run(seed) for seed in range(THREADS)])
    with capsys.disabled():
        print(f"\n{THREADS} threads, {SECONDS:g} s: {sum(counts)} explanations, none different" if NIGHTLY else "", end="")


def in_process(data):
    model, x = data
    explanation = onnx_lrp.load(model, jit="eager").explain(x)
    return explanation.relevance["x"]


def test_a_pool_of_processes(monkeypatch):
    """Started afresh, as on macOS and Windows: models travel as bytes, explanations as arrays."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(onnx_lrp.__file__).parents[1]), str(Path(__file__).parent)]))
    model = dense().SerializeToString()
    inputs = [np.full((2, 3), k, np.float32) for k in range(3)]
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        found = list(pool.map(in_process, [(model, x) for x in inputs]))
    for x, relevance in zip(inputs, found, strict=True):
        np.testing.assert_allclose(relevance, in_process((model, x)), rtol=1e-5, atol=1e-6)


def resident():
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc")
def test_many_explanations_do_not_grow_the_process(capsys):
    explainer = onnx_lrp.load(dense(), jit="graph")
    x = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    for _ in range(100):
        explainer.explain(x)
    before = resident()
    for _ in range(IN_A_ROW):
        explainer.explain(x)
    grown = resident() - before
    with capsys.disabled():
        print(f"\n{IN_A_ROW} explanations in a row: {before / 2**20:.0f} MiB and {grown / 2**20:+.1f}" if NIGHTLY else "", end="")
    assert grown < 5e6  # a leaked explanation of 200 samples is 8 kB: 500 of them would still be seen with their graph


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for a child there")
def test_an_interrupted_run_leaves_nothing_behind(tmp_path):
    onnx.save(dense(), tmp_path / "model.onnx")
    np.save(tmp_path / "x.npy", np.ones((2, 3), np.float32))
    script = (
        f"import sys, time\n{apart.INTERRUPTIBLE}\nfrom onnx_lrp import cli, Explanation\nsave = Explanation.save\n"
        "def slow(self, path):\n    save(self, path)\n    print('written', flush=True)\n    time.sleep(600)\n"
        "Explanation.save = slow\ncli.main(['explain', 'model.onnx', 'x.npy', '--save', 'out.npz', '--jit', 'eager'])\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(onnx_lrp.__file__).parents[1])},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "written\n"
    assert len(list(tmp_path.iterdir())) == 3  # the part that is not in its place yet
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=apart.PATIENCE)
    assert (process.returncode, err) == (5, "onnx-lrp: interrupted\n")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.onnx", "x.npy"]
