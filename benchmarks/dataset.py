"""Whole datasets: rows a second over those of the raw engine on the same batches, and memory from 10% to 100% of a long run.

    python benchmarks/dataset.py [--count N] [--long N] [--kills N] [--full] [--pairs N] [--settle SECONDS] [--jit MODE] [--json]

Sequences of 5 to 60 ids for the model that ships in the package, in a Parquet file. Raw: the batches that the run made, explained
again one after the other with nothing around it. Both read the model and trace it anew every time. The long run has a process of
its own. ``--kills N`` kills a run N times at random moments, goes on with it each time, and compares what comes out with a run that
was left alone.
"""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from _measure import AGAIN, arguments, fresh, head, line, machine, memory, options_of, ratio, turns

from onnx_lrp import demo
from onnx_lrp._lazy import start_quietly

SHORTEST, LONGEST = 5, 60
CLOSE = 1e-4  # of the largest relevance


def write(path: Path, count: int) -> None:
    """A Parquet file of ``count`` rows, made in parts so that it takes no memory: this process is measured."""
    import pyarrow as arrow
    from pyarrow import parquet

    rng = np.random.default_rng(0)
    words = len(demo.vocabulary())
    schema = arrow.schema({"id": arrow.int64(), "token_ids": arrow.list_(arrow.int64())})
    with parquet.ParquetWriter(path, schema) as writer:
        for first in range(0, count, 10_000):
            size = min(10_000, count - first)
            lengths = rng.integers(SHORTEST, LONGEST + 1, size)
            offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
            ids = arrow.ListArray.from_arrays(offsets, rng.integers(2, words, offsets[-1]))
            writer.write_table(arrow.table({"id": np.arange(first, first + size), "token_ids": ids}, schema))


def run(source: Path, out: Path, *, full: bool, jit: str, **options: Any) -> dict[str, Any]:
    """One run."""
    import onnx_lrp

    return onnx_lrp.explain_dataset(demo.model(), source, out, keep=["id"], per_step=not full, jit=jit, **options)


def batches(source: Path, folder: Path, *, full: bool, jit: str) -> list[Mapping[str, np.ndarray]]:
    """What the engine is given in a run."""
    import onnx_lrp

    seen: list[Mapping[str, np.ndarray]] = []
    real = onnx_lrp.Explainer.explain

    def spy(self: Any, inputs: Any, *arguments: Any, **options: Any) -> Any:
        seen.append(inputs)
        return real(self, inputs, *arguments, **options)

    with mock.patch.object(onnx_lrp.Explainer, "explain", spy):
        run(source, folder / "seen", full=full, jit=jit)
    return seen


def raw(given: Sequence[Mapping[str, np.ndarray]], *, jit: str) -> None:
    """The same batches, and nothing else."""
    import onnx_lrp

    explainer = onnx_lrp.load(demo.model(), jit="graph" if jit == "auto" else jit)  # as a dataset is
    for feeds in given:
        explainer.explain(feeds)


def speed(count: int, *, full: bool, pairs: int, settle: float, jit: str) -> dict[str, Any]:
    """Rows a second, over the raw engine's."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / "rows.parquet"
        write(source, count)
        given = batches(source, folder, full=full, jit=jit)
        times = iter(range(10**6))
        functions = {
            "dataset": lambda: run(source, folder / str(next(times)), full=full, jit=jit),
            "raw": lambda: raw(given, jit=jit),
        }
        seconds = turns(functions, pairs, settle=settle, warm=1)
        size = sum(path.stat().st_size for path in (folder / "seen" / "relevance").iterdir())
        both = {n: float(np.median([*seconds[n], *seconds[n + AGAIN]])) for n in functions}
        return {
            "rows": count,
            "batches": len(given),
            "rows_per_second": count / both["dataset"],
            "raw_rows_per_second": count / both["raw"],
            "over_raw": ratio(seconds, "raw", "dataset"),
            "bytes_in": source.stat().st_size / count,
            "bytes_out": size / count,
        }


def long(count: int, *, full: bool, jit: str) -> dict[str, Any]:
    """Memory of this process, in MiB, each second of one long run between 10% and 100% of its rows."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder / "rows.parquet", count)
        start_quietly()
        before = memory("VmRSS")
        now, over = [0], threading.Event()
        seen: list[tuple[int, float]] = []

        def sample() -> None:
            while not over.wait(1):
                seen.append((now[0], memory("VmRSS")))

        def reached(progress: Any) -> None:
            now[0] = progress.rows

        sampler = threading.Thread(target=sample)
        sampler.start()
        try:
            done = run(folder / "rows.parquet", folder / "out", full=full, jit=jit, progress=reached)
        finally:
            over.set()
            sampler.join()
        held = [mib for rows, mib in seen if rows >= count / 10]
        assert held, "over within a second: take more rows"
        found = {"10%": held[0], "least": min(held), "median": float(np.median(held)), "most": max(held), "100%": held[-1]}
        return {"rows": count, "before": before, **found, "peak": memory("VmHWM"), "seconds": done["seconds"]}


