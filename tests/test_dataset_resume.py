"""Stopped at any moment, gone on with: every row exactly once, as in a run that nobody disturbed."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import apart
import pytest
from datasets import explain, ids_of, parquet, reader, same, series, shards

import onnx_lrp
from onnx_lrp import InputError, cli
from onnx_lrp.dataset import manifest
from onnx_lrp.dataset import shards as shards_module

arrow = pytest.importorskip("pyarrow")
ROWS = 26


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """(model, dataset with bad rows, the rows and errors of an undisturbed run)."""
    folder = tmp_path_factory.mktemp("case")
    model = reader(folder / "reader.onnx")
    rows = ids_of([3, 2, 5] * 8 + [1, 2])
    rows[4] = rows[5] = rows[6] = rows[7] = rows[17] = None  # a whole shard of four, and one alone
    file = parquet(folder / "x.parquet", rows, row_group_size=5)
    explain(model, file, folder / "whole", shard_rows=4, keep=["id"])
    return model, file, folder / "whole"


def complete(out: Path, whole: Path) -> None:
    """The results are those of the undisturbed run, and nothing else lies there."""
    same(shards(whole), shards(out))
    assert shards(whole, "errors") == shards(out, "errors")
    held = json.loads((out / "manifest.json").read_text())
    assert (held["status"], held["done"], held["rows"]) == ("done", [[0, ROWS]], ROWS)
    assert (held["explained"], held["errors"]) == (21, {"null": 5})
    assert list(out.rglob(".*")) == []


class Killed(BaseException):
    """What no handler of errors catches."""


def test_every_row_is_there_once_wherever_it_is_cut_off(case, tmp_path, monkeypatch):
    """Cut off before and behind every call that makes something visible on the disk, with nothing cleaned up behind it."""
    model, file, whole = case
    calls, stop, dead = 0, -1, False

    def counted(function):
        def call(*arguments):
            nonlocal calls, dead
            for _ in range(2):  # before and behind it
                calls += 1
                dead = dead or calls == stop
                if dead:
                    raise Killed
                if calls % 2:
                    function(*arguments)

        return call

    monkeypatch.setattr(manifest, "EVERY", -1.0)  # as many calls on a slow machine as on a fast one
    monkeypatch.setattr(shards_module.Shards, "abandon", lambda self: None)  # a process that is killed cleans up nothing
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", counted(os.replace))
        explain(model, file, tmp_path / "count", shard_rows=4, keep=["id"])
        total = calls
        assert total >= 20
        for stop in range(1, total + 1):
            out = tmp_path / f"out{stop}"
            calls = 0
            with pytest.raises(Killed):
                explain(model, file, out, shard_rows=4, keep=["id"])
            calls, dead = -(10**6), False
            explain(model, file, out, shard_rows=4, keep=["id"], resume=True)
            complete(out, whole)


def test_what_is_done_is_not_done_again(case, tmp_path, monkeypatch):
    model, file, whole = case
    shutil.copytree(whole, tmp_path / "out")
    (tmp_path / "out" / "relevance" / "part-00000003.parquet").unlink()
    seen = []
    real = onnx_lrp.Explainer.explain
    monkeypatch.setattr(
        onnx_lrp.Explainer, "explain", lambda self, x, *a, **k: seen.append(len(x["ids"])) or real(self, x, *a, **k)
    )
    explain(model, file, tmp_path / "out", shard_rows=4, keep=["id"], resume=True)
    assert sum(seen) == 4
    complete(tmp_path / "out", whole)


def test_a_folder_of_another_run_is_refused(case, tmp_path):
    model, file, whole = case
    shutil.copytree(whole, tmp_path / "out")
    with pytest.raises(InputError, match="holds a run already; go on with it by --resume"):
        explain(model, file, tmp_path / "out", shard_rows=4, keep=["id"])
    with pytest.raises(InputError, match="holds another run: per_step was false, now true"):
        explain(model, file, tmp_path / "out", shard_rows=4, keep=["id"], per_step=True, resume=True)
    with pytest.raises(InputError, match="holds another run: options was"):
        explain(model, file, tmp_path / "out", shard_rows=4, keep=["id"], epsilon=0.1, resume=True)
    shutil.copy(model, tmp_path / "elsewhere.onnx")
    (tmp_path / "data").mkdir()
    shutil.copy(file, tmp_path / "data")
    explain(tmp_path / "elsewhere.onnx", tmp_path / "data", tmp_path / "out", shard_rows=4, keep=["id"], resume=True)
    with pytest.raises(InputError, match="holds another run: model was"):
        explain(series(tmp_path / "elsewhere.onnx"), file, tmp_path / "out", shard_rows=4, inputs={"x": "ids"}, resume=True)
    with pytest.raises(InputError, match="holds another run: files was"):
        explain(model, parquet(tmp_path / "y.parquet", ids_of([2])), tmp_path / "out", shard_rows=4, keep=["id"], resume=True)


# the command line, as a process


def command(model, file, out, *more):
    options = ["--out", str(out), "--keep", "id", "--shard-rows", "4", "--jit", "eager", "--verify", "never", *more]
    return [sys.executable, "-m", "onnx_lrp", "batch", model, file, *options]


def test_killed_at_random_moments_it_goes_on(case, tmp_path):
    """A few here; ``benchmarks/dataset.py --kills N`` does many, on a larger dataset."""
    model, file, whole = case
    rng = random.Random(0)
    out = tmp_path / "out"
    slow = "import onnx_lrp.dataset.work as w, time, sys; f = w.explained\n"
    slow += "w.explained = lambda e, part: time.sleep(0.1) or f(e, part)\n"
    slow += "print('ready', flush=True)\nfrom onnx_lrp.cli import main; main(sys.argv[1:])"
    for _ in range(3):
        asked = command(model, file, out, "--resume")
        process = subprocess.Popen([sys.executable, "-c", slow, *asked[3:]], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert process.stdout is not None
        process.stdout.readline()
        until = len(list((out / "relevance").glob("part-*"))) + 1 if (out / "relevance").exists() else 1
        while process.poll() is None and len(list(out.glob("relevance/part-*"))) < until:
            time.sleep(0.01)
        time.sleep(rng.random() / 5)
        process.kill()
        process.wait()
        process.stdout.close()
    assert 0 < len(list((out / "relevance").glob("part-*"))) < 7
    done = subprocess.run(command(model, file, out, "--resume"), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    same(shards(whole), shards(out))
    assert shards(whole, "errors") == shards(out, "errors")


def test_interrupted_it_says_so_and_goes_on(case, tmp_path, monkeypatch, capsys):
    model, file, whole = case
    from onnx_lrp.dataset import work

    real, seen = work.explained, []

    def interrupted(engine, window):
        seen.append(window)
        if len(seen) == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return real(engine, window)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # of a run in the background it would be ignored
    try:
        with monkeypatch.context() as patch:
            patch.setattr(work, "explained", interrupted)
            assert cli.run(command(model, file, tmp_path / "out")[3:]) == 5
    finally:
        signal.signal(signal.SIGINT, before)
    assert "interrupted; what is done is kept: the same command with --resume goes on" in capsys.readouterr().err
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["status"] == "stopped"
    assert list((tmp_path / "out").rglob(".*")) == []
    assert cli.run([*command(model, file, tmp_path / "out")[3:], "--resume"]) == 0
    complete(tmp_path / "out", whole)


def test_a_full_disk_is_5_and_what_is_done_is_kept(case, tmp_path):
    """No file may grow beyond a few kilobytes: the system's own refusal in the midst of a shard."""
    model, _, _ = case
    out = tmp_path / "out"
    big = parquet(tmp_path / "big.parquet", ids_of([3] * 40 + [400] * 40))
    asked = command(model, big, out)
    asked[asked.index("--shard-rows") + 1] = "20"
    small = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))"
    done = subprocess.run(apart.command(small, arguments=asked[3:]), capture_output=True, text=True, check=False)
    assert done.returncode == 5, done.stderr
    assert "can't be written: " in done.stderr
    assert "what is done is kept: the same command with --resume goes on" in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(out.rglob(".*")) == []
    assert len(list(out.glob("relevance/*"))) == 2
    done = subprocess.run([*asked, "--resume"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [r["row"] for r in shards(out)] == list(range(80))


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 128 KiB, which ``grow`` makes larger."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("a file system is mounted by root alone")
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(disk)], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(f"no file system can be mounted here: {made.stderr.strip()}")

    def grow() -> None:
        subprocess.run(["mount", "-o", "remount,size=16m", str(disk)], check=True)

    yield disk, grow
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_file_system_is_5_and_with_more_room_it_goes_on(case, tmp_path, small_disk):
    model, _, _ = case
    disk, grow = small_disk
    rows = ids_of([3] * 40 + [400] * 40)
    rows[5] = None
    big = parquet(tmp_path / "big.parquet", rows)
    asked = command(model, big, disk / "out")
    asked[asked.index("--shard-rows") + 1] = "10"
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    assert done.returncode == 5, done.stderr
    assert "can't be written: " in done.stderr
    assert "No space left on device" in done.stderr
    assert done.stderr.count("\n") == 1
    assert 0 < len(list((disk / "out").glob("relevance/part-*.parquet"))) < 8
    assert list((disk / "out" / "relevance").glob(".*")) == []
    done = subprocess.run([*asked, "--resume"], capture_output=True, text=True, check=False)  # as full as before
    assert done.returncode == 5, done.stderr
    grow()
    done = subprocess.run([*asked, "--resume"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [r["row"] for r in shards(disk / "out")] == [k for k in range(80) if k != 5]
    assert [(e["row"], e["kind"]) for e in shards(disk / "out", "errors")] == [(5, "null")]
    assert list((disk / "out").rglob(".*")) == []