def kills(count: int, times: int, *, full: bool, jit: str) -> dict[str, Any]:
    """One run, killed again and again and gone on with, against one that was left alone.

    A quarter of the moments lie in the start, when the folder is read and swept; the others behind the first rows, so soon that all
    the kills hit before the run is through.
    """
    rng = random.Random(0)
    size = max(1, count // (4 * times))  # a life does two shards or so of 4 · times
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / "rows.parquet"
        write(source, count)
        (folder / "model.onnx").write_bytes(demo.model())
        command = [sys.executable, "-m", "onnx_lrp", "batch", str(folder / "model.onnx"), str(source), "--keep", "id", "--json"]
        command += ["--jit", jit, "--verify", "never", "--shard-rows", str(size), *([] if full else ["--sum", "features"])]
        begun, took = _watched([*command, "--out", str(folder / "whole")])
        done, lives, restarts = 0, [], 0
        while done < times:
            early = rng.random() < 0.25
            after = rng.uniform(0, begun) if early else rng.uniform(0, 1.2 * (took - begun) / times)
            if _killed([*command, "--out", str(folder / "out"), "--resume"], after, early=early):
                done += 1
                lives.append(len(list((folder / "out").glob("relevance/part-*"))))
            else:  # it was through before
                difference(folder / "whole", folder / "out", count)
                shutil.rmtree(folder / "out")
                restarts += 1
        subprocess.run([*command, "--out", str(folder / "out"), "--resume"], check=True, capture_output=True)
        left = [str(p) for p in (folder / "out").rglob(".*")]
        assert not left, left
        worst = difference(folder / "whole", folder / "out", count)
        return {"rows": count, "kills": done, "shards": -(-count // size), "done": lives, "restarts": restarts, "difference": worst}


def _watched(command: Sequence[str]) -> tuple[float, float]:
    """Seconds until the first rows, and in all."""
    start = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        process.stderr.readline()
        begun = time.monotonic() - start
        process.stderr.read()
    assert process.returncode == 0
    return begun, time.monotonic() - start


def _killed(command: Sequence[str], after: float, *, early: bool) -> bool:
    """Kill a run some seconds after its start, or after its first rows; False: it was through before."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        if not early:
            process.stderr.readline()
        time.sleep(after)
        through = process.poll() is not None
        process.send_signal(signal.SIGKILL)
        process.stderr.read()
    assert process.returncode in (-signal.SIGKILL, 0), process.returncode
    return not through and process.returncode == -signal.SIGKILL


def difference(left: Path, right: Path, count: int) -> float:
    """The largest difference of two runs, of the largest value of its column; all rows are there once, in their order."""
    from pyarrow import parquet

    whole, pieces = (parquet.read_table(run / "relevance") for run in (left, right))
    assert pieces.column("row").to_pylist() == list(range(count)), "rows are lost, doubled or out of order"
    worst = 0.0
    for name in whole.column_names:
        a, b = whole.column(name).combine_chunks(), pieces.column(name).combine_chunks()
        while hasattr(a, "values") and hasattr(a, "offsets"):
            assert a.offsets.equals(b.offsets), name
            a, b = a.values, b.values
        x, y = a.to_numpy(zero_copy_only=False).astype(float), b.to_numpy(zero_copy_only=False).astype(float)
        if name != "residual":
            worst = max(worst, float(np.abs(x - y).max() / max(np.abs(x).max(), 1e-30)))
    assert worst < CLOSE, worst
    return worst


def main() -> None:
    parser = arguments(__doc__, pairs=3)
    parser.add_argument("--count", type=int, default=20_000, metavar="N", help="sequences; 20,000")
    parser.add_argument("--no-speed", action="store_true", help="without the comparison with the raw engine")
    parser.add_argument("--long", type=int, default=200_000, metavar="N", help="sequences of the long run; 200,000; 0: none")
    parser.add_argument("--kills", type=int, default=0, metavar="N", help="kill a run so often; 0")
    parser.add_argument("--full", action="store_true", help="relevance of every feature instead of every step")
    options = options_of(parser)
    how = {"full": options.full, "jit": options.jit}
    if options.here:
        print(json.dumps(long(options.long, **how)))
        return
    start_quietly()
    found: dict[str, Any] = {}
    if not options.no_speed:
        found["speed"] = speed(options.count, pairs=options.pairs, settle=options.settle, **how)
    if options.long:
        more = ["--full"] if options.full else []
        found["memory"] = fresh(__file__, "--long", options.long, "--jit", options.jit, *more)
    if options.kills:
        found["kills"] = kills(options.count, options.kills, **how)
    if options.json:
        print(json.dumps(found))
        return
    if "speed" in found:
        s = found["speed"]
        print(head(["rows", "relevance", "rows/s", "raw engine", "over raw", "bytes in", "bytes out"]))
        cells = [f"{s['rows']:,}", "by feature" if options.full else "by step", f"{s['rows_per_second']:,.0f}"]
        print(
            line(
                [
                    *cells,
                    f"{s['raw_rows_per_second']:,.0f}",
                    f"{s['over_raw']:.2f}",
                    f"{s['bytes_in']:.0f}",
                    f"{s['bytes_out']:.0f}",
                ]
            )
        )
    if "memory" in found:
        m = found["memory"]
        names = ("before", "10%", "least", "median", "most", "100%", "peak")
        print("\n" + head(["rows", *names]))
        print(line([f"{m['rows']:,}", *(f"{m[k]:,.0f} MiB" for k in names)]))
    if "kills" in found:
        k = found["kills"]
        print(
            f"\nKilled {k['kills']} times, with {', '.join(map(str, k['done']))} of {k['shards']} shards done: "
            f"all {k['rows']:,} rows once, equal to an undisturbed run to {k['difference']:.1e}."
        )
    print(f"\n{machine(settle=options.settle, pairs=options.pairs, jit=options.jit)}")


if __name__ == "__main__":
    main()
